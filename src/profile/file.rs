//! The keys of a profile: one for each call of the builder, under the call's name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::forms::{
    Base, Cap, DeviceItem, DeviceRule, FilterBase, Hex, IoClass, MemoryMode, Mode, NodeKind, Number, Numbers, Preset,
    SchedulerPolicy,
};
use super::text::{Either, Table, Text};
use crate::feature::Feature;
use crate::mount::HidePid;
use crate::namespace::{IdMap, Namespaces, TimeOffset, UserLimit};
use crate::program::{MemoryPolicyFlags, Personality, Resource, SchedulerFlags, Session};
use crate::security::{Action, Architecture, SecureBits};
use crate::units::Bytes;

/// Defines tables: each with the keys that it must have, and after the semicolon those that it may.
macro_rules! tables {
    ($(
        $(#[doc = $doc:literal])*
        $(#[derive($($derive:ident),+)])?
        $name:ident { $($must:ident: $must_type:ty,)* ; $($may:ident: $may_type:ty,)* }
    )+) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[derive($($derive),+)])?
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $must: $must_type,)*
            $(
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $may: Option<$may_type>,
            )*
        }
    )+ };
}

tables! {
    /// The whole profile.
    #[derive(Default)]
    File {
        version: u32,
        ;
        preset: Text<Preset>,
        // The program.
        command: String,
        argv0: String,
        args: Vec<String>,
        env_clear: bool,
        env: Table<String, String>,
        env_remove: Vec<String>,
        cwd: String,
        make_cwd: bool,
        stdin: Either<String, Stream>,
        stdout: Either<String, Stream>,
        stderr: Either<String, Stream>,
        user: Ids,
        groups: Vec<u32>,
        umask: Text<Mode>,
        session: Text<Session>,
        init: bool,
        stop_signal: i32,
        die_with_owner: bool,
        oom_score_adj: i32,
        scheduler: SchedulerTable,
        io_priority: IoPriorityTable,
        cpu_affinity: Vec<u32>,
        memory_policy: MemoryPolicyTable,
        personality: Vec<Text<Personality>>,
        // Namespaces.
        namespaces: Vec<Text<Namespaces>>,
        share: Vec<Text<Namespaces>>,
        join_pid: Vec<Join>,
        join_path: Vec<JoinPath>,
        hostname: String,
        domainname: String,
        monotonic_offset: Text<TimeOffset>,
        boottime_offset: Text<TimeOffset>,
        max_user_namespaces: u32,
        user_limit: Table<Text<UserLimit>, u32>,
        uid_map: Vec<Text<IdMap>>,
        gid_map: Vec<Text<IdMap>>,
        map_subids: bool,
        sysctl: Table<String, String>,
        // File systems.
        rootfs: Either<String, Root>,
        no_pivot: bool,
        read_only_root: bool,
        mount: Vec<MountEntry>,
        mask: Vec<String>,
        read_only_path: Vec<String>,
        default_masks: bool,
        default_mounts: bool,
        // Privileges.
        capabilities: Either<Vec<Text<Cap>>, CapabilitySets>,
        no_new_privs: bool,
        session_keyring: bool,
        apparmor_profile: String,
        selinux_label: String,
        seccomp: Either<String, Filter>,
        landlock: LandlockRules,
        // Limits.
        limits: LimitsTable,
        memory_limit: Text<Bytes>,
        memory_high: Text<Bytes>,
        memory_low: Text<Bytes>,
        memory_min: Text<Bytes>,
        oom_group: bool,
        swap_limit: Text<Bytes>,
        hugetlb_limit: Vec<HugePages>,
        pids_limit: Text<Number>,
        cpu_limit: f64,
        cpu_burst: Text<Duration>,
        cpu_idle: bool,
        cpu_weight: Text<Number>,
        cpuset: String,
        cpuset_mems: String,
        io_limit: Vec<Io>,
        io_weight: Text<Number>,
        resources: ResourcesTable,
        devices: Vec<Text<DeviceItem>>,
        device_allow: Vec<Text<DeviceRule>>,
        cgroup_max_descendants: Text<Number>,
        cgroup_max_depth: Text<Number>,
        rlimit: ResourceLimits,
        wall_time: Text<Duration>,
        wall_time_grace: Text<Duration>,
        cpu_time: Text<Duration>,
        output_limit: Text<Bytes>,
        output_cut: bool,
        cgroup_parent: String,
        cgroup: String,
        systemd_scope: Scope,
        best_effort: Vec<Text<Feature>>,
        setup_timeout: Text<Duration>,
        timings: bool,
        denials: bool,
    }

    /// The limits that replace all others: the calls of `Limits`.
    #[derive(Default)]
    LimitsTable {
        ;
        memory: Text<Bytes>,
        memory_high: Text<Bytes>,
        memory_low: Text<Bytes>,
        memory_min: Text<Bytes>,
        oom_group: bool,
        swap: Text<Bytes>,
        hugetlb: Vec<HugePages>,
        pids: Text<Number>,
        cpu: f64,
        cpu_burst: Text<Duration>,
        cpu_idle: bool,
        cpu_weight: Text<Number>,
        cpuset: String,
        cpuset_mems: String,
        io: Vec<Io>,
        io_weight: Text<Number>,
        resources: ResourcesTable,
        devices: Vec<Text<DeviceItem>>,
        max_descendants: Text<Number>,
        max_depth: Text<Number>,
    }

    /// The calls of `Resources`.
    #[derive(Default)]
    ResourcesTable {
        ;
        memory_reservation: Text<Bytes>,
        memory_and_swap: Text<Bytes>,
        swappiness: Text<Number>,
        oom_kill_disable: bool,
        cpu_shares: Text<Number>,
        cpu_quota: Text<Duration>,
        cpu_period: Text<Duration>,
        realtime_runtime: Text<Duration>,
        realtime_period: Text<Duration>,
        blkio_weight: Text<Number>,
        device_weight: Vec<DeviceWeight>,
        network_class: u32,
        network_priority: Table<String, u32>,
        rdma: Table<String, RdmaTable>,
        unified: Table<String, String>,
    }
    DeviceWeight { device: Text<Numbers>, weight: Text<Number>, ; }
    RdmaTable { ; handles: Text<Number>, objects: Text<Number>, }

    /// Each policy has its own numbers.
    SchedulerTable {
        policy: Text<SchedulerPolicy>,
        ;
        nice: i32,
        priority: u32,
        runtime: Text<Duration>,
        deadline: Text<Duration>,
        period: Text<Duration>,
        flags: Vec<Text<SchedulerFlags>>,
    }
    IoPriorityTable { class: Text<IoClass>, ; level: u8, }
    MemoryPolicyTable { mode: Text<MemoryMode>, ; nodes: Vec<u32>, flags: Vec<Text<MemoryPolicyFlags>>, }

    Ids { uid: u32, gid: u32, ; }
    Join { kinds: Vec<Text<Namespaces>>, pid: u32, ; }
    JoinPath { kind: Text<Namespaces>, path: String, ; }
    HugePages { page: Text<Bytes>, limit: Text<Bytes>, ; }
    SoftHard { soft: Text<Number>, hard: Text<Number>, ; }
    Scope { ; slice: String, description: String, }

    /// The disk is one of `device` and `path`.
    Io {
        ;
        device: Text<Numbers>,
        path: String,
        read_bps: Text<Bytes>,
        write_bps: Text<Bytes>,
        read_iops: Text<Number>,
        write_iops: Text<Number>,
    }

    /// One of three.
    Stream { ; bytes: String, hex: Text<Hex>, pty: Size, }
    Size { rows: u16, columns: u16, ; }

    /// One of `base`, `dir` and `overlay`.
    #[derive(Default)]
    Root {
        ;
        base: Text<Base>,
        dir: String,
        overlay: Vec<String>,
        upper: Upper,
        scratch: bool,
        scratch_in: String,
        tmpfs: Text<Bytes>,
        disk_limit: Either<Text<Bytes>, Disk>,
        read_only: bool,
        id_mapped: bool,
        suid: bool,
        dev: bool,
    }
    Upper { upper: String, work: String, ; }
    Disk { bytes: Text<Bytes>, ; inodes: Text<Number>, }

    BindEntry {
        source: String,
        target: String,
        ;
        read_only: bool,
        optional: bool,
        non_recursive: bool,
        noexec: bool,
        nodev: bool,
        suid: bool,
        dev: bool,
        disk_limit: Either<Text<Bytes>, Disk>,
    }
    TmpfsEntry {
        target: String,
        ;
        size: Text<Bytes>,
        inodes: Text<Number>,
        mode: Text<Mode>,
        copy_up: bool,
        noexec: bool,
        read_only: bool,
        suid: bool,
        dev: bool,
    }
    FileEntry {
        target: String,
        ;
        text: String,
        hex: Text<Hex>,
        mode: Text<Mode>,
        writable: bool,
        noexec: bool,
    }
    SymlinkEntry { to: String, path: String, ; }
    ProcEntry { target: String, ; hidepid: Text<HidePid>, subset_pid: bool, read_only: bool, }
    DevEntry { target: String, ; shm_size: Text<Bytes>, terminals: u32, read_only: bool, }
    CgroupfsEntry { target: String, ; writable: bool, }
    OverlayEntry {
        target: String,
        lowers: Vec<String>,
        ;
        upper: Upper,
        tmpfs: Text<Bytes>,
        disk_limit: Either<Text<Bytes>, Disk>,
        id_mapped: bool,
        read_only: bool,
        noexec: bool,
        suid: bool,
        dev: bool,
    }
    /// A device has numbers, and a FIFO has none.
    NodeEntry {
        target: String,
        kind: Text<NodeKind>,
        ;
        major: u32,
        minor: u32,
        mode: Text<Mode>,
        owner: Ids,
    }
    RawEntry { source: String, target: String, fstype: String, ; flags: Text<Number>, data: String, }

    /// Those of `keep` or `all_but`, or none; then each set that is named.
    #[derive(Default)]
    CapabilitySets {
        ;
        keep: Vec<Text<Cap>>,
        all_but: Vec<Text<Cap>>,
        bounding: Vec<Text<Cap>>,
        permitted: Vec<Text<Cap>>,
        effective: Vec<Text<Cap>>,
        inheritable: Vec<Text<Cap>>,
        ambient: Vec<Text<Cap>>,
        securebits: Vec<Text<SecureBits>>,
    }

    /// Rules on top of a profile.
    Filter {
        base: Text<FilterBase>,
        ;
        rule: Vec<FilterRule>,
        otherwise: Text<Action>,
        foreign: Text<Action>,
        log: bool,
        allow_speculation: bool,
        allow_new_privs: bool,
        architecture: Vec<Text<Architecture>>,
    }
    FilterRule { calls: Vec<String>, action: Text<Action>, ; args: Vec<FilterArg>, }

    /// One comparison of one argument.
    #[derive(Default)]
    FilterArg {
        index: u8,
        ;
        eq: Text<Number>,
        ne: Text<Number>,
        lt: Text<Number>,
        le: Text<Number>,
        gt: Text<Number>,
        ge: Text<Number>,
        masked_eq: Masked,
    }
    Masked { mask: Text<Number>, value: Text<Number>, ; }

    #[derive(Default)]
    LandlockRules {
        ;
        read: Vec<String>,
        execute: Vec<String>,
        write: Vec<String>,
        device: Vec<String>,
        restrict_tcp: bool,
        bind_tcp: Vec<u16>,
        connect_tcp: Vec<u16>,
        scope_signals: bool,
        scope_abstract_sockets: bool,
    }
}

/// A mount of the list, under the name of the call or of the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MountEntry {
    Bind(BindEntry),
    BindRo(BindEntry),
    BindTry(BindEntry),
    BindRoTry(BindEntry),
    Tmpfs(TmpfsEntry),
    File(FileEntry),
    Dir(String),
    Symlink(SymlinkEntry),
    Proc(ProcEntry),
    Dev(DevEntry),
    Sysfs(String),
    Mqueue(String),
    Cgroupfs(Either<String, CgroupfsEntry>),
    Overlay(OverlayEntry),
    DeviceNode(NodeEntry),
    Raw(RawEntry),
}

/// A soft and a hard limit of each resource, or one number for both.
pub(super) type ResourceLimits = Table<Text<Resource>, Either<Text<Number>, SoftHard>>;
