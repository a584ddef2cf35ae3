//! Known ways out of other runtimes, by way of a bundle: a root file system, a configuration or a state that somebody
//! hostile has made. Victims are in the test's own directory.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use super::volumes::runs;
use super::{Bundle, groups};
use crate::common;

impl Bundle {
    /// A directory of the host's that no container must reach, with one file.
    fn victim(&self) -> PathBuf {
        let victim = self.path("victim");
        if !victim.exists() {
            fs::create_dir(&victim).unwrap();
            fs::write(victim.join("file"), "whole").unwrap();
        }
        victim
    }

    #[track_caller]
    fn is_untouched(&self, what: &str) {
        let names: Vec<_> = fs::read_dir(self.victim()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{what}");
        assert_eq!(fs::read_to_string(self.victim().join("file")).unwrap(), "whole", "{what}");
        assert!(self.is_empty() && groups().is_empty(), "{what}");
    }

    /// Makes `name` in the root a link to `to`, once as an absolute path and once from the link's own place.
    fn linked(&self, name: &str, to: &Path, then: impl Fn()) {
        let at = self.root.path().join(name);
        let depth = at.components().count() - 2;
        let relative = Path::new(&"../".repeat(depth)).join(to.strip_prefix("/").unwrap());
        let _ = fs::remove_dir(&at);
        for to in [to, &relative] {
            symlink(to, &at).unwrap();
            then();
            fs::remove_file(&at).unwrap();
        }
    }
}

/// CVE-2019-19921, CVE-2023-27561. A /proc or /sys of the root's that is a link, or no directory, is refused.
#[test]
fn a_proc_or_sys_of_the_bundle_that_is_no_directory_is_refused() {
    let _clean = common::clean();
    if common::needs_root("a sysfs of its own") {
        return;
    }
    let bundle = Bundle::new("true");
    for name in ["proc", "sys"] {
        for to in [bundle.victim(), bundle.root.path().join("tmp"), "/tmp".into()] {
            bundle.linked(name, &to, || {
                let said = bundle.fails(&["run", "box"]);
                assert!(said.contains(&format!("/{name}")) && said.contains("ELOOP"), "{said}");
                bundle.is_untouched(name);
            });
        }
        let at = bundle.root.path().join(name);
        fs::write(&at, "").unwrap();
        assert!(bundle.fails(&["run", "box"]).contains("ENOTDIR"), "{name}");
        fs::remove_file(&at).unwrap();
        fs::create_dir(&at).unwrap();
    }
    runs(&bundle);
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2026-41579, CVE-2026-88264, CVE-2026-55686. What a container's creation makes and
/// mounts is made and mounted below its root, whatever is a link there.
#[test]
fn links_of_a_root_lead_nowhere() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let plain = || make("true").with("/root/readonly", json!(false));
        let link = plain().mounting(json!({"destination": "/link/made", "type": "tmpfs", "options": ["size=1m"]}));
        let file = plain().holding("data/f").mounting(json!(
            {"destination": "/link/file", "type": "bind", "source": "data/f", "options": ["bind"]}));
        let device =
            plain().with("/linux/devices", json!([{"path": "/link/full", "type": "c", "major": 1, "minor": 7}]));
        let cases = [
            ("dev", plain()),
            ("dev", plain().without_mounts("/dev")),
            ("link", link),
            ("link", file),
            ("link", device),
            ("link", plain().with("/process/cwd", json!("/link/made"))),
            ("link", plain().with("/linux/maskedPaths", json!(["/link", "/link/file"]))),
            ("link", plain().with("/linux/readonlyPaths", json!(["/link", "/link/file"]))),
        ];
        for (name, bundle) in cases {
            let victim = bundle.victim();
            if common::is_root() {
                // Who could write there would.
                nix::unistd::chown(&victim, Some(65534.into()), Some(65534.into())).unwrap();
            }
            bundle.linked(name, &victim, || {
                // Either it is refused, or made below the root.
                let said = bundle.says(&["run", "box"]);
                assert!(said.status.code().is_some_and(|code| code <= 1), "{said:?}");
                bundle.is_untouched(&format!("{name} {:?}", said.err));
                let inside = bundle.root.path().join(victim.strip_prefix("/").unwrap());
                let _ = fs::remove_dir_all(inside);
            });
        }
    }
}

/// CVE-2025-31133, CVE-2025-52565. A mask is the null device, whatever the root has in its place.
#[test]
fn a_mask_is_not_made_of_what_the_root_has() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("cat /secret; echo over > /secret; echo end").with("/root/readonly", json!(false));
        let bundle = bundle.with("/linux/maskedPaths", json!(["/secret"])).without_mounts("/dev");
        fs::write(bundle.root.path().join("secret"), "secret\n").unwrap();
        let victim = bundle.victim().join("file");
        for name in ["null", "console", "ptmx"] {
            symlink(&victim, bundle.root.path().join("dev").join(name)).unwrap();
        }
        assert_eq!(runs(&bundle), "end\n");
        assert_eq!(fs::read_to_string(bundle.root.path().join("secret")).unwrap(), "secret\n");
        bundle.is_untouched("a mask");
    }
}

/// CVE-2024-21626, CVE-2016-9962, CVE-2022-29162. What the runtime was given open is not there for the program, nor for
/// its hooks inside, nor a way to a working directory; and no capability is inheritable that was not asked for.
#[test]
fn nothing_that_the_runtime_has_open_is_there_inside() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let left_open = File::open("/").unwrap();
        fcntl(&left_open, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let script = "for fd in /proc/self/fd/*; do readlink $fd; done | grep -x /; grep CapInh /proc/self/status";
        let bundle = make(script).with("/root/readonly", json!(false));
        let list = json!([{"path": "/bin/sh", "args": ["sh", "-c", "for fd in /proc/self/fd/*; do readlink $fd; done > $OUT; exit 0"],
            "env": ["PATH=/usr/bin:/bin", format!("OUT={}", bundle.path("fds").display())]}]);
        let bundle = bundle.with("/hooks", json!({"createContainer": list}));
        assert_eq!(runs(&bundle), "CapInh:\t0000000000000000\n");
        assert!(!bundle.read("fds").lines().any(|to| to == "/"), "{:?}", bundle.read("fds"));
        let number = left_open.as_raw_fd();
        for cwd in
            [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../.."), "/proc/1/root/..".into()]
        {
            let bundle = make("true").with("/process/cwd", json!(cwd));
            bundle.fails(&["run", "box"]);
            assert!(bundle.is_empty(), "{cwd}");
        }
    }
}

/// CVE-2022-0811, CVE-2023-6476. Settings that are not of the container's own namespaces, or that carry others along.
#[test]
fn settings_of_the_host_are_refused() {
    let _clean = common::clean();
    for (name, value) in [
        ("kernel.core_pattern", "|/bin/true"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
        ("kernel.shmmax", "1\nkernel.core_pattern=x"),
        ("net/../kernel/core_pattern", "x"),
        ("net..kernel.core_pattern", "x"),
        ("vm.overcommit_memory", "1"),
        ("fs.protected_symlinks", "0"),
        ("kernel.modprobe", "/x"),
        ("", "1"),
    ] {
        let bundle = Bundle::new("true").with("/linux/sysctl", json!({name: value}));
        bundle.fails(&["run", "box"]);
        bundle.is_untouched(name);
    }
    let shared =
        Bundle::new("true").without_namespace("network").with("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    if common::is_root() {
        assert!(shared.fails(&["run", "box"]).contains("net.ipv4.ip_forward"));
    }
    // What an annotation says about systemd has no effect.
    let odd = Bundle::new("true").with("/annotations", json!({"org.systemd.property.ExecStart": "'/bin/true'"}));
    runs(&odd);
}

/// CVE-2024-40635, CVE-2026-46680, CVE-2026-30892, CVE-2016-3697. Numbers of users are numbers.
#[test]
fn a_number_of_a_user_is_that_user_or_an_error() {
    let _clean = common::clean();
    for number in
        [json!(-1), json!(1u64 << 32), json!(4_294_967_295u64), json!(99_999_999_999u64), json!("0"), json!(0.5)]
    {
        for property in ["/process/user/uid", "/process/user/gid"] {
            let bundle = Bundle::new("true").with(property, number.clone());
            bundle.fails(&["run", "box"]);
            bundle.is_untouched(&number.to_string());
        }
    }
    if common::needs_root("other users") {
        return;
    }
    let bundle =
        Bundle::new("id -u; id -g").with("/process/user/uid", json!(1000)).with("/process/user/gid", json!(1000));
    fs::write(bundle.root.path().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n").unwrap();
    assert_eq!(runs(&bundle), "1000\n1000\n");
}

/// CVE-2021-43784, and configurations that are too long, too deep, or no files.
#[test]
fn hostile_configurations_are_errors_in_bounds() {
    let _clean = common::clean();
    let long = "/".to_owned() + &"x".repeat(70_000);
    for (pointer, value) in [
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid", "path": long}])),
        ("/hostname", json!("x".repeat(70_000))),
        ("/process/args", json!(["a\0b"])),
        ("/process/env", json!(["=x"])),
        ("/root/path", json!("a\0b")),
        ("/mounts", json!([{"destination": "/a\0b", "type": "tmpfs"}])),
        ("/mounts", json!([{"destination": long, "type": "tmpfs"}])),
        ("/linux/cgroupsPath", json!("/../../x")),
        ("/linux/resources", json!({"pids": {"limit": "many"}})),
        ("/hooks", json!({"createRuntime": [{"path": "/bin/true", "timeout": -1}]})),
    ] {
        let bundle = Bundle::new("true").with(pointer, value);
        bundle.fails(&["run", "box"]);
        bundle.is_untouched(pointer);
    }
    // The file itself.
    let bundle = Bundle::new("true");
    bundle.fails(&["state", "box"]);
    let config = bundle.path("config.json");
    let mut again = bundle.command(&["run", "box"]);
    fs::write(&config, vec![b' '; 17 << 20]).unwrap();
    assert_eq!(again.status().unwrap().code(), Some(1));
    assert!(bundle.read("err").contains("more than"), "{}", bundle.read("err"));
    fs::write(&config, "[".repeat(1 << 20)).unwrap();
    assert_eq!(again.status().unwrap().code(), Some(1));
    fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(again.status().unwrap().code(), Some(1));
    fs::remove_file(&config).unwrap();
    symlink("/etc/hostname", &config).unwrap();
    assert_eq!(again.status().unwrap().code(), Some(1));
    assert!(bundle.read("err").contains("ELOOP"), "{}", bundle.read("err"));
    fs::remove_file(&config).unwrap();
    bundle.is_untouched("config.json");
}

/// A state that was edited, or exchanged, and a root of containers that others can change.
#[test]
fn a_state_that_somebody_has_edited_harms_nobody() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("true");
    let state = bundle.path("containers/box/state.json");
    let edits: [fn(&mut Value); 3] = [
        |state| state["id"] = json!("../../victim"),
        |state| state["cgroup"] = json!("/"),
        |state| state["bundle"] = json!("/no/such/bundle"),
    ];
    for edit in edits {
        bundle.does(&["create", "box"]);
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
        edit(&mut value);
        fs::write(&state, value.to_string()).unwrap();
        bundle.does(&["delete", "--force", "box"]);
        bundle.is_untouched("edited");
    }
    bundle.does(&["create", "box"]);
    // A good one, by way of a link.
    let elsewhere = bundle.path("elsewhere");
    fs::rename(&state, &elsewhere).unwrap();
    symlink(&elsewhere, &state).unwrap();
    assert!(bundle.fails(&["state", "box"]).contains("ELOOP"));
    bundle.does(&["delete", "--force", "box"]);
    assert!(elsewhere.exists());
    bundle.is_untouched("linked");
    // An id whose directory is a link.
    symlink(bundle.victim(), bundle.path("containers/box")).unwrap();
    for command in [&["state", "box"][..], &["delete", "box"], &["delete", "--force", "box"], &["create", "box"]] {
        bundle.fails(command);
    }
    fs::remove_file(bundle.path("containers/box")).unwrap();
    bundle.is_untouched("a link");
}

/// Of two that create one container at once, one does, and the other says that it is there.
#[test]
fn one_of_two_creators_wins() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("true");
    for _ in 0..5 {
        let mut both = [0, 1].map(|_| bundle.command(&["create", "box"]).spawn().unwrap());
        let codes = both.each_mut().map(|one| one.wait().unwrap().code());
        assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{codes:?}");
        bundle.does(&["start", "box"]);
        bundle.does(&["delete", "--force", "box"]);
        bundle.is_untouched("two");
    }
}

/// An empty list of devices allows none but those that every container has, and the kernel's log is none of these.
#[test]
fn without_a_list_of_devices_all_others_are_denied() {
    let _clean = common::clean();
    if common::needs_root("rules for devices") {
        return;
    }
    let script = "mknod /dev/kmsg c 1 11 && echo made; mknod /dev/mine c 1 3 && echo null > /dev/mine && echo null";
    let mut bundle = Bundle::new(script).with("/linux/resources", json!({}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
    }
    let said = bundle.says(&["run", "box"]);
    assert!(!said.out.contains("made") && said.err.contains("not permitted"), "{said:?}");
    assert!(said.out.contains("null"), "{said:?}");
}

/// A program inside the container that is this test program, and does what the table of callers has for `what`.
pub(super) fn attacking(what: &str, options: &[(&str, Value)]) -> Bundle {
    // RINGFENCE_ATTACK: it makes no directory of its own.
    let env = json!([format!("RINGFENCE_CALLER={what}"), "RINGFENCE_ATTACK=oci", "PATH=/usr/bin:/bin"]);
    let exe = std::env::current_exe().unwrap();
    let bundle = Bundle::new("").with("/process/args", json!(["/probe"])).with("/process/env", env);
    let bundle = options.iter().fold(bundle, |bundle, (pointer, value)| bundle.with(pointer, value.clone()));
    bundle
        .with("/root/readonly", json!(false))
        .mounting(json!({"destination": "/probe", "source": exe, "options": ["bind", "ro"]}))
}

/// Adds capabilities to all sets that the program gets.
pub(super) fn with_capabilities(mut bundle: Bundle, names: &[&str]) -> Bundle {
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap()
            .extend(names.iter().map(|name| json!(name)));
    }
    bundle
}

/// Opens the program of every process that is not the container's own, and tries to write to it: also once that has
/// ended, when no ETXTBSY is in the way any more.
pub(super) fn overwrite_programs() {
    let said = |line: &str| {
        let mut file = File::options().append(true).create(true).open("/tmp/said").unwrap();
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    };
    let mut kept = Vec::new();
    said("ready");
    loop {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let exe = entry.path().join("exe");
            let Ok(to) = fs::read_link(&exe) else { continue };
            if to.starts_with("/usr") || to == Path::new("/probe") {
                continue;
            }
            if let Ok(file) = File::open(&exe) {
                said(&format!("opened {}", to.display()));
                kept.push((file, to.starts_with("/memfd:ringfence-stub (deleted)")));
            }
        }
        for (file, is_memory) in &kept {
            let opened = File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
            // What is in memory alone is sealed, and can be opened. Of a file, that is enough.
            let written = opened
                .and_then(|mut file| if *is_memory { std::io::Write::write_all(&mut file, b"x") } else { Ok(()) });
            if written.is_ok() {
                said("written");
            }
        }
        kept.truncate(64);
    }
}

/// The classic: a directory that is kept open across chroot(2), or stood in, is a way back up.
pub(super) fn leave_by_chroot(marker: &str) {
    let reach = || fs::metadata(marker).is_ok() || fs::metadata(marker.trim_start_matches('/')).is_ok();
    let up = File::open("/").unwrap();
    fs::create_dir_all("/tmp/deep").unwrap();
    let chroot = std::os::unix::fs::chroot("/tmp/deep");
    println!("chroot {}", chroot.is_ok());
    nix::unistd::fchdir(&up).unwrap();
    for _ in 0..64 {
        let _ = std::env::set_current_dir("..");
    }
    let again = std::os::unix::fs::chroot(".");
    println!("again {} marker {}", again.is_ok(), reach());
}

/// CVE-2019-5736. What enters a container is no file of the host's, and nothing inside can write to it.
#[test]
fn the_program_of_the_runtime_is_out_of_reach() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let exe = std::env::current_exe().unwrap();
    let look = || (fs::metadata(&exe).unwrap().len(), fs::metadata(&exe).unwrap().modified().unwrap());
    let before = look();
    // It may look into every process.
    let bundle = with_capabilities(attacking("oci-overwrite", &[]), &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let evil = bundle.root.path().join("evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.does(&["run", "--detach", "box"]);
    let said = || fs::read_to_string(bundle.root.path().join("tmp/said")).unwrap_or_default();
    common::eventually("it has begun", || said().starts_with("ready"));
    for _ in 0..10 {
        // Neither is the runtime again, which would do what it is told.
        for program in ["/evil", "/proc/self/exe"] {
            let entered = bundle.says(&["exec", "box", program, "--version"]);
            assert!(!entered.status.success() && entered.out.is_empty(), "{program}: {entered:?}");
        }
    }
    assert!(!said().contains("written"), "{}", said());
    assert!(said().lines().all(|line| line == "ready" || line.starts_with("opened /memfd:")), "{}", said());
    assert_eq!(look(), before);
    bundle.does(&["delete", "--force", "box"]);
}

/// A pid that another process has got: the one that the state means has ended, and its number is that of a victim.
#[test]
fn a_state_means_a_process_and_not_its_number() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(super::PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    let pid = bundle.state()["pid"].to_string();
    bundle.does(&["kill", "box", "KILL"]);
    bundle.becomes("stopped");
    common::eventually("it is reaped", || !Path::new("/proc").join(&pid).exists());
    let mut victim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    // The number stands in front of the time at which the process began.
    let mut edited = 0;
    let mut waiting = vec![bundle.path("containers/box")];
    while let Some(dir) = waiting.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() {
                waiting.push(path);
            } else if let Some(text) =
                Some(kind).filter(|kind| kind.is_file()).and_then(|_| fs::read_to_string(&path).ok())
            {
                let other = renumbered(&text, &pid, &victim.id().to_string());
                edited += usize::from(other != text);
                fs::write(&path, other).unwrap();
            }
        }
    }
    assert!(edited > 0, "the pid is on record");
    assert_eq!(bundle.state()["status"], "stopped");
    bundle.fails(&["kill", "box", "KILL"]);
    assert!(!bundle.says(&["exec", "box", "true"]).status.success());
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && groups().is_empty());
    assert_eq!(victim.try_wait().unwrap(), None, "the victim lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
}

/// Exchanges a number that stands alone.
fn renumbered(text: &str, from: &str, to: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(from) {
        let after = &rest[at + from.len()..];
        let is_alone = !rest[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        out += &rest[..at];
        out += if is_alone { to } else { from };
        rest = after;
    }
    out + rest
}

/// CVE-2023-28642, CVE-2019-16884, CVE-2025-52881. What the setup writes to /proc is written to the kernel's, whatever a
/// volume shows there.
#[test]
fn a_volume_over_proc_takes_no_write_of_the_setups() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(super::PATIENT).with("/process/oomScoreAdj", json!(321));
    let bundle = bundle.with("/linux/sysctl", json!({"kernel.shm_rmid_forced": "1"}));
    let bundle = bundle.with("/linux/maskedPaths", json!([])).with("/linux/readonlyPaths", json!([]));
    let faked = [
        "self/oom_score_adj",
        "self/attr/exec",
        "self/attr/apparmor/exec",
        "sys/kernel/shm_rmid_forced",
        "self/uid_map",
    ];
    for name in faked {
        let path = bundle.path("fake").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "fake").unwrap();
    }
    symlink("self", bundle.path("fake/thread-self")).unwrap();
    let bundle = bundle.mounting(json!({"destination": "/proc", "source": "fake", "options": ["bind"]}));
    bundle.does(&["run", "--detach", "box"]);
    let pid = bundle.state()["pid"].to_string();
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score, "321\n");
    for name in faked {
        assert_eq!(bundle.read(&format!("fake/{name}")), "fake", "{name}");
    }
    // A label is written nowhere where no security module takes it.
    bundle.does(&["delete", "--force", "box"]);
    let is_there = |file: &str| Path::new("/sys/kernel/security").join(file).exists();
    if !is_there("apparmor") && !Path::new("/sys/module/apparmor").exists() {
        let said = bundle.with("/process/apparmorProfile", json!("strict")).fails(&["run", "box"]);
        assert!(said.contains("apparmor"), "{said}");
    }
}

/// CVE-2022-0492, and the classics: what makes the kernel start a program of the host's. Nothing is written: a file that
/// can be opened to append is enough.
#[test]
fn no_helper_of_the_kernels_can_be_set() {
    let _clean = common::clean();
    let files = "/sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release \
                 /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hotplug /proc/sysrq-trigger \
                 /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper /proc/sys/vm/overcommit_memory";
    let script = format!(
        "for file in {files}; do test -e $file && ( : >> $file ) 2>/dev/null && echo open $file; done; \
         mkdir /tmp/x; for kind in 'cgroup -o memory' 'cgroup -o none,name=mine' cgroup2 proc sysfs; do \
         mount -t $kind none /tmp/x 2>/dev/null && echo mounted $kind; done; echo end"
    );
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make(&script).with("/root/readonly", json!(false));
        assert_eq!(runs(&bundle), "end\n");
        if common::is_root() {
            // The same list with the paths open that the configuration closes: the script finds what is open.
            let open = make(&script).with("/root/readonly", json!(false)).with("/linux/readonlyPaths", json!([]));
            let said = runs(&open);
            assert_eq!(said.contains("open /proc/sys/kernel/core_pattern"), open.runtime == "oci-runtime", "{said}");
        }
    }
}

/// CVE-2026-47262, CVE-2019-14271. The users and groups of the root are looked up in bounds, and by nothing that the root
/// has: no NSS, no loader. A pipe in their place is not waited for.
#[test]
fn the_user_database_of_the_root_is_read_in_bounds() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let most = || nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("echo $HOME; exec sleep 1000").with("/process/env", json!(["PATH=/usr/bin:/bin"]));
        let etc = bundle.root.path().join("etc");
        let long = || {
            for name in ["passwd", "group"] {
                let _ = fs::remove_file(etc.join(name));
                File::create(etc.join(name)).unwrap().set_len(16 << 30).unwrap();
            }
        };
        let pipes = || {
            for name in ["passwd", "group", "nsswitch.conf"] {
                let _ = fs::remove_file(etc.join(name));
                nix::unistd::mkfifo(&etc.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
            }
        };
        for prepare in [&long as &dyn Fn(), &pipes] {
            prepare();
            let before = most();
            bundle.does(&["run", "--detach", "box"]);
            let said = bundle.does(&["exec", "box", "sh", "-c", "echo$IFS$HOME"]);
            assert_eq!(said, "/\n");
            // KiB: a whole one would be 16 GiB.
            assert!(most() <= before.max(512 << 10), "{} KiB", most());
            bundle.does(&["delete", "--force", "box"]);
        }
    }
}

/// CVE-2026-87766, CVE-2024-45310. A directory that is made for a mount is made below the root, also where a link of the
/// kernel's own leads to the host, and where the path is exchanged meanwhile.
#[test]
fn what_is_made_for_a_mount_is_made_below_the_root() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let victim_of = |bundle: &Bundle| {
            let victim = bundle.victim();
            if common::is_root() {
                nix::unistd::chown(&victim, Some(65534.into()), Some(65534.into())).unwrap();
            }
            victim
        };
        let tmpfs = json!({"destination": "/link/made", "type": "tmpfs", "options": ["size=1m"]});
        for way in ["/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../../../../..", "/proc/thread-self/root"]
        {
            let bundle = make("true").with("/root/readonly", json!(false)).mounting(tmpfs.clone());
            let victim = victim_of(&bundle);
            symlink(format!("{way}{}", victim.display()), bundle.root.path().join("link")).unwrap();
            bundle.says(&["run", "box"]);
            bundle.is_untouched(way);
        }
        // The path lies on a volume that another container writes to.
        let volume = json!({"destination": "/data", "source": "data", "options": ["bind"]});
        let made = json!({"destination": "/data/swapped/made/deep", "type": "tmpfs", "options": ["size=1m"]});
        let bundle = make("true").mounting(volume).mounting(made);
        let victim = victim_of(&bundle);
        let data = bundle.path("data");
        fs::create_dir_all(data.join("swapped")).unwrap();
        if common::is_root() {
            for dir in [&data, &data.join("swapped")] {
                nix::unistd::chown(dir, Some(65534.into()), Some(65534.into())).unwrap();
            }
        }
        symlink(&victim, data.join("other")).unwrap();
        swapping(&[(data.join("swapped"), data.join("other"))], || {
            for _ in 0..8 {
                bundle.says(&["run", "box"]);
                bundle.is_untouched("exchanged meanwhile");
            }
        });
    }
}

/// Exchanges the two names of each pair all the time while `then` runs.
fn swapping(pairs: &[(PathBuf, PathBuf)], then: impl FnOnce()) {
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                for (one, other) in pairs {
                    let _ = nix::fcntl::renameat2(here, one.as_path(), here, other.as_path(), flags);
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// CVE-2018-15664, CVE-2026-41568, CVE-2026-42306. What begins with a copy of the root's files has none of the host's,
/// also where a directory becomes a link meanwhile.
#[test]
fn a_copy_of_the_roots_files_follows_no_link() {
    let _clean = common::clean();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        let bundle = make("cat /held/*/file /held/direct 2>/dev/null; echo end");
        let copy = json!({"destination": "/held", "type": "tmpfs", "options": ["tmpcopyup", "size=4m"]});
        let bundle = bundle.mounting(copy);
        let victim = bundle.victim();
        let held = bundle.root.path().join("held");
        let pairs: Vec<(PathBuf, PathBuf)> =
            (0..32).map(|i| (held.join(format!("swapped{i}")), held.join(format!("other{i}")))).collect();
        for (dir, link) in &pairs {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("file"), "own\n").unwrap();
            symlink(&victim, link).unwrap();
        }
        symlink(victim.join("file"), held.join("direct")).unwrap();
        symlink(&victim, held.join("deep")).unwrap();
        swapping(&pairs, || {
            for _ in 0..10 {
                let said = bundle.says(&["run", "box"]);
                assert!(!said.out.contains("whole"), "{said:?}");
                bundle.is_untouched("copied");
            }
        });
        let said = bundle.says(&["run", "box"]);
        assert!(
            said.out.starts_with("own\n") && !said.out.contains("whole") && said.out.ends_with("end\n"),
            "{said:?}"
        );
    }
}

/// CVE-2026-3888, CVE-2021-44731. A directory that somebody else has put in the place of the runtime's own is not used.
#[test]
fn a_directory_of_somebody_else_is_not_that_of_a_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new("true");
    let containers = bundle.path("containers");
    fs::create_dir(&containers).unwrap();
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // One that everybody can exchange what is in: what was made there, could be another's a moment later.
    mode(&containers, 0o777);
    let said = bundle.fails(&["create", "box"]);
    assert!(said.contains("containers"), "{said}");
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
    mode(&containers, 0o700);
    // One that is there before, with a state that says what is to be deleted.
    fs::create_dir(containers.join("box")).unwrap();
    fs::write(containers.join("box/state.json"), "{}").unwrap();
    assert!(bundle.fails(&["create", "box"]).contains("container with id exists"));
    mode(&containers.join("box"), 0o777);
    for command in [&["state", "box"][..], &["start", "box"], &["delete", "--force", "box"]] {
        assert!(bundle.fails(command).contains("another user can change the directory"), "{command:?}");
    }
    mode(&containers.join("box"), 0o700);
    bundle.does(&["delete", "--force", "box"]);
    bundle.is_untouched("made before");
    // What is made is closed to others from the beginning.
    bundle.does(&["create", "box"]);
    for name in ["box", "box/sandbox"] {
        assert_eq!(fs::metadata(containers.join(name)).unwrap().permissions().mode() & 0o777, 0o700, "{name}");
    }
    bundle.does(&["delete", "--force", "box"]);
}

/// CVE-2026-40226. Nothing that lies in the root file system configures its container.
#[test]
fn a_root_configures_nothing() {
    let _clean = common::clean();
    let marker = |bundle: &Bundle| bundle.path("configured");
    let bundle = Bundle::new("echo own");
    let mut other = bundle.config.clone();
    other["process"]["args"] = json!(["echo", "other"]);
    let hook = json!([{"path": "/usr/bin/touch", "args": ["touch", marker(&bundle)]}]);
    other["hooks"] = json!({"createRuntime": hook, "prestart": hook, "poststop": hook});
    for name in
        ["config.json", "runtime.json", "etc/containers/config.json", "run/state.json", "etc/oci/hooks.d/hook.json"]
    {
        let path = bundle.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, other.to_string()).unwrap();
    }
    fs::write(bundle.root.path().join("etc/environment"), "LD_PRELOAD=/evil.so\n").unwrap();
    assert_eq!(runs(&bundle), "own\n");
    assert!(!marker(&bundle).exists());
}

/// CVE-2025-23266, CVE-2024-0132. Hooks of the host have neither the environment nor the directory of the container.
#[test]
fn hooks_of_the_host_see_nothing_of_the_program() {
    let _clean = common::clean();
    let script = "/usr/bin/env > $OUT.env; pwd > $OUT.cwd";
    let names = ["prestart", "createRuntime", "poststart", "poststop"];
    let env = json!(["PATH=/evil", "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "MARK=mark", "BASH_ENV=/evil"]);
    let mut bundle = Bundle::new("exit 0").with("/process/args", json!(["/bin/sh", "-c", "exit 0"]));
    bundle = bundle.with("/process/env", env).with("/process/cwd", json!("/tmp"));
    let list = |name: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 100,
                                    "env": [format!("OUT={}", bundle.path(name).display())]}])
    };
    let hooks: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), list(name))).collect();
    let bundle = bundle.with("/hooks", json!(hooks));
    runs(&bundle);
    for name in names {
        let (env, cwd) = (bundle.read(&format!("{name}.env")), bundle.read(&format!("{name}.cwd")));
        assert!(env.contains("OUT=") && !env.contains("evil") && !env.contains("MARK"), "{name}: {env}");
        let cwd = Path::new(cwd.trim());
        assert!(
            cwd.is_absolute() && !cwd.starts_with(bundle.root.path()) && cwd != Path::new("/tmp"),
            "{name} {cwd:?}"
        );
    }
}

/// CVE-2023-25153, CVE-2022-1708. What is given to a command is read in bounds.
#[test]
fn what_a_command_is_given_is_read_in_bounds() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(super::PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    let long = bundle.path("long");
    File::create(&long).unwrap().set_len(16 << 30).unwrap();
    let long = long.to_str().unwrap();
    for file in [long, "/dev/zero"] {
        let said = bundle.says(&["exec", "--process", file, "box"]);
        assert!(!said.status.success() && said.err.contains("more than"), "{file}: {said:?}");
        let said = bundle.says(&["update", "--resources", file, "box"]);
        assert!(!said.status.success() && said.err.contains("more than"), "{file}: {said:?}");
    }
    // What a program prints goes where it is to go, and is held nowhere.
    let said = bundle
        .command(&["exec", "box", "head", "-c", "200000000", "/dev/zero"])
        .stdout(std::process::Stdio::null())
        .status();
    assert!(said.unwrap().success());
    let most = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(most < 1 << 20, "{most} KiB");
    bundle.does(&["delete", "--force", "box"]);
}

/// A directory that is kept open across chroot(2) is no way up to the host, and a device node that is made opens nothing.
#[test]
fn chroot_is_no_way_out() {
    let _clean = common::clean();
    if common::needs_root("CAP_SYS_CHROOT on the host") {
        return;
    }
    let outside = common::TempDir::new();
    let marker = outside.path().join("marker");
    fs::write(&marker, "").unwrap();
    let may = ["CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_MKNOD"];
    let bundle = || with_capabilities(attacking(&format!("oci-chroot {}", marker.display()), &[]), &may);
    let all = with_capabilities(bundle(), &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    assert_eq!(runs(&all), "chroot true\nagain true marker false\n");
    // Nor where the root only covers that of the host, with hooks or without.
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 0"], "timeout": 100}]);
    for hooks in [json!({}), json!({"createContainer": hook})] {
        let bundle = bundle().with("/hooks", hooks);
        assert_eq!(bundle.does(&["run", "--no-pivot", "box"]), "chroot true\nagain true marker false\n");
        assert!(bundle.is_empty() && groups().is_empty());
    }
}

/// `--no-pivot`: the root lies over that of the host, which nothing inside may uncover.
#[test]
fn a_root_that_covers_the_hosts_stays_where_it_is() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    for make in [Bundle::new, Bundle::of_an_ordinary_user] {
        // A procfs and a sysfs of a namespace that is made inside would show what is masked.
        let script = "mkdir /tmp/x; unshare -Ur true || echo no user namespaces; \
                      unshare -Urmpf sh -c 'mount -t proc none /tmp/x && echo proc'; \
                      unshare -Urmn sh -c 'mount -t sysfs none /tmp/x && echo sys'; \
                      umount -l / && echo unmounted; cat /proc/mounts | wc -l; echo end";
        // Without CAP_SETFCAP, root of a container maps no root of a namespace that is made inside.
        let bundle = with_capabilities(make(script).with("/root/readonly", json!(false)), &["CAP_SETFCAP"]);
        let masked = json!(["/proc/timer_list", "/proc/kcore", "/proc/acpi", "/sys/firmware", "/sys/power"]);
        let bundle = bundle.with("/linux/maskedPaths", masked);
        let with_pivot = runs(&bundle);
        let _ = fs::remove_dir(bundle.root.path().join("tmp/x"));
        let without = bundle.does(&["run", "--no-pivot", "box"]);
        assert_eq!(without, with_pivot);
        if with_pivot.contains("no user namespaces") {
            common::skip("nobody inside may make a user namespace", false);
        }
        assert!(
            !without.contains("proc\n") && !without.contains("unmounted") && without.ends_with("end\n"),
            "{without}"
        );
        // Who could take it off gets no such root, neither the first program nor a further one.
        let admin = with_capabilities(make("true"), &["CAP_SYS_ADMIN"]);
        let said = admin.fails(&["run", "--no-pivot", "box"]);
        assert!(said.contains("no_pivot") && said.contains("would take the root off"), "{said}");
        let bundle = make(super::PATIENT);
        bundle.does(&["run", "--no-pivot", "--detach", "box"]);
        bundle.does(&["exec", "box", "true"]);
        let said = bundle.says(&["exec", "--cap", "CAP_SYS_ADMIN", "box", "true"]);
        assert!(!said.status.success() && said.err.contains("would take the root off"), "{said:?}");
        bundle.does(&["delete", "--force", "box"]);
        assert!(bundle.is_empty());
    }
}
