//! What a program is kept from: by namespaces, ids, privileges, masks, and filters of its system
//! calls.

#[path = "../common/mod.rs"]
mod common;

mod console;
mod denials;
mod everyday;
mod hardening;
mod idmaps;
mod joins;
mod landlock;
mod masks;
mod namespaces;
mod privileges;
mod seccomp;
mod strict;
mod supervise;
