//! The extended attributes of a file in a layer.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Error, Result, Step};
use crate::sys::xattr;

const CAPABILITY: &str = "security.capability";

/// Returns the extended attributes that have the same meaning on another machine. Security labels
/// belong to the host, and overlayfs's attributes are not part of the files. Fails with EILSEQ for a
/// name that is no keyword of a pax header.
pub(super) fn portable_xattrs(file: BorrowedFd<'_>, path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let at = |errno| Error::new(Step::PackLayer, errno).at(path);
    let mut kept = Vec::new();
    for name in xattr::list(file).map_err(at)? {
        let text = name.to_string_lossy().into_owned();
        let is_keyword = name.to_str().is_ok_and(|name| !name.contains('='));
        let is_overlays = text.starts_with("user.overlay.") || text.starts_with("trusted.overlay.");
        let is_portable = text == CAPABILITY || text.starts_with("user.") || text.starts_with("trusted.");
        if is_overlays || !is_portable {
            continue;
        }
        if !is_keyword {
            let hint =
                "the name of an extended attribute has `=`, or is not UTF-8, and a layer cannot hold it: remove it";
            return Err(at(Errno::EILSEQ).hint(hint));
        }
        if let Some(value) = xattr::get(file, &name).map_err(at)? {
            let value = if text == CAPABILITY { without_rootid(value) } else { value };
            kept.push((text, value));
        }
    }
    Ok(kept)
}

/// Removes the root id from file capabilities. Capabilities that were set in a user namespace name
/// the namespace's root by its id on this host (revision 3); the image has them for root (revision
/// 2). See capabilities(7).
fn without_rootid(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_2_LEN: usize = 20;
    if let [_, _, _, revision @ 3, ..] = value.as_mut_slice() {
        *revision = 2;
        value.truncate(REVISION_2_LEN);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_loses_its_namespace() {
        let in_namespace: Vec<u8> = [1, 0, 0, 3].into_iter().chain([7; 20]).collect();
        let in_image: Vec<u8> = [1, 0, 0, 2].into_iter().chain([7; 16]).collect();
        assert_eq!(without_rootid(in_namespace), in_image);
        assert_eq!(without_rootid(in_image.clone()), in_image);
        assert_eq!(without_rootid(vec![1]), [1]);
    }
}
