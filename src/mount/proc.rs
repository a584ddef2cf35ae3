//! The process file system: proc(5).

use std::path::PathBuf;

use super::flags::{MountFlags, flag_setters, nodev_setter};

/// The users that see a process in /proc: the `hidepid` option of proc(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HidePid {
    /// Everybody sees everything.
    Off,
    /// The files of others' processes cannot be read.
    NoAccess,
    /// Others' processes are not listed either.
    Invisible,
    /// Only processes that the reader may ptrace are listed; since 5.8.
    Ptraceable,
}

/// The process file system of the sandbox's own pid namespace: proc(5). `nosuid`, `nodev` and
/// `noexec` always.
///
/// ```
/// use ringfence::{Proc, RootFs, Sandbox};
///
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let proc = Proc::new("/proc").read_only();
/// let sandbox = sandbox.rootfs(RootFs::host()).pid_ns().mount(proc);
/// let output = sandbox.command("sh").args(["-c", "echo $$; ls -d /proc/[0-9]*"]).output()?;
/// assert!(output.stdout.starts_with(b"1\n/proc/1\n"));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Proc {
    pub(super) target: PathBuf,
    pub(crate) hidepid: Option<HidePid>,
    pub(crate) subset_pid: bool,
    pub(crate) flags: MountFlags,
}

impl Proc {
    /// Shows the whole file system at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let flags = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
        Proc { target: target.into(), hidepid: None, subset_pid: false, flags }
    }

    /// Sets the users that see a process. Since 5.8 the option is the mount's own; before, it was
    /// the pid namespace's.
    pub fn hidepid(mut self, hidepid: HidePid) -> Self {
        self.hidepid = Some(hidepid);
        self
    }

    /// Shows processes and nothing else (`subset=pid`, since 5.8).
    pub fn subset_pid(mut self) -> Self {
        self.subset_pid = true;
        self
    }

    flag_setters!();
    nodev_setter!();

    /// Returns the option string of mount(2).
    pub(crate) fn options(&self) -> String {
        let hidepid = self.hidepid.map(|hidepid| match hidepid {
            HidePid::Off => "hidepid=off",
            HidePid::NoAccess => "hidepid=noaccess",
            HidePid::Invisible => "hidepid=invisible",
            HidePid::Ptraceable => "hidepid=ptraceable",
        });
        let subset = self.subset_pid.then_some("subset=pid");
        hidepid.into_iter().chain(subset).collect::<Vec<_>>().join(",")
    }
}
