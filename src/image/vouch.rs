//! Which blobs an unpacked layer is known to be the contents of.
//!
//! A layer is found by its diff id, which a configuration only asserts: whoever knows the diff id of somebody else's layer
//! could name it beside a blob of his own. So a layer is given only for blobs whose bytes were once had and found to have
//! these contents. Each leaves an empty file in the layer's directory, `blob-ALGORITHM-DIGITS`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest};

use super::Store;
use super::digest::Hasher;
use super::stream;
use crate::error::{Error, ErrorKind, Result, Step};

fn mark(layer: &Path, blob: &Digest) -> PathBuf {
    layer.join(format!("blob-{}-{}", blob.algorithm(), blob.digest()))
}

/// Says of the layer that it is what this blob has in it.
pub(super) fn note(layer: &Path, blob: &Digest) -> Result<()> {
    let path = mark(layer, blob);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    file.map(drop).map_err(|error| Error::io(Step::UnpackLayer, &error).with_kind(ErrorKind::Store).at(&path))
}

/// Whether the layer may be had for this blob without a look at it.
pub(super) fn is_known(store: &Store, layer: &Path, blob: &Digest) -> bool {
    store.one_tenant || mark(layer, blob).symlink_metadata().is_ok()
}

/// Reads the blob, unless that was done before, and refuses the layer if it has other contents.
pub(super) fn vouch(store: &Store, layer: &Path, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
    if is_known(store, layer, blob.digest()) {
        return Ok(());
    }
    let file = store.blob(blob.digest())?.ok_or_else(|| {
        let error = Error::message(ErrorKind::NotFound, Step::ReadBlob, "the store does not have this layer");
        error.at(blob.digest().to_string()).hint("pull or import the image again")
    })?;
    let ((), found) = stream::through(file, Hasher::of(diff_id)?, store.bounds.bytes, |_| Ok(()))?;
    if found != diff_id.as_ref() {
        let detail = format!("its contents have the digest {found}, and not {diff_id}");
        return Err(Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail).at(blob.digest().to_string()));
    }
    note(layer, blob.digest())
}
