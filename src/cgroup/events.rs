//! What happens in a group: counts in the group's files, and descriptors that wake when they
//! change.
//!
//! | | v2 | v1 |
//! | --- | --- | --- |
//! | out of memory | inotify(7) of `memory.events` | an eventfd in `cgroup.event_control` |
//! | limit of memory | the same | `memory.failcnt`, looked at from time to time |
//! | limit of processes | inotify of `pids.events` | the same, and looked at: some kernels (6.18) do not tell |
//! | frozen, thawed | inotify of `cgroup.events` | `freezer.state`, looked at from time to time |
//!
//! The kernel tells of a change after it has counted, except that v1 tells of memory that has run
//! out before it kills. The time from look to look covers that.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd;

use super::controllers::{Controllers, Version};
use super::group::Group;
use super::kernfs::{self, field};
use super::part::Part;
use super::pressure::{self, PressureTrigger, PsiResource, PsiThreshold};
use super::{pids, v1};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{by_fd, table};

/// The time from look to look for what the kernel does not tell of.
const LOOK: Duration = Duration::from_millis(100);

/// The counts of a group since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) oom_kills: u64,
    pub(crate) memory_high_hits: u64,
    pub(crate) memory_limit_hits: u64,
    pub(crate) pids_limit_hits: u64,
    pub(crate) frozen: bool,
}

/// A watch of a group.
#[derive(Debug)]
pub(crate) struct GroupWatch {
    /// The group's directories.
    parts: Vec<Part>,
    inotify: Option<Inotify>,
    /// The descriptor by which v1 tells that memory has run out, and the file that it is about.
    oom: Option<(EventFd, OwnedFd)>,
    timer: Option<TimerFd>,
}

impl Group {
    /// Watches the group.
    pub(crate) fn watch(&self) -> Result<GroupWatch> {
        let again = |part: &Part| part.again().map_err(|errno| part.error(Step::Events, errno));
        let parts = self.parts().map(again).collect::<Result<Vec<_>>>()?;
        let mut watch = GroupWatch { parts, inotify: None, oom: None, timer: None };
        let failed = |errno| Error::new(Step::Events, errno).with_kind(ErrorKind::Control);
        watch.start().map_err(failed)?;
        Ok(watch)
    }
}

impl GroupWatch {
    fn start(&mut self) -> nix::Result<()> {
        let mut told: Vec<(&Part, &CStr)> = Vec::new();
        let mut is_silent = false;
        for part in &self.parts {
            let has = |controller| part.controllers.contains(controller);
            if has(Controllers::PIDS) {
                told.push((part, c"pids.events"));
            }
            match part.version {
                Version::V2 => {
                    told.push((part, c"cgroup.events"));
                    told.extend(has(Controllers::MEMORY).then_some((part, c"memory.events")));
                }
                Version::V1 => is_silent |= has(Controllers::MEMORY) || has(Controllers::PIDS),
            }
        }
        is_silent |= part_with(&self.parts, Controllers::FREEZER).is_some_and(|part| part.version == Version::V1);
        let inotify = inotify_of(&told)?;
        let memory = part_with(&self.parts, Controllers::MEMORY).filter(|part| part.version == Version::V1);
        // Whoever may not write to `cgroup.event_control` looks from time to time.
        let oom = memory.and_then(|part| oom_of(part).ok());
        let timer = is_silent.then(timer).transpose()?;
        (self.inotify, self.oom, self.timer) = (inotify, oom, timer);
        Ok(())
    }

    /// Returns the descriptors that become readable when a count may have changed.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let oom = self.oom.iter().map(|(told, _)| told.as_fd());
        self.inotify.iter().map(AsFd::as_fd).chain(oom).chain(self.timer.iter().map(AsFd::as_fd))
    }

    /// Makes the descriptors unreadable until the next change. The counts are to be read after
    /// that.
    pub(crate) fn hush(&self) {
        let mut bytes = [0; 4096];
        for fd in self.fds() {
            while unistd::read(fd, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
        }
    }

    /// Reads the counts. What cannot be read, because the group is gone, stays as it was.
    pub(crate) fn read(&self, counts: &mut Counts) {
        for part in &self.parts {
            let has = |controller| part.controllers.contains(controller);
            let set = |count: &mut u64, now: Option<u64>| *count = now.unwrap_or(0).max(*count);
            if has(Controllers::PIDS) {
                set(&mut counts.pids_limit_hits, pids::limit_hits(part).ok().flatten());
            }
            if has(Controllers::MEMORY) && part.version == Version::V1 {
                set(&mut counts.oom_kills, v1::oom_kills(part).ok().flatten());
                set(&mut counts.memory_limit_hits, part.number(c"memory.failcnt").ok().flatten());
            } else if has(Controllers::MEMORY)
                && let Ok(Some(text)) = part.text(c"memory.events")
            {
                set(&mut counts.oom_kills, field(&text, "oom_kill"));
                set(&mut counts.memory_high_hits, field(&text, "high"));
                set(&mut counts.memory_limit_hits, field(&text, "max"));
            }
        }
        if let Some(part) = part_with(&self.parts, Controllers::FREEZER) {
            counts.frozen = match part.version {
                Version::V1 => part.text(c"freezer.state").ok().flatten().is_some_and(|text| text.trim() == "FROZEN"),
                Version::V2 => {
                    part.text(c"cgroup.events").ok().flatten().and_then(|text| field(&text, "frozen")) == Some(1)
                }
            };
        }
    }

    /// Sets up a trigger, and returns it with the time lost so far.
    pub(crate) fn trigger(
        &self,
        resource: PsiResource,
        threshold: PsiThreshold,
    ) -> Result<(PressureTrigger, Duration)> {
        let part = self.v2().ok_or_else(pressure::without_v2)?;
        let trigger = pressure::trigger(part, resource, threshold)?;
        let lost = pressure::lost(part, resource, threshold)?;
        Ok((trigger, lost))
    }

    /// Returns the time lost so far, as the threshold counts it, or `None` if the group is gone.
    pub(crate) fn lost(&self, resource: PsiResource, threshold: PsiThreshold) -> Option<Duration> {
        pressure::lost(self.v2()?, resource, threshold).ok()
    }

    fn v2(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.version == Version::V2)
    }
}

fn part_with(parts: &[Part], controller: Controllers) -> Option<&Part> {
    parts.iter().find(|part| part.controllers.contains(controller))
}

/// Watches these files, of which the group may lack some.
fn inotify_of(files: &[(&Part, &CStr)]) -> nix::Result<Option<Inotify>> {
    if files.is_empty() {
        return Ok(None);
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    for (part, file) in files {
        let dir = part.dir();
        let path = kernfs::join(by_fd::path_of(&dir).as_ref(), file);
        match inotify.add_watch(path.as_os_str().as_bytes(), AddWatchFlags::IN_MODIFY) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Some(inotify))
}

/// Has the kernel tell when memory runs out in a v1 group: `cgroup.event_control`.
fn oom_of(part: &Part) -> nix::Result<(EventFd, OwnedFd)> {
    let told = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(part.dir(), c"memory.oom_control", flags, Mode::empty()).and_then(table::above_stdio)?;
    let line = format!("{} {}", told.as_fd().as_raw_fd(), file.as_raw_fd());
    kernfs::write(part.dir(), c"cgroup.event_control", &line)?;
    Ok((told, file))
}

fn timer() -> nix::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    timer.set(Expiration::Interval(LOOK.into()), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::path::Path;

    fn watch_of(dir: &Path, version: Version) -> GroupWatch {
        let controllers = Controllers::MEMORY | Controllers::PIDS | Controllers::FREEZER;
        let parts = vec![Part::open(version, controllers, dir, dir).unwrap()];
        let mut watch = GroupWatch { parts, inotify: None, oom: None, timer: None };
        watch.start().unwrap();
        watch
    }

    fn wakes(watch: &GroupWatch, wait: u16) -> bool {
        let mut fds: Vec<_> = watch.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(wait)).unwrap() > 0
    }

    fn dir_of(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("ringfence-events-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|(file, text)| std::fs::write(dir.join(file), text).unwrap());
        dir
    }

    #[test]
    fn a_v2_group_wakes_for_each_of_its_files_and_for_nothing_else() {
        let files = [
            ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"),
            ("pids.events", "max 0\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
        ];
        let dir = dir_of("v2", &files);
        let watch = watch_of(&dir, Version::V2);
        let (mut counts, zero) = (Counts::default(), Counts::default());
        watch.read(&mut counts);
        assert!(watch.timer.is_none() && !wakes(&watch, 150) && counts == zero);
        for (file, text, want) in [
            (
                "memory.events",
                "high 3\nmax 2\noom_kill 1\n",
                Counts { oom_kills: 1, memory_high_hits: 3, memory_limit_hits: 2, ..zero },
            ),
            ("pids.events", "max 5\n", Counts { pids_limit_hits: 5, ..zero }),
            ("cgroup.events", "populated 1\nfrozen 1\n", Counts { frozen: true, ..zero }),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
            assert!(wakes(&watch, 10_000), "{file}");
            watch.hush();
            assert!(!wakes(&watch, 0), "{file}");
            let mut counts = Counts::default();
            watch.read(&mut counts);
            let (_, before) = files.iter().find(|(name, _)| *name == file).unwrap();
            assert_eq!(counts, want, "{file}");
            std::fs::write(dir.join(file), before).unwrap();
            watch.hush();
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let mut counts = Counts { oom_kills: 4, ..zero };
        watch.read(&mut counts);
        assert_eq!(counts.oom_kills, 4, "what was counted stays when the group is gone");
    }

    #[test]
    fn a_v1_group_is_looked_at_from_time_to_time() {
        let files = [("memory.oom_control", "oom_kill 2\n"), ("memory.failcnt", "7\n"), ("freezer.state", "FROZEN\n")];
        let dir = dir_of("v1", &files);
        let watch = watch_of(&dir, Version::V1);
        assert!(wakes(&watch, 10_000));
        let mut counts = Counts::default();
        watch.read(&mut counts);
        assert_eq!(counts, Counts { oom_kills: 2, memory_limit_hits: 7, frozen: true, ..Counts::default() });
        watch.hush();
        assert!(!wakes(&watch, 0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
