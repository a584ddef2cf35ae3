//! Sandboxes that run images.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use ringfence::image::ImageBuilder;
use ringfence::{Bytes, ErrorKind, Sandbox, Stdio, Step, Tmpfs, Verdict};

use crate::build::{base, name, says, store, with_usr};
use crate::common::{self, is_root, stdout};

#[test]
fn a_sandbox_does_what_the_image_says() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = ImageBuilder::from(&base(&store))
        .env("GREETING", "hello = world")
        .user("app")
        .workdir("/srv/app")
        .entrypoint(["sh", "-c", "echo $GREETING from $(pwd) $(id -u):$(id -g) $HOME: \"$@\"", "sh"])
        .cmd(["as", "told"])
        .build(&name("says"))
        .unwrap();
    let sandbox = || with_usr(Sandbox::from_image(&image).unwrap());
    let begin = "hello = world from /srv/app 1000:1001 /srv/app:";
    assert_eq!(stdout(&sandbox()), format!("{begin} as told"));
    assert_eq!(stdout(&sandbox().args(["other", "words"])), format!("{begin} other words"));
    assert_eq!(stdout(&sandbox().command("printenv").arg("GREETING")), "hello = world");
    if is_root() {
        assert_eq!(stdout(&sandbox().command("id").arg("-G")), "1001 10");
    }
    let strict = with_usr(common::strict().image(&image).unwrap());
    assert_eq!(stdout(&strict), format!("{begin} as told"));
    let leaked = sandbox().command("env");
    assert!(!stdout(&leaked).contains("CARGO"), "nothing of the caller's environment gets in");
}

#[test]
fn a_user_that_the_image_does_not_have_is_an_error() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = ImageBuilder::from(&base(&store)).user("stranger").build(&name("user")).unwrap();
    let error = Sandbox::from_image(&image).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::ImageUser));
    assert!(error.to_string().contains("stranger"), "{error}");
}

#[test]
fn users_are_looked_up_in_the_image_and_nowhere_else() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let host = common::TempDir::new();
    fs::write(host.path().join("passwd"), "app:x:7:7::/:/bin/sh\n").unwrap();
    // A layer that has its database lead to the host's.
    let layer = common::TempDir::new();
    fs::create_dir(layer.path().join("etc")).unwrap();
    std::os::unix::fs::symlink(host.path().join("passwd"), layer.path().join("etc/passwd")).unwrap();
    let image = ImageBuilder::from(&base(&store)).copy(layer.path(), "/").user("app").build(&name("link")).unwrap();
    assert_eq!(Sandbox::from_image(&image).unwrap_err().step(), Step::ImageUser);
}

#[test]
fn sandboxes_share_layers_and_nothing_that_they_write() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = base(&store);
    let layer = image.unpack().unwrap().dirs()[0].clone();
    let start = || {
        let script = "echo mine > /srv/app/old; read go; cat /srv/app/old; ls /srv/app";
        let sandbox = with_usr(Sandbox::from_image(&image).unwrap()).command("sh").args(["-c", script]);
        sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(|_| start()).collect();
    assert_eq!(says(&image, "cat /srv/app/old"), "old");
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"mine\nkept\nold\n");
    }
    assert_eq!(fs::read_to_string(layer.join("srv/app/old")).unwrap(), "old");
}

#[test]
fn layers_are_held_as_long_as_something_runs_on_them() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = base(&store);
    let dir = image.unpack().unwrap().dirs()[0].parent().unwrap().to_owned();
    let is_held = |dir: &Path| Flock::lock(fs::File::open(dir).unwrap(), FlockArg::LockExclusiveNonblock).is_err();
    assert!(!is_held(&dir));
    let sandbox = with_usr(Sandbox::from_image(&image).unwrap()).command("sleep").arg("100");
    drop(image);
    assert!(is_held(&dir));
    let mut child = sandbox.spawn().unwrap();
    drop(sandbox);
    assert!(is_held(&dir), "by the handle");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    // The thread that watches may look at the sandbox once more.
    let until = Instant::now() + Duration::from_secs(10);
    while is_held(&dir) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!is_held(&dir));
}

#[test]
fn a_program_is_asked_to_end_by_the_images_signal_and_killed_if_it_does_not() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = ImageBuilder::from(&base(&store)).stop_signal("SIGUSR1").build(&name("stop")).unwrap();
    let start = |script: &str| {
        let sandbox = with_usr(Sandbox::from_image(&image).unwrap()).command("sh").args(["-c", script]);
        let mut child = sandbox.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child
    };
    let trap = "trap 'exit 7' USR1; trap 'exit 8' TERM; echo; while :; do sleep 0.01; done";
    assert_eq!(start(trap).stop(Duration::from_secs(60)).unwrap().verdict(), Verdict::Exited(7));
    let deaf = "trap '' USR1; echo; while :; do sleep 0.01; done";
    assert_eq!(start(deaf).stop(Duration::from_millis(50)).unwrap().verdict(), Verdict::Signaled(libc::SIGKILL));
    let bad = ImageBuilder::from(&base(&store)).stop_signal("SIGNONE").build(&name("bad")).unwrap();
    assert_eq!(Sandbox::from_image(&bad).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn the_upper_can_be_another() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let image = base(&store);
    let write = |root| {
        let script = "head -c 3000000 /dev/zero > /srv/big 2>/dev/null && echo fits || echo full";
        let sandbox = with_usr(Sandbox::from_image(&image).unwrap().rootfs(root));
        stdout(&sandbox.command("sh").args(["-c", script]))
    };
    assert_eq!(write(image.rootfs().unwrap().tmpfs(Bytes::mib(1))), "full");
    assert_eq!(write(image.rootfs().unwrap().tmpfs(Bytes::mib(8))), "fits");
    assert_eq!(write(image.rootfs().unwrap().scratch()), "fits");
}

#[test]
fn a_container_has_a_sys_names_and_its_limits() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let root = common::root_dir();
    fs::create_dir(root.path().join("sys")).unwrap();
    fs::write(root.path().join("etc/resolv.conf"), "the image's").unwrap();
    let image = ImageBuilder::scratch(&store).copy(root.path(), "/").cmd(["sh"]).build(&name("names")).unwrap();
    let sandbox = || with_usr(Sandbox::from_image(&image).unwrap());
    let shell = |sandbox: Sandbox, script: &str| stdout(&sandbox.command("sh").args(["-c", script]));
    let names = "hostname; cat /etc/hostname; echo $HOSTNAME; getent hosts $HOSTNAME | grep -c 127.0.1.1";
    assert_eq!(shell(sandbox(), names), "sandbox\nsandbox\nsandbox\n1");
    assert_eq!(shell(sandbox().hostname("other"), names), "other\nother\nother\n1");
    assert_eq!(shell(sandbox().env("HOSTNAME", "mine"), "echo $HOSTNAME"), "mine");
    let sys = "ls -d /sys/devices 2>/dev/null; mkdir /sys/x 2>/dev/null || echo sealed; echo more >>/etc/hosts && echo written";
    assert_eq!(shell(sandbox(), sys), "/sys/devices\nsealed\nwritten");
    let resolves = "cat /etc/resolv.conf";
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or("the image's".to_owned());
    assert_eq!(shell(sandbox(), resolves), host.trim_end());
    assert_eq!(shell(sandbox().net_ns(), resolves), "the image's");
    let strict = with_usr(common::strict().image(&image).unwrap());
    assert_eq!(
        shell(strict.clone(), "echo $HOSTNAME; cat /etc/resolv.conf; ls /sys/devices 2>&1 | wc -l"),
        "sandbox\nthe image's1"
    );
    if !common::no_cgroups() {
        let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
        for sandbox in [sandbox().cgroup_parent(common::cgroup_parent()), strict] {
            assert_eq!(shell(sandbox.memory_limit(Bytes::mib(64)), limit), (64 << 20).to_string());
        }
    }
    // A dangling link, as images of whole systems have it, is what it was.
    fs::remove_file(root.path().join("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
    let image = ImageBuilder::scratch(&store).copy(root.path(), "/").build(&name("dangling")).unwrap();
    let sandbox = with_usr(Sandbox::from_image(&image).unwrap());
    assert_eq!(shell(sandbox, "readlink /etc/resolv.conf"), "../run/systemd/resolve/stub-resolv.conf");
}

#[test]
fn a_build_looks_up_names_and_keeps_none_of_the_files() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let root = common::root_dir();
    fs::write(root.path().join("etc/hosts"), "the image's").unwrap();
    let base = ImageBuilder::scratch(&store).copy(root.path(), "/").build(&name("from")).unwrap();
    let script = "grep -q localhost /etc/hosts && ls /etc > /seen; echo $HOSTNAME > /name";
    let image = ImageBuilder::from(&base).sandbox(with_usr).run(["sh", "-c", script]).build(&name("built")).unwrap();
    let shell = |script: &str| {
        stdout(&with_usr(common::sandbox().rootfs(image.rootfs().unwrap())).command("sh").args(["-c", script]))
    };
    assert_eq!(shell("cat /etc/hosts; ls -d /etc/hostname /etc/resolv.conf /sys 2>/dev/null; true"), "the image's");
    assert_eq!(shell("cat /seen /name"), "hosts\nsandbox");
}

#[test]
fn programs_of_every_day_run_from_an_image() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let root = common::root_dir();
    for (file, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ] {
        fs::write(root.path().join("etc").join(file), text).unwrap();
    }
    fs::create_dir(root.path().join("sys")).unwrap();
    let image = ImageBuilder::scratch(&store).copy(root.path(), "/").user("nobody").build(&name("everyday")).unwrap();
    // The programs are the host's, with what they have in /etc: the links by which they are found, and java's settings.
    let has_settings = |name: &str| name == "alternatives" || name.starts_with("java");
    let names = fs::read_dir("/etc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let settings: Vec<String> = names.filter(|name| has_settings(name)).map(|name| format!("/etc/{name}")).collect();
    common::everyday::run(|| {
        let sandbox = with_usr(Sandbox::from_image(&image).unwrap())
            .net_ns()
            .env("HOME", "/tmp")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin");
        let sandbox = settings.iter().fold(sandbox, |sandbox, path| sandbox.bind_ro(path, path));
        sandbox.mount(Tmpfs::new("/tmp").size(Bytes::mib(400)).mode(0o1777))
    });
}
