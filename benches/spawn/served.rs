//! A process that follows orders line by line, so that callers in different states take turns
//! within one run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The process, which a drop ends.
#[derive(Debug)]
pub struct Served {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Served {
    /// Starts the process, and waits until it has said `ready`.
    pub fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| error.to_string())?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        let mut served = Served { process, orders: Some(orders), answers: BufReader::new(answers) };
        match served.answer()?.as_str() {
            "ready" => Ok(served),
            other => Err(format!("it said {other:?}")),
        }
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("it has ended".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends one order, and returns the answer.
    pub fn ask(&mut self, order: &str) -> Result<String, String> {
        let orders = self.orders.as_mut().ok_or("it has ended")?;
        writeln!(orders, "{order}").map_err(|error| error.to_string())?;
        self.answer()
    }

    /// Sends an order whose answer is a number of nanoseconds.
    pub fn time(&mut self, order: &str) -> Result<Duration, String> {
        let answer = self.ask(order)?;
        answer.parse().map(Duration::from_nanos).map_err(|_| format!("it said {answer:?}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The process ends with its orders.
        self.orders = None;
        let _ = self.process.wait();
    }
}
