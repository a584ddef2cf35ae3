//! Parses /etc/subuid and /etc/subgid, which list the additional ids that an ordinary user may map:
//! subuid(5).

use std::fs;
use std::path::Path;

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubIds {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The user that ranges belong to. A line names the user by name or by uid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) uid: u32,
}

/// Returns the ranges of the user in `text`, in order. Invalid lines are skipped, as in
/// newuidmap(1).
pub(crate) fn parse(text: &str, user: User<'_>) -> Vec<SubIds> {
    let is_user = |owner: &str| user.name == Some(owner) || owner.parse() == Ok(user.uid);
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let range = SubIds { first: first.parse().ok()?, count: count.parse().ok()? };
            let is_whole = fields.next().is_none() && range.count > 0 && range.first.checked_add(range.count).is_some();
            (is_whole && is_user(owner)).then_some(range)
        })
        .collect()
}

/// Returns true if the ranges contain all `count` ids starting at `first`. Adjacent ranges are
/// joined.
pub(crate) fn cover(ranges: &[SubIds], first: u32, count: u32) -> bool {
    let end = u64::from(first) + u64::from(count);
    let mut next = u64::from(first);
    while next < end {
        let of_next = |range: &&SubIds| u64::from(range.first) <= next && next < range.end();
        let Some(furthest) = ranges.iter().filter(of_next).map(SubIds::end).max() else { return false };
        next = furthest;
    }
    true
}

impl SubIds {
    fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }
}

/// Returns the ranges of the user in `file` ("subuid" or "subgid") below `etc`, or none if the file
/// does not exist.
pub(crate) fn read(etc: &Path, file: &str, user: User<'_>) -> Vec<SubIds> {
    fs::read(etc.join(file)).map(|text| parse(&String::from_utf8_lossy(&text), user)).unwrap_or_default()
}

/// Returns true if nsswitch.conf(5) names another source of ranges: `subid: sss`, since shadow
/// 4.10.
pub(crate) fn are_elsewhere(etc: &Path) -> bool {
    fs::read_to_string(etc.join("nsswitch.conf")).is_ok_and(|text| names_other_source(&text))
}

pub(crate) fn names_other_source(nsswitch: &str) -> bool {
    let source = nsswitch.lines().find_map(|line| line.trim_start().strip_prefix("subid:"));
    source.and_then(|source| source.split_whitespace().next()).is_some_and(|source| source != "files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&[TEXT, "subid: sss\n"], |text| {
            let ranges = parse(text, User { name: Some("ann"), uid: 1000 });
            let _ = (cover(&ranges, 100_000, 65_536), cover(&ranges, 0, u32::MAX), names_other_source(text));
        });
    }

    const TEXT: &str = "# comment\nann:100000:65536\n1000:300000:10\n\nann:165536:5\nbob:200000:65536\nann:1\nann::5\n\
                        ann:5:0\nann:4294967295:2\nann:1:2:3\nann:x:1\n ann:7:1 \n01000:9:1\nann:-1:1";

    fn range(first: u32, count: u32) -> SubIds {
        SubIds { first, count }
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let ann = User { name: Some("ann"), uid: 1000 };
        let all = [range(100_000, 65_536), range(300_000, 10), range(165_536, 5), range(7, 1), range(9, 1)];
        assert_eq!(parse(TEXT, ann), all);
        assert_eq!(parse(TEXT, User { name: None, uid: 1000 }), [range(300_000, 10), range(9, 1)]);
        assert!(parse(TEXT, User { name: Some("eve"), uid: 7 }).is_empty());
    }

    #[test]
    fn ranges_that_join_up_cover_what_lies_across() {
        let ranges = [range(105, 5), range(100, 5), range(200, 1)];
        for (first, count, expected) in
            [(100, 10, true), (103, 4, true), (100, 11, false), (99, 2, false), (200, 1, true)]
        {
            assert_eq!(cover(&ranges, first, count), expected, "{first}+{count}");
        }
        assert!(!cover(&ranges, u32::MAX, u32::MAX) && !cover(&[], 0, 1));
    }

    #[test]
    fn another_source_is_told_from_the_files() {
        assert!(names_other_source("passwd: files\nsubid: sss\n"));
        assert!(!names_other_source("passwd: sss\nsubid:  files\n") && !names_other_source("#subid: sss\nsubid:\n"));
    }

    #[test]
    fn a_missing_file_gives_nothing() {
        assert!(read(Path::new("/no/such"), "subuid", User { name: None, uid: 0 }).is_empty());
        assert!(!are_elsewhere(Path::new("/no/such")));
    }
}
