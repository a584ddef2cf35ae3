//! How short of a resource the sandbox is.

use super::Child;
use crate::cgroup::{Pressure, PressureTrigger, PsiResource, PsiThreshold};
use crate::error::{Result, Step};

impl Child {
    /// How much time everything in the sandbox loses for want of `resource`: `cpu.pressure`, `memory.pressure` and
    /// `io.pressure` of its v2 group (5.2), which needs no controller there, so that a hybrid host has it too. Needs a
    /// limit, which brings the control group.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a host without cgroup v2, or where the kernel does not
    /// count (boot with `psi=1`); [`ErrorKind::Control`](crate::ErrorKind::Control) without a control group, or after the
    /// program has ended.
    pub fn pressure(&self, resource: PsiResource) -> Result<Pressure> {
        self.shared()?.need_group(Step::Pressure)?.pressure(resource)
    }

    /// Watches over the pressure: the trigger fires, once a window at most, when more time than `threshold` says is lost.
    ///
    /// ```no_run
    /// use ringfence::{PsiResource, PsiThreshold, Sandbox};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let mut child = Sandbox::new().memory_limit(64 << 20).command("make").spawn()?;
    /// let threshold = PsiThreshold::some(Duration::from_millis(150), Duration::from_secs(2));
    /// let trigger = child.pressure_trigger(PsiResource::Memory, threshold)?;
    /// if trigger.wait(Some(Duration::from_secs(60)))? {
    ///     println!("short of memory: {:?}", child.pressure(PsiResource::Memory)?);
    /// }
    /// # child.kill()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`pressure`](Child::pressure); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a window outside of 0.5
    /// to 10 seconds. EINVAL from a caller without `CAP_SYS_RESOURCE`, to whom Linux 6.5 grants windows that are multiples
    /// of two seconds.
    pub fn pressure_trigger(&self, resource: PsiResource, threshold: PsiThreshold) -> Result<PressureTrigger> {
        self.shared()?.need_group(Step::Pressure)?.pressure_trigger(resource, threshold)
    }
}
