//! newuidmap(1) and newgidmap(1): the two set-uid programs of the system that map what /etc/subuid
//! and /etc/subgid grant.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::idmap::IdMap;
use crate::sys::{timeout, xattr};

/// The directories that are searched for the programs after those of the caller's PATH.
const DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
/// The most bytes of a program's error text that are passed on.
const ERROR_TEXT_MAX: u64 = 4096;

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(super) newuidmap: PathBuf,
    pub(super) newgidmap: PathBuf,
}

impl Programs {
    /// Finds both programs. Where one is missing or powerless, returns the problem with its remedy.
    pub(crate) fn find() -> Result<Programs, Vec<Problem>> {
        let path = env::var_os("PATH");
        match (find("newuidmap", path.as_deref()), find("newgidmap", path.as_deref())) {
            (Ok(newuidmap), Ok(newgidmap)) => Ok(Programs { newuidmap, newgidmap }),
            (uid, gid) => Err(uid.err().into_iter().chain(gid.err()).collect()),
        }
    }
}

/// Finds one program in the directories of `path` and in [`DIRS`].
fn find(name: &str, path: Option<&OsStr>) -> Result<PathBuf, Problem> {
    let dirs = path.into_iter().flat_map(env::split_paths).chain(DIRS.map(PathBuf::from));
    let found = dirs
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok());
    let Some(file) = found else {
        let reason = format!("the program {name}, which maps more than the caller's own id, is not installed");
        let remedy = "install the package uidmap (Debian, Ubuntu), shadow-utils (Fedora), shadow-uidmap (Alpine)";
        return Err(Problem::unsupported(name, reason, remedy));
    };
    match powerless(&file) {
        Some((reason, remedy)) => Err(Problem::unsupported(name, format!("{}: {reason}", file.display()), remedy)),
        None => Ok(file),
    }
}

/// Returns why the file gets no rights when it is executed, with the remedy.
fn powerless(file: &Path) -> Option<(&'static str, &'static str)> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1")) {
        return Some((
            "the caller runs with no_new_privs, under which it gets no rights",
            "start the caller without it",
        ));
    }
    if statvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID)) {
        return Some(("its file system is mounted nosuid, so it gets no rights", "mount it without nosuid"));
    }
    let is_setuid = fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0);
    // Some systems give them a file capability instead.
    if !is_setuid && !xattr::is_there(file, c"security.capability") {
        return Some(("it is neither set-uid root nor has it file capabilities", "install its package again"));
    }
    None
}

/// Runs `program`, which writes `file` (uid_map, gid_map) of the process `pid`. That process waits,
/// and is not reaped, until this function has returned, so its pid is its own.
pub(super) fn run(program: &Path, pid: i32, file: &str, maps: &[IdMap], until: Instant) -> Result<()> {
    let failed = |error: &std::io::Error| Error::io(Step::WriteIdMap, error).at(program);
    let numbers = maps.iter().flat_map(|map| [map.inside, map.outside, map.count]).map(|number| number.to_string());
    let mut child = Command::new(program)
        .arg(pid.to_string())
        .args(numbers)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let error_text = child.stderr.take().map(|stderr| read_until(stderr, until));
    if matches!(error_text, Some(None)) {
        let _ = child.kill();
    }
    // ECHILD: the caller ignores SIGCHLD, or another of its threads was faster.
    let _ = child.wait();
    // So the map itself tells whether the program has written it.
    let written = fs::read(format!("/proc/{pid}/{file}")).map_err(|error| failed(&error))?;
    match error_text.flatten() {
        _ if !written.trim_ascii().is_empty() => Ok(()),
        None => Err(Error::message(ErrorKind::Timeout, Step::WriteIdMap, "not done in time").at(program)),
        Some(text) => Err(Error::message(ErrorKind::Setup, Step::WriteIdMap, String::from_utf8_lossy(&text).trim())
            .at(program)
            .hint("the ranges have to be the caller's by /etc/subuid and /etc/subgid")),
    }
}

/// Reads up to the end of file, or returns nothing where that does not come in time.
fn read_until(mut from: impl Read + AsFd, until: Instant) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        match poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout::until(until)) {
            Err(Errno::EINTR) => continue,
            Ok(ready) if ready > 0 => {}
            _ => return None,
        }
        let mut block = [0; 512];
        match from.read(&mut block) {
            Ok(0) => return Some(text),
            Ok(count) if (text.len() as u64) < ERROR_TEXT_MAX => text.extend_from_slice(&block[..count]),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_or_powerless_is_named_with_the_remedy() {
        let dir = env::temp_dir().join(format!("rftest-newidmap-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let missing = find("newnothing", Some(dir.as_os_str())).unwrap_err();
        assert!(missing.to_string().contains("not installed; install the package uidmap"), "{missing}");
        let file = dir.join("newuidmap");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let powerless = find("newuidmap", Some(dir.as_os_str())).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(powerless.to_string().contains("newuidmap: "), "{powerless}");
        assert!(powerless.reason.contains("set-uid") || powerless.reason.contains("rights"), "{powerless}");
    }

    #[test]
    fn what_is_read_is_bounded_in_time_and_size() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let read = std::io::PipeReader::from(read);
        let soon = Instant::now() + std::time::Duration::from_millis(20);
        assert_eq!(read_until(read.try_clone().unwrap(), soon), None);
        nix::unistd::write(&write, &[b'x'; 20_000]).unwrap();
        drop(write);
        let text = read_until(read, Instant::now() + std::time::Duration::from_secs(10)).unwrap();
        assert!(text.len() >= 4096 && text.len() < 5000, "{}", text.len());
    }
}
