//! The preset for untrusted code.

use std::time::Duration;

use super::Sandbox;
use crate::mount::RootFs;
use crate::namespace::{Namespaces, UserLimit};
use crate::program::{DEFAULT_PATH, Resource, Session};
use crate::security::{Capabilities, Seccomp};
use crate::units::Bytes;

/// The user and group of the program, inside.
const NOBODY: u32 = 65_534;
const MEMORY: Bytes = Bytes::mib(512);
const PROCESSES: u64 = 256;
const WALL_TIME: Duration = Duration::from_secs(60);
const OUTPUT: Bytes = Bytes::mib(64);

/// The limits of one process, or of the user, for resources that no control group counts.
const RLIMITS: [(Resource, u64); 7] = [
    // With 0, the kernel still starts a program that core_pattern pipes to. With 1, the kernel
    // starts none, and writes no file, since a core begins with a page. Nothing but a filter keeps
    // a program from lowering its limit to 0.
    (Resource::Core, 1),
    (Resource::OpenFiles, 1024),
    (Resource::MemLock, 64 << 10),
    // The size of one queue that mq_open(3) makes. The kernel also charges the user who makes the
    // sandbox, whose limit is 800 KiB by default.
    (Resource::MessageQueue, 96 << 10),
    (Resource::SignalsPending, 1024),
    (Resource::Nice, 0),
    (Resource::RealtimePriority, 0),
];

/// The limits of the program's processes for tables that belong to the user who makes the sandbox.
const USER_LIMITS: [(UserLimit, u32); 4] = [
    (UserLimit::UserNamespaces, 0),
    (UserLimit::InotifyInstances, 8),
    (UserLimit::InotifyWatches, 4096),
    (UserLimit::FanotifyGroups, 0),
];

/// # Untrusted code
impl Sandbox {
    /// Makes a sandbox for untrusted code, with everything that this library has switched on. Later
    /// calls can relax or tighten each part.
    ///
    /// ```
    /// use ringfence::{Feature, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let script = "id -u; cat /etc/shadow; kill -9 -1";
    /// let sandbox = Sandbox::strict().command("sh").args(["-c", script]);
    /// # let sandbox = sandbox.best_effort(Feature::MemoryLimit).best_effort(Feature::PidsLimit);
    /// match sandbox.check() {
    ///     Ok(_) => println!("{}", sandbox.output()?.outcome.verdict()),
    ///     Err(missing) => println!("this host cannot: {missing}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// | rule | set by | relaxed by |
    /// | --- | --- | --- |
    /// | every namespace is the sandbox's own, and the network has only a loopback interface | [`namespaces`](Sandbox::namespaces) | [`share`](Sandbox::share) |
    /// | the host name `sandbox` | [`hostname`](Sandbox::hostname) | another name, [`share`](Sandbox::share)`(Namespaces::UTS)` |
    /// | no user namespace can be made inside, which keeps the program from the kernel code behind one | [`max_user_namespaces`](Sandbox::max_user_namespaces)`(0)`, and the filter | a higher number, which the filter then allows as well |
    /// | 8 inotify instances, 4,096 watches, no fanotify group | [`user_limit`](Sandbox::user_limit) | a higher number |
    /// | the program runs as user and group 65534, and no other id exists inside | [`user`](Sandbox::user) | another `user`, [`uid_map`](Sandbox::uid_map) |
    /// | no capabilities in any of the five sets, for the program and for init | [`capabilities`](Sandbox::capabilities)`(none())` | other sets |
    /// | no process gains privileges by an exec | [`no_new_privs`](Sandbox::no_new_privs) | `false`, and no filter |
    /// | the system calls that programs need, and no others | [`seccomp`](Sandbox::seccomp)`(`[`Seccomp::default`]`())` | another profile, `None` |
    /// | a session keyring of its own | [`session_keyring`](Sandbox::session_keyring) | `false` |
    /// | the host's programs and libraries, what they look up in /etc, and no other file of the host | [`rootfs`](Sandbox::rootfs)`(`[`RootFs::programs`]`())` | another root, [`bind_ro`](Sandbox::bind_ro) |
    /// | a read-only root, whichever root is set | [`read_only_root`](Sandbox::read_only_root) | `false` |
    /// | a private /proc, without the files about the whole machine | [`default_masks`](Sandbox::default_masks) | `false` |
    /// | a private /dev with null, zero, full, random, urandom, tty, 16 terminals and 64 MiB of shm | [`Dev`](crate::Dev) | a mount at /dev |
    /// | the sandbox's own control groups at /sys/fs/cgroup, read-only, by which runtimes size themselves | [`Cgroupfs`](crate::Cgroupfs) | a mount at /sys/fs/cgroup |
    /// | a private /tmp of 64 MiB and 16,384 files | [`Tmpfs`](crate::Tmpfs) | a mount at /tmp |
    /// | no huge pages, asynchronous requests (`io_setup`), netlink sockets, filters of sockets or connections without end, which no control group counts | [`Seccomp::default`] | a later rule |
    /// | no swap, where the host counts it | [`swap_limit`](Sandbox::swap_limit)`(0)` | a higher number |
    /// | 512 MiB of memory, 256 processes | [`memory_limit`](Sandbox::memory_limit), [`pids_limit`](Sandbox::pids_limit) | a higher number, [`best_effort`](Sandbox::best_effort) |
    /// | 60 seconds of wall time | [`wall_time`](Sandbox::wall_time) | a longer time, `None` |
    /// | 64 MiB of collected output | [`output_limit`](Sandbox::output_limit) | a higher number |
    /// | no core files, and no program that core_pattern pipes to, unless a crashing program has set that limit to 0; at most 1,024 descriptors, 64 KiB of locked memory, 96 KiB of message queues (one as mq_open(3) makes it), 1,024 queued signals; no higher priority, no realtime | [`rlimit`](Sandbox::rlimit) | `rlimit` of the same resource, up to the caller's own |
    /// | an environment of PATH, HOME=/tmp and LANG=C.UTF-8 | [`env_clear`](Sandbox::env_clear) | [`env`](Sandbox::env) |
    /// | a session of its own, without a terminal | [`session`](Sandbox::session) | another session |
    /// | an init that reaps orphans, and ends the sandbox with its owner | [`init`](Sandbox::init) | `false` |
    ///
    /// The preset has no rules for [`devices`](Sandbox::devices). Such rules would repeat what
    /// holds already, and cost more than a tenth of a millisecond in each spawn: a node opens its
    /// device only in the sandbox's own /dev, because every other mount is `nodev`, and no node can
    /// be made without `CAP_MKNOD`. Rules are useful together with `dev()` on a mount.
    ///
    /// # As root
    ///
    /// The user namespace maps the program's user, and nothing else, to an id that no account has,
    /// as [`user_ns`](Sandbox::user_ns) says. So a program that escapes in spite of everything is
    /// nobody: it owns no file, and can signal no process. The caller looks up a root and the
    /// sources of binds, which may lie in directories that are closed to others. The layers of an
    /// overlay, and targets of mounts that have to be made, are looked up with the rights of the
    /// program's user.
    ///
    /// # As an ordinary user
    ///
    /// The user namespace maps the caller's own id, the only one that the caller may map. Limits
    /// need a control group that is delegated to the user. Where there is none, the sandbox is
    /// refused, unless `best_effort` goes without the limits.
    pub fn strict() -> Self {
        // Each line is a policy that a later call can undo.
        let mut sandbox = Sandbox::new()
            .namespaces(Namespaces::all())
            .hostname("sandbox")
            .user(NOBODY, NOBODY)
            .capabilities(Capabilities::none())
            .no_new_privs(true)
            .seccomp(Seccomp::default())
            .session_keyring(true)
            .rootfs(RootFs::programs())
            .read_only_root(true)
            .default_masks(true)
            .memory_limit(MEMORY)
            .pids_limit(PROCESSES)
            .wall_time(WALL_TIME)
            .output_limit(OUTPUT)
            .env_clear()
            .env("PATH", DEFAULT_PATH)
            .env("HOME", "/tmp")
            .env("LANG", "C.UTF-8")
            .session(Session::New)
            .init(true);
        sandbox.policy.mounts.private_tmp = true;
        sandbox.policy.mounts.own_groups = true;
        sandbox.policy.takes_no_swap = true;
        let sandbox = USER_LIMITS.into_iter().fold(sandbox, |sandbox, (table, most)| sandbox.user_limit(table, most));
        RLIMITS.into_iter().fold(sandbox, |sandbox, (resource, most)| {
            let own = resource.caller_limits().map_or(most, |(_, hard)| hard);
            sandbox.rlimit(resource, most.min(own), most.min(own))
        })
    }
}
