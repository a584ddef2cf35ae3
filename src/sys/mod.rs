//! System calls that nix does not offer, and helpers for locks, threads and forks. Apart from
//! `stub/` and `spawn/clone.rs`, this is the only module with `unsafe`.
#![allow(unsafe_code)]

pub(crate) mod background;
#[cfg(feature = "devices")]
pub(crate) mod bpf;
pub(crate) mod by_fd;
mod by_pid;
pub(crate) mod file_size;
pub(crate) mod fork_mark;
pub(crate) mod fsmount;
pub(crate) mod memfd;
pub(crate) mod mount;
pub(crate) mod mutex;
pub(crate) mod nsfs;
#[cfg(feature = "oci")]
pub(crate) mod parent_death;
pub(crate) mod pidfd;
pub(crate) mod quota;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod scheduling;
pub(crate) mod scm;
pub(crate) mod seccomp;
pub(crate) mod shortage;
#[cfg(feature = "oci")]
pub(crate) mod sigmask;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod timeout;
mod waitid;
pub(crate) mod xattr;
