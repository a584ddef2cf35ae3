//! From the policy to ops: the root, then the mounts in their order, then the pivot.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use nix::errno::Errno;

use super::fast::Before;
use super::layers::{Ready, attach_ready};
use super::root::{Base, RootFs, Upper};
use super::{Bind, Context, Kind, Mount, MountFlags, Overlay, Policy, clean, overlay_list};
use super::{idmapped, place};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{Added, Arg, PlaceFlags, Plan, PlanFd, Slot, Tree};
use crate::proc::user_ns;
use crate::sys::fork_mark::PerProcess;
use crate::units::Bytes;

const AT_RECURSIVE: u64 = 0x8000;
const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
pub(super) const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x4;
pub(super) const MOVE_MOUNT_T_EMPTY_PATH: u64 = 0x40;
const OPEN_TREE_CLONE: u64 = 1;
const O_PATH_DIR: u64 = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
/// What mount(2) takes as options: a page, with its NUL.
const OPTIONS_MAX: usize = 4095;
pub(super) const CWD: i32 = libc::AT_FDCWD;
/// Has an upper hold all of what it holds (Linux 4.19): without it a host may have overlayfs note that the rest of a directory or
/// of a file is in another place below, and the upper is none without those layers, for us and for whoever makes a layer of it.
const WHOLE: [(&str, &str); 2] = [("redirect_dir", "off"), ("metacopy", "off")];
/// What errors call the file systems in memory that an overlay is put together in.
pub(super) const UPPER: &str = "upper of the root";
pub(super) const LAYERS: &str = "layers";

impl Policy {
    /// Writes the ops. `scratch` is the directory that was made for an overlay's upper, `ready` what
    /// [`emit_ahead`](Policy::emit_ahead) has left, `groups` the [`control_groups`](Policy::control_groups) that are closed.
    pub(crate) fn emit(
        &self,
        plan: &mut Plan,
        context: Context,
        scratch: Option<&Path>,
        ready: Option<Ready>,
        groups: &[PathBuf],
    ) -> Result<()> {
        if !context.template {
            emit_propagation(plan);
        }
        let covers = self.emit_covers(plan, context);
        let mounts = self.all(context.pid_ns);
        let cwd = plan.slot();
        let root = match ready {
            Some(ready) => attach_ready(plan, ready),
            None => plan.slot(),
        };
        let rootfs = self.root.clone().map(|root| RootFs { read_only: root.read_only || self.read_only_root, ..root });
        let has_place = match &rootfs {
            Some(_) if ready.is_some() => false,
            Some(rootfs) => emit_root(plan, rootfs, root, context, scratch)?,
            None => {
                open_dir(plan, Step::Mount, CWD.into(), "/", root).at("/");
                open_dir(plan, Step::Cwd, CWD.into(), ".", cwd).at(".");
                false
            }
        };
        let mut ways = PlaceFlags::empty();
        for (i, mount) in mounts.iter().enumerate() {
            let before = Before::new(&mounts[..i], rootfs.as_ref());
            let way = before.way_to(&mount.target, mount.kind.protects());
            emit_mount(plan, mount, root, Context { way, ..context })?;
            ways |= way;
        }
        ways |= self.emit_masks(plan, root, covers, groups, Before::new(&mounts, rootfs.as_ref()));
        if let Some(rootfs) = &rootfs {
            if rootfs.read_only && !rootfs.is_host() {
                set_flags(plan, root, MountFlags::READ_ONLY, MountFlags::empty(), false, Path::new("/"));
            }
            emit_entry(plan, root, context, has_place);
        } else {
            plan.call(Step::Cwd, libc::SYS_fchdir, [cwd.into()]);
            if ways.contains(PlaceFlags::PINNED) {
                plan.reenter_cwd().hint("the caller's working directory has to be found by its name");
            }
            plan.close(Step::Cwd, cwd);
        }
        plan.close(Step::Mount, root);
        Ok(())
    }
}

/// Nothing mounted from here on is seen outside, and nothing mounted outside shows here.
fn emit_propagation(plan: &mut Plan) {
    let root = plan.string("/");
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    plan.call(Step::Propagation, libc::SYS_mount, [0.into(), root.into(), 0.into(), Arg::from(flags), 0.into()]);
}

/// Leaves in `slot` a directory that is found from `dir`.
pub(super) fn open_dir<'p>(plan: &'p mut Plan, step: Step, dir: Arg, path: impl AsRef<OsStr>, slot: Slot) -> Added<'p> {
    let name = plan.string(path);
    plan.call(step, libc::SYS_openat, [dir, name.into(), O_PATH_DIR.into()]).store(slot)
}

/// Changes flags of a mount that stands, and with `recursive` of those below it: mount_setattr(2), 5.12. Its fallback,
/// which is what is given back, can do nothing to a tree that stands nowhere yet.
pub(super) fn set_flags<'p>(
    plan: &'p mut Plan,
    tree: Slot,
    set: MountFlags,
    clear: MountFlags,
    recursive: bool,
    at: &Path,
) -> Added<'p> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attr = plan.words(&[set.bits(), clear.bits(), 0, 0]);
    let empty = plan.string("");
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    plan.call(
        Step::MountAttr,
        libc::SYS_mount_setattr,
        [tree.into(), empty.into(), flags.into(), attr.into(), 32.into()],
    )
    .at(at)
    .may_be_missing()
    .skip_on_success(1);
    plan.remount(tree, set.ms(), clear.ms(), recursive).at(at)
}

/// mount(2) at the working directory.
pub(super) fn mount_here(plan: &mut Plan, fstype: &OsStr, source: &OsStr, flags: u64, options: &OsStr, at: &Path) {
    mount_on(plan, ".", fstype, source, flags, options).at(at);
}

/// mount(2) at a place in the working directory.
pub(super) fn mount_on<'p>(
    plan: &'p mut Plan,
    place: &str,
    fstype: &OsStr,
    source: &OsStr,
    flags: u64,
    options: &OsStr,
) -> Added<'p> {
    let (source, place, fstype, options) =
        (plan.string(source), plan.string(place), plan.string(fstype), plan.string(options));
    plan.call(Step::Mount, libc::SYS_mount, [source.into(), place.into(), fstype.into(), flags.into(), options.into()])
}

/// Leaves in `root` a descriptor of the new root, which stands on top of `/`. Gives whether a place for what an overlay takes
/// by name stands there as well.
fn emit_root(plan: &mut Plan, rootfs: &RootFs, root: Slot, context: Context, scratch: Option<&Path>) -> Result<bool> {
    let mut was_read_only = false;
    match &rootfs.base {
        Base::Host => emit_tree(plan, Path::new("/"), true, false, root, context)?,
        Base::Dir(dir) => {
            let dir = source(dir)?;
            was_read_only = rootfs.read_only && is_read_only(&dir)?;
            let mapped = context.mapped.is_some_and(|ids| rootfs.is_handed(&dir, ids));
            emit_tree(plan, &dir, true, mapped, root, context)?;
        }
        Base::Programs => return super::programs::emit(plan, rootfs.flags, root, context).map(|()| false),
        Base::Overlay(lowers) => return emit_overlay_root(plan, lowers, rootfs, root, context, scratch),
    }
    let (slash, top) = (Path::new("/"), plan.string("/"));
    attach(plan, root, CWD.into(), top.into(), MOVE_MOUNT_F_EMPTY_PATH, slash);
    let (read_only, none) = (MountFlags::READ_ONLY, MountFlags::empty());
    let flags = rootfs.flags | if rootfs.read_only { read_only } else { none };
    if !flags.is_empty() {
        set_flags(plan, root, flags, none, true, slash);
    }
    if rootfs.read_only && !rootfs.is_host() && !was_read_only {
        // The top is left writable until the targets are made. EPERM: a user namespace must not change that.
        set_flags(plan, root, none, read_only, false, slash).tolerate(Errno::EPERM);
    }
    Ok(false)
}

/// `open_tree(OPEN_TREE_CLONE)`, 5.2: a copy of a mount that stands nowhere yet. It is made outside where the host's path
/// means nothing, in the template, and where it may be closed to the user that the setup runs as; it can be moved into the
/// mount namespace of another user namespace.
fn emit_tree(plan: &mut Plan, path: &Path, recursive: bool, mapped: bool, tree: Slot, context: Context) -> Result<()> {
    if !context.template && !context.ahead && !mapped {
        emit_own_tree(plan, path, recursive, tree);
        return Ok(());
    }
    match Tree::new(path, recursive) {
        // The caller is root of a user namespace that does not own its mounts, the kernel is before 5.12, or a filter refuses.
        Err(Errno::EPERM | Errno::ENOSYS) if !context.template && !mapped => emit_own_tree(plan, path, recursive, tree),
        made => {
            // Without it there is no map either, and the sandbox can go without that.
            let lacks_map = mapped && matches!(made, Err(Errno::EPERM | Errno::ENOSYS));
            let step = if lacks_map { Step::IdMapMount } else { Step::OpenTree };
            let copy = made.map_err(|errno| Error::new(step, errno).at(path))?;
            emit_copy(plan, copy.with_mapped_ids(mapped), path, tree);
        }
    }
    Ok(())
}

/// Leaves in `tree` what the caller has copied.
pub(super) fn emit_copy(plan: &mut Plan, copy: Tree, path: &Path, tree: Slot) {
    let number = plan.fd(PlanFd::Tree(Arc::new(copy)));
    let flag = libc::F_DUPFD_CLOEXEC;
    plan.call(Step::OpenTree, libc::SYS_fcntl, [number.into(), flag.into(), 0.into()]).at(path).store(tree);
}

fn emit_own_tree(plan: &mut Plan, path: &Path, recursive: bool, tree: Slot) {
    let name = plan.string(path);
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64 | if recursive { AT_RECURSIVE } else { 0 };
    plan.call(Step::OpenTree, libc::SYS_open_tree, [CWD.into(), name.into(), flags.into()]).at(path).store(tree);
}

pub(super) fn attach(plan: &mut Plan, tree: Slot, dir: Arg, name: Arg, flags: u64, at: &Path) {
    let empty = plan.string("");
    plan.call(Step::MoveMount, libc::SYS_move_mount, [tree.into(), empty.into(), dir, name, flags.into()]).at(at);
}

/// mount(2) on `/` puts the mount on top of the root without entering it, and `/..` leads there.
fn emit_overlay_root(
    plan: &mut Plan,
    lowers: &[PathBuf],
    rootfs: &RootFs,
    root: Slot,
    context: Context,
    scratch: Option<&Path>,
) -> Result<bool> {
    let mut lowers: Vec<PathBuf> = lowers.iter().map(|dir| source(dir)).collect::<Result<_>>()?;
    let linked = !rootfs.id_mapped && place::are_long(&lowers);
    let mut has_place = true;
    let upper = match (&rootfs.upper, scratch) {
        (Upper::Scratch(_), Some(scratch)) if context.other_user => {
            place::emit(plan, place::size_for(&lowers), UPPER);
            let layers = place::emit_scratch(plan, scratch)?;
            Some((layers.join("upper"), layers.join("work")))
        }
        (Upper::Tmpfs(size), _) => {
            let links = if linked { place::size_for(&lowers) } else { Bytes::new(0) };
            place::emit(plan, Bytes::new(size.get().saturating_add(links.get())), UPPER);
            Some((place::make_dir(plan, "/../upper"), place::make_dir(plan, "/../work")))
        }
        (upper, scratch) => {
            has_place = linked || rootfs.id_mapped;
            if has_place {
                place::emit(plan, place::size_for(&lowers), LAYERS);
            } else {
                let top = plan.string("/");
                plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
            }
            let upper = upper_dirs(upper, scratch)?;
            if linked { upper.map(|upper| emit_linked(plan, &upper)) } else { upper }
        }
    };
    if rootfs.id_mapped {
        lowers = idmapped::emit_layers(plan, &lowers, upper.is_some())?;
    } else if linked {
        lowers = place::emit_links(plan, &lowers);
    }
    let options = overlay_options(&lowers, upper.as_ref(), context)?;
    let (overlay, top) = ("overlay".as_ref(), Path::new("/"));
    mount_here(plan, overlay, overlay, rootfs.flags.ms(), &options, top);
    open_dir(plan, Step::Mount, CWD.into(), "/..", root).at("/..");
    Ok(has_place)
}

/// The upper and the work directory that have names on the host.
pub(super) fn upper_dirs(upper: &Upper, scratch: Option<&Path>) -> Result<Option<(PathBuf, PathBuf)>> {
    Ok(match (upper, scratch) {
        (Upper::Given(upper, work), _) => Some((source(upper)?, source(work)?)),
        (Upper::Scratch(_), Some(scratch)) => Some((scratch.join("upper"), scratch.join("work"))),
        _ => None,
    })
}

/// Short names for an upper and its work directory.
fn emit_linked(plan: &mut Plan, (upper, work): &(PathBuf, PathBuf)) -> (PathBuf, PathBuf) {
    (place::emit_link(plan, "/../upper", upper), place::emit_link(plan, "/../work", work))
}

/// Options for an overlay that is not one of a user namespace of the sandbox's own. Below another user namespace overlayfs takes
/// them from nobody (EPERM), and can note no such thing, which is in attributes that only the initial one may set.
pub(super) fn whole() -> &'static [(&'static str, &'static str)] {
    static INITIAL: PerProcess<bool> = PerProcess::new();
    let initial = INITIAL.get_or_try(|| Ok::<_, Errno>(user_ns::is_initial()));
    if initial.is_ok_and(|initial| *initial) { &WHOLE } else { &[] }
}

fn overlay_options(
    lowers: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    context: Context,
) -> Result<std::ffi::OsString> {
    let mut options = std::ffi::OsString::from("lowerdir=");
    options.push(overlay_list(lowers.iter().map(PathBuf::as_path)));
    if let Some((upper, work)) = upper {
        for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
            options.push(name);
            options.push(overlay_list([path.as_path()]));
        }
    }
    if context.user_ns {
        // Has both of WHOLE by itself, and refuses redirect_dir=off where that means to follow.
        options.push(",userxattr");
    } else {
        whole().iter().for_each(|(key, value)| options.push(format!(",{key}={value}")));
    }
    if options.len() > OPTIONS_MAX {
        let text = format!("the names of layers take {} bytes, and mount(2) takes {OPTIONS_MAX}", options.len());
        let error = Error::message(ErrorKind::Invalid, Step::Mount, text);
        return Err(error.at("overlay").hint("use shorter paths for the upper layer"));
    }
    Ok(options)
}

/// A path of the host as the stub will open it: absolute, and there.
pub(super) fn source(path: &Path) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| Error::io(Step::OpenSource, error).at(path);
    let path = absolute(path).map_err(|error| failed(&error))?;
    fs::metadata(&path).map_err(|error| failed(&error).hint("the path is one of the host's and has to exist"))?;
    Ok(path)
}

/// Whether the mount on which `path` stands lets nothing be written.
fn is_read_only(path: &Path) -> Result<bool> {
    let flags = nix::sys::statvfs::statvfs(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?.flags();
    Ok(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// Opens the place of a mount below the root, making it if need be.
pub(super) fn emit_target<'p>(plan: &'p mut Plan, root: Slot, path: &Path, flags: PlaceFlags, slot: Slot) -> Added<'p> {
    plan.find_place(root, &clean(path), flags, slot).at(path)
}

/// Makes the place of a mount the working directory: mount(2) then needs no path that could be turned elsewhere.
pub(super) fn enter_target(plan: &mut Plan, root: Slot, path: &Path, kind: PlaceFlags) {
    let slot = plan.slot();
    emit_target(plan, root, path, kind, slot);
    plan.call(Step::MountTarget, libc::SYS_fchdir, [slot.into()]).at(path);
    plan.close(Step::MountTarget, slot);
}

/// Mounts a file system at `path` below the root.
pub(super) fn mount_at(
    plan: &mut Plan,
    root: Slot,
    path: &Path,
    fstype: &str,
    flags: u64,
    options: &str,
    kind: PlaceFlags,
) {
    enter_target(plan, root, path, kind);
    mount_here(plan, fstype.as_ref(), fstype.as_ref(), flags, options.as_ref(), path);
}

fn emit_mount(plan: &mut Plan, mount: &Mount, root: Slot, context: Context) -> Result<()> {
    let at = mount.target.as_path();
    let quiet = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    let (way, plain) = (context.way, context.way | PlaceFlags::NO_SYMLINKS);
    match &mount.kind {
        Kind::Bind(bind) => emit_bind(plan, bind, root, at, context)?,
        Kind::Tmpfs(tmpfs) => mount_at(plan, root, at, "tmpfs", tmpfs.flags.ms(), &tmpfs.options(), way),
        // A /proc or /sys behind a link would put the kernel's files where the image's author wants them.
        Kind::Proc(proc) => mount_at(plan, root, at, "proc", proc.flags.ms(), &proc.options(), plain),
        Kind::Sysfs => mount_at(plan, root, at, "sysfs", (quiet | MountFlags::READ_ONLY).ms(), "", plain),
        Kind::Mqueue => mount_at(plan, root, at, "mqueue", quiet.ms(), "", way),
        Kind::Dev(dev) => super::special::emit_dev(plan, dev, root, at, context),
        Kind::Overlay(overlay) => emit_overlay(plan, overlay, root, at, context)?,
        Kind::Raw(raw) => {
            enter_target(plan, root, at, way);
            mount_here(plan, &raw.fstype, &raw.source, raw.ms_flags, &raw.data, at);
        }
    }
    Ok(())
}

pub(super) fn emit_bind(plan: &mut Plan, bind: &Bind, root: Slot, at: &Path, context: Context) -> Result<()> {
    let path = source(&bind.source)?;
    let found = fs::metadata(&path).map_err(|error| Error::io(Step::OpenSource, &error).at(&path))?.file_type();
    let kind = if found.is_dir() { PlaceFlags::empty() } else { PlaceFlags::FILE };
    let flags = bind.flags(found.is_char_device() || found.is_block_device());
    let tree = plan.slot();
    let mapped = context.mapped.is_some_and(|ids| bind.is_handed(ids));
    emit_tree(plan, &path, bind.recursive, mapped, tree, context)?;
    attach_at(plan, tree, root, at, kind | context.way);
    if !flags.is_empty() {
        set_flags(plan, tree, flags, MountFlags::empty(), bind.recursive, at);
    }
    plan.close(Step::MoveMount, tree);
    Ok(())
}

/// Puts a detached tree at `at` below the root.
pub(super) fn attach_at(plan: &mut Plan, tree: Slot, root: Slot, at: &Path, kind: PlaceFlags) {
    let (place, empty) = (plan.slot(), plan.string(""));
    emit_target(plan, root, at, kind, place);
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    attach(plan, tree, place.into(), empty.into(), flags, at);
    plan.close(Step::MoveMount, place);
}

/// Puts a detached tree on `name` in the directory `dir`, or on `dir` itself; no link is followed.
pub(super) fn attach_to(plan: &mut Plan, tree: Slot, dir: Arg, name: &str, at: &Path) {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | if name.is_empty() { MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    let name = plan.string(name);
    attach(plan, tree, dir, name.into(), flags, at);
}

/// A tree of one path of the host, not its submounts, where the stub opens it.
pub(super) fn emit_single_tree(plan: &mut Plan, path: &Path, tree: Slot) {
    emit_own_tree(plan, path, false, tree);
}

fn emit_overlay(plan: &mut Plan, overlay: &Overlay, root: Slot, at: &Path, context: Context) -> Result<()> {
    let mut lowers: Vec<PathBuf> = overlay.lowers.iter().map(|dir| source(dir)).collect::<Result<_>>()?;
    let mut upper = match &overlay.upper {
        Some((upper, work)) => Some((source(upper)?, source(work)?)),
        None => None,
    };
    let has_place = overlay.id_mapped || place::are_long(&lowers);
    if has_place {
        place::emit(plan, place::size_for(&lowers), LAYERS);
        lowers = if overlay.id_mapped {
            idmapped::emit_layers(plan, &lowers, upper.is_some())?
        } else {
            upper = upper.map(|upper| emit_linked(plan, &upper));
            place::emit_links(plan, &lowers)
        };
    }
    let options = overlay_options(&lowers, upper.as_ref(), context)?;
    enter_target(plan, root, at, context.way);
    mount_here(plan, "overlay".as_ref(), "overlay".as_ref(), overlay.flags.ms(), &options, at);
    if has_place {
        place::emit_away(plan);
    }
    Ok(())
}

/// Makes the new root the root. In the template nothing of the host lies below it, and the kernel's two waits for all
/// processors that taking an old root off costs are saved.
fn emit_entry(plan: &mut Plan, root: Slot, context: Context, has_place: bool) {
    if !context.template {
        return emit_pivot(plan, root, has_place);
    }
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
}

/// pivot_root(2) with both arguments ".": the old root ends up on top of the new one, and is taken off. A place for what an
/// overlay takes by name is mounted on the old root, and lies on top of that.
fn emit_pivot(plan: &mut Plan, root: Slot, has_place: bool) {
    let stacked = 1 + u64::from(has_place);
    let here = plan.string(".");
    plan.call(Step::PivotRoot, libc::SYS_fchdir, [root.into()]).at("/");
    plan.call(Step::PivotRoot, libc::SYS_pivot_root, [here.into(), here.into()]).at("/");
    plan.detach_old_root(stacked.into());
    let top = plan.string("/");
    plan.call(Step::Cwd, libc::SYS_chdir, [top.into()]).at("/");
}
