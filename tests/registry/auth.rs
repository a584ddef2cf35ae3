//! Tokens: how one is got, who sees what for it, and token servers that are out for harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence::registry::Registry;
use ringfence::{ErrorKind, Step};

use crate::fake::{Answer, Fake, Request};
use crate::hostile::{SECRET, but_for, hasty, refused, site};
use crate::{name, noise, store};

/// A registry that wants the token `good`, from the server at `realm`.
fn wants_token(realm: String) -> Fake {
    but_for(move |_, request, out| {
        let lacks = request.header("authorization") != Some("Bearer good");
        if lacks {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"the service\"\r\n");
            out.send("401 Unauthorized", &challenge, b"");
        }
        lacks
    })
}

fn token_server(answer: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static) -> (Fake, String) {
    let fake = Fake::start(answer);
    let realm = format!("http://{}/token?a=b", fake.host);
    (fake, realm)
}

#[test]
fn a_token_is_got_once_and_for_what_is_done() {
    let (tokens, realm) = token_server(|_, out| out.send("200 OK", "", br#"{"token":"good","expires_in":300}"#));
    let fake = wants_token(realm);
    let registry = hasty(&fake.host).plain_http(&tokens.host);
    let (_dir, store) = store();
    registry.pull(&store, &name(&format!("{}/some/app:1", fake.host))).unwrap();
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, "/token?a=b&service=the+service&scope=repository%3Asome%2Fapp%3Apull");
    assert_eq!(asked[0].header("authorization"), None);

    // With a login, the token server sees it, and the registry never.
    let login = registry.credentials(&fake.host, "tester", "s3cret");
    let (_dir, other) = crate::store();
    login.pull(&other, &name(&format!("{}/some/app:1", fake.host))).unwrap();
    assert_eq!(tokens.seen()[1].header("authorization"), Some(SECRET));
    assert!(fake.seen().iter().all(|request| request.header("authorization") != Some(SECRET)));
}

#[test]
fn a_push_asks_for_what_it_mounts_from() {
    let (tokens, realm) = token_server(|_, out| out.send("200 OK", "", br#"{"access_token":"good"}"#));
    let fake = Fake::start(move |request, out| {
        let part = |part| request.path.contains(part);
        if request.header("authorization") != Some("Bearer good") {
            return out.send("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"");
        }
        match request.method.as_str() {
            "POST" if part("mount=") && part("from=source%2Fapp") => out.send("201 Created", "", b""),
            "PUT" if part("/manifests/2") => out.send("201 Created", "", b""),
            _ => out.send("404 Not Found", "", b""),
        }
    });
    let (_dir, store) = store();
    let (source, target) = (name(&format!("{}/source/app:1", fake.host)), name(&format!("{}/target:2", fake.host)));
    let top = crate::make_image(&store, &source, &[&noise(1000, 1)]);
    store.tag(&target, &top).unwrap();
    hasty(&fake.host).plain_http(&tokens.host).push(&store, &target).unwrap();
    let asked = &tokens.seen()[0].path;
    assert!(
        asked.ends_with("scope=repository%3Atarget%3Apull%2Cpush&scope=repository%3Asource%2Fapp%3Apull"),
        "{asked}"
    );
    let put = fake.seen().into_iter().find(|request| request.path.contains("/manifests/2") && !request.body.is_empty());
    assert_eq!(put.unwrap().body, crate::bytes_of(&store, &top));
}

#[test]
fn an_identity_token_is_exchanged() {
    let (tokens, realm) = token_server(|request, out| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let right = request.method == "POST"
            && body
                == "grant_type=refresh_token&refresh_token=refresh%26me&client_id=ringfence&scope=repository%3Aapp%3Apull&service=the+service";
        if right { out.send("200 OK", "", br#"{"access_token":"good"}"#) } else { out.send("400 Bad Request", "", b"") }
    });
    let fake = wants_token(realm);
    let (dir, store) = store();
    let file = dir.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"identitytoken":"refresh&me"}}}}}}"#, fake.host)).unwrap();
    let registry = Registry::new().plain_http(&fake.host).plain_http(&tokens.host).docker_config(file);
    registry.pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    assert!(tokens.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_secret_does_not_go_with_a_redirect() {
    let thief = Fake::start(|_, out| out.send("200 OK", "", br#"{"access_token":"good"}"#));
    let home = Arc::new(std::sync::Mutex::new(String::new()));
    for (status, target) in [
        ("307 Temporary Redirect", format!("http://{}/token", thief.host)),
        ("308 Permanent Redirect", format!("http://{}/token", thief.host.replace("127.0.0.1", "localhost"))),
    ] {
        let (tokens, realm) = token_server(move |_, out| out.send(status, &format!("Location: {target}\r\n"), b""));
        let fake = wants_token(realm);
        let (dir, _store) = store();
        let file = dir.path().join("config.json");
        std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"identitytoken":"refresh&me"}}}}}}"#, fake.host)).unwrap();
        let registry = hasty(&fake.host).plain_http(&tokens.host).plain_http(&thief.host);
        let registry = registry.plain_http(thief.host.replace("127.0.0.1", "localhost"));
        let error = refused(&fake, &registry.docker_config(file), ErrorKind::Protocol);
        assert_eq!(error.step(), Step::Authenticate, "{error}");
        assert!(tokens.seen()[0].body.starts_with(b"grant_type=refresh_token"), "the right server is shown it");
        assert_eq!(thief.seen().len(), 0, "{status}");
    }
    // Neither does a password that a detour would bring back to its server.
    let back = home.clone();
    let detour = Fake::start(move |_, out| {
        let target = format!("Location: http://{}/elsewhere\r\n", back.lock().unwrap());
        out.send("307 Temporary Redirect", &target, b"");
    });
    let away = detour.host.clone();
    let fake = but_for(move |_, request, out| {
        let basic = request.header("authorization").is_some();
        if !basic && request.path != "/elsewhere" {
            out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
            return true;
        }
        let target = format!("Location: http://{away}/detour\r\n");
        match request.path.as_str() {
            "/elsewhere" => out.send("404 Not Found", "", b""),
            _ => out.send("307 Temporary Redirect", &target, b""),
        }
        true
    });
    home.lock().unwrap().push_str(&fake.host);
    let login = hasty(&fake.host).plain_http(&detour.host).credentials(&fake.host, "tester", "s3cret");
    refused(&fake, &login, ErrorKind::NotFound);
    assert!(detour.seen().iter().all(|request| request.header("authorization").is_none()), "{:?}", detour.seen());
    let back: Vec<_> = fake.seen().into_iter().filter(|request| request.path == "/elsewhere").collect();
    assert!(!back.is_empty() && back.iter().all(|request| request.header("authorization").is_none()), "{back:?}");
}

#[test]
fn a_realm_where_nobody_may_go() {
    let thief = Fake::start(|_, out| out.send("200 OK", "", br#"{"token":"good"}"#));
    let realms = [
        format!("http://{}/token", thief.host),
        format!("//{}/token", thief.host),
        "file:///etc/passwd".to_owned(),
        "javascript:alert(1)".to_owned(),
        "http://".to_owned(),
        "".to_owned(),
    ];
    for realm in realms {
        let fake = wants_token(realm.clone());
        let login = hasty(&fake.host).credentials(&fake.host, "tester", "s3cret");
        let error = refused(&fake, &login, ErrorKind::Protocol);
        assert_eq!(error.step(), Step::Authenticate, "{realm}: {error}");
        assert_eq!(thief.seen().len(), 0, "{realm}");
    }
    for challenge in
        ["", "WWW-Authenticate: Bearer\r\n", "WWW-Authenticate: Negotiate x\r\n", "WWW-Authenticate: \"\"\"\r\n"]
    {
        let fake = Fake::start(move |_, out| out.send("401 Unauthorized", challenge, b""));
        refused(&fake, &hasty(&fake.host), ErrorKind::Protocol);
    }
}

#[test]
fn a_token_server_that_gives_no_token() {
    for body in
        ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":"a\r\nX-Evil: b"}"#, r#"{"token":"\u00e9"}"#, r#"{"token":7}"#]
    {
        let (tokens, realm) = token_server(move |_, out| out.send("200 OK", "", body.as_bytes()));
        let fake = wants_token(realm);
        let error = refused(&fake, &hasty(&fake.host).plain_http(&tokens.host), ErrorKind::Protocol);
        assert_eq!(error.step(), Step::Authenticate, "{body}: {error}");
    }
    let (tokens, realm) = token_server(|_, out| {
        out.chunked("");
        while !out.is_over() && out.chunk(&[b' '; 65536]) {}
    });
    let fake = wants_token(realm);
    refused(&fake, &hasty(&fake.host).plain_http(&tokens.host), ErrorKind::Protocol);
    let (tokens, realm) = token_server(|_, out| out.stall());
    let fake = wants_token(realm);
    refused(&fake, &hasty(&fake.host).plain_http(&tokens.host), ErrorKind::Timeout);
    let (tokens, realm) = token_server(|_, out| out.send("401 Unauthorized", "", b""));
    let fake = wants_token(realm);
    refused(&fake, &hasty(&fake.host).plain_http(&tokens.host), ErrorKind::Denied);
}

#[test]
fn a_401_that_never_ends() {
    // Always another token, and none of them does.
    let count = AtomicUsize::new(0);
    let (tokens, realm) = token_server(move |_, out| {
        let token = format!(r#"{{"token":"t{}"}}"#, count.fetch_add(1, Ordering::Relaxed));
        out.send("200 OK", "", token.as_bytes());
    });
    let fake = wants_token(realm);
    refused(&fake, &hasty(&fake.host).plain_http(&tokens.host), ErrorKind::Denied);
    assert_eq!((fake.seen().len(), tokens.seen().len()), (2, 1));

    let fake = Fake::start(|_, out| out.send("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""));
    refused(&fake, &hasty(&fake.host), ErrorKind::Denied);
    assert_eq!(fake.seen().len(), 1);
    refused(&fake, &hasty(&fake.host).credentials(&fake.host, "tester", "s3cret"), ErrorKind::Denied);
    assert!(fake.seen().len() <= 4, "{:?}", fake.seen());
}

#[test]
fn a_token_that_expires_is_renewed() {
    let count = Arc::new(AtomicUsize::new(0));
    let own = count.clone();
    let (tokens, realm) = token_server(move |_, out| {
        let token = format!(r#"{{"token":"t{}"}}"#, own.fetch_add(1, Ordering::Relaxed) + 1);
        out.send("200 OK", "", token.as_bytes());
    });
    let honest = site();
    let layer = honest.layers()[0].digest().digest().to_owned();
    // From the first layer on, the first token does not do any more.
    let fake = Fake::start(move |request, out| {
        let wanted = if request.path.contains(&layer) { "Bearer t2" } else { "Bearer t" };
        if !request.header("authorization").unwrap_or_default().starts_with(wanted) {
            return out.send("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"");
        }
        honest.answer(request, out);
    });
    let (_dir, store) = store();
    let registry = hasty(&fake.host).plain_http(&tokens.host);
    registry.pull(&store, &name(&format!("{}/app:1", fake.host))).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
}
