//! Every call of the builder, with a text that says the same.

use std::time::Duration;

use caps::Capability;

use super::*;
use crate::cgroup::{Device, DeviceAccess, Devices, IoLimit, Limits, Resources};
use crate::feature::Feature;
use crate::mount::{
    Bind, Cgroupfs, Dev, DeviceNode, DiskLimit, HidePid, MemoryFile, Mqueue, Overlay, Proc, RawMount, RootFs, Sysfs,
    Tmpfs,
};
use crate::namespace::{IdMap, Namespaces, TimeOffset, UserLimit};
use crate::program::{
    IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Resource, Scheduler, SchedulerFlags, Session,
};
use crate::security::{Action, Architecture, Capabilities, Compare, Landlock, Rule, Seccomp, SecureBits};
use crate::stdio::{Stdio, TerminalSize};

/// Whether somebody who is not trusted may set a key to a value, with nothing allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Untrusted {
    May,
    MayNot,
}
pub(super) use Untrusted::{May, MayNot};

/// A call of the builder, a text that says the same in TOML, and the call itself.
pub(super) type Row = (&'static str, &'static str, fn(Sandbox) -> Sandbox, Untrusted);

pub(super) const ROWS: &[Row] = &[
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
pub(super) const HALF: Duration = Duration::from_millis(1500);
pub(super) const CHOWN: Capability = Capability::CAP_CHOWN;
const RW: DeviceAccess = DeviceAccess::READ.union(DeviceAccess::WRITE);

/// The calls that no key can have, with the reason.
pub(super) const WITHOUT_KEY: &[(&str, &str)] = &[
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
