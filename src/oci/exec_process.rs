//! The process of an `exec`.

use oci_spec::runtime::{BoxBuilder, Process};

use super::config::process_from_json;
use crate::error::Result;
use crate::stdio::TerminalSize;

/// A further program in a container: a file of an engine, which has the properties of `process` in
/// a configuration. [`Container::exec`](super::Container::exec) takes it.
///
/// ```
/// use ringfence::oci::ExecProcess;
///
/// let text = br#"{"args": ["ps"], "cwd": "/", "capabilities": {"bounding": ["CAP_OF_TOMORROW"]}}"#;
/// let process = ExecProcess::from_json(text)?;
/// assert!(process.warnings()[0].starts_with("process.capabilities.bounding: \"CAP_OF_TOMORROW\""));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExecProcess {
    pub(super) process: Process,
    warnings: Vec<String>,
}

impl ExecProcess {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not JSON, or not of the
    /// types of the specification.
    pub fn from_json(text: &[u8]) -> Result<ExecProcess> {
        let (process, warnings) = process_from_json(text)?;
        Ok(ExecProcess { process, warnings })
    }

    /// Returns what an exec passes over, each with its path: properties and capabilities that are
    /// not known, and ambient capabilities that are not permitted and inheritable as well.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns whether the program has a terminal of its own.
    pub fn has_terminal(&self) -> bool {
        self.process.terminal().unwrap_or(false)
    }

    /// Returns the processors on which the program enters the container, in the form `0-2,7`, if
    /// the file says any: `execCPUAffinity.initial`.
    pub fn initial_cpus(&self) -> Option<&str> {
        self.process.exec_cpu_affinity().as_ref()?.initial().as_deref()
    }

    /// Gives the terminal this size, unless the file says one.
    #[must_use = "the process is given back with the size"]
    pub fn or_console_size(mut self, size: TerminalSize) -> ExecProcess {
        if self.process.console_size().is_none() {
            let given = BoxBuilder::default().height(size.rows).width(size.columns).build();
            // A builder fails for want of a field.
            self.process.set_console_size(given.ok());
        }
        self
    }
}
