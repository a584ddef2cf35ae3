//! The terminal of the program, on a devpts of the sandbox's.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::calls::{attach_to, copy_file, emit_target};
use super::context::Context;
use super::kinds::{Kind, Mount};
use super::pty::emit_ends;
use crate::error::Step;
use crate::plan::{PlaceFlags, Plan, Slot};

const DEV: &str = "/dev";
const PTS: &str = "/dev/pts";
const CONSOLE: &str = "/dev/console";

/// The devpts on which the terminal of the program is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminals {
    /// That of a [`Dev`](super::Dev) at `/dev`, which makes the terminal as well.
    OfDev,
    /// One that is mounted at `/dev/pts` by itself. `console`: a file `/dev/console` is made where
    /// it is missing, because `/dev` is not a directory of the host's.
    Mounted { console: bool },
}

/// Returns whether the mounts have a devpts of the sandbox's in the place where programs look for
/// terminals.
pub(crate) fn has_terminals(mounts: &[Mount]) -> bool {
    terminals(mounts).is_some()
}

/// Finds that devpts.
pub(super) fn terminals(mounts: &[Mount]) -> Option<Terminals> {
    let (mut found, mut console) = (None, false);
    for mount in mounts {
        let at = mount.target.as_path();
        let (is_dev, is_pts) = (at == Path::new(DEV), at == Path::new(PTS));
        match &mount.kind {
            Kind::Dev(dev) if dev.is_main() => (found, console) = (Some(Terminals::OfDev), true),
            Kind::Raw(raw) if raw.is_remount() => {}
            Kind::Raw(raw) if is_pts && raw.fstype == "devpts" => found = Some(Terminals::Mounted { console }),
            Kind::Dir | Kind::Symlink(_) => {}
            // This one covers the devpts. The terminal of a `Dev` is made before that.
            kind if is_dev || is_pts => {
                console = if is_dev { matches!(kind, Kind::Raw(_) | Kind::Tmpfs(_)) } else { console };
                found = found.filter(|found| *found == Terminals::OfDev);
            }
            _ => {}
        }
    }
    found
}

/// Makes the terminal of the program on a devpts that is mounted by itself, and binds the slave on
/// `/dev/console`.
pub(super) fn emit_mounted(plan: &mut Plan, master: Slot, root: Slot, console: bool, context: Context) {
    let (dir, ptmx) = (plan.slot(), PathBuf::from(PTS).join("ptmx"));
    let links = "neither /dev nor what is in it may be a symbolic link where the program has a terminal";
    let there = PlaceFlags::NO_SYMLINKS | PlaceFlags::EXISTING;
    emit_target(plan, root, Path::new(PTS), there, dir).hint(links);
    let slave = emit_ends(plan, master, dir, "ptmx", &ptmx, context);
    plan.close(Step::Terminal, dir);
    let (place, tree, at) = (plan.slot(), plan.slot(), Path::new(CONSOLE));
    let file = PlaceFlags::NO_SYMLINKS | PlaceFlags::FILE;
    // Nothing is made in a directory of the host's.
    match console {
        true => emit_target(plan, root, at, file, place).hint(links),
        false => emit_target(plan, root, at, file | PlaceFlags::EXISTING, place).hint(links).tolerate(Errno::ENOENT),
    };
    let bound = plan.len();
    copy_file(plan, slave, tree, at);
    attach_to(plan, Step::MoveMount, tree, place, at);
    plan.close(Step::MoveMount, tree);
    plan.close(Step::MoveMount, place);
    if !console {
        plan.depend_from(bound);
    }
    plan.close(Step::Terminal, slave);
}

#[cfg(test)]
mod tests {
    use super::super::{Bind, Dev, RawMount, Tmpfs};
    use super::*;

    #[test]
    fn the_devpts_is_the_one_that_the_program_finds() {
        let devpts = || Mount::from(RawMount::new("devpts", PTS, "devpts"));
        let (tmpfs, raw) = (|| Tmpfs::new(DEV).into(), || RawMount::new("tmpfs", "/dev/", "tmpfs").into());
        let (dev, host) = (|| Mount::from(Dev::new(DEV)), || Mount::from(Bind::new(DEV, DEV)));
        let (made, there) = (Some(Terminals::Mounted { console: true }), Some(Terminals::Mounted { console: false }));
        assert_eq!(terminals(&[]), None);
        assert_eq!(terminals(&[dev()]), Some(Terminals::OfDev));
        assert_eq!(terminals(&[Dev::new("/srv/dev").into()]), None);
        assert_eq!(terminals(&[tmpfs()]), None);
        assert_eq!(terminals(&[tmpfs(), devpts()]), made);
        assert_eq!(terminals(&[raw(), devpts()]), made);
        assert_eq!(terminals(&[dev(), devpts()]), made);
        assert_eq!(terminals(&[host(), devpts()]), there);
        assert_eq!(terminals(&[devpts()]), there);
        assert_eq!(terminals(&[tmpfs(), devpts(), host()]), None);
        assert_eq!(terminals(&[tmpfs(), devpts(), Bind::new(PTS, PTS).into()]), None);
        assert_eq!(terminals(&[dev(), Bind::new(PTS, PTS).into()]), Some(Terminals::OfDev));
    }
}
