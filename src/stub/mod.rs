//! The stub, as bytes, and the format in which it takes its plan. Its source stands in `program/`.

#[allow(missing_docs, reason = "private; documented where a name does not say it")]
pub(crate) mod wire;

/// The static program that build.rs made of `program/`; empty on docs.rs, which runs nothing.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));
