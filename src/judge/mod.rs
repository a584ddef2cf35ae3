//! The judgement before a spawn: contradictions in the policy, and requests that this host cannot
//! fulfil.

mod bounds;
mod capabilities;
mod descriptors;
mod judgement;
mod kernel;
mod own_group;
mod privileges;
mod shown_groups;
mod template;
mod user_ns;
mod walls;

pub(crate) use judgement::Judgement;
