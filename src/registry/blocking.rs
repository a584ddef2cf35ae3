//! Runs a future to its end for a caller that is not asynchronous, or that accepts to block its
//! runtime's thread.

use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result, Step};

/// The number of worker threads. They keep the disk and several connections busy; computations and
/// disk access have threads of their own.
const WORKERS: usize = 2;
/// The time that writers have to notice the end and to release their locks.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the future in a new runtime on a new thread, as a thread inside of a runtime must not start
/// another runtime.
pub(super) fn run<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let work = || -> Result<T> {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let builder = builder.worker_threads(WORKERS).thread_name("ringfence-pull").enable_all();
            let runtime = builder.build().map_err(|error| Error::io(Step::Registry, &error))?;
            let result = runtime.block_on(future);
            // The shutdown does not wait for a credential helper or name server that does not
            // answer.
            runtime.shutdown_timeout(GRACE);
            Ok(result)
        };
        let thread = thread::Builder::new().name("ringfence-pull".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Error::io(Step::Registry, &error))?;
        // Only a listener of the caller can panic.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns the error for a task that did not end normally.
pub(super) fn task_failed(error: &tokio::task::JoinError) -> Error {
    Error::message(ErrorKind::Setup, Step::Registry, error.to_string())
}
