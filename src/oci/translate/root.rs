//! The root file system: `root`, `linux.rootfsPropagation`.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::mount::{Propagation, RootFs};
use crate::oci::problems::Problems;
use crate::sandbox::Sandbox;

pub(super) fn with_root(sandbox: Sandbox, spec: &Spec, bundle: &Path, problems: &mut Problems) -> Sandbox {
    let Some(root) = spec.root() else {
        problems.invalid("root", "it is missing", "name the directory of the container's root file system");
        return sandbox;
    };
    if root.path().as_os_str().is_empty() {
        problems.invalid("root.path", "it is empty", "name the directory of the container's root file system");
        return sandbox;
    }
    let path = bundle.join(root.path());
    if !path.is_dir() {
        let reason = format!("{} is not a directory", path.display());
        problems.invalid("root.path", reason, "unpack the root file system there");
    }
    let files = RootFs::dir(path).suid().dev();
    let word = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let files = match propagation(word) {
        // It follows the host, as with other runtimes, and shares nothing with it.
        Some(Some(slave @ (Propagation::Slave | Propagation::RSlave))) => files.propagation(slave).following_host(),
        Some(Some(propagation)) => files.propagation(propagation),
        Some(None) => files,
        None => {
            let remedy = "write one of private, slave, shared, unbindable, also with an r before";
            problems.invalid("linux.rootfsPropagation", format!("{word:?} is no propagation"), remedy);
            files
        }
    };
    sandbox.rootfs(files).read_only_root(root.readonly().unwrap_or(false))
}

/// Returns the propagation that a word stands for; an empty one stands for none of its own.
fn propagation(word: &str) -> Option<Option<Propagation>> {
    Some(Some(match word {
        "" => return Some(None),
        // All is private, but for what the mounts themselves say, which this does not take back.
        "private" | "rprivate" => return Some(None),
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        "rslave" => Propagation::RSlave,
        "rshared" => Propagation::RShared,
        "runbindable" => Propagation::RUnbindable,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_root_takes_back_nothing_of_what_mounts_say() {
        assert_eq!([propagation("private"), propagation("rprivate")], [Some(None), Some(None)]);
        assert_eq!(propagation("rshared"), Some(Some(Propagation::RShared)));
        assert_eq!(propagation("public"), None);
    }
}
