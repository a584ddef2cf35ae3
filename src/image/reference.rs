//! References: the names of images.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use oci_spec::distribution::{self, ParseError};

use super::digest::Digest;
use crate::error::{Error, ErrorKind, Step};

/// The longest reference in bytes: a registry, a repository of 255 characters, a tag of 128, a
/// digest.
const LENGTH_MAX: usize = 1024;
/// A host name that cannot exist (RFC 6761).
const PLACEHOLDER_HOST: &str = "ipv6.invalid";

/// The name of an image, as registries write it: `REGISTRY/REPOSITORY:TAG@DIGEST`.
///
/// The default registry is `docker.io`, where a repository of one component is below `library`. The
/// default tag is `latest`, unless there is a digest. The first component is a registry if it
/// contains a dot or a colon, or is `localhost`. An IPv6 address is written in brackets.
///
/// ```
/// use ringfence::image::Reference;
///
/// let reference: Reference = "debian".parse()?;
/// assert_eq!(reference.to_string(), "docker.io/library/debian:latest");
/// let reference: Reference = "localhost:5000/app:1".parse()?;
/// assert_eq!(reference.registry(), "localhost:5000");
/// assert_eq!((reference.repository(), reference.tag()), ("app", Some("1")));
/// assert!("Debian".parse::<Reference>().is_err());
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// An IPv6 address with its port. The grammar of references has no IPv6 addresses, so `name`
    /// has a placeholder host instead.
    address: Option<String>,
    name: distribution::Reference,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry: the host, with its port if there is one.
    pub fn registry(&self) -> &str {
        self.address.as_deref().unwrap_or(self.name.registry())
    }

    /// Returns the name of the repository within the registry.
    pub fn repository(&self) -> &str {
        self.name.repository()
    }

    /// Returns the tag. The registry may move a tag to another image.
    pub fn tag(&self) -> Option<&str> {
        self.name.tag()
    }

    /// Returns the digest of the manifest or index, if the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns a reference to the manifest with this digest in the same repository, without regard
    /// to the tag.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        let name = self.name.clone_with_digest(digest.to_string());
        Reference { address: self.address.clone(), name, digest: Some(digest.clone()) }
    }

    /// Returns true if both references are in the same repository.
    pub(super) fn is_beside(&self, other: &Reference) -> bool {
        self.registry() == other.registry() && self.repository() == other.repository()
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    ///
    /// Parses a reference. The error is [`ErrorKind::Invalid`], with the reason.
    fn from_str(text: &str) -> Result<Self, Error> {
        let shown: String = text.chars().take(LENGTH_MAX).collect();
        let failed = |reason: &str| Error::message(ErrorKind::Invalid, Step::ImageName, reason).at(&shown);
        if text.len() > LENGTH_MAX {
            return Err(failed("it is too long"));
        }
        let address = text.starts_with('[').then(|| address(text).ok_or_else(|| failed("this is not an IPv6 address")));
        let (address, rest) = address.transpose()?.unzip();
        let text = rest.map_or(text.to_owned(), |rest| format!("{PLACEHOLDER_HOST}{rest}"));
        let name: distribution::Reference = text.parse().map_err(|error| failed(&reason(&text, &error)))?;
        let digest = name.digest().map(Digest::from_str).transpose().map_err(|error| failed(&error.to_string()))?;
        Ok(Reference { address, name, digest })
    }
}

/// Splits off an IPv6 address in brackets. Returns its shortest form with its port, and the rest of
/// the reference.
fn address(text: &str) -> Option<(String, &str)> {
    let (host, rest) = text.split_once('/')?;
    let (address, port) = host.strip_prefix('[')?.split_once(']')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let rest = text.get(text.len() - rest.len() - 1..)?;
    fits.then(|| (format!("[{address}]{port}"), rest))
}

fn reason(text: &str, error: &ParseError) -> String {
    let repository = text.split(['@']).next().unwrap_or(text);
    match error {
        ParseError::ReferenceInvalidFormat if repository.rsplit('/').next().is_some_and(has_uppercase_name) => {
            ParseError::NameContainsUppercase.to_string()
        }
        ParseError::ReferenceInvalidFormat => {
            "it is not of the form [REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case but for the tag".to_owned()
        }
        other => other.to_string(),
    }
}

fn has_uppercase_name(last: &str) -> bool {
    last.split(':').next().is_some_and(|name| name.contains(|c: char| c.is_ascii_uppercase()))
}

impl TryFrom<&str> for Reference {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_string();
        match &self.address {
            Some(address) => write!(f, "{address}{}", name.strip_prefix(PLACEHOLDER_HOST).unwrap_or_default()),
            None => f.write_str(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_defaults() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b__c:V1", "127.0.0.1:5000/a/b__c:V1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[FC00:0::0:1]/a/b:V1@DIGEST", "[fc00::1]/a/b:V1@DIGEST"),
            ("quay.io/a@DIGEST", "quay.io/a@DIGEST"),
            ("quay.io/a:1@DIGEST", "quay.io/a:1@DIGEST"),
        ];
        for (text, whole) in cases {
            let text = text.replace("DIGEST", &digest);
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), whole.replace("DIGEST", &digest));
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let long = "a".repeat(256);
        let huge = "a/".repeat(40_000);
        let short = format!("a@sha256:{}", "a".repeat(63));
        let upper = format!("a@sha256:{}", "A".repeat(64));
        let cases = [
            ("", "at least one"),
            ("Debian", "lowercase"),
            ("a/B:tag", "lowercase"),
            ("a:", "form"),
            ("a:tag with space", "form"),
            ("../etc", "form"),
            ("a//b", "form"),
            ("a/../b", "form"),
            ("https://quay.io/a", "form"),
            ("[::1]:5000", "IPv6"),
            ("[::g]/a", "IPv6"),
            ("[fe80::1%eth0]/a", "IPv6"),
            ("[::1]:99999/a", "IPv6"),
            ("[::1]x/a", "IPv6"),
            ("[::1]/A", "lowercase"),
            (&short, "length"),
            (&upper, "hexadecimal"),
            (&long, "255"),
            (&huge, "too long"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::ImageName), "{text}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
