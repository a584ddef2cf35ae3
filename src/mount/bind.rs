//! A directory or file of the host, shown inside as well.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::calls::{attach_at, attach_in, make_dir, make_file, set_flags};
use super::context::Context;
use super::flags::{MountFlags, flag_setters, opening_setters};
use super::host_tree::emit_host_tree;
use super::paths::{belongs_to, source};
use crate::error::{Error, Result, Step};
use crate::plan::{PlaceFlags, Plan, Slot};

/// A directory or file of the host, shown inside as well: mount(8), `--rbind`.
///
/// Submounts come along, and flags hold for them too (mount_setattr(2), 5.12);
/// [`non_recursive`](Bind::non_recursive) leaves them out. Flags that the host's mount has
/// (`nosuid`, `ro`, …) are kept.
///
/// `nosuid` and `nodev`, unless [`suid`](Bind::suid) and [`dev`](Bind::dev) are called: a directory
/// may hold nodes of any device, and set-user-ID files. A source that is a device node itself opens
/// its device; the host's /dev is `Bind::new("/dev", "/dev").dev()`.
///
/// ```
/// use ringfence::{Bind, Sandbox};
///
/// let certificates = Bind::new("/etc/ssl", "/etc/ssl").read_only().noexec();
/// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(certificates);
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Bind {
    pub(crate) source: PathBuf,
    pub(super) target: PathBuf,
    pub(crate) flags: MountFlags,
    /// The caller has asked for `nodev`, which is otherwise just the default.
    pub(crate) closed: bool,
    pub(crate) recursive: bool,
    /// Without the source, there is no mount.
    pub(crate) optional: bool,
}

impl Bind {
    /// Shows `source` of the host at `target` inside, writable. A relative source is looked up in
    /// the caller's working directory when the sandbox is spawned.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        Bind { source, target, flags: MountFlags::QUIET, closed: false, recursive: true, optional: false }
    }

    /// Leaves out what is mounted below the source.
    pub fn non_recursive(mut self) -> Self {
        self.recursive = false;
        self
    }

    /// Leaves the mount out where the source does not exist when the sandbox is spawned, or when it
    /// is [prepared](crate::Sandbox::prepare).
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Returns whether the mount is left out.
    pub(crate) fn is_left_out(&self) -> bool {
        self.optional && fs::metadata(&self.source).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Gives device nodes no effect (`nodev`), not even the source if it is one.
    pub fn nodev(mut self) -> Self {
        self.flags |= MountFlags::NO_DEV;
        self.closed = true;
        self
    }

    /// Returns the flags of the mount. `is_node`: the source is a device node.
    pub(crate) fn flags(&self, is_node: bool) -> MountFlags {
        let opened = if is_node && !self.closed { MountFlags::NO_DEV } else { MountFlags::empty() };
        self.flags - opened
    }

    /// Returns whether the program can make files below the source, or the source belongs to `ids`.
    pub(super) fn exposes_files_of(&self, ids: (u32, u32)) -> bool {
        let is_node = |meta: Metadata| is_device(meta.file_type());
        let writable = !self.flags(false).contains(MountFlags::READ_ONLY);
        writable && !fs::metadata(&self.source).is_ok_and(is_node) || belongs_to(&self.source, ids)
    }

    flag_setters!();
    opening_setters!();
}

/// Returns whether a file is a device node.
fn is_device(file: FileType) -> bool {
    file.is_char_device() || file.is_block_device()
}

/// Binds the source at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_bind(
    plan: &mut Plan,
    bind: &Bind,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    context: Context,
) -> Result<()> {
    emit_bind_by(plan, bind, at, context, |plan, tree, kind| attach_at(plan, tree, root, at, kind | pins))
}

/// Binds the source at `name`, which is not there yet, relative to a root in which nobody but the
/// stub has made anything: no link leads elsewhere.
pub(super) fn emit_bind_in_new_root(
    plan: &mut Plan,
    bind: &Bind,
    root: Slot,
    name: &Path,
    context: Context,
) -> Result<()> {
    let at = &bind.target;
    emit_bind_by(plan, bind, at, context, |plan, tree, kind| {
        let made = match kind.contains(PlaceFlags::FILE) {
            true => make_file(plan, Step::MountTarget, root.into(), name),
            false => make_dir(plan, Step::MountTarget, root.into(), name),
        };
        made.at(at);
        attach_in(plan, tree, root, name, at);
    })
}

/// Binds the source; `attach` attaches a tree, whose place is a file or a directory.
fn emit_bind_by(
    plan: &mut Plan,
    bind: &Bind,
    at: &Path,
    context: Context,
    attach: impl FnOnce(&mut Plan, Slot, PlaceFlags),
) -> Result<()> {
    let path = source(&bind.source)?;
    let found = fs::metadata(&path).map_err(|error| Error::io(Step::OpenSource, &error).at(&path))?.file_type();
    let kind = if found.is_dir() { PlaceFlags::empty() } else { PlaceFlags::FILE };
    let flags = bind.flags(is_device(found));
    let tree = plan.slot();
    let mapped = context.mapped.is_some_and(|ids| bind.exposes_files_of(ids));
    emit_host_tree(plan, &path, bind.recursive, mapped, tree, context)?;
    attach(plan, tree, kind);
    if !flags.is_empty() {
        set_flags(plan, tree, flags, MountFlags::empty(), bind.recursive, at);
    }
    plan.close(Step::MoveMount, tree);
    Ok(())
}
