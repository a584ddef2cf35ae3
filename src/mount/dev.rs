//! A minimal /dev.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::calls::{
    CWD, attach_in, attach_to, copy_file, copy_tree, emit_target, make_dir, make_link, mount_on, set_flags,
    show_device_in,
};
use super::context::Context;
use super::flags::MountFlags;
use super::fs_context::emit_new_mount;
use super::pty::emit_ends;
use super::tmpfs::Tmpfs;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};
use crate::units::Bytes;

/// The nodes that programs expect, with their numbers: the kernel's
/// Documentation/admin-guide/devices.txt.
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// The symbolic links that programs expect: the target and the name.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// A minimal /dev: null, zero, full, random, urandom, tty; ptmx with a devpts of its own; shm; and
/// the links fd, stdin, stdout and stderr.
///
/// The nodes are made where that is allowed and bound from the host's where it is not (in a user
/// namespace).
///
/// ```
/// use ringfence::{Dev, RootFs, Sandbox};
///
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let dev = Dev::new("/dev").shm_size(1 << 20).read_only();
/// let sandbox = sandbox.rootfs(RootFs::host()).mount(dev).command("sh");
/// let output = sandbox.args(["-c", "head -c 3 /dev/zero | wc -c; ls /dev/sda 2>&1 || true"]).output()?;
/// assert!(output.stdout.starts_with(b"3\n"));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Dev {
    pub(super) target: PathBuf,
    pub(crate) shm_size: Bytes,
    pub(crate) terminals: u32,
    pub(crate) read_only: bool,
    /// There is a file `console`, on which the program's terminal is bound.
    has_console: bool,
}

impl Dev {
    /// Makes a minimal /dev at `target`, with 64 MiB of shm and at most 16 terminals.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Dev { target: target.into(), shm_size: Bytes::mib(64), terminals: 16, read_only: false, has_console: false }
    }

    /// Sets the most pseudoterminals that can be open at a time: the option `max` of devpts, 1 to
    /// 1,048,576. The unread bytes of one, up to 640 KiB in each direction, are memory that no
    /// control group counts. A machine has 4,096 for all (`kernel.pty.max`), of which 1,024 are
    /// kept for terminals outside of sandboxes.
    ///
    /// ```
    /// use ringfence::{Dev, Sandbox};
    ///
    /// let sandbox = Sandbox::strict().mount(Dev::new("/dev").terminals(2));
    /// # drop(sandbox);
    /// ```
    pub fn terminals(mut self, count: u32) -> Self {
        // To ida_alloc_max(), 0 less 1 is no bound at all.
        self.terminals = count.clamp(1, 1 << 20);
        self
    }

    /// Forbids to make or remove names in /dev, but for the terminals and in the shm. Devices are
    /// written to as before.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Returns whether this is the /dev in which programs look for terminals.
    pub(super) fn is_main(&self) -> bool {
        self.target == Path::new("/dev")
    }

    /// Adds a file on which a terminal can be bound.
    pub(super) fn console(mut self) -> Self {
        self.has_console = true;
        self
    }

    /// Sets the size of the shm.
    pub fn shm_size(mut self, size: impl Into<Bytes>) -> Self {
        self.shm_size = size.into();
        self
    }
}

/// Mounts a minimal /dev at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_dev(plan: &mut Plan, dev: &Dev, root: Slot, at: &Path, pins: PlaceFlags, context: Context) {
    let quiet = MountFlags::NO_SUID | MountFlags::NO_EXEC;
    let options = [("source", "tmpfs"), ("size", "64k"), ("nr_inodes", "256"), ("mode", "755")];
    let dir = plan.slot();
    emit_new_mount(plan, "tmpfs", &options, quiet, dir, at);
    // A /dev that is a link would hide what stands elsewhere. The place is looked up once: whoever
    // may write to the root directory can exchange the name at any time.
    let place = plan.slot();
    emit_target(plan, root, at, PlaceFlags::NO_SYMLINKS | pins, place);
    attach_to(plan, Step::MoveMount, dir, place, at);
    plan.close(Step::MoveMount, place);
    for (name, major, minor) in NODES {
        emit_node(plan, name, makedev(major.into(), minor.into()), dir, at, context);
    }
    for (to, name) in LINKS {
        make_link(plan, Step::Dev, to, dir.into(), name).at(at.join(name));
    }
    let master = context.terminal.filter(|_| dev.is_main());
    if dev.has_console || master.is_some() {
        let (text, mode) = (plan.string("console"), libc::S_IFREG | 0o600);
        plan.call(Step::Dev, libc::SYS_mknodat, [dir.into(), text.into(), mode.into(), 0.into()])
            .at(at.join("console"));
    }
    // Names lead nowhere else in a file system made just now, in which nobody else can write.
    plan.call(Step::Dev, libc::SYS_fchdir, [dir.into()]).at(at);
    let group = if context.tty_group { ",gid=5" } else { "" };
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620,max={}{group}", dev.terminals);
    let shm = Tmpfs::new("/").size(dev.shm_size).mode(0o1777).noexec();
    mount_inside(plan, at, "pts", "devpts", quiet, &terminals);
    mount_inside(plan, at, "shm", "tmpfs", shm.flags, &shm.options());
    if let Some(master) = master {
        emit_terminal(plan, master, dir, at, context);
    }
    if dev.read_only {
        set_flags(plan, dir, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    }
    plan.close(Step::Dev, dir);
}

/// Makes the terminal of the program on the devpts that was just mounted. The slave is bound on the
/// file `console`.
fn emit_terminal(plan: &mut Plan, master: Slot, dir: Slot, at: &Path, context: Context) {
    let slave = emit_ends(plan, master, dir, "pts/ptmx", &at.join("pts/ptmx"), context);
    let (tree, console) = (plan.slot(), at.join("console"));
    copy_file(plan, slave, tree, &console);
    attach_in(plan, tree, dir, "console", &console);
    plan.close(Step::MoveMount, tree);
    plan.close(Step::Terminal, slave);
}

/// Mounts a file system on a new directory of the /dev that is the working directory.
fn mount_inside(plan: &mut Plan, dev: &Path, name: &str, fstype: &str, flags: MountFlags, options: &str) {
    make_dir(plan, Step::Dev, CWD.into(), name).at(dev.join(name));
    mount_on(plan, name, fstype.as_ref(), fstype.as_ref(), flags.ms(), options.as_ref()).at(dev.join(name));
}

/// Makes a device node. Where that is forbidden (in a user namespace of the sandbox's own; EPERM
/// without CAP_MKNOD or by rules for devices), binds the host's node.
fn emit_node(plan: &mut Plan, name: &str, number: u64, dir: Slot, at: &Path, context: Context) {
    let shown = at.join(name);
    if context.user_ns {
        emit_host_node(plan, name, dir, &shown);
        return;
    }
    let text = plan.string(name);
    let mode = libc::S_IFCHR | 0o666;
    plan.call(Step::Dev, libc::SYS_mknodat, [dir.into(), text.into(), mode.into(), number.into()])
        .at(&shown)
        .tolerate(Errno::EPERM);
    let fallback = plan.len();
    emit_host_node(plan, name, dir, &shown);
    plan.fallback_from(fallback);
}

/// Binds the host's device node.
fn emit_host_node(plan: &mut Plan, name: &str, dir: Slot, shown: &Path) {
    let tree = plan.slot();
    copy_tree(plan, &PathBuf::from("/dev").join(name), false, tree);
    show_device_in(plan, tree, dir, name, shown);
}
