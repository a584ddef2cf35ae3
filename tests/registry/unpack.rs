//! Pulling and unpacking in one.

use std::fs;
use std::time::Duration;

use ringfence::ErrorKind;
use ringfence::registry::{Event, Present};

use crate::common::TempDir;
use crate::fake::{Fake, Site};
use crate::peer::{Peer, lacks, run, umoci_layout};
use crate::{client, name, noise, store, told};

/// An archive with one file of so many bytes.
pub fn tar(file: &str, size: usize) -> Vec<u8> {
    let dir = TempDir::new();
    fs::write(dir.path().join(file), noise(size, size as u64)).unwrap();
    run("tar", &["-C", dir.path().to_str().unwrap(), "-cf", "-", file])
}

#[test]
fn layers_that_are_unpacked_are_not_fetched_again() {
    if lacks(&["skopeo", "umoci"]) {
        return;
    }
    let Some(peer) = Peer::start() else { return };
    let layout = umoci_layout(&peer);
    let image = name(&format!("{}/app:1", peer.host));
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &format!("oci:{layout}:1"), &format!("docker://{image}")]);
    let (dir, store) = store();
    let store = store.one_tenant();
    let (registry, events) = told(client(&peer.host));
    let (pulled, layers) = registry.pull_and_unpack(&store, &image).unwrap();
    assert_eq!(layers.dirs().len(), 2);
    assert_eq!(fs::read(layers.dirs()[0].join("etc/two")).unwrap(), noise(3_000_000, 3_000_000));
    assert_eq!(fs::read(layers.dirs()[1].join("etc/one")).unwrap(), noise(100_000, 100_000));
    let events: Vec<Event> = std::mem::take(&mut events.lock().unwrap());
    let unpacked: Vec<&String> =
        events.iter().filter_map(|e| if let Event::Unpacked { digest } = e { Some(digest) } else { None }).collect();
    assert_eq!(unpacked, pulled.layers().iter().map(|layer| layer.digest().as_ref()).collect::<Vec<&str>>());
    assert!(matches!(events.last(), Some(Event::Finished(t)) if t.unpack > Duration::ZERO), "{events:?}");

    for layer in pulled.layers() {
        fs::remove_file(dir.path().join("store/blobs/sha256").join(layer.digest().digest())).unwrap();
    }
    let (registry, events) = told(client(&peer.host));
    let (_, again) = registry.pull_and_unpack(&store, &image).unwrap();
    assert_eq!(again.dirs(), layers.dirs());
    let events = events.lock().unwrap();
    let present = |e: &&Event| matches!(e, Event::Present { because: Present::Unpacked, .. });
    assert_eq!(events.iter().filter(present).count(), 2, "{events:?}");
    assert!(matches!(events.last(), Some(Event::Finished(t)) if t.moved == 0), "{events:?}");
    // A pull has all of the image's blobs in the store, unpacked or not.
    client(&peer.host).pull(&store, &image).unwrap();
    assert!(pulled.layers().iter().all(|layer| store.has(layer).unwrap()));
}

#[test]
fn a_layer_is_unpacked_while_the_next_still_comes() {
    let (low, high) = (tar("low", 10_000), tar("high", 1_000_000));
    let site = Site::new(&[&low, &high]);
    let slow = site.layers()[1].digest().digest().to_owned();
    let fake = Fake::start(move |request, out| {
        if !request.path.contains(&slow) {
            return site.answer(request, out);
        }
        let bytes = site.blob(&request.path).unwrap();
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len()));
        for piece in bytes.chunks(50_000) {
            out.raw(piece);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (_dir, store) = store();
    let (registry, events) = told(client(&fake.host));
    let (image, layers) = registry.pull_and_unpack(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    assert_eq!(fs::read(layers.dirs()[0].join("high")).unwrap(), noise(1_000_000, 1_000_000));
    let events = events.lock().unwrap();
    let at = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let (low, high) = (image.layers()[0].digest().to_string(), image.layers()[1].digest().to_string());
    let unpacked = at(&|event| matches!(event, Event::Unpacked { digest } if *digest == low));
    let complete = at(&|event| matches!(event, Event::Complete { digest, .. } if *digest == high));
    assert!(unpacked < complete, "{events:?}");
}

#[test]
fn a_layer_that_is_none_is_told() {
    let site = Site::new(&[&tar("low", 10_000), &noise(5000, 1)]);
    let low = site.layers()[0].clone();
    let fake = Fake::start(move |request, out| site.answer(request, out));
    let (_dir, store) = store();
    let error = client(&fake.host).pull_and_unpack(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(store.images().unwrap().is_empty());
    assert!(store.has(&low).unwrap());
}
