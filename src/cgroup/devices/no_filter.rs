//! Replaces `filter.rs` in a build without BPF programs for v2 groups.

use std::path::Path;

use super::rules::Devices;
use crate::cgroup::part::Part;
use crate::error::{Error, ErrorKind, Result, Step};

const REASON: &str = "on cgroup v2 the rules are a BPF program, and this build has none";
const REMEDY: &str = "build ringfence with its feature `devices`, which is on by default";

pub(in crate::cgroup) fn obstacle() -> Option<(String, &'static str)> {
    Some((REASON.to_owned(), REMEDY))
}

pub(in crate::cgroup) fn obstacle_above(_: &Path, _: &Path) -> Option<(String, &'static str)> {
    None
}

pub(in crate::cgroup) fn attach(part: &Part, _: &Devices) -> Result<()> {
    Err(Error::message(ErrorKind::Unsupported, Step::DeviceRules, REASON).at(&part.path).hint(REMEDY))
}

pub(in crate::cgroup) fn replace(part: &Part, devices: &Devices) -> Result<()> {
    attach(part, devices)
}
