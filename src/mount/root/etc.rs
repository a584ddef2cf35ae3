//! The /etc of a root of the host's programs: accounts and names of the sandbox's own, and the
//! files that toolchains keep there. No secret of the host's is among them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mount::calls::write_new_file;
use crate::plan::{Plan, Slot};

/// The files and directories of the host's /etc that programs look up, as far as they exist: the
/// loader's, the time zone, certificates of authorities, fonts, names of services, and the settings
/// of compilers and runtimes. Directories are shown whole.
const FROM_HOST: [&str; 17] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/etc/mono",
    "/etc/fpc.cfg",
    "/etc/perl",
    "/etc/python3",
    "/etc/R",
];
/// The beginnings of further names in /etc that belong to toolchains: `java-17-openjdk`,
/// `fpc-3.2.2.cfg`, `python3.11`.
const PREFIXES: [&str; 3] = ["java-", "fpc-", "python3."];

/// The names of the loopback device in hosts(5).
pub(in crate::mount) const LOCALHOST: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

const NOBODY: u32 = 65_534;

/// Returns the paths in the host's /etc that are shown if they exist.
pub(super) fn host_paths() -> impl Iterator<Item = PathBuf> {
    let of_toolchains = fs::read_dir("/etc").into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        PREFIXES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    });
    let mut paths: Vec<PathBuf> = of_toolchains.map(|entry| entry.path()).collect();
    paths.sort();
    FROM_HOST.into_iter().map(PathBuf::from).chain(paths)
}

/// Writes the files of the sandbox's own in /etc, which is there. `(uid, gid)`: the program's user.
pub(super) fn emit_etc(plan: &mut Plan, root: Slot, (uid, gid): (u32, u32)) {
    let files = [
        ("etc/passwd", passwd(uid, gid)),
        ("etc/group", group(gid)),
        ("etc/hosts", LOCALHOST.to_owned()),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n".to_owned()),
    ];
    for (name, text) in &files {
        write_new_file(plan, root, name, text.as_bytes(), 0o644, &Path::new("/").join(name));
    }
}

/// Returns passwd(5) with root, nobody, and the program's own user, whose home is /tmp.
fn passwd(uid: u32, gid: u32) -> String {
    let line = |name: &str, id: u32, home: &str, shell: &str| {
        let (gid, home, shell) = if id == uid { (gid, "/tmp", "/bin/sh") } else { (id, home, shell) };
        format!("{name}:x:{id}:{gid}:{name}:{home}:{shell}\n")
    };
    let own = if [0, NOBODY].contains(&uid) { String::new() } else { line("user", uid, "", "") };
    [line("root", 0, "/", "/bin/sh"), own, line("nobody", NOBODY, "/", "/usr/sbin/nologin")].concat()
}

/// Returns group(5) with the groups of root, of terminals, of nobody, and the program's own.
fn group(gid: u32) -> String {
    let known = [("root", 0), ("tty", 5), ("nogroup", NOBODY)];
    let own = (!known.iter().any(|(_, id)| *id == gid)).then_some(("user", gid));
    known.into_iter().chain(own).map(|(name, id)| format!("{name}:x:{id}:\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_has_one_name() {
        assert_eq!(passwd(NOBODY, NOBODY), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n");
        assert_eq!(passwd(0, 7).lines().next(), Some("root:x:0:7:root:/tmp:/bin/sh"));
        assert!(passwd(1000, 100).contains("\nuser:x:1000:100:user:/tmp:/bin/sh\n"));
        assert_eq!(group(5).lines().count(), 3);
        assert!(group(100).ends_with("user:x:100:\n"));
    }
}
