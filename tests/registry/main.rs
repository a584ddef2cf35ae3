//! Registries: Debian's own with skopeo, umoci and buildah as peers; and one that does whatever a test wants of it.
#![cfg(feature = "registry")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod catalog;
mod fake;
mod hostile;
mod login;
mod memory;
mod peer;
mod places;
mod pull;
mod push;
mod resume;
mod tenants;
mod tls;
mod unpack;
mod upload;

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence::image::{Descriptor, MediaType, Reference, Store};
use ringfence::registry::{Event, Registry};

use common::TempDir;

/// A store of its own, which goes with the directory.
fn store() -> (TempDir, Store) {
    let dir = TempDir::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A registry client for `host` without TLS, which looks for no logins and gives up soon.
fn client(host: &str) -> Registry {
    Registry::new()
        .plain_http(host)
        .anonymous()
        .retries(2, Duration::from_secs(2))
        .stall_timeout(Duration::from_secs(5))
}

/// The same, with all that it tells.
fn told(registry: Registry) -> (Registry, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let own = events.clone();
    (registry.progress(move |event| own.lock().unwrap().push(event)), events)
}

/// Bytes that don't compress and are others for each seed.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn blob_json(blob: &Descriptor) -> String {
    format!(r#"{{"mediaType":"{}","size":{},"digest":"{}"}}"#, blob.media_type(), blob.size(), blob.digest())
}

/// A manifest of these layers for `arch` in the store. Nobody looks into the layers of such an image.
fn make_manifest(store: &Store, arch: &str, layers: &[&[u8]]) -> Descriptor {
    let layers: Vec<Descriptor> =
        layers.iter().map(|layer| store.put_blob(MediaType::ImageLayer, layer).unwrap()).collect();
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", layer.digest())).collect();
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let config = store.put_blob(MediaType::ImageConfig, config.as_bytes()).unwrap();
    // Spaces and an unknown field, which whoever writes it anew would lose.
    let text = format!(
        r#"{{ "schemaVersion": 2, "mediaType": "{}",  "config": {}, "layers": [{}], "x": [1.0]}}"#,
        MediaType::ImageManifest,
        blob_json(&config),
        layers.iter().map(blob_json).collect::<Vec<_>>().join(", ")
    );
    store.put_blob(MediaType::ImageManifest, text.as_bytes()).unwrap()
}

/// An image of these layers under this name.
fn make_image(store: &Store, image: &Reference, layers: &[&[u8]]) -> Descriptor {
    let manifest = make_manifest(store, std::env::consts::ARCH.replace("x86_64", "amd64").as_str(), layers);
    store.tag(image, &manifest).unwrap();
    manifest
}

fn bytes_of(store: &Store, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.blob(blob.digest()).unwrap().expect("the blob is there").read_to_end(&mut bytes).unwrap();
    bytes
}

/// Everything of one image, byte by byte.
#[track_caller]
fn assert_same(one: &Store, other: &Store, image: &Reference) {
    let (left, right) = (one.image(image).unwrap(), other.image(image).unwrap());
    assert_eq!(one.resolve(image).unwrap().digest(), other.resolve(image).unwrap().digest());
    assert_eq!(bytes_of(one, left.descriptor()), bytes_of(other, right.descriptor()));
    for blob in left.layers().iter().chain([left.manifest().config()]) {
        assert!(bytes_of(one, blob) == bytes_of(other, blob), "{} differs", blob.digest());
    }
}
