//! Records the blobs whose contents an unpacked layer is known to have.
//!
//! A layer is found by its diff id, which a configuration merely claims: a tenant that knows the
//! diff id of another tenant's layer could name it beside a blob of its own. So an image gets an
//! unpacked layer only if its blob was read once and found to have these contents. Each such blob
//! leaves an empty file in the directory of the layer, `blob-ALGORITHM-DIGITS`.

use nix::fcntl::OFlag;
use oci_spec::image::{Descriptor, Digest};

use super::digest::Hasher;
use super::store::Store;
use super::store_path::StorePath;
use super::stream;
use crate::error::{Error, ErrorKind, Result, Step};

fn marker(layer: &StorePath, blob: &Digest) -> StorePath {
    layer.join(format!("blob-{}-{}", blob.algorithm(), blob.digest()))
}

/// Records that the blob has the contents of the layer.
pub(super) fn record(layer: &StorePath, blob: &Digest) -> Result<()> {
    let path = marker(layer, blob);
    let file = path.open_with(OFlag::O_WRONLY | OFlag::O_CREAT);
    file.map(drop).map_err(|error| Error::io(Step::UnpackLayer, &error).with_kind(ErrorKind::Store).at(path.path()))
}

/// Returns true if the layer is known to have the contents of this blob.
pub(super) fn contains(store: &Store, layer: &StorePath, blob: &Digest) -> bool {
    store.one_tenant || marker(layer, blob).exists()
}

/// Reads the blob, unless it is known already, and refuses the layer if the contents differ.
pub(super) fn check(store: &Store, layer: &StorePath, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
    if contains(store, layer, blob.digest()) {
        return Ok(());
    }
    let file = store.blob(blob.digest())?.ok_or_else(|| {
        let error = Error::message(ErrorKind::NotFound, Step::ReadBlob, "the store does not have this layer");
        error.at(blob.digest().to_string()).hint("pull or import the image again")
    })?;
    let ((), found) = stream::hash_decompressed(file, Hasher::of(diff_id)?, store.limits.bytes, |_| Ok(()))?;
    if found != diff_id.as_ref() {
        let detail = format!("the contents have the digest {found}, not {diff_id}");
        return Err(Error::message(ErrorKind::Corrupt, Step::UnpackLayer, detail).at(blob.digest().to_string()));
    }
    record(layer, blob.digest())
}
