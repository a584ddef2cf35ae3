//! ringfence runs a program inside a Linux sandbox: in namespaces of its own, on a root file system
//! of its own, under hard limits. A builder sets what the program may see and use. The handle of a
//! running program is like [`std::process::Child`]. It also reports why the program ended. When the
//! handle is dropped, it removes everything that was made for the sandbox.
//!
//! ```
//! use ringfence::{RootFs, Sandbox, Verdict};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), ringfence::Error> {
//! # let sandbox = Sandbox::new();
//! # let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
//! let output = sandbox // an ordinary user adds .user_ns()
//!     .command("sh")
//!     .args(["-c", "echo I am $$ on $(hostname); sleep 60"])
//!     .rootfs(RootFs::host()) // the host's own root, read-only
//!     .pid_ns()
//!     .uts_ns()
//!     .hostname("box")
//!     .net_ns()
//!     .wall_time(Duration::from_millis(500))
//!     .output()?;
//! assert_eq!(output.stdout, b"I am 1 on box\n");
//! assert_eq!(output.outcome.verdict(), Verdict::WallTime);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | question | answer |
//! | --- | --- |
//! | How do I run untrusted code? | [`Sandbox::strict`] |
//! | How do I set what the program may see and use? | [`Sandbox`]: [`Namespaces`], [`RootFs`] and the mounts ([`Bind`], [`Tmpfs`], …), the limits, [`Devices`], [`Capabilities`], [`Landlock`], [`Seccomp`] |
//! | What has the program changed? | [`UpperDir`], [`Changes`]; [`Collector`] |
//! | What was the program refused? | [`Sandbox::denials`], [`Denial`] |
//! | How is the program running, and how did it end? | [`Child`], [`Killer`], [`Outcome`], [`Verdict`], [`Usage`] |
//! | How do I run many programs under one policy? | [`Sandbox::prepare`], [`Prepared`], [`Command`]; [`Pool`], where a spawn takes no longer than one without a sandbox |
//! | Which features does this host lack? | [`Sandbox::check`], [`Problem`], [`Sandbox::best_effort`], [`Child::enforced`] |
//! | What failed? | [`Error`]: the [`Step`], the path, the errno and the remedy |
//! | How do I run sandboxes in tasks of `tokio`? | [`asynchronous`], with the feature `tokio` |
//! | What happens to a running sandbox? | [`Child::events`], [`Events`] |
//! | How do I leave a sandbox, and find it again later? | [`Child::ticket`], [`Attached`] |
//! | Where are the other types? | by topic: [`running`], [`files`], [`limits`], [`namespaces`], [`privileges`], [`support`] |
//! | How do I remove the sandboxes of a crashed owner? | [`reap_stale`] |
//!
//! # How a sandbox is made
//!
//! Before a child exists, the library computes, opens and refuses everything that it can. Then one
//! `clone3(2)` with shared memory makes the child, which at once executes a small static program of
//! the crate, in memory of its own. This stub makes the remaining system calls (mounts, the root,
//! ids, descriptors), reports the first failure, and ends in the program's `execve(2)`. So the cost
//! of a spawn does not depend on the caller's memory, threads and descriptors. The spawn changes
//! nothing in the caller's process: not its working directory, environment, umask, signal handlers
//! or descriptors.
//!
//! The first spawn starts a spawner thread, which makes the children. At most one is ever started
//! for each core, and as many for sandboxes with a user namespace. Each lives as long as the
//! process, because the kernel sends a sandbox's death signal when the thread that made the sandbox
//! ends. One more thread watches time limits, and
//! while there is a [`Pool`], another thread fills it. Sandboxes have the namespaces and the user
//! that the process had at its first spawn: a thread that changes its own does not change those of
//! sandboxes.
//!
//! # Unusual callers
//!
//! | the caller | what happens |
//! | --- | --- |
//! | ignores SIGCHLD, or waits for any child in another thread | the status comes from the pidfd (Linux 6.15), or from [`init`](Sandbox::init) on any kernel; else [`ErrorKind::StatusLost`] |
//! | forks after a spawn | in the fork, a handle can do nothing, and dropping it does nothing; the fork can spawn sandboxes of its own |
//! | ends the thread that spawned | nothing: sandboxes belong to the process |
//! | is pid 1 | nothing: sandboxes are reaped by pid, other children are the caller's |
//! | is inside a user namespace | as outside; requests that the outer user namespace does not allow are an error |
//! | dies, even by SIGKILL | its sandboxes die too ([`die_with_owner`](Sandbox::die_with_owner)), and with [`init`](Sandbox::init) they cannot prevent that; [`reap_stale`] removes the rest |
//! | has closed stdin, stdout or stderr | the program gets `/dev/null` in its place |
//! | calls `unshare(CLONE_NEWUSER)` after a spawn | EINVAL, as in every process with several threads |
//!
//! # Not in this version
//!
//! Networks: between sandboxes, to the host, or to some addresses only. A sandbox has a loopback
//! interface of its own ([`net_ns`](Sandbox::net_ns)), or the network of the caller. Files that a
//! mount or Landlock refuses are not among the [`denials`](Sandbox::denials). The crate is for
//! Linux on x86_64 and aarch64.
//!
//! # Crate features
//!
//! `devices`, on by default: [`Devices`] on hosts with cgroup v2, where the rules are a BPF
//! program. Without this feature, device rules are an error on v2, and still hold on v1.
//!
//! `systemd`, off by default: `Sandbox::systemd_scope`, which puts control groups into a transient
//! scope of systemd. The feature uses the wire format of the crate `zbus`, and none of the crate's
//! connections, threads or runtimes.
//!
//! `image`, off by default: [`image`], a store of OCI images, with their layers unpacked for
//! overlayfs.
//!
//! `registry`, off by default: [`registry`], which pulls images from registries and pushes them,
//! over TLS by `rustls` with `ring`, in tasks of `tokio`. This feature switches `image` on.
//!
//! `serde`, off by default: `Profile`, a sandbox as text, in TOML and JSON, also from somebody who
//! is not trusted.
//!
//! `tokio`, off by default: [`asynchronous`], which starts and waits for sandboxes in tasks of
//! `tokio`. Everything else in this crate is independent of any runtime.
//!
//! `oci`, off by default: `oci`, containers by the OCI runtime specification, with what an engine
//! asks of its runtime. This feature switches `devices`, `seccomp-json` and `systemd` on.
//!
//! `seccomp-json`, off by default: `Seccomp::from_json`, which reads profiles of container engines.
//!
//! `playground` and `benches`, off by default: nothing of the library; the web server of an
//! example, and the harness of a bench.
//!
//! # Types of other crates
//!
//! Some types in the interface of this crate are those of others, as these are what a program has
//! already. Each is re-exported where that is said here, so that a program needs no dependency of
//! its own on them. A new major version of one of these crates is a new major version of this one.
//!
//! | type | of the crate | re-exported as |
//! | --- | --- | --- |
//! | [`Capability`] | `caps` 0.5 | [`Capability`] |
//! | [`Errno`], which becomes an [`Action`] | `nix` 0.31 | [`Errno`] |
//! | manifests, indexes and configurations of images, with their parts | `oci-spec` 0.10 | [`image`] |
//!
//! # Kernels
//!
//! Linux 5.4 is enough for everything but the rows that say "an error". The library tries a newer
//! call first, and falls back where the kernel does not know the call (ENOSYS), or a seccomp filter
//! around the caller does not (EPERM).
//!
//! | feature | needs | without it |
//! | --- | --- | --- |
//! | pidfds that come with the child and can be polled: `CLONE_PIDFD` | 5.3 | an error |
//! | `waitid(2)` by pidfd, `pidfd_send_signal(2)`, `pidfd_open(2)` | 5.4 | the pid that the pidfd shows in /proc |
//! | `clone3(2)` | 5.3 | `clone(2)` |
//! | birth in a v2 control group: `CLONE_INTO_CGROUP` | 5.7 | the stub enters by itself, before the program |
//! | `open_tree(2)`, `move_mount(2)`: directories as roots, binds; `fsopen(2)`: a `/dev` | 5.2 | an error |
//! | exec of a memfd, which vm.memfd_noexec or a security module may forbid | 3.17 | a file for each spawn: as root on a file system mounted nowhere, else without a name |
//! | `openat2(2)`: mount targets through symbolic links | 5.6 | a walk that refuses symbolic links |
//! | `mount_setattr(2)`: flags of binds and roots | 5.12 | `mount(2)` for each mount in `/proc/self/mountinfo`; an error if one cannot be reached |
//! | `close_range(2)`; with `CLOSE_RANGE_CLOEXEC` | 5.9; 5.11 | `close(2)` for each in `/proc`; `fcntl(2)` for each that was passed |
//! | `cgroup.kill` | 5.14 | freeze, kill each process, thaw, until none is left |
//! | time namespaces | 5.6 | an error |
//! | [`Child::exec`]: `setns(2)` with a pidfd | 5.8 | an error |
//! | [`join_pid`](Sandbox::join_pid), [`join_process`](Sandbox::join_process): all in one call | 5.8 | one call for each, by files of the same process |
//! | [`devices`](Sandbox::devices) on cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`) | 4.15 | an error; `devices.allow` on v1 |
//! | [`Seccomp`] filters; with a supervisor; that answers with descriptors | 4.14; 5.0; 5.9 | an error, or [`Sandbox::best_effort`] |
//! | [`denials`](Sandbox::denials): a filter that reports what it refuses | 5.8 | an error, or [`Sandbox::best_effort`] |
//! | [`Landlock`]: paths; TCP ports; signals and abstract sockets | 6.2; 6.7; 6.12 | an error, or [`Sandbox::best_effort`] |
//! | [`Child::pressure`], on a v2 mount with or without controllers | 5.2 | an error |
//! | [`cpu_burst`](Sandbox::cpu_burst); [`cpu_idle`](Sandbox::cpu_idle) | 5.14; 5.15 | an error, or [`Sandbox::best_effort`] |
//! | overlayfs in a user namespace | 5.11 | an error |
//! | id-mapped layers ([`RootFs::id_mapped`]) | 5.19 | an error |
//! | a root of layers without a copy of the host's mounts, as root | 6.15 | the mounts are copied, and unmounted again |
//! | [`Attached::wait`]: the status of a program that its parent has reaped | 6.15 | [`ErrorKind::StatusLost`] |
//! | the status of a child that another waiter has reaped | 6.15 | [`ErrorKind::StatusLost`] |

#![warn(missing_docs, missing_debug_implementations)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

// First, as rustdoc lists what each module adds to `Sandbox` in this order.
mod sandbox;

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod attach;
mod cgroup;
mod changes;
mod child;
mod collect;
mod command;
mod durable;
mod error;
mod feature;
#[cfg(feature = "oci")]
mod foreign_root;
#[cfg(test)]
mod fuzz;
mod idmap;
#[cfg(feature = "image")]
pub mod image;
mod judge;
mod launch;
mod mount;
mod namespace;
#[cfg(feature = "oci")]
mod network;
#[cfg(feature = "oci")]
pub mod oci;
mod owner;
#[cfg(any(feature = "image", feature = "oci"))]
mod passwd;
mod plan;
mod policy;
mod pool;
mod proc;
#[cfg(feature = "serde")]
mod profile;
mod program;
#[cfg(feature = "registry")]
pub mod registry;
mod security;
mod spawn;
mod stdio;
mod stub;
mod sys;
mod text;
mod units;

pub use cgroup::{Limits, Stats};
pub use child::{Child, Killer, Outcome, Output, Usage, Verdict};
pub use command::Command;
pub use error::{Error, ErrorKind, Problem, Result, Step};
pub use feature::{Enforced, Enforcement, Feature};
pub use mount::{Bind, Mount, RootFs, Tmpfs};
pub use namespace::Namespaces;
pub use owner::reap_stale;
pub use pool::Pool;
pub use sandbox::{Prepared, Sandbox};
pub use security::{Capabilities, Landlock, Seccomp};
pub use stdio::Stdio;
pub use units::Bytes;

// What is less often used is shown in the modules by topic below, and has its path here as well.
#[doc(hidden)]
pub use attach::{Attached, Ticket};
#[doc(hidden)]
pub use caps::Capability;
#[cfg(feature = "systemd")]
#[doc(hidden)]
pub use cgroup::SystemdScope;
#[doc(hidden)]
pub use cgroup::{Device, DeviceAccess, Devices, HugetlbStats, IoLimit, IoStats, Resources};
#[doc(hidden)]
pub use cgroup::{Pressure, PressureTrigger, PsiResource, PsiThreshold, Stall};
#[doc(hidden)]
pub use changes::{Change, ChangeKind, Changes, UpperDir};
#[doc(hidden)]
pub use child::{Event, Events, OutputStream, Terminal};
#[doc(hidden)]
pub use collect::{Collected, Collector};
#[doc(hidden)]
pub use durable::{Created, CreatedState};
#[doc(hidden)]
pub use feature::ParseFeatureError;
#[doc(hidden)]
pub use mount::{Cgroupfs, Dev, DeviceNode, DiskLimit, HidePid, MemoryFile, Mqueue, Overlay, Proc, RawMount, Sysfs};
#[doc(hidden)]
pub use mount::{MountOptions, Propagation};
#[doc(hidden)]
pub use namespace::{IdMap, IdMapError, TimeOffset, UserLimit};
#[doc(hidden)]
pub use nix::errno::Errno;
#[doc(hidden)]
pub use owner::Reaped;
#[doc(hidden)]
pub use pool::PoolStats;
#[cfg(feature = "serde")]
#[doc(hidden)]
pub use profile::{Allow, Profile};
#[doc(hidden)]
pub use program::{
    IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Resource, Scheduler, SchedulerFlags, Session,
};
#[doc(hidden)]
pub use sandbox::HeldNamespaces;
#[doc(hidden)]
pub use security::{Action, Architecture, Compare, Denial, DenialRule, Denials};
#[doc(hidden)]
pub use security::{Notification, Notifications, Rule, SecureBits};
#[doc(hidden)]
pub use spawn::Timings;
#[doc(hidden)]
pub use stdio::TerminalSize;
#[doc(hidden)]
pub use units::ParseBytesError;

/// Programs in their sandboxes: what to run, with which streams, and how it goes and ends.
pub mod running {
    #[cfg(feature = "serde")]
    #[doc(inline)]
    pub use crate::{Allow, Profile};
    #[doc(inline)]
    pub use crate::{
        Attached, Created, CreatedState, Denial, DenialRule, Denials, Event, Events, OutputStream, PoolStats, Reaped,
        Ticket,
    };
    pub use crate::{Child, Command, Killer, Outcome, Output, Pool, Prepared, Stdio, Usage, Verdict, reap_stale};
    #[doc(inline)]
    pub use crate::{IoPriority, MemoryPolicy, MemoryPolicyFlags, Personality, Scheduler, SchedulerFlags};
    #[doc(inline)]
    pub use crate::{Resource, Session};
    #[doc(inline)]
    pub use crate::{Terminal, TerminalSize, Timings};
}

/// Files: the root file system, mounts, and what a program leaves behind.
pub mod files {
    pub use crate::{Bind, Mount, RootFs, Tmpfs};
    #[doc(inline)]
    pub use crate::{Cgroupfs, Collected, Collector, Dev, DeviceNode, DiskLimit, HidePid, MemoryFile, Mqueue};
    #[doc(inline)]
    pub use crate::{Change, ChangeKind, Changes, UpperDir};
    #[doc(inline)]
    pub use crate::{MountOptions, Overlay, Proc, Propagation, RawMount, Sysfs};
}

/// Control groups: limits, what is used, pressure and devices.
pub mod limits {
    #[cfg(feature = "systemd")]
    #[doc(inline)]
    pub use crate::SystemdScope;
    pub use crate::{Bytes, Limits, Stats};
    #[doc(inline)]
    pub use crate::{Device, DeviceAccess, Devices, HugetlbStats, IoLimit, IoStats, ParseBytesError, Resources};
    #[doc(inline)]
    pub use crate::{Pressure, PressureTrigger, PsiResource, PsiThreshold, Stall};
}

/// Namespaces: their kinds, maps of ids, offsets of clocks, and the limits of users inside.
pub mod namespaces {
    pub use crate::Namespaces;
    #[doc(inline)]
    pub use crate::{HeldNamespaces, IdMap, IdMapError, TimeOffset, UserLimit};
}

/// Privileges: capabilities, filters of system calls and their supervisors, Landlock.
pub mod privileges {
    #[doc(inline)]
    pub use crate::{Action, Architecture, Capability, Compare, Errno, Notification, Notifications, Rule, SecureBits};
    pub use crate::{Capabilities, Landlock, Seccomp};
}

/// What a host can enforce, and what went wrong.
pub mod support {
    #[doc(inline)]
    pub use crate::ParseFeatureError;
    pub use crate::{Enforced, Enforcement, Error, ErrorKind, Feature, Problem, Result, Step};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/isolation.md")]
struct Isolation;

#[cfg(doctest)]
#[doc = include_str!("../docs/pool.md")]
struct SizeOfAPool;

#[cfg(doctest)]
#[doc = include_str!("../docs/leaving.md")]
struct LeavingASandbox;

#[cfg(doctest)]
#[doc = include_str!("../docs/recipes.md")]
struct Recipes;

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../docs/async.md")]
struct InTasks;

#[cfg(all(doctest, feature = "registry"))]
#[doc = include_str!("../docs/images.md")]
struct Images;
