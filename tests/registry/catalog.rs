//! Tags, referrers, deleting.

use std::fmt::Write;

use ringfence::ErrorKind;

use crate::fake::Fake;
use crate::peer::Peer;
use crate::{client, make_image, name, noise, store};

#[test]
fn docker_registry_lists_tells_and_deletes() {
    let Some(peer) = Peer::start() else { return };
    let (_dir, store) = store();
    let registry = client(&peer.host);
    let image = |tag: &str| name(&format!("{}/deep/app{tag}", peer.host));
    let first = make_image(&store, &image(":1"), &[&noise(1000, 1)]);
    store.tag(&image(":2"), &first).unwrap();
    let other = make_image(&store, &image(":3"), &[&noise(1000, 2)]);
    for tag in [":1", ":2", ":3"] {
        registry.push(&store, &image(tag)).unwrap();
    }
    let mut tags = registry.tags(&image("")).unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2", "3"]);
    let told = registry.resolve(&image(":1")).unwrap();
    assert_eq!((told.digest(), told.size(), told.media_type()), (first.digest(), first.size(), first.media_type()));
    assert_eq!(registry.resolve(&image("").with_digest(first.digest())).unwrap().digest(), first.digest());
    assert_eq!(registry.resolve(&image(":4")).unwrap_err().kind(), ErrorKind::NotFound);
    // It is of before 1.1, and nothing refers to it.
    assert!(registry.referrers(&image("").with_digest(first.digest()), None).unwrap().is_empty());
    let error = registry.delete(&image(":1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.remedy().unwrap().contains("digest"), "{error}");
    registry.delete(&image("").with_digest(first.digest())).unwrap();
    assert_eq!(registry.tags(&image("")).unwrap(), ["3"]);
    assert_eq!(registry.delete(&image("").with_digest(first.digest())).unwrap_err().kind(), ErrorKind::NotFound);
    registry.delete(&image("").with_digest(other.digest())).unwrap();
    let nothing = registry.tags(&image(""));
    assert!(nothing.as_ref().is_ok_and(Vec::is_empty) || nothing.unwrap_err().kind() == ErrorKind::NotFound);
    let none = name(&format!("{}/never", peer.host));
    assert_eq!(registry.tags(&none).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn pages_are_followed_to_their_end_and_no_further() {
    let fake = Fake::start(|request, out| {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        match query {
            "n=1000" => {
                out.send("200 OK", "Link: </v2/app/tags/list?last=b>; rel=\"next\"\r\n", br#"{"tags":["a","b"]}"#)
            }
            "last=b" => out.send("200 OK", "Link: <?last=c>; rel=next\r\n", br#"{"name":"app","tags":null}"#),
            _ => out.send("200 OK", "", br#"{"tags":["c"]}"#),
        }
    });
    assert_eq!(client(&fake.host).tags(&name(&format!("{}/app", fake.host))).unwrap(), ["a", "b", "c"]);

    let thief = Fake::start(|_, out| out.send("200 OK", "", br#"{"tags":["x"]}"#));
    let to = thief.host.clone();
    for (link, kind) in [
        (format!("http://{to}/v2/app/tags/list"), ErrorKind::Protocol),
        ("https://127.0.0.1/".to_owned(), ErrorKind::Protocol),
        ("?n=1000".to_owned(), ErrorKind::TooLarge),
        ("?more".to_owned(), ErrorKind::TooLarge),
    ] {
        let fake = Fake::start(move |_, out| out.send("200 OK", &format!("Link: <{link}>; rel=next\r\n"), b"{}"));
        let error = client(&fake.host).plain_http(&to).tags(&name(&format!("{}/app", fake.host))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert!(thief.seen().is_empty());
    for (body, kind) in [("{", ErrorKind::Protocol), ("[]", ErrorKind::Protocol), ("huge", ErrorKind::TooLarge)] {
        let body = if body == "huge" { " ".repeat(5 << 20) } else { body.to_owned() };
        let fake = Fake::start(move |_, out| out.send("200 OK", "", body.as_bytes()));
        let error = client(&fake.host).tags(&name(&format!("{}/app", fake.host))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn what_refers_to_a_manifest_is_told_by_both_generations() {
    let digest = |c: &str| format!("sha256:{}", c.repeat(64));
    let entry = |c: &str, kind: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"{}","artifactType":"{kind}"}}"#,
            digest(c)
        )
    };
    let mut index = String::from(r#"{"schemaVersion":2,"manifests":["#);
    write!(index, "{},{}]}}", entry("b", "sbom"), entry("c", "signature")).unwrap();
    for has_api in [true, false] {
        let index = index.clone();
        let fake = Fake::start(move |request, out| {
            let is_list = request.path.contains("/referrers/sha256:aaa");
            let is_tag = request.path.contains("/manifests/sha256-aaa");
            match has_api && is_list || !has_api && is_tag {
                true => out.send("200 OK", "", index.as_bytes()),
                false => out.send("404 Not Found", "", b""),
            }
        });
        let of = name(&format!("{}/app@{}", fake.host, digest("a")));
        let list = |kind| {
            let found = client(&fake.host).referrers(&of, kind).unwrap();
            found.iter().map(|one| one.digest().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(list(None), [digest("b"), digest("c")]);
        assert_eq!(list(Some("signature")), [digest("c")]);
        let nobody = name(&format!("{}/app@{}", fake.host, digest("f")));
        assert!(client(&fake.host).referrers(&nobody, None).unwrap().is_empty());
        let error = client(&fake.host).referrers(&name(&format!("{}/app:1", fake.host)), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}
