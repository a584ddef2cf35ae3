//! A store in which somebody has put links and FIFOs in place of its files and directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
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
    fs::create_dir(at.join("staging/left")).unwrap();
    fs::write(at.join("staging/left/file"), "left").unwrap();
}

/// All that the store is made of, but for what layers have in them.
fn places(at: &Path) -> Vec<PathBuf> {
    let is_layers = |path: &Path| path.strip_prefix(at.join("layers")).is_ok_and(|path| path.iter().count() > 2);
    tree(at).into_keys().filter(|path| path != at && !is_layers(path)).collect()
}

/// Everything that a store is asked to do. How each of it ends is its own affair.
fn use_it(at: &Path) {
    let Ok(store) = Store::open(at) else { return };
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
                use_it(&used);
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
