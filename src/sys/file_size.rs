//! Writes that the caller's limit on the size of files (`RLIMIT_FSIZE`) forbids.
//!
//! The kernel answers such a write with SIGXFSZ as well, which ends the caller's process. So the
//! limit is compared before the write.

use std::fs::File;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// Fails with EFBIG if a file may not have this size.
pub(crate) fn check(size: u64) -> nix::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if size > limit { Err(Errno::EFBIG) } else { Ok(()) }
}

/// Writes these bytes behind all that the file has.
pub(crate) fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    check(file.metadata()?.len().saturating_add(bytes.len() as u64))?;
    file.write_all(bytes)
}

/// A new file, which is written from its beginning.
#[derive(Debug)]
pub(crate) struct NewFile<'f> {
    file: &'f File,
    size: u64,
}

impl<'f> NewFile<'f> {
    pub(crate) fn new(file: &'f File) -> Self {
        NewFile { file, size: 0 }
    }
}

impl Write for NewFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        check(self.size.saturating_add(bytes.len() as u64))?;
        let count = self.file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
