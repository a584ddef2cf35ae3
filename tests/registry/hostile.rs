//! Registries that are wrong, slow or out for harm: each ends in a typed error with a hint, in bounded time, and leaves a
//! store that works.

use std::time::{Duration, Instant};

use ringfence::image::{MediaType, Store};
use ringfence::registry::Registry;
use ringfence::{Error, ErrorKind};

use crate::fake::{Answer, Fake, Request, Site};
use crate::{client, name, noise, store};

/// tester, s3cret
pub const SECRET: &str = "Basic dGVzdGVyOnMzY3JldA==";

/// The larger layer of [`site`].
const LAYER: usize = 200_000;

/// A client that waits for nothing long.
pub fn hasty(host: &str) -> Registry {
    client(host).stall_timeout(Duration::from_secs(1)).retries(1, Duration::from_secs(2))
}

/// The error of a pull from `fake`, which came in time and with a hint. The store works as if it had not been.
#[track_caller]
pub fn refused(fake: &Fake, registry: &Registry, kind: ErrorKind) -> Error {
    let (_dir, store) = store();
    let begun = Instant::now();
    let error = registry.pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.remedy().is_some(), "no hint: {error}");
    assert!(took < Duration::from_secs(15), "it took {took:?}: {error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    unharmed(&store);
    error
}

/// It has no image, and one can be pulled into it.
#[track_caller]
fn unharmed(store: &Store) {
    assert!(store.images().unwrap().is_empty());
    let site = site();
    let layer = site.layers()[0].clone();
    let honest = Fake::start(move |request, answer| site.answer(request, answer));
    client(&honest.host).pull(store, &name(&format!("{}/app:1", honest.host))).unwrap();
    assert!(store.has(&layer).unwrap());
}

pub fn site() -> Site {
    site_of(LAYER)
}

fn site_of(layer: usize) -> Site {
    Site::new(&[&noise(layer, 1), &noise(1000, 2)])
}

/// An honest registry but for what `answer` takes upon itself.
pub fn but_for(answer: impl Fn(&Site, &Request, &mut Answer<'_>) -> bool + Send + Sync + 'static) -> Fake {
    but_for_of(site(), answer)
}

fn but_for_of(site: Site, answer: impl Fn(&Site, &Request, &mut Answer<'_>) -> bool + Send + Sync + 'static) -> Fake {
    Fake::start(move |request, out| {
        if !answer(&site, request, out) {
            site.answer(request, out);
        }
    })
}

/// Answers for the larger layer.
pub fn for_the_layer(answer: impl Fn(&[u8], &Request, &mut Answer<'_>) + Send + Sync + 'static) -> Fake {
    for_a_layer(LAYER, answer)
}

/// The same for one of so many bytes.
pub fn for_a_layer(size: usize, answer: impl Fn(&[u8], &Request, &mut Answer<'_>) + Send + Sync + 'static) -> Fake {
    but_for_of(site_of(size), move |site, request, out| {
        let layer = request.path.contains(site.layers()[0].digest().digest());
        if layer {
            answer(&site.blob(&request.path).unwrap(), request, out);
        }
        layer
    })
}

#[test]
fn a_registry_that_never_answers() {
    let fake = Fake::start(|_, out| out.stall());
    refused(&fake, &hasty(&fake.host), ErrorKind::Timeout);
}

#[test]
fn a_registry_that_stops_in_the_middle() {
    let fake = but_for(|site, request, out| {
        let manifest = request.path.contains("/manifests/");
        if manifest {
            out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", site.manifest().len()));
            out.raw(&site.manifest()[..20]);
            out.stall();
        }
        manifest
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Timeout);
    let fake = for_the_layer(|layer, _, out| {
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len()));
        out.raw(&layer[..1000]);
        out.stall();
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Timeout);
}

#[test]
fn a_registry_that_trickles() {
    let trickle = |bytes: &[u8], out: &mut Answer<'_>| {
        for byte in bytes.iter().cycle() {
            if out.is_over() || !out.raw([*byte]) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let fake = Fake::start(move |_, out| trickle(b"HTTP/1.1 200 OK\r\nA: b\r\nB: c\r\nC: d\r\nD: e\r\n", out));
    refused(&fake, &hasty(&fake.host), ErrorKind::Timeout);
    let fake = for_the_layer(move |layer, _, out| {
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len()));
        trickle(b"x", out);
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Timeout);
}

#[test]
fn the_whole_of_it_has_an_end() {
    // It never stops for long, and gets on, but for ever.
    let fake = for_the_layer(|layer, _, out| {
        out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", layer.len()));
        for piece in layer.chunks(2000) {
            if out.is_over() || !out.raw(piece) {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let begun = Instant::now();
    let error = refused(&fake, &hasty(&fake.host).timeout(Duration::from_secs(2)), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10) && error.to_string().contains("2s"), "{error}");
}

#[test]
fn lengths_that_are_lies() {
    for announced in [0, 10, 199_999, 200_001, 1u64 << 40] {
        let fake = for_the_layer(move |layer, _, out| {
            out.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n"));
            out.raw(layer);
        });
        let error = refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
        assert!(error.to_string().contains(&announced.to_string()), "{error}");
        assert_eq!(fake.count(site().layers()[0].digest().digest()), 1, "a lie was asked for again");
    }
    let endless = for_the_layer(|_, _, out| {
        out.chunked("");
        while !out.is_over() && out.chunk(&[7; 65536]) {}
    });
    refused(&endless, &hasty(&endless.host), ErrorKind::Protocol);
    let short = for_the_layer(|layer, _, out| {
        out.chunked("");
        out.chunk(&layer[..5000]);
        out.raw("0\r\n\r\n");
    });
    let error = refused(&short, &hasty(&short.host), ErrorKind::Unavailable);
    assert!(error.to_string().contains("5000 of 200000"), "{error}");
    for nonsense in ["Content-Length: -1", "Content-Length: 1\r\nContent-Length: 2", "Transfer-Encoding: nonsense"] {
        let fake = for_the_layer(move |_, _, out| {
            out.raw(format!("HTTP/1.1 200 OK\r\n{nonsense}\r\n\r\nxx"));
        });
        refused(&fake, &hasty(&fake.host), ErrorKind::Unavailable);
    }
}

#[test]
fn bytes_that_have_another_digest() {
    let fake = for_the_layer(|layer, _, out| out.send("200 OK", "", &vec![9; layer.len()]));
    let error = refused(&fake, &hasty(&fake.host), ErrorKind::Corrupt);
    assert!(error.to_string().contains("digest"), "{error}");

    let fake = but_for(|site, request, out| {
        let manifest = request.path.contains("/manifests/");
        if manifest {
            let headers = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
            out.send("200 OK", &headers, &site.manifest());
        }
        manifest
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Corrupt);

    let honest = but_for(|_, _, _| false);
    let (_dir, store) = store();
    let other = name(&format!("{}/app@sha256:{}", honest.host, "1".repeat(64)));
    let error = hasty(&honest.host).pull(&store, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    unharmed(&store);
}

#[test]
fn a_child_of_an_index_that_is_another() {
    let fake = but_for(|site, request, out| {
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","size":{},"digest":"sha256:{}"}}]}}"#,
            MediaType::ImageIndex,
            MediaType::ImageManifest,
            site.manifest().len(),
            "2".repeat(64)
        );
        let top = request.path.ends_with("/manifests/1");
        if top {
            out.send("200 OK", &format!("Content-Type: {}\r\n", MediaType::ImageIndex), index.as_bytes());
        }
        top
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Corrupt);
}

/// A registry that has this for every manifest, of this type.
fn with_manifest(media_type: &str, text: impl Into<Vec<u8>>) -> Fake {
    let (media_type, text) = (media_type.to_owned(), text.into());
    Fake::start(move |_, out| out.send("200 OK", &format!("Content-Type: {media_type}\r\n"), &text))
}

#[test]
fn manifests_that_are_huge_or_none() {
    let oci = MediaType::ImageManifest.to_string();
    let fake = Fake::start(|_, out| {
        out.raw("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{");
        out.stall();
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::TooLarge);
    let fake = Fake::start(|_, out| {
        out.chunked("");
        while !out.is_over() && out.chunk(&[b' '; 65536]) {}
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::TooLarge);
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(1_000_000));
    for text in ["", "{}", "null", "[]", "{\"schemaVersion\":2", "\u{0}", &deep] {
        let fake = with_manifest(&oci, text);
        let (_dir, store) = store();
        let error = hasty(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:.20}: {error}");
        unharmed(&store);
    }
    let huge = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","size":2,"digest":"sha256:{}"}},"layers":[{{"mediaType":"x/y","size":9223372036854775807,"digest":"sha256:{}"}}]}}"#,
        MediaType::ImageConfig,
        "3".repeat(64),
        "4".repeat(64)
    );
    let fake = with_manifest(&oci, huge);
    let (_dir, store) = store();
    let error = hasty(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[test]
fn an_index_that_leads_on_and_on() {
    let index = |size: usize, n: u32| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","size":{size},"digest":"sha256:{n:064}"}}]}}"#,
            MediaType::ImageIndex,
            MediaType::ImageIndex
        )
    };
    // Each of them leads to one of another digest, of which the registry gives the same text: the digest tells.
    let text = index(1000, 5);
    let fake = with_manifest(MediaType::ImageIndex.as_ref(), text);
    refused(&fake, &hasty(&fake.host), ErrorKind::Corrupt);
    let fake = with_manifest(MediaType::ImageIndex.as_ref(), index(1 << 30, 6));
    refused(&fake, &hasty(&fake.host), ErrorKind::TooLarge);
}

#[test]
fn redirects_lead_credentials_nowhere() {
    let thief = Fake::start(|_, out| out.send("404 Not Found", "", b""));
    let elsewhere = format!("http://{}/stolen", thief.host);
    let to = elsewhere.clone();
    let fake = for_the_layer(move |_, request, out| {
        if request.header("authorization") != Some(SECRET) {
            return out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        out.send("307 Temporary Redirect", &format!("Location: {to}\r\n"), b"");
    });
    let login = hasty(&fake.host).credentials(&fake.host, "tester", "s3cret");
    let error = refused(&fake, &login, ErrorKind::Protocol);
    assert!(error.to_string().contains("plain HTTP"), "{error}");
    assert_eq!(thief.seen().len(), 0, "somebody came to where nobody may go");
    // Where one may go, the credentials still don't. The other port is another origin.
    let error = refused(&fake, &login.plain_http(&thief.host), ErrorKind::NotFound);
    assert!(error.to_string().contains("404"), "{error}");
    let stolen = thief.seen();
    assert!(!stolen.is_empty() && stolen.iter().all(|request| request.path == "/stolen"));
    assert!(stolen.iter().all(|request| request.header("authorization").is_none()), "{stolen:?}");
    assert!(fake.seen().iter().any(|request| request.header("authorization") == Some(SECRET)));
}

#[test]
fn redirects_to_where_nothing_goes() {
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://x", "http://", "//", "\u{1}", "http:/\\", "https://"]
    {
        let fake = for_the_layer(move |_, _, out| out.send("302 Found", &format!("Location: {to}\r\n"), b""));
        let (_dir, store) = store();
        let error = hasty(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Unavailable), "{to}: {error}");
        unharmed(&store);
    }
    let fake = for_the_layer(|_, _, out| out.send("302 Found", "", b""));
    refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
    let fake = for_the_layer(|_, request, out| {
        out.send("302 Found", &format!("Location: {}\r\n", request.path), b"");
    });
    let error = refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
    assert!(error.to_string().contains("10 times"), "{error}");
    assert!(fake.seen().len() < 20);
}

#[test]
fn credentials_in_an_address_are_not_taken_up() {
    let honest = site();
    let blobs = Fake::start(move |request, answer| honest.answer(request, answer));
    let to = blobs.host.clone();
    let fake = for_the_layer(move |_, request, out| {
        out.send("302 Found", &format!("Location: http://user:pass@{to}{}\r\n", request.path), b"");
    });
    let (_dir, store) = store();
    let registry = hasty(&fake.host).plain_http(&blobs.host);
    registry.pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    assert_eq!(blobs.seen().len(), 1);
    assert_eq!(blobs.seen()[0].header("authorization"), None);
}

#[test]
fn a_registry_that_asks_to_wait() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let count = AtomicUsize::new(0);
        let fake = for_the_layer(move |layer, _, out| {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                return out.send(status, "Retry-After: 1\r\n", b"");
            }
            out.send("200 OK", "", layer);
        });
        let (_dir, store) = store();
        let begun = Instant::now();
        client(&fake.host).pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "it did not wait");

        let fake = for_the_layer(move |_, _, out| out.send(status, "Retry-After: 3600\r\n", b""));
        let begun = Instant::now();
        let error = refused(&fake, &hasty(&fake.host), ErrorKind::Unavailable);
        assert!(error.remedy().unwrap().contains("3600"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));

        let fake = for_the_layer(move |_, _, out| out.send(status, "", b""));
        refused(&fake, &hasty(&fake.host).retries(2, Duration::from_secs(1)), ErrorKind::Unavailable);
        let layer = site().layers()[0].digest().digest().to_owned();
        assert_eq!(fake.count(&layer), 3);
    }
}

#[test]
fn what_an_error_says_is_bounded_and_harmless() {
    let fake = Fake::start(|_, out| {
        out.raw("HTTP/1.1 418 I am\r\nTransfer-Encoding: chunked\r\n\r\n");
        while !out.is_over() && out.chunk(&[b'x'; 65536]) {}
    });
    refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
    let fake = Fake::start(|_, out| {
        let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"\u001b[31m{}"}}]}}"#, "y".repeat(10_000));
        out.send("403 Forbidden", "", body.as_bytes());
    });
    let error = refused(&fake, &hasty(&fake.host), ErrorKind::Denied).to_string();
    assert!(error.contains("DENIED") && error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    let many = (0..500).map(|n| format!("X-{n}: {}\r\n", "z".repeat(1000))).collect::<String>();
    let fake = Fake::start(move |_, out| out.send("200 OK", &many, b"{}"));
    refused(&fake, &hasty(&fake.host), ErrorKind::Unavailable);
}

#[test]
fn an_upload_goes_with_credentials_to_the_registry_alone() {
    let thief = Fake::start(|_, out| out.send("201 Created", "", b""));
    let place = format!("http://{}/put?state=1", thief.host);
    let fake = Fake::start(move |request, out| {
        if request.header("authorization") != Some(SECRET) {
            return out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        match request.method.as_str() {
            "POST" => out.send("202 Accepted", &format!("Location: {place}\r\n"), b""),
            "PUT" => out.send("201 Created", "", b""),
            _ => out.send("404 Not Found", "", b""),
        }
    });
    let (_dir, store) = store();
    let image = name(&format!("{}/app:1", fake.host));
    crate::make_image(&store, &image, &[&noise(500_000, 1)]);
    let login = hasty(&fake.host).credentials(&fake.host, "tester", "s3cret");
    let error = login.push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert_eq!(thief.seen().len(), 0);
    login.plain_http(&thief.host).push(&store, &image).unwrap();
    let seen = thief.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.header("authorization").is_none()), "{seen:?}");
    assert!(seen.iter().any(|request| request.body == noise(500_000, 1)));
    assert!(seen.iter().all(|request| request.path.starts_with("/put?state=1&digest=sha256%3A")), "{seen:?}");
}

#[test]
fn an_upload_that_nobody_takes() {
    let fake = Fake::start(move |request, out| match request.method.as_str() {
        "POST" => out.send("202 Accepted", "Location: /unread\r\n", b""),
        "PATCH" | "PUT" => out.stall(),
        _ => out.send("404 Not Found", "", b""),
    });
    let (_dir, store) = store();
    let image = name(&format!("{}/app:1", fake.host));
    crate::make_image(&store, &image, &[&noise(20 << 20, 1)]);
    let begun = Instant::now();
    let error = hasty(&fake.host).push(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
