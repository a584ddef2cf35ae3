//! Every call of the builder has its key, and the key does what the call does.

mod keys;
mod refusals;
mod rows;
mod untrusted;

use self::rows::ROWS;
use super::*;
use crate::mount::{Bind, MountOptions, Propagation, RawMount, RootFs};
use crate::namespace::Namespaces;
use crate::program::{Personality, Resource};

/// What the sandbox says of itself, without what a profile of system calls has computed meanwhile.
fn shown(sandbox: &Sandbox) -> String {
    let text = format!("{:#?}", sandbox.policy);
    let (mut lines, mut shown) = (text.lines(), Vec::new());
    while let Some(line) = lines.next() {
        if line.ends_with("OnceLock(") {
            // Other tests compute it at the same time: the profiles are shared.
            let end = format!("{}),", &line[..line.len() - line.trim_start().len()]);
            assert!(lines.by_ref().any(|line| line == end), "{line}");
        } else {
            shown.push(line);
        }
    }
    shown.join("\n")
}

fn toml_of(preset: &str, text: &str) -> String {
    format!("version = 1\npreset = '{preset}'\n{text}\n")
}

/// Reads the profile off a sandbox, and checks that all texts of it make the same sandbox again.
fn goes_round(sandbox: &Sandbox, what: &str) {
    let profile = Profile::try_from(sandbox).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (toml, json) = (profile.to_toml().unwrap(), profile.to_json().unwrap());
    let of_toml = Profile::from_toml(&toml).unwrap_or_else(|error| panic!("{what}: {error}\n{toml}"));
    let of_json = Profile::from_json(&json).unwrap_or_else(|error| panic!("{what}: {error}\n{json}"));
    assert_eq!((&of_toml, &of_json), (&profile, &profile), "{what}\n{toml}");
    assert_eq!(shown(&of_toml.sandbox().unwrap()), shown(sandbox), "{what}\n{toml}");
}

#[test]
fn each_key_does_what_its_call_does() {
    for (call, text, make, _) in ROWS {
        for (preset, begin) in [("new", Sandbox::new as fn() -> Sandbox), ("strict", Sandbox::strict)] {
            let text = toml_of(preset, text);
            let profile = Profile::from_toml(&text).unwrap_or_else(|error| panic!("{call}: {error}\n{text}"));
            let made = make(begin());
            // Beside a preset with limits of resources, one that is set again stands last.
            assert_eq!(shown(&profile.sandbox().unwrap()), shown(&made), "{call}: {text}");
            assert_eq!(Profile::from_json(&profile.to_json().unwrap()).unwrap(), profile, "{call}");
        }
    }
}

#[test]
fn every_sandbox_goes_to_text_and_back() {
    let differ = |sandbox: Sandbox| sandbox.rlimit(Resource::OpenFiles, 1, 2);
    for begin in [Sandbox::new as fn() -> Sandbox, Sandbox::strict] {
        goes_round(&begin(), "the preset");
        for (call, text, make, _) in ROWS.iter().filter(|(call, ..)| *call != "rlimit") {
            goes_round(&make(begin()), &format!("{call}: {text}"));
        }
        // Every third with every seventh, and all that go together at once.
        for (first, .., one, _) in ROWS.iter().step_by(3).filter(|(call, ..)| *call != "rlimit") {
            for (second, .., other, _) in ROWS.iter().step_by(7).filter(|(call, ..)| *call != "rlimit") {
                // What is shared first, and needed by what comes later, is no namespace to share.
                if !["share", "limits"].contains(second) && *first != "share" {
                    goes_round(&other(one(begin())), &format!("{first}, then {second}"));
                }
            }
        }
    }
    let all = ROWS.iter().filter(|(call, ..)| !["share", "limits", "rlimit"].contains(call));
    goes_round(&all.fold(Sandbox::new(), |sandbox, (.., make, _)| make(sandbox)), "all at once");
    let profile = Profile::try_from(&differ(Sandbox::new())).unwrap();
    assert_eq!(shown(&profile.sandbox().unwrap()), shown(&differ(Sandbox::new())));
}

#[test]
fn what_has_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let null = || std::fs::File::open("/dev/null").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    for (sandbox, call) in [
        (Sandbox::new().fd(3, null()), "fd"),
        (Sandbox::new().stdin(null()), "stdin"),
        (Sandbox::new().join_fd(Namespaces::NET, null()), "join_fd"),
        (Sandbox::new().notify_socket("/run/agent", |_| Vec::new()), "notify_socket"),
        (Sandbox::new().join_process(Namespaces::NET, null()), "join_process"),
        (Sandbox::new().command(odd), "command"),
        (Sandbox::new().env("A", odd), "env"),
        (Sandbox::new().bind(odd, "/b"), "a path"),
        (Sandbox::new().mount(Bind::new("/a", "/b").options(MountOptions::new())), "MountOptions"),
        (Sandbox::new().mount(Bind::new("/a", "/b").id_mapped([], [])), "id maps"),
        (Sandbox::new().mount(RawMount::new("a", "/b", "c").options(MountOptions::new())), "MountOptions"),
        (Sandbox::new().rootfs(RootFs::dir("/r").propagation(Propagation::Shared)), "propagation"),
        (Sandbox::new().fail_at(1, 1), "fail_at"),
        (Sandbox::new().personality(Personality::from_bits_retain(1 << 20)), "personality"),
        (Sandbox::new().cpu_affinity([usize::MAX]), "cpu_affinity"),
        (Sandbox::strict().share(Namespaces::UTS).uts_ns(), "hostname"),
    ] {
        let error = Profile::try_from(&sandbox).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Profile));
        assert!(error.to_string().contains(call), "{call}: {error}");
    }
}
