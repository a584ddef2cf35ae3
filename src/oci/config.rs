//! The configuration of a container: `config.json` of a bundle.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{
    Capability, LinuxResources, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec,
};
use serde::Deserialize;
use serde_json::Value;

use super::translate::{
    CGROUP_PARENT, Surroundings, Translation, filter_flags, has_cgroup_ns, has_mount_ns, has_type_as_access,
    is_host_root, is_of_groups, leniencies, mount_warnings, translate,
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
        Config::from_json(&read(path.as_ref())?).map_err(|error| error.at(path.as_ref()))
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
        let told = seccomp.as_ref().map(|seccomp| leniencies(seccomp, &spec)).unwrap_or_default();
        warnings.extend(warning_of_calls(&told.unknown));
        warnings.extend(warning_of_alternatives(&told.alternatives));
        warn_of_access(&spec, &mut warnings);
        warnings.extend(spec.process().as_ref().and_then(warning_of_nice));
        Ok(Config { spec, seccomp, warnings })
    }

    /// Returns what is passed over or put right, each with its path: properties and capabilities
    /// that are not known, as the specification wants it, mounts whose destination is not absolute,
    /// control groups that would be writable without a cgroup namespace, ambient capabilities that
    /// are not permitted and inheritable as well, devices below a `/dev` that is bound, and system
    /// calls that the filter is to refuse and no kernel is known to have, as other runtimes do it.
    ///
    /// Some properties are read in the way of runc, and are told as well: several comparisons of one
    /// argument of a system call, of which one that holds is enough; the letter of a type in the
    /// access of a rule for devices, and a nice value beside the times of a deadline, which both have
    /// no effect. So is a container without a mount namespace of its own, which holds less than one
    /// with it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the flags with which the filter of `linux.seccomp` is installed, as seccomp(2) has
    /// them: `SECCOMP_FILTER_FLAG_LOG` is 2, `_SPEC_ALLOW` 4, and a filter that asks has
    /// `_NEW_LISTENER` and `_WAIT_KILLABLE_RECV`, which are 40 together. `None` without a filter, and
    /// for one that cannot be read, which is an error of [`sandbox`](Config::sandbox).
    pub fn filter_flags(&self) -> Option<u64> {
        filter_flags(self.seccomp.as_ref()?, &self.spec)
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

/// Reads a file that has `process` alone, and returns the warnings with it.
pub(super) fn process_from_json(text: &[u8]) -> Result<(Process, Vec<String>)> {
    let (mut value, mut warnings) = (parse(text)?, Vec::new());
    leave_out_capabilities(&mut value, &mut warnings);
    add_user(&mut value);
    name_flags(&mut value);
    let (process, read) = typed_alone(&value)?;
    warnings.extend(warnings_of_unknown("process.", unknown(&value, &read)));
    warnings.extend(warning_of_nice(&process));
    Ok((process, warnings))
}

/// Reads a file that has `linux.resources` alone, and returns the warnings with it.
pub(super) fn resources_from_json(text: &[u8]) -> Result<(LinuxResources, Vec<String>)> {
    let value = parse(text)?;
    let (resources, read) = typed_alone(&value)?;
    Ok((resources, warnings_of_unknown("linux.resources.", unknown(&value, &read)).collect()))
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
        let hint = "a bundle is a directory with a config.json, which the command spec writes, and a root file system";
        let error = Error::new(Step::BundleConfig, errno).with_kind(kind);
        failed(if errno == nix::errno::Errno::ENOENT { error.hint(hint) } else { error })
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
    let reason = "no system call is known by these names, and they are not refused";
    (!calls.is_empty()).then(|| format!("linux.seccomp.syscalls: {reason}: {}", list_of_calls(calls)))
}

/// Warns of entries of a filter that compare an argument more than once: what looks like a range
/// is none.
fn warning_of_alternatives(calls: &BTreeSet<String>) -> Option<String> {
    let reason =
        "an argument is compared more than once, and one comparison that holds is enough, as with runc and crun";
    (!calls.is_empty()).then(|| format!("linux.seccomp.syscalls: {reason}: {}", list_of_calls(calls)))
}

fn list_of_calls(calls: &BTreeSet<String>) -> String {
    let listed = calls.iter().take(CALLS_MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = calls.len().checked_sub(CALLS_MOST).filter(|more| *more > 0);
    listed + &more.map_or_else(String::new, |more| format!(", and {more} more"))
}

/// Warns of a nice value beside the times of a deadline.
fn warning_of_nice(process: &Process) -> Option<String> {
    let listed = process.scheduler().as_ref()?;
    let is_beside =
        *listed.policy() == LinuxSchedulerPolicy::SchedDeadline && listed.nice().is_some_and(|nice| nice != 0);
    is_beside.then(|| "process.scheduler.nice: it has no effect beside the times of a deadline".to_owned())
}

/// Warns of rules for devices with the letter of a type among those of their access.
fn warn_of_access(spec: &Spec, warnings: &mut Vec<String>) {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    for (i, _) in rules.iter().enumerate().filter(|(_, rule)| has_type_as_access(rule)) {
        let reason = "`a` is a type and no access, and has no effect";
        warnings.push(format!("linux.resources.devices[{i}].access: {reason}"));
    }
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
