//! What goes, what stays, and what is found to be wrong.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ringfence::ErrorKind;
use ringfence::image::{Descriptor, Digest, MediaType, Reference, Store};

use tar_core::EntryType;

use crate::make::{entry, image, store, tar};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn count(store: &Store, dir: &str) -> usize {
    fs::read_dir(store.path().join(dir)).unwrap().count()
}

#[test]
fn what_no_name_needs_is_pruned_and_what_runs_stays() {
    let (_dir, store) = store();
    let shared = tar().file("shared", "x").end();
    let (kept, gone) = ([shared.clone(), tar().file("kept", "x").end()], [shared, tar().file("gone", "y").end()]);
    let (kept, gone) = (image(&store, &kept), image(&store, &gone));
    store.tag(&name("kept"), kept.descriptor()).unwrap();
    store.tag(&name("gone"), gone.descriptor()).unwrap();
    drop(kept.unpack().unwrap());
    let running = gone.unpack().unwrap();
    let partial = Descriptor::new(
        MediaType::ImageLayer,
        9,
        gone.digest().to_string().replace('1', "2").parse::<Digest>().unwrap(),
    );
    store.write_blob(&partial).unwrap().unwrap().write_all(b"part").unwrap();
    let before = store.disk_usage().unwrap();
    assert_eq!((before.images, before.partial, before.reclaimable), (2, 4, 4));
    assert_eq!(store.prune().unwrap().bytes, 4);
    store.remove(&name("gone")).unwrap();
    assert!(store.disk_usage().unwrap().reclaimable > 0);
    let pruned = store.prune().unwrap();
    assert_eq!((pruned.blobs, pruned.layers, pruned.in_use), (3, 0, 1));
    assert!(running.dirs()[0].join("gone").exists());
    assert_eq!(
        store.image_of(gone.descriptor(), &ringfence::image::host_platform()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let clone = running.clone();
    drop(running);
    assert_eq!(store.prune().unwrap().in_use, 1);
    drop(clone);
    assert_eq!(store.prune().unwrap().layers, 1);
    assert_eq!((count(&store, "layers"), count(&store, "staging"), count(&store, "partial")), (2, 0, 0));
    let after = store.disk_usage().unwrap();
    assert_eq!((after.images, after.reclaimable), (1, 0));
    assert_eq!(store.image(&name("kept")).unwrap().unpack().unwrap().dirs().len(), 2);
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn a_pruner_waits_for_who_adds() {
    let (_dir, store) = store();
    let hold = store.hold().unwrap();
    let hasty = store.clone().wait(Duration::from_millis(50));
    assert_eq!(hasty.prune().unwrap_err().kind(), ErrorKind::Timeout);
    let blob = store.put_blob(MediaType::EmptyJSON, b"{}").unwrap();
    drop(hold);
    assert_eq!(hasty.prune().unwrap().blobs, 1);
    assert!(!store.has(&blob).unwrap());
}

#[test]
fn damage_is_found() {
    let (_dir, store) = store();
    let image = image(&store, &[tar().file("x", "x").end(), tar().file("y", "y").end()]);
    store.tag(&name("a"), image.descriptor()).unwrap();
    drop(image.unpack().unwrap());
    assert!(store.verify().unwrap().is_empty());
    let blob = |digest: &Digest| store.path().join("blobs/sha256").join(digest.digest());
    let layer = blob(image.layers()[0].digest());
    let mut bytes = fs::read(&layer).unwrap();
    bytes[600] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let damages = store.verify().unwrap();
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(damages[0].error.kind(), ErrorKind::Corrupt);
    fs::remove_file(blob(image.layers()[1].digest())).unwrap();
    let kinds: Vec<_> = store.verify().unwrap().iter().map(|damage| damage.error.kind()).collect();
    assert_eq!(kinds, [ErrorKind::Corrupt, ErrorKind::NotFound]);
    let unpacked = fs::read_dir(store.path().join("layers")).unwrap().flatten().next().unwrap().path();
    fs::remove_file(unpacked.join("layer.json")).unwrap();
    assert_eq!(store.verify().unwrap().len(), 3);
}

#[test]
fn a_fifo_among_the_blobs_is_not_waited_for() {
    let (_dir, store) = store();
    let fifo = store.path().join("blobs/sha256").join("a".repeat(64));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (to, from) = std::sync::mpsc::channel();
    let verified = store.clone();
    std::thread::spawn(move || to.send(verified.verify().unwrap()));
    let damages = from.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(damages.len(), 1);
    assert_eq!((damages[0].subject.as_str(), damages[0].error.kind()), (fifo.to_str().unwrap(), ErrorKind::Corrupt));
    store.prune().unwrap();
    assert!(!fifo.exists());
}

/// Everything that an archive says of a file is compared.
#[test]
fn what_has_been_done_to_an_unpacked_layer_is_found() {
    let (_dir, store) = store();
    let mut attributed = entry(EntryType::Regular, "d/attributed");
    attributed.add_pax("SCHILY.xattr.user.mark", "1");
    let below = tar().dir("d", 0o755).file("d/file", "one").file("d/gone", "two").symlink("d/link", "file");
    let below = below.with(attributed, b"x").hard_link("d/hard", "d/file");
    let above = tar().file("d/.wh.gone", "").file("d/new", "three").hard_link("copied", "d/file");
    let image = image(&store, &[below.end(), above.end()]);
    store.tag(&name("a"), image.descriptor()).unwrap();
    assert!(store.verify_unpacked().unwrap().is_empty(), "nothing is unpacked");
    let layers = image.unpack().unwrap();
    assert!(store.verify_unpacked().unwrap().is_empty());
    let low = layers.dirs().last().unwrap().join("d");
    let as_it_was = |file: &str| fs::metadata(low.join(file)).unwrap();
    let (dir_time, time) = (as_it_was(".").modified().unwrap(), as_it_was("file").modified().unwrap());
    let was = as_it_was("file").permissions();
    let found = |path: &str, word: &str| {
        let damages = store.verify_unpacked().unwrap();
        assert_eq!(damages.len(), 1, "{word}: {damages:?}");
        assert!(damages[0].subject.ends_with(path), "{word}: {damages:?}");
        assert!(damages[0].error.to_string().contains(word), "{damages:?}");
        assert_eq!(damages[0].error.kind(), ErrorKind::Corrupt);
    };
    let file = low.join("new-name");
    fs::write(&file, "").unwrap();
    found("d", "time");
    fs::remove_file(&file).unwrap();
    fs::File::open(&low).unwrap().set_modified(dir_time).unwrap();
    assert!(store.verify_unpacked().unwrap().is_empty(), "all is as it was");
    let changed = fs::File::options().write(true).open(low.join("file")).unwrap();
    (&changed).write_all(b"ONE").unwrap();
    changed.set_modified(time).unwrap();
    found("d/file", "bytes");
    (&changed).rewind().unwrap();
    (&changed).write_all(b"one").unwrap();
    changed.set_modified(time).unwrap();
    fs::set_permissions(low.join("file"), fs::Permissions::from_mode(0o4755)).unwrap();
    found("d/file", "mode");
    fs::set_permissions(low.join("file"), was).unwrap();
    changed.set_modified(time).unwrap();
    assert!(store.verify_unpacked().unwrap().is_empty(), "all is as it was");
    let marked = low.join("attributed");
    let status = std::process::Command::new("python3")
        .args(["-c", "import os, sys; os.setxattr(sys.argv[1], 'user.mark', b'2')"])
        .arg(&marked)
        .status();
    assert!(status.unwrap().success());
    found("d/attributed", "attributes");
    let left: Vec<_> = fs::read_dir(store.path().join("staging")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
