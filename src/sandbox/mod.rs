//! The builder: all public calls that describe a sandbox, and that run it.

// The order of these modules is that of the page of `Sandbox`: rustdoc lists what stands in modules
// before what stands here. The empty lines keep rustfmt from another order.
mod builder;

mod strict;

mod process;

mod namespaces;

mod files;

mod limits;

mod security;

mod prepared;

mod supervise;

mod held;

mod getters;

pub use held::HeldNamespaces;
pub use prepared::Prepared;

use crate::policy::Policy;

/// A builder of a program and the policy under which it runs. Each call adds one thing.
///
/// `Sandbox::new()` by itself isolates nothing. A `Sandbox` can be cloned, shared between threads
/// and spawned many times.
///
/// ```no_run
/// use ringfence::Sandbox;
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let mut child = Sandbox::new().pid_ns().memory_limit(64 << 20).rootfs("/srv/alpine").spawn()?;
/// let outcome = child.wait()?;
/// println!("{} after {:?}", outcome.verdict(), outcome.usage().wall);
/// # Ok(())
/// # }
/// ```
///
/// # As an ordinary user
///
/// Namespaces need `CAP_SYS_ADMIN`, or a user namespace around them: add
/// [`user_ns`](Sandbox::user_ns). Limits of control groups need a subtree that is delegated to the
/// user. Without one they are an error, or with [`best_effort`](Sandbox::best_effort) they are left
/// out and [`Child::enforced`](crate::Child::enforced) reports that.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    pub(crate) policy: Policy,
}
