//! The pressure in a sandbox: how much time its processes lose because a resource is short.

use super::Child;
use crate::cgroup::{Pressure, PressureTrigger, PsiResource, PsiThreshold};
use crate::error::{Result, Step};

/// # Pressure
impl Child {
    /// Returns how much time everything in the sandbox loses because `resource` is short:
    /// `cpu.pressure`, `memory.pressure` and `io.pressure` of the sandbox's v2 group (5.2). These
    /// files need no controller, so a hybrid host has them too. They need a limit, which brings the
    /// control group.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a host without cgroup
    /// v2, or if the kernel does not count (boot with `psi=1`);
    /// [`ErrorKind::Control`](crate::ErrorKind::Control) without a control group, or after the
    /// program has ended.
    pub fn pressure(&self, resource: PsiResource) -> Result<Pressure> {
        self.shared()?.need_group(Step::Pressure)?.pressure(resource)
    }

    /// Creates a trigger for the pressure. The trigger fires, at most once in each window, when
    /// more time is lost than `threshold` allows.
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
    /// Returns the errors of [`pressure`](Child::pressure), and
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a window outside of 0.5 to 10 seconds.
    /// Returns EINVAL to a caller without `CAP_SYS_RESOURCE`, unless the kernel is Linux 6.5 or
    /// later and the window is a multiple of two seconds.
    pub fn pressure_trigger(&self, resource: PsiResource, threshold: PsiThreshold) -> Result<PressureTrigger> {
        self.shared()?.need_group(Step::Pressure)?.pressure_trigger(resource, threshold)
    }
}
