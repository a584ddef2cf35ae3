//! From a sandbox to the keys of a profile. What has no text is an error.
//!
//! The policies are taken apart without `..`: a new field asks here for its key.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::attributes::{flags_key, io_priority_key, memory_policy_key, numbers_key, scheduler_key};
use super::file::{
    CapabilitySets, DeviceWeight, File, Filter, FilterArg, FilterRule, HugePages, Ids, Io, Join, JoinPath,
    LandlockRules, LimitsTable, Masked, RdmaTable, ResourcesTable, Root, Size, SoftHard, Stream,
};
use super::forms::{Base as BaseWord, Cap, DeviceItem, DeviceRule, FilterBase, Hex, Mode, Number, Numbers, Preset};
use super::keys::{no_text, text, yes};
use super::mounts::{disk_limit_key, path_text, to_entry, upper_entry};
use super::text::{Either, Table, Text};
use super::{VERSION, build};
use crate::cgroup::{Devices, Limits, Resources};
use crate::error::Result;
use crate::mount::{self, Base, MountFlags, RootFs, Upper};
use crate::namespace::{self, JoinSource, Namespaces};
use crate::policy::Policy;
use crate::program::{Attributes, Program};
use crate::sandbox::Sandbox;
use crate::security::{Capabilities, Compare, Landlock, Privileges, Seccomp, SecureBits};
use crate::stdio::{Descriptors, Source, Stdio};

/// Returns the key of a setting, which is left out where the preset has the same.
fn changed<T: PartialEq + Clone>(call: &str, own: &Option<T>, preset: &Option<T>) -> Result<Option<T>> {
    match (own, preset) {
        (own, preset) if own == preset => Ok(None),
        (None, Some(_)) => Err(no_text(call, "the lack of what strict() sets")),
        (own, _) => Ok(own.clone()),
    }
}

fn switched(own: bool, preset: bool) -> Option<bool> {
    (own != preset).then_some(own)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn filled<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> Option<Table<K, V>> {
    let table: BTreeMap<K, V> = entries.into_iter().collect();
    (!table.is_empty()).then_some(Table(table))
}

fn texts<'t, T: AsRef<OsStr> + 't>(call: &str, list: impl IntoIterator<Item = &'t T>) -> Result<Option<Vec<String>>> {
    list.into_iter().map(|value| text(call, value)).collect::<Result<Vec<_>>>().map(some)
}

fn kinds(set: Namespaces) -> Vec<Text<Namespaces>> {
    set.iter().map(Text).collect()
}

impl File {
    pub(super) fn of(sandbox: &Sandbox) -> Result<File> {
        let Policy {
            program,
            stdio,
            namespaces,
            mounts,
            landlock,
            security,
            limits,
            seccomp,
            supervisor,
            cgroup_parent,
            cgroup,
            #[cfg(feature = "systemd")]
            systemd_scope,
            // Only containers have one.
            #[cfg(feature = "oci")]
                unit: _,
            wall_time,
            wall_time_grace,
            cpu_time,
            output_limit,
            output_cut,
            setup_timeout,
            timings,
            denials,
            best_effort,
            durable: _,
            // The preset has it.
            takes_no_swap: _,
            fail_at,
        } = &sandbox.policy;
        if fail_at.is_some() {
            return Err(no_text("fail_at", "a failure for tests"));
        }
        if supervisor.is_some() {
            return Err(no_text("notify_socket", "a function"));
        }
        // Both are set by this preset, and by nothing else that has a text form.
        let is_strict = mounts.private_tmp && mounts.own_groups;
        let mut file = File { version: VERSION, preset: is_strict.then_some(Text(Preset::Strict)), ..File::default() };
        let preset = if is_strict {
            let shared = Namespaces::all() - namespaces.new;
            file.share = some(kinds(shared));
            Sandbox::strict().share(shared).policy
        } else {
            Policy::default()
        };
        file.read_namespaces(namespaces, &preset.namespaces)?;
        file.read_mounts(mounts, &preset.mounts)?;
        file.read_program(program, &preset.program)?;
        file.read_streams(stdio)?;
        file.read_privileges(security, &preset.security)?;
        file.read_limits(limits, &preset.limits)?;
        file.seccomp = seccomp_key(seccomp.as_ref(), preset.seccomp.as_ref())?;
        file.landlock = landlock.as_ref().map(landlock_table).transpose()?;
        file.cgroup_parent = cgroup_parent.as_deref().map(path_text).transpose()?;
        file.cgroup = cgroup.as_deref().map(path_text).transpose()?;
        #[cfg(feature = "systemd")]
        {
            let scope = |scope: &crate::cgroup::SystemdScope| super::file::Scope {
                slice: scope.slice.clone(),
                description: scope.description.clone(),
            };
            file.systemd_scope = systemd_scope.as_ref().map(scope);
        }
        file.wall_time = changed("wall_time", wall_time, &preset.wall_time)?.map(Text);
        file.wall_time_grace = wall_time_grace.map(Text);
        file.cpu_time = cpu_time.map(Text);
        let output = changed("output_limit", output_limit, &preset.output_limit)?;
        file.output_limit = output.map(|limit| Text(limit.into()));
        file.output_cut = switched(*output_cut, false);
        file.setup_timeout = setup_timeout.map(Text);
        file.timings = switched(*timings, false);
        file.denials = switched(*denials, false);
        file.best_effort = some(best_effort.iter().copied().map(Text).collect());
        // Without the preset, a mount adds a namespace that a later call has removed.
        if !is_strict {
            file.share = some(kinds(file.sandbox()?.policy.namespaces.new - namespaces.new));
        }
        Ok(file)
    }

    fn read_namespaces(&mut self, own: &namespace::Choice, preset: &namespace::Choice) -> Result<()> {
        let namespace::Choice {
            new,
            join,
            ends_in,
            hostname,
            domainname,
            monotonic,
            boottime,
            uid_map,
            gid_map,
            subids,
            user_limits,
            sysctls,
        } = own;
        if ends_in.is_some() {
            return Err(no_text("mount_ns", "a root in somebody else's mount namespace"));
        }
        self.namespaces = some(kinds(*new - preset.new));
        let (mut pids, mut paths) = (Vec::new(), Vec::new());
        for (kind, source) in join {
            match source {
                JoinSource::Pid(pid) => pids.push(Join { kinds: kinds(*kind), pid: pid.cast_unsigned() }),
                JoinSource::Path(file) => paths.push(JoinPath { kind: Text(*kind), path: text("join_path", file)? }),
                JoinSource::Fd(_) => return Err(no_text("join_fd", "a descriptor")),
                JoinSource::Process(_) => return Err(no_text("join_process", "a descriptor")),
            }
        }
        self.join_pid = some(pids);
        self.join_path = some(paths);
        self.hostname = changed("hostname", hostname, &preset.hostname)?;
        self.domainname = domainname.clone();
        self.monotonic_offset = monotonic.map(Text);
        self.boottime_offset = boottime.map(Text);
        self.uid_map = some(uid_map.iter().copied().map(Text).collect());
        self.gid_map = some(gid_map.iter().copied().map(Text).collect());
        self.map_subids = yes(*subids);
        self.sysctl = filled(sysctls.clone());
        if preset.user_limits.keys().any(|table| !user_limits.contains_key(table)) {
            return Err(no_text("user_limit", "the lack of what strict() sets"));
        }
        let limits = user_limits.iter().filter(|(table, count)| preset.user_limits.get(table) != Some(count));
        self.user_limit = filled(limits.map(|(table, count)| (Text(*table), *count)));
        Ok(())
    }

    fn read_mounts(&mut self, own: &mount::Mounts, preset: &mount::Mounts) -> Result<()> {
        let mount::Mounts {
            root,
            mounts,
            no_defaults,
            private_tmp: _,
            own_groups: _,
            image,
            read_only_root,
            masks,
            read_only_paths,
            default_masks,
            stops_before_entry: _,
            no_pivot,
        } = own;
        if image.is_some() || root.as_ref().is_some_and(|root| root.guard.is_some()) {
            return Err(no_text("image", "an image, which is held open,"));
        }
        let root = root.as_ref().map(root_key).transpose()?;
        self.rootfs = changed("rootfs", &root, &preset.root.as_ref().map(root_key).transpose()?)?;
        self.mount = some(mounts.iter().map(to_entry).collect::<Result<_>>()?);
        self.mask = texts("mask", masks)?;
        self.read_only_path = texts("read_only_path", read_only_paths)?;
        self.no_pivot = yes(*no_pivot);
        self.read_only_root = switched(*read_only_root, preset.read_only_root);
        self.default_masks = switched(*default_masks, preset.default_masks);
        self.default_mounts = switched(!no_defaults, true);
        Ok(())
    }

    fn read_program(&mut self, own: &Program, preset: &Program) -> Result<()> {
        let Program {
            command,
            // A profile has one, or its reader gives one.
            is_absent: _,
            args,
            argv0,
            default,
            stop_signal,
            env_clear,
            env,
            cwd,
            make_cwd,
            user,
            groups,
            umask,
            attributes,
            rlimits,
            session,
            init,
            outlive_owner,
        } = own;
        if *default != Default::default() {
            return Err(no_text("image", "the program of an image"));
        }
        self.command = command.as_ref().map(|command| text("command", command)).transpose()?;
        self.args = texts("args", args)?;
        self.argv0 = argv0.as_ref().map(|name| text("argv0", name)).transpose()?;
        self.stop_signal = *stop_signal;
        self.read_environment(*env_clear, env, preset)?;
        self.cwd = cwd.as_deref().map(path_text).transpose()?;
        self.make_cwd = yes(*make_cwd);
        let ids = |(uid, gid): &(u32, u32)| Ids { uid: *uid, gid: *gid };
        self.user = changed("user", user, &preset.user)?.as_ref().map(ids);
        self.groups = groups.clone();
        self.umask = umask.map(|mask| Text(Mode(mask)));
        self.read_attributes(attributes)?;
        let limits = rlimits.iter().filter(|limit| !preset.rlimits.contains(limit));
        let limits = limits.map(|(resource, soft, hard)| {
            let number = |limit: &u64| Text(Number(*limit));
            let both = || Either::Short(number(soft));
            let apart = || Either::Long(SoftHard { soft: number(soft), hard: number(hard) });
            (Text(*resource), if soft == hard { both() } else { apart() })
        });
        self.rlimit = filled(limits);
        self.session = changed("session", session, &preset.session)?.map(Text);
        self.init = switched(*init, preset.init);
        self.die_with_owner = switched(!outlive_owner, true);
        Ok(())
    }

    fn read_attributes(&mut self, own: &Attributes) -> Result<()> {
        let Attributes { oom_score_adj, scheduler, io_priority, cpu_affinity, memory_policy, personality } = own;
        self.oom_score_adj = *oom_score_adj;
        self.scheduler = scheduler.as_ref().map(scheduler_key).transpose()?;
        self.io_priority = io_priority.as_ref().map(io_priority_key).transpose()?;
        self.cpu_affinity = cpu_affinity.as_ref().map(|cpus| numbers_key("cpu_affinity", cpus)).transpose()?;
        self.memory_policy = memory_policy.as_ref().map(memory_policy_key).transpose()?;
        self.personality = personality.map(|domain| flags_key("personality", domain)).transpose()?;
        Ok(())
    }

    fn read_environment(
        &mut self,
        clear: bool,
        own: &BTreeMap<OsString, Option<OsString>>,
        preset: &Program,
    ) -> Result<()> {
        let keeps_all = preset.env.keys().all(|name| own.contains_key(name));
        self.env_clear = yes(clear && !(preset.env_clear && keeps_all));
        let is_preset = |name: &OsString, value: &Option<OsString>| {
            self.env_clear.is_none() && preset.env.get(name).is_some_and(|preset| preset == value)
        };
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        for (name, value) in own.iter().filter(|(name, value)| !is_preset(name, value)) {
            match value {
                Some(value) => set.push((text("env", name)?, text("env", value)?)),
                None => removed.push(text("env_remove", name)?),
            }
        }
        self.env = filled(set);
        self.env_remove = some(removed);
        Ok(())
    }

    fn read_streams(&mut self, own: &Descriptors) -> Result<()> {
        let Descriptors { streams, extra, gives: _ } = own;
        if !extra.is_empty() {
            return Err(no_text("fd", "a descriptor"));
        }
        let [stdin, stdout, stderr] = streams;
        self.stdin = stdin.as_ref().map(|stdio| stream_key("stdin", stdio)).transpose()?;
        self.stdout = stdout.as_ref().map(|stdio| stream_key("stdout", stdio)).transpose()?;
        self.stderr = stderr.as_ref().map(|stdio| stream_key("stderr", stdio)).transpose()?;
        Ok(())
    }

    fn read_privileges(&mut self, own: &Privileges, preset: &Privileges) -> Result<()> {
        let Privileges { capabilities, no_new_privs, session_keyring, labels, admin_until_exec: _ } = own;
        self.apparmor_profile = labels.apparmor.clone();
        self.selinux_label = labels.selinux.clone();
        self.capabilities = changed("capabilities", capabilities, &preset.capabilities)?.as_ref().map(capabilities_key);
        self.no_new_privs = switched(*no_new_privs, preset.no_new_privs);
        self.session_keyring = switched(*session_keyring, preset.session_keyring);
        Ok(())
    }

    /// Writes limits that were added to those of the preset as the builder's calls, and else all of
    /// them as the call that replaces all.
    fn read_limits(&mut self, own: &Limits, preset: &Limits) -> Result<()> {
        let (all, before) = (limits_table(own), limits_table(preset));
        let LimitsTable {
            memory,
            memory_high,
            memory_low,
            memory_min,
            oom_group,
            swap,
            hugetlb,
            pids,
            cpu,
            cpu_burst,
            cpu_idle,
            cpu_weight,
            cpuset,
            cpuset_mems,
            io,
            io_weight,
            resources,
            devices,
            max_descendants,
            max_depth,
        } = all.clone();
        let removes = [before.memory.is_some() && memory.is_none(), before.pids.is_some() && pids.is_none()];
        if removes.contains(&true) {
            self.limits = Some(all);
            return Ok(());
        }
        self.memory_limit = memory.filter(|size| before.memory != Some(*size));
        self.memory_high = memory_high;
        self.memory_low = memory_low;
        self.memory_min = memory_min;
        self.oom_group = oom_group;
        self.swap_limit = swap;
        self.hugetlb_limit = hugetlb;
        self.pids_limit = pids.filter(|count| before.pids != Some(*count));
        self.cpu_limit = cpu;
        self.cpu_burst = cpu_burst;
        self.cpu_idle = cpu_idle;
        self.cpu_weight = cpu_weight;
        self.cpuset = cpuset;
        self.cpuset_mems = cpuset_mems;
        self.io_limit = io;
        self.io_weight = io_weight;
        self.resources = resources;
        self.devices = devices;
        self.cgroup_max_descendants = max_descendants;
        self.cgroup_max_depth = max_depth;
        Ok(())
    }
}

fn resources_table(resources: &Resources) -> ResourcesTable {
    let Resources {
        memory_reservation,
        memory_and_swap,
        swappiness,
        oom_kill_disable,
        cpu_shares,
        cpu_quota,
        cpu_period,
        realtime_runtime,
        realtime_period,
        blkio_weight,
        device_weights,
        network_class,
        network_priorities,
        rdma,
        unified,
    } = resources;
    let number = |count: u64| Text(Number(count));
    let disk = |((major, minor), weight): (&(u64, u64), &u64)| DeviceWeight {
        device: Text(Numbers(*major, *minor)),
        weight: number(*weight),
    };
    let device = |(name, (handles, objects)): (&String, &(Option<u64>, Option<u64>))| {
        (name.clone(), RdmaTable { handles: handles.map(number), objects: objects.map(number) })
    };
    ResourcesTable {
        memory_reservation: memory_reservation.map(Text),
        memory_and_swap: memory_and_swap.map(Text),
        swappiness: swappiness.map(number),
        oom_kill_disable: *oom_kill_disable,
        cpu_shares: cpu_shares.map(number),
        cpu_quota: cpu_quota.map(Text),
        cpu_period: cpu_period.map(Text),
        realtime_runtime: realtime_runtime.map(Text),
        realtime_period: realtime_period.map(Text),
        blkio_weight: blkio_weight.map(number),
        device_weight: some(device_weights.iter().map(disk).collect()),
        network_class: *network_class,
        network_priority: (!network_priorities.is_empty()).then(|| Table(network_priorities.clone())),
        rdma: (!rdma.is_empty()).then(|| Table(rdma.iter().map(device).collect())),
        unified: (!unified.is_empty()).then(|| Table(unified.clone())),
    }
}

fn limits_table(limits: &Limits) -> LimitsTable {
    let Limits {
        memory,
        memory_high,
        memory_low,
        memory_min,
        oom_group,
        swap,
        hugetlb,
        pids,
        cpu,
        cpu_burst,
        cpu_weight,
        cpu_idle,
        cpuset,
        cpuset_mems,
        io,
        io_weight,
        max_descendants,
        max_depth,
        devices,
        resources,
    } = limits;
    let number = |count: u64| Text(Number(count));
    let pages = hugetlb.iter().map(|(page, limit)| HugePages { page: Text(*page), limit: Text(*limit) });
    let disks = io.iter().map(|disk| Io {
        device: Some(Text(Numbers(disk.device.0, disk.device.1))),
        path: None,
        read_bps: disk.read_bps.map(Text),
        write_bps: disk.write_bps.map(Text),
        read_iops: disk.read_iops.map(number),
        write_iops: disk.write_iops.map(number),
    });
    LimitsTable {
        memory: memory.map(Text),
        memory_high: memory_high.map(Text),
        memory_low: memory_low.map(Text),
        memory_min: memory_min.map(Text),
        oom_group: *oom_group,
        swap: swap.map(Text),
        hugetlb: some(pages.collect()),
        pids: pids.map(number),
        cpu: *cpu,
        cpu_burst: cpu_burst.map(Text),
        cpu_idle: *cpu_idle,
        cpu_weight: cpu_weight.map(number),
        cpuset: cpuset.clone(),
        cpuset_mems: cpuset_mems.clone(),
        io: some(disks.collect()),
        io_weight: io_weight.map(number),
        resources: (*resources != Resources::default()).then(|| resources_table(resources)),
        devices: devices.as_ref().map(device_items),
        max_descendants: max_descendants.map(number),
        max_depth: max_depth.map(number),
    }
}

fn device_items(devices: &Devices) -> Vec<Text<DeviceItem>> {
    let rules: Vec<_> = devices.rules().collect();
    let standard: Vec<_> = Devices::standard().rules().collect();
    let (word, rest) = match rules.strip_prefix(standard.as_slice()) {
        Some(rest) => (Some(Text(DeviceItem::Standard)), rest),
        None => (None, rules.as_slice()),
    };
    let rules =
        rest.iter().map(|(device, access, allow)| DeviceRule { device: *device, access: *access, allow: *allow });
    word.into_iter().chain(rules.map(|rule| Text(DeviceItem::Rule(rule)))).collect()
}

fn stream_key(name: &str, stdio: &Stdio) -> Result<Either<String, Stream>> {
    let word = |word: &str| Ok(Either::Short(word.to_owned()));
    let table = Stream { bytes: None, hex: None, pty: None };
    match &stdio.0 {
        Source::Inherit => word("inherit"),
        Source::Null => word("null"),
        Source::Piped => word("piped"),
        Source::Fd(_) => Err(no_text(name, "a descriptor")),
        Source::Pty(size) => {
            let size = Size { rows: size.rows, columns: size.columns };
            Ok(Either::Long(Stream { pty: Some(size), ..table }))
        }
        Source::Bytes(bytes) => Ok(Either::Long(match str::from_utf8(bytes) {
            Ok(text) => Stream { bytes: Some(text.to_owned()), ..table },
            Err(_) => Stream { hex: Some(Text(Hex(bytes.to_vec()))), ..table },
        })),
    }
}

fn root_key(root: &RootFs) -> Result<Either<String, Root>> {
    if root.propagation.is_some() {
        return Err(no_text("rootfs", "a propagation"));
    }
    let mut table = Root {
        id_mapped: yes(root.id_mapped),
        suid: yes(!root.flags.contains(MountFlags::NO_SUID)),
        dev: yes(!root.flags.contains(MountFlags::NO_DEV)),
        disk_limit: root.disk_limit.map(disk_limit_key),
        ..Root::default()
    };
    match &root.base {
        Base::Host => table.base = Some(Text(BaseWord::Host)),
        Base::Programs => table.base = Some(Text(BaseWord::Programs)),
        Base::Dir(dir) => table.dir = Some(path_text(dir)?),
        Base::Overlay(lowers) => {
            table.overlay = Some(lowers.iter().map(|lower| path_text(lower)).collect::<Result<_>>()?);
        }
    }
    table.read_only = yes(root.read_only && table.base.is_none());
    match &root.upper {
        Upper::None => {}
        Upper::Given(upper, work) => table.upper = Some(upper_entry(upper, work)?),
        Upper::Scratch(None) => table.scratch = Some(true),
        Upper::Scratch(Some(base)) => table.scratch_in = Some(path_text(base)?),
        Upper::Tmpfs(size) => table.tmpfs = Some(Text(*size)),
    }
    Ok(Either::Long(table))
}

fn names(set: u64) -> Vec<Text<Cap>> {
    (0..64).filter(|number| set & 1 << number != 0).map(|number| Text(Cap(number))).collect()
}

fn capabilities_key(capabilities: &Capabilities) -> Either<Vec<Text<Cap>>, CapabilitySets> {
    let (sets, bits) = capabilities.sets();
    let [bounding, permitted, effective, inheritable, ambient] = sets;
    if bits.is_none() && [permitted, effective] == [bounding; 2] && [inheritable, ambient] == [0; 2] {
        return Either::Short(names(bounding));
    }
    Either::Long(CapabilitySets {
        bounding: some(names(bounding)),
        permitted: some(names(permitted)),
        effective: some(names(effective)),
        inheritable: some(names(inheritable)),
        ambient: some(names(ambient)),
        securebits: bits.map(|bits: SecureBits| bits.iter().map(Text).collect()),
        ..CapabilitySets::default()
    })
}

fn seccomp_key(own: Option<&Seccomp>, preset: Option<&Seccomp>) -> Result<Option<Either<String, Filter>>> {
    let word = |word: &str| Some(Either::Short(word.to_owned()));
    let Some(own) = own else { return Ok(preset.and_then(|_| word("none"))) };
    if own.is_default() {
        return Ok(if preset.is_some_and(Seccomp::is_default) { None } else { word("default") });
    }
    let (rules, default, foreign, log, speculation) = own.parts();
    let bases = [FilterBase::Default, FilterBase::Compute, FilterBase::AllowList, FilterBase::DenyList];
    // The last two have no rules, so that one of them always fits.
    let base = bases.into_iter().find(|base| rules.starts_with(build::base_filter(*base).parts().0));
    let base = base.unwrap_or(FilterBase::AllowList);
    let profile = build::base_filter(base);
    let (of_base, base_default, base_foreign, base_log, base_speculation) = profile.parts();
    let rules = &rules[of_base.len()..];
    let is_same = (default, foreign, log, speculation) == (base_default, base_foreign, base_log, base_speculation)
        && !own.allows_new_privs()
        && own.architectures().is_empty();
    if base == FilterBase::Compute && rules.is_empty() && is_same {
        return Ok(word("compute"));
    }
    let rules = rules.iter().map(|rule| {
        let args = rule.args.iter().map(|(index, compare)| compare_key(*index, *compare)).collect::<Result<_>>()?;
        let calls = rule.names.iter().map(|name| name.clone().into_owned()).collect();
        Ok(FilterRule { calls, action: Text(rule.action), args: some(args) })
    });
    Ok(Some(Either::Long(Filter {
        base: Text(base),
        rule: some(rules.collect::<Result<_>>()?),
        otherwise: Some(Text(default)).filter(|_| default != base_default),
        foreign: Some(Text(foreign)).filter(|_| foreign != base_foreign),
        // Said in any case: a profile that is the default's copy is not the default.
        log: Some(log),
        allow_speculation: switched(speculation, base_speculation),
        allow_new_privs: yes(own.allows_new_privs()),
        architecture: some(own.architectures().iter().copied().map(Text).collect()),
    })))
}

fn compare_key(index: u8, compare: Compare) -> Result<FilterArg> {
    let number = |value| Some(Text(Number(value)));
    let arg = FilterArg { index, ..FilterArg::default() };
    Ok(match compare {
        Compare::Eq(value) => FilterArg { eq: number(value), ..arg },
        Compare::Ne(value) => FilterArg { ne: number(value), ..arg },
        Compare::Lt(value) => FilterArg { lt: number(value), ..arg },
        Compare::Le(value) => FilterArg { le: number(value), ..arg },
        Compare::Gt(value) => FilterArg { gt: number(value), ..arg },
        Compare::Ge(value) => FilterArg { ge: number(value), ..arg },
        Compare::MaskedEq { mask, value } => {
            let masked = Masked { mask: Text(Number(mask)), value: Text(Number(value)) };
            FilterArg { masked_eq: Some(masked), ..arg }
        }
    })
}

fn landlock_table(rules: &Landlock) -> Result<LandlockRules> {
    let [read, execute, write, device] = rules.paths();
    let [bind, connect] = rules.ports().unwrap_or_default();
    let [signals, sockets] = rules.scopes();
    Ok(LandlockRules {
        read: texts("landlock", &read)?,
        execute: texts("landlock", &execute)?,
        write: texts("landlock", &write)?,
        device: texts("landlock", &device)?,
        restrict_tcp: yes(rules.ports().is_some()),
        bind_tcp: some(bind),
        connect_tcp: some(connect),
        scope_signals: yes(signals),
        scope_abstract_sockets: yes(sockets),
    })
}
