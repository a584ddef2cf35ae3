//! The levels above a sandbox's group that did not exist: made for it, and removed with the last group below them.

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
    /// Those that this process made and has not removed yet. It is the process that remembers, not the group that happened
    /// to come first: the last one out removes the level, whoever made it.
    made: HashSet<PathBuf>,
    /// Those that stay although nobody is below them, and for how many.
    held: HashMap<PathBuf, usize>,
}

static LEVELS: PerProcess<Mutex<Levels>> = PerProcess::new();

fn levels() -> nix::Result<&'static Mutex<Levels>> {
    LEVELS.get_or_try(|| Ok::<_, Errno>(Mutex::default()))
}

fn lock(levels: &Mutex<Levels>) -> MutexGuard<'_, Levels> {
    levels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the levels above groups of which one comes after the other. It makes none.
#[derive(Debug)]
pub(crate) struct Hold {
    home: &'static Mutex<Levels>,
    /// The lowest level, and where its hierarchy is mounted.
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
            // A fork's: what it was to keep is its parent's.
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

/// Makes a directory `name` in `base` and, with `levels`, what is missing from the hierarchy's top to `base`. Another
/// sandbox may remove such a level between any two calls, so ENOENT is tried again.
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
            // Removed again by another process; the caller begins anew.
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
    }
    Ok(())
}

/// Removes the levels from `base` upwards, and below the hierarchy's `top`, that this crate made, in this process or (by
/// their mark) in another, and that are empty now.
pub(super) fn release(base: &Path, top: &Path) {
    let Ok(mut levels) = levels().map(lock) else { return };
    for dir in base.ancestors().take_while(|dir| *dir != top) {
        if levels.held.contains_key(dir) || !levels.made.contains(dir) && !xattr::is_marked(dir) {
            return;
        }
        match unlinkat(nix::fcntl::AT_FDCWD, dir, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => levels.made.remove(dir),
            // Other sandboxes, or someone else's processes, are in it.
            Err(_) => return,
        };
    }
}
