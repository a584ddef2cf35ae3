//! The control groups of the host that the program would see, and could write to.

use std::path::{Path, PathBuf, absolute};

use super::kinds::Kind;
use super::mounts::Mounts;
use super::paths::clean;
use super::root::{Base, RootFs};

impl Mounts {
    /// Returns the paths inside at which `hierarchies` of the host, or directories of one, are
    /// writable. Without a root of its own, the sandbox has them at the same paths as the host.
    pub(crate) fn control_groups(&self, hierarchies: &[PathBuf]) -> Vec<PathBuf> {
        let mut places = match &self.root {
            None => hierarchies.to_vec(),
            Some(root) => in_root(root, hierarchies),
        };
        for mount in &self.mounts {
            let target = clean(&mount.target);
            match &mount.kind {
                Kind::Bind(bind) if bind.is_writable() => {
                    let seen = |at: &PathBuf| seen(&bind.source, bind.recursive, &target, at);
                    places.extend(hierarchies.iter().filter_map(seen));
                }
                Kind::Raw(raw) if raw.fstype.to_string_lossy().starts_with("cgroup") => places.push(target),
                _ => {}
            }
        }
        places
    }
}

/// Returns the paths at which the root shows hierarchies writable.
fn in_root(root: &RootFs, hierarchies: &[PathBuf]) -> Vec<PathBuf> {
    let source = match &root.base {
        Base::Host => Path::new("/"),
        Base::Dir(dir) => dir,
        Base::Programs | Base::Overlay(_) => return Vec::new(),
    };
    let seen = |at: &PathBuf| seen(source, true, Path::new("/"), at);
    if root.read_only { Vec::new() } else { hierarchies.iter().filter_map(seen).collect() }
}

/// Returns the path inside of the host's path `at`, if `source` is shown at `target`.
fn seen(source: &Path, recursive: bool, target: &Path, at: &Path) -> Option<PathBuf> {
    let real = source.canonicalize().or_else(|_| absolute(source)).ok()?;
    if real.starts_with(at) {
        return Some(target.to_owned());
    }
    let below = at.strip_prefix(&real).ok().filter(|_| recursive)?;
    Some(target.join(below))
}

#[cfg(test)]
mod tests {
    use super::super::bind::Bind;
    use super::super::raw::RawMount;
    use super::*;

    #[test]
    fn writable_control_groups_are_found_wherever_they_come_along() {
        let all = [PathBuf::from("/sys/fs/cgroup")];
        let found = |policy: &Mounts| -> Vec<String> {
            policy.control_groups(&all).iter().map(|path| path.display().to_string()).collect()
        };
        let with = |mount| Mounts { root: Some(RootFs::programs()), mounts: vec![mount], ..Mounts::default() };
        assert_eq!(found(&Mounts::default()), ["/sys/fs/cgroup"]);
        let rooted = |root| Mounts { root: Some(root), ..Mounts::default() };
        assert_eq!(found(&rooted(RootFs::dir("/"))), ["/sys/fs/cgroup"]);
        assert_eq!(found(&rooted(RootFs::dir("/sys"))), ["/fs/cgroup"]);
        for root in [RootFs::dir("/srv"), RootFs::host(), RootFs::programs(), RootFs::dir("/").read_only()] {
            assert!(found(&rooted(root)).is_empty());
        }
        assert_eq!(found(&with(Bind::new("/sys", "/x/").into())), ["/x/fs/cgroup"]);
        assert_eq!(found(&with(Bind::new("/sys/fs/../fs/cgroup/", "/x").into())), ["/x"]);
        assert_eq!(found(&with(Bind::new("/sys/fs/cgroup/a/b", "/x").into())), ["/x"]);
        assert_eq!(found(&with(RawMount::new("none", "/x", "cgroup2").into())), ["/x"]);
        for bind in
            [Bind::new("/sys", "/x").read_only(), Bind::new("/sys", "/x").non_recursive(), Bind::new("/usr", "/x")]
        {
            assert!(found(&with(bind.into())).is_empty());
        }
    }
}
