//! Settings of the kernel that belong to a namespace: sysctl(8).

use std::collections::BTreeMap;

use super::Namespaces;
use crate::error::{Problem, Step};
use crate::plan::Plan;

/// The most bytes of a value.
const LONGEST: usize = 4096;
/// The settings of an IPC namespace, beside `fs.mqueue.*`.
const OF_IPC: [&str; 11] = [
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// Returns the components of a name, which has either dots between them, or slashes and then dots
/// of its own, as in `net/ipv4/conf/eth0.100/forwarding`: sysctl(8). None, if it is no name.
fn components(name: &str) -> Option<Vec<&str>> {
    let separator = name.find(['.', '/']).map(|at| name.as_bytes()[at] as char)?;
    let parts: Vec<&str> = name.split(separator).collect();
    let is_plain = |part: &&str| {
        !part.is_empty() && *part != "." && *part != ".." && !part.contains(['/', '\0', '\n']) && part.is_ascii()
    };
    parts.iter().all(is_plain).then_some(parts)
}

/// Returns the namespace whose setting this is.
fn owner(name: &[&str]) -> Option<Namespaces> {
    match name {
        ["net", _, ..] => Some(Namespaces::NET),
        ["fs", "mqueue", _] => Some(Namespaces::IPC),
        ["kernel", leaf] if OF_IPC.contains(leaf) => Some(Namespaces::IPC),
        _ => None,
    }
}

/// Returns the namespaces that have these settings.
pub(super) fn owners(sysctls: &BTreeMap<String, String>) -> Namespaces {
    let owner = |name: &String| owner(&components(name)?);
    sysctls.keys().filter_map(owner).collect()
}

/// Returns the problems of settings that no namespace in `own` has, or that no file can be.
pub(super) fn invalid(sysctls: &BTreeMap<String, String>, own: Namespaces) -> Vec<Problem> {
    let problem = |(name, value): (&String, &String)| {
        let refuse = |reason: String, remedy| Some(Problem::invalid("sysctl", format!("{name:?}: {reason}"), remedy));
        let Some(parts) = components(name) else {
            return refuse(
                "this is no name of a setting".to_owned(),
                "name it as sysctl(8) does, as in net.core.somaxconn",
            );
        };
        if value.len() > LONGEST || value.contains(['\0', '\n']) {
            let reason = "the value is longer than 4,096 bytes, or holds a NUL or a newline".to_owned();
            return refuse(reason, "give one line");
        }
        match owner(&parts) {
            Some(kind) if own.contains(kind) => None,
            Some(kind) if kind == Namespaces::NET => {
                refuse("the setting would be the host's".to_owned(), "add net_ns()")
            }
            Some(_) => refuse("the setting would be the host's".to_owned(), "add ipc_ns()"),
            None if parts == ["kernel", "hostname"] => refuse("that is the host name".to_owned(), "use hostname()"),
            None if parts == ["kernel", "domainname"] => {
                refuse("that is the domain name".to_owned(), "use domainname()")
            }
            None => {
                let reason = "the setting is the whole machine's, or is not known to belong to a namespace".to_owned();
                refuse(reason, "leave it out: net.*, fs.mqueue.* and those of System V IPC can be set")
            }
        }
    };
    sysctls.iter().filter_map(problem).collect()
}

/// Writes the settings of namespaces of these kinds, which the stub is in by now. Must come while
/// /proc is the caller's: the files are those of the namespaces of the process that opens them.
pub(super) fn emit(plan: &mut Plan, sysctls: &BTreeMap<String, String>, kinds: Namespaces) {
    for (name, value) in sysctls {
        let parts = components(name).unwrap_or_default();
        if !owner(&parts).is_some_and(|kind| kinds.contains(kind)) {
            continue;
        }
        let file = format!("/proc/sys/{}", parts.join("/"));
        plan.write_file(Step::Sysctl, &file, value)
            .hint("ENOENT: this kernel has no such setting for a namespace; EINVAL: it takes no such value");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> bool {
        let all = Namespaces::NET | Namespaces::IPC | Namespaces::UTS;
        !invalid(&[(name.to_owned(), value.to_owned())].into(), all).is_empty()
    }

    #[test]
    fn only_settings_of_a_namespace_can_be_set() {
        for name in ["net.core.somaxconn", "net/ipv4/conf/eth0.100/forwarding", "kernel.shmmax", "fs.mqueue.msg_max"] {
            assert!(!refused(name, "1"), "{name}");
            assert_eq!(invalid(&[(name.to_owned(), "1".to_owned())].into(), Namespaces::PID).len(), 1, "{name}");
        }
        for name in [
            "",
            ".",
            "net",
            "net.",
            "net..core",
            "net/../kernel/core_pattern",
            "net.core/../../kernel/core_pattern",
            "kernel.core_pattern",
            "kernel.shmmax.x",
            "kernel.hostname",
            "kernel.domainname",
            "vm.overcommit_memory",
            "user.max_user_namespaces",
            "fs.mqueue",
            "net.a\nb",
            "net.a\0b",
            "/net/core/somaxconn",
            "fs/mqueue/../x",
            "net/./core",
            "kernel/../net/core",
        ] {
            assert!(refused(name, "1"), "{name:?}");
        }
        assert!(refused("net.core.somaxconn", "1\n2") && refused("net.core.somaxconn", "1\0"));
        assert!(refused("net.core.somaxconn", &"1".repeat(4097)));
    }

    #[test]
    fn hostile_names_are_survived() {
        crate::fuzz::texts(&["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/rp_filter", "kernel.sem"], |text| {
            if let Some(parts) = components(text) {
                assert!(!parts.iter().any(|part| part.contains('/') || *part == ".."));
            }
        });
    }
}
