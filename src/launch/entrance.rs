//! What is kept of a sandbox for the programs that enter it later.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::compiled::Compiled;
use super::inputs::Inputs;
use crate::judge::Judgement;
use crate::policy::Policy;
use crate::security::RuleFile;

/// The way into one sandbox.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) policy: Arc<Policy>,
    pub(super) judgement: Arc<Judgement>,
    /// The user and group that programs of the sandbox are outside, if the caller's ids say.
    pub(super) user_outside: Option<(u32, u32)>,
    /// True if the caller may not put a process into the sandbox's control group.
    pub(super) has_boundary: bool,
    /// The Landlock ruleset of the sandbox, with the paths as they were before its program ran.
    pub(super) ruleset: Option<OwnedFd>,
    /// The files of its rules, if they are known.
    pub(super) rule_files: Vec<RuleFile>,
}

impl Entrance {
    /// Keeps what a further program needs. Nothing of it is a descriptor of the policy's: the
    /// handle of a sandbox holds open no stream that the program has closed.
    pub(super) fn new(compiled: &Compiled, user_outside: Option<(u32, u32)>, inputs: &mut Inputs) -> Self {
        let (policy, judgement) = (compiled.entry.clone(), compiled.judgement_of_run());
        Entrance {
            policy,
            judgement,
            user_outside,
            has_boundary: inputs.has_boundary(),
            ruleset: inputs.ruleset.take(),
            rule_files: inputs.known_rule_files(),
        }
    }
}
