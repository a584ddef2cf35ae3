//! A Debian, as umoci unpacks it and as we do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringfence::Overlay;
use ringfence::image::{Store, host_platform};

use crate::common::{self, TempDir};

/// Changes of the second layer, in `$1`, a root file system.
const CHANGES: &str = r#"
cd "$1"
rm -rf usr/share/doc usr/share/locale etc/cron.daily; rm usr/bin/perl* etc/debian_version
rm -rf usr/share/man; mkdir usr/share/man; echo anew >usr/share/man/file
rm -rf var/log; ln -s /tmp var/log
rm -rf etc/default; echo "a file" >etc/default
ln usr/bin/dpkg usr/bin/dpkg-too; chmod 4755 usr/bin/ls; chmod 2775 srv; chown 1234:5678 srv usr/bin/ls
mknod dev/odd c 250 7; mkfifo run/pipe; mkdir -m 1777 "srv/a name	with tab"
setcap cap_net_raw+ep usr/bin/tar; setfattr -n user.mark -v value usr/bin/tar 2>/dev/null || true
truncate -s 1M srv/holes; touch -d '1969-12-31 23:59:58.25 UTC' srv/old; touch -d '2020-01-01 00:00:00.123456789 UTC' srv
"#;

fn sh(script: &str, words: &[&Path]) {
    let output = Command::new("sh").args(["-ec", script, "sh"]).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

const SCRIPT: &str = include_str!("tree.py");

#[test]
fn a_debian_is_unpacked_as_umoci_does() {
    if common::needs_root("umoci's tree with its owners and devices") {
        return;
    }
    if ["mmdebstrap", "umoci", "setcap"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
        return common::skip("it needs mmdebstrap, umoci and setcap", false);
    }
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    // Unpacked is enough: what dpkg configures would take a minute and make no other kind of file.
    sh(
        "mmdebstrap --quiet --variant=extract '--include=?essential' --skip=check/empty bookworm \"$1\"",
        &[&at("base.tar")],
    );
    sh(
        r#"umoci init --layout "$1"; umoci new --image "$1":debian; umoci unpack --image "$1":debian "$2"
        tar -C "$2/rootfs" --numeric-owner --xattrs --xattrs-include='*' -xpf "$3"
        cd "$2/rootfs"
        mkdir -p srv run tmp
        for dir in bin sbin lib lib64; do mkdir -p usr/$dir; cp -a $dir/. usr/$dir; rm -rf $dir; ln -s usr/$dir $dir; done
        umoci repack --refresh-bundle --image "$1":debian "$2""#,
        &[&at("layout"), &at("bundle"), &at("base.tar")],
    );
    sh(CHANGES, &[&at("bundle/rootfs")]);
    sh(
        r#"umoci repack --image "$1":debian "$2"; rm -rf "$2"; umoci unpack --image "$1":debian "$2""#,
        &[&at("layout"), &at("bundle")],
    );
    let store = Store::open(at("store")).unwrap();
    let image = store.import(at("layout"), Some(&"debian".parse().unwrap())).unwrap().remove(0);
    let image = store.image_of(&image.manifest, &host_platform()).unwrap();
    assert_eq!(image.layers().len(), 2);
    let layers = image.unpack().unwrap();
    let script = at("tree.py");
    fs::write(&script, SCRIPT).unwrap();
    let expected = Command::new("python3").arg(&script).arg(at("bundle/rootfs")).output().unwrap();
    assert!(expected.status.success(), "{}", String::from_utf8_lossy(&expected.stderr));
    let expected = String::from_utf8_lossy(&expected.stdout).into_owned();
    let root = at("root");
    fs::create_dir(&root).unwrap();
    let sandbox = common::mounting().command("python3").arg(&script).arg(&root);
    let found = common::stdout(&sandbox.mount(Overlay::new(&root, layers.dirs()).read_only()));
    let (expected, found): (BTreeSet<&str>, BTreeSet<&str>) = (expected.lines().collect(), found.lines().collect());
    assert!(expected.len() > 3_000, "only {} entries", expected.len());
    let differ: Vec<String> = expected
        .iter()
        .filter(|line| !found.contains(*line))
        .map(|line| format!("umoci: {line}"))
        .chain(found.iter().filter(|line| !expected.contains(*line)).map(|line| format!("ours:  {line}")))
        .collect();
    assert!(differ.is_empty(), "{} lines differ:\n{}", differ.len(), differ[..differ.len().min(60)].join("\n"));
    assert_eq!(layers.skipped(), 0, "{:?}", layers.left_out());
}
