//! Mirrors: given ones, or those of registries.conf (containers-registries.conf(5)).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::progress::{Event, Progress};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::Reference;

/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 4 << 20;

/// The rule for images whose names begin with `prefix`.
#[derive(Debug, Clone, Default)]
struct Rule {
    prefix: String,
    /// The location of the images, if it differs from their names.
    location: Option<String>,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone)]
struct Mirror {
    location: String,
    which: MirrorUse,
}

/// The names for which a mirror is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MirrorUse {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// All rules. If two have the same prefix, the last one applies.
#[derive(Debug, Clone, Default)]
pub(super) struct Mirrors(Vec<Rule>);

#[derive(Deserialize)]
struct Conf {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: MirrorUse,
}

impl Mirrors {
    /// Adds a mirror for images below `prefix`, after those added before.
    pub(super) fn add(&mut self, prefix: String, location: String) {
        let mirror = Mirror { location, which: MirrorUse::All };
        match self.0.iter_mut().rev().find(|rule| rule.prefix == prefix) {
            Some(rule) => rule.mirrors.push(mirror),
            None => self.0.push(Rule { prefix, mirrors: vec![mirror], ..Rule::default() }),
        }
    }

    /// Adds the rules of a file. Returns the hosts that the file declares insecure.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<String>> {
        let failed = |detail: String| Error::message(ErrorKind::Invalid, Step::Registry, detail).at(path);
        let mut text = String::new();
        let file = File::open(path).map(|file| file.take(LARGEST_FILE));
        let read = file.and_then(|mut file| file.read_to_string(&mut text));
        read.map_err(|error| Error::io(Step::Registry, &error).at(path))?;
        let conf: Conf = toml::from_str(&text).map_err(|error| {
            let hint = "the file must be a registries.conf of version 2: containers-registries.conf(5)";
            failed(error.to_string().trim().to_owned()).hint(hint)
        })?;
        let mut insecure = Vec::new();
        for entry in conf.registry {
            let prefix = entry.prefix.or_else(|| entry.location.clone()).unwrap_or_default();
            if prefix.is_empty() {
                return Err(failed("a registry with neither a prefix nor a location".to_owned()));
            }
            let sources = entry.mirror.iter().map(|mirror| (&mirror.location, mirror.insecure));
            let own = entry.location.as_ref().unwrap_or(&prefix);
            for (place, _) in sources.chain([(own, entry.insecure)]).filter(|(_, insecure)| *insecure) {
                insecure.extend(place.split('/').next().map(str::to_owned));
            }
            let by_digest = entry.mirror_by_digest_only;
            let mirrors = entry.mirror.into_iter().map(|mirror| Mirror {
                which: if by_digest { MirrorUse::DigestOnly } else { mirror.pull_from_mirror },
                location: mirror.location,
            });
            let mirrors = mirrors.collect();
            let location = entry.location.filter(|location| *location != prefix);
            self.0.push(Rule { prefix, location, blocked: entry.blocked, mirrors });
        }
        Ok(insecure)
    }

    /// Returns the sources of an image in order, the registry itself last.
    pub(super) fn sources(&self, name: &Reference) -> Result<Sources> {
        let mut mirrors = self.found(name)?;
        let last = mirrors.pop().unwrap_or_else(|| name.clone());
        Ok(Sources { mirrors, last, asked: 0, failures: Vec::new() })
    }

    fn found(&self, name: &Reference) -> Result<Vec<Reference>> {
        let whole = format!("{}/{}", name.registry(), name.repository());
        let covering = self.0.iter().filter_map(|rule| Some((rule, rest(&rule.prefix, &whole)?)));
        let Some((rule, rest)) = covering.max_by_key(|(rule, _)| rule.prefix.len()) else {
            return Ok(vec![name.clone()]);
        };
        if rule.blocked {
            let error = Error::message(ErrorKind::Denied, Step::Registry, "registries.conf blocks it");
            return Err(error.at(name.to_string()).hint("the entry with this prefix says blocked = true"));
        }
        let tagged = |mirror: &&Mirror| match mirror.which {
            MirrorUse::All => true,
            MirrorUse::DigestOnly => name.digest().is_some(),
            MirrorUse::TagOnly => name.digest().is_none(),
        };
        let mirrors = rule.mirrors.iter().filter(tagged).map(|mirror| renamed(name, &mirror.location, rest));
        let own = match &rule.location {
            Some(location) => renamed(name, location, rest),
            None => Ok(name.clone()),
        };
        mirrors.chain([own]).collect()
    }
}

/// The sources of an image, which are tried one after another.
#[derive(Debug)]
pub(super) struct Sources {
    mirrors: Vec<Reference>,
    last: Reference,
    asked: usize,
    failures: Vec<String>,
}

impl Sources {
    pub(super) fn next(&self) -> &Reference {
        self.mirrors.get(self.asked).unwrap_or(&self.last)
    }

    /// Moves on to the next source after a failure. Returns the failure if no other source may
    /// succeed.
    pub(super) fn failed(&mut self, error: Error, progress: &Progress) -> Result<()> {
        if self.asked < self.mirrors.len() && may_differ_elsewhere(error.kind()) {
            let (place, reason) = (self.next().to_string(), error.to_string());
            self.failures.push(format!("{place}: {reason}"));
            progress.send(|| Event::Elsewhere { place, reason });
            self.asked += 1;
            return Ok(());
        }
        if self.failures.is_empty() {
            return Err(error);
        }
        let own = error.remedy().map_or(String::new(), |own| format!("{own}; "));
        Err(error.hint(format!("{own}the mirrors had failed before: {}", self.failures.join("; "))))
    }
}

/// Returns true if another source may succeed after an error of this kind.
fn may_differ_elsewhere(kind: ErrorKind) -> bool {
    use ErrorKind::{Corrupt, Denied, NotFound, Protocol, Setup, Timeout, TooLarge, Unavailable, Unsupported};
    matches!(kind, Corrupt | Denied | NotFound | Protocol | Setup | Timeout | TooLarge | Unavailable | Unsupported)
}

/// Returns the part of a repository after the prefix, which ends at a `/`, or is `*.` and the end
/// of a host.
fn rest<'w>(prefix: &str, whole: &'w str) -> Option<&'w str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let (host, rest) = whole.split_once('/')?;
        return (domain.starts_with('.') && host.ends_with(domain)).then_some(rest);
    }
    let rest = whole.strip_prefix(prefix)?;
    match rest.strip_prefix('/') {
        None if !rest.is_empty() => None,
        after => Some(after.unwrap_or_default()),
    }
}

/// Returns the reference with the same tag and digest at another location.
fn renamed(name: &Reference, location: &str, rest: &str) -> Result<Reference> {
    let mut text = location.trim_end_matches('/').to_owned();
    if !rest.is_empty() {
        text = format!("{text}/{rest}");
    }
    text.extend(name.tag().map(|tag| format!(":{tag}")));
    text.extend(name.digest().map(|digest| format!("@{digest}")));
    text.parse().map_err(|error: Error| error.hint("a mirror is HOST[:PORT][/PATH]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Mirrors, Vec<String>)> {
        let path = std::env::temp_dir().join(format!("ringfence-conf-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let mut mirrors = Mirrors::default();
        let insecure = mirrors.read(&path);
        std::fs::remove_file(&path).unwrap();
        Ok((mirrors, insecure?))
    }

    fn sources(mirrors: &Mirrors, name: &str) -> Vec<String> {
        let sources = mirrors.found(&name.parse().unwrap()).unwrap();
        sources.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_longest_prefix_says_where_to_look() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "tags:1"
            pull-from-mirror = "tag-only"
            [[registry]]
            prefix = "docker.io/library"
            location = "elsewhere.io/lib"
            [[registry]]
            prefix = "*.corp.io"
            location = "corp:1"
            insecure = true
            [[registry]]
            prefix = "bad.io"
            blocked = true
        "#;
        let (mirrors, insecure) = read(text).unwrap();
        assert_eq!(insecure, ["mirror:5000", "corp:1"]);
        assert_eq!(sources(&mirrors, "x/y:1"), ["mirror:5000/hub/x/y:1", "tags:1/x/y:1", "docker.io/x/y:1"]);
        let digest = format!("x/y@sha256:{}", "a".repeat(64));
        assert_eq!(sources(&mirrors, &digest).len(), 2);
        assert_eq!(sources(&mirrors, "debian"), ["elsewhere.io/lib/debian:latest"]);
        assert_eq!(sources(&mirrors, "a.corp.io/x"), ["corp:1/x:latest"]);
        assert_eq!(sources(&mirrors, "docker.iox.com/x"), ["docker.iox.com/x:latest"]);
        let error = mirrors.sources(&"bad.io/x".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }

    #[test]
    fn what_is_told_goes_in_its_order() {
        let mut mirrors = Mirrors::default();
        mirrors.add("docker.io".into(), "one:1".into());
        mirrors.add("docker.io".into(), "two:2/hub/".into());
        assert_eq!(sources(&mirrors, "a/b"), ["one:1/a/b:latest", "two:2/hub/a/b:latest", "docker.io/a/b:latest"]);
        mirrors.add("h".into(), "not a host".into());
        assert!(mirrors.sources(&"h.io/x".parse().unwrap()).is_ok());
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        for text in
            ["[registries.search]\nregistries = 1", "[[registry]]\ninsecure = true", "x", "[[registry]]\nlocation = 1"]
        {
            let read = read(text);
            assert!(read.is_err() || text.starts_with("[registries"), "{text}");
        }
        let error = Mirrors::default().read("/nowhere/at/all".as_ref()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
