//! Detects which hierarchy has which controller, from `/proc/self/mountinfo` and
//! `/proc/self/cgroup`.

use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::stat::{major, minor, stat};
use procfs::process::MountInfo;

use super::controllers::{Controllers, Version};
use super::hierarchy::{Hierarchy, below};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::proc::mountinfo::{self, unescape};
use crate::sys::by_fd;
use crate::sys::fork_mark::PerProcess;

/// The hierarchies of this host. They are detected once: a host does not move its controllers while
/// groups are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// True if the kernel accounts for swap, as far as the files show. Always true on v2.
    pub(super) swap: bool,
    /// True if groups of the v2 hierarchy count swap. Set when somebody asks.
    pub(super) v2_counts_swap: OnceLock<bool>,
    /// True if v1 memory groups are not hierarchical by default, as before 5.11.
    pub(super) flat_memory: bool,
    /// A reason why memory limits do not count all memory. Set when somebody asks.
    uncounted: OnceLock<Option<&'static str>>,
    /// True if v2 groups can be frozen (5.2). Set when the first group is made.
    pub(super) v2_freezes: OnceLock<bool>,
    /// Set when a device program was loaded.
    pub(super) filters_devices: OnceLock<()>,
}

impl Host {
    /// Reads the mounts and the group of this process.
    pub(crate) fn detect() -> Result<Host> {
        let failed = |path: &'static str| {
            move |error: std::io::Error| {
                let failed = Error::io(Step::Detect, &error).at(path);
                if error.kind() == std::io::ErrorKind::NotFound { failed.hint("mount /proc") } else { failed }
            }
        };
        let (mounts, own) = ("/proc/self/mountinfo", "/proc/self/cgroup");
        let mounts = mountinfo::read(mounts).map_err(failed(mounts))?;
        let own = by_fd::short_text(own.as_ref()).map_err(failed(own))?;
        let host = Host::parse(&mounts, &own, Path::new("/"), is_visible)?;
        Ok(Host { uncounted: OnceLock::new(), ..host })
    }

    /// Builds the host from texts, for a filesystem that begins at `root`. `visible` tells whether
    /// no other mount covers a mount.
    pub(super) fn parse(
        mountinfo: &str,
        own: &str,
        root: &Path,
        visible: impl Fn(&MountInfo, &Path) -> bool,
    ) -> Result<Host> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines().filter(|line| line.contains(" - cgroup")) {
            let mount = MountInfo::from_line(line)
                .map_err(|_| Error::message(ErrorKind::Setup, Step::Detect, format!("mountinfo line {line:?}")))?;
            let at = below(root, &unescape(mount.mount_point.as_os_str().as_encoded_bytes()));
            if visible(&mount, &at)
                && let Some(new) = Hierarchy::of(&mount, at, own)
            {
                keep_better(&mut hierarchies, new);
            }
        }
        let v1_memory = hierarchies.iter().find(|h| h.is_v1_with(Controllers::MEMORY));
        let (swap, flat_memory) = v1_memory.map_or((true, false), |h| {
            let flat = std::fs::read_to_string(h.mount.join("memory.use_hierarchy")).is_ok_and(|t| t.trim() == "0");
            (h.mount.join("memory.memsw.limit_in_bytes").exists(), flat)
        });
        Ok(Host {
            hierarchies,
            swap,
            flat_memory,
            uncounted: OnceLock::from(None),
            v2_freezes: OnceLock::new(),
            v2_counts_swap: OnceLock::new(),
            filters_devices: OnceLock::new(),
        })
    }

    /// Returns why memory limits do not count all memory, if they do not.
    pub(super) fn uncounted_memory(&self) -> Option<&'static str> {
        let booted = || std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        *self.uncounted.get_or_init(|| self.uncounted(&booted()))
    }

    /// Returns the memory that the kernel, booted with this command line, does not count. Several
    /// `cgroup.memory=` add up.
    fn uncounted(&self, booted: &str) -> Option<&'static str> {
        let hierarchy = self.hierarchy_of(Controllers::MEMORY)?;
        let has_word = |word: &str| {
            let values = booted.split_whitespace().filter_map(|option| option.strip_prefix("cgroup.memory="));
            values.flat_map(|value| value.split(',')).any(|value| value == word)
        };
        let sockets = match hierarchy.version {
            Version::V1 => hierarchy.mount.join("memory.kmem.tcp.limit_in_bytes").exists(),
            Version::V2 => !has_word("nosocket"),
        };
        match (sockets, has_word("nokmem")) {
            (_, true) => Some("the kernel was booted with cgroup.memory=nokmem: its own memory is not counted"),
            (false, _) => Some("the buffers of sockets are not counted by this kernel"),
            (true, false) => None,
        }
    }

    /// Returns whether the kernel counts the swap of a group, so that it can have a limit.
    pub(crate) fn counts_swap(&self) -> bool {
        let Some(hierarchy) = self.hierarchy_of(Controllers::MEMORY) else { return false };
        match hierarchy.version {
            Version::V1 => self.swap,
            Version::V2 => *self.v2_counts_swap.get_or_init(|| v2_counts_swap(hierarchy)),
        }
    }

    /// Returns the v2 hierarchy, if one is mounted.
    pub(super) fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    /// Returns the hierarchy that has `controller`. A controller belongs to one hierarchy at a
    /// time. CPU time and the freezer, which v2 has without a controller, are taken from v2.
    pub(super) fn hierarchy_of(&self, controller: Controllers) -> Option<&Hierarchy> {
        let has = |h: &&Hierarchy| h.controllers.contains(controller);
        self.v2().filter(has).or_else(|| self.hierarchies.iter().find(has))
    }
}

/// The most groups that are looked at for the files of their memory.
const LOOKED_AT: usize = 64;

/// Returns whether groups of a v2 hierarchy have a limit of swap: not where the kernel was built
/// without swap, or booted with `swapaccount=0`. The root group has no such files, and where no
/// other one has a limit of memory yet, what the kernel says of itself decides.
fn v2_counts_swap(hierarchy: &Hierarchy) -> bool {
    let below = std::fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut groups = hierarchy.own.iter().cloned().chain(below.take(LOOKED_AT));
    let counted = groups.find(|group| group.join("memory.max").exists());
    counted.map_or_else(kernel_counts_swap, |group| group.join("memory.swap.max").exists())
}

/// Returns whether the kernel was built with swap, and booted to count it.
fn kernel_counts_swap() -> bool {
    let booted = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    Path::new("/proc/swaps").exists() && !booted.split_whitespace().any(|option| option == "swapaccount=0")
}

/// Returns whether the machine has any swap: swapon(8).
pub(crate) fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

/// Returns the hierarchies of this host, detected once in each process.
pub(crate) fn host() -> Result<&'static Host> {
    static HOST: PerProcess<Host> = PerProcess::new();
    match HOST.get() {
        Some(host) => Ok(host),
        None => {
            let host = Host::detect()?;
            HOST.get_or_try(|| Ok(host)).map_err(|errno: Errno| Error::new(Step::Detect, errno))
        }
    }
}

/// Adds a hierarchy. Of two mounts of one hierarchy, the mount that shows the caller's group is
/// kept, then the mount that shows the whole hierarchy.
fn keep_better(all: &mut Vec<Hierarchy>, new: Hierarchy) {
    let rank = |h: &Hierarchy| (h.own.is_some(), h.root == Path::new("/"));
    match all.iter_mut().find(|h| h.version == new.version && h.controllers == new.controllers) {
        Some(old) if rank(&new) > rank(old) => *old = new,
        Some(_) => {}
        None => all.push(new),
    }
}

/// Returns whether no other mount covers a mount. A mount is covered if its mount point leads to
/// another filesystem.
fn is_visible(mount: &MountInfo, at: &Path) -> bool {
    stat(at).is_ok_and(|st| mount.majmin == format!("{}:{}", major(st.st_dev), minor(st.st_dev)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n";
        let nowhere = Path::new("/nonexistent");
        crate::fuzz::texts(&[HYBRID], |text| drop(Host::parse(text, own, nowhere, |_, _| true)));
        crate::fuzz::texts(&[own], |text| drop(Host::parse(HYBRID, text, nowhere, |_, _| true)));
    }

    pub(in crate::cgroup) fn parse(mountinfo: &str, own: &str) -> Host {
        Host::parse(mountinfo, own, Path::new("/nonexistent"), |_, _| true).unwrap()
    }

    fn own(host: &Host, controller: Controllers) -> Option<&str> {
        host.hierarchy_of(controller)?.own.as_deref()?.to_str()
    }

    fn base(host: &Host, controller: Controllers, parent: &str) -> Option<PathBuf> {
        host.hierarchy_of(controller)?.base(Some(Path::new(parent)))
    }

    pub(in crate::cgroup) const HYBRID: &str = "\
23 1 0:20 / / rw - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn controllers_mounted_together_are_one_hierarchy() {
        let host = parse(HYBRID, "4:memory:/a/b\n3:cpu,cpuacct:/c\n2:net_cls:/n\n1:name=systemd:/s\n0::/u\n");
        assert_eq!(host.hierarchies.len(), 5);
        assert_eq!(own(&host, Controllers::NET_CLS), Some("/nonexistent/sys/fs/cgroup/net_cls/n"));
        assert_eq!(own(&host, Controllers::SYSTEMD), Some("/nonexistent/sys/fs/cgroup/systemd/s"));
        assert_eq!(own(&host, Controllers::MEMORY), Some("/nonexistent/sys/fs/cgroup/memory/a/b"));
        assert_eq!(own(&host, Controllers::CPU), Some("/nonexistent/sys/fs/cgroup/cpu,cpuacct/c"));
        assert_eq!(own(&host, Controllers::CPUACCT), Some("/nonexistent/sys/fs/cgroup/unified/u"));
        assert_eq!(host.hierarchy_of(Controllers::PIDS), None);
        let jobs = base(&host, Controllers::MEMORY, "/jobs/x");
        assert_eq!(jobs, Some("/nonexistent/sys/fs/cgroup/memory/jobs/x".into()));
        assert_eq!(base(&host, Controllers::MEMORY, "/jobs/../x"), None);
        assert_eq!(base(&host, Controllers::MEMORY, "jobs"), None);
    }

    #[test]
    fn v2_names_its_controllers_in_a_file() {
        let root = std::env::temp_dir().join(format!("ringfence-v2-host-{}", std::process::id()));
        std::fs::create_dir_all(root.join("cg v2")).unwrap();
        std::fs::write(root.join("cg v2/cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma\n").unwrap();
        let line = "30 23 0:26 / /cg\\040v2 rw shared:4 - cgroup2 cgroup2 rw\n";
        let host = Host::parse(line, "0::/user.slice/my scope\n", &root, |_, _| true);
        std::fs::remove_dir_all(&root).unwrap();
        let host = host.unwrap();
        let v1_only = Controllers::NET_CLS | Controllers::NET_PRIO | Controllers::PERF_EVENT | Controllers::SYSTEMD;
        let others = v1_only | Controllers::DEVICES | Controllers::MISC;
        assert_eq!(host.hierarchies[0].controllers, Controllers::all() - others);
        assert_eq!(host.hierarchies[0].own, Some(root.join("cg v2/user.slice/my scope")));
    }

    #[test]
    fn a_kernel_that_leaves_memory_out_is_seen() {
        let root = std::env::temp_dir().join(format!("ringfence-uncounted-{}", std::process::id()));
        let v1 = root.join("memory");
        std::fs::create_dir_all(&v1).unwrap();
        let parse = |line: &str| Host::parse(line, "4:memory:/\n0::/\n", &root, |_, _| true).unwrap();
        let flat = parse("35 31 0:32 / /memory rw - cgroup cgroup rw,memory\n");
        let old = flat.uncounted("quiet");
        std::fs::write(v1.join("memory.kmem.tcp.limit_in_bytes"), "").unwrap();
        let new = ["quiet", "a cgroup.memory=nosocket,nokmem b"].map(|line| flat.uncounted(line).is_some());
        std::fs::write(v1.join("cgroup.controllers"), "memory").unwrap();
        let unified = parse("35 31 0:32 / /memory rw - cgroup2 cgroup2 rw\n");
        let lines = ["", "cgroup.memory=nosocket", "cgroup.memory=nokmem", "cgroup.memory=nobpf cgroup.memoryx=nokmem"];
        let v2 = lines.map(|line| unified.uncounted(line).is_some());
        std::fs::remove_dir_all(&root).unwrap();
        assert!(old.unwrap().contains("sockets"));
        assert_eq!((new, v2), ([false, true], [false, true, true, false]));
    }

    #[test]
    fn a_container_sees_its_own_part_of_the_hierarchy() {
        let text = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n";
        let host = parse(text, "4:memory:/docker/abc\n");
        assert_eq!(own(&host, Controllers::MEMORY), Some("/nonexistent/sys/fs/cgroup/memory"));
        let at = Some(PathBuf::from("/nonexistent/sys/fs/cgroup/memory/x"));
        assert_eq!(base(&host, Controllers::MEMORY, "/docker/abc/x"), at);
        assert_eq!(base(&host, Controllers::MEMORY, "/x"), at);
        let elsewhere = parse(text, "4:memory:/docker/abcd\n");
        assert_eq!(own(&elsewhere, Controllers::MEMORY), None);
    }

    #[test]
    fn a_group_outside_of_the_namespace_is_not_guessed_at() {
        let mount = |root: &str| format!("30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let visible = |root, path| parse(&mount(root), path).v2().unwrap().own.clone();
        assert_eq!(visible("/", "0::/../sibling\n"), None);
        assert_eq!(visible("/..", "0::/\n"), None);
        assert_eq!(visible("/..", "0::/../sibling\n"), Some("/nonexistent/sys/fs/cgroup/sibling".into()));
    }

    #[test]
    fn the_mount_that_shows_the_own_group_serves() {
        let text =
            "35 31 0:32 /other /mnt rw - cgroup cgroup rw,memory\n36 31 0:32 / /cg rw - cgroup cgroup rw,memory\n";
        let host = parse(text, "4:memory:/mine\n");
        assert_eq!(own(&host, Controllers::MEMORY), Some("/nonexistent/cg/mine"));
        let hidden = Host::parse(text, "4:memory:/mine\n", Path::new("/"), |_, _| false).unwrap();
        assert_eq!(hidden.hierarchies, []);
    }
}
