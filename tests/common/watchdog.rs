//! An end for a test that hangs: it fails with what it waited for, instead of standing still until
//! whatever runs the tests gives up without a word.

use std::io::{Write, stderr};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a test may take. On an emulated machine the slowest takes two minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
const INTERVAL: Duration = Duration::from_secs(1);

/// The test whose turn it is, and when that turn began.
static RUNNING: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Begins to watch the test of this thread.
pub fn begin() {
    static STARTED: Once = Once::new();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((test, Instant::now()));
    STARTED.call_once(|| drop(thread::Builder::new().name("watchdog".into()).spawn(watch).unwrap()));
}

/// Ends the watch that [`begin`] began.
pub fn end() {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn watch() {
    let patience = PATIENCE + asked_for();
    loop {
        thread::sleep(INTERVAL);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((test, began)) = running
            && began.elapsed() > patience
        {
            let children = super::State::now().children;
            let each: String = children.iter().map(|pid| super::what_is(pid)).collect();
            // The harness keeps what print macros of this thread say for a test that will not end.
            let _ = writeln!(stderr(), "{test} hangs: {patience:?} are over\n{}{each}", super::what_is("self"));
            std::process::exit(101);
        }
    }
}

/// Returns the time that whoever runs the soak wants it to take.
fn asked_for() -> Duration {
    let seconds = std::env::var("RINGFENCE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
