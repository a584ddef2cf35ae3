//! The one public error of the crate: the failed step, its path and errno, and the remedy.

mod problem;
mod remedy;
mod step;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use self::problem::Problem;
use self::remedy::remedy_of;
pub use self::step::Step;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate, in the form `step on path: ERRNO (text); hint`.
///
/// ```
/// use ringfence::{ErrorKind, Sandbox};
///
/// let error = Sandbox::new().hostname("box").check().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().contains("uts_ns"));
/// ```
///
/// `Debug` prints the same text behind the [`kind`](Error::kind), because a `main` that returns a
/// `Result` prints that; `{:#?}` prints the fields.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { fmt::Debug::fmt(&self.0, f) } else { write!(f, "{:?}: {self}", self.kind()) }
    }
}

/// The sort of an [`Error`], for callers that decide by it.
///
/// ```
/// use ringfence::{ErrorKind, Sandbox};
///
/// let error = Sandbox::new().command("/no/such/program").spawn().unwrap_err();
/// match error.kind() {
///     ErrorKind::Exec => println!("there is no such program: {error}"),
///     ErrorKind::Unsupported => error.problems().iter().for_each(|problem| println!("{problem}")),
///     _ => println!("{error}"),
/// }
/// # assert_eq!(error.kind(), ErrorKind::Exec);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The policy contradicts itself; [`Error::problems`] lists every conflict.
    Invalid,
    /// This host cannot carry out the policy; [`Error::problems`] lists every reason with its
    /// remedy.
    Unsupported,
    /// A step of the setup failed: [`Error::step`] names it.
    Setup,
    /// The sandbox was ready, but the program could not be executed in it.
    Exec,
    /// The setup did not finish within [`setup_timeout`](crate::Sandbox::setup_timeout), or the
    /// peer stopped answering.
    Timeout,
    /// The setup process ended before it could report.
    SetupDied,
    /// The program has ended, but its exit status was taken by another waiter: the caller ignores
    /// SIGCHLD or waits for any child, and the kernel (before 6.15) keeps no copy.
    StatusLost,
    /// An operation on a live sandbox failed: a wait, a signal, a statistic, an update.
    Control,
    /// Reading or writing the store of images failed: [`Error::step`] names the step.
    #[cfg(feature = "image")]
    Store,
    /// The store has no such image, layer or blob, or the directory no such file; or the sandbox of
    /// a [`Ticket`](crate::Ticket) has ended.
    NotFound,
    /// Bytes are not what their digest, their length or their format says.
    #[cfg(feature = "image")]
    Corrupt,
    /// An input is larger than the limit that is set for it.
    TooLarge,
    /// The item is held by another process, or by a running sandbox.
    #[cfg(feature = "image")]
    InUse,
    /// A registry cannot be reached, is overloaded, or broke off more often than the limit of
    /// retries. A later attempt may succeed.
    #[cfg(feature = "registry")]
    Unavailable,
    /// A registry wants other credentials, or accepts none.
    #[cfg(feature = "registry")]
    Denied,
    /// A registry broke the rules of its protocol: its length was false, its redirect led to a
    /// forbidden place, or its answer made no sense.
    #[cfg(feature = "registry")]
    Protocol,
}

/// The two forms of an [`Error`]: a failed step, and a refused policy.
#[derive(Debug, thiserror::Error)]
enum Inner {
    #[error("{}", describe(*step, path.as_deref(), detail.as_deref(), *errno, hint.as_deref()))]
    Failed {
        kind: ErrorKind,
        step: Step,
        path: Option<PathBuf>,
        detail: Option<String>,
        errno: Option<Errno>,
        hint: Option<String>,
    },
    #[error("{}", list(problems))]
    Refused { problems: Vec<Problem> },
}

/// Joins the parts of a failed step into one line.
fn describe(step: Step, path: Option<&Path>, detail: Option<&str>, errno: Option<Errno>, hint: Option<&str>) -> String {
    let mut text = step.as_str().to_owned();
    if let Some(path) = path {
        text += &format!(" {}", path.display());
    }
    if let Some(errno) = errno {
        text += &format!(": {errno:?} ({})", errno.desc());
    }
    if let Some(detail) = detail {
        text += &format!(": {detail}");
    }
    if let Some(hint) = hint {
        text += &format!("; {hint}");
    }
    in_one_line(text)
}

/// Escapes control characters. A program chooses the names of its files, and what stands in an error
/// may reach a terminal, or the lines of a log.
fn in_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_debug())
        } else {
            line.push(c)
        }
        line
    })
}

/// Lists the problems, one in each line.
fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// Makes the error of a failed step, with its errno.
    pub(crate) fn new(step: Step, errno: Errno) -> Self {
        Error(Box::new(Inner::Failed {
            kind: ErrorKind::Setup,
            step,
            path: None,
            detail: None,
            errno: Some(errno),
            hint: remedy_of(step, errno),
        }))
    }

    /// Makes the error of a failed step without an errno; `detail` describes the failure.
    pub(crate) fn message(kind: ErrorKind, step: Step, detail: impl Into<String>) -> Self {
        Error(Box::new(Inner::Failed { kind, step, path: None, detail: Some(detail.into()), errno: None, hint: None }))
    }

    /// Makes the error of a step that failed in the standard library.
    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Error::new(step, Errno::from_raw(errno)),
            None => Error::message(ErrorKind::Setup, step, error.to_string()),
        }
    }

    /// Makes the error of a refused policy, from all its problems.
    pub(crate) fn refused(problems: Vec<Problem>) -> Self {
        Error(Box::new(Inner::Refused { problems }))
    }

    /// Takes an error of this crate back out of an error of the standard library. Any other becomes
    /// one of `step` and `kind`.
    #[cfg(feature = "image")]
    pub(crate) fn from_io(step: Step, kind: ErrorKind, error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io(step, &error).with_kind(kind),
        }
    }

    /// Sets the kind.
    pub(crate) fn with_kind(mut self, new: ErrorKind) -> Self {
        if let Inner::Failed { kind, .. } = &mut *self.0 {
            *kind = new;
        }
        self
    }

    /// Names the file or the argument of the failed step.
    pub(crate) fn at(mut self, new: impl AsRef<OsStr>) -> Self {
        if let Inner::Failed { path, .. } = &mut *self.0 {
            *path = Some(PathBuf::from(new.as_ref()));
        }
        self
    }

    /// Adds a description of the failure.
    pub(crate) fn detail(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { detail, .. } = &mut *self.0 {
            *detail = Some(new.into());
        }
        self
    }

    /// Sets the remedy. Without this, an errno that tells its cause at every step (EMFILE, ENFILE)
    /// has one.
    pub(crate) fn hint(mut self, new: impl Into<String>) -> Self {
        if let Inner::Failed { hint, .. } = &mut *self.0 {
            *hint = Some(new.into());
        }
        self
    }

    /// Returns the failed step as a problem of this host.
    #[cfg(feature = "systemd")]
    pub(crate) fn problem(&self, subject: &str) -> Problem {
        match &*self.0 {
            Inner::Failed { step, path, detail, errno, hint, .. } => {
                let reason = describe(*step, path.as_deref(), detail.as_deref(), *errno, None);
                Problem::unsupported(subject, reason, hint.as_deref().unwrap_or("see its journal"))
            }
            Inner::Refused { .. } => Problem::unsupported(subject, self.to_string(), ""),
        }
    }

    /// Returns the sort of the failure.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Inner::Failed { kind, .. } => *kind,
            Inner::Refused { problems } if problems.iter().any(|p| p.kind == ErrorKind::Invalid) => ErrorKind::Invalid,
            Inner::Refused { .. } => ErrorKind::Unsupported,
        }
    }

    /// Returns the step that failed.
    pub fn step(&self) -> Step {
        match &*self.0 {
            Inner::Failed { step, .. } => *step,
            Inner::Refused { .. } => Step::Validate,
        }
    }

    /// Returns the file, directory or program of the failed step.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Inner::Failed { path, .. } => path.as_deref(),
            Inner::Refused { .. } => None,
        }
    }

    /// Returns the errno of the kernel, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &*self.0 {
            Inner::Failed { errno, .. } => errno.map(|e| e as i32),
            Inner::Refused { .. } => None,
        }
    }

    /// Returns the remedy, if one is known.
    pub fn remedy(&self) -> Option<&str> {
        match &*self.0 {
            Inner::Failed { hint, .. } => hint.as_deref(),
            Inner::Refused { problems } => problems.first().map(|p| p.remedy.as_str()),
        }
    }

    /// Returns every conflict and every missing feature, for [`ErrorKind::Invalid`] and
    /// [`ErrorKind::Unsupported`].
    pub fn problems(&self) -> &[Problem] {
        match &*self.0 {
            Inner::Failed { .. } => &[],
            Inner::Refused { problems } => problems,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), error.raw_os_error()) {
            (_, Some(errno)) => io::Error::from_raw_os_error(errno).kind(),
            (ErrorKind::Invalid, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::Unsupported, _) => io::ErrorKind::Unsupported,
            (ErrorKind::Timeout, _) => io::ErrorKind::TimedOut,
            (ErrorKind::NotFound, _) => io::ErrorKind::NotFound,
            #[cfg(feature = "image")]
            (ErrorKind::Corrupt, _) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program chooses the names of its files, and they come into errors.
    #[test]
    fn what_a_program_has_named_reaches_no_terminal_as_more_than_text() {
        let named = "a\u{1b}]0;owned\u{7}\nerror: all lost\u{9b}2J";
        let failed = Error::message(ErrorKind::Invalid, Step::Collect, named).at(named).hint(named).to_string();
        assert!(failed.contains("a\\u{1b}]0;owned\\u{7}\\nerror: all lost\\u{9b}2J"), "{failed:?}");
        let refused = [named, "ä"].map(|text| Problem::invalid(text, text, text));
        let refused = Error::refused(refused.into()).to_string();
        assert_eq!(refused.lines().nth(1), Some("ä: ä; ä"));
        for text in [failed, refused.replacen('\n', " ", 1)] {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn debug_output_of_an_error_is_readable() {
        let error = Error::new(Step::OpenSource, Errno::ENOENT).at("/srv/alpin").hint("the path has to exist");
        let text = "open /srv/alpin: ENOENT (No such file or directory); the path has to exist";
        assert_eq!((error.to_string(), format!("{error:?}")), (text.to_owned(), format!("Setup: {text}")));
        assert!(format!("{error:#?}").contains("errno: Some"));
    }
}
