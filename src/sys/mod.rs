//! Raw kernel calls that nix does not offer. With `stub/` and `spawn/clone.rs` the only place with `unsafe`.
#![allow(unsafe_code)]

#[cfg(feature = "devices")]
pub(crate) mod bpf;
mod by_pid;
pub(crate) mod fork_mark;
pub(crate) mod fsmount;
pub(crate) mod memfd;
pub(crate) mod mount;
pub(crate) mod pidfd;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod seccomp;
pub(crate) mod table;
pub(crate) mod timeout;
mod waitid;
pub(crate) mod xattr;
