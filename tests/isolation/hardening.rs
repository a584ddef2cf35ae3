//! Ways in which a program, or a value, once got the better of the library. Each stays shut.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::common::{self, probe, sh, stdout};
use ringfence::{Bind, Bytes, ErrorKind, RootFs, Sandbox, Stdio, Verdict};

#[test]
fn what_a_program_does_to_its_init_harms_no_other_sandbox() {
    let _clean = common::clean();
    let root = RootFs::host();
    let sandbox = sh("chmod 0 /proc/1/exe; chmod 4777 /proc/1/exe; true > /proc/1/exe; exit 3");
    let sandbox = sandbox.rootfs(root).pid_ns().init(true).stderr(Stdio::null());
    for _ in 0..3 {
        assert_eq!(sandbox.status().unwrap().code(), Some(3));
        assert_eq!(stdout(&sh("echo on").pid_ns()), "on");
    }
}

#[test]
fn no_word_forged_for_init_hides_how_the_program_ended() {
    let _clean = common::clean();
    let forger = probe::run(common::mounting().pid_ns().init(true), "forge-end");
    let output = forger.wall_time(Duration::from_millis(700)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "sent", "the attack itself has to work");
    assert_eq!(output.outcome.verdict(), Verdict::WallTime);
}

#[test]
fn the_id_that_means_none_is_no_id() {
    for sandbox in
        [Sandbox::new().user(u32::MAX, u32::MAX), Sandbox::new().user(1, u32::MAX), Sandbox::new().groups([u32::MAX])]
    {
        assert_eq!(sandbox.spawn().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn times_and_sizes_beyond_all_bounds_are_taken_or_refused() {
    let _clean = common::clean();
    let sandbox = sh("exit 5").setup_timeout(Duration::MAX).wall_time(Duration::MAX).output_limit(u64::MAX);
    assert_eq!(sandbox.status().unwrap().code(), Some(5));
    assert_eq!(sandbox.tmpfs("/tmp", u64::MAX).spawn().unwrap_err().kind(), ErrorKind::Invalid);
    if common::is_root() {
        let endless = sh("exit 6").cpu_time(Duration::MAX).cgroup_parent(common::cgroup_parent());
        assert_eq!(endless.status().unwrap().code(), Some(6));
    }
    let limited = sh("sleep 100").pid_ns().wall_time(Duration::from_millis(100)).status().unwrap();
    assert_eq!(limited.verdict(), Verdict::WallTime, "the watching thread lives");
}

#[test]
fn a_setup_given_up_at_any_moment_leaves_nothing() {
    let _clean = common::clean();
    let (mut given_up, mut done) = (0, 0);
    for round in 0..600u64 {
        let sandbox =
            sh("sleep 1000").pid_ns().init(round % 2 == 0).setup_timeout(Duration::from_micros(10 * (round % 150)));
        match sandbox.spawn() {
            Ok(child) => drop((child, done += 1)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::SetupDied), "{error}");
                given_up += 1;
            }
        }
    }
    assert!(given_up > 0, "{done} were faster than every timeout");
}

#[test]
fn a_scratch_directory_nested_without_end_is_removed() {
    let _clean = common::clean();
    let base = common::TempDir::new();
    let sandbox = common::sandbox().pid_ns().rootfs(RootFs::overlay(["/usr"]).scratch_in(base.path()));
    let sandbox = sandbox.bind_ro("/usr", "/usr").bind_ro(std::env::current_exe().unwrap(), "/probe");
    let links = [("/usr/lib", "/lib"), ("/usr/lib64", "/lib64")];
    let there = links.into_iter().filter(|(from, _)| std::path::Path::new(from).exists());
    let sandbox = there.fold(sandbox, |sandbox, (from, to)| sandbox.bind_ro(from, to));
    let sandbox = probe::at(sandbox, "/probe", "nest 2000");
    assert_eq!(stdout(&sandbox), "2000");
    common::eventually("it is removed", || std::fs::read_dir(base.path()).unwrap().count() == 0);
}

#[test]
fn a_read_only_root_that_was_read_only_is_never_written_to() {
    let _clean = common::clean();
    let victim = common::TempDir::new();
    let outer = format!("/{}", victim.path().file_name().unwrap().to_str().unwrap());
    // A sandbox whose /victim is a read-only mount spawns another one on it.
    let root = common::root_dir();
    let sandbox =
        common::on_root(common::mounting(), &root).pid_ns().mount(Bind::new(victim.path(), &outer).read_only());
    let sandbox = probe::at(sandbox, "/probe", &format!("spawn-on {outer}"));
    let output = sandbox.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("EROFS"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0, "something was made in it");
}

#[test]
fn the_scratch_directory_is_closed_to_others() {
    let _clean = common::clean();
    let (root, base) = (common::root_dir(), common::TempDir::new());
    let sandbox = common::on_root(sh("sleep 100").pid_ns(), &root);
    let sandbox = sandbox.rootfs(RootFs::overlay([root.path()]).scratch_in(base.path()));
    let child = sandbox.spawn().unwrap();
    let scratch = std::fs::read_dir(base.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(scratch.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    drop(child);
}

#[test]
fn a_sandbox_that_stops_itself_or_fills_its_disks_is_dropped_like_any_other() {
    let _clean = common::clean();
    let start = Instant::now();
    drop(sh("kill -STOP $$; sleep 100").pid_ns().init(true).spawn().unwrap());
    let fill = "for f in /tmp/x /dev/x /dev/shm/x; do cat /dev/zero > $f; done 2>/dev/null; df -k /tmp /dev /dev/shm | tail -n 3";
    let text = stdout(&sh(fill).pid_ns().rootfs(RootFs::host()));
    let sizes = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    assert!(sizes.map(Bytes::kib).all(|size| size <= Bytes::mib(64)), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20));
}
