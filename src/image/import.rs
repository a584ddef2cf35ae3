//! Imports images from archives and directories: OCI image layouts (`skopeo copy … oci-archive:`),
//! archives of `docker save`, and plain archives of a root file system.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use oci_spec::image::{
    Descriptor, Digest, History, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder, ImageIndex, MediaType,
    RootFsBuilder,
};
use serde::Deserialize;

use super::compression;
use super::digest::{self, Hasher};
use super::layout::REF_NAME;
use super::manifest;
use super::manifest::{DEPTH_MAX, DOCUMENT_MAX, Document};
use super::platform::host_platform;
use super::reference::Reference;
use super::store::Store;
use super::tar::{Entries, Entry, Kind};
use super::tree;
use super::verify::check_blob;
use crate::error::{Error, ErrorKind, Result, Step};

/// The annotation by which containerd and docker(1) name an image in a layout.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The largest number of entries that are read from an archive of images.
const ENTRIES_MAX: usize = 100_000;
const BUFFER: usize = 256 << 10;

/// An imported image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The image's name, if the archive or the caller gave one. An image without a name is pruned
    /// unless it is [tagged](Store::tag).
    pub name: Option<Reference>,
    /// The descriptor of the image's manifest or index.
    pub manifest: Descriptor,
}

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The result of the first pass over an archive.
#[derive(Debug, Default)]
struct Contents {
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    files: HashMap<Vec<u8>, (Digest, u64, MediaType)>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

/// The digests of the blobs that an archive or a layout contains.
type Received = HashSet<Digest>;

fn corrupt(path: &Path, detail: impl Into<String>) -> Error {
    Error::message(ErrorKind::Corrupt, Step::ImportImage, detail).at(path)
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = if error.raw_os_error().is_some() { ErrorKind::Store } else { ErrorKind::Corrupt };
    Error::from_io(Step::ImportImage, kind, error).at(path)
}

impl Store {
    /// Imports the images of an OCI image layout in a directory, or of an archive that contains a
    /// layout or comes from `docker save`. The archive may be compressed. For an archive of one
    /// image, `name` replaces the name in the archive.
    ///
    /// ```no_run
    /// use ringfence::image::Store;
    ///
    /// let store = Store::open_default()?;
    /// for image in store.import("debian.tar", None)? {
    ///     println!("{:?}", image.name);
    /// }
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the archive has another format, lacks a blob, or has a blob with
    /// another digest than its name says; [`ErrorKind::Invalid`] if `name` is given for several
    /// images; [`ErrorKind::Store`]. After an error no image is tagged.
    pub fn import(&self, path: impl AsRef<Path>, name: Option<&Reference>) -> Result<Vec<Imported>> {
        let path = path.as_ref();
        let _hold = self.hold()?;
        let mut received = Received::new();
        let found = if path.is_dir() {
            self.take_layout(path, &mut received)?
        } else {
            self.take_archive(path, &mut received)?
        };
        let images = match (name, found.len()) {
            (None, _) => found,
            (Some(name), 1) => found.into_iter().map(|image| Imported { name: Some(name.clone()), ..image }).collect(),
            (Some(_), count) => {
                let detail = format!("there are {count} images, but only one name");
                return Err(Error::message(ErrorKind::Invalid, Step::ImportImage, detail).at(path));
            }
        };
        for image in &images {
            self.check_complete(&image.manifest, path, DEPTH_MAX, &received)?;
        }
        for image in &images {
            if let Some(name) = &image.name {
                self.tag(name, &image.manifest)?;
            }
        }
        Ok(images)
    }

    /// Imports an archive of a root file system, compressed or not, as an image of one layer
    /// without a program to run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the compressed data is broken, [`ErrorKind::Store`].
    pub fn import_rootfs(&self, archive: impl AsRef<Path>, name: &Reference) -> Result<Descriptor> {
        let path = archive.as_ref();
        let _hold = self.hold()?;
        let open = || open_file(path).map_err(|error| failed(path, error));
        let (blob, size, media_type) = hash(open()?).map_err(|error| failed(path, error))?;
        let plain = compression::decoder(BufReader::with_capacity(BUFFER, open()?)).map_err(|e| failed(path, e))?;
        let (diff_id, ..) = hash(plain).map_err(|error| failed(path, error))?;
        let layer = Descriptor::new(media_type, size, blob);
        self.drop_damaged(&layer)?;
        self.fill_blob(&layer, &mut open()?).map_err(|error| failed(path, error))?;
        let platform = host_platform();
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids(vec![diff_id.to_string()]).build();
        let config = rootfs.and_then(|rootfs| {
            let history: History = HistoryBuilder::default().created_by("import").build()?;
            ImageConfigurationBuilder::default()
                .architecture(platform.architecture().clone())
                .os(platform.os().clone())
                .rootfs(rootfs)
                .history(vec![history])
                .build()
        });
        let config: ImageConfiguration = config.map_err(|error| manifest::unwritten(&error))?;
        let config = self.put_document(MediaType::ImageConfig, &config)?;
        let manifest = self.put_manifest(config, vec![layer])?;
        self.tag(name, &manifest)?;
        Ok(manifest)
    }

    fn take_layout(&self, dir: &Path, received: &mut Received) -> Result<Vec<Imported>> {
        let path = dir.join("index.json");
        let mut text = Vec::new();
        let file = open_file(&path).map_err(|error| failed(&path, error))?;
        file.take(DOCUMENT_MAX + 1).read_to_end(&mut text).map_err(|error| failed(&path, error))?;
        let images = named(&text, &path)?;
        for image in &images {
            self.take_from_layout(dir, &image.manifest, DEPTH_MAX, received)?;
        }
        Ok(images)
    }

    /// Imports a document of a layout with all blobs that it refers to. Entries of an index that
    /// the layout lacks are left out.
    fn take_from_layout(&self, dir: &Path, blob: &Descriptor, depth: usize, received: &mut Received) -> Result<()> {
        let mut take = |blob: &Descriptor| {
            let path = dir.join("blobs").join(blob.digest().algorithm().as_ref()).join(blob.digest().digest());
            let mut file = open_file(&path).map_err(|error| failed(&path, error))?;
            if self.layout.blob(blob.digest()).exists() {
                // The store's blob may be another tenant's, so the layout has to contain its own.
                check(&mut file, blob).map_err(|error| failed(&path, error))?;
                self.drop_damaged(blob)?;
            }
            self.fill_blob(blob, &mut file).map_err(|error| failed(&path, error))?;
            received.insert(blob.digest().clone());
            Ok(())
        };
        if blob.size() > DOCUMENT_MAX || depth == 0 {
            return Err(Error::message(ErrorKind::TooLarge, Step::ImportImage, "a document too large or deep").at(dir));
        }
        take(blob)?;
        match manifest::read(&self.layout, blob)? {
            Document::Manifest(manifest) => {
                take(manifest.config())?;
                manifest.layers().iter().try_for_each(take)
            }
            Document::Index(index) => index.manifests().iter().try_for_each(|entry| {
                let path = dir.join("blobs").join(entry.digest().algorithm().as_ref()).join(entry.digest().digest());
                if path.exists() { self.take_from_layout(dir, entry, depth - 1, received) } else { Ok(()) }
            }),
        }
    }

    fn take_archive(&self, path: &Path, received: &mut Received) -> Result<Vec<Imported>> {
        let contents = contents(path).map_err(|error| failed(path, error))?;
        if let Some(index) = &contents.index {
            let images = named(index, path)?;
            self.take_files(path, &contents, received, |name| name.starts_with(b"blobs/"))?;
            return Ok(images);
        }
        let Some(docker) = &contents.docker else {
            return Err(corrupt(path, "neither index.json nor manifest.json is in it")
                .hint("use Store::import_rootfs() for an archive of a root file system"));
        };
        let images: Vec<DockerImage> =
            serde_json::from_slice(docker).map_err(|error| corrupt(path, format!("manifest.json: {error}")))?;
        let wanted: Vec<Vec<u8>> = images
            .iter()
            .flat_map(|image| image.layers.iter().chain([&image.config]))
            .map(|name| contents.resolve(name).ok_or_else(|| corrupt(path, format!("{name} is not in it"))))
            .collect::<Result<_>>()?;
        self.take_files(path, &contents, received, |name| wanted.iter().any(|wanted| wanted == name))?;
        let mut all = Vec::new();
        for image in images {
            let blob = |name: &String, own: Option<MediaType>| {
                let file = contents.resolve(name).and_then(|name| contents.files.get(&name));
                let (digest, size, seen) = file.ok_or_else(|| corrupt(path, format!("{name} is not in it")))?;
                Ok(Descriptor::new(own.unwrap_or_else(|| seen.clone()), *size, digest.clone()))
            };
            let layers = image.layers.iter().map(|layer| blob(layer, None)).collect::<Result<_>>()?;
            let manifest = self.put_manifest(blob(&image.config, Some(MediaType::ImageConfig))?, layers)?;
            received.insert(manifest.digest().clone());
            let tags = image.repo_tags.unwrap_or_default();
            let names: Vec<Reference> = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
            if names.is_empty() {
                all.push(Imported { name: None, manifest: manifest.clone() });
            }
            all.extend(names.into_iter().map(|name| Imported { name: Some(name), manifest: manifest.clone() }));
        }
        Ok(all)
    }

    /// Makes the second pass over an archive: writes each wanted file as a blob.
    fn take_files(
        &self,
        path: &Path,
        contents: &Contents,
        received: &mut Received,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let failed = |error| failed(path, error);
        let mut entries = open(path).map_err(failed)?;
        while let Some(entry) = entries.next().map_err(failed)? {
            let Some(name) = file_name(&entry).filter(|name| wanted(name)) else { continue };
            let Some((digest, size, media_type)) = contents.files.get(&name) else { continue };
            if entry.size != *size {
                return Err(corrupt(path, "it changes while it is read"));
            }
            let told = name.strip_prefix(b"blobs/").map(|name| String::from_utf8_lossy(name).replace('/', ":"));
            let is_named = told.is_none_or(|told| told == digest.as_ref() || !told.starts_with("sha256:"));
            if !is_named {
                return Err(corrupt(path, format!("{} has the digest {digest}", String::from_utf8_lossy(&name))));
            }
            let blob = Descriptor::new(media_type.clone(), *size, digest.clone());
            self.drop_damaged(&blob)?;
            received.insert(digest.clone());
            let Some(mut writer) = self.write_blob(&blob)? else { continue };
            writer.restart()?;
            entries.copy(*size, |part| writer.write_all(part)).map_err(failed)?;
            writer.commit()?;
        }
        Ok(())
    }

    /// Removes a blob of the store whose digest is wrong, so that the blob can be written again.
    fn drop_damaged(&self, blob: &Descriptor) -> Result<()> {
        let path = self.layout.blob(blob.digest());
        if !path.exists() || check_blob(&path).is_ok_and(|()| self.has(blob).is_ok()) {
            return Ok(());
        }
        path.remove_file().map_err(|error| failed(path.path(), error))
    }

    /// Checks that the import contains every blob that the document needs, and at least one image
    /// of an index. Blobs that the store already had do not count.
    fn check_complete(&self, blob: &Descriptor, path: &Path, depth: usize, received: &Received) -> Result<()> {
        let missing = |digest: &Digest| corrupt(path, format!("the blob {digest} is not in it"));
        let has = |blob: &Descriptor| Ok::<_, Error>(received.contains(blob.digest()) && self.has(blob)?);
        let there = |blob: &Descriptor| if has(blob)? { Ok(()) } else { Err(missing(blob.digest())) };
        there(blob)?;
        match manifest::read(&self.layout, blob)? {
            Document::Manifest(manifest) => {
                there(manifest.config())?;
                manifest.layers().iter().try_for_each(there)
            }
            Document::Index(_) if depth == 0 => Err(corrupt(path, "indexes are nested too deeply")),
            Document::Index(index) => {
                let mut some = false;
                for entry in index.manifests() {
                    if has(entry)? {
                        self.check_complete(entry, path, depth - 1, received)?;
                        some = true;
                    }
                }
                if some { Ok(()) } else { Err(corrupt(path, "an index of nothing that is there")) }
            }
        }
    }
}

impl Contents {
    /// Returns the file of this name, following a link: older versions of docker(1) write a
    /// repeated layer as a link.
    fn resolve(&self, name: &str) -> Option<Vec<u8>> {
        let name = tree::in_root(name.as_bytes())?;
        let Some(target) = self.links.get(&name) else { return self.files.contains_key(&name).then_some(name) };
        let mut path: Vec<&[u8]> = tree::names(tree::split(&name)?.0).collect();
        for part in tree::names(target) {
            match part {
                b"." => {}
                b".." => drop(path.pop()),
                part => path.push(part),
            }
        }
        let path = path.join(&b'/');
        self.files.contains_key(&path).then_some(path)
    }
}

fn open(path: &Path) -> io::Result<Entries<BufReader<Box<dyn Read + Send>>>> {
    let decoder = compression::decoder(BufReader::with_capacity(BUFFER, open_file(path)?))?;
    Ok(Entries::new(BufReader::with_capacity(BUFFER, decoder)))
}

/// Opens a regular file. A FIFO would block until a process writes to it, and a device may have no
/// end.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a regular file")),
    }
}

/// Reads a file to its end, checks that it is the blob, and seeks back to its start.
fn check(file: &mut File, blob: &Descriptor) -> io::Result<()> {
    let mut hasher = Hasher::of(blob.digest())?;
    let mut part = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let count = file.read(&mut part)?;
        if count == 0 || size > blob.size() {
            break;
        }
        size += count as u64;
        hasher.update(part.get(..count).unwrap_or_default());
    }
    if size != blob.size() || hasher.finish() != blob.digest().as_ref() {
        let detail = format!("its bytes are not those of {}", blob.digest());
        return Err(Error::message(ErrorKind::Corrupt, Step::ImportImage, detail).into());
    }
    file.rewind()
}

fn file_name(entry: &Entry) -> Option<Vec<u8>> {
    if entry.kind == Kind::File && entry.sparse.is_none() { tree::in_root(&entry.path) } else { None }
}

/// Makes the first pass over an archive: lists its files with their digests.
fn contents(path: &Path) -> io::Result<Contents> {
    let mut entries = open(path)?;
    let mut contents = Contents::default();
    while let Some(entry) = entries.next()? {
        if contents.files.len() + contents.links.len() > ENTRIES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many entries for an archive of images"));
        }
        if let (Kind::Symlink | Kind::HardLink, Some(name)) = (&entry.kind, tree::in_root(&entry.path)) {
            contents.links.insert(name, entry.target.clone());
        }
        let Some(name) = file_name(&entry) else { continue };
        match name.as_slice() {
            b"index.json" => contents.index = Some(entries.contents(DOCUMENT_MAX)?),
            b"manifest.json" => contents.docker = Some(entries.contents(DOCUMENT_MAX)?),
            _ => {
                let mut hasher = Hasher::sha256();
                let mut start = Vec::new();
                entries.copy(entry.size, |part| {
                    if start.len() < 4 {
                        start.extend_from_slice(part.get(..4.min(part.len())).unwrap_or_default());
                    }
                    hasher.update(part);
                    Ok(())
                })?;
                let digest = digest::parse(&hasher.finish())?;
                contents.files.insert(name, (digest, entry.size, compression::layer_type(&start)));
            }
        }
    }
    Ok(contents)
}

/// Returns the digest, the length and the media type of everything in the reader.
fn hash(from: impl Read) -> io::Result<(Digest, u64, MediaType)> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let mut hasher = Hasher::sha256();
    let media_type = compression::layer_type(from.fill_buf()?);
    let mut size = 0;
    loop {
        let part = from.fill_buf()?;
        if part.is_empty() {
            return Ok((digest::parse(&hasher.finish())?, size, media_type));
        }
        hasher.update(part);
        let count = part.len();
        size += count as u64;
        from.consume(count);
    }
}

/// Returns the images of an `index.json`, with their names there.
fn named(text: &[u8], path: &Path) -> Result<Vec<Imported>> {
    if text.len() as u64 > DOCUMENT_MAX {
        return Err(Error::message(ErrorKind::TooLarge, Step::ImportImage, "index.json is too large").at(path));
    }
    let index: ImageIndex =
        serde_json::from_slice(text).map_err(|error| corrupt(path, format!("index.json: {error}")))?;
    let of = |entry: &Descriptor| {
        let annotation = |key: &str| entry.annotations().as_ref().and_then(|all| all.get(key).cloned());
        // A tag alone is not a complete name.
        let whole = annotation(REF_NAME).filter(|name| name.contains(['/', ':']));
        let name = annotation(CONTAINERD_NAME).or(whole).and_then(|name| name.parse().ok());
        let mut manifest = entry.clone();
        manifest.set_annotations(None);
        Imported { name, manifest }
    };
    Ok(index.manifests().iter().map(of).collect())
}
