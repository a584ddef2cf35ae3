//! The stub as bytes, and the format of its plans. The source of the stub is in `program/`.

#[allow(missing_docs, reason = "private; documented where a name does not say it")]
pub(crate) mod wire;

/// The static program that build.rs compiled from `program/`. Empty on docs.rs, which runs nothing.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));
