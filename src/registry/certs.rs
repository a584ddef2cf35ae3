//! Certificates for single hosts: their certificate authorities, and client certificates (`certs.d`
//! of dockerd and podman, containers-certs.d(5)).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, Step};

/// The largest certificate file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The certificates for one host, in PEM.
#[derive(Clone, Default)]
pub(super) struct Certs {
    pub(super) authorities: Vec<Vec<u8>>,
    /// The client certificate with its intermediate certificates, and its private key.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Certs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client.as_ref().map(|_| "…");
        f.debug_struct("Certs").field("authorities", &self.authorities.len()).field("client", &client).finish()
    }
}

impl Certs {
    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.client.is_none()
    }

    /// Adds the certificates of a directory for the host: `HOST[:PORT]/*.crt`, and the first
    /// `*.cert` with its `*.key`.
    pub(super) fn read(&mut self, dir: &Path, host: &str) -> Result<()> {
        let dir = dir.join(host);
        let failed = |path: &Path, error: &io::Error| Error::io(Step::Registry, error).at(path);
        let names = match fs::read_dir(&dir) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries.and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()),
        };
        let mut paths: Vec<PathBuf> = names.map_err(|error| failed(&dir, &error))?;
        paths.sort();
        let is = |path: &PathBuf, extension: &str| path.extension().is_some_and(|own| own == extension);
        for path in paths.iter().filter(|path| is(path, "crt")) {
            self.authorities.push(pem(path).map_err(|error| failed(path, &error))?);
        }
        for path in paths.iter().filter(|path| is(path, "cert")) {
            let key = path.with_extension("key");
            if !paths.contains(&key) {
                let error = Error::message(ErrorKind::Invalid, Step::Registry, "a client certificate without its key");
                return Err(error.at(path).hint("the key must be beside it, with the extension .key"));
            }
            if self.client.is_none() {
                let certificate = pem(path).map_err(|error| failed(path, &error))?;
                self.client = Some((certificate, pem(&key).map_err(|error| failed(&key, &error))?));
            }
        }
        Ok(())
    }
}

fn pem(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes).map(|_| bytes)
}
