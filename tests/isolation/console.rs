//! Terminals that the program inherits.

use std::fs::File;

use crate::common;
use nix::pty::openpty;
use ringfence::{Command, Prepared, RootFs, Sandbox};

/// What tty(1) says on a terminal of this test's.
fn name_of(prepared: &Prepared) -> String {
    let pty = openpty(None, None).unwrap();
    let output = prepared.with(Command::new("tty").stdin(File::from(pty.slave))).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn an_inherited_terminal_has_a_name() {
    let _clean = common::clean();
    let root = common::root_dir();
    let sandboxes = [
        ("strict", common::strict()),
        ("a directory", common::on_root(common::mounting().pid_ns(), &root)),
        ("programs", common::sandbox().pid_ns().rootfs(RootFs::programs())),
        ("the host's root, read-only", common::mounting().pid_ns().rootfs(RootFs::host())),
    ];
    for (what, sandbox) in sandboxes {
        let prepared = sandbox.prepare().unwrap();
        let _other = openpty(None, None).unwrap();
        for _ in 0..2 {
            assert_eq!(name_of(&prepared), "/dev/console", "{what}");
        }
        // Whoever has no terminal has no console either.
        let script = "tty; ls -d /dev/console 2>/dev/null";
        let output = prepared.with(Command::new("sh").args(["-c", script])).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "not a tty\n", "{what}");
    }
}

/// The name opens the terminal that was inherited, for whoever may open it on the host, and none of its properties can be
/// changed by it.
#[test]
fn the_name_opens_that_terminal_and_changes_nothing_of_it() {
    let _clean = common::clean();
    if common::needs_root("a terminal that belongs to another user") {
        return;
    }
    let script = "(echo said >/dev/console) 2>/dev/null || echo refused; chmod 666 /dev/console 2>/dev/null || echo kept; rm -f /dev/console 2>/dev/null || echo held";
    let run = |sandbox: Sandbox| {
        let pty = openpty(None, None).unwrap();
        let slave = File::from(pty.slave);
        let mode = || std::os::unix::fs::PermissionsExt::mode(&slave.metadata().unwrap().permissions());
        let before = mode();
        let output = common::shell(sandbox, script).stdin(slave.try_clone().unwrap()).output().unwrap();
        assert_eq!(mode(), before);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(run(common::strict()), "refused\nkept\nheld\n");
    assert_eq!(run(Sandbox::new().pid_ns().rootfs(RootFs::programs())), "kept\nheld\n");
}
