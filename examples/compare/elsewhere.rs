//! Work in a mount namespace that lacks one of the host's mounts: crun and youki refuse a v2
//! hierarchy beside those of v1.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use super::host::keep_to_ourselves;

/// Returns the place of the v2 hierarchy on a hybrid host, which has controllers in v1 hierarchies
/// as well.
pub fn hybrid() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut v2 = None;
    let mut has_v1 = false;
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        match right.split(' ').next() {
            Some("cgroup2") => v2 = left.split(' ').nth(4).map(PathBuf::from),
            Some("cgroup") => has_v1 |= !right.contains("name="),
            _ => {}
        }
    }
    v2.filter(|_| has_v1)
}

/// A thread whose mount namespace lacks one mount. The thread works for other threads.
#[derive(Debug)]
pub struct Elsewhere<J, R> {
    jobs: Sender<J>,
    results: Receiver<R>,
}

impl<J: Send + 'static, R: Send + 'static> Elsewhere<J, R> {
    pub fn without(mounted: PathBuf, mut work: impl FnMut(J) -> R + Send + 'static) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (done, results) = mpsc::channel();
        let (say, said) = mpsc::channel();
        thread::Builder::new().name("elsewhere".to_owned()).spawn(move || {
            let moved = unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
                .and_then(|()| keep_to_ourselves())
                .and_then(|()| umount2(&mounted, MntFlags::MNT_DETACH));
            let there = moved.is_ok();
            let _ = say.send(moved);
            while let (true, Ok(job)) = (there, todo.recv()) {
                let _ = done.send(work(job));
            }
        })?;
        match said.recv() {
            Ok(moved) => moved?,
            Err(_) => return Err(io::Error::other("the thread has ended")),
        }
        Ok(Elsewhere { jobs, results })
    }

    /// Gives the thread a job and returns the result. Returns `None` if the thread has ended.
    pub fn ask(&self, job: J) -> Option<R> {
        self.jobs.send(job).ok()?;
        self.results.recv().ok()
    }
}
