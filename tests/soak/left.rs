//! What sandboxes could leave behind, looked at from all sides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::policy::{Dirs, TOKEN};
use crate::common::KEPT_MOUNTS;

/// More than the caller's memory grows by in one place and shrinks by in another.
const MEMORY_NOISE_KIB: u64 = 8 << 10;

/// All that there is at one moment.
#[derive(Debug)]
pub struct Left {
    fds: Vec<String>,
    sockets: usize,
    roots: usize,
    children: BTreeSet<String>,
    /// Processes anywhere that have the token in their environment.
    programs: BTreeSet<String>,
    /// The most that a thread of this process sees: those of the library are in a mount namespace of their own.
    mounts: usize,
    cgroups: BTreeSet<PathBuf>,
    scratch: BTreeSet<PathBuf>,
    threads: usize,
    pub memory_kib: u64,
}

impl Left {
    pub fn now(place: &Dirs) -> Left {
        let links = entries("/proc/self/fd").into_iter().filter_map(|fd| fs::read_link(fd).ok());
        let links = links.map(|link| link.to_string_lossy().into_owned()).filter(|link| !link.starts_with("/proc/"));
        // Those of which each exchanges an id on mounts are kept for the next sandbox.
        let links = links.filter(|link| !link.starts_with("user:["));
        let (sockets, fds): (Vec<String>, Vec<String>) = links.partition(|link| link.starts_with("socket:"));
        let (roots, mut fds): (Vec<String>, Vec<String>) = fds.into_iter().partition(|link| link == "/");
        fds.sort();
        let tasks = entries("/proc/self/task");
        let read = |file: &str| -> Vec<String> {
            tasks.iter().filter_map(|task| fs::read_to_string(task.join(file)).ok()).collect()
        };
        Left {
            fds,
            sockets: sockets.len(),
            roots: roots.len(),
            children: read("children").iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect(),
            programs: programs(&place.token),
            mounts: read("mountinfo").iter().map(|text| text.lines().count()).max().unwrap_or(0),
            cgroups: cgroups(&place.cgroup_parent),
            scratch: entries(&place.scratch).into_iter().collect(),
            threads: tasks.len(),
            memory_kib: memory_kib(),
        }
    }

    /// What there is more of than before; nothing if all is well.
    pub fn more_than(&self, before: &Left) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut more = Vec::new();
        let mut rest = before.fds.iter();
        let new: Vec<&String> = self.fds.iter().filter(|fd| !rest.any(|other| other == *fd)).collect();
        let count = self.fds.len().saturating_sub(before.fds.len());
        if count > 0 {
            more.push(format!("{count} descriptors: {new:?}"));
        }
        if self.roots > before.roots.max(KEPT_MOUNTS) {
            more.push(format!("kept roots: {} were {}", self.roots, before.roots));
        }
        // One for each thread that clones, of which there is at most one a core, and one that holds ids.
        if self.sockets > before.sockets + cores + 1 {
            more.push(format!("sockets: {} were {}", self.sockets, before.sockets));
        }
        if self.threads > before.threads + cores {
            more.push(format!("threads: {} were {}", self.threads, before.threads));
        }
        if self.mounts > before.mounts {
            more.push(format!("mounts: {} were {}", self.mounts, before.mounts));
        }
        if self.memory_kib > before.memory_kib + MEMORY_NOISE_KIB {
            more.push(format!("memory of the caller: {} KiB were {} KiB", self.memory_kib, before.memory_kib));
        }
        for (what, now, then) in
            [("children", &self.children, &before.children), ("programs", &self.programs, &before.programs)]
        {
            more.extend(now.difference(then).map(|one| format!("{what}: {one}")));
        }
        for (what, now, then) in
            [("cgroup", &self.cgroups, &before.cgroups), ("scratch", &self.scratch, &before.scratch)]
        {
            more.extend(now.difference(then).map(|one| format!("{what}: {}", one.display())));
        }
        more
    }

    /// The same once it has had the time that a drop may take.
    pub fn settled(&self, place: &Dirs) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let more = Left::now(place).more_than(self);
            if more.is_empty() || Instant::now() > until {
                return more;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn programs(token: &str) -> BTreeSet<String> {
    let wanted = format!("{TOKEN}={token}");
    let has_it = |dir: &PathBuf| {
        let environ = fs::read(dir.join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    let all = entries("/proc").into_iter().filter(has_it);
    all.map(|dir| {
        let command = fs::read(dir.join("cmdline")).unwrap_or_default();
        format!("{} {}", dir.display(), String::from_utf8_lossy(&command).replace('\0', " "))
    })
    .collect()
}

/// The parent, those beside it whose names begin alike, and everything below them, in every hierarchy.
fn cgroups(parent: &Path) -> BTreeSet<PathBuf> {
    let directories = |dir: &Path| entries(dir).into_iter().filter(|path| path.is_dir()).collect::<Vec<_>>();
    let name = parent.file_name().unwrap().to_string_lossy().into_owned();
    let is_ours = |dir: &PathBuf| dir.file_name().is_some_and(|other| other.to_string_lossy().starts_with(&name));
    let tops = cgroup_mounts().into_iter().flat_map(|mount| {
        let above = mount.join(parent.strip_prefix("/").unwrap_or(parent));
        directories(above.parent().unwrap())
    });
    tops.filter(is_ours).flat_map(|top| directories(&top).into_iter().chain([top.clone()])).collect()
}

pub fn cgroup_mounts() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    mounts.map(PathBuf::from).collect()
}
