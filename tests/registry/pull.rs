//! Pulling what others have pushed.

use std::time::Duration;

use ringfence::image::{Arch, Os, Platform};
use ringfence::registry::{Event, Present};
use ringfence::{ErrorKind, Step};

use crate::peer::{Peer, lacks, run, umoci_layout};
use crate::{bytes_of, client, make_image, name, noise, store, told};

/// What skopeo says is in the registry.
fn raw(reference: &str) -> Vec<u8> {
    run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
}

#[test]
fn what_umoci_makes_and_skopeo_pushes_is_pulled_byte_by_byte() {
    if lacks(&["skopeo", "umoci"]) {
        return;
    }
    let Some(peer) = Peer::start() else { return };
    let layout = umoci_layout(&peer);
    for format in ["oci", "v2s2"] {
        let image = format!("{}/peers/app:{format}", peer.host);
        let from = format!("oci:{layout}:1");
        run(
            "skopeo",
            &["copy", "-q", "--dest-tls-verify=false", "--format", format, &from, &format!("docker://{image}")],
        );
        let (_dir, store) = store();
        let (registry, events) = told(client(&peer.host));
        let pulled = registry.pull(&store, &name(&image)).unwrap();
        assert_eq!(bytes_of(&store, pulled.descriptor()), raw(&image), "{format}");
        assert_eq!(pulled.layers().len(), 2);
        for blob in pulled.layers().iter().chain([pulled.manifest().config()]) {
            assert_eq!(bytes_of(&store, blob).len() as u64, blob.size());
        }
        assert_eq!(store.image(&name(&image)).unwrap().digest(), pulled.digest());

        let events: Vec<Event> = std::mem::take(&mut events.lock().unwrap());
        assert!(matches!(&events[0], Event::Resolved { blobs: 3, bytes, .. } if *bytes > 3_000_000), "{:?}", events[0]);
        for blob in pulled.layers() {
            let of =
                |event: &&Event| matches!(event, Event::Moved { digest, .. } if *digest == blob.digest().to_string());
            let (first, last) = (events.iter().find(of).unwrap(), events.iter().rfind(of).unwrap());
            assert!(matches!(first, Event::Moved { done: 0, .. }), "{first:?}");
            assert!(matches!(last, Event::Moved { done, size, .. } if done == size), "{last:?}");
        }
        let Some(Event::Finished(timings)) = events.last() else { panic!("{events:?}") };
        assert_eq!(timings.moved, pulled.size() + pulled.manifest().config().size());
        assert!(timings.resolve + timings.blobs <= timings.total && timings.resolve > Duration::ZERO, "{timings:?}");
    }
}

#[test]
fn what_is_in_the_store_is_not_fetched_again() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let (shared, first, second) = (noise(50_000, 1), noise(60_000, 2), noise(70_000, 3));
    let (one, two) = (name(&format!("{}/a:1", peer.host)), name(&format!("{}/b:1", peer.host)));
    make_image(&own, &one, &[&shared, &first]);
    make_image(&own, &two, &[&shared, &second]);
    client(&peer.host).push(&own, &one).unwrap();
    client(&peer.host).push(&own, &two).unwrap();

    let (_dir, store) = store();
    client(&peer.host).pull(&store, &one).unwrap();
    let (registry, events) = told(client(&peer.host));
    let image = registry.pull(&store, &two).unwrap();
    let config = image.manifest().config().size();
    let events: Vec<Event> = std::mem::take(&mut events.lock().unwrap());
    assert!(matches!(events.last(), Some(Event::Finished(t)) if t.moved == 70_000 + config), "{events:?}");
    let present = |event: &Event| matches!(event, Event::Present { size: 50_000, because: Present::Already, .. });
    assert!(events.iter().any(present), "{events:?}");
    let (registry, events) = told(client(&peer.host));
    registry.pull(&store, &two).unwrap();
    assert!(matches!(events.lock().unwrap().last(), Some(Event::Finished(t)) if t.moved == 0));
}

#[test]
fn an_index_gives_the_platform_that_is_asked_for() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/multi/app:1", peer.host));
    let index = crate::push::make_index(&own, &image);
    client(&peer.host).push(&own, &image).unwrap();

    for arch in [Arch::Amd64, Arch::ARM64] {
        let (_dir, store) = store();
        let mut platform = Platform::default();
        platform.set_os(Os::Linux);
        platform.set_architecture(arch.clone());
        let pulled = client(&peer.host).platform(platform).pull(&store, &image).unwrap();
        assert_eq!(pulled.config().architecture(), &arch);
        assert_eq!(store.resolve(&image).unwrap().digest(), index.digest());
        // Of the other platform there is nothing: so it is no image that can be pushed.
        let error = client(&peer.host).push(&store, &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.remedy().unwrap().contains("all_platforms"), "{error}");
    }
    let (_dir, all) = store();
    client(&peer.host).all_platforms().pull(&all, &image).unwrap();
    let again = name(&format!("{}/multi/again:1", peer.host));
    all.tag(&again, &index).unwrap();
    client(&peer.host).push(&all, &again).unwrap();

    let mut platform = Platform::default();
    platform.set_os(Os::Windows);
    // All that there are may be those of others.
    let (_dir, foreign) = store();
    let first = client(&peer.host).platform(platform.clone()).all_platforms().pull(&foreign, &image).unwrap();
    assert_eq!((first.config().architecture(), foreign.images().unwrap().len()), (&Arch::Amd64, 1));
    let (_dir, store) = store();
    let error = client(&peer.host).platform(platform).pull(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("linux/arm64"), "{error}");
}

#[test]
fn a_digest_is_pulled_as_it_is() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let tagged = name(&format!("{}/app:1", peer.host));
    let manifest = make_image(&own, &tagged, &[&noise(1000, 1)]);
    client(&peer.host).push(&own, &tagged).unwrap();
    let digest = name(&format!("{}/app@{}", peer.host, manifest.digest()));
    let (_dir, store) = store();
    let pulled = client(&peer.host).pull(&store, &digest).unwrap();
    assert_eq!(pulled.digest(), manifest.digest());
    let both = name(&format!("{}/app:other@{}", peer.host, manifest.digest()));
    assert_eq!(client(&peer.host).pull(&store, &both).unwrap().digest(), manifest.digest());
}

#[test]
fn what_is_not_there_is_told() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, store) = store();
    let error = client(&peer.host).pull(&store, &name(&format!("{}/none:1", peer.host))).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::PullManifest), "{error}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = client(&nobody).pull(&store, &name(&format!("{nobody}/app:1"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn it_can_be_called_from_anywhere() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    make_image(&own, &image, &[&noise(300_000, 1), &noise(5, 2)]);
    client(&peer.host).push(&own, &image).unwrap();
    let registry = client(&peer.host);

    for mut runtime in [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()] {
        let runtime = runtime.enable_all().build().unwrap();
        let (_dir, store) = store();
        runtime.block_on(async { registry.pull(&store, &image) }).unwrap();
        let (_dir, store) = crate::store();
        let (registry, image) = (registry.clone(), image.clone());
        runtime.block_on(async move {
            // A task of any runtime: the future is Send.
            tokio::spawn(async move {
                registry.pull_async(&store, &image).await.unwrap();
                registry.push_async(&store, &image).await.unwrap();
            })
            .await
            .unwrap();
        });
    }
    // Without any runtime the asynchronous call says so.
    let (_dir, store) = store();
    let mut future = std::pin::pin!(registry.pull_async(&store, &image));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = future.as_mut().poll(&mut context) else { panic!("it goes on") };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn an_empty_blob_is_pulled_and_pushed() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/empty:1", peer.host));
    make_image(&own, &image, &[b""]);
    client(&peer.host).push(&own, &image).unwrap();
    let (_dir, store) = store();
    client(&peer.host).pull(&store, &image).unwrap();
    crate::assert_same(&own, &store, &image);
}

#[test]
fn two_that_pull_the_same_share_the_work() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    let layer = noise(20 << 20, 1);
    make_image(&own, &image, &[&layer]);
    client(&peer.host).push(&own, &image).unwrap();
    let (dir, _) = store();
    let moved: u64 = std::thread::scope(|scope| {
        let pull = || {
            let store = ringfence::image::Store::open(dir.path().join("store")).unwrap();
            let (registry, events) = told(client(&peer.host));
            registry.pull(&store, &image).unwrap();
            let events = events.lock().unwrap();
            let Some(Event::Finished(timings)) = events.last() else { panic!("{events:?}") };
            timings.moved
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let config = own.image(&image).unwrap().manifest().config().size();
    assert_eq!(moved, layer.len() as u64 + config);
}
