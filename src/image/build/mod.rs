//! Making images: from a directory, from what a program wrote, from steps.
//!
//! The same input gives the same digest: entries are sorted, nothing is younger than the image's own time, and no name, number
//! or time of the build gets in.

mod assemble;
mod compressed;
mod layer;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Image, Reference, Store};
use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::units::Bytes;

/// The most that the files of one new layer may take, unless more is allowed.
const LAYER_MAX: Bytes = Bytes::gib(32);

/// Builds an image of steps, each on what those before it left: the build file of this library.
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
/// Times of files are kept up to the image's [`epoch`](ImageBuilder::epoch), and are the epoch after it. What a
/// [`run`](ImageBuilder::run) writes is as reproducible as its program.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Clone)]
pub struct ImageBuilder {
    store: Store,
    base: Option<Image>,
    steps: Vec<Work>,
    epoch: Option<u64>,
    limit: Bytes,
    sandbox: Arc<dyn Fn(Sandbox) -> Sandbox + Send + Sync>,
}

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Copy { from: PathBuf, to: PathBuf },
    Run(Vec<OsString>),
    Upper(PathBuf),
    Config(Change),
}

/// A change of the configuration alone.
#[derive(Debug, Clone)]
pub(super) enum Change {
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
    /// Begins with nothing. Its platform is this machine's.
    pub fn scratch(store: &Store) -> Self {
        let (store, sandbox) = (store.clone(), Arc::new(|sandbox| sandbox));
        ImageBuilder { store, base: None, steps: Vec::new(), epoch: None, limit: LAYER_MAX, sandbox }
    }

    /// Begins with an image, in its store: also `ImageBuilder::from(&image)`.
    pub fn on(base: &Image) -> Self {
        ImageBuilder::from(base)
    }

    fn step(mut self, step: Work) -> Self {
        self.steps.push(step);
        self
    }

    fn change(self, change: Change) -> Self {
        self.step(Work::Config(change))
    }

    /// Adds a layer with a file, or with what is in a directory, of the host. `to` is the path that it has in the image,
    /// absolute; links of the image that lead to it are followed, and directories are made where the image has none, of mode
    /// 755. All is root's; modes, times, links and attributes of what is copied are kept.
    ///
    /// Links in `from` are copied as links; what they lead to is not.
    pub fn copy(self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.step(Work::Copy { from: from.into(), to: to.into() })
    }

    /// Adds a layer with what a program changes. It runs in a sandbox as [`Sandbox::from_image`] makes it, as root, with the
    /// host's network; what it prints is left out, but for the end of its stderr if it fails.
    pub fn run(self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.step(Work::Run(argv.into_iter().map(|arg| arg.as_ref().to_owned()).collect()))
    }

    /// Adds a layer with what a sandbox has left in `upper`, which was the upper of its overlay on the image so far:
    /// [`RootFs::upper`](crate::RootFs::upper). The sandbox must have ended.
    pub fn upper(self, upper: impl Into<PathBuf>) -> Self {
        self.step(Work::Upper(upper.into()))
    }

    /// Sets a variable of the environment.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(Change::Env(name.into(), value.into()))
    }

    /// The working directory.
    pub fn workdir(self, dir: impl Into<String>) -> Self {
        self.change(Change::Workdir(dir.into()))
    }

    /// Whom the program runs as: `name`, `uid`, `name:group`, `uid:gid`.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.change(Change::User(user.into()))
    }

    /// What is executed, before [`cmd`](ImageBuilder::cmd)'s arguments. As in build files it takes an earlier `cmd` away.
    pub fn entrypoint(self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.change(Change::Entrypoint(argv.into_iter().map(Into::into).collect()))
    }

    /// Arguments for the entrypoint, or without one what is executed.
    pub fn cmd(self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.change(Change::Cmd(argv.into_iter().map(Into::into).collect()))
    }

    /// Sets a label.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(Change::Label(name.into(), value.into()))
    }

    /// Says on which port it listens: `8080/tcp`.
    pub fn expose(self, port: impl Into<String>) -> Self {
        self.change(Change::Expose(port.into()))
    }

    /// Says where it keeps data.
    pub fn volume(self, path: impl Into<String>) -> Self {
        self.change(Change::Volume(path.into()))
    }

    /// The signal that asks the program to end, by name or number.
    pub fn stop_signal(self, signal: impl Into<String>) -> Self {
        self.change(Change::StopSignal(signal.into()))
    }

    /// When the image was made. Without this call when its base was, and without a base 1970: the clock is not looked at.
    pub fn epoch(mut self, time: SystemTime) -> Self {
        self.epoch = Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs());
        self
    }

    /// The most that the files of one new layer may take; 32 GiB without this call.
    pub fn layer_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Changes the sandboxes of [`run`](ImageBuilder::run): limits, mounts, a network of their own. Their root stays the
    /// builder's.
    pub fn sandbox(mut self, change: impl Fn(Sandbox) -> Sandbox + Send + Sync + 'static) -> Self {
        self.sandbox = Arc::new(change);
        self
    }

    /// Does the steps, and gives the image that they make a name in the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for steps that no image can have; the errors of
    /// [`Sandbox::output`](crate::Sandbox::output), or [`Step::BuildRun`](crate::Step::BuildRun) if a program fails;
    /// [`Step::PackLayer`](crate::Step::PackLayer) if something cannot be read; those of the store. The store then has no more
    /// than blobs that no image names.
    pub fn build(&self, name: &Reference) -> Result<Image> {
        assemble::build(self, name)
    }
}
