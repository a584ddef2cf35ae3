//! Control groups: what they limit and tell, and where they stand.

#[path = "../common/mod.rs"]
mod common;

mod delegation;
mod devices;
mod limits;
mod memory;
mod named;
mod pressure;
mod shares;
mod shown;
#[cfg(feature = "systemd")]
mod systemd;
mod values;

use ringfence::{Child, ErrorKind, Sandbox, Stdio, Verdict};

/// A sandbox for limits, which may have them below this process's own group.
fn limited() -> Sandbox {
    common::sandbox().cgroup_parent(common::cgroup_parent()).pid_ns()
}

/// A program that does nothing until its stdin ends.
fn at_rest(sandbox: Sandbox) -> Child {
    sandbox.command("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
}

/// With too little memory for the setup, a program ends or is refused, again and again.
fn ends_or_is_refused_with_little_memory(sandbox: &Sandbox) {
    for bytes in [4096u64, 16 << 10, 64 << 10, 256 << 10, 512 << 10] {
        for round in 0..10 {
            let sandbox = sandbox.clone().memory_limit(bytes).swap_limit(0).command("/bin/true");
            match sandbox.spawn().and_then(|mut child| child.wait()) {
                Ok(outcome) => assert!(
                    matches!(outcome.verdict(), Verdict::Exited(0) | Verdict::OutOfMemory | Verdict::Signaled(_)),
                    "{bytes} {round}: {}",
                    outcome.verdict()
                ),
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::SetupDied | ErrorKind::Setup | ErrorKind::Exec | ErrorKind::Unsupported
                    ),
                    "{bytes} {round}: {error}"
                ),
            }
        }
    }
}
