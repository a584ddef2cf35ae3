//! Where a test process puts what it makes: a directory of its own, which is the temporary
//! directory of all that it starts, and goes when it ends. So two of them do not see one another's
//! things, and nothing is left in /tmp. At the end the process also says which tests were skipped.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::stat::{Mode, umask};

use super::workers;

/// The names of such directories begin so.
const NAME: &str = "ringfence-tests-";

/// Where the library puts the records of a root who may not write to /run: uid 0 of a user namespace.
const OF_ROOTS_INSIDE: &str = "/tmp/ringfence-0";

/// The directory, and the process that made it: what that process starts uses the directory too and
/// leaves it alone.
static OWN: OnceLock<(PathBuf, u32)> = OnceLock::new();

/// Whether that of roots inside stood there before.
static STOOD: OnceLock<bool> = OnceLock::new();

/// The tests of this process that did not run.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = settle;

/// Makes the directory, unless this process was started by one that has. To be called before main,
/// while there is one thread.
pub extern "C" fn settle() {
    // A program that runs inside is to find what its sandbox gives it.
    if ["RINGFENCE_PROBE", "RINGFENCE_ATTACK"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    if !is_own(&std::env::temp_dir()) {
        workers::run();
        let dir = made();
        // SAFETY: no other thread has been started yet.
        unsafe { std::env::set_var("TMPDIR", &dir) };
        let _ = OWN.set((dir, std::process::id()));
        let _ = STOOD.set(Path::new(OF_ROOTS_INSIDE).exists());
        // SAFETY: the function takes nothing, and stays where it is.
        assert_eq!(unsafe { libc::atexit(end) }, 0);
    }
    records_of_its_own();
}

/// Gives a user other than root a directory for the library's records that goes with the rest;
/// root's are in /run. To be called while there is one thread.
pub fn records_of_its_own() {
    let user = nix::unistd::geteuid();
    if user.is_root() || std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| !is_own(Path::new(&dir))) {
        return;
    }
    let dir = std::env::temp_dir().join(format!("run-{user}"));
    let _ = std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&dir);
    // SAFETY: the caller has one thread.
    unsafe { std::env::set_var("XDG_RUNTIME_DIR", dir) };
}

/// Whether the path is that of a test process's directory, or leads below it.
fn is_own(path: &Path) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with(NAME))
}

/// Whether the text speaks of the directory of another test process, and not of this one's.
pub fn is_of_others(text: &str) -> bool {
    text.contains(NAME) && !is_of_this(text)
}

/// Whether a mount stands below a directory of somebody else's beside this test process's own.
pub fn is_mount_of_others(at: &str) -> bool {
    let own = std::env::temp_dir();
    if !own.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME)) {
        return false;
    }
    let Some(below) = own.parent().and_then(|shared| Path::new(at).strip_prefix(shared).ok()) else { return false };
    let name = below.iter().next().unwrap_or_default().to_string_lossy();
    !name.is_empty() && !["ringfence", "rf", "rk-"].iter().any(|ours| name.starts_with(ours))
}

/// Whether the text speaks of this test process's directory, or of a control group of its.
pub fn is_of_this(text: &str) -> bool {
    let dir = std::env::temp_dir();
    // The names of control groups end in the number of who made them.
    text.contains(dir.to_str().unwrap()) || text.contains(&format!("-{}\0", std::process::id()))
}

fn made() -> PathBuf {
    let above = std::env::temp_dir();
    for number in 0.. {
        let dir = above.join(format!("{NAME}{}-{number}", std::process::id()));
        let before = umask(Mode::empty());
        let made = fs::create_dir(&dir);
        umask(before);
        match made {
            // As open as the one that it stands in: other users' processes are started here.
            Ok(()) => fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap(),
            // A process of this number was killed here once.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => panic!("{}: {error}", dir.display()),
        }
        return dir;
    }
    unreachable!("there is a number that is free")
}

/// Notes a test that did not run.
pub fn skipped(what: String) {
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

extern "C" fn end() {
    let Some((dir, owner)) = OWN.get() else { return };
    // A fork has the same functions to call.
    if *owner != std::process::id() {
        return;
    }
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if !skipped.is_empty() {
        let _ = writeln!(std::io::stderr(), "{} skipped:\n{}", skipped.len(), skipped.join("\n"));
    }
    if STOOD.get() == Some(&false) {
        // It stays while somebody has records there, and is not another user's to remove.
        let _ = fs::remove_dir(OF_ROOTS_INSIDE);
    }
    if let Err(error) = remove(dir) {
        let _ = writeln!(std::io::stderr(), "{} cannot be removed: {error}", dir.display());
        // SAFETY: ends the process at once; its tests have ended.
        unsafe { libc::_exit(101) };
    }
}

/// Removes a tree of which a part may be closed to its owner, as overlayfs leaves it.
fn remove(dir: &Path) -> std::io::Result<()> {
    if fs::remove_dir_all(dir).is_ok() {
        return Ok(());
    }
    open(dir);
    fs::remove_dir_all(dir)
}

fn open(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| open(&entry.path()));
}
