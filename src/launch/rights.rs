//! The rights of one further program: those of the sandbox, with what its command says over them.

use std::sync::Arc;

use caps::Capability;

use super::entrance::Entrance;
use crate::command::Command;
use crate::error::Problem;
use crate::judge::Judgement;
use crate::namespace::{IdMaps, Namespaces, Outside};
use crate::policy::Policy;

/// What one further program gets.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) policy: Arc<Policy>,
    pub(super) judgement: Arc<Judgement>,
    /// The user and group that the program is outside, if the caller's ids say.
    pub(super) user_outside: Option<(u32, u32)>,
    /// The command asks for privileges by exec.
    pub(super) keeps_new_privs: bool,
    /// A process of the sandbox may trace others, as far as its policy says.
    pub(super) is_traced: bool,
    /// The rights that the command says, and that the sandbox's first process need not have.
    pub(super) said: Said,
}

/// What the command says by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) user: bool,
    pub(super) groups: bool,
    pub(super) capabilities: bool,
    pub(super) new_privs: bool,
}

impl Entrance {
    /// Returns what a further program gets. Problems are those of rights that it cannot get.
    pub(super) fn terms(&self, command: &Command) -> (Terms, Vec<Problem>) {
        let traces = |judgement: &Judgement| {
            let given = judgement.security.capabilities.as_ref();
            given.is_none_or(|given| given.reaches(Capability::CAP_SYS_PTRACE))
        };
        let supervisor = command.supervisor();
        if command.with_rights().is_empty() && command.first_affinity().is_none() && supervisor.is_none() {
            let terms = Terms {
                policy: self.policy.clone(),
                judgement: self.judgement.clone(),
                user_outside: self.user_outside,
                keeps_new_privs: false,
                is_traced: traces(&self.judgement),
                said: Said::default(),
            };
            return (terms, Vec::new());
        }
        let mut problems = Vec::new();
        let (mut policy, mut judgement) = ((*self.policy).clone(), (*self.judgement).clone());
        let is_traced = traces(&judgement);
        policy.supervisor = supervisor.cloned().or(policy.supervisor);
        command.adjust(&mut policy.program);
        command.adjust_privileges(&mut policy.security);
        command.adjust_privileges(&mut judgement.security);
        if command.says_capabilities() {
            judgement.bounding = policy.judge_said_capabilities(&judgement.security, &mut problems);
        }
        match command.said_no_new_privs() {
            Some(true) => judgement.security.admin_until_exec = false,
            Some(false) => {
                problems.extend(self.refuse_new_privs());
                // The filter brings no_new_privs along, unless CAP_SYS_ADMIN installs it.
                judgement.seccomp = judgement.seccomp.map(|filter| filter.allow_new_privs(true));
                judgement.security.admin_until_exec = judgement.seccomp.is_some();
                policy.seccomp.clone_from(&judgement.seccomp);
                problems.extend(policy.new_privs_unreachable());
            }
            None => {}
        }
        problems.extend(policy.reaches_host_root(&judgement.security));
        let denied = judgement.maps.as_ref().is_some_and(|maps| maps.deny_setgroups);
        if denied && command.said_groups().is_some_and(|groups| !groups.is_empty()) {
            let reason = "the user namespace of the sandbox forbids setgroups(2)";
            problems.push(Problem::unsupported("groups", reason, "leave out the supplementary groups"));
        }
        let user_outside =
            if command.says_user() { user_outside(&policy, judgement.maps.as_ref()) } else { self.user_outside };
        let said = Said {
            user: command.says_user(),
            groups: (command.says_user() || command.said_groups().is_some()) && !denied,
            capabilities: command.says_capabilities(),
            new_privs: command.said_no_new_privs().is_some(),
        };
        let is_traced = is_traced || traces(&judgement);
        let keeps_new_privs = command.said_no_new_privs() == Some(false);
        let (policy, judgement) = (Arc::new(policy), Arc::new(judgement));
        (Terms { policy, judgement, user_outside, keeps_new_privs, is_traced, said }, problems)
    }

    /// Returns the problem of a sandbox in which every program goes without privileges by exec.
    fn refuse_new_privs(&self) -> Option<Problem> {
        let reason = "rules of Landlock come with no_new_privs";
        let problem = || Problem::unsupported("no_new_privs", reason, "leave no_new_privs(false) out");
        (!self.judgement.landlock.is_empty()).then(problem)
    }
}

/// Returns the user and group outside, as far as the caller's ids say.
fn user_outside(policy: &Policy, maps: Option<&IdMaps>) -> Option<(u32, u32)> {
    match maps {
        Some(maps) if maps.outside == Outside::Mapped => maps.outside_of(policy.user_inside()),
        Some(_) => None,
        None if policy.namespaces.apart().contains(Namespaces::USER) => None,
        None => Some(policy.user_inside()),
    }
}
