//! A watch over tools that do not end, which kills them: `youki run` waits forever if its program
//! ends before the wait begins.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The longest time of a run.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The channel to the watching thread, which learns of each process, and of its end before it is
/// reaped.
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

/// Waits for the end of the process, which is killed with SIGKILL after [`LIMIT`]. One wait at a
/// time.
pub fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32);
    tell(Some(pid));
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    tell(None);
    ended?;
    child.wait()
}
