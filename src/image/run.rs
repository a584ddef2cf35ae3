//! Runs the program of an image: config.md of the OCI image specification, "Execution parameters".

use std::ffi::OsString;
use std::path::PathBuf;

use caps::{CapSet, Capability};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::Image;
use super::layers::Layers;
use super::lowers::Lowers;
use super::user;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::mount::{ImageMounts, Missing, RootFs};
use crate::namespace::Namespaces;
use crate::program::DEFAULT_PATH;
use crate::sandbox::Sandbox;
use crate::security::{Capabilities, Seccomp};

/// The capabilities that container engines give to root in a container.
const CAPABILITIES: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];
/// SIGRTMIN as C libraries define it: they reserve the first two real-time signals.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// # Images
///
/// With the crate's feature `image`.
impl Sandbox {
    /// Creates a sandbox that runs an image as container engines do: with its program, environment,
    /// user, working directory and stop signal; on its layers, with a private upper of
    /// [64 MiB of memory](RootFs::tmpfs); in pid, mount, ipc, uts and cgroup namespaces of its own;
    /// with the capabilities that container engines give; under
    /// [`Seccomp::default()`](Seccomp::default), which also prevents programs from gaining
    /// privileges; and with [`default_masks`](Sandbox::default_masks). For an ordinary user there
    /// is a user namespace as well. The network is the host's, unless [`net_ns`](Sandbox::net_ns)
    /// is called, and the host name is `sandbox`. /sys is there, read-only: sysfs, in a user
    /// namespace the host's, and nothing with both a user namespace and a network of its own; with
    /// the sandbox's own [control groups](crate::Cgroupfs). For untrusted code, use
    /// [`Sandbox::strict()`](Sandbox::strict)[`.image(&image)`](Sandbox::image).
    ///
    /// The first call for an image unpacks its layers. The layers are locked as long as a sandbox
    /// or a handle of it lives.
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    /// use ringfence::image::Store;
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let store = Store::open_default()?;
    /// let image = store.image(&"debian:12".parse()?)?;
    /// let sandbox = Sandbox::from_image(&image)?.memory_limit(64 << 20);
    /// sandbox.command("cat").arg("/etc/os-release").status()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`image`](Sandbox::image).
    pub fn from_image(image: &Image) -> Result<Sandbox> {
        let sandbox = Sandbox::new().pid_ns().ipc_ns().uts_ns().cgroup_ns().default_masks(true);
        let ordinary = !Uid::effective().is_root();
        let sandbox = if ordinary { sandbox.user_ns() } else { sandbox };
        let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
        let kept = CAPABILITIES.into_iter().filter(|capability| ordinary || held.contains(capability));
        let mut sandbox = sandbox.hostname("sandbox").image(image)?;
        sandbox.policy.mounts.own_groups = true;
        sandbox.policy.mounts.image = Some(ImageMounts { sys: true, names: Missing::Made });
        Ok(sandbox.capabilities(Capabilities::keep(kept)).seccomp(Seccomp::default()))
    }

    /// Takes the program, its parameters and the root file system from an image, and changes
    /// nothing else:
    ///
    /// - The layers become an [overlay](RootFs::overlay) with 64 MiB of memory for changes. For
    ///   more space, or a directory, call [`rootfs`](Sandbox::rootfs)`(image.rootfs()?.scratch())`.
    /// - Entrypoint and Cmd become the program, unless [`command`](Sandbox::command) names another;
    ///   [`args`](Sandbox::args) alone replaces Cmd.
    /// - Env becomes the whole environment. PATH and the user's HOME are added if it lacks them.
    /// - User, looked up in the image's own /etc/passwd and /etc/group, becomes
    ///   [`user`](Sandbox::user) and, without a user namespace, [`groups`](Sandbox::groups).
    /// - WorkingDir becomes [`cwd`](Sandbox::cwd).
    /// - StopSignal becomes [`stop_signal`](Sandbox::stop_signal).
    /// - /etc/hosts and /etc/hostname get the names of the sandbox, and where the network is the
    ///   host's, /etc/resolv.conf its name servers. These are [files in memory](crate::MemoryFile)
    ///   over those of the image. HOSTNAME is set where [`hostname`](Sandbox::hostname) is.
    ///
    /// Volumes are ordinary directories of the image: what the program writes there is lost with
    /// the sandbox, unless a directory is [bound](Sandbox::bind) to them.
    ///
    /// # Errors
    ///
    /// The errors of [`Image::unpack`]; [`Step::ImageUser`] if the image does not have the user
    /// that it names; [`ErrorKind::Corrupt`] if the stop signal is invalid.
    pub fn image(self, image: &Image) -> Result<Sandbox> {
        let layers = image.unpack()?;
        let config = image.config().config().as_ref();
        let text = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
        let lowers = Lowers::open(layers.dirs()).map_err(|errno| Error::new(Step::ImageUser, errno))?;
        let name = text(config.and_then(|config| config.user().as_ref())).unwrap_or_default();
        let user = user::resolve(&name, &lowers)?;
        let (is_root, apart) = (Uid::effective().is_root(), self.policy.namespaces.new.contains(Namespaces::USER));
        // The user that the sandbox runs as outside cannot open the store, so the mounts are made
        // on the sandbox's behalf.
        let root = if is_root && apart { rootfs(layers).id_mapped() } else { rootfs(layers) };
        let mut sandbox = self.env_clear().rootfs(root).user(user.uid, user.gid);
        if is_root && !apart {
            sandbox = sandbox.groups(user.groups);
        }
        let variables = config.and_then(|config| config.env().as_ref()).into_iter().flatten();
        let home = user.home.unwrap_or(PathBuf::from("/"));
        sandbox = sandbox.env("PATH", DEFAULT_PATH).env("HOME", home);
        // An entry without `=` is ignored.
        sandbox = sandbox
            .envs(variables.filter_map(|variable| variable.split_once('=')).filter(|(name, _)| !name.is_empty()));
        if let Some(dir) = text(config.and_then(|config| config.working_dir().as_ref())) {
            sandbox = sandbox.cwd(PathBuf::from("/").join(dir));
        }
        if let Some(signal) = text(config.and_then(|config| config.stop_signal().as_ref())) {
            sandbox = sandbox.stop_signal(signal_number(&signal).ok_or_else(|| {
                let detail = format!("the image's stop signal {signal:?} is not a signal");
                Error::message(ErrorKind::Corrupt, Step::ImageManifest, detail).at(image.id().to_string())
            })?);
        }
        let words = |words: Option<&Vec<String>>| words.into_iter().flatten().map(OsString::from).collect();
        let entrypoint = words(config.and_then(|config| config.entrypoint().as_ref()));
        let cmd = words(config.and_then(|config| config.cmd().as_ref()));
        sandbox.policy.program.default = (entrypoint, cmd);
        let sys = sandbox.policy.mounts.image.is_some_and(|image| image.sys);
        sandbox.policy.mounts.image = Some(ImageMounts { sys, names: Missing::Made });
        Ok(sandbox)
    }
}

impl Image {
    /// Unpacks the layers if necessary, and returns them as a root file system. For where changes
    /// are written, see [`RootFs::overlay`]. The layers are locked as long as the root file system
    /// is in use.
    ///
    /// # Errors
    ///
    /// The errors of [`unpack`](Image::unpack).
    pub fn rootfs(&self) -> Result<RootFs> {
        Ok(rootfs(self.unpack()?))
    }
}

/// Returns a root on which setuid programs, such as sudo(8), work as in other containers.
fn rootfs(layers: Layers) -> RootFs {
    RootFs::overlay(layers.dirs()).suid().holding(layers)
}

/// Parses a signal: `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse::<i32>().ok() };
    let realtime = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => SIGRTMIN.checked_add(offset(rest)?)?,
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => SIGRTMAX.checked_sub(offset(rest)?)?,
        _ => return format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
    };
    (SIGRTMIN..=SIGRTMAX).contains(&realtime).then_some(realtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        let known = [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("SIGRTMAX-1", 63)];
        for (text, number) in known {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "SIGNONE", "SIGRTMIN+31", "RTMIN3", "SIGRTMIN+-1", "RTMAX-é"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }
}
