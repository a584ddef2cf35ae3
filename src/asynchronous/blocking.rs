//! Calls that block, on the threads that the runtime has for them.

use std::sync::LazyLock;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result, Step};

/// The turns of one sort of calls. Without turns, the runtime would start a thread for each of many
/// sandboxes that start or end at once, and none of them would be sooner.
pub(super) type Turns = LazyLock<Semaphore>;

pub(super) static SPAWNS: Turns = LazyLock::new(turns);
pub(super) static ENDS: Turns = LazyLock::new(turns);

fn turns() -> Semaphore {
    Semaphore::new(2 * thread::available_parallelism().map_or(2, usize::from).max(2))
}

/// Returns the runtime of this task.
pub(super) fn runtime(step: Step) -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        Error::message(ErrorKind::Control, step, "there is no tokio runtime here")
            .hint("make this call in a task, or after Runtime::enter()")
    })
}

/// Does `work` in its turn, on another thread. The work is done to its end even if the future is
/// dropped after it has begun.
pub(super) async fn run<T: Send + 'static>(
    turns: &'static Turns,
    step: Step,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = runtime(step)?;
    let failed = |text: String| Error::message(ErrorKind::Control, step, text);
    let turn = turns.acquire().await.map_err(|error| failed(error.to_string()))?;
    let work = move || {
        let result = work();
        drop(turn);
        result
    };
    runtime.spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(format!("the runtime gave it up: {error}"))))
}
