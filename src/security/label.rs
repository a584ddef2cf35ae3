//! The label of the program under a security module of the kernel: AppArmor, SELinux.
//!
//! Stage: inside, first of all, while /proc is the caller's. What is written there is for the next
//! exec of the process, and of its children: the program's.

use std::fs;
use std::path::Path;

use crate::error::{Problem, Step};
use crate::plan::Plan;

/// The most bytes that the files take: a page.
const LONGEST: usize = 4096;

/// The labels of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
}

/// The files of a host that tell which modules its kernel has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modules<'p> {
    proc: &'p Path,
    sys: &'p Path,
}

impl Default for Modules<'_> {
    fn default() -> Self {
        Modules { proc: Path::new("/proc"), sys: Path::new("/sys") }
    }
}

impl Modules<'_> {
    fn has_apparmor(self) -> bool {
        let enabled = fs::read_to_string(self.sys.join("module/apparmor/parameters/enabled"));
        enabled.is_ok_and(|text| text.starts_with('Y'))
    }

    /// The kernel has the file system only if the module is switched on.
    fn has_selinux(self) -> bool {
        let known = fs::read_to_string(self.proc.join("filesystems"));
        known.is_ok_and(|text| text.split_whitespace().any(|word| word == "selinuxfs"))
    }

    /// Returns the file to which the stub writes. That of AppArmor alone came with 5.8; the other
    /// is that of the first module of the kernel that has one.
    fn apparmor_file(self) -> &'static str {
        let own = "attr/apparmor/exec";
        if self.proc.join("thread-self").join(own).exists() { "/proc/self/attr/apparmor/exec" } else { EXEC }
    }
}

/// Returns whether the kernel has SELinux, switched on.
#[cfg(feature = "oci")]
pub(crate) fn has_selinux() -> bool {
    Modules::default().has_selinux()
}

const EXEC: &str = "/proc/self/attr/exec";

impl Labels {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Labels::default()
    }

    fn given(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let both = [("apparmor_profile", &self.apparmor), ("selinux_label", &self.selinux)];
        both.into_iter().filter_map(|(call, label)| Some((call, label.as_ref()?)))
    }

    /// Returns the problems of labels that no kernel takes.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let is_bad = |label: &String| {
            // With "exec " before it and a NUL after it.
            label.is_empty() || label.len() > LONGEST - 6 || label.contains(|c: char| c.is_control())
        };
        let problem = |(call, _)| {
            let reason = "the name is empty, longer than 4,090 bytes, or has a control character";
            Problem::invalid(call, reason, "give the name as the policy of the host has it")
        };
        self.given().filter(|(_, label)| is_bad(label)).map(problem).collect()
    }

    /// Returns the problems of labels for a module that the kernel has not, or has switched off.
    pub(crate) fn unsupported(&self, host: Modules<'_>) -> Vec<Problem> {
        let lacks = |name: &str| format!("this kernel has no {name}, or it is switched off");
        let apparmor = self.apparmor.as_ref().filter(|_| !host.has_apparmor());
        let apparmor = apparmor.map(|_| {
            Problem::unsupported(
                "apparmor_profile",
                lacks("AppArmor"),
                "leave out the profile, or boot with lsm=…,apparmor",
            )
        });
        let selinux = self.selinux.as_ref().filter(|_| !host.has_selinux());
        let selinux = selinux.map(|_| {
            Problem::unsupported("selinux_label", lacks("SELinux"), "leave out the label, or boot with lsm=…,selinux")
        });
        apparmor.into_iter().chain(selinux).collect()
    }

    /// Emits the labels of the exec. Must come while /proc is the caller's. The stub executes
    /// nothing before the program.
    pub(crate) fn emit(&self, plan: &mut Plan, host: Modules<'_>) {
        if let Some(profile) = &self.apparmor {
            plan.write_file(Step::Label, host.apparmor_file(), &format!("exec {profile}")).hint(
                "ENOENT: the profile is not loaded, see apparmor_parser(8); EACCES: the caller's own profile has no \
                 rule change_profile for it",
            );
        }
        if let Some(label) = &self.selinux {
            plan.write_file(Step::Label, EXEC, label)
                .hint("EINVAL: the policy has no such label; EACCES: it does not let the caller set one (setexec)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(apparmor: Option<&str>, selinux: Option<&str>) -> Labels {
        Labels { apparmor: apparmor.map(str::to_owned), selinux: selinux.map(str::to_owned) }
    }

    #[test]
    fn a_label_is_refused_by_the_name_of_the_module_that_a_host_lacks() {
        let dir = std::env::temp_dir().join(format!("ringfence-labels-{}", std::process::id()));
        let (proc, sys) = (dir.join("proc"), dir.join("sys"));
        let parameters = sys.join("module/apparmor/parameters");
        fs::create_dir_all(&parameters).unwrap();
        fs::create_dir_all(&proc).unwrap();
        let host = Modules { proc: &proc, sys: &sys };
        let both = labels(Some("docker-default"), Some("system_u:system_r:container_t:s0:c1,c2"));
        let refused = |host| both.unsupported(host).into_iter().map(|problem| problem.subject).collect::<Vec<_>>();
        let nothing = refused(host);
        fs::write(parameters.join("enabled"), "N\n").unwrap();
        fs::write(proc.join("filesystems"), "nodev\tsysfs\n\text4\n").unwrap();
        let switched_off = refused(host);
        fs::write(parameters.join("enabled"), "Y\n").unwrap();
        let apparmor = refused(host);
        fs::write(proc.join("filesystems"), "nodev\tselinuxfs\n\text4\n").unwrap();
        let all = refused(host);
        let old = host.apparmor_file();
        fs::create_dir_all(proc.join("thread-self/attr/apparmor")).unwrap();
        fs::write(proc.join("thread-self/attr/apparmor/exec"), "").unwrap();
        let new = host.apparmor_file();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(nothing, ["apparmor_profile", "selinux_label"]);
        assert_eq!(switched_off, nothing);
        assert_eq!(apparmor, ["selinux_label"]);
        assert_eq!(all, <[&str; 0]>::default());
        assert_eq!((old, new), ("/proc/self/attr/exec", "/proc/self/attr/apparmor/exec"));
    }

    /// A host has one of the two modules, and most have neither: what the kernel is told is seen here.
    #[test]
    fn each_label_is_written_to_the_file_of_its_module() {
        let dir = std::env::temp_dir().join(format!("ringfence-label-files-{}", std::process::id()));
        let host = Modules { proc: &dir, sys: &dir };
        let both = labels(Some("web//app"), Some("u:r:web:s0"));
        let written = |labels: &Labels| {
            let mut plan = Plan::new();
            labels.emit(&mut plan, host);
            let files = plan.written(Step::Label);
            files.into_iter().map(|(file, text)| format!("{file} {text}")).collect::<Vec<_>>()
        };
        let old = written(&both);
        fs::create_dir_all(dir.join("thread-self/attr/apparmor")).unwrap();
        fs::write(dir.join("thread-self/attr/apparmor/exec"), "").unwrap();
        let (new, alone, none) = (written(&both), written(&labels(None, Some("x"))), written(&Labels::default()));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(old, ["/proc/self/attr/exec exec web//app", "/proc/self/attr/exec u:r:web:s0"]);
        assert_eq!(new, ["/proc/self/attr/apparmor/exec exec web//app", "/proc/self/attr/exec u:r:web:s0"]);
        assert_eq!(alone, ["/proc/self/attr/exec x"]);
        assert_eq!(none, <[&str; 0]>::default());
    }

    #[test]
    fn a_label_that_could_say_something_else_is_invalid() {
        let invalid = |text: &str| (labels(Some(text), None).invalid().len(), labels(None, Some(text)).invalid().len());
        for good in ["unconfined", "a//b", &"x".repeat(4090)] {
            assert_eq!(invalid(good), (0, 0), "{good}");
        }
        for bad in ["", "a\0b", "a\nb", &"x".repeat(4091)] {
            assert_eq!(invalid(bad), (1, 1), "{bad:?}");
        }
    }
}
