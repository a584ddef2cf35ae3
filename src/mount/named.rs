//! The flags of a bind in a container: those that its options name, and no other of its source's.
//!
//! This is what `runc` and `crun` make of a configuration, and what engines write theirs for:
//! mount(2) with MS_REMOUNT and MS_BIND replaces all flags of a mount, except that the times of
//! access stay as they are where no flag names them.

use std::path::Path;

use nix::errno::Errno;

use super::calls::try_set_flags;
use super::context::Context;
use super::flags::MountFlags;
use super::paths::ms_flags_of;
use crate::error::{Error, Result, Step};
use crate::plan::{Plan, Slot};

/// The flags about times of access.
const ATIME: u64 = libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
/// The other flags that the kernel locks when a mount comes into another user namespace.
const LOCKED: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// The flags of mount(2) that the words of a bind set, and those that they take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Named {
    set: u64,
    cleared: u64,
}

impl Named {
    /// Adds what one word names. A later word takes back an earlier one.
    pub(super) fn name(&mut self, set: u64, cleared: u64) {
        self.set = self.set & !cleared | set;
        self.cleared = self.cleared & !set | cleared;
    }

    /// Returns whether no word names a flag: the bind keeps all flags of its source.
    fn is_empty(self) -> bool {
        (self.set, self.cleared) == (0, 0)
    }

    /// Returns the flags for a mount whose source has the flags `source`, which are locked: what no
    /// word takes back is kept, and there are none (`None`) if a word takes back what is locked.
    fn over_locked(self, source: u64) -> Option<u64> {
        let locks = source & (LOCKED | ATIME);
        let keeps_times = self.set & ATIME == 0 || times_of(self.set) == times_of(source);
        if source & LOCKED & !self.set == 0 && keeps_times {
            return Some(self.set);
        }
        let other_times = self.set & ATIME != 0 && self.set & ATIME != source & ATIME;
        (locks & self.cleared == 0 && !other_times).then_some(self.set | locks)
    }
}

/// Returns the times of access that the kernel keeps with these flags of mount(2).
fn times_of(flags: u64) -> (u64, u64) {
    let way = match flags {
        _ if flags & libc::MS_STRICTATIME != 0 => libc::MS_STRICTATIME,
        _ if flags & libc::MS_NOATIME != 0 => libc::MS_NOATIME,
        _ => libc::MS_RELATIME,
    };
    (way, flags & libc::MS_NODIRATIME)
}

/// Returns the flags to set and to clear, as mount_setattr(2) takes them, by which a mount gets the
/// flags `ms` of mount(2) and no other.
fn attributes(ms: u64) -> (MountFlags, MountFlags) {
    let all = locked_flags() | MountFlags::NO_SYMFOLLOW;
    let set: MountFlags = all.iter().filter(|flag| ms & flag.ms() != 0).collect();
    if ms & ATIME == 0 {
        return (set, all - set);
    }
    let (way, directories) = times_of(ms);
    let way = match way {
        libc::MS_STRICTATIME => MountFlags::STRICT_ATIME,
        libc::MS_NOATIME => MountFlags::NO_ATIME,
        _ => MountFlags::empty(),
    };
    let directories = if directories == 0 { MountFlags::empty() } else { MountFlags::NO_DIR_ATIME };
    let cleared = (all | MountFlags::NO_DIR_ATIME) - set - directories;
    (set | way | directories, cleared | MountFlags::ATIME)
}

/// Returns the flags of [`LOCKED`], as mount_setattr(2) has them.
fn locked_flags() -> MountFlags {
    MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC
}

/// Gives a bind that is attached the flags that its words name. `source`: the path of the host that
/// it shows, if it is one.
///
/// In a user namespace of the sandbox's own, flags of the source are locked, no matter who has
/// copied the mount. Elsewhere the kernel knows which ones are (EPERM), as where the caller runs in
/// a user namespace: then those stay that no word takes back.
pub(super) fn emit_named(
    plan: &mut Plan,
    named: Named,
    (tree, source): (Slot, Option<&Path>),
    at: &Path,
    context: Context,
) -> Result<()> {
    if named.is_empty() {
        return Ok(());
    }
    let ms = match source {
        Some(path) if context.user_ns => named.over_locked(ms_flags_of(path)?).ok_or_else(|| refused(path, at))?,
        _ => named.set,
    };
    let (set, clear) = attributes(ms);
    let (_, taken_back) = attributes(!named.cleared & (LOCKED | super::flags::MS_NOSYMFOLLOW));
    let less = clear & (taken_back | MountFlags::ATIME | MountFlags::NO_DIR_ATIME);
    // Of a mount that is inside already, nothing tells what is locked: it loses nothing.
    let stay = if source.is_none() && context.user_ns { locked_flags() } else { MountFlags::empty() };
    let (clear, less) = (clear - stay, less - stay);
    if set.contains(MountFlags::NO_SYMFOLLOW) {
        // mount(2) of an older kernel would pass over the flag.
        try_set_flags(plan, tree, set, clear, false, at).may_be_missing().skip_on_success(1);
        try_set_flags(plan, tree, set, less, false, at).hint("nosymfollow needs Linux 5.14");
        return Ok(());
    }
    // EINVAL: the kernel has no `nosymfollow` in mount_setattr(2), and may have it in mount(2).
    let new = try_set_flags(plan, tree, set, clear, false, at);
    new.may_be_missing().tolerate(Errno::EINVAL).skip_on_success(2);
    plan.remount(tree, set.ms(), clear.ms(), false).at(at).tolerate(Errno::EPERM).skip_on_success(1);
    plan.remount(tree, set.ms(), less.ms(), false).at(at);
    Ok(())
}

/// Returns the error of a bind whose options take back what its source has, and may not lose.
fn refused(source: &Path, at: &Path) -> Error {
    Error::new(Step::MountAttr, Errno::EPERM).at(at).hint(format!(
        "an option takes back what the mount of {} has on the host, and no mount loses that in a user namespace: \
         leave the option out, or mount the source otherwise there",
        source.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::options::MountOptions;
    use super::*;
    use libc::{MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME, MS_STRICTATIME};

    fn named(words: &str) -> Named {
        MountOptions::parse(words.split(',')).replacing().replaced().unwrap()
    }

    #[test]
    fn only_words_about_a_flag_replace_those_of_the_source() {
        for words in ["bind", "rbind,rprivate,idmap", "rslave,defaults", "rro,rnosuid"] {
            assert!(named(words).is_empty(), "{words}");
        }
        for words in ["ro", "rw", "dev", "atime", "symfollow", "norelatime", "async"] {
            assert!(!named(words).is_empty(), "{words}");
        }
        assert_eq!(named("ro,nosuid,rw"), Named { set: MS_NOSUID, cleared: MS_RDONLY });
    }

    #[test]
    fn a_mount_gets_the_flags_that_are_named_and_keeps_its_times_of_access() {
        use MountFlags as Flags;
        let rest = Flags::NO_SUID | Flags::NO_DEV | Flags::NO_EXEC | Flags::NO_SYMFOLLOW;
        assert_eq!(attributes(MS_RDONLY), (Flags::READ_ONLY, rest));
        assert_eq!(attributes(0), (Flags::empty(), rest | Flags::READ_ONLY));
        let all = rest | Flags::READ_ONLY | Flags::ATIME | Flags::NO_DIR_ATIME;
        assert_eq!(attributes(MS_RELATIME), (Flags::empty(), all));
        assert_eq!(attributes(MS_NOATIME | MS_RELATIME), (Flags::NO_ATIME, all));
        assert_eq!(attributes(MS_STRICTATIME | MS_NOATIME), (Flags::STRICT_ATIME, all));
        assert_eq!(attributes(MS_NODIRATIME), (Flags::NO_DIR_ATIME, all - Flags::NO_DIR_ATIME));
    }

    #[test]
    fn what_is_locked_stays_and_is_not_taken_back() {
        let over = |words: &str, source: u64| named(words).over_locked(source);
        let relative = |flags: u64| flags | MS_RELATIME;
        assert_eq!(over("nosuid", relative(MS_RDONLY)), Some(relative(MS_RDONLY | MS_NOSUID)));
        assert_eq!(over("ro", relative(0)), Some(MS_RDONLY), "there is nothing to keep");
        for (words, source) in [
            ("rw", relative(MS_RDONLY)),
            ("exec,ro", relative(MS_NOEXEC)),
            ("atime,ro", MS_NODEV | MS_NOATIME),
            ("strictatime", relative(0)),
            ("noatime", relative(0)),
            ("nodiratime", relative(0)),
            ("relatime", MS_NOATIME),
            ("relatime", MS_STRICTATIME),
        ] {
            assert_eq!(over(words, source), None, "{words} over {source:#x}");
        }
        assert_eq!(over("atime", MS_NOATIME), Some(0), "no flag is asked for, and the times stay");
        assert_eq!(over("nodiratime", relative(MS_NODIRATIME)), Some(MS_NODIRATIME));
        assert_eq!(over("nodiratime,ro", relative(MS_NODIRATIME | MS_NODEV)), None, "as other runtimes have it");
    }
}
