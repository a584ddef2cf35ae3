//! The missing parent groups of a sandbox's group. They are made for it, and removed with the last
//! group below them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkdir, unlinkat};

use super::hierarchy::Hierarchy;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, xattr};

/// The parent groups that this process knows.
#[derive(Debug, Default)]
struct Parents {
    /// The groups that this process made and has not removed yet. The process remembers them, not
    /// the sandbox that happened to come first: the last sandbox to leave removes a parent group,
    /// whichever sandbox made it.
    made: HashSet<PathBuf>,
    /// The groups that stay although they are empty, with the number of their guards.
    guarded: HashMap<PathBuf, usize>,
}

static PARENTS: PerProcess<Mutex<Parents>> = PerProcess::new();

fn parents() -> nix::Result<&'static Mutex<Parents>> {
    PARENTS.get_or_try(|| Ok::<_, Errno>(Mutex::default()))
}

/// Keeps parent groups while sandboxes come and go below them. The guard makes no group itself.
#[derive(Debug)]
pub(crate) struct ParentGuard {
    registry: &'static Mutex<Parents>,
    /// The lowest parent group in each hierarchy, and the mount point of the hierarchy.
    bases: Vec<(PathBuf, PathBuf)>,
}

impl ParentGuard {
    pub(super) fn new(bases: Vec<(PathBuf, PathBuf)>) -> nix::Result<ParentGuard> {
        let registry = parents()?;
        let mut parents = mutex::lock(registry);
        bases.iter().for_each(|(base, _)| *parents.guarded.entry(base.clone()).or_default() += 1);
        Ok(ParentGuard { registry, bases })
    }
}

impl Drop for ParentGuard {
    fn drop(&mut self) {
        if !PARENTS.is_current(self.registry) {
            // This is a forked copy: the parent process keeps the groups.
            return;
        }
        for (base, mount) in &self.bases {
            let mut parents = mutex::lock(self.registry);
            let left = parents.guarded.get(base).map_or(0, |count| count - 1);
            if left > 0 {
                parents.guarded.insert(base.clone(), left);
                continue;
            }
            parents.guarded.remove(base);
            drop(parents);
            remove_empty(base, mount);
        }
    }
}

/// Makes a directory `name` in `base` and, with `make_parents`, the missing groups from the top of
/// the hierarchy to `base`. Another sandbox may remove such a group between any two calls, so the
/// function retries on ENOENT.
pub(super) fn make_below(hierarchy: &Hierarchy, base: &Path, name: &str, make_parents: bool) -> nix::Result<PathBuf> {
    let path = base.join(name);
    let mut tries = 0;
    loop {
        match mkdir(&path, Mode::from_bits_truncate(0o755)) {
            Ok(()) => return Ok(path),
            Err(Errno::ENOENT) if make_parents && tries < 1000 => make_missing(hierarchy, base)?,
            Err(errno) => return Err(errno),
        }
        tries += 1;
    }
}

/// Makes the missing groups from the top of the hierarchy to `base`, and marks them.
fn make_missing(hierarchy: &Hierarchy, base: &Path) -> nix::Result<()> {
    let missing = base.ancestors().take_while(|dir| **dir != hierarchy.mount && dir.starts_with(&hierarchy.mount));
    let mut missing: Vec<_> = missing.collect();
    missing.reverse();
    for dir in missing {
        let mut parents = mutex::lock(parents()?);
        match mkdir(dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                xattr::mark(dir);
                parents.made.insert(dir.to_owned());
            }
            Err(Errno::EEXIST) => continue,
            // Another process has removed the group again; the caller retries.
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
    }
    Ok(())
}

/// Removes the parent groups from `base` upwards, below `mount`, that are empty and
/// that this crate made: in this process, or in another one, as their mark tells.
pub(super) fn remove_empty(base: &Path, mount: &Path) {
    let Ok(mut parents) = parents().map(mutex::lock) else { return };
    for dir in base.ancestors().take_while(|dir| *dir != mount) {
        if parents.guarded.contains_key(dir) || !parents.made.contains(dir) && !xattr::is_marked(dir) {
            return;
        }
        match unlinkat(nix::fcntl::AT_FDCWD, dir, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => parents.made.remove(dir),
            // Other sandboxes or foreign processes are in the group.
            Err(_) => return,
        };
    }
}
