//! Everyday programs under `Sandbox::strict()`: what they look up of accounts, names, streams and settings is there.

use crate::common::{self, everyday};
use ringfence::{Bytes, Sandbox, Tmpfs};

fn roomy() -> Sandbox {
    common::strict().memory_limit(Bytes::gib(1)).mount(Tmpfs::new("/tmp").size(Bytes::mib(400)).mode(0o1777))
}

#[test]
fn programs_of_every_day_run_under_strict() {
    let _clean = common::clean();
    everyday::run(roomy);
}

/// Runtimes that size themselves by the memory of their control group, each with what it says of 128 MiB: half of a
/// small memory is a JVM's heap.
const SIZED: [everyday::Row; 2] = [
    (
        "java",
        "java -XX:+UseSerialGC -XX:+PrintFlagsFinal -version 2>&1 | grep -w MaxHeapSize | grep -ow '[0-9]*'",
        "67108864",
    ),
    ("node", "exec node -p 'process.constrainedMemory()'", "134217728"),
];

#[test]
fn runtimes_find_the_limits_of_their_sandbox() {
    if common::no_cgroups() {
        return;
    }
    let _clean = common::clean();
    for (name, script, expected) in SIZED {
        if !everyday::is_there(name) {
            common::skip(&format!("{name} is not installed"), false);
            continue;
        }
        let output = common::shell(common::strict().memory_limit(Bytes::mib(128)), script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{name}: {output:?}");
    }
}

/// Streams are the program's user's, whoever that is and whoever reads the other end, and so they can be opened by name.
#[test]
fn pipes_can_be_opened_by_name() {
    let _clean = common::clean();
    let script = "echo one >/dev/stdout; echo two >/proc/self/fd/2; read line </dev/stdin; echo $line";
    let mut sandboxes = vec![("strict", common::strict())];
    if common::is_root() {
        sandboxes.push(("another user", Sandbox::new().user(65534, 65534)));
    }
    for (what, sandbox) in sandboxes {
        let pool = sandbox.pool(1).unwrap();
        let command =
            || ringfence::Command::new("/bin/sh").args(["-c", script]).stdin(ringfence::Stdio::bytes(*b"three\n"));
        let single = sandbox.prepare().unwrap().with(command()).output().unwrap();
        let pooled = pool.output(command()).unwrap();
        for (way, output) in [("spawn", single), ("pool", pooled)] {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "one\nthree\n", "{what}, {way}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "two\n", "{what}, {way}");
        }
    }
}
