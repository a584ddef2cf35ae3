//! Any file system, as mount(2) takes it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::attributes::Attributes;
use super::calls::{emit_target, enter_open_target, enter_target, mount_here, set_attributes, set_propagation};
use super::copy_up::{CopyUp, emit_copy_up};
use super::flags::MountFlags;
use super::options::{MountOptions, Propagation};
use crate::error::{Problem, Step};
use crate::plan::{PlaceFlags, Plan, Slot};

/// Any file system, as mount(2) takes it, for where no other kind serves. Nothing is checked but
/// the words of [`options`](RawMount::options), and that no link leads to the target of a proc or
/// sysfs.
///
/// ```no_run
/// use ringfence::{RawMount, Sandbox};
///
/// let disk = RawMount::new("/dev/loop0", "/data", "ext4").flags(libc::MS_RDONLY | libc::MS_NODEV);
/// let sandbox = Sandbox::new().rootfs("/srv/alpine").mount(disk.data("errors=remount-ro"));
/// sandbox.command("ls").arg("/data").status()?;
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct RawMount {
    pub(crate) source: OsString,
    pub(super) target: PathBuf,
    pub(crate) fstype: OsString,
    pub(crate) ms_flags: u64,
    pub(crate) data: OsString,
    pub(super) options: Option<Box<MountOptions>>,
}

impl RawMount {
    /// Calls `mount(source, target, fstype, 0, "")`.
    pub fn new(source: impl AsRef<OsStr>, target: impl Into<PathBuf>, fstype: impl AsRef<OsStr>) -> Self {
        RawMount {
            source: source.as_ref().to_owned(),
            target: target.into(),
            fstype: fstype.as_ref().to_owned(),
            ms_flags: 0,
            data: OsString::new(),
            options: None,
        }
    }

    /// Sets the `MS_*` flags of mount(2).
    pub fn flags(mut self, ms_flags: u64) -> Self {
        self.ms_flags = ms_flags;
        self
    }

    /// Sets the file system's own options, separated by commas.
    pub fn data(mut self, data: impl AsRef<OsStr>) -> Self {
        self.data = data.as_ref().to_owned();
        self
    }

    /// Takes the options of mount(8), which replace [`flags`](RawMount::flags) and
    /// [`data`](RawMount::data).
    ///
    /// With `remount`, what is mounted at the target already gets the options, and source and file
    /// system mean nothing: with `bind` the mount alone, else its file system, which other mounts
    /// may share.
    pub fn options(mut self, options: MountOptions) -> Self {
        (self.ms_flags, self.data) = (options.ms_flags(), options.data());
        self.options = Some(Box::new(options));
        self
    }

    /// Returns whether the mount has options, for which a profile has no key.
    #[cfg(feature = "serde")]
    pub(crate) fn has_options(&self) -> bool {
        self.options.is_some()
    }

    /// Returns whether the mount begins with a copy of what is at its target.
    pub(super) fn copies_up(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.copy_up)
    }

    /// Returns whether no file system is mounted, but one that is there gets other options.
    pub(super) fn is_remount(&self) -> bool {
        self.ms_flags & libc::MS_REMOUNT != 0 || self.options.as_ref().is_some_and(|options| options.is_remount())
    }

    /// Returns whether the file system is one through which the kernel itself is seen and set.
    pub(super) fn is_of_kernel(&self) -> bool {
        !self.is_remount() && ["proc", "sysfs"].iter().any(|fstype| self.fstype == *fstype)
    }

    /// Returns the contradictions in the options.
    pub(super) fn invalid(&self) -> Vec<Problem> {
        self.options.iter().flat_map(|options| options.invalid_for_file_system(&self.fstype)).collect()
    }
}

/// Mounts a file system at the target `at`, or changes what is mounted there. `pins`: see
/// [`pinning`](super::pinning).
pub(super) fn emit_raw(plan: &mut Plan, raw: &RawMount, root: Slot, at: &Path, pins: PlaceFlags) {
    let Some(options) = &raw.options else {
        enter_target(plan, root, at, pins);
        return mount_here(plan, &raw.fstype, &raw.source, raw.ms_flags, &raw.data, at);
    };
    let after = After::of(options);
    // Nothing is found by its name twice: the name could lead elsewhere by then.
    let top = match (options.remount, options.bind) {
        (false, _) if options.copy_up => {
            let (source, ms_flags, data) = (&*raw.source, raw.ms_flags, &*raw.data);
            let (keeps_mode, keeps_owner) =
                (options.has_data("mode="), options.has_data("uid=") || options.has_data("gid="));
            emit_copy_up(plan, &CopyUp { source, ms_flags, data, keeps_mode, keeps_owner }, root, at, pins)
        }
        (false, _) => {
            let place = enter_open_target(plan, root, at, pins);
            mount_here(plan, &raw.fstype, &raw.source, raw.ms_flags, &raw.data, at);
            if after.is_empty() { place } else { emit_top(plan, place, at) }
        }
        (true, None) => {
            let place = enter_open_target(plan, root, at, pins | PlaceFlags::EXISTING);
            let flags = raw.ms_flags | libc::MS_REMOUNT;
            mount_here(plan, &raw.fstype, &raw.source, flags, &raw.data, at);
            place
        }
        (true, Some(_)) if after.is_empty() => return,
        (true, Some(_)) => {
            let top = plan.slot();
            emit_target(plan, root, at, PlaceFlags::EXISTING | pins & PlaceFlags::NO_SYMLINKS, top);
            top
        }
    };
    after.emit(plan, top, at);
    plan.close(Step::MountAttr, top);
}

/// Opens what mount(2) has mounted on the directory `place`, and closes that.
fn emit_top(plan: &mut Plan, place: Slot, at: &Path) -> Slot {
    let top = plan.slot();
    plan.open_top(Step::MountAttr, place, top)
        .at(at)
        .hint("nosymfollow needs Linux 5.14, and the words about propagation need 5.12");
    plan.close(Step::MountAttr, place);
    top
}

/// What mount(2) does not do, or does not do on every kernel, and mount_setattr(2) does.
#[derive(Debug)]
struct After<'o> {
    own: Attributes,
    all: Attributes,
    propagation: Vec<&'o Propagation>,
}

impl<'o> After<'o> {
    fn of(options: &'o MountOptions) -> Self {
        let own = match (options.remount, options.bind) {
            (true, Some(_)) => options.own,
            _ => only_after(options),
        };
        let all = if options.remount { options.all } else { Attributes::default() };
        // Every mount begins private.
        let is_new = !options.remount;
        let is_private = |propagation: &&Propagation| propagation.ms() == libc::MS_PRIVATE;
        let propagation = options.propagation.iter().skip_while(|propagation| is_new && is_private(propagation));
        After { own, all, propagation: propagation.collect() }
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.all.is_empty() && self.propagation.is_empty()
    }

    /// Changes the mount `top`. The propagation comes once the mount has its place, as a mount on a
    /// shared one becomes shared.
    fn emit(&self, plan: &mut Plan, top: Slot, at: &Path) {
        set_attributes(plan, top, self.own, MountFlags::empty(), false, at);
        set_attributes(plan, top, self.all, MountFlags::empty(), true, at);
        for propagation in &self.propagation {
            set_propagation(plan, top, propagation.ms(), propagation.is_recursive(), at);
        }
    }
}

/// Returns the attributes that mount(2) of an older kernel would pass over.
fn only_after(options: &MountOptions) -> Attributes {
    let mut after = Attributes::default();
    if options.attributes_of_new().sets(MountFlags::NO_SYMFOLLOW) {
        after.set(MountFlags::NO_SYMFOLLOW);
    }
    after
}
