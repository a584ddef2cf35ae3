//! A caller that is killed in the midst of it: a process of its own, with random sandboxes.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use super::common::probe;
use super::policy::{self, Dirs};
use super::random::Random;
use super::steps;

/// As many as live at once.
const MOST: usize = 12;

/// Has one own sandboxes for a moment, and kills it.
pub fn start_and_kill(random: &mut Random, place: &Dirs) {
    let mut command = probe::caller(&format!("owner {} {}", random.next(), place.words()));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut owner = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    std::thread::sleep(Duration::from_millis(random.below(150)));
    owner.kill().unwrap();
    let status = owner.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL), "{status}: it had failed");
}

/// What the owner does until it is killed.
pub fn own(seed: u64, place: &Dirs) -> ! {
    let mut random = Random::new(seed);
    println!("ready");
    std::io::stdout().flush().unwrap();
    let mut owned = Vec::new();
    loop {
        let policy = policy::policy(&mut random, place);
        match policy.sandbox.spawn() {
            Ok(child) => owned.push(child),
            Err(error) => drop(steps::is_expected(&error, &policy)),
        }
        if owned.len() > MOST {
            drop(owned.swap_remove(random.below(MOST as u64) as usize));
        }
    }
}
