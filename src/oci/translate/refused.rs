//! Properties that are refused whatever their value is.

use std::path::Path;

use oci_spec::runtime::{Linux, Spec};

use crate::oci::problems::Problems;

/// The file system of processor caches and memory bandwidth.
const RESCTRL: &str = "/sys/fs/resctrl";

/// Refuses the platforms that are not this one, and what this library does not have.
pub(super) fn refuse(spec: &Spec, problems: &mut Problems) {
    let other = "it is for another platform than linux";
    problems.refuse_if(spec.solaris().is_some(), "solaris", other);
    problems.refuse_if(spec.windows().is_some(), "windows", other);
    problems.refuse_if(spec.zos().is_some(), "zos", other);
    problems.refuse_if(spec.vm().is_some(), "vm", "this runtime makes no virtual machines");
    let place = "the specification has the maps of ids in `linux`";
    problems.refuse_if(spec.uid_mappings().is_some(), "uidMappings", place);
    problems.refuse_if(spec.gid_mappings().is_some(), "gidMappings", place);
}

/// Refuses what this library does not have of `linux`.
pub(super) fn refuse_linux(linux: &Linux, problems: &mut Problems) {
    let resctrl = if Path::new(RESCTRL).join("schemata").exists() {
        "resctrl groups are not made"
    } else {
        "no resctrl is mounted at /sys/fs/resctrl, and groups in it are not made"
    };
    problems.refuse_if(linux.intel_rdt().is_some(), "linux.intelRdt", resctrl);
}
