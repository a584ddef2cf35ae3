//! Images made by hand: archives with whatever an attacker would put into them.

use std::process::{Command, Stdio};

use ringfence::image::{Descriptor, Image, MediaType, Store, host_platform};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use crate::common::TempDir;

pub fn store() -> (TempDir, Store) {
    let dir = TempDir::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

/// An archive, entry by entry.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

pub fn tar() -> Tar {
    Tar::default()
}

pub fn entry(kind: EntryType, path: &str) -> EntryBuilder {
    let mut entry = EntryBuilder::new_ustar();
    entry.path(path).entry_type(kind).mode(0o644).unwrap().mtime(1_000_000_000).unwrap();
    entry
}

impl Tar {
    /// An entry with its contents.
    pub fn with(mut self, mut entry: EntryBuilder, contents: &[u8]) -> Tar {
        entry.size(contents.len() as u64).unwrap();
        self.0.extend(entry.finish_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, contents: &str) -> Tar {
        self.with(entry(EntryType::Regular, path), contents.as_bytes())
    }

    pub fn dir(self, path: &str, mode: u32) -> Tar {
        let mut entry = entry(EntryType::Directory, path);
        entry.mode(mode).unwrap();
        self.with(entry, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        let mut entry = entry(EntryType::Symlink, path);
        entry.link_name(target);
        self.with(entry, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        let mut entry = entry(EntryType::Link, path);
        entry.link_name(target);
        self.with(entry, b"")
    }

    pub fn device(self, kind: EntryType, path: &str, numbers: (u32, u32)) -> Tar {
        let mut entry = entry(kind, path);
        entry.device(numbers.0, numbers.1).unwrap();
        self.with(entry, b"")
    }

    pub fn xattr(self, path: &str, name: &str, value: &[u8]) -> Tar {
        let mut entry = entry(EntryType::Regular, path);
        entry.add_pax(&format!("SCHILY.xattr.{name}"), value);
        self.with(entry, b"x")
    }

    /// With its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// What a filter of the host makes of these bytes.
pub fn filter(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut child = Command::new(command[0]);
    let mut child = child.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    });
    assert!(child.wait().unwrap().success(), "{command:?}");
    out
}

pub fn sha256(bytes: &[u8]) -> String {
    let text = filter(&["sha256sum"], bytes);
    format!("sha256:{}", String::from_utf8_lossy(&text).split(' ').next().unwrap())
}

pub fn descriptor_json(blob: &Descriptor) -> String {
    format!(r#"{{"mediaType":"{}","size":{},"digest":"{}"}}"#, blob.media_type(), blob.size(), blob.digest())
}

fn config(arch: &str, diff_ids: &[String]) -> String {
    let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Env":["A=b"],"Entrypoint":null,"Labels":{{"a":null}}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

/// A manifest of layers with these bytes and diff ids, in the OCI's words or in Docker's.
pub fn manifest_of(store: &Store, docker: bool, arch: &str, layers: &[(&[u8], String)]) -> Descriptor {
    let (manifest, config_type, layer) = match docker {
        false => (MediaType::ImageManifest, MediaType::ImageConfig, MediaType::ImageLayer),
        true => (
            MediaType::Other("application/vnd.docker.distribution.manifest.v2+json".into()),
            MediaType::Other("application/vnd.docker.container.image.v1+json".into()),
            MediaType::Other("application/vnd.docker.image.rootfs.diff.tar.gzip".into()),
        ),
    };
    let blobs: Vec<Descriptor> =
        layers.iter().map(|(bytes, _)| store.put_blob(layer.clone(), bytes).unwrap()).collect();
    let ids: Vec<String> = layers.iter().map(|(_, id)| id.clone()).collect();
    let config = store.put_blob(config_type, config(arch, &ids).as_bytes()).unwrap();
    let blobs: Vec<String> = blobs.iter().map(descriptor_json).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{manifest}","config":{},"layers":[{}]}}"#,
        descriptor_json(&config),
        blobs.join(",")
    );
    store.put_blob(manifest, text.as_bytes()).unwrap()
}

/// A manifest whose layers are not compressed.
pub fn manifest(store: &Store, docker: bool, arch: &str, layers: &[&[u8]]) -> Descriptor {
    let layers: Vec<(&[u8], String)> = layers.iter().map(|bytes| (*bytes, sha256(bytes))).collect();
    manifest_of(store, docker, arch, &layers)
}

pub fn image(store: &Store, layers: &[Vec<u8>]) -> Image {
    let arch = host_platform().architecture().to_string();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    store.image_of(&manifest(store, false, &arch, &layers), &host_platform()).unwrap()
}
