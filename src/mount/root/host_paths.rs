//! The paths of the host in a root of its programs, as far as this host has them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::host_list::{FROM_HOST, PATHS, PREFIXES};

/// The directory of the host whose names are looked through.
pub(super) const ETC: &str = "/etc";

/// Returns the number of mounts of the host that the root is made of now. Where the names in /etc
/// cannot be read, they do not count: no root can be made there.
pub(in crate::mount) fn bind_count() -> usize {
    let paths = host_paths().unwrap_or_default();
    paths.iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink())).count()
}

/// Returns the paths that are shown if the host has them.
pub(super) fn host_paths() -> nix::Result<Vec<PathBuf>> {
    let of_toolchains = toolchains_in(Path::new(ETC))?;
    Ok(PATHS.into_iter().chain(FROM_HOST).map(PathBuf::from).chain(of_toolchains).collect())
}

/// Returns the files and directories in `etc` that belong to toolchains. A directory that does not
/// exist has none. One that cannot be read is an error: a root without them would not be what was
/// asked for.
fn toolchains_in(etc: &Path) -> nix::Result<Vec<PathBuf>> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let entries = match fs::read_dir(etc) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(errno)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.map_err(errno)?.file_name();
        if PREFIXES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            paths.push(etc.join(name));
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_whose_names_cannot_be_read_is_an_error_and_a_missing_one_is_none() {
        let etc = std::env::temp_dir().join(format!("rf-host-paths-{}", std::process::id()));
        fs::create_dir(&etc).unwrap();
        assert_eq!(toolchains_in(&etc.join("missing")), Ok(Vec::new()));
        for name in ["python3.11", "java-17-openjdk", "fpc-3.2.2.cfg", "shadow", "python2.7", "my-java-1"] {
            fs::write(etc.join(name), "").unwrap();
        }
        let names = ["fpc-3.2.2.cfg", "java-17-openjdk", "python3.11"];
        assert_eq!(toolchains_in(&etc), Ok(names.map(|name| etc.join(name)).into()));
        assert_eq!(toolchains_in(&etc.join("shadow")), Err(Errno::ENOTDIR));
        fs::remove_dir_all(etc).unwrap();
    }
}
