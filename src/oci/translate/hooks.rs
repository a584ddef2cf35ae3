//! The hooks: `hooks`.

use std::path::Path;

use oci_spec::runtime::{Capability, Hook, Spec};

use super::namespaces::Kinds;
use super::process::missing_home;
use crate::namespace::Namespaces;
use crate::oci::problems::Problems;

/// The hooks of a container, in the order in which they run.
#[derive(Debug, Clone, Default)]
pub(in crate::oci) struct Hooks {
    /// On the host, when the mounts are made and the root is not entered yet.
    pub(in crate::oci) prestart: Vec<Hook>,
    /// After `prestart`, in the same way.
    pub(in crate::oci) create_runtime: Vec<Hook>,
    /// After `createRuntime`, in the container's namespaces, and on the host's root.
    pub(in crate::oci) create_container: Vec<Hook>,
    /// In the container, before its program.
    pub(in crate::oci) start_container: Vec<Hook>,
    /// On the host, after the program was started.
    pub(in crate::oci) poststart: Vec<Hook>,
    /// On the host, after the container is gone.
    pub(in crate::oci) poststop: Vec<Hook>,
}

impl Hooks {
    /// Returns whether any hook runs before the root is entered.
    pub(in crate::oci) fn come_before_entry(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

/// Returns the hooks of a configuration.
pub(super) fn hooks(spec: &Spec, kinds: Kinds, bundle: &Path, problems: &mut Problems) -> Hooks {
    let Some(hooks) = spec.hooks() else { return Hooks::default() };
    let mut keep = |kind: &str, hooks: &Option<Vec<Hook>>| -> Vec<Hook> {
        let hooks = hooks.clone().unwrap_or_default();
        for (i, hook) in hooks.iter().enumerate() {
            check(&format!("hooks.{kind}[{i}]"), hook, problems);
        }
        hooks
    };
    let kept = Hooks {
        prestart: keep("prestart", hooks.prestart()),
        create_runtime: keep("createRuntime", hooks.create_runtime()),
        create_container: keep("createContainer", hooks.create_container()),
        start_container: with_environment(keep("startContainer", hooks.start_container()), spec, bundle),
        poststart: keep("poststart", hooks.poststart()),
        poststop: keep("poststop", hooks.poststop()),
    };
    if !kept.start_container.is_empty() && could_take_over(spec, kinds) {
        let reason = "a program of the container with CAP_SYS_PTRACE could take over the process that waits for its \
                      start, and has no filter yet";
        problems.refused("hooks.startContainer", reason);
    }
    kept
}

/// Gives hooks without an environment that of the container's process, as other runtimes do it.
fn with_environment(mut hooks: Vec<Hook>, spec: &Spec, bundle: &Path) -> Vec<Hook> {
    if hooks.iter().all(|hook| hook.env().is_some()) {
        return hooks;
    }
    let mut variables = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
    variables.extend(missing_home(spec, bundle).map(|home| format!("HOME={}", home.display())));
    for hook in hooks.iter_mut().filter(|hook| hook.env().is_none()) {
        hook.set_env(Some(variables.clone()));
    }
    hooks
}

/// Returns whether a program beside the process that waits for its start could make that run
/// something else without the container's filter.
fn could_take_over(spec: &Spec, kinds: Kinds) -> bool {
    let filtered = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let traces = sets.is_some_and(|sets| {
        let all = [sets.bounding(), sets.permitted(), sets.inheritable(), sets.ambient()];
        all.into_iter().flatten().any(|set| set.contains(&Capability::SysPtrace))
    });
    filtered && traces && !kinds.new.contains(Namespaces::USER)
}

fn check(property: &str, hook: &Hook, problems: &mut Problems) {
    if !hook.path().is_absolute() {
        problems.invalid(format!("{property}.path"), "it is not absolute", "give the whole path of a program");
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        problems.invalid(format!("{property}.timeout"), "it is not above 0", "give the seconds, or leave it out");
    }
    let nul = |words: &Option<Vec<String>>| words.iter().flatten().any(|word| word.contains('\0'));
    if nul(hook.args()) || nul(hook.env()) || crate::plan::has_nul(hook.path()) {
        problems.invalid(property, "a word has a NUL byte", "leave it out");
    }
    let named = |variable: &String| variable.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if !hook.env().iter().flatten().all(named) {
        problems.invalid(format!("{property}.env"), "a variable is not NAME=VALUE", "write it so");
    }
}
