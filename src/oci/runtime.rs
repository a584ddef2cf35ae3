//! The containers of one root directory.

use std::collections::BTreeSet;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::config::Config;
use super::container::Container;
use super::listener::with_supervisor;
use super::state::{Saved, State};
use super::state_dir::{StateDir, check_id};
use super::translate::{CGROUP_PARENT, Surroundings, is_host_root};
use super::update::coupled;
use crate::cgroup::root_of_units;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::sandbox::Sandbox;
use crate::sys::table;

/// The longest time in which systemd answers where its units are.
const SYSTEMD_PATIENCE: Duration = Duration::from_secs(30);

/// Passes the caller's descriptors from 3 on, `count` of them, on to the program under the same
/// numbers: `--preserve-fds` of runtimes.
///
/// # Errors
///
/// EBADF at [`Step::Stdio`] for a number that is not open.
pub fn preserve_fds(sandbox: Sandbox, count: u16) -> Result<Sandbox> {
    Ok(copies(count)?.into_iter().fold(sandbox, |sandbox, (number, copy)| sandbox.fd(number, copy)))
}

/// Does the same for a further program.
///
/// # Errors
///
/// Those of [`preserve_fds`].
pub fn preserve_fds_of_exec(command: Command, count: u16) -> Result<Command> {
    Ok(copies(count)?.into_iter().fold(command, |command, (number, copy)| command.fd(number, copy)))
}

/// Has a further program enter control groups below that of its container, as engines name them in
/// `exec --cgroup`: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH` for v1 hierarchies, any number of
/// times.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] for a word that means neither, and for a controller that is named twice.
/// The exec fails for paths that [`Command::subgroup`] refuses, and for groups that are not there.
pub fn subgroups_of_exec(command: Command, words: &[String]) -> Result<Command> {
    let refuse = |word: &str, reason: &str| {
        let remedy = "give one path, or CONTROLLER[,CONTROLLER]:PATH for each hierarchy";
        Err(Error::refused(vec![Problem::invalid("--cgroup", format!("{word}: {reason}"), remedy)]))
    };
    let mut known = BTreeSet::new();
    let mut command = command;
    for word in words {
        let Some((controllers, path)) = word.split_once(':') else {
            if words.len() > 1 {
                return refuse(word, "invalid argument: the prefix with the controller is missing");
            }
            return Ok(command.subgroup(word));
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return refuse(word, "invalid argument: the name of the controller is empty");
            }
            if !known.insert(controller) {
                return refuse(word, &format!("invalid argument: controller {controller} is there more than once"));
            }
        }
        command = command.subgroup_of(controllers, path);
    }
    Ok(command)
}

fn copies(count: u16) -> Result<Vec<(RawFd, OwnedFd)>> {
    let copy = |number| match table::copy_of(number) {
        Ok(copy) => Ok((number, copy)),
        Err(errno) => {
            let reason = format!("descriptor {number} is to be passed on, and is not open");
            Err(Error::new(Step::Stdio, errno).with_kind(ErrorKind::Invalid).detail(reason))
        }
    };
    let numbers = 3..3 + RawFd::from(count);
    // A copy has the next free number: all are looked at before there is one.
    for number in numbers.clone() {
        copy(number)?;
    }
    numbers.map(copy).collect()
}

/// Adds, in the words of runc, why the kernel may refuse a scheduler to a container of some
/// processors: sched_setattr(2), EPERM.
fn of_scheduler_with_cpus(error: Error, has_cpus: bool) -> Error {
    if has_cpus && error.step() == Step::Scheduler && error.raw_os_error() == Some(libc::EPERM) {
        return error.detail("process scheduler can't be used together with AllowedCPUs");
    }
    error
}

/// The place where containers are kept between the calls of an engine: a directory for each.
///
/// ```no_run
/// use ringfence::oci::{Runtime, Status};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let runtime = Runtime::new("/run/my-engine");
/// let mut container = runtime.create("box", "/srv/bundles/box", Ok)?;
/// container.start()?;
/// // Another process, later.
/// let container = runtime.open("box")?;
/// if container.state()?.status == Status::Running {
///     container.kill(libc::SIGKILL, true)?;
/// }
/// container.delete(true)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    cgroup_parent: PathBuf,
    systemd_cgroups: bool,
    no_pivot: bool,
    interrupt: Option<Arc<OwnedFd>>,
}

impl Runtime {
    /// Keeps containers below `root`, which is made if it is missing. No other user may be able to
    /// change it.
    pub fn new(root: impl AsRef<Path>) -> Runtime {
        let (root, cgroup_parent) = (root.as_ref().to_owned(), CGROUP_PARENT.into());
        Runtime { root, cgroup_parent, systemd_cgroups: false, no_pivot: false, interrupt: None }
    }

    /// Returns the root that a runtime has by default: `/run/ringfence-oci` for the host's root,
    /// and `$XDG_RUNTIME_DIR/ringfence-oci` for an ordinary user, also one who is root in a user
    /// namespace.
    pub fn default_root() -> PathBuf {
        let uid = nix::unistd::geteuid();
        let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
        match dir {
            _ if is_host_root() => "/run".into(),
            Some(dir) => PathBuf::from(dir),
            None if uid.is_root() => "/run".into(),
            None => PathBuf::from(format!("/run/user/{uid}")),
        }
        .join("ringfence-oci")
    }

    /// Sets the control group below which those of containers are whose configuration names none
    /// from the root; `/ringfence-oci` by default.
    pub fn cgroup_parent(self, path: impl AsRef<Path>) -> Runtime {
        Runtime { cgroup_parent: path.as_ref().to_owned(), ..self }
    }

    /// Sets whether systemd makes the control groups: what engines call the cgroup driver
    /// `systemd`, and runtimes `--systemd-cgroup`. Each container that is created has a transient
    /// scope of its own then, with `Delegate=yes`, which stays until its program ends or the
    /// container is deleted. For the host's root, the system's manager makes it; for an ordinary
    /// user, the user's own, over the user's bus.
    ///
    /// `linux.cgroupsPath` is `slice:prefix:name` then, for `prefix-name.scope` in `slice`. Without
    /// one, the scope is `ringfence-ID.scope` in `system.slice`, or in `user.slice` of an ordinary
    /// user. The limits of memory, swap, CPU time, processors, memory nodes and processes are
    /// properties of the scope, so that they stay when systemd loads its units again; all limits
    /// are in the group's files as well. Rules for devices are a program on the group, which
    /// systemd leaves alone. Annotations `org.systemd.property.NAME` are properties of the scope,
    /// in the text form of GVariant, as runc has it; those that say where the scope is and what
    /// runs in it are refused.
    ///
    /// Where systemd has its controllers on v1, on a hybrid host as well, the scope's directory is
    /// in the hierarchies that systemd does not know, too. The limits are the properties that
    /// systemd has for v1: those of processors, memory nodes and swap are not among them, and
    /// systemd leaves these alone there. Rules for devices are properties of the scope if no
    /// program can be loaded on v2. systemd lets them allow devices one by one, and deny none: rules
    /// that allow all but some are refused. An ordinary user is refused, as the user's manager has
    /// no controllers.
    ///
    /// It needs systemd 244 and its bus. Where one of these is missing, a create is an error before
    /// anything is made.
    ///
    /// ```no_run
    /// use ringfence::oci::Runtime;
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let runtime = Runtime::new("/run/my-engine").systemd_cgroups(true);
    /// runtime.create("box", "/srv/bundles/box", Ok)?.start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn systemd_cgroups(self, scopes: bool) -> Runtime {
        Runtime { systemd_cgroups: scopes, ..self }
    }

    /// Has containers that are created enter their root without pivot_root(2), as
    /// [`Sandbox::no_pivot`] does: for a host that still runs on its initramfs. A container whose
    /// program can have CAP_SYS_ADMIN is refused then, and so is a further program with it.
    pub fn no_pivot(self, wanted: bool) -> Runtime {
        Runtime { no_pivot: wanted, ..self }
    }

    /// Lets a create or a start give up the hooks that it waits for as soon as `fd` can be read, as
    /// if the hook had failed: a signalfd(2) or the reading end of a pipe. Nothing is read from it.
    /// Hooks `poststop` run to their end in any case.
    ///
    /// ```no_run
    /// use ringfence::oci::Runtime;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (stop, stops) = std::io::pipe()?;
    /// let runtime = Runtime::new("/run/my-engine").interrupted_by(stop);
    /// std::thread::spawn(move || {
    ///     std::thread::sleep(std::time::Duration::from_secs(60));
    ///     drop(stops);
    /// });
    /// runtime.create("box", "/srv/bundles/box", Ok)?.start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn interrupted_by(self, fd: impl Into<OwnedFd>) -> Runtime {
        Runtime { interrupt: Some(Arc::new(fd.into())), ..self }
    }

    /// Creates the container `id` from a bundle, up to the exec of its program. `with` adds to the
    /// sandbox what is not in the configuration: streams, which are the caller's own without, and
    /// descriptors.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if there is such a container; the errors of [`Config::load`],
    /// [`Config::sandbox`] and [`Sandbox::create`]. An error leaves nothing.
    pub fn create(
        &self,
        id: &str,
        bundle: impl AsRef<Path>,
        with: impl FnOnce(Sandbox) -> Result<Sandbox>,
    ) -> Result<Container> {
        check_id(id)?;
        let config = Config::load(bundle.as_ref())?;
        self.create_by(&config, id, bundle, with)
    }

    /// Does the same by a configuration that was read before, whatever `config.json` says by now.
    ///
    /// # Errors
    ///
    /// The errors of [`create`](Runtime::create).
    pub fn create_by(
        &self,
        config: &Config,
        id: &str,
        bundle: impl AsRef<Path>,
        with: impl FnOnce(Sandbox) -> Result<Sandbox>,
    ) -> Result<Container> {
        check_id(id)?;
        let bundle = std::path::absolute(bundle.as_ref()).map_err(|error| Error::io(Step::BundleConfig, &error))?;
        let (is_root, cgroup_parent) = (is_host_root(), &*self.cgroup_parent);
        let units = self.systemd_cgroups.then(|| root_of_units(Instant::now() + SYSTEMD_PATIENCE)).transpose()?;
        let units = units.as_deref();
        let translation = config.translate(&Surroundings { bundle: &bundle, id, is_root, cgroup_parent, units })?;
        let spec = config.spec();
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let saved = Saved {
            rootfs: spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default(),
            bundle,
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            owner: nix::unistd::geteuid().to_string(),
            cgroup: translation.cgroup,
            own_pid_ns: translation.own_pid_ns,
            listener: translation.listener,
            limits: resources.map(coupled).unwrap_or_default(),
            start_container: translation.hooks.start_container.clone(),
            poststart: translation.hooks.poststart.clone(),
            poststop: translation.hooks.poststop.clone(),
            without_process: spec.process().is_none(),
            process: spec.process().clone(),
            ..Saved::new(id, spec.version(), spec.annotations().as_ref())
        };
        let sandbox = with_supervisor(with(translation.sandbox.no_pivot(self.no_pivot))?, &saved);
        let interrupt = self.interrupt.clone();
        let has_cpus = resources.and_then(|listed| listed.cpu().as_ref()).is_some_and(|cpu| cpu.cpus().is_some());
        let before_entry = (&translation.hooks, &*translation.net_devices);
        Container::create(StateDir::make(&self.root, id)?, saved, &sandbox, before_entry, interrupt)
            .map_err(|error| of_scheduler_with_cpus(error, has_cpus))
    }

    /// Removes what is left of the container `id`, whatever state it is in, also one whose state
    /// cannot be read. A call that holds the container meanwhile, in a hook as well, ends with an
    /// error. Returns the errors of the hooks `poststop`; none for a name that no container has.
    ///
    /// # Errors
    ///
    /// The errors of [`Container::delete`].
    pub fn delete_by_force(&self, id: &str) -> Result<Vec<Error>> {
        let dir = match StateDir::open(&self.root, id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        match Container::of(dir, id, None).delete(true) {
            // Another call was faster.
            Err(error) if error.kind() == ErrorKind::NotFound && error.step() == Step::ContainerState => Ok(Vec::new()),
            other => other,
        }
    }

    /// Finds the container `id`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Invalid`] for a name that is none of
    /// a container, and [`ErrorKind::Control`] for a state that cannot be read.
    pub fn open(&self, id: &str) -> Result<Container> {
        let dir = StateDir::open(&self.root, id)?;
        let saved = dir.read()?.map(|text| Saved::from_json(&text, id)).transpose()?;
        Ok(Container::of(dir, id, saved).interrupted_by(self.interrupt.clone()))
    }

    /// Returns the states of all containers, by their names. One that goes meanwhile is left out,
    /// as is one that was never made whole.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the root is not there, as it is before the first create, and
    /// [`ErrorKind::Control`] if it cannot be read.
    pub fn list(&self) -> Result<Vec<State>> {
        let failed = |error: std::io::Error| {
            Error::io(Step::ContainerState, &error).at(&self.root).with_kind(ErrorKind::Control)
        };
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let hint = "name the root that the containers were created with";
                return Err(failed(error).with_kind(ErrorKind::NotFound).hint(hint));
            }
            other => other.map_err(failed)?,
        };
        let mut states = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(container) = name.to_str().and_then(|id| self.open(id).ok()) else { continue };
            states.extend(container.state().ok());
        }
        states.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(states)
    }
}
