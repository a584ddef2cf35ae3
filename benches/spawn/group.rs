//! The control group of the floor: the files of three limits, whose names are prepared once.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of the next template, whose groups have a name of their own.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns the parent of every group of this process, in each hierarchy. The bench never touches
/// the machine's own groups.
pub fn parent() -> String {
    format!("/ringfence-bench-{}", std::process::id())
}

/// The limits for the rows with a control group.
pub const MEMORY: u64 = 64 << 20;
pub const PIDS: u64 = 64;
pub const CORES: f64 = 1.0;

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// One limit: its controller, and the file and the text of each version.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    controller: &'static str,
    v1: Option<(&'static str, &'static str)>,
    v2: Option<(&'static str, &'static str)>,
}

/// The limits of the rows with a control group.
pub const FULL: [Limit; 3] = [
    Limit {
        controller: "memory",
        v1: Some(("memory.limit_in_bytes", "67108864")),
        v2: Some(("memory.max", "67108864")),
    },
    Limit { controller: "pids", v1: Some(("pids.max", "64")), v2: Some(("pids.max", "64")) },
    Limit { controller: "cpu", v1: Some(("cpu.cfs_quota_us", "100000")), v2: Some(("cpu.max", "100000 100000")) },
];

/// The limits of `Sandbox::strict()`.
pub const STRICT: [Limit; 3] = [
    Limit {
        controller: "memory",
        v1: Some(("memory.limit_in_bytes", "536870912")),
        v2: Some(("memory.max", "536870912")),
    },
    Limit { controller: "memory", v1: Some(("memory.kmem.tcp.limit_in_bytes", "134217728")), v2: None },
    Limit { controller: "pids", v1: Some(("pids.max", "256")), v2: Some(("pids.max", "256")) },
];

/// One mounted hierarchy, with those of the bench's controllers that it has.
#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    v2: bool,
    controllers: Vec<&'static str>,
}

/// The parent groups. They exist as long as the bench runs, so that no row makes them each time.
#[derive(Debug)]
pub struct Parents {
    hierarchies: Vec<Hierarchy>,
}

impl Parents {
    /// Makes the parents. If a parent cannot be made, the rows that need it report that.
    pub fn new() -> Self {
        let hierarchies = hierarchies();
        for hierarchy in &hierarchies {
            let dir = hierarchy.mount.join(parent().trim_start_matches('/'));
            let _ = fs::create_dir(&dir);
            for name in hierarchy.controllers.iter().filter(|_| hierarchy.v2) {
                for dir in [&hierarchy.mount, &dir] {
                    let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
                }
            }
        }
        Parents { hierarchies }
    }

    /// Returns the files of one group below the parents, or `None` if no hierarchy has one of the
    /// controllers.
    pub fn template(&self, limits: &[Limit]) -> Option<Template> {
        let has = |hierarchy: &Hierarchy, limit: &Limit| hierarchy.controllers.contains(&limit.controller);
        let whole = limits.iter().all(|limit| self.hierarchies.iter().any(|hierarchy| has(hierarchy, limit)));
        let with_limits = self.hierarchies.iter().filter(|hierarchy| limits.iter().any(|limit| has(hierarchy, limit)));
        let name = format!("floor-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let parts = with_limits.map(|hierarchy| Part::of(hierarchy, &name, limits)).collect();
        whole.then_some(Template { parts })
    }
}

/// Removes the parents, which are empty by then. Other runtimes in the comparison make a parent in
/// every hierarchy.
impl Drop for Parents {
    fn drop(&mut self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for (mount, _) in text.lines().filter_map(cgroup_mount) {
            let dir = mount.join(parent().trim_start_matches('/'));
            // A row that has failed leaves its group.
            for group in fs::read_dir(&dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                let _ = fs::remove_dir(group.path());
            }
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("{} stays: {error}", dir.display()),
                _ => {}
            }
        }
    }
}

/// Returns the place of the cgroup mount in a line of mountinfo, and the rest of the line after the
/// type, or `None` for another mount.
fn cgroup_mount(line: &str) -> Option<(PathBuf, &str)> {
    let (left, right) = line.split_once(" - cgroup")?;
    Some((left.split(' ').nth(4)?.into(), right))
}

/// Returns all cgroup mounts that have one of the bench's controllers, with each controller at the
/// first mount that has it; and every v2 mount, since the library makes a group there for its
/// freezer.
fn hierarchies() -> Vec<Hierarchy> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut wanted = CONTROLLERS.to_vec();
    let mut all = Vec::new();
    for (mount, right) in text.lines().filter_map(cgroup_mount) {
        let v2 = right.starts_with('2');
        let names = if v2 {
            fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
        } else {
            right.rsplit(' ').next().unwrap_or_default().replace(',', " ")
        };
        let (controllers, rest) = wanted.iter().partition(|name| names.split_whitespace().any(|word| word == **name));
        wanted = rest;
        let hierarchy = Hierarchy { mount, v2, controllers };
        if v2 || !hierarchy.controllers.is_empty() {
            all.push(hierarchy);
        }
    }
    all
}

/// The paths of a group, and the text for each file.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    v2: bool,
    dir: CString,
    procs: CString,
    limits: Vec<(CString, &'static str)>,
}

impl Part {
    fn of(hierarchy: &Hierarchy, name: &str, limits: &[Limit]) -> Self {
        let dir = hierarchy.mount.join(parent().trim_start_matches('/')).join(name);
        let own = limits.iter().filter(|limit| hierarchy.controllers.contains(&limit.controller));
        let files = own.filter_map(|limit| if hierarchy.v2 { limit.v2 } else { limit.v1 });
        let limits = files.map(|(file, value)| (c_path(&dir.join(file)), value)).collect();
        // To move a single thread, the kernel need not wait until no other process forks.
        let procs = c_path(&dir.join("tasks"));
        Part { v2: hierarchy.v2, procs, limits, dir: c_path(&dir) }
    }
}

/// A group with its limits set, for one child. Closing its descriptors does not remove the group.
#[derive(Debug, Default)]
pub struct Group {
    /// The v2 directory in which the child is born.
    pub born_in: Option<OwnedFd>,
    /// The v1 `tasks` files to which the child writes `0`.
    pub procs: Vec<OwnedFd>,
}

impl Template {
    pub fn create(&self) -> io::Result<Group> {
        let mut group = Group::default();
        for part in &self.parts {
            mkdir(&part.dir)?;
            for (file, value) in &part.limits {
                let fd = open(file, libc::O_WRONLY)?;
                nix::unistd::write(&fd, value.as_bytes())?;
            }
            if part.v2 {
                group.born_in = Some(open(&part.dir, libc::O_PATH | libc::O_DIRECTORY)?);
            } else {
                group.procs.push(open(&part.procs, libc::O_WRONLY)?);
            }
        }
        Ok(group)
    }

    /// Removes what is left of the group, whose last process has been waited for.
    pub fn remove(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| rmdir(&part.dir))
    }
}

fn mkdir(dir: &CString) -> io::Result<()> {
    // SAFETY: the path is a string with its NUL, and lives across the call.
    check(unsafe { libc::mkdir(dir.as_ptr(), 0o755) }).map(drop)
}

/// Removes a group. The kernel may count a process for a moment after it has been reaped.
fn rmdir(dir: &CString) -> io::Result<()> {
    const TRIES: u32 = 10_000;
    let mut tries = 0;
    loop {
        // SAFETY: the path is a string with its NUL, and lives across the call.
        match check(unsafe { libc::rmdir(dir.as_ptr()) }) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < TRIES => {
                tries += 1;
                std::thread::yield_now();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result.map(drop),
        }
    }
}

fn open(path: &CString, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path is a string with its NUL, and lives across the call.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str())
}

/// Converts a name that this bench has made itself.
pub fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).unwrap_or_default()
}

impl Group {
    pub fn proc_numbers(&self) -> Vec<RawFd> {
        self.procs.iter().map(AsRawFd::as_raw_fd).collect()
    }
}
