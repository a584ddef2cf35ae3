//! Parses /proc/PID/mountinfo: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use procfs::process::MountInfo;

/// Reads a table of mounts, as text. Users give mounts any names: a byte that is no UTF-8 stands there
/// as the kernel would escape it, and [`unescape`] decodes it.
pub(crate) fn read(path: &str) -> io::Result<String> {
    std::fs::read(path).map(|bytes| text_of(&bytes))
}

fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // Writing to a string never fails.
        chunk.invalid().iter().for_each(|byte| _ = write!(text, "\\{byte:03o}"));
    }
    text
}

/// Directories that the kernel creates empty, as mount points for other file systems. Such a mount
/// covers nothing.
const EMPTY: [&str; 16] = [
    "sys/fs/binfmt_misc",
    "fs/nfsd",
    "openprom",
    "fs/cgroup",
    "fs/bpf",
    "fs/pstore",
    "fs/fuse/connections",
    "fs/selinux",
    "fs/smackfs",
    "fs/resctrl",
    "fs/xfs",
    "kernel/debug",
    "kernel/tracing",
    "kernel/security",
    "kernel/config",
    "firmware/efi/efivars",
];

/// The visibility of a kernel file system (proc, sysfs). A user namespace may mount a new instance
/// only if an existing mount is fully visible, as otherwise the new one would reveal what is
/// covered on purpose.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Fully,
    /// These mounts cover parts of it.
    Covered(Vec<PathBuf>),
    /// It is mounted read-only.
    ReadOnly,
    Nowhere,
}

/// Checks all mounts of type `fstype` in `text`. With `to_write`, read-only mounts do not count.
pub(crate) fn seen(text: &str, fstype: &str, to_write: bool) -> Seen {
    let all: Vec<MountInfo> = text.lines().filter_map(|line| MountInfo::from_line(line).ok()).collect();
    let mut best = Seen::Nowhere;
    for mount in all.iter().filter(|mount| mount.fs_type == fstype && mount.root == "/") {
        let covers = |child: &&MountInfo| {
            let place = child.mount_point.strip_prefix(&mount.mount_point).unwrap_or(Path::new(""));
            child.pid == mount.mnt_id && child.mnt_id != mount.mnt_id && !is_empty(place)
        };
        let covering: Vec<PathBuf> = all.iter().filter(covers).map(|child| child.mount_point.clone()).collect();
        let read_only = to_write && mount.mount_options.contains_key("ro");
        best = match (covering.is_empty(), read_only) {
            (true, false) => return Seen::Fully,
            (false, _) => Seen::Covered(covering),
            (true, true) if best == Seen::Nowhere => Seen::ReadOnly,
            (true, true) => best,
        };
    }
    best
}

/// A writable mount of control groups in the caller's mount namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ControlGroups {
    pub(crate) at: PathBuf,
    /// True if processes in a control group namespace can write neither their own limits nor other
    /// groups (`nsdelegate`).
    pub(crate) delegates: bool,
}

pub(crate) fn control_groups(text: &str) -> Vec<ControlGroups> {
    let all = text.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| MountInfo::from_line(line).ok());
    let is_writable = |mount: &MountInfo| {
        let options = [&mount.mount_options, &mount.super_options];
        matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2") && !options.iter().any(|all| all.contains_key("ro"))
    };
    let found = all.filter(is_writable).map(|mount| ControlGroups {
        at: unescape(mount.mount_point.as_os_str().as_encoded_bytes()),
        delegates: mount.fs_type == "cgroup2" && mount.super_options.contains_key("nsdelegate"),
    });
    found.collect()
}

/// Returns the mounts of whole file systems of the kernel, proc and sysfs, the uppermost first.
pub(crate) fn whole_kernel_mounts(text: &str) -> Vec<PathBuf> {
    let all = text.lines().filter_map(|line| MountInfo::from_line(line).ok());
    let is_whole = |mount: &MountInfo| matches!(mount.fs_type.as_str(), "proc" | "sysfs") && mount.root == "/";
    let mut found: Vec<PathBuf> =
        all.filter(is_whole).map(|mount| unescape(mount.mount_point.as_os_str().as_encoded_bytes())).collect();
    found.reverse();
    found
}

/// Decodes the octal escapes that mountinfo uses for space, tab, newline and backslash.
pub(crate) fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(value) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

fn is_empty(place: &Path) -> bool {
    EMPTY.iter().any(|empty| place == Path::new(empty))
}

/// Returns the places of all mounts.
pub(crate) fn mount_points(text: &str) -> Vec<PathBuf> {
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| unescape(place.as_bytes())).collect()
}

/// Returns true if the root directory is a mount. After chroot(2) it may be an ordinary directory.
pub(crate) fn root_is_a_mount(text: &str) -> bool {
    text.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

/// Returns whether the mount with this number is on the root directory, or is it.
pub(crate) fn is_at_root(text: &str, mount: u64) -> bool {
    text.lines().any(|line| {
        let mut words = line.split(' ');
        words.next().is_some_and(|id| id.parse() == Ok(mount)) && words.nth(3) == Some("/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&[HOST], |text| {
            let _ = (seen(text, "proc", true), seen(text, "sysfs", false), root_is_a_mount(text), is_at_root(text, 22));
            let _ = control_groups(text);
        });
    }

    const HOST: &str = "21 1 8:1 / / rw - ext4 /dev/vda rw\n\
        22 21 0:20 / /proc rw,nosuid shared:12 - proc proc rw\n\
        23 22 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw\n\
        24 21 0:22 / /sys ro - sysfs sysfs rw\n\
        25 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\nnonsense\n\n";

    #[test]
    fn a_mount_of_any_name_hides_no_other() {
        let strange = b"28 21 0:41 / /media/\xff\\040\xc3 rw - vfat /dev/sdb1 rw\n";
        let text = text_of(&[strange, HOST.as_bytes()].concat());
        assert_eq!(seen(&text, "proc", true), Seen::Fully);
        assert_eq!(mount_points(&text)[0].as_os_str().as_encoded_bytes(), b"/media/\xff \xc3");
        assert_eq!(text_of(HOST.as_bytes()), HOST);
    }

    #[test]
    fn what_is_mounted_on_proc_covers_it() {
        assert_eq!(seen(HOST, "proc", true), Seen::Fully);
        let covered = format!("{HOST}26 22 0:5 /null /proc/kcore rw - devtmpfs udev rw\n");
        assert_eq!(seen(&covered, "proc", true), Seen::Covered(vec!["/proc/kcore".into()]));
        let over = format!("{HOST}26 22 0:40 / /proc rw - tmpfs tmpfs rw\n");
        assert_eq!(seen(&over, "proc", true), Seen::Covered(vec!["/proc".into()]));
        // Another mount of the whole file system suffices; a mount of a part does not.
        assert_eq!(seen(&format!("{covered}27 21 0:20 / /mnt rw - proc proc rw\n"), "proc", true), Seen::Fully);
        let part = "22 21 0:20 /sys /proc rw - proc proc rw\n";
        assert_eq!(seen(part, "proc", true), Seen::Nowhere);
    }

    #[test]
    fn sysfs_may_be_read_only_where_only_that_is_wanted() {
        assert_eq!(seen(HOST, "sysfs", false), Seen::Fully);
        assert_eq!(seen(HOST, "sysfs", true), Seen::ReadOnly);
    }

    #[test]
    fn control_groups_are_told_where_they_can_be_written_to() {
        let found = |at: &str, delegates| ControlGroups { at: at.into(), delegates };
        let text = format!(
            "{HOST}26 24 0:27 / /a\\040b ro - cgroup2 cgroup2 rw\n\
            27 24 0:28 /x /a\\040c rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n28 24 0:29 / /d rw - cgroup cgroup rw,memory\n"
        );
        assert_eq!(control_groups(&text), [found("/sys/fs/cgroup", false), found("/a c", true), found("/d", false)]);
    }

    #[test]
    fn a_directory_is_no_root_of_mounts() {
        assert!(root_is_a_mount(HOST) && !root_is_a_mount("22 21 0:20 / /proc rw - proc proc rw\n"));
        let stacked =
            "21 1 8:1 / / rw - ext4 a rw\n22 21 0:20 / /proc rw - proc proc rw\n30 21 8:1 / / rw - ext4 a rw\n";
        assert_eq!([21, 22, 30, 1].map(|mount| is_at_root(stacked, mount)), [true, false, true, false]);
    }
}
