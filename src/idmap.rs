//! The lines of uid and gid maps: user_namespaces(7).

use std::str::FromStr;

/// The most lines of a map, since 4.15; five before.
pub(crate) const LINES_MAX: usize = 340;

/// One line of a uid or gid map: `count` ids from `inside` on are those from `outside` on.
///
/// ```
/// use ringfence::IdMap;
///
/// let map: IdMap = "0:100000:65536".parse().unwrap();
/// assert_eq!(map, IdMap::new(0, 100_000, 65_536));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside, as the caller's user namespace counts.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

impl IdMap {
    /// Makes a line of `count` ids.
    pub const fn new(inside: u32, outside: u32, count: u32) -> Self {
        IdMap { inside, outside, count }
    }

    /// Parses the lines of a map as /proc shows it.
    pub(crate) fn lines(map: &str) -> Vec<IdMap> {
        map.lines().filter_map(|line| line.split_whitespace().collect::<Vec<_>>().join(":").parse().ok()).collect()
    }

    /// Returns whether the line maps the id `inside`.
    pub(crate) fn covers(&self, inside: u32) -> bool {
        inside >= self.inside && u64::from(inside) < u64::from(self.inside) + u64::from(self.count)
    }

    /// Returns the first two lines that have an id in common, which the kernel refuses (EINVAL).
    pub(crate) fn overlap(lines: &[IdMap]) -> Option<(IdMap, IdMap)> {
        let meet = |one: u32, len: u32, other: u32, size: u32| {
            u64::from(one) < u64::from(other) + u64::from(size) && u64::from(other) < u64::from(one) + u64::from(len)
        };
        lines.iter().enumerate().find_map(|(i, a)| {
            let other = lines[i + 1..]
                .iter()
                .find(|b| meet(a.inside, a.count, b.inside, b.count) || meet(a.outside, a.count, b.outside, b.count))?;
            Some((*a, *other))
        })
    }

    /// Returns whether the kernel would take the line: it is not empty, and no id reaches 2^32 - 1,
    /// which means "none".
    pub(crate) fn is_valid(&self) -> bool {
        let fits = |first: u32| u64::from(first) + u64::from(self.count) <= u64::from(u32::MAX);
        self.count > 0 && fits(self.inside) && fits(self.outside)
    }
}

/// The text is no id map: it wants `INSIDE:OUTSIDE:COUNT` in whole numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id map: write INSIDE:OUTSIDE:COUNT")]
pub struct IdMapError(String);

impl FromStr for IdMap {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let error = || IdMapError(text.to_owned());
        let numbers: Result<Vec<u32>, std::num::ParseIntError> = text.split(':').map(str::parse).collect();
        match numbers.map_err(|_| error())?[..] {
            [inside, outside, count] => {
                Some(IdMap { inside, outside, count }).filter(IdMap::is_valid).ok_or_else(error)
            }
            _ => Err(error()),
        }
    }
}

/// Returns the lines by which two ids are each the other's, and all others are themselves.
pub(crate) fn exchanging(one: u32, other: u32) -> [IdMap; 5] {
    let (low, high) = (one.min(other), one.max(other));
    let same = |first, end: u32| IdMap::new(first, first, end - first);
    let across = |from, to| IdMap::new(from, to, 1);
    [same(0, low), across(low, high), same(low + 1, high), across(high, low), same(high + 1, u32::MAX)]
}

/// Returns whether the map is of nothing but the caller's own id.
pub(crate) fn is_own(maps: &[IdMap], own: u32) -> bool {
    matches!(maps, [m] if m.count == 1 && m.outside == own)
}

/// Returns an id for what shall own nothing and may do nothing, among those that `map`, the text of
/// the caller's own `/proc/self/uid_map`, has: one beyond those that systemd, shadow-utils and
/// container managers give out, else nobody's, else the last one that is not root's.
pub(crate) fn unprivileged_id(map: &str) -> Option<u32> {
    const UNUSED: u32 = 0x7000_0000;
    const NOBODY: u32 = 65_534;
    let lines = IdMap::lines(map);
    let last = lines.iter().map(|line| line.inside + (line.count - 1)).max().filter(|last| *last != 0);
    [UNUSED, NOBODY].into_iter().find(|id| lines.iter().any(|line| line.covers(*id))).or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&["0:100000:65536", "0 0 4294967295\n", "0 1000 1\n1 100000 65536\n"], |text| {
            drop(text.parse::<IdMap>());
            let _ = unprivileged_id(text);
        });
    }

    #[test]
    fn the_id_of_nobody_is_one_that_the_caller_has() {
        assert_eq!(unprivileged_id("         0          0 4294967295\n"), Some(0x7000_0000));
        assert_eq!(unprivileged_id("0 100000 65536\n"), Some(65_534));
        assert_eq!(unprivileged_id("0 1000 1\n1 100000 999\n"), Some(999));
        assert_eq!(unprivileged_id("0 1000 1\n"), None);
        assert_eq!(unprivileged_id("1000 1000 1\n"), Some(1000));
        assert_eq!(unprivileged_id("nonsense"), None);
    }

    #[test]
    fn lines_that_share_an_id_are_found() {
        let [a, b, c] = [IdMap::new(0, 1000, 10), IdMap::new(10, 1010, 10), IdMap::new(20, 1019, 1)];
        assert_eq!(IdMap::overlap(&[a, b]), None);
        assert_eq!(IdMap::overlap(&[a, b, c]), Some((b, c)));
        assert_eq!(IdMap::overlap(&[a, IdMap::new(9, 5000, 1)]), Some((a, IdMap::new(9, 5000, 1))));
        let last = IdMap::new(u32::MAX - 1, u32::MAX - 1, 1);
        assert_eq!(IdMap::overlap(&[IdMap::new(0, 0, u32::MAX - 1), last]), None);
    }

    #[test]
    fn ranges_that_wrap_are_refused() {
        for text in
            ["", "0:0", "0:0:0", "0:0:1:1", "a:0:1", "-1:0:1", "4294967295:0:1", "0:1:4294967295", "0:0:4294967296"]
        {
            assert!(text.parse::<IdMap>().is_err(), "{text}");
        }
        assert!(IdMap::new(5, 1000, 2).covers(6) && !IdMap::new(5, 1000, 2).covers(7));
    }

    #[test]
    fn two_ids_are_exchanged_and_no_other_is_another() {
        for lines in [exchanging(0x7000_0000, 0x7800_0000), exchanging(0x7800_0000, 0x7000_0000)] {
            assert!(lines.iter().all(IdMap::is_valid));
            assert_eq!(lines.iter().map(|line| u64::from(line.count)).sum::<u64>(), u64::from(u32::MAX));
            for (inside, outside) in [(0, 0), (0x7000_0000, 0x7800_0000), (0x7800_0000, 0x7000_0000), (1000, 1000)] {
                let line = lines.iter().find(|line| line.covers(inside)).unwrap();
                assert_eq!(line.outside + (inside - line.inside), outside);
            }
        }
    }
}
