//! Ids inside and outside: layers whose files show the ids that they have on disk, in sandboxes whose ids are others outside,
//! and the ids that sandboxes have outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use crate::common::{
    self, TempDir,
    refuse::{Call, all_refused, call, refuse},
    shell,
};
use nix::errno::Errno;
use ringfence::{Child, ErrorKind, IdMap, Overlay, RootFs, Sandbox, Step};

/// True, after saying so, where there can be none.
#[track_caller]
fn none_here() -> bool {
    if common::needs_root("an id-mapped mount") {
        return true;
    }
    let kernel = common::kernel();
    if kernel < (5, 19) {
        common::skip("layers of an overlay can be id-mapped since 5.19", true);
    }
    kernel < (5, 19)
}

fn ranges(sandbox: Sandbox, first: u32) -> Sandbox {
    let range = IdMap::new(0, first, 65_536);
    sandbox.user_ns().uid_map(range).gid_map(range)
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
        let output = shell(on(RootFs::overlay([layer.path()]), first), LOOK).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "65534:65534\n65534:65534\n", "without the map the ids mean nothing inside");
        for root in [RootFs::overlay([layer.path()]), RootFs::overlay([layer.path(), Path::new("/usr")])] {
            let output = shell(on(root.id_mapped(), first), LOOK).output().unwrap();
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
    assert_eq!(common::stdout(&shell(sandbox, script)), "etc/of-usermore");
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
        let sandbox = shell(sandbox, &format!("{script}{mounts}"));
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
        assert!(error.to_string().contains("run as root, or give the files"), "{error}");
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

/// Root's sandboxes without maps of their own: each has an id that no other one has.
fn own_ids() -> Option<()> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let has_all = map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    (!common::needs_root("ids of others")).then_some(())?;
    if !has_all {
        common::skip("the ids that sandboxes have are the host's", true);
    }
    has_all.then_some(())
}

/// Whom policies that share an id are outside.
const SHARED: u32 = 0x7000_0000;

/// The user and the group of a child's program, as the host counts.
fn outside(child: &Child) -> (u32, u32) {
    ids_of(child.id())
}

fn ids_of(pid: u32) -> (u32, u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let first = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (first("Uid:"), first("Gid:"))
}

fn sleeper() -> Sandbox {
    common::strict_sh("sleep 1000")
}

#[track_caller]
fn is_own((uid, gid): (u32, u32)) -> u32 {
    assert_eq!(uid, gid);
    assert!((0x7800_0000..0x7ffe_0000).contains(&uid), "{uid:#x}");
    uid
}

#[test]
fn each_living_sandbox_has_an_id_of_its_own() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let prepared = sleeper().prepare().unwrap();
    let pool = common::strict().pool(2).unwrap();
    pool.wait_ready(Duration::from_secs(30)).unwrap();
    let mut living: Vec<Child> = (0..3).map(|_| sleeper().spawn().unwrap()).collect();
    living.extend((0..3).map(|_| prepared.spawn().unwrap()));
    let command = || ringfence::Command::new("/bin/sleep").arg("1000");
    living.extend((0..3).map(|_| pool.spawn(command()).unwrap()));
    assert!(pool.stats().hits >= 2);
    for root in [RootFs::host(), RootFs::overlay(["/usr"]), RootFs::overlay(["/usr"]).scratch()] {
        let sandbox = Sandbox::new().user_ns().rootfs(root).bind_ro("/usr", "/usr").bind_ro("/usr/bin", "/bin");
        let sandbox = sandbox.bind("/dev/null", "/tmp/null").command("/usr/bin/sleep").arg("1000");
        let sandbox = ["lib", "lib64"].into_iter().fold(sandbox, |sandbox, dir| {
            let source = Path::new("/usr").join(dir);
            if source.exists() { sandbox.bind_ro(source, format!("/{dir}")) } else { sandbox }
        });
        living.push(sandbox.spawn().unwrap());
    }
    // What is written there belongs to another.
    let shared = handed_over(0o700);
    let policies = [
        sleeper().bind(shared.path(), "/d"),
        sleeper().bind(shared.path(), "/d").bind_ro(shared.path(), "/e"),
        sleeper().rootfs(RootFs::overlay(["/usr"])).bind(shared.path(), "/d").bind("/usr", "/usr"),
    ];
    for policy in policies.iter().chain(&policies) {
        let policy = policy.clone().bind_ro("/usr/bin", "/bin").bind_ro("/usr/lib", "/lib");
        let linker = Path::new("/usr/lib64").exists();
        let policy = if linker { policy.bind_ro("/usr/lib64", "/lib64") } else { policy };
        living.push(policy.spawn().unwrap());
    }
    let bound = policies[0].pool(2).unwrap();
    bound.wait_ready(Duration::from_secs(30)).unwrap();
    living.extend((0..3).map(|_| bound.spawn(command()).unwrap()));
    let ids: BTreeSet<u32> = living.iter().map(|child| is_own(outside(child))).collect();
    assert_eq!(ids.len(), living.len());
    // Whom the caller has named stays who it is.
    let range = IdMap::new(65_534, 100_000, 1);
    let given = sleeper().uid_map(range).gid_map(range).spawn().unwrap();
    assert_eq!(outside(&given), (100_000, 100_000));
}

#[test]
fn ids_are_given_back_at_the_end_however_it_comes() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    // More than a block holds, which would show as ids of another block.
    let sandbox = Sandbox::new().user_ns().pid_ns().rootfs(RootFs::host()).command("/bin/sleep").arg("1000");
    let prepared = sandbox.prepare().unwrap();
    let missing = sandbox.clone().command("/no/such/program");
    let mut blocks = BTreeSet::new();
    for i in 0..1500 {
        let child = prepared.spawn().unwrap();
        blocks.insert(is_own(outside(&child)) / 1024);
        match i % 4 {
            0 => drop(child.close()),
            1 => drop(missing.spawn().unwrap_err()),
            2 => {
                let mut child = child;
                child.kill().unwrap();
                child.wait().unwrap();
            }
            _ => drop(child),
        }
    }
    assert!(blocks.len() <= 1, "{blocks:?}");
}

/// A process that prints the id of a sandbox of its own, and of one of a fork of its, and waits.
fn two_owners() {
    let say = || {
        let child = sleeper().spawn().unwrap();
        println!("{}", outside(&child).0);
        child
    };
    let first = say();
    // SAFETY: the fork does nothing that another thread of the parent could have locked out but for the library's own,
    // which is made for that.
    match unsafe { libc::fork() } {
        0 => {
            let second = say();
            drop((first, second));
            std::process::exit(0);
        }
        fork => {
            let mut status = 0;
            // SAFETY: the place outlives the call.
            unsafe { libc::waitpid(fork, &mut status, 0) };
            assert_eq!(status, 0);
        }
    }
    println!("end");
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
}

common::callers! {
    "two-owners" => two_owners(),
    "no-maps" => without_maps_of_mounts(Errno::ENOSYS),
    "refused-maps" => without_maps_of_mounts(Errno::EPERM),
}

#[test]
fn owners_at_once_have_ids_apart() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let owners: Vec<_> = (0..4)
        .map(|_| {
            let mut owner = common::probe::caller("two-owners");
            owner.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut blocks = Vec::new();
    let mut owners = owners;
    for owner in &mut owners {
        let lines = std::io::BufReader::new(owner.stdout.take().unwrap()).lines();
        let lines = lines.map(Result::unwrap).take_while(|line| line != "end");
        blocks.extend(lines.map(|line| line.parse::<u32>().unwrap() / 1024));
    }
    assert_eq!(blocks.len(), 8);
    assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), 8, "{blocks:?}");
    for mut owner in owners {
        drop(owner.stdin.take());
        assert!(owner.wait().unwrap().success());
    }
}

/// A directory that belongs to whom sandboxes are outside that share files.
fn handed_over(mode: u32) -> TempDir {
    let dir = TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    chown(dir.path(), Some(SHARED), Some(SHARED)).unwrap();
    dir
}

fn owner(path: &Path) -> (u32, u32) {
    fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap()
}

const WRITE: &str = "umask 077; echo one >/d/kept; echo one >/d/gone; mkdir /d/sub; echo one >/d/sub/deep";
const AGAIN: &str =
    "umask 077; cat /d/kept /d/sub/deep; echo two >>/d/kept; rm /d/gone; rm -r /d/sub; ls /d; cat /d/kept";

/// What a program leaves in a directory of the host's is its own the next time, and can be handed to another to be read.
#[test]
fn what_stays_belongs_to_one_id_from_run_to_run() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let open = TempDir::new();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    for dir in [handed_over(0o700), open] {
        let bound = |script: &str| common::strict_sh(script).bind(dir.path(), "/d");
        assert_eq!(common::stdout(&bound(WRITE)), "");
        assert_eq!(owner(&dir.path().join("sub/deep")), (SHARED, SHARED));
        assert_eq!(common::stdout(&bound(AGAIN)), "one\none\nkept\none\ntwo");
        // By another policy, without a root of its own.
        let script = format!("cat {0}/kept; rm {0}/kept", dir.path().display());
        let host = Sandbox::new().user_ns().command("/bin/sh").args(["-c", &script]);
        assert_eq!(common::stdout(&host), "one\ntwo");
    }
    let read = handed_over(0o700);
    fs::write(read.path().join("file"), "text").unwrap();
    let bound = common::strict_sh("cat /d/file").bind_ro(read.path(), "/d");
    assert_eq!(common::stdout(&bound), "text");
}

/// The same for an upper layer, a list's overlay, and a root that is written to.
#[test]
fn what_an_upper_keeps_belongs_to_one_id_from_run_to_run() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let kept = TempDir::new();
    fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let (layer, root) = (common::root_dir(), common::root_dir());
    fs::create_dir(layer.path().join("d")).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    for dir in [layer.path(), root.path()] {
        // A directory whose owner has no meaning inside could not be copied up.
        chown(dir.join("d"), Some(SHARED), Some(SHARED)).unwrap();
    }
    let dirs = ["upper", "work", "upper2", "work2"].map(|name| kept.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir).unwrap();
        chown(dir, Some(SHARED), Some(SHARED)).unwrap();
    }
    let [upper, work, upper2, work2] = &dirs;
    let on = |root: RootFs| Sandbox::new().user_ns().pid_ns().rootfs(root).bind_ro("/usr", "/usr");
    let overlay = Overlay::new("/d", [layer.path().join("d")]).upper(upper2, work2);
    let policies = [
        on(RootFs::overlay([layer.path()]).upper(upper, work)),
        common::strict().mount(overlay),
        on(root.path().into()),
    ];
    for (i, policy) in policies.into_iter().enumerate() {
        assert_eq!(common::stdout(&shell(policy.clone(), WRITE)), "", "policy {i}");
        assert_eq!(common::stdout(&shell(policy, AGAIN)), "one\none\nkept\none\ntwo", "policy {i}");
    }
    for path in [upper.join("d/kept"), upper2.join("kept"), root.path().join("d/kept")] {
        assert_eq!(owner(&path), (SHARED, SHARED), "{path:?}");
    }
}

fn exchanges() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("user:[")).count()
}

/// The map of a mount is made once for an id, which is then taken again; not many are kept.
#[test]
fn maps_of_mounts_are_made_once_and_few_are_kept() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let dir = handed_over(0o700);
    let bound = || sleeper().bind(dir.path(), "/d");
    // A drop waits 50 ms at most for the end, which gives the id back.
    let had = || {
        let mut child = bound().spawn().unwrap();
        let ids = outside(&child);
        child.kill().unwrap();
        child.close().unwrap();
        ids
    };
    let first = had();
    for _ in 0..20 {
        assert_eq!(had(), first);
    }
    let many: Vec<Child> = (0..20).map(|_| bound().spawn().unwrap()).collect();
    assert!(exchanges() >= 20);
    drop(many);
    common::eventually("all but some are closed", || exchanges() <= 16);
}

/// Where a file system maps no ids, the files are the program's all the same.
#[test]
fn what_cannot_show_an_id_as_another_is_the_shared_ids() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    let dir = handed_over(0o700);
    let script = "echo new >/d/file; rm /d/file; sleep 1000";
    let policy = common::strict_sh(script).bind("/proc", "/mnt").bind(dir.path(), "/d");
    let prepared = policy.prepare().unwrap();
    let children = [policy.spawn(), policy.spawn(), prepared.spawn(), prepared.spawn()].map(Result::unwrap);
    assert!(children.iter().all(|child| outside(child) == (SHARED, SHARED)));
    // It has a mount below it that maps none; what stands beside that is as before.
    let mixed = handed_over(0o700);
    for name in ["proc", "beside"] {
        fs::create_dir(mixed.path().join(name)).unwrap();
    }
    let mount = |source: &Path, target: &Path| {
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>).unwrap();
    };
    mount(Path::new("/proc"), &mixed.path().join("proc"));
    let above = sleeper().bind(mixed.path(), "/d").spawn();
    let beside = sleeper().bind(mixed.path().join("beside"), "/d").spawn();
    nix::mount::umount2(&mixed.path().join("proc"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(outside(&above.unwrap()), (SHARED, SHARED));
    is_own(outside(&beside.unwrap()));
    // A directory that is passed open.
    let open = fs::File::open(dir.path()).unwrap();
    let passed = common::strict_sh("echo new >/proc/self/fd/5/file; rm /proc/self/fd/5/file; sleep 1000").fd(5, open);
    assert_eq!(outside(&passed.spawn().unwrap()), (SHARED, SHARED));
    // What may remount finds its mounts by itself.
    let trusted = Sandbox::new().user_ns().pid_ns().rootfs(RootFs::host()).bind(dir.path(), "/mnt");
    let trusted = trusted.capabilities(ringfence::Capabilities::all_but([])).command("/bin/sleep").arg("1000");
    assert_eq!(outside(&trusted.spawn().unwrap()), (SHARED, SHARED));
}

/// Before 5.12, or under a filter.
fn without_maps_of_mounts(errno: Errno) {
    const MOUNT_SETATTR: Call = call(libc::SYS_mount_setattr);
    refuse(&[MOUNT_SETATTR], errno);
    let dir = handed_over(0o700);
    for prepared in [false, true] {
        let output = |script: &str| {
            let policy = common::strict_sh(script).bind(dir.path(), "/d");
            if prepared { policy.prepare().unwrap().output() } else { policy.output() }.unwrap()
        };
        let written = output(WRITE);
        assert!(written.outcome.success(), "{written:?}");
        assert_eq!(String::from_utf8_lossy(&output(AGAIN).stdout), "one\none\nkept\none\ntwo\n");
    }
    assert_eq!(outside(&sleeper().bind(dir.path(), "/d").spawn().unwrap()), (SHARED, SHARED));
    is_own(outside(&sleeper().spawn().unwrap()));
    all_refused(&[MOUNT_SETATTR]);
}

#[test]
fn a_kernel_that_maps_no_mounts_is_enough() {
    let _clean = common::clean();
    if own_ids().is_none() {
        return;
    }
    for case in ["no-maps", "refused-maps"] {
        common::probe::succeeds(common::probe::caller(case));
    }
}
