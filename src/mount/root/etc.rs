//! The files in the /etc of a root of the host's programs that are the sandbox's own: accounts and
//! names.

use std::path::Path;

use crate::mount::calls::write_new_file;
use crate::plan::{Plan, Slot};

/// The names of the loopback device in hosts(5).
pub(in crate::mount) const LOCALHOST: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// The user and the group to whom files of unmapped ids seem to belong: the kernel's default of
/// `fs.overflowuid`.
pub(super) const NOBODY: u32 = 65_534;

/// Returns the files of the sandbox's own in /etc, by their names below the root, with their
/// contents. `(uid, gid)`: the program's user.
pub(super) fn files((uid, gid): (u32, u32)) -> [(&'static str, String); 4] {
    [
        ("etc/passwd", passwd(uid, gid)),
        ("etc/group", group(gid)),
        ("etc/hosts", LOCALHOST.to_owned()),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n".to_owned()),
    ]
}

/// Writes the files of the sandbox's own in /etc, which is there.
pub(super) fn emit_etc(plan: &mut Plan, root: Slot, user: (u32, u32)) {
    for (name, text) in &files(user) {
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
