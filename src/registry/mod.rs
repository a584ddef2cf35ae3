//! Registries: images from them into a [`Store`], and back. OCI distribution specification 1.1.
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
//! It can be wrong, slow or hostile. Whatever it sends, a pull or push ends: every answer has a deadline, a body has to
//! keep coming, tries are counted, and there is [`timeout`](Registry::timeout) over all of it. Manifests and answers are
//! read up to a bound, and blobs go to the disk as they come, so that memory does not grow with them. Nothing has a place
//! in the store before its digest was found to be right, and what others have pulled into the store is had for a registry's
//! own bytes alone, unless it is a store of [one tenant](Store::one_tenant). Credentials go to the registry that they are for and to the token
//! server that it names, and nowhere else: not with a redirect, nor to where an upload is sent. From TLS nothing leads to
//! plain HTTP, which is spoken to the hosts of [`plain_http`](Registry::plain_http) alone.

mod auth;
mod blocking;
mod catalog;
mod certs;
mod challenge;
mod download;
mod failure;
mod login;
mod manifests;
mod mirrors;
mod possession;
mod progress;
mod pull;
mod push;
mod repository;
mod session;
mod tls;
mod upload;
mod waves;
mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use progress::{Event, Present, Timings};

use auth::Auth;
use certs::Certs;
use login::{Login, Logins};
use mirrors::Mirrors;
use progress::Progress;
use repository::{Repository, Retries};
use wire::{PlainHosts, Wire};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::{Descriptor, Image, Layers, Platform, Reference, Store, host_platform};

/// Pulls from and pushes to registries: how, and as whom.
///
/// Each call of a setter adds one thing. Without any: TLS with the system's certificate authorities, the logins of docker
/// and podman, this machine's platform, three blobs at once, and five more tries for what fails by chance.
/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are heeded.
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Clone)]
pub struct Registry {
    plain: Vec<String>,
    authorities: Vec<Vec<u8>>,
    /// For single hosts.
    certs: Vec<(String, Certs)>,
    certs_dirs: Vec<PathBuf>,
    mirrors: Mirrors,
    /// Made once, from the system's many certificates, which takes longer than a pull of what is there.
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
    /// With nothing set.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Speaks plain HTTP to `host`, which is `HOST` or `HOST:PORT` as image names have it. Everybody on the way can read and
    /// change what goes over it; digests are checked all the same.
    pub fn plain_http(mut self, host: impl Into<String>) -> Self {
        self.plain.push(host.into());
        self
    }

    /// Trusts these certificate authorities too: one or more certificates in PEM.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(pem.into());
        self.tls = Arc::default();
        self
    }

    /// Shows this certificate to the registry `host` where it asks for one, and to no other server: the certificate, with
    /// those in between, and its private key, both in PEM.
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

    /// Takes certificates for single hosts from a directory as docker and podman have it, such as `/etc/docker/certs.d`:
    /// authorities from `HOST[:PORT]/*.crt`, and what this side shows from the first `HOST[:PORT]/*.cert` with its `*.key`.
    /// They are read when they are needed, and used for that registry alone, not for its token server or for where it
    /// redirects to. Without this call none is read.
    pub fn certs_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certs_dirs.push(dir.into());
        self
    }

    /// Looks for images whose names begin with `prefix`, a registry or a part of one, at `mirror` first: `HOST[:PORT][/PATH]`,
    /// to which the rest of the name is added. Several are asked in their order, then the registry itself. They keep their
    /// name in the store; each place gets its own credentials. A push goes to the registry.
    ///
    /// What a tag stands for is the mirror's word; a digest in the name is checked wherever it comes from.
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

    /// Takes mirrors, locations, and blocked and insecure registries from a file: containers-registries.conf(5), version 2,
    /// `[[registry]]`. Its other parts say how short names are searched for, which is not done here. `insecure` means plain
    /// HTTP, as [`plain_http`](Registry::plain_http); a certificate that nobody vouches for is not taken.
    ///
    /// # Errors
    ///
    /// That of reading it; [`ErrorKind::Invalid`] if it is none.
    pub fn registries_conf(mut self, path: impl AsRef<Path>) -> Result<Self> {
        self.plain.extend(self.mirrors.read(path.as_ref())?);
        Ok(self)
    }

    /// Logs in to the registry `host`, or to a part of it as in `host/namespace`, with these, and not with what docker or
    /// podman know. The narrowest part counts, and of the same part what was given last.
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

    /// Takes logins from this file, which has the format of docker's `config.json`, and not from where docker and podman
    /// keep theirs. Credential helpers that it names are run. Without this call that is `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`, then `$REGISTRY_AUTH_FILE` or `$XDG_RUNTIME_DIR/containers/auth.json`.
    pub fn docker_config(mut self, path: impl Into<PathBuf>) -> Self {
        self.logins = Logins::File(path.into());
        self
    }

    /// Looks for no logins.
    pub fn anonymous(mut self) -> Self {
        self.logins = Logins::Anonymous;
        self
    }

    /// Pulls the image for this platform where a name stands for several.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Pulls the images for all platforms that a name stands for, so that it can be pushed as it is. Where none is for the
    /// [platform](Registry::platform), [`pull`](Registry::pull) gives the first of the others.
    pub fn all_platforms(mut self) -> Self {
        self.all_platforms = true;
        self
    }

    /// Moves so many blobs at once; 0 is taken for 1.
    pub fn parallel(mut self, blobs: usize) -> Self {
        self.parallel = blobs.max(1);
        self
    }

    /// Tries so many times more when the connection breaks, nothing comes, or the registry is overloaded (429, 5xx). For a
    /// blob that gets on, they are counted anew. The waits between are 0.2 seconds at first and 10 at most, or what the
    /// registry asks for with `Retry-After`; where that is longer than `longest_wait`, it is an error at once.
    pub fn retries(mut self, count: u32, longest_wait: Duration) -> Self {
        self.retries = Retries { count, longest_wait };
        self
    }

    /// How long a registry may be silent: until there is a connection, until it begins to answer, and within an answer.
    /// Less than 1 KiB a second counts as silence. 30 seconds without this call.
    pub fn stall_timeout(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// How long a pull or a push may take. Six hours without this call. What a pull has got until then stays in the
    /// store, and the next goes on with it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tells `listener` what happens. It is called from threads that do the work, which wait for it.
    pub fn progress(mut self, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.progress = Progress::new(listener);
        self
    }

    /// Has the image in the store, under its name: what is missing is fetched, and blobs that an earlier pull left half
    /// done are gone on with.
    ///
    /// It starts threads, which end with it, and blocks until all is done. It may be called inside an asynchronous
    /// runtime, whose thread it blocks then; [`pull_async`](Registry::pull_async) does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Timeout`], [`ErrorKind::Denied`], [`ErrorKind::NotFound`] (also where there
    /// is nothing for the platform); [`ErrorKind::Protocol`], [`ErrorKind::Corrupt`], [`ErrorKind::TooLarge`] and
    /// [`ErrorKind::Unsupported`] for what the registry sends; [`ErrorKind::Store`].
    pub fn pull(&self, store: &Store, name: &Reference) -> Result<Image> {
        blocking::run(self.pull_async(store, name))?
    }

    /// The same in a task of a tokio runtime, which needs its time and I/O drivers. If the future is dropped, the pull ends;
    /// what it has got stays in the store for the next.
    ///
    /// # Errors
    ///
    /// As [`pull`](Registry::pull); [`ErrorKind::Unsupported`] outside of tokio.
    pub async fn pull_async(&self, store: &Store, name: &Reference) -> Result<Image> {
        let work = async {
            let mut places = self.mirrors.places(name)?;
            loop {
                match pull::pull(self, store, name, places.next()).await {
                    Err(error) => places.failed(error, &self.progress)?,
                    done => return done,
                }
            }
        };
        self.bounded(name, work).await
    }

    /// Pulls the image and [unpacks](Image::unpack) it: where the network is slower than that, while the rest still arrives.
    /// In a store of [one tenant](Store::one_tenant) a layer that has been unpacked before is not fetched: without all of its
    /// blobs an image can be run, and not pushed.
    ///
    /// It blocks as [`pull`](Registry::pull) does.
    ///
    /// # Errors
    ///
    /// As [`pull`](Registry::pull) and [`Image::unpack`].
    pub fn pull_and_unpack(&self, store: &Store, name: &Reference) -> Result<(Image, Layers)> {
        blocking::run(self.pull_and_unpack_async(store, name))?
    }

    /// The same in a task of a tokio runtime. If the future is dropped, layers that are being unpacked are finished.
    ///
    /// # Errors
    ///
    /// As [`pull_and_unpack`](Registry::pull_and_unpack); [`ErrorKind::Unsupported`] outside of tokio.
    pub async fn pull_and_unpack_async(&self, store: &Store, name: &Reference) -> Result<(Image, Layers)> {
        let work = async {
            let mut places = self.mirrors.places(name)?;
            loop {
                match pull::pull_and_unpack(self, store, name, places.next()).await {
                    Err(error) => places.failed(error, &self.progress)?,
                    done => return done,
                }
            }
        };
        self.bounded(name, work).await
    }

    /// Has what the store knows by this name in the registry: blobs that it lacks are sent, or taken from another of its
    /// repositories if an image of the store is known to be there; then the manifests, byte by byte as they are.
    ///
    /// It blocks as [`pull`](Registry::pull) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the store lacks the image or a part of it; and as [`pull`](Registry::pull).
    pub fn push(&self, store: &Store, name: &Reference) -> Result<()> {
        blocking::run(self.push_async(store, name))?
    }

    /// The same in a task of a tokio runtime, which needs its time and I/O drivers.
    ///
    /// # Errors
    ///
    /// As [`push`](Registry::push); [`ErrorKind::Unsupported`] outside of tokio.
    pub async fn push_async(&self, store: &Store, name: &Reference) -> Result<()> {
        self.bounded(name, push::push(self, store, name)).await
    }

    /// What the name stands for in its registry: a manifest or an index, with its digest. Nothing is put into a store.
    ///
    /// It blocks as [`pull`](Registry::pull) does.
    ///
    /// # Errors
    ///
    /// As [`pull`](Registry::pull).
    pub fn resolve(&self, name: &Reference) -> Result<Descriptor> {
        blocking::run(self.bounded(name, catalog::resolve(self, name)))?
    }

    /// The tags of the repository that `name` is in, in the registry's order (distribution specification 1.1, "Listing
    /// Tags"). It blocks as [`pull`](Registry::pull) does.
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
    /// As [`pull`](Registry::pull); [`ErrorKind::TooLarge`] for a list without an end.
    pub fn tags(&self, name: &Reference) -> Result<Vec<String>> {
        blocking::run(self.bounded(name, catalog::tags(self, name)))?
    }

    /// What refers to the manifest `REPOSITORY@DIGEST`: signatures, attestations, lists of parts; those of the type `artifact_type`
    /// alone if one is given (distribution specification 1.1, "Listing Referrers", and the tag schema of registries before).
    /// It blocks as [`pull`](Registry::pull) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name has no digest; and as [`pull`](Registry::pull).
    pub fn referrers(&self, name: &Reference, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        blocking::run(self.bounded(name, catalog::referrers(self, name, artifact_type)))?
    }

    /// Deletes from the registry: the manifest of the digest, with all its tags, if the name has one, else the tag alone
    /// (distribution specification 1.1, "Deleting"). Blobs go when the registry clears them away. It blocks as
    /// [`pull`](Registry::pull) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the registry deletes nothing, or no tags; and as [`pull`](Registry::pull).
    pub fn delete(&self, name: &Reference) -> Result<()> {
        blocking::run(self.bounded(name, catalog::delete(self, name)))?
    }

    async fn bounded<T>(&self, name: &Reference, work: impl Future<Output = Result<T>>) -> Result<T> {
        if tokio::runtime::Handle::try_current().is_err() {
            let error = Error::message(ErrorKind::Unsupported, Step::Registry, "there is no tokio runtime here");
            return Err(error.hint("call it in a task of one, or call pull or push, which bring their own"));
        }
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            let error =
                Error::message(ErrorKind::Timeout, Step::Registry, format!("not done after {:?}", self.timeout));
            Err(error.at(name.to_string()).hint("try again, which goes on from here, or raise timeout"))
        })
    }

    fn certs_of(&self, host: &str) -> Result<Certs> {
        let mut certs = Certs::default();
        certs.client = self.certs.iter().rev().find(|(own, _)| own == host).and_then(|(_, certs)| certs.client.clone());
        self.certs_dirs.iter().try_for_each(|dir| certs.read(dir, host))?;
        Ok(certs)
    }

    /// The repository that `name` is in, with a connection pool of its own.
    fn repository(&self, name: &Reference, scopes: Vec<String>) -> Result<Repository> {
        let host = name.registry();
        let plain = PlainHosts::new(&self.plain)?;
        // Docker's registry is elsewhere than its name says.
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
            wire: Wire::new(tls, own, plain, self.stall)?,
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

/// When the phases of a pull or push ended.
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

    /// The blobs are there, of which so many bytes were moved.
    fn moved(&mut self, bytes: u64) {
        self.blobs = self.begun.elapsed().saturating_sub(self.resolved);
        self.moved = bytes;
    }

    /// All is done.
    fn timings(&self) -> Timings {
        let unpack = self.unpacking.map(|since| since.elapsed()).unwrap_or_default();
        let Clock { resolved, blobs, moved, .. } = *self;
        Timings { resolve: resolved, blobs, unpack, total: self.begun.elapsed(), moved }
    }
}
