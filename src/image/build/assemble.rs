//! Runs the steps of a build in order, and writes the resulting configuration and manifest.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use oci_spec::image::{
    Config, Descriptor, HistoryBuilder, ImageConfiguration, MediaType, RootFs as Ids, RootFsBuilder,
};

use super::super::Image;
use super::super::lowers::{Found, Lowers};
use super::super::manifest;
use super::super::platform::host_platform;
use super::super::reference::Reference;
use super::compressed::{Compressed, Layer};
use super::layer::{LayerWriter, PackOptions};
use super::{BuildStep, ConfigChange, ImageBuilder};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::mount::{ImageMounts, Missing};
use crate::owner::{self, Claim, Scratch};
use crate::sandbox::Sandbox;
use crate::stdio::Stdio;

/// The number of bytes of a failed program's stderr that its error shows.
const LAST_WORDS: u64 = 2048;

/// The state of an image while it is built.
struct Assembly<'b> {
    builder: &'b ImageBuilder,
    config: ImageConfiguration,
    layers: Vec<Descriptor>,
    /// The digests of `layers` without compression.
    diff_ids: Vec<String>,
    epoch: u64,
    claim: Claim,
    /// The directory for layers that do not have their name yet. The next
    /// [`prune`](super::super::Store::prune) finds here what a killed build leaves.
    scratch: Scratch,
}

/// A directory of the image that a step copies to.
struct CopyTarget {
    path: PathBuf,
    /// The parent directories that the image does not have yet, the uppermost first.
    missing: Vec<PathBuf>,
}

impl CopyTarget {
    fn make(&self, layer: &mut LayerWriter<Compressed>) -> Result<()> {
        self.missing.iter().try_for_each(|dir| layer.directory(dir))
    }
}

pub(super) fn build(builder: &ImageBuilder, name: &Reference) -> Result<Image> {
    let _hold = builder.store.hold()?;
    let mut assembly = Assembly::new(builder)?;
    for work in &builder.steps {
        assembly.work(work)?;
    }
    let manifest = assembly.write()?;
    builder.store.tag(name, &manifest)?;
    builder.store.image(name)
}

impl<'b> Assembly<'b> {
    fn new(builder: &'b ImageBuilder) -> Result<Self> {
        let claim = owner::claim(false)?;
        let scratch = claim.make_scratch(builder.store.layout.staging_dir().path(), None)?;
        let mut assembly = match &builder.base {
            Some(base) => {
                let config = base.config().clone();
                let epoch = config.created().as_deref().and_then(|time| humantime::parse_rfc3339(time).ok());
                let diff_ids = config.rootfs().diff_ids().clone();
                let epoch = epoch.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default().as_secs();
                Assembly { builder, config, layers: base.layers().to_vec(), diff_ids, epoch, claim, scratch }
            }
            None => {
                let platform = host_platform();
                let mut config = ImageConfiguration::default();
                config.set_architecture(platform.architecture().clone());
                config.set_os(platform.os().clone());
                let (layers, diff_ids) = (Vec::new(), Vec::new());
                Assembly { builder, config, layers, diff_ids, epoch: 0, claim, scratch }
            }
        };
        assembly.epoch = builder.epoch.unwrap_or(assembly.epoch);
        Ok(assembly)
    }

    fn work(&mut self, work: &BuildStep) -> Result<()> {
        match work {
            BuildStep::Copy { from, to } => {
                let layer = self.copy(from, to)?;
                self.push(layer, format!("COPY {}", to.display()));
            }
            BuildStep::Run(argv) => {
                let layer = self.run(argv)?;
                let argv: Vec<_> = argv.iter().map(|arg| arg.to_string_lossy()).collect();
                self.push(layer, format!("RUN {}", argv.join(" ")));
            }
            BuildStep::Upper(upper) => {
                let layer = self.upper(upper)?;
                self.push(layer, "commit".to_owned());
            }
            BuildStep::Config(change) => {
                let created_by = self.change(change)?;
                self.history(created_by, true);
            }
        }
        Ok(())
    }

    fn push(&mut self, layer: Layer, created_by: String) {
        self.diff_ids.push(layer.diff_id.to_string());
        self.layers.push(layer.blob);
        self.history(created_by, false);
    }

    fn history(&mut self, created_by: String, is_empty: bool) {
        let mut history = self.config.history().clone().unwrap_or_default();
        let entry =
            HistoryBuilder::default().created(self.created()).created_by(created_by).empty_layer(is_empty).build();
        history.extend(entry);
        self.config.set_history(Some(history));
    }

    /// Returns the image's time in the format of RFC 3339.
    fn created(&self) -> String {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(self.epoch)).unwrap_or(SystemTime::UNIX_EPOCH);
        humantime::format_rfc3339_seconds(time).to_string()
    }

    /// Creates a layer with `write`, and puts the layer into the store.
    fn layer(&self, write: impl FnOnce(&mut LayerWriter<Compressed>) -> Result<()>) -> Result<Layer> {
        let file = self.scratch.path().join(format!("layer-{}", self.layers.len()));
        let mut layer = LayerWriter::new(Compressed::new(&file)?, self.epoch, self.builder.limit.get());
        write(&mut layer)?;
        let stored = layer.finish()?.store(&self.builder.store);
        let _ = fs::remove_file(&file);
        stored
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<Layer> {
        let names = names_of(to).ok_or_else(|| {
            let error = Error::message(ErrorKind::Invalid, Step::PackLayer, "not an absolute path without `..`").at(to);
            error.hint("name the path in the image: ImageBuilder::copy(from, \"/usr/bin/tool\")")
        })?;
        let failed = |error: &std::io::Error| Error::io(Step::OpenSource, error).at(from);
        let from = std::path::absolute(from).map_err(|error| failed(&error))?;
        let meta = fs::symlink_metadata(&from).map_err(|error| failed(&error).hint("the path is one of the host's"))?;
        let options = PackOptions { upper: false, owner: &|_, _| Some((0, 0)) };
        if meta.is_dir() {
            let dir = File::open(&from).map_err(|error| failed(&error))?;
            let place = self.place(&names, to)?;
            return self.layer(|layer| {
                place.make(layer)?;
                layer.contents(dir.as_fd(), &place.path, &options)
            });
        }
        let (Some(parent), Some(own), Some((name, above))) = (from.parent(), from.file_name(), names.split_last())
        else {
            return Err(Error::message(ErrorKind::Invalid, Step::PackLayer, "a file cannot be the root").at(to));
        };
        let dir = File::open(parent).map_err(|error| failed(&error))?;
        let place = self.place(above, to)?;
        self.layer(|layer| {
            place.make(layer)?;
            layer.entry(dir.as_fd(), own, &place.path.join(name), &options)
        })
    }

    /// Resolves a directory in the image built so far, following the image's links.
    fn place(&self, names: &[&OsStr], to: &Path) -> Result<CopyTarget> {
        let failed = |errno| Error::new(Step::PackLayer, errno).at(to);
        let layers = if self.layers.is_empty() { None } else { Some(self.so_far()?.unpack()?) };
        let lowers = Lowers::open(layers.as_ref().map_or(&[], |layers| layers.dirs())).map_err(failed)?;
        let path = names.join(OsStr::new("/"));
        let path = lowers.resolve(path.as_bytes()).map_err(failed)?.ok_or_else(|| failed(Errno::ELOOP))?;
        let path = Path::new("/").join(OsStr::from_bytes(&path));
        let mut missing = Vec::new();
        for dir in path.ancestors().filter(|dir| *dir != Path::new("/")) {
            match lowers.find(dir.as_os_str().as_bytes()).map_err(failed)? {
                Found::Nothing => missing.push(dir.to_owned()),
                Found::Directory(_) => break,
                Found::Other(..) => return Err(failed(Errno::ENOTDIR).hint("a file of the image stands in the way")),
            }
        }
        missing.reverse();
        Ok(CopyTarget { path, missing })
    }

    fn upper(&self, upper: &Path) -> Result<Layer> {
        let dir = File::open(upper).map_err(|error| Error::io(Step::OpenSource, &error).at(upper))?;
        // An ordinary user's sandbox writes files that the user owns, and that root owns inside.
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let owner = |file_uid, file_gid| match uid {
            0 => Some((file_uid, file_gid)),
            _ => (file_uid == uid && file_gid == gid).then_some((0, 0)),
        };
        self.layer(|layer| layer.contents(dir.as_fd(), Path::new("/"), &PackOptions { upper: true, owner: &owner }))
    }

    fn run(&self, argv: &[OsString]) -> Result<Layer> {
        let Some((program, args)) = argv.split_first() else {
            return Err(Error::message(ErrorKind::Invalid, Step::BuildRun, "no program to run"));
        };
        let so_far = self.so_far()?;
        let scratch = self.claim.make_scratch(self.builder.store.layout.staging_dir().path(), None)?;
        let (upper, work) = (scratch.layers().join("upper"), scratch.layers().join("work"));
        let words = scratch.path().join("stderr");
        let failed = |error: std::io::Error| Error::io(Step::BuildRun, &error).at(&words);
        let mut file = File::options().read(true).write(true).create_new(true).open(&words).map_err(failed)?;
        let stderr = file.try_clone().map_err(failed)?;
        let mut sandbox =
            Sandbox::from_image(&so_far)?.user(0, 0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // What is made for a mount would become part of the layer.
        sandbox.policy.mounts.image = Some(ImageMounts { sys: false, names: Missing::LeftOut });
        sandbox.policy.mounts.own_groups = false;
        let sandbox = (self.builder.sandbox)(sandbox);
        let root = so_far.rootfs()?.upper(&upper, &work);
        let outcome = sandbox.command(program).args(args).rootfs(root).status()?;
        if !outcome.success() {
            return Err(build_failed(program, &outcome.verdict().to_string(), &last_words(&mut file)));
        }
        self.upper(&upper)
    }

    /// Returns the image of the steps done so far.
    fn so_far(&self) -> Result<Image> {
        self.builder.store.image_of(&self.write()?, &host_platform())
    }

    /// Writes the configuration and the manifest.
    fn write(&self) -> Result<Descriptor> {
        let mut config = self.config.clone();
        config.set_created(Some(self.created()));
        config.set_rootfs(ids_of(&self.diff_ids)?);
        let config = self.builder.store.put_document(MediaType::ImageConfig, &config)?;
        self.builder.store.put_manifest(config, self.layers.clone())
    }

    /// Changes the configuration, and returns the text for its history.
    fn change(&mut self, change: &ConfigChange) -> Result<String> {
        let mut config: Config = self.config.config().clone().unwrap_or_default();
        let created_by = match change {
            ConfigChange::Env(name, value) => {
                if name.is_empty() || name.contains('=') || name.contains('\0') || value.contains('\0') {
                    let detail = format!("no variable can be called {name:?}, or hold a NUL");
                    return Err(Error::message(ErrorKind::Invalid, Step::Validate, detail));
                }
                let mut env = config.env().clone().unwrap_or_default();
                env.retain(|old| old.split_once('=').map_or(old.as_str(), |(old, _)| old) != name);
                env.push(format!("{name}={value}"));
                config.set_env(Some(env));
                format!("ENV {name}={value}")
            }
            ConfigChange::Workdir(dir) => {
                config.set_working_dir(Some(dir.clone()));
                format!("WORKDIR {dir}")
            }
            ConfigChange::User(user) => {
                config.set_user(Some(user.clone()));
                format!("USER {user}")
            }
            ConfigChange::Entrypoint(argv) => {
                config.set_entrypoint(Some(argv.clone()));
                config.set_cmd(None);
                format!("ENTRYPOINT {argv:?}")
            }
            ConfigChange::Cmd(argv) => {
                config.set_cmd(Some(argv.clone()));
                format!("CMD {argv:?}")
            }
            ConfigChange::Label(name, value) => {
                let mut labels = config.labels().clone().unwrap_or_default();
                labels.insert(name.clone(), value.clone());
                config.set_labels(Some(labels));
                format!("LABEL {name}={value}")
            }
            ConfigChange::Expose(port) => {
                let mut ports = config.exposed_ports().clone().unwrap_or_default();
                ports.push(port.clone());
                ports.sort();
                ports.dedup();
                config.set_exposed_ports(Some(ports));
                format!("EXPOSE {port}")
            }
            ConfigChange::Volume(path) => {
                let mut volumes = config.volumes().clone().unwrap_or_default();
                volumes.push(path.clone());
                volumes.sort();
                volumes.dedup();
                config.set_volumes(Some(volumes));
                format!("VOLUME {path}")
            }
            ConfigChange::StopSignal(signal) => {
                config.set_stop_signal(Some(signal.clone()));
                format!("STOPSIGNAL {signal}")
            }
        };
        self.config.set_config(Some(config));
        Ok(created_by)
    }
}

fn ids_of(diff_ids: &[String]) -> Result<Ids> {
    RootFsBuilder::default()
        .typ("layers")
        .diff_ids(diff_ids.to_vec())
        .build()
        .map_err(|error| manifest::unwritten(&error))
}

/// Splits an absolute path into its names. Returns `None` if the path contains `..`.
fn names_of(path: &Path) -> Option<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    path.has_root().then_some(names)
}

fn last_words(file: &mut File) -> String {
    let mut text = Vec::new();
    let end = file.seek(SeekFrom::End(0)).unwrap_or_default();
    let _ = file.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS)));
    let _ = file.take(LAST_WORDS).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn build_failed(program: &OsStr, verdict: &str, words: &str) -> Error {
    let detail = if words.is_empty() { verdict.to_owned() } else { format!("{verdict}: {words}") };
    Error::message(ErrorKind::Setup, Step::BuildRun, detail).at(program)
}
