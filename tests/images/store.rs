//! Blobs, names and documents of a store.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringfence::image::{
    Arch, BlobWriter, Descriptor, Digest, Image, ImageIndex, MediaType, Os, Platform, Reference, Store, host_platform,
};
use ringfence::{ErrorKind, Step};

use crate::make::{manifest, store};

const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn empty() -> Descriptor {
    Descriptor::new(MediaType::EmptyJSON, 2, EMPTY.parse::<Digest>().unwrap())
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn platform(arch: Arch) -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::Linux);
    platform.set_architecture(arch);
    platform
}

fn index(store: &Store, entries: &[(Descriptor, Option<Platform>)]) -> Descriptor {
    let mut index = ImageIndex::default();
    let entries = entries.iter().map(|(blob, platform)| {
        let mut blob = blob.clone();
        blob.set_platform(platform.clone());
        blob
    });
    index.set_schema_version(2);
    index.set_manifests(entries.collect());
    store.put_blob(MediaType::ImageIndex, index.to_string().unwrap().as_bytes()).unwrap()
}

#[test]
fn a_blob_is_seen_when_it_is_whole() {
    let (_dir, store) = store();
    let blob = empty();
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    writer.write_all(b"{").unwrap();
    assert!(!store.has(&blob).unwrap() && store.blob(blob.digest()).unwrap().is_none());
    drop(writer);
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    assert_eq!((writer.written(), writer.size()), (1, 2), "what was taken stays");
    writer.write_all(b"}").unwrap();
    writer.commit().unwrap();
    assert!(store.write_blob(&blob).unwrap().is_none());
    let mut text = String::new();
    store.blob(blob.digest()).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "{}");
    assert_eq!(fs::read_dir(store.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn wrong_bytes_are_refused_and_forgotten() {
    let (_dir, store) = store();
    let write = |text: &[u8]| -> BlobWriter {
        let mut writer = store.write_blob(&empty()).unwrap().unwrap();
        assert_eq!(writer.written(), 0);
        writer.write_all(text).unwrap();
        writer
    };
    let error = write(b"[]").commit().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Corrupt, Step::WriteBlob), "{error}");
    let mut long = write(b"{}");
    let error = long.write(b" ").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    long.restart().unwrap();
    assert_eq!(long.written(), 0);
    let error = long.commit().unwrap_err();
    assert!(error.to_string().contains("0 of 2"), "{error}");
    // A length that was a lie: what is there is longer than the blob.
    fs::write(store.path().join("partial").join(EMPTY.replace(':', "-")), "{}{}").unwrap();
    write(b"{}").commit().unwrap();
    let error = store.has(&Descriptor::new(MediaType::EmptyJSON, 3, empty().digest().clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let md5 = Descriptor::new(MediaType::EmptyJSON, 3, "md5:0".parse::<Digest>().unwrap());
    assert_eq!(store.write_blob(&md5).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn digests_of_all_registered_algorithms_are_known() {
    let (_dir, store) = store();
    let sha512 = "sha512:27c74670adb75075fad058d5ceaf7b20c4e7786c83bae8a32f626f9782af34c9\
        a33c2046ef60fd2a7878d378e29fec851806bbd9a67878f3a9f1cda4830763fd";
    let blob = Descriptor::new(MediaType::EmptyJSON, 2, sha512.parse::<Digest>().unwrap());
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    writer.write_all(b"{}").unwrap();
    writer.commit().unwrap();
    assert!(store.has(&blob).unwrap());
}

#[test]
fn a_blob_has_one_writer_and_others_wait_for_it() {
    let (_dir, store) = store();
    let mut first = store.write_blob(&empty()).unwrap().unwrap();
    assert_eq!(store.try_write_blob(&empty()).unwrap_err().kind(), ErrorKind::InUse);
    let hasty = store.clone().wait(Duration::from_millis(50));
    assert_eq!(hasty.write_blob(&empty()).unwrap_err().kind(), ErrorKind::Timeout);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let second = store.write_blob(&empty()).unwrap();
            (second.is_none(), done.load(Ordering::SeqCst))
        });
        thread::sleep(Duration::from_millis(50));
        first.write_all(b"{}").unwrap();
        done.store(true, Ordering::SeqCst);
        first.commit().unwrap();
        assert_eq!(second.join().unwrap(), (true, true), "it is whole when the second has waited");
    });
}

#[test]
fn names_lead_to_images() {
    let (_dir, store) = store();
    for (docker, text) in [(false, "debian"), (true, "quay.io/a/b:1")] {
        let blob = manifest(&store, docker, "amd64", &[b"one", b"two"]);
        store.tag(&name(text), &blob).unwrap();
        let image: Image = store.image(&name(text)).unwrap();
        assert_eq!(image.digest(), blob.digest());
        assert_eq!((image.layers().len(), image.size()), (2, 6));
        assert_eq!(image.config().config().as_ref().unwrap().env(), &Some(vec!["A=b".to_owned()]));
        assert_eq!(image.diff_ids()[0], image.chain_ids()[0]);
        let exact = name(text).with_digest(blob.digest());
        assert_eq!(store.resolve(&exact).unwrap().digest(), blob.digest());
        assert_eq!(Store::open(store.path()).unwrap().image(&name(text)).unwrap().id(), image.id());
    }
    let names: Vec<String> = store.images().unwrap().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["docker.io/library/debian:latest", "quay.io/a/b:1"]);
    // A name moves.
    let other = manifest(&store, false, "amd64", &[b"three"]);
    store.tag(&name("debian"), &other).unwrap();
    assert_eq!(store.image(&name("debian")).unwrap().digest(), other.digest());
    assert_eq!(store.images().unwrap().len(), 2);
    let wrong = name("debian").with_digest(&EMPTY.parse().unwrap());
    assert_eq!(store.tag(&wrong, &other).unwrap_err().kind(), ErrorKind::Invalid);
    store.remove(&name("debian")).unwrap();
    assert_eq!(store.remove(&name("debian")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.image(&name("debian")).unwrap_err().kind(), ErrorKind::NotFound);
    let elsewhere = name("quay.io/b/b").with_digest(store.resolve(&name("quay.io/a/b:1")).unwrap().digest());
    assert_eq!(store.resolve(&elsewhere).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_chain_id_is_the_specifications() {
    let (_dir, store) = store();
    let blob = manifest(&store, false, "amd64", &[b"{}", b"{}"]);
    let image = store.image_of(&blob, &host_platform()).unwrap();
    // printf 'sha256:4413… sha256:4413…' | sha256sum
    let expected = "sha256:fe7ecc1267e16cfac23a202ed5e9dceaad8f0eedfccce6717069af85f43ba4b7";
    assert_eq!(image.chain_ids()[0].to_string(), EMPTY);
    assert_eq!(image.chain_ids()[1].to_string(), expected);
}

#[test]
fn of_an_index_the_platform_is_taken() {
    let (_dir, store) = store();
    let amd = manifest(&store, false, "amd64", &[b"amd"]);
    let arm = manifest(&store, false, "arm64", &[b"arm"]);
    let inner = index(&store, &[(arm.clone(), Some(platform(Arch::ARM64)))]);
    let unknown = Platform::default();
    let blob = index(&store, &[(inner, Some(platform(Arch::ARM64))), (amd.clone(), Some(platform(Arch::Amd64)))]);
    store.tag(&name("a"), &blob).unwrap();
    for (arch, expected) in [(Arch::Amd64, &amd), (Arch::ARM64, &arm)] {
        assert_eq!(store.image_for(&name("a"), &platform(arch)).unwrap().digest(), expected.digest());
    }
    let error = store.image_for(&name("a"), &platform(Arch::s390x)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("linux/arm64"), "{error}");
    let plain = index(&store, &[(amd.clone(), None)]);
    assert_eq!(store.image_of(&plain, &unknown).unwrap().digest(), amd.digest());
    // Of variants the newest that this one can run.
    let variant = |v: &str| {
        let mut platform = platform(Arch::ARM);
        platform.set_variant(Some(v.to_owned()));
        platform
    };
    let many = [("v5", &amd), ("v7", &arm), ("v8", &inner_of(&store))];
    let entries: Vec<_> = many.iter().map(|(v, blob)| ((*blob).clone(), Some(variant(v)))).collect();
    let blob = index(&store, &entries);
    for (own, expected) in [("v7", &arm), ("v6", &amd)] {
        assert_eq!(store.image_of(&blob, &variant(own)).unwrap().digest(), expected.digest());
    }
}

fn inner_of(store: &Store) -> Descriptor {
    manifest(store, false, "arm", &[b"newer"])
}

#[test]
fn hostile_documents_are_refused() {
    let (_dir, store) = store();
    let of = |media_type: MediaType, text: &str| {
        let blob = store.put_blob(media_type, text.as_bytes()).unwrap();
        let error = store.image_of(&blob, &host_platform()).unwrap_err();
        assert!(store.tag(&name("x"), &blob).is_err());
        error.kind()
    };
    let other = |text: &str| MediaType::Other(text.to_owned());
    let both = r#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#;
    assert_eq!(of(MediaType::ImageManifest, both), ErrorKind::Corrupt, "CVE-2021-41190");
    assert_eq!(of(MediaType::ImageIndex, both), ErrorKind::Corrupt, "CVE-2021-41190");
    let lies = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    assert_eq!(of(MediaType::ImageManifest, lies), ErrorKind::Corrupt);
    assert_eq!(of(MediaType::ImageManifest, "{"), ErrorKind::Corrupt);
    assert_eq!(of(MediaType::ImageManifest, &"[".repeat(100_000)), ErrorKind::Corrupt);
    assert_eq!(of(other("text/html"), "{}"), ErrorKind::Unsupported);
    let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
    assert_eq!(of(other("application/vnd.docker.distribution.manifest.v1+prettyjws"), old), ErrorKind::Unsupported);
    assert_eq!(of(MediaType::ImageManifest, &" ".repeat((4 << 20) + 1)), ErrorKind::TooLarge);
    let mut nested = manifest(&store, false, "amd64", &[]);
    for _ in 0..6 {
        nested = index(&store, &[(nested, Some(host_platform()))]);
    }
    assert_eq!(store.image_of(&nested, &host_platform()).unwrap_err().kind(), ErrorKind::TooLarge);
    let many: Vec<&[u8]> = vec![b"x"; 501];
    let many = manifest(&store, false, "amd64", &many);
    assert_eq!(store.image_of(&many, &host_platform()).unwrap_err().kind(), ErrorKind::TooLarge);
    // What has its place is not believed either.
    let good = manifest(&store, false, "amd64", &[b"x"]);
    let path = store.path().join("blobs/sha256").join(good.digest().digest());
    let text = fs::read_to_string(&path).unwrap().replace("\"layers\"", "\"player\"");
    fs::write(path, text).unwrap();
    assert_eq!(store.image_of(&good, &host_platform()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn changes_of_names_from_many_threads_all_arrive() {
    let (_dir, store) = store();
    let blob = manifest(&store, false, "amd64", &[b"x"]);
    thread::scope(|scope| {
        for i in 0..8 {
            let (store, blob) = (Store::open(store.path()).unwrap(), &blob);
            scope.spawn(move || (0..8).for_each(|j| store.tag(&name(&format!("n{i}-{j}")), blob).unwrap()));
        }
    });
    assert_eq!(store.images().unwrap().len(), 64);
}

#[test]
fn a_directory_that_others_may_write_to_is_no_store() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = crate::common::TempDir::new();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "kept").unwrap();
    let refused = |root: &std::path::Path| {
        let error = Store::open(root).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Store, Step::OpenStore), "{error}");
        assert!(error.remedy().is_some(), "{error}");
    };
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        let root = dir.path().join(format!("mode{mode:o}"));
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
        refused(&root);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is made in it");
    }
    // Who may rename what leads to it could put another directory in its place.
    let above = dir.path().join("above");
    fs::create_dir(&above).unwrap();
    let stands_below = |mode| {
        fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        let store = Store::open(above.join("store"));
        let is_one = store.is_ok();
        if let Err(error) = store {
            assert_eq!((error.kind(), error.step()), (ErrorKind::Store, Step::OpenStore), "{error}");
            assert!(error.remedy().is_some() && !above.join("store").exists(), "{error}");
        }
        let _ = fs::remove_dir_all(above.join("store"));
        is_one
    };
    assert_eq!([0o755, 0o1777, 0o775, 0o777].map(stands_below), [true, true, true, false]);
    if crate::common::is_root() {
        for (owner, group) in [(Some(1000), None), (None, Some(1000))] {
            std::os::unix::fs::chown(&above, owner, group).unwrap();
            assert!(!stands_below(0o775), "{owner:?} {group:?}");
            std::os::unix::fs::chown(&above, Some(0), Some(0)).unwrap();
        }
    }
    for place in ["blobs", "partial", "layers", "staging", "lock", "index.lock", "index.json", "oci-layout"] {
        for target in [elsewhere.clone(), elsewhere.join("file"), elsewhere.join("missing")] {
            let root = dir.path().join("planted");
            fs::create_dir(&root).unwrap();
            symlink(target, root.join(place)).unwrap();
            refused(&root);
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1, "{place}");
            fs::remove_dir_all(&root).unwrap();
        }
    }
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    use std::os::unix::fs::symlink;
    let (dir, store) = store();
    let (outside, blob) = (dir.path().join("outside"), manifest(&store, false, "amd64", &[b"x"]));
    fs::write(&outside, "kept").unwrap();
    // The next files that replace the index.
    for number in 0..2000 {
        symlink(&outside, store.path().join(format!(".index.json.{}-{number}", std::process::id()))).unwrap();
    }
    store.tag(&name("a"), &blob).unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
    let place = store.path().join("blobs/sha256").join(blob.digest().digest());
    fs::rename(&place, &outside).unwrap();
    symlink(&outside, &place).unwrap();
    assert_eq!(store.blob(blob.digest()).unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(store.image(&name("a")).unwrap_err().kind(), ErrorKind::Store);
    for lock in ["lock", "index.lock"] {
        let path = store.path().join(lock);
        fs::remove_file(&path).unwrap();
        symlink(&outside, &path).unwrap();
        assert!(store.remove(&name("a")).is_err() || store.hold().is_err(), "{lock}");
        fs::remove_file(&path).unwrap();
    }
    let partial = store.path().join("partial").join(EMPTY.replace(':', "-"));
    symlink(&outside, partial).unwrap();
    assert_eq!(store.write_blob(&empty()).unwrap_err().kind(), ErrorKind::Store);
}
