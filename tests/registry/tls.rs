//! TLS, with a certificate authority of the test's own.

use std::path::PathBuf;
use std::sync::Arc;

use ringfence::registry::Registry;
use ringfence::{ErrorKind, Step};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::TempDir;
use crate::fake::Fake;
use crate::hostile::{SECRET, hasty, refused, site};
use crate::peer::{Peer, Setup, lacks, run};
use crate::{client, make_image, name, noise, store};

/// An authority, and a certificate of it for 127.0.0.1 with its key.
fn authority(dir: &TempDir) -> (PathBuf, PathBuf, PathBuf) {
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let openssl = |args: &str| {
        let args: Vec<String> =
            args.split(' ').map(|arg| if arg.contains('@') { text(&arg[1..]) } else { arg.to_owned() }).collect();
        run("openssl", &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout @ca.key -out @ca.pem -days 2 -subj /CN=test-ca");
    openssl("req -newkey rsa:2048 -nodes -keyout @key.pem -out @csr.pem -subj /CN=test");
    std::fs::write(path("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("x509 -req -in @csr.pem -CA @ca.pem -CAkey @ca.key -CAcreateserial -out @cert.pem -days 2 -extfile @ext");
    (path("ca.pem"), path("cert.pem"), path("key.pem"))
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_given() {
    if lacks(&["docker-registry", "openssl"]) {
        return;
    }
    let dir = TempDir::new();
    let (ca, certificate, key) = authority(&dir);
    let peer = Peer::with(Setup { tls: Some((&certificate, &key)), ..Setup::default() });
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    make_image(&own, &image, &[&noise(2_000_000, 1), &noise(3, 2)]);
    let registry = Registry::new().anonymous().ca_pem(std::fs::read(&ca).unwrap());
    registry.push(&own, &image).unwrap();
    let (_dir, store) = store();
    registry.pull(&store, &image).unwrap();
    crate::assert_same(&own, &store, &image);

    let error = Registry::new().anonymous().push(&own, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.remedy().unwrap().contains("ca_pem"), "{error}");
    // The certificate is for 127.0.0.1, and that is no other name of it.
    let port = peer.host.split(':').nth(1).unwrap();
    let other = name(&format!("localhost:{port}/app:1"));
    let error = registry.pull(&store, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = Registry::new().ca_pem("none").pull(&store, &image).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Registry), "{error}");
    // It does not speak without TLS, and nothing is sent that could be read.
    let error = client(&peer.host).pull(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

/// A certificate that vouches for itself is taken if it is a server's, and told what to do if it is an authority's.
#[test]
fn a_self_signed_certificate_of_a_server_is_one() {
    if lacks(&["docker-registry", "openssl"]) {
        return;
    }
    let (_dir, own) = store();
    let dir = TempDir::new();
    for (ca, is_taken) in [("FALSE", true), ("TRUE", false)] {
        let [certificate, key] = ["pem", "key"].map(|ext| dir.path().join(format!("{ca}.{ext}")));
        let extensions = format!("basicConstraints=critical,CA:{ca}");
        let mut args = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"];
        args.extend(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", &extensions]);
        args.extend(["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()]);
        run("openssl", &args);
        let peer = Peer::with(Setup { tls: Some((&certificate, &key)), ..Setup::default() });
        let image = name(&format!("{}/app:1", peer.host));
        make_image(&own, &image, &[&noise(10, 1)]);
        let pushed = Registry::new().anonymous().ca_pem(std::fs::read(&certificate).unwrap()).push(&own, &image);
        if is_taken {
            pushed.unwrap();
            continue;
        }
        let error = pushed.unwrap_err();
        assert!(error.remedy().unwrap().contains("CA:FALSE"), "{error}");
    }
}

#[test]
fn plain_http_is_spoken_to_those_only_that_it_is_said_of() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, store) = store();
    let image = name(&format!("{}/app:1", peer.host));
    make_image(&store, &image, &[&noise(10, 1)]);
    for registry in [Registry::new().anonymous(), client("127.0.0.1:1"), client("127.0.0.1")] {
        let error = registry.push(&store, &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.remedy().unwrap().contains("plain_http"), "{error}");
    }
    let error = client("no host/at:all").push(&store, &image).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Registry), "{error}");
    client(&peer.host).push(&store, &image).unwrap();
}

#[test]
fn from_tls_nothing_leads_to_plain_http() {
    if lacks(&["openssl"]) {
        return;
    }
    let dir = TempDir::new();
    let (ca, certificate, key) = authority(&dir);
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let certificates = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(certificates, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap());

    let thief = Fake::start(|_, out| out.send("200 OK", "", br#"{"token":"t"}"#));
    let to = thief.host.clone();
    let redirects = Fake::with(Some(config.clone()), move |request, out| {
        if request.header("authorization") != Some(SECRET) {
            return out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        out.send("307 Temporary Redirect", &format!("Location: http://{to}{}\r\n", request.path), b"");
    });
    let to = thief.host.clone();
    let tokens = Fake::with(Some(config.clone()), move |_, out| {
        out.send("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"http://{to}/token\"\r\n"), b"");
    });
    for fake in [&redirects, &tokens] {
        let registry = Registry::new().ca_pem(std::fs::read(&ca).unwrap()).credentials(&fake.host, "tester", "s3cret");
        // Not even where plain HTTP is allowed to that host.
        let error = refused(fake, &registry.plain_http(&thief.host), ErrorKind::Protocol);
        assert!(error.to_string().contains("from TLS to plain HTTP"), "{error}");
        assert_eq!(thief.seen().len(), 0);
    }
    // The other way round is fine.
    let honest = site();
    let secure = Fake::with(Some(config), move |request, out| honest.answer(request, out));
    let to = secure.host.clone();
    let plain = Fake::start(move |request, out| {
        out.send("301 Moved Permanently", &format!("Location: https://{to}{}\r\n", request.path), b"");
    });
    let (_dir, store) = store();
    let registry = hasty(&plain.host).ca_pem(std::fs::read(&ca).unwrap());
    registry.pull(&store, &name(&format!("{}/app:1", plain.host))).unwrap();
}
