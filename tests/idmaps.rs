//! Layers whose files show the ids that they have on disk, in sandboxes whose ids are others outside.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use common::TempDir;
use ringfence::{ErrorKind, IdMap, Overlay, RootFs, Sandbox, Step};

/// True, after saying so, where there can be none.
#[track_caller]
fn none_here() -> bool {
    if common::needs_root("an id-mapped mount") {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.trim().parse().unwrap_or(0));
    let kernel: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    if kernel < (5, 19) {
        common::skip("layers of an overlay can be id-mapped since 5.19", true);
    }
    kernel < (5, 19)
}

fn ranges(sandbox: Sandbox, first: u32) -> Sandbox {
    let range = IdMap::new(0, first, 65_536);
    sandbox.user_ns().uid_map(range).gid_map(range)
}

fn sh(sandbox: Sandbox, script: &str) -> Sandbox {
    sandbox.command("/bin/sh").args(["-c", script])
}

/// A root whose files are root's and a user's, each for its owner alone.
fn layer() -> TempDir {
    let layer = common::root_dir();
    for (name, id) in [("etc/of-root", 0), ("etc/of-user", 1000)] {
        let path = layer.path().join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(id), Some(id)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(layer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    layer
}

const LOOK: &str = "stat -c %u:%g /etc/of-root /etc/of-user; cat /etc/of-root; exec setpriv --reuid 1000 --regid 1000 \
                    --clear-groups sh -c 'cat /etc/of-user; cat /etc/of-root'";

#[test]
fn one_layer_serves_sandboxes_with_different_users() {
    let _clean = common::clean();
    if none_here() {
        return;
    }
    let layer = layer();
    let on = |root: RootFs, first| ranges(Sandbox::new(), first).rootfs(root).bind_ro("/usr", "/usr").pid_ns();
    for first in [100_000, 300_000] {
        let output = sh(on(RootFs::overlay([layer.path()]), first), LOOK).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "65534:65534\n65534:65534\n", "without the map the ids mean nothing inside");
        for root in [RootFs::overlay([layer.path()]), RootFs::overlay([layer.path(), Path::new("/usr")])] {
            let output = sh(on(root.id_mapped(), first), LOOK).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text, "0:0\n1000:1000\netc/of-rootetc/of-user", "{output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
        }
    }
}

#[test]
fn what_is_written_belongs_to_the_sandboxs_ids_and_the_layer_stays() {
    let _clean = common::clean();
    if none_here() {
        return;
    }
    let (layer, kept) = (layer(), TempDir::new());
    let [upper, work] = ["upper", "work"].map(|name| kept.path().join(name));
    for dir in [&upper, &work] {
        fs::create_dir(dir).unwrap();
        chown(dir, Some(100_000), Some(100_000)).unwrap();
    }
    let root = RootFs::overlay([layer.path()]).upper(&upper, &work).id_mapped();
    let sandbox = ranges(Sandbox::new(), 100_000).rootfs(root).bind_ro("/usr", "/usr").pid_ns();
    let script =
        "echo more >>/etc/of-user; echo new >/etc/new; chmod 4755 /etc/new; chown 5:6 /etc/new; cat /etc/of-user";
    assert_eq!(common::stdout(&sh(sandbox, script)), "etc/of-usermore");
    let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(owner(&upper.join("etc/of-user")), (101_000, 101_000));
    assert_eq!(owner(&upper.join("etc/new")), (100_005, 100_006));
    assert_eq!(fs::read_to_string(layer.path().join("etc/of-user")).unwrap(), "etc/of-user");
    assert_eq!(owner(&layer.path().join("etc/of-user")), (1000, 1000));
}

/// A bind could be made writable by root of the sandbox, and then a file of the host's root be made on the host.
#[test]
fn layers_in_the_list_cannot_be_made_writable() {
    let _clean = common::clean();
    if none_here() {
        return;
    }
    let dir = TempDir::new();
    fs::write(dir.path().join("file"), "text").unwrap();
    fs::set_permissions(dir.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let shared = Overlay::new("/mnt", [dir.path()]).id_mapped();
    let script = "cat /mnt/file; stat -c ' %u' /mnt/file; exec 2>/dev/null; mount -o remount,rw,bind /mnt; \
                  mount -o remount,rw /mnt; touch /mnt/new && echo written; echo x >>/mnt/file && echo written; true";
    let root = common::root_dir();
    fs::create_dir(root.path().join("mnt")).unwrap();
    let on_root =
        ranges(Sandbox::new(), 100_000).rootfs(root.path()).bind_ro("/usr", "/usr").pid_ns().mount(shared.clone());
    for sandbox in [ranges(Sandbox::new(), 100_000).mount(shared), on_root] {
        // The layer itself, whose name would show, stands nowhere.
        let name = dir.path().file_name().unwrap().display();
        let mounts = format!("; grep -v ' - overlay ' /proc/self/mountinfo | grep {name}; true");
        let sandbox = sh(sandbox, &format!("{script}{mounts}"));
        let output = sandbox.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "text 0\n", "{output:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_is_told() {
    let _clean = common::clean();
    let overlay = || RootFs::overlay(["/usr"]).id_mapped();
    let error = Sandbox::new().rootfs(overlay()).check().unwrap_err();
    assert!(error.to_string().contains("add user_ns()"), "{error}");
    let error = Sandbox::new().user_ns().rootfs(RootFs::dir("/usr").id_mapped()).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("RootFs::overlay"), "{error}");
    if !common::is_root() {
        let error = Sandbox::new().user_ns().rootfs(overlay()).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("run as root, or give the layers' files"), "{error}");
        return;
    }
    if none_here() {
        return;
    }
    let sandbox = ranges(Sandbox::new(), 100_000).rootfs(RootFs::overlay(["/proc"]).id_mapped());
    let error = sandbox.spawn().unwrap_err();
    assert_eq!((error.step(), error.path()), (Step::IdMapMount, Some(Path::new("/proc"))), "{error}");
    assert!(error.remedy().unwrap().contains("takes no id map"), "{error}");
}
