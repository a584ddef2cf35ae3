//! What a sandbox has of memory, beside the hard limit: throttling, protection, the kill of all together, huge pages.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::common::{self, cgroup_parent, group_of, is_v2, no_cgroups, probe, shell};
use crate::{ends_or_is_refused_with_little_memory, limited};
use ringfence::{Bytes, Child, Enforcement, ErrorKind, Feature, Limits, Sandbox, Stdio, Verdict};

/// The program as it waits on its stdin, after it has written a line.
fn at_rest(sandbox: &Sandbox) -> (Child, String) {
    let mut child = sandbox.clone().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim_end().to_owned())
}

fn end(mut child: Child) -> Verdict {
    drop(child.stdin.take());
    child.wait().unwrap().verdict()
}

/// A file of so many MiB of which nothing is in memory.
fn cold_file(dir: &Path, name: &str, mib: usize) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![7u8; mib << 20]).unwrap();
    let file = fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: an open descriptor and three numbers.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    path
}

fn reads(sandbox: Sandbox, file: &Path) -> Sandbox {
    shell(sandbox, &format!("cat {} >/dev/null && echo read && {{ read line; :; }}", file.display()))
}

/// The value of one file of the child's memory group.
fn value(child: &Child, file: &str) -> String {
    let text = fs::read_to_string(group_of(child.id(), "memory").join(file)).unwrap();
    text.trim().to_owned()
}

#[test]
fn what_v1_does_not_have_is_an_error_or_said() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let all = limited().memory_high(Bytes::mib(8)).oom_group(true).command("/bin/true");
    if is_v2() {
        let mut child = all.spawn().unwrap();
        assert!(common::holds(child.enforced()), "{:?}", child.enforced());
        assert!(child.wait().unwrap().success());
        return;
    }
    let all = all.memory_low(4096u64).memory_min(4096u64);
    let asked = [Feature::MemoryHigh, Feature::MemoryLow, Feature::MemoryMin, Feature::OomGroup];
    for error in [all.check().unwrap_err(), all.spawn().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.problems().iter().filter_map(|p| p.feature).collect::<Vec<_>>(), asked, "{error}");
        assert!(
            error.to_string().contains("soft limit") && error.to_string().contains("boot with cgroup v2"),
            "{error}"
        );
    }
    let mut without = asked.iter().fold(all.memory_limit(Bytes::mib(64)), |all, feature| all.best_effort(*feature));
    without = without.stdin(Stdio::piped()).command("/bin/cat");
    let child = without.spawn().unwrap();
    for feature in asked {
        assert!(matches!(child.enforced().get(feature), Some(Enforcement::Missing(_))), "{feature}");
    }
    let error = child.update(&Limits::new().memory_high(Bytes::mib(8))).unwrap_err();
    assert_eq!((error.kind(), error.problems()[0].feature), (ErrorKind::Unsupported, Some(Feature::MemoryHigh)));
    assert_eq!(end(child), Verdict::Exited(0));
}

#[test]
fn memory_high_holds_back_and_kills_nobody() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() {
        return;
    }
    let dir = common::TempDir::new();
    let file = cold_file(dir.path(), "file", 64);
    let (child, line) = at_rest(&reads(limited().memory_limit(Bytes::gib(1)).memory_high(Bytes::mib(12)), &file));
    let stats = child.stats().unwrap();
    assert_eq!((line.as_str(), value(&child, "memory.high")), ("read", Bytes::mib(12).get().to_string()));
    assert!(stats.memory_high_hits > Some(0) && stats.oom_kills == Some(0), "{stats:?}");
    assert!(stats.memory_peak.unwrap_or(Bytes::mib(12)) < Bytes::mib(24), "{stats:?}");
    assert!(stats.memory_current < Some(Bytes::mib(16)), "{stats:?}");
    child.update(&Limits::new().memory_high(Bytes::mib(300))).unwrap();
    assert_eq!(value(&child, "memory.high"), Bytes::mib(300).get().to_string());
    assert_eq!(end(child), Verdict::Exited(0));
    // The same without: all of the file stays in memory.
    cold_file(dir.path(), "file", 64);
    let (child, _) = at_rest(&reads(limited().memory_limit(Bytes::gib(1)), &file));
    let stats = child.stats().unwrap();
    assert_eq!(stats.memory_high_hits, Some(0));
    assert!(stats.memory_file > Some(Bytes::mib(60)), "{stats:?}");
    assert_eq!(end(child), Verdict::Exited(0));
}

/// A group above the sandboxes, made and removed by the test.
struct Above(PathBuf);

impl Above {
    fn new() -> Above {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").unwrap();
        let path = Path::new("/sys/fs/cgroup").join(cgroup_parent().strip_prefix("/").unwrap());
        fs::create_dir(&path).unwrap();
        Above(path)
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn memory_is_protected_as_far_as_the_groups_above_are() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() {
        return;
    }
    let sandbox =
        limited().memory_low(Bytes::mib(16)).memory_min(Bytes::mib(8)).stdin(Stdio::piped()).command("/bin/cat");
    let asked = [Feature::MemoryLow, Feature::MemoryMin];
    for error in [sandbox.check().unwrap_err(), sandbox.spawn().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.problems().iter().filter_map(|p| p.feature).collect::<Vec<_>>(), asked, "{error}");
        assert!(error.to_string().contains("protects 0 B with its memory.low"), "{error}");
    }
    let without = asked.iter().fold(sandbox.clone().pids_limit(9), |all, feature| all.best_effort(*feature));
    let child = without.spawn().unwrap();
    assert!(matches!(child.enforced().get(Feature::MemoryMin), Some(Enforcement::Missing(_))));
    assert_eq!(end(child), Verdict::Exited(0));
    if !common::is_root() {
        return;
    }
    let above = Above::new();
    above.set("memory.low", &Bytes::mib(20).get().to_string());
    above.set("memory.min", "max");
    let enforced = sandbox.check().unwrap();
    assert!(asked.iter().all(|feature| enforced.get(*feature) == Some(&Enforcement::Full)));
    let child = sandbox.spawn().unwrap();
    assert_eq!(value(&child, "memory.low"), Bytes::mib(16).get().to_string());
    assert_eq!(value(&child, "memory.min"), Bytes::mib(8).get().to_string());
    child.update(&Limits::new().memory_low(Bytes::mib(20))).unwrap();
    assert_eq!(value(&child, "memory.low"), Bytes::mib(20).get().to_string());
    let error = child.update(&Limits::new().memory_low(Bytes::mib(21))).unwrap_err();
    assert_eq!(error.problems()[0].feature, Some(Feature::MemoryLow));
    assert_eq!(end(child), Verdict::Exited(0));
}

#[test]
fn a_neighbour_takes_only_what_is_not_protected() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() || common::needs_root("a group above that is protected") {
        return;
    }
    let above = Above::new();
    above.set("memory.max", &Bytes::mib(48).get().to_string());
    above.set("memory.min", "max");
    let dir = common::TempDir::new();
    let left = |sandbox: Sandbox| {
        let kept = cold_file(dir.path(), "kept", 24);
        let (child, _) = at_rest(&reads(sandbox.memory_limit(Bytes::gib(1)), &kept));
        let before = child.stats().unwrap().memory_file.unwrap();
        assert!(before > Bytes::mib(22), "{before}");
        let stream = cold_file(dir.path(), "stream", 100);
        let (neighbour, _) = at_rest(&reads(limited().memory_limit(Bytes::gib(1)), &stream));
        let after = child.stats().unwrap().memory_file.unwrap();
        assert_eq!((end(neighbour), end(child)), (Verdict::Exited(0), Verdict::Exited(0)));
        after
    };
    let protected = left(limited().memory_min(Bytes::mib(32)));
    let plain = left(limited());
    assert!(protected > Bytes::mib(22), "{protected}");
    assert!(plain < Bytes::mib(20), "{plain} without, {protected} with protection");
}

#[test]
fn an_oom_group_dies_together() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let text = format!("RINGFENCE_PROBE='hog 200000000' {} & wait $!; echo survived", exe.display());
    let sandbox = shell(limited().memory_limit(Bytes::mib(32)).swap_limit(0), &text);
    let output = sandbox.output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.outcome.usage().oom_kills), (&b"survived\n"[..], Some(1)));
    assert_eq!(output.outcome.verdict(), Verdict::Exited(0));
    let output = sandbox.clone().oom_group(true).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.outcome.verdict()), (&b""[..], Verdict::OutOfMemory));
    assert!(output.outcome.usage().oom_kills >= Some(2), "{:?}", output.outcome.usage());
    // The same, asked for while it runs.
    let later = shell(limited().memory_limit(Bytes::mib(32)).swap_limit(0), &format!("echo up; read line; {text}"));
    let (child, _) = at_rest(&later);
    child.update(&Limits::new().oom_group(true)).unwrap();
    assert_eq!(end(child), Verdict::OutOfMemory);
}

#[test]
fn an_oom_group_too_small_for_the_setup_never_takes_the_caller_along() {
    let _clean = common::clean();
    if no_cgroups() || !is_v2() {
        return;
    }
    ends_or_is_refused_with_little_memory(&limited().oom_group(true));
}

/// Puts the machine's own v2 root back as it was: on a hybrid host it may not give hugetlb to anybody.
struct RootControllers(Option<PathBuf>);

impl RootControllers {
    fn keep() -> RootControllers {
        let files = ["/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/unified/cgroup.subtree_control"];
        let file = files.map(PathBuf::from).into_iter().find(|file| file.exists());
        RootControllers(file.filter(|file| !fs::read_to_string(file).unwrap().contains("hugetlb")))
    }
}

impl Drop for RootControllers {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = fs::write(file, "-hugetlb");
        }
    }
}

#[test]
fn huge_pages_end_at_their_limit() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let page = Bytes::mib(2);
    let odd = limited().hugetlb_limit(Bytes::gib(512), 0).check().unwrap_err();
    assert_eq!((odd.kind(), odd.problems()[0].feature), (ErrorKind::Unsupported, Some(Feature::HugetlbLimit)));
    let sandbox = limited().hugetlb_limit(page, Bytes::mib(4)).pids_limit(9);
    if let Err(error) = sandbox.check() {
        assert_eq!(sandbox.command("/bin/true").spawn().unwrap_err().to_string(), error.to_string());
        return common::skip(&format!("no limits on huge pages: {error}"), true);
    }
    let _root = RootControllers::keep();
    let pool = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap();
    let has_pages = pool.trim().parse::<u64>().unwrap() >= 3;
    // Without any pages in the host's pool, the limit still comes first.
    let (child, line) = at_rest(&probe::run(sandbox.clone(), "huge 4194304"));
    let stats = child.stats().unwrap().hugetlb.into_iter().find(|stats| stats.page_size == page).unwrap();
    assert_eq!((line.as_str(), stats.limit_hits), (if has_pages { "mapped" } else { "ENOMEM" }, Some(0)));
    assert_eq!(stats.current, Some(Bytes::mib(if has_pages { 4 } else { 0 })));
    assert_eq!(end(child), Verdict::Exited(0));
    let text = format!("RINGFENCE_PROBE='huge 6291456' {}; read line; :", std::env::current_exe().unwrap().display());
    let (child, line) = at_rest(&shell(sandbox, &text));
    assert_eq!(line, "ENOMEM");
    let stats = child.stats().unwrap().hugetlb.into_iter().find(|stats| stats.page_size == page).unwrap();
    // v1 counts what was refused while it was reserved elsewhere.
    let counts = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let v1 = counts.lines().any(|line| line.contains("hugetlb"));
    assert!(v1 || stats.limit_hits > Some(0), "{stats:?}");
    let limit = |file| fs::read_to_string(group_of(child.id(), "hugetlb").join(file)).unwrap();
    let file = if v1 { "hugetlb.2MB.limit_in_bytes" } else { "hugetlb.2MB.max" };
    assert_eq!(limit(file).trim(), "4194304");
    child.update(&Limits::new().hugetlb(page, Bytes::mib(8))).unwrap();
    assert_eq!(limit(file).trim(), "8388608");
    assert_eq!(end(child), Verdict::Exited(0));
}

#[test]
fn memory_is_counted_by_its_kinds() {
    let _clean = common::clean();
    if no_cgroups() {
        return;
    }
    let dir = common::TempDir::new();
    let file = cold_file(dir.path(), "file", 16);
    let exe = std::env::current_exe().unwrap();
    let text = format!(
        "cat {} >/dev/null; RINGFENCE_PROBE='hog 20000000' {} >/dev/null && echo done && {{ read line; :; }}",
        file.display(),
        exe.display()
    );
    let (child, _) = at_rest(&shell(limited().memory_limit(Bytes::mib(256)), &text));
    let stats = child.stats().unwrap();
    // The hog has ended, and its memory is still in the peak.
    assert!(stats.memory_file > Some(Bytes::mib(14)) && stats.memory_anon < Some(Bytes::mib(10)), "{stats:?}");
    assert!(stats.memory_anon > Some(Bytes::new(0)) && stats.memory_peak > Some(Bytes::mib(32)), "{stats:?}");
    assert!(stats.memory_kernel.is_none_or(|kernel| kernel < Bytes::mib(8)), "{stats:?}");
    assert_eq!((stats.memory_limit, stats.memory_limit_hits), (Some(Bytes::mib(256)), Some(0)));
    assert_eq!(end(child), Verdict::Exited(0));
}
