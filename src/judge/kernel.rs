//! The namespaces, and the mounts of the kernel's file systems in them, that this kernel refuses,
//! with the setting that forbids them.

use std::fs;

use caps::Capability;
use nix::errno::Errno;

use super::capabilities::has_capability;
use crate::error::Problem;
use crate::mount::{self, CallerRoot, Kind, MountFlags, ShownGroups};
use crate::namespace::Namespaces;
use crate::policy::Policy;
use crate::proc::mountinfo::{self, Seen};
use crate::proc::user_ns;
use crate::spawn;

impl Policy {
    /// Returns the reasons for which the kernel would refuse the clone, or the mount of /proc. The
    /// clone is tried, in a way that leaves no process.
    pub(crate) fn refused_by_kernel(&self) -> Vec<Problem> {
        let late = self.namespaces.new & Namespaces::CGROUP;
        let kinds = self.namespaces.at_clone(false) | late;
        if !kinds.is_empty()
            && let Err(errno) = spawn::dry_run(kinds.bits())
        {
            return reasons(errno, kinds);
        }
        let mut problems = Vec::new();
        if self.namespaces.new.contains(Namespaces::USER) && !has_capability(Capability::CAP_SYS_ADMIN) {
            problems.extend(restricted_by_apparmor());
        }
        if self.namespaces.new.contains(Namespaces::MOUNT) {
            problems.extend(self.covered());
        }
        problems
    }

    /// Returns a problem for /proc and /sys, if they are covered in part around the caller: the
    /// kernel lets a user namespace mount only those that are visible in full (EPERM).
    fn covered(&self) -> Vec<Problem> {
        let ns = &self.namespaces;
        if ns.joins(Namespaces::USER) || ns.joins(Namespaces::MOUNT) {
            return Vec::new();
        }
        if !ns.new.contains(Namespaces::USER) && user_ns::is_initial() {
            return Vec::new();
        }
        let text = mountinfo::read("/proc/self/mountinfo").unwrap_or_default();
        let wanted =
            self.mounts.all(&self.surroundings(ShownGroups::default()), None).into_iter().filter_map(|mount| {
                match &mount.kind {
                    Kind::Proc(proc) => Some(("proc", !proc.flags.contains(MountFlags::READ_ONLY))),
                    Kind::Sysfs => Some(("sysfs", false)),
                    _ => None,
                }
            });
        wanted.filter_map(|(fstype, to_write)| covered(fstype, mountinfo::seen(&text, fstype, to_write))).collect()
    }
}

/// Returns the text of a file of the kernel, or an empty text if the file cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns a problem for a file system that is not visible in full.
fn covered(fstype: &str, seen: Seen) -> Option<Problem> {
    let what = match seen {
        Seen::Fully => return None,
        Seen::Nowhere => "is mounted nowhere around the caller".to_owned(),
        Seen::ReadOnly => "is mounted read-only around the caller".to_owned(),
        Seen::Covered(places) => {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            format!("is covered at {}", places.join(", "))
        }
    };
    let reason = format!("{fstype} {what}, and a user namespace may mount only file systems that are visible in full");
    let remedy = if fstype == "proc" {
        "run the container around with an unmasked /proc (podman: --security-opt unmask=ALL; docker: \
         --security-opt systempaths=unconfined; kubernetes: procMount: Unmasked), or bind the caller's /proc"
    } else {
        "leave out the mount, or bind the caller's /sys"
    };
    Some(Problem::unsupported("mount", reason, remedy))
}

/// Returns the reasons for which the clone into `kinds` fails with `errno`: every switch that is
/// off, or else a likely cause of the errno.
fn reasons(errno: Errno, kinds: Namespaces) -> Vec<Problem> {
    let problems: Vec<Problem> = match errno {
        Errno::ENOSPC | Errno::EUSERS => switched_off(kinds),
        Errno::EPERM if kinds.contains(Namespaces::USER) => debian_switch().into_iter().collect(),
        _ => Vec::new(),
    };
    if !problems.is_empty() {
        return problems;
    }
    let subject = if kinds.contains(Namespaces::USER) { "user_ns" } else { "namespaces" };
    let (reason, remedy) = likely_cause(errno);
    vec![Problem::unsupported(subject, format!("the kernel refuses the namespaces ({errno:?}): {reason}"), remedy)]
}

/// Returns a problem for each of `kinds` whose limit in /proc/sys/user is 0.
fn switched_off(kinds: Namespaces) -> Vec<Problem> {
    let is_zero = |path: &String| read(path).trim() == "0";
    let paths = kinds.iter().filter_map(Namespaces::file).map(|file| format!("/proc/sys/user/max_{file}_namespaces"));
    paths
        .filter(is_zero)
        .map(|path| {
            let sysctl = path.trim_start_matches("/proc/sys/").replace('/', ".");
            Problem::unsupported("user_ns", format!("{path} is 0"), format!("as root: sysctl {sysctl}=10000"))
        })
        .collect()
}

/// Returns a problem if the switch of Debian's and Arch's kernels is off.
fn debian_switch() -> Option<Problem> {
    let path = "/proc/sys/kernel/unprivileged_userns_clone";
    let remedy = "as root: sysctl kernel.unprivileged_userns_clone=1";
    (read(path).trim() == "0").then(|| Problem::unsupported("user_ns", format!("{path} is 0"), remedy))
}

/// Returns a likely reason for the errno of a clone, and its remedy.
fn likely_cause(errno: Errno) -> (&'static str, &'static str) {
    let filtered = read("/proc/thread-self/status").lines().any(|line| line == "Seccomp:\t2");
    let filter = (
        "a seccomp filter around the caller forbids them",
        "allow clone(2) and unshare(2) with CLONE_NEW* flags in the filter of the container or service around; \
         a sandbox of this library does so with max_user_namespaces(1) or more",
    );
    match errno {
        Errno::ENOSPC | Errno::EUSERS => (
            "a limit of a namespace around the caller is reached, or user and pid namespaces nest 32 deep",
            "raise user.max_*_namespaces outside, or nest less",
        ),
        Errno::EINVAL => {
            ("the kernel was built without one of them", "use a kernel with CONFIG_NAMESPACES and all its options")
        }
        Errno::EPERM if mount::caller_root() == CallerRoot::Chroot => (
            "the caller's root is not that of its mount namespace: it has gone through chroot(2)",
            "enter that root by pivot_root(2), or by a bind mount and switch_root(8), instead",
        ),
        _ if filtered => filter,
        _ => (
            "a security module forbids them, or the caller's root is not that of its mount namespace, or its ids are not \
             mapped in its own user namespace",
            "look into the audit log; run the caller outside of chroot(2)",
        ),
    }
}

/// Returns a problem if AppArmor restricts user namespaces, as on Ubuntu since 23.10: the clone
/// succeeds, but gives no capabilities (apparmor.d(5), `userns`). A profile of the caller's own may
/// allow them.
fn restricted_by_apparmor() -> Option<Problem> {
    let path = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let profile = ["/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    is_restricted(&read(path), &profile).then(|| {
        let remedy = "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for the \
                      caller that allows userns";
        Problem::unsupported("user_ns", format!("{path} is 1"), remedy)
    })
}

/// Returns whether AppArmor restricts a caller with this profile, given the value of the sysctl.
fn is_restricted(sysctl: &str, profile: &str) -> bool {
    sysctl.trim() == "1" && matches!(profile.trim_end_matches(['\n', '\0']), "unconfined" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_ones_own_may_allow_what_apparmor_restricts() {
        assert!(is_restricted("1\n", "unconfined\n") && is_restricted("1", ""));
        assert!(!is_restricted("1\n", "podman (unconfined)\n") && !is_restricted("0\n", "unconfined\n"));
        assert!(!is_restricted("", "unconfined\n"));
    }

    #[test]
    fn each_refusal_has_a_reason_and_a_remedy() {
        for errno in [Errno::ENOSPC, Errno::EUSERS, Errno::EINVAL, Errno::EPERM, Errno::ENOSYS, Errno::EACCES] {
            let problems = reasons(errno, Namespaces::USER | Namespaces::PID);
            assert!(!problems.is_empty() && problems.iter().all(|p| !p.reason.is_empty() && !p.remedy.is_empty()));
        }
    }

    #[test]
    fn what_this_process_may_do_is_not_refused() {
        assert_eq!(spawn::dry_run(0), Ok(()));
        // Every kernel refuses CLONE_FS with CLONE_NEWNS.
        assert_eq!(spawn::dry_run((libc::CLONE_NEWNS | libc::CLONE_FS) as u64), Err(Errno::EINVAL));
    }
}
