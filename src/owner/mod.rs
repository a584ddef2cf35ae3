//! Records the owners of what is left on the host, so that other processes can clean up after an
//! owner's death.
//!
//! While a process owns a control group or a scratch directory, it holds a flock(2) lock on a file
//! in the runtime directory. The file is named by the process's token, and lists the parent
//! directories of what the process owns. Pids cannot serve as tokens, as they have no meaning in
//! other pid namespaces. [`reap_stale`] finds the files that are no longer locked, removes what
//! they list, and then the files. The token contains the inode of its file, so no other file can
//! claim what carries the token ([`record`]).

mod base;
mod dir;
mod reap;
mod record;
mod scratch;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;

#[cfg(feature = "image")]
pub(crate) use base::refuse_exchangeable_by_others;
pub(crate) use base::{refuse_exchangeable, refuse_exchangeable_name, scratch_base};
pub use reap::{Reaped, reap_stale};
pub(crate) use reap::{reap_owner_of, remove_scratch_of, token_of};
use record::OwnerRecord;
pub(crate) use scratch::Scratch;
#[cfg(feature = "image")]
pub(crate) use scratch::remove_tree;

use crate::error::{Error, Result, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, random};

/// The prefix of names that a living owner uses. The token and a number follow.
pub(crate) const OWNED: &str = "rf-";
/// The prefix of names of what outlives its owner.
pub(crate) const KEPT: &str = "rk-";

/// The record of this process, and its count of claims.
#[derive(Debug)]
struct OwnRecord {
    #[cfg(feature = "systemd")]
    random: String,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    claims: usize,
    /// The names of claims that a later call settles.
    lent: BTreeSet<String>,
    record: Option<OwnerRecord>,
    recorded: BTreeSet<Vec<u8>>,
}

static OWN_RECORD: PerProcess<OwnRecord> = PerProcess::new();

impl OwnRecord {
    fn get() -> Result<&'static OwnRecord> {
        let failed = |errno: Errno| Error::new(Step::Owner, errno);
        OWN_RECORD
            .get_or_try(|| {
                Ok(OwnRecord {
                    #[cfg(feature = "systemd")]
                    random: random::hex::<8>()?,
                    next: AtomicU64::new(0),
                    state: Mutex::default(),
                })
            })
            .map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        mutex::lock(&self.state)
    }
}

/// The right of one sandbox to leave files on the host. While a claim lives, the record exists.
#[derive(Debug)]
pub(crate) struct Claim {
    own_record: &'static OwnRecord,
    name: String,
}

/// Returns a name that no other process uses, and that this process uses only once.
#[cfg(feature = "systemd")]
pub(crate) fn unique() -> Result<String> {
    let own_record = OwnRecord::get()?;
    Ok(format!("{}-{}", own_record.random, own_record.next.fetch_add(1, Ordering::Relaxed)))
}

/// Creates a claim. If `kept` is true, what is made outlives its owner.
pub(crate) fn claim(kept: bool) -> Result<Claim> {
    let own_record = OwnRecord::get()?;
    let mut state = own_record.lock();
    if state.record.is_none() {
        state.recorded.clear();
    }
    let record = match state.record.take() {
        Some(record) => record,
        None => OwnerRecord::make()?,
    };
    let number = own_record.next.fetch_add(1, Ordering::Relaxed);
    let prefix = if kept { KEPT } else { OWNED };
    let name = format!("{prefix}{}-{number}", record.token());
    state.record = Some(record);
    state.claims += 1;
    Ok(Claim { own_record, name })
}

impl Claim {
    /// Returns true in the process that created the claim, and false in a fork.
    pub(crate) fn is_here(&self) -> bool {
        OWN_RECORD.is_current(self.own_record)
    }

    /// Returns the name for the files of this sandbox, which is unique.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Records the directories that contain control groups of this process, and those that are
    /// created for them. Must run before the first group is created. Each directory is recorded
    /// once.
    pub(crate) fn record_cgroups(&self, dirs: &[PathBuf]) -> Result<()> {
        let levels = || dirs.iter().flat_map(|dir| dir.ancestors().take_while(|dir| !dir.exists())).map(Path::to_owned);
        self.record(b"cgroup ", dirs, || levels().collect())
    }

    /// Records directories that are not recorded yet. `levels` returns directories to remove
    /// afterwards if they are empty.
    fn record(&self, kind: &[u8], dirs: &[PathBuf], levels: impl FnOnce() -> Vec<PathBuf>) -> Result<()> {
        let mut state = self.own_record.lock();
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

    /// Creates a scratch directory below `base`, under a name that nobody can predict. `owner` owns
    /// its layers, or else the caller.
    pub(crate) fn make_scratch(&self, base: &Path, owner: Option<(u32, u32)>) -> Result<Scratch> {
        self.record(b"scratch ", &[base.to_owned()], Vec::new)?;
        let random = random::hex::<4>().map_err(|errno| Error::new(Step::Scratch, errno))?;
        let name = format!("{}-{random}", self.name);
        Scratch::make(base, &name, owner).inspect_err(|_| self.keep_if_left(&[base.join(name)]))
    }

    /// Leaves the record to [`reap_stale`] if one of these directories still exists.
    pub(crate) fn keep_if_left(&self, made: &[PathBuf]) {
        if made.iter().any(|path| path.symlink_metadata().is_ok()) {
            self.own_record.lock().claims += 1;
        }
    }

    /// Leaves the record to whoever removes what was made: this process with [`end_claim`], or another
    /// one after this one's death.
    pub(crate) fn lend(self) {
        if self.is_here() {
            self.own_record.lock().lent.insert(self.name.clone());
        }
        std::mem::forget(self);
    }

    /// Leaves the record to [`reap_stale`], as something on it could not be removed.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A fork owns nothing here.
        if self.is_here() {
            self.own_record.lock().release();
        }
    }
}

impl State {
    fn release(&mut self) {
        self.claims = self.claims.saturating_sub(1);
        if self.claims == 0 {
            self.record.take().into_iter().for_each(OwnerRecord::remove);
        }
    }
}

/// Ends the claim of this name, of which everything is removed: one that this process has lent, or
/// that of an owner who is dead.
pub(crate) fn end_claim(name: &str) -> Result<()> {
    if let Some(own_record) = OWN_RECORD.get() {
        let mut state = own_record.lock();
        if state.lent.remove(name) {
            state.release();
            return Ok(());
        }
    }
    reap_owner_of(name)
}

/// Returns the token of this process, if it has one.
fn own_token() -> Option<String> {
    OWN_RECORD.get()?.lock().record.as_ref().map(|record| record.token().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_stands_while_a_claim_lives() {
        let claim = claim(false).unwrap();
        let record = claim.own_record.lock().record.as_ref().unwrap().path().to_owned();
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        claim.record_cgroups(&["/proc/x/y".into()]).unwrap();
        assert_eq!(std::fs::read(&record).unwrap(), b"cgroup /proc/x/y\0level /proc/x/y\0level /proc/x\0");
        reap_stale().unwrap();
        assert!(record.exists(), "one's own is not stale");
        let (name, kept) = (claim.name().to_owned(), claim);
        kept.lend();
        let other = super::claim(true).unwrap();
        drop(other);
        assert!(record.exists(), "a later call settles the claim");
        end_claim("rk-0123456789abcdef0123456789abcdef-1").unwrap();
        end_claim(&name).unwrap();
        assert!(!record.exists());
        end_claim(&name).unwrap();
    }
}
