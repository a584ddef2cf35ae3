//! Known ways out of sandboxes, one test each: what the attack does, and the defence that stops it, by the errno or by what
//! is left unchanged. Each test also shows that it can fail: the same attack without the defence goes through.
//!
//! Victims are files and processes of the tests' own. Where a setting of the host's would be the victim, the test opens it
//! and writes nothing.
//!
//! Where there is nothing to attack there is no test: no part of the library is set-user-ID
//! (CVE-2020-5291), nothing is copied into or out of a running sandbox (CVE-2018-15664), no sysctl
//! can be asked for (CVE-2022-0811), and no terminal is bound over another (CVE-2025-52565). What a
//! supervisor is asked can change behind its back: tests/isolation/supervise.rs.

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod caller;
mod disk_limit;
mod files;
mod ids;
mod kernel;
mod mounts;
mod processes;
mod resources;
mod take;

use std::time::Duration;

use ringfence::Sandbox;

/// What the attack says: a name and an answer a line.
#[derive(Debug)]
struct Answers(Vec<(String, String)>);

impl Answers {
    fn of(text: &str) -> Answers {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Answers(pairs.map(|(name, answer)| (name.to_owned(), answer.to_owned())).collect())
    }

    #[track_caller]
    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no answer {name} among {self:?}")).1
    }
}

/// Makes this test binary, as it stands at `path` inside, carry out an attack.
fn attack_at(sandbox: Sandbox, path: &str, what: &str) -> Sandbox {
    sandbox.command(path).env("RINGFENCE_ATTACK", what)
}

/// Runs an attack where the host's paths are those inside.
#[track_caller]
fn attack(sandbox: Sandbox, what: &str) -> Answers {
    let exe = std::env::current_exe().unwrap();
    Answers::of(&common::stdout(&attack_at(sandbox, exe.to_str().unwrap(), what)))
}

/// Runs an attack on a root of the sandbox's own.
#[track_caller]
fn attack_inside(sandbox: Sandbox, what: &str) -> Answers {
    let exe = std::env::current_exe().unwrap();
    Answers::of(&common::stdout(&attack_at(sandbox.bind_ro(exe, "/tmp/attack"), "/tmp/attack", what)))
}

/// Runs an attack under the preset for untrusted code.
#[track_caller]
fn attack_strict(what: &str) -> Answers {
    attack_inside(common::strict(), what)
}

/// How long something is tried that depends on the moment.
fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("CI").is_some() { 10 } else { 2 })
}
