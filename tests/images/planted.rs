//! A store in which somebody has put links and FIFOs in place of its files and directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringfence::image::{Archive, Reference, Store};

use crate::common::TempDir;
use crate::make::{image, tar};

const AT_MOST: Duration = Duration::from_secs(20);

fn name() -> Reference {
    "a:1".parse().unwrap()
}

/// What there is below a directory: kinds, modes, sizes and contents, by path.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let contents = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        all.insert(path.clone(), (metadata.mode(), contents));
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

/// A store with a named image and one that is not named, both unpacked, a part of a blob, and what a killed unpacking leaves.
fn fill(at: &Path) {
    let store = Store::open(at).unwrap();
    let layers = [tar().dir("d", 0o755).file("d/f", "one").end(), tar().file("d/g", "two").end()];
    let own = image(&store, &layers);
    own.unpack().unwrap();
    store.tag(&name(), own.descriptor()).unwrap();
    image(&store, &[tar().file("old", "old").end()]).unpack().unwrap();
    let digest = format!("sha256-{}", "1".repeat(64));
    fs::write(at.join("partial").join(digest), "part").unwrap();
    fs::DirBuilder::new().mode(0o700).create(at.join("staging/left")).unwrap();
    fs::write(at.join("staging/left/file"), "left").unwrap();
}

/// All that the store is made of, but for what layers have in them.
fn places(at: &Path) -> Vec<PathBuf> {
    let is_layers = |path: &Path| path.strip_prefix(at.join("layers")).is_ok_and(|path| path.iter().count() > 2);
    tree(at).into_keys().filter(|path| path != at && !is_layers(path)).collect()
}

/// Everything that a store is asked to do. How each of it ends is its own affair.
fn use_it(store: Store) {
    let store = store.wait(Duration::from_secs(1));
    drop(store.verify());
    drop(store.disk_usage());
    if let Ok(image) = store.image(&name()) {
        drop(image.unpack());
        drop(store.export(&[name()], Archive::Oci, Vec::new()));
    }
    drop(store.prune());
    drop(store.put_blob(ringfence::image::MediaType::EmptyJSON, b"{}"));
    let layers = [tar().file("new", "new").end()];
    if let Ok(blob) = store.put_blob(ringfence::image::MediaType::ImageLayer, &layers[0]) {
        drop(store.has(&blob));
    }
    drop(store.remove(&name()));
    drop(store.prune());
}

#[test]
fn nothing_is_read_changed_or_waited_for_through_what_is_planted() {
    let dir = TempDir::new();
    let full = dir.path().join("full");
    fill(&full);
    let secret = dir.path().join("secret");
    for (number, place) in places(&full).into_iter().enumerate() {
        for kind in ["link", "fifo"] {
            let at = dir.path().join(format!("{kind}{number}"));
            let copied = Command::new("cp").arg("-a").args([&full, &at]).status().unwrap();
            assert!(copied.success());
            let planted = at.join(place.strip_prefix(&full).unwrap());
            // What the link leads to has all that the store looks for there.
            fs::rename(&planted, &secret).unwrap();
            match kind {
                "link" => symlink(&secret, &planted).unwrap(),
                _ => nix::unistd::mkfifo(&planted, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
            }
            let before = tree(&secret);
            let (done, is_done) = mpsc::channel();
            let used = at.clone();
            let user = thread::spawn(move || {
                let _ = Store::open(&used).map(use_it);
                done.send(()).unwrap();
            });
            let waited = is_done.recv_timeout(AT_MOST);
            assert!(waited.is_ok(), "a {kind} at {} is waited for", planted.display());
            user.join().unwrap();
            assert!(tree(&secret) == before, "a {kind} at {} leads out", planted.display());
            fs::remove_dir_all(&at).unwrap();
            if secret.is_dir() { fs::remove_dir_all(&secret).unwrap() } else { fs::remove_file(&secret).unwrap() }
        }
    }
}

/// A store is the directory that was opened, and its files are below that one, whatever its paths lead to later.
#[test]
fn an_open_store_is_not_led_elsewhere() {
    let dir = TempDir::new();
    let full = dir.path().join("full");
    fill(&full);
    let copy = |to: &Path| assert!(Command::new("cp").arg("-a").args([&full, to]).status().unwrap().success());
    let (at, secret) = (dir.path().join("at"), dir.path().join("secret"));
    let directories = places(&full).into_iter().filter(|place| place.is_dir());
    for place in directories.chain([full.clone()]) {
        copy(&at);
        let store = Store::open(&at).unwrap();
        let below = place.strip_prefix(&full).unwrap();
        // The directory goes aside, and a link leads to another one with the same files.
        fs::rename(at.join(below), dir.path().join("aside")).unwrap();
        copy(&secret);
        symlink(secret.join(below), at.join(below).components().as_path()).unwrap();
        let before = tree(&secret);
        use_it(store);
        assert!(tree(&secret) == before, "{} leads out", place.display());
        for gone in [at.clone(), dir.path().join("aside"), secret.clone()] {
            if gone.is_symlink() { fs::remove_file(&gone).unwrap() } else { fs::remove_dir_all(&gone).unwrap() }
        }
    }
    // The root went aside last, so what was asked of the store was done there: see that it was.
    copy(&at);
    let store = Store::open(&at).unwrap();
    fs::rename(&at, dir.path().join("aside")).unwrap();
    store.remove(&name()).unwrap();
    store.prune().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("aside/layers")).unwrap().count(), 0);
    assert!(!at.exists());
}
