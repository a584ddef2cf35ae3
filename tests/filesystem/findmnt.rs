//! Each word of the options of a mount by what findmnt(8) shows inside: a table with a row for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ringfence::{Bind, IdMap, Mount, MountOptions, RawMount, Sandbox};
use serde_json::Value;

use super::options::maps_ids;
use crate::common;

/// What a word is tried on. The same mount without the word stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// A new tmpfs, with these words before the word.
    New(&'static str),
    /// A tmpfs that is mounted, with these words after the word.
    Mounted(&'static str),
    /// A bind, with these words before the word, of mounts that have no attribute.
    Open(&'static str),
    /// A bind of mounts that have every attribute.
    Closed,
    /// A bind of mounts of the host that share what is mounted below them.
    Shared,
    /// A bind in a sandbox whose ids are others outside.
    Ids,
}
use On::{Closed, Ids, Mounted, New, Open, Shared};

/// A word; what it is tried on; how findmnt shows the mount otherwise than the one without the word: its columns
/// VFS-OPTIONS and PROPAGATION, and with `fs:` FS-OPTIONS; the same of the mount below it. Where nothing is to be seen,
/// the row says why.
type Row = (&'static str, On, &'static str, &'static str, &'static str);

const MESSAGES: &str = "about messages of the kernel's, which no table of mounts tells";
const CHANGES: &str = "about counts of changes in the file system, which no table of mounts tells";
const CONTENTS: &str = "about what is in the file system: copy_up.rs looks there";

#[rustfmt::skip]
const ROWS: [Row; 62] = [
    ("async", New("sync"), "-fs:sync", "", ""),
    ("atime", Closed, "+relatime -noatime", "", ""),
    ("bind", Open(""), "", "-mounted", ""),
    ("defaults", New("nosuid"), "", "", "asks for nothing"),
    ("dev", Closed, "-nodev", "", ""),
    ("diratime", Closed, "-nodiratime", "", ""),
    ("dirsync", New(""), "+fs:dirsync", "", ""),
    ("exec", Closed, "-noexec", "", ""),
    ("idmap", Ids, "+idmapped", "", ""),
    ("iversion", New(""), "", "", CHANGES),
    ("lazytime", New(""), "+fs:lazytime", "", ""),
    ("loud", New("silent"), "", "", MESSAGES),
    ("mand", New(""), "+fs:mand", "", ""),
    ("noatime", Open(""), "+noatime -relatime", "", ""),
    ("nodev", Open(""), "+nodev", "", ""),
    ("nodiratime", Open(""), "+nodiratime", "", ""),
    ("noexec", Open(""), "+noexec", "", ""),
    ("noiversion", New("iversion"), "", "", CHANGES),
    ("nolazytime", New("lazytime"), "-fs:lazytime", "", ""),
    ("nomand", New("mand"), "-fs:mand", "", ""),
    ("norelatime", Closed, "+relatime -noatime", "", ""),
    ("nostrictatime", Closed, "+relatime -noatime", "", ""),
    ("nosuid", Open(""), "+nosuid", "", ""),
    ("nosymfollow", Open(""), "+nosymfollow", "", ""),
    ("private", Open("private rshared"), "+private -shared", "", ""),
    ("ratime", Closed, "+relatime -noatime", "+relatime -noatime", ""),
    ("rbind", Open("bind"), "", "+mounted", ""),
    ("rdev", Closed, "-nodev", "-nodev", ""),
    ("rdiratime", Closed, "-nodiratime", "-nodiratime", ""),
    ("relatime", Closed, "+relatime -noatime", "", ""),
    ("remount", Mounted("bind ro"), "+ro -rw", "", ""),
    ("rexec", Closed, "-noexec", "-noexec", ""),
    ("ridmap", Ids, "+idmapped", "+idmapped", ""),
    ("rnoatime", Open(""), "+noatime -relatime", "+noatime -relatime", ""),
    ("rnodev", Open(""), "+nodev", "+nodev", ""),
    ("rnodiratime", Open(""), "+nodiratime", "+nodiratime", ""),
    ("rnoexec", Open(""), "+noexec", "+noexec", ""),
    ("rnorelatime", Closed, "+relatime -noatime", "+relatime -noatime", ""),
    ("rnostrictatime", Closed, "+relatime -noatime", "+relatime -noatime", ""),
    ("rnosuid", Open(""), "+nosuid", "+nosuid", ""),
    ("rnosymfollow", Open(""), "+nosymfollow", "+nosymfollow", ""),
    ("ro", Open(""), "+ro -rw", "", ""),
    ("rprivate", Open("private rshared"), "+private -shared", "+private -shared", ""),
    ("rrelatime", Closed, "+relatime -noatime", "+relatime -noatime", ""),
    ("rro", Open(""), "+ro -rw", "+ro -rw", ""),
    ("rrw", Closed, "+rw -ro", "+rw -ro", ""),
    ("rshared", Open("private"), "+shared -private", "+shared -private", ""),
    ("rslave", Shared, "+slave", "+slave", ""),
    ("rstrictatime", Closed, "-noatime", "-noatime", ""),
    ("rsuid", Closed, "-nosuid", "-nosuid", ""),
    ("rsymfollow", Closed, "-nosymfollow", "-nosymfollow", ""),
    ("runbindable", Open(""), "+unbindable", "+unbindable", ""),
    ("rw", Closed, "+rw -ro", "", ""),
    ("shared", Open("private"), "+shared -private", "", ""),
    ("silent", New(""), "", "", MESSAGES),
    ("slave", Shared, "+slave", "+slave", ""),
    ("strictatime", Closed, "-noatime", "", ""),
    ("suid", Closed, "-nosuid", "", ""),
    ("symfollow", Closed, "-nosymfollow", "", ""),
    ("sync", New(""), "+fs:sync", "", ""),
    ("tmpcopyup", New(""), "", "", CONTENTS),
    ("unbindable", Open(""), "+unbindable", "", ""),
];

fn options(words: &str) -> MountOptions {
    MountOptions::parse(words.split(' '))
}

/// A directory of the host's, and one below it, as mounts that share what is mounted below them.
struct HostTree {
    top: common::TempDir,
    below: common::TempDir,
}

impl HostTree {
    fn new() -> HostTree {
        let tree = HostTree { top: common::TempDir::new(), below: common::TempDir::new() };
        let (none, top) = (None::<&str>, tree.top.path());
        mount(Some(top), top, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, top, none, MsFlags::MS_SHARED, none).unwrap();
        fs::create_dir(top.join("sub")).unwrap();
        mount(Some(tree.below.path()), &top.join("sub"), none, MsFlags::MS_BIND, none).unwrap();
        tree
    }
}

impl Drop for HostTree {
    fn drop(&mut self) {
        umount2(self.top.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// The sources of binds, of which the setup itself makes those below `own`.
struct Sources {
    own: PathBuf,
    host: Option<HostTree>,
}

impl Sources {
    fn new(own: &Path) -> Sources {
        for name in ["open", "closed"] {
            fs::create_dir(own.join(name)).unwrap();
        }
        Sources { own: own.to_owned(), host: common::is_root().then(HostTree::new) }
    }

    fn mounts(&self) -> Vec<Mount> {
        let all = "nosuid nodev noexec nodiratime noatime";
        let all = if knows("nosymfollow") { format!("{all} nosymfollow") } else { all.to_owned() };
        let tmpfs = |at: &str, words: &str| -> Mount {
            RawMount::new("tmpfs", self.own.join(at), "tmpfs").options(options(words)).into()
        };
        vec![
            tmpfs("open", ""),
            tmpfs("open/sub", ""),
            tmpfs("closed", &all),
            tmpfs("closed/sub", &format!("{all} ro")),
            tmpfs("closed", &format!("{all} remount bind ro")),
        ]
    }

    /// The mounts of a row at `at`, with the word or without.
    fn of_row(&self, (word, on, ..): &Row, at: &Path, has_word: bool) -> Vec<Mount> {
        let word = if has_word { word } else { "" };
        let tmpfs = |words: &str| -> Mount { RawMount::new("tmpfs", at, "tmpfs").options(options(words)).into() };
        let bind = |source: &Path, words: &str| vec![Bind::new(source, at).options(options(words)).into()];
        let host = || self.host.as_ref().unwrap().top.path();
        match on {
            New(before) => vec![tmpfs(&format!("{before} {word}"))],
            Mounted(after) if has_word => vec![tmpfs(""), tmpfs(&format!("{word} {after}"))],
            Mounted(_) => vec![tmpfs("")],
            Open(before) => bind(&self.own.join("open"), &format!("{before} {word}")),
            Closed => bind(&self.own.join("closed"), word),
            Shared | Ids => bind(host(), word),
        }
    }
}

/// Whether the kernel shows what the word does, also in a user namespace.
fn knows(word: &str) -> bool {
    let since = match word {
        "mand" | "nomand" => (5, 15),
        _ if word.ends_with("symfollow") => (5, 14),
        _ => (5, 12),
    };
    common::kernel() >= since
}

/// What findmnt shows inside, by place. What is mounted more than once at a place has the numbers of the mounts.
fn shown(sandbox: Sandbox) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let args = ["-J", "-l", "-o", "TARGET,VFS-OPTIONS,PROPAGATION,FS-OPTIONS"];
    let text = common::stdout(&sandbox.command("findmnt").args(args));
    let table: Value = serde_json::from_str(&text).unwrap();
    let mut places: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for mount in table["filesystems"].as_array().unwrap() {
        let column = |name: &str| mount[name].as_str().unwrap().split(',');
        let place = places.entry(mount["target"].as_str().unwrap().into()).or_default();
        if !place.insert("mounted".to_owned()) {
            place.insert("mounted over".to_owned());
        }
        place.extend(column("vfs-options").chain(column("propagation")).map(str::to_owned));
        place.extend(column("fs-options").map(|option| format!("fs:{option}")));
    }
    places
}

/// What the second has and the first has not, and the other way round; of a mount that is not there in one of them, that.
fn difference(without: Option<&BTreeSet<String>>, with: Option<&BTreeSet<String>>) -> String {
    match (without, with) {
        (None, None) => String::new(),
        (None, Some(_)) => "+mounted".to_owned(),
        (Some(_), None) => "-mounted".to_owned(),
        (Some(without), Some(with)) => {
            let more = with.difference(without).map(|option| format!("+{option}"));
            let less = without.difference(with).map(|option| format!("-{option}"));
            more.chain(less).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Mounts in one sandbox what these rows say, each below `base` as the caller and the program see it, and returns the
/// rows that are not true.
fn wrong(sandbox: Sandbox, sources: &Sources, rows: &[Row], [outside, inside]: [&Path; 2]) -> Vec<String> {
    let places = |word: &str| ["without", "with"].map(|name| format!("{name}-{word}"));
    let mut sandbox = sandbox;
    for row in rows {
        for (place, has_word) in places(row.0).into_iter().zip([false, true]) {
            fs::create_dir(outside.join(&place)).unwrap();
            let mounts = sources.of_row(row, &inside.join(place), has_word);
            sandbox = mounts.into_iter().fold(sandbox, Sandbox::mount);
        }
    }
    let table = shown(sandbox);
    let is_wrong = |(word, on, shows, shows_below, _): &Row| {
        let [without, with] = places(word).map(|place| inside.join(place));
        assert!(table.contains_key(&without) && table.contains_key(&with), "{word}: {table:#?}");
        let found = difference(table.get(&without), table.get(&with));
        let below = difference(table.get(&without.join("sub")), table.get(&with.join("sub")));
        let is_true = (found.as_str(), below.as_str()) == (*shows, *shows_below);
        (!is_true).then(|| format!("{word} on {on:?}: {found:?}, below {below:?}: {:?}", table[&with]))
    };
    rows.iter().filter_map(is_wrong).collect()
}

#[test]
fn findmnt_shows_each_word() {
    let _clean = common::clean();
    if common::kernel() < (5, 12) {
        return common::skip("mount_setattr(2) needs Linux 5.12", true);
    }
    let is_of_host = |row: &&Row| matches!(row.1, Shared | Ids);
    if common::needs_root("to mount on the host, for the words slave, rslave, idmap, ridmap") {
        assert_eq!(ROWS.iter().filter(is_of_host).count(), 4);
    }
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| knows(row.0) && row.1 != Ids).collect();
    let rows: Vec<Row> = rows.into_iter().filter(|row| common::is_root() || !is_of_host(&row)).collect();
    let with_user = common::as_ourselves(Sandbox::new());
    let sandboxes = if common::is_root() { vec![Sandbox::new(), with_user] } else { vec![with_user] };
    for sandbox in sandboxes {
        let dir = common::TempDir::new();
        let sources = Sources::new(dir.path());
        let sandbox = sources.mounts().into_iter().fold(sandbox.pid_ns(), Sandbox::mount);
        let wrong = wrong(sandbox, &sources, &rows, [dir.path(); 2]);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn findmnt_shows_which_mounts_have_the_ids_of_the_sandbox() {
    let _clean = common::clean();
    if common::needs_root("to map the ids of a mount") {
        return;
    }
    if common::kernel() < (5, 12) {
        return common::skip("id-mapped mounts need Linux 5.12", true);
    }
    let (dir, root) = (common::TempDir::new(), common::root_dir());
    std::os::unix::fs::chown(root.path(), Some(100_000), Some(100_000)).unwrap();
    let ids = IdMap::new(0, 100_000, 65_536);
    let sandbox = common::on_root(Sandbox::new().user_ns().uid_map(ids).gid_map(ids), &root).pid_ns();
    let sources = Sources::new(dir.path());
    let trial = Bind::new(sources.host.as_ref().unwrap().top.path(), "/trial").options(options("ridmap"));
    if maps_ids(sandbox.clone().mount(trial).command("true").output()).is_none() {
        return;
    }
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| row.1 == Ids).collect();
    let wrong = wrong(sandbox, &sources, &rows, [root.path(), Path::new("/")]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_rows_are_the_words() {
    for (word, _, shows, shows_below, why) in ROWS {
        assert_eq!(shows.is_empty() && shows_below.is_empty(), !why.is_empty(), "{word}");
    }
    #[cfg(feature = "oci")]
    {
        let features: Value = serde_json::from_str(&ringfence::oci::features()).unwrap();
        let words: Vec<&str> = features["mountOptions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(ROWS.map(|row| row.0).as_slice(), words);
    }
}
