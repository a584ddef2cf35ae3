//! More mounts on the host during a measurement, in a mount namespace of their own.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
/// Mounts that are the host's for everything that this process starts, and for no other process.
#[derive(Debug)]
pub struct Mounts(Option<PathBuf>);

impl Mounts {
    /// Makes `count` mounts. This process must have only one thread.
    pub fn new(count: usize) -> io::Result<Self> {
        if count == 0 {
            return Ok(Mounts(None));
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        keep_to_ourselves()?;
        let dir = std::env::temp_dir().join(format!("ringfence-mounts-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let mounts = Mounts(Some(dir.clone()));
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        for i in 1..count {
            let place = dir.join(i.to_string());
            fs::create_dir(&place)?;
            mount(Some(&dir), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(mounts)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            let _ = umount2(dir, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes later mounts in this namespace invisible in all other namespaces.
pub fn keep_to_ourselves() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}
