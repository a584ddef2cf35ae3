//! Containers without a mount namespace of their own: in the runtime's, or in one that exists.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::escapes::{attacking, with_capabilities};
use super::{Bundle, PATIENT, groups};
use crate::common;
use ringfence::oci::Config;
use ringfence::{Bytes, Enforcement, Feature, Sandbox, Stdio};

/// The same container without a mount namespace, or with the one of this file.
fn in_mount_ns(mut bundle: Bundle, path: Option<&Path>) -> Bundle {
    let kinds = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    kinds.retain(|kind| kind["type"] != "mount");
    kinds.extend(path.map(|path| json!({"type": "mount", "path": path})));
    bundle
}

fn mount_ns(pid: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap()
}

fn mounts(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap()
}

fn pid_of(bundle: &Bundle) -> String {
    bundle.state()["pid"].to_string()
}

const LOOK: &str = "readlink /proc/self/ns/mnt; pwd; test -e /marker && echo its root; test -d /proc/self && echo proc; \
                    test -c /dev/null && ls -d /dev/pts; ls /masked; grep -c . /proc/self/mountinfo; true";

fn looking(bundle: &Bundle) {
    fs::write(bundle.root.path().join("marker"), "").unwrap();
    fs::write(bundle.root.path().join("look"), LOOK).unwrap();
}

#[test]
fn it_is_in_the_namespace_of_the_runtime_with_its_own_root_and_mounts() {
    let _clean = common::clean();
    if common::needs_root("the right to the runtime's mount namespace") {
        return;
    }
    let own = mount_ns("self");
    let hook = |name: &str, script: String| json!({name: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let begin = |hooks: Value| {
        let bundle = in_mount_ns(Bundle::new(&format!("{LOOK}; exec sleep 1000")), None).with("/hooks", hooks);
        looking(&bundle);
        fs::create_dir(bundle.root.path().join("masked")).unwrap();
        fs::write(bundle.root.path().join("masked/file"), "").unwrap();
        bundle.with("/linux/maskedPaths", json!(["/masked", "/proc/kcore"]))
    };
    let ran = common::TempDir::new();
    let hooks = [
        json!({}),
        hook("createRuntime", format!("echo host > {}", ran.path().join("ran").display())),
        hook("createContainer", format!("echo host > {}", ran.path().join("ran").display())),
        hook("startContainer", "test -e /marker && readlink /proc/self/ns/mnt".to_owned()),
    ];
    for hooks in hooks {
        let before = mounts("self");
        let bundle = begin(hooks.clone());
        bundle.does(&["create", "box"]);
        let said = bundle.read("err");
        assert!(said.contains("warning: linux.namespaces: without a new `mount`"), "{said}");
        assert_eq!(mount_ns(&pid_of(&bundle)), own);
        bundle.does(&["start", "box"]);
        // No mount of the namespace is below its root, so that its table is empty.
        let look = format!("{}\n/\nits root\nproc\n/dev/pts\n0\n", own.display());
        common::eventually("it has looked", || bundle.read("out") == look);
        assert_eq!(bundle.does(&["exec", "box", "sh", "/look"]), look, "{hooks}");
        assert_eq!(mount_ns(&pid_of(&bundle)), own);
        assert_eq!(mounts("self"), before, "nothing is mounted on the host");
        let has_run = ["createRuntime", "createContainer"].iter().any(|name| !hooks[name].is_null());
        assert_eq!(fs::remove_file(ran.path().join("ran")).is_ok(), has_run);
        bundle.does(&["delete", "--force", "box"]);
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

#[test]
fn what_it_holds_less_is_told() {
    if common::needs_root("the right to the runtime's mount namespace") {
        return;
    }
    let bundle = in_mount_ns(Bundle::new("true"), None).with("/process/capabilities/bounding", json!([]));
    let bundle = bundle.with("/process/capabilities/permitted", json!([]));
    let bundle = bundle.with("/process/capabilities/effective", json!([]));
    let config = Config::from_json(bundle.config.to_string().as_bytes()).unwrap();
    let enforced = config.sandbox(bundle.dir.path(), "box").unwrap().check().unwrap();
    for (feature, text) in [(Feature::RootFs, "entered by chroot(2)"), (Feature::MountNs, "not the sandbox's own")] {
        let how = enforced.get(feature);
        assert!(matches!(how, Some(Enforcement::Partial(gap)) if gap.contains(text)), "{how:?}");
    }
}

#[test]
fn it_is_in_the_namespace_that_is_named_and_mounts_nothing_there() {
    let _clean = common::clean();
    if common::needs_root("the right to another mount namespace") {
        return;
    }
    let other = Sandbox::new().mount_ns().tmpfs("/tmp", Bytes::mib(1)).command("sleep").arg("1000");
    let mut other = other.stdout(Stdio::null()).spawn().unwrap();
    let pid = other.id().to_string();
    let (theirs, before) = (mount_ns(&pid), mounts(&pid));
    assert_ne!(theirs, mount_ns("self"));
    let path = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
    let bundle = in_mount_ns(Bundle::new(PATIENT), Some(&path));
    looking(&bundle);
    bundle.does(&["create", "box"]);
    bundle.does(&["start", "box"]);
    assert_eq!(mount_ns(&pid_of(&bundle)), theirs);
    assert_eq!(mounts(&pid), before);
    let look = bundle.does(&["exec", "box", "sh", "/look"]);
    assert!(look.starts_with(&format!("{}\n/\nits root\nproc\n", theirs.display())), "{look}");
    bundle.does(&["delete", "--force", "box"]);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn nothing_inside_leaves_its_root() {
    let _clean = common::clean();
    if common::needs_root("the right to the runtime's mount namespace") {
        return;
    }
    let outside = common::TempDir::new();
    let marker = outside.path().join("marker");
    fs::write(&marker, "").unwrap();
    let may = ["CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_SETFCAP"];
    let climbs = with_capabilities(attacking(&format!("oci-chroot {}", marker.display()), &[]), &may);
    assert_eq!(in_mount_ns(climbs, None).does(&["run", "box"]), "chroot true\nagain true marker false\n");
    // The kernel makes it no user namespace, in which it could enter the root of a copy of all mounts, and lets nobody
    // without CAP_SYS_ADMIN enter the namespace that it is in.
    let script = format!(
        "unshare -Ur true 2>/dev/null && echo user; unshare -Urm true 2>/dev/null && echo mounts; \
         nsenter --mount=/proc/self/ns/mnt true 2>/dev/null && echo entered; umount -l /proc 2>/dev/null && echo unmounted; \
         for root in /proc/[0-9]*/root; do test -e $root{0} && echo seen; done; test -e {0} && echo seen; echo end",
        marker.display()
    );
    let tries = || with_capabilities(Bundle::new(&script), &may);
    assert_eq!(in_mount_ns(tries(), None).does(&["run", "box"]), "end\n");
    // Who asks for the right to leave is refused, and so is a further program.
    let admin = in_mount_ns(with_capabilities(tries(), &["CAP_SYS_ADMIN"]), None);
    let said = admin.fails(&["run", "box"]);
    assert!(said.contains("CAP_SYS_ADMIN would enter the root of its mount namespace"), "{said}");
    let bundle = in_mount_ns(Bundle::new(PATIENT), None);
    bundle.does(&["create", "box"]);
    bundle.does(&["start", "box"]);
    let said = bundle.says(&["exec", "--cap", "CAP_SYS_ADMIN", "box", "true"]);
    assert!(!said.status.success() && said.err.contains("CAP_SYS_ADMIN"), "{said:?}");
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn what_needs_a_mount_namespace_of_its_own_is_refused_by_its_path() {
    let _clean = common::clean();
    let refused = |bundle: Bundle, path: Option<&str>, property: &str| {
        let bundle = in_mount_ns(bundle, path.map(Path::new));
        let said = bundle.fails(&["create", "box"]);
        assert!(said.contains(property), "{property}: {said}");
        assert!(bundle.is_empty());
    };
    let tmpfs = |word: &str| json!([{"destination": "/t", "type": "tmpfs", "source": "t", "options": [word]}]);
    for word in ["shared", "rslave", "unbindable"] {
        refused(Bundle::new("true").with("/mounts", tmpfs(word)), None, "mounts[0].options: ");
    }
    refused(Bundle::new("true").with("/linux/rootfsPropagation", json!("rshared")), None, "linux.rootfsPropagation: ");
    refused(Bundle::of_an_ordinary_user("true"), None, "linux.namespaces: `user` without a new `mount`");
    let writable = || Bundle::new("true").with("/root/readonly", json!(false));
    refused(writable().with("/linux/maskedPaths", json!(["/proc/kcore", "/held"])), None, "linux.maskedPaths[1]: ");
    refused(writable().with("/linux/readonlyPaths", json!(["/dev/shm"])), None, "linux.readonlyPaths[0]: ");
    if common::is_root() {
        refused(Bundle::new("true"), Some("/proc/self/ns/net"), "/proc/self/ns/net");
        refused(Bundle::new("true"), Some("/etc/hosts"), "/etc/hosts");
    }
}
