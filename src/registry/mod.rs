//! Pulls images from registries into a [`Store`], and pushes them: OCI distribution specification
//! 1.1.
//!
//! ```no_run
//! use ringfence::image::Store;
//! use ringfence::registry::{Event, Registry};
//!
//! let store = Store::open_default()?;
//! let registry = Registry::new().progress(|event| {
//!     if let Event::Moved { digest, done, size } = event {
//!         eprintln!("{digest}: {done} of {size} bytes");
//!     }
//! });
//! let image = registry.pull(&store, &"debian:12".parse()?)?;
//! println!("{}: {} layers", image.digest(), image.layers().len());
//! # Ok::<(), ringfence::Error>(())
//! ```
//!
//! # What a registry cannot do
//!
//! A registry can be wrong, slow or hostile. Whatever it sends, a pull or push ends: each response
//! has a deadline and a minimum speed, the number of tries is limited, and
//! [`timeout`](Registry::timeout) limits the total time. Manifests and other responses are limited
//! in size, and blobs go directly to disk, so their size does not affect memory. Nothing becomes
//! part of the store before its digest was checked. What other tenants pulled into the store is
//! used only after the registry has shown that it has the same bytes, unless the store has only
//! [one tenant](Store::one_tenant). Credentials go to their registry and to the token server that
//! it names, and nowhere else: not to the target of a redirect, and not to another host that
//! receives an upload. A TLS connection never leads to plain HTTP, which is used for the hosts of
//! [`plain_http`](Registry::plain_http) only.

mod auth;
mod blocking;
mod catalog;
mod certs;
mod challenge;
mod download;
mod failure;
mod http;
mod login;
mod manifests;
mod mirrors;
mod possession;
mod progress;
mod pull;
mod push;
mod repository;
mod response;
mod session;
mod tls;
mod unpack_schedule;
mod upload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use progress::{Event, Present, PullTimings};

use auth::Auth;
use certs::Certs;
use http::{HttpClient, PlainHosts};
use login::{Login, Logins};
use mirrors::Mirrors;
use progress::Progress;
use repository::{Repository, Retries};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::{Descriptor, Image, Layers, Platform, Reference, Store, host_platform};

/// A client of registries, with the settings and credentials to use.
///
/// Each setter changes one setting. The defaults: TLS with the system's certificate authorities,
/// the logins of docker and podman, this machine's platform, three blobs in parallel, and five
/// retries after temporary failures. The client uses the proxies in `HTTPS_PROXY`, `HTTP_PROXY` and
/// `NO_PROXY`.
#[must_use = "a builder does nothing by itself: each call returns it"]
#[derive(Clone)]
pub struct Registry {
    plain: Vec<String>,
    authorities: Vec<Vec<u8>>,
    /// Certificates for single hosts.
    certs: Vec<(String, Certs)>,
    certs_dirs: Vec<PathBuf>,
    mirrors: Mirrors,
    /// The TLS configuration, which is built once: reading the system's many certificates takes
    /// longer than a pull that downloads nothing.
    tls: Arc<OnceLock<rustls::ClientConfig>>,
    logins: Logins,
    given: Vec<(String, Login)>,
    platform: Platform,
    all_platforms: bool,
    parallel: usize,
    retries: Retries,
    stall: Duration,
    timeout: Duration,
    progress: Progress,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            plain: Vec::new(),
            authorities: Vec::new(),
            certs: Vec::new(),
            certs_dirs: Vec::new(),
            mirrors: Mirrors::default(),
            tls: Arc::default(),
            logins: Logins::Default,
            given: Vec::new(),
            platform: host_platform(),
            all_platforms: false,
            parallel: 3,
            retries: Retries { count: 5, longest_wait: Duration::from_secs(60) },
            stall: Duration::from_secs(30),
            timeout: Duration::from_secs(6 * 60 * 60),
            progress: Progress::default(),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("plain_http", &self.plain)
            .field("credentials", &self.given)
            .field("all_platforms", &self.all_platforms)
            .field("parallel", &self.parallel)
            .field("retries", &self.retries)
            .field("stall_timeout", &self.stall)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Creates a client with default settings.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Uses plain HTTP for `host`, which is `HOST` or `HOST:PORT` as in references. Anyone on the
    /// network path can read and change the traffic; digests are still checked.
    pub fn plain_http(mut self, host: impl Into<String>) -> Self {
        self.plain.push(host.into());
        self
    }

    /// Also trusts these certificate authorities: one or more certificates in PEM.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(pem.into());
        self.tls = Arc::default();
        self
    }

    /// Sends this client certificate to the registry `host` if it asks for one, and to no other
    /// server. `certificate`, with its intermediate certificates, and its private key are in PEM.
    pub fn client_certificate(
        mut self,
        host: impl Into<String>,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        let client = Some((certificate.into(), key.into()));
        self.certs.push((host.into(), Certs { client, ..Certs::default() }));
        self
    }

    /// Reads certificates for single hosts from a directory in the format of docker and podman,
    /// such as `/etc/docker/certs.d`: certificate authorities from `HOST[:PORT]/*.crt`, and a
    /// client certificate from the first `HOST[:PORT]/*.cert` with its `*.key`. The files are read
    /// when they are needed, and apply to that registry alone, not to its token server or the
    /// targets of its redirects. By default, no directory is read.
    pub fn certs_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certs_dirs.push(dir.into());
        self
    }

    /// Pulls images whose names begin with `prefix`, a registry or a part of one, from `mirror`
    /// first. The mirror has the form `HOST[:PORT][/PATH]`, and the rest of the name is appended.
    /// Several mirrors are tried in order, then the registry itself. The images keep their names in
    /// the store. Each mirror has its own credentials. A push always goes to the registry.
    ///
    /// The mirror decides which image a tag refers to. A digest in the name is checked for all
    /// sources.
    ///
    /// ```
    /// use ringfence::registry::Registry;
    ///
    /// let registry = Registry::new().mirror("docker.io", "mirror.example.org/hub");
    /// # drop(registry);
    /// ```
    pub fn mirror(mut self, prefix: impl Into<String>, mirror: impl Into<String>) -> Self {
        self.mirrors.add(prefix.into(), mirror.into());
        self
    }

    /// Reads mirrors, locations, and blocked and insecure registries from the `[[registry]]` tables
    /// of a file: containers-registries.conf(5), version 2. Other parts of the file, which concern
    /// short names, are ignored. `insecure` means plain HTTP, as with
    /// [`plain_http`](Registry::plain_http); invalid certificates are refused nevertheless.
    ///
    /// # Errors
    ///
    /// The error of reading the file; [`ErrorKind::Invalid`] if the file is invalid.
    pub fn registries_conf(mut self, path: impl AsRef<Path>) -> Result<Self> {
        self.plain.extend(self.mirrors.read(path.as_ref())?);
        Ok(self)
    }

    /// Uses these credentials for the registry `host`, or for a part of it such as
    /// `host/namespace`, instead of those of docker or podman. The most specific part applies; for
    /// the same part, the last call.
    pub fn credentials(
        mut self,
        host: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let login = Login::Password { user: user.into(), password: password.into() };
        self.given.insert(0, (host.into(), login));
        self
    }

    /// Reads logins from this file, in the format of docker's `config.json`, and not from the files
    /// of docker and podman. Credential helpers that the file names are run. By default, the files
    /// are `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, then `$REGISTRY_AUTH_FILE` or
    /// `$XDG_RUNTIME_DIR/containers/auth.json`.
    pub fn docker_config(mut self, path: impl Into<PathBuf>) -> Self {
        self.logins = Logins::File(path.into());
        self
    }

    /// Uses no login files.
    pub fn anonymous(mut self) -> Self {
        self.logins = Logins::Anonymous;
        self
    }

    /// Sets the platform to pull if a name refers to images for several.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Pulls the images for all platforms, so that the index can be pushed unchanged. If none is
    /// for the [platform](Registry::platform), [`pull`](Registry::pull) returns the first of the
    /// others.
    pub fn all_platforms(mut self) -> Self {
        self.all_platforms = true;
        self
    }

    /// Sets the number of blobs to transfer in parallel. 0 means 1.
    pub fn parallel(mut self, blobs: usize) -> Self {
        self.parallel = blobs.max(1);
        self
    }

    /// Sets the number of retries if the connection breaks, the registry is silent, or it is
    /// overloaded (429, 5xx). Progress in a blob resets the count. The pauses are 0.2 seconds at
    /// first and 10 seconds at most, or as long as the registry asks for with `Retry-After`; if
    /// that is longer than `longest_wait`, the call fails at once.
    pub fn retries(mut self, count: u32, longest_wait: Duration) -> Self {
        self.retries = Retries { count, longest_wait };
        self
    }

    /// Sets how long a registry may be silent: until it accepts a connection, until it starts to
    /// respond, and within a response. A speed below 1 KiB/s counts as silence. By default, 30
    /// seconds.
    pub fn stall_timeout(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// Sets how long a pull or push may take. By default, six hours. What a pull has downloaded
    /// until then stays in the store, and the next pull continues.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls `listener` for each event. The threads that do the work call the listener, and wait
    /// for it.
    pub fn progress(mut self, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.progress = Progress::new(listener);
        self
    }

    /// Pulls an image into the store under its name. Only what is missing is downloaded, and
    /// incomplete blobs of an earlier pull are continued.
    ///
    /// The call starts threads, blocks until all is done, and ends the threads. It may be made
    /// inside an asynchronous runtime, but blocks the runtime's thread;
    /// [`pull_async`](Registry::pull_async) does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Timeout`], [`ErrorKind::Denied`],
    /// [`ErrorKind::NotFound`] (also if there is no image for the platform);
    /// [`ErrorKind::Protocol`], [`ErrorKind::Corrupt`], [`ErrorKind::TooLarge`] and
    /// [`ErrorKind::Unsupported`] for what the registry sends; [`ErrorKind::Store`].
    pub fn pull(&self, store: &Store, name: &Reference) -> Result<Image> {
        blocking::run(self.pull_async(store, name))?
    }

    /// Pulls an image like [`pull`](Registry::pull), in a task of a tokio runtime with its time and
    /// I/O drivers enabled. If the future is dropped, the pull ends; what it has downloaded stays
    /// in the store for the next pull.
    ///
    /// # Errors
    ///
    /// The errors of [`pull`](Registry::pull); [`ErrorKind::Unsupported`] outside of a tokio
    /// runtime.
    pub async fn pull_async(&self, store: &Store, name: &Reference) -> Result<Image> {
        let work = async {
            let mut sources = self.mirrors.sources(name)?;
            loop {
                match pull::pull(self, store, name, sources.next()).await {
                    Err(error) => sources.failed(error, &self.progress)?,
                    done => return done,
                }
            }
        };
        self.bounded(name, work).await
    }

    /// Pulls the image and [unpacks](Image::unpack) it. If the network is slower than unpacking,
    /// lower layers are unpacked while the others are downloaded. In a store of
    /// [one tenant](Store::one_tenant), the blobs of layers that are already unpacked are not
    /// downloaded: such an image can be run, but not pushed.
    ///
    /// Blocks like [`pull`](Registry::pull).
    ///
    /// # Errors
    ///
    /// The errors of [`pull`](Registry::pull) and [`Image::unpack`].
    pub fn pull_and_unpack(&self, store: &Store, name: &Reference) -> Result<(Image, Layers)> {
        blocking::run(self.pull_and_unpack_async(store, name))?
    }

    /// Pulls and unpacks an image like [`pull_and_unpack`](Registry::pull_and_unpack), in a task of
    /// a tokio runtime. If the future is dropped, layers that are being unpacked are completed.
    ///
    /// # Errors
    ///
    /// The errors of [`pull_and_unpack`](Registry::pull_and_unpack); [`ErrorKind::Unsupported`]
    /// outside of a tokio runtime.
    pub async fn pull_and_unpack_async(&self, store: &Store, name: &Reference) -> Result<(Image, Layers)> {
        let work = async {
            let mut sources = self.mirrors.sources(name)?;
            loop {
                match pull::pull_and_unpack(self, store, name, sources.next()).await {
                    Err(error) => sources.failed(error, &self.progress)?,
                    done => return done,
                }
            }
        };
        self.bounded(name, work).await
    }

    /// Pushes the image with this name from the store to its registry. Blobs that the registry
    /// lacks are sent, or mounted from another of its repositories if the store knows an image
    /// there that has them. The manifests come last, byte by byte as they are.
    ///
    /// Blocks like [`pull`](Registry::pull).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the store lacks the image or a part of it; the errors of
    /// [`pull`](Registry::pull).
    pub fn push(&self, store: &Store, name: &Reference) -> Result<()> {
        blocking::run(self.push_async(store, name))?
    }

    /// Pushes an image like [`push`](Registry::push), in a task of a tokio runtime with its time
    /// and I/O drivers enabled.
    ///
    /// # Errors
    ///
    /// The errors of [`push`](Registry::push); [`ErrorKind::Unsupported`] outside of a tokio
    /// runtime.
    pub async fn push_async(&self, store: &Store, name: &Reference) -> Result<()> {
        self.bounded(name, push::push(self, store, name)).await
    }

    /// Returns the manifest or index, with its digest, that the name refers to in its registry. No
    /// store changes.
    ///
    /// Blocks like [`pull`](Registry::pull).
    ///
    /// # Errors
    ///
    /// The errors of [`pull`](Registry::pull).
    pub fn resolve(&self, name: &Reference) -> Result<Descriptor> {
        blocking::run(self.bounded(name, catalog::resolve(self, name)))?
    }

    /// Returns the tags of the repository that `name` is in, in the registry's order (OCI
    /// distribution specification 1.1, "Listing Tags"). Blocks like [`pull`](Registry::pull).
    ///
    /// ```no_run
    /// use ringfence::registry::Registry;
    ///
    /// for tag in Registry::new().tags(&"alpine".parse()?)? {
    ///     println!("{tag}");
    /// }
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`pull`](Registry::pull); [`ErrorKind::TooLarge`] if the list has no end.
    pub fn tags(&self, name: &Reference) -> Result<Vec<String>> {
        blocking::run(self.bounded(name, catalog::tags(self, name)))?
    }

    /// Returns the manifests that refer to the manifest `REPOSITORY@DIGEST`: signatures,
    /// attestations, bills of materials; if `artifact_type` is given, only those of that type (OCI
    /// distribution specification 1.1, "Listing Referrers", and the tag schema of older
    /// registries). Blocks like [`pull`](Registry::pull).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name has no digest; the errors of [`pull`](Registry::pull).
    pub fn referrers(&self, name: &Reference, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        blocking::run(self.bounded(name, catalog::referrers(self, name, artifact_type)))?
    }

    /// Deletes a manifest with all its tags if the name has a digest, or else only the tag (OCI
    /// distribution specification 1.1, "Deleting"). Unused blobs stay until the registry collects
    /// them. Blocks like [`pull`](Registry::pull).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the registry does not support deletion, or not of tags; the
    /// errors of [`pull`](Registry::pull).
    pub fn delete(&self, name: &Reference) -> Result<()> {
        blocking::run(self.bounded(name, catalog::delete(self, name)))?
    }

    async fn bounded<T>(&self, name: &Reference, work: impl Future<Output = Result<T>>) -> Result<T> {
        if tokio::runtime::Handle::try_current().is_err() {
            let error = Error::message(ErrorKind::Unsupported, Step::Registry, "there is no tokio runtime here");
            return Err(error.hint("call it in a task of a tokio runtime, or call the blocking method"));
        }
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            let error =
                Error::message(ErrorKind::Timeout, Step::Registry, format!("not done after {:?}", self.timeout));
            Err(error.at(name.to_string()).hint("try again, which continues from here, or raise timeout"))
        })
    }

    fn certs_of(&self, host: &str) -> Result<Certs> {
        let mut certs = Certs::default();
        certs.client = self.certs.iter().rev().find(|(own, _)| own == host).and_then(|(_, certs)| certs.client.clone());
        self.certs_dirs.iter().try_for_each(|dir| certs.read(dir, host))?;
        Ok(certs)
    }

    /// Returns the repository that `name` is in, with a new connection pool.
    fn repository(&self, name: &Reference, scopes: Vec<String>) -> Result<Repository> {
        let host = name.registry();
        let plain = PlainHosts::new(&self.plain)?;
        // Docker Hub's registry has another host name.
        let base = plain.base(if host == "docker.io" { "registry-1.docker.io" } else { host })?;
        let whole = format!("{host}/{}", name.repository());
        let covers =
            |given: &str| whole.strip_prefix(given).is_some_and(|rest| rest.starts_with('/')) || whole == given;
        let given = self.given.iter().filter(|(given, _)| covers(given)).rev().max_by_key(|(given, _)| given.len());
        let given = given.map(|(_, login)| login.clone());
        let tls = match self.tls.get() {
            Some(tls) => tls.clone(),
            None => {
                let tls = tls::config(&self.authorities, None)?;
                self.tls.get_or_init(|| tls).clone()
            }
        };
        let certs = self.certs_of(host)?;
        let own = match certs.is_empty() {
            true => None,
            false => {
                Some((&base, tls::config(&[&*self.authorities, &certs.authorities].concat(), certs.client.as_ref())?))
            }
        };
        Ok(Repository {
            http: HttpClient::new(tls, own, plain, self.stall)?,
            auth: Auth::new(host, name.repository(), scopes, self.logins.clone(), given),
            base,
            host: host.to_owned(),
            name: name.repository().to_owned(),
            retries: self.retries,
            progress: self.progress.clone(),
            arrived: AtomicU64::new(0),
        })
    }
}

/// The times at which the phases of a pull or push ended.
struct Clock {
    begun: Instant,
    resolved: Duration,
    blobs: Duration,
    unpacking: Option<Instant>,
    moved: u64,
}

impl Clock {
    fn start() -> Self {
        let zero = Duration::ZERO;
        Clock { begun: Instant::now(), resolved: zero, blobs: zero, unpacking: None, moved: 0 }
    }

    fn resolved(&mut self) {
        self.resolved = self.begun.elapsed();
    }

    /// Records that all blobs are there, after `bytes` were transferred.
    fn moved(&mut self, bytes: u64) {
        self.blobs = self.begun.elapsed().saturating_sub(self.resolved);
        self.moved = bytes;
    }

    /// Returns the durations of the phases, when all is done.
    fn timings(&self) -> PullTimings {
        let unpack = self.unpacking.map(|since| since.elapsed()).unwrap_or_default();
        let Clock { resolved, blobs, moved, .. } = *self;
        PullTimings { resolve: resolved, blobs, unpack, total: self.begun.elapsed(), moved }
    }
}
