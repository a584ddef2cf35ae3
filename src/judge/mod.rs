//! The judgement before a spawn: what contradicts itself, and what this host cannot do.

mod bounds;
mod held;
mod judgement;
mod kernel;
mod own_group;
mod privileges;
mod template;
mod user_ns;

pub(crate) use judgement::{Judgement, UNCOUNTED};
