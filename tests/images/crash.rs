//! Users of a store that are killed, at any point.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::image::{Reference, Store};

use crate::common::{self, TempDir, probe};
use crate::make::{Tar, image, tar};

common::callers! {
    |words|
    "takes-in-and-out" => take_in_and_out(&Store::open(words[1]).unwrap()),
}

/// This binary as a process that does so with the store at `path`.
fn taker(path: &Path) -> Command {
    probe::caller(&format!("takes-in-and-out {}", path.display()))
}

fn layers() -> Vec<Vec<u8>> {
    let of = |i: usize| {
        let files = (0..60).fold(tar(), |tar: Tar, j| tar.file(&format!("{i}/{j}"), &format!("{i} {j} ").repeat(300)));
        files.end()
    };
    (0..4).map(of).collect()
}

/// Everything that changes a store, some of it more than once.
fn take_in_and_out(store: &Store) {
    let name: Reference = "crash".parse().unwrap();
    let made = image(store, &layers());
    store.tag(&name, made.descriptor()).unwrap();
    made.unpack().unwrap();
    let other = image(store, &layers()[..2]);
    store.tag(&"other".parse().unwrap(), other.descriptor()).unwrap();
    store.remove(&"other".parse().unwrap()).unwrap();
    store.remove(&name).unwrap();
    store.prune().unwrap();
    let made = image(store, &layers()[2..]);
    store.tag(&name, made.descriptor()).unwrap();
    made.unpack().unwrap();
}

fn check(store: &Store) {
    let damages = store.verify().unwrap();
    assert!(damages.is_empty(), "{damages:?}");
    for layer in fs::read_dir(store.path().join("layers")).unwrap().flatten() {
        let dirs = fs::read_dir(layer.path().join("fs")).unwrap().flatten().next().unwrap().path();
        assert_eq!(fs::read_dir(&dirs).unwrap().count(), 60, "a layer with a name is whole");
        for file in fs::read_dir(dirs).unwrap().flatten() {
            assert!(file.metadata().unwrap().len() >= 1200);
        }
    }
}

#[test]
fn a_kill_at_any_point_leaves_a_store_that_works() {
    let dir = TempDir::new();
    let start = Instant::now();
    probe::succeeds(taker(&dir.path().join("whole")));
    let mut whole = start.elapsed();
    let path = dir.path().join("store");
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut killed = 0;
    for _ in 0..30 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = taker(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pause = Duration::from_nanos(random % whole.as_nanos() as u64);
        std::thread::sleep(pause);
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // The first run had less of a busy host than this one.
            whole = pause;
        } else {
            killed += 1;
        }
        check(&Store::open(&path).unwrap().wait(Duration::from_secs(20)));
    }
    assert!(killed > 10, "only {killed} were killed in the middle");
    let store = Store::open(&path).unwrap().wait(Duration::from_secs(20));
    take_in_and_out(&store);
    check(&store);
    store.prune().unwrap();
    let left = |name: &str| fs::read_dir(path.join(name)).unwrap().count();
    assert_eq!((left("staging"), left("partial"), left("layers"), store.images().unwrap().len()), (0, 0, 2, 1));
}

#[test]
fn what_a_killed_writer_has_written_is_taken_up() {
    let dir = TempDir::new();
    let store = Store::open(dir.path()).unwrap();
    let bytes = layers().remove(0);
    let blob = store.put_blob(ringfence::image::MediaType::ImageLayer, &bytes).unwrap();
    store.prune().unwrap();
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    writer.write_all(&bytes[..1000]).unwrap();
    drop(writer);
    let mut writer = store.write_blob(&blob).unwrap().unwrap();
    assert_eq!(writer.written(), 1000);
    writer.write_all(&bytes[1000..]).unwrap();
    writer.commit().unwrap();
    store.tag(&"a".parse().unwrap(), image(&store, &[bytes]).descriptor()).unwrap();
    assert!(store.verify().unwrap().is_empty());
}
