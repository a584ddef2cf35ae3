//! Who owns what is left on the host: a record in the runtime directory that others can read after the owner's death.
//!
//! While a process owns a control group or a scratch directory, a file named by its token stands in the runtime
//! directory, locked with flock(2) for as long as the process lives, and lists the directories below which its things
//! stand. Pids would not do: they mean nothing across pid namespaces. [`reap_stale`] takes the files that are not
//! locked any more, removes what they list, then the file. The token names the file by its inode, so that no other file
//! can speak for what carries the token ([`record`]).

mod base;
mod dir;
mod reap;
mod record;
mod scratch;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

pub use reap::{Reaped, reap_stale};
use record::Record;
pub(crate) use scratch::Scratch;
#[cfg(feature = "image")]
pub(crate) use scratch::remove_tree;

use crate::error::{Error, Result, Step};
use crate::sys::fork_mark::PerProcess;

/// Names of what a living owner holds begin so, then its token, then a number.
pub(crate) const OWNED: &str = "rf-";
/// Names of what is to outlive its owner.
pub(crate) const KEPT: &str = "rk-";

/// What a process has on record.
#[derive(Debug)]
struct Registry {
    #[cfg(feature = "systemd")]
    random: String,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    claims: usize,
    record: Option<Record>,
    recorded: BTreeSet<Vec<u8>>,
}

static REGISTRY: PerProcess<Registry> = PerProcess::new();

impl Registry {
    fn get() -> Result<&'static Registry> {
        let failed = |errno: Errno| Error::new(Step::Owner, errno);
        REGISTRY
            .get_or_try(|| {
                Ok(Registry {
                    #[cfg(feature = "systemd")]
                    random: random_hex(8)?,
                    next: AtomicU64::new(0),
                    state: Mutex::default(),
                })
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
    Ok(format!("{}-{}", registry.random, registry.next.fetch_add(1, Ordering::Relaxed)))
}

/// Takes the right. `kept`: what is made outlives its owner.
pub(crate) fn claim(kept: bool) -> Result<Claim> {
    let registry = Registry::get()?;
    let mut state = registry.lock();
    if state.record.is_none() {
        state.recorded.clear();
    }
    let record = match state.record.take() {
        Some(record) => record,
        None => Record::make()?,
    };
    let number = registry.next.fetch_add(1, Ordering::Relaxed);
    let prefix = if kept { KEPT } else { OWNED };
    let name = format!("{prefix}{}-{number}", record.token());
    state.record = Some(record);
    state.claims += 1;
    Ok(Claim { registry, name })
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
        let Some(record) = &mut state.record else {
            return Err(Error::new(Step::Owner, Errno::ENOENT));
        };
        record.append(&[new.concat(), levels.concat()].concat())?;
        state.recorded.extend(new);
        Ok(())
    }

    /// Makes a scratch directory below `base`, under a name that nobody can have taken beforehand. Its layers belong to
    /// `owner`, if not to the caller.
    pub(crate) fn make_scratch(&self, base: &Path, owner: Option<(u32, u32)>) -> Result<Scratch> {
        self.record(b"scratch ", &[base.to_owned()], Vec::new)?;
        let random = random_hex(4).map_err(|errno| Error::new(Step::Scratch, errno))?;
        let name = format!("{}-{random}", self.name);
        Scratch::make(base, &name, owner).inspect_err(|_| self.keep_if_left(&[base.join(name)]))
    }

    /// Keeps the record, for reap_stale, if one of these could not be removed again.
    pub(crate) fn keep_if_left(&self, made: &[PathBuf]) {
        if made.iter().any(|path| path.symlink_metadata().is_ok()) {
            self.registry.lock().claims += 1;
        }
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
        if state.claims == 0 {
            state.record.take().into_iter().for_each(Record::remove);
        }
    }
}

/// The token of this process, if it has one now.
fn own_token() -> Option<String> {
    REGISTRY.get()?.lock().record.as_ref().map(|record| record.token().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_stands_while_a_claim_lives() {
        let claim = claim(false).unwrap();
        let record = claim.registry.lock().record.as_ref().unwrap().path().to_owned();
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        assert_eq!(std::fs::read(&record).unwrap(), b"cgroup /proc/x/y\0level /proc/x/y\0level /proc/x\0");
        reap_stale().unwrap();
        assert!(record.exists(), "one's own is not stale");
        drop(claim);
        assert!(!record.exists());
    }
}
