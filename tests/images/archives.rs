//! Images in and out, and what other tools make of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use ringfence::ErrorKind;
use ringfence::image::{Archive, Reference, Store, host_platform};

use crate::common;
use crate::make::{filter, image, manifest_of, sha256, store, tar};

fn skopeo(words: &[&str]) -> bool {
    let mut command = Command::new("skopeo");
    match command.args(["--insecure-policy", "copy", "-q"]).args(words).output() {
        Ok(output) => {
            assert!(output.status.success(), "skopeo copy {words:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => {
            common::skip("it needs skopeo", false);
            false
        }
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A store with an image of two layers, one of them compressed.
fn with_image(text: &str) -> (common::TempDir, Store) {
    let (dir, store) = store();
    let (one, two) = (tar().file("one", "1").end(), tar().file("two", "2").file(".wh.gone", "").end());
    let gzip = filter(&["gzip", "-nc"], &two);
    let arch = host_platform().architecture().to_string();
    let blob = manifest_of(&store, false, &arch, &[(&one, sha256(&one)), (&gzip, sha256(&two))]);
    store.tag(&name(text), &blob).unwrap();
    (dir, store)
}

fn write(store: &Store, archive: Archive, path: &Path) {
    let names: Vec<Reference> = store.images().unwrap().into_iter().map(|(name, _)| name).collect();
    store.export(&names, archive, fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn what_goes_out_comes_in_again() {
    let (dir, store) = with_image("quay.io/a/b:1");
    let other = image(&store, &[tar().file("x", "").end()]);
    store.tag(&name("debian"), other.descriptor()).unwrap();
    for (archive, exact) in [(Archive::Oci, true), (Archive::Docker, false)] {
        let path = dir.path().join("images.tar");
        write(&store, archive, &path);
        let first = fs::read(&path).unwrap();
        write(&store, archive, &path);
        assert!(fs::read(&path).unwrap() == first, "the same images give the same bytes");
        let zipped = dir.path().join("images.tar.gz");
        fs::write(&zipped, filter(&["gzip", "-c"], &first)).unwrap();
        for path in [&path, &zipped] {
            let (_dir, target) = crate::make::store();
            let images = target.import(path, None).unwrap();
            let names: Vec<String> = images.iter().map(|i| i.name.as_ref().unwrap().to_string()).collect();
            assert_eq!(names.len(), 2, "{names:?}");
            for text in ["quay.io/a/b:1", "debian"] {
                let (here, there) = (store.image(&name(text)).unwrap(), target.image(&name(text)).unwrap());
                assert_eq!(here.chain_ids(), there.chain_ids());
                assert_eq!(here.id(), there.id());
                assert_eq!(here.digest() == there.digest(), exact);
                there.unpack().unwrap();
            }
            assert_eq!(target.import(path, Some(&name("one"))).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
    let (_dir, target) = crate::make::store();
    target.import(store.path(), None).unwrap();
    assert_eq!(target.images().unwrap().len(), 2, "a store is an image layout");
}

#[test]
fn skopeo_reads_ours_and_we_read_skopeos() {
    if common::needs_root("skopeo, which gives the files of an archive to root,") {
        return;
    }
    let (dir, store) = with_image("example.org/a:1");
    let at = |text: &str| dir.path().join(text).to_str().unwrap().to_owned();
    let (oci, docker) = (at("oci.tar"), at("docker.tar"));
    write(&store, Archive::Oci, Path::new(&oci));
    write(&store, Archive::Docker, Path::new(&docker));
    let layout = |text: &str| format!("oci:{}:back", at(text));
    if !skopeo(&["--preserve-digests", &format!("oci-archive:{oci}:example.org/a:1"), &layout("from-oci")]) {
        return;
    }
    skopeo(&[&format!("docker-archive:{docker}:example.org/a:1"), &layout("from-docker")]);
    skopeo(&["--preserve-digests", &format!("oci:{}:example.org/a:1", store.path().display()), &layout("from-store")]);
    let own = store.image(&name("example.org/a:1")).unwrap();
    for from in ["from-oci", "from-docker", "from-store"] {
        let (_dir, target) = crate::make::store();
        target.import(at(from), Some(&name("b"))).unwrap();
        let back = target.image(&name("b")).unwrap();
        assert_eq!(back.chain_ids(), own.chain_ids(), "{from}");
        assert_eq!(back.digest() == own.digest(), from != "from-docker", "the manifest is the same, byte for byte");
    }
    for format in ["oci-archive", "docker-archive"] {
        let path = at(&format!("theirs-{format}.tar"));
        skopeo(&[&layout("from-oci"), &format!("{format}:{path}:example.org/theirs:2")]);
        let (_dir, target) = crate::make::store();
        let images = target.import(&path, None).unwrap();
        assert_eq!(images[0].name.as_ref().unwrap().to_string(), "example.org/theirs:2");
        assert_eq!(target.image(&name("example.org/theirs:2")).unwrap().chain_ids(), own.chain_ids());
    }
}

#[test]
fn an_archive_of_a_root_file_system_is_an_image_of_one_layer() {
    let archive = tar().dir("bin", 0o755).file("bin/tool", "x").end();
    let (dir, store) = store();
    for (i, bytes) in
        [archive.clone(), filter(&["gzip", "-c"], &archive), filter(&["zstd", "-qc"], &archive)].iter().enumerate()
    {
        let path = dir.path().join("rootfs");
        fs::write(&path, bytes).unwrap();
        let name = name(&format!("rootfs:{i}"));
        store.import_rootfs(&path, &name).unwrap();
        let layers = store.image(&name).unwrap().unpack().unwrap();
        assert_eq!(fs::read_to_string(layers.dirs()[0].join("bin/tool")).unwrap(), "x");
    }
    assert_eq!(fs::read_dir(store.path().join("layers")).unwrap().count(), 1, "one content is one layer");
}

#[test]
fn broken_archives_name_nothing() {
    let layer = tar().file("x", "").end();
    let id = sha256(&layer);
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#);
    let layer_text = String::from_utf8(layer.clone()).unwrap();
    let listed = |layers: &str| format!(r#"[{{"Config":"c.json","RepoTags":["a:1"],"Layers":[{layers}]}}]"#);
    let docker = |layers: &str| tar().file("c.json", &config).file("manifest.json", &listed(layers));
    // As old versions of docker(1) have it: a link to the layer of another image.
    let linked =
        docker(r#""id/layer.tar""#).symlink("id/layer.tar", "../real/layer.tar").file("real/layer.tar", &layer_text);
    let index = |digest: &str| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"{digest}"}}]}}"#
        )
    };
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let cases = [
        (linked, None),
        (tar(), Some(ErrorKind::Corrupt)),
        (tar().file("manifest.json", "[").file("x", ""), Some(ErrorKind::Corrupt)),
        (docker(r#""missing.tar""#), Some(ErrorKind::Corrupt)),
        (docker(r#""../../etc/passwd""#), Some(ErrorKind::Corrupt)),
        (docker(r#""l""#).symlink("l", "l"), Some(ErrorKind::Corrupt)),
        (tar().file("index.json", &index(&id)), Some(ErrorKind::Corrupt)),
        (
            tar().file("index.json", &index(empty)).file(&format!("blobs/{}", empty.replace(':', "/")), "[]"),
            Some(ErrorKind::Corrupt),
        ),
        (
            tar().file("index.json", &index(empty)).file(&format!("blobs/{}", empty.replace(':', "/")), "{}"),
            Some(ErrorKind::Corrupt),
        ),
    ];
    for (i, (archive, expected)) in cases.into_iter().enumerate() {
        let (dir, store) = store();
        let path = dir.path().join("archive");
        fs::write(&path, archive.end()).unwrap();
        let result = store.import(&path, None);
        assert_eq!(result.as_ref().err().map(ringfence::Error::kind), expected, "{i}: {result:?}");
        assert_eq!(store.images().unwrap().len(), usize::from(expected.is_none()));
        assert!(store.verify().unwrap().is_empty());
    }
}

/// The layout that an archive holds, as a directory.
fn as_directory(dir: &Path, archive: &Path) -> std::path::PathBuf {
    let layout = dir.join("layout");
    fs::create_dir(&layout).unwrap();
    let words = ["-C", layout.to_str().unwrap(), "-xf", archive.to_str().unwrap()];
    assert!(Command::new("tar").args(words).status().unwrap().success());
    layout
}

#[test]
fn what_is_damaged_comes_in_again() {
    let (dir, store) = with_image("quay.io/a/b:1");
    let path = dir.path().join("images.tar");
    write(&store, Archive::Oci, &path);
    let layout = as_directory(dir.path(), &path);
    let blob = store.image(&name("quay.io/a/b:1")).unwrap().layers()[0].clone();
    let place = store.path().join("blobs/sha256").join(blob.digest().digest());
    let good = fs::read(&place).unwrap();
    let mut same_length = good.clone();
    same_length[0] ^= 1;
    for from in [&path, &layout] {
        for bad in [&same_length[..], &good[1..]] {
            fs::write(&place, bad).unwrap();
            store.import(from, None).unwrap();
            assert!(fs::read(&place).unwrap() == good, "{from:?}");
        }
        assert!(store.verify().unwrap().is_empty());
    }
}

#[test]
fn what_another_has_brought_does_not_make_an_archive_whole() {
    let (dir, store) = with_image("quay.io/a/b:1");
    let path = dir.path().join("images.tar");
    write(&store, Archive::Oci, &path);
    let layout = as_directory(dir.path(), &path);
    let layer = store.image(&name("quay.io/a/b:1")).unwrap().layers()[0].clone();
    let place = layout.join("blobs/sha256").join(layer.digest().digest());
    let refused = |from: &Path| {
        let stolen = name("quay.io/stolen:1");
        let error = store.import(from, Some(&stolen)).unwrap_err();
        assert!(store.resolve(&stolen).is_err());
        error.kind()
    };
    fs::write(&place, "").unwrap();
    assert_eq!(refused(&layout), ErrorKind::Corrupt);
    fs::remove_file(&place).unwrap();
    let thinner = dir.path().join("thinner.tar");
    let words = ["-C", layout.to_str().unwrap(), "-cf", thinner.to_str().unwrap(), "."];
    assert!(Command::new("tar").args(words).status().unwrap().success());
    assert_eq!(refused(&thinner), ErrorKind::Corrupt);
}

#[test]
fn a_fifo_is_not_waited_for() {
    let (dir, store) = with_image("quay.io/a/b:1");
    let path = dir.path().join("images.tar");
    write(&store, Archive::Oci, &path);
    let layout = as_directory(dir.path(), &path);
    let layer = store.image(&name("quay.io/a/b:1")).unwrap().layers()[0].clone();
    let blob = layout.join("blobs/sha256").join(layer.digest().digest());
    for place in [blob, layout.join("index.json"), path.clone()] {
        fs::remove_file(&place).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let from = if place == path { &path } else { &layout };
        let (_dir, target) = crate::make::store();
        assert_eq!(target.import(from, None).unwrap_err().kind(), ErrorKind::Corrupt, "{place:?}");
    }
}

#[test]
fn a_layer_of_another_compression_is_told() {
    let tar = tar().file("x", "x").end();
    for (program, text) in [("xz", "xz"), ("bzip2", "bzip2")] {
        if Command::new(program).arg("--version").stdin(std::process::Stdio::null()).output().is_err() {
            common::skip("xz or bzip2 is missing", false);
            continue;
        }
        let (_dir, store) = crate::make::store();
        let arch = host_platform().architecture().to_string();
        let blob = manifest_of(&store, false, &arch, &[(&filter(&[program, "-c"], &tar), sha256(&tar))]);
        let error = store.image_of(&blob, &host_platform()).unwrap().unpack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}
