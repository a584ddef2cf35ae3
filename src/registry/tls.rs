//! Configures TLS: the certificate authorities that are trusted.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, ErrorKind, Result, Step};

/// Returns a TLS configuration with the system's certificate authorities and the given ones in PEM.
/// No global state of the process changes.
pub(super) fn config(authorities: &[Vec<u8>], client: Option<&(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // If the system has no certificates, or unreadable ones, the given ones may still suffice.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for pem in authorities {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable(&error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(&error.to_string()))?;
        }
        if roots.len() == before {
            return Err(unusable("there is no certificate in it"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::message(ErrorKind::Unsupported, Step::Registry, error.to_string()))?;
    let builder = builder.with_root_certificates(roots);
    let Some((certificates, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| unshown(&error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unshown(&error.to_string()))?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| unshown(&error.to_string()))
}

fn unshown(why: &str) -> Error {
    let error = Error::message(ErrorKind::Invalid, Step::Registry, format!("not a client certificate: {why}"));
    error.hint("a certificate in PEM and its private key in PEM, without a password, are needed")
}

fn unusable(why: &str) -> Error {
    let error = Error::message(ErrorKind::Invalid, Step::Registry, format!("not a certificate authority: {why}"));
    error.hint("ca_pem takes certificates in PEM: -----BEGIN CERTIFICATE-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(config(&[], None).is_ok());
        for pem in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = config(&[pem.into()], None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{pem}");
            let error = config(&[], Some(&(pem.into(), pem.into()))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{pem}");
        }
    }
}
