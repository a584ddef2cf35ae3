//! The setters for limits: of the control group, of processes, of time and output.

use std::path::Path;
use std::time::Duration;

use super::Sandbox;
#[cfg(feature = "systemd")]
use crate::cgroup::SystemdScope;
#[cfg(feature = "oci")]
use crate::cgroup::Unit;
use crate::cgroup::{Device, DeviceAccess, Devices, IoLimit, Limits, Resources};
use crate::feature::Feature;
use crate::program::Resource;
use crate::units::Bytes;

/// # Limits
impl Sandbox {
    /// Replaces all limits of the control group that were set so far. [`Child::update`] takes the
    /// same type.
    ///
    /// [`Child::update`]: crate::Child::update
    ///
    /// ```
    /// use ringfence::{Bytes, Limits, Sandbox};
    ///
    /// let small = Limits::new().memory(Bytes::mib(64)).pids(16).cpu(0.5);
    /// let sandbox = Sandbox::new().limits(small);
    /// # drop(sandbox);
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = limits;
        self
    }

    /// Sets the most memory, page cache included, that all processes of the sandbox may use
    /// together (`memory.max`; `memory.limit_in_bytes` on v1). Beyond the limit, the kernel kills:
    /// [`Verdict::OutOfMemory`](crate::Verdict::OutOfMemory).
    ///
    /// Where the host has swap, pages can still be swapped out: see
    /// [`swap_limit`](Sandbox::swap_limit). [`Limits::memory`](crate::Limits::memory) lists the
    /// memory that the kernel does not count.
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox, Verdict};
    ///
    /// let sandbox = Sandbox::new().memory_limit(Bytes::mib(32)).command("tail").arg("/dev/zero");
    /// assert_eq!(sandbox.status()?.verdict(), Verdict::OutOfMemory);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn memory_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory(limit);
        self
    }

    /// Sets the amount of memory beyond which the kernel reclaims from the sandbox, and slows down
    /// processes that ask for more (`memory.high`; none on v1). The kernel kills no process for
    /// this limit: [`Limits::memory_high`](crate::Limits::memory_high).
    pub fn memory_high(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_high(limit);
        self
    }

    /// Sets an amount of memory that the kernel does not reclaim from the sandbox while other
    /// groups have any (`memory.low`; none on v1). The groups above need the same protection:
    /// [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_low(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_low(protected);
        self
    }

    /// Sets an amount of memory that the kernel never reclaims from the sandbox (`memory.min`; none
    /// on v1). The groups above need the same protection:
    /// [`Limits::memory_low`](crate::Limits::memory_low).
    pub fn memory_min(mut self, protected: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.memory_min(protected);
        self
    }

    /// Makes the OOM killer end all processes of the sandbox together, instead of the largest one
    /// (`memory.oom.group`; none on v1). With a [`pid_ns`](Sandbox::pid_ns), the end of the first
    /// process ends the others in any case.
    pub fn oom_group(mut self, all: bool) -> Self {
        self.policy.limits = self.policy.limits.oom_group(all);
        self
    }

    /// Sets the most swap, beside the memory, that the sandbox may use (`memory.swap.max`). On v1,
    /// where memory and swap have one limit together, this call needs
    /// [`memory_limit`](Sandbox::memory_limit). 0 forbids swapping.
    ///
    /// ```
    /// use ringfence::{Bytes, Sandbox};
    ///
    /// let sandbox = Sandbox::new().memory_limit(Bytes::mib(64)).swap_limit(0);
    /// # drop(sandbox);
    /// ```
    pub fn swap_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.swap(limit);
        self
    }

    /// Sets the most memory in huge pages of the size `page` (`hugetlb.2MB.max`;
    /// `hugetlb.2MB.limit_in_bytes` on v1), which no other limit counts. Beyond the limit, mmap(2)
    /// fails with ENOMEM: [`Limits::hugetlb`](crate::Limits::hugetlb).
    ///
    /// ```
    /// use ringfence::{Bytes, Sandbox};
    ///
    /// // No page of 2 MiB at all.
    /// let sandbox = Sandbox::new().hugetlb_limit(Bytes::mib(2), 0);
    /// # drop(sandbox);
    /// ```
    pub fn hugetlb_limit(mut self, page: impl Into<Bytes>, limit: impl Into<Bytes>) -> Self {
        self.policy.limits = self.policy.limits.hugetlb(page, limit);
        self
    }

    /// Sets the most processes and threads in the sandbox, init included (`pids.max`). Beyond the
    /// limit, fork(2) fails with EAGAIN.
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// // The shell is one, and each of its children one more.
    /// let script = "sleep 1 & sleep 1 & wait";
    /// let output = Sandbox::new().pids_limit(2).args(["-c", script]).output()?;
    /// assert!(String::from_utf8_lossy(&output.stderr).to_lowercase().contains("fork"));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn pids_limit(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.pids(limit);
        self
    }

    /// Sets the most processor time in a second of wall time, in cores: 0.25 is a quarter of one
    /// core (`cpu.max`; `cpu.cfs_quota_us` on v1).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// // At most one and a half processors.
    /// let sandbox = Sandbox::new().cpu_limit(1.5);
    /// # drop(sandbox);
    /// ```
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.policy.limits = self.policy.limits.cpu(cores);
        self
    }

    /// Sets the most unused processor time of [`cpu_limit`](Sandbox::cpu_limit) that the sandbox
    /// may use in a later period of 100 ms (`cpu.max.burst`; `cpu.cfs_burst_us` on v1; Linux 5.14).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::Sandbox;
    ///
    /// // A tenth of a processor, of which 50 ms can be saved up for a request.
    /// let sandbox = Sandbox::new().cpu_limit(0.1).cpu_burst(Duration::from_millis(50));
    /// # drop(sandbox);
    /// ```
    pub fn cpu_burst(mut self, burst: Duration) -> Self {
        self.policy.limits = self.policy.limits.cpu_burst(burst);
        self
    }

    /// Lets the sandbox run only on processor time that its siblings leave unused, whatever their
    /// weights (`cpu.idle`; Linux 5.15).
    pub fn cpu_idle(mut self, idle: bool) -> Self {
        self.policy.limits = self.policy.limits.cpu_idle(idle);
        self
    }

    /// Sets the share of a contended processor, 1 to 10,000, where 100 is the default of every
    /// group (`cpu.weight`; `cpu.shares` on v1).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// // Where both want a processor, the first gets four fifths of it.
    /// let (first, second) = (Sandbox::new().cpu_weight(400), Sandbox::new().cpu_weight(100));
    /// # drop((first, second));
    /// ```
    pub fn cpu_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.cpu_weight(weight);
        self
    }

    /// Sets the processors that the sandbox may use, as in `0-3,8` (`cpuset.cpus`).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().cpuset("0").command("nproc");
    /// assert_eq!(sandbox.output()?.stdout, b"1\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cpuset(mut self, cpus: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset(cpus);
        self
    }

    /// Sets the memory nodes that the sandbox may use, as in `0-1` (`cpuset.mems`).
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// // The processors of the first node, and its memory.
    /// let sandbox = Sandbox::new().cpuset("0-15").cpuset_mems("0");
    /// # drop(sandbox);
    /// ```
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.policy.limits = self.policy.limits.cpuset_mems(nodes);
        self
    }

    /// Limits the bandwidth and the operations a second on a block device (`io.max`;
    /// `blkio.throttle.*` on v1, where the limit does not hold for buffered writes:
    /// [`Child::enforced`](crate::Child::enforced) reports that).
    ///
    /// ```no_run
    /// use ringfence::{Bytes, IoLimit, Sandbox};
    ///
    /// let limit = IoLimit::for_path("/srv/data")?.read_bps(Bytes::mib(10)).write_bps(Bytes::mib(5));
    /// let sandbox = Sandbox::new().io_limit(limit);
    /// # drop(sandbox);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn io_limit(mut self, limit: IoLimit) -> Self {
        self.policy.limits = self.policy.limits.io(limit);
        self
    }

    /// Sets the share of a contended disk, 1 to 10,000, where 100 is the default of every group
    /// (`io.weight`, `io.bfq.weight`; `blkio.bfq.weight` on v1). The share holds on disks whose
    /// scheduler, or cost model, knows weights: [`Limits::io_weight`](crate::Limits::io_weight).
    pub fn io_weight(mut self, weight: u64) -> Self {
        self.policy.limits = self.policy.limits.io_weight(weight);
        self
    }

    /// Sets limits and settings in the terms of the OCI runtime specification, beside those of the
    /// other calls: raw shares and quotas, the sum of memory and swap, files of v2 by their name,
    /// and settings that only v1 has, such as `net_cls`. A setting that the host's version of control
    /// groups does not have is an error. See [`Resources`].
    ///
    /// ```
    /// use ringfence::{Bytes, Resources, Sandbox};
    ///
    /// // As `docker run --memory 64m --memory-swap 96m --cpu-shares 512` asks for it.
    /// let more = Resources::new().memory_and_swap(Bytes::mib(96)).cpu_shares(512);
    /// let sandbox = Sandbox::new().memory_limit(Bytes::mib(64)).resources(more);
    /// # drop(sandbox);
    /// ```
    pub fn resources(mut self, resources: Resources) -> Self {
        self.policy.limits = self.policy.limits.resources(resources);
        self
    }

    /// Sets the devices that processes of the sandbox may open and make, and forbids all others:
    /// [`Devices::standard`] has those that programs expect, and [`Devices::none`] has none. The
    /// rules hold from the sandbox's first moment, by a BPF program on cgroup v2 (4.15) and by
    /// `devices.allow` on v1. They need root.
    ///
    /// ```
    /// use ringfence::{Device, DeviceAccess, Devices, Sandbox};
    ///
    /// let rules = Devices::standard().allow(Device::char(10, 232), DeviceAccess::READ | DeviceAccess::WRITE);
    /// let sandbox = Sandbox::new().devices(rules).command("ls").arg("/dev/kvm");
    /// # drop(sandbox);
    /// ```
    pub fn devices(mut self, devices: Devices) -> Self {
        self.policy.limits = self.policy.limits.devices(devices);
        self
    }

    /// Adds a device to those of [`devices`](Sandbox::devices), or to none without that call.
    ///
    /// ```
    /// use ringfence::{Device, DeviceAccess, Sandbox};
    ///
    /// // Nothing but /dev/null, of which a node may be made, too.
    /// let sandbox = Sandbox::new().device_allow(Device::char(1, 3), DeviceAccess::all());
    /// # drop(sandbox);
    /// ```
    pub fn device_allow(mut self, device: Device, access: DeviceAccess) -> Self {
        let devices = self.policy.limits.devices.take().unwrap_or_default();
        self.devices(devices.allow(device, access))
    }

    /// Sets the most control groups that can be made below the sandbox's own
    /// (`cgroup.max.descendants`; none on v1). Without this limit, the program of an ordinary user
    /// sees its control groups read-only.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// // A service manager inside may make eight groups, on two levels.
    /// let sandbox = Sandbox::new().cgroup_ns().cgroup_max_descendants(8).cgroup_max_depth(2);
    /// # drop(sandbox);
    /// ```
    pub fn cgroup_max_descendants(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_descendants(limit);
        self
    }

    /// Sets the most levels of control groups that can be made below the sandbox's own
    /// (`cgroup.max.depth`; none on v1).
    pub fn cgroup_max_depth(mut self, limit: u64) -> Self {
        self.policy.limits = self.policy.limits.max_depth(limit);
        self
    }
}

/// # Limits of processes, of time, and how strictly
impl Sandbox {
    /// Sets a limit of each process in the sandbox: setrlimit(2). `u64::MAX` is no limit. A later
    /// call for a resource replaces an earlier one.
    ///
    /// ```
    /// use ringfence::{Resource, Sandbox};
    ///
    /// let sandbox = Sandbox::new().rlimit(Resource::OpenFiles, 32, 32);
    /// assert_eq!(sandbox.args(["-c", "ulimit -n"]).output()?.stdout, b"32\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.policy.program.rlimits.retain(|(other, ..)| *other != resource);
        self.policy.program.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets the most wall time that the program may run. Then everything in the sandbox is killed:
    /// [`Verdict::WallTime`](crate::Verdict::WallTime). One thread of the library watches over all
    /// sandboxes. `None` is no limit, for a preset that has one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let sandbox = Sandbox::new().wall_time(Duration::from_millis(100)).command("sleep").arg("60");
    /// assert_eq!(sandbox.status()?.verdict(), Verdict::WallTime);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn wall_time(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.policy.wall_time = limit.into();
        self
    }

    /// Has the end of [`wall_time`](Sandbox::wall_time) announced: at the limit the program gets
    /// SIGTERM, or the [`stop_signal`](Sandbox::stop_signal), and everything in the sandbox is
    /// killed only `grace` later. The verdict is
    /// [`Verdict::WallTime`](crate::Verdict::WallTime) in both cases.
    ///
    /// A program that is pid 1 itself gets only signals for which it has set an action; with
    /// [`init`](Sandbox::init) the signal is passed on to the program.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let script = "trap 'echo saved; exit' TERM; while :; do sleep 0.01; done";
    /// let sandbox = Sandbox::new().args(["-c", script]);
    /// let limited = sandbox.wall_time(Duration::from_millis(200)).wall_time_grace(Duration::from_secs(5));
    /// let output = limited.output()?;
    /// assert_eq!(output.outcome.verdict(), Verdict::WallTime);
    /// assert_eq!(output.stdout, b"saved\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wall_time_grace(mut self, grace: Duration) -> Self {
        self.policy.wall_time_grace = Some(grace);
        self
    }

    /// Sets the most processor time that all processes of the sandbox may use together. Then
    /// everything in the sandbox is killed: [`Verdict::CpuTime`](crate::Verdict::CpuTime). The
    /// library reads the time from the control group, in steps that shorten as the limit comes
    /// near, to within about a millisecond a core.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Feature, Sandbox, Verdict};
    ///
    /// // Without a control group that counts, each process has the limit for itself, in whole seconds.
    /// let sandbox = Sandbox::new().cpu_time(Duration::from_secs(1)).best_effort(Feature::CpuTime);
    /// let outcome = sandbox.args(["-c", "while :; do :; done"]).status()?;
    /// assert_eq!(outcome.verdict(), Verdict::CpuTime);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.policy.cpu_time = Some(limit);
        self
    }

    /// Sets the most bytes that the program may write to stdout and stderr together. Then
    /// everything in the sandbox is killed: [`Verdict::OutputLimit`](crate::Verdict::OutputLimit).
    /// All output that was cut off has this verdict, even if the program had ended by then. With
    /// [`output_cut`](Sandbox::output_cut), the library discards the rest instead.
    ///
    /// The bytes of a pipe count when [`Child::wait_with_output`](crate::Child::wait_with_output),
    /// or the caller, reads them. If a stream is a file, the limit holds for the size of that file,
    /// and of every other file that the program writes (`RLIMIT_FSIZE`). Other descriptors, which
    /// have readers outside of the library, cannot be counted. They are refused, unless
    /// [`best_effort`](Sandbox::best_effort)`(`[`Feature::OutputLimit`](crate::Feature::OutputLimit)`)`
    /// goes without the limit. The caller's own stdout and stderr, passed on, are not counted.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let output = Sandbox::new().command("yes").output_limit(1 << 20).output()?;
    /// assert_eq!((output.outcome.verdict(), output.truncated), (Verdict::OutputLimit, true));
    /// assert!(output.stdout.len() <= 1 << 20);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn output_limit(mut self, limit: impl Into<Bytes>) -> Self {
        self.policy.output_limit = Some(limit.into().get());
        self
    }

    /// Sets whether the library discards output beyond [`output_limit`](Sandbox::output_limit) and
    /// lets the program go on, instead of ending it.
    /// [`Output::truncated`](crate::Output::truncated) reports that. The output to a file cannot be
    /// cut: a write beyond the limit fails (EFBIG), or ends the program.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().args(["-c", "echo 0123456789"]);
    /// let output = sandbox.output_limit(4).output_cut(true).output()?;
    /// assert_eq!((&output.stdout[..], output.truncated), (&b"0123"[..], true));
    /// assert!(output.outcome.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn output_cut(mut self, cut: bool) -> Self {
        self.policy.output_cut = cut;
        self
    }

    /// Sets the control group below which the sandbox's own is made, as a path from the root of
    /// each hierarchy (`/sandboxes`). The group is made if it is missing, and removed with the last
    /// sandbox in it. Without this call, the parent is the caller's own group.
    ///
    /// cgroup v2 allows processes in the leaves only. So a group with processes, such as the
    /// caller's own, cannot be the parent of groups with limits there: the spawn fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). The library neither moves the
    /// caller, nor puts the sandbox where the caller's own limits do not hold. Root names a group
    /// here, as above. An ordinary user needs a delegated group, stays in a leaf of that group, and
    /// names the group here:
    ///
    /// ```console
    /// $ systemd-run --user --scope -p Delegate=yes sh -c 'g=/$(cut -d/ -f2- /proc/self/cgroup)
    ///     mkdir /sys/fs/cgroup$g/own; echo $$ >/sys/fs/cgroup$g/own/cgroup.procs
    ///     exec program --cgroup-parent $g'
    /// ```
    pub fn cgroup_parent(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.cgroup_parent = Some(path.as_ref().to_owned());
        self
    }

    /// Sets the sandbox's own control group, as a path from the root of each hierarchy
    /// (`/jobs/one`), in place of a group with a name of the library's. The sandbox is in this
    /// group also without a limit, on v2 and in every v1 hierarchy: also in those of `net_cls`,
    /// `net_prio` and `perf_event`, and in `name=systemd`. Hierarchies that the caller may not
    /// write to are left out if no limit needs them.
    ///
    /// A group that is missing is made, with those above it, and removed with the sandbox. A group
    /// that exists is used if no process and no other group is in it, and it is not frozen: else
    /// the spawn fails with EBUSY or ENOTEMPTY. Such a group stays after the sandbox, with the
    /// limits that were set, but for `pids.max`, which is put back; its device rules are replaced
    /// if the sandbox has some. Limits that are not set stay as they were.
    ///
    /// One sandbox at a time can have the group, and a second one of this process is refused. Two
    /// processes that name an empty group in the same moment are not told apart.
    /// [`reap_stale`](crate::reap_stale) does not know it: what a killed owner leaves in it ends
    /// with the sandbox's init, if it has one, and the empty group is there for the next one.
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let output = Sandbox::strict().cgroup("/jobs/one").pids_limit(20).command("id").output()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn cgroup(mut self, path: impl AsRef<Path>) -> Self {
        self.policy.cgroup = Some(path.as_ref().to_owned());
        self
    }

    /// Makes the sandbox's control group below a transient scope of systemd, for hosts where
    /// systemd owns the tree. For root, the system's manager makes the scope, over the system's
    /// bus. For an ordinary user, the user's own manager makes it, over the user's bus
    /// (`$XDG_RUNTIME_DIR/bus`). So an ordinary user has limits without a delegation of their own;
    /// `cpu_limit`, `cpuset` and `io_limit` need a manager that has their controllers.
    ///
    /// The scope is made with the first sandbox of this process, is shared by all sandboxes that
    /// name an equal scope, and stays until the process and its last sandbox have ended. A parked
    /// process of the library holds the scope meanwhile. The parked process is no child of the
    /// caller, and ends with it. Making the scope takes [`setup_timeout`](Sandbox::setup_timeout)
    /// at most. If the caller stands outside of its manager's subtree, as in a login session,
    /// systemd moves each program into the scope: one more call for each spawn.
    ///
    /// This call needs the crate's feature `systemd`, systemd 238, cgroup v2 and a bus. Where one
    /// is missing, [`check`](Sandbox::check) and the spawn fail with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox, SystemdScope};
    ///
    /// let batch = SystemdScope::new().slice("batch.slice");
    /// let sandbox = Sandbox::new().user_ns().memory_limit(Bytes::mib(64));
    /// let status = sandbox.systemd_scope(batch).status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    #[cfg(feature = "systemd")]
    pub fn systemd_scope(mut self, scope: SystemdScope) -> Self {
        self.policy.systemd_scope = Some(scope);
        self
    }

    /// Has systemd make a scope for this sandbox alone. The scope's group is that of
    /// [`cgroup`](Sandbox::cgroup).
    #[cfg(feature = "oci")]
    pub(crate) fn in_unit(mut self, unit: Unit) -> Self {
        self.policy.unit = Some(unit);
        self
    }

    /// Goes without `feature` where this host cannot enforce it, instead of failing.
    /// [`Child::enforced`](crate::Child::enforced) lists the missing features.
    ///
    /// ```
    /// use ringfence::{Enforcement, Feature, Sandbox};
    ///
    /// let sandbox = Sandbox::new().pids_limit(16).best_effort(Feature::PidsLimit).command("true");
    /// let mut child = sandbox.spawn()?;
    /// if let Some(Enforcement::Missing(why)) = child.enforced().get(Feature::PidsLimit) {
    ///     println!("without a limit of processes: {why}");
    /// }
    /// child.wait()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn best_effort(mut self, feature: Feature) -> Self {
        self.policy.best_effort.insert(feature);
        self
    }
}
