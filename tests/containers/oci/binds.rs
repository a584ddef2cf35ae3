//! Binds as other runtimes make them: the flags that the options name, and sources inside the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::volumes::runs;
use super::{Bundle, PATIENT};
use crate::common::{self, refuse};

/// A mount of the test's own on the host, which goes with the value.
struct Mounted(PathBuf);

impl Mounted {
    /// A tmpfs with these flags of its mount, which holds the file `f`.
    fn tmpfs(at: &Path, flags: MsFlags) -> Mounted {
        fs::create_dir_all(at).unwrap();
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_STRICTATIME, Some("size=1m,mode=755")).unwrap();
        let mounted = Mounted(at.to_owned());
        fs::write(at.join("f"), "held\n").unwrap();
        mount(None::<&str>, at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Shows the flags of the mount at /data.
const FLAGS: &str = "grep ' /data ' /proc/self/mountinfo | cut -d ' ' -f 6";

fn bind(source: &str, at: &str, words: &str) -> Value {
    json!({"destination": at, "source": source, "options": words.split(',').collect::<Vec<_>>()})
}

fn in_user_ns(bundle: Bundle) -> Bundle {
    bundle.with_user_ns(&json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]))
}

#[test]
fn a_bind_has_the_flags_that_its_options_name_and_no_other() {
    let _clean = common::clean();
    if common::needs_root("mounts of the host") {
        return;
    }
    let (ro, noatime) = (MsFlags::MS_RDONLY, MsFlags::MS_NOATIME);
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (flags, words, alone, with_user_ns) in [
        (ro | noatime, "bind", "ro,noatime", Some("ro,noatime")),
        (ro, "bind,rprivate", "ro,relatime", Some("ro,relatime")),
        (ro, "bind,nosuid", "rw,nosuid,relatime", Some("ro,nosuid,relatime")),
        (ro, "bind,rw", "rw,relatime", None),
        (quiet, "bind,ro", "ro,relatime", Some("ro,nosuid,nodev,noexec,relatime")),
        (quiet, "bind,exec,ro", "ro,relatime", None),
        (noatime, "bind,atime", "rw,noatime", Some("rw,noatime")),
        (noatime, "bind,relatime", "rw,relatime", None),
        (noatime | MsFlags::MS_NODEV, "bind,atime", "rw,noatime", None),
    ] {
        let bundle = Bundle::new(FLAGS);
        // The kernel's own way, unless another is said.
        let flags = if flags.contains(noatime) { flags } else { flags | MsFlags::MS_RELATIME };
        let _source = Mounted::tmpfs(&bundle.path("source"), flags);
        let bundle = bundle.mounting(bind("source", "/data", words));
        assert_eq!(runs(&bundle).trim(), alone, "{flags:?} {words}");
        let bundle = in_user_ns(bundle);
        match with_user_ns {
            Some(shown) => assert_eq!(runs(&bundle).trim(), shown, "{flags:?} {words}"),
            None => {
                let said = bundle.fails(&["run", "box"]);
                let words =
                    "run failed: unable to start container process: error during container init: error mounting";
                assert!(said.contains(words) && said.contains("operation not permitted"), "{said}");
            }
        }
    }
}

/// The call that Linux has since 5.12.
pub(super) const LATER_CALLS: [refuse::Call; 1] = [refuse::call(libc::SYS_mount_setattr)];

#[test]
fn a_bind_has_the_same_flags_on_kernels_without_mount_setattr() {
    let _clean = common::clean();
    if common::needs_root("mounts of the host") {
        return;
    }
    let (ro, noatime) = (MsFlags::MS_RDONLY, MsFlags::MS_NOATIME);
    for (flags, words, alone, with_user_ns) in [
        (ro | MsFlags::MS_NODEV, "bind,nosuid", "rw,nosuid,relatime", "ro,nosuid,nodev,relatime"),
        (ro, "bind", "ro,relatime", "ro,relatime"),
        (noatime | ro, "bind,noexec", "rw,noexec,noatime", "ro,noexec,noatime"),
    ] {
        let mut bundle = Bundle::new(FLAGS);
        bundle.runtime = "oci-runtime-without-mount_setattr";
        let flags = if flags.contains(noatime) { flags } else { flags | MsFlags::MS_RELATIME };
        let _source = Mounted::tmpfs(&bundle.path("source"), flags);
        let bundle = bundle.mounting(bind("source", "/data", words));
        assert_eq!(runs(&bundle).trim(), alone, "{flags:?} {words}");
        assert_eq!(runs(&in_user_ns(bundle)).trim(), with_user_ns, "{flags:?} {words}");
    }
}

#[test]
fn what_is_below_a_bind_keeps_its_flags_unless_a_word_has_an_r() {
    let _clean = common::clean();
    if common::needs_root("mounts of the host") {
        return;
    }
    for (words, below) in [("rbind,nosuid", "ro,relatime"), ("rbind,nosuid,rnodev", "ro,nodev,relatime")] {
        let bundle = Bundle::new("grep ' /data/below ' /proc/self/mountinfo | cut -d ' ' -f 6");
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_RELATIME;
        fs::create_dir_all(bundle.path("source/below")).unwrap();
        let _below = Mounted::tmpfs(&bundle.path("source/below"), flags);
        assert_eq!(runs(&bundle.mounting(bind("source", "/data", words))).trim(), below, "{words}");
    }
}

/// The path by which the host knows something inside.
fn on_host(bundle: &Bundle, path: &str) -> String {
    format!("{}{path}", bundle.root.path().display())
}

#[test]
fn a_source_below_the_root_is_what_the_mounts_before_it_show() {
    let _clean = common::clean();
    let all: &[fn(&str) -> Bundle] = &[Bundle::new, Bundle::of_an_ordinary_user];
    for make in all {
        let script = "cat /second/f /second/deep/g /file; echo > /second/f || echo sealed; \
                      grep -c ' /second/deep ' /proc/self/mountinfo";
        let bundle = make(script).with("/root/readonly", json!(false)).holding("data/f").holding("other/g");
        fs::create_dir_all(bundle.root.path().join("first")).unwrap();
        let (first, file) = (on_host(&bundle, "/first"), on_host(&bundle, "/first/f"));
        // The destination may begin with the root's own path as well.
        let second = on_host(&bundle, "/second");
        let bundle = bundle
            .mounting(json!({"destination": first, "source": "data", "options": ["bind"]}))
            .mounting(bind("other", "/first/deep", "bind"))
            .mounting(bind(&first, &second, "rbind,ro"))
            .mounting(bind(&file, "/file", "bind"));
        fs::create_dir_all(bundle.path("data/deep")).unwrap();
        assert_eq!(runs(&bundle), "held\nheld\nheld\nsealed\n1\n");
        assert!(bundle.root.path().join("second").is_dir() && bundle.root.path().join("file").is_file());
        // Without `rbind` nothing that is mounted below comes along, and what is not there is an error.
        let script = "test -e /second/deep/g || echo nothing below";
        let bundle = bundle.with("/process/args", json!(["sh", "-c", script]));
        let count = bundle.config["mounts"].as_array().unwrap().len();
        let mut bundle = bundle;
        bundle.config["mounts"][count - 2] = bind(&first, "/second", "bind");
        assert_eq!(runs(&bundle), "nothing below\n");
        bundle.config["mounts"][count - 2] = bind(&on_host(&bundle, "/not/there"), "/second", "bind");
        let said = bundle.fails(&["run", "box"]);
        assert!(said.contains("inside the root") && said.contains("ENOENT"), "{said}");
    }
}

#[test]
fn ids_of_a_source_inside_are_mapped_where_the_setup_may() {
    let _clean = common::clean();
    if common::needs_root("id maps of a mount") {
        return;
    }
    if common::kernel() < (6, 3) {
        return common::skip("tmpfs maps ids since Linux 6.3", true);
    }
    let map = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    let bundle = Bundle::new("stat -c %u:%g /first /second");
    let mut again = bind(&on_host(&bundle, "/first"), "/second", "bind");
    (again["uidMappings"], again["gidMappings"]) = (map.clone(), map);
    let bundle = bundle
        .mounting(json!({"destination": "/first", "type": "tmpfs", "source": "t", "options": ["size=1m"]}))
        .mounting(again);
    assert_eq!(runs(&bundle), "0:0\n7:7\n");
    let said = in_user_ns(bundle).fails(&["run", "box"]);
    assert!(said.contains("inside a user namespace, ids of what is inside already are not mapped"), "{said}");
}

#[test]
fn no_link_of_a_root_leads_out_by_a_source() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("cat /seen/f /seen 2>/dev/null; echo end").with("/root/readonly", json!(false));
        let outside = common::TempDir::new();
        fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(outside.path().join("f"), "of the host\n").unwrap();
        let out = outside.path();
        let up = format!("{}{}", "../".repeat(20), out.display());
        let links: [(&str, PathBuf, &str); 5] = [
            ("absolute", out.to_owned(), ""),
            ("parent", out.to_owned(), "/f"),
            ("up", up.into(), "/f"),
            ("whole", out.parent().unwrap().to_owned(), &format!("/{}", out.file_name().unwrap().display())),
            // The magic link of a process of the host.
            ("magic", PathBuf::from(format!("/proc/{}/root{}", std::process::id(), out.display())), ""),
        ];
        let mut bundle = bundle.mounting(Value::Null);
        for (name, to, below) in links {
            symlink(&to, bundle.root.path().join(name)).unwrap();
            let source = on_host(&bundle, &format!("/{name}{below}"));
            *bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = bind(&source, "/seen", "rbind");
            let said = bundle.says(&["run", "box"]);
            assert!(!said.out.contains("of the host") && said.status.code() == Some(1), "{name}: {said:?}");
            assert!(said.err.contains("ENOENT") || said.err.contains("ELOOP"), "{name}: {said:?}");
            // What the link calls so inside is what is shown.
            if name == "absolute" {
                let inside = bundle.root.path().join(out.strip_prefix("/").unwrap());
                fs::create_dir_all(&inside).unwrap();
                fs::write(inside.join("f"), "of the root\n").unwrap();
                assert_eq!(runs(&bundle), "of the root\nend\n");
                fs::remove_file(inside.join("f")).unwrap();
                fs::remove_dir(&inside).unwrap();
                let _ = fs::remove_file(bundle.root.path().join("seen"));
            }
        }
        // A path with `..` is no path of the root, whatever it begins with.
        let source = on_host(&bundle, &format!("/../{}", out.file_name().unwrap().display()));
        *bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = bind(&source, "/seen", "rbind");
        assert_eq!(runs(&bundle), "of the host\nend\n");
    }
}

#[test]
fn a_slave_root_follows_the_host_and_shows_it_nothing() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("mounts of the host") {
        return;
    }
    for (word, follows) in [("slave", true), ("rslave", true), ("", false), ("private", false), ("shared", false)] {
        let bundle = Bundle::new(PATIENT).with("/linux/rootfsPropagation", json!(word));
        let root = bundle.root.path().to_owned();
        fs::create_dir(root.join("later")).unwrap();
        mount(Some(&root), &root, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let _root = Mounted(root.clone());
        mount(None::<&str>, &root, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        bundle.does(&["run", "--detach", "box"]);
        let later = Mounted::tmpfs(&root.join("later"), MsFlags::MS_NODEV);
        let said = bundle.says(&["exec", "box", "cat", "/later/f"]);
        assert_eq!(said.status.success(), follows, "{word}: {said:?}");
        let inside = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = format!(" {}/", root.display());
        let seen: Vec<&str> =
            inside.lines().filter(|line| line.contains(&below) && !line.contains("/later ")).collect();
        assert!(seen.is_empty(), "{word}: {seen:?}");
        bundle.does(&["delete", "--force", "box"]);
        drop(later);
    }
}
