//! What is done to the host for a measurement, in a mount namespace of its own, and for as long as it takes.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use ringfence::Child;

use super::ground::Ground;
use super::rows;

/// Mounts that are the host's to everything that this process starts, and to nobody else.
#[derive(Debug)]
pub struct Mounts(Option<PathBuf>);

impl Mounts {
    /// `count` of them. This process has one thread.
    pub fn new(count: usize) -> io::Result<Self> {
        if count == 0 {
            return Ok(Mounts(None));
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        keep_to_ourselves()?;
        let dir = std::env::temp_dir().join(format!("ringfence-mounts-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let mounts = Mounts(Some(dir.clone()));
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        for i in 1..count {
            let place = dir.join(i.to_string());
            fs::create_dir(&place)?;
            mount(Some(&dir), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(mounts)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            let _ = umount2(dir, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(dir);
        }
    }
}

/// What is mounted in this namespace from now on, nobody else's sees.
fn keep_to_ourselves() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Sandboxes of this crate, in which a program waits for nothing.
pub fn living(ground: &Ground, count: usize) -> ringfence::Result<Vec<Child>> {
    let sandbox = rows::full(&*ground.root).command("/pause");
    (0..count).map(|_| sandbox.spawn()).collect()
}

/// Where this host has controllers in v1 hierarchies and a v2 hierarchy beside them: a hybrid host.
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

/// A thread whose mount namespace lacks one mount, and which works for others.
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

    /// `None` if the thread has ended.
    pub fn ask(&self, job: J) -> Option<R> {
        self.jobs.send(job).ok()?;
        self.results.recv().ok()
    }
}
