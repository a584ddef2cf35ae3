//! The kinds of roots, and that nothing leads out of them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::common;
use nix::mount::{MsFlags, mount};
use ringfence::{
    Attached, Bind, Bytes, Capabilities, Capability, Command, Enforcement, ErrorKind, Feature, Overlay, RootFs,
    Sandbox, Stdio, Step,
};

/// Runs the test `name` again inside a sandbox, where it may mount without harm. True inside.
fn inside(name: &str) -> bool {
    const INSIDE: &str = "RINGFENCE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let _clean = common::clean();
    let sandbox = common::sandbox().mount_ns().command(std::env::current_exe().unwrap()).env(INSIDE, "1");
    let text = common::stdout(&sandbox.args(["--exact", &format!("rootfs::{name}")]));
    assert!(text.contains("1 passed"), "{text}");
    false
}

fn mount_tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// An overlay's layers: a root to run on, and on top of it a directory for each name, with the file `/who` in it.
struct Layers {
    dir: common::TempDir,
    base: common::TempDir,
}

impl Layers {
    fn new(names: &[&str]) -> Layers {
        let layers = Layers { dir: common::TempDir::new(), base: common::root_dir() };
        fs::write(layers.base.path().join("who"), "base").unwrap();
        fs::write(layers.base.path().join("below"), "base").unwrap();
        for name in names {
            fs::create_dir(layers.path(name)).unwrap();
            fs::write(layers.path(name).join("who"), name).unwrap();
        }
        layers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self, names: &[&str]) -> RootFs {
        RootFs::overlay(names.iter().map(|name| self.path(name)).chain([self.base.path().to_owned()]))
    }
}

fn on(root: RootFs, script: &str) -> Sandbox {
    common::sh(script).rootfs(root).mount(Bind::new("/usr", "/usr").read_only())
}

#[test]
fn a_directory_is_written_through_and_keeps_what_was_written() {
    let _clean = common::clean();
    let root = common::root_dir();
    let sandbox = common::on_root(common::sh("echo kept >/etc/new; pwd"), &root);
    assert_eq!(common::stdout(&sandbox), "/");
    assert_eq!(fs::read_to_string(root.path().join("etc/new")).unwrap(), "kept\n");
}

#[test]
fn a_read_only_directory_is_so_with_all_that_is_mounted_below() {
    if !inside("a_read_only_directory_is_so_with_all_that_is_mounted_below") {
        return;
    }
    let root = common::root_dir();
    mount_tmpfs(&root.path().join("sub"));
    mount_tmpfs(&root.path().join("sub/deep"));
    let script = "for d in / /etc /sub /sub/deep; do touch $d/x 2>&1 && echo $d; done; cat /sub/deep/was; touch /tmp/x";
    fs::write(root.path().join("sub/deep/was"), "there").unwrap();
    let writable = on(RootFs::dir(root.path()), script).tmpfs("/tmp", 1 << 20);
    assert_eq!(common::stdout(&writable), "/\n/etc\n/sub\n/sub/deep\nthere");
    let text = common::stdout(&on(RootFs::dir(root.path()).read_only(), script).tmpfs("/tmp", 1 << 20));
    assert_eq!(text.matches("Read-only file system").count(), 4, "{text}");
    nix::mount::umount(&root.path().join("sub/deep")).unwrap();
    nix::mount::umount(&root.path().join("sub")).unwrap();
}

#[test]
fn mount_targets_are_made_on_a_read_only_root_before_it_is_sealed() {
    let _clean = common::clean();
    let root = common::root_dir();
    let script = "touch /made/here/file && ! touch /made/x 2>/dev/null && ! touch /x 2>/dev/null && echo sealed";
    let sandbox = on(RootFs::dir(root.path()).read_only(), script).tmpfs("/made/here", 1 << 20);
    assert_eq!(common::stdout(&sandbox), "sealed");
}

#[test]
fn the_hosts_root_is_read_only_but_for_the_sandboxs_own_mounts() {
    let _clean = common::clean();
    let script = "[ -z \"$(ls -A /tmp)\" ] && touch /tmp/x && [ -r /etc/passwd ] || exit 1
        ! touch /etc/x 2>/dev/null && ! touch /usr/x 2>/dev/null && ! touch /x 2>/dev/null || exit 2
        cut -d' ' -f5,6 /proc/self/mountinfo; echo /proc/[0-9]*; ls /dev";
    let text = common::stdout(&common::sh(script).rootfs(RootFs::host()).pid_ns());
    let (mounts, rest): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.contains(' ') && !line.starts_with("/proc/"));
    let writable = mounts.iter().filter_map(|mount| {
        let (at, options) = mount.split_once(' ').unwrap();
        (!options.split(',').any(|option| option == "ro")).then_some(at)
    });
    let mut writable: Vec<&str> = writable.collect();
    writable.sort();
    let nodes = ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];
    writable.retain(|at| common::is_root() || !nodes.contains(at));
    assert_eq!(writable, ["/dev", "/dev/pts", "/dev/shm", "/proc", "/tmp"], "{text}");
    assert!(mounts.len() > 5, "{text}");
    assert_eq!(rest[0].split(' ').next(), Some("/proc/1"), "{text}");
    assert!(rest.contains(&"null") && !rest.contains(&"kmsg") && rest.len() < 20, "{text}");
}

#[test]
fn a_given_upper_gets_what_is_written_and_the_lowers_stay() {
    let _clean = common::clean();
    let layers = Layers::new(&["top"]);
    let (upper, work) = (layers.path("upper"), layers.path("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let root = layers.root(&["top"]).upper(&upper, &work);
    let script = "cat who; echo changed >who; rm below; mkdir -p new/dir; cat who; [ -e below ] || echo gone";
    assert_eq!(common::stdout(&on(root.clone(), script)), "topchanged\ngone");
    assert_eq!(fs::read_to_string(upper.join("who")).unwrap(), "changed\n");
    assert!(upper.join("new/dir").is_dir());
    assert_eq!(fs::read_to_string(layers.path("top/who")).unwrap(), "top");
    assert_eq!(fs::read_to_string(layers.base.path().join("below")).unwrap(), "base");
    assert_eq!(common::stdout(&on(root, "cat who; [ -e below ] || echo gone")), "changed\ngone");
    // The kernel leaves a directory of mode 0 in the work directory.
    let _ = fs::remove_dir(work.join("work"));
}

/// Also where the host's overlays note redirects (`redirect_dir` of the module is Y on some), ours note none: the upper is
/// whole without the layers below it.
#[test]
fn an_upper_is_whole_without_what_is_below() {
    let _clean = common::clean();
    let layers = Layers::new(&["top"]);
    fs::create_dir_all(layers.path("top/dir/in")).unwrap();
    fs::write(layers.path("top/dir/in/file"), "kept").unwrap();
    let (upper, work) = (layers.path("upper"), layers.path("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let root = layers.root(&["top"]).upper(&upper, &work);
    assert_eq!(common::stdout(&on(root, "mv dir moved; chmod 600 moved/in/file; cat moved/in/file")), "kept");
    assert_eq!(fs::read_to_string(upper.join("moved/in/file")).unwrap(), "kept");
    for path in ["moved", "moved/in", "moved/in/file"] {
        let path = std::ffi::CString::new(upper.join(path).into_os_string().into_encoded_bytes()).unwrap();
        for name in [c"trusted.overlay.redirect", c"user.overlay.redirect", c"trusted.overlay.metacopy"] {
            // SAFETY: two strings, and no buffer.
            let size = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
            assert_eq!(size, -1, "{path:?} {name:?}");
        }
    }
    let _ = fs::remove_dir(work.join("work"));
}

#[test]
fn a_scratch_upper_is_there_for_one_run_and_then_gone() {
    let _clean = common::clean();
    let layers = Layers::new(&["top"]);
    let scratch = layers.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let scripts = "cat who; echo changed >who; mkdir -p a/b; head -c 2000000 /dev/zero >big; cat who";
    for root in [layers.root(&["top"]).scratch(), layers.root(&["top"]).scratch_in(&scratch)] {
        for _ in 0..2 {
            assert_eq!(common::stdout(&on(root.clone(), scripts)), "topchanged");
        }
    }
    let sandbox = on(layers.root(&["top"]).scratch_in(&scratch), "echo up; read line").stdin(Stdio::piped());
    let mut child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1, "it lies where it was asked for");
    child.close().unwrap();
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(layers.path("top/who")).unwrap(), "top");
}

#[test]
fn a_tmpfs_upper_holds_no_more_than_its_size() {
    let _clean = common::clean();
    let layers = Layers::new(&["top"]);
    let script = "head -c 500000 /dev/zero >small && echo fits; head -c 3000000 /dev/zero >big || stat -c %s big";
    let sandbox = on(layers.root(&["top"]).tmpfs(Bytes::mib(1)), script);
    let output = sandbox.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("No space left"), "{text}");
    let size: u64 = text.strip_prefix("fits\n").unwrap().trim().parse().unwrap();
    assert!(size <= (1 << 20) - 500_000, "{size}");
    let default = on(layers.root(&["top"]), "head -c 3000000 /dev/zero >big; stat -c %s big");
    assert_eq!(common::stdout(&default), "3000000");
}

#[test]
fn the_first_of_several_lower_directories_is_on_top() {
    let _clean = common::clean();
    let layers = Layers::new(&["a", "b", "c"]);
    let who = |names: &[&str]| common::stdout(&on(layers.root(names), "cat /who /below"));
    assert_eq!(who(&["a", "b", "c"]), "abase");
    assert_eq!(who(&["c", "a", "b"]), "cbase");
    assert_eq!(who(&[]), "basebase");
}

#[test]
fn a_read_only_overlay_takes_no_write() {
    let _clean = common::clean();
    let layers = Layers::new(&["a"]);
    let script = "cat /who; touch /x 2>/dev/null || echo sealed; touch /tmp/x && echo open";
    let sandbox = on(layers.root(&["a"]).read_only(), script).tmpfs("/tmp", 1 << 20);
    assert_eq!(common::stdout(&sandbox), "asealed\nopen");
}

#[test]
fn names_may_hold_what_overlay_takes_for_punctuation() {
    let _clean = common::clean();
    let odd =
        ["co:lon", "com,ma", r"back\slash", "spa ce", "new\nline", r#"qu"ote'"#, r"end\", "p%s=x", "ünï", "-dash"];
    let layers = Layers::new(&odd);
    for name in odd {
        assert_eq!(common::stdout(&on(layers.root(&[name]), "cat /who")), name, "lower {name:?}");
        assert_eq!(common::stdout(&on(layers.root(&odd), "cat /who")), odd[0]);
        let (upper, work) = (layers.path(&format!("u{name}")), layers.path(&format!("w{name}")));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        common::stdout(&on(layers.root(&[]).upper(&upper, &work), "echo x >/written"));
        assert_eq!(fs::read_to_string(upper.join("written")).unwrap(), "x\n", "upper {name:?}");
        let _ = fs::remove_dir(work.join("work"));
        let sandbox = on(RootFs::dir(layers.base.path()), "cat /bound/who").bind_ro(layers.path(name), "/bound");
        assert_eq!(common::stdout(&sandbox), name, "bind {name:?}");
    }
}

/// Images may have 127 layers, overlayfs takes 500, and mount(2) one page of options.
#[test]
fn many_layers_with_long_names_are_one_root() {
    let _clean = common::clean();
    let names: Vec<String> = (0..499).map(|i| format!("{i}-{}", "x".repeat(200))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let layers = Layers::new(&names);
    for name in &names {
        fs::write(layers.path(name).join(format!("of-{name}")), "").unwrap();
    }
    let (upper, work) = (layers.path(&"upper".repeat(30)), layers.path(&"work".repeat(30)));
    let scratch = common::TempDir::new();
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let script = "cat /who; echo; ls -d /of-* | wc -l; cat /below; ls -a /..; echo new >/new && cat /new";
    for root in
        [layers.root(&names), layers.root(&names).upper(&upper, &work), layers.root(&names).scratch_in(scratch.path())]
    {
        let text = common::stdout(&on(root, script));
        assert!(text.starts_with(&format!("{}\n499\nbase", names[0])), "{text}");
        assert!(text.ends_with("new") && !text.contains("upper"), "{text}");
    }
    assert!(upper.join("new").exists());
    let overlay = Overlay::new("/o", names.iter().map(|name| layers.path(name)));
    let listed = on(RootFs::dir(layers.base.path()), "cat /o/who; ls /o/of-* | wc -l").mount(overlay);
    assert_eq!(common::stdout(&listed), format!("{}499", names[0]));
}

#[test]
fn more_layers_than_can_be_are_refused_before_anything_is_tried() {
    let layers = |count: usize| (0..count).map(|i| format!("/no/such/layer/{i}"));
    for (sandbox, most) in [
        (common::sandbox().rootfs(RootFs::overlay(layers(501))), "500"),
        (common::sandbox().rootfs(RootFs::overlay(layers(201)).id_mapped()), "200"),
        (common::sandbox().mount(Overlay::new("/o", layers(501))), "500"),
    ] {
        let error = sandbox.spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("{most} layers at most")), "{error}");
    }
}

/// A file of the host's that no sandbox with a root of its own may find.
fn marker(dir: &common::TempDir) -> String {
    let path = dir.path().join("marker");
    fs::write(&path, "").unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_way_leads_out_of_the_root() {
    let _clean = common::clean();
    let (dir, layers) = (common::TempDir::new(), Layers::new(&["top"]));
    let what = format!("escape {}", marker(&dir));
    let (exe, base) = (std::env::current_exe().unwrap(), layers.base.path());
    for root in [RootFs::dir(base), layers.root(&["top"]), layers.root(&["top"]).scratch()] {
        let sandbox = common::probe::at(on(root, ""), "/tmp/probe", &what).bind_ro(&exe, "/tmp/probe");
        for sandbox in [sandbox.clone().pid_ns(), sandbox.pid_ns().init(true)] {
            assert_eq!(common::stdout(&sandbox), "looked everywhere");
        }
    }
    // The same search without a root of its own finds it.
    let without = common::probe::run(common::sandbox().mount_ns(), &what);
    let text = common::stdout(&without);
    assert!(["path", "dotdot", "proc", "chroot"].iter().all(|way| text.contains(way)), "{text}");
}

#[test]
fn what_is_stacked_on_the_callers_root_goes_with_it() {
    if !inside("what_is_stacked_on_the_callers_root_goes_with_it") {
        return;
    }
    let (dir, layers) = (common::TempDir::new(), Layers::new(&["top"]));
    let what = format!("escape {}", marker(&dir));
    for _ in 0..2 {
        mount(Some("/"), "/", None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).unwrap();
    }
    let exe = std::env::current_exe().unwrap();
    for root in [RootFs::dir(layers.base.path()), layers.root(&["top"])] {
        let sandbox = common::probe::at(on(root, ""), "/probe", &what).bind_ro(&exe, "/probe").pid_ns();
        assert_eq!(common::stdout(&sandbox), "looked everywhere");
    }
}

#[test]
fn the_mount_table_shows_the_sandboxs_mounts_only() {
    let _clean = common::clean();
    let layers = Layers::new(&["top"]);
    let script = "cut -d' ' -f5 /proc/self/mountinfo | grep -v ^/usr/ | sort | tr '\\n' ' '";
    let nodes = if common::is_root() { "" } else { "/dev/full /dev/null " };
    let more = if common::is_root() { "" } else { "/dev/random " };
    let last = if common::is_root() { "" } else { "/dev/tty /dev/urandom /dev/zero " };
    let expected = format!("/ /dev {nodes}/dev/pts {more}/dev/shm {last}/proc /usr");
    for root in [RootFs::dir(layers.base.path()), layers.root(&["top"]), layers.root(&["top"]).scratch()] {
        assert_eq!(common::stdout(&on(root, script).pid_ns()), expected);
    }
}

#[test]
fn the_hosts_mounts_are_what_they_were() {
    let _clean = common::clean();
    let read = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, layers) = (read(), Layers::new(&["top"]));
    for root in [RootFs::dir(layers.base.path()).read_only(), layers.root(&["top"]), RootFs::host()] {
        let inside =
            common::stdout(&common::sh("cat /proc/self/mountinfo").rootfs(root).bind_ro("/usr", "/usr").pid_ns());
        assert_ne!(inside, before.trim_end());
        assert_eq!(read(), before);
    }
}

#[test]
fn mounts_pass_neither_in_nor_out_though_all_is_shared() {
    if !inside("mounts_pass_neither_in_nor_out_though_all_is_shared") {
        return;
    }
    let dir = common::TempDir::new();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).unwrap();
    let here = |name: &str| {
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!("{}/{name} ", dir.path().display()))
    };
    let script = format!(
        "cd {}; mount -t tmpfs t in && echo up; read line; grep -c '/out ' /proc/self/mountinfo; grep -c '/in ' /proc/self/mountinfo",
        dir.path().display()
    );
    fs::create_dir(dir.path().join("in")).unwrap();
    for sandbox in [common::sh(&script).mount_ns(), common::sh(&script).rootfs(RootFs::dir("/")).default_mounts(false)]
    {
        let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        assert!(!here("in"), "out of the sandbox");
        mount_tmpfs(&dir.path().join("out"));
        assert!(here("out"));
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["0", "1"], "into the sandbox");
        child.wait().unwrap();
        nix::mount::umount(&dir.path().join("out")).unwrap();
    }
}

#[test]
fn every_root_works_below_a_sandbox_too() {
    if !inside("every_root_works_below_a_sandbox_too") {
        return;
    }
    let layers = Layers::new(&["top"]);
    fs::create_dir(layers.path("top/dir")).unwrap();
    fs::write(layers.path("top/dir/old"), "").unwrap();
    // A directory that is made anew hides what the lower one holds only if overlay can mark it.
    let script =
        "rm -r dir && mkdir dir && ls -A dir && rm who below && ls -d who below 2>/dev/null; echo done >/dev/null; pwd";
    for root in [layers.root(&["top"]), layers.root(&["top"]).scratch(), layers.root(&["top"]).scratch_in("/tmp")] {
        assert_eq!(common::stdout(&on(root, script).pid_ns()), "/");
    }
    assert_eq!(common::stdout(&common::sh("pwd").rootfs(RootFs::host()).pid_ns()), "/");
    assert_eq!(common::stdout(&on(RootFs::dir(layers.base.path()), "pwd").user_ns().pid_ns().init(true)), "/");
}

#[test]
fn a_scratch_directory_of_roots_serves_who_is_nobody_outside() {
    let _clean = common::clean();
    let (layers, base) = (Layers::new(&["top"]), common::TempDir::new());
    fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let script = "echo new >file && mkdir -p dir && cat file && stat -c %u:%g file";
    let scratch = || layers.root(&["top"]).scratch_in(base.path());
    assert_eq!(common::stdout(&on(scratch(), script).user_ns().pid_ns()), "new\n0:0");
    let trusted = on(scratch(), script).user_ns().capabilities(ringfence::Capabilities::all_but([]));
    assert_eq!(common::stdout(&trusted), "new\n0:0");
    let strict = common::strict().rootfs(scratch()).read_only_root(false).bind_ro("/usr", "/usr");
    let strict = strict.user(7, 7).command("/bin/sh").args(["-c", script]);
    assert_eq!(common::stdout(&strict), "new\n7:7");
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let _clean = common::clean();
    for root in [RootFs::dir("/no/such/root"), RootFs::overlay(["/no/such/root"])] {
        let error = common::sandbox().rootfs(root).output().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::OpenSource, Some(libc::ENOENT)), "{error}");
        assert_eq!(error.path().unwrap(), Path::new("/no/such/root"));
    }
    for root in [RootFs::overlay([""; 0]), RootFs::dir("/").scratch(), RootFs::dir("/a\0b")] {
        assert_eq!(common::sandbox().rootfs(root).check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_root_may_cover_that_of_the_host_for_who_cannot_take_it_off() {
    let _clean = common::clean();
    let (dir, layers) = (common::root_dir(), Layers::new(&["top"]));
    let covering = |root: RootFs| common::sandbox().pid_ns().rootfs(root).no_pivot(true);
    for (root, with_usr) in [
        (RootFs::dir(dir.path()), true),
        (RootFs::overlay([dir.path()]), true),
        (layers.root(&["top"]), true),
        (RootFs::programs(), false),
        (RootFs::host(), false),
    ] {
        let sandbox = covering(root).capabilities(Capabilities::none());
        let sandbox = if with_usr { sandbox.bind_ro("/usr", "/usr") } else { sandbox };
        let enforced = sandbox.check().unwrap();
        let how = enforced.get(Feature::RootFs);
        assert!(matches!(how, Some(Enforcement::Partial(gap)) if gap.contains("no_pivot")), "{how:?}");
        let shell = || Command::new("/usr/bin/sh").args(["-c", "cd / && pwd && ls .. >/dev/null && cd .. && pwd"]);
        assert_eq!(sandbox.prepare().unwrap().with(shell()).output().unwrap().stdout, b"/\n/\n");
        assert_eq!(sandbox.pool(1).unwrap().output(shell()).unwrap().stdout, b"/\n/\n");
    }
    let error =
        covering(RootFs::host()).capabilities(Capabilities::keep([Capability::CAP_SYS_ADMIN])).check().unwrap_err();
    assert_eq!((error.kind(), &*error.problems()[0].subject), (ErrorKind::Unsupported, "no_pivot"), "{error}");
    assert_eq!(
        covering(RootFs::host()).user_ns().capabilities(Capabilities::all_but([])).check().unwrap_err().problems()[0]
            .subject,
        "no_pivot"
    );
    // A further program gets no more either.
    let sandbox = covering(RootFs::host()).capabilities(Capabilities::none());
    let child = sandbox.command("/usr/bin/sleep").arg("1000").spawn().unwrap();
    let more = Command::new("/usr/bin/true").capabilities(Capabilities::keep([Capability::CAP_SYS_ADMIN]));
    assert_eq!(child.exec(more.clone()).unwrap_err().problems()[0].subject, "no_pivot");
    let attached = Attached::open(&child.ticket().unwrap()).unwrap();
    attached.exec("/usr/bin/true").unwrap().wait().unwrap();
    assert_eq!(attached.exec(more).unwrap_err().problems()[0].subject, "no_pivot");
    // Nor by a user, or an exec, that brings more than the sandbox's own program has.
    let of_user = covering(RootFs::host()).user(1000, 1000).no_new_privs(true);
    if common::is_root() {
        let child = of_user.command("sleep").arg("1000").spawn().unwrap();
        for more in [Command::new("true").user(0, 0), Command::new("true").no_new_privs(false)] {
            assert_eq!(child.exec(more).unwrap_err().problems()[0].subject, "no_pivot");
        }
        assert!(child.exec(Command::new("true").user(1001, 1001)).unwrap().wait().unwrap().success());
    }
}
