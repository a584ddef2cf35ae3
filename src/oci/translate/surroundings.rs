//! What a container is made from beside its configuration.

use std::path::Path;

use crate::proc::user_ns;

/// The group below which containers are whose configuration names none from the root.
pub(in crate::oci) const CGROUP_PARENT: &str = "/ringfence-oci";

/// What a container is made from beside its configuration.
#[derive(Debug, Clone, Copy)]
pub(in crate::oci) struct Surroundings<'a> {
    /// The absolute path of the bundle.
    pub(in crate::oci) bundle: &'a Path,
    pub(in crate::oci) id: &'a str,
    /// The runtime is root, and in no user namespace but the host's: it may make device nodes, and
    /// control groups where it likes.
    pub(in crate::oci) is_root: bool,
    /// The group below which those are made whose path is not absolute.
    pub(in crate::oci) cgroup_parent: &'a Path,
    /// The group below which the caller's systemd makes its units, if each container has a scope of
    /// it.
    pub(in crate::oci) units: Option<&'a Path>,
}

#[cfg(test)]
impl Surroundings<'_> {
    /// Those of the container `box` of the host's root.
    pub(in crate::oci) fn of_root() -> Surroundings<'static> {
        let (bundle, cgroup_parent) = (Path::new("/"), Path::new("/above"));
        Surroundings { bundle, id: "box", is_root: true, cgroup_parent, units: None }
    }
}

/// Returns whether this process is the host's root.
pub(in crate::oci) fn is_host_root() -> bool {
    nix::unistd::geteuid().is_root() && user_ns::is_initial()
}
