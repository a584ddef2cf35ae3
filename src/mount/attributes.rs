//! The attributes that a mount is to have, and those that are to be taken from it.

use super::flags::MountFlags;

/// A way of keeping times of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atime {
    /// The kernel's own way, which is `relatime`.
    Default,
    Relatime,
    Noatime,
    Strictatime,
}

#[cfg(feature = "oci")]
impl Atime {
    /// Returns the flag of mount(2).
    pub(super) fn ms(self) -> u64 {
        match self {
            Atime::Default | Atime::Relatime => libc::MS_RELATIME,
            Atime::Noatime => libc::MS_NOATIME,
            Atime::Strictatime => libc::MS_STRICTATIME,
        }
    }
}

/// The attributes that are set and cleared. Others stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    set: MountFlags,
    clear: MountFlags,
    atime: Option<Atime>,
}

impl Attributes {
    pub(super) fn set(&mut self, flags: MountFlags) {
        self.set |= flags;
        self.clear -= flags;
    }

    pub(super) fn clear(&mut self, flags: MountFlags) {
        self.clear |= flags;
        self.set -= flags;
    }

    pub(super) fn set_atime(&mut self, atime: Atime) {
        self.atime = Some(atime);
    }

    /// Goes back to the kernel's own way, unless another way than this one has been asked for.
    pub(super) fn clear_atime(&mut self, atime: Atime) {
        if self.atime.is_none_or(|asked| asked == atime) {
            self.atime = Some(Atime::Default);
        }
    }

    /// Leaves it to others whether these flags are set.
    pub(super) fn leave(&mut self, flags: MountFlags) {
        self.set -= flags;
    }

    /// Neither sets nor clears these flags.
    pub(super) fn forget(&mut self, flags: MountFlags) {
        self.set -= flags;
        self.clear -= flags;
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }

    pub(super) fn sets(&self, flags: MountFlags) -> bool {
        self.set.contains(flags)
    }

    pub(super) fn clears(&self, flags: MountFlags) -> bool {
        self.clear.contains(flags)
    }

    /// Returns these, with what comes `later` on top.
    pub(super) fn then(mut self, later: Attributes) -> Attributes {
        self.set(later.set);
        self.clear(later.clear);
        self.atime = later.atime.or(self.atime);
        self
    }

    /// Returns these without taking any of the flags `kept` from the mount, nor its way of keeping
    /// times of access unless another has been asked for by name.
    pub(super) fn keeping(mut self, kept: MountFlags) -> Attributes {
        self.clear -= kept;
        self.atime = self.atime.filter(|atime| *atime != Atime::Default);
        self
    }

    /// Returns the flags to set and to clear, as mount_setattr(2) takes them: the whole field of
    /// access times is cleared before a value is set.
    pub(super) fn flags(&self) -> (MountFlags, MountFlags) {
        let field = match self.atime {
            None => return (self.set, self.clear),
            Some(Atime::Default | Atime::Relatime) => MountFlags::empty(),
            Some(Atime::Noatime) => MountFlags::NO_ATIME,
            Some(Atime::Strictatime) => MountFlags::STRICT_ATIME,
        };
        (self.set | field, self.clear | MountFlags::ATIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_wins_and_access_times_are_one_field() {
        let mut attributes = Attributes::default();
        attributes.set(MountFlags::READ_ONLY | MountFlags::NO_DEV);
        attributes.clear(MountFlags::READ_ONLY);
        assert_eq!(attributes.flags(), (MountFlags::NO_DEV, MountFlags::READ_ONLY));
        attributes.set_atime(Atime::Noatime);
        assert_eq!(attributes.flags().0, MountFlags::NO_DEV | MountFlags::NO_ATIME);
        assert_eq!(attributes.flags().1, MountFlags::READ_ONLY | MountFlags::ATIME);
        attributes.clear_atime(Atime::Strictatime);
        assert_eq!(attributes.atime, Some(Atime::Noatime), "another way was taken back");
        attributes.clear_atime(Atime::Noatime);
        assert_eq!(attributes.flags(), (MountFlags::NO_DEV, MountFlags::READ_ONLY | MountFlags::ATIME));
    }

    #[test]
    fn what_is_locked_is_not_taken_away_and_what_was_asked_for_stays() {
        let mut attributes = Attributes::default();
        attributes.set(MountFlags::READ_ONLY);
        attributes.clear(MountFlags::NO_SUID | MountFlags::NO_EXEC);
        attributes.clear_atime(Atime::Noatime);
        let kept = attributes.keeping(MountFlags::NO_SUID | MountFlags::READ_ONLY);
        assert_eq!(kept.flags(), (MountFlags::READ_ONLY, MountFlags::NO_EXEC));
        attributes.set_atime(Atime::Strictatime);
        assert!(attributes.keeping(MountFlags::NO_SUID).flags().0.contains(MountFlags::STRICT_ATIME));
    }
}
