//! How blobs are sent: to registries that say what they like, refuse large bodies, or break off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringfence::ErrorKind;
use ringfence::image::{Descriptor, Reference, Store};

use crate::common::TempDir;
use crate::fake::{Answer, Fake, Request};
use crate::peer::Peer;
use crate::{assert_same, client, make_image, name, noise, store};

const BIG: usize = 6 << 20;

/// A registry that keeps what it is sent.
#[derive(Default)]
struct Depot {
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    /// By digest.
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    begun: AtomicUsize,
}

impl Depot {
    fn has(&self, path: &str) -> bool {
        self.blobs.lock().unwrap().contains_key(path.rsplit('/').next().unwrap())
    }

    /// What the specification says; `statuses` for what is begun, a piece, the end and a manifest.
    fn answer(&self, request: &Request, out: &mut Answer<'_>, statuses: [&str; 4], begin: &str) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match request.method.as_str() {
            "HEAD" | "GET" if !path.contains("/uploads/") => {
                out.send(if self.has(path) { "200 OK" } else { "404 Not Found" }, "", b"");
            }
            "POST" => {
                let place = format!("{path}{}", self.begun.fetch_add(1, Ordering::Relaxed));
                out.send(statuses[0], &format!("Location: {place}\r\n{begin}"), b"");
            }
            "GET" => {
                let has = self.uploads.lock().unwrap().get(path).map_or(0, Vec::len);
                out.send("204 No Content", &format!("Range: 0-{}\r\nLocation: {path}\r\n", has.max(1) - 1), b"");
            }
            "PATCH" => {
                let mut uploads = self.uploads.lock().unwrap();
                let upload = uploads.entry(path.to_owned()).or_default();
                if let Some(range) = request.header("content-range") {
                    let end = upload.len() + request.body.len() - 1;
                    assert_eq!(range, format!("{}-{end}", upload.len()));
                }
                upload.extend_from_slice(&request.body);
                let headers = format!("Range: 0-{}\r\nLocation: {path}\r\n", upload.len() - 1);
                out.send(statuses[1], &headers, b"");
            }
            _ if path.contains("/manifests/") => out.send(statuses[3], "", b""),
            _ => {
                let mut blob = self.uploads.lock().unwrap().remove(path).unwrap_or_default();
                blob.extend_from_slice(&request.body);
                let digest = query.rsplit("digest=").next().unwrap().replace("%3A", ":");
                self.blobs.lock().unwrap().insert(digest, blob);
                out.send(statuses[2], "", b"");
            }
        }
    }
}

const PLAIN: [&str; 4] = ["202 Accepted", "202 Accepted", "201 Created", "201 Created"];

/// An image of a large and of a small layer.
fn own(host: &str) -> (TempDir, Store, Reference, Vec<Descriptor>) {
    let (dir, store) = store();
    let image = name(&format!("{host}/app:1"));
    make_image(&store, &image, &[&noise(BIG, 1), &noise(1000, 2)]);
    let layers = store.image(&image).unwrap().layers().to_vec();
    (dir, store, image, layers)
}

fn assert_has(depot: &Depot, layers: &[Descriptor]) {
    let blobs = depot.blobs.lock().unwrap();
    for (layer, bytes) in layers.iter().zip([noise(BIG, 1), noise(1000, 2)]) {
        assert!(blobs.get(&layer.digest().to_string()) == Some(&bytes), "{}", layer.digest());
    }
}

#[test]
fn whatever_says_that_it_is_done_is_believed_once_it_is_there() {
    for statuses in [
        PLAIN,
        ["200 OK", "200 OK", "200 OK", "200 OK"],
        ["202 Accepted"; 4],
        ["202 Accepted", "204 No Content", "204 No Content", "201 Created"],
        ["202 Accepted", "201 Created", "202 Accepted", "202 Accepted"],
    ] {
        let depot = Arc::new(Depot::default());
        let kept = depot.clone();
        let fake = Fake::start(move |request, out| kept.answer(request, out, statuses, ""));
        let (_dir, store, image, layers) = own(&fake.host);
        client(&fake.host).push(&store, &image).unwrap_or_else(|error| panic!("{statuses:?}: {error}"));
        assert_has(&depot, &layers);
        // The small ones in one request, the large one in a stream.
        assert_eq!(fake.seen().iter().filter(|request| request.method == "PATCH").count(), 1);
    }
    let fake = Fake::start(|request, out| match request.method.as_str() {
        "HEAD" => out.send("404 Not Found", "", b""),
        "POST" => out.send("202 Accepted", "Location: /v2/app/blobs/uploads/1\r\n", b""),
        _ => out.send("202 Accepted", "", b""),
    });
    let (_dir, store, image, _) = own(&fake.host);
    let error = client(&fake.host).push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("has it not"), "{error}");
}

#[test]
fn what_is_too_large_for_a_request_is_sent_in_pieces() {
    const MOST: usize = 1 << 20;
    const LEAST: usize = 600_000;
    let depot = Arc::new(Depot::default());
    let kept = depot.clone();
    let fake = Fake::start(move |request, out| {
        if request.body.len() > MOST {
            return out.send("413 Payload Too Large", "", b"");
        }
        kept.answer(request, out, PLAIN, &format!("OCI-Chunk-Min-Length: {LEAST}\r\n"));
    });
    let (_dir, store, image, layers) = own(&fake.host);
    client(&fake.host).push(&store, &image).unwrap();
    assert_has(&depot, &layers);
    let sizes: Vec<usize> = fake.seen().iter().filter(|r| r.method == "PATCH").map(|r| r.body.len()).collect();
    let taken: Vec<usize> = sizes.iter().copied().filter(|size| *size <= MOST).collect();
    assert!(taken.len() > 5 && taken[..taken.len() - 1].iter().all(|size| *size >= LEAST), "{sizes:?}");
    assert_eq!(taken.iter().sum::<usize>(), BIG);

    let fake = Fake::start(|request, out| {
        if request.body.is_empty() {
            return Depot::default().answer(request, out, PLAIN, "");
        }
        out.send("413 Payload Too Large", "", b"");
    });
    let (_dir, store, image, _) = own(&fake.host);
    let error = client(&fake.host).push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.remedy().unwrap().contains("proxy"), "{error}");
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    const THERE: usize = 4_000_000;
    let depot = Arc::new(Depot::default());
    let (kept, breaks) = (depot.clone(), AtomicUsize::new(0));
    let fake = Fake::start(move |request, out| {
        let is_first = request.method == "PATCH" && breaks.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            // So much has come, and then the connection breaks.
            let path = request.path.clone();
            kept.uploads.lock().unwrap().insert(path, request.body[..THERE].to_vec());
            return;
        }
        kept.answer(request, out, PLAIN, "");
    });
    let (_dir, store, image, layers) = own(&fake.host);
    client(&fake.host).push(&store, &image).unwrap();
    assert_has(&depot, &layers);
    let sizes: Vec<usize> = fake.seen().iter().filter(|r| r.method == "PATCH").map(|r| r.body.len()).collect();
    assert_eq!(sizes, [BIG, BIG - THERE]);
}

#[test]
fn what_a_registry_says_that_it_has_is_not_believed_beyond_reason() {
    for range in ["0-99999999999", "0-18446744073709551615", "0-0"] {
        let fake = Fake::start(move |request, out| match request.method.as_str() {
            "PATCH" => out.send("202 Accepted", &format!("Range: {range}\r\n"), b""),
            _ => Depot::default().answer(request, out, PLAIN, ""),
        });
        let (_dir, store, image, _) = own(&fake.host);
        let pushed = client(&fake.host).push(&store, &image);
        match range {
            // None that can be read is as good as none.
            "0-18446744073709551615" => pushed.unwrap(),
            "0-0" => assert_eq!(pushed.unwrap_err().kind(), ErrorKind::Protocol),
            _ => assert!(pushed.unwrap_err().to_string().contains("says that it has")),
        }
    }
}

#[test]
fn no_secret_goes_where_a_piece_leads() {
    let thief = Fake::start(|_, out| out.send("201 Created", "", b""));
    let to = thief.host.clone();
    let fake = Fake::start(move |request, out| match request.method.as_str() {
        _ if request.header("authorization").is_none() => {
            out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        "PATCH" => out.send("202 Accepted", &format!("Location: http://{to}/here\r\n"), b""),
        _ => Depot::default().answer(request, out, PLAIN, ""),
    });
    let (_dir, store, image, _) = own(&fake.host);
    let registry = client(&fake.host).credentials(&fake.host, "tester", "s3cret");
    let error = registry.push(&store, &image).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    registry.plain_http(&thief.host).push(&store, &image).unwrap();
    assert!(!thief.seen().is_empty());
    assert!(thief.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_registry_that_answers_no_head_is_asked_otherwise() {
    for refusal in ["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"] {
        let depot = Arc::new(Depot::default());
        let kept = depot.clone();
        let fake = Fake::start(move |request, out| match request.method.as_str() {
            "HEAD" => out.send(refusal, "", b""),
            _ => kept.answer(request, out, PLAIN, ""),
        });
        let (_dir, store, image, layers) = own(&fake.host);
        for sent in [3, 3] {
            client(&fake.host).push(&store, &image).unwrap();
            assert_eq!(fake.seen().iter().filter(|request| request.method == "POST").count(), sent);
        }
        assert_has(&depot, &layers);
    }
}

#[test]
fn docker_registry_takes_streams_and_pieces() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, own, image, _) = own(&peer.host);
    client(&peer.host).push(&own, &image).unwrap();
    let (_dir, store) = store();
    client(&peer.host).pull(&store, &image).unwrap();
    assert_same(&own, &store, &image);
    // Before another stands what takes no body of more than a MiB.
    let Some(peer) = Peer::start() else { return };
    let to = peer.host.clone();
    let proxy = Fake::start(move |request, out| {
        if request.body.len() > 1 << 20 {
            return out.send("413 Payload Too Large", "", b"");
        }
        out.forward(&to, request);
    });
    let (_dir, own, image, _) = self::own(&proxy.host);
    client(&proxy.host).plain_http(&peer.host).push(&own, &image).unwrap();
    let through = name(&image.to_string().replace(&proxy.host, &peer.host));
    let (_dir, store) = crate::store();
    client(&peer.host).pull(&store, &through).unwrap();
    assert!(proxy.seen().iter().filter(|request| request.method == "PATCH").count() > 6);
}
