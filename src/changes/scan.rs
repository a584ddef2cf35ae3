//! The list of changes: the upper compared with the directory below.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::entry::{Entry, Kind, failed, kind_of, refused, too_large};
use super::tree::{Walk, open_named};
use super::upper::{Change, ChangeKind, UpperDir, at};
use crate::error::{Result, Step};
use crate::sys::by_fd;

/// The longest path that the kernel takes, without its NUL.
const LONGEST_PATH: usize = 4095;
/// The most bytes that all paths may have together.
const BYTES_OF_PATHS: usize = 64 << 20;
const STEP: Step = Step::Changes;

/// A directory of the upper that is still to be read.
struct Pending {
    path: PathBuf,
    /// True if nothing of the directory below is in it.
    is_new: bool,
}

struct Scan<'u> {
    upper: &'u UpperDir,
    entries: u64,
    bytes: u64,
    bytes_of_paths: usize,
    changes: Vec<Change>,
    pending: Vec<Pending>,
}

/// Lists the changes in the order of their paths: a directory comes before what is in it.
pub(super) fn scan(upper: &UpperDir) -> Result<Vec<Change>> {
    let open = |path: &Path| open_named(path).map_err(|errno| failed(STEP, errno).at(path));
    let (top, below) = (open(&upper.upper)?, open(&upper.below)?);
    let id = |stat: FileStat| (stat.st_dev, stat.st_ino);
    let ids = [&top, &below].map(|dir| fstat(dir).map(id));
    if ids[0] == ids[1] {
        return Err(refused(STEP, "the upper and the directory below are the same directory").at(&upper.upper));
    }
    let (mut top, mut below) = (Walk::new(top), Walk::new(below));
    let root = Pending { path: PathBuf::new(), is_new: false };
    let mut scan = Scan {
        upper,
        entries: upper.entries,
        bytes: upper.bytes.get(),
        bytes_of_paths: 0,
        changes: Vec::new(),
        pending: vec![root],
    };
    while let Some(dir) = scan.pending.pop() {
        let failed = |errno| at(upper, &dir.path, failed(STEP, errno));
        let above = top.dir(&dir.path).map_err(failed)?;
        let lower = if dir.is_new { None } else { Some(below.dir(&dir.path).map_err(failed)?) };
        scan.read(&dir, above, lower)?;
    }
    scan.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(scan.changes)
}

impl Scan<'_> {
    /// Compares the entries of one directory.
    fn read(&mut self, dir: &Pending, above: BorrowedFd<'_>, lower: Option<BorrowedFd<'_>>) -> Result<()> {
        let most = usize::try_from(self.entries).unwrap_or(usize::MAX).saturating_add(1);
        let names = by_fd::names(above, most).map_err(|errno| at(self.upper, &dir.path, failed(STEP, errno)))?;
        for name in names {
            let name = OsString::from_vec(name.into_bytes());
            let path = dir.path.join(&name);
            self.count(&path)?;
            let entry = Entry::find(self.upper, above, &name, STEP).map_err(|error| at(self.upper, &path, error))?;
            let Some(left) = self.bytes.checked_sub(entry.size()) else {
                let text = format!("the files have more than {} bytes", self.upper.bytes.get());
                return Err(at(self.upper, &path, too_large(STEP, text)));
            };
            self.bytes = left;
            let below = lower.map(|lower| fstatat(lower, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW));
            let below = match below {
                None | Some(Err(Errno::ENOENT)) => None,
                Some(stat) => Some(stat.map_err(|errno| failed(STEP, errno).at(self.upper.below.join(&path)))?),
            };
            self.compare(path, &entry, below);
        }
        Ok(())
    }

    /// Counts an entry.
    fn count(&mut self, path: &Path) -> Result<()> {
        let too_large = |text| Err(at(self.upper, path, too_large(STEP, text)));
        let length = path.as_os_str().as_bytes().len();
        self.bytes_of_paths += length;
        if length > LONGEST_PATH {
            return too_large(format!("a path has more than {LONGEST_PATH} bytes"));
        }
        if self.bytes_of_paths > BYTES_OF_PATHS {
            return too_large(format!("the paths have more than {BYTES_OF_PATHS} bytes together"));
        }
        match self.entries.checked_sub(1) {
            Some(left) => self.entries = left,
            None => return too_large(format!("there are more than {} entries", self.upper.entries)),
        }
        Ok(())
    }

    /// Notes how an entry differs from what is below, and a directory as one that is to be read.
    fn compare(&mut self, path: PathBuf, entry: &Entry, below: Option<FileStat>) {
        let is_dir_below = below.as_ref().is_some_and(|below| kind_of(below) == SFlag::S_IFDIR);
        let kind = match (&entry.kind, &below) {
            (Kind::Whiteout, None) => None,
            (Kind::Whiteout, Some(_)) => Some(ChangeKind::Removed),
            (_, None) => Some(ChangeKind::Added),
            (Kind::Directory { opaque: false, .. }, Some(below)) if is_dir_below => {
                let facts = |stat: &FileStat| (stat.st_mode, stat.st_uid, stat.st_gid);
                (facts(&entry.stat) != facts(below)).then_some(ChangeKind::Changed)
            }
            (_, Some(below)) if !is_dir_below && kind_of(below) == kind_of(&entry.stat) => Some(ChangeKind::Changed),
            _ => Some(ChangeKind::Replaced),
        };
        if let Kind::Directory { .. } = entry.kind {
            let is_new = matches!(kind, Some(ChangeKind::Added | ChangeKind::Replaced));
            self.pending.push(Pending { path: path.clone(), is_new });
        }
        self.changes.extend(kind.map(|kind| Change { path, kind }));
    }
}
