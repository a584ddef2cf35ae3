//! Limits on the kernel's tables that count by user, for the users of a namespace.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Step;
use crate::plan::Plan;

const DIR: &str = "/proc/sys/user";

/// A table of the kernel's that counts by user: namespaces(7), "The /proc/sys/user directory".
///
/// The entries that a user of the sandbox takes are taken from the user who made the sandbox as
/// well, so without a limit one sandbox can leave that user, root even, and all its other sandboxes
/// with nothing. See [`Sandbox::user_limit`](crate::Sandbox::user_limit).
///
/// ```
/// use ringfence::{Sandbox, UserLimit};
///
/// let sandbox = Sandbox::new().user_ns().user_limit(UserLimit::InotifyInstances, 4);
/// let output = sandbox.command("cat").arg("/proc/sys/user/max_inotify_instances").output()?;
/// assert_eq!(output.stdout, b"4\n");
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum UserLimit {
    /// inotify(7) instances: `max_inotify_instances` (4.13). Most machines give a user 128.
    InotifyInstances,
    /// Files and directories that inotify(7) watches: `max_inotify_watches` (4.13).
    InotifyWatches,
    /// fanotify(7) groups: `max_fanotify_groups` (5.13). Before that they take `CAP_SYS_ADMIN` on
    /// the host. Most machines give a user 128.
    FanotifyGroups,
    /// Marks of fanotify(7) groups: `max_fanotify_marks` (5.13).
    FanotifyMarks,
    /// User namespaces: `max_user_namespaces` (4.9).
    UserNamespaces,
}

impl UserLimit {
    /// Returns the name of the table's file.
    fn file(self) -> &'static str {
        match self {
            UserLimit::InotifyInstances => "max_inotify_instances",
            UserLimit::InotifyWatches => "max_inotify_watches",
            UserLimit::FanotifyGroups => "max_fanotify_groups",
            UserLimit::FanotifyMarks => "max_fanotify_marks",
            UserLimit::UserNamespaces => "max_user_namespaces",
        }
    }

    /// Returns whether the kernel has no such table, or none that a user namespace gives the right
    /// to: its file is missing in `dir`.
    fn is_without_table(self, dir: &Path) -> bool {
        let kept_from_users = matches!(self, UserLimit::FanotifyGroups | UserLimit::FanotifyMarks);
        // Where nothing of the directory is seen, nothing is known of the kernel.
        kept_from_users && dir.join("max_user_namespaces").exists() && !dir.join(self.file()).exists()
    }
}

/// Limits what the users of the new user namespace take. The files are those of the namespace of
/// the process that opens them; to be called after the maps are written.
pub(super) fn emit_user_limits(plan: &mut Plan, limits: &BTreeMap<UserLimit, u32>) {
    for (limit, count) in limits {
        if limit.is_without_table(DIR.as_ref()) {
            continue;
        }
        let text = (*count).min(i32::MAX as u32).to_string();
        plan.write_file(Step::LimitNamespaces, &format!("{DIR}/{}", limit.file()), &text).hint(
            "where /proc/sys is read-only or missing, as in some containers, leave max_user_namespaces() and \
             user_limit() out",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_shows_the_others_is_without_a_table() {
        let dir = std::env::temp_dir().join(format!("ringfence-user-limits-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let all = [UserLimit::InotifyInstances, UserLimit::FanotifyGroups, UserLimit::UserNamespaces];
        let without = || all.map(|limit| limit.is_without_table(&dir));
        let nothing_seen = without();
        std::fs::write(dir.join("max_user_namespaces"), "").unwrap();
        let old = without();
        std::fs::write(dir.join("max_fanotify_groups"), "").unwrap();
        let new = without();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((nothing_seen, old, new), ([false; 3], [false, true, false], [false; 3]));
    }
}
