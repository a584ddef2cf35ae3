//! A directory or file of the host, shown inside as well.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::attributes::Attributes;
use super::calls::{attach_at, attach_in, make_dir, make_file, set_attributes, set_flags, set_propagation};
use super::context::Context;
use super::disk_limit::DiskLimit;
use super::flags::{MountFlags, flag_setters, opening_setters};
use super::host_tree::{emit_host_tree, emit_tied_tree};
use super::mount_ids::{GivenIds, MountIds};
use super::options::MountOptions;
use super::paths::{belongs_to, flags_of, source};
use crate::error::{Error, Problem, Result, Step};
use crate::idmap::IdMap;
use crate::plan::{PlaceFlags, Plan, Slot};
use crate::sys::mount::Relation;

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
    /// The words that the caller has given. What those without an `r` set is in `flags`, as far as
    /// there is a flag.
    pub(super) options: Option<Box<MountOptions>>,
    /// The maps that the caller has given.
    pub(super) ids: Option<GivenIds>,
    /// The most that the source may take on disk.
    pub(crate) disk_limit: Option<DiskLimit>,
}

impl Bind {
    /// Shows `source` of the host at `target` inside, writable. A relative source is looked up in
    /// the caller's working directory when the sandbox is spawned.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        Bind {
            source,
            target,
            flags: MountFlags::QUIET,
            closed: false,
            recursive: true,
            optional: false,
            options: None,
            ids: None,
            disk_limit: None,
        }
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

    /// Takes the options of mount(8), which replace all that was set before, the `nosuid` and
    /// `nodev` of a new bind included. An attribute holds for the mount itself, and only a word
    /// with `r` before for what is mounted below; what no word names stays as it is on the host.
    ///
    /// With `slave` or `shared`, what is mounted below the source on the host later shows inside,
    /// where the host's mount is shared. With `shared`, and without
    /// [`user_ns`](crate::Sandbox::user_ns), mounts that the program makes show on the host, and
    /// stay there; no other mount of the list may be below such a bind. What is mounted below the
    /// source is tied to the host in the same way, with or without `r`.
    ///
    /// In a user namespace, the kernel does not let a mount lose the attributes that it has on the
    /// host. A word that would take one away (`rw`, `exec`, `atime`, …) leaves such an attribute; a
    /// word with `r` before, and another way of keeping times of access, is an error (EPERM). What
    /// a word sets is always set.
    pub fn options(mut self, mut options: MountOptions) -> Self {
        let own = MountFlags::QUIET | MountFlags::READ_ONLY | MountFlags::NO_EXEC;
        self.flags = options.own.flags().0 & own;
        options.own.leave(own);
        self.closed = self.flags.contains(MountFlags::NO_DEV);
        self.recursive = options.bind.unwrap_or(self.recursive);
        self.options = Some(Box::new(options));
        self
    }

    /// Shows the files with other owners than they have on disk, and gives the files that are made
    /// here owners in the same way: a user `inside` a line of `uid` on disk is `outside` here, as
    /// the caller's user namespace counts; an id that no line has is nobody's: who has it may make
    /// nothing, and what belongs to it cannot be written to. So a directory of one user can be
    /// written to by a sandbox whose user is another.
    ///
    /// Needs CAP_SYS_ADMIN where the file system was mounted (root), Linux 5.12, and a file system
    /// that can map ids (ext4, xfs, btrfs, tmpfs since 6.3). Whatever root of the sandbox writes
    /// belongs to the user that the map gives it on disk, set-user-ID bits included: map it to
    /// root only for a program that may do so.
    ///
    /// ```no_run
    /// use ringfence::{Bind, IdMap, Sandbox};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// // Root of the sandbox is 100,000 outside, and writes files of user 1,000.
    /// let ids = IdMap::new(0, 100_000, 65_536);
    /// let work = Bind::new("/home/anna/work", "/work")
    ///     .id_mapped([IdMap::new(1000, 100_000, 1)], [IdMap::new(1000, 100_000, 1)]);
    /// let sandbox = Sandbox::new().user_ns().uid_map(ids).gid_map(ids).rootfs("/srv/alpine");
    /// sandbox.mount(work).command("make").status()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn id_mapped(mut self, uid: impl IntoIterator<Item = IdMap>, gid: impl IntoIterator<Item = IdMap>) -> Self {
        self.ids = Some(GivenIds::new(uid.into_iter().collect(), gid.into_iter().collect()));
        self
    }

    /// Limits what the source, a directory, may take on disk: see [`DiskLimit`]. What is mounted below
    /// it, which has no limit, is left out.
    pub fn disk_limit(mut self, limit: DiskLimit) -> Self {
        self.disk_limit = Some(limit);
        self.recursive = false;
        self
    }

    /// Returns whether the mount has options or id maps, for which a profile has no keys.
    #[cfg(feature = "serde")]
    pub(crate) fn has_options(&self) -> bool {
        self.options.is_some() || self.ids.is_some()
    }

    /// Returns the contradictions in the options.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        let beyond = (self.disk_limit.is_some() && self.recursive).then(|| {
            let reason = "what is mounted below the source has no limit";
            Problem::invalid("disk_limit", reason, "leave the option rbind out")
        });
        let options = self.options.iter().flat_map(|options| options.invalid_for_bind()).chain(beyond);
        options.chain(self.ids.iter().filter_map(GivenIds::invalid)).collect()
    }

    /// Returns the id maps of the mount, and whether they hold for what is mounted below as well.
    pub(super) fn id_maps(&self) -> Option<(MountIds, bool)> {
        if let Some(given) = &self.ids {
            return Some((MountIds::Given(given.clone()), self.recursive));
        }
        let options = self.options.as_ref()?;
        Some((options.ids.clone()?, options.recursive_ids && self.recursive))
    }

    /// Returns how the bind is tied to the mount of the host.
    pub(super) fn relation(&self, user_ns: bool) -> Relation {
        self.options.as_ref().map_or(Relation::Private, |options| options.relation(user_ns))
    }

    /// Returns whether the program can write to any of the mounts that the bind shows.
    pub(crate) fn is_writable(&self) -> bool {
        let own = self.flags.contains(MountFlags::READ_ONLY);
        let sealed = match &self.options {
            None => own,
            Some(options) if options.all.sets(MountFlags::READ_ONLY) => true,
            Some(options) => own && !options.all.clears(MountFlags::READ_ONLY) && !self.recursive,
        };
        !sealed
    }

    /// Returns whether any of the mounts that the bind shows is read-only.
    pub(super) fn protects(&self) -> bool {
        let all = self.options.as_ref().is_some_and(|options| options.all.sets(MountFlags::READ_ONLY));
        self.flags.contains(MountFlags::READ_ONLY) || all
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
        self.is_writable() && !fs::metadata(&self.source).is_ok_and(is_node) || belongs_to(&self.source, ids)
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
    emit_bind_by(plan, bind, at, context, None, |plan, tree, kind| attach_at(plan, tree, root, at, kind | pins))
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
    emit_bind_by(plan, bind, at, context, None, |plan, tree, kind| {
        let made = match kind.contains(PlaceFlags::FILE) {
            true => make_file(plan, Step::MountTarget, root.into(), name),
            false => make_dir(plan, Step::MountTarget, root.into(), name),
        };
        made.at(at);
        attach_in(plan, tree, root, name, at);
    })
}

/// Leaves in a slot the tree of a bind that is tied to the host's mount, before the setup's mounts
/// become private.
pub(super) fn emit_early_tree(plan: &mut Plan, bind: &Bind, context: Context) -> Result<Slot> {
    let (path, tree) = (source(&bind.source)?, plan.slot());
    let ids = bind.id_maps();
    let ids = ids.as_ref().map(|(ids, below)| (ids, *below));
    emit_tied_tree(plan, &path, bind.recursive, bind.relation(context.user_ns), ids, tree, context)?;
    Ok(tree)
}

/// Binds the tree of [`emit_early_tree`] at the target `at`.
pub(super) fn emit_early_bind(
    plan: &mut Plan,
    (bind, tree): (&Bind, Slot),
    root: Slot,
    at: &Path,
    pins: PlaceFlags,
    context: Context,
) -> Result<()> {
    emit_bind_by(plan, bind, at, context, Some(tree), |plan, tree, kind| attach_at(plan, tree, root, at, kind | pins))
}

/// Binds the source, or the tree that is there already; `attach` attaches a tree, whose place is a
/// file or a directory.
fn emit_bind_by(
    plan: &mut Plan,
    bind: &Bind,
    at: &Path,
    context: Context,
    early: Option<Slot>,
    attach: impl FnOnce(&mut Plan, Slot, PlaceFlags),
) -> Result<()> {
    let path = source(&bind.source)?;
    let found = fs::metadata(&path).map_err(|error| Error::io(Step::OpenSource, &error).at(&path))?.file_type();
    let kind = if found.is_dir() { PlaceFlags::empty() } else { PlaceFlags::FILE };
    let flags = bind.flags(is_device(found));
    let tree = match (early, bind.id_maps()) {
        (Some(tree), _) => tree,
        (None, Some((ids, below))) => {
            let tree = plan.slot();
            emit_tied_tree(plan, &path, bind.recursive, Relation::Private, Some((&ids, below)), tree, context)?;
            tree
        }
        (None, None) => {
            let tree = plan.slot();
            let mapped = context.mapped.is_some_and(|ids| bind.exposes_files_of(ids));
            emit_host_tree(plan, &path, bind.recursive, mapped, tree, context)?;
            tree
        }
    };
    attach(plan, tree, kind);
    match &bind.options {
        Some(options) => emit_options(plan, options, flags, (tree, &path), at, context)?,
        None if !flags.is_empty() => {
            set_flags(plan, tree, flags, MountFlags::empty(), bind.recursive, at);
        }
        None => {}
    }
    plan.close(Step::MoveMount, tree);
    Ok(())
}

/// Gives a bind that is attached its options. `flags`: those that the builder has in the end.
fn emit_options(
    plan: &mut Plan,
    options: &MountOptions,
    flags: MountFlags,
    (tree, source): (Slot, &Path),
    at: &Path,
    context: Context,
) -> Result<()> {
    if !emit_replaced(plan, options, (tree, source), at, context)? {
        let kept = if context.user_ns { flags_of(source)? } else { MountFlags::empty() };
        let mut added = Attributes::default();
        added.set(flags);
        set_attributes(plan, tree, options.own.then(added), kept, false, at);
    }
    set_attributes(plan, tree, options.all, MountFlags::empty(), true, at);
    // Every mount begins private.
    let is_private = |ms| ms == libc::MS_PRIVATE;
    for propagation in options.propagation.iter().skip_while(|propagation| is_private(propagation.ms())) {
        set_propagation(plan, tree, propagation.ms(), propagation.is_recursive(), at);
    }
    Ok(())
}

/// Replaces the flags of the source, and returns true, where the options say that.
#[cfg(feature = "oci")]
fn emit_replaced(
    plan: &mut Plan,
    options: &MountOptions,
    (tree, source): (Slot, &Path),
    at: &Path,
    context: Context,
) -> Result<bool> {
    let Some(named) = options.replaced() else { return Ok(false) };
    super::named::emit_named(plan, named, (tree, Some(source)), at, context).map(|()| true)
}

#[cfg(not(feature = "oci"))]
fn emit_replaced(_: &mut Plan, _: &MountOptions, _: (Slot, &Path), _: &Path, _: Context) -> Result<bool> {
    Ok(false)
}
