//! Tools that do not end are ended: `youki run` waits for good where its program ends before it begins to wait.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// What a run may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Who watches; it hears of each process, and of its end, before that is reaped.
static WATCH: OnceLock<Mutex<Sender<Option<Pid>>>> = OnceLock::new();

fn tell(what: Option<Pid>) {
    let watch = WATCH.get_or_init(|| {
        let (tell, told) = mpsc::channel::<Option<Pid>>();
        thread::spawn(move || {
            while let Ok(what) = told.recv() {
                let Some(pid) = what else { continue };
                if told.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        });
        Mutex::new(tell)
    });
    let _ = watch.lock().unwrap_or_else(PoisonError::into_inner).send(what);
}

/// Waits for its end, which comes by SIGKILL after [`LIMIT`]. One at a time.
pub fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32);
    tell(Some(pid));
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    tell(None);
    ended?;
    child.wait()
}
