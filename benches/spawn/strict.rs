//! The floor of `Sandbox::strict()`: the kernel's work for the same sandbox, in raw system calls.
//!
//! As in [`floor`](super::floor), all calls are prepared before, and the children work in the
//! caller's memory. The first child makes the sandbox and stays as its init; the second one, its
//! child, gets the limits and the filter, and executes the program. The caller writes the id maps
//! meanwhile. The floor makes everything anew for each run, as its like is written by hand: a mount
//! and its flags are two calls by path. It looks up once what the host has, as the library's
//! `prepare` does.

#[path = "../../src/mount/root/host_list.rs"]
mod host_list;

use std::ffi::{CStr, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use ringfence::Sandbox;

use self::host_list::{FROM_HOST, PATHS, PREFIXES};
use super::bare::{Init, Run, clone3_and_run, duration, now, wait};
use super::floor::{AT_FDCWD, Draft, Profile, STACK_SIZE};
use super::group::{Template, c_string};

/// The id of the program, inside.
const NOBODY: u32 = 65_534;
/// The first of the ids outside, one for each floor: those of the library begin above.
const OUTSIDE: u32 = 0x77ff_0000;
/// The sandbox's own files in /etc.
const FILES: [(&CStr, &CStr); 4] = [
    (c"etc/passwd", c"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"),
    (c"etc/group", c"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    (c"etc/hosts", c"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
    (c"etc/nsswitch.conf", c"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
];
/// Where programs look for control groups.
const GROUPS: &str = "/sys/fs/cgroup";
const MASKED: [&str; 10] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
];
const READ_ONLY: [&str; 6] = ["proc/bus", "proc/fs", "proc/irq", "proc/pressure", "proc/sys", "proc/sysrq-trigger"];
const USER_LIMITS: [(&CStr, &CStr); 4] = [
    (c"/proc/sys/user/max_inotify_instances", c"8"),
    (c"/proc/sys/user/max_inotify_watches", c"4096"),
    (c"/proc/sys/user/max_fanotify_groups", c"0"),
    (c"/proc/sys/user/max_user_namespaces", c"0"),
];
/// The type of libc's constants differs between C libraries.
const RLIMITS: [(u64, u64); 7] = [
    (libc::RLIMIT_CORE as u64, 1),
    (libc::RLIMIT_NOFILE as u64, 1024),
    (libc::RLIMIT_MEMLOCK as u64, 64 << 10),
    (libc::RLIMIT_MSGQUEUE as u64, 96 << 10),
    (libc::RLIMIT_SIGPENDING as u64, 1024),
    (libc::RLIMIT_NICE as u64, 0),
    (libc::RLIMIT_RTPRIO as u64, 0),
];
const VARIABLES: [&str; 3] =
    ["HOME=/tmp", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

const AT_RECURSIVE: u64 = 0x8000;
/// MOUNT_ATTR_RDONLY and so on.
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
/// struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
static STILL: [u64; 4] = [RDONLY, 0, 0, 0];
static STILL_NODE: [u64; 4] = [RDONLY | NOSUID | NOEXEC, 0, 0, 0];
static STILL_QUIET: [u64; 4] = [RDONLY | NOSUID | NODEV | NOEXEC, 0, 0, 0];
static STILL_FILES: [u64; 4] = [RDONLY | NOSUID | NODEV, 0, 0, 0];
/// struct __user_cap_header_struct: version 3, this process; and no capability in any set.
static CAP_HEADER: [u32; 2] = [0x2008_0522, 0];
static NO_CAPS: [u32; 6] = [0; 6];

/// The sandbox of `Sandbox::strict()`, which can run any number of times.
#[derive(Debug)]
pub struct StrictFloor {
    setup: Draft,
    program: Draft,
    group: Template,
    stacks: [Vec<u128>; 2],
    /// The word for which the first child waits: the maps are written.
    mapped: Box<AtomicU32>,
    map: String,
    _kept: Vec<OwnedFd>,
    _arrays: Vec<Box<[u64]>>,
}

impl StrictFloor {
    /// Prepares the sandbox.
    pub fn new(command: &[OsString], stdio: Vec<OwnedFd>, group: Template, library: &OfLibrary) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(OUTSIDE);
        let mapped = Box::new(AtomicU32::new(0));
        let (mut setup, mut program) = (Draft::default(), Draft::default());
        setup.own_rights(&mapped);
        setup.own_root(&library.shown);
        setup.no_rights();
        // struct sock_fprog: the number of instructions, and their address.
        let filter: Box<[u64]> = library.filter.as_slice().into();
        let fprog: Box<[u64]> = [filter.len() as u64, filter.as_ptr() as u64].into();
        program.session(&stdio);
        let mut arrays = vec![filter];
        for (resource, most) in RLIMITS {
            let limit: Box<[u64]> = [most, most].into();
            program.add("rlimits", libc::SYS_prlimit64, [0, resource, limit.as_ptr() as u64, 0]);
            arrays.push(limit);
        }
        program.signals();
        program.add("filter", libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, fprog.as_ptr() as u64]);
        arrays.push(fprog);
        program.exec(command, VARIABLES.map(|variable| c_string(OsStr::new(variable))).into());
        let stack = || vec![0; STACK_SIZE / size_of::<u128>()];
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        StrictFloor {
            setup,
            program,
            group,
            stacks: [stack(), stack()],
            mapped,
            map: format!("{NOBODY} {id} 1\n"),
            _kept: stdio,
            _arrays: arrays,
        }
    }

    /// Runs the program to its end, which must be a success.
    pub fn run(&mut self) -> io::Result<()> {
        self.run_and_note(std::ptr::null_mut()).map(drop)
    }

    /// Runs the program as [`run`](StrictFloor::run) does, and returns the times.
    pub fn profile(&mut self) -> io::Result<Profile> {
        let (first, second) = (self.setup.steps.len(), self.program.steps.len());
        let mut times = vec![libc::timespec { tv_sec: 0, tv_nsec: 0 }; first + second + 4];
        let [begin, cloning, executed, ended, end] = self.run_and_note(times.as_mut_ptr())?;
        let times: Vec<Duration> = times.iter().map(duration).collect();
        let (setup, program) = times.split_at(first + 2);
        let mut profile = vec![
            ("group: create, limits", cloning - begin),
            ("clone", setup[0] - cloning),
            ("group: enter", setup[1] - setup[0]),
        ];
        let mut add = |name, time| match profile.last_mut() {
            Some((last, sum)) if *last == name => *sum += time,
            _ => profile.push((name, time)),
        };
        for (step, done) in self.setup.steps.iter().zip(setup[1..].windows(2)) {
            add(step.name, done[1] - done[0]);
        }
        add("clone of the program", program[0] - setup[first + 1]);
        // The exec does not return to note a time: it has ended when init continues.
        let done: Vec<Duration> = program[1..=second].iter().copied().chain([executed]).collect();
        for (step, done) in self.program.steps.iter().zip(done.windows(2)) {
            add(step.name, done[1].saturating_sub(done[0]));
        }
        add("program, its end, wait", ended - executed);
        add("group: remove", end - ended);
        Ok(profile)
    }

    fn run_and_note(&mut self, times: *mut libc::timespec) -> io::Result<[Duration; 5]> {
        let begin = now();
        let result =
            self.group.create().and_then(|group| self.clone_and_wait(&group.proc_numbers(), group.born_in, times));
        let removed = self.group.remove();
        let [cloning, executed, ended] = result?;
        removed?;
        Ok([begin, cloning, executed, ended, now()])
    }

    /// Clones, writes the maps, and waits for the end of all.
    fn clone_and_wait(
        &mut self,
        procs: &[RawFd],
        born_in: Option<OwnedFd>,
        times: *mut libc::timespec,
    ) -> io::Result<[Duration; 3]> {
        const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
        const CLONE_INTO_CGROUP: u64 = 1 << 33;
        const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        let cloning = now();
        let run = |draft: &Draft, procs: &[RawFd], times| Run {
            steps: draft.steps.as_ptr(),
            count: draft.steps.len(),
            procs: procs.as_ptr(),
            proc_count: procs.len(),
            failed: None,
            times,
            init: std::ptr::null_mut(),
        };
        // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
        // tls, set_tid, set_tid_size, cgroup.
        let [first, second] = self.stacks.each_mut().map(|stack| stack.as_mut_ptr() as u64);
        let args = |flags: u64, pidfd: u64, stack, cgroup| {
            [flags, pidfd, 0, 0, libc::SIGCHLD as u64, stack, STACK_SIZE as u64, 0, 0, 0, cgroup]
        };
        let program_times = if times.is_null() { times } else { times.wrapping_add(self.setup.steps.len() + 2) };
        let mut init = Init {
            clone: args((libc::CLONE_VM | libc::CLONE_VFORK) as u64, 0, second, 0),
            run: run(&self.program, &[], program_times),
            executed: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        };
        let mut setup = run(&self.setup, procs, times);
        setup.init = &raw mut init;
        self.mapped.store(0, Ordering::Relaxed);
        let mut pidfd: RawFd = -1;
        let into = if born_in.is_some() { CLONE_INTO_CGROUP } else { 0 };
        let flags = (libc::CLONE_VM | libc::CLONE_PIDFD | NAMESPACES) as u64 | CLONE_CLEAR_SIGHAND | into;
        let cgroup = born_in.as_ref().map_or(0, |fd| fd.as_raw_fd() as u64);
        let args = args(flags, &raw mut pidfd as u64, first, cgroup);
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the flags are CLONE_VM with a stack of the child's own, and `args`, `setup`,
        // `init` and what they point to (the steps and strings of `self`, `procs`, `times`) live
        // until this returns, which is after the child's end.
        let pid = unsafe { clone3_and_run(&args, &mut setup) };
        mask.thread_set_mask()?;
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        // SAFETY: CLONE_PIDFD made this descriptor, and nobody else knows it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let written =
            ["gid_map", "uid_map"].iter().try_for_each(|file| fs::write(format!("/proc/{pid}/{file}"), &self.map));
        if written.is_err() {
            // SAFETY: no pointers; the child has not been waited for, so the pid is its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        self.mapped.store(1, Ordering::Release);
        let word = self.mapped.as_ptr();
        // SAFETY: the word lives as long as `self`.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
        let ended = wait(&pidfd);
        written?;
        // SAFETY: these are locals; the children, which have written to them, have ended.
        let (failed, program_failed, executed) = unsafe {
            let init = &raw const init;
            let failed = (&raw const setup.failed).read_volatile();
            (failed, (&raw const (*init).run.failed).read_volatile(), (&raw const (*init).executed).read_volatile())
        };
        for (failed, draft) in [(failed, &self.setup), (program_failed, &self.program)] {
            if let Some((index, errno)) = failed {
                let name = draft.steps.get(index).map_or("entering the group, or the clone", |step| step.name);
                return Err(io::Error::other(format!("{name}: {}", io::Error::from_raw_os_error(errno))));
            }
        }
        ended?;
        Ok([cloning, duration(&executed), now()])
    }
}

/// The steps of the first child.
impl Draft {
    /// Gets the rights of the new namespaces: everything before the mounts.
    fn own_rights(&mut self, mapped: &AtomicU32) {
        const KEYCTL_JOIN_SESSION_KEYRING: u64 = 1;
        let ids = [u64::from(NOBODY); 3];
        self.add("umask", libc::SYS_umask, [0]);
        self.add("keyring", libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0]);
        self.add("cgroup ns", libc::SYS_unshare, [libc::CLONE_NEWCGROUP as u64]);
        // The program's exec enters the namespace.
        self.add("time ns", libc::SYS_unshare, [libc::CLONE_NEWTIME as u64]);
        self.add("host name", libc::SYS_sethostname, [c"sandbox".as_ptr() as u64, 7]);
        self.loopback();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        self.add("mount private", libc::SYS_mount, [0, c"/".as_ptr() as u64, 0, private, 0]);
        let wait = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u64;
        self.add("wait for the maps", libc::SYS_futex, [mapped.as_ptr() as u64, wait, 0, 0]).tolerates = libc::EAGAIN;
        self.add("ids", libc::SYS_setgroups, [0, 0]);
        self.add("ids", libc::SYS_setresgid, ids);
        self.add("ids", libc::SYS_setresuid, ids);
        self.add("end with the owner", libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]);
        for (file, value) in USER_LIMITS {
            if Path::new(OsStr::new(&*file.to_string_lossy())).exists() {
                self.write("user limits", file, libc::O_WRONLY, value);
            }
        }
    }

    /// Opens a file, writes the text, and closes the file.
    fn write(&mut self, name: &'static str, file: &CStr, flags: libc::c_int, text: &CStr) {
        let (flags, size) = ((flags | libc::O_CLOEXEC) as u64, text.count_bytes() as u64);
        self.add(name, libc::SYS_openat, [AT_FDCWD, file.as_ptr() as u64, flags, 0o644]).keeps = true;
        self.add(name, libc::SYS_write, [0, text.as_ptr() as u64, size]).takes_kept = Some(0);
        self.add(name, libc::SYS_close, [0]).takes_kept = Some(0);
    }

    /// Makes the root, with all mounts, and enters it.
    fn own_root(&mut self, shown: &[Shown]) {
        let [here, slash] = [c".", c"/"].map(|text| text.as_ptr() as u64);
        let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let options = c"size=1m,nr_inodes=1024,mode=755";
        self.mount("root", c"tmpfs", c"/", libc::MS_NOSUID | libc::MS_NODEV, options);
        self.add("root", libc::SYS_chdir, [c"/..".as_ptr() as u64]);
        self.show_host();
        for (file, text) in FILES {
            self.write("root: own files", file, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, text);
        }
        self.dir("proc", c"proc", 0o755);
        self.mount("proc", c"proc", c"proc", quiet, c"");
        self.dev_of_host();
        self.dir("tmp", c"tmp", 0o755);
        let tmp = libc::MS_NOSUID | libc::MS_NODEV;
        self.mount("tmp", c"tmpfs", c"tmp", tmp, c"size=67108864,nr_inodes=16384,mode=1777");
        self.show_groups(shown);
        self.masks();
        self.set_flags("root: read-only", here, &STILL, 0);
        self.add("pivot_root", libc::SYS_pivot_root, [here, here]);
        self.add("umount old root", libc::SYS_umount2, [here, libc::MNT_DETACH as u64]);
        self.add("chdir", libc::SYS_chdir, [slash]);
    }

    fn dir(&mut self, name: &'static str, path: &CStr, mode: u64) {
        self.add(name, libc::SYS_mkdirat, [AT_FDCWD, path.as_ptr() as u64, mode]);
    }

    fn set_flags(&mut self, name: &'static str, path: u64, attr: &'static [u64; 4], flags: u64) {
        let size = size_of_val(attr) as u64;
        self.add(name, libc::SYS_mount_setattr, [AT_FDCWD, path, flags, attr.as_ptr() as u64, size]);
    }

    /// Binds a path of the host to the same place, or another, relative to the root.
    fn bind(&mut self, name: &'static str, from: u64, to: u64, attr: &'static [u64; 4], recursive: bool) {
        let (ms_flag, at_flag) = if recursive { (libc::MS_REC, AT_RECURSIVE) } else { (0, 0) };
        self.add(name, libc::SYS_mount, [from, to, 0, libc::MS_BIND | ms_flag, 0]);
        self.set_flags(name, to, attr, at_flag);
    }

    /// Shows the host's programs, and what they look up in /etc.
    fn show_host(&mut self) {
        const NAME: &str = "root: of the host";
        let listed = PATHS.iter().chain(&FROM_HOST);
        let mut found: Vec<PathBuf> = listed.map(|path| PathBuf::from(relative(Path::new(path)))).collect();
        let names = fs::read_dir("/etc").into_iter().flatten().flatten().map(|entry| entry.file_name());
        let wanted = |name: &OsStr| PREFIXES.iter().any(|start| name.to_string_lossy().starts_with(start));
        found.extend(names.filter(|name| wanted(name)).map(|name| Path::new("etc").join(name)));
        let mut made = vec![PathBuf::new()];
        for path in found {
            let on_host = Path::new("/").join(&path);
            let Ok(meta) = on_host.symlink_metadata() else { continue };
            let parents: Vec<&Path> =
                path.ancestors().skip(1).filter(|dir| !made.iter().any(|one| one == dir)).collect();
            for dir in parents.iter().rev() {
                let text = self.keep(c_string(dir.as_os_str()));
                self.add(NAME, libc::SYS_mkdirat, [AT_FDCWD, text, 0o755]);
            }
            made.extend(parents.into_iter().map(Path::to_owned));
            let [from, to] = [&on_host, &path].map(|path| self.keep(c_string(path.as_os_str())));
            if meta.is_symlink() {
                let target = self.keep(c_string(fs::read_link(&on_host).unwrap_or_default().as_os_str()));
                self.add(NAME, libc::SYS_symlinkat, [target, AT_FDCWD, to]);
                continue;
            }
            if meta.is_dir() {
                self.add(NAME, libc::SYS_mkdirat, [AT_FDCWD, to, 0o755]);
            } else {
                self.add(NAME, libc::SYS_mknodat, [AT_FDCWD, to, u64::from(libc::S_IFREG | 0o644), 0]);
            }
            self.bind(NAME, from, to, &STILL_FILES, true);
        }
    }

    /// Makes the /dev of a user namespace, whose nodes are the host's.
    fn dev_of_host(&mut self) {
        const NODES: [(&CStr, &CStr); 6] = [
            (c"/dev/null", c"dev/null"),
            (c"/dev/zero", c"dev/zero"),
            (c"/dev/full", c"dev/full"),
            (c"/dev/random", c"dev/random"),
            (c"/dev/urandom", c"dev/urandom"),
            (c"/dev/tty", c"dev/tty"),
        ];
        let quiet = libc::MS_NOSUID | libc::MS_NOEXEC;
        self.dir("dev tmpfs", c"dev", 0o755);
        self.mount("dev tmpfs", c"tmpfs", c"dev", quiet, c"size=64k,nr_inodes=256,mode=755");
        for (from, to) in NODES {
            let [from, to] = [from, to].map(|path| path.as_ptr() as u64);
            self.add("dev 6 binds", libc::SYS_mknodat, [AT_FDCWD, to, u64::from(libc::S_IFREG | 0o666), 0]);
            self.bind("dev 6 binds", from, to, &STILL_NODE, false);
        }
        self.dev_links();
        for path in [c"dev/pts", c"dev/shm"] {
            self.dir("dev 2 mkdir", path, 0o755);
        }
        self.mount("dev/pts", c"devpts", c"dev/pts", quiet, c"newinstance,ptmxmode=0666,mode=0620,max=16");
        let shm = quiet | libc::MS_NODEV;
        self.mount("dev/shm", c"tmpfs", c"dev/shm", shm, c"size=67108864,nr_inodes=16384,mode=1777");
        self.set_flags("dev: read-only", c"dev".as_ptr() as u64, &STILL, 0);
    }

    /// Shows the sandbox its control groups.
    fn show_groups(&mut self, shown: &[Shown]) {
        const NAME: &str = "control groups";
        if shown.is_empty() {
            return;
        }
        for path in [c"sys", c"sys/fs", c"sys/fs/cgroup"] {
            self.dir(NAME, path, 0o755);
        }
        let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let mut made: Vec<&Path> = vec![Path::new(GROUPS)];
        for (number, Shown { at, fstype, options }) in shown.iter().enumerate() {
            let [to, fs, data] = [relative(at), fstype, options].map(|text| self.keep(c_string(OsStr::new(text))));
            if !made.contains(&&**at) {
                self.add(NAME, libc::SYS_mkdirat, [AT_FDCWD, to, 0o755]);
                made.push(at);
                for controller in options.split(',').filter(|_| fstype == "cgroup" && options.contains(',')) {
                    let link =
                        self.keep(c_string(OsStr::new(&format!("{}/{controller}", relative(Path::new(GROUPS))))));
                    self.add(NAME, libc::SYS_symlinkat, [data, AT_FDCWD, link]);
                }
            }
            let source = if number == 0 { fs } else { c"none".as_ptr() as u64 };
            self.add(NAME, libc::SYS_mount, [source, to, fs, quiet, data]);
            // The first one gets the directories of the others.
            if number > 0 || shown.len() == 1 {
                self.set_flags(NAME, to, &STILL_QUIET, 0);
            }
        }
        if shown.len() > 1 {
            self.set_flags(NAME, c"sys/fs/cgroup".as_ptr() as u64, &STILL_QUIET, 0);
        }
    }

    /// Covers what tells of the machine as a whole, and makes its settings read-only.
    fn masks(&mut self) {
        let kind = |path: &str| Path::new("/").join(path).symlink_metadata().ok().map(|meta| meta.file_type());
        for path in MASKED {
            let Some(kind) = kind(path) else { continue };
            let to = self.keep(c_string(OsStr::new(path)));
            if kind.is_dir() {
                let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
                let [tmpfs, options] = [c"tmpfs", c"size=4k,nr_inodes=2,mode=555"].map(|text| text.as_ptr() as u64);
                self.add("masks", libc::SYS_mount, [tmpfs, to, tmpfs, flags, options]);
                self.set_flags("masks", to, &STILL, 0);
            } else {
                self.bind("masks", c"/dev/null".as_ptr() as u64, to, &STILL_NODE, false);
            }
        }
        for path in READ_ONLY {
            if kind(path).is_some() {
                let to = self.keep(c_string(OsStr::new(path)));
                self.bind("masks: read-only", to, to, &STILL, true);
            }
        }
    }

    /// Gives up all capabilities.
    fn no_rights(&mut self) {
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        for capability in 0..=text.trim().parse().unwrap_or(40) {
            self.add("capabilities", libc::SYS_prctl, [libc::PR_CAPBSET_DROP as u64, capability]);
        }
        let [header, none] = [CAP_HEADER.as_ptr() as u64, NO_CAPS.as_ptr() as u64];
        self.add("capabilities", libc::SYS_capset, [header, none]);
        self.add("no new privileges", libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0]);
    }
}

/// A file system of control groups that the library shows a sandbox.
#[derive(Debug)]
struct Shown {
    at: PathBuf,
    fstype: String,
    /// The options of its own, as mount(2) takes them.
    options: String,
}

/// What the library asks of the kernel and what depends on the host: looked up in a sandbox that
/// lives.
#[derive(Debug)]
pub struct OfLibrary {
    /// The instructions of the filter, as the kernel gives them: PTRACE_SECCOMP_GET_FILTER, 4.4.
    filter: Vec<u64>,
    /// The control groups that it is shown, in the order of their mounts.
    shown: Vec<Shown>,
}

/// Looks up what the library asks of the kernel and depends on the host.
pub fn of_library() -> Result<&'static OfLibrary, String> {
    static FOUND: OnceLock<Result<OfLibrary, String>> = OnceLock::new();
    FOUND.get_or_init(look_up).as_ref().map_err(String::clone)
}

fn look_up() -> Result<OfLibrary, String> {
    let mut child = Sandbox::strict().command("/bin/sleep").arg("60").spawn().map_err(|error| format!("{error:#}"))?;
    let init = child.id();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"));
    let program = children.map_err(|error| error.to_string())?.trim().parse();
    let filter = program.map_err(|_| io::ErrorKind::NotFound.into()).and_then(filter_of);
    let mounts = fs::read_to_string(format!("/proc/{init}/mountinfo"));
    let _ = child.kill();
    let _ = child.wait();
    let filter = filter.map_err(|error| format!("the filter: {error}"))?;
    let mounts = mounts.map_err(|error| format!("the mounts: {error}"))?;
    Ok(OfLibrary { filter, shown: mounts.lines().filter_map(shown_by).collect() })
}

/// Returns the file system of control groups that a line of mountinfo tells of.
fn shown_by(line: &str) -> Option<Shown> {
    let (mount, file_system) = line.split_once(" - ")?;
    let at = PathBuf::from(mount.split(' ').nth(4)?);
    let mut words = file_system.split(' ');
    let (fstype, options) = (words.next()?.to_owned(), words.nth(1)?);
    let own =
        |option: &&str| !["rw", "ro"].contains(option) && !option.starts_with("uid=") && !option.starts_with("gid=");
    let options = options.split(',').filter(own).collect::<Vec<_>>().join(",");
    at.starts_with(GROUPS).then_some(Shown { at, fstype, options })
}

/// Returns the path without the slash before it, as the paths below the new root are.
fn relative(path: &Path) -> &str {
    path.to_str().unwrap_or_default().trim_start_matches('/')
}

fn filter_of(pid: libc::pid_t) -> io::Result<Vec<u64>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let call = |request: libc::c_uint, addr: u64, data: *mut u64| {
        // SAFETY: none of the requests writes anything but the instructions, for which `data` has
        // the room that a call before has told.
        let result = unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), pid, addr, data) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
    };
    let none = std::ptr::null_mut();
    call(libc::PTRACE_SEIZE as libc::c_uint, 0, none)?;
    call(libc::PTRACE_INTERRUPT as libc::c_uint, 0, none)?;
    // SAFETY: no status is wanted.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
    let mut filter = vec![0; call(PTRACE_SECCOMP_GET_FILTER, 0, none)?];
    call(PTRACE_SECCOMP_GET_FILTER, 0, filter.as_mut_ptr())?;
    call(libc::PTRACE_DETACH as libc::c_uint, 0, none)?;
    Ok(filter)
}
