//! The rows: each is a way to spawn `true` and to wait for it.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ringfence::{Bytes, Child, Namespaces, Outcome, Pool, Prepared, Sandbox, Stdio};

use super::fixture::Fixture;
use super::floor::{self, Floor, Profile};
use super::group::{self, Parents};
use super::strict::{self, StrictFloor};

/// One row of the bench.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Std(Command),
    Sandbox(Box<Sandbox>),
    Prepared(Prepared),
    Pool(Pool, Box<ringfence::Command>),
    /// A further program in a sandbox that runs.
    Exec(Box<Child>, Box<ringfence::Command>),
    Floor(Box<Floor>),
    StrictFloor(Box<StrictFloor>),
}

/// The number of sandboxes that a pool keeps ready.
pub const READY: usize = 4;

/// The program of the strict rows, which have no root of the bench's: it is dynamic.
pub const PROGRAM: &str = "/bin/true";

/// The rows that take turns with each other. The kernel removes a network namespace after its end,
/// while the next row runs, which would cost the rows without one time. What untrusted code runs in
/// has a user namespace and a program with libraries as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    Plain,
    Net,
    Strict,
}

impl Company {
    pub const ALL: [Company; 3] = [Company::Plain, Company::Net, Company::Strict];

    /// Returns the company of the row with this name.
    pub fn of(name: &str) -> Company {
        match name {
            _ if name.ends_with("-net") => Company::Net,
            "std-dynamic" => Company::Strict,
            _ if name.contains("strict") => Company::Strict,
            _ => Company::Plain,
        }
    }
}

impl Row {
    pub fn new(name: &'static str, sandbox: Sandbox) -> Row {
        Row { name, way: Way::Sandbox(Box::new(sandbox)) }
    }

    /// Waits for what is prepared before a run, which is not part of the run.
    pub fn make_ready(&mut self) -> Result<(), String> {
        match &self.way {
            Way::Pool(pool, _) => pool.wait_ready(Duration::from_secs(10)).map_err(|error| format!("{error:#}")),
            _ => Ok(()),
        }
    }

    /// Spawns once and waits.
    pub fn run(&mut self) -> Result<(), String> {
        match &mut self.way {
            Way::Std(command) => match command.status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(status.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Way::Sandbox(sandbox) => told(sandbox.status()),
            Way::Prepared(prepared) => told(prepared.status()),
            Way::Pool(pool, command) => told(pool.status((**command).clone())),
            Way::Exec(child, command) => told(child.exec((**command).clone()).and_then(|mut further| further.wait())),
            Way::Floor(floor) => floor.run().map_err(|error| error.to_string()),
            Way::StrictFloor(floor) => floor.run().map_err(|error| error.to_string()),
        }
    }

    /// Returns the times of the steps of one run, for the rows that can measure them.
    pub fn profile(&mut self) -> Option<Result<Profile, String>> {
        match &mut self.way {
            Way::Floor(floor) => Some(floor.profile().map_err(|error| error.to_string())),
            Way::StrictFloor(floor) => Some(floor.profile().map_err(|error| error.to_string())),
            Way::Sandbox(sandbox) => Some(timed(&sandbox.clone().timings(true)).map_err(|error| format!("{error:#}"))),
            _ => None,
        }
    }
}

fn timed(sandbox: &Sandbox) -> Result<Profile, ringfence::Error> {
    let mut child = sandbox.spawn()?;
    let mut profile: Profile = child.timings().map(|timings| timings.rows().collect()).unwrap_or_default();
    let start = Instant::now();
    child.wait()?;
    profile.push(("wait, and take away", start.elapsed()));
    Ok(profile)
}

pub fn told(ended: Result<Outcome, ringfence::Error>) -> Result<(), String> {
    match ended {
        Ok(outcome) if outcome.success() => Ok(()),
        Ok(outcome) => Err(format!("{}", outcome.verdict())),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Returns true if the caller needs no user namespace.
pub fn is_privileged() -> bool {
    Sandbox::new().namespaces(Namespaces::UTS).check().is_ok()
}

/// Returns the sandbox that all full rows share, without a program.
pub fn full(root: impl Into<ringfence::RootFs>) -> Sandbox {
    let kinds = Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::CGROUP;
    with_rights(Sandbox::new().namespaces(kinds)).rootfs(root).tmpfs("/tmp", Bytes::mib(64))
}

/// Adds the three limits of the rows with a control group.
pub fn limited(sandbox: Sandbox) -> Sandbox {
    let sandbox = sandbox.memory_limit(group::MEMORY).pids_limit(group::PIDS).cpu_limit(group::CORES);
    sandbox.cgroup_parent(group::parent())
}

/// Adds a user namespace for an ordinary user, who cannot make other namespaces without it.
fn with_rights(sandbox: Sandbox) -> Sandbox {
    if is_privileged() { sandbox } else { sandbox.user_ns() }
}

/// Returns all rows, in the order of the report.
pub fn all(fixture: &Fixture, parents: &Parents) -> Vec<Row> {
    let sandbox = Row::new;
    let host = Sandbox::new().command(&fixture.program);
    let inside = full(&*fixture.root).command("/true");
    let mut rows =
        vec![Row { name: "std", way: Way::Std(Command::new(&fixture.program)) }, sandbox("plain", host.clone())];
    for (name, kind) in [
        ("user", Namespaces::USER),
        ("pid", Namespaces::PID),
        ("mount", Namespaces::MOUNT),
        ("net", Namespaces::NET),
        ("ipc", Namespaces::IPC),
        ("uts", Namespaces::UTS),
        ("cgroup", Namespaces::CGROUP),
        ("time", Namespaces::TIME),
    ] {
        rows.push(sandbox(name, with_rights(host.clone().namespaces(kind))));
    }
    let prepared = |name, sandbox: &Sandbox| Some(Row { name, way: Way::Prepared(sandbox.prepare().ok()?) });
    let pool = |name, sandbox: &Sandbox| {
        let way = Way::Pool(sandbox.pool(READY).ok()?, Box::new(ringfence::Command::new("/true")));
        Some(Row { name, way })
    };
    rows.push(sandbox("sandbox", inside.clone()));
    rows.extend(prepared("prepared", &inside));
    rows.extend(pool("pool", &inside));
    rows.push(sandbox("sandbox-cgroup", limited(inside.clone())));
    let net = limited(inside.net_ns());
    rows.extend(prepared("prepared-net", &net));
    rows.extend(pool("pool-net", &net));
    rows.push(sandbox("sandbox-net", net));
    rows.extend(floors(fixture, parents));
    rows.push(Row { name: "std-dynamic", way: Way::Std(Command::new(PROGRAM)) });
    let strict = Sandbox::strict().command(PROGRAM);
    rows.extend(prepared("strict-prepared", &strict));
    rows.extend(strict.pool(READY).ok().map(|pool| {
        let way = Way::Pool(pool, Box::new(ringfence::Command::new(PROGRAM)));
        Row { name: "strict-pool", way }
    }));
    // Its program waits for an end of its input that comes with the row's.
    let long = strict.clone().command("/bin/cat").stdin(Stdio::piped()).wall_time(Duration::from_secs(24 * 3600));
    rows.extend(long.spawn().ok().map(|child| {
        let way = Way::Exec(Box::new(child), Box::new(ringfence::Command::new(PROGRAM)));
        Row { name: "strict-exec", way }
    }));
    rows.push(sandbox("strict", strict));
    rows.extend(strict_floor(parents, &[PROGRAM.into()], own_streams()).ok().map(|floor| {
        let way = Way::StrictFloor(Box::new(floor));
        Row { name: "floor-strict", way }
    }));
    rows
}

/// Returns the floor of the strict rows, or why there is none.
pub fn strict_floor(parents: &Parents, command: &[OsString], stdio: Vec<OwnedFd>) -> Result<StrictFloor, String> {
    if !is_privileged() {
        return Err("only root writes the maps of another user".to_owned());
    }
    let group = parents.template(&group::STRICT).ok_or("no control group with memory and pids")?;
    Ok(StrictFloor::new(command, stdio, group, strict::of_library()?))
}

fn floors(fixture: &Fixture, parents: &Parents) -> Vec<Row> {
    let floor = |name, net, group, template| {
        let command = [OsString::from("/true")];
        let floor = Floor::new(template, &fixture.root, &command, own_streams(), net, group);
        Row { name, way: Way::Floor(Box::new(floor)) }
    };
    let template = || floor::empty_namespace().ok();
    let mut rows = vec![floor("floor", false, None, None)];
    rows.extend(template().map(|template| floor("floor-template", false, None, Some(template))));
    rows.extend(parents.template(&group::FULL).map(|group| floor("floor-net", true, Some(group), None)));
    let both = parents.template(&group::FULL).zip(template());
    rows.extend(both.map(|(group, template)| floor("floor-template-net", true, Some(group), Some(template))));
    rows
}

/// Returns copies of this process's own streams, or nothing if one of them is closed.
pub fn own_streams() -> Vec<OwnedFd> {
    use std::os::fd::AsFd;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let copies = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| fd.try_clone_to_owned());
    copies.into_iter().collect::<Result<_, _>>().unwrap_or_default()
}
