//! Logins: given, from docker's file, from a helper; with Debian's registry and its htpasswd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ringfence::registry::Registry;
use ringfence::{ErrorKind, Step};

use crate::common::TempDir;
use crate::peer::{PASSWORD, Peer, Setup, USER, lacks, run};
use crate::{client, make_image, name, noise, store};

/// Set for a copy of this test program that has a helper in its PATH: the host of the registry and docker's file.
const WITH_HELPER: &str = "RINGFENCE_TEST_WITH_HELPER";

fn locked() -> Option<Peer> {
    if lacks(&["docker-registry"]) { None } else { Some(Peer::with(Setup { password: true, ..Setup::default() })) }
}

#[test]
fn a_password_opens_the_registry() {
    let Some(peer) = locked() else { return };
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    make_image(&own, &image, &[&noise(100_000, 1)]);
    let error = client(&peer.host).push(&own, &image).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Denied, Step::Authenticate), "{error}");
    let error = client(&peer.host).credentials(&peer.host, USER, "wrong").push(&own, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    // Those of another registry are not shown.
    let error = client(&peer.host).credentials("127.0.0.1", USER, PASSWORD).push(&own, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    let right = client(&peer.host).credentials(&peer.host, USER, PASSWORD);
    assert!(!format!("{right:?}").contains("s3cret"), "{right:?}");
    right.push(&own, &image).unwrap();
    let (_dir, store) = store();
    right.pull(&store, &image).unwrap();
}

#[test]
fn what_skopeo_login_writes_is_read() {
    if lacks(&["skopeo"]) {
        return;
    }
    let Some(peer) = locked() else { return };
    let file = peer.scratch("auth.json");
    run("skopeo", &["login", "--tls-verify=false", "--authfile", &file, "-u", USER, "-p", PASSWORD, &peer.host]);
    let (_dir, own) = store();
    let image = name(&format!("{}/app:1", peer.host));
    make_image(&own, &image, &[&noise(1000, 1)]);
    let registry = Registry::new().plain_http(&peer.host);
    registry.clone().docker_config(&file).push(&own, &image).unwrap();

    let missing = peer.scratch("missing.json");
    let error = registry.clone().docker_config(&missing).push(&own, &image).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Credentials, Some(libc::ENOENT)), "{error}");
    fs::write(&missing, "{").unwrap();
    let error = registry.docker_config(&missing).push(&own, &image).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Credentials), "{error}");
    assert!(error.remedy().is_some(), "{error}");
}

#[test]
fn a_credential_helper_is_asked() {
    if let Some(host) = std::env::var_os(WITH_HELPER) {
        return with_helper(host.to_str().unwrap());
    }
    let Some(peer) = locked() else { return };
    let dir = TempDir::new();
    let helper = |name: &str, script: &str| {
        let path = dir.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    helper(
        "good",
        &format!(
            r#"read -r host; [ "$1 $host" = "get {}" ] || exit 1; echo '{{"Username":"{USER}","Secret":"{PASSWORD}"}}'"#,
            peer.host
        ),
    );
    helper("knows-nothing", "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1");
    helper("fails", "cat >/dev/null; echo 'the secret is s3cret'; exit 1");
    helper("babbles", "cat >/dev/null; echo 'no json'");
    let mut path = std::env::var_os("PATH").unwrap();
    path.push(":");
    path.push(dir.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "login::a_credential_helper_is_asked"])
        .envs([("PATH", path), (WITH_HELPER, peer.host.clone().into())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn with_helper(host: &str) {
    let dir = TempDir::new();
    let (_own, store) = store();
    let image = name(&format!("{host}/app:1"));
    make_image(&store, &image, &[&noise(1000, 1)]);
    let push = |config: &str| {
        let file = dir.path().join("config.json");
        fs::write(&file, config).unwrap();
        Registry::new().plain_http(host).docker_config(file).push(&store, &image)
    };
    push(&format!(r#"{{"credHelpers":{{"{host}":"good"}}}}"#)).unwrap();
    push(r#"{"credsStore":"good","auths":{}}"#).unwrap();
    let error = push(r#"{"credsStore":"knows-nothing"}"#).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Denied, Step::Authenticate), "{error}");
    // Others go on without one that is not there; what is public can be had.
    let error = push(r#"{"credsStore":"none-of-that-name"}"#).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Denied, Step::Authenticate), "{error}");
    assert!(error.to_string().contains("docker-credential-none-of-that-name"), "{error}");
    for helper in ["fails", "babbles"] {
        let error = push(&format!(r#"{{"credsStore":"{helper}"}}"#)).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Credentials), "{helper}: {error}");
        assert!(error.to_string().contains("helper") && !error.to_string().contains("s3cret"), "{helper}: {error}");
    }
}
