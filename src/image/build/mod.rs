//! Builds images from a directory, from what a program wrote, or from steps.
//!
//! The same input gives the same digest: entries are sorted, no time is later than the image's own,
//! and no name, number or time of the build is included.

mod assemble;
mod compressed;
mod layer;
mod xattrs;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Image;
use super::reference::Reference;
use super::store::Store;
use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::units::Bytes;

/// The default limit on the size of all files in one new layer.
const LAYER_MAX: Bytes = Bytes::gib(32);

/// A builder that makes an image from steps, each on top of the previous ones. The builder takes
/// the place of a build file.
///
/// ```no_run
/// use ringfence::image::{ImageBuilder, Store};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let store = Store::open_default()?;
/// let base = store.image(&"debian:12".parse()?)?;
/// let image = ImageBuilder::from(&base)
///     .copy("target/release/server", "/usr/local/bin/server")
///     .run(["useradd", "--system", "server"])
///     .env("PORT", "8080")
///     .user("server")
///     .entrypoint(["/usr/local/bin/server"])
///     .build(&"server:1".parse()?)?;
/// println!("{}", image.digest());
/// # Ok(())
/// # }
/// ```
///
/// # The same input, the same image
///
/// Modification times up to the image's [`epoch`](ImageBuilder::epoch) are kept; later times become
/// the epoch. A [`run`](ImageBuilder::run) step is as reproducible as its program.
#[must_use = "a builder does nothing by itself: each call returns it"]
#[derive(Clone)]
pub struct ImageBuilder {
    store: Store,
    base: Option<Image>,
    steps: Vec<BuildStep>,
    epoch: Option<u64>,
    limit: Bytes,
    sandbox: Arc<dyn Fn(Sandbox) -> Sandbox + Send + Sync>,
}

/// One step of a build.
#[derive(Debug, Clone)]
pub(super) enum BuildStep {
    Copy { from: PathBuf, to: PathBuf },
    Run(Vec<OsString>),
    Upper(PathBuf),
    Config(ConfigChange),
}

/// A step that changes the configuration and adds no layer.
#[derive(Debug, Clone)]
pub(super) enum ConfigChange {
    Env(String, String),
    Workdir(String),
    User(String),
    Entrypoint(Vec<String>),
    Cmd(Vec<String>),
    Label(String, String),
    Expose(String),
    Volume(String),
    StopSignal(String),
}

impl fmt::Debug for ImageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageBuilder").field("base", &self.base).field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl From<&Image> for ImageBuilder {
    fn from(base: &Image) -> Self {
        ImageBuilder { base: Some(base.clone()), ..ImageBuilder::scratch(base.store()) }
    }
}

impl ImageBuilder {
    /// Starts from an empty image for this machine's platform.
    pub fn scratch(store: &Store) -> Self {
        let (store, sandbox) = (store.clone(), Arc::new(|sandbox| sandbox));
        ImageBuilder { store, base: None, steps: Vec::new(), epoch: None, limit: LAYER_MAX, sandbox }
    }

    /// Starts from an image, and builds in the same store. `ImageBuilder::from(&image)` does the
    /// same.
    pub fn on(base: &Image) -> Self {
        ImageBuilder::from(base)
    }

    fn step(mut self, step: BuildStep) -> Self {
        self.steps.push(step);
        self
    }

    fn change(self, change: ConfigChange) -> Self {
        self.step(BuildStep::Config(change))
    }

    /// Adds a layer with a file of the host, or with the contents of a directory of the host. `to`
    /// is the absolute path in the image. Links of the image on the way to `to` are followed, and
    /// missing directories are created with mode 755. Root owns all copied files; their modes,
    /// times, links and attributes are kept.
    ///
    /// Links in `from` are copied as links; their targets are not copied.
    pub fn copy(self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.step(BuildStep::Copy { from: from.into(), to: to.into() })
    }

    /// Adds a layer with the changes that a program makes. The program runs as root with the host's
    /// network, in a sandbox made by [`Sandbox::from_image`]. Its output is discarded, except that
    /// an error shows the end of its stderr.
    pub fn run(self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.step(BuildStep::Run(argv.into_iter().map(|arg| arg.as_ref().to_owned()).collect()))
    }

    /// Adds a layer with the contents of `upper`, a directory that a sandbox used as the upper of
    /// its overlay on the image so far: [`RootFs::upper`](crate::RootFs::upper). The sandbox must
    /// have ended.
    pub fn upper(self, upper: impl Into<PathBuf>) -> Self {
        self.step(BuildStep::Upper(upper.into()))
    }

    /// Sets an environment variable.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(ConfigChange::Env(name.into(), value.into()))
    }

    /// Sets the working directory.
    pub fn workdir(self, dir: impl Into<String>) -> Self {
        self.change(ConfigChange::Workdir(dir.into()))
    }

    /// Sets the user that the program runs as: `name`, `uid`, `name:group` or `uid:gid`.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.change(ConfigChange::User(user.into()))
    }

    /// Sets the program to execute, which comes before the arguments of [`cmd`](ImageBuilder::cmd).
    /// As in build files, this call removes an earlier `cmd`.
    pub fn entrypoint(self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.change(ConfigChange::Entrypoint(argv.into_iter().map(Into::into).collect()))
    }

    /// Sets the arguments of the entrypoint, or the program and its arguments if there is no
    /// entrypoint.
    pub fn cmd(self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.change(ConfigChange::Cmd(argv.into_iter().map(Into::into).collect()))
    }

    /// Sets a label.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(ConfigChange::Label(name.into(), value.into()))
    }

    /// Declares a port that the program listens on, such as `8080/tcp`.
    pub fn expose(self, port: impl Into<String>) -> Self {
        self.change(ConfigChange::Expose(port.into()))
    }

    /// Declares a directory for the program's data.
    pub fn volume(self, path: impl Into<String>) -> Self {
        self.change(ConfigChange::Volume(path.into()))
    }

    /// Sets the signal that asks the program to end, by name or number.
    pub fn stop_signal(self, signal: impl Into<String>) -> Self {
        self.change(ConfigChange::StopSignal(signal.into()))
    }

    /// Sets the time at which the image was made. By default, the time of the base image, or 1970
    /// without a base. The clock is never read.
    pub fn epoch(mut self, time: SystemTime) -> Self {
        self.epoch = Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs());
        self
    }

    /// Sets the limit on the size of all files in one new layer. By default, 32 GiB.
    pub fn layer_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Changes the sandboxes of [`run`](ImageBuilder::run) steps: their limits, mounts or network.
    /// Their root file system stays the builder's.
    pub fn sandbox(mut self, change: impl Fn(Sandbox) -> Sandbox + Send + Sync + 'static) -> Self {
        self.sandbox = Arc::new(change);
        self
    }

    /// Runs the steps, and tags the resulting image with `name` in the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a step that no image can have; the
    /// errors of [`Sandbox::output`](crate::Sandbox::output);
    /// [`Step::BuildRun`](crate::Step::BuildRun) if a program fails;
    /// [`Step::PackLayer`](crate::Step::PackLayer) if a file cannot be read; the errors of the
    /// store. After an error the store has at most additional blobs that no image uses.
    pub fn build(&self, name: &Reference) -> Result<Image> {
        assemble::build(self, name)
    }
}
