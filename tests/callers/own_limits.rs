//! Callers whose own limits are small: each spawn either succeeds, or fails with an error that names the limit. Every
//! caller is a process of its own, because the library makes its threads once for each process.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{self, probe};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence::{Error, RootFs, Sandbox};

common::callers! {
    |words|
    "has-few-descriptors" => has_few_descriptors(words[1], words[2].parse().unwrap(), Path::new(words[3])),
    "may-write-small-files" => may_write_small_files(),
    "has-no-process-left" => has_no_process_left(),
}

fn succeeds(sandbox: &Sandbox) -> Result<(), Error> {
    sandbox.status().map(|outcome| assert!(outcome.success(), "{}", outcome.verdict()))
}

/// Runs /bin/true in one of the ways that a program can be run.
fn run(way: &str, dir: &Path) -> Result<(), Error> {
    let plain = common::sandbox().command("/bin/true");
    let strict = common::strict().command("/bin/true");
    match way {
        "plain" => succeeds(&plain),
        "strict" => succeeds(&strict),
        "overlay" => succeeds(&plain.rootfs(RootFs::overlay(["/usr"]).scratch_in(dir)).command("/bin/true")),
        "pool" => strict.pool(1)?.status("/bin/true").map(|outcome| assert!(outcome.success())),
        "exec" => {
            let child = strict.command("/bin/sleep").arg("1000").spawn()?;
            child.exec("/bin/true")?.wait().map(|outcome| assert!(outcome.success()))
        }
        "create" => {
            let created = plain.mount_ns().create(dir.join("created"))?;
            created.start().and(created.remove())
        }
        other => unreachable!("{other}"),
    }
}

/// Says how a spawn under this limit ended, and makes another one without it.
fn has_few_descriptors(way: &str, limit: u64, dir: &Path) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let began = Instant::now();
    let result = run(way, dir);
    let took = began.elapsed();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
    match result {
        Ok(()) => println!("ran"),
        Err(error) => println!("{error}"),
    }
    // What failed for want of descriptors is not in the way of the next.
    run(way, dir).unwrap();
}

#[test]
fn a_caller_with_few_descriptors_is_told_which_limit_to_raise() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    for (way, enough) in [("plain", 24), ("strict", 48), ("overlay", 24), ("pool", 64), ("exec", 48), ("create", 32)] {
        let dir = common::TempDir::new();
        for limit in 0..=64 {
            let caller = format!("has-few-descriptors {way} {limit} {}", dir.path().display());
            let told = probe::succeeds(probe::caller(&caller));
            assert!(told == "ran" || told.contains("RLIMIT_NOFILE"), "{way} with {limit}: {told}");
            assert!(told == "ran" || limit < enough, "{way} with {limit}: {told}");
            assert!(told != "ran" || limit > 10, "{way} cannot do with {limit}");
        }
        // What a process could not remove for want of descriptors is on record.
        ringfence::reap_stale().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{way} has left something");
    }
}

/// SIGXFSZ, which ends a process that writes beyond the limit, is never sent.
fn may_write_small_files() {
    let dir = common::TempDir::new();
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    for way in ["plain", "strict", "overlay", "pool", "exec", "create"] {
        for limit in [0, 1, 1000, 20_000, 1 << 20] {
            setrlimit(Resource::RLIMIT_FSIZE, limit, hard).unwrap();
            let result = run(way, dir.path());
            setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
            match result {
                Ok(()) => println!("{way} with {limit}: ran"),
                Err(error) => println!("{way} with {limit}: {error}"),
            }
        }
    }
}

#[test]
fn a_caller_that_may_write_small_files_only_is_told_so_and_lives() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let _reaping = common::reaping();
    let told = probe::succeeds(probe::caller("may-write-small-files"));
    for line in told.lines() {
        assert!(line.ends_with(": ran") || line.contains("RLIMIT_FSIZE"), "{line}\n{told}");
        assert!(line.ends_with(": ran") || !line.contains("with 1048576"), "{line}\n{told}");
    }
    assert!(told.contains("plain with 0: start spawner thread: EFBIG"), "{told}");
    ringfence::reap_stale().unwrap();
}

/// A thread counts as a process. Without one, the library does not try again until the setup's time is over.
fn has_no_process_left() {
    common::become_ordinary();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    let tells = |sandbox: &Sandbox| {
        setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
        let began = Instant::now();
        let result = succeeds(sandbox);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        println!("{}", result.unwrap_err());
    };
    for sandbox in [common::sandbox(), common::strict()].map(|sandbox| sandbox.command("/bin/true")) {
        tells(&sandbox);
        succeeds(&sandbox).unwrap();
    }
    // The threads are there now.
    tells(&Sandbox::new().command("/bin/true"));
}

#[test]
fn a_caller_without_a_process_left_is_told_so_at_once() {
    let _clean = common::clean();
    let told = probe::succeeds(probe::caller("has-no-process-left"));
    assert!(told.lines().all(|line| line.contains("EAGAIN") && line.contains("RLIMIT_NPROC")), "{told}");
    assert!(
        told.starts_with("start spawner thread: ") && told.lines().last().unwrap().starts_with("clone: "),
        "{told}"
    );
}
