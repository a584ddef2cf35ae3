//! Namespaces and what is set in them: `linux.namespaces`, the maps of ids, `linux.timeOffsets`,
//! `linux.sysctl`, `hostname`, `domainname`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset, Spec};

use crate::idmap::IdMap;
use crate::namespace::{Namespaces, TimeOffset};
use crate::oci::problems::{Problems, is_plain_absolute};
use crate::sandbox::Sandbox;

/// The setting that is a domain name.
const DOMAIN_NAME: &str = "kernel.domainname";

/// The mount namespace of this thread.
const OWN_MOUNT_NS: &str = "/proc/thread-self/ns/mnt";

/// The namespaces of a configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    /// Those that are made.
    pub(super) new: Namespaces,
    /// Those that exist already.
    joined: Namespaces,
}

impl Kinds {
    /// Returns whether the container is not in the caller's namespace of this kind.
    pub(super) fn has(self, kind: Namespaces) -> bool {
        (self.new | self.joined).contains(kind)
    }
}

/// Returns the file of the user namespace that the container joins.
pub(super) fn joined_user_ns(spec: &Spec) -> Option<&Path> {
    let listed = spec.linux().as_ref()?.namespaces().as_deref()?;
    let user = listed.iter().find(|one| one.typ() == LinuxNamespaceType::User)?;
    user.path().as_deref().filter(|path| path.is_absolute())
}

pub(super) fn with_namespaces(mut sandbox: Sandbox, spec: &Spec, problems: &mut Problems) -> (Sandbox, Kinds) {
    let mut kinds = Kinds { new: Namespaces::empty(), joined: Namespaces::empty() };
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (i, namespace) in listed.iter().enumerate() {
        let (property, kind) = (format!("linux.namespaces[{i}]"), kind_of(namespace.typ()));
        if (kinds.new | kinds.joined).contains(kind) {
            problems.invalid(format!("{property}.type"), "it stands twice", "list each namespace once");
            continue;
        }
        let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            kinds.new |= kind;
            continue;
        };
        kinds.joined |= kind;
        if !path.is_absolute() {
            problems.invalid(format!("{property}.path"), "it is not absolute", "give the path on the host");
        } else if kind == Namespaces::MOUNT {
            sandbox = sandbox.ends_in_mount_ns(path);
        } else {
            sandbox = sandbox.join_path(kind, path);
        }
    }
    if !(kinds.new | kinds.joined).contains(Namespaces::MOUNT) {
        sandbox = sandbox.ends_in_mount_ns(OWN_MOUNT_NS);
    }
    if !kinds.new.contains(Namespaces::MOUNT) {
        refuse_outside_of_mounts(spec, kinds, problems);
    }
    sandbox = sandbox.namespaces(kinds.new);
    sandbox = with_names(sandbox, spec, kinds, problems);
    if let Some(linux) = spec.linux() {
        sandbox = with_maps(sandbox, linux, kinds, problems);
        sandbox = with_offsets(sandbox, linux, kinds, problems);
        let mut settings: BTreeMap<String, &str> = BTreeMap::new();
        for (name, value) in linux.sysctl().iter().flatten() {
            let dotted = dotted(name);
            if let Some(other) = settings.insert(dotted.clone(), name) {
                let property = format!("linux.sysctl.{name}");
                problems.invalid(property, format!("{other:?} is the same setting"), "leave out one of the two");
                continue;
            }
            sandbox = match dotted == DOMAIN_NAME {
                true => with_domain_name(sandbox, spec, kinds, (name, value), problems),
                false => sandbox.sysctl(dotted, value),
            };
        }
    }
    (sandbox, kinds)
}

/// Returns whether the container has a new mount namespace.
pub(in crate::oci) fn has_mount_ns(spec: &Spec) -> bool {
    has_new(spec, LinuxNamespaceType::Mount)
}

/// Refuses what a container cannot have that is in somebody else's mount namespace. Its mounts belong
/// to none, so that nothing is passed on to them, and from them to others.
fn refuse_outside_of_mounts(spec: &Spec, kinds: Kinds, problems: &mut Problems) {
    if (kinds.new | kinds.joined).contains(Namespaces::USER) {
        let reason = "a user namespace gives no right to a mount namespace that is not its own";
        problems.refused("linux.namespaces", format!("`user` without a new `mount`: {reason}"));
    }
    refuse_loose_masks(spec, problems);
    let is_tied = |word: &str| {
        let word = word.strip_prefix('r').unwrap_or(word);
        ["shared", "slave", "unbindable"].contains(&word)
    };
    let reason = "propagation needs a mount namespace of the container's own";
    let root = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
    problems.refuse_if(root.is_some_and(is_tied), "linux.rootfsPropagation", reason);
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        let has_tied = mount.options().iter().flatten().any(|word| is_tied(word));
        problems.refuse_if(has_tied, format!("mounts[{i}].options"), reason);
    }
}

/// Refuses masks that the program could take off: the kernel keeps what is mounted on from being
/// renamed and removed only in the mount namespace of the one who tries. In /proc, /sys and on what is
/// read-only nobody can.
fn refuse_loose_masks(spec: &Spec, problems: &mut Problems) {
    let Some(linux) = spec.linux() else { return };
    let is_read_only = spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let stays = |path: &str| {
        let above = mounts.iter().filter(|mount| Path::new(path).starts_with(mount.destination()));
        above.max_by_key(|mount| mount.destination().components().count()).map_or(is_read_only, |mount| {
            let of_kernel = ["proc", "sysfs", "cgroup", "cgroup2"];
            let has = |word: &str| mount.options().iter().flatten().any(|option| option == word);
            mount.typ().as_deref().is_some_and(|typ| of_kernel.contains(&typ)) || has("ro") && !has("rw") || has("rro")
        })
    };
    for (property, paths) in
        [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        for (i, path) in paths.iter().flatten().enumerate() {
            let reason = "without a mount namespace of its own, the container could take it off a writable directory";
            problems.refuse_if(!stays(path), format!("{property}[{i}]"), reason);
        }
    }
}

/// Returns whether the container has a new cgroup namespace.
pub(in crate::oci) fn has_cgroup_ns(spec: &Spec) -> bool {
    has_new(spec, LinuxNamespaceType::Cgroup)
}

fn has_new(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let is_new = |path: &Option<std::path::PathBuf>| path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
    listed.iter().any(|one| one.typ() == kind && is_new(one.path()))
}

fn kind_of(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

fn with_names(mut sandbox: Sandbox, spec: &Spec, kinds: Kinds, problems: &mut Problems) -> Sandbox {
    for (property, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if !(kinds.new | kinds.joined).contains(Namespaces::UTS) {
            let remedy = "list `uts` in linux.namespaces";
            problems.invalid(property, "the name would be that of processes outside", remedy);
            continue;
        }
        sandbox = if property == "hostname" { sandbox.hostname(name) } else { sandbox.domainname(name) };
    }
    sandbox
}

/// Sets the domain name that an engine gives as a setting.
fn with_domain_name(
    sandbox: Sandbox,
    spec: &Spec,
    kinds: Kinds,
    (property, name): (&str, &str),
    problems: &mut Problems,
) -> Sandbox {
    let property = format!("linux.sysctl.{property}");
    if !(kinds.new | kinds.joined).contains(Namespaces::UTS) {
        let remedy = "list `uts` in linux.namespaces";
        problems.invalid(property, "the name would be that of processes outside", remedy);
    } else if spec.domainname().as_deref().is_some_and(|other| !other.is_empty() && other != name) {
        problems.invalid(property, "domainname says another one", "leave out one of the two");
    } else {
        return sandbox.domainname(name);
    }
    sandbox
}

/// Returns the lines of a map.
pub(super) fn id_maps(mappings: &[LinuxIdMapping]) -> Vec<IdMap> {
    mappings.iter().map(|map| IdMap::new(map.container_id(), map.host_id(), map.size())).collect()
}

fn with_maps(mut sandbox: Sandbox, linux: &Linux, kinds: Kinds, problems: &mut Problems) -> Sandbox {
    let maps = |mappings: &Option<Vec<LinuxIdMapping>>| id_maps(mappings.as_deref().unwrap_or_default());
    let (uid, gid) = (maps(linux.uid_mappings()), maps(linux.gid_mappings()));
    for (property, maps) in [("linux.uidMappings", &uid), ("linux.gidMappings", &gid)] {
        if !kinds.new.contains(Namespaces::USER) {
            if !maps.is_empty() {
                problems.invalid(property, "there is no new user namespace", "list `user` in linux.namespaces");
            }
        } else if maps.is_empty() {
            problems.invalid(property, "a new user namespace has no ids", "map at least one id");
        } else if !maps.iter().all(IdMap::is_valid) {
            problems.invalid(property, "a line has no ids, or ids beyond 2^32 - 2", "correct the line");
        }
    }
    for map in uid {
        sandbox = sandbox.uid_map(map);
    }
    for map in gid {
        sandbox = sandbox.gid_map(map);
    }
    sandbox
}

fn with_offsets(mut sandbox: Sandbox, linux: &Linux, kinds: Kinds, problems: &mut Problems) -> Sandbox {
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let property = format!("linux.timeOffsets.{clock}");
        if !kinds.new.contains(Namespaces::TIME) {
            problems.invalid(&property, "there is no new time namespace", "list `time` in linux.namespaces");
            continue;
        }
        let Some(offset) = time_offset(offset) else {
            problems.invalid(&property, "a second has less than 1,000,000,000 nanoseconds", "correct nanosecs");
            continue;
        };
        sandbox = match clock.as_str() {
            "monotonic" => sandbox.monotonic_offset(offset),
            "boottime" => sandbox.boottime_offset(offset),
            _ => {
                problems.invalid(&property, "only the clocks monotonic and boottime have offsets", "leave it out");
                sandbox
            }
        };
    }
    sandbox
}

fn time_offset(offset: &LinuxTimeOffset) -> Option<TimeOffset> {
    let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
    let apart = Duration::new(secs.unsigned_abs(), 0);
    let part = (nanos < 1_000_000_000).then(|| Duration::from_nanos(nanos.into()))?;
    if secs >= 0 { apart.checked_add(part).map(TimeOffset::Ahead) } else { Some(TimeOffset::Behind(apart - part)) }
}

/// Returns the name of a setting with dots. sysctl(8) takes names with slashes as well, in which a
/// dot belongs to a name.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Notes a path of `linux.maskedPaths` or `linux.readonlyPaths` that is none.
pub(super) fn check_paths(property: &str, paths: &[String], problems: &mut Problems) {
    for (i, path) in paths.iter().enumerate() {
        if !is_plain_absolute(path.as_ref()) {
            problems.invalid(format!("{property}[{i}]"), "it is not absolute, or has `..`", "give the path inside");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_slashes_are_those_with_dots() {
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net/ipv4/ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    }
}
