//! The capabilities that the calling thread has.

use caps::{CapSet, Capability};

/// Returns whether the capability is in the calling thread's effective set.
pub(super) fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Returns a set of the calling thread's as a bit mask.
pub(super) fn held(set: CapSet) -> u64 {
    caps::read(None, set).map_or(0, |held| held.iter().fold(0, |all, capability| all | capability.bitmask()))
}
