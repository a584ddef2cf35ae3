//! The capabilities of the calling thread.

use caps::{CapSet, Capability};

/// Returns whether the capability is in the effective set of the calling thread.
pub(super) fn has_capability(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Returns a capability set of the calling thread as a bit mask.
pub(super) fn capability_mask(set: CapSet) -> u64 {
    caps::read(None, set).map_or(0, |held| held.iter().fold(0, |all, capability| all | capability.bitmask()))
}
