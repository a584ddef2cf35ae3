//! The configuration of a container: `config.json` of a bundle.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{Capability, LinuxResources, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec};
use serde::Deserialize;
use serde_json::Value;

use super::translate::{
    CGROUP_PARENT, Surroundings, Translation, has_cgroup_ns, has_mount_ns, is_host_root, is_of_groups, mount_warnings,
    translate, unknown_calls,
};
use super::unknown::{list_for_object, unknown};
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::sandbox::Sandbox;

/// The longest configuration that is read, in bytes.
const SIZE_MAX: u64 = 16 << 20;
/// The most system calls that are listed in a warning.
const CALLS_MOST: usize = 64;
/// The sets of `process.capabilities`.
const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// The configuration of a container, as the
/// [OCI runtime specification](https://github.com/opencontainers/runtime-spec/blob/main/config.md)
/// has it.
///
/// ```
/// use std::path::Path;
///
/// use ringfence::oci::Config;
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let text = r#"{
///     "ociVersion": "1.3.0",
///     "root": {"path": "/srv/alpine"},
///     "process": {"user": {"uid": 0, "gid": 0}, "args": ["id"], "cwd": "/"},
///     "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "mountLabel": "a"}
/// }"#;
/// let error = Config::from_json(text.as_bytes())?.sandbox(Path::new("/"), "box").unwrap_err();
/// assert!(error.problems().iter().any(|problem| problem.subject == "linux.mountLabel"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    spec: Spec,
    seccomp: Option<Value>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads `config.json` of a bundle, of 16 MiB at most. The file is not a symbolic link.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such file, [`ErrorKind::TooLarge`], and the errors of
    /// [`from_json`](Config::from_json).
    pub fn load(bundle: impl AsRef<Path>) -> Result<Config> {
        Config::load_file(bundle.as_ref().join("config.json"))
    }

    /// Reads a configuration that has another name than `config.json`.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Config::load).
    pub fn load_file(path: impl AsRef<Path>) -> Result<Config> {
        Config::from_json(&read(path.as_ref())?)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the text is not JSON, or not of the types of the specification.
    pub fn from_json(text: &[u8]) -> Result<Config> {
        let (mut value, mut warnings) = (parse(text)?, Vec::new());
        if let Some(process) = value.get_mut("process") {
            leave_out_capabilities(process, &mut warnings);
            add_user(process);
            name_flags(process);
        }
        check_memory_policy(&value)?;
        let spec: Spec = typed(&value)?;
        let read = serde_json::to_value(&spec).map_err(|error| invalid(error.to_string()))?;
        refuse_list(&value, &read)?;
        warnings.extend(warnings_of_unknown("", unknown(&value, &read)));
        warnings.extend(mount_warnings(&spec));
        warn_of_writable_groups(&spec, &mut warnings);
        if !has_mount_ns(&spec) {
            let reason = "without a new `mount`, the container is in a mount namespace with another root: its own is \
                          entered by chroot(2), and a program that may write to the directory above a mount could \
                          rename or remove what that stands on";
            warnings.push(format!("linux.namespaces: {reason}"));
        }
        let seccomp = value.pointer("/linux/seccomp").filter(|seccomp| !seccomp.is_null()).cloned();
        let calls = seccomp.as_ref().map(|seccomp| unknown_calls(seccomp, &spec)).unwrap_or_default();
        warnings.extend(warning_of_calls(&calls));
        Ok(Config { spec, seccomp, warnings })
    }

    /// Returns what is passed over or put right, each with its path: properties and capabilities
    /// that are not known, as the specification wants it, mounts whose destination is not absolute,
    /// control groups that would be writable without a cgroup namespace, ambient capabilities that
    /// are not permitted and inheritable as well, devices below a `/dev` that is bound, and system
    /// calls that the filter is to refuse and no kernel is known to have, as other runtimes do it.
    /// And what holds less than it might: a container without a mount namespace of its own.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns whether the process has a terminal of its own: `process.terminal`.
    pub fn has_terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(Process::terminal).unwrap_or(false)
    }

    /// Returns the sandbox that the configuration asks for. `id` is the container's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] with
    /// [`Error::problems`](crate::Error::problems), whose subjects are the paths of properties:
    /// what the specification forbids, and what this library does not carry out.
    pub fn sandbox(&self, bundle: impl AsRef<Path>, id: &str) -> Result<Sandbox> {
        let bundle = bundle.as_ref();
        if self.spec.process().is_none() {
            let problem = Problem::invalid("process", "it is missing", "name the program of the container");
            return Err(Error::refused(vec![problem]));
        }
        let (is_root, cgroup_parent) = (is_host_root(), Path::new(CGROUP_PARENT));
        let translation = self.translate(&Surroundings { bundle, id, is_root, cgroup_parent, units: None })?;
        Ok(translation.sandbox)
    }

    pub(super) fn translate(&self, around: &Surroundings<'_>) -> Result<Translation> {
        translate(&self.spec, self.seccomp.as_ref(), around)
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }
}

/// Returns what [`Container::exec`](super::Container::exec) passes over of a process, each with its
/// path: properties and capabilities that are not known, and ambient capabilities that are not
/// permitted and inheritable as well.
///
/// ```
/// let process = br#"{"args": ["ps"], "cwd": "/", "capabilities": {"bounding": ["CAP_OF_TOMORROW"]}}"#;
/// let warnings = ringfence::oci::exec_warnings(process)?;
/// assert!(warnings[0].starts_with("process.capabilities.bounding: \"CAP_OF_TOMORROW\""));
/// # Ok::<(), ringfence::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Invalid`] if the text is not JSON, or not of the types of the specification.
pub fn exec_warnings(process: &[u8]) -> Result<Vec<String>> {
    Ok(read_process(process)?.1)
}

/// Returns what [`Container::update`](super::Container::update) passes over of limits, each with its
/// path: properties that are not known.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] if the text is not JSON, or not of the types of the specification.
pub fn update_warnings(resources: &[u8]) -> Result<Vec<String>> {
    let value = parse(resources)?;
    Ok(warnings_of_unknown("linux.resources.", unknown(&value, &typed_alone::<LinuxResources>(&value)?.1)).collect())
}

/// Reads the process of an `exec`: a file that has `process` alone.
pub(super) fn process_from_json(text: &[u8]) -> Result<Process> {
    Ok(read_process(text)?.0)
}

fn read_process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    let (mut value, mut warnings) = (parse(text)?, Vec::new());
    leave_out_capabilities(&mut value, &mut warnings);
    add_user(&mut value);
    name_flags(&mut value);
    let (process, read) = typed_alone(&value)?;
    warnings.extend(warnings_of_unknown("process.", unknown(&value, &read)));
    Ok((process, warnings))
}

/// Reads the limits of an update: a file that has `linux.resources` alone.
pub(super) fn resources_from_json(text: &[u8]) -> Result<LinuxResources> {
    Ok(typed_alone(&parse(text)?)?.0)
}

/// Returns the warnings of properties that are not known. `above`: the path of what their paths
/// begin in, with the dot.
fn warnings_of_unknown(above: &str, paths: Vec<String>) -> impl Iterator<Item = String> {
    paths.into_iter().map(move |path| format!("{above}{path}: the property is not known, and has no effect"))
}

/// Reads a file of the configuration's size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: Error| error.at(path);
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| {
        let kind = if errno == nix::errno::Errno::ENOENT { ErrorKind::NotFound } else { ErrorKind::Invalid };
        failed(Error::new(Step::BundleConfig, errno).with_kind(kind))
    })?;
    let mut text = Vec::new();
    let read = File::from(file).take(SIZE_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| failed(Error::io(Step::BundleConfig, &error).with_kind(ErrorKind::Invalid)))?;
    if text.len() as u64 > SIZE_MAX {
        let reason = format!("it has more than {SIZE_MAX} bytes");
        return Err(failed(Error::message(ErrorKind::TooLarge, Step::BundleConfig, reason)));
    }
    Ok(text)
}

fn invalid(reason: String) -> Error {
    Error::message(ErrorKind::Invalid, Step::BundleConfig, reason)
}

fn parse(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|error| invalid(format!("it is not JSON: {error}")))
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| invalid(format!("it is not as the specification has it: {error}")))
}

/// Reads a file that has a part of the configuration alone.
fn typed_alone<T: serde::de::DeserializeOwned + serde::Serialize>(value: &Value) -> Result<(T, Value)> {
    let part = typed(value)?;
    let read = serde_json::to_value(&part).map_err(|error| invalid(error.to_string()))?;
    refuse_list(value, &read)?;
    Ok((part, read))
}

/// Refuses a list of an object's values in their order, which the types would take for the object.
fn refuse_list(value: &Value, read: &Value) -> Result<()> {
    match list_for_object(value, read) {
        None => Ok(()),
        Some(path) if path.is_empty() => Err(invalid("a list where an object belongs".to_owned())),
        Some(path) => Err(invalid(format!("{path}: a list where an object belongs"))),
    }
}

/// Gives the flags of a scheduler the names by which the types know them. Those of the
/// specification are the kernel's.
fn name_flags(process: &mut Value) {
    let names =
        [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if let Some((_, known)) = names.iter().find(|(name, _)| flag == name) {
            *flag = (*known).into();
        }
    }
}

/// Checks the words of `linux.memoryPolicy`, in the words of other runtimes.
fn check_memory_policy(value: &Value) -> Result<()> {
    let Some(policy) = value.pointer("/linux/memoryPolicy").filter(|policy| policy.is_object()) else { return Ok(()) };
    let said = |what, error| invalid(format!("linux.memoryPolicy: invalid memory policy {what}: {error}"));
    MemoryPolicyModeType::deserialize(&policy["mode"]).map_err(|error| said("mode", error))?;
    for flag in policy["flags"].as_array().into_iter().flatten() {
        MemoryPolicyFlagType::deserialize(flag).map_err(|error| said("flag", error))?;
    }
    Ok(())
}

/// Gives a process without a user the one of the container's root, as the specification's own types
/// do.
fn add_user(process: &mut Value) {
    if let Value::Object(process) = process {
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
}

/// Leaves out capabilities that the types do not know, as the specification wants it.
fn leave_out_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(sets) = process.get_mut("capabilities") else { return };
    for set in SETS {
        let Some(Value::Array(names)) = sets.get_mut(set) else { continue };
        names.retain(|name| {
            let known = !name.is_string() || typed::<Capability>(name).is_ok();
            if !known {
                warnings.push(format!("process.capabilities.{set}: {name} is not known, and has no effect"));
            }
            known
        });
    }
    leave_out_ambient(sets, warnings);
}

/// Leaves out ambient capabilities that the kernel would not take, because they are not both
/// permitted and inheritable: what engines write has such, and other runtimes go without them.
fn leave_out_ambient(sets: &mut Value, warnings: &mut Vec<String>) {
    let listed = |set: &str| -> Vec<Capability> {
        let names = sets.get(set).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(|name| typed(name).ok()).collect()
    };
    let (permitted, inheritable) = (listed("permitted"), listed("inheritable"));
    let Some(Value::Array(names)) = sets.get_mut("ambient") else { return };
    let mut without = Vec::new();
    names.retain(|name| {
        // What is no name at all is an error of its own.
        let Ok(one) = typed(name) else { return true };
        let taken = permitted.contains(&one) && inheritable.contains(&one);
        if !taken {
            without.extend(name.as_str().map(str::to_owned));
        }
        taken
    });
    for name in without {
        let reason = "it is not both permitted and inheritable";
        // In the words of other runtimes.
        warnings.push(format!("process.capabilities.ambient: can't raise ambient capability {name}: {reason}"));
    }
}

/// Warns of system calls that a filter is to refuse, and that are not known.
fn warning_of_calls(calls: &BTreeSet<String>) -> Option<String> {
    let listed = || calls.iter().take(CALLS_MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = calls.len().checked_sub(CALLS_MOST).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(", and {more} more"));
    let reason = "no system call is known by these names, and they are not refused";
    (!calls.is_empty()).then(|| format!("linux.seccomp.syscalls: {reason}: {}{more}", listed()))
}

/// Warns of control groups that are to be writable outside of a cgroup namespace: they are shown
/// read-only.
fn warn_of_writable_groups(spec: &Spec, warnings: &mut Vec<String>) {
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        let is_writable = mount.options().iter().flatten().any(|word| word == "rw");
        if is_of_groups(mount) && is_writable && !has_cgroup_ns(spec) {
            let reason = "control groups are read-only without a cgroup namespace of the container's own";
            warnings.push(format!("mounts[{i}].options: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over_and_named() {
        let text =
            br#"{"ociVersion": "1.3.0", "later": 1, "linux": {"resources": {"memory": {"new": 1}}, "namespaces": []},
            "process": {"user": {}, "cwd": "/", "capabilities": {"bounding": ["CAP_CHOWN", "CAP_OF_TOMORROW"]}}}"#;
        let warnings = Config::from_json(text).unwrap().warnings;
        let subjects: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(':').next()).collect();
        let passed_over = ["process.capabilities.bounding", "later", "linux.resources.memory.new"];
        assert_eq!(subjects, [&passed_over[..], &["linux.namespaces"]].concat());
    }

    #[test]
    fn ambient_capabilities_without_the_others_are_passed_over_and_named() {
        let text =
            br#"{"linux": {"namespaces": [{"type": "mount"}]}, "process": {"user": {}, "cwd": "/", "capabilities": {
            "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"]}}}"#;
        let config = Config::from_json(text).unwrap();
        let sets = config.spec.process().as_ref().and_then(|process| process.capabilities().clone()).unwrap();
        assert_eq!(sets.ambient().clone().unwrap().into_iter().collect::<Vec<_>>(), [Capability::Kill]);
        assert!(config.warnings[0].contains("CAP_CHOWN") && config.warnings.len() == 1, "{:?}", config.warnings);
    }

    #[test]
    fn words_of_a_process_are_those_of_the_specification() {
        let text = br#"{"process": {"cwd": "/", "scheduler": {"policy": "SCHED_OTHER",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]}}}"#;
        let config = Config::from_json(text).unwrap();
        let process = config.spec.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
        for (policy, what) in [
            ("{}", "mode"),
            (r#"{"mode": "INTERLEAVE"}"#, "mode"),
            (r#"{"mode": "MPOL_BIND", "flags": ["bad"]}"#, "flag"),
        ] {
            let text = format!(r#"{{"linux": {{"memoryPolicy": {policy}}}}}"#);
            let error = Config::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("invalid memory policy {what}:")), "{error}");
        }
    }

    #[test]
    fn texts_that_are_no_configuration_are_errors() {
        for text in [
            "",
            "[",
            "[]",
            r#"{"root": ["/"]}"#,
            "1",
            r#"{"process": 1}"#,
            r#"{"linux": {"namespaces": [{"type": "moon"}]}}"#,
        ] {
            assert_eq!(Config::from_json(text.as_bytes()).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Config::from_json(deep.as_bytes()).unwrap_err().kind(), ErrorKind::Invalid);
        crate::fuzz::texts(&[r#"{"ociVersion": "1.3.0", "process": {"user": {}, "cwd": "/"}}"#], |text| {
            drop(Config::from_json(text.as_bytes()));
        });
    }
}
