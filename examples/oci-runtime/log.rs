//! Errors and warnings, as engines read them: the text on stderr, and a line in the log.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use super::args::LogFormat;

pub struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// Fails if there is a file that cannot be written to: whoever has asked for it would miss the
    /// errors.
    pub fn new(file: Option<PathBuf>, format: LogFormat, debug: bool) -> Result<Log, String> {
        if let Some(path) = &file {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| format!("--log {}: {error}", path.display()))?;
        }
        let log = Log { file, format, debug };
        let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        log.debug(&words.join(" "));
        Ok(log)
    }

    /// Returns whether `--debug` asks for more.
    pub fn tells_debug(&self) -> bool {
        self.debug
    }

    /// Logs what was asked for with `--debug`.
    pub fn debug(&self, text: &str) {
        if self.debug {
            if self.file.is_none() {
                let _ = writeln!(std::io::stderr(), "{}", self.line("debug", text));
            }
            self.add("debug", text);
        }
    }

    pub fn error(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "error: {text}");
        self.add("error", text);
    }

    /// Tells of a program that could not be executed: the line that other runtimes print, and alone
    /// where a program reads it. The whole text is in the log, and at a terminal on the next line.
    pub fn exec_error(&self, line: &str, text: &str) {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "{line}");
        if stderr.is_terminal() {
            let _ = writeln!(stderr, "error: {text}");
        }
        self.add("error", text);
    }

    /// Engines take what is on stderr for the error, so a warning is in the log alone, if there is one.
    pub fn warning(&self, text: &str) {
        if self.file.is_none() {
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        }
        self.add("warning", text);
    }

    fn add(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        let line = self.line(level, text);
        // A log that cannot be written to any longer is no reason to fail.
        let file = File::options().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }

    fn line(&self, level: &str, text: &str) -> String {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": text, "time": time}).to_string(),
            LogFormat::Text => format!("time={time:?} level={level} msg={text:?}"),
        }
    }
}
