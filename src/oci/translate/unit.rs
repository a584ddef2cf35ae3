//! The scope of systemd that a container has in place of a group of its own:
//! `linux.cgroupsPath`, and the annotations `org.systemd.property.*`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::surroundings::Surroundings;
use crate::cgroup::{Unit, Value, is_free_property};
use crate::oci::problems::Problems;

/// What the names of annotations begin with that are properties of the unit.
pub(in crate::oci) const PROPERTY: &str = "org.systemd.property.";
/// The prefix of scopes where the configuration says none.
const PREFIX: &str = "ringfence";

/// Returns the scope, and the path of its group, below `manager`: that of the manager which makes
/// it.
pub(super) fn unit(
    spec: &Spec,
    manager: &Path,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<(Unit, PathBuf)> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.map_or("", |path| path.to_str().unwrap_or("/"));
    let unit = names(path, around).and_then(|(slice, name)| {
        let description = format!("container {}", around.id);
        Unit::new(name, slice, description)
    });
    let mut unit = match unit {
        Ok(unit) => unit,
        Err(reason) => {
            problems.invalid("linux.cgroupsPath", reason, "write it as slice:prefix:name, as in system.slice:a:b");
            return None;
        }
    };
    unit.properties = properties(spec, problems);
    let group = unit.group(manager);
    Some((unit, group))
}

/// Returns the names of the slice and of the scope for a path as runc writes it:
/// `slice:prefix:name`.
fn names(path: &str, around: &Surroundings<'_>) -> Result<(String, String), String> {
    let default = if around.is_root { "system.slice" } else { "user.slice" };
    if path.is_empty() {
        return Ok((default.to_owned(), format!("{PREFIX}-{}.scope", around.id)));
    }
    let words: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = words[..] else {
        return Err(format!("{path:?} is not slice:prefix:name, which scopes of systemd have"));
    };
    if name.is_empty() {
        return Err(format!("{path:?} names no scope"));
    }
    if name.ends_with(".slice") {
        return Err(format!("{name:?} is a slice: a container has a scope of its own"));
    }
    let slice = if slice.is_empty() { default } else { slice };
    let stem = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    Ok((slice.to_owned(), format!("{stem}.scope")))
}

/// Returns the properties of annotations, as runc takes them: the text form of GVariant, and a name
/// that ends in `Sec` for seconds.
fn properties(spec: &Spec, problems: &mut Problems) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (annotation, text) in spec.annotations().iter().flatten() {
        let Some(name) = annotation.strip_prefix(PROPERTY) else { continue };
        match property(name, text) {
            Ok(property) => all.push(property),
            Err(reason) => {
                let remedy = "write it as in TimeoutStopUSec: \"uint64 5000000\", or CollectMode: \"'inactive'\"";
                problems.invalid(format!("annotations.{annotation}"), reason, remedy);
            }
        }
    }
    // The annotations come in no order.
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

fn property(name: &str, text: &str) -> Result<(String, Value), String> {
    if !is_free_property(name) {
        return Err("it is no property that a configuration sets".to_owned());
    }
    let value = Value::parse(text)?;
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match seconds {
        None => Ok((name.to_owned(), value)),
        Some(stem) => match value.seconds_as_micros() {
            Some(micros) => Ok((format!("{stem}USec"), micros)),
            None => Err(format!("{text:?} is no number of seconds")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        linux: serde_json::Value,
        annotations: serde_json::Value,
        is_root: bool,
    ) -> Result<(Unit, PathBuf), String> {
        let spec = serde_json::json!({"ociVersion": "1.3.0", "linux": linux, "annotations": annotations});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let parent = Path::new("/above");
        let manager = Some(Path::new("/m"));
        let around = Surroundings { bundle: Path::new("/"), id: "box", is_root, cgroup_parent: parent, units: manager };
        let mut problems = Problems::default();
        let unit = unit(&spec, Path::new("/m"), &around, &mut problems);
        problems.unless_any(unit).map_err(|error| error.to_string()).map(Option::unwrap)
    }

    #[test]
    fn paths_are_read_as_runc_reads_them() {
        let path = |path: &str, is_root| {
            read(serde_json::json!({ "cgroupsPath": path }), serde_json::json!({}), is_root).map(|(unit, path)| {
                assert!(path.ends_with(unit.name));
                path.display().to_string()
            })
        };
        let pod = "/m/kubepods.slice/kubepods-pod1.slice/cri-containerd-0a.scope";
        assert_eq!(path("kubepods-pod1.slice:cri-containerd:0a", true).as_deref(), Ok(pod));
        assert_eq!(path("", true).as_deref(), Ok("/m/system.slice/ringfence-box.scope"));
        assert_eq!(path("", false).as_deref(), Ok("/m/user.slice/ringfence-box.scope"));
        assert_eq!(path(":libpod:0a", false).as_deref(), Ok("/m/user.slice/libpod-0a.scope"));
        assert_eq!(path("user.slice::0a", false).as_deref(), Ok("/m/user.slice/0a.scope"));
        assert_eq!(path("-.slice:a:b", true).as_deref(), Ok("/m/a-b.scope"));
        let long = format!("system.slice:a:{}", "b".repeat(250));
        for text in [
            "/a/b",
            "a",
            "a:b",
            "a:b:c:d",
            "::",
            "system.slice:a:",
            "system:a:b",
            "../a.slice:a:b",
            "..slice:a:b",
            "a/b.slice:a:b",
            "system.slice:../a:b",
            "system.slice:a:../b",
            "system.slice:a/b:c",
            "system.slice::..",
            "system.slice:a:b.slice",
            "a--b.slice:a:b",
            "system.slice:a:b\n",
            "system.slice:\\x2f b:c",
            &long,
        ] {
            let refused = path(text, true).unwrap_err();
            assert!(refused.contains("linux.cgroupsPath"), "{text:?}: {refused}");
        }
        // What looks like an escape is a name as it stands.
        assert!(path("system.slice:a\\x2e\\x2e:b", true).is_ok());
    }

    #[test]
    fn annotations_are_properties_or_refused_by_name() {
        let properties = |annotations| read(serde_json::json!({}), annotations, true).map(|(unit, _)| unit.properties);
        let annotations = serde_json::json!({
            "org.systemd.property.TimeoutStopSec": "5", "org.systemd.property.CollectMode": "'inactive'", "other": "x",
            "org.systemd.property.RuntimeMaxUSec": "uint64 7",
        });
        let expected = [
            ("CollectMode".to_owned(), Value::Str("inactive".into())),
            ("RuntimeMaxUSec".to_owned(), Value::U64(7)),
            ("TimeoutStopUSec".to_owned(), Value::U64(5_000_000)),
        ];
        assert_eq!(properties(annotations).unwrap(), expected);
        for (name, text) in [
            ("", "1"),
            ("PIDs", "@au [1]"),
            ("Slice", "'a.slice'"),
            ("Delegate", "false"),
            ("Memory Max", "1"),
            ("CollectMode", "inactive"),
            ("TimeoutStopSec", "'5'"),
            ("TimeoutStopSec", "-5"),
        ] {
            let name = format!("org.systemd.property.{name}");
            let refused = properties(serde_json::json!({ name.as_str(): text })).unwrap_err();
            assert!(refused.contains(&format!("annotations.{name}")), "{name} {text}: {refused}");
        }
    }
}
