//! From the keys of a profile to the calls of the builder.

use super::file::{
    CapabilitySets, File, Filter, FilterArg, Io, LandlockRules, LimitsTable, ResourcesTable, Root, Stream, Upper,
};
use super::forms::{Base, Cap, DeviceItem, FilterBase, Hex, Number, Preset};
use super::keys::{set, when};
use super::text::{Either, Text};
use super::{attributes, mounts, refuse};
use crate::cgroup::{Devices, IoLimit, Limits, Resources};
use crate::error::Result;
use crate::mount::RootFs;
use crate::namespace::Namespaces;
use crate::sandbox::Sandbox;
use crate::security::{Capabilities, Compare, Landlock, Rule, Seccomp, SecureBits};
use crate::stdio::{Stdio, TerminalSize};

impl File {
    pub(super) fn sandbox(&self) -> Result<Sandbox> {
        let preset = self.preset.map_or(Preset::New, |preset| preset.0);
        let share = self.share.iter().flatten().fold(Namespaces::empty(), |all, kind| all | kind.0);
        let sandbox = match preset {
            Preset::New => Sandbox::new(),
            Preset::Strict => Sandbox::strict().share(share),
        };
        let sandbox = self.processes(self.limits(self.privileges(self.files(self.namespaces(sandbox))?)?)?)?;
        // What needs a shared namespace has added it again, and is refused by the judgement.
        let mut sandbox = sandbox;
        sandbox.policy.namespaces.new -= share;
        Ok(sandbox)
    }

    fn namespaces(&self, sandbox: Sandbox) -> Sandbox {
        let kinds = self.namespaces.iter().flatten().fold(Namespaces::empty(), |all, kind| all | kind.0);
        let joins = self.join_pid.iter().flatten().map(|join| {
            let kinds = join.kinds.iter().fold(Namespaces::empty(), |all, kind| all | kind.0);
            (kinds, join.pid)
        });
        let sandbox = joins.fold(sandbox.namespaces(kinds), |sandbox, (kinds, pid)| sandbox.join_pid(kinds, pid));
        let paths = self.join_path.iter().flatten();
        let sandbox = paths.fold(sandbox, |sandbox, join| sandbox.join_path(join.kind.0, &join.path));
        let sandbox = set(sandbox, self.hostname.as_ref(), Sandbox::hostname);
        let sandbox = set(sandbox, self.domainname.as_ref(), Sandbox::domainname);
        let sandbox = set(sandbox, self.monotonic_offset, |sandbox, by| sandbox.monotonic_offset(by.0));
        let sandbox = set(sandbox, self.boottime_offset, |sandbox, by| sandbox.boottime_offset(by.0));
        let sandbox = set(sandbox, self.max_user_namespaces, Sandbox::max_user_namespaces);
        let limits = self.user_limit.iter().flat_map(|limits| &limits.0);
        let sandbox = limits.fold(sandbox, |sandbox, (table, count)| sandbox.user_limit(table.0, *count));
        let sandbox = self.uid_map.iter().flatten().fold(sandbox, |sandbox, map| sandbox.uid_map(map.0));
        let sandbox = self.gid_map.iter().flatten().fold(sandbox, |sandbox, map| sandbox.gid_map(map.0));
        let settings = self.sysctl.iter().flat_map(|settings| &settings.0);
        let sandbox = settings.fold(sandbox, |sandbox, (name, value)| sandbox.sysctl(name, value));
        when(sandbox, self.map_subids, Sandbox::map_subids)
    }

    fn files(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let root = match &self.rootfs {
            None => None,
            Some(Either::Short(dir)) => Some(RootFs::dir(dir)),
            Some(Either::Long(root)) => Some(rootfs(root)?),
        };
        let sandbox = set(sandbox, root, Sandbox::rootfs);
        let sandbox = set(sandbox, self.no_pivot, Sandbox::no_pivot);
        let sandbox = set(sandbox, self.read_only_root, Sandbox::read_only_root);
        let sandbox = self
            .mount
            .iter()
            .flatten()
            .try_fold(sandbox, |sandbox, entry| mounts::of_entry(entry).map(|mount| sandbox.mount(mount)))?;
        let sandbox = self.mask.iter().flatten().fold(sandbox, Sandbox::mask);
        let sandbox = self.read_only_path.iter().flatten().fold(sandbox, Sandbox::read_only_path);
        let sandbox = set(sandbox, self.default_masks, Sandbox::default_masks);
        Ok(set(sandbox, self.default_mounts, Sandbox::default_mounts))
    }

    fn privileges(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let capabilities = match &self.capabilities {
            None => None,
            Some(Either::Short(kept)) => Some(Capabilities::of_sets(kept_sets(mask(kept)), None)),
            Some(Either::Long(sets)) => Some(capabilities(sets)?),
        };
        let sandbox = set(sandbox, capabilities, Sandbox::capabilities);
        let sandbox = set(sandbox, self.no_new_privs, Sandbox::no_new_privs);
        let sandbox = set(sandbox, self.session_keyring, Sandbox::session_keyring);
        let sandbox = set(sandbox, self.apparmor_profile.as_ref(), Sandbox::apparmor_profile);
        let sandbox = set(sandbox, self.selinux_label.as_ref(), Sandbox::selinux_label);
        let sandbox = match &self.seccomp {
            None => sandbox,
            Some(Either::Short(word)) => match word.as_str() {
                "none" => sandbox.seccomp(None),
                "default" => sandbox.seccomp(Seccomp::default()),
                "compute" => sandbox.seccomp(Seccomp::compute()),
                other => {
                    return Err(refuse(format!("seccomp: {other:?} is none of default, compute, none, and no table")));
                }
            },
            Some(Either::Long(filter)) => sandbox.seccomp(seccomp(filter)?),
        };
        Ok(set(sandbox, self.landlock.as_ref(), |sandbox, rules| sandbox.landlock(landlock(rules))))
    }

    fn limits(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let sandbox = match &self.limits {
            Some(limits) => sandbox.limits(limits.limits()?),
            None => sandbox,
        };
        // The builder's calls change the same limits under other names.
        let own = LimitsTable {
            memory: self.memory_limit,
            memory_high: self.memory_high,
            memory_low: self.memory_low,
            memory_min: self.memory_min,
            oom_group: self.oom_group,
            swap: self.swap_limit,
            hugetlb: self.hugetlb_limit.clone(),
            pids: self.pids_limit,
            cpu: self.cpu_limit,
            cpu_burst: self.cpu_burst,
            cpu_idle: self.cpu_idle,
            cpu_weight: self.cpu_weight,
            cpuset: self.cpuset.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            io: self.io_limit.clone(),
            io_weight: self.io_weight,
            resources: self.resources.clone(),
            devices: self.devices.clone(),
            max_descendants: self.cgroup_max_descendants,
            max_depth: self.cgroup_max_depth,
        };
        let limits = own.add_to(sandbox.policy.limits.clone())?;
        let allowed = self.device_allow.iter().flatten();
        let sandbox = allowed.fold(sandbox.limits(limits), |sandbox, rule| {
            if rule.0.allow {
                return sandbox.device_allow(rule.0.device, rule.0.access);
            }
            let devices = sandbox.policy.limits.devices.clone().unwrap_or_default();
            sandbox.devices(devices.deny(rule.0.device, rule.0.access))
        });
        let resources = self.rlimit.iter().flat_map(|limits| &limits.0);
        let sandbox = resources.fold(sandbox, |sandbox, (resource, limit)| match limit {
            Either::Short(both) => sandbox.rlimit(resource.0, both.0.0, both.0.0),
            Either::Long(limit) => sandbox.rlimit(resource.0, limit.soft.0.0, limit.hard.0.0),
        });
        let sandbox = set(sandbox, self.wall_time, |sandbox, time| sandbox.wall_time(time.0));
        let sandbox = set(sandbox, self.wall_time_grace, |sandbox, time| sandbox.wall_time_grace(time.0));
        let sandbox = set(sandbox, self.cpu_time, |sandbox, time| sandbox.cpu_time(time.0));
        let sandbox = set(sandbox, self.output_limit, |sandbox, size| sandbox.output_limit(size.0));
        let sandbox = set(sandbox, self.output_cut, Sandbox::output_cut);
        let sandbox = set(sandbox, self.cgroup_parent.as_ref(), Sandbox::cgroup_parent);
        let sandbox = set(sandbox, self.cgroup.as_ref(), Sandbox::cgroup);
        let sandbox = self.scope(sandbox)?;
        Ok(self.best_effort.iter().flatten().fold(sandbox, |sandbox, feature| sandbox.best_effort(feature.0)))
    }

    #[cfg(feature = "systemd")]
    fn scope(&self, sandbox: Sandbox) -> Result<Sandbox> {
        use crate::cgroup::SystemdScope;
        Ok(set(sandbox, self.systemd_scope.as_ref(), |sandbox, scope| {
            let made = set(SystemdScope::new(), scope.slice.as_ref(), SystemdScope::slice);
            sandbox.systemd_scope(set(made, scope.description.as_ref(), SystemdScope::description))
        }))
    }

    #[cfg(not(feature = "systemd"))]
    fn scope(&self, sandbox: Sandbox) -> Result<Sandbox> {
        match &self.systemd_scope {
            None => Ok(sandbox),
            Some(_) => Err(refuse("systemd_scope: ringfence was built without its feature `systemd`")),
        }
    }

    fn processes(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let sandbox = set(sandbox, self.command.as_ref(), Sandbox::command);
        let sandbox = set(sandbox, self.argv0.as_ref(), Sandbox::argv0);
        let sandbox = sandbox.args(self.args.iter().flatten());
        let sandbox = when(sandbox, self.env_clear, Sandbox::env_clear);
        let variables = self.env.iter().flat_map(|variables| &variables.0);
        let sandbox = sandbox.envs(variables);
        let sandbox = self.env_remove.iter().flatten().fold(sandbox, Sandbox::env_remove);
        let sandbox = set(sandbox, self.cwd.as_ref(), Sandbox::cwd);
        let sandbox = set(sandbox, self.make_cwd, Sandbox::make_cwd);
        let mut sandbox = sandbox;
        let streams = [("stdin", &self.stdin), ("stdout", &self.stdout), ("stderr", &self.stderr)];
        for (name, value) in streams {
            let Some(value) = value else { continue };
            let stdio = stream(name, value)?;
            sandbox = match name {
                "stdin" => sandbox.stdin(stdio),
                "stdout" => sandbox.stdout(stdio),
                _ => sandbox.stderr(stdio),
            };
        }
        let sandbox = set(sandbox, self.user.as_ref(), |sandbox, ids| sandbox.user(ids.uid, ids.gid));
        let sandbox = set(sandbox, self.groups.clone(), Sandbox::groups);
        let sandbox = set(sandbox, self.umask, |sandbox, mask| sandbox.umask(mask.0.0));
        let sandbox = set(sandbox, self.session, |sandbox, session| sandbox.session(session.0));
        let sandbox = set(sandbox, self.init, Sandbox::init);
        let sandbox = set(sandbox, self.stop_signal, Sandbox::stop_signal);
        let sandbox = set(sandbox, self.die_with_owner, Sandbox::die_with_owner);
        let sandbox = self.attributes(sandbox)?;
        let sandbox = set(sandbox, self.setup_timeout, |sandbox, time| sandbox.setup_timeout(time.0));
        let sandbox = set(sandbox, self.denials, Sandbox::denials);
        Ok(set(sandbox, self.timings, Sandbox::timings))
    }

    fn attributes(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let sandbox = set(sandbox, self.oom_score_adj, Sandbox::oom_score_adj);
        let scheduler = self.scheduler.as_ref().map(attributes::scheduler).transpose()?;
        let sandbox = set(sandbox, scheduler, Sandbox::scheduler);
        let priority = self.io_priority.as_ref().map(attributes::io_priority).transpose()?;
        let sandbox = set(sandbox, priority, Sandbox::io_priority);
        let sandbox = set(sandbox, self.cpu_affinity.as_ref(), |sandbox, processors| {
            sandbox.cpu_affinity(processors.iter().map(|processor| *processor as usize))
        });
        let policy = self.memory_policy.as_ref().map(attributes::memory_policy).transpose()?;
        let sandbox = set(sandbox, policy, Sandbox::memory_policy);
        let personality = self.personality.as_deref().map(|names| attributes::flags_of(Some(names)));
        Ok(set(sandbox, personality, Sandbox::personality))
    }
}

impl LimitsTable {
    pub(super) fn limits(&self) -> Result<Limits> {
        self.add_to(Limits::new())
    }

    fn add_to(&self, limits: Limits) -> Result<Limits> {
        let limits = set(limits, self.memory, |limits, size| limits.memory(size.0));
        let limits = set(limits, self.memory_high, |limits, size| limits.memory_high(size.0));
        let limits = set(limits, self.memory_low, |limits, size| limits.memory_low(size.0));
        let limits = set(limits, self.memory_min, |limits, size| limits.memory_min(size.0));
        let limits = set(limits, self.oom_group, Limits::oom_group);
        let limits = set(limits, self.swap, |limits, size| limits.swap(size.0));
        let pages = self.hugetlb.iter().flatten();
        let limits = pages.fold(limits, |limits, pages| limits.hugetlb(pages.page.0, pages.limit.0));
        let limits = set(limits, self.pids, |limits, count| limits.pids(count.0.0));
        let limits = set(limits, self.cpu, Limits::cpu);
        let limits = set(limits, self.cpu_burst, |limits, time| limits.cpu_burst(time.0));
        let limits = set(limits, self.cpu_idle, Limits::cpu_idle);
        let limits = set(limits, self.cpu_weight, |limits, weight| limits.cpu_weight(weight.0.0));
        let limits = set(limits, self.cpuset.as_ref(), Limits::cpuset);
        let limits = set(limits, self.cpuset_mems.as_ref(), Limits::cpuset_mems);
        let disks = self.io.iter().flatten();
        let limits = disks.into_iter().try_fold(limits, |limits, disk| io(disk).map(|limit| limits.io(limit)))?;
        let limits = set(limits, self.io_weight, |limits, weight| limits.io_weight(weight.0.0));
        let limits = set(limits, self.resources.as_ref(), |limits, table| limits.resources(resources(table)));
        let limits = set(limits, self.devices.as_ref(), |limits, items| limits.devices(devices(items)));
        let limits = set(limits, self.max_descendants, |limits, count| limits.max_descendants(count.0.0));
        Ok(set(limits, self.max_depth, |limits, count| limits.max_depth(count.0.0)))
    }
}

fn resources(table: &ResourcesTable) -> Resources {
    let all = Resources::new();
    let all = set(all, table.memory_reservation, |all, size| all.memory_reservation(size.0));
    let all = set(all, table.memory_and_swap, |all, size| all.memory_and_swap(size.0));
    let all = set(all, table.swappiness, |all, percent| all.swappiness(percent.0.0));
    let all = set(all, table.oom_kill_disable, Resources::oom_kill_disable);
    let all = set(all, table.cpu_shares, |all, shares| all.cpu_shares(shares.0.0));
    let all = set(all, table.cpu_quota, |all, time| all.cpu_quota(time.0));
    let all = set(all, table.cpu_period, |all, time| all.cpu_period(time.0));
    let all = set(all, table.realtime_runtime, |all, time| all.realtime_runtime(time.0));
    let all = set(all, table.realtime_period, |all, time| all.realtime_period(time.0));
    let all = set(all, table.blkio_weight, |all, weight| all.blkio_weight(weight.0.0));
    let disks = table.device_weight.iter().flatten();
    let all = disks.fold(all, |all, disk| all.device_weight(disk.device.0.0, disk.device.0.1, disk.weight.0.0));
    let all = set(all, table.network_class, Resources::network_class);
    let interfaces = table.network_priority.iter().flat_map(|table| &table.0);
    let all = interfaces.fold(all, |all, (interface, priority)| all.network_priority(interface, *priority));
    let number = |number: Option<Text<Number>>| number.map(|number| number.0.0);
    let devices = table.rdma.iter().flat_map(|table| &table.0);
    let all = devices.fold(all, |all, (name, limit)| all.rdma(name, number(limit.handles), number(limit.objects)));
    let files = table.unified.iter().flat_map(|table| &table.0);
    files.fold(all, |all, (file, value)| all.unified(file, value))
}

fn io(disk: &Io) -> Result<IoLimit> {
    let limit = match (disk.device, &disk.path) {
        (Some(numbers), None) => IoLimit::device(numbers.0.0, numbers.0.1),
        (None, Some(path)) => IoLimit::for_path(path)?,
        _ => return Err(refuse("io_limit: a disk has one of `device` and `path`")),
    };
    let limit = set(limit, disk.read_bps, |limit, rate| limit.read_bps(rate.0));
    let limit = set(limit, disk.write_bps, |limit, rate| limit.write_bps(rate.0));
    let limit = set(limit, disk.read_iops, |limit, rate| limit.read_iops(rate.0.0));
    Ok(set(limit, disk.write_iops, |limit, rate| limit.write_iops(rate.0.0)))
}

pub(super) fn devices(items: &[Text<DeviceItem>]) -> Devices {
    items.iter().fold(Devices::none(), |devices, item| match item.0 {
        DeviceItem::Standard => {
            let standard = Devices::standard();
            standard.rules().fold(devices, |devices, (device, access, _)| devices.allow(device, access))
        }
        DeviceItem::Rule(rule) if rule.allow => devices.allow(rule.device, rule.access),
        DeviceItem::Rule(rule) => devices.deny(rule.device, rule.access),
    })
}

fn stream(name: &str, value: &Either<String, Stream>) -> Result<Stdio> {
    let table = match value {
        Either::Short(word) => {
            return match word.as_str() {
                "inherit" => Ok(Stdio::inherit()),
                "null" => Ok(Stdio::null()),
                "piped" => Ok(Stdio::piped()),
                other => Err(refuse(format!("{name}: {other:?} is none of inherit, null, piped, and no table"))),
            };
        }
        Either::Long(table) => table,
    };
    match table {
        Stream { bytes: Some(text), hex: None, pty: None } => Ok(Stdio::bytes(text.as_bytes())),
        Stream { bytes: None, hex: Some(Text(Hex(bytes))), pty: None } => Ok(Stdio::bytes(bytes.as_slice())),
        Stream { bytes: None, hex: None, pty: Some(size) } => {
            Ok(Stdio::pty(TerminalSize { rows: size.rows, columns: size.columns }))
        }
        _ => Err(refuse(format!("{name}: a stream has one of `bytes`, `hex` and `pty`"))),
    }
}

fn rootfs(table: &Root) -> Result<RootFs> {
    let root = match (table.base, &table.dir, &table.overlay) {
        (Some(Text(Base::Host)), None, None) => RootFs::host(),
        (Some(Text(Base::Programs)), None, None) => RootFs::programs(),
        (None, Some(dir), None) => RootFs::dir(dir),
        (None, None, Some(lowers)) => RootFs::overlay(lowers),
        _ => return Err(refuse("rootfs: a root has one of `base`, `dir` and `overlay`")),
    };
    let given = [table.upper.is_some(), table.scratch == Some(true), table.scratch_in.is_some(), table.tmpfs.is_some()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(refuse("rootfs: changes go to one of `upper`, `scratch`, `scratch_in` and `tmpfs`"));
    }
    let root = set(root, table.upper.as_ref(), |root, Upper { upper, work }| root.upper(upper, work));
    let root = when(root, table.scratch, RootFs::scratch);
    let root = set(root, table.scratch_in.as_ref(), RootFs::scratch_in);
    let root = set(root, table.tmpfs, |root, size| root.tmpfs(size.0));
    let root = set(root, table.disk_limit.as_ref(), |root, limit| root.disk_limit(mounts::disk_limit(limit)));
    let root = when(root, table.read_only, RootFs::read_only);
    let root = when(root, table.id_mapped, RootFs::id_mapped);
    Ok(when(when(root, table.suid, RootFs::suid), table.dev, RootFs::dev))
}

fn mask(names: &[Text<Cap>]) -> u64 {
    names.iter().fold(0, |all, name| all | 1 << name.0.0)
}

/// The sets of `Capabilities::keep`.
fn kept_sets(kept: u64) -> [u64; 5] {
    [kept, kept, kept, 0, 0]
}

fn capabilities(table: &CapabilitySets) -> Result<Capabilities> {
    let [mut bounding, mut permitted, mut effective, mut inheritable, mut ambient] = match (&table.keep, &table.all_but)
    {
        (Some(kept), None) => kept_sets(mask(kept)),
        (None, Some(dropped)) => {
            let ([all, ..], _) = Capabilities::all_but([]).sets();
            kept_sets(all & !mask(dropped))
        }
        (None, None) => [0; 5],
        _ => return Err(refuse("capabilities: begin with one of `keep` and `all_but`")),
    };
    let given = [&table.bounding, &table.permitted, &table.effective, &table.inheritable, &table.ambient];
    let sets = [&mut bounding, &mut permitted, &mut effective, &mut inheritable, &mut ambient];
    for (set, given) in sets.into_iter().zip(given) {
        if let Some(names) = given {
            *set = mask(names);
        }
    }
    // As `Capabilities::ambient`, which comes last.
    (permitted, inheritable) = (permitted | ambient, inheritable | ambient);
    let bits = table.securebits.as_ref().map(|bits| bits.iter().fold(SecureBits::empty(), |all, bit| all | bit.0));
    Ok(Capabilities::of_sets([bounding, permitted, effective, inheritable, ambient], bits))
}

pub(super) fn base_filter(base: FilterBase) -> Seccomp {
    match base {
        FilterBase::Default => Seccomp::default(),
        FilterBase::Compute => Seccomp::compute(),
        FilterBase::AllowList => Seccomp::allow_list(),
        FilterBase::DenyList => Seccomp::deny_list(),
    }
}

fn seccomp(table: &Filter) -> Result<Seccomp> {
    let mut profile = base_filter(table.base.0);
    for rule in table.rule.iter().flatten() {
        let mut made = Rule::new(rule.calls.clone(), rule.action.0);
        for arg in rule.args.iter().flatten() {
            made = made.arg(arg.index, compare(arg)?);
        }
        profile = profile.rule(made);
    }
    let profile = set(profile, table.otherwise, |profile, action| profile.otherwise(action.0));
    let profile = set(profile, table.foreign, |profile, action| profile.foreign(action.0));
    let profile = set(profile, table.log, Seccomp::log);
    let profile = set(profile, table.allow_speculation, Seccomp::allow_speculation);
    let profile = set(profile, table.allow_new_privs, Seccomp::allow_new_privs);
    Ok(table.architecture.iter().flatten().fold(profile, |profile, further| profile.architecture(further.0)))
}

fn compare(arg: &FilterArg) -> Result<Compare> {
    let number = |value: &Option<Text<Number>>| value.map(|number| number.0.0);
    let masked = arg.masked_eq.as_ref();
    let all = [
        number(&arg.eq).map(Compare::Eq),
        number(&arg.ne).map(Compare::Ne),
        number(&arg.lt).map(Compare::Lt),
        number(&arg.le).map(Compare::Le),
        number(&arg.gt).map(Compare::Gt),
        number(&arg.ge).map(Compare::Ge),
        masked.map(|masked| Compare::MaskedEq { mask: masked.mask.0.0, value: masked.value.0.0 }),
    ];
    let mut given = all.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(refuse("seccomp: an argument has one of `eq`, `ne`, `lt`, `le`, `gt`, `ge` and `masked_eq`")),
    }
}

fn landlock(table: &LandlockRules) -> Landlock {
    let rules = table.read.iter().flatten().fold(Landlock::new(), Landlock::read);
    let rules = table.execute.iter().flatten().fold(rules, Landlock::execute);
    let rules = table.write.iter().flatten().fold(rules, Landlock::write);
    let rules = table.device.iter().flatten().fold(rules, Landlock::device);
    let rules = when(rules, table.restrict_tcp, Landlock::restrict_tcp);
    let rules = table.bind_tcp.iter().flatten().fold(rules, |rules, port| rules.bind_tcp(*port));
    let rules = table.connect_tcp.iter().flatten().fold(rules, |rules, port| rules.connect_tcp(*port));
    let rules = when(rules, table.scope_signals, Landlock::scope_signals);
    when(rules, table.scope_abstract_sockets, Landlock::scope_abstract_sockets)
}
