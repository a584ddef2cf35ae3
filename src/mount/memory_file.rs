//! Files whose contents the caller gives.
//!
//! A file can be mounted only if it stands on a file system that is mounted somewhere (before
//! 6.15). So all files of a sandbox are written to one tmpfs, which is mounted over the old root,
//! where the pivot takes it away, or below the new root, where nothing leads. Each target gets a
//! copy of that mount which shows the one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::calls::{attach_by_path, attach_to, copy_open_tree, emit_target, set_flags, write_new_file};
use super::flags::{MountFlags, flag_setters, nodev_setter};
use super::fs_context::emit_new_mount;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// The room that writable files may take in addition, all together.
const SPARE: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// The name of the file system of all files, in errors.
const STORE: &str = "files from memory";

/// A file with given contents: [`Sandbox::file`](crate::Sandbox::file) with further options.
///
/// The contents are in the sandbox's memory. They are read-only, unless
/// [`writable`](MemoryFile::writable) is called; what the program writes is lost with the sandbox.
/// The file belongs to the user that sets the sandbox up: root, or in a user namespace the
/// program's user. `nosuid` and `nodev` always.
///
/// ```
/// use ringfence::{MemoryFile, RootFs, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// let script = MemoryFile::new("/opt/greet", "#!/bin/sh\necho hello\n").mode(0o755);
/// let output = sandbox.rootfs(RootFs::programs()).mount(script).command("/opt/greet").output()?;
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct MemoryFile {
    pub(super) target: PathBuf,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) mode: u32,
    pub(crate) flags: MountFlags,
    /// For a file that is shown by default: what a missing target means. A target that cannot be
    /// made, such as a link to nowhere, means no file.
    pub(crate) default: Option<Missing>,
}

/// What becomes of a file by default whose target does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Made,
    LeftOut,
}

impl MemoryFile {
    /// Shows a file with these contents at `target`, read-only, mode 0644.
    pub fn new(target: impl Into<PathBuf>, contents: impl AsRef<[u8]>) -> Self {
        MemoryFile {
            target: target.into(),
            bytes: contents.as_ref().into(),
            mode: 0o644,
            flags: MountFlags::QUIET | MountFlags::READ_ONLY,
            default: None,
        }
    }

    /// Sets the permission bits of the file.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Lets the program write to the file, where its mode does. All writable files of a sandbox
    /// together may grow by 1 MiB.
    pub fn writable(mut self) -> Self {
        self.flags -= MountFlags::READ_ONLY;
        self
    }

    /// Makes the file one that is shown by default.
    pub(super) fn by_default(mut self, missing: Missing) -> Self {
        self.default = Some(missing);
        self
    }

    flag_setters!();
    nodev_setter!();

    /// Returns the number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns whether the program can write to the file.
    pub(super) fn is_writable(&self) -> bool {
        !self.flags.contains(MountFlags::READ_ONLY)
    }
}

/// Writes files to a file system of their own, if there are any, and mounts that over the root.
/// Each file is named by its index among the mounts.
pub(super) fn emit_store(plan: &mut Plan, files: &[(&MemoryFile, usize)]) -> Option<Slot> {
    if files.is_empty() {
        return None;
    }
    let spare = if files.iter().any(|(file, _)| file.is_writable()) { SPARE } else { 0 };
    let size: u64 = files.iter().map(|(file, _)| file.len().next_multiple_of(PAGE)).sum();
    let (size, inodes) = ((size + spare).max(PAGE).to_string(), (files.len() + 2).to_string());
    let options = [("source", "tmpfs"), ("size", &size), ("nr_inodes", &inodes), ("mode", "700")];
    let (store, at) = (plan.slot(), Path::new(STORE));
    emit_new_mount(plan, "tmpfs", &options, MountFlags::QUIET, store, at);
    for (file, i) in files {
        write_new_file(plan, store, &i.to_string(), &file.bytes, file.mode, &file.target);
    }
    attach_by_path(plan, store, Path::new("/"), at);
    set_flags(plan, store, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    Some(store)
}

/// Mounts the file with this index at the target `at`. `pins`: see [`pinning`](super::pinning).
pub(super) fn emit_memory_file(
    plan: &mut Plan,
    (file, index): (&MemoryFile, usize),
    store: Slot,
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
) {
    let (name, open, tree, place) = (plan.string(index.to_string()), plan.slot(), plan.slot(), plan.slot());
    emit_place(plan, file.default, root, at, PlaceFlags::FILE | pins, place);
    let found = plan.len();
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    plan.call(Step::Mount, libc::SYS_openat, [store.into(), name.into(), flags.into()]).at(at).store(open);
    copy_open_tree(plan, Step::Mount, open, false, tree, at);
    plan.close(Step::Mount, open);
    let attached = attach_to(plan, Step::MoveMount, tree, place, at);
    if file.default.is_some() {
        // A directory may be in the file's place.
        attached.tolerate_all();
    }
    let clear = if file.is_writable() { MountFlags::READ_ONLY } else { MountFlags::empty() };
    set_flags(plan, tree, file.flags, clear, false, at);
    plan.close(Step::MoveMount, tree);
    plan.close(Step::MoveMount, place);
    if file.default.is_some() {
        plan.depend_from(found);
    }
}

/// Finds the place of a file, and makes it where it is missing. That of a default file may remain
/// missing.
fn emit_place(plan: &mut Plan, default: Option<Missing>, root: Slot, at: &Path, flags: PlaceFlags, place: Slot) {
    if default.is_some() {
        let found = emit_target(plan, root, at, flags | PlaceFlags::EXISTING, place);
        found.tolerate_all().skip_on_success(u8::from(default == Some(Missing::Made)));
    }
    match default {
        None => {
            emit_target(plan, root, at, flags, place);
        }
        // The directory may belong to somebody whom the user of the setup is not.
        Some(Missing::Made) => {
            emit_target(plan, root, at, flags, place).tolerate_all();
        }
        Some(Missing::LeftOut) => {}
    }
}
