//! Random images of three layers, as umoci unpacks them and as we do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringfence::Overlay;
use ringfence::image::{Image, Store};
use tar_core::EntryType;

use crate::common::{self, TempDir, is_root};
use crate::make::{Tar, descriptor_json, entry, image, tar};

/// The first seed; a change is tried with the same ones each time, and with others by whoever looks for faults of old.
const SEED: &str = "RINGFENCE_TEST_SEED";
const AT_MOST: Duration = Duration::from_secs(25);
const IMAGES: u64 = 60;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())].clone()) }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Dir,
    File,
    /// To a directory, from the root.
    Link(String),
    /// To nothing, or a FIFO.
    Other,
}

/// What the layers so far show, and the one that is being written.
struct Writer {
    random: Random,
    seen: BTreeMap<String, Node>,
    /// What the layers below show.
    below: BTreeMap<String, Node>,
    /// What this layer has written.
    own: BTreeSet<String>,
    /// What it has linked. Which came first, the link or what a link of the layers below leads there, is not known to us.
    linked: BTreeSet<String>,
    /// What it has gone by, and leaves as it is.
    fixed: BTreeSet<String>,
    /// By which way, if not by its own path, it calls what is in a directory. No archive calls one file by two names; which of
    /// the two would count is not known to who unpacks a layer by itself.
    called: BTreeMap<String, Option<String>>,
    layer: Tar,
    log: String,
    time: u64,
}

fn is_below(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn split_first(path: &str) -> &str {
    path.split_once('/').map_or(path, |(first, _)| first)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Writer {
    fn paths(&self, is: impl Fn(&str, &Node) -> bool) -> Vec<String> {
        self.seen.iter().filter(|(path, node)| is(path, node)).map(|(path, _)| path.clone()).collect()
    }

    fn dirs(&self) -> Vec<String> {
        let mut dirs = self.paths(|path, node| *node == Node::Dir && path.matches('/').count() < 3);
        dirs.push(String::new());
        dirs
    }

    fn touches(&self, path: &str) -> bool {
        self.own.iter().chain(&self.fixed).any(|own| own == path || is_below(own, path))
    }

    /// The same path by way of a link that a layer below has, now and then. The link stays what it is in this layer.
    fn spelled(&mut self, path: &str) -> String {
        if let Some((dir, way)) = self.called.iter().rfind(|(dir, _)| is_below(path, dir)) {
            let way = way.as_deref().filter(|_| !self.linked.contains(path));
            return way.map_or_else(|| path.to_owned(), |way| format!("{way}{}", &path[dir.len()..]));
        }
        let ways = self.below.iter().filter_map(|(way, node)| match node {
            Node::Link(target) if self.seen.get(way) == Some(node) && !self.own.contains(way) => {
                (is_below(path, target) && !target.is_empty()).then(|| (way.clone(), target.clone()))
            }
            _ => None,
        });
        let ways: Vec<(String, String)> = ways.collect();
        let top = split_first(path).to_owned();
        match self.random.of(&ways) {
            // Nothing there has been called by its own path before.
            Some((way, target)) if self.random.below(2) == 0 && !self.touches(&target) && !self.in_use(&target) => {
                self.fixed.insert(way.clone());
                let spelled = format!("{way}{}", &path[target.len()..]);
                self.called.insert(target, Some(way));
                spelled
            }
            _ => {
                self.called.entry(top).or_insert(None);
                path.to_owned()
            }
        }
    }

    /// Whether a directory, one above it or one below it is called by some name already.
    fn in_use(&self, dir: &str) -> bool {
        self.called.keys().any(|called| called == dir || is_below(called, dir) || is_below(dir, called))
    }

    fn write(&mut self, mut header: tar_core::builder::EntryBuilder, mode: u32, text: &str) {
        self.time += 1_000 + self.random.below(100_000) as u64;
        header.mode(mode).unwrap().mtime(self.time).unwrap();
        if is_root() {
            header.uid(self.random.below(3) as u64).unwrap().gid(self.random.below(3) as u64).unwrap();
        }
        let layer = std::mem::take(&mut self.layer);
        self.layer = layer.with(header, text.as_bytes());
    }

    fn put(&mut self, path: &str, node: Node) {
        self.seen.retain(|other, _| !is_below(other, path) || node == Node::Dir);
        self.seen.insert(path.to_owned(), node);
        self.own.insert(path.to_owned());
    }

    /// A place for something new: where nothing is, or something of the layers below.
    fn place(&mut self) -> Option<String> {
        let dirs = self.dirs();
        let dir = self.random.of(&dirs)?;
        let path = join(&dir, ["a", "b", "c", "f", "g"][self.random.below(5)]);
        (!self.touches(&path)).then_some(path)
    }

    fn file(&mut self) -> Option<String> {
        let path = self.place()?;
        let (way, text) = (self.spelled(&path), format!("{path} {}", self.time));
        let mode = [0o644, 0o600, 0o4755, 0o444][self.random.below(4)];
        self.write(entry(EntryType::Regular, &way), mode, &text);
        self.put(&path, Node::File);
        Some(format!("file {way}"))
    }

    fn dir(&mut self) -> Option<String> {
        let dirs = self.paths(|_, node| *node == Node::Dir);
        let old = if self.random.below(2) == 0 { self.random.of(&dirs) } else { None };
        let path = if old.is_some() { old } else { self.place() }?;
        let way = self.spelled(&path);
        let mode = [0o755, 0o700, 0o1777, 0o555][self.random.below(4)];
        self.write(entry(EntryType::Directory, &way), if is_root() { mode } else { mode | 0o700 }, "");
        self.put(&path, Node::Dir);
        Some(format!("dir {way}"))
    }

    fn other(&mut self) -> Option<String> {
        let path = self.place()?;
        let way = self.spelled(&path);
        if self.random.below(2) == 0 {
            self.write(entry(EntryType::Fifo, &way), 0o640, "");
        } else {
            let mut link = entry(EntryType::Symlink, &way);
            link.link_name("nowhere/at/all");
            self.write(link, 0o777, "");
        }
        self.put(&path, Node::Other);
        Some(format!("other {way}"))
    }

    fn link(&mut self) -> Option<String> {
        let path = self.place()?;
        let dirs = self
            .paths(|dir, node| *node == Node::Dir && !is_below(&path, dir) && !is_below(dir, &path) && *dir != path);
        let target = self.random.of(&dirs)?;
        let way = self.spelled(&path);
        let mut link = entry(EntryType::Symlink, &way);
        link.link_name(format!("/{target}"));
        self.write(link, 0o777, "");
        self.put(&path, Node::Link(target.clone()));
        Some(format!("link {way} -> {target}"))
    }

    fn hard_link(&mut self) -> Option<String> {
        let files = self.paths(|_, node| matches!(node, Node::File | Node::Other));
        let (path, target) = (self.place()?, self.random.of(&files)?);
        if path == target || is_below(&target, &path) {
            return None;
        }
        let (way, target_way) = (self.spelled(&path), self.spelled(&target));
        if target_way == path || is_below(&target_way, &path) {
            return None;
        }
        if target_way != target {
            self.fixed.insert(target.clone());
        }
        self.linked.insert(target.clone());
        let mut link = entry(EntryType::Link, &way);
        link.link_name(&target_way);
        self.write(link, 0o644, "");
        let node = self.seen[&target].clone();
        self.put(&path, node);
        Some(format!("hard {way} -> {target_way}"))
    }

    fn below_only(&mut self, is: impl Fn(&Node) -> bool) -> Option<String> {
        let there: Vec<String> = self
            .below
            .iter()
            .filter(|(path, node)| self.seen.get(*path) == Some(node) && is(node) && !self.touches(path))
            .map(|(path, _)| path.clone())
            .collect();
        self.random.of(&there)
    }

    fn whiteout(&mut self) -> Option<String> {
        let path = self.below_only(|_| true)?;
        let way = self.spelled(&path);
        let (dir, name) = split(&way);
        self.write(entry(EntryType::Regular, &join(dir, &format!(".wh.{name}"))), 0o644, "");
        self.seen.retain(|other, _| *other != path && !is_below(other, &path));
        Some(format!("whiteout {way}"))
    }

    fn opaque(&mut self) -> Option<String> {
        let dirs: Vec<String> = self
            .below
            .iter()
            .filter(|(path, node)| **node == Node::Dir && self.seen.get(*path) == Some(node))
            .map(|(path, _)| path.clone())
            .collect();
        let path = self.random.of(&dirs)?;
        if self.fixed.iter().any(|fixed| is_below(fixed, &path)) {
            return None;
        }
        // umoci keeps directories of the layers below in which the layer has something; others make them anew.
        let tells = |own: &&String| is_below(own, &path) && split(own).0 != path && !self.own.contains(split(own).0);
        if self.own.iter().any(|own| tells(&own)) {
            return None;
        }
        let way = self.spelled(&join(&path, "x"));
        self.write(entry(EntryType::Regular, &join(split(&way).0, ".wh..wh..opq")), 0o644, "");
        let own = self.own.clone();
        self.seen.retain(|other, _| !is_below(other, &path) || own.contains(other));
        Some(format!("opaque {}", split(&way).0))
    }

    /// What a renamed file is in a layer.
    fn rename(&mut self) -> Option<String> {
        let (from, to) = (self.below_only(|node| *node == Node::File)?, self.place()?);
        if is_below(&from, &to) || from == to {
            return None;
        }
        let (from_way, to_way) = (self.spelled(&from), self.spelled(&to));
        // The link by whose way the file was called.
        if self.touches(&to) {
            return None;
        }
        let (dir, name) = split(&from_way);
        self.write(entry(EntryType::Regular, &join(dir, &format!(".wh.{name}"))), 0o644, "");
        self.seen.remove(&from);
        self.write(entry(EntryType::Regular, &to_way), 0o644, &format!("moved from {from}"));
        self.put(&to, Node::File);
        Some(format!("rename {from_way} -> {to_way}"))
    }

    fn next_layer(&mut self, steps: usize) -> Vec<u8> {
        self.below = self.seen.clone();
        self.own.clear();
        self.linked.clear();
        self.fixed.clear();
        self.called.clear();
        self.log += "layer\n";
        for _ in 0..steps {
            let done = match self.random.below(12) {
                0..=2 => self.file(),
                3 => self.dir(),
                4 => self.other(),
                5 => self.link(),
                6..=8 => self.hard_link(),
                9 => self.whiteout(),
                10 => self.opaque(),
                _ => self.rename(),
            };
            done.into_iter().for_each(|done| self.log += &format!("  {done}\n"));
        }
        std::mem::take(&mut self.layer).end()
    }
}

fn random_image(seed: u64) -> (Vec<Vec<u8>>, String) {
    let (seen, below) = (BTreeMap::new(), BTreeMap::new());
    let (own, linked, fixed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let called = BTreeMap::new();
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut writer = Writer {
        random,
        seen,
        below,
        own,
        linked,
        fixed,
        called,
        layer: tar(),
        log: String::new(),
        time: 1_000_000_000,
    };
    writer.write(entry(EntryType::Directory, "."), 0o755, "");
    let layers = [30, 14, 14].map(|steps| writer.next_layer(steps)).to_vec();
    (layers, writer.log)
}

/// A layout with this image, for umoci.
fn layout(store: &Store, image: &Image, at: &Path) {
    fs::create_dir(at).unwrap();
    std::os::unix::fs::symlink(store.path().join("blobs"), at.join("blobs")).unwrap();
    fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let manifest = descriptor_json(image.descriptor());
    let name = r#","annotations":{"org.opencontainers.image.ref.name":"t"}}"#;
    let manifest = manifest.strip_suffix('}').unwrap().to_owned() + name;
    fs::write(at.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#)).unwrap();
}

fn name_of(line: &str) -> &str {
    line.split(' ').next().unwrap()
}

/// The lines in which the two trees differ.
fn difference(layers: &[Vec<u8>]) -> Vec<String> {
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(at("store")).unwrap();
    let image = image(&store, layers);
    layout(&store, &image, &at("layout"));
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:t", at("layout").display()));
    let umoci = umoci.args(if is_root() { [].as_slice() } else { &["--rootless"] }).arg(at("bundle")).output().unwrap();
    if !umoci.status.success() {
        return vec![String::from_utf8_lossy(&umoci.stderr).into_owned()];
    }
    let unpacked = match image.unpack() {
        Ok(layers) => layers,
        Err(error) => return vec![error.to_string()],
    };
    assert_eq!(unpacked.skipped(), 0, "{:?}", unpacked.left_out());
    fs::write(at("tree.py"), include_str!("tree.py")).unwrap();
    fs::create_dir(at("root")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    let dirs = unpacked.dirs().iter().cloned().chain([at("empty")]);
    let script =
        format!("cd {}; python3 tree.py bundle/rootfs; echo =====; python3 tree.py root", dir.path().display());
    let sandbox = common::mounting().mount(Overlay::new(at("root"), dirs).read_only());
    let said = common::stdout(&sandbox.command("sh").args(["-ec", &script]));
    let (theirs, ours) = said.split_once("=====\n").unwrap();
    let ours: BTreeMap<&str, &str> = ours.lines().map(|line| (name_of(line), line)).collect();
    // umoci leaves a directory that it takes something out of with the time when it did so.
    let is_now = |line: &str| {
        line.split(' ').nth(4).is_some_and(|time| time.parse::<u64>().unwrap() > 1_700_000_000_000_000_000)
    };
    let untimed = |line: &str| {
        line.split(' ').enumerate().filter(|(i, _)| *i != 4).map(|(_, word)| word.to_owned()).collect::<Vec<_>>()
    };
    let same = |line: &str| {
        let our = ours.get(name_of(line)).copied().filter(|our| is_now(line) && untimed(our) == untimed(line));
        our.unwrap_or(line).to_owned()
    };
    let theirs: BTreeSet<String> = theirs.lines().map(same).collect();
    let ours: BTreeSet<String> = ours.values().map(|line| (*line).to_owned()).collect();
    assert!(!theirs.is_empty());
    let theirs_only = theirs.difference(&ours).map(|line| format!("umoci: {line}"));
    theirs_only.chain(ours.difference(&theirs).map(|line| format!("ours:  {line}"))).collect()
}

#[test]
fn random_images_are_unpacked_as_umoci_does() {
    if Command::new("umoci").arg("--version").output().is_err() {
        return common::skip("it needs umoci", false);
    }
    let first = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let start = Instant::now();
    let mut compared = 0;
    for seed in (first..first + IMAGES).take_while(|_| start.elapsed() < AT_MOST) {
        let (layers, log) = random_image(seed);
        println!("{SEED}={seed}\n{log}");
        let differ = difference(&layers);
        assert!(differ.is_empty(), "{}", differ.join("\n"));
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} images in {AT_MOST:?}");
}
