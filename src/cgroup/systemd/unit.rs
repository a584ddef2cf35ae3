//! The transient scope of one sandbox, which outlives the process that has it made.

use std::path::{Path, PathBuf};

use super::properties::Property;
use crate::cgroup::unit_id::{NAME_MAX, is_scope, is_stem};

/// Properties that say what the unit is, and are not for anybody else to set: with another process,
/// or in another place, it would not be the sandbox's.
const OWN: [&str; 9] = [
    "PIDs",
    "PIDFDs",
    "Slice",
    "Delegate",
    "DelegateSubgroup",
    "DelegateControllers",
    "ControlGroup",
    "Controller",
    "Scope",
];

/// A scope that is to be made for one sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) slice: String,
    pub(crate) description: String,
    /// Properties beside the limits, which stand over those that a unit has by default.
    pub(crate) properties: Vec<Property>,
}

impl Unit {
    /// Returns the unit, or what is wrong with its names.
    pub(crate) fn new(name: String, slice: String, description: String) -> Result<Unit, String> {
        if !is_scope(&name) {
            let reason = format!(
                "{name:?} is no name of a scope: letters, digits and :-_.\\ alone, {NAME_MAX} of them at most, and \
                 no dot at first"
            );
            return Err(reason);
        }
        if slice_path(&slice).is_none() {
            return Err(format!("{slice:?} is no name of a slice, as in system.slice or a-b.slice"));
        }
        Ok(Unit { name, slice, description, properties: Vec::new() })
    }

    /// Returns the unit's control group, below the group of the manager.
    pub(crate) fn group(&self, manager: &Path) -> PathBuf {
        manager.join(slice_path(&self.slice).unwrap_or_default()).join(&self.name)
    }
}

/// Returns the path of a slice below the group of its manager: `a-b.slice` is in `a.slice`.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice").filter(|_| slice.len() <= NAME_MAX)?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    if !is_stem(stem) || stem.split('-').any(str::is_empty) {
        return None;
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

/// Returns whether a property may be set from outside: its name is one, and it is none that says
/// what the unit is.
pub(crate) fn is_free_property(name: &str) -> bool {
    (3..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic()) && !OWN.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_stands_in_those_that_its_name_begins_with() {
        let path = |slice| slice_path(slice).map(|path| path.display().to_string());
        assert_eq!(path("system.slice").as_deref(), Some("system.slice"));
        let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        assert_eq!(path("kubepods-burstable-pod1_2.slice").as_deref(), Some(pod));
        assert_eq!(path("-.slice").as_deref(), Some(""));
    }

    #[test]
    fn hostile_names_are_no_slices() {
        for slice in [
            "",
            ".slice",
            "slice",
            "a",
            "a.scope",
            "a/b.slice",
            "../a.slice",
            "...slice",
            "..slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "--.slice",
            "a b.slice",
            "a\n.slice",
            "a\0.slice",
            "ä.slice",
            "a@b.slice",
            &format!("{}.slice", "a".repeat(250)),
        ] {
            assert_eq!(slice_path(slice), None, "{slice:?}");
            assert!(Unit::new("a.scope".into(), slice.into(), String::new()).is_err(), "{slice:?}");
        }
        crate::fuzz::texts(&["kubepods-besteffort-pod1.slice"], |text| {
            let path = slice_path(text).unwrap_or_default();
            assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{text:?}");
        });
    }

    #[test]
    fn hostile_names_are_no_scopes() {
        let make = |name: &str| Unit::new(name.into(), "system.slice".into(), String::new());
        let unit = make("cri-containerd-0123.scope").unwrap();
        assert_eq!(unit.group(Path::new("/")), Path::new("/system.slice/cri-containerd-0123.scope"));
        for name in [
            "",
            ".scope",
            "..scope",
            "a/b.scope",
            "../a.scope",
            "a+b.scope",
            "a.slice",
            "a b.scope",
            "a@b.scope",
            "ä.scope",
        ] {
            assert!(make(name).is_err(), "{name:?}");
        }
        assert!(make(&format!("{}.scope", "a".repeat(249))).is_ok());
        assert!(make(&format!("{}.scope", "a".repeat(250))).is_err());
    }

    #[test]
    fn properties_of_the_units_own_are_not_free() {
        assert!(["TimeoutStopUSec", "CollectMode", "IPAddressDeny"].into_iter().all(is_free_property));
        let long = "A".repeat(256);
        for name in ["PIDs", "Slice", "Delegate", "", "A", "Memory Max", "A.B", "A-B", "Äbc", "Abc\n", long.as_str()] {
            assert!(!is_free_property(name), "{name:?}");
        }
    }
}
