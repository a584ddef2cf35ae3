//! The flags of a mount, and the setters of the builders that have them.

/// `MS_NOSYMFOLLOW` of mount(2), since 5.10.
pub(super) const MS_NOSYMFOLLOW: u64 = 256;

bitflags::bitflags! {
    /// Flags of a mount, as `MOUNT_ATTR_*` of mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct MountFlags: u64 {
        const READ_ONLY = 1;
        const NO_SUID = 2;
        const NO_DEV = 4;
        const NO_EXEC = 8;
        const NO_ATIME = 0x10;
        const STRICT_ATIME = 0x20;
        /// The whole field of access times, which is cleared before one of its values is set; 0 is
        /// `relatime`.
        const ATIME = 0x70;
        const NO_DIR_ATIME = 0x80;
        /// Since 5.14; mount(2) has it since 5.10.
        const NO_SYMFOLLOW = 0x20_0000;
    }
}

impl MountFlags {
    /// The default flags of mounts that show files of the host, or of an image: a node or a
    /// set-user-ID file there was made where other rules held.
    pub(crate) const QUIET: MountFlags = MountFlags::NO_SUID.union(MountFlags::NO_DEV);

    /// The flags that mount(2) has as well.
    const MS: [(MountFlags, u64); 8] = [
        (MountFlags::READ_ONLY, libc::MS_RDONLY),
        (MountFlags::NO_SUID, libc::MS_NOSUID),
        (MountFlags::NO_DEV, libc::MS_NODEV),
        (MountFlags::NO_EXEC, libc::MS_NOEXEC),
        (MountFlags::NO_ATIME, libc::MS_NOATIME),
        (MountFlags::STRICT_ATIME, libc::MS_STRICTATIME),
        (MountFlags::NO_DIR_ATIME, libc::MS_NODIRATIME),
        (MountFlags::NO_SYMFOLLOW, MS_NOSYMFOLLOW),
    ];

    /// Returns the same flags as `MS_*` of mount(2).
    pub(crate) fn ms(self) -> u64 {
        let relative = if self.contains(MountFlags::ATIME) { libc::MS_RELATIME } else { 0 };
        let flags = Self::MS.into_iter().filter(|(flag, _)| self.contains(*flag));
        flags.fold(relative, |all, (_, ms)| all | ms)
    }

    /// Returns the flags among `MS_*` of mount(2) that a new mount can have. What is about a new
    /// mount's links comes after it on kernels before 5.14.
    pub(super) fn of_ms(ms: u64) -> MountFlags {
        let given = Self::MS.into_iter().filter(|(_, bit)| ms & bit != 0).map(|(flag, _)| flag);
        // Of the modes of access times one is in force; mount(2) lets `strictatime` win.
        let flags: MountFlags = given.collect();
        let strict = flags.contains(MountFlags::STRICT_ATIME);
        let other = if strict { MountFlags::NO_ATIME } else { MountFlags::empty() };
        flags - other - MountFlags::NO_SYMFOLLOW
    }
}

macro_rules! flag_setters {
    () => {
        /// Ignores setuid and setgid bits and file capabilities (`nosuid`).
        pub fn nosuid(mut self) -> Self {
            self.flags |= MountFlags::NO_SUID;
            self
        }

        /// Forbids the execution of files on the mount (`noexec`).
        pub fn noexec(mut self) -> Self {
            self.flags |= MountFlags::NO_EXEC;
            self
        }

        /// Forbids all writes to the mount.
        pub fn read_only(mut self) -> Self {
            self.flags |= MountFlags::READ_ONLY;
            self
        }
    };
}

macro_rules! nodev_setter {
    () => {
        /// Gives device nodes no effect (`nodev`).
        pub fn nodev(mut self) -> Self {
            self.flags |= MountFlags::NO_DEV;
            self
        }
    };
}

macro_rules! opening_setters {
    () => {
        /// Lets set-user-ID and set-group-ID bits and file capabilities count (`suid`), where the
        /// host's mount lets them.
        pub fn suid(mut self) -> Self {
            self.flags -= MountFlags::NO_SUID;
            self
        }

        /// Lets device nodes open their devices (`dev`), where the host's mount lets them.
        pub fn dev(mut self) -> Self {
            self.flags -= MountFlags::NO_DEV;
            self
        }
    };
}
pub(super) use {flag_setters, nodev_setter, opening_setters};
