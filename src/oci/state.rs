//! The state of a container: what is kept of it, and what is shown.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{Hook, Process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::proc::identity::{self, Identity};
use crate::sys::pidfd;

/// The version of the specification that this library has.
pub(super) const VERSION: &str = "1.3.0";
/// The version of [`Saved`].
const FORMAT: u32 = 1;

/// The status of a container, by the words of the specification and of its engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// A process makes it now.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its program runs, and is frozen.
    Paused,
    /// Its program has ended, or was never started.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The state of a container, as the specification has it, with what engines read beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct State {
    /// The version of the specification.
    pub oci_version: String,
    /// The name of the container.
    pub id: String,
    /// The pid of the container's first process, in this process's pid namespace; 0 for a container
    /// that has stopped.
    pub pid: u32,
    /// The status.
    pub status: Status,
    /// The absolute path of the bundle.
    pub bundle: PathBuf,
    /// The absolute path of the root file system.
    pub rootfs: PathBuf,
    /// The time of the creation, as in RFC 3339.
    pub created: String,
    /// The annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user who has created the container.
    pub owner: String,
}

impl State {
    /// Returns the state as JSON.
    pub fn to_json(&self) -> String {
        // Text and numbers can always be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// The process that answers the questions of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listener {
    /// The socket of the process that answers.
    pub(super) path: PathBuf,
    /// The text that this process gets: `listenerMetadata`.
    #[serde(default)]
    pub(super) metadata: String,
}

/// The limits that the kernel takes only together with others, as the specification has them.
/// `None` for one that was not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Coupled {
    /// The limit of memory, in bytes.
    pub(super) memory: Option<i64>,
    /// The limit of memory and swap together, in bytes.
    pub(super) swap: Option<i64>,
    /// The quota of CPU time, in microseconds.
    pub(super) quota: Option<i64>,
    /// The period of the quota, in microseconds.
    pub(super) period: Option<u64>,
}

/// The first process of a sandbox that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct First {
    /// The identity, as [`Identity::to_line`] writes it.
    process: String,
    /// The inode of the pid namespace in which its pid is meant.
    pid_ns: u64,
}

impl First {
    /// `pid` is that of a process that nobody reaps meanwhile.
    pub(super) fn of(pid: u32) -> Result<First> {
        let failed = |errno| Error::new(Step::ContainerState, errno).with_kind(ErrorKind::Control);
        let process = pidfd::open_any(pid.cast_signed()).map_err(failed)?;
        let process = Identity::of(process.as_fd()).map_err(failed)?.to_line();
        Ok(First { process, pid_ns: identity::pid_ns().map_err(failed)? })
    }

    /// Opens the process, if it still runs, and its pid has a meaning here.
    pub(super) fn open(&self) -> Option<OwnedFd> {
        let is_here = identity::pid_ns() == Ok(self.pid_ns);
        Identity::parse(&self.process).filter(|_| is_here)?.open().ok().flatten()
    }
}

/// The data that is kept of a container. A later version reads all of it, and an earlier version as
/// much as it knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    pub(super) version: u32,
    pub(super) oci_version: String,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    pub(super) owner: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// The control group, from the root of each hierarchy.
    #[serde(default)]
    pub(super) cgroup: Option<PathBuf>,
    /// All processes end with the first one.
    #[serde(default)]
    pub(super) own_pid_ns: bool,
    /// The process that answers the questions of the filter.
    #[serde(default)]
    pub(super) listener: Option<Listener>,
    /// The limits that an update needs to know.
    #[serde(default)]
    pub(super) limits: Coupled,
    /// The first process while hooks run before the root is entered: the sandbox has no record of
    /// it yet.
    #[serde(default)]
    pub(super) first: Option<First>,
    /// The record of the sandbox, for the case that the sandbox's own cannot be read.
    #[serde(default)]
    pub(super) sandbox: Option<String>,
    /// The sandbox is gone, or goes: what has no sandbox is not about to get one.
    #[serde(default)]
    pub(super) deleting: bool,
    #[serde(default)]
    pub(super) start_container: Vec<Hook>,
    #[serde(default)]
    pub(super) poststart: Vec<Hook>,
    #[serde(default)]
    pub(super) poststop: Vec<Hook>,
    /// The configuration has no process, so that the container cannot be started.
    #[serde(default)]
    pub(super) without_process: bool,
    /// The container's process as it was configured, for further ones.
    #[serde(default)]
    pub(super) process: Option<Process>,
}

impl Saved {
    pub(super) fn new(id: &str, oci_version: &str, annotations: Option<&HashMap<String, String>>) -> Saved {
        Saved {
            version: FORMAT,
            oci_version: oci_version.to_owned(),
            id: id.to_owned(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            owner: String::new(),
            annotations: annotations.into_iter().flatten().map(|(a, b)| (a.clone(), b.clone())).collect(),
            cgroup: None,
            own_pid_ns: false,
            listener: None,
            limits: Coupled::default(),
            first: None,
            sandbox: None,
            deleting: false,
            start_container: Vec::new(),
            poststart: Vec::new(),
            poststop: Vec::new(),
            without_process: false,
            process: None,
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // Text and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what this version or another one has written. `id` is the container's name.
    pub(super) fn from_json(text: &[u8], id: &str) -> Result<Saved> {
        let unread = |reason: String| Error::message(ErrorKind::Control, Step::ContainerState, reason);
        let saved: Saved =
            serde_json::from_slice(text).map_err(|error| unread(format!("the state cannot be read: {error}")))?;
        if saved.id != id || saved.version == 0 {
            return Err(unread(format!("the state is that of {:?}", saved.id)));
        }
        Ok(saved)
    }

    /// Returns the state that is shown.
    pub(super) fn shown(&self, status: Status, pid: Option<u32>) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid: pid.filter(|_| status != Status::Stopped).unwrap_or(0),
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: self.owner.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version has written is read by every later one.
    const GOLDEN: &str = r#"{"version":1,"ociVersion":"1.3.0","id":"box","bundle":"/b","rootfs":"/b/rootfs",
        "created":"2026-01-01T00:00:00Z","owner":"0","annotations":{"a":"b"},"cgroup":"/x/box","ownPidNs":true,
        "poststart":[],"poststop":[{"path":"/bin/true","args":["true"],"timeout":5}],"process":null}"#;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let saved = Saved::from_json(GOLDEN.as_bytes(), "box").unwrap();
        assert_eq!(saved.cgroup, Some("/x/box".into()));
        assert_eq!(Saved::from_json(&saved.to_json(), "box").unwrap(), saved);
        let later = GOLDEN.replace(r#""version":1"#, r#""version":2,"later":{"x":1}"#);
        assert_eq!(Saved::from_json(later.as_bytes(), "box").unwrap().bundle, saved.bundle);
    }

    #[test]
    fn the_state_of_another_container_is_refused() {
        for (text, id) in [(GOLDEN, "other"), ("{}", "box"), ("", "box"), ("[]", "box")] {
            assert_eq!(Saved::from_json(text.as_bytes(), id).unwrap_err().kind(), ErrorKind::Control, "{text}");
        }
        crate::fuzz::texts(&[GOLDEN], |text| drop(Saved::from_json(text.as_bytes(), "box")));
    }

    #[test]
    fn a_container_that_has_stopped_has_no_pid() {
        let saved = Saved::from_json(GOLDEN.as_bytes(), "box").unwrap();
        assert_eq!(saved.shown(Status::Stopped, Some(7)).pid, 0);
        let shown = saved.shown(Status::Paused, Some(7)).to_json();
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(
            (&value["pid"], &value["status"], &value["ociVersion"]),
            (&7.into(), &"paused".into(), &"1.3.0".into())
        );
    }
}
