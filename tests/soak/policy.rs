//! Random policies and programs.

use std::path::PathBuf;
use std::time::Duration;

use ringfence::{Bind, Bytes, Capabilities, Namespaces, RootFs, Sandbox, Seccomp, Stdio};

use super::common;
use super::random::Random;

/// The directories of one run, and what its processes and control groups are known by.
#[derive(Debug, Clone)]
pub struct Dirs {
    pub root: PathBuf,
    pub scratch: PathBuf,
    pub cgroup_parent: PathBuf,
    pub token: String,
}

impl Dirs {
    /// As an owner in another process takes it.
    pub fn words(&self) -> String {
        format!("{} {} {} {}", self.root.display(), self.scratch.display(), self.cgroup_parent.display(), self.token)
    }

    pub fn read(words: &[&str]) -> Dirs {
        let [root, scratch, parent, token] = words else { panic!("no place: {words:?}") };
        Dirs { root: root.into(), scratch: scratch.into(), cgroup_parent: parent.into(), token: (*token).to_owned() }
    }
}

/// In the environment of everything that runs in a sandbox here.
pub const TOKEN: &str = "RINGFENCE_SOAK_TOKEN";

/// What the program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Ends,
    Sleeps,
    /// Leaves others behind when it ends.
    Forks,
    /// Leaves one in a session of its own, and waits for it.
    Escapes,
    KillsItself,
    Missing,
    Writes,
    Eats,
    IgnoresSignals,
}

const PROGRAMS: [Program; 9] = [
    Program::Ends,
    Program::Sleeps,
    Program::Forks,
    Program::Escapes,
    Program::KillsItself,
    Program::Missing,
    Program::Writes,
    Program::Eats,
    Program::IgnoresSignals,
];

impl Program {
    /// Whether what it starts can only be held by a pid namespace.
    fn leaves_others(self) -> bool {
        !matches!(self, Program::Ends | Program::Sleeps | Program::KillsItself | Program::Missing)
    }

    pub fn words(self) -> &'static [&'static str] {
        match self {
            Program::Ends => &["/bin/true"],
            Program::Sleeps => &["/bin/sleep", "1000"],
            Program::Forks => &["/bin/sh", "-c", "sleep 1000 & sleep 1000 & exit 3"],
            Program::Escapes => &["/bin/sh", "-c", "setsid sleep 1000 & wait"],
            Program::KillsItself => &["/bin/sh", "-c", "kill -9 $$"],
            Program::Missing => &["/no/such/program"],
            Program::Writes => &["/bin/sh", "-c", "head -c 300000 /dev/zero"],
            Program::Eats => &["/bin/sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 1000"],
            Program::IgnoresSignals => &["/bin/sh", "-c", "trap '' TERM INT HUP; sleep 1000; sleep 1000"],
        }
    }
}

/// One random sandbox.
#[derive(Debug)]
pub struct Policy {
    pub sandbox: Sandbox,
    pub program: Program,
    /// It has a control group of its own.
    pub has_group: bool,
    /// It ends by itself, or is ended by a limit of time.
    pub ends: bool,
    /// An op of the setup is made to fail.
    pub fails: bool,
}

/// As far as the kernel is concerned, anything goes together here.
pub fn policy(random: &mut Random, place: &Dirs) -> Policy {
    let program = random.pick(&PROGRAMS);
    let is_strict = random.chance(15);
    let mut sandbox = if is_strict { common::strict() } else { common::sandbox() };
    sandbox = namespaces(sandbox, program, random);
    sandbox = sandbox.cgroup_parent(&place.cgroup_parent);
    if !is_strict {
        sandbox = root(sandbox, place, random);
    }
    let mut has_group = is_strict && common::is_root();
    if common::is_root() && random.chance(40) {
        has_group = true;
        sandbox = limits(sandbox, random);
    }
    sandbox = rights(sandbox, random);
    let mut ends = matches!(program, Program::Ends | Program::Forks | Program::KillsItself | Program::Missing);
    if random.chance(40) {
        ends = true;
        sandbox = sandbox.wall_time(Duration::from_millis(1 + random.below(60)));
    }
    if random.chance(20) {
        sandbox = sandbox.output_limit(Bytes::kib(random.below(500)));
    }
    let fails = random.chance(15);
    if fails {
        let errnos = [libc::EDOM, libc::ENOMEM, libc::EMFILE, libc::EPERM, libc::ENOSYS, libc::EINTR, libc::EBUSY];
        sandbox = sandbox.fail_at(random.below(60) as u32, random.pick(&errnos));
    }
    let streams = [Stdio::null(), Stdio::piped()];
    let [stdout, stderr] = [(); 2].map(|()| streams[random.below(2) as usize].clone());
    let words = program.words();
    sandbox = sandbox.command(words[0]).args(&words[1..]);
    sandbox = sandbox.stdin(Stdio::null()).stdout(stdout).stderr(stderr).env(TOKEN, &place.token);
    Policy { sandbox, program, has_group, ends, fails }
}

fn namespaces(sandbox: Sandbox, program: Program, random: &mut Random) -> Sandbox {
    let mut kinds = Namespaces::empty();
    for (kind, percent) in [
        (Namespaces::PID, 60),
        (Namespaces::MOUNT, 40),
        (Namespaces::UTS, 30),
        (Namespaces::IPC, 30),
        (Namespaces::CGROUP, 30),
        (Namespaces::TIME, 10),
        (Namespaces::NET, 10),
        (Namespaces::USER, 20),
    ] {
        if random.chance(percent) {
            kinds |= kind;
        }
    }
    if program.leaves_others() {
        kinds |= Namespaces::PID;
    }
    let sandbox = sandbox.namespaces(kinds);
    if kinds.contains(Namespaces::PID) && random.chance(40) { sandbox.init(true) } else { sandbox }
}

fn root(sandbox: Sandbox, place: &Dirs, random: &mut Random) -> Sandbox {
    let sandbox = match random.below(5) {
        0 => return sandbox,
        1 => sandbox.rootfs(RootFs::host()),
        2 => sandbox.rootfs(RootFs::programs()),
        3 => sandbox.rootfs(&*place.root).mount(Bind::new("/usr", "/usr").read_only()),
        _ => sandbox
            .rootfs(RootFs::overlay([&place.root]).scratch_in(&place.scratch))
            .mount(Bind::new("/usr", "/usr").read_only()),
    };
    if random.chance(50) { sandbox.tmpfs("/tmp", Bytes::mib(1 + random.below(64))) } else { sandbox }
}

fn limits(mut sandbox: Sandbox, random: &mut Random) -> Sandbox {
    if random.chance(60) {
        sandbox = sandbox.memory_limit(Bytes::mib(8 + random.below(56)));
    }
    if random.chance(40) {
        sandbox = sandbox.cpu_limit(0.2 + random.below(18) as f64 / 10.0);
    }
    sandbox.pids_limit(8 + random.below(50))
}

fn rights(mut sandbox: Sandbox, random: &mut Random) -> Sandbox {
    if random.chance(20) {
        sandbox = sandbox.no_new_privs(true);
    }
    if random.chance(15) {
        sandbox = sandbox.seccomp(Seccomp::default());
    }
    if random.chance(15) {
        sandbox = sandbox.capabilities(Capabilities::none());
    }
    if random.chance(10) && common::is_root() {
        sandbox = sandbox.user(65534, 65534);
    }
    sandbox
}
