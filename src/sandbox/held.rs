//! Namespaces without a process, which several sandboxes share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::Sandbox;
use crate::error::{Error, Result, Step};
use crate::namespace::{BoundDir, JoinSource, Namespaces};
use crate::owner;
use crate::sys::fork_mark::ForkMark;

/// Namespaces that no process need be in, held open by a descriptor each. Sandboxes enter them with
/// [`Sandbox::join_held`]; as in a pod, they share so a network, a host name, queues and
/// semaphores.
///
/// The kernel removes a namespace with the last of its processes, descriptors and bind mounts. So
/// these end with the handle and the last sandbox that has entered them, unless [`bind`] has given
/// them a place in the file system.
///
/// ```
/// use ringfence::Sandbox;
///
/// # let sandbox = Sandbox::new();
/// # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
/// // An ordinary user adds .user_ns() here.
/// let pod = sandbox.net_ns().ipc_ns().uts_ns().hostname("pod").hold_namespaces()?;
/// for _ in 0..2 {
///     let member = Sandbox::new().join_held(&pod).command("uname").arg("-n");
///     assert_eq!(member.output()?.stdout, b"pod\n");
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
///
/// [`bind`]: HeldNamespaces::bind
#[derive(Debug)]
pub struct HeldNamespaces {
    held: Vec<(Namespaces, Arc<OwnedFd>)>,
    bound: Option<BoundDir>,
    /// The process in which a drop takes the binds away; `None` if a drop leaves them.
    home: Option<ForkMark>,
}

/// # Namespaces that are held
impl Sandbox {
    /// Makes the new namespaces of this sandbox without a program: those of [`net_ns`], [`ipc_ns`],
    /// [`uts_ns`], [`user_ns`], [`cgroup_ns`] and [`time_ns`], with all that is set in them: host
    /// and domain name, settings of the kernel, id maps, limits of users, offsets of clocks, the
    /// loopback device. Whatever else was called is left to the sandboxes that enter them.
    ///
    /// A process of the library's makes them, opens nothing else, and has ended when this returns.
    /// No thread of the caller changes its own namespaces. As an ordinary user, add [`user_ns`],
    /// which then owns the others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a pid or a mount namespace, and for
    /// one that is joined; else those of [`spawn`](Sandbox::spawn).
    ///
    /// [`net_ns`]: Sandbox::net_ns
    /// [`ipc_ns`]: Sandbox::ipc_ns
    /// [`uts_ns`]: Sandbox::uts_ns
    /// [`user_ns`]: Sandbox::user_ns
    /// [`cgroup_ns`]: Sandbox::cgroup_ns
    /// [`time_ns`]: Sandbox::time_ns
    pub fn hold_namespaces(&self) -> Result<HeldNamespaces> {
        Ok(HeldNamespaces::new(self.policy.hold()?))
    }
}

impl HeldNamespaces {
    fn new(held: Vec<(Namespaces, OwnedFd)>) -> Self {
        let held = held.into_iter().map(|(kind, fd)| (kind, Arc::new(fd))).collect();
        HeldNamespaces { held, bound: None, home: None }
    }

    /// Returns the kinds that are held.
    pub fn kinds(&self) -> Namespaces {
        self.held.iter().fold(Namespaces::empty(), |all, (kind, _)| all | *kind)
    }

    /// Returns the file of the namespace of one kind, as for setns(2), if it is held.
    pub fn file(&self, kind: Namespaces) -> Option<BorrowedFd<'_>> {
        self.held.iter().find(|(held, _)| *held == kind).map(|(_, fd)| fd.as_fd())
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = (Namespaces, JoinSource)> {
        self.held.iter().map(|(kind, fd)| (*kind, JoinSource::Fd(fd.clone())))
    }

    /// Binds each namespace on a file in the directory `dir`: `net`, `ipc`, `uts`, `user`, `cgroup`
    /// or `time`. There, [`Sandbox::join_path`], `nsenter(1)` and other processes find it, and it
    /// stays as long as the mount. The handle takes mounts and files away again when it is dropped.
    ///
    /// The directory belongs to the caller, and nobody else may write to it. The mounts are in the
    /// caller's mount namespace, and spread from there as the mount of `dir` is shared: they need
    /// `CAP_SYS_ADMIN` in the user namespace that owns it. A mount namespace made meanwhile has
    /// them too, and holds the namespaces as long as it lives.
    ///
    /// If the process is killed, the mounts stay: [`open`](HeldNamespaces::open) the directory and
    /// [`close`](HeldNamespaces::close) it.
    ///
    /// ```no_run
    /// use ringfence::{HeldNamespaces, Namespaces, Sandbox};
    ///
    /// let mut pod = Sandbox::new().net_ns().hold_namespaces()?;
    /// pod.bind("/run/pods/web")?;
    /// // In any process of the host.
    /// let pod = HeldNamespaces::open("/run/pods/web")?;
    /// let status = Sandbox::new().join_held(&pod).command("server").status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The directory is not the caller's alone, or another user could replace it; something is
    /// there at a name that is needed (EEXIST); the kernel refuses the mount. Then nothing of this
    /// call is left. Namespaces are bound once only (EBUSY).
    pub fn bind(&mut self, dir: impl AsRef<Path>) -> Result<()> {
        let failed = |errno| Error::new(Step::HoldNamespace, errno).at(dir.as_ref());
        if self.bound.is_some() {
            return Err(failed(nix::errno::Errno::EBUSY));
        }
        let home = ForkMark::new().map_err(failed)?;
        let mut bound = bound_dir(dir.as_ref())?;
        for (kind, fd) in &self.held {
            if let Err(error) = bound.bind(*kind, fd.as_fd()) {
                let _ = bound.remove(&self.files());
                return Err(error);
            }
        }
        (self.bound, self.home) = (Some(bound), Some(home));
        Ok(())
    }

    /// Opens the namespaces that [`bind`](HeldNamespaces::bind) has bound in `dir`, in this process
    /// or in another. A drop of this handle leaves them there; [`close`](HeldNamespaces::close)
    /// takes them away.
    ///
    /// # Errors
    ///
    /// The directory is not the caller's alone, or another user could replace it; it has none of
    /// them (ENOENT); at one of the names is something else.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let mut bound = bound_dir(dir.as_ref())?;
        let held = bound.namespaces()?;
        if held.is_empty() {
            return Err(Error::new(Step::HoldNamespace, nix::errno::Errno::ENOENT).at(bound.path()));
        }
        let mut all = HeldNamespaces::new(held);
        all.bound = Some(bound);
        Ok(all)
    }

    /// Leaves the mounts where they are, for a later process.
    pub fn leave(mut self) {
        self.home = None;
    }

    /// Takes mounts and files of the directory away, as a drop does for the handle that has bound
    /// them, and tells what failed. A namespace that another has bound there since stays.
    pub fn close(mut self) -> Result<()> {
        self.home = None;
        self.remove()
    }

    fn files(&self) -> Vec<(Namespaces, BorrowedFd<'_>)> {
        self.held.iter().map(|(kind, fd)| (*kind, fd.as_fd())).collect()
    }

    fn remove(&mut self) -> Result<()> {
        let Some(mut bound) = self.bound.take() else { return Ok(()) };
        bound.remove(&self.files())
    }
}

impl Drop for HeldNamespaces {
    /// Takes the binds away, unless this is a fork of the process that made them.
    fn drop(&mut self) {
        if self.home.take().is_some_and(|home| home.is_original()) {
            let _ = self.remove();
        }
    }
}

/// Opens a directory for binds. Nobody but the caller and root may be able to replace it.
fn bound_dir(dir: &Path) -> Result<BoundDir> {
    let step = Step::HoldNamespace;
    let hint = "choose a directory below directories of your own or root's";
    let path = std::path::absolute(dir).map_err(|error| Error::io(step, &error).at(dir))?;
    // The directory itself is looked at once it is open, and is no link.
    let real = match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => owner::refuse_exchangeable(above, step, hint)?.join(name),
        _ => owner::refuse_exchangeable(&path, step, hint)?,
    };
    BoundDir::open(&real)
}
