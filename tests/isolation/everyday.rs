//! Everyday programs under `Sandbox::strict()`: what they look up of accounts, names, streams and settings is there.

use std::path::Path;

use crate::common;
use ringfence::{Bytes, Sandbox, Tmpfs};

/// A program that has to be installed, a script, and what it says.
type Row = (&'static str, &'static str, &'static str);

const PROGRAMS: [Row; 14] = [
    ("id", "id -un; id -gn", "nobody\nnogroup"),
    ("getent", "getent hosts localhost | grep -c localhost; getent passwd root | cut -d: -f1,3", "1\nroot:0"),
    ("hostname", "hostname", "sandbox"),
    (
        "bash",
        "exec bash -c 'echo out >/dev/stdout; cat <(echo within); exec 3<<<here; cat /dev/fd/3'",
        "out\nwithin\nhere",
    ),
    (
        "python3",
        "exec python3 -c '
import getpass, os, pwd, socket
print(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_dir, socket.gethostname())
server = socket.create_server((\"127.0.0.1\", 0))
client = socket.create_connection(server.getsockname())
print(socket.getaddrinfo(\"localhost\", 80)[0][4][0] in (\"127.0.0.1\", \"::1\"))
import time; time.tzset(); import ssl; ssl.create_default_context(); import tempfile; tempfile.TemporaryFile()'",
        "nobody /tmp sandbox\nTrue",
    ),
    ("perl", "exec perl -e 'print((getpwuid($>))[0])'", "nobody"),
    ("gcc", "cd && echo 'int main(void) { return 7; }' >a.c && gcc -o a a.c; ./a; echo $?", "7"),
    (
        "git",
        "cd && git init -q r && cd r && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m said && git log --format=%s",
        "said",
    ),
    ("sqlite3", "exec sqlite3 /tmp/d 'create table t(a); insert into t values (7); select a from t'", "7"),
    (
        "ssh-keygen",
        "ssh-keygen -q -t ed25519 -N '' -f /tmp/k && ssh-keygen -lf /tmp/k.pub | grep -o ED25519",
        "ED25519",
    ),
    (
        "node",
        "exec node -e 'const o = require(\"os\"); console.log(o.userInfo().username, o.hostname())'",
        "nobody sandbox",
    ),
    ("java", "java -XX:+UseSerialGC -Xmx64m -version 2>&1 | grep -c Runtime", "1"),
    (
        "javac",
        "cd && echo 'class A { public static void main(String[] a) { System.out.println(System.getProperty(\"user.name\")); } }' \
         >A.java && javac -J-Xmx128m A.java && java -Xmx64m A",
        "nobody",
    ),
    (
        "go",
        "cd && echo 'package main; func main() { println(\"said\") }' >a.go && \
         GO111MODULE=off CGO_ENABLED=0 GOCACHE=/tmp/cache go run a.go 2>&1",
        "said",
    ),
];

fn is_there(name: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists())
}

fn roomy() -> Sandbox {
    common::strict().memory_limit(Bytes::gib(1)).mount(Tmpfs::new("/tmp").size(Bytes::mib(400)).mode(0o1777))
}

#[test]
fn programs_of_every_day_run_under_strict() {
    let _clean = common::clean();
    let mut faults = Vec::new();
    for (name, script, expected) in PROGRAMS {
        if !is_there(name) {
            common::skip(&format!("{name} is not installed"), false);
            continue;
        }
        let output = common::shell(roomy(), script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim_end() != expected {
            let complaint = String::from_utf8_lossy(&output.stderr);
            faults.push(format!("{name}: {} {said:?}, {complaint}", output.outcome.verdict()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Runtimes that size themselves by the memory of their control group, each with what it says of 128 MiB: half of a
/// small memory is a JVM's heap.
const SIZED: [Row; 2] = [
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
        if !is_there(name) {
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
