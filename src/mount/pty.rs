//! The two ends of a terminal, on a devpts of the sandbox's.

use std::path::Path;

use nix::errno::Errno;

use super::context::Context;
use crate::error::Step;
use crate::plan::{Plan, Slot};
use crate::sys::terminal;

/// The numbers of the device `ptmx`.
const PTMX: (u32, u32) = (5, 2);

/// Makes the terminal of the program by the file `name` of the directory `dir`, which is `ptmx` of
/// a devpts that was mounted just now and where nobody else has made anything, and leaves its
/// master in the slot. The slave belongs to the program's user. Returns the slot of the slave.
pub(super) fn emit_ends(plan: &mut Plan, master: Slot, dir: Slot, name: &str, shown: &Path, context: Context) -> Slot {
    let (text, flags) = (plan.string(name), terminal::FLAGS.bits());
    plan.call(Step::Terminal, libc::SYS_openat, [dir.into(), text.into(), flags.into()])
        .at(shown)
        .hint("mount the devpts with ptmxmode=0666")
        .store(master);
    plan.check_device(Step::Terminal, master, libc::S_IFCHR, PTMX)
        .at(shown)
        .hint("something else than a devpts is in its place");
    let unlocked = plan.words(&[0]);
    plan.call(Step::Terminal, libc::SYS_ioctl, [master.into(), libc::TIOCSPTLCK.into(), unlocked.into()]).at(shown);
    let slave = plan.slot();
    plan.call(Step::Terminal, libc::SYS_ioctl, [master.into(), libc::TIOCGPTPEER.into(), flags.into()])
        .at(shown)
        .store(slave);
    let (uid, gid) = context.user;
    let group = if context.tty_group { u32::MAX } else { gid };
    // EPERM: a setup that may not give files away has the program's ids already.
    plan.call(Step::Terminal, libc::SYS_fchown, [slave.into(), uid.into(), group.into()]).tolerate(Errno::EPERM);
    slave
}
