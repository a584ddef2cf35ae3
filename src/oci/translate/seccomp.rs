//! The filter of system calls: `linux.seccomp`.

use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::Value;

use super::process::bounding_names;
use crate::oci::problems::Problems;
use crate::oci::state::Listener;
use crate::sandbox::Sandbox;
use crate::security::{Leniencies, Seccomp};

/// `profile` is `linux.seccomp` as it stands in the file: the same reader takes it as the files of
/// Docker and podman.
pub(super) fn with_filter(
    sandbox: Sandbox,
    spec: &Spec,
    profile: Option<&Value>,
    capabilities: &[String],
    problems: &mut Problems,
) -> (Sandbox, Option<Listener>) {
    let (Some(profile), Some(linux)) = (profile, spec.linux()) else { return (sandbox, None) };
    // They are among the warnings.
    let mut told = Leniencies::default();
    match Seccomp::read_json(&profile.to_string(), capabilities, Some(&mut told)) {
        Ok(filter) => {
            if asks_about_write(profile) {
                // In the words of other runtimes.
                let reason = "SCMP_ACT_NOTIFY cannot be used for the write syscall: other runtimes write between the \
                              filter and the program, and would wait for ever";
                problems.refused("linux.seccomp.syscalls", reason);
            }
            let listener = linux.seccomp().as_ref().and_then(|listed| listener(listed, filter.asks(), problems));
            let sealed = spec.process().as_ref().and_then(|process| process.no_new_privileges()).unwrap_or(false);
            (sandbox.seccomp(filter.allow_new_privs(!sealed)), listener)
        }
        Err(error) => {
            problems.add("linux.seccomp", &error);
            (sandbox, None)
        }
    }
}

/// Returns whether a filter asks about write(2).
fn asks_about_write(profile: &Value) -> bool {
    let rules = profile["syscalls"].as_array().map(Vec::as_slice).unwrap_or_default();
    rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY").any(|rule| {
        let names = rule["names"].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().any(|name| name == "write")
    })
}

/// Returns what is read of a filter as other runtimes read it. A filter that cannot be read is an
/// error later.
pub(in crate::oci) fn leniencies(profile: &Value, spec: &Spec) -> Leniencies {
    let mut told = Leniencies::default();
    let capabilities = bounding_names(spec.process().as_ref());
    let _ = Seccomp::read_json(&profile.to_string(), capabilities, Some(&mut told));
    told
}

/// Returns the flags with which a filter is installed; `None` for one that cannot be read.
pub(in crate::oci) fn filter_flags(profile: &Value, spec: &Spec) -> Option<u64> {
    let capabilities = bounding_names(spec.process().as_ref());
    let told = &mut Leniencies::default();
    Seccomp::read_json(&profile.to_string(), capabilities, Some(told)).ok().map(|filter| filter.flags())
}

/// Returns who answers the questions of a filter that asks; nobody where it asks nothing.
fn listener(listed: &LinuxSeccomp, asks: bool, problems: &mut Problems) -> Option<Listener> {
    let path = listed.listener_path().as_deref().filter(|path| !path.as_os_str().is_empty());
    let metadata = listed.listener_metadata().clone().unwrap_or_default();
    let Some(path) = path else {
        let remedy = "name the socket of the process that answers";
        if asks {
            problems.invalid("linux.seccomp.listenerPath", "it is missing, and the filter asks", remedy);
        }
        if !metadata.is_empty() {
            problems.invalid("linux.seccomp.listenerMetadata", "it is sent to nobody without listenerPath", remedy);
        }
        return None;
    };
    if !path.is_absolute() {
        problems.invalid("linux.seccomp.listenerPath", "it is not absolute", "give the path of the socket");
    }
    asks.then(|| Listener { path: path.to_owned(), metadata })
}
