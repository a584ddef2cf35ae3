//! Downloads that break off, and go on: in one pull, and in the next.

use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ringfence::ErrorKind;
use ringfence::registry::Event;

use crate::fake::{Answer, Request};
use crate::hostile::{for_the_layer, hasty, refused, site};
use crate::peer::Peer;
use crate::{assert_same, client, make_image, name, noise, store, told};

/// The first byte that is asked for.
fn start_of(request: &Request) -> usize {
    let range = request.header("range").map(|range| range.strip_prefix("bytes=").unwrap().split('-').next().unwrap());
    range.map_or(0, |start| start.parse().unwrap())
}

/// The rest of a layer, as an honest registry with ranges announces it, of which only `most` bytes come.
fn part(layer: &[u8], request: &Request, out: &mut Answer<'_>, most: usize) {
    let start = start_of(request);
    let rest = &layer[start..];
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    out.raw(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nConnection: close\r\n\r\n",
        rest.len(),
        layer.len() - 1,
        layer.len()
    ));
    out.raw(&rest[..most.min(rest.len())]);
}

/// How many bytes a pull moved.
fn moved(events: &[Event]) -> u64 {
    let Some(Event::Finished(timings)) = events.last() else { panic!("{events:?}") };
    timings.moved
}

#[test]
fn a_connection_that_is_cut_anywhere_is_gone_on_with() {
    let seed = std::process::id() as u64;
    let state = AtomicU64::new(seed | 1);
    let fake = for_the_layer(move |layer, request, out| {
        let random = state.fetch_add(0x9e37_79b9, Ordering::Relaxed).wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        part(layer, request, out, 1 + random as usize % 60_000);
    });
    let (_dir, store) = store();
    let (registry, events) = told(client(&fake.host).retries(200, Duration::from_millis(1)));
    let image = registry.pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    let requests = fake.count(image.layers()[0].digest().digest());
    assert!(requests > 3, "it was cut {requests} times");
    let events = events.lock().unwrap();
    assert_eq!(moved(&events), image.size() + image.manifest().config().size(), "something came twice");
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Retry { .. })).count(), requests - 1);
}

#[test]
fn it_is_not_tried_for_ever() {
    let fake = for_the_layer(|layer, request, out| part(layer, request, out, 1));
    let registry = hasty(&fake.host).retries(7, Duration::from_millis(1));
    refused(&fake, &registry, ErrorKind::Unavailable);
    assert_eq!(fake.count(site().layers()[0].digest().digest()), 8);
}

#[test]
fn what_an_earlier_pull_got_is_not_fetched_again() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    let layer = noise(3_000_000, 1);
    make_image(&own, &image, &[&layer]);
    client(&peer.host).push(&own, &image).unwrap();
    let blob = own.image(&image).unwrap().layers()[0].clone();
    let (_dir, store) = store();
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    writer.write_all(&layer[..1_234_567]).unwrap();
    drop(writer);
    let (registry, events) = told(client(&peer.host));
    registry.pull(&store, &image).unwrap();
    let events = events.lock().unwrap();
    let config = own.image(&image).unwrap().manifest().config().size();
    assert_eq!(moved(&events), 3_000_000 - 1_234_567 + config);
    let of = |event: &&Event| matches!(event, Event::Moved { digest, .. } if *digest == blob.digest().to_string());
    assert!(matches!(events.iter().find(of), Some(Event::Moved { done: 1_234_567, .. })), "{events:?}");
    assert_same(&own, &store, &image);
}

#[test]
fn a_registry_that_knows_no_ranges_sends_it_all() {
    let answered = AtomicUsize::new(0);
    let fake = for_the_layer(move |layer, request, out| {
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", layer.len()));
        let first = answered.fetch_add(1, Ordering::Relaxed) == 0;
        assert_eq!(request.header("range").is_none(), first);
        out.raw(if first { &layer[..150_000] } else { layer });
    });
    let (_dir, store) = store();
    client(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    // Or it says that there is no such range.
    let fake = for_the_layer(|layer, request, out| match start_of(request) {
        0 if request.header("range").is_some() => out.send("500 Internal Server Error", "", b""),
        0 => out.send("200 OK", "", layer),
        _ => out.send("416 Range Not Satisfiable", "", b""),
    });
    let (_dir, store) = crate::store();
    let mut writer = store.write_blob(&site().layers()[0]).unwrap().unwrap();
    writer.write_all(&noise(200_000, 1)[..777]).unwrap();
    drop(writer);
    client(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    assert_eq!(fake.count(site().layers()[0].digest().digest()), 2);
}

#[test]
fn another_part_than_was_asked_for_is_none() {
    let fake = for_the_layer(|layer, request, out| {
        if start_of(request) == 0 {
            return part(layer, request, out, 1000);
        }
        let rest = &layer[..layer.len() - 1000];
        out.send("206 Partial Content", &format!("Content-Range: bytes 0-{}/200000\r\n", rest.len() - 1), rest);
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
    let unasked = for_the_layer(|layer, _, out| out.send("206 Partial Content", "", layer));
    refused(&unasked, &hasty(&unasked.host), ErrorKind::Protocol);
}

#[test]
fn a_wrong_beginning_does_not_spoil_the_rest() {
    // A hostile registry leaves the half of a layer that is none.
    let fake = for_the_layer(|layer, _, out| {
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", layer.len()));
        out.raw(vec![3; 100_000]);
    });
    let (_dir, store) = store();
    hasty(&fake.host).retries(0, Duration::ZERO).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
    let honest = for_the_layer(|layer, request, out| part(layer, request, out, usize::MAX));
    let (registry, events) = told(hasty(&honest.host));
    let image = registry.pull(&store, &name(&format!("{}/app:1", honest.host))).unwrap();
    assert!(store.has(&image.layers()[0]).unwrap());
    // It went on from the half first, and then began anew.
    assert_eq!(honest.count(image.layers()[0].digest().digest()), 2);
    let events = events.lock().unwrap();
    let done: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Moved { digest, done, .. } if *digest == image.layers()[0].digest().to_string() => Some(*done),
            _ => None,
        })
        .collect();
    assert!(done.starts_with(&[100_000]) && done.contains(&0) && done.ends_with(&[200_000]), "{done:?}");
}

#[test]
fn a_pull_that_is_dropped_leaves_what_it_has() {
    let fake = for_the_layer(|layer, request, out| {
        if start_of(request) > 0 {
            return part(layer, request, out, usize::MAX);
        }
        part(layer, request, out, 120_000);
        out.stall();
    });
    let (_dir, store) = store();
    let image = name(&format!("{}/app:1", fake.host));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let registry = client(&fake.host);
    runtime.block_on(async {
        let pull = registry.pull_async(&store, &image);
        tokio::time::timeout(Duration::from_secs(1), pull).await.unwrap_err();
    });
    drop(runtime);
    assert!(store.images().unwrap().is_empty());
    registry.pull(&store, &image).unwrap();
    assert!(fake.seen().iter().any(|request| start_of(request) == 120_000), "it began anew");
}

/// A listener that panics ends the pull with its panic, and the store is as after a pull that was dropped.
#[test]
fn a_listener_that_panics_is_the_callers() {
    let honest = for_the_layer(|layer, request, out| part(layer, request, out, usize::MAX));
    let (_dir, store) = store();
    let image = name(&format!("{}/app:1", honest.host));
    let registry = client(&honest.host).progress(|_| panic!("the listener's own"));
    let pull = std::panic::AssertUnwindSafe(|| registry.pull(&store, &image));
    assert!(std::panic::catch_unwind(pull).is_err());
    client(&honest.host).pull(&store, &image).unwrap();
}
