//! What a profile of somebody who is not trusted may take: what its own sandbox has, and what the
//! caller allows.
//!
//! The tables are taken apart without `..`: a new key does not compile before it is sorted here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::Capability;

use super::file::{
    BindEntry, CgroupfsEntry, DevEntry, File, FileEntry, Filter, FilterRule, Ids, Io, IoPriorityTable, MountEntry,
    OverlayEntry, ProcEntry, ResourceLimits, Root, SchedulerTable, TmpfsEntry, Upper,
};
use super::forms::{Base, FilterBase, IoClass, Number, Preset, SchedulerPolicy};
use super::text::{Either, Table, Text};
use super::{Profile, UNTRUSTED_LEN_MAX, check_len};
use crate::error::{Error, Problem, Result};
use crate::feature::Feature;
use crate::namespace::{Namespaces, UserLimit};
use crate::program::{Personality, SchedulerFlags, Session};
use crate::sandbox::Sandbox;
use crate::security::Action;
use crate::units::Bytes;

/// The most mounts, masks and read-only paths together.
const MOUNTS_MAX: usize = 256;
/// The most files of one tmpfs.
const INODES_MAX: u64 = 65_536;
/// The terminals of a [`Dev`](crate::Dev), which all sandboxes of the host share.
const TERMINALS_MAX: u32 = 16;
/// The share of a processor or a disk that every group has.
const WEIGHT: u64 = 100;
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The things of the host that a [`Profile::untrusted`] may take. [`Allow::nothing`] is where each
/// list begins.
///
/// ```
/// use std::time::Duration;
///
/// use ringfence::{Allow, Bytes, Profile};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let allow = Allow::nothing().read("/srv/data").memory(Bytes::gib(1)).wall_time(Duration::from_secs(10));
/// let text = r#"
///     version = 1
///     preset = "strict"
///     memory_limit = "1 GiB"
///     mount = [{ bind_ro = { source = "/srv/data", target = "/data" } }]
/// "#;
/// let sandbox = Profile::untrusted(text, &allow)?.sandbox()?;
/// assert_eq!(sandbox.get_wall_time(), Some(Duration::from_secs(10)));
///
/// let greedy = text.replace("/srv/data", "/root/.ssh");
/// assert!(Profile::untrusted(&greedy, &allow).is_err());
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone)]
pub struct Allow {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    share: Namespaces,
    capabilities: u64,
    features: BTreeSet<Feature>,
    users: BTreeSet<(u32, u32)>,
    memory: Bytes,
    processes: u64,
    wall_time: Duration,
    output: Bytes,
}

impl Allow {
    /// Allows nothing of the host, and at most the limits of [`Sandbox::strict`].
    pub fn nothing() -> Self {
        let strict = Sandbox::strict();
        let limits = strict.get_limits();
        Allow {
            read: BTreeSet::new(),
            write: BTreeSet::new(),
            share: Namespaces::empty(),
            capabilities: 0,
            features: BTreeSet::new(),
            users: BTreeSet::new(),
            memory: limits.memory.unwrap_or_default(),
            processes: limits.pids.unwrap_or_default(),
            wall_time: strict.get_wall_time().unwrap_or_default(),
            output: strict.get_output_limit().unwrap_or_default(),
        }
    }

    /// Allows to show this path of the host inside, read-only: as a bind, a root, or a layer. The
    /// profile has to name exactly this path. A path below it could lead elsewhere by a link that
    /// an earlier program has left there. What is mounted below it the profile may leave out, and show
    /// what that covers.
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.insert(path.into());
        self
    }

    /// Allows to show exactly this path of the host inside, writable or read-only.
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.insert(path.into());
        self
    }

    /// Allows to [`share`](Sandbox::share) these namespaces with the caller. `Namespaces::NET` is
    /// the network of the host.
    pub fn share(mut self, kinds: Namespaces) -> Self {
        self.share |= kinds;
        self
    }

    /// Allows these [`capabilities`](Sandbox::capabilities).
    pub fn capabilities(mut self, allowed: impl IntoIterator<Item = Capability>) -> Self {
        self.capabilities |= allowed.into_iter().fold(0, |all, capability| all | capability.bitmask());
        self
    }

    /// Allows to go without this feature: [`best_effort`](Sandbox::best_effort).
    pub fn best_effort(mut self, feature: Feature) -> Self {
        self.features.insert(feature);
        self
    }

    /// Allows this [`user`](Sandbox::user) with this group, as ids inside, and the group as one of
    /// the [`groups`](Sandbox::groups).
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.users.insert((uid, gid));
        self
    }

    /// Sets the most memory, which holds also where the profile sets no limit.
    pub fn memory(mut self, most: impl Into<Bytes>) -> Self {
        self.memory = most.into();
        self
    }

    /// Sets the most processes, which holds also where the profile sets no limit.
    pub fn processes(mut self, most: u64) -> Self {
        self.processes = most;
        self
    }

    /// Sets the most wall time, grace included, which holds also where the profile sets no limit.
    pub fn wall_time(mut self, most: Duration) -> Self {
        self.wall_time = most;
        self
    }

    /// Sets the most output, which holds also where the profile sets no limit.
    pub fn output(mut self, most: impl Into<Bytes>) -> Self {
        self.output = most.into();
        self
    }
}

impl Profile {
    /// Reads the profile of somebody who is not trusted, in TOML. The sandbox is at least as strict
    /// as [`Sandbox::strict`], with which it has to begin (`preset = "strict"`), but for what
    /// `allow` allows. At most 64 KiB are read.
    ///
    /// A profile may set its program and environment, its mounts in memory, lower limits, further
    /// rules. For what [`Allow`] has no call, such as a control group or a device, there is no
    /// allowance: the caller can make that call on the [`sandbox`](Profile::sandbox). It can also
    /// override there what the profile says, as each later call of the builder does.
    ///
    /// What a stream is that the profile does not set, the caller decides with
    /// [`output`](Sandbox::output) or [`spawn`](Sandbox::spawn).
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Profile::from_toml);
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with one of [`problems`](Error::problems)
    /// for each key that takes what is not allowed.
    pub fn untrusted(text: &str, allow: &Allow) -> Result<Profile> {
        check_len(text, UNTRUSTED_LEN_MAX)?;
        Profile::from_toml(text)?.within(allow)
    }

    /// Reads the profile of somebody who is not trusted, in JSON.
    ///
    /// # Errors
    ///
    /// Those of [`untrusted`](Profile::untrusted).
    pub fn untrusted_json(text: &str, allow: &Allow) -> Result<Profile> {
        check_len(text, UNTRUSTED_LEN_MAX)?;
        Profile::from_json(text)?.within(allow)
    }

    fn within(mut self, allow: &Allow) -> Result<Profile> {
        let problems = judge(&self.file, allow);
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        let file = &mut self.file;
        // What the profile leaves out is the preset's, which can be more than is allowed.
        file.memory_limit.get_or_insert(Text(allow.memory));
        file.pids_limit.get_or_insert(Text(Number(allow.processes)));
        let grace = file.wall_time_grace.map_or(Duration::ZERO, |grace| grace.0);
        file.wall_time.get_or_insert(Text(allow.wall_time.saturating_sub(grace)));
        file.output_limit.get_or_insert(Text(allow.output));
        Ok(self)
    }
}

/// Collects the keys that take what is not allowed.
struct Judge<'a> {
    allow: &'a Allow,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        let remedy = "leave it out, or have the caller allow it";
        self.problems.push(Problem::invalid(key, reason, remedy));
    }

    /// Refuses a key wherever it is set.
    fn never<T>(&mut self, key: &str, value: &Option<T>) {
        if value.is_some() {
            self.refuse(key, "an untrusted profile may not set this");
        }
    }

    /// Refuses every value but one.
    fn only<T: PartialEq>(&mut self, key: &str, value: &Option<T>, one: T) {
        if value.as_ref().is_some_and(|value| *value != one) {
            self.refuse(key, "an untrusted profile may not relax this");
        }
    }

    fn at_most<T: PartialOrd>(&mut self, key: &str, value: Option<T>, most: T, shown: &str) {
        if value.is_some_and(|value| value > most) {
            self.refuse(key, format!("more than {shown}"));
        }
    }

    fn path(&mut self, key: &str, path: &str, writes: bool) {
        let path = Path::new(path);
        let may = self.allow.write.contains(path) || !writes && self.allow.read.contains(path);
        if !(may && path.is_absolute()) {
            let what = if writes { "write to" } else { "show" };
            self.refuse(key, format!("it would {what} {path:?} of the host"));
        }
    }

    fn upper(&mut self, key: &str, upper: &Option<Upper>) {
        if let Some(Upper { upper, work }) = upper {
            self.path(key, upper, true);
            self.path(key, work, true);
        }
    }
}

fn judge(file: &File, allow: &Allow) -> Vec<Problem> {
    let mut judge = Judge { allow, problems: Vec::new() };
    let File {
        version: _,
        preset,
        command: _,
        argv0: _,
        args: _,
        env_clear: _,
        env: _,
        env_remove: _,
        cwd: _,
        // A directory on the host needs a root that may be written.
        make_cwd: _,
        stdin,
        stdout,
        stderr,
        user,
        groups,
        umask: _,
        session,
        init,
        stop_signal: _,
        die_with_owner,
        oom_score_adj,
        scheduler,
        io_priority,
        // Some of what the program may use anyway.
        cpu_affinity: _,
        memory_policy: _,
        personality,
        // Each is one that strict() has.
        namespaces: _,
        share,
        join_pid,
        join_path,
        hostname: _,
        domainname: _,
        monotonic_offset: _,
        boottime_offset: _,
        max_user_namespaces,
        user_limit,
        uid_map,
        gid_map,
        map_subids,
        sysctl,
        rootfs,
        no_pivot,
        // A root that would be changed on the host needs a path that may be written.
        read_only_root: _,
        mount,
        mask,
        read_only_path,
        default_masks,
        // What is not mounted cannot be seen.
        default_mounts: _,
        capabilities: _,
        no_new_privs,
        session_keyring,
        apparmor_profile,
        selinux_label,
        seccomp,
        // Its rules only forbid.
        landlock: _,
        limits,
        memory_limit,
        memory_high: _,
        memory_low,
        memory_min,
        oom_group: _,
        // What strict() does not limit can only be limited.
        swap_limit,
        hugetlb_limit: _,
        pids_limit,
        cpu_limit: _,
        cpu_burst: _,
        cpu_idle: _,
        cpu_weight,
        cpuset,
        cpuset_mems,
        io_limit,
        io_weight,
        resources,
        devices,
        device_allow,
        // With these, the program could write to control groups.
        cgroup_max_descendants,
        cgroup_max_depth,
        rlimit,
        wall_time,
        wall_time_grace,
        cpu_time: _,
        output_limit,
        output_cut: _,
        cgroup_parent,
        cgroup,
        systemd_scope,
        best_effort,
        setup_timeout,
        timings: _,
        // The record is bounded, and the answers stay the same.
        denials: _,
    } = file;
    if *preset != Some(Text(Preset::Strict)) {
        judge.refuse("preset", "an untrusted profile begins with strict");
    }
    for (key, stream) in [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)] {
        if matches!(stream, Some(Either::Short(word)) if word == "inherit") {
            judge.refuse(key, "it would be the caller's own stream");
        }
    }
    judge.ids(user.as_ref(), groups.as_deref());
    judge.only("session", &session.map(|session| session.0), Session::New);
    judge.only("init", init, true);
    judge.only("die_with_owner", die_with_owner, true);
    judge.attributes(*oom_score_adj, scheduler.as_ref(), io_priority.as_ref(), personality.as_deref());
    let shared = share.iter().flatten().fold(Namespaces::empty(), |all, kind| all | kind.0);
    if !allow.share.contains(shared) {
        judge.refuse("share", "it would be in namespaces of the caller");
    }
    judge.never("join_pid", join_pid);
    judge.never("join_path", join_path);
    judge.at_most("max_user_namespaces", *max_user_namespaces, 0, "none");
    judge.user_limits(user_limit.as_ref());
    judge.never("uid_map", uid_map);
    judge.never("gid_map", gid_map);
    judge.only("map_subids", map_subids, false);
    judge.never("sysctl", sysctl);
    judge.root(rootfs.as_ref());
    judge.only("no_pivot", no_pivot, false);
    let mounts = [mount.as_ref().map_or(0, Vec::len), mask.as_ref().map_or(0, Vec::len)];
    let count = mounts.iter().sum::<usize>() + read_only_path.as_ref().map_or(0, Vec::len);
    judge.at_most("mount", Some(count), MOUNTS_MAX, "256 mounts, masks and read-only paths");
    mount.iter().flatten().for_each(|entry| judge.mount(entry));
    judge.only("default_masks", default_masks, true);
    judge.capabilities(file);
    judge.only("no_new_privs", no_new_privs, true);
    judge.only("session_keyring", session_keyring, true);
    judge.never("apparmor_profile", apparmor_profile);
    judge.never("selinux_label", selinux_label);
    judge.seccomp(seccomp.as_ref());
    judge.never("limits", limits);
    judge.at_most("memory_limit", memory_limit.map(|size| size.0), allow.memory, &allow.memory.to_string());
    judge.only("swap_limit", &swap_limit.as_ref().map(|size| size.0), Bytes::new(0));
    judge.never("memory_low", memory_low);
    judge.never("memory_min", memory_min);
    let processes = allow.processes.to_string();
    judge.at_most("pids_limit", pids_limit.map(|count| count.0.0), allow.processes, &processes);
    judge.at_most("cpu_weight", cpu_weight.map(|weight| weight.0.0), WEIGHT, "others have");
    judge.never("cpuset", cpuset);
    judge.never("cpuset_mems", cpuset_mems);
    for Io { path, device: _, read_bps: _, write_bps: _, read_iops: _, write_iops: _ } in io_limit.iter().flatten() {
        judge.never("io_limit", path);
    }
    judge.at_most("io_weight", io_weight.map(|weight| weight.0.0), WEIGHT, "others have");
    judge.never("resources", resources);
    judge.never("devices", devices);
    judge.never("device_allow", device_allow);
    judge.never("cgroup_max_descendants", cgroup_max_descendants);
    judge.never("cgroup_max_depth", cgroup_max_depth);
    judge.rlimits(rlimit.as_ref());
    let grace = wall_time_grace.map_or(Duration::ZERO, |grace| grace.0);
    let total = wall_time.map_or(grace, |time| time.0.saturating_add(grace));
    judge.at_most("wall_time", Some(total), allow.wall_time, &format!("{:?}", allow.wall_time));
    judge.at_most("output_limit", output_limit.map(|size| size.0), allow.output, &allow.output.to_string());
    judge.never("cgroup_parent", cgroup_parent);
    judge.never("cgroup", cgroup);
    judge.never("systemd_scope", systemd_scope);
    for feature in best_effort.iter().flatten().filter(|feature| !allow.features.contains(&feature.0)) {
        judge.refuse("best_effort", format!("it would go without {}", feature.0.as_str()));
    }
    judge.at_most("setup_timeout", setup_timeout.map(|time| time.0), SETUP_TIMEOUT, "30 seconds");
    judge.problems
}

impl Judge<'_> {
    fn ids(&mut self, user: Option<&Ids>, groups: Option<&[u32]>) {
        let strict = Sandbox::strict().policy.program.user;
        if let Some(Ids { uid, gid }) = user
            && Some((*uid, *gid)) != strict
            && !self.allow.users.contains(&(*uid, *gid))
        {
            self.refuse("user", format!("it would be user {uid} and group {gid}"));
        }
        let is_allowed = |group: &u32| self.allow.users.iter().any(|(_, gid)| gid == group);
        if !groups.is_none_or(|groups| groups.iter().all(is_allowed)) {
            self.refuse("groups", "it would be in groups that are not allowed");
        }
    }

    fn attributes(
        &mut self,
        oom_score_adj: Option<i32>,
        scheduler: Option<&SchedulerTable>,
        io_priority: Option<&IoPriorityTable>,
        personality: Option<&[Text<Personality>]>,
    ) {
        if oom_score_adj.is_some_and(|badness| badness < 0) {
            self.refuse("oom_score_adj", "others would be taken before it when memory runs out");
        }
        if let Some(SchedulerTable { policy, nice, priority: _, runtime: _, deadline: _, period: _, flags }) = scheduler
        {
            let yields = matches!(policy.0, SchedulerPolicy::Other | SchedulerPolicy::Batch | SchedulerPolicy::Idle);
            let plain = flags.iter().flatten().all(|flag| flag.0 == SchedulerFlags::RESET_ON_FORK);
            if !yields || nice.is_some_and(|nice| nice < 0) || !plain {
                self.refuse("scheduler", "it would run before others");
            }
        }
        if let Some(IoPriorityTable { class, level: _ }) = io_priority
            && class.0 == IoClass::Realtime
        {
            self.refuse("io_priority", "it would read and write before others");
        }
        let harmless = Personality::LINUX32
            | Personality::UNAME26
            | Personality::ADDR_NO_RANDOMIZE
            | Personality::ADDR_COMPAT_LAYOUT
            | Personality::READ_IMPLIES_EXEC;
        if personality.into_iter().flatten().any(|part| !harmless.contains(part.0)) {
            self.refuse("personality", "an untrusted profile may not set this part");
        }
    }

    fn user_limits(&mut self, limits: Option<&Table<Text<UserLimit>, u32>>) {
        let strict = Sandbox::strict().policy.namespaces.user_limits;
        for (table, count) in limits.iter().flat_map(|limits| &limits.0) {
            let most = strict.get(&table.0).copied().unwrap_or_default();
            self.at_most("user_limit", Some(*count), most, "strict() allows");
        }
    }

    fn rlimits(&mut self, limits: Option<&ResourceLimits>) {
        let strict = Sandbox::strict().policy.program.rlimits;
        for (resource, limit) in limits.iter().flat_map(|limits| &limits.0) {
            let hard = match limit {
                Either::Short(both) => both.0.0,
                Either::Long(limit) => limit.soft.0.0.max(limit.hard.0.0),
            };
            let of_strict = strict.iter().find(|(one, ..)| *one == resource.0).map(|(.., hard)| *hard);
            let of_caller = || resource.0.caller_limits().map_or(0, |(_, hard)| hard);
            self.at_most("rlimit", Some(hard), of_strict.unwrap_or_else(of_caller), "strict() or the caller has");
        }
    }

    fn root(&mut self, root: Option<&Either<String, Root>>) {
        let key = "rootfs";
        let table = match root {
            None => return,
            Some(Either::Short(dir)) => return self.path(key, dir, true),
            Some(Either::Long(table)) => table,
        };
        let Root { base, dir, overlay, upper, scratch, scratch_in, tmpfs, disk_limit, read_only, id_mapped, suid, dev } =
            table;
        if *base == Some(Text(Base::Host)) {
            self.path(key, "/", false);
        }
        dir.iter().for_each(|dir| self.path(key, dir, *read_only != Some(true)));
        overlay.iter().flatten().for_each(|lower| self.path(key, lower, false));
        self.upper(key, upper);
        // A scratch directory takes as much of the host's disk as there is.
        self.only(key, scratch, false);
        scratch_in.iter().for_each(|base| self.path(key, base, true));
        self.disk_limit(key, disk_limit.is_some());
        self.at_most(key, tmpfs.map(|size| size.0), self.allow.memory, "the memory that is allowed");
        for opened in [id_mapped, suid, dev] {
            self.only(key, opened, false);
        }
    }

    fn mount(&mut self, entry: &MountEntry) {
        let key = "mount";
        match entry {
            MountEntry::Bind(bind) | MountEntry::BindTry(bind) => self.bind(bind, false),
            MountEntry::BindRo(bind) | MountEntry::BindRoTry(bind) => self.bind(bind, true),
            // What is copied is the sandbox's own root, and has to fit.
            MountEntry::Tmpfs(TmpfsEntry {
                target: _,
                size,
                inodes,
                mode: _,
                copy_up: _,
                noexec: _,
                read_only: _,
                suid,
                dev,
            }) => {
                self.at_most(key, size.map(|size| size.0), self.allow.memory, "the memory that is allowed");
                self.at_most(key, inodes.map(|count| count.0.0), INODES_MAX, "65,536 files");
                self.only(key, suid, false);
                self.only(key, dev, false);
            }
            MountEntry::File(FileEntry { target: _, text: _, hex: _, mode: _, writable: _, noexec: _ }) => {}
            // They stand in the sandbox's own memory, or are refused.
            MountEntry::Dir(_) | MountEntry::Symlink(_) => {}
            MountEntry::Proc(ProcEntry { target, hidepid: _, subset_pid, read_only: _ }) => {
                if target != "/proc" && *subset_pid != Some(true) {
                    self.refuse(key, "the masks are for /proc, and not for another one");
                }
            }
            MountEntry::Dev(DevEntry { target: _, shm_size, terminals, read_only: _ }) => {
                self.at_most(key, shm_size.map(|size| size.0), self.allow.memory, "the memory that is allowed");
                self.at_most(key, *terminals, TERMINALS_MAX, "16 terminals");
            }
            MountEntry::Sysfs(_) => self.refuse(key, "sysfs shows the hardware of the host"),
            // The sandbox's own queues and control groups.
            MountEntry::Mqueue(_) | MountEntry::Cgroupfs(Either::Short(_)) => {}
            MountEntry::Cgroupfs(Either::Long(CgroupfsEntry { target: _, writable })) => {
                self.only(key, writable, false);
            }
            MountEntry::Overlay(OverlayEntry {
                target: _,
                lowers,
                upper,
                tmpfs,
                disk_limit,
                id_mapped,
                read_only: _,
                noexec: _,
                suid,
                dev,
            }) => {
                lowers.iter().for_each(|lower| self.path(key, lower, false));
                self.upper(key, upper);
                self.disk_limit(key, disk_limit.is_some());
                self.at_most(key, tmpfs.map(|size| size.0), self.allow.memory, "the memory that is allowed");
                for opened in [id_mapped, suid, dev] {
                    self.only(key, opened, false);
                }
            }
            MountEntry::DeviceNode(_) => self.refuse(key, "a device node opens a device of the host"),
            MountEntry::Raw(_) => self.refuse(key, "mount(2) could take anything"),
        }
    }

    fn bind(&mut self, bind: &BindEntry, is_read_only: bool) {
        let BindEntry {
            source,
            target: _,
            read_only,
            optional: _,
            non_recursive: _,
            noexec: _,
            nodev: _,
            suid,
            dev,
            disk_limit,
        } = bind;
        self.disk_limit("mount", disk_limit.is_some());
        self.path("mount", source, !(is_read_only || *read_only == Some(true)));
        self.only("mount", suid, false);
        self.only("mount", dev, false);
    }

    /// The limit would stay with a directory of the caller's, and could be above the one that it
    /// has.
    fn disk_limit(&mut self, key: &str, is_given: bool) {
        if is_given {
            self.refuse(key, "an untrusted profile may not set the limit of a directory");
        }
    }

    fn capabilities(&mut self, file: &File) {
        if file.capabilities.is_none() {
            return;
        }
        // As the builder would have them.
        let only = File { capabilities: file.capabilities.clone(), ..File::default() };
        let made = only.sandbox().ok().and_then(|sandbox| sandbox.policy.security.capabilities);
        let is_allowed = made.is_some_and(|capabilities| {
            let (sets, securebits) = capabilities.sets();
            securebits.is_none() && sets.iter().all(|set| set & !self.allow.capabilities == 0)
        });
        if !is_allowed {
            self.refuse("capabilities", "it would have capabilities that are not allowed");
        }
    }

    fn seccomp(&mut self, profile: Option<&Either<String, Filter>>) {
        let table = match profile {
            None => return,
            Some(Either::Short(word)) if word == "default" || word == "compute" => return,
            Some(Either::Short(_)) => return self.refuse("seccomp", "an untrusted profile has a filter"),
            Some(Either::Long(table)) => table,
        };
        let Filter { base, rule, otherwise, foreign, log, allow_speculation, allow_new_privs, architecture } = table;
        let refuses = |action: Action| {
            matches!(action, Action::Errno(_) | Action::Trap | Action::KillThread | Action::KillProcess)
        };
        let rules = rule.iter().flatten().map(|FilterRule { calls: _, action, args: _ }| action.0);
        let actions = rules.chain(otherwise.map(|action| action.0)).chain(foreign.map(|action| action.0));
        let is_tighter = matches!(base.0, FilterBase::Default | FilterBase::Compute)
            && actions.into_iter().all(refuses)
            && *log != Some(true)
            && *allow_speculation != Some(true)
            && *allow_new_privs != Some(true)
            // Calls of programs that the filter would refuse as a whole.
            && architecture.iter().flatten().next().is_none();
        if !is_tighter {
            self.refuse("seccomp", "rules may only refuse more than default or compute");
        }
    }
}
