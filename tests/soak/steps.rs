//! One random sandbox, and a random end of it.

use std::time::Duration;

use ringfence::{Child, Error, ErrorKind, Limits, Verdict, reap_stale};

use super::owner;
use super::policy::{self, Dirs, Policy, Program};
use super::pools;
use super::random::Random;

/// A step; gives what it came to. Whatever should not be, panics.
pub fn step(random: &mut Random, place: &Dirs) -> &'static str {
    if random.chance(2) {
        owner::start_and_kill(random, place);
        let reaped = reap_stale();
        reaped.unwrap_or_else(|error| panic!("reap_stale: {error:#}"));
        return "killed owner";
    }
    if random.chance(3) {
        return pools::step(random, place);
    }
    let policy = policy::policy(random, place);
    // The judgement alone, which leaves nothing either.
    if random.chance(5) {
        return if policy.sandbox.check().is_ok() { "checked" } else { "found wanting" };
    }
    match start(&policy, random) {
        Ok(child) => end(child, &policy, random),
        Err(error) => is_expected(&error, &policy),
    }
}

fn start(policy: &Policy, random: &mut Random) -> Result<Child, Error> {
    if random.chance(20) { policy.sandbox.prepare()?.spawn() } else { policy.sandbox.spawn() }
}

/// Those that were asked for. What the policy cannot have here `check` says as well.
#[track_caller]
pub fn is_expected(error: &Error, policy: &Policy) -> &'static str {
    match error.kind() {
        _ if policy.fails => "made to fail",
        _ if policy.program == Program::Missing => "no such program",
        ErrorKind::Invalid | ErrorKind::Unsupported if policy.sandbox.check().is_err() => "refused",
        kind => panic!("{kind:?}: {error:#}\nof {policy:#?}"),
    }
}

#[track_caller]
pub fn must<T>(what: &str, policy: &Policy, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:#}\nof {policy:#?}"))
}

/// Ends it in one of many ways, all of which are to leave nothing.
pub fn end(mut child: Child, policy: &Policy, random: &mut Random) -> &'static str {
    match random.below(9) {
        0 if policy.ends => {
            // What it writes is read by nobody: with a pipe it may wait for that.
            drop((child.stdout.take(), child.stderr.take()));
            let outcome = must("wait", policy, child.wait());
            let undisturbed = policy.program == Program::Ends && !matches!(outcome.verdict(), Verdict::WallTime);
            assert!(!undisturbed || outcome.success(), "{}\nof {policy:#?}", outcome.verdict());
            "waited for"
        }
        1 => {
            let timeout = Duration::from_millis(random.below(30));
            must("wait_timeout", policy, child.wait_timeout(timeout));
            drop(child);
            "dropped later"
        }
        2 => {
            must("close", policy, child.close());
            "closed"
        }
        3 => {
            must("kill", policy, child.kill());
            must("wait after kill", policy, child.wait());
            "killed"
        }
        4 => {
            std::thread::sleep(Duration::from_millis(random.below(10)));
            // It may have ended, and init may be about to.
            let _ = child.signal(libc::SIGKILL);
            must("wait after SIGKILL", policy, child.wait());
            "killed from outside"
        }
        5 if policy.has_group => {
            let frozen = child.freeze();
            if random.chance(50) && frozen.is_ok() {
                let _ = child.thaw();
            }
            drop(child);
            "frozen"
        }
        6 if policy.has_group => {
            let _ = child.stats();
            let _ = child.update(&Limits::new().pids(8 + random.below(8)));
            drop(child);
            "looked at"
        }
        7 if policy.ends => {
            must("wait_with_output", policy, child.wait_with_output());
            "output read"
        }
        _ => {
            drop(child);
            "dropped"
        }
    }
}
