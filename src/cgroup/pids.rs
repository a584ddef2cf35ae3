//! The pids controller, which has the same files on v1 and v2.

use super::kernfs::field;
use super::part::Part;
use super::stats::Stats;
use crate::error::Result;

/// Reads the number of processes and its peak.
pub(super) fn read_current(part: &Part, stats: &mut Stats) -> Result<()> {
    stats.pids_current = part.number(c"pids.current")?;
    stats.pids_peak = part.number(c"pids.peak")?;
    Ok(())
}

/// Reads the number of forks that failed at `pids.max`.
pub(super) fn limit_hits(part: &Part) -> Result<Option<u64>> {
    Ok(part.text(c"pids.events")?.and_then(|text| field(&text, "max")))
}
