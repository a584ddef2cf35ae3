//! The missing parent groups of a sandbox's group. They are made for it, and removed with the last
//! group below them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkdir, unlinkat};

use super::hierarchy::Hierarchy;
use crate::sys::fork_mark::PerProcess;
use crate::sys::xattr;

#[derive(Debug, Default)]
struct Levels {
    /// The groups that this process made and has not removed yet. The process remembers them, not
    /// the sandbox that happened to come first: the last sandbox to leave removes a parent group,
    /// whichever sandbox made it.
    made: HashSet<PathBuf>,
    /// The groups that stay although they are empty, with the number of their guards.
    held: HashMap<PathBuf, usize>,
}

static LEVELS: PerProcess<Mutex<Levels>> = PerProcess::new();

fn levels() -> nix::Result<&'static Mutex<Levels>> {
    LEVELS.get_or_try(|| Ok::<_, Errno>(Mutex::default()))
}

fn lock(levels: &Mutex<Levels>) -> MutexGuard<'_, Levels> {
    levels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps parent groups while sandboxes come and go below them. The guard makes no group itself.
#[derive(Debug)]
pub(crate) struct Hold {
    home: &'static Mutex<Levels>,
    /// The lowest parent group in each hierarchy, and the mount point of the hierarchy.
    places: Vec<(PathBuf, PathBuf)>,
}

impl Hold {
    pub(super) fn new(places: Vec<(PathBuf, PathBuf)>) -> nix::Result<Hold> {
        let home = levels()?;
        let mut levels = lock(home);
        places.iter().for_each(|(base, _)| *levels.held.entry(base.clone()).or_default() += 1);
        Ok(Hold { home, places })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if LEVELS.get().is_none_or(|here| !std::ptr::eq(here, self.home)) {
            // This is a forked copy: the parent process keeps the groups.
            return;
        }
        for (base, top) in &self.places {
            let mut levels = lock(self.home);
            let left = levels.held.get(base).map_or(0, |count| count - 1);
            if left > 0 {
                levels.held.insert(base.clone(), left);
                continue;
            }
            levels.held.remove(base);
            drop(levels);
            release(base, top);
        }
    }
}

/// Makes a directory `name` in `base` and, with `levels`, the missing groups from the top of the
/// hierarchy to `base`. Another sandbox may remove such a group between any two calls, so the
/// function retries on ENOENT.
pub(super) fn make_below(hierarchy: &Hierarchy, base: &Path, name: &str, levels: bool) -> nix::Result<PathBuf> {
    let path = base.join(name);
    let mut tries = 0;
    loop {
        match mkdir(&path, Mode::from_bits_truncate(0o755)) {
            Ok(()) => return Ok(path),
            Err(Errno::ENOENT) if levels && tries < 1000 => make_levels(hierarchy, base)?,
            Err(errno) => return Err(errno),
        }
        tries += 1;
    }
}

fn make_levels(hierarchy: &Hierarchy, base: &Path) -> nix::Result<()> {
    let missing = base.ancestors().take_while(|dir| **dir != hierarchy.mount && dir.starts_with(&hierarchy.mount));
    let mut missing: Vec<_> = missing.collect();
    missing.reverse();
    for dir in missing {
        let mut levels = lock(levels()?);
        match mkdir(dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                xattr::mark(dir);
                levels.made.insert(dir.to_owned());
            }
            Err(Errno::EEXIST) => continue,
            // Another process has removed the group again; the caller retries.
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
    }
    Ok(())
}

/// Removes the parent groups from `base` upwards, below the hierarchy's `top`, that are empty and
/// that this crate made: in this process, or in another one, as their mark tells.
pub(super) fn release(base: &Path, top: &Path) {
    let Ok(mut levels) = levels().map(lock) else { return };
    for dir in base.ancestors().take_while(|dir| *dir != top) {
        if levels.held.contains_key(dir) || !levels.made.contains(dir) && !xattr::is_marked(dir) {
            return;
        }
        match unlinkat(nix::fcntl::AT_FDCWD, dir, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => levels.made.remove(dir),
            // Other sandboxes or foreign processes are in the group.
            Err(_) => return,
        };
    }
}
