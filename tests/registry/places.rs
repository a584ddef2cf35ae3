//! Mirrors, and certificates for single hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence::registry::{Event, Registry};
use ringfence::{ErrorKind, Step};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::TempDir;
use crate::fake::{Fake, Site};
use crate::hostile::site;
use crate::peer::{lacks, run};
use crate::{client, name, noise, store, told};

/// A server that hands out the image of a site.
fn server(layers: &[&[u8]]) -> Fake {
    let site = Site::new(layers);
    Fake::start(move |request, out| site.answer(request, out))
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let good = server(&[&noise(1000, 1)]);
    let lacking = Fake::start(|_, out| out.send("404 Not Found", "", b""));
    let broken = Fake::start(|_, out| out.send("200 OK", "", b"nonsense"));
    let image = name("registry.invalid/a/app:1");
    let registry = || client(&good.host).plain_http(&lacking.host).plain_http(&broken.host);
    let (registry_told, events) = told(
        registry()
            .mirror("registry.invalid", &lacking.host)
            .mirror("registry.invalid", format!("{}/below", broken.host))
            .mirror("registry.invalid", format!("{}/hub/", good.host)),
    );
    let (_dir, own) = store();
    let pulled = registry_told.pull(&own, &image).unwrap();
    assert_eq!(own.resolve(&image).unwrap().digest(), pulled.digest(), "it keeps its name");
    assert!(good.seen().iter().all(|request| request.path.starts_with("/v2/hub/a/app/")), "{:?}", good.seen());
    assert!(lacking.count("/v2/a/app/manifests/1") == 1 && broken.count("/v2/below/a/app/manifests/1") > 0);
    let events = events.lock().unwrap();
    let elsewhere = events.iter().filter(|event| matches!(event, Event::Elsewhere { .. })).count();
    assert_eq!(elsewhere, 2, "{events:?}");

    // The registry is the last, and an error names each place.
    let image = name(&format!("{}/app:1", good.host));
    let (_dir, own) = store();
    registry().mirror(&good.host, &lacking.host).pull(&own, &image).unwrap();
    let image = name(&format!("{}/app:1", lacking.host));
    let error = registry().mirror(&lacking.host, &broken.host).pull(&own, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.remedy().unwrap().contains(&broken.host), "{error}");
    // A digest is what it is wherever it comes from.
    let wanted = image.with_digest(pulled.digest());
    let other = server(&[&noise(1000, 2)]);
    let registry = client(&other.host).plain_http(&good.host).mirror(&lacking.host, &other.host);
    registry.mirror(&lacking.host, &good.host).pull(&own, &wanted).unwrap();
    assert!(other.count("/manifests/") > 0);
}

#[test]
fn each_place_gets_its_own_credentials() {
    let mirror = Fake::start(|_, out| out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""));
    let good = server(&[&noise(10, 1)]);
    let image = name(&format!("{}/app:1", good.host));
    let registry = client(&good.host).plain_http(&mirror.host).credentials(&good.host, "tester", "s3cret");
    let (_dir, own) = store();
    registry.mirror(&good.host, &mirror.host).pull(&own, &image).unwrap();
    assert!(!mirror.seen().is_empty());
    assert!(mirror.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_registries_conf_says_where_images_are() {
    let good = server(&[&noise(10, 1)]);
    let dir = TempDir::new();
    let conf = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"registry.invalid/a\"\nlocation = \"{}/b\"\ninsecure = true\n\
         [[registry]]\nlocation = \"registry.invalid\"\nblocked = true\n",
        good.host
    );
    fs::write(&conf, text).unwrap();
    let registry = Registry::new().anonymous().registries_conf(&conf).unwrap();
    let (_dir, own) = store();
    registry.pull(&own, &name("registry.invalid/a/app:1")).unwrap();
    assert!(good.count("/v2/b/app/") > 0);
    let error = registry.pull(&own, &name("registry.invalid/c/app:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    fs::write(&conf, "[[registry]]\nlocation = 1\n").unwrap();
    let error = Registry::new().registries_conf(&conf).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Registry), "{error}");
    assert!(error.to_string().contains("line 2"), "{error}");
    assert!(Registry::new().registries_conf(dir.path().join("none")).is_err());
}

/// A certificate for itself, with its key.
fn certificate(dir: &Path, file: &str, extensions: &[&str]) -> (PathBuf, PathBuf) {
    let [certificate, key] = ["pem", "key"].map(|ext| dir.join(format!("{file}.{ext}")));
    let mut args = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"];
    extensions.iter().for_each(|extension| args.extend(["-addext", extension]));
    args.extend(["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()]);
    run("openssl", &args);
    (certificate, key)
}

#[test]
fn a_certificate_is_shown_to_the_host_that_it_is_for() {
    if lacks(&["openssl"]) {
        return;
    }
    let dir = TempDir::new();
    let server =
        certificate(dir.path(), "server", &["subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE"]);
    let own = certificate(dir.path(), "own", &["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=clientAuth"]);
    let chain = |path: &Path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain(&own.0).remove(0)).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
    let config = builder.with_single_cert(chain(&server.0), PrivateKeyDer::from_pem_file(&server.1).unwrap()).unwrap();
    let config = Arc::new(config);
    let honest = site();
    let strict = Fake::with(Some(config.clone()), move |request, out| honest.answer(request, out));
    let image = name(&format!("{}/app:1", strict.host));
    let read = |path: &Path| fs::read(path).unwrap();
    let plain = || Registry::new().anonymous().retries(0, std::time::Duration::ZERO).ca_pem(read(&server.0));
    let (_dir, store) = store();
    assert_eq!(plain().pull(&store, &image).unwrap_err().kind(), ErrorKind::Unavailable);
    let other = plain().client_certificate("127.0.0.1", read(&own.0), read(&own.1));
    assert_eq!(other.pull(&store, &image).unwrap_err().kind(), ErrorKind::Unavailable, "it is another host's");
    let shown = plain().client_certificate(&strict.host, read(&own.0), read(&own.1));
    assert!(!format!("{shown:?}").contains("PRIVATE"), "{shown:?}");
    shown.pull(&store, &image).unwrap();

    // As docker has it on disk, with the authority.
    let certs = dir.path().join("certs.d").join(&strict.host);
    fs::create_dir_all(&certs).unwrap();
    let put = |from: &Path, name: &str| assert!(fs::copy(from, certs.join(name)).is_ok());
    put(&server.0, "ca.crt");
    put(&own.0, "client.cert");
    let registry = || Registry::new().anonymous().certs_dir(dir.path().join("certs.d"));
    let error = registry().pull(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("client.cert") && error.remedy().unwrap().contains(".key"), "{error}");
    put(&own.1, "client.key");
    registry().pull(&store, &image).unwrap();
    fs::write(certs.join("client.key"), "none").unwrap();
    assert_eq!(registry().pull(&store, &image).unwrap_err().kind(), ErrorKind::Invalid);

    // Nobody else sees it: not where the registry leads to.
    let to = strict.host.clone();
    let leads = Fake::start(move |request, out| {
        out.send("307 Temporary Redirect", &format!("Location: https://{to}{}\r\n", request.path), b"");
    });
    let registry = plain().plain_http(&leads.host).client_certificate(&leads.host, read(&own.0), read(&own.1));
    let error = registry.pull(&store, &name(&format!("{}/app:1", leads.host))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
