//! A tmpfs that begins with a copy of the directory that it covers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::calls::{attach_to, emit_target, set_flags};
use super::flags::MountFlags;
use super::fs_context::{make_mount, open_context, set_flag, set_option, set_word};
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

/// A tmpfs as mount(2) takes it, and what it takes over from the directory that it covers.
#[derive(Debug)]
pub(super) struct CopyUp<'t> {
    pub(super) source: &'t OsStr,
    pub(super) ms_flags: u64,
    pub(super) data: &'t OsStr,
    /// The top directory keeps the mode, or the owner, that the options give it.
    pub(super) keeps_mode: bool,
    pub(super) keeps_owner: bool,
}

/// Mounts a tmpfs at the target `at`, and copies what was there. Returns the mount, which is open.
/// `pins`: see [`pinning`](super::pinning).
///
/// The stub copies, and not the caller: only the stub sees an overlay put together, it has the
/// sandbox's rights to the files and its ids, and the memory is the sandbox's. The directory is
/// found once. Its files go into the tmpfs before that has a place (fsopen(2), 5.2), so nothing
/// that another process does to the path can turn the copy elsewhere.
pub(super) fn emit_copy_up(plan: &mut Plan, tmpfs: &CopyUp<'_>, root: Slot, at: &Path, pins: PlaceFlags) -> Slot {
    let (covered, tree) = (plan.slot(), plan.slot());
    emit_target(plan, root, at, pins, covered);
    let context = open_context(plan, "tmpfs", at);
    set_option(plan, context, "source", tmpfs.source, at);
    for (name, _) in SUPERBLOCK.iter().filter(|(_, bit)| tmpfs.ms_flags & bit != 0) {
        set_flag(plan, context, name, at);
    }
    for word in words(tmpfs.data.as_bytes()) {
        set_word(plan, context, OsStr::from_bytes(word), at);
    }
    let flags = MountFlags::of_ms(tmpfs.ms_flags);
    make_mount(plan, context, flags - MountFlags::READ_ONLY, tree, at);
    plan.copy_up(covered, tree, tmpfs.keeps_mode, tmpfs.keeps_owner).at(at);
    attach_to(plan, Step::MoveMount, tree, covered, at);
    plan.close(Step::CopyUp, covered);
    if flags.contains(MountFlags::READ_ONLY) {
        set_flags(plan, tree, MountFlags::READ_ONLY, MountFlags::empty(), false, at);
    }
    tree
}

/// The flags of mount(2) that belong to the file system, by their names in fsconfig(2).
const SUPERBLOCK: [(&str, u64); 4] = [
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("mand", libc::MS_MANDLOCK),
    ("lazytime", MS_LAZYTIME),
];
const MS_LAZYTIME: u64 = 1 << 25;

/// Splits the options of a tmpfs as the kernel does: what follows a comma and begins with a digit
/// belongs to the value before (`mpol=bind:0,2`).
fn words(data: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut start = 0;
    for (at, byte) in data.iter().enumerate() {
        if *byte == b',' && !data.get(at + 1).is_some_and(u8::is_ascii_digit) {
            words.push(&data[start..at]);
            start = at + 1;
        }
    }
    words.push(&data[start..]);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_the_kernel_does() {
        let split = |data: &str| words(data.as_bytes()).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(
            split("size=1m,,mpol=bind:0,2-3,inode64,"),
            ["size=1m", "mpol=bind:0,2-3", "inode64"].map(Vec::from)
        );
        assert_eq!(split(""), Vec::<Vec<u8>>::new());
    }
}
