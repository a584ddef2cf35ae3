//! No privileges by an exec: prctl(2), `PR_SET_NO_NEW_PRIVS`.

use crate::error::Step;
use crate::plan::Plan;

/// Emits the op after which an exec gives no privileges.
pub(crate) fn emit_no_new_privs(plan: &mut Plan) {
    let set = libc::PR_SET_NO_NEW_PRIVS;
    plan.call(Step::NoNewPrivs, libc::SYS_prctl, [set.into(), 1.into(), 0.into(), 0.into(), 0.into()]);
}
