//! ringfence runs a program inside a Linux sandbox: in its own namespaces, on its own root file system, under hard
//! limits. A builder chain says what the program may see and use; the handle that it gives behaves like
//! [`std::process::Child`], tells why the program ended, and takes everything that was made away again when it is
//! dropped.
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
//! | What for code that nobody has read? | [`Sandbox::strict`] |
//! | What may the program see and use? | [`Sandbox`]: [`Namespaces`], [`RootFs`] and the mounts ([`Bind`], [`Tmpfs`], …), the limits, [`Devices`], [`Capabilities`], [`Landlock`], [`Seccomp`] |
//! | How does it run, and how did it end? | [`Child`], [`Outcome`], [`Verdict`], [`Usage`] |
//! | What where one policy runs many programs? | [`Sandbox::prepare`], [`Prepared`], [`Command`]; [`Pool`], where a spawn is to take no longer than one without a sandbox |
//! | What can this host not do? | [`Sandbox::check`], [`Problem`], [`Sandbox::best_effort`], [`Child::enforced`] |
//! | What went wrong? | [`Error`]: the [`Step`], the path, the errno and what to do |
//! | What did a crashed owner leave? | [`reap_stale`] |
//!
//! # How it runs
//!
//! Everything that can be computed, opened or refused is done before a child exists. Then one `clone3(2)` with shared
//! memory makes the child, which at once executes a small static program of the crate's own, in memory of its own. That
//! program makes the remaining system calls (mounts, the root, ids, descriptors), reports the first that fails, and
//! ends in the program's `execve(2)`. So a spawn costs the same however much memory, and however many threads and
//! descriptors, the caller has, and nothing of the caller's process changes: not its working directory, environment,
//! umask, signal handlers or descriptors.
//!
//! The first spawn starts a thread that clones (at most one a core is ever started) and lives as long as the process,
//! because a sandbox's death signal follows the thread that made it. Time limits are watched by one more thread, and while there
//! is a [`Pool`], another fills it. Namespaces
//! and the user are those that the process had then: a thread that changes its own does not change those of sandboxes.
//!
//! # Unusual callers
//!
//! | the caller | what happens |
//! | --- | --- |
//! | ignores SIGCHLD, or waits for any child in another thread | the status comes from the pidfd (Linux 6.15), or from [`init`](Sandbox::init) on any kernel; else [`ErrorKind::StatusLost`] |
//! | forks after a spawn | in the fork the handle has no power, and dropping it does nothing; the fork can spawn sandboxes of its own |
//! | ends the thread that spawned | nothing: sandboxes belong to the process |
//! | is pid 1 | nothing: sandboxes are reaped by pid, other children are the caller's |
//! | is inside a user namespace | as outside; what the outer one does not allow is an error |
//! | dies, by SIGKILL even | its sandboxes die too ([`die_with_owner`](Sandbox::die_with_owner)), also against their will with [`init`](Sandbox::init); [`reap_stale`] clears the rest |
//! | has closed stdin, stdout or stderr | the program gets `/dev/null` in its place |
//! | calls `unshare(CLONE_NEWUSER)` after a spawn | EINVAL, as in every process with several threads |
//!
//! # Crate features
//!
//! `devices`, on by default: [`Devices`] on hosts with cgroup v2, where they are a BPF program. Without it they are an error
//! there, and on v1 they hold all the same.
//!
//! `systemd`, off by default: `Sandbox::systemd_scope`, control groups in a transient scope that systemd makes. It brings the
//! wire format of the crate `zbus`, which needs Rust 1.89, and none of its connections, threads or runtimes.
//!
//! `image`, off by default: [`image`], a store of OCI images, with their layers unpacked for overlayfs.
//!
//! `registry`, off by default: [`registry`], which pulls images from registries and pushes them, over TLS by `rustls` with
//! `ring`, in tasks of `tokio`. It brings `image`.
//!
//! # Kernels
//!
//! Linux 5.4 is enough for all but what the table calls an error. A newer call is tried first, and its fallback is taken
//! where the kernel does not know it (ENOSYS), and where a seccomp filter around the caller does not (EPERM).
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
//! | [`devices`](Sandbox::devices) on cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`) | 4.15 | an error; `devices.allow` on v1 |
//! | [`Seccomp`] filters; with a supervisor; that answers with descriptors | 4.14; 5.0; 5.9 | an error, or [`Sandbox::best_effort`] |
//! | [`Landlock`]: paths; TCP ports; signals and abstract sockets | 6.2; 6.7; 6.12 | an error, or [`Sandbox::best_effort`] |
//! | [`Child::pressure`], on a v2 mount with or without controllers | 5.2 | an error |
//! | [`cpu_burst`](Sandbox::cpu_burst); [`cpu_idle`](Sandbox::cpu_idle) | 5.14; 5.15 | an error, or [`Sandbox::best_effort`] |
//! | overlayfs in a user namespace | 5.11 | an error |
//! | id-mapped layers ([`RootFs::id_mapped`]) | 5.19 | an error |
//! | a root of layers without a copy of the host's mounts, as root | 6.15 | they are copied, and taken off again |
//! | the status of a child that somebody else has reaped | 6.15 | [`ErrorKind::StatusLost`] |

#![warn(missing_docs, missing_debug_implementations)]
#![deny(unsafe_code)]

mod cgroup;
mod child;
mod command;
mod error;
mod feature;
#[cfg(test)]
mod fuzz;
#[cfg(feature = "image")]
pub mod image;
mod judge;
mod launch;
mod mount;
mod namespace;
mod owner;
mod plan;
mod policy;
mod pool;
mod proc;
mod program;
#[cfg(feature = "registry")]
pub mod registry;
mod sandbox;
mod security;
mod spawn;
mod stdio;
mod stub;
mod sys;
mod units;

pub use caps::Capability;
#[cfg(feature = "systemd")]
pub use cgroup::SystemdScope;
pub use cgroup::{Device, DeviceAccess, Devices, HugetlbStats, IoLimit, Limits, Stats};
pub use cgroup::{Pressure, PressureTrigger, PsiResource, PsiThreshold, Stall};
pub use child::{Child, Outcome, Output, OutputStream, Usage, Verdict};
pub use command::Command;
pub use error::{Error, ErrorKind, Problem, Result, Step};
pub use feature::{Enforced, Enforcement, Feature, ParseFeatureError};
pub use mount::{Bind, Dev, HidePid, Mount, Mqueue, Overlay, Proc, RawMount, RootFs, Sysfs, Tmpfs};
pub use namespace::{IdMap, IdMapError, Namespaces, TimeOffset, UserLimit};
pub use owner::{Reaped, reap_stale};
pub use pool::{Pool, PoolStats};
pub use program::{Resource, Session};
pub use sandbox::{Prepared, Sandbox};
pub use security::{Action, Capabilities, Compare, Landlock, Notification, Notifications, Rule, Seccomp, SecureBits};
pub use spawn::Timings;
pub use stdio::Stdio;
pub use units::{Bytes, ParseBytesError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "registry"))]
#[doc = include_str!("../docs/images.md")]
struct Images;
