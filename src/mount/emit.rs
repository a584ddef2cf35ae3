//! From the policy to ops: the order in which a sandbox's mounts are made.

use std::path::{Path, PathBuf};

use super::bind::{emit_bind, emit_early_bind, emit_early_tree};
use super::calls::{CWD, mount_at, open_dir, set_flags, unmount_top};
use super::cgroupfs::emit_cgroupfs;
use super::context::Context;
use super::copy_up::{CopyUp, emit_copy_up};
use super::dev::emit_dev;
use super::flags::MountFlags;
use super::kinds::{Kind, Mount};
use super::made::{emit_dir, emit_symlink};
use super::mask::{emit_mask_sources, emit_masks};
use super::memory_file::{MemoryFile, emit_memory_file, emit_store};
use super::mounts::Mounts;
use super::node::emit_device_node;
use super::options::Propagation;
use super::overlay::by_path::emit_overlay;
use super::overlay::detached::{DetachedOverlay, attach_detached, emit_detached};
use super::pinning::MountsBefore;
use super::precreated::Precreated;
use super::raw::emit_raw;
use super::root::{Base, RootFs, Wanted, emit_cover, emit_entry, emit_root, emit_tied_root, wanted};
use super::terminal::{Terminals, emit_mounted, terminals};
use super::workdir::emit_workdir;
use crate::error::{Result, Step};
use crate::plan::{Arg, PlaceFlags, Plan, Request, Slot};
use crate::sys::mount::Relation;

/// What the mounts are made with beside their list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Further<'f> {
    /// The directory that was made for an overlay's upper.
    pub(crate) scratch: Option<&'f Path>,
    /// The [`control_groups`](Mounts::control_groups) that become read-only.
    pub(crate) groups: &'f [PathBuf],
    /// The working directory of the program, if it is to be made.
    pub(crate) workdir: Option<&'f Path>,
}

impl Mounts {
    /// Puts the overlay of the root together for the [`template`](super::template). To be called
    /// before the mount namespace is left.
    pub(crate) fn emit_detached_overlay(
        &self,
        plan: &mut Plan,
        context: Context,
        scratch: Option<&Path>,
    ) -> Result<Option<DetachedOverlay>> {
        match &self.root {
            Some(root) if context.template => match &root.base {
                Base::Overlay(lowers) => emit_detached(plan, root.overlay_of(lowers), scratch).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Makes the mounts `mounts`, in this order. `detached` is from
    /// [`emit_detached_overlay`](Mounts::emit_detached_overlay).
    pub(crate) fn emit(
        &self,
        plan: &mut Plan,
        mounts: &[Mount],
        context: Context,
        detached: Option<DetachedOverlay>,
        further: Further<'_>,
    ) -> Result<()> {
        let Further { scratch, groups, workdir } = further;
        let rootfs = self.final_root();
        let tied = emit_tied(plan, mounts, context)?;
        let tied_root = emit_tied_root(plan, rootfs.as_ref(), context)?;
        if !context.template {
            emit_propagation(plan);
        }
        let mask_sources = emit_mask_sources(plan, self, context);
        let files = emit_store(plan, &files(mounts));
        let entry = match (&rootfs, detached) {
            (Some(_), Some(overlay)) => Entry::New { root: attach_detached(plan, overlay), stacked: 0 },
            (Some(rootfs), None) => {
                let is_made_in = self.stops_before_entry || workdir.is_some();
                let wanted = if is_made_in { None } else { wanted(rootfs, mounts, context) };
                emit_new_root(plan, rootfs, context, (scratch, tied_root), wanted)?
            }
            (None, _) => emit_caller_root(plan),
        };
        let root = entry.root();
        let ready = context.nodes.then(|| Precreated::emit(plan, root));
        let places = Places { root, rootfs: rootfs.as_ref(), files, tied: &tied, ready };
        let terminals = terminals(mounts);
        // What is mounted at /dev/pts covers that of a `Dev`.
        let of_dev = context.terminal.filter(|_| terminals == Some(Terminals::OfDev));
        let mut pins = emit_mounts(plan, mounts, places, Context { terminal: of_dev, ..context })?;
        ready.into_iter().for_each(|nodes| nodes.emit_end(plan));
        if let (Some(master), Some(Terminals::Mounted { console })) = (context.terminal, terminals) {
            emit_mounted(plan, master, root, console, context);
        }
        if self.stops_before_entry {
            // Masks and the read-only root come later, so that hooks can write to the root, and
            // show nothing again that is masked.
            plan.request(Step::Create, Request::Hooks);
        }
        pins |= emit_masks(plan, self, root, mask_sources, groups, MountsBefore::new(mounts, rootfs.as_ref()));
        pins |= emit_peers(plan, mounts, places, context)?;
        workdir.into_iter().for_each(|path| emit_workdir(plan, path, root));
        emit_read_only_root(plan, rootfs.as_ref(), root);
        match entry {
            Entry::New { .. } if context.no_pivot => emit_cover(plan, root, context)?,
            Entry::New { stacked, .. } => emit_entry(plan, root, context, stacked + u64::from(files.is_some())),
            Entry::Caller { cwd, .. } => {
                emit_caller_cwd(plan, cwd, pins);
                files.iter().for_each(|_| unmount_top(plan));
            }
        }
        files.into_iter().for_each(|files| plan.close(Step::Mount, files));
        plan.close(Step::Mount, root);
        if let Some(propagation) = rootfs.as_ref().and_then(|rootfs| rootfs.propagation) {
            emit_root_propagation(plan, propagation);
        }
        Ok(())
    }
}

/// Returns the files among the mounts whose contents the caller gives, with their indices.
fn files(mounts: &[Mount]) -> Vec<(&MemoryFile, usize)> {
    let kinds = mounts.iter().map(|mount| &mount.kind).enumerate();
    kinds.filter_map(|(index, kind)| if let Kind::File(file) = kind { Some((file, index)) } else { None }).collect()
}

/// The root below which mounts are made, with what the entry into it needs.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// A root of the sandbox's own. `stacked`: the number of staging file systems of an overlay
    /// that lie below.
    New { root: Slot, stacked: u64 },
    /// The caller's root, with the caller's working directory.
    Caller { root: Slot, cwd: Slot },
}

impl Entry {
    fn root(self) -> Slot {
        match self {
            Entry::New { root, .. } | Entry::Caller { root, .. } => root,
        }
    }
}

/// Makes all mounts private: nothing mounted from here on is seen outside, and nothing mounted
/// outside shows here.
fn emit_propagation(plan: &mut Plan) {
    let root = plan.string("/");
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    plan.call(Step::Propagation, libc::SYS_mount, [0.into(), root.into(), 0.into(), Arg::from(flags), 0.into()]);
}

/// Mounts a root of the sandbox's own.
fn emit_new_root(
    plan: &mut Plan,
    rootfs: &RootFs,
    context: Context,
    (scratch, tied): (Option<&Path>, Option<Slot>),
    wanted: Option<Wanted>,
) -> Result<Entry> {
    let root = tied.unwrap_or_else(|| plan.slot());
    let has_staging = emit_root(plan, rootfs, root, context, (scratch, tied), wanted)?;
    Ok(Entry::New { root, stacked: u64::from(has_staging) })
}

/// Opens the caller's root and working directory, which stay.
fn emit_caller_root(plan: &mut Plan) -> Entry {
    let (root, cwd) = (plan.slot(), plan.slot());
    open_dir(plan, Step::Mount, CWD.into(), "/", root).at("/");
    open_dir(plan, Step::Cwd, CWD.into(), ".", cwd).at(".");
    Entry::Caller { root, cwd }
}

/// A bind that is tied to a mount of the host: its index, and the tree that it shows.
type Tied = (usize, Slot);

/// What the mounts of the list are made on and of.
#[derive(Debug, Clone, Copy)]
struct Places<'p> {
    root: Slot,
    rootfs: Option<&'p RootFs>,
    /// The store of the files whose contents the caller gives.
    files: Option<Slot>,
    tied: &'p [Tied],
    /// The device nodes that the caller has made.
    ready: Option<Precreated>,
}

/// Copies the trees of the binds that are tied to mounts of the host.
fn emit_tied(plan: &mut Plan, mounts: &[Mount], context: Context) -> Result<Vec<Tied>> {
    let mut tied = Vec::new();
    for (i, mount) in mounts.iter().enumerate() {
        if let Kind::Bind(bind) = &mount.kind
            && bind.relation(context.user_ns) != Relation::Private
        {
            tied.push((i, emit_early_tree(plan, bind, context)?));
        }
    }
    Ok(tied)
}

/// Makes the mounts of the list, each on what those before it left, except for peers of the host's
/// mounts. Returns the pins of all targets.
fn emit_mounts(plan: &mut Plan, mounts: &[Mount], places: Places<'_>, context: Context) -> Result<PlaceFlags> {
    let mut all = PlaceFlags::empty();
    // A root of the sandbox's own may have links to what is mounted or made later, as
    // /etc/resolv.conf is in images of whole systems.
    let dangling = if places.rootfs.is_some() { PlaceFlags::DANGLING } else { PlaceFlags::empty() };
    for (i, mount) in mounts.iter().enumerate().filter(|(_, mount)| !mount.kind.is_peer(context.user_ns)) {
        let before = MountsBefore::new(&mounts[..i], places.rootfs);
        let pins = before.pins_for(&mount.target, mount.kind.protects()) | dangling;
        match (&mount.kind, places.tied.iter().find(|(tied, _)| *tied == i)) {
            (Kind::Bind(bind), Some((_, tree))) => {
                emit_early_bind(plan, (bind, *tree), places.root, &mount.target, pins, context)?;
            }
            (Kind::Node(node), _) => {
                let ready = places.ready.map(|nodes| nodes.place(&mounts[..i]));
                emit_device_node(plan, node, places.root, &mount.target, pins, ready);
            }
            _ => emit_mount(plan, (mount, i), places.root, pins, places.files, context)?,
        }
        all |= pins;
    }
    Ok(all)
}

/// Makes the binds that are peers of mounts of the host. They come last, and no link leads to their
/// targets: what the setup mounts on a peer would show on the host, and stay there.
fn emit_peers(plan: &mut Plan, mounts: &[Mount], places: Places<'_>, context: Context) -> Result<PlaceFlags> {
    let mut all = PlaceFlags::empty();
    for (i, tree) in places.tied {
        let Some(mount) = mounts.get(*i).filter(|mount| mount.kind.is_peer(context.user_ns)) else { continue };
        let Kind::Bind(bind) = &mount.kind else { continue };
        let pins = MountsBefore::new(mounts, places.rootfs).pins_for(&mount.target, true);
        let plain = pins | PlaceFlags::NO_SYMLINKS;
        emit_early_bind(plan, (bind, *tree), places.root, &mount.target, plain, context)?;
        all |= pins;
    }
    Ok(all)
}

/// Sets the propagation of the root, which is entered: mount(2).
fn emit_root_propagation(plan: &mut Plan, propagation: Propagation) {
    let root = plan.string("/");
    let flags = propagation.ms() | if propagation.is_recursive() { libc::MS_REC } else { 0 };
    plan.call(Step::Propagation, libc::SYS_mount, [0.into(), root.into(), 0.into(), flags.into(), 0.into()]).at("/");
}

/// Makes the mount with this index of the list at its target. `pins` are those of the target.
fn emit_mount(
    plan: &mut Plan,
    (mount, index): (&Mount, usize),
    root: Slot,
    pins: PlaceFlags,
    files: Option<Slot>,
    context: Context,
) -> Result<()> {
    let at = mount.target.as_path();
    let quiet = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    let plain = pins | PlaceFlags::NO_SYMLINKS;
    match &mount.kind {
        Kind::Bind(bind) => emit_bind(plan, bind, root, at, pins, context)?,
        Kind::Tmpfs(tmpfs) if tmpfs.copy_up => {
            let (data, keeps_mode) = (tmpfs.options(), tmpfs.mode.is_some());
            let (source, ms_flags, data) = ("tmpfs".as_ref(), tmpfs.flags.ms(), data.as_ref());
            let tmpfs = CopyUp { source, ms_flags, data, keeps_mode, keeps_owner: false };
            let tree = emit_copy_up(plan, &tmpfs, root, at, pins);
            plan.close(Step::CopyUp, tree);
        }
        Kind::Tmpfs(tmpfs) => mount_at(plan, root, at, "tmpfs", tmpfs.flags.ms(), &tmpfs.options(), pins),
        // A /proc or /sys behind a link would put the kernel's files where the image's author wants
        // them.
        Kind::Proc(proc) => mount_at(plan, root, at, "proc", proc.flags.ms(), &proc.options(), plain),
        Kind::Sysfs => mount_at(plan, root, at, "sysfs", (quiet | MountFlags::READ_ONLY).ms(), "", plain),
        Kind::Mqueue => mount_at(plan, root, at, "mqueue", quiet.ms(), "", pins),
        Kind::Dev(dev) => emit_dev(plan, dev, root, at, pins, context),
        Kind::Cgroupfs(cgroupfs) => emit_cgroupfs(plan, cgroupfs, root, at, pins, context)?,
        Kind::File(file) => {
            files.into_iter().for_each(|files| emit_memory_file(plan, (file, index), files, root, at, pins));
        }
        // It may be one of those that the caller has made.
        Kind::Node(node) => emit_device_node(plan, node, root, at, pins, None),
        Kind::Dir => emit_dir(plan, root, at),
        Kind::Symlink(to) => emit_symlink(plan, root, at, to),
        Kind::Overlay(overlay) => emit_overlay(plan, overlay, root, at, pins, context)?,
        #[cfg(feature = "oci")]
        Kind::Again(again) => super::again::emit_again(plan, again, root, at, pins, context)?,
        Kind::Raw(raw) => emit_raw(plan, raw, root, at, if raw.is_of_kernel() { plain } else { pins }),
    }
    Ok(())
}

/// Makes the top of a read-only root read-only, now that the targets in it are made.
fn emit_read_only_root(plan: &mut Plan, rootfs: Option<&RootFs>, root: Slot) {
    if rootfs.is_some_and(|rootfs| rootfs.read_only && !rootfs.is_host()) {
        set_flags(plan, root, MountFlags::READ_ONLY, MountFlags::empty(), false, Path::new("/"));
    }
}

/// Returns to the caller's working directory. `pins` are those of all targets: where a directory
/// was bound onto itself, the name of the working directory leads to the bind.
fn emit_caller_cwd(plan: &mut Plan, cwd: Slot, pins: PlaceFlags) {
    plan.call(Step::Cwd, libc::SYS_fchdir, [cwd.into()]);
    if pins.contains(PlaceFlags::PINNED) {
        plan.reenter_cwd().hint("the caller's working directory has to be found by its name");
    }
    plan.close(Step::Cwd, cwd);
}
