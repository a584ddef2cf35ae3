//! The stream of what happens to a sandbox, for tasks.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::blocking;
use crate::child::{Event, Events};
use crate::error::{Error, Result, Step};

/// A stream of what happens to a sandbox, for tasks of `tokio`: [`Events`] whose wait is a future.
///
/// ```
/// use ringfence::{Event, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut child = Sandbox::new().command("true").spawn_async().await?;
/// let mut events = child.events()?;
/// while let Some(event) = events.next().await? {
///     println!("{event:?}");
/// }
/// assert!(child.wait().await?.success());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncEvents(AsyncFd<Events>);

impl AsyncEvents {
    /// Takes a stream into the runtime of this task.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`](crate::ErrorKind::Control) outside of a runtime, and the
    /// errno if the runtime cannot watch the descriptor.
    pub fn new(events: Events) -> Result<AsyncEvents> {
        blocking::runtime(Step::Events)?;
        watch(events).map(AsyncEvents).map_err(|error| Error::io(Step::Events, &error))
    }

    /// Waits for the next event. Returns `None` after [`Exited`](Event::Exited). The future can be
    /// dropped: no event is lost.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Events::next`].
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let events = self.0.get_mut();
            if let Some(event) = events.next(Some(Duration::ZERO))? {
                return Ok(Some(event));
            }
            if events.has_ended() {
                return Ok(None);
            }
            // What comes after the look above makes the descriptor ready again.
            self.0.readable().await.map_err(|error| Error::io(Step::Events, &error))?.clear_ready();
        }
    }

    /// Returns the stream, to watch more: [`Events::watch_pressure`].
    pub fn get_mut(&mut self) -> &mut Events {
        self.0.get_mut()
    }
}

/// Registers the descriptor with the reactor.
#[allow(deprecated, reason = "its replacement is an unsafe call, which only newer versions have")]
fn watch(events: Events) -> io::Result<AsyncFd<Events>> {
    // The descriptor stays the same one, and open, as long as its owner lives.
    AsyncFd::with_interest(events, Interest::READABLE)
}
