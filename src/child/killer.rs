//! A remote control that only kills.

use std::sync::{Arc, Weak};

use super::Child;
use super::outcome::Verdict;
use super::shared::{Home, Shared};
use crate::error::{Result, Step};

/// Kills a sandbox from any thread, also while another thread is inside a wait that has taken the
/// [`Child`]: [`Child::killer`].
///
/// A `Killer` can be cloned, and sent to and shared between threads. It does not keep the sandbox
/// alive, or anything that was made for it.
///
/// ```
/// use std::thread;
///
/// use ringfence::{Sandbox, Verdict};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let child = Sandbox::new().command("sleep").arg("60").spawn()?;
/// let killer = child.killer();
/// let run = thread::spawn(move || child.wait_with_output());
/// killer.kill()?; // somebody has cancelled the run
/// let output = run.join().expect("the thread does not panic")?;
/// assert_eq!(output.outcome.verdict(), Verdict::Killed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Killer {
    shared: Weak<Shared>,
    home: Home,
}

/// # Cancelling
impl Child {
    /// Returns a [`Killer`], with which any thread can end the sandbox while this handle waits.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    /// use std::time::Duration;
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// let killer = child.killer();
    /// std::thread::spawn(move || {
    ///     std::thread::sleep(Duration::from_millis(50));
    ///     killer.kill()
    /// });
    /// assert_eq!(child.wait()?.verdict(), Verdict::Killed);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }
}

impl Killer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Killer { shared: Arc::downgrade(shared), home: shared.home }
    }

    /// Kills everything in the sandbox with SIGKILL. The program's verdict becomes
    /// [`Verdict::Killed`], unless the program has ended by itself before, or at a limit. After the
    /// end of the sandbox this call does nothing.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`](crate::ErrorKind::Control) in a fork of the process that
    /// spawned the program, and the errno if the control group cannot be killed.
    pub fn kill(&self) -> Result<()> {
        self.home.require(Step::Kill)?;
        self.shared.upgrade().map_or(Ok(()), |shared| shared.stop(Some(Verdict::Killed)))
    }
}
