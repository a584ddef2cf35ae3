//! Recognises the initial user namespace.

use std::fs;

/// The uid_map of the initial user namespace. Another namespace can map all ids to themselves, too,
/// which makes no difference.
const WHOLE: [&str; 3] = ["0", "0", "4294967295"];

/// Returns true if the caller is in the initial user namespace, where every id is known. Returns
/// false if this cannot be determined.
pub(crate) fn is_initial() -> bool {
    is_whole(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_all_ids_is_the_initial_one() {
        assert!(is_whole("         0          0 4294967295\n"));
        for map in ["", "0 0 1\n", "0 1000 1\n", "0 0 4294967295\n1 1 1\n"] {
            assert!(!is_whole(map), "{map}");
        }
    }
}
