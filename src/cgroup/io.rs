//! The rates of one disk.

use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor, stat};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::units::Bytes;

/// The rates at which a sandbox may read and write one whole disk: `blkio.throttle.*_device` on v1,
/// which slows down only reads and direct writes, and `io.max` on v2 (4.5).
///
/// ```no_run
/// use ringfence::{Bytes, IoLimit, Sandbox};
///
/// let slow = IoLimit::for_path("/srv/data")?.read_bps(Bytes::mib(10)).write_iops(100);
/// let sandbox = Sandbox::new().io_limit(slow).bind("/srv/data", "/data");
/// # drop(sandbox);
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoLimit {
    pub(crate) device: (u64, u64),
    pub(crate) read_bps: Option<Bytes>,
    pub(crate) write_bps: Option<Bytes>,
    pub(crate) read_iops: Option<u64>,
    pub(crate) write_iops: Option<u64>,
}

impl IoLimit {
    /// Starts a limit for the disk with these numbers, as `lsblk` shows them. The kernel takes
    /// whole disks, not partitions.
    pub fn device(major: u64, minor: u64) -> Self {
        IoLimit { device: (major, minor), read_bps: None, write_bps: None, read_iops: None, write_iops: None }
    }

    /// Starts a limit for the disk that holds `path`, or for `path` itself if it is a device node.
    ///
    /// # Errors
    /// Fails if the path does not exist or is not on a single disk: btrfs, overlay, tmpfs and
    /// network filesystems have no disk.
    pub fn for_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let stat = stat(path).map_err(|errno| Error::new(Step::OpenSource, errno).at(path))?;
        let node = stat.st_mode & libc::S_IFMT == libc::S_IFBLK;
        let device = if node { stat.st_rdev } else { stat.st_dev };
        let (major, minor) = whole_disk(Path::new("/sys"), major(device), minor(device)).ok_or_else(|| {
            Error::message(ErrorKind::Unsupported, Step::OpenSource, "its filesystem is not on one block device")
                .at(path)
                .hint("name the disk with IoLimit::device")
        })?;
        Ok(IoLimit::device(major, minor))
    }

    /// Limits the bytes read in a second.
    pub fn read_bps(self, rate: impl Into<Bytes>) -> Self {
        IoLimit { read_bps: Some(rate.into()), ..self }
    }

    /// Limits the bytes written in a second.
    pub fn write_bps(self, rate: impl Into<Bytes>) -> Self {
        IoLimit { write_bps: Some(rate.into()), ..self }
    }

    /// Limits the read operations in a second.
    pub fn read_iops(self, rate: u64) -> Self {
        IoLimit { read_iops: Some(rate), ..self }
    }

    /// Limits the write operations in a second.
    pub fn write_iops(self, rate: u64) -> Self {
        IoLimit { write_iops: Some(rate), ..self }
    }
}

/// Returns the disk of a block device. The disk of a partition is the one that contains it.
/// Anonymous devices (major 0) have none.
fn whole_disk(sysfs: &Path, major: u64, minor: u64) -> Option<(u64, u64)> {
    let link = sysfs.join(format!("dev/block/{major}:{minor}"));
    let mut dir: PathBuf = link.canonicalize().ok()?;
    if dir.join("partition").exists() {
        dir.pop();
    }
    let text = std::fs::read_to_string(dir.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_leads_to_its_disk() {
        let sys = std::env::temp_dir().join(format!("ringfence-sysfs-{}", std::process::id()));
        let disk = sys.join("devices/vda");
        std::fs::create_dir_all(disk.join("vda1")).unwrap();
        std::fs::create_dir_all(sys.join("dev/block")).unwrap();
        std::fs::write(disk.join("dev"), "254:0\n").unwrap();
        std::fs::write(disk.join("vda1/dev"), "254:1\n").unwrap();
        std::fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        std::os::unix::fs::symlink("../../devices/vda", sys.join("dev/block/254:0")).unwrap();
        std::os::unix::fs::symlink("../../devices/vda/vda1", sys.join("dev/block/254:1")).unwrap();
        let found = [(254, 1), (254, 0), (0, 28)].map(|(major, minor)| whole_disk(&sys, major, minor));
        std::fs::remove_dir_all(&sys).unwrap();
        assert_eq!(found, [Some((254, 0)), Some((254, 0)), None]);
    }

    #[test]
    fn a_filesystem_without_a_disk_is_refused() {
        let error = IoLimit::for_path("/proc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("IoLimit::device"), "{error}");
    }
}
