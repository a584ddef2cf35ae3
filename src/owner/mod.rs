//! Who owns what is left on the host: a record in the runtime directory that others can read after the owner's death.
//!
//! While a process owns a control group or a scratch directory, a file named by its token stands in the runtime
//! directory, locked with flock(2) for as long as the process lives, and lists the directories below which its things
//! stand. Pids would not do: they mean nothing across pid namespaces. [`reap_stale`] takes the files that are not
//! locked any more, removes what they list, then the file.

mod scratch;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

pub(crate) use scratch::Scratch;
#[cfg(feature = "image")]
pub(crate) use scratch::remove_tree;

use crate::cgroup;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::table;

/// Names of what a living owner holds begin so, then its token, then a number.
pub(crate) const OWNED: &str = "rf-";
/// Names of what is to outlive its owner.
pub(crate) const KEPT: &str = "rk-";
const TOKEN_LENGTH: usize = 16;

/// What a process has on record.
#[derive(Debug)]
struct Registry {
    token: String,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    claims: usize,
    file: Option<(Flock<File>, PathBuf)>,
    recorded: BTreeSet<Vec<u8>>,
}

static REGISTRY: PerProcess<Registry> = PerProcess::new();

impl Registry {
    fn get() -> Result<&'static Registry> {
        let failed = |errno: Errno| Error::new(Step::Owner, errno);
        REGISTRY
            .get_or_try(|| {
                Ok(Registry { token: random_hex(TOKEN_LENGTH / 2)?, next: AtomicU64::new(0), state: Mutex::default() })
            })
            .map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many random bytes, as text.
fn random_hex(count: usize) -> Result<String, Errno> {
    let mut bytes = vec![0; count];
    let result = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The right to leave things on the host, for one sandbox. While one lives, so does the record.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: &'static Registry,
    name: String,
}

/// A name that no other process has, nor this one twice.
#[cfg(feature = "systemd")]
pub(crate) fn unique() -> Result<String> {
    let registry = Registry::get()?;
    Ok(format!("{}-{}", registry.token, registry.next.fetch_add(1, Ordering::Relaxed)))
}

/// Takes the right. `kept`: what is made outlives its owner.
pub(crate) fn claim(kept: bool) -> Result<Claim> {
    let registry = Registry::get()?;
    let mut state = registry.lock();
    if state.file.is_none() {
        state.file = Some(open_record(&registry.token)?);
        state.recorded.clear();
    }
    state.claims += 1;
    let number = registry.next.fetch_add(1, Ordering::Relaxed);
    let prefix = if kept { KEPT } else { OWNED };
    Ok(Claim { registry, name: format!("{prefix}{}-{number}", registry.token) })
}

impl Claim {
    /// Whether this is the process that took it, and not a fork.
    pub(crate) fn is_here(&self) -> bool {
        REGISTRY.get().is_some_and(|here| std::ptr::eq(here, self.registry))
    }

    /// The name for the things of this sandbox, which no other has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes down, once, below which directories groups of ours stand, and which of these will be made for them;
    /// before the first is.
    pub(crate) fn record_cgroups(&self, dirs: &[PathBuf]) -> Result<()> {
        let levels = || dirs.iter().flat_map(|dir| dir.ancestors().take_while(|dir| !dir.exists())).map(Path::to_owned);
        self.record(b"cgroup ", dirs, || levels().collect())
    }

    /// Writes down what has not been yet; `levels` are directories to be removed, if empty, after the rest.
    fn record(&self, kind: &[u8], dirs: &[PathBuf], levels: impl FnOnce() -> Vec<PathBuf>) -> Result<()> {
        let mut state = self.registry.lock();
        let entry = |kind: &[u8], dir: &PathBuf| [kind, dir.as_os_str().as_bytes(), b"\0"].concat();
        let entries = dirs.iter().map(|dir| entry(kind, dir));
        let new: Vec<Vec<u8>> = entries.filter(|entry| !state.recorded.contains(entry)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let levels: Vec<Vec<u8>> = levels().iter().map(|dir| entry(b"level ", dir)).collect();
        let Some((file, path)) = &mut state.file else {
            return Err(Error::new(Step::Owner, Errno::ENOENT));
        };
        let text = [new.concat(), levels.concat()].concat();
        file.write_all(&text).map_err(|error| Error::io(Step::Owner, &error).at(path))?;
        state.recorded.extend(new);
        Ok(())
    }

    /// Makes a scratch directory below `base`, under a name that nobody can have taken beforehand. Its layers belong to
    /// `owner`, if not to the caller.
    pub(crate) fn make_scratch(&self, base: &Path, owner: Option<(u32, u32)>) -> Result<Scratch> {
        self.record(b"scratch ", &[base.to_owned()], Vec::new)?;
        let random = random_hex(4).map_err(|errno| Error::new(Step::Scratch, errno))?;
        Scratch::make(base.join(format!("{}-{random}", self.name)), owner)
    }

    /// Leaves the record to reap_stale: something on it could not be removed.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_here() {
            // A fork of the owner: nothing here is its own.
            return;
        }
        let mut state = self.registry.lock();
        state.claims = state.claims.saturating_sub(1);
        if state.claims == 0
            && let Some((_, path)) = state.file.take()
        {
            // Left behind, it would be a record of nothing.
            let _ = fs::remove_file(path);
        }
    }
}

/// The directories in which records may stand, the best first: each is the user's own, closed to others.
fn runtime_dirs() -> Vec<PathBuf> {
    let uid = Uid::effective();
    let mut dirs = Vec::new();
    if uid.is_root() {
        dirs.push(PathBuf::from("/run/ringfence"));
    } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        dirs.push(PathBuf::from(dir).join("ringfence"));
    }
    dirs.push(PathBuf::from(format!("/run/user/{uid}/ringfence")));
    // Anybody may have taken these names; a directory that is not private is passed over.
    dirs.extend(["/tmp", "/var/tmp", "/dev/shm"].map(|dir| PathBuf::from(format!("{dir}/ringfence-{uid}"))));
    dirs
}

/// Whether `dir` is a directory of the caller's that others cannot write to, and no link.
fn is_private(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == Uid::effective().as_raw() && meta.mode() & 0o022 == 0)
}

fn runtime_dir() -> Result<PathBuf> {
    let mut last = None;
    for dir in runtime_dirs() {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                last = Some(Error::io(Step::Owner, &error).at(&dir))
            }
            _ if is_private(&dir) => return Ok(dir),
            _ => {
                last =
                    Some(Error::new(Step::Owner, Errno::EPERM).at(&dir).detail("not a directory of the caller's alone"))
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Step::Owner, Errno::ENOENT)))
}

/// Makes and locks the record. A reaper may take the file between its making and its locking; then it is made again.
fn open_record(token: &str) -> Result<(Flock<File>, PathBuf)> {
    let path = runtime_dir()?.join(token);
    loop {
        let failed = |error: &std::io::Error| Error::io(Step::Owner, error).at(&path);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = table::above_stdio(file.map_err(|error| failed(&error))?.into())
            .map_err(|errno| Error::new(Step::Owner, errno).at(&path))?;
        let file = Flock::lock(File::from(file), FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::new(Step::Owner, errno).at(&path))?;
        if file.metadata().map_err(|error| failed(&error))?.nlink() > 0 {
            return Ok((file, path));
        }
    }
}

/// What [`reap_stale`] found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Owners that had died.
    pub owners: usize,
    /// Control groups, with the processes in them.
    pub cgroups: usize,
    /// Scratch directories.
    pub scratch_dirs: usize,
}

/// Clears what dead owners left: control groups with the processes still in them, and scratch directories. What a living
/// owner holds is never touched, and what was told to outlive its owner
/// ([`die_with_owner(false)`](crate::Sandbox::die_with_owner)) only once nothing runs in it.
///
/// An owner counts as living while it, or a fork of it that has not called exec, lives. Only owners of the same user are
/// looked at.
///
/// # Errors
///
/// The first thing that could not be removed; what is left stays on record for a later call.
pub fn reap_stale() -> Result<Reaped> {
    let mut reaped = Reaped::default();
    let own = REGISTRY.get().map(|registry| registry.token.as_str());
    let mut result = Ok(());
    for dir in runtime_dirs().into_iter().filter(|dir| is_private(dir)) {
        let entries = fs::read_dir(&dir).map_err(|error| Error::io(Step::Reap, &error).at(&dir))?;
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some(token) = name.to_str().filter(|name| is_token(name) && Some(*name) != own) else { continue };
            if let Err(error) = reap_owner(&dir.join(token), token, &mut reaped) {
                result = Err(error);
            }
        }
    }
    result.map(|()| reaped)
}

fn is_token(name: &str) -> bool {
    name.len() == TOKEN_LENGTH && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn reap_owner(path: &Path, token: &str, reaped: &mut Reaped) -> Result<()> {
    let failed = |error: &std::io::Error| Error::io(Step::Reap, error).at(path);
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| failed(&error))?,
    };
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
        other => other.map_err(|(_, errno)| Error::new(Step::Reap, errno).at(path))?,
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| failed(&error))?;
    let (mut kept, mut has_groups) = (false, false);
    for entry in text.split(|byte| *byte == 0) {
        let Some(space) = entry.iter().position(|byte| *byte == b' ') else { continue };
        let dir = PathBuf::from(std::ffi::OsString::from_vec(entry[space + 1..].to_vec()));
        match &entry[..space] {
            b"cgroup" => {
                has_groups = true;
                reaped.cgroups += cgroup::sweep(&dir, token)?;
                kept |= holds(&dir, &format!("{KEPT}{token}-"));
            }
            // Without a group nobody can tell whether something still runs on a kept scratch directory.
            // Somebody else's group, or a kept one, may stand in it.
            b"level" => drop(fs::remove_dir(&dir)),
            b"scratch" => kept |= reap_scratch(&dir, token, has_groups && !kept, reaped)?,
            _ => return Err(Error::message(ErrorKind::Setup, Step::Reap, "a record of another version").at(path)),
        }
    }
    if !kept {
        reaped.owners += 1;
        fs::remove_file(path).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Whether an entry of `dir` has a name that begins with `prefix`.
fn holds(dir: &Path, prefix: &str) -> bool {
    fs::read_dir(dir)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes())))
}

/// Removes scratch directories, those that outlive their owner only with `kept_too`. Gives whether one of these stays.
fn reap_scratch(dir: &Path, token: &str, kept_too: bool, reaped: &mut Reaped) -> Result<bool> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(false) };
    let owned = format!("{OWNED}{token}-");
    let detached = format!("{KEPT}{token}-");
    let mut stays = false;
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let is_kept = scratch::has_prefix(&name, &detached);
        if scratch::has_prefix(&name, &owned) || is_kept && kept_too {
            scratch::remove_tree(&dir.join(&name), None)?;
            reaped.scratch_dirs += 1;
        } else {
            stays |= is_kept;
        }
    }
    Ok(stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_records() {
        assert!(is_token("0123456789abcdef"));
        for name in ["", "0123456789ABCDEF", "0123456789abcde", "../3456789abcdef", "0123456789abcdef0"] {
            assert!(!is_token(name), "{name}");
        }
    }

    #[test]
    fn the_record_stands_while_a_claim_lives() {
        let claim = claim(false).unwrap();
        let record = runtime_dir().unwrap().join(&claim.registry.token);
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        assert_eq!(fs::read(&record).unwrap(), b"cgroup /proc/x/y\0level /proc/x/y\0level /proc/x\0");
        reap_stale().unwrap();
        assert!(record.exists(), "one's own is not stale");
        drop(claim);
        assert!(!record.exists());
    }
}
