//! Freezes and thaws all processes of a group.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::Mode;

use super::controllers::{Controllers, Version};
use super::kernfs;
use super::part::Part;
use crate::sys::timeout;

/// The interval at which `freeze` checks whether the group was thawed again. No event reports that.
const LOOK: Duration = Duration::from_millis(20);

/// Freezes the group and waits until every process is frozen. Returns false if that takes longer
/// than `timeout`; on v1 a process in uninterruptible sleep can delay it without end. Fails with
/// ECANCELED if the group is thawed meanwhile.
pub(super) fn freeze(part: &Part, timeout: Duration) -> nix::Result<bool> {
    let deadline = Instant::now() + timeout;
    match part.version {
        Version::V1 => freeze_v1(part, deadline),
        Version::V2 => freeze_v2(part, deadline),
    }
}

/// Lets every process of the group run again.
pub(super) fn thaw(part: &Part) -> nix::Result<()> {
    match part.version {
        Version::V1 => kernfs::write(part.dir(), c"freezer.state", "THAWED"),
        Version::V2 => kernfs::write(part.dir(), c"cgroup.freeze", "0"),
    }
}

/// Lets run again what is frozen in v1 groups below the group, whose program may have frozen them. A
/// frozen v1 task takes its SIGKILL when it is thawed; on v2 it takes it frozen.
pub(super) fn thaw_below(part: &Part) {
    let freezes = part.version == Version::V1 && part.controllers.contains(Controllers::FREEZER);
    if freezes && kernfs::subgroups(part.dir()).is_ok_and(|below| !below.is_empty()) {
        let mut thaw = |dir: BorrowedFd<'_>| {
            let _ = kernfs::write(dir, c"freezer.state", "THAWED");
            Ok(())
        };
        let _ = kernfs::walk(part.dir(), &mut thaw, &mut |_, _| Ok(()));
    }
}

/// Freezes a v1 group. There is no event to poll for: `FREEZING` becomes `FROZEN` when the file is
/// read after the last task has stopped.
fn freeze_v1(part: &Part, deadline: Instant) -> nix::Result<bool> {
    kernfs::write(part.dir(), c"freezer.state", "FROZEN")?;
    let mut pause = Duration::from_micros(50);
    loop {
        match kernfs::read(part.dir(), c"freezer.state")?.trim() {
            "FROZEN" => return Ok(true),
            "THAWED" => return Err(Errno::ECANCELED),
            _ => {}
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause.min(deadline - now));
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Freezes a v2 group. A reader of `cgroup.events` gets POLLPRI for each change after its last
/// read.
fn freeze_v2(part: &Part, deadline: Instant) -> nix::Result<bool> {
    let io = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let mut events =
        File::from(openat(part.dir(), c"cgroup.events", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
    kernfs::write(part.dir(), c"cgroup.freeze", "1")?;
    loop {
        let mut text = String::new();
        events.rewind().map_err(io)?;
        events.read_to_string(&mut text).map_err(io)?;
        if kernfs::field(&text, "frozen") == Some(1) {
            return Ok(true);
        }
        if kernfs::read(part.dir(), c"cgroup.freeze")?.trim() == "0" {
            return Err(Errno::ECANCELED);
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        let next = timeout::until(deadline.min(now + LOOK));
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], next) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Returns the nearest group, from `part` upwards, whose own setting is frozen, if a process born
/// in `part` would be frozen. A new group inherits the frozen state of the groups above, so one
/// read answers for all of them.
pub(super) fn frozen_above(part: &Part) -> nix::Result<Option<PathBuf>> {
    let (file, frozen): (_, fn(&str) -> bool) = match part.version {
        Version::V1 => (c"freezer.state", |text| text.trim() != "THAWED"),
        Version::V2 => (c"cgroup.events", |text| kernfs::field(text, "frozen") == Some(1)),
    };
    if !kernfs::read_optional(part.dir(), file)?.is_some_and(|text| frozen(&text)) {
        return Ok(None);
    }
    let itself = |dir: &&Path| {
        let file = if part.version == Version::V1 { "freezer.self_freezing" } else { "cgroup.freeze" };
        std::fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == "1")
    };
    Ok(Some(part.path.ancestors().find(itself).unwrap_or(&part.path).to_owned()))
}
