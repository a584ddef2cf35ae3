//! `events`: what a container uses, and that memory has run out, as lines of JSON.

use std::time::{Duration, Instant};

use ringfence::Event;
use ringfence::oci::{Runtime, Status, oom_event, stats_event};

use super::{Failure, say};

pub fn run(runtime: &Runtime, id: &str, stats: bool, interval: Duration) -> Result<(), Failure> {
    if interval.is_zero() {
        return Err("--interval: it is not greater than 0".into());
    }
    let container = runtime.open(id)?;
    if stats {
        return say(&stats_event(id, &container.stats()?));
    }
    let mut events = container.events()?;
    let mut next = Instant::now() + interval;
    loop {
        match events.next(Some(next.saturating_duration_since(Instant::now())))? {
            Some(Event::OutOfMemory { .. }) => say(&oom_event(id))?,
            Some(Event::Exited) => return Ok(()),
            _ => {}
        }
        if Instant::now() >= next {
            match container.stats() {
                Ok(stats) => say(&stats_event(id, &stats))?,
                // It has ended just now, and that comes as an event.
                Err(_) if container.state().is_ok_and(|state| state.status == Status::Stopped) => {}
                Err(error) => return Err(error.into()),
            }
            next = Instant::now() + interval;
        }
    }
}
