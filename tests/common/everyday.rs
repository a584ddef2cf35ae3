//! Programs of every day: what they look up of accounts, names, streams and settings.

use std::path::Path;

use ringfence::Sandbox;

/// A program that has to be installed, a script, and what it says.
pub type Row = (&'static str, &'static str, &'static str);

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

pub fn is_there(name: &str) -> bool {
    ["/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists())
}

/// Runs all of them, each in such a sandbox. Those that are not installed are skipped.
#[track_caller]
pub fn run(sandbox: impl Fn() -> Sandbox) {
    let mut faults = Vec::new();
    for (name, script, expected) in PROGRAMS {
        if !is_there(name) {
            super::skip(&format!("{name} is not installed"), false);
            continue;
        }
        let output = super::shell(sandbox(), script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim_end() != expected {
            let complaint = String::from_utf8_lossy(&output.stderr);
            faults.push(format!("{name}: {} {said:?}, {complaint}", output.outcome.verdict()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
