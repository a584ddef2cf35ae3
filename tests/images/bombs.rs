//! Small archives that would become large trees: each is unpacked by a process of its own, on a file system of its own that has
//! little more room than the limit allows. So the kernel says what was used, and not we.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringfence::ErrorKind;
use ringfence::image::Store;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use crate::common::{TempDir, is_root};
use crate::make::{Tar, entry, image, tar};

const BOMB: &str = "RINGFENCE_TEST_BOMB";
const STORE: &str = "RINGFENCE_TEST_BOMB_STORE";

/// What a bomb came to: the error's kind, the hint's name of the limit, the most memory that the process had in KiB.
fn explode_on(bomb: &str, tmpfs: &str) -> (String, u64) {
    let dir = TempDir::new();
    let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(if is_root() { ["-m", "--"].as_slice() } else { &["-Urm", "--"] });
    command.args(["sh", "-ec", script, "sh", tmpfs]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "bombs::explode", "--nocapture"]).env(BOMB, bomb).env(STORE, dir.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().find_map(|line| line.strip_prefix("came to ")).unwrap_or_else(|| panic!("{output:?}"));
    let (result, memory) = words.rsplit_once(' ').unwrap();
    println!("{bomb}: {words} KiB");
    (result.to_owned(), memory.parse().unwrap())
}

fn sparse(path: &str, size: &str) -> EntryBuilder {
    let mut sparse = entry(EntryType::Regular, path);
    sparse.add_pax("GNU.sparse.major", "1").add_pax("GNU.sparse.minor", "0");
    sparse.add_pax("GNU.sparse.name", path).add_pax("GNU.sparse.realsize", size);
    sparse
}

/// So many directories within one another, under so many roots.
fn deep(roots: usize, depth: usize) -> Tar {
    let below = "d/".repeat(depth);
    (0..roots).fold(tar(), |all, i| {
        let mut file = entry(EntryType::Regular, "x");
        file.path(format!("{i}/{below}f"));
        all.with(file, b"")
    })
}

fn files(count: usize, dir: &str) -> Tar {
    (0..count).fold(tar().dir(dir, 0o755), |tar, i| tar.file(&format!("{dir}/{i}"), ""))
}

fn bomb(name: &str, store: Store) -> (Store, Vec<Tar>) {
    match name {
        "hole" => {
            let mut map = b"0\n".to_vec();
            map.resize(512, 0);
            let hole = tar().with(sparse("hole", "2147483648"), &map);
            (store, vec![hole, tar().hard_link("link", "hole"), tar().hard_link("more", "link")])
        }
        "copies" => {
            let file = tar().file("file", &"x".repeat(1 << 20));
            // Each layer takes the one name away, and has the file under another.
            let links = (0..60).map(|i| {
                let old = if i == 0 { "file".to_owned() } else { format!("link{}", i - 1) };
                tar().hard_link(&format!("link{i}"), &old).file(&format!(".wh.{old}"), "")
            });
            (store.image_bytes_limit(16u64 << 20), std::iter::once(file).chain(links).collect())
        }
        "names" => (store, vec![deep(100, 2030)]),
        "directories" => (store.layer_entries_limit(10_000), vec![deep(100, 2030)]),
        "layers" => (store.image_entries_limit(5_000), (0..10).map(|i| files(999, &format!("d{i}"))).collect()),
        "one by one" => {
            let layers: Vec<Tar> = (0..10).map(|i| files(999, &format!("d{i}"))).collect();
            let store = store.image_entries_limit(5_000);
            for count in 1..=4 {
                let some: Vec<Vec<u8>> = layers[..count].iter().map(|tar| tar.clone().end()).collect();
                image(&store, &some).unpack().unwrap();
            }
            (store, layers)
        }
        "whiteouts" => {
            let opaque = tar().file("d/.wh..wh..opq", "");
            (store.image_entries_limit(8_000), vec![files(5_000, "d"), opaque])
        }
        "moves" => {
            let below = (0..200).fold(tar(), |tar, i| tar.symlink(&format!("l{i}"), &format!("to/{i}")));
            let above = (0..200).fold(tar(), |all, i| {
                (0..50).fold(all, |all, n| {
                    let mut file = entry(EntryType::Regular, "x");
                    file.path(format!("l{i}/{n}/{}f", "e/".repeat(20)));
                    all.with(file, b"")
                })
            });
            (store.layer_entries_limit(400_000), vec![below, above])
        }
        "wide" => {
            let dirs = |all: Tar| (0..1_000).fold(all, |all, i| all.dir(&format!("d/{i}"), 0o755));
            let below = (0..1_000).fold(dirs(tar().dir("d", 0o755)), |all, i| all.file(&format!("d/{i}/hidden"), ""));
            (store, vec![below, dirs(tar().dir("d", 0o755).file("d/.wh..wh..opq", ""))])
        }
        "overlay" => (store, vec![tar().file("file", "x"), tar().file(".wh.file", "")]),
        _ => unreachable!("{name}"),
    }
}

#[test]
#[ignore = "run by the other tests of this file, each time in a process of its own"]
fn explode() {
    let (Some(name), Some(dir)) = (std::env::var_os(BOMB), std::env::var_os(STORE)) else { return };
    let mut dir = PathBuf::from(dir);
    if name == "overlay" {
        dir = overlay_in(&dir);
    }
    if name == "wide" {
        let most = 200;
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
    }
    if name == "full" {
        return remove_on_full_disk(Store::open(dir.join("store")).unwrap());
    }
    let (store, layers) = bomb(name.to_str().unwrap(), Store::open(dir.join("store")).unwrap());
    let archives: Vec<Vec<u8>> = layers.into_iter().map(Tar::end).collect();
    let result = match image(&store, &archives).unpack() {
        Ok(layers) => {
            let names = layers.dirs().iter().filter_map(|dir| fs::read_dir(dir.join("d/999")).ok());
            let hidden = names.flatten().flatten().map(|entry| entry.metadata().unwrap().rdev()).collect::<Vec<_>>();
            if name == "wide" {
                store.tag(&"wide".parse().unwrap(), image(&store, &archives).descriptor()).unwrap();
                return println!("came to {hidden:?} {:?} 0", store.verify_unpacked().unwrap());
            }
            let sizes = layers.dirs().iter().filter_map(|dir| fs::metadata(dir.join("hole")).ok());
            format!("no harm {:?}", sizes.map(|file| (file.len(), file.nlink())).collect::<Vec<_>>())
        }
        Err(error) if error.kind() == ErrorKind::TooLarge => format!("TooLarge {}", error.remedy().unwrap_or("-")),
        Err(error) => format!("{error}"),
    };
    let left: Vec<_> = fs::read_dir(store.path().join("staging")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("came to {result} {}", memory.trim().trim_end_matches(" kB"));
}

/// The list of names is written anew, for which there is no room.
fn remove_on_full_disk(store: Store) {
    let name = |text: &str| text.parse().unwrap();
    for number in 0..20 {
        let own = image(&store, &[tar().file("file", &format!("{number}").repeat(100_000)).end()]);
        store.tag(&name(&format!("a:{number}")), own.descriptor()).unwrap();
    }
    let filler = fs::File::create(store.path().join("../filler")).unwrap();
    while (&filler).write_all(&[0; 512]).is_ok() {}
    let error = store.tag(&name("b:1"), &store.resolve(&name("a:1")).unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "the disk is full: {error}");
    store.remove(&name("a:1")).unwrap();
    assert_eq!(store.images().unwrap().len(), 19);
    assert!(store.verify().unwrap().is_empty());
    println!("came to removed 0");
}

#[test]
fn an_image_is_removed_from_a_full_disk() {
    assert_eq!(explode_on("full", "size=16m").0, "removed");
}

#[test]
fn a_copy_of_a_hole_is_a_hole() {
    let (result, _) = explode_on("hole", "size=16m");
    assert_eq!(result, "no harm [(2147483648, 3), (2147483648, 2), (2147483648, 1)]");
}

#[test]
fn copies_of_layers_below_count() {
    let (result, _) = explode_on("copies", "size=20m");
    assert_eq!(result, "TooLarge allow more with Store::image_bytes_limit()");
}

#[test]
fn directories_that_are_not_told_of_count() {
    let (result, memory) = explode_on("names", "size=1g,nr_inodes=100k");
    assert!(result.starts_with("TooLarge"), "{result}");
    assert!(memory < 256 << 10, "{memory} KiB for names");
    let (result, memory) = explode_on("directories", "size=256m,nr_inodes=13k");
    assert_eq!(result, "TooLarge allow more with Store::layer_entries_limit()");
    assert!(memory < 64 << 10, "{memory} KiB for names");
}

#[test]
fn all_layers_of_an_image_count_together() {
    for bomb in ["layers", "one by one"] {
        let (result, _) = explode_on(bomb, "size=64m,nr_inodes=6k");
        assert_eq!(result, "TooLarge allow more with Store::image_entries_limit()");
    }
    let (result, _) = explode_on("whiteouts", "size=64m,nr_inodes=8500");
    assert_eq!(result, "TooLarge allow more with Store::image_entries_limit()");
}

#[test]
fn what_is_led_elsewhere_is_moved_in_bounded_time() {
    let start = std::time::Instant::now();
    let (result, _) = explode_on("moves", "size=1g");
    assert_eq!(result, "no harm []");
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}

/// Directories that are one with those of a layer below take no descriptor each.
#[test]
fn many_directories_take_few_descriptors() {
    let (result, _) = explode_on("wide", "size=64m");
    assert_eq!(result, "[0, 0] []", "a whiteout and what it hides");
}

fn overlay_in(dir: &Path) -> PathBuf {
    ["lower", "upper", "work", "merged"].iter().for_each(|name| fs::create_dir(dir.join(name)).unwrap());
    let user = if fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295") { "" } else { ",userxattr" };
    let options = format!("lowerdir=lower,upperdir=upper,workdir=work{user}");
    let mount =
        Command::new("mount").current_dir(dir).args(["-t", "overlay", "overlay", "-o", &options, "merged"]).status();
    assert!(mount.unwrap().success());
    dir.join("merged")
}

#[test]
fn a_store_on_an_overlay_is_told_so() {
    let (result, _) = explode_on("overlay", "size=64m");
    assert!(result.contains("the store is on an overlay"), "{result}");
}
