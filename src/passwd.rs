//! The user database of a root directory: passwd(5).
//!
//! The root may be that of a sandbox that runs, and may belong to somebody who means harm: what is
//! read is bounded.

#[cfg(feature = "oci")]
use std::fs::File;
#[cfg(feature = "oci")]
use std::os::fd::OwnedFd;
#[cfg(feature = "oci")]
use std::path::{Path, PathBuf};

#[cfg(feature = "oci")]
use nix::fcntl::ResolveFlag;

#[cfg(feature = "oci")]
use crate::foreign_root::{directory, in_time, open_file};

/// The largest user database that is read, in bytes.
pub(crate) const DATABASE_MAX: u64 = 16 << 20;
/// The largest id. Programs with signed 32-bit ids take larger ones as negative, and 4,294,967,295
/// is not an id.
pub(crate) const ID_MAX: u32 = i32::MAX as u32;

/// Reads an id.
pub(crate) fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= ID_MAX)
}

/// A line of passwd(5).
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "image"), allow(dead_code, reason = "only images name users and their groups"))]
pub(crate) struct PasswdLine<'t> {
    pub(crate) name: &'t str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: &'t str,
}

impl<'t> PasswdLine<'t> {
    pub(crate) fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let _comment = fields.next();
        Some(PasswdLine { name, uid, gid, home: fields.next().unwrap_or_default() })
    }
}

/// Returns the home directory of a user in the root directory `root`; `None` if there is none that
/// could be found out.
#[cfg(feature = "oci")]
pub(crate) fn home_in(root: OwnedFd, uid: u32) -> Option<PathBuf> {
    in_time(move || home_from(open_in(&root)?, uid))
}

/// Does the same for the path of a root directory.
#[cfg(feature = "oci")]
pub(crate) fn home_at(root: PathBuf, uid: u32) -> Option<PathBuf> {
    in_time(move || home_from(open_in(&directory(&root)?)?, uid))
}

/// Returns the home directory of a user by the user database of this path outside of a root, whose
/// last component may be somebody else's: no link is followed there.
#[cfg(feature = "oci")]
pub(crate) fn home_by(database: &Path, uid: u32) -> Option<PathBuf> {
    let (dir, name) = (database.parent()?.to_owned(), database.file_name()?.to_owned());
    in_time(move || home_from(open_file(&directory(&dir)?, &name, ResolveFlag::RESOLVE_NO_SYMLINKS)?, uid))
}

/// Returns the home directory of a user by a user database.
#[cfg(feature = "oci")]
fn home_from(file: File, uid: u32) -> Option<PathBuf> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.take(DATABASE_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let account = text.lines().filter_map(PasswdLine::parse).find(|account| account.uid == uid)?;
    Some(account.home).filter(|home| home.starts_with('/') && !home.contains('\0')).map(PathBuf::from)
}

#[cfg(feature = "oci")]
fn open_in(root: &OwnedFd) -> Option<File> {
    open_file(root, "etc/passwd".as_ref(), ResolveFlag::RESOLVE_IN_ROOT)
}

#[cfg(all(test, feature = "oci"))]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_in_the_root_and_nowhere_else() {
        let dir = std::env::temp_dir().join(format!("ringfence-passwd-{}", std::process::id()));
        let etc = dir.join("root/etc");
        std::fs::create_dir_all(&etc).unwrap();
        let home = |uid| home_in(File::open(dir.join("root")).unwrap().into(), uid);
        let passwd = etc.join("passwd");
        let absent = home(0);
        std::fs::write(&passwd, "root:x:0:0::/inside:/bin/sh\nbad\nrelative:x:7:7::home:\nnone:x:8:8::\n").unwrap();
        let found = [0, 7, 8, 9].map(home);
        // Links end in the root.
        std::fs::write(dir.join("outside"), "root:x:0:0::/outside:/bin/sh\n").unwrap();
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink(dir.join("outside"), &passwd).unwrap();
        let by_link = home(0);
        // Outside of a root a link is followed on the way, and not at its end.
        std::os::unix::fs::symlink(&dir, dir.join("way")).unwrap();
        let outside = [passwd.clone(), dir.join("outside"), dir.join("way/outside"), dir.clone(), "/dev/null".into()];
        let outside = outside.map(|path| home_by(&path, 0));
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let of_fifo = home(0);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [Some("/inside".into()), None, None, None]);
        assert_eq!((absent, by_link, of_fifo), (None, None, None));
        let expected = || Some("/outside".into());
        assert_eq!(outside, [None, expected(), expected(), None, None]);
    }
}
