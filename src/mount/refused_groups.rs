//! Hosts that do not let the control groups of a sandbox be mounted: a security module, or a filter
//! around the caller. A sandbox that has not asked for them by name goes without.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;

use super::cgroupfs::{CGROUPS, ShownGroups};
use crate::error::{Error, Step};
use crate::sys::fork_mark::PerProcess;
use crate::sys::fsmount::FileSystem;
use crate::sys::mutex;

/// The errnos by which a kernel, a security module or a filter refuses a mount, whoever asks next.
const REFUSALS: [Errno; 8] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::ENOSYS,
    Errno::ENODEV,
    Errno::EINVAL,
    Errno::EOPNOTSUPP,
    Errno::EBUSY,
    Errno::ENOENT,
];

/// Those of them that the next sandbox meets as well.
const LASTING: [Errno; 4] = [Errno::EPERM, Errno::EACCES, Errno::ENOSYS, Errno::ENODEV];

/// What has refused the mount in sandboxes with a user namespace of their own (true) and without.
static REFUSED: PerProcess<Mutex<BTreeMap<bool, String>>> = PerProcess::new();

/// Returns whether a setup may have failed because of the control groups that it shows by default.
pub(crate) fn may_refuse_groups(error: &Error) -> bool {
    let of_groups = error.path().is_some_and(|path| path == Path::new(CGROUPS) || path == Path::new("/sys"));
    let errno = error.raw_os_error().map(Errno::from_raw);
    let refuses = match error.step() {
        Step::Mount | Step::MoveMount | Step::MountAttr => errno.is_some_and(|errno| REFUSALS.contains(&errno)),
        // A target in the root of the caller's that cannot be made.
        Step::MountTarget => true,
        _ => false,
    };
    of_groups && refuses
}

/// Notes that this host does not let a sandbox mount its control groups, and returns the reason and
/// the remedy as text.
pub(crate) fn note_refused_groups(user_ns: bool, error: &Error) -> String {
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    if error.step() == Step::MountTarget {
        return format!("there is no place for a mount at {CGROUPS} ({errno}); make that directory in the root");
    }
    let text = refusal(errno);
    // The others may have come of this root, or of this moment.
    if !LASTING.contains(&errno) {
        return text;
    }
    if let Ok(refused) = REFUSED.get_or_try(|| Ok::<_, Errno>(Mutex::default())) {
        mutex::lock(refused).insert(user_ns, text.clone());
    }
    text
}

/// Returns why this host does not let a sandbox mount its control groups, as far as is known.
pub(crate) fn refused_groups(user_ns: bool) -> Option<String> {
    mutex::lock(REFUSED.get()?).get(&user_ns).cloned()
}

/// Tries to mount control groups nowhere, as the caller, and returns why this host refuses that.
pub(crate) fn try_groups(groups: &ShownGroups) -> Option<String> {
    let v2 = groups.v2.then_some(None);
    let all = groups.v1.iter().map(|options| Some(&**options)).chain(v2);
    let errno = all.into_iter().find_map(|options| FileSystem::try_cgroups(options).err())?;
    REFUSALS.contains(&errno).then(|| refusal(errno))
}

fn refusal(errno: Errno) -> String {
    format!(
        "mounts of control groups are refused here ({errno}); let the security module or the seccomp filter around the \
         caller allow fsopen(2) and mounts of the types cgroup and cgroup2"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_groups_themselves_is_one() {
        let may = |step, errno, path: &str| may_refuse_groups(&Error::new(step, errno).at(path));
        assert!(may(Step::Mount, Errno::EPERM, CGROUPS) && may(Step::MoveMount, Errno::EACCES, "/sys"));
        assert!(may(Step::MountTarget, Errno::EROFS, CGROUPS));
        assert!(!may(Step::Mount, Errno::EPERM, "/proc") && !may(Step::Mount, Errno::ENOMEM, CGROUPS));
        assert!(!may(Step::PivotRoot, Errno::EPERM, CGROUPS));
        assert!(!may_refuse_groups(&Error::new(Step::Mount, Errno::EPERM)));
    }

    #[test]
    fn a_target_that_cannot_be_made_says_nothing_of_the_host() {
        let text = note_refused_groups(true, &Error::new(Step::MountTarget, Errno::EROFS).at(CGROUPS));
        assert!(text.contains("make that directory"), "{text}");
        assert_eq!(refused_groups(true), None);
        assert!(note_refused_groups(true, &Error::new(Step::Mount, Errno::EPERM)).contains("EPERM"));
        assert!(refused_groups(true).is_some() && refused_groups(false).is_none());
    }
}
