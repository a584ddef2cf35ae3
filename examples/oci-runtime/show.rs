//! Tables and lists.

use std::process::Command;

use ringfence::oci::{Container, State};

use super::Failure;
use super::args::Format;

pub fn list(states: &[State], format: Format, quiet: bool) -> Result<String, Failure> {
    if quiet {
        return Ok(states.iter().map(|state| format!("{}\n", state.id)).collect());
    }
    if format == Format::Json {
        // As runc shows none.
        return Ok(if states.is_empty() { "null".to_owned() } else { serde_json::to_string(states)? });
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        let (pid, status, bundle) =
            (state.pid.to_string(), state.status.to_string(), state.bundle.display().to_string());
        [state.id.clone(), pid, status, bundle, state.created.clone(), format!("#{}", state.owner)]
    };
    let rows: Vec<_> = std::iter::once(head).chain(states.iter().map(row)).collect();
    let widths: Vec<usize> = (0..6).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0) + 3).collect();
    let line = |row: &[String; 6]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    Ok(rows.iter().map(line).collect())
}

/// Shows the processes: their pids, or the lines of ps(1) about them.
pub fn processes(container: &Container, format: Format, words: &[String]) -> Result<String, Failure> {
    let pids = container.processes()?;
    if format == Format::Json {
        return Ok(serde_json::to_string(&pids)?);
    }
    let words = if words.is_empty() { vec!["-ef".to_owned()] } else { words.to_vec() };
    let output = Command::new("ps").args(&words).output().map_err(|error| format!("ps: {error}"))?;
    if !output.status.success() {
        return Err(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end()).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let at = head.split_whitespace().position(|word| word == "PID").ok_or("ps: the table has no column PID")?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(at).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: u32| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(is_ours)).map(|line| format!("{line}\n")).collect())
}
