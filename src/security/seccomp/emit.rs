//! Ops that install a filter: seccomp(2).
//!
//! Stage: right before the exec of the program, or before the stub waits for it.

use super::{Action, Seccomp};
use crate::error::{Error, ErrorKind, Step};
use crate::plan::{Arg, ExecFlags, Plan, Ptr};
use crate::security::no_new_privs::emit_no_new_privs;

const SET_MODE_FILTER: u32 = 1;

impl Seccomp {
    /// Returns true if the filter may prevent the stub from reporting a failed exec. Then the errno
    /// is passed in a shared page.
    pub(crate) fn needs_failure_page(&self) -> bool {
        !(self.compiled().stub_may_speak && self.compiled().stub_may_exit)
    }

    /// Emits a struct sock_fprog: the number of instructions, padding, and their address.
    fn emit_program(&self, plan: &mut Plan) -> Ptr {
        let program = &self.compiled().program;
        let filter = plan.bytes(program);
        plan.record([Arg::from(program.len() / 8), filter.into()])
    }

    /// Emits the op for a filter that allows everything that the stub has still to do.
    /// `no_new_privs` must be set before.
    pub(crate) fn emit_early(&self, plan: &mut Plan) {
        let program = self.emit_program(plan);
        install(plan, program, 0);
    }

    /// Returns whether the filter can be installed in a stub that waits for its program, which
    /// saves that time once the program comes.
    pub(crate) fn comes_before_the_program(&self) -> bool {
        self.compiled().stub_may_wait && !self.needs_failure_page() && !self.has_listener() && !self.0.new_privs
    }

    /// Returns whether the filter can be installed in a stub before it is cloned into the pid
    /// namespace of a sandbox.
    pub(crate) fn comes_before_the_entry(&self) -> bool {
        self.compiled().stub_may_enter && !self.needs_failure_page() && !self.has_listener()
    }

    /// Returns whether the filter can be installed in a stub before it waits for a later process,
    /// which starts the program.
    pub(crate) fn comes_before_the_start(&self) -> bool {
        self.compiled().stub_may_be_started && !self.needs_failure_page()
    }

    /// Emits the ops that install the filter in a stub that has still something to do. A listener
    /// is handed over before the stub goes on.
    pub(crate) fn emit_ahead(&self, plan: &mut Plan) {
        let program = self.emit_prepared(plan);
        self.emit_installation(plan, program, true);
    }

    /// Emits the op that installs the filter, and hands its listener over if it has one. With
    /// `answered`, the stub goes on only after the owner has answered to that.
    fn emit_installation(&self, plan: &mut Plan, program: Ptr, answered: bool) {
        if self.has_listener() {
            plan.install_filter_and_send_listener(self.flags(), program, answered);
        } else {
            install(plan, program, self.flags());
        }
    }

    /// Emits `no_new_privs` and the filter's program, which is returned.
    fn emit_prepared(&self, plan: &mut Plan) -> Ptr {
        if !self.0.new_privs {
            emit_no_new_privs(plan);
        }
        self.emit_program(plan)
    }

    /// Returns the flags of a filter without a listener.
    fn plain_flags(&self) -> u64 {
        let log = if self.0.log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
        let speculation = if self.0.speculation { libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW } else { 0 };
        log | speculation
    }

    /// Returns the flags with which the program's filter is installed.
    pub(crate) fn flags(&self) -> u64 {
        let of_listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        self.plain_flags() | if self.has_listener() { of_listener } else { 0 }
    }

    /// Emits the ops that come right before the exec. Returns flags for the exec. With `answered`,
    /// the program is executed only after the owner has answered to the listener.
    pub(crate) fn emit(&self, plan: &mut Plan, answered: bool) -> ExecFlags {
        let compiled = self.compiled();
        let program = self.emit_prepared(plan);
        // The announcement comes before the filter, which may not allow it.
        plan.announce_exec();
        self.emit_installation(plan, program, answered);
        let mut how = ExecFlags::ANNOUNCED;
        if self.needs_failure_page() {
            how |= ExecFlags::SILENT;
        }
        if compiled.stub_may_exit {
            how |= ExecFlags::MAY_EXIT;
        }
        how
    }

    /// Returns the error for an exec that failed under the filter.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let by_filter = |action: Action| matches!(action, Action::Errno(errno) if Some(errno) == error.raw_os_error());
        if error.kind() == ErrorKind::Exec && self.compiled().exec.actions().any(by_filter) {
            return error.hint("the seccomp profile answers execve(2) with this for such arguments");
        }
        error
    }
}

/// Emits the op that installs a filter: seccomp(2).
fn install(plan: &mut Plan, program: Ptr, flags: u64) {
    plan.call(Step::Seccomp, libc::SYS_seccomp, [SET_MODE_FILTER.into(), flags.into(), program.into()]);
}
