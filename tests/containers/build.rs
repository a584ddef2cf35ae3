//! Images made of directories, programs and steps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use ringfence::image::{Image, ImageBuilder, Reference, Store};
use ringfence::{ErrorKind, IdMap, RootFs, Sandbox, Step};

use crate::common::{self, TempDir};

pub fn store() -> (TempDir, Store) {
    let dir = TempDir::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

pub fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image on which the host's programs run once its /usr is bound.
pub fn base(store: &Store) -> Image {
    let root = common::root_dir();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/sh\n")
        .unwrap();
    fs::write(root.path().join("etc/group"), "wheel:x:10:app\napp:x:1001:\n").unwrap();
    fs::create_dir_all(root.path().join("srv/app")).unwrap();
    fs::write(root.path().join("srv/app/old"), "old").unwrap();
    fs::write(root.path().join("srv/app/kept"), "kept").unwrap();
    ImageBuilder::scratch(store).copy(root.path(), "/").cmd(["sh"]).build(&name("base")).unwrap()
}

/// With the host's programs.
pub fn with_usr(sandbox: Sandbox) -> Sandbox {
    sandbox.bind_ro("/usr", "/usr")
}

/// What a script says in the image.
pub fn says(image: &Image, script: &str) -> String {
    let sandbox = with_usr(Sandbox::from_image(image).unwrap()).command("sh").args(["-c", script]);
    common::stdout(&sandbox)
}

/// Nothing that a build made for itself is left.
fn is_tidy(store: &Store) {
    let names = |dir: &str| {
        let dir = fs::read_dir(store.path().join(dir)).unwrap();
        let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(names("staging").is_empty(), "{:?}", names("staging"));
    let own = ["blobs", "index.json", "index.lock", "layers", "lock", "oci-layout", "partial", "staging"];
    assert_eq!(names(""), own.map(str::to_owned).into());
}

#[test]
fn steps_build_on_one_another() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let file = TempDir::new();
    let tool = file.path().join("tool");
    fs::write(&tool, "#!/bin/sh\necho tool of $WHO\n").unwrap();
    fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    let image = ImageBuilder::from(&base(&store))
        .copy(&tool, "/opt/bin/tool")
        .env("WHO", "nobody")
        .env("WHO", "everybody")
        .sandbox(with_usr)
        .run(["sh", "-c", "/opt/bin/tool > /srv/said; rm /srv/app/old; rm -r /etc; mkdir /etc; echo new > /etc/new"])
        .workdir("/srv")
        .label("a", "b")
        .entrypoint(["/opt/bin/tool"])
        .build(&name("steps:1"))
        .unwrap();
    assert_eq!(image.layers().len(), 3);
    assert_eq!(
        says(&image, "cat said; ls /srv/app /etc/passwd /etc/group 2>/dev/null; cat /etc/new; pwd"),
        "tool of everybody\n/srv/app:\nkept\nnew\n/srv"
    );
    assert_eq!(common::stdout(&with_usr(Sandbox::from_image(&image).unwrap())), "tool of everybody");
    let history = image.config().history().clone().unwrap();
    assert_eq!(history.len(), 2 + 7);
    assert_eq!(history.iter().filter(|entry| entry.empty_layer() != Some(true)).count(), 3);
    is_tidy(&store);
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let _clean = common::clean();
    let build = |old: bool, text: &str| {
        let (_dir, store) = store();
        let input = TempDir::new();
        for name in if old { ["b", "a"] } else { ["a", "b"] } {
            fs::write(input.path().join(name), text).unwrap();
        }
        let script = format!("echo {text} > /srv/made; ln /srv/made /srv/also; ln -s made /srv/link");
        let builder =
            ImageBuilder::from(&base(&store)).sandbox(with_usr).label("x", "1").label("y", "2").label("z", "3");
        let built = builder.copy(input.path(), "/input").run(["sh", "-c", &script]).build(&name("same")).unwrap();
        (built.digest().clone(), built.config().created().clone())
    };
    let first = build(true, "text");
    // Times of files are whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(build(false, "text"), first);
    assert_ne!(build(false, "TEXT").0, first.0);
    assert_eq!(first.1.unwrap(), "1970-01-01T00:00:00Z");
}

#[test]
fn times_are_kept_up_to_the_images_own() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let input = TempDir::new();
    let file = input.path().join("file");
    fs::write(&file, "x").unwrap();
    let seconds = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let built = |epoch| {
        let builder = ImageBuilder::scratch(&store).copy(&file, "/file").epoch(seconds(epoch));
        let layers = builder.build(&name("times")).unwrap().unpack().unwrap();
        fs::metadata(layers.dirs()[0].join("file")).unwrap().mtime()
    };
    fs::File::options().write(true).open(&file).unwrap().set_modified(seconds(1_000)).unwrap();
    assert_eq!((built(500), built(2_000)), (500, 1_000));
}

#[test]
fn a_program_that_fails_ends_the_build_with_its_last_words() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let builder = ImageBuilder::from(&base(&store)).sandbox(with_usr);
    let error = builder.clone().run(["sh", "-c", "echo no such luck >&2; exit 3"]).build(&name("fails")).unwrap_err();
    assert_eq!(error.step(), Step::BuildRun);
    assert!(error.to_string().contains("no such luck") && error.to_string().contains('3'), "{error}");
    assert_eq!(store.resolve(&name("fails")).unwrap_err().kind(), ErrorKind::NotFound);
    let error = builder.run([""; 0]).build(&name("fails")).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::BuildRun));
    is_tidy(&store);
}

#[test]
fn places_that_no_image_has_are_refused() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let file = TempDir::new();
    fs::write(file.path().join("x"), "x").unwrap();
    for to in ["relative", "/a/../../b", "/"] {
        let error = ImageBuilder::scratch(&store).copy(file.path().join("x"), to).build(&name("x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{to}: {error}");
    }
    let error = ImageBuilder::scratch(&store).copy(file.path().join("missing"), "/x").build(&name("x")).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::OpenSource, Some(libc::ENOENT)));
    let error = ImageBuilder::scratch(&store).env("A=", "x").build(&name("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn what_leads_to_a_copy_stays_as_the_image_has_it() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let tree = common::root_dir();
    fs::set_permissions(tree.path().join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("/opt/real", tree.path().join("way")).unwrap();
    std::os::unix::fs::symlink("round", tree.path().join("round")).unwrap();
    fs::create_dir_all(tree.path().join("opt/real")).unwrap();
    fs::write(tree.path().join("opt/real/old"), "old ").unwrap();
    let base = ImageBuilder::scratch(&store).copy(tree.path(), "/").build(&name("ways")).unwrap();
    let input = TempDir::new();
    fs::write(input.path().join("new"), "new ").unwrap();
    let file = input.path().join("new");
    let builder = ImageBuilder::from(&base).copy(&file, "/tmp/deep/er/new").copy(&file, "/way/one");
    let image = builder.copy(input.path(), "/way").build(&name("more")).unwrap();
    let says = says(&image, "cd /opt/real; cat old one new; readlink /way; stat -c %a /tmp/deep/er");
    assert_eq!(says, "old new new /opt/real\n755");
    let top = |path: &str| {
        let layers = image.unpack().unwrap();
        layers.dirs().iter().find_map(|layer| fs::symlink_metadata(layer.join(path)).ok()).unwrap().mode() & 0o7777
    };
    assert_eq!((top("tmp"), top("tmp/deep")), (0o1777, 0o755));
    for (to, errno) in [("/round/x", libc::ELOOP), ("/opt/real/old/x", libc::ENOTDIR)] {
        let error = ImageBuilder::from(&base).copy(&file, to).build(&name("no")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{to}: {error}");
    }
    assert_eq!(image.name(), Some(&name("more")));
}

#[test]
fn what_a_sandbox_wrote_becomes_a_layer() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let base = base(&store);
    let own = TempDir::new();
    let (upper, work) = (own.path().join("upper"), own.path().join("work"));
    [&upper, &work].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let root = RootFs::overlay(base.unpack().unwrap().dirs()).upper(&upper, &work);
    let sandbox = with_usr(Sandbox::from_image(&base).unwrap()).rootfs(root);
    let script = "echo written > /srv/app/new; chmod 751 /srv/app; rm /srv/app/old";
    common::stdout(&sandbox.command("sh").args(["-c", script]));
    let image = ImageBuilder::from(&base).upper(&upper).build(&name("committed")).unwrap();
    drop(own);
    assert_eq!(image.layers()[..1], *base.layers());
    assert_eq!(says(&image, "cd /srv/app; cat *; stat -c %a:%u .; ls"), "keptwritten\n751:0\nkept\nnew");
    // The base is as it was.
    assert_eq!(says(&base, "ls /srv/app"), "kept\nold");
}

/// An opaque directory of a layer is opaque there, and not in all the layers that are made on top of it.
#[test]
fn what_a_layer_hides_hides_nothing_of_the_layers_above() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let builder = |base: &Image| ImageBuilder::from(base).sandbox(with_usr);
    let image = builder(&base(&store))
        .run(["sh", "-c", "mkdir /data; echo 1 >/data/one"])
        .run(["sh", "-c", "rm -r /data; mkdir /data; echo 2 >/data/two"])
        .run(["sh", "-c", "echo 3 >/data/three"])
        .build(&name("hides"))
        .unwrap();
    assert_eq!(says(&image, "cd /data; ls; cat *"), "three\ntwo\n3\n2");
    // An upper that is used first without a user namespace and then in one, which believes other marks.
    let own = TempDir::new();
    let (upper, work) = (own.path().join("upper"), own.path().join("work"));
    [&upper, &work].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let layers = image.unpack().unwrap();
    let root = RootFs::overlay(layers.dirs()).upper(&upper, &work);
    let run = |sandbox: Sandbox, root: RootFs, script: &str| {
        common::stdout(&with_usr(sandbox).rootfs(root).command("sh").args(["-c", script]))
    };
    let sandbox = || Sandbox::from_image(&image).unwrap();
    run(sandbox(), root.clone(), "echo 4 >/data/four; rm /data/two; rm -r /srv; mkdir /srv");
    // Root's files are root's there as well.
    let own = |sandbox: Sandbox| match common::is_root() {
        true => sandbox.user_ns().uid_map(IdMap::new(0, 0, 65_536)).gid_map(IdMap::new(0, 0, 65_536)),
        false => sandbox.user_ns(),
    };
    assert_eq!(run(own(sandbox()), root, "cd /data; echo 5 >five; ls"), "five\nfour\nthree");
    let image = builder(&image).upper(&upper).build(&name("reused")).unwrap();
    assert_eq!(says(&image, "cd /data; ls; ls /srv"), "five\nfour\nthree");
}

#[test]
fn a_name_that_a_layer_cannot_have_is_told() {
    let _clean = common::clean();
    let (_dir, store) = store();
    let base = base(&store);
    let file = TempDir::new();
    fs::write(file.path().join("x"), "x").unwrap();
    fs::write(file.path().join(".wh.x"), "x").unwrap();
    let run = |script: &str| ImageBuilder::from(&base).sandbox(with_usr).run(["sh", "-c", script]);
    let copy = |from: &str, to: &str| ImageBuilder::from(&base).copy(file.path().join(from), to);
    for (builder, at) in [
        (run("touch /srv/.wh..wh..opq"), "/srv/.wh..wh..opq"),
        (run("mkdir -p /srv/.wh.app/in; touch /srv/.wh.app/in/file"), "/srv/.wh.app"),
        (copy("x", "/.wh.x"), "/.wh.x"),
        (copy("x", "/srv/.wh.d/e/x"), "/srv/.wh.d"),
        (copy("", "/srv"), "/srv/.wh.x"),
    ] {
        let error = builder.build(&name("names")).unwrap_err();
        assert_eq!((error.step(), error.path()), (Step::PackLayer, Some(at.as_ref())), "{error}");
    }
    is_tidy(&store);
}

const HANGS: &str = "RINGFENCE_TEST_HANGS";

#[test]
#[ignore = "run by the next test, in a process that it kills"]
fn hang() {
    let Some(dir) = std::env::var_os(HANGS) else { return };
    let store = Store::open(dir).unwrap();
    let script = "mkdir -m 0 /srv/closed; echo x >/srv/started; exec sleep 1000";
    let _ = ImageBuilder::from(&base(&store)).sandbox(with_usr).run(["sh", "-c", script]).build(&name("hangs"));
}

#[test]
fn what_a_killed_build_leaves_is_pruned() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let (dir, store) = store();
    let mut build = std::process::Command::new(std::env::current_exe().unwrap());
    build.args(["--ignored", "--exact", "build::hang"]).env(HANGS, store.path());
    let mut build = build.stdout(std::process::Stdio::null()).spawn().unwrap();
    let started = || {
        let left = fs::read_dir(store.path().join("staging")).unwrap().flatten();
        left.into_iter().any(|left| glob(&left.path(), "srv/started"))
    };
    let start = std::time::Instant::now();
    while !started() {
        assert!(start.elapsed() < Duration::from_secs(60), "the build has not begun");
        std::thread::sleep(Duration::from_millis(20));
    }
    build.kill().unwrap();
    build.wait().unwrap();
    // The sandbox ends with its owner.
    std::thread::sleep(Duration::from_millis(500));
    store.prune().unwrap();
    is_tidy(&store);
    ringfence::reap_stale().unwrap();
    drop(dir);
}

/// Whether there is such a path anywhere below the directory, not far.
fn glob(dir: &std::path::Path, path: &str) -> bool {
    if dir.join(path).exists() {
        return true;
    }
    let inner = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    inner.filter(|inner| inner.is_dir() && inner.components().count() < 12).any(|inner| glob(&inner, path))
}
