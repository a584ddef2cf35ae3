//! A path of the host in a root of its programs, at the same place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Step};
use crate::mount::bind::{Bind, emit_bind_in_new_root};
use crate::mount::calls::{make_dir, make_link};
use crate::mount::context::Context;
use crate::mount::flags::MountFlags;
use crate::plan::{Plan, Slot};

/// The root, which is new and empty, so that names in it need no lookup: no name is there that the
/// stub has not made.
#[derive(Debug)]
pub(super) struct NewRoot {
    root: Slot,
    /// The directories that are there.
    dirs: BTreeSet<PathBuf>,
}

impl NewRoot {
    pub(super) fn new(root: Slot) -> Self {
        NewRoot { root, dirs: BTreeSet::new() }
    }

    /// Makes a directory, relative to the root, and those above it, as far as they are missing.
    pub(super) fn make_dirs(&mut self, plan: &mut Plan, dir: &Path) {
        if dir.as_os_str().is_empty() || self.dirs.contains(dir) {
            return;
        }
        if let Some(above) = dir.parent() {
            self.make_dirs(plan, above);
        }
        make_dir(plan, Step::MountTarget, self.root.into(), dir).at(Path::new("/").join(dir));
        self.dirs.insert(dir.to_owned());
    }

    /// Shows what the host has at `path`, if anything: a link as the same link, else by a bind.
    pub(super) fn emit_from_host(
        &mut self,
        plan: &mut Plan,
        flags: MountFlags,
        path: &Path,
        context: Context,
    ) -> Result<()> {
        let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
        let name = path.strip_prefix("/").unwrap_or(path);
        if let Some(above) = name.parent() {
            self.make_dirs(plan, above);
        }
        if meta.is_symlink() {
            let to = fs::read_link(path).map_err(|error| Error::io(Step::OpenSource, &error).at(path))?;
            make_link(plan, Step::Mount, to, self.root.into(), name).at(path);
            return Ok(());
        }
        let mut bind = Bind::new(path, path).read_only();
        if !flags.contains(MountFlags::NO_SUID) {
            bind = bind.suid();
        }
        emit_bind_in_new_root(plan, &bind, self.root, name, context)
    }
}
