//! Containers by the [OCI runtime specification](https://github.com/opencontainers/runtime-spec):
//! needs the crate's feature `oci`.
//!
//! [`Config`] reads the `config.json` of a bundle and makes a [`Sandbox`](crate::Sandbox) of it.
//! Every property is carried out, or refused by its path in the file; what the specification wants
//! a runtime to pass over is a [warning](Config::warnings).
//!
//! [`Runtime`] keeps containers between the calls of an engine, each of which is a process of its
//! own: one creates a [`Container`], another starts it, a third deletes it. The example
//! `oci-runtime` is the command line of that.
//!
//! All hooks run. Those of `createContainer` are executed in the namespaces of the container before
//! its root is entered, when its mounts stand below the root's own path; those of `startContainer`
//! with the rights of the container's program. A hook that fails or takes longer than its timeout
//! ends the container, and the hooks `poststop` run.
//!
//! With [`Runtime::systemd_cgroups`], systemd makes the control groups, a scope for each container.
//!
//! Not yet there, and refused by name: `intelRdt`.

mod config;
mod console;
mod container;
mod documents;
mod events;
mod exec_process;
#[cfg(test)]
mod fields;
mod hooks;
mod listener;
mod problems;
mod runtime;
mod state;
mod state_dir;
mod translate;
mod unknown;
mod update;

pub use config::Config;
pub use console::{send_pidfd, send_terminal};
pub use container::Container;
pub use documents::{default_config, features};
pub use events::{oom_event, stats_event};
pub use exec_process::ExecProcess;
pub use runtime::{Runtime, preserve_fds, preserve_fds_of_exec, subgroups_of_exec};
pub use state::{State, Status};
pub use update::Update;
