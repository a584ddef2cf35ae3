//! Platforms: their alternative names, and the selection of an index entry, as in containerd's
//! package `platforms`.

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os, Platform};

use crate::error::{Error, ErrorKind, Result, Step};

/// Returns the platform of this machine.
///
/// ```
/// use ringfence::image::{Os, host_platform};
///
/// assert_eq!(*host_platform().os(), Os::Linux);
/// ```
pub fn host_platform() -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::Linux);
    let (arch, variant) = match std::env::consts::ARCH {
        "x86_64" => (Arch::Amd64, None),
        "aarch64" => (Arch::ARM64, Some("v8")),
        "x86" => (Arch::i386, None),
        "arm" => (Arch::ARM, Some("v7")),
        other => (Arch::from(other), None),
    };
    platform.set_architecture(arch);
    platform.set_variant(variant.map(str::to_owned));
    platform
}

/// Returns the operating system, the architecture and the variant in normal form: `x86_64` is
/// `amd64`, `arm` is `arm/v7`, `arm64` is `arm64/v8`. The variant is a number, or 0 if the
/// architecture has none.
fn normal(platform: &Platform) -> (String, String, u32) {
    let os = platform.os().to_string().to_ascii_lowercase();
    let os = if os == "macos" { "darwin".to_owned() } else { os };
    let arch = platform.architecture().to_string().to_ascii_lowercase();
    let variant = platform.variant().as_deref().unwrap_or_default().to_ascii_lowercase();
    let number = |default: u32| variant.trim_start_matches('v').parse().unwrap_or(default);
    let (arch, variant) = match arch.as_str() {
        "i386" => ("386", 0),
        "x86_64" | "x86-64" | "amd64" => ("amd64", number(1)),
        "aarch64" | "arm64" => ("arm64", number(8)),
        "armhf" => ("arm", 7),
        "armel" => ("arm", 6),
        "arm" => ("arm", number(7)),
        other => (other, number(0)),
    };
    (os, arch.to_owned(), variant)
}

/// Returns the entry of an index that suits `platform` best, or the first of several. Among
/// variants, the newest one that is not newer than the platform's is best, as in containerd.
/// Alternative names of a platform (`x86_64`, `aarch64`, `armhf`, `arm/7`) are known.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], which lists the platforms of the index.
pub fn pick(index: &ImageIndex, platform: &Platform) -> Result<Descriptor> {
    let (os, arch, most) = normal(platform);
    let suits = |entry: &Descriptor| {
        let (own_os, own_arch, variant) = normal(entry.platform().as_ref()?);
        (own_os == os && own_arch == arch && variant <= most).then_some(variant)
    };
    let manifests = index.manifests();
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in manifests {
        if let Some(variant) = suits(entry).filter(|variant| best.is_none_or(|(old, _)| *variant > old)) {
            best = Some((variant, entry));
        }
    }
    // An entry without a platform is better than no entry.
    let best = best.map(|(_, entry)| entry).or_else(|| manifests.iter().find(|entry| entry.platform().is_none()));
    best.cloned().ok_or_else(|| {
        let shown = |p: &Platform| {
            let variant = p.variant().as_ref().map(|v| format!("/{v}")).unwrap_or_default();
            format!("{}/{}{variant}", p.os(), p.architecture())
        };
        let there: Vec<String> = manifests.iter().filter_map(|m| m.platform().as_ref()).take(50).map(shown).collect();
        let detail = format!("nothing for {}, only {}", shown(platform), there.join(", "));
        Error::message(ErrorKind::NotFound, Step::ImageManifest, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Platform {
        let (arch, variant) = text.split_once('/').map_or((text, None), |(arch, variant)| (arch, Some(variant)));
        let mut platform = Platform::default();
        platform.set_os(Os::Linux);
        platform.set_architecture(Arch::from(arch));
        platform.set_variant(variant.map(str::to_owned));
        platform
    }

    fn index(entries: &[&str]) -> ImageIndex {
        let digest = |i: usize| format!("sha256:{i:064}").parse::<oci_spec::image::Digest>().unwrap();
        let one = |(i, text): (usize, &&str)| {
            let mut blob = Descriptor::new(oci_spec::image::MediaType::ImageManifest, 1, digest(i));
            blob.set_platform(Some(of(text)));
            blob
        };
        let mut index = ImageIndex::default();
        index.set_manifests(entries.iter().enumerate().map(one).collect());
        index
    }

    #[test]
    fn a_platform_has_several_names() {
        for (wanted, entries, best) in [
            ("arm64", &["arm64/v8"][..], Some(0)),
            ("arm64/v8", &["arm64"], Some(0)),
            ("arm64/8", &["aarch64"], Some(0)),
            ("aarch64", &["amd64", "arm64/v8"], Some(1)),
            ("arm64", &["arm64/v9"], None),
            ("arm64/v9", &["arm64", "arm64/v9"], Some(1)),
            ("arm", &["arm/v5", "arm/v7", "arm/v8"], Some(1)),
            ("arm/7", &["arm/v6", "arm"], Some(1)),
            ("armhf", &["arm/v6", "arm/v7"], Some(1)),
            ("armel", &["arm/v7", "arm/v6", "arm/v5"], Some(1)),
            ("arm/v5", &["arm", "arm/v6"], None),
            ("amd64", &["amd64/v2", "amd64/v1"], Some(1)),
            ("amd64/v1", &["x86_64"], Some(0)),
            ("x86_64", &["386", "amd64"], Some(1)),
            ("amd64/v3", &["amd64", "amd64/v2", "amd64/v4"], Some(1)),
            ("386", &["i386"], Some(0)),
            ("i386", &["amd64", "386"], Some(1)),
            ("s390x", &["amd64"], None),
        ] {
            let index = index(entries);
            let found = pick(&index, &of(wanted)).ok();
            let found = found.map(|found| index.manifests().iter().position(|entry| *entry == found).unwrap());
            assert_eq!(found, best, "{wanted} of {entries:?}");
        }
    }
}
