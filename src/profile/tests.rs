//! Every call of the builder has its key, and the key does what the call does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use caps::Capability;
use serde_json::Value;

use super::*;
use crate::cgroup::{Device, DeviceAccess, Devices, IoLimit, Limits, Resources};
use crate::feature::Feature;
use crate::mount::{
    Bind, Cgroupfs, Dev, DeviceNode, DiskLimit, HidePid, MemoryFile, MountOptions, Mqueue, Overlay, Proc, Propagation,
    RawMount, RootFs, Sysfs, Tmpfs,
};
use crate::namespace::{IdMap, Namespaces, TimeOffset, UserLimit};
use crate::program::{
    IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Resource, Scheduler, SchedulerFlags, Session,
};
use crate::security::{Action, Architecture, Capabilities, Compare, Landlock, Rule, Seccomp, SecureBits};
use crate::stdio::{Stdio, TerminalSize};

/// Whether somebody who is not trusted may set a key to a value, with nothing allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Untrusted {
    May,
    MayNot,
}
use Untrusted::{May, MayNot};

/// A call of the builder, a text that says the same in TOML, and the call itself.
type Row = (&'static str, &'static str, fn(Sandbox) -> Sandbox, Untrusted);

const ROWS: &[Row] = &[
    ("command", "command = 'sort'", |s| s.command("sort"), May),
    ("arg", "args = ['-u']", |s| s.arg("-u"), May),
    ("args", "args = ['a', 'b']", |s| s.args(["a", "b"]), May),
    ("argv0", "argv0 = '-sh'", |s| s.argv0("-sh"), May),
    ("env", "env = { A = 'b' }", |s| s.env("A", "b"), May),
    ("envs", "env = { A = 'b', C = '' }", |s| s.envs([("A", "b"), ("C", "")]), May),
    ("env_remove", "env_remove = ['X', 'Y']", |s| s.env_remove("X").env_remove("Y"), May),
    ("env_clear", "env_clear = true", Sandbox::env_clear, May),
    ("cwd", "cwd = '/tmp'", |s| s.cwd("/tmp"), May),
    ("make_cwd", "make_cwd = true", |s| s.make_cwd(true), May),
    ("stdin", "stdin = 'null'", |s| s.stdin(Stdio::null()), May),
    ("stdin", "stdin = 'inherit'", |s| s.stdin(Stdio::inherit()), MayNot),
    ("stdin", "stdin = { bytes = \"a\\n\" }", |s| s.stdin(Stdio::bytes(*b"a\n")), May),
    ("stdin", "stdin = { hex = '00ff' }", |s| s.stdin(Stdio::bytes([0, 255])), May),
    ("stdin", "stdin = { pty = { rows = 24, columns = 80 } }", |s| s.stdin(Stdio::pty(SIZE)), May),
    ("stdout", "stdout = 'piped'", |s| s.stdout(Stdio::piped()), May),
    ("stdout", "stdout = 'inherit'", |s| s.stdout(Stdio::inherit()), MayNot),
    ("stderr", "stderr = 'piped'", |s| s.stderr(Stdio::piped()), May),
    ("stderr", "stderr = 'inherit'", |s| s.stderr(Stdio::inherit()), MayNot),
    ("user", "user = { uid = 1, gid = 2 }", |s| s.user(1, 2), MayNot),
    ("groups", "groups = [3, 4]", |s| s.groups([3, 4]), MayNot),
    ("umask", "umask = '0027'", |s| s.umask(0o27), May),
    ("session", "session = 'inherit'", |s| s.session(Session::Inherit), MayNot),
    ("session", "session = 'new_group'", |s| s.session(Session::NewGroup), MayNot),
    ("init", "init = false", |s| s.init(false), MayNot),
    ("init", "init = true", |s| s.init(true), May),
    ("stop_signal", "stop_signal = 2", |s| s.stop_signal(2), May),
    ("die_with_owner", "die_with_owner = false", |s| s.die_with_owner(false), MayNot),
    ("oom_score_adj", "oom_score_adj = 500", |s| s.oom_score_adj(500), May),
    ("oom_score_adj", "oom_score_adj = 0", |s| s.oom_score_adj(0), May),
    ("oom_score_adj", "oom_score_adj = -1", |s| s.oom_score_adj(-1), MayNot),
    ("scheduler", "scheduler = { policy = 'other', nice = 0 }", |s| s.scheduler(Scheduler::other(0)), May),
    ("scheduler", "scheduler = { policy = 'other', nice = -1 }", |s| s.scheduler(Scheduler::other(-1)), MayNot),
    (
        "scheduler",
        "scheduler = { policy = 'batch', nice = 10, flags = ['reset_on_fork'] }",
        |s| s.scheduler(Scheduler::batch(10).reset_on_fork()),
        May,
    ),
    ("scheduler", "scheduler = { policy = 'batch', nice = -10 }", |s| s.scheduler(Scheduler::batch(-10)), MayNot),
    ("scheduler", "scheduler = { policy = 'idle' }", |s| s.scheduler(Scheduler::idle()), May),
    ("scheduler", "scheduler = { policy = 'fifo', priority = 1 }", |s| s.scheduler(Scheduler::fifo(1)), MayNot),
    (
        "scheduler",
        "scheduler = { policy = 'round_robin', priority = 99 }",
        |s| s.scheduler(Scheduler::round_robin(99)),
        MayNot,
    ),
    (
        "scheduler",
        "scheduler = { policy = 'deadline', runtime = '1ms', deadline = '1500ms', period = '2s', \
         flags = ['reclaim', 'deadline_overrun'] }",
        |s| {
            let flags = SchedulerFlags::RECLAIM | SchedulerFlags::DEADLINE_OVERRUN;
            s.scheduler(Scheduler::deadline(Duration::from_millis(1), HALF, Duration::from_secs(2)).flags(flags))
        },
        MayNot,
    ),
    (
        "io_priority",
        "io_priority = { class = 'best_effort', level = 0 }",
        |s| s.io_priority(IoPriority::best_effort(0)),
        May,
    ),
    ("io_priority", "io_priority = { class = 'idle' }", |s| s.io_priority(IoPriority::idle()), May),
    (
        "io_priority",
        "io_priority = { class = 'realtime', level = 7 }",
        |s| s.io_priority(IoPriority::realtime(7)),
        MayNot,
    ),
    ("cpu_affinity", "cpu_affinity = [0, 3]", |s| s.cpu_affinity([0, 3]), May),
    (
        "memory_policy",
        "memory_policy = { mode = 'bind', nodes = [0, 1], flags = ['static_nodes', 'numa_balancing'] }",
        |s| {
            let flags = MemoryPolicyFlags::STATIC_NODES | MemoryPolicyFlags::NUMA_BALANCING;
            s.memory_policy(MemoryPolicy::bind([0, 1]).flags(flags))
        },
        May,
    ),
    (
        "memory_policy",
        "memory_policy = { mode = 'preferred', nodes = [1], flags = ['relative_nodes'] }",
        |s| s.memory_policy(MemoryPolicy::preferred(1).flags(MemoryPolicyFlags::RELATIVE_NODES)),
        May,
    ),
    (
        "memory_policy",
        "memory_policy = { mode = 'interleave', nodes = [0] }",
        |s| s.memory_policy(MemoryPolicy::interleave([0])),
        May,
    ),
    (
        "memory_policy",
        "memory_policy = { mode = 'preferred_many', nodes = [0] }",
        |s| s.memory_policy(MemoryPolicy::preferred_many([0])),
        May,
    ),
    (
        "memory_policy",
        "memory_policy = { mode = 'weighted_interleave', nodes = [0] }",
        |s| s.memory_policy(MemoryPolicy::weighted_interleave([0])),
        May,
    ),
    ("memory_policy", "memory_policy = { mode = 'local' }", |s| s.memory_policy(MemoryPolicy::local()), May),
    (
        "memory_policy",
        "memory_policy = { mode = 'system_default' }",
        |s| s.memory_policy(MemoryPolicy::system_default()),
        May,
    ),
    ("personality", "personality = []", |s| s.personality(Personality::empty()), May),
    (
        "personality",
        "personality = ['linux32', 'uname26', 'addr_no_randomize', 'addr_compat_layout', 'read_implies_exec']",
        |s| s.personality(Personality::all() - Personality::ADDR_LIMIT_3GB),
        May,
    ),
    ("personality", "personality = ['addr_limit_3gb']", |s| s.personality(Personality::ADDR_LIMIT_3GB), MayNot),
    ("namespaces", "namespaces = ['pid', 'net']", |s| s.namespaces(Namespaces::PID | Namespaces::NET), May),
    ("user_ns", "namespaces = ['user']", Sandbox::user_ns, May),
    ("pid_ns", "namespaces = ['pid']", Sandbox::pid_ns, May),
    ("mount_ns", "namespaces = ['mount']", Sandbox::mount_ns, May),
    ("net_ns", "namespaces = ['net']", Sandbox::net_ns, May),
    ("ipc_ns", "namespaces = ['ipc']", Sandbox::ipc_ns, May),
    ("uts_ns", "namespaces = ['uts']", Sandbox::uts_ns, May),
    ("cgroup_ns", "namespaces = ['cgroup']", Sandbox::cgroup_ns, May),
    ("time_ns", "namespaces = ['time']", Sandbox::time_ns, May),
    ("share", "share = ['net']", |s| s.share(Namespaces::NET), MayNot),
    ("share", "share = ['user', 'uts']", |s| s.share(Namespaces::USER | Namespaces::UTS), MayNot),
    ("join_pid", "join_pid = [{ kinds = ['net'], pid = 7 }]", |s| s.join_pid(Namespaces::NET, 7), MayNot),
    (
        "join_path",
        "join_path = [{ kind = 'ipc', path = '/run/ns/ipc' }]",
        |s| s.join_path(Namespaces::IPC, "/run/ns/ipc"),
        MayNot,
    ),
    ("hostname", "hostname = 'box'", |s| s.hostname("box"), May),
    ("domainname", "domainname = 'yp'", |s| s.domainname("yp"), May),
    ("monotonic_offset", "monotonic_offset = '1.5s'", |s| s.monotonic_offset(TimeOffset::Ahead(HALF)), May),
    ("boottime_offset", "boottime_offset = '-1.5s'", |s| s.boottime_offset(TimeOffset::Behind(HALF)), May),
    ("max_user_namespaces", "max_user_namespaces = 5", |s| s.max_user_namespaces(5), MayNot),
    ("max_user_namespaces", "max_user_namespaces = 0", |s| s.max_user_namespaces(0), May),
    ("user_limit", "user_limit = { inotify_watches = 7 }", |s| s.user_limit(UserLimit::InotifyWatches, 7), May),
    ("user_limit", "user_limit = { fanotify_groups = 7 }", |s| s.user_limit(UserLimit::FanotifyGroups, 7), MayNot),
    ("uid_map", "uid_map = ['0:1000:1']", |s| s.uid_map(IdMap::new(0, 1000, 1)), MayNot),
    ("gid_map", "gid_map = ['0:1000:1']", |s| s.gid_map(IdMap::new(0, 1000, 1)), MayNot),
    ("map_subids", "map_subids = true", Sandbox::map_subids, MayNot),
    (
        "sysctl",
        "sysctl = { 'kernel.shmmax' = '1', 'net.ipv4.ping_group_range' = '0 7' }",
        |s| s.sysctl("net.ipv4.ping_group_range", "0 7").sysctl("kernel.shmmax", "1"),
        MayNot,
    ),
    ("rootfs", "rootfs = '/srv/root'", |s| s.rootfs("/srv/root"), MayNot),
    ("rootfs", "rootfs = { base = 'host' }", |s| s.rootfs(RootFs::host()), MayNot),
    ("rootfs", "rootfs = { base = 'programs' }", |s| s.rootfs(RootFs::programs()), May),
    ("rootfs", "rootfs = { base = 'programs', suid = true }", |s| s.rootfs(RootFs::programs().suid()), MayNot),
    ("rootfs", "rootfs = { base = 'programs', dev = true }", |s| s.rootfs(RootFs::programs().dev()), MayNot),
    ("rootfs", "rootfs = { dir = '/r', read_only = true }", |s| s.rootfs(RootFs::dir("/r").read_only()), MayNot),
    ("rootfs", "rootfs = { overlay = ['/a'], tmpfs = '1 MiB' }", |s| s.rootfs(overlay().tmpfs(1 << 20)), MayNot),
    ("rootfs", "rootfs = { overlay = ['/a'], scratch = true }", |s| s.rootfs(overlay().scratch()), MayNot),
    ("rootfs", "rootfs = { overlay = ['/a'], scratch_in = '/b' }", |s| s.rootfs(overlay().scratch_in("/b")), MayNot),
    (
        "rootfs",
        "rootfs = { overlay = ['/a'], id_mapped = true, upper = { upper = '/u', work = '/w' } }",
        |s| s.rootfs(overlay().id_mapped().upper("/u", "/w")),
        MayNot,
    ),
    (
        "rootfs",
        "rootfs = { overlay = ['/a'], scratch = true, disk_limit = '1 GiB' }",
        |s| s.rootfs(overlay().scratch().disk_limit(DiskLimit::new(1 << 30))),
        MayNot,
    ),
    ("no_pivot", "no_pivot = true", |s| s.no_pivot(true), MayNot),
    ("read_only_root", "read_only_root = false", |s| s.read_only_root(false), May),
    ("read_only_root", "read_only_root = true", |s| s.read_only_root(true), May),
    ("mount", "mount = [{ sysfs = '/sys' }]", |s| s.mount(Sysfs::new("/sys")), MayNot),
    (
        "mount",
        "mount = [{ mqueue = '/q' }, { cgroupfs = '/g' }]",
        |s| s.mount(Mqueue::new("/q")).mount(Cgroupfs::new("/g")),
        May,
    ),
    ("mount", "mount = [{ cgroupfs = { target = '/g' } }]", |s| s.mount(Cgroupfs::new("/g")), May),
    (
        "mount",
        "mount = [{ cgroupfs = { target = '/g', writable = true } }]",
        |s| s.mount(Cgroupfs::new("/g").writable()),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ proc = { target = '/proc', hidepid = 'invisible', subset_pid = true, read_only = true } }]",
        |s| s.mount(Proc::new("/proc").hidepid(HidePid::Invisible).subset_pid().read_only()),
        May,
    ),
    ("mount", "mount = [{ proc = { target = '/p' } }]", |s| s.mount(Proc::new("/p")), MayNot),
    (
        "mount",
        "mount = [{ dev = { target = '/d', shm_size = '1 MiB', terminals = 3, read_only = true } }]",
        |s| s.mount(Dev::new("/d").shm_size(1 << 20).terminals(3).read_only()),
        May,
    ),
    (
        "mount",
        "mount = [{ dev = { target = '/d', terminals = 30 } }]",
        |s| s.mount(Dev::new("/d").terminals(30)),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ overlay = { target = '/o', lowers = ['/l'], upper = { upper = '/u', work = '/w' }, noexec = true } }]",
        |s| s.mount(Overlay::new("/o", ["/l"]).upper("/u", "/w").noexec()),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ overlay = { target = '/o', lowers = ['/l'], upper = { upper = '/u', work = '/w' }, disk_limit = '1 MiB' } }]",
        |s| s.mount(Overlay::new("/o", ["/l"]).upper("/u", "/w").disk_limit(DiskLimit::new(1 << 20))),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ bind = { source = '/allowed', target = '/w', disk_limit = { bytes = '1 MiB', inodes = 9 } } }]",
        |s| s.mount(Bind::new("/allowed", "/w").disk_limit(DiskLimit::new(1 << 20).inodes(9))),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ overlay = { target = '/o', lowers = ['/l'], tmpfs = '1 MiB' } }]",
        |s| s.mount(Overlay::new("/o", ["/l"]).tmpfs(1 << 20)),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ raw = { source = 's', target = '/t', fstype = 'f', flags = '0x10', data = 'd' } }]",
        |s| s.mount(RawMount::new("s", "/t", "f").flags(16).data("d")),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ tmpfs = { target = '/t', mode = '0700', inodes = 9, noexec = true, read_only = true } }]",
        |s| s.mount(Tmpfs::new("/t").mode(0o700).inodes(9).noexec().read_only()),
        May,
    ),
    ("mount", "mount = [{ tmpfs = { target = '/t', copy_up = true } }]", |s| s.mount(Tmpfs::new("/t").copy_up()), May),
    (
        "mount",
        "mount = [{ tmpfs = { target = '/t', mode = '1777', copy_up = true } }]",
        |s| s.mount(open_tmpfs().copy_up()),
        May,
    ),
    ("mount", "mount = [{ tmpfs = { target = '/t', suid = true } }]", |s| s.mount(open_tmpfs().suid()), MayNot),
    ("mount", "mount = [{ tmpfs = { target = '/t', dev = true } }]", |s| s.mount(open_tmpfs().dev()), MayNot),
    (
        "mount",
        "mount = [{ device_node = { target = '/dev/fuse', kind = 'character', major = 10, minor = 229 } }]",
        |s| s.mount(DeviceNode::character("/dev/fuse", 10, 229)),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ device_node = { target = '/d', kind = 'block', major = 8, minor = 0, mode = '0640', \
         owner = { uid = 1, gid = 2 } } }]",
        |s| s.mount(DeviceNode::block("/d", 8, 0).mode(0o640).owner(1, 2)),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ device_node = { target = '/p', kind = 'fifo' } }]",
        |s| s.mount(DeviceNode::fifo("/p")),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ bind = { source = '/a', target = '/b', non_recursive = true, noexec = true, nodev = true } }]",
        |s| s.mount(Bind::new("/a", "/b").non_recursive().noexec().nodev()),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ bind_ro = { source = '/a', target = '/b', suid = true, dev = true } }]",
        |s| s.mount(Bind::new("/a", "/b").read_only().suid().dev()),
        MayNot,
    ),
    (
        "mount",
        "mount = [{ file = { target = '/f', hex = 'ff', mode = '0600', writable = true, noexec = true } }]",
        |s| s.mount(MemoryFile::new("/f", [255]).mode(0o600).writable().noexec()),
        May,
    ),
    ("bind", "mount = [{ bind = { source = '/a', target = '/b' } }]", |s| s.bind("/a", "/b"), MayNot),
    ("bind_ro", "mount = [{ bind_ro = { source = '/a', target = '/b' } }]", |s| s.bind_ro("/a", "/b"), MayNot),
    ("bind_try", "mount = [{ bind_try = { source = '/a', target = '/b' } }]", |s| s.bind_try("/a", "/b"), MayNot),
    (
        "bind_ro_try",
        "mount = [{ bind_ro_try = { source = '/a', target = '/b' } }]",
        |s| s.bind_ro_try("/a", "/b"),
        MayNot,
    ),
    ("tmpfs", "mount = [{ tmpfs = { target = '/t', size = '1.5 MiB' } }]", |s| s.tmpfs("/t", 3 << 19), May),
    ("tmpfs", "mount = [{ tmpfs = { target = '/t', size = '1 TiB' } }]", |s| s.tmpfs("/t", 1 << 40), MayNot),
    ("file", "mount = [{ file = { target = '/f', text = 'x' } }]", |s| s.file("/f", "x"), May),
    ("dir", "mount = [{ dir = '/d' }]", |s| s.dir("/d"), May),
    ("symlink", "mount = [{ symlink = { to = '/d', path = '/l' } }]", |s| s.symlink("/d", "/l"), May),
    ("mask", "mask = ['/m']", |s| s.mask("/m"), May),
    ("read_only_path", "read_only_path = ['/m']", |s| s.read_only_path("/m"), May),
    ("default_masks", "default_masks = true", |s| s.default_masks(true), May),
    ("default_masks", "default_masks = false", |s| s.default_masks(false), MayNot),
    ("default_mounts", "default_mounts = false", |s| s.default_mounts(false), May),
    ("capabilities", "capabilities = []", |s| s.capabilities(Capabilities::none()), May),
    ("capabilities", "capabilities = ['CAP_CHOWN']", |s| s.capabilities(Capabilities::keep([CHOWN])), MayNot),
    (
        "capabilities",
        "capabilities = { all_but = ['CAP_CHOWN'] }",
        |s| s.capabilities(Capabilities::all_but([CHOWN])),
        MayNot,
    ),
    (
        "capabilities",
        "capabilities = { bounding = ['CAP_CHOWN'], ambient = ['CAP_CHOWN'], securebits = ['noroot'] }",
        |s| s.capabilities(Capabilities::none().bounding([CHOWN]).ambient([CHOWN]).securebits(SecureBits::NOROOT)),
        MayNot,
    ),
    ("no_new_privs", "no_new_privs = true", |s| s.no_new_privs(true), May),
    ("no_new_privs", "no_new_privs = false", |s| s.no_new_privs(false), MayNot),
    ("session_keyring", "session_keyring = true", |s| s.session_keyring(true), May),
    ("session_keyring", "session_keyring = false", |s| s.session_keyring(false), MayNot),
    ("apparmor_profile", "apparmor_profile = 'web'", |s| s.apparmor_profile("web"), MayNot),
    ("selinux_label", "selinux_label = 'u:r:t:s0'", |s| s.selinux_label("u:r:t:s0"), MayNot),
    ("seccomp", "seccomp = 'default'", |s| s.seccomp(Seccomp::default()), May),
    ("seccomp", "seccomp = 'compute'", |s| s.seccomp(Seccomp::compute()), May),
    ("seccomp", "seccomp = 'none'", |s| s.seccomp(None), MayNot),
    (
        "seccomp",
        "seccomp = { base = 'default', log = false, rule = [{ calls = ['mkdir'], action = 'EACCES' }] }",
        |s| s.seccomp(Seccomp::default().rule(Rule::new(["mkdir"], Action::Errno(13))).log(false)),
        May,
    ),
    (
        "seccomp",
        "seccomp = { base = 'default', rule = [{ calls = ['bpf'], action = 'allow' }] }",
        |s| s.seccomp(Seccomp::default().allow(["bpf"])),
        MayNot,
    ),
    (
        "seccomp",
        "seccomp = { base = 'allow_list', otherwise = 'errno 4000', foreign = 'kill_process', log = true, \
         allow_speculation = true, rule = [{ calls = ['read'], action = 'trace 5', args = [{ index = 1, lt = 7 }, \
         { index = 2, masked_eq = { mask = 'unlimited', value = '0xffffffffffffffff' } }] }] }",
        |s| {
            let masked = Compare::MaskedEq { mask: u64::MAX, value: u64::MAX };
            let rule = Rule::new(["read"], Action::Trace(5)).arg(1, Compare::Lt(7)).arg(2, masked);
            let profile = Seccomp::allow_list().otherwise(Action::Errno(4000)).foreign(Action::KillProcess);
            s.seccomp(profile.log(true).allow_speculation(true).rule(rule))
        },
        MayNot,
    ),
    (
        "seccomp",
        "seccomp = { base = 'deny_list', rule = [{ calls = ['read'], action = 'notify', args = [{ index = 0, eq = 1 }, \
         { index = 1, ne = 1 }, { index = 2, le = 1 }, { index = 3, gt = 1 }, { index = 4, ge = 1 }] }] }",
        |s| {
            let rule = Rule::new(["read"], Action::Notify).arg(0, Compare::Eq(1)).arg(1, Compare::Ne(1));
            let rule = rule.arg(2, Compare::Le(1)).arg(3, Compare::Gt(1)).arg(4, Compare::Ge(1));
            s.seccomp(Seccomp::deny_list().rule(rule))
        },
        MayNot,
    ),
    (
        "seccomp",
        "seccomp = { base = 'default', allow_new_privs = true }",
        |s| s.seccomp(Seccomp::default().allow_new_privs(true)),
        MayNot,
    ),
    (
        "seccomp",
        "seccomp = { base = 'compute', architecture = ['x86', 'x32', 'arm'] }",
        |s| {
            let profile = Seccomp::compute().architecture(Architecture::X86).architecture(Architecture::X32);
            s.seccomp(profile.architecture(Architecture::Arm))
        },
        MayNot,
    ),
    (
        "landlock",
        "landlock = { read = ['/a'], execute = ['/b'], write = ['/c'], device = ['/d'], restrict_tcp = true, \
         bind_tcp = [80], connect_tcp = [443], scope_signals = true, scope_abstract_sockets = true }",
        |s| {
            let rules = Landlock::new().read("/a").execute("/b").write("/c").device("/d").restrict_tcp();
            s.landlock(rules.bind_tcp(80).connect_tcp(443).scope_signals().scope_abstract_sockets())
        },
        May,
    ),
    (
        "limits",
        "limits = { pids = 4, swap = 0, cpu = 2 }",
        |s| s.limits(Limits::new().pids(4).swap(0).cpu(2.0)),
        MayNot,
    ),
    ("limits", "limits = {}", |s| s.limits(Limits::new()), MayNot),
    ("memory_limit", "memory_limit = '64 MiB'", |s| s.memory_limit(64 << 20), May),
    ("memory_limit", "memory_limit = 5368709120", |s| s.memory_limit(5 << 30), MayNot),
    ("memory_high", "memory_high = '1001 B'", |s| s.memory_high(1001), May),
    ("memory_low", "memory_low = '1 MiB'", |s| s.memory_low(1 << 20), MayNot),
    ("memory_min", "memory_min = '1 MiB'", |s| s.memory_min(1 << 20), MayNot),
    ("oom_group", "oom_group = true", |s| s.oom_group(true), May),
    ("swap_limit", "swap_limit = 0", |s| s.swap_limit(0), May),
    ("swap_limit", "swap_limit = 4096", |s| s.swap_limit(4096), MayNot),
    ("hugetlb_limit", "hugetlb_limit = [{ page = '2 MiB', limit = 0 }]", |s| s.hugetlb_limit(2 << 20, 0), May),
    ("pids_limit", "pids_limit = 20", |s| s.pids_limit(20), May),
    ("pids_limit", "pids_limit = 'unlimited'", |s| s.pids_limit(u64::MAX), MayNot),
    ("cpu_limit", "cpu_limit = 0.5", |s| s.cpu_limit(0.5), May),
    ("cpu_burst", "cpu_burst = '10ms'", |s| s.cpu_burst(Duration::from_millis(10)), May),
    ("cpu_idle", "cpu_idle = true", |s| s.cpu_idle(true), May),
    ("cpu_weight", "cpu_weight = 50", |s| s.cpu_weight(50), May),
    ("cpu_weight", "cpu_weight = 500", |s| s.cpu_weight(500), MayNot),
    ("cpuset", "cpuset = '0-1'", |s| s.cpuset("0-1"), MayNot),
    ("cpuset_mems", "cpuset_mems = '0'", |s| s.cpuset_mems("0"), MayNot),
    (
        "io_limit",
        "io_limit = [{ device = '8:0', read_bps = 1024, write_bps = '1 KiB', read_iops = 3, write_iops = 4 }]",
        |s| s.io_limit(IoLimit::device(8, 0).read_bps(1024).write_bps(1024).read_iops(3).write_iops(4)),
        May,
    ),
    ("io_weight", "io_weight = 50", |s| s.io_weight(50), May),
    ("io_weight", "io_weight = 101", |s| s.io_weight(101), MayNot),
    (
        "resources",
        "resources = { memory_reservation = '1 MiB', memory_and_swap = '1 GiB', swappiness = 1, oom_kill_disable = true, \
         cpu_shares = 2, cpu_quota = '5ms', cpu_period = '50ms', realtime_runtime = '1ms', realtime_period = '1s', \
         blkio_weight = 10, device_weight = [{ device = '8:0', weight = 30 }], network_class = 7, \
         network_priority = { lo = 3 }, rdma = { mlx4_0 = { handles = 1, objects = 'unlimited' } }, \
         unified = { 'memory.high' = 'max' } }",
        |s| {
            let all = Resources::new().memory_reservation(1 << 20).memory_and_swap(1 << 30).swappiness(1);
            let all = all.oom_kill_disable(true).cpu_shares(2).cpu_quota(Duration::from_millis(5));
            let all = all.cpu_period(Duration::from_millis(50)).realtime_runtime(Duration::from_millis(1));
            let all = all.realtime_period(Duration::from_secs(1)).blkio_weight(10).device_weight(8, 0, 30);
            let all = all.network_class(7).network_priority("lo", 3).rdma("mlx4_0", 1, u64::MAX);
            s.resources(all.unified("memory.high", "max"))
        },
        MayNot,
    ),
    ("devices", "devices = []", |s| s.devices(Devices::none()), MayNot),
    (
        "devices",
        "devices = ['standard', 'b 8:* r', 'deny a *:* m']",
        |s| {
            let disk = Devices::standard().allow(Device::block(8, None), DeviceAccess::READ);
            s.devices(disk.deny(Device::any(), DeviceAccess::MKNOD))
        },
        MayNot,
    ),
    ("device_allow", "device_allow = ['c 10:200 rw']", |s| s.device_allow(Device::char(10, 200), RW), MayNot),
    ("cgroup_max_descendants", "cgroup_max_descendants = 4", |s| s.cgroup_max_descendants(4), MayNot),
    ("cgroup_max_depth", "cgroup_max_depth = 2", |s| s.cgroup_max_depth(2), MayNot),
    ("rlimit", "rlimit = { open_files = 64 }", |s| s.rlimit(Resource::OpenFiles, 64, 64), May),
    ("rlimit", "rlimit = { locks = 1 }", |s| s.rlimit(Resource::Locks, 1, 1), May),
    ("rlimit", "rlimit = { resident_set = 4096 }", |s| s.rlimit(Resource::ResidentSet, 4096, 4096), May),
    ("rlimit", "rlimit = { stack = { soft = 1, hard = 2 } }", |s| s.rlimit(Resource::Stack, 1, 2), May),
    ("rlimit", "rlimit = { core = 'unlimited' }", |s| s.rlimit(Resource::Core, u64::MAX, u64::MAX), MayNot),
    ("wall_time", "wall_time = '1.5s'", |s| s.wall_time(HALF), May),
    ("wall_time", "wall_time = '2h'", |s| s.wall_time(Duration::from_secs(7200)), MayNot),
    ("wall_time_grace", "wall_time_grace = '2h'", |s| s.wall_time_grace(Duration::from_secs(7200)), MayNot),
    ("cpu_time", "cpu_time = '1us'", |s| s.cpu_time(Duration::from_micros(1)), May),
    ("output_limit", "output_limit = '1 KiB'", |s| s.output_limit(1024), May),
    ("output_limit", "output_limit = '1 GiB'", |s| s.output_limit(1 << 30), MayNot),
    ("output_cut", "output_cut = true", |s| s.output_cut(true), May),
    ("cgroup", "cgroup = '/g/a'", |s| s.cgroup("/g/a"), MayNot),
    ("cgroup_parent", "cgroup_parent = '/g'", |s| s.cgroup_parent("/g"), MayNot),
    #[cfg(feature = "systemd")]
    (
        "systemd_scope",
        "systemd_scope = { slice = 'a.slice', description = 'd' }",
        |s| s.systemd_scope(crate::cgroup::SystemdScope::new().slice("a.slice").description("d")),
        MayNot,
    ),
    (
        "best_effort",
        "best_effort = ['memory_limit', 'landlock paths']",
        |s| s.best_effort(Feature::MemoryLimit).best_effort(Feature::LandlockFiles),
        MayNot,
    ),
    ("setup_timeout", "setup_timeout = '5s'", |s| s.setup_timeout(Duration::from_secs(5)), May),
    ("setup_timeout", "setup_timeout = '1h'", |s| s.setup_timeout(Duration::from_secs(3600)), MayNot),
    ("timings", "timings = true", |s| s.timings(true), May),
    ("denials", "denials = true", |s| s.denials(true), May),
];

const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };
const HALF: Duration = Duration::from_millis(1500);
const CHOWN: Capability = Capability::CAP_CHOWN;
const RW: DeviceAccess = DeviceAccess::READ.union(DeviceAccess::WRITE);

/// The calls that no key can have, with the reason.
const WITHOUT_KEY: &[(&str, &str)] = &[
    ("fd", "a descriptor has no text"),
    ("join_fd", "a descriptor has no text"),
    ("join_process", "a descriptor has no text"),
    ("notify_socket", "the function that makes the message has no text"),
    ("join_held", "a descriptor has no text"),
    ("image", "an image is of a store, whose place and lock are the caller's"),
    ("fail_at", "it is for tests"),
];

fn open_tmpfs() -> Tmpfs {
    Tmpfs::new("/t").mode(0o1777)
}

fn overlay() -> RootFs {
    RootFs::overlay(["/a"])
}

/// What the sandbox says of itself, without what a profile of system calls has computed meanwhile.
fn shown(sandbox: &Sandbox) -> String {
    let text = format!("{:#?}", sandbox.policy);
    let (mut lines, mut shown) = (text.lines(), Vec::new());
    while let Some(line) = lines.next() {
        if line.ends_with("OnceLock(") {
            // Other tests compute it at the same time: the profiles are shared.
            let end = format!("{}),", &line[..line.len() - line.trim_start().len()]);
            assert!(lines.by_ref().any(|line| line == end), "{line}");
        } else {
            shown.push(line);
        }
    }
    shown.join("\n")
}

fn toml_of(preset: &str, text: &str) -> String {
    format!("version = 1\npreset = '{preset}'\n{text}\n")
}

/// Reads the profile off a sandbox, and checks that all texts of it make the same sandbox again.
fn goes_round(sandbox: &Sandbox, what: &str) {
    let profile = Profile::try_from(sandbox).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (toml, json) = (profile.to_toml().unwrap(), profile.to_json().unwrap());
    let of_toml = Profile::from_toml(&toml).unwrap_or_else(|error| panic!("{what}: {error}\n{toml}"));
    let of_json = Profile::from_json(&json).unwrap_or_else(|error| panic!("{what}: {error}\n{json}"));
    assert_eq!((&of_toml, &of_json), (&profile, &profile), "{what}\n{toml}");
    assert_eq!(shown(&of_toml.sandbox().unwrap()), shown(sandbox), "{what}\n{toml}");
}

#[test]
fn each_key_does_what_its_call_does() {
    for (call, text, make, _) in ROWS {
        for (preset, begin) in [("new", Sandbox::new as fn() -> Sandbox), ("strict", Sandbox::strict)] {
            let text = toml_of(preset, text);
            let profile = Profile::from_toml(&text).unwrap_or_else(|error| panic!("{call}: {error}\n{text}"));
            let made = make(begin());
            // Beside a preset with limits of resources, one that is set again stands last.
            assert_eq!(shown(&profile.sandbox().unwrap()), shown(&made), "{call}: {text}");
            assert_eq!(Profile::from_json(&profile.to_json().unwrap()).unwrap(), profile, "{call}");
        }
    }
}

#[test]
fn every_sandbox_goes_to_text_and_back() {
    let differ = |sandbox: Sandbox| sandbox.rlimit(Resource::OpenFiles, 1, 2);
    for begin in [Sandbox::new as fn() -> Sandbox, Sandbox::strict] {
        goes_round(&begin(), "the preset");
        for (call, text, make, _) in ROWS.iter().filter(|(call, ..)| *call != "rlimit") {
            goes_round(&make(begin()), &format!("{call}: {text}"));
        }
        // Every third with every seventh, and all that go together at once.
        for (first, .., one, _) in ROWS.iter().step_by(3).filter(|(call, ..)| *call != "rlimit") {
            for (second, .., other, _) in ROWS.iter().step_by(7).filter(|(call, ..)| *call != "rlimit") {
                // What is shared first, and needed by what comes later, is no namespace to share.
                if !["share", "limits"].contains(second) && *first != "share" {
                    goes_round(&other(one(begin())), &format!("{first}, then {second}"));
                }
            }
        }
    }
    let all = ROWS.iter().filter(|(call, ..)| !["share", "limits", "rlimit"].contains(call));
    goes_round(&all.fold(Sandbox::new(), |sandbox, (.., make, _)| make(sandbox)), "all at once");
    let profile = Profile::try_from(&differ(Sandbox::new())).unwrap();
    assert_eq!(shown(&profile.sandbox().unwrap()), shown(&differ(Sandbox::new())));
}

#[test]
fn what_has_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let null = || std::fs::File::open("/dev/null").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    for (sandbox, call) in [
        (Sandbox::new().fd(3, null()), "fd"),
        (Sandbox::new().stdin(null()), "stdin"),
        (Sandbox::new().join_fd(Namespaces::NET, null()), "join_fd"),
        (Sandbox::new().notify_socket("/run/agent", |_| Vec::new()), "notify_socket"),
        (Sandbox::new().join_process(Namespaces::NET, null()), "join_process"),
        (Sandbox::new().command(odd), "command"),
        (Sandbox::new().env("A", odd), "env"),
        (Sandbox::new().bind(odd, "/b"), "a path"),
        (Sandbox::new().mount(Bind::new("/a", "/b").options(MountOptions::new())), "MountOptions"),
        (Sandbox::new().mount(Bind::new("/a", "/b").id_mapped([], [])), "id maps"),
        (Sandbox::new().mount(RawMount::new("a", "/b", "c").options(MountOptions::new())), "MountOptions"),
        (Sandbox::new().rootfs(RootFs::dir("/r").propagation(Propagation::Shared)), "propagation"),
        (Sandbox::new().fail_at(1, 1), "fail_at"),
        (Sandbox::new().personality(Personality::from_bits_retain(1 << 20)), "personality"),
        (Sandbox::new().cpu_affinity([usize::MAX]), "cpu_affinity"),
        (Sandbox::strict().share(Namespaces::UTS).uts_ns(), "hostname"),
    ] {
        let error = Profile::try_from(&sandbox).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Profile));
        assert!(error.to_string().contains(call), "{call}: {error}");
    }
}

/// The calls that the builder's sources have: those that take the builder and give it back.
fn builder_calls() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> =
        std::fs::read_dir(root.join("sandbox")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("image/run.rs"));
    let mut calls = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for call in text.split("    pub fn ").skip(1) {
            // A long head stands on several lines.
            let head = call.split('{').next().unwrap().replace("(\n        ", "(");
            let takes_builder = ["(mut self", "(self"].iter().any(|form| head.contains(form));
            if takes_builder && (head.contains("-> Self") || head.contains("Result<Sandbox>")) {
                calls.insert(head.split(['(', '<']).next().unwrap().to_owned());
            }
        }
    }
    calls
}

#[test]
fn every_call_of_the_builder_has_its_key() {
    let calls = builder_calls();
    assert!(calls.len() > 90, "only {} calls were found", calls.len());
    let mut known: BTreeSet<String> = ROWS.iter().map(|(call, ..)| (*call).to_owned()).collect();
    known.extend(WITHOUT_KEY.iter().map(|(call, reason)| {
        assert!(!reason.is_empty());
        (*call).to_owned()
    }));
    if cfg!(not(feature = "systemd")) {
        known.insert("systemd_scope".to_owned());
    }
    let without: Vec<_> = calls.difference(&known).collect();
    assert!(without.is_empty(), "no key, and no reason for that: {without:?}");
    let gone: Vec<_> = known.difference(&calls).collect();
    assert!(gone.is_empty(), "no such calls any more: {gone:?}");
    // And no key without a call.
    let mut used: BTreeSet<String> = ["version".to_owned(), "preset".to_owned()].into();
    used.extend(ROWS.iter().map(|(_, text, ..)| text.split(" =").next().unwrap().to_owned()));
    used.insert("systemd_scope".to_owned());
    assert_eq!(keys_of("", ""), used);
}

/// The keys that a table may have, as the reader itself names them for one that it may not.
fn keys_of(before: &str, after: &str) -> BTreeSet<String> {
    let json = format!("{{\"version\":1{before}{{\"?\":0{after}");
    let json = if before.is_empty() { "{\"?\":0}".to_owned() } else { json };
    let error = serde_json::from_str::<File>(&json).unwrap_err().to_string();
    let list = error.split_once("expected ").unwrap_or_else(|| panic!("{json}: {error}")).1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_same_keys_and_takes_the_same_texts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/profile.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let keys = |name: &str| {
        let table = if name.is_empty() { &schema } else { &schema["$defs"][name] };
        assert_eq!(table["additionalProperties"], Value::Bool(false), "{name}");
        table["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>()
    };
    assert_eq!(keys(""), keys_of("", ""));
    let tables = [
        ("limits", ",\"limits\":", "}}"),
        ("resources", ",\"resources\":", "}}"),
        ("device_weight", ",\"resources\":{\"device_weight\":[", "}]}}"),
        ("rdma", ",\"resources\":{\"rdma\":{\"a\":", "}}}}"),
        ("scheduler", ",\"scheduler\":", "}}"),
        ("io_priority", ",\"io_priority\":", "}}"),
        ("memory_policy", ",\"memory_policy\":", "}}"),
        ("ids", ",\"user\":", "}}"),
        ("join", ",\"join_pid\":[", "}]}"),
        ("join_path", ",\"join_path\":[", "}]}"),
        ("huge_pages", ",\"hugetlb_limit\":[", "}]}"),
        ("soft_hard", ",\"rlimit\":{\"core\":", "}}}"),
        ("scope", ",\"systemd_scope\":", "}}"),
        ("io", ",\"io_limit\":[", "}]}"),
        ("stream", ",\"stdin\":", "}}"),
        ("terminal_size", ",\"stdin\":{\"pty\":", "}}}"),
        ("root", ",\"rootfs\":", "}}"),
        ("upper", ",\"rootfs\":{\"upper\":", "}}}"),
        ("disk", ",\"rootfs\":{\"disk_limit\":", "}}}"),
        ("mount", ",\"mount\":[", "}]}"),
        ("bind", ",\"mount\":[{\"bind\":", "}}]}"),
        ("tmpfs", ",\"mount\":[{\"tmpfs\":", "}}]}"),
        ("file", ",\"mount\":[{\"file\":", "}}]}"),
        ("symlink", ",\"mount\":[{\"symlink\":", "}}]}"),
        ("proc", ",\"mount\":[{\"proc\":", "}}]}"),
        ("dev", ",\"mount\":[{\"dev\":", "}}]}"),
        ("cgroupfs", ",\"mount\":[{\"cgroupfs\":", "}}]}"),
        ("overlay", ",\"mount\":[{\"overlay\":", "}}]}"),
        ("device_node", ",\"mount\":[{\"device_node\":", "}}]}"),
        ("raw", ",\"mount\":[{\"raw\":", "}}]}"),
        ("capability_sets", ",\"capabilities\":", "}}"),
        ("filter", ",\"seccomp\":", "}}"),
        ("filter_rule", ",\"seccomp\":{\"base\":\"default\",\"rule\":[", "}]}}"),
        ("filter_arg", ",\"seccomp\":{\"base\":\"default\",\"rule\":[{\"args\":[", "}]}]}}"),
        ("masked", ",\"seccomp\":{\"base\":\"default\",\"rule\":[{\"args\":[{\"masked_eq\":", "}}]}]}}"),
        ("landlock", ",\"landlock\":", "}}"),
    ];
    for (name, before, after) in tables {
        assert_eq!(keys(name), keys_of(before, after), "{name}");
    }
    let of_schema: BTreeSet<&String> = schema["$defs"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, table)| table.get("properties").is_some())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(of_schema.len(), tables.len(), "{of_schema:?}");
    for (call, text, ..) in ROWS {
        let profile = Profile::from_toml(&toml_of("new", text)).unwrap();
        let json: Value = serde_json::from_str(&profile.to_json().unwrap()).unwrap();
        fits(&schema, &schema, &json).unwrap_or_else(|why| panic!("{call}: {why}"));
        let read: Value = toml::from_str(&toml_of("new", text)).unwrap();
        fits(&schema, &schema, &read).unwrap_or_else(|why| panic!("{call}: {why}"));
    }
    let wrong = serde_json::json!({"version": 1, "mount": [{"tmpfs": {"target": 5}}]});
    assert!(fits(&schema, &schema, &wrong).is_err());
}

/// Checks a value by the parts of JSON schema that the schema uses.
fn fits(schema: &Value, rule: &Value, value: &Value) -> std::result::Result<(), String> {
    let wrong = |what: &str| Err(format!("{value} is no {what}, which {rule} wants"));
    for (key, what) in rule.as_object().unwrap() {
        match (key.as_str(), what) {
            ("$ref", Value::String(path)) => {
                fits(schema, &schema["$defs"][path.strip_prefix("#/$defs/").unwrap()], value)?;
            }
            ("anyOf", Value::Array(rules)) if !rules.iter().any(|rule| fits(schema, rule, value).is_ok()) => {
                return wrong("fit");
            }
            ("const", what) if value != what => return wrong("constant"),
            ("enum", Value::Array(words)) if !words.contains(value) => return wrong("word"),
            ("type", Value::String(kind)) => {
                let is = match kind.as_str() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    other => panic!("a type {other}"),
                };
                if !is {
                    return wrong(kind);
                }
            }
            ("items", rule) => value.as_array().into_iter().flatten().try_for_each(|item| fits(schema, rule, item))?,
            ("required", Value::Array(names)) => {
                if let Some(name) = names.iter().find(|name| value.get(name.as_str().unwrap()).is_none()) {
                    return wrong(&format!("table with {name}"));
                }
            }
            ("properties", Value::Object(rules)) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match (rules.get(name), rule.get("additionalProperties")) {
                        (Some(rule), _) => fits(schema, rule, value)?,
                        (None, Some(Value::Bool(false))) => return wrong(&format!("table without {name}")),
                        _ => {}
                    }
                }
            }
            ("additionalProperties", rule @ Value::Object(_)) => {
                value.as_object().into_iter().flatten().try_for_each(|(_, value)| fits(schema, rule, value))?;
            }
            ("propertyNames", rule) => {
                let names = value.as_object().into_iter().flatten().map(|(name, _)| Value::String(name.clone()));
                names.into_iter().try_for_each(|name| fits(schema, rule, &name))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn a_wrong_text_is_refused_with_its_line() {
    let lines = [
        ("version = 1\n\nmemory = '1M'", Some(3), "unknown field `memory`"),
        ("version = 1\nmemory_limit = '1 lot'", Some(2), "1 lot"),
        ("version = 1\nmemory_limit = -1", Some(2), "-1"),
        ("version = 1\nwall_time = 5", Some(2), "a time with its unit"),
        ("version = 1\n[[mount]]\nbind = { source = '/a', target = '/b',\n rw = true }", Some(4), "unknown field `rw`"),
        ("version = 1\n[[mount]]\nbind = { source = '/a' }", Some(3), "missing field `target`"),
        ("version = 1\n[[mount]]\nnfs = '/a'", Some(3), "unknown variant `nfs`"),
        ("version = 1\nargs = ['a']\nargs = []", Some(3), "duplicate key"),
        ("version = 1\n[rootfs]\ndir = '/a'\nsuper = true", Some(4), "unknown field `super`"),
        ("version = 1\ncapabilities = ['CAP_ALL']", Some(2), "CAP_ALL"),
        ("version = 1\n[rlimit]\nopen_file = 5", Some(3), "open_file"),
        ("version = 1\nargs = [", Some(2), ""),
        ("version = 2", None, "version 2"),
        ("", None, "missing field `version`"),
        ("version = 1\ncpu_limit = nan", None, "finite"),
    ];
    for (text, line, what) in lines {
        let error = Profile::from_toml(text).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Profile), "{text}");
        let said = error.to_string();
        assert!(said.contains(what), "{text}: {said}");
        if let Some(line) = line {
            assert!(said.contains(&format!("line {line}: ")), "{text}: {said}");
        }
    }
    for (text, what) in [
        ("{\n\"version\": 1,\n\"memory\": 1}", "line 3: unknown field `memory`"),
        ("{\"version\": 1, \"env\": {\"A\": \"1\", \"A\": \"2\"}}", "the same key twice"),
        ("{\"version\": 1, \"init\": true, \"init\": false}", "duplicate field `init`"),
        ("{\"version\": 1} 2", "trailing characters"),
    ] {
        let said = Profile::from_json(text).unwrap_err().to_string();
        assert!(said.contains(what), "{text}: {said}");
    }
    let contradictions = [
        "rootfs = { dir = '/a', base = 'host' }",
        "rootfs = { overlay = ['/a'], scratch = true, tmpfs = '1 MiB' }",
        "mount = [{ overlay = { target = '/o', lowers = ['/l'], upper = { upper = '/u', work = '/w' }, tmpfs = 1 } }]",
        "stdin = { bytes = 'a', hex = '00' }",
        "stdin = 'nul'",
        "seccomp = 'off'",
        "seccomp = { base = 'default', rule = [{ calls = ['read'], action = 'allow', args = [{ index = 0, eq = 1, ne = 2 }] }] }",
        "capabilities = { keep = [], all_but = [] }",
        "io_limit = [{ read_bps = 1 }]",
        "mount = [{ file = { target = '/f', text = 'a', hex = '00' } }]",
        "mount = [{ device_node = { target = '/d', kind = 'block', major = 8 } }]",
        "mount = [{ device_node = { target = '/d', kind = 'fifo', major = 8, minor = 0 } }]",
        "scheduler = { policy = 'idle', nice = 1 }",
        "scheduler = { policy = 'fifo' }",
        "scheduler = { policy = 'deadline', runtime = '1ms', period = '1s' }",
        "io_priority = { class = 'idle', level = 1 }",
        "io_priority = { class = 'realtime' }",
        "memory_policy = { mode = 'local', nodes = [0] }",
        "memory_policy = { mode = 'preferred', nodes = [0, 1] }",
        "memory_policy = { mode = 'bind' }",
    ];
    for text in contradictions {
        let profile = Profile::from_toml(&toml_of("new", text)).unwrap();
        assert_eq!(profile.sandbox().unwrap_err().kind(), ErrorKind::Invalid, "{text}");
    }
}

#[test]
fn hostile_texts_are_survived() {
    let deep = format!("version = 1\nargs = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let tables = format!("version = 1\na{} = 1", ".a".repeat(100_000));
    let brackets = format!("{{\"version\":1,\"args\":{}", "[".repeat(500_000));
    let name = format!("version = 1\n\"{}\\u001b[2J\" = 1", "x".repeat(500_000));
    for text in [&deep, &tables, &brackets, &name] {
        for said in
            [Profile::from_toml(text).unwrap_err(), Profile::from_json(text).unwrap_err()].map(|e| e.to_string())
        {
            assert!(said.len() < 2000 && !said.contains('\u{1b}'), "{}", said.len());
        }
    }
    let long = format!("version = 1\n#{}", "x".repeat(2 << 20));
    assert!(Profile::from_toml(&long).unwrap_err().to_string().contains("at most 1.0 MiB"));
    let begin = [toml_of("strict", "seccomp = { base = 'default', rule = [{ calls = ['read'], action = 'EPERM' }] }")];
    let begin: Vec<&str> =
        begin.iter().map(String::as_str).chain(["{\"version\":1,\"mount\":[{\"dir\":\"/a\"}]}"]).collect();
    crate::fuzz::texts(&begin, |text| {
        let _ = Profile::from_toml(text).and_then(|profile| profile.sandbox());
        let _ = Profile::from_json(text).and_then(|profile| profile.sandbox());
    });
}

#[test]
fn times_and_sizes_are_exact() {
    use super::text::Form;
    for (text, nanos) in
        [("1ns", 1), ("1.5us", 1500), ("0.25 ms", 250_000), ("90m", 5_400_000_000_000), ("1d", 86_400_000_000_000)]
    {
        assert_eq!(Duration::read(text), Some(Duration::from_nanos(nanos)), "{text}");
    }
    for text in [
        "",
        "s",
        "5",
        "-1s",
        "1.s",
        ".5s",
        "1.0.0s",
        "0.5ns",
        "1e3s",
        "99999999999999999999s",
        "999999999999999999d",
        "1 fortnight",
        "1.0000000000000000000s",
    ] {
        assert_eq!(Duration::read(text), None, "{text}");
    }
    for time in [Duration::ZERO, Duration::MAX, Duration::new(1, 1), HALF] {
        assert_eq!(Duration::read(&time.write()), Some(time));
    }
    for size in [0, 1, 1023, 1024, (1 << 20) + 1, 5 << 40, u64::MAX].map(Bytes::new) {
        assert_eq!(Bytes::read(&size.write()), Some(size));
    }
}

/// The keys that an error refuses.
fn refused(text: &str, allow: &Allow) -> Vec<String> {
    let Err(error) = Profile::untrusted(text, allow) else { return Vec::new() };
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let problems = error.problems().iter().map(|problem| problem.subject.clone()).collect::<Vec<_>>();
    assert!(!problems.is_empty(), "{text}: {error}");
    problems
}

#[test]
fn an_untrusted_profile_takes_nothing_of_the_host() {
    let nothing = Allow::nothing();
    let mut sorted: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for (call, text, _, may) in ROWS {
        let key = text.split(" =").next().unwrap();
        let keys = refused(&toml_of("strict", text), &nothing);
        assert_eq!(keys.is_empty(), *may == May, "{call}: {text}: {keys:?}");
        // The time and its grace are one limit.
        let key_of = if key == "wall_time_grace" { "wall_time" } else { key };
        assert!(keys.iter().all(|refused| refused == key_of), "{call}: {keys:?}");
        sorted.entry(key).or_default().insert(*may == May);
    }
    let scope = toml_of("strict", "systemd_scope = {}");
    assert_eq!(refused(&scope, &nothing), ["systemd_scope"]);
    assert_eq!(refused("version = 1", &nothing), ["preset"]);
    assert_eq!(refused(&toml_of("new", ""), &nothing), ["preset"]);
    assert!(sorted.len() > 70, "{}", sorted.len());
}

#[test]
fn an_untrusted_profile_that_says_nothing_is_strict() {
    let profile = Profile::untrusted(&toml_of("strict", ""), &Allow::nothing()).unwrap();
    assert_eq!(shown(&profile.sandbox().unwrap()), shown(&Sandbox::strict()));
}

#[test]
fn limits_that_are_not_named_are_no_more_than_what_is_allowed() {
    let second = Duration::from_secs(1);
    let allow = Allow::nothing().memory(Bytes::mib(8)).processes(4).wall_time(second).output(Bytes::kib(1));
    let sandbox = |text: &str| Profile::untrusted(&toml_of("strict", text), &allow).map(|p| p.sandbox().unwrap());
    let made = sandbox("").unwrap();
    assert_eq!(made.get_limits(), &Limits::new().memory(Bytes::mib(8)).pids(4));
    assert_eq!((made.get_wall_time(), made.get_output_limit()), (Some(second), Some(Bytes::kib(1))));
    let made = sandbox("wall_time_grace = '0.4s'").unwrap();
    assert_eq!(made.get_wall_time(), Some(Duration::from_millis(600)));
    for text in [
        "memory_limit = '9 MiB'",
        "pids_limit = 5",
        "wall_time = '0.7s'\nwall_time_grace = '0.4s'",
        "output_limit = '2 KiB'",
        "mount = [{ tmpfs = { target = '/t', size = '9 MiB' } }]",
        "mount = [{ dev = { target = '/dev', shm_size = '9 MiB' } }]",
    ] {
        assert!(sandbox(text).is_err(), "{text}");
    }
    let many = format!("mask = [{}]", "'/a',".repeat(257));
    assert!(sandbox(&many).is_err());
}

#[test]
fn an_untrusted_profile_takes_what_the_caller_allows_and_nothing_beside() {
    let allow = Allow::nothing()
        .read("/srv/data")
        .write("/srv/work")
        .share(Namespaces::NET)
        .capabilities([CHOWN])
        .best_effort(Feature::MemoryLimit)
        .user(1, 2);
    let bind = |call: &str, source: &str| format!("mount = [{{ {call} = {{ source = '{source}', target = '/x' }} }}]");
    for text in [
        bind("bind_ro", "/srv/data"),
        bind("bind_ro", "/srv/data/"),
        bind("bind_ro_try", "/srv/work"),
        bind("bind", "/srv/work"),
        "rootfs = { dir = '/srv/data', read_only = true }".to_owned(),
        "rootfs = { overlay = ['/srv/data'] }".to_owned(),
        "rootfs = '/srv/work'".to_owned(),
        "share = ['net']".to_owned(),
        "capabilities = ['CAP_CHOWN']".to_owned(),
        "capabilities = { ambient = ['CAP_CHOWN'] }".to_owned(),
        "best_effort = ['memory_limit']".to_owned(),
        "user = { uid = 1, gid = 2 }\ngroups = [2]".to_owned(),
    ] {
        assert_eq!(refused(&toml_of("strict", &text), &allow), Vec::<String>::new(), "{text}");
    }
    for text in [
        bind("bind", "/srv/data"),
        bind("bind_ro", "/srv"),
        "mount = [{ bind = { source = '/srv/work', target = '/x', disk_limit = '1 GiB' } }]".to_owned(),
        bind("bind_ro", "/srv/data/below"),
        bind("bind_ro", "/srv/work/.."),
        bind("bind_ro", "/srv/data/../data"),
        bind("bind_ro", "srv/data"),
        bind("bind_ro", ""),
        "rootfs = '/srv/data'".to_owned(),
        "rootfs = { overlay = ['/srv/data'], scratch = true }".to_owned(),
        "rootfs = { overlay = ['/srv/data'], upper = { upper = '/srv/work', work = '/srv/other' } }".to_owned(),
        "rootfs = { base = 'host' }".to_owned(),
        "share = ['net', 'pid']".to_owned(),
        "capabilities = ['CAP_CHOWN', 'CAP_SYS_ADMIN']".to_owned(),
        "capabilities = { keep = ['CAP_CHOWN'], bounding = ['CAP_SYS_ADMIN'] }".to_owned(),
        "capabilities = { securebits = ['noroot'] }".to_owned(),
        "best_effort = ['memory_limit', 'pids_limit']".to_owned(),
        "user = { uid = 0, gid = 0 }".to_owned(),
        "groups = [2, 0]".to_owned(),
        "io_limit = [{ path = '/srv/data', read_bps = 1 }]".to_owned(),
    ] {
        assert_eq!(refused(&toml_of("strict", &text), &allow).len(), 1, "{text}");
    }
    // A relative path that the caller names means nothing either.
    let relative = Allow::nothing().read("data");
    assert!(!refused(&toml_of("strict", &bind("bind_ro", "data")), &relative).is_empty());
    let long = toml_of("strict", &format!("#{}", "x".repeat(65 << 10)));
    assert!(Profile::untrusted(&long, &allow).unwrap_err().to_string().contains("at most 64.0 KiB"));
    assert!(Profile::from_toml(&long).is_ok());
    assert!(Profile::untrusted_json("{\"version\":1,\"preset\":\"strict\",\"init\":false}", &allow).is_err());
}
