//! The identity of a process, which no other process ever has.
//!
//! A pid is reused, and has no meaning after a reboot. The start time of the process (field 22 of
//! /proc/PID/stat, in clock ticks since boot; proc_pid_stat(5)) distinguishes two processes of one
//! pid, and the boot id distinguishes two boots. Since Linux 6.9, the inode of a pidfd alone
//! identifies a process until the next boot.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use crate::sys::fork_mark::PerProcess;
use crate::sys::shortage::shortage_or;
use crate::sys::{by_fd, pidfd, table};

/// `PID_FS_MAGIC`.
const PIDFS: FsType = FsType(0x5049_4446);

/// Returns the pid of a process as the processes of its own pid namespace see it.
#[cfg(feature = "oci")]
pub(crate) fn pid_inside(pid: i32) -> Result<u32, Errno> {
    pids_inside(&pid.to_string())?.last().copied().ok_or(Errno::EIO)
}

/// Returns the pids of a process, also of a zombie, from that in this process's pid namespace to
/// that in its own: proc_pid_status(5). The process is given by the name of its directory in /proc.
pub(crate) fn pids_inside(process: &str) -> Result<Vec<u32>, Errno> {
    let status = by_fd::short_text(format!("/proc/{process}/status").as_ref()).map_err(|_| Errno::ESRCH)?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).ok_or(Errno::EIO)?;
    pids.split_whitespace().map(|pid| pid.parse().map_err(|_| Errno::EIO)).collect()
}

/// The identity of a process, which can be stored and compared later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: i32,
    start: u64,
    boot: String,
    /// The inode of the pidfd, on kernels where every pidfd has its own.
    inode: Option<u64>,
}

impl Identity {
    /// Returns the identity of the process behind a pidfd. Fails with ESRCH if the process was
    /// reaped, or is in another pid namespace.
    pub(crate) fn of(process: BorrowedFd<'_>) -> Result<Identity, Errno> {
        let pid = pidfd::find_pid(process)?;
        let stat = by_fd::short_text(format!("/proc/{pid}/stat").as_ref())
            .map_err(|error| shortage_or(&error, Errno::ESRCH))?;
        let start = start_time(&stat).ok_or(Errno::EIO)?;
        // If the process was not reaped before this check, the pid was its own during the read.
        if pidfd::pid_of(process) != Some(pid) {
            return Err(Errno::ESRCH);
        }
        Ok(Identity { pid, start, boot: boot_id()?, inode: inode(process) })
    }

    /// Returns a pidfd of the process if it still runs, and `None` for a zombie.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>, Errno> {
        if boot_id()? != self.boot {
            return Ok(None);
        }
        let process = match pidfd::open_any(self.pid) {
            Err(Errno::ESRCH) => return Ok(None),
            other => other?,
        };
        let same = self.is_of(process.as_fd())?;
        Ok(Some(process).filter(|process| same && runs(process.as_fd())))
    }

    /// Returns a pidfd of the process as long as nobody has reaped it: also of a zombie.
    pub(crate) fn find(&self) -> Result<Option<OwnedFd>, Errno> {
        if boot_id()? != self.boot {
            return Ok(None);
        }
        let process = match pidfd::open(self.pid).and_then(table::above_stdio) {
            // EINVAL: the number is that of a thread.
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            other => other?,
        };
        Ok(self.is_of(process.as_fd())?.then_some(process))
    }

    /// Returns whether this is the identity of a process that has the pid.
    fn is_of(&self, process: BorrowedFd<'_>) -> Result<bool, Errno> {
        match (self.inode, inode(process)) {
            (Some(then), Some(now)) => Ok(then == now),
            _ => match Identity::of(process) {
                Err(Errno::ESRCH) => Ok(false),
                now => Ok(now?.start == self.start),
            },
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the wait status of a zombie, which /proc/PID/stat shows since 3.5. To those who may
    /// not look into the process it shows 0 in its place; they cannot read the links of namespaces
    /// either.
    pub(crate) fn zombie_status(&self, process: BorrowedFd<'_>) -> Option<i32> {
        fs::read_link(format!("/proc/{}/ns/user", self.pid)).ok()?;
        let stat = by_fd::short_text(format!("/proc/{}/stat", self.pid).as_ref()).ok()?;
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
        let status = fields.get(49)?.parse().ok()?;
        let is_zombie = fields.first() == Some(&"Z") && fields.get(19)?.parse() == Ok(self.start);
        // As long as nobody has reaped the process, the pid is its own.
        (is_zombie && pidfd::pid_of(process) == Some(self.pid)).then_some(status)
    }

    /// Returns the time since the start of the process.
    pub(crate) fn age(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        let start = Duration::from_millis(self.start.saturating_mul(1000) / ticks.unwrap_or(100).max(1));
        now.saturating_sub(start)
    }

    /// Returns the identity as a line for [`parse`](Identity::parse).
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

/// Returns the start time. The command's name is in parentheses, and may contain any byte.
fn start_time(stat: &str) -> Option<u64> {
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(19)?.parse().ok()
}

pub(crate) fn boot_id() -> Result<String, Errno> {
    static ID: PerProcess<String> = PerProcess::new();
    let read = || {
        let text = by_fd::short_text("/proc/sys/kernel/random/boot_id".as_ref());
        let text = text.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(text.trim().to_owned())
    };
    ID.get_or_try(read).cloned()
}

/// Returns the inode of this process's pid namespace, namespaces(7).
/// A process stays in it until the end.
pub(crate) fn pid_ns() -> Result<u64, Errno> {
    static INODE: PerProcess<u64> = PerProcess::new();
    let read = || {
        let found = fs::metadata("/proc/self/ns/pid");
        found.map(|file| file.ino()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    };
    INODE.get_or_try(read).copied()
}

fn inode(process: BorrowedFd<'_>) -> Option<u64> {
    let has_own = fstatfs(process).is_ok_and(|fs| fs.filesystem_type() == PIDFS);
    has_own.then(|| fstat(process).ok()).flatten().map(|stat| stat.st_ino)
}

/// Returns true if the process still runs. A pidfd is readable after the process's end. A directory
/// of /proc is not a pidfd, and its absence shows the end.
fn runs(process: BorrowedFd<'_>) -> bool {
    let is_pidfd =
        fs::read_link(by_fd::path_of(&process)).is_ok_and(|link| link.as_os_str().to_string_lossy().contains("pidfd"));
    if !is_pidfd {
        return pidfd::send_signal(process, 0).is_ok();
    }
    !poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
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

    /// A process has any bytes as its name, and the kernel shows them as they are.
    #[test]
    fn a_process_is_known_whatever_it_is_called() {
        const NAME: &[u8] = b"\xff) Z 1\xfe\n";
        let dir = std::env::temp_dir().join(format!("rf-names-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join(std::ffi::OsStr::from_bytes(NAME.trim_ascii_end()));
        std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
        let mut child = Command::new(&path).arg("100").spawn().unwrap();
        let pid = child.id().cast_signed();
        let read = || fs::read(format!("/proc/{pid}/comm")).unwrap();
        // The parent goes on a moment before the process has its new name.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while read() != NAME && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let name = read();
        let process = pidfd::open_any(pid).unwrap();
        let (identity, pids) = (Identity::of(process.as_fd()), pids_inside(&pid.to_string()));
        child.kill().unwrap();
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        let status = identity.as_ref().ok().and_then(|identity| identity.zombie_status(process.as_fd()));
        child.wait().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(name, NAME);
        assert_eq!(pids.unwrap().last(), Some(&child.id()));
        assert_eq!((identity.unwrap().pid(), status), (pid, Some(libc::SIGKILL)));
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
