//! A future run to its end by a caller that is not asynchronous, or is and doesn't care.

use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result, Step};

/// Enough to keep the disk and several connections busy; what computes or waits for disks has threads of its own.
const WORKERS: usize = 2;
/// For writers to notice that nothing more comes, and to let go of their locks.
const GRACE: Duration = Duration::from_secs(1);

/// Runs it in a runtime of its own on a thread of its own: a caller inside a runtime may not start another on its thread.
pub(super) fn run<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let work = || -> Result<T> {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let builder = builder.worker_threads(WORKERS).thread_name("ringfence-pull").enable_all();
            let runtime = builder.build().map_err(|error| Error::io(Step::Registry, &error))?;
            let result = runtime.block_on(future);
            // A credential helper or a name server that does not answer is not waited for.
            runtime.shutdown_timeout(GRACE);
            Ok(result)
        };
        let thread = thread::Builder::new().name("ringfence-pull".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Error::io(Step::Registry, &error))?;
        // Only a listener of the caller's can panic.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What to say of a task that did not come to its end.
pub(super) fn died(error: &tokio::task::JoinError) -> Error {
    Error::message(ErrorKind::Setup, Step::Registry, error.to_string())
}
