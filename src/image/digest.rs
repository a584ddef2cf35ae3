//! Digests of blobs: sha256, sha384 and sha512, as the OCI image specification registers them.

use std::fmt::Write as _;
use std::str::FromStr;

pub use oci_spec::image::Digest;
use oci_spec::image::DigestAlgorithm;
use sha2::Digest as _;

use crate::error::{Error, ErrorKind, Step};

/// A hash of bytes that arrive in pieces.
#[derive(Debug, Clone)]
pub(super) struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(super) fn sha256() -> Hasher {
        Hasher(State::Sha256(sha2::Sha256::new()))
    }

    /// Returns a hasher of the algorithm that `digest` uses.
    pub(super) fn of(digest: &Digest) -> Result<Hasher, Error> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Hasher::sha256()),
            DigestAlgorithm::Sha384 => Ok(Hasher(State::Sha384(sha2::Sha384::new()))),
            DigestAlgorithm::Sha512 => Ok(Hasher(State::Sha512(sha2::Sha512::new()))),
            other => Err(Error::message(
                ErrorKind::Unsupported,
                Step::ReadBlob,
                format!("a digest of the algorithm {other}; sha256, sha384 and sha512 are known"),
            )
            .at(digest.to_string())),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha384(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest as `ALGORITHM:DIGITS`, which is also how [`Digest`] prints.
    pub(super) fn finish(self) -> String {
        let (algorithm, bytes) = match self.0 {
            State::Sha256(state) => ("sha256", state.finalize().to_vec()),
            State::Sha384(state) => ("sha384", state.finalize().to_vec()),
            State::Sha512(state) => ("sha512", state.finalize().to_vec()),
        };
        bytes.iter().fold(format!("{algorithm}:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Returns the sha256 digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> Result<Digest, Error> {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    parse(&hasher.finish())
}

/// Returns true if `bytes` have the digest.
#[cfg(feature = "registry")]
pub(crate) fn is_of(bytes: &[u8], digest: &Digest) -> Result<bool, Error> {
    let mut hasher = Hasher::of(digest)?;
    hasher.update(bytes);
    Ok(hasher.finish() == digest.as_ref())
}

/// Parses a digest of the form `ALGORITHM:DIGITS`.
pub(super) fn parse(text: &str) -> Result<Digest, Error> {
    let failed = |error: oci_spec::OciSpecError| {
        Error::message(ErrorKind::Corrupt, Step::ImageManifest, error.to_string()).at(text)
    };
    Digest::from_str(text).map_err(failed)
}
