//! The chain of the first page, on a root of its own.

use crate::common;
use ringfence::Sandbox;

#[test]
fn a_shell_on_a_root_of_its_own() {
    let _clean = common::clean();
    let root = common::root_dir();
    let sandbox = common::on_root(common::sh("echo $$; ls /; cat /proc/1/comm"), &root).pid_ns();
    let text = common::stdout(&sandbox);
    assert!(text.starts_with("1\n") && text.ends_with("\nsh"), "{text}");
    assert!(!text.contains("home"), "{text}");
}

#[test]
fn the_builder_can_be_shared_and_used_again() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    let _clean = common::clean();
    let sandbox: Sandbox = common::sh("exit 3");
    shared(&sandbox);
    for _ in 0..3 {
        assert_eq!(sandbox.status().unwrap().code(), Some(3));
    }
}
