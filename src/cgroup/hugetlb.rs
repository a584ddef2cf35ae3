//! Huge pages. Every page size has files of its own.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use super::controllers::Version;
use super::limits::Limits;
use super::part::Part;
use super::stats::HugetlbStats;
use crate::error::{Problem, Result};
use crate::feature::Feature;
use crate::units::Bytes;

/// `PAGE_COUNTER_MAX` in bytes, rounded down for the largest page: the value of a counter without a
/// limit, which v1 shows as a number.
const UNLIMITED: u64 = 0x7fff_ffff_0000_0000;
const SIZES: &str = "/sys/kernel/mm/hugepages";

/// Returns the name of the file `suffix` for huge pages of one size. The kernel writes the size in
/// the largest of three units.
pub(super) fn file(page: Bytes, suffix: &str) -> CString {
    let bytes = page.get();
    let (unit, name) = match bytes {
        0x4000_0000.. => (30, "GB"),
        0x10_0000.. => (20, "MB"),
        _ => (10, "KB"),
    };
    CString::new(format!("hugetlb.{}{name}.{suffix}", bytes >> unit)).unwrap_or_default()
}

/// Returns the page sizes that this kernel has, from the directories `hugepages-NkB` in `dir`.
fn sizes(dir: &Path) -> Vec<Bytes> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let size = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok().map(Bytes::kib);
    let mut sizes: Vec<_> = names.filter_map(|name| size(name.to_str()?)).collect();
    sizes.sort();
    sizes
}

/// Returns the problem of a limit on pages that this kernel does not have.
pub(super) fn unknown_size(limits: &Limits) -> Option<Problem> {
    if limits.hugetlb.is_empty() {
        return None;
    }
    let known = sizes(Path::new(SIZES));
    let (page, _) = limits.hugetlb.iter().find(|(page, _)| !known.contains(page))?;
    let reason = format!("this kernel has no huge pages of {page}");
    let feature = Feature::HugetlbLimit;
    Some(Problem::unsupported(feature.as_str(), reason, format!("see {SIZES}")).for_feature(feature))
}

/// Reads the usage of every page size. The part must be in the hierarchy of the controller.
pub(super) fn stats(part: &Part) -> Result<Vec<HugetlbStats>> {
    let number = |page, suffix| part.number(&file(page, suffix));
    let v1 = |page_size| {
        Ok(HugetlbStats {
            page_size,
            current: number(page_size, "usage_in_bytes")?.map(Bytes::new),
            peak: number(page_size, "max_usage_in_bytes")?.map(Bytes::new),
            limit: number(page_size, "limit_in_bytes")?.filter(|n| *n < UNLIMITED).map(Bytes::new),
            limit_hits: number(page_size, "failcnt")?,
        })
    };
    let v2 = |page_size| {
        let events = part.text(&file(page_size, "events"))?;
        Ok(HugetlbStats {
            page_size,
            current: number(page_size, "current")?.map(Bytes::new),
            peak: None,
            limit: number(page_size, "max")?.filter(|n| *n < UNLIMITED).map(Bytes::new),
            limit_hits: events.and_then(|text| super::kernfs::field(&text, "max")),
        })
    };
    let sizes = sizes(Path::new(SIZES)).into_iter();
    match part.version {
        Version::V1 => sizes.map(v1).collect(),
        Version::V2 => sizes.map(v2).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_kernel_names_them() {
        let name = |page| file(page, "max").into_string().unwrap();
        assert_eq!(name(Bytes::mib(2)), "hugetlb.2MB.max");
        assert_eq!(name(Bytes::gib(1)), "hugetlb.1GB.max");
        assert_eq!(name(Bytes::gib(16)), "hugetlb.16GB.max");
        assert_eq!(name(Bytes::mib(512)), "hugetlb.512MB.max");
        assert_eq!(name(Bytes::kib(64)), "hugetlb.64KB.max");
    }

    #[test]
    fn sizes_are_those_of_the_directories() {
        let dir = std::env::temp_dir().join(format!("ringfence-hugepages-{}", std::process::id()));
        for name in ["hugepages-2048kB", "hugepages-1048576kB", "other"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let found = sizes(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [Bytes::mib(2), Bytes::gib(1)]);
        assert_eq!(sizes(&dir), []);
        let odd = unknown_size(&Limits::new().hugetlb(Bytes::gib(1 << 20), 0)).unwrap();
        assert_eq!(odd.feature, Some(Feature::HugetlbLimit));
        assert!(odd.reason.contains("no huge pages of"), "{odd}");
    }
}
