//! The options of a mount, by the words of mount(8) and of the OCI runtime specification.

use std::ffi::{OsStr, OsString};
#[cfg(feature = "oci")]
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::attributes::{Atime, Attributes};
use super::flags::MountFlags;
use super::mount_ids::{GivenIds, MountIds};
#[cfg(feature = "oci")]
use super::named::Named;
use crate::error::Problem;
use crate::idmap::IdMap;
use crate::plan::has_nul;
use crate::sys::mount::Relation;

bitflags::bitflags! {
    /// Flags of a file system, which all its mounts share: `MS_*` of mount(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct SuperFlags: u64 {
        const SYNC = libc::MS_SYNCHRONOUS;
        const MAND = libc::MS_MANDLOCK;
        const DIRSYNC = libc::MS_DIRSYNC;
        const SILENT = libc::MS_SILENT;
        const I_VERSION = libc::MS_I_VERSION;
        const LAZYTIME = libc::MS_LAZYTIME;
    }
}

/// The propagation of a mount: which mounts that are made below it later show elsewhere, and which
/// made elsewhere show below it. mount_namespaces(7) has the terms. The variants with an `R` hold
/// for what is mounted below as well.
///
/// ```
/// use ringfence::{Bind, MountOptions, Propagation, RootFs, Sandbox};
///
/// // Disks that are mounted below /media on the host later show inside as well. What an engine
/// // inside mounts shows in its own sandboxes.
/// let options = MountOptions::parse(["rbind", "ro", "rslave"]);
/// let media = Bind::new("/media", "/media").options(options);
/// let root = RootFs::dir("/srv/engine").propagation(Propagation::RShared);
/// let sandbox = Sandbox::new().rootfs(root).mount(media);
/// # drop(sandbox);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Propagation {
    /// Neither way.
    Private,
    /// Mounts come in, and do not go out.
    Slave,
    /// Mounts come in and go out.
    Shared,
    /// Neither way, and the mount cannot be bound elsewhere.
    Unbindable,
    /// [`Private`](Propagation::Private), with what is mounted below.
    RPrivate,
    /// [`Slave`](Propagation::Slave), with what is mounted below.
    RSlave,
    /// [`Shared`](Propagation::Shared), with what is mounted below.
    RShared,
    /// [`Unbindable`](Propagation::Unbindable), with what is mounted below.
    RUnbindable,
}

impl Propagation {
    /// Returns the flag of mount(2), without `MS_REC`.
    pub(super) fn ms(self) -> u64 {
        match self {
            Propagation::Private | Propagation::RPrivate => libc::MS_PRIVATE,
            Propagation::Slave | Propagation::RSlave => libc::MS_SLAVE,
            Propagation::Shared | Propagation::RShared => libc::MS_SHARED,
            Propagation::Unbindable | Propagation::RUnbindable => libc::MS_UNBINDABLE,
        }
    }

    /// Returns whether the propagation is set for what is mounted below as well.
    pub(super) fn is_recursive(self) -> bool {
        use Propagation::{RPrivate, RShared, RSlave, RUnbindable};
        matches!(self, RPrivate | RSlave | RShared | RUnbindable)
    }
}

/// The options of a mount, by the words of mount(8): all 61 of the OCI runtime specification 1.3,
/// and `rnodev`, which that forgot. [`Bind::options`](crate::Bind::options) and
/// [`RawMount::options`](crate::RawMount::options) take them.
///
/// | words | what they say | for |
/// | --- | --- | --- |
/// | `ro` `rw`, `nosuid` `suid`, `nodev` `dev`, `noexec` `exec`, `nosymfollow` `symfollow`, `nodiratime` `diratime` | an attribute of the mount is set, or cleared | all |
/// | `noatime` `relatime` `strictatime`, `atime` `norelatime` `nostrictatime` | how times of access are kept; the last three go back to the kernel's way, `relatime` | all |
/// | the same with an `r` before (`rro`, `rsuid`, …) | the same, also for what is mounted below | all |
/// | `sync` `async`, `dirsync`, `lazytime` `nolazytime`, `iversion` `noiversion`, `mand` `nomand`, `silent` `loud` | flags of the file system, which all its mounts share | file systems |
/// | `private` `slave` `shared` `unbindable`, and with an `r` before | the [`Propagation`] | all |
/// | `idmap` `ridmap` | files have other owners here than on disk | binds |
/// | `bind` `rbind` | the mount is a bind, without or with what is mounted below the source | binds |
/// | `remount` | what is mounted at the target gets other options | [`RawMount`](crate::RawMount) |
/// | `tmpcopyup` | the tmpfs begins with what its directory held: [`Tmpfs::copy_up`](crate::Tmpfs::copy_up) | tmpfs |
/// | `defaults` | nothing | all |
/// | any other | an option of the file system | file systems |
///
/// A later word wins over an earlier one; a word with `r` before is applied after those without. A
/// word that the mount cannot have is refused when the sandbox is [checked](crate::Sandbox::check)
/// or spawned, and not passed over.
///
/// `nosymfollow` needs Linux 5.14; `r` words, propagation, and the id maps 5.12: mount_setattr(2).
///
/// ```
/// use ringfence::{Bind, MountOptions, RawMount, Sandbox};
///
/// let data = MountOptions::parse(["rbind", "rslave", "rro", "nosuid"]);
/// let scratch = MountOptions::parse(["nosuid", "nodev", "noatime", "mode=1777", "size=64m"]);
/// assert_eq!(scratch.data(), "mode=1777,size=64m");
/// let sandbox = Sandbox::new()
///     .rootfs("/srv/alpine")
///     .mount(Bind::new("/srv/data", "/data").options(data))
///     .mount(RawMount::new("tmpfs", "/scratch", "tmpfs").options(scratch));
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// The attributes of the mount itself.
    pub(super) own: Attributes,
    /// The attributes of the mount and of those below, applied afterwards.
    pub(super) all: Attributes,
    superblock: SuperFlags,
    /// In the order of the words.
    pub(super) propagation: Vec<Propagation>,
    pub(super) ids: Option<MountIds>,
    /// The id maps hold for what is mounted below as well.
    pub(super) recursive_ids: bool,
    pub(super) copy_up: bool,
    /// A bind, and whether it takes along what is mounted below its source.
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    /// The flags that the words without an `r` name.
    #[cfg(feature = "oci")]
    named: Named,
    /// A mount has the flags that are named, and no other of its source's.
    #[cfg(feature = "oci")]
    replaces: bool,
    data: Vec<OsString>,
}

/// What a word does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Nothing,
    Set(MountFlags),
    Clear(MountFlags),
    Atime(Atime),
    /// Takes this way of keeping times of access back.
    NoAtime(Atime),
    Super(SuperFlags),
    NoSuper(SuperFlags),
    Propagation(Propagation),
    /// With or without what is mounted below.
    Bind(bool),
    Ids(bool),
    Remount,
    CopyUp,
}

#[cfg(feature = "oci")]
impl Effect {
    /// Returns the flags of mount(2) that are set, and those that are taken back.
    fn ms(self) -> (u64, u64) {
        match self {
            Effect::Set(flags) => (flags.ms(), 0),
            Effect::Clear(flags) => (0, flags.ms()),
            Effect::Atime(atime) => (atime.ms(), 0),
            Effect::NoAtime(atime) => (0, atime.ms()),
            Effect::Super(flags) => (flags.bits(), 0),
            Effect::NoSuper(flags) => (0, flags.bits()),
            _ => (0, 0),
        }
    }
}

/// The words that have an `r` before them for all that is mounted below, without the `r`.
const ATTRIBUTES: [(&str, Effect); 18] = [
    ("atime", Effect::NoAtime(Atime::Noatime)),
    ("dev", Effect::Clear(MountFlags::NO_DEV)),
    ("diratime", Effect::Clear(MountFlags::NO_DIR_ATIME)),
    ("exec", Effect::Clear(MountFlags::NO_EXEC)),
    ("noatime", Effect::Atime(Atime::Noatime)),
    ("nodev", Effect::Set(MountFlags::NO_DEV)),
    ("nodiratime", Effect::Set(MountFlags::NO_DIR_ATIME)),
    ("noexec", Effect::Set(MountFlags::NO_EXEC)),
    ("norelatime", Effect::NoAtime(Atime::Relatime)),
    ("nostrictatime", Effect::NoAtime(Atime::Strictatime)),
    ("nosuid", Effect::Set(MountFlags::NO_SUID)),
    ("nosymfollow", Effect::Set(MountFlags::NO_SYMFOLLOW)),
    ("relatime", Effect::Atime(Atime::Relatime)),
    ("ro", Effect::Set(MountFlags::READ_ONLY)),
    ("rw", Effect::Clear(MountFlags::READ_ONLY)),
    ("strictatime", Effect::Atime(Atime::Strictatime)),
    ("suid", Effect::Clear(MountFlags::NO_SUID)),
    ("symfollow", Effect::Clear(MountFlags::NO_SYMFOLLOW)),
];

/// All other words.
const WORDS: [(&str, Effect); 26] = [
    ("async", Effect::NoSuper(SuperFlags::SYNC)),
    ("bind", Effect::Bind(false)),
    ("defaults", Effect::Nothing),
    ("dirsync", Effect::Super(SuperFlags::DIRSYNC)),
    ("idmap", Effect::Ids(false)),
    ("iversion", Effect::Super(SuperFlags::I_VERSION)),
    ("lazytime", Effect::Super(SuperFlags::LAZYTIME)),
    ("loud", Effect::NoSuper(SuperFlags::SILENT)),
    ("mand", Effect::Super(SuperFlags::MAND)),
    ("noiversion", Effect::NoSuper(SuperFlags::I_VERSION)),
    ("nolazytime", Effect::NoSuper(SuperFlags::LAZYTIME)),
    ("nomand", Effect::NoSuper(SuperFlags::MAND)),
    ("private", Effect::Propagation(Propagation::Private)),
    ("rbind", Effect::Bind(true)),
    ("remount", Effect::Remount),
    ("ridmap", Effect::Ids(true)),
    ("rprivate", Effect::Propagation(Propagation::RPrivate)),
    ("rshared", Effect::Propagation(Propagation::RShared)),
    ("rslave", Effect::Propagation(Propagation::RSlave)),
    ("runbindable", Effect::Propagation(Propagation::RUnbindable)),
    ("shared", Effect::Propagation(Propagation::Shared)),
    ("silent", Effect::Super(SuperFlags::SILENT)),
    ("slave", Effect::Propagation(Propagation::Slave)),
    ("sync", Effect::Super(SuperFlags::SYNC)),
    ("tmpcopyup", Effect::CopyUp),
    ("unbindable", Effect::Propagation(Propagation::Unbindable)),
];

/// Returns what a word does, and whether to all that is mounted below as well; `None` for a word of
/// the file system's own.
fn effect_of(word: &OsStr) -> Option<(Effect, bool)> {
    let word = word.to_str()?;
    let find = |table: &[(&str, Effect)], word| table.iter().find(|(name, _)| *name == word).map(|(_, effect)| *effect);
    let single = find(&WORDS, word).or_else(|| find(&ATTRIBUTES, word)).map(|effect| (effect, false));
    single.or_else(|| find(&ATTRIBUTES, word.strip_prefix('r')?).map(|effect| (effect, true)))
}

/// The most bytes that mount(2) takes as options of the file system; what is beyond it would cut
/// off.
const DATA_MAX: usize = 4095;
/// The most words about propagation: more than two say nothing new.
const PROPAGATION_MAX: usize = 8;

impl MountOptions {
    /// Makes options that ask for nothing.
    pub fn new() -> Self {
        MountOptions::default()
    }

    /// Reads words, one option each. An unknown word is an option of the file system's own.
    pub fn parse(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        words.into_iter().fold(MountOptions::new(), MountOptions::option)
    }

    /// Adds one word. An unknown word is an option of the file system's own.
    pub fn option(mut self, word: impl AsRef<OsStr>) -> Self {
        let word = word.as_ref();
        let Some((effect, recursive)) = effect_of(word) else {
            if !word.is_empty() {
                self.data.push(word.to_owned());
            }
            return self;
        };
        #[cfg(feature = "oci")]
        if !recursive {
            let (set, cleared) = effect.ms();
            self.named.name(set, cleared);
        }
        let attributes = if recursive { &mut self.all } else { &mut self.own };
        match effect {
            Effect::Nothing => {}
            Effect::Set(flags) => attributes.set(flags),
            Effect::Clear(flags) => attributes.clear(flags),
            Effect::Atime(atime) => attributes.set_atime(atime),
            Effect::NoAtime(atime) => attributes.clear_atime(atime),
            Effect::Super(flags) => self.superblock |= flags,
            Effect::NoSuper(flags) => self.superblock -= flags,
            Effect::Propagation(propagation) => self.propagation.push(propagation),
            // What is mounted below comes along if any word says so.
            Effect::Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            Effect::Ids(recursive) => {
                self.recursive_ids = recursive;
                self.ids = self.ids.or(Some(MountIds::Sandbox));
            }
            Effect::Remount => self.remount = true,
            Effect::CopyUp => self.copy_up = true,
        }
        self
    }

    /// Sets the propagation. Several are applied in the order of the calls: `Slave` and then
    /// `Shared` is a mount that mounts of the host come into, with mounts below it shared inside.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation.push(propagation);
        self
    }

    /// Maps the ids of the files by these maps, and not by those of the sandbox: a file of the id
    /// `inside` on disk is shown as one of `outside`, as the caller's user namespace counts. Only
    /// the mount itself without `ridmap`. [`Bind::id_mapped`](crate::Bind::id_mapped) says more.
    pub fn id_maps(mut self, uid: impl IntoIterator<Item = IdMap>, gid: impl IntoIterator<Item = IdMap>) -> Self {
        self.ids = Some(MountIds::Given(GivenIds::new(uid.into_iter().collect(), gid.into_iter().collect())));
        self
    }

    /// Maps the ids of the files by those of a user namespace that exists, as the sandbox's own
    /// would.
    #[cfg(feature = "oci")]
    pub(crate) fn ids_of_existing(mut self, user_ns: OwnedFd) -> Self {
        self.ids = Some(MountIds::Given(GivenIds::of_existing(user_ns)));
        self
    }

    /// Returns all words that are no option of a file system.
    #[cfg(feature = "oci")]
    pub(crate) fn words() -> impl Iterator<Item = String> {
        let plain = WORDS.iter().chain(&ATTRIBUTES).map(|(word, _)| (*word).to_owned());
        plain.chain(ATTRIBUTES.iter().map(|(word, _)| format!("r{word}")))
    }

    /// Has a bind get the flags that its words name and no other of its source's, as other runtimes
    /// of containers have it: see [`Named`].
    #[cfg(feature = "oci")]
    pub(crate) fn replacing(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// Returns the flags that replace those of a bind's source.
    #[cfg(feature = "oci")]
    pub(super) fn replaced(&self) -> Option<Named> {
        self.replaces.then_some(self.named)
    }

    /// Returns whether the mount is a bind: `bind` or `rbind`.
    pub fn is_bind(&self) -> bool {
        self.bind.is_some()
    }

    /// Returns whether the options are for what is mounted already: `remount`.
    pub fn is_remount(&self) -> bool {
        self.remount
    }

    /// Returns the options of the file system's own, separated by commas.
    pub fn data(&self) -> OsString {
        self.data.join(OsStr::new(","))
    }

    /// Returns whether an option of the file system's own begins with `key`.
    pub(super) fn has_data(&self, key: &str) -> bool {
        self.data.iter().any(|word| word.as_bytes().starts_with(key.as_bytes()))
    }

    /// Returns the attributes of a mount of a new file system, which has no other below.
    pub(super) fn attributes_of_new(&self) -> Attributes {
        self.own.then(self.all)
    }

    /// Returns the flags of mount(2) of a new file system. Those that mount(2) might not know are
    /// not among them.
    pub(super) fn ms_flags(&self) -> u64 {
        let (set, _) = self.attributes_of_new().flags();
        (set - MountFlags::NO_SYMFOLLOW).ms() | self.superblock.bits()
    }

    /// Returns how a bind is tied to the mount of the host that it is copied from. Inside a user
    /// namespace nothing goes out.
    pub(super) fn relation(&self, user_ns: bool) -> Relation {
        let has = |ms| self.propagation.iter().any(|propagation| propagation.ms() == ms);
        // The first word says what becomes of the tie to the host; later ones cannot restore it.
        match self.propagation.first().map(|first| first.ms()) {
            Some(libc::MS_SLAVE) => Relation::Slave,
            Some(libc::MS_SHARED) if user_ns || has(libc::MS_SLAVE) => Relation::Slave,
            Some(libc::MS_SHARED) => Relation::Peer,
            _ => Relation::Private,
        }
    }

    /// Returns the contradictions in the options of a bind.
    pub(super) fn invalid_for_bind(&self) -> Vec<Problem> {
        let mut problems = self.invalid();
        if let Some(word) = self.data.first() {
            let reason = format!("{word:?} is an option of a file system, and a bind makes none");
            problems.push(Problem::invalid("mount", reason, "leave the word out"));
        }
        if !(self.superblock - SuperFlags::SILENT).is_empty() {
            let reason = "a bind cannot have other flags of the file system than its source: sync, dirsync, lazytime, \
                          iversion, mand";
            problems.push(Problem::invalid("mount", reason, "leave the word out"));
        }
        if self.copy_up {
            let reason = "`tmpcopyup`: a bind shows its source, and copies nothing";
            problems.push(Problem::invalid("mount", reason, "leave the word out, or use Tmpfs::copy_up()"));
        }
        if self.remount {
            let reason = "`remount` makes no mount";
            problems.push(Problem::invalid("mount", reason, "use RawMount with the words remount and bind"));
        }
        problems
    }

    /// Returns whether the mount itself is to be read-only.
    #[cfg(feature = "oci")]
    pub(crate) fn is_read_only(&self) -> bool {
        self.own.sets(MountFlags::READ_ONLY)
    }

    /// Leaves out the options of a file system that have a value. A word without one may be meant
    /// for the mount.
    #[cfg(feature = "oci")]
    pub(crate) fn without_values(mut self) -> Self {
        self.data.retain(|word| !word.as_bytes().contains(&b'='));
        self
    }

    /// Returns whether the mount is to begin with a copy of what is at its target.
    #[cfg(feature = "oci")]
    pub(crate) fn copies_up(&self) -> bool {
        self.copy_up
    }

    /// Returns the contradictions in the options of a file system of the type `fstype`.
    pub(super) fn invalid_for_file_system(&self, fstype: &OsStr) -> Vec<Problem> {
        let mut problems = self.invalid();
        if self.copy_up && (fstype != "tmpfs" || self.remount) {
            let reason = "`tmpcopyup`: only a new tmpfs begins with what its directory held";
            problems.push(Problem::invalid("mount", reason, "leave the word out, or use Overlay for the directory"));
        }
        if self.bind.is_some() && !self.remount {
            problems.push(Problem::invalid("mount", "`bind` makes no file system", "use Bind"));
        }
        if self.ids.is_some() {
            let reason = "ids are mapped for binds: the files of a new file system have the sandbox's owners";
            problems.push(Problem::invalid("mount", reason, "leave out idmap and ridmap, or use Bind"));
        }
        problems
    }

    /// Returns the contradictions in the options of the control groups.
    pub(super) fn invalid_for_groups(&self) -> Vec<Problem> {
        let mut problems = self.invalid();
        let words = [
            (self.bind.is_some(), "bind, rbind"),
            (self.remount, "remount"),
            (self.copy_up, "tmpcopyup"),
            (self.ids.is_some(), "idmap, ridmap"),
            (!(self.superblock - SuperFlags::SILENT).is_empty(), "sync, dirsync, lazytime, iversion, mand"),
            (!self.data.is_empty(), "options of the file system's own"),
        ];
        problems.extend(words.into_iter().filter(|(given, _)| *given).map(|(_, words)| {
            let reason = format!("control groups are mounted as the host has them, and take none of these: {words}");
            Problem::invalid("mount", reason, "leave the word out")
        }));
        problems
    }

    fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let data = self.data();
        if has_nul(&data) || data.as_bytes().len() > DATA_MAX {
            let reason = format!("the options of a file system have at most {DATA_MAX} bytes, and no NUL among them");
            problems.push(Problem::invalid("mount", reason, "leave options out"));
        }
        if self.propagation.len() > PROPAGATION_MAX {
            let reason = format!("more than {PROPAGATION_MAX} words about propagation");
            problems.push(Problem::invalid("mount", reason, "give the last one"));
        }
        if let Some(MountIds::Given(ids)) = &self.ids {
            problems.extend(ids.invalid());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> MountOptions {
        MountOptions::parse(words.split(','))
    }

    /// The flags that the mount itself gets, and those that it gets with all below, set and
    /// cleared.
    fn attributes(words: &str) -> [u64; 4] {
        let options = parsed(words);
        assert_eq!(options.data(), "", "{words}");
        let ((set, clear), (all_set, all_clear)) = (options.own.flags(), options.all.flags());
        [set, clear, all_set, all_clear].map(|flags| flags.bits())
    }

    #[test]
    fn each_attribute_is_set_and_cleared_by_itself_and_with_what_is_below() {
        let pairs = [
            ("ro", "rw", 1),
            ("nosuid", "suid", 2),
            ("nodev", "dev", 4),
            ("noexec", "exec", 8),
            ("nodiratime", "diratime", 0x80),
            ("nosymfollow", "symfollow", 0x20_0000),
        ];
        for (set, clear, bit) in pairs {
            assert_eq!(attributes(set), [bit, 0, 0, 0], "{set}");
            assert_eq!(attributes(clear), [0, bit, 0, 0], "{clear}");
            assert_eq!(attributes(&format!("r{set}")), [0, 0, bit, 0], "r{set}");
            assert_eq!(attributes(&format!("r{clear}")), [0, 0, 0, bit], "r{clear}");
            assert_eq!(attributes(&format!("{set},{clear}")), [0, bit, 0, 0], "the last word wins");
            assert_eq!(attributes(&format!("{clear},{set}")), [bit, 0, 0, 0], "the last word wins");
            assert_eq!(attributes(&format!("{set},r{clear}")), [bit, 0, 0, bit], "both stand");
        }
        for (word, not, bit) in
            [("noatime", "atime", 0x10), ("relatime", "norelatime", 0), ("strictatime", "nostrictatime", 0x20)]
        {
            assert_eq!(attributes(word), [bit, 0x70, 0, 0], "{word}");
            assert_eq!(attributes(not), [0, 0x70, 0, 0], "{not}");
            assert_eq!(attributes(&format!("r{word}")), [0, 0, bit, 0x70], "r{word}");
            assert_eq!(attributes(&format!("r{not}")), [0, 0, 0, 0x70], "r{not}");
            assert_eq!(attributes(&format!("{word},{not}")), [0, 0x70, 0, 0], "{not} after {word}");
        }
        assert_eq!(attributes("noatime,nostrictatime"), [0x10, 0x70, 0, 0], "another way was taken back");
        assert_eq!(attributes("defaults"), [0; 4]);
    }

    #[test]
    fn each_flag_of_a_file_system_is_set_and_taken_back() {
        let pairs = [
            ("sync", "async", 1 << 4),
            ("mand", "nomand", 1 << 6),
            ("silent", "loud", 1 << 15),
            ("iversion", "noiversion", 1 << 23),
            ("lazytime", "nolazytime", 1 << 25),
        ];
        for (set, not, bit) in pairs {
            assert_eq!(parsed(set).ms_flags(), bit, "{set}");
            assert_eq!(parsed(&format!("{set},{not}")).ms_flags(), 0, "{not}");
            assert_eq!(parsed(not).ms_flags(), 0, "{not}");
        }
        assert_eq!(parsed("dirsync").ms_flags(), 1 << 7);
        assert_eq!(parsed("ro,nosuid,rnodev,noexec,noatime,nodiratime").ms_flags(), 1 | 2 | 4 | 8 | 1024 | 2048);
        assert_eq!(parsed("strictatime,nosymfollow").ms_flags(), 1 << 24);
    }

    #[test]
    fn each_propagation_has_its_word() {
        use Propagation::*;
        let words = [
            ("private", Private, 1 << 18),
            ("slave", Slave, 1 << 19),
            ("shared", Shared, 1 << 20),
            ("unbindable", Unbindable, 1 << 17),
        ];
        let recursive = [RPrivate, RSlave, RShared, RUnbindable];
        for ((word, propagation, ms), below) in words.into_iter().zip(recursive) {
            assert_eq!(parsed(word).propagation, [propagation]);
            assert_eq!(parsed(&format!("r{word}")).propagation, [below]);
            assert_eq!((propagation.ms(), below.ms()), (ms, ms));
            assert_eq!((propagation.is_recursive(), below.is_recursive()), (false, true));
        }
        let relations = |words| [false, true].map(|user_ns| parsed(words).relation(user_ns));
        assert_eq!(relations("rslave"), [Relation::Slave; 2]);
        assert_eq!(relations("rshared"), [Relation::Peer, Relation::Slave], "nothing goes out of a user namespace");
        assert_eq!(relations("slave,shared"), [Relation::Slave; 2]);
        for private in ["ro", "rprivate", "private,shared", "unbindable"] {
            assert_eq!(relations(private), [Relation::Private; 2], "{private}");
        }
    }

    #[test]
    fn the_other_words_say_what_is_mounted() {
        assert_eq!((parsed("bind").bind, parsed("rbind").bind, parsed("ro").bind), (Some(false), Some(true), None));
        assert_eq!((parsed("rbind,bind").bind, parsed("bind,rbind").bind), (Some(true), Some(true)));
        assert!(parsed("remount").is_remount() && parsed("rbind").is_bind());
        for (word, recursive) in [("idmap", false), ("ridmap", true)] {
            let options = parsed(word);
            assert!(matches!(options.ids, Some(MountIds::Sandbox)) && options.recursive_ids == recursive);
            let line = || [IdMap::new(0, 1, 1)];
            for given in [options.id_maps(line(), line()), MountOptions::new().id_maps(line(), line()).option(word)] {
                assert!(matches!(given.ids, Some(MountIds::Given(_))), "maps that are given are not lost");
                assert_eq!(given.recursive_ids, recursive);
            }
        }
        let refused = |words, fstype: &str| parsed(words).invalid_for_file_system(fstype.as_ref()).len();
        assert_eq!(refused("tmpcopyup,mode=700", "tmpfs"), 0);
        assert_eq!((refused("tmpcopyup", "ext4"), refused("tmpcopyup,remount", "tmpfs")), (1, 1));
        let data = parsed("size=1m,mode=700");
        assert!(data.has_data("mode=") && !data.has_data("uid=") && !data.has_data("ode="));
    }

    #[test]
    fn the_table_has_the_words_of_the_specification_and_no_word_twice() {
        let recursive = ATTRIBUTES.iter().map(|(word, _)| format!("r{word}"));
        let mut all: Vec<String> =
            WORDS.iter().chain(&ATTRIBUTES).map(|(word, _)| (*word).to_owned()).chain(recursive).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 62, "61, and rnodev");
        assert!(all.iter().all(|word| effect_of(word.as_ref()).is_some()));
        for other in ["", "RO", "ro ", "rbind2", "rrro", "rsync", "size=1", "mode=700", "nosuid=1"] {
            assert!(effect_of(other.as_ref()).is_none(), "{other}");
        }
    }

    #[test]
    fn words_of_the_file_system_are_passed_on_in_their_order() {
        let options = parsed("size=64m,ro,mode=1777,,huge=never");
        assert_eq!(options.data(), "size=64m,mode=1777,huge=never");
        assert!(options.invalid_for_file_system("tmpfs".as_ref()).is_empty());
        assert_eq!(options.invalid_for_bind().len(), 1, "a bind takes none");
        let long = "x".repeat(DATA_MAX);
        assert!(parsed(&long).invalid_for_file_system("tmpfs".as_ref()).is_empty());
        assert_eq!(parsed(&format!("{long}x")).invalid_for_file_system("tmpfs".as_ref()).len(), 1);
        assert_eq!(parsed("a\0b").invalid_for_file_system("tmpfs".as_ref()).len(), 1);
    }

    #[test]
    fn what_a_mount_cannot_have_is_refused() {
        for words in ["sync", "dirsync", "lazytime", "iversion", "mand", "remount", "tmpcopyup"] {
            assert_eq!(parsed(words).invalid_for_bind().len(), 1, "{words}");
        }
        for words in ["rbind,ro,silent,async,rprivate", "bind,idmap", "defaults"] {
            assert!(parsed(words).invalid_for_bind().is_empty(), "{words}");
        }
        for words in ["bind", "idmap", "ridmap"] {
            assert_eq!(parsed(words).invalid_for_file_system("tmpfs".as_ref()).len(), 1, "{words}");
        }
        assert_eq!(parsed(&["shared"; 9].join(",")).invalid_for_bind().len(), 1);
        assert!(parsed("remount,bind,ro").invalid_for_file_system("tmpfs".as_ref()).is_empty());
        for (uid, gid) in [(vec![], vec![IdMap::new(0, 1, 1)]), (vec![IdMap::new(0, 1, 0)], vec![IdMap::new(0, 1, 1)])]
        {
            assert_eq!(MountOptions::new().id_maps(uid, gid).invalid_for_bind().len(), 1);
        }
    }
}
