//! A caller that may write small files only: what does not fit is an error, and never ends the caller.

use std::fs::{self, File};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence::image::{ImageBuilder, MediaType, Store};
use ringfence::{Collector, Error, UpperDir};

use crate::common::{self, TempDir, probe};
use crate::make::{image, tar};

common::callers! {
    |words|
    "may-write-small-files" => write_in_all_ways(Path::new(words[1])),
}

const LARGE: usize = 100_000;

/// Bytes that are as many when they are compressed.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..LARGE).map(|_| next()).collect()
}

/// SIGXFSZ, which ends a process that writes beyond the limit, is never sent.
fn write_in_all_ways(dir: &Path) {
    let store = Store::open(dir.join("store")).unwrap();
    let large = String::from_utf8_lossy(&noise()).into_owned();
    let there = image(&store, &[tar().file("large", &large).end()]);
    for name in ["from", "below"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("from/large"), noise()).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let do_each = |limit: u64| {
        let limited = |way: &str, does: &dyn Fn() -> Result<(), Error>| {
            setrlimit(Resource::RLIMIT_FSIZE, limit, hard).unwrap();
            let result = does();
            setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
            match result {
                Ok(()) => println!("{way} with {limit}: done"),
                Err(error) => println!("{way} with {limit}: {error}"),
            }
        };
        limited("put", &|| store.put_blob(MediaType::ImageLayer, &noise()).map(drop));
        limited("unpack", &|| there.unpack().map(drop));
        let build = ImageBuilder::scratch(&store).copy(dir.join("from"), "/");
        limited("build", &|| build.build(&"built".parse().unwrap()).map(drop));
        let to = dir.join(format!("to-{limit}"));
        limited("collect", &|| Collector::new(dir.join("from")).copy_to(&to).map(drop));
        let mut changes = UpperDir::new(dir.join("from"), dir.join("below")).changes().unwrap();
        let changes = std::cell::RefCell::new(&mut changes);
        limited("commit", &|| changes.borrow_mut().commit());
    };
    [0, 1000, 50_000, 1 << 20].into_iter().for_each(do_each);
    assert_eq!(File::open(dir.join("below/large")).unwrap().metadata().unwrap().len(), LARGE as u64);
}

#[test]
fn a_caller_that_may_write_small_files_only_is_told_so_and_lives() {
    let _clean = common::clean();
    let dir = TempDir::new();
    let told = probe::succeeds(probe::caller(&format!("may-write-small-files {}", dir.path().display())));
    assert_eq!(told.lines().count(), 20, "{told}");
    for line in told.lines() {
        match line.contains("with 1048576") {
            true => assert!(line.ends_with(": done"), "{line}\n{told}"),
            false => assert!(line.contains("(RLIMIT_FSIZE)"), "{line}\n{told}"),
        }
    }
}
