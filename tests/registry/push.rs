//! Pushing what others then pull.

use ringfence::ErrorKind;
use ringfence::image::{Descriptor, MediaType, Reference, Store};
use ringfence::registry::{Event, Present};

use crate::peer::{Peer, lacks, run, umoci_layout};
use crate::{assert_same, blob_json, bytes_of, client, make_image, make_manifest, name, noise, store, told};

/// An index of an image for amd64 and one for arm64.
pub fn make_index(store: &Store, image: &Reference) -> Descriptor {
    let entry = |arch: &str, seed| {
        let manifest = make_manifest(store, arch, &[&noise(10_000, seed), &noise(400, 7)]);
        let json = blob_json(&manifest);
        format!(r#"{},"platform":{{"architecture":"{arch}","os":"linux"}}}}"#, json.trim_end_matches('}'))
    };
    let text = format!(
        r#"{{"schemaVersion": 2, "mediaType": "{}",   "manifests": [{}, {}], "y": {{}} }}"#,
        MediaType::ImageIndex,
        entry("amd64", 1),
        entry("arm64", 2)
    );
    let index = store.put_blob(MediaType::ImageIndex, text.as_bytes()).unwrap();
    store.tag(image, &index).unwrap();
    index
}

#[test]
fn skopeo_and_buildah_pull_what_is_pushed() {
    if lacks(&["skopeo", "umoci", "buildah"]) || crate::common::needs_root("buildah without a user namespace") {
        return;
    }
    let Some(peer) = Peer::start() else { return };
    let layout = umoci_layout(&peer);
    let first = format!("{}/first:1", peer.host);
    let docker = format!("docker://{first}");
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &format!("oci:{layout}:1"), &docker]);
    let (_dir, store) = store();
    let pulled = client(&peer.host).pull(&store, &name(&first)).unwrap();

    let again = format!("{}/deep/er/again:2", peer.host);
    store.tag(&name(&again), &store.resolve(&name(&first)).unwrap()).unwrap();
    client(&peer.host).push(&store, &name(&again)).unwrap();
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{again}")]);
    assert_eq!(raw, bytes_of(&store, pulled.descriptor()));
    let back = peer.scratch("back");
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{again}"), &format!("oci:{back}:1")]);
    for layer in pulled.layers() {
        let path = format!("{back}/blobs/sha256/{}", layer.digest().digest());
        assert!(std::fs::read(path).unwrap() == bytes_of(&store, layer));
    }

    let buildah = |args: &[&str]| {
        let (root, runroot) = (peer.scratch("buildah"), peer.scratch("buildah-run"));
        let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        run("buildah", &[&own, args].concat())
    };
    let id = buildah(&["pull", "-q", "--tls-verify=false", &again]);
    assert_eq!(String::from_utf8(id).unwrap().trim(), pulled.id().digest());
    // And what buildah pushes, which has built upon it, is pulled.
    let made = String::from_utf8(buildah(&["from", "--pull-never", &again])).unwrap();
    let file = peer.scratch("file");
    std::fs::write(&file, "by buildah").unwrap();
    buildah(&["copy", "-q", made.trim(), &file, "/file"]);
    let built = format!("{}/built:1", peer.host);
    buildah(&["commit", "-q", made.trim(), &built]);
    buildah(&["push", "-q", "--tls-verify=false", &built]);
    let (registry, events) = told(client(&peer.host));
    let image = registry.pull(&store, &name(&built)).unwrap();
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{built}")]);
    assert_eq!(raw, bytes_of(&store, image.descriptor()));
    assert_eq!(image.layers().len(), 3);
    assert!(matches!(events.lock().unwrap().last(), Some(Event::Finished(_))));
}

#[test]
fn an_index_is_pushed_byte_by_byte() {
    if lacks(&["skopeo"]) {
        return;
    }
    let Some(peer) = Peer::start() else { return };
    let (_dir, store) = store();
    let image = format!("{}/multi:1", peer.host);
    let index = make_index(&store, &name(&image));
    client(&peer.host).push(&store, &name(&image)).unwrap();
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")]);
    assert_eq!(raw, bytes_of(&store, &index));
    let all = peer.scratch("all");
    run(
        "skopeo",
        &["copy", "-q", "--all", "--src-tls-verify=false", &format!("docker://{image}"), &format!("dir:{all}")],
    );
}

#[test]
fn what_another_repository_has_is_mounted() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, store) = store();
    let (one, two) = (name(&format!("{}/one:1", peer.host)), name(&format!("{}/two:1", peer.host)));
    let manifest = make_image(&store, &one, &[&noise(100_000, 1), &noise(200_000, 2)]);
    let pushed = |image| {
        let (registry, events) = told(client(&peer.host));
        registry.push(&store, image).unwrap();
        let events: Vec<Event> = std::mem::take(&mut events.lock().unwrap());
        let Some(Event::Finished(timings)) = events.last() else { panic!("{events:?}") };
        let because =
            |what| events.iter().filter(|e| matches!(e, Event::Present { because, .. } if *because == what)).count();
        (timings.moved, because(Present::Mounted), because(Present::Already))
    };
    let all = 300_000 + store.image(&one).unwrap().manifest().config().size();
    assert_eq!(pushed(&one), (all, 0, 0));
    store.tag(&two, &manifest).unwrap();
    assert_eq!(pushed(&two), (0, 3, 0));
    assert_eq!(pushed(&two), (0, 0, 3));
    let (_dir, other) = crate::store();
    client(&peer.host).pull(&other, &two).unwrap();
    assert_same(&store, &other, &two);
    // An image that only seems to be there is no source, and its blobs are sent.
    let (never, third) = (name(&format!("{}/never:1", peer.host)), name(&format!("{}/third:1", peer.host)));
    let manifest = make_image(&store, &never, &[&noise(1000, 9)]);
    store.tag(&third, &manifest).unwrap();
    let (moved, mounted, already) = pushed(&third);
    assert_eq!((moved > 1000, mounted, already), (true, 0, 0));
}

#[test]
fn what_the_store_lacks_is_told() {
    let Some(peer) = Peer::start() else { return };
    let (dir, store) = store();
    let image = name(&format!("{}/app:1", peer.host));
    let error = client(&peer.host).push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    make_image(&store, &image, &[&noise(100_000, 1)]);
    let layer = store.image(&image).unwrap().layers()[0].clone();
    std::fs::remove_file(dir.path().join("store/blobs/sha256").join(layer.digest().digest())).unwrap();
    let error = client(&peer.host).push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(layer.digest().digest()), "{error}");
}
