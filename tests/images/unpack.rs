//! Layers as overlayfs shows them, and archives that are out for something else.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence::image::{Ids, Image, Layers, Store, host_platform};
use ringfence::{Error, ErrorKind, Overlay, Step};
use tar_core::EntryType;

use crate::common::{self, is_root};
use crate::make::{Tar, entry, filter, image, manifest_of, sha256, store, tar};

/// What a script says that runs in the directory where overlayfs shows the layers: in a user namespace as well.
fn seen_by(layers: &Layers, script: &str, user_ns: bool) -> String {
    let sandbox = if user_ns { common::sandbox().user_ns().mount_ns() } else { common::mounting() };
    let root = common::TempDir::new();
    let mut dirs = layers.dirs().to_vec();
    if let [only] = dirs.as_slice() {
        let empty = only.parent().unwrap().parent().unwrap().join("empty");
        fs::create_dir_all(&empty).unwrap();
        dirs.push(empty);
    }
    let script = format!("cd {} && {script}", root.path().display());
    let sandbox = sandbox.command("sh").args(["-c", &script]).mount(Overlay::new(root.path(), dirs).read_only());
    common::stdout(&sandbox)
}

fn seen(layers: &Layers, script: &str) -> String {
    seen_by(layers, script, false)
}

fn unpacked(store: &Store, layers: &[Tar]) -> Layers {
    let layers: Vec<Vec<u8>> = layers.iter().map(|tar| tar.clone().end()).collect();
    image(store, &layers).unpack().unwrap()
}

fn refused(archive: Vec<u8>) -> Error {
    let (dir, store) = store();
    let image: Image = image(&store, &[archive]);
    let error = image.unpack().unwrap_err();
    assert!(error.path().unwrap().to_str().unwrap().starts_with("sha256:"), "{error}");
    let left = |name: &str| fs::read_dir(store.path().join(name)).unwrap().count();
    assert_eq!((left("staging"), left("layers")), (0, 0), "the store is as it was after {error}");
    let others: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(others.len(), 1, "{others:?}");
    error
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (CString::new(path.to_str().unwrap()).unwrap(), CString::new(name).unwrap());
    let mut value = vec![0u8; 256];
    // SAFETY: both strings end with a NUL, and the value has the length that is told.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    (length >= 0).then(|| value[..length as usize].to_vec())
}

#[test]
fn an_entry_becomes_what_it_says() {
    let (_dir, store) = store();
    let mut timed = entry(EntryType::Regular, "./etc/timed");
    timed.mode(0o4755).unwrap().add_pax("mtime", "1234567890.123456789");
    let mut old = entry(EntryType::Regular, "etc/old");
    old.add_pax("mtime", "-1.5");
    let long = format!("etc/{}/{}", "d".repeat(200), "f".repeat(200));
    let layers = unpacked(
        &store,
        &[tar()
            .dir("etc/", 0o1751)
            .with(timed, b"hello")
            .with(old, b"")
            .file("/absolute", "stays inside")
            .symlink("link", "/etc/timed")
            .hard_link("hard", "etc/timed")
            .file(&long, "long")
            .device(EntryType::Fifo, "fifo", (0, 0))
            .xattr("marked", "user.mark", b"a=b\nc")],
    );
    let root = layers.dirs()[0].clone();
    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(stat("").mode() & 0o7777, 0o755);
    assert_eq!((stat("etc").mode() & 0o7777, stat("etc").mtime()), (0o1751, 1_000_000_000));
    let timed = stat("etc/timed");
    assert_eq!((timed.mode() & 0o7777, timed.mtime(), timed.mtime_nsec()), (0o4755, 1_234_567_890, 123_456_789));
    assert_eq!((stat("etc/old").mtime(), stat("etc/old").mtime_nsec()), (-2, 500_000_000));
    assert_eq!((timed.ino(), timed.nlink()), (stat("hard").ino(), 2));
    assert_eq!(fs::read_to_string(root.join("absolute")).unwrap(), "stays inside");
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/timed"));
    assert_eq!(stat("link").mtime(), 1_000_000_000);
    assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), "long");
    assert!(stat("fifo").file_type().is_fifo());
    assert_eq!(xattr(&root.join("marked"), "user.mark").unwrap(), b"a=b\nc");
    assert_eq!(layers.skipped(), 0, "{:?}", layers.left_out());
}

#[test]
fn owners_devices_and_capabilities_are_roots_to_give() {
    let (_dir, store) = store();
    let mut owned = entry(EntryType::Regular, "owned");
    owned.uid(70_000).unwrap().gid(4_000_000_000).unwrap().mode(0o6755).unwrap();
    // cap_net_raw+ep, as setcap(8) writes it.
    let capability = [&[1, 0, 0, 2][..], &[0, 0x20, 0, 0], &[0; 12]].concat();
    let mut capable = entry(EntryType::Regular, "capable");
    capable.uid(1).unwrap().add_pax("SCHILY.xattr.security.capability", &capability);
    let archive = tar().with(owned, b"x").with(capable, b"x").device(EntryType::Char, "null", (1, 3)).device(
        EntryType::Block,
        "disk",
        (259, 300_000),
    );
    let kept = is_root();
    let squashed = if kept { store.clone().squash_ids() } else { store.clone() };
    let layers = unpacked(&squashed, std::slice::from_ref(&archive));
    assert_eq!(layers.ids(), Ids::Squashed);
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(fs::metadata(layers.dirs()[0].join("owned")).unwrap().uid(), own);
    if !kept {
        assert_eq!((layers.ids(), layers.skipped()), (Ids::Squashed, 3), "{:?}", layers.left_out());
        assert!(layers.left_out().iter().any(|line| line.contains("CAP_MKNOD")), "{:?}", layers.left_out());
        return;
    }
    let layers = unpacked(&store, &[archive]);
    assert_eq!((layers.ids(), layers.skipped()), (Ids::Kept, 0), "{:?}", layers.left_out());
    let root = &layers.dirs()[0];
    let stat = fs::metadata(root.join("owned")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (70_000, 4_000_000_000, 0o6755));
    assert_eq!(xattr(&root.join("capable"), "security.capability").unwrap(), capability);
    for (name, numbers) in [("null", (1, 3)), ("disk", (259, 300_000))] {
        let rdev = fs::metadata(root.join(name)).unwrap().rdev();
        assert_eq!((libc::major(rdev), libc::minor(rdev)), numbers);
    }
}

#[test]
fn whiteouts_hide_what_is_below() {
    let below = tar()
        .dir("gone", 0o755)
        .file("gone/file", "x")
        .file("file", "x")
        .dir("opaque", 0o755)
        .file("opaque/old", "x")
        .dir("again", 0o755)
        .file("again/old", "x")
        .dir("late", 0o755)
        .file("late/old", "x")
        .file("kept", "x");
    let above = tar()
        .file(".wh.gone", "")
        .file(".wh.file", "")
        .file(".wh.never", "")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "x")
        // A whiteout is for the layers below, wherever in the archive it stands.
        .file(".wh.again", "")
        .file("again/new", "x")
        .file("late/new", "x")
        .file(".wh.late", "")
        .file(".wh.kept", "")
        .file("kept", "anew")
        .file("kept/.wh.below", "")
        .file(".wh..wh.aufs", "")
        .file(".wh..wh.plnk/1.2", "");
    let expected = ".\n./again\n./again/new\n./kept\n./late\n./late/new\n./opaque\n./opaque/new";
    for user_ns in [false, true] {
        let (_dir, store) = store();
        let layers = unpacked(&store, &[below.clone(), above.clone()]);
        if user_ns && is_root() {
            open_to_all(&store);
        }
        assert_eq!(seen_by(&layers, "find . | sort", user_ns), expected, "user_ns: {user_ns}");
        assert_eq!(seen_by(&layers, "cat kept", user_ns), "anew");
    }
    let (_dir, store) = store();
    let layers = unpacked(&store, &[below, tar().file(".wh..wh..opq", "").file("only", "x"), tar().file("top", "")]);
    assert_eq!(layers.dirs().len(), 2, "an opaque root hides all");
    assert_eq!(seen(&layers, "find . | sort"), ".\n./only\n./top");
}

/// Root of a user namespace is no root outside, and the store is closed to others.
fn open_to_all(store: &Store) {
    for dir in [store.path().to_owned(), store.path().join("layers")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for layer in fs::read_dir(store.path().join("layers")).unwrap().flatten() {
        fs::set_permissions(layer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_a_layer_leaves_out_is_as_in_the_layers_below() {
    let (_dir, store) = store();
    let mut mode = entry(EntryType::Directory, "usr/share");
    mode.mode(0o2751).unwrap().mtime(777).unwrap();
    if is_root() {
        mode.uid(5).unwrap().gid(6).unwrap();
    }
    let below = tar()
        .dir("usr", 0o711)
        .with(mode, b"")
        .dir("usr/lib", 0o755)
        .file("usr/lib/old", "x")
        .symlink("lib", "usr/lib")
        .symlink("up", "usr/share/../lib/../..//lib")
        .symlink("round", "round")
        .symlink("dangling", "nowhere/at/all")
        .file("plain", "text");
    let above = tar()
        .file("usr/share/new", "x")
        .file("lib/new", "x")
        .file("lib/deep/er", "x")
        .file("lib/.wh.old", "")
        .file("up/too", "x")
        .file("round/file", "x")
        .file("dangling/file", "x")
        .file("plain/file", "x")
        .file("nobody/told", "x");
    let layers = unpacked(&store, &[below, above]);
    let find = seen(&layers, "find . -type f | sort");
    assert_eq!(
        find,
        "./nobody/told\n./nowhere/at/all/file\n./plain/file\n./round/file\n./usr/lib/deep/er\n./usr/lib/new\n./usr/lib/too\n./usr/share/new"
    );
    assert_eq!(seen(&layers, "readlink lib up dangling"), "usr/lib\nusr/share/../lib/../..//lib\nnowhere/at/all");
    let ids = if is_root() { "5:6" } else { "0:0" };
    let stat = seen(&layers, "stat -c '%a %Y %u:%g' usr/share");
    assert_eq!(stat.split(' ').take(2).collect::<Vec<_>>(), ["2751", "777"], "{stat}");
    assert!(!is_root() || stat.ends_with(ids), "{stat}");
    assert_eq!(seen(&layers, "stat -c '%a %Y' usr usr/lib nobody"), "711 1000000000\n755 1000000000\n755 0");
}

#[test]
fn a_hard_link_to_a_layer_below_is_a_copy_of_its_file() {
    let (_dir, store) = store();
    let mut file = entry(EntryType::Regular, "usr/file");
    file.mode(0o4711).unwrap().add_pax("SCHILY.xattr.user.mark", b"1");
    let below = tar().dir("usr", 0o755).with(file, b"contents").symlink("bin", "usr");
    let above = tar().hard_link("other/one", "bin/file").hard_link("other/two", "other/one");
    let layers = unpacked(&store, &[below.clone(), above]);
    assert_eq!(seen(&layers, "cat other/one other/two usr/file"), "contentscontentscontents");
    let [one, two, file] = ["other/one", "other/two", "usr/file"].map(|name| layers.dirs()[0].join(name));
    let stat = [&one, &two, &file].map(|path| fs::metadata(path).unwrap());
    assert_eq!((stat[0].ino(), stat[0].nlink()), (stat[1].ino(), 3));
    assert_eq!((stat[2].ino(), stat[2].mode() & 0o7777, stat[2].mtime()), (stat[0].ino(), 0o4711, 1_000_000_000));
    assert_eq!(xattr(&one, "user.mark").unwrap(), b"1");
    for bad in [
        tar().hard_link("a", "nowhere"),
        tar().hard_link("a", "usr"),
        tar().file(".wh.usr", "").hard_link("a", "usr/file"),
        tar().file("usr/.wh..wh..opq", "").hard_link("a", "usr/file"),
        tar().file(".wh..wh..opq", "").hard_link("a", "usr/file"),
        tar().file("usr", "").hard_link("a", "usr/file"),
        tar().file(".wh.bin", "").hard_link("a", ".wh.bin"),
        tar().file("usr/.wh.file", "").hard_link("a", "usr/file"),
    ] {
        let image = image(&store, &[below.clone().end(), bad.end()]);
        assert_eq!(image.unpack().unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// As one that unpacks entry by entry has it: what was linked stays what it was, whatever becomes of its other name.
#[test]
fn a_hard_link_keeps_what_its_target_was() {
    let below = tar()
        .dir("usr", 0o755)
        .file("usr/file", "old")
        .hard_link("usr/twin", "usr/file")
        .symlink("usr/link", "file")
        .with(entry(EntryType::Fifo, "usr/fifo"), b"")
        .symlink("bin", "usr");
    let above = [
        (tar().hard_link("a", "usr/file").file("usr/file", "new"), "cat a usr/file usr/twin", "oldnewold"),
        (
            tar().hard_link("a", "usr/file").file("usr/.wh.file", ""),
            "cat a usr/twin; ls usr/file 2>&1 >/dev/null | wc -l",
            "oldold1",
        ),
        (tar().hard_link("a", "usr/file").hard_link("b", "a").file("a", "new"), "cat a b; stat -c %h b", "newold3"),
        (tar().hard_link("a", "usr/file").file("a", "new").hard_link("b", "a"), "cat a b usr/file", "newnewold"),
        (tar().hard_link("a", "usr/file").file("usr/.wh..wh..opq", ""), "cat a; ls usr | wc -l", "old0"),
        (tar().hard_link("a", "usr/file").file(".wh.usr", ""), "cat a; ls", "olda\nbin"),
        (
            tar().hard_link("usr/a", "bin/file").hard_link("bin/b", "usr/file"),
            "cd usr; stat -c %h a b file twin",
            "4\n4\n4\n4",
        ),
        (
            tar().hard_link("a", "usr/link").hard_link("b", "a"),
            "readlink a b usr/link; stat -c %h usr/link",
            "file\nfile\nfile\n3",
        ),
        (
            tar().hard_link("a", "usr/link").hard_link("b", "a").file("usr/link", "x"),
            "readlink a b; cat usr/link",
            "file\nfile\nx",
        ),
        (
            tar().hard_link("a", "usr/link").with(entry(EntryType::Fifo, "usr/link"), b""),
            "readlink a; stat -c %F usr/link",
            "file\nfifo",
        ),
        (tar().hard_link("a", "usr/fifo"), "stat -c '%F %h' a usr/fifo", "fifo 2\nfifo 2"),
        (tar().file("usr/file", "new").hard_link("a", "bin/file"), "cat a usr/file", "newnew"),
    ];
    for (above, script, expected) in above {
        let (_dir, store) = store();
        let layers = unpacked(&store, &[below.clone(), above]);
        assert_eq!(seen(&layers, script), expected, "{script}");
    }
}

/// A link that takes the place of a directory takes away what was in it, whoever it leads to.
#[test]
fn a_hard_link_keeps_no_name_where_a_link_has_taken_its_directory() {
    let below = tar().dir("a", 0o755).dir("a/a", 0o755).file("a/a/f", "x").hard_link("a/b", "a/a/f");
    let above = tar().symlink("a/a", "nowhere/at/all").hard_link("f", "a/b");
    let (_dir, store) = store();
    let layers = unpacked(&store, &[below, above]);
    assert_eq!(seen(&layers, "ls a; readlink a/a; stat -c %h f a/b"), "a\nb\nnowhere/at/all\n2\n2");
}

/// A name that a link of a layer below leads elsewhere is one of the copy all the same: of one that is made anew, too.
#[test]
fn a_hard_link_that_is_led_elsewhere_is_what_it_links_to() {
    let below = tar().dir("b", 0o755).symlink("b/b", "nowhere/at/all").symlink("a", "beside").symlink("f", "b");
    let above = tar().dir("f/b", 0o755).hard_link("f/b/x", "a");
    let (_dir, store) = store();
    let layers = unpacked(&store, &[below, above]);
    assert_eq!(seen(&layers, "readlink b/b/x a; stat -c %h a b/b/x"), "beside\nbeside\n2\n2");
}

/// A pax record without a value leaves what the header says; a size is not left to chance.
#[test]
fn empty_pax_values_are_none() {
    let (_dir, store) = store();
    let mut file = entry(EntryType::Regular, "file");
    file.add_pax("path", "").add_pax("mtime", "").add_pax("uid", "").add_pax("gid", "").add_pax("uname", "");
    file.mtime(777).unwrap();
    let mut link = entry(EntryType::Symlink, "link");
    link.link_name("file").add_pax("linkpath", "").add_pax("SCHILY.xattr.user.empty", "");
    let layers = unpacked(&store, &[tar().with(file, b"x").with(link, b"")]);
    assert_eq!(seen(&layers, "stat -c %Y file; cat link"), "777\nx");
    let mut file = entry(EntryType::Regular, "file");
    file.add_pax("size", "");
    let error = image(&store, &[tar().with(file, b"x").end()]).unpack().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// overlayfs lists a whiteout in a directory that it merges with nothing.
#[test]
fn whiteouts_that_hide_nothing_are_not_seen() {
    let below =
        tar().dir("there", 0o755).file("there/file", "x").file("plain", "x").dir("gone", 0o755).file("gone/x", "x");
    let mut above = tar().dir("new", 0o755).file("new/.wh.ghost", "").file("new/kept", "x").file("there/.wh.ghost", "");
    above = above.file(".wh.plain", "").dir("plain", 0o755).file("plain/.wh.ghost", "").file("implied/.wh.ghost", "");
    above = above.file("gone/.wh..wh..opq", "").file("gone/.wh.x", "").file("gone/.wh.ghost", "").file(".wh.ghost", "");
    let expected = ".\n./gone\n./implied\n./new\n./new/kept\n./plain\n./there\n./there/file";
    let (_dir, store) = store();
    let layers = unpacked(&store, &[below.clone(), above]);
    // find does not say what it cannot look at.
    let list = |layers: &Layers| seen(layers, "ls -A . gone implied new plain there | grep -c ghost || true");
    assert_eq!(seen(&layers, "find . | sort"), expected);
    assert_eq!(list(&layers), "0");
    let lowest = tar().file(".wh.ghost", "").dir("new", 0o755).file("new/.wh.ghost", "").file("kept", "x");
    assert_eq!(seen(&unpacked(&store, std::slice::from_ref(&lowest)), "ls -A . new"), ".:\nkept\nnew\n\nnew:");
    let alone = lowest.file(".wh..wh..opq", "").file("new/x", "");
    assert_eq!(seen(&unpacked(&store, &[below, alone]), "ls -A . new"), ".:\nkept\nnew\n\nnew:\nx");
}

#[test]
fn a_whiteout_that_is_led_to_what_the_layer_replaces_makes_nothing() {
    let below = tar().dir("a", 0o755).file("a/f", "x").symlink("b", "a").dir("c", 0o755).file("c/f", "x");
    let below = below.symlink("d", "c");
    let above = tar().file("b/.wh.f", "").symlink("a", "nowhere/at/all").file("d/.wh.f", "").file(".wh.c", "");
    let (_dir, store) = store();
    assert_eq!(seen(&unpacked(&store, &[below, above]), "find . | sort"), ".\n./a\n./b\n./d");
}

#[test]
fn a_directory_that_only_whiteouts_imply_goes_with_what_is_above_it() {
    let below = tar().dir("a", 0o755).dir("a/b", 0o755).file("a/b/f", "x").dir("a/c", 0o755).file("a/c/f", "x");
    let above = tar().file("a/b/.wh.f", "").file("a/c/.wh..wh..opq", "").file("a/d/e/.wh.f", "").file("a/g/f", "x");
    let above = above.file("a/.wh..wh..opq", "");
    let (_dir, store) = store();
    assert_eq!(seen(&unpacked(&store, &[below, above]), "cd a; find . | sort"), ".\n./g\n./g/f");
}

/// Two kinds of marks are believed by two kinds of mounts, and copied up by the other one: a layer has neither.
#[test]
fn a_directory_hides_by_whiteouts_alone() {
    let below =
        tar().dir("d", 0o755).file("d/old", "x").dir("d/both", 0o755).file("d/both/old", "x").dir("d/gone", 0o755);
    let between = tar().file("d/.wh.old", "").file("d/between", "x").file("d/both/between", "x");
    let mut dir = entry(EntryType::Directory, "d");
    dir.mode(0o555).unwrap().mtime(777).unwrap();
    let above = tar().with(dir, b"").file("d/both/new", "x").file("d/.wh..wh..opq", "");
    let again = tar().file("bin/.wh..wh..opq", "").file("bin/again", "x");
    let below = below.symlink("bin", "d/both");
    let (_dir, store) = store();
    let layers = unpacked(&store, &[below.clone(), between, above, again]);
    assert_eq!(seen(&layers, "find . | sort"), ".\n./bin\n./d\n./d/both\n./d/both/again");
    assert_eq!(seen(&layers, "stat -c '%a %Y' d"), "555 777");
    assert_eq!(seen(&layers, "readlink bin"), "d/both");
    for layer in layers.dirs() {
        for dir in ["d", "d/both"].map(|dir| layer.join(dir)).iter().filter(|dir| dir.exists()) {
            assert_eq!(["trusted", "user"].map(|kind| xattr(dir, &format!("{kind}.overlay.opaque"))), [None, None]);
        }
    }
}

#[test]
fn every_compression_is_taken_and_the_contents_have_to_be_the_told_ones() {
    let archive = tar().file("file", &"text ".repeat(100_000)).end();
    let zstd = filter(&["zstd", "-q", "-c"], &archive);
    let gzip = filter(&["gzip", "-c"], &archive);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    let (first, second) = archive.split_at(1000);
    let cases = [
        archive.clone(),
        gzip.clone(),
        zstd.clone(),
        [&zstd[..], &skippable].concat(),
        [&skippable[..], &zstd].concat(),
        [filter(&["gzip", "-c"], first), filter(&["gzip", "-c"], second)].concat(),
        [filter(&["zstd", "-qc"], first), filter(&["zstd", "-qc"], second)].concat(),
    ];
    let (_dir, store) = store();
    let diff_id = sha256(&archive);
    let of = |bytes: &[u8], diff_id: &str| {
        let arch = host_platform().architecture().to_string();
        let blob = manifest_of(&store, true, &arch, &[(bytes, diff_id.to_owned())]);
        store.image_of(&blob, &host_platform()).unwrap()
    };
    for bytes in &cases {
        let layers = of(bytes, &diff_id).unpack().unwrap();
        assert_eq!(fs::metadata(layers.dirs()[0].join("file")).unwrap().len(), 500_000);
        drop(layers);
        fs::remove_dir_all(store.path().join("layers")).unwrap();
        fs::create_dir(store.path().join("layers")).unwrap();
    }
    let wrong = sha256(b"");
    let error = of(&gzip, &wrong).unpack().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Corrupt, Step::UnpackLayer));
    assert!(error.to_string().contains(&diff_id), "{error}");
    for whole in [&archive, &gzip, &zstd] {
        let error = of(&whole[..whole.len() / 2], &diff_id).unpack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    for (i, byte) in [(gzip.len() / 2, 0xff), (gzip.len() - 6, 0xff)] {
        let mut broken = gzip.clone();
        broken[i] ^= byte;
        assert_eq!(of(&broken, &diff_id).unpack().unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn no_way_leads_out_of_the_image() {
    let kinds = [
        tar().file("../out", "x"),
        tar().file("a/../../out", "x"),
        tar().dir("..", 0o777),
        tar().hard_link("a", "../../../../etc/passwd"),
        tar().file(".wh...", ""),
        tar().file(".wh.", ""),
        tar().file("./", "x"),
        tar().symlink("a", ""),
        tar().dir("d", 0o755).hard_link("a", "d"),
        tar().hard_link("a", "a"),
        tar().symlink("loop", "loop").file("loop/file", "x"),
        tar().file("file", "x").file("file/below", "x"),
        tar().file(&"n".repeat(300), "x"),
        tar().file(&"n/".repeat(32 << 10), "x"),
        tar().with(entry(EntryType::Other(b'Z'), "odd"), b""),
    ];
    for archive in kinds {
        let error = refused(archive.end());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    for id in ["4294967295", "4294967296", "18446744073709551615"] {
        let mut file = entry(EntryType::Regular, "file");
        file.add_pax("uid", id);
        let error = refused(tar().with(file, b"").end());
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("32 bits"), "{error}");
    }
}

/// RUSTSEC-2026-0148 and its like: a link of the layer leads to the host, and what follows goes through it.
#[test]
fn links_lead_to_where_they_would_with_the_image_as_root() {
    let victim = common::TempDir::new();
    let out = victim.path().to_str().unwrap().to_owned();
    fs::write(victim.path().join("file"), "mine").unwrap();
    fs::set_permissions(victim.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(victim.path().join("dir")).unwrap();
    let climb = format!("{}{}", "../".repeat(40), out.trim_start_matches('/'));
    for target in [&out, &climb] {
        let (_dir, store) = store();
        let archive = tar()
            .symlink("link", target)
            .file("link/written", "x")
            .dir("link/made", 0o777)
            .file("link/.wh.file", "")
            .file("link/dir/.wh..wh..opq", "")
            .dir("link", 0o777);
        let inside = out.trim_start_matches('/');
        let layers = unpacked(&store, &[tar().file(&format!("{inside}/file"), "below"), archive]);
        // The last entry has taken the link's place; what went through it before is inside.
        let inside = layers.dirs()[0].join(out.trim_start_matches('/'));
        assert_eq!(fs::read_to_string(inside.join("written")).unwrap(), "x");
        assert!(fs::symlink_metadata(inside.join("file")).unwrap().file_type().is_char_device());
        let error = refused(tar().symlink("link", target).hard_link("stolen", "link/file").end());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        // A link below and an entry through it above; a hard link through a link, then a change of its mode.
        let below = tar().symlink("link", target).symlink("last", &format!("{target}/file"));
        let above = tar().file("link/written", "x").file("link/.wh.file", "").file("last", "over");
        unpacked(&store, &[below.clone(), above]);
        let error = image(&store, &[below.end(), tar().hard_link("a", "link/file").end()]).unpack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let mut names: Vec<PathBuf> = fs::read_dir(victim.path()).unwrap().flatten().map(|e| e.path()).collect();
    names.sort();
    assert_eq!(names, [victim.path().join("dir"), victim.path().join("file")]);
    assert_eq!(fs::read_to_string(victim.path().join("file")).unwrap(), "mine");
    assert_eq!(fs::metadata(victim.path().join("file")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(victim.path().join("file")).unwrap().nlink(), 1);
    for mark in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        assert_eq!(xattr(&victim.path().join("dir"), mark), None);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (_dir, store) = store();
    let archive = tar()
        .dir("a", 0o755)
        .file("a/deep/file", "x")
        .file("a", "now a file")
        .file("b", "x")
        .dir("b", 0o700)
        .file("b/file", "x")
        .symlink("c", "b")
        .file("c/through", "x")
        .dir("c", 0o755)
        .file("c/own", "x")
        .file("d", "one")
        .file("d", "two")
        .symlink("e", "d")
        .file("e", "not through the link")
        .dir("f", 0o700)
        .dir("f", 0o711);
    let layers = unpacked(&store, &[archive]);
    assert_eq!(seen(&layers, "find . -type f -o -type l | sort"), "./a\n./b/file\n./b/through\n./c/own\n./d\n./e");
    assert_eq!(seen(&layers, "cat a d; stat -c %a f"), "now a filetwo711");
}

/// TARmageddon (RUSTSEC-2025-0111, RUSTSEC-2026-0067, RUSTSEC-2026-0068, GHSA-3cv2-h65g-fgmm): where the header and the pax
/// record tell two sizes, the record counts, and a hidden archive in the contents stays contents.
#[test]
fn a_hidden_archive_in_a_file_stays_hidden() {
    let (_dir, store) = store();
    let hidden = tar().file("smuggled", "x").end();
    let mut outer = entry(EntryType::Regular, "outer");
    outer.add_pax("size", hidden.len().to_string()).size(0).unwrap();
    let mut archive = outer.finish_bytes();
    archive.extend(&hidden);
    let archive = Tar(archive).file("after", "x");
    let layers = unpacked(&store, &[archive]);
    assert_eq!(seen(&layers, "find . -type f | sort"), "./after\n./outer");
    assert_eq!(seen(&layers, "stat -c %s outer"), hidden.len().to_string());
    // The size of an extension header is its own, and not that which the record before it tells.
    let mut named = entry(EntryType::Regular, "short");
    named.add_pax("size", "1024");
    let pax = named.finish_bytes();
    let (record, header) = pax.split_at(pax.len() - 512);
    let mut long = tar_core::builder::EntryBuilder::new_gnu();
    let name = format!("{}name", "long/".repeat(30));
    long.path(&name).entry_type(EntryType::Regular).mode(0o644).unwrap().size(0).unwrap();
    let long = long.finish_bytes();
    let (long_name, _) = long.split_at(long.len() - 512);
    let archive = [record, long_name, header, &[b'x'; 1024]].concat();
    let (_dir, store) = crate::make::store();
    let layers = unpacked(&store, &[Tar(archive).file("after", "x")]);
    assert!(layers.dirs()[0].join("after").exists());
    assert_eq!(fs::metadata(layers.dirs()[0].join(&name)).unwrap().len(), 1024);
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Link, EntryType::Fifo] {
        let mut odd = entry(kind, "odd");
        odd.link_name("x");
        assert_eq!(refused(tar().file("x", "").with(odd, &hidden).end()).kind(), ErrorKind::Corrupt);
    }
    for size in ["18446744073709551615", "18446744073709551104", "9223372036854775808", "x", "-1"] {
        let mut outer = entry(EntryType::Regular, "outer");
        outer.add_pax("size", size).size(0).unwrap();
        let error = refused(Tar(outer.finish_bytes()).file("after", "x").end());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn times_that_no_clock_has_do_no_harm() {
    for mtime in ["99999999999999999999", "nan", "1e9", "9223372036854775807", "-9223372036854775808", ""] {
        let mut file = entry(EntryType::Regular, "file");
        file.add_pax("mtime", mtime);
        let (_dir, store) = store();
        match image(&store, &[tar().with(file, b"").end()]).unpack() {
            Ok(layers) => assert!(layers.dirs()[0].join("file").exists()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
        }
    }
}

#[test]
fn overlays_own_marks_are_not_taken_from_an_archive() {
    let (_dir, store) = store();
    let mut dir = entry(EntryType::Directory, "dir");
    dir.add_pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc").add_pax("SCHILY.xattr.user.overlay.opaque", b"y");
    let archive = tar().with(dir, b"").device(EntryType::Char, "hides", (0, 0));
    let layers = unpacked(&store, &[tar().file("dir/file", "x").file("hides", "x"), archive]);
    assert_eq!((layers.skipped(), layers.left_out().len()), (3, 3), "{:?}", layers.left_out());
    assert_eq!(seen(&layers, "find . -type f | sort"), "./dir/file\n./hides");
}

#[test]
fn sparse_files_have_their_holes() {
    let (dir, store) = store();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let script = "truncate -s 10M holes && printf end >>holes && printf start | dd of=holes conv=notrunc status=none";
    assert!(std::process::Command::new("sh").args(["-c", script]).current_dir(&files).status().unwrap().success());
    let expected = fs::read(files.join("holes")).unwrap();
    let path = files.to_str().unwrap();
    for format in [
        ["--format=gnu"].as_slice(),
        &["--format=posix"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let mut command = vec!["tar", "-C", path, "--sparse", "--owner=0", "--group=0"];
        command.extend(format);
        command.extend(["-c", "holes"]);
        let archive = filter(&command, b"");
        assert!(archive.len() < 1 << 20, "{format:?}: tar has not found the holes");
        let layers = image(&store, &[archive]).unpack().unwrap();
        let file = layers.dirs()[0].join("holes");
        assert!(fs::read(&file).unwrap() == expected, "{format:?}");
        assert!(fs::metadata(&file).unwrap().blocks() < 1000, "{format:?}");
    }
}

#[test]
fn bombs_end_at_the_limit() {
    let (_dir, store) = store();
    let zeros = tar().file("zeros", &"\0".repeat(64 << 20)).end();
    let bomb = filter(&["gzip", "-9c"], &zeros);
    assert!(bomb.len() < 100_000);
    let blob = manifest_of(&store, false, &host_platform().architecture().to_string(), &[(&bomb, sha256(&zeros))]);
    let limited = store.clone().layer_bytes_limit(1u64 << 20);
    let error = limited.image_of(&blob, &host_platform()).unwrap().unpack().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.remedy().unwrap().contains("layer_bytes_limit"), "{error}");
    let many = (0..100).fold(tar(), |tar, i| tar.file(&format!("f{i}"), "")).end();
    let limited = store.clone().layer_entries_limit(99);
    let blob = manifest_of(&store, false, &host_platform().architecture().to_string(), &[(&many, sha256(&many))]);
    let error = limited.image_of(&blob, &host_platform()).unwrap().unpack().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    store.image_of(&blob, &host_platform()).unwrap().unpack().unwrap();
    // Headers without an end, in a few ways.
    let start = Instant::now();
    let mut sparse = tar_core::builder::EntryBuilder::new_gnu();
    sparse.path("sparse").entry_type(EntryType::GnuSparse).mode(0o644).unwrap().size(0).unwrap();
    let mut header = sparse.finish()[0];
    header.as_gnu_mut().set_is_extended(true);
    header.set_checksum();
    let mut extended = [0u8; 512];
    extended[504] = 1;
    let endless = [header.as_bytes().as_slice(), &extended.repeat(10_000)].concat();
    assert_eq!(refused(endless).kind(), ErrorKind::Corrupt);
    let mut pax = entry(EntryType::Regular, "file");
    pax.add_pax("comment", "x".repeat(3 << 20));
    assert_eq!(refused(tar().with(pax, b"").end()).kind(), ErrorKind::Corrupt);
    let mut map = entry(EntryType::Regular, "file");
    map.add_pax("GNU.sparse.major", "1").add_pax("GNU.sparse.minor", "0").add_pax("GNU.sparse.realsize", "9");
    assert_eq!(refused(tar().with(map, &[b'1'; 4 << 20]).end()).kind(), ErrorKind::Corrupt);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// As GNU tar, which warns, and Go's reader take it: what umoci insert(1) writes ends with the last byte of the last file.
#[test]
fn an_archive_may_end_in_the_padding_of_its_last_file() {
    let (_dir, store) = store();
    let whole = tar().file("first", "x").file("last", "words").end();
    let last = 3 * 512 + "words".len();
    for length in [last, last + 1, last + 400, 4 * 512] {
        let layers = image(&store, &[whole[..length].to_vec()]).unpack().unwrap();
        assert_eq!(fs::read_to_string(layers.dirs()[0].join("last")).unwrap(), "words", "{length}");
    }
    for length in [last - 1, 3 * 512, 2 * 512 + 100, 512] {
        let error = image(&store, &[whole[..length].to_vec()]).unpack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {error}");
    }
    // Of one that ends in the middle of the padding of another file, that file is the last.
    let layers = image(&store, &[whole[..512 + 7].to_vec()]).unpack().unwrap();
    assert_eq!(fs::read_dir(&layers.dirs()[0]).unwrap().count(), 1);
}

#[test]
fn layers_are_made_once_and_shared() {
    let (_dir, store) = store();
    let (one, two) = (tar().file("one", "x").end(), tar().file("two", "x").end());
    let first = image(&store, std::slice::from_ref(&one)).unpack().unwrap();
    let inode = fs::metadata(first.dirs()[0].join("one")).unwrap().ino();
    let second = image(&store, &[one.clone(), two.clone()]).unpack().unwrap();
    assert_eq!(second.dirs()[1], first.dirs()[0]);
    assert_eq!(fs::metadata(second.dirs()[1].join("one")).unwrap().ino(), inode);
    // Many at once, of other stores on the same directory.
    let dir = common::TempDir::new();
    let wide: Vec<Vec<u8>> = (0..12).map(|i| tar().file(&format!("f{i}"), "x").file("same", "y").end()).collect();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|i| {
                let (path, wide) = (dir.path(), &wide);
                scope.spawn(move || {
                    let store = Store::open(path).unwrap();
                    image(&store, &wide[..6 + i]).unpack().unwrap().dirs().to_vec()
                })
            })
            .collect();
        let all: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
        for (i, dirs) in all.iter().enumerate() {
            assert_eq!(dirs.len(), 6 + i);
            assert_eq!(dirs.last(), all[0].last());
        }
    });
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 11);
    assert_eq!(fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
}
