//! From the rules of a profile to the kernel's program, and to what the stub can do under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bpf::{self, Answers, Decision, Filter};
use super::rule::{Action, Rule};
use super::table::{self, Architecture};
use super::uncounted;

/// The calls of a stub that waits for its program, receives it, and executes it or fails.
const CALLS_OF_A_WAITING_STUB: [libc::c_long; 12] = [
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_chdir,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_dup3,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigprocmask,
    libc::SYS_execve,
    libc::SYS_exit_group,
];
/// The calls of a stub that is to enter a sandbox, is cloned into its pid namespace, and executes
/// the program or fails.
const CALLS_OF_AN_ENTERING_STUB: [libc::c_long; 17] = [
    libc::SYS_capset,
    libc::SYS_prctl,
    libc::SYS_pipe2,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_ppoll,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_fcntl,
    libc::SYS_dup3,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigprocmask,
    libc::SYS_execve,
    libc::SYS_exit_group,
];
/// The calls of a stub that waits for a later process, and executes the program or fails.
const CALLS_OF_A_CREATED_STUB: [libc::c_long; 12] = [
    libc::SYS_capset,
    libc::SYS_sendto,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_prctl,
    libc::SYS_close,
    libc::SYS_accept4,
    libc::SYS_prlimit64,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_execve,
    libc::SYS_exit_group,
];
/// The flags with which an entering stub clones.
const CLONE_OF_AN_ENTRY: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD) as u64;

/// What a profile answers to calls.
#[derive(Debug, Clone)]
pub(super) struct CallRules {
    /// The rules, of which the last that matches decides.
    pub(super) list: Vec<Rule>,
    /// The action for calls of this machine that no rule matches.
    pub(super) default: Action,
    /// The action for calls of architectures to which the rules do not apply.
    pub(super) foreign: Action,
    /// The further architectures to which the rules apply.
    pub(super) architectures: BTreeSet<Architecture>,
}

/// The compiled filter, and its properties.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) program: Vec<u8>,
    /// The decision about the stub's exec under the filter.
    pub(super) exec: Decision,
    /// True if the stub may report an error on its socket, and exit.
    pub(super) stub_may_speak: bool,
    pub(super) stub_may_exit: bool,
    /// A stub that waits for its program can do so under the filter.
    pub(super) stub_may_wait: bool,
    /// A stub that is to enter a sandbox can do so under the filter.
    pub(super) stub_may_enter: bool,
    /// A stub whose program a later process starts can wait under the filter.
    pub(super) stub_may_be_started: bool,
    /// The memory that no control group counts and the filter leaves to the program, if there is any.
    pub(super) uncounted: Option<&'static str>,
    /// The actions of the profile, without the questions of one that reports.
    pub(super) actions: Vec<Action>,
    /// The answers of a profile that reports.
    pub(super) answers: Option<Arc<Filter>>,
}

impl CallRules {
    /// Returns the answers to the calls of an architecture; `None` is this machine's own.
    pub(super) fn answers(&self, arch: Option<Architecture>) -> Answers {
        let mut calls: BTreeMap<u32, Decision> = BTreeMap::new();
        for rule in &self.list {
            for number in rule.names.iter().filter_map(|name| table::number(arch, name)) {
                let decision = calls.entry(number).or_insert(Decision::always(self.default));
                if rule.args.is_empty() {
                    *decision = Decision::always(rule.action);
                } else {
                    decision.cases.insert(0, (rule.args.clone(), rule.action));
                }
            }
        }
        let newer = if matches!(self.default, Action::Errno(_)) { Action::ENOSYS } else { self.default };
        Answers { calls, default: self.default, newer, newest: table::newest(arch) }
    }

    fn filter(&self, own: Answers) -> Filter {
        let here = |arch: &&Architecture| arch.runs_here();
        let others = self.architectures.iter().filter(here).filter(|arch| **arch != Architecture::X32);
        Filter {
            own,
            x32: self.architectures.get(&Architecture::X32).filter(here).map(|arch| self.answers(Some(*arch))),
            others: others.map(|arch| (*arch, self.answers(Some(*arch)))).collect(),
            foreign: self.foreign,
        }
    }

    /// Compiles the filter; with `reports` it is one that asks about each call that it would answer
    /// with an errno.
    pub(super) fn compile(&self, reports: bool) -> Compiled {
        let filter = self.filter(self.answers(None));
        let answers = &filter.own;
        let decision = |number: libc::c_long| answers.of(number as u32);
        let plainly = |number| decision(number) == Decision::always(Action::Allow);
        let mut actions: Vec<Action> = answers.calls.values().flat_map(Decision::actions).collect();
        actions.extend([self.default, self.foreign]);
        actions.sort_by_key(|action| action.code());
        actions.dedup_by_key(|action| action.code() & !libc::SECCOMP_RET_DATA);
        let program = if reports {
            filter.asking().with_listener().program()
        } else if actions.contains(&Action::Notify) {
            self.filter(self.answers(None)).with_listener().program()
        } else {
            filter.program()
        };
        let program = bpf::bytes(&program);
        Compiled {
            exec: decision(libc::SYS_execve),
            stub_may_speak: plainly(libc::SYS_sendto),
            stub_may_exit: plainly(libc::SYS_exit_group),
            // A large plan is mapped. Rules about mmap(2) are about pages that the stub does not
            // ask for.
            stub_may_wait: CALLS_OF_A_WAITING_STUB.into_iter().all(plainly)
                && decision(libc::SYS_mmap).otherwise == Action::Allow,
            stub_may_enter: CALLS_OF_AN_ENTERING_STUB.into_iter().all(plainly)
                && decision(libc::SYS_clone).on([CLONE_OF_AN_ENTRY, 0, 0, 0, 0, 0]) == Action::Allow
                && decision(libc::SYS_ioctl).on([0, (libc::TIOCSCTTY as u32).into(), 0, 0, 0, 0]) == Action::Allow,
            stub_may_be_started: CALLS_OF_A_CREATED_STUB.into_iter().all(plainly),
            uncounted: uncounted::under(&filter),
            program,
            actions,
            answers: reports.then(|| Arc::new(filter)),
        }
    }
}
