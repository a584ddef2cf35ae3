//! Sandboxes as text: TOML and JSON.

mod attributes;
mod build;
mod file;
mod forms;
mod keys;
mod mounts;
mod read;
#[cfg(test)]
mod tests;
mod text;
mod untrusted;

use std::fmt;

use serde::Serialize;
pub use untrusted::Allow;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::Sandbox;
use crate::units::Bytes;
use file::File;

/// The version of the keys, which each profile names.
const VERSION: u32 = 1;
/// The longest text of a profile.
const LEN_MAX: Bytes = Bytes::mib(1);
/// The longest text of a profile that is not trusted.
const UNTRUSTED_LEN_MAX: Bytes = Bytes::kib(64);
/// The longest message about a text, which can repeat parts of the text.
const MESSAGE_MAX: usize = 300;

/// A [`Sandbox`] as text, in TOML or JSON: each call of the builder that has a text form is a key.
/// With the crate's feature `serde`.
///
/// ```
/// use ringfence::{Profile, Sandbox};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let text = r#"
///     version = 1
///     preset = "strict"
///     command = "sort"
///     memory_limit = "64 MiB"
///     wall_time = "1.5s"
///     rlimit = { open_files = 64 }
///
///     [[mount]]
///     tmpfs = { target = "/work", size = "16 MiB" }
/// "#;
/// let sandbox: Sandbox = Profile::from_toml(text)?.sandbox()?;
/// assert_eq!(sandbox.get_command(), "sort");
///
/// // And back.
/// let same = Profile::try_from(&sandbox)?;
/// assert_eq!(same, Profile::from_json(&same.to_json()?)?);
/// # Ok(())
/// # }
/// ```
///
/// # The text
///
/// `version = 1` is required. `preset` is `"new"` ([`Sandbox::new`], the default) or `"strict"`
/// ([`Sandbox::strict`]). A key that is not known, or that stands twice, is refused, with its line.
/// So is a text of more than 1 MiB. `docs/profile.schema.json` is a JSON schema of all keys.
///
/// | value | text |
/// | --- | --- |
/// | a size | `"64 MiB"`, as [`Bytes`](crate::Bytes) reads it, or a number of bytes |
/// | a time | `"1.5s"`: a number with ns, us, ms, s, m, h or d |
/// | a mode, [`umask`](Sandbox::umask) | `"0644"`, octal |
/// | a number above `i64::MAX` | a text, also in hexadecimal with 0x; `"unlimited"` is `u64::MAX` |
/// | [`Namespaces`](crate::Namespaces) | a list of user, pid, mount, net, ipc, uts, cgroup, time |
/// | [`Capabilities`](crate::Capabilities) | a list of what is kept (`[]` is none), or a table of `keep` or `all_but`, and of single sets |
/// | [`Devices`](crate::Devices) | a list of `"standard"` and of rules as in `"c 1:3 rw"`, `"deny b 8:* rwm"` |
/// | [`Seccomp`](crate::Seccomp) | default, compute, none, or a table with a `base` and `rule`s |
/// | [`Scheduler`](crate::Scheduler) | a table of its `policy` and the numbers of that: `{ policy = "batch", nice = 10 }` |
/// | [`IoPriority`](crate::IoPriority), [`MemoryPolicy`](crate::MemoryPolicy) | a table: `{ class = "best_effort", level = 7 }`, `{ mode = "bind", nodes = [0] }` |
/// | [`RootFs`](crate::RootFs) | a directory of the host, or a table with `base` (host, programs), `dir` or `overlay` |
/// | [mounts](Sandbox::mount) | the list `mount`, each `{ bind_ro = { source, target } }` and the like |
/// | [streams](Sandbox::stdin) | inherit, null, piped, or `{ bytes = "…" }`, `{ pty = { rows, columns } }` |
///
/// The order of keys means nothing; that of lists does. `share` removes namespaces first of all,
/// and `limits` replaces those of the preset before other keys add theirs.
///
/// Nothing is checked that [`Sandbox::check`] checks. A profile can name everything of the host
/// that the caller has. For the text of somebody who is not trusted, see [`Profile::untrusted`].
#[derive(Clone, PartialEq)]
pub struct Profile {
    file: File,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("file", &self.file).finish()
    }
}

/// Returns the error for a profile that cannot be used.
fn refuse(detail: impl Into<String>) -> Error {
    Error::message(ErrorKind::Invalid, Step::Profile, detail)
}

/// Returns the error for a text, at a line of it. The message may repeat what stands in the text.
fn refuse_at(line: Option<usize>, message: &str) -> Error {
    // The list of all keys, of which there are many.
    let message = message.split(", expected one of").next().unwrap_or_default();
    let shown: String = message.chars().take(MESSAGE_MAX).flat_map(char::escape_debug).collect();
    let shown = shown.replace("\\'", "'").replace("\\\"", "\"");
    match line {
        Some(line) => refuse(format!("line {line}: {shown}")),
        None => refuse(shown),
    }
}

fn check_len(text: &str, most: Bytes) -> Result<()> {
    let len = Bytes::from_usize(text.len());
    if len > most {
        return Err(refuse(format!("the text has {len}, and at most {most} are read")));
    }
    Ok(())
}

impl Profile {
    /// Reads a profile in TOML.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`], with the line: no TOML, an unknown key, a value that its key cannot
    /// have, another version; a text of more than 1 MiB.
    pub fn from_toml(text: &str) -> Result<Profile> {
        check_len(text, LEN_MAX)?;
        let read = toml::from_str::<File>(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
            refuse_at(line, error.message())
        });
        Profile::of_version(read?)
    }

    /// Reads a profile in JSON.
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Profile::from_toml).
    pub fn from_json(text: &str) -> Result<Profile> {
        check_len(text, LEN_MAX)?;
        let read = serde_json::from_str::<File>(text).map_err(|error| {
            let message = error.to_string();
            // The position stands in a field of its own.
            let end = message.rfind(" at line ").unwrap_or(message.len());
            refuse_at(Some(error.line()).filter(|line| *line > 0), &message[..end])
        });
        Profile::of_version(read?)
    }

    fn of_version(file: File) -> Result<Profile> {
        if file.version != VERSION {
            return Err(refuse(format!("version {} of profiles is not known, only {VERSION}", file.version)));
        }
        // TOML has numbers that are none, and JSON has not.
        let cores = [file.cpu_limit, file.limits.as_ref().and_then(|limits| limits.cpu)];
        if cores.into_iter().flatten().any(|cores| !cores.is_finite()) {
            return Err(refuse("cpu_limit: not a finite number of cores"));
        }
        Ok(Profile { file })
    }

    /// Makes the calls of the profile. A path that names a disk for
    /// [`io_limit`](Sandbox::io_limit) is looked up here; everything else at the spawn.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for keys that exclude one another, and for `systemd_scope` without
    /// the crate's feature `systemd`; those of [`IoLimit::for_path`](crate::IoLimit::for_path).
    pub fn sandbox(&self) -> Result<Sandbox> {
        self.file.sandbox()
    }

    /// Writes the profile as TOML.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a value that TOML cannot have.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.file).map_err(|error| refuse(error.to_string()))
    }

    /// Writes the profile as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a value that JSON cannot have.
    pub fn to_json(&self) -> Result<String> {
        let mut text = Vec::new();
        let mut pretty = serde_json::Serializer::with_formatter(&mut text, serde_json::ser::PrettyFormatter::new());
        self.file.serialize(&mut pretty).map_err(|error| refuse(error.to_string()))?;
        String::from_utf8(text).map_err(|error| refuse(error.to_string()))
    }
}

impl TryFrom<&Sandbox> for Profile {
    type Error = Error;

    /// Reads a profile off a sandbox. Of a sandbox that began with [`Sandbox::strict`], it has only
    /// what differs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for what has no text form: descriptors, images, texts that are no
    /// UTF-8.
    fn try_from(sandbox: &Sandbox) -> Result<Profile> {
        Profile::of_version(File::of(sandbox)?)
    }
}
