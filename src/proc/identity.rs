//! One process for ever: never another one that has got its number.
//!
//! A pid is given again, and means nothing after a reboot. The time at which the process began (field 22 of
//! /proc/PID/stat, in clock ticks since the boot) tells two processes of one number apart, and the boot id two boots.
//! Since Linux 6.9 the inode of a pidfd does, by itself, as long as the machine is up.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};

use crate::sys::pidfd;

/// `PID_FS_MAGIC`.
const PIDFS: FsType = FsType(0x5049_4446);

/// What is written down of a process, and compared later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: i32,
    start: u64,
    boot: String,
    /// Of the pidfd, where pidfds have inodes of their own.
    inode: Option<u64>,
}

impl Identity {
    /// The process behind a pidfd; ESRCH if it has been reaped, or is one of another pid namespace.
    pub(crate) fn of(process: BorrowedFd<'_>) -> Result<Identity, Errno> {
        let pid = pidfd::pid_of(process).ok_or(Errno::ESRCH)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| Errno::ESRCH)?;
        let start = start_time(&stat).ok_or(Errno::EIO)?;
        // As long as it had not been reaped after the reading, the number was its own while it was read.
        if pidfd::pid_of(process) != Some(pid) {
            return Err(Errno::ESRCH);
        }
        Ok(Identity { pid, start, boot: boot_id()?, inode: inode(process) })
    }

    /// A descriptor of the process, if it still runs. Its zombie does not.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>, Errno> {
        if boot_id()? != self.boot {
            return Ok(None);
        }
        let process = match pidfd::open_any(self.pid) {
            Err(Errno::ESRCH) => return Ok(None),
            other => other?,
        };
        let same = match (self.inode, inode(process.as_fd())) {
            (Some(then), Some(now)) => then == now,
            _ => match Identity::of(process.as_fd()) {
                Err(Errno::ESRCH) => false,
                now => now?.start == self.start,
            },
        };
        Ok(Some(process).filter(|process| same && runs(process.as_fd())))
    }

    /// A line to be read by [`parse`](Identity::parse).
    pub(crate) fn to_line(&self) -> String {
        let inode = self.inode.map_or_else(|| "-".to_owned(), |inode| inode.to_string());
        format!("{} {} {} {inode}\n", self.pid, self.start, self.boot)
    }

    pub(crate) fn parse(line: &str) -> Option<Identity> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [pid, start, boot, inode] = words[..] else { return None };
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        let inode = if inode == "-" { None } else { Some(inode.parse().ok()?) };
        Some(Identity { pid, start: start.parse().ok()?, boot: boot.to_owned(), inode })
    }
}

/// The command's name stands in brackets, and may hold any byte.
fn start_time(stat: &str) -> Option<u64> {
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> Result<String, Errno> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let text = text.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(text.trim().to_owned())
}

fn inode(process: BorrowedFd<'_>) -> Option<u64> {
    let has_own = fstatfs(process).is_ok_and(|fs| fs.filesystem_type() == PIDFS);
    has_own.then(|| fstat(process).ok()).flatten().map(|stat| stat.st_ino)
}

/// A pidfd is readable from the process's end on; a directory of /proc is no pidfd, and tells by itself.
fn runs(process: BorrowedFd<'_>) -> bool {
    let is_pidfd = fs::read_link(format!("/proc/thread-self/fd/{}", process.as_raw_fd()))
        .is_ok_and(|link| link.as_os_str().to_string_lossy().contains("pidfd"));
    if !is_pidfd {
        return pidfd::send_signal(process, 0).is_ok();
    }
    !poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_found_again_and_no_other_in_its_place() {
        let mut child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let process = pidfd::open_any(child.id() as i32).unwrap();
        let identity = Identity::of(process.as_fd()).unwrap();
        assert_eq!(Identity::parse(&identity.to_line()), Some(identity.clone()));
        assert!(identity.open().unwrap().is_some());
        let later = Identity { start: identity.start + 1, inode: None, ..identity.clone() };
        assert!(later.open().unwrap().is_none(), "another process of this number");
        let rebooted = Identity { boot: "0".into(), ..identity.clone() };
        assert!(rebooted.open().unwrap().is_none(), "another boot");
        if let Some(inode) = identity.inode {
            assert!(Identity { inode: Some(inode + 1), ..identity.clone() }.open().unwrap().is_none());
        }
        child.kill().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while identity.open().unwrap().is_some() {
            assert!(std::time::Instant::now() < until, "its zombie counts as running");
        }
        child.wait().unwrap();
        assert!(identity.open().unwrap().is_none());
        assert_eq!(Identity::of(process.as_fd()), Err(Errno::ESRCH));
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20\n";
        assert_eq!(start_time(stat), Some(4242));
        crate::fuzz::texts(&[stat], |text| _ = start_time(text));
        crate::fuzz::texts(&["1 2 boot 3\n", "1 2 boot -\n"], |text| _ = Identity::parse(text));
        assert_eq!(Identity::parse("0 1 boot -"), None);
    }
}
