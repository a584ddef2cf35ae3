//! Unpacks archives that were made by changing others.

use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::complete::complete;
use super::lowers::Lowers;
use super::quota::{ImageQuota, UnpackLimits};
use super::tar::Entries;
use super::tree::Tree;
use super::unpack::{Ids, Unpacker};
use crate::{fuzz, owner};

fn entry(kind: EntryType, path: &str, change: impl Fn(&mut EntryBuilder)) -> Vec<u8> {
    let mut entry = EntryBuilder::new_ustar();
    entry.path(path).entry_type(kind).mode(0o755).unwrap().mtime(1).unwrap();
    change(&mut entry);
    entry.finish_bytes()
}

fn archives() -> Vec<Vec<u8>> {
    let plain = |kind, path| entry(kind, path, |_| ());
    let link = |kind, path, target: &str| {
        entry(kind, path, |entry| {
            entry.link_name(target);
        })
    };
    let file = |path| {
        [
            entry(EntryType::Regular, path, |e| {
                e.size(3).unwrap();
            }),
            b"abc".to_vec(),
            vec![0; 509],
        ]
        .concat()
    };
    let pax = |key: &str, value: &str| {
        entry(EntryType::Regular, "pax", |e| {
            e.add_pax(key, value);
        })
    };
    vec![
        [plain(EntryType::Directory, "dir/"), file("dir/file"), file("a/b/c"), vec![0; 1024]].concat(),
        [link(EntryType::Symlink, "link", "/../dir"), file("link/file"), link(EntryType::Link, "hard", "dir/file")]
            .concat(),
        [
            file("dir/.wh.file"),
            file(".wh..wh..opq"),
            file("dir/.wh..wh..opq"),
            file(".wh.dir"),
            plain(EntryType::Directory, "dir"),
        ]
        .concat(),
        [pax("mtime", "-1.5"), pax("size", "0"), pax("SCHILY.xattr.user.a", "b"), pax("uid", "70000")].concat(),
        [pax("GNU.sparse.map", "0,1,5,1"), pax("GNU.sparse.size", "9"), pax("path", "../x")].concat(),
        [
            link(EntryType::Symlink, "a", "b"),
            link(EntryType::Symlink, "b", "a"),
            file("a/x"),
            link(EntryType::Link, "x", "lower"),
        ]
        .concat(),
    ]
}

/// Unpacking any archive ends, does not panic, and writes nothing outside of the tree.
#[test]
fn changed_archives_stay_inside() {
    let place = std::env::temp_dir().join(format!("rftest-unpack-{}", std::process::id()));
    let made = |path: PathBuf| {
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        path
    };
    made(place.clone());
    let below = made(place.join("below"));
    fs::create_dir(below.join("dir")).unwrap();
    fs::write(below.join("lower"), "x").unwrap();
    std::os::unix::fs::symlink("dir", below.join("a")).unwrap();
    let (archives, number) = (archives(), AtomicU64::new(0));
    let corpus: Vec<&[u8]> = archives.iter().map(Vec::as_slice).collect();
    let (whole, good) = (AtomicU64::new(0), AtomicU64::new(0));
    fuzz::bytes(&corpus, |bytes| {
        let staging = made(place.join(number.fetch_add(1, Ordering::Relaxed).to_string()));
        let limits = UnpackLimits { entries: 1000, ..UnpackLimits::default() };
        let image_quota = Arc::new(ImageQuota::new(limits, 0, 0));
        let unpacker =
            Unpacker::new(Tree::make(fs::File::open(&staging).unwrap().as_fd()).unwrap(), Ids::Squashed, image_quota);
        // Random changes do not produce a header with a correct checksum.
        if let Ok(mut layer) = unpacker.unpack(&mut Entries::new(summed(bytes).as_slice())) {
            whole.fetch_add(1, Ordering::Relaxed);
            let lowers = Lowers::open(std::slice::from_ref(&below)).unwrap();
            good.fetch_add(u64::from(complete(&mut layer, &lowers, Ids::Squashed).is_ok()), Ordering::Relaxed);
        }
        let mut names: Vec<_> = fs::read_dir(&staging).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["fs", "links", "trash"]);
        remove(&staging);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 3);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        assert_eq!(fs::read_dir(below.join("dir")).unwrap().count(), 0);
    });
    remove(&place);
    assert!(whole.into_inner() > 0 && good.into_inner() > 0);
}

fn remove(path: &Path) {
    let above = fs::File::open(path.parent().unwrap()).unwrap();
    owner::remove_tree(above.as_fd(), path.file_name().unwrap(), path).unwrap();
}

/// Returns the same blocks, with a correct checksum in each that could be a header.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
