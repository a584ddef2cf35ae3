//! What a program has changed in the upper of an overlay: a list, and its commit into the directory
//! below.
//!
//! The program wrote the upper, and may have made it to deceive. So each directory is entered by
//! descriptor, name by name, and never through a link; nothing is opened but directories and
//! regular files; and the number of entries and bytes has limits.

mod commit;
mod entry;
mod scan;
mod tree;
mod upper;

use std::collections::VecDeque;
use std::path::PathBuf;

use commit::Commit;
use entry::failed;
pub use upper::{Change, ChangeKind, UpperDir};

use crate::error::{Result, Step};

/// The changes in an upper directory, in the order of their paths: [`UpperDir::changes`].
#[must_use = "the changes are only listed until they are committed"]
#[derive(Debug, Clone)]
pub struct Changes {
    upper: UpperDir,
    left: VecDeque<Change>,
    done: Vec<Change>,
    /// The directories whose owner, mode and time are still to be set.
    unfinished: Vec<PathBuf>,
}

impl UpperDir {
    /// Lists the changes. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) beyond a limit,
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for what [is refused](UpperDir), and
    /// [`ErrorKind::Control`](crate::ErrorKind::Control) with the path and errno for what cannot be
    /// read.
    pub fn changes(&self) -> Result<Changes> {
        let left = scan::scan(self)?;
        Ok(Changes { upper: self.clone(), left: left.into(), done: Vec::new(), unfinished: Vec::new() })
    }

    /// Removes everything in the upper directory, and leaves the directory itself. No link is
    /// followed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`](crate::ErrorKind::Control) with the errno; a later call continues.
    pub fn discard(&self) -> Result<()> {
        let failed = |errno| failed(Step::Discard, errno).at(&self.upper);
        let dir = tree::open_named(&self.upper).map_err(failed)?;
        tree::clear(&dir).map_err(failed)
    }
}

impl Changes {
    /// Returns the changes that are not committed yet.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.left.iter()
    }

    /// Returns the changes that [`commit`](Changes::commit) has made to the directory below.
    pub fn committed(&self) -> &[Change] {
        &self.done
    }

    /// Returns true if nothing is left to commit.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Makes the changes to the directory below, and leaves the upper as it is. To be called while
    /// no overlay has the two mounted.
    ///
    /// A file appears whole or not at all: it is written under another name, which begins with
    /// `.ringfence-`, and renamed. Owner, mode, time, ACLs and `user` attributes are those of the
    /// upper; ids are those on disk. Files with several names become several files. FIFOs and
    /// sockets are made anew, and never opened.
    ///
    /// If a change fails, those before it have been made and stay:
    /// [`committed`](Changes::committed) has them, [`iter`](Changes::iter) has that one and the
    /// rest, and a later commit begins with it. What is refused is found by
    /// [`changes`](UpperDir::changes), before anything is changed, unless a process still writes to
    /// the upper; then this call finds it, too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`](crate::ErrorKind::Control) with the path and errno, and the errors of
    /// [`changes`](UpperDir::changes).
    pub fn commit(&mut self) -> Result<()> {
        let mut commit = Commit::begin(&self.upper)?;
        while let Some(change) = self.left.front() {
            if commit.make(change)? {
                self.unfinished.push(change.path.clone());
            }
            self.done.extend(self.left.pop_front());
        }
        // From the innermost directory outward, as each may take away the right to enter it.
        while let Some(path) = self.unfinished.last() {
            commit.finish_dir(path)?;
            self.unfinished.pop();
        }
        Ok(())
    }
}
