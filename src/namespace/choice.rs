//! The namespaces that the builder has been asked for.

use std::collections::BTreeMap;

use super::kinds::Namespaces;
use super::source::JoinSource;
use super::time_offset::TimeOffset;
use super::user_limit::UserLimit;
use crate::error::Problem;
use crate::idmap::IdMap;

/// The namespaces that the builder has been asked for, and what is set in them: the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    pub(crate) new: Namespaces,
    pub(crate) join: Vec<(Namespaces, JoinSource)>,
    /// The mount namespace that the setup enters once it has made the root in a new one. It takes the
    /// root along, as a copy that no namespace has.
    pub(crate) ends_in: Option<JoinSource>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) monotonic: Option<TimeOffset>,
    pub(crate) boottime: Option<TimeOffset>,
    pub(crate) uid_map: Vec<IdMap>,
    pub(crate) gid_map: Vec<IdMap>,
    /// The maps are those that /etc/subuid and /etc/subgid give.
    pub(crate) subids: bool,
    pub(crate) user_limits: BTreeMap<UserLimit, u32>,
    /// Settings of the kernel, by their names.
    pub(crate) sysctls: BTreeMap<String, String>,
}

impl Choice {
    /// Returns the namespaces that are not the caller's: those that are new or joined.
    pub(crate) fn apart(&self) -> Namespaces {
        self.join.iter().fold(self.new, |all, (kind, _)| all | *kind)
    }

    /// Closes the files of namespaces that are joined. Which kinds those are stays known.
    pub(crate) fn forget_sources(&mut self) {
        let sources = self.join.iter_mut().map(|(_, source)| source).chain(&mut self.ends_in);
        sources.for_each(|source| *source = JoinSource::Pid(0));
    }

    /// Returns whether a namespace of this kind is joined.
    pub(crate) fn joins(&self, kind: Namespaces) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// Returns the problems of sources that are no namespaces of their kind.
    pub(crate) fn invalid_sources(&self) -> Vec<Problem> {
        let known = self.join.iter().filter(|(kind, _)| kind.file().is_some());
        let last = self.ends_in.iter().filter_map(|source| source.problem(Namespaces::MOUNT));
        known.filter_map(|(kind, source)| source.problem(*kind)).chain(last).collect()
    }

    /// Returns the flags of the clone. After a user namespace is joined, all others belong to it,
    /// and are made by unshare; so is a mount namespace made from a template.
    pub(crate) fn at_clone(&self, template: bool) -> Namespaces {
        let late = if template { Namespaces::MOUNT } else { Namespaces::empty() };
        if self.joins(Namespaces::USER) { Namespaces::empty() } else { (self.new & Namespaces::AT_CLONE) - late }
    }

    /// Returns whether a second clone makes the program, because its pid namespace exists only
    /// after the first.
    pub(crate) fn reclones(&self) -> bool {
        self.joins(Namespaces::PID) || self.new.contains(Namespaces::PID) && self.joins(Namespaces::USER)
    }
}
