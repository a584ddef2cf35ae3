//! A whole configuration as a sandbox.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde_json::Value;

use super::hooks::{Hooks, hooks};
use super::mounts::{Around, mount_label, with_mounts};
use super::namespaces::{has_cgroup_ns, joined_user_ns, with_namespaces};
use super::net_devices::net_devices;
use super::process::{bounding_names, with_process};
use super::refused::{refuse, refuse_linux};
use super::resources::{group_path, with_resources};
use super::root::with_root;
use super::seccomp::with_filter;
use super::surroundings::Surroundings;
use super::unit::unit;
use crate::error::Result;
use crate::namespace::Namespaces;
use crate::network::Device;
use crate::oci::problems::Problems;
use crate::oci::state::Listener;
use crate::sandbox::Sandbox;
use crate::security::has_selinux;

/// A configuration that can be carried out.
#[derive(Debug)]
pub(in crate::oci) struct Translation {
    pub(in crate::oci) sandbox: Sandbox,
    /// The path of the control group, from the root of each hierarchy.
    pub(in crate::oci) cgroup: Option<PathBuf>,
    /// All processes end with the first one.
    pub(in crate::oci) own_pid_ns: bool,
    /// Who answers the questions of the filter.
    pub(in crate::oci) listener: Option<Listener>,
    pub(in crate::oci) hooks: Hooks,
    /// The interfaces of the host that move into the container.
    pub(in crate::oci) net_devices: Vec<Device>,
}

/// Translates a configuration. `seccomp` is `linux.seccomp` as it stands in the file.
pub(in crate::oci) fn translate(
    spec: &Spec,
    seccomp: Option<&Value>,
    around: &Surroundings<'_>,
) -> Result<Translation> {
    let mut problems = Problems::default();
    check_version(spec.version(), &mut problems);
    refuse(spec, &mut problems);
    let linux = spec.linux().as_ref();
    if let Some(linux) = linux {
        refuse_linux(linux, &mut problems);
    }
    let sandbox = Sandbox::new().default_mounts(false).default_masks(false).die_with_owner(false);
    let (sandbox, kinds) = with_namespaces(sandbox, spec, &mut problems);
    let sandbox = with_root(sandbox, spec, around.bundle, &mut problems);
    let (sandbox, is_limited) = with_resources(sandbox, linux, around, &mut problems);
    let unit = around.units.and_then(|manager| unit(spec, manager, around, &mut problems));
    let cgroup = match &unit {
        Some((_, group)) => Some(group.clone()),
        None if around.units.is_some() => None,
        None => group_path(linux, is_limited, around, &mut problems),
    };
    let beside = Around {
        bundle: around.bundle,
        has_group: cgroup.is_some(),
        has_cgroup_ns: has_cgroup_ns(spec),
        label: mount_label(spec, has_selinux, &mut problems),
        joined_user_ns: joined_user_ns(spec),
        roots: &[],
    };
    let sandbox = with_mounts(sandbox, spec, beside, &mut problems);
    let sandbox = with_process(sandbox, spec, around.bundle, &mut problems);
    let names = bounding_names(spec.process().as_ref());
    let (mut sandbox, listener) = with_filter(sandbox, spec, seccomp, &names, &mut problems);
    if let Some(path) = &cgroup {
        sandbox = sandbox.cgroup(path);
    }
    if let Some((unit, _)) = unit {
        sandbox = sandbox.in_unit(unit);
    }
    let own_pid_ns = kinds.new.contains(Namespaces::PID);
    let hooks = hooks(spec, kinds, around.bundle, &mut problems);
    let net_devices = net_devices(linux, kinds, around, &mut problems);
    problems.unless_any(Translation { sandbox, cgroup, own_pid_ns, listener, hooks, net_devices })
}

/// Every 1.x can be read: the specification is versioned as semver has it.
fn check_version(version: &str, problems: &mut Problems) {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([1, _, _]) => {}
        Some([_, _, _]) => {
            problems.refused("ociVersion", format!("{version:?} is not a version 1 of the specification"))
        }
        _ => problems.invalid("ociVersion", format!("{version:?} is no version"), "write it as in 1.3.0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_1_is_read() {
        let is_read = |version| {
            let mut problems = Problems::default();
            check_version(version, &mut problems);
            problems.unless_any(()).is_ok()
        };
        assert!(["1.0.0", "1.0.2-dev", "1.3.0", "1.9.7+build"].into_iter().all(is_read));
        assert!(!["", "1", "1.0", "2.0.0", "0.9.0", "1.a.0", "one"].into_iter().any(is_read));
    }
}
