//! The floor: the kernel's work for a sandbox, in raw system calls from the caller's own thread.
//!
//! A program written by hand for one sandbox would do the same: all calls are prepared before, and
//! the child works in the caller's memory and reports only the call that failed. The floor
//! resolves, checks and undoes nothing, so it is no way to run a sandbox; it shows the cost of the
//! kernel itself. A second floor starts from a mount namespace that is almost empty, as the library
//! does, and need not copy and detach the host's mounts.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use super::bare::{Run, Step, clone3_and_run, duration, now, wait};
use super::group::{Group, Template, c_string};

pub const STACK_SIZE: usize = 64 << 10;

/// A sandbox that can run any number of times.
#[derive(Debug)]
pub struct Floor {
    namespaces: u64,
    draft: Draft,
    group: Option<Template>,
    stack: Vec<u128>,
    _kept: Vec<OwnedFd>,
}

/// The times of one run: each step of the child, then its exec, its end, and the work of the caller
/// around it.
pub type Profile = Vec<(&'static str, Duration)>;

/// The list of the calls of one sandbox, while it is made.
#[derive(Debug, Default)]
pub struct Draft {
    pub steps: Vec<Step>,
    /// What the steps point to.
    strings: Vec<CString>,
    arrays: Vec<Vec<*const libc::c_char>>,
}

/// struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
static NODEV_NOSUID: [u64; 4] = [0x4 | 0x2, 0, 0, 0];

impl Draft {
    pub fn add<const N: usize>(&mut self, name: &'static str, number: libc::c_long, args: [u64; N]) -> &mut Step {
        let mut all = [0; 6];
        all[..N].copy_from_slice(&args);
        self.steps.push(Step { name, number, args: all, takes_kept: None, keeps: false, tolerates: 0 });
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Returns the address of a string that lives as long as the floor.
    pub fn keep(&mut self, text: CString) -> u64 {
        let address = text.as_ptr() as u64;
        self.strings.push(text);
        address
    }

    /// Returns the address of a null-terminated array of strings.
    pub fn keep_all(&mut self, texts: Vec<CString>) -> u64 {
        let mut array: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        array.push(std::ptr::null());
        self.strings.extend(texts);
        let address = array.as_ptr() as u64;
        self.arrays.push(array);
        address
    }

    pub fn mount(
        &mut self,
        name: &'static str,
        fstype: &'static CStr,
        at: &'static CStr,
        flags: u64,
        options: &'static CStr,
    ) {
        let [fstype, at, options] = [fstype, at, options].map(|text| text.as_ptr() as u64);
        self.add(name, libc::SYS_mount, [fstype, at, fstype, flags, options]);
    }

    /// Mounts the new root over `/` and enters it: later paths are relative to the working
    /// directory.
    fn root(&mut self, root: &Path, template: Option<&OwnedFd>) {
        const OPEN_TREE_CLONE: u64 = 1;
        const AT_RECURSIVE: u64 = 0x8000;
        const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
        let [slash, empty] = [c"/", c""].map(|text| text.as_ptr() as u64);
        if template.is_none() {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            self.add("mount private", libc::SYS_mount, [0, slash, 0, private, 0]);
        }
        let root = self.keep(c_string(root.as_os_str()));
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as u64;
        self.add("open_tree", libc::SYS_open_tree, [AT_FDCWD, root, flags]).keeps = true;
        if let Some(template) = template {
            let namespace = libc::CLONE_NEWNS as u64;
            self.add("enter template", libc::SYS_setns, [template.as_raw_fd() as u64, namespace]);
            self.add("mount ns", libc::SYS_unshare, [namespace]);
        }
        let to = [0, empty, AT_FDCWD, slash, MOVE_MOUNT_F_EMPTY_PATH];
        self.add("move_mount", libc::SYS_move_mount, to).takes_kept = Some(0);
        let flags = AT_RECURSIVE | libc::AT_EMPTY_PATH as u64;
        let size = size_of_val(&NODEV_NOSUID) as u64;
        let quiet = [0, empty, flags, NODEV_NOSUID.as_ptr() as u64, size];
        self.add("mount_setattr", libc::SYS_mount_setattr, quiet).takes_kept = Some(0);
        self.add("enter root", libc::SYS_fchdir, [0]).takes_kept = Some(0);
    }

    /// Makes the /dev of the library: the same nodes, links, file systems and options.
    fn dev(&mut self) {
        const NODES: [(&CStr, u32, u32); 6] = [
            (c"dev/null", 1, 3),
            (c"dev/zero", 1, 5),
            (c"dev/full", 1, 7),
            (c"dev/random", 1, 8),
            (c"dev/urandom", 1, 9),
            (c"dev/tty", 5, 0),
        ];
        let quiet = libc::MS_NOSUID | libc::MS_NOEXEC;
        self.mount("dev tmpfs", c"tmpfs", c"dev", quiet, c"size=64k,nr_inodes=256,mode=755");
        for (path, major, minor) in NODES {
            let mode = u64::from(libc::S_IFCHR | 0o666);
            let args = [AT_FDCWD, path.as_ptr() as u64, mode, libc::makedev(major, minor)];
            self.add("dev 6 mknod", libc::SYS_mknodat, args);
        }
        self.dev_links();
        for path in [c"dev/pts", c"dev/shm"] {
            self.add("dev 2 mkdir", libc::SYS_mkdirat, [AT_FDCWD, path.as_ptr() as u64, 0o755]);
        }
        self.mount("dev/pts", c"devpts", c"dev/pts", quiet, c"newinstance,ptmxmode=0666,mode=0620,max=16,gid=5");
        let shm = quiet | libc::MS_NODEV;
        self.mount("dev/shm", c"tmpfs", c"dev/shm", shm, c"size=67108864,nr_inodes=16384,mode=1777");
    }

    /// Makes the links in /dev.
    pub fn dev_links(&mut self) {
        const LINKS: [(&CStr, &CStr); 5] = [
            (c"/proc/self/fd", c"dev/fd"),
            (c"/proc/self/fd/0", c"dev/stdin"),
            (c"/proc/self/fd/1", c"dev/stdout"),
            (c"/proc/self/fd/2", c"dev/stderr"),
            (c"pts/ptmx", c"dev/ptmx"),
        ];
        for (to, path) in LINKS {
            self.add("dev 5 symlink", libc::SYS_symlinkat, [to.as_ptr() as u64, AT_FDCWD, path.as_ptr() as u64]);
        }
    }

    /// Changes the root. Below a root over the template's, there is only an empty directory.
    fn pivot(&mut self, template: Option<&OwnedFd>) {
        let [here, slash] = [c".", c"/"].map(|text| text.as_ptr() as u64);
        if template.is_some() {
            self.add("chroot", libc::SYS_chroot, [here]);
            return;
        }
        self.add("pivot_root", libc::SYS_pivot_root, [here, here]);
        self.add("umount old root", libc::SYS_umount2, [here, libc::MNT_DETACH as u64]);
        self.add("chdir", libc::SYS_chdir, [slash]);
    }

    pub fn loopback(&mut self) {
        // The type of libc's constant differs between C libraries.
        const SIOCSIFFLAGS: u64 = 0x8914;
        let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64;
        let request = LOOPBACK_UP.0.as_ptr() as u64;
        self.add("loopback up", libc::SYS_socket, [libc::AF_INET as u64, kind, 0]).keeps = true;
        self.add("loopback up", libc::SYS_ioctl, [0, SIOCSIFFLAGS, request]).takes_kept = Some(0);
        self.add("loopback up", libc::SYS_close, [0]).takes_kept = Some(0);
    }

    /// Starts the program: session, streams, signal mask, exec.
    fn program(&mut self, command: &[OsString], stdio: &[OwnedFd]) {
        self.session(stdio);
        self.signals();
        let variables = std::env::vars_os().map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            c_string(&entry)
        });
        self.exec(command, variables.collect());
    }

    /// Sets umask, session and streams, and closes all other descriptors with the exec.
    pub fn session(&mut self, stdio: &[OwnedFd]) {
        self.add("umask", libc::SYS_umask, [0o022]);
        self.add("setsid", libc::SYS_setsid, []);
        for (number, fd) in stdio.iter().enumerate() {
            self.add("stdio", libc::SYS_dup3, [fd.as_raw_fd() as u64, number as u64, 0]);
        }
        let all_above = [3, u64::from(u32::MAX), u64::from(libc::CLOSE_RANGE_CLOEXEC)];
        self.add("close the rest", libc::SYS_close_range, all_above);
    }

    /// Gives signals their default actions, and unblocks them.
    pub fn signals(&mut self) {
        let [none, default] = [NO_SIGNALS.as_ptr() as u64, DEFAULT_ACTION.as_ptr() as u64];
        // Every Rust program ignores SIGPIPE, and an exec does not change that.
        for signal in ignored_signals() {
            self.add("signals", libc::SYS_rt_sigaction, [signal, default, 0, 8]);
        }
        self.add("signals", libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, none, 0, 8]);
    }

    pub fn exec(&mut self, command: &[OsString], variables: Vec<CString>) {
        let argv: Vec<CString> = command.iter().map(|word| c_string(word)).collect();
        let path = argv.first().map_or(0, |program| program.as_ptr() as u64);
        let argv = self.keep_all(argv);
        let envp = self.keep_all(variables);
        self.add("execve", libc::SYS_execve, [path, argv, envp]);
    }
}

/// Returns the signals that this process ignores, from /proc/self/status.
fn ignored_signals() -> Vec<u64> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    (1..=64).filter(|signal| mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)).collect()
}

pub const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
static NO_SIGNALS: [u64; 1] = [0];
/// The kernel's struct sigaction.
static DEFAULT_ACTION: [u64; 4] = [0; 4];

/// A struct ifreq: a name of 16 bytes, then a union that begins with the flags.
#[repr(align(8))]
struct IfReq([u8; 40]);
static LOOPBACK_UP: IfReq = {
    let mut request = [0; 40];
    request[0] = b'l';
    request[1] = b'o';
    let flags = ((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes();
    request[16] = flags[0];
    request[17] = flags[1];
    IfReq(request)
};

/// Makes a mount namespace with an empty directory in it, on a thread that ends.
pub fn empty_namespace() -> io::Result<OwnedFd> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none = None::<&str>;
    let make = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let own = std::fs::File::open("/proc/thread-self/ns/mnt")?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), "/", Some("tmpfs"), MsFlags::empty(), Some("size=4k,nr_inodes=2,mode=555"))?;
        nix::unistd::chdir("/..")?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        Ok(own.into())
    };
    std::thread::spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

impl Floor {
    /// Prepares a sandbox on `root` with pid, mount, uts, ipc and cgroup namespaces, /proc, /dev
    /// and /tmp; with `group`, also in a control group; with `net`, also in a network namespace.
    /// `template` is an [`empty_namespace`] from which to start.
    pub fn new(
        template: Option<OwnedFd>,
        root: &Path,
        command: &[OsString],
        mut stdio: Vec<OwnedFd>,
        net: bool,
        group: Option<Template>,
    ) -> Self {
        let mounts = if template.is_some() { 0 } else { libc::CLONE_NEWNS };
        let clone = libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | mounts;
        let mut draft = Draft::default();
        draft.add("umask", libc::SYS_umask, [0]);
        draft.add("cgroup ns", libc::SYS_unshare, [libc::CLONE_NEWCGROUP as u64]);
        if net {
            draft.loopback();
        }
        draft.root(root, template.as_ref());
        let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        draft.mount("proc", c"proc", c"proc", quiet, c"");
        draft.dev();
        let tmp = libc::MS_NOSUID | libc::MS_NODEV;
        draft.mount("tmp", c"tmpfs", c"tmp", tmp, c"size=67108864,nr_inodes=16384,mode=1777");
        draft.pivot(template.as_ref());
        draft.program(command, &stdio);
        stdio.extend(template);
        Floor {
            namespaces: (clone | if net { libc::CLONE_NEWNET } else { 0 }) as u64,
            draft,
            group,
            stack: vec![0; STACK_SIZE / size_of::<u128>()],
            _kept: stdio,
        }
    }

    /// Runs the program to its end, which must be a success.
    pub fn run(&mut self) -> io::Result<()> {
        self.run_and_note(std::ptr::null_mut()).map(drop)
    }

    /// Runs the program as [`run`](Floor::run) does, and returns the times.
    pub fn profile(&mut self) -> io::Result<Profile> {
        let mut times = vec![libc::timespec { tv_sec: 0, tv_nsec: 0 }; self.draft.steps.len() + 2];
        let [begin, cloning, executed, ended, end] = self.run_and_note(times.as_mut_ptr())?;
        let times: Vec<Duration> = times.iter().map(duration).collect();
        // The exec does not return to note a time: it has ended when the caller continues.
        let done = times[2..=self.draft.steps.len()].iter().copied().chain([executed]);
        let mut profile = vec![
            ("group: create, limits", cloning - begin),
            ("clone", times[0] - cloning),
            ("group: enter", times[1] - times[0]),
        ];
        for ((step, from), to) in self.draft.steps.iter().zip(&times[1..]).zip(done) {
            match profile.last_mut() {
                Some((name, sum)) if *name == step.name => *sum += to - *from,
                _ => profile.push((step.name, to - *from)),
            }
        }
        profile.push(("program, its end, wait", ended - executed));
        profile.push(("group: remove", end - ended));
        Ok(profile)
    }

    fn run_and_note(&mut self, times: *mut libc::timespec) -> io::Result<[Duration; 5]> {
        let begin = now();
        let group = self.group.as_ref().map(Template::create).transpose();
        let result = group.and_then(|group| {
            let cloning = now();
            let pidfd = self.clone(&group.unwrap_or_default(), times)?;
            let executed = now();
            wait(&pidfd)?;
            Ok([cloning, executed, now()])
        });
        let removed = self.group.as_ref().map_or(Ok(()), Template::remove);
        let [cloning, executed, ended] = result?;
        removed?;
        Ok([begin, cloning, executed, ended, now()])
    }

    /// Clones, and returns when the child has executed the program, or ended.
    fn clone(&mut self, group: &Group, times: *mut libc::timespec) -> io::Result<OwnedFd> {
        const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
        const CLONE_INTO_CGROUP: u64 = 1 << 33;
        let procs = group.proc_numbers();
        let mut run = Run {
            steps: self.draft.steps.as_ptr(),
            count: self.draft.steps.len(),
            procs: procs.as_ptr(),
            proc_count: procs.len(),
            failed: None,
            times,
            init: std::ptr::null_mut(),
        };
        let mut pidfd: RawFd = -1;
        let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | self.namespaces;
        let into = if group.born_in.is_some() { CLONE_INTO_CGROUP } else { 0 };
        // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
        // tls, set_tid, set_tid_size, cgroup.
        let args = [
            flags | CLONE_CLEAR_SIGHAND | into,
            &raw mut pidfd as u64,
            0,
            0,
            libc::SIGCHLD as u64,
            self.stack.as_mut_ptr() as u64,
            STACK_SIZE as u64,
            0,
            0,
            0,
            group.born_in.as_ref().map_or(0, |fd| fd.as_raw_fd() as u64),
        ];
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the flags are CLONE_VM and CLONE_VFORK with a stack of the child's own, and
        // `args`, `run` and what they point to (the steps and strings of `self`, `procs`, `times`)
        // live until the call returns.
        let result = unsafe { clone3_and_run(&args, &mut run) };
        mask.thread_set_mask()?;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
        // SAFETY: CLONE_PIDFD made this descriptor, and nobody else knows it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        // SAFETY: `run` is a local; the child, which has written to it, is gone from this memory.
        let Some((index, errno)) = (unsafe { (&raw const run.failed).read_volatile() }) else { return Ok(pidfd) };
        let _ = wait(&pidfd);
        let name = self.draft.steps.get(index).map_or("entering the group", |step| step.name);
        Err(io::Error::other(format!("{name}: {}", io::Error::from_raw_os_error(errno))))
    }
}
