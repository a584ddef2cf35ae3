//! Profiles from somebody who is not trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rows::{CHOWN, May, ROWS};
use super::*;
use crate::cgroup::Limits;
use crate::feature::Feature;
use crate::namespace::Namespaces;

/// The keys that an error refuses.
fn refused(text: &str, allow: &Allow) -> Vec<String> {
    let Err(error) = Profile::untrusted(text, allow) else { return Vec::new() };
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let problems = error.problems().iter().map(|problem| problem.subject.clone()).collect::<Vec<_>>();
    assert!(!problems.is_empty(), "{text}: {error}");
    problems
}

#[test]
fn an_untrusted_profile_takes_nothing_of_the_host() {
    let nothing = Allow::nothing();
    let mut sorted: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for (call, text, _, may) in ROWS {
        let key = text.split(" =").next().unwrap();
        let keys = refused(&toml_of("strict", text), &nothing);
        assert_eq!(keys.is_empty(), *may == May, "{call}: {text}: {keys:?}");
        // The time and its grace are one limit.
        let key_of = if key == "wall_time_grace" { "wall_time" } else { key };
        assert!(keys.iter().all(|refused| refused == key_of), "{call}: {keys:?}");
        sorted.entry(key).or_default().insert(*may == May);
    }
    let scope = toml_of("strict", "systemd_scope = {}");
    assert_eq!(refused(&scope, &nothing), ["systemd_scope"]);
    assert_eq!(refused("version = 1", &nothing), ["preset"]);
    assert_eq!(refused(&toml_of("new", ""), &nothing), ["preset"]);
    assert!(sorted.len() > 70, "{}", sorted.len());
}

#[test]
fn an_untrusted_profile_that_says_nothing_is_strict() {
    let profile = Profile::untrusted(&toml_of("strict", ""), &Allow::nothing()).unwrap();
    assert_eq!(shown(&profile.sandbox().unwrap()), shown(&Sandbox::strict()));
}

#[test]
fn limits_that_are_not_named_are_no_more_than_what_is_allowed() {
    let second = Duration::from_secs(1);
    let allow = Allow::nothing().memory(Bytes::mib(8)).processes(4).wall_time(second).output(Bytes::kib(1));
    let sandbox = |text: &str| Profile::untrusted(&toml_of("strict", text), &allow).map(|p| p.sandbox().unwrap());
    let made = sandbox("").unwrap();
    assert_eq!(made.get_limits(), &Limits::new().memory(Bytes::mib(8)).pids(4));
    assert_eq!((made.get_wall_time(), made.get_output_limit()), (Some(second), Some(Bytes::kib(1))));
    let made = sandbox("wall_time_grace = '0.4s'").unwrap();
    assert_eq!(made.get_wall_time(), Some(Duration::from_millis(600)));
    for text in [
        "memory_limit = '9 MiB'",
        "pids_limit = 5",
        "wall_time = '0.7s'\nwall_time_grace = '0.4s'",
        "output_limit = '2 KiB'",
        "mount = [{ tmpfs = { target = '/t', size = '9 MiB' } }]",
        "mount = [{ dev = { target = '/dev', shm_size = '9 MiB' } }]",
    ] {
        assert!(sandbox(text).is_err(), "{text}");
    }
    let many = format!("mask = [{}]", "'/a',".repeat(257));
    assert!(sandbox(&many).is_err());
}

#[test]
fn an_untrusted_profile_takes_what_the_caller_allows_and_nothing_beside() {
    let allow = Allow::nothing()
        .read("/srv/data")
        .write("/srv/work")
        .share(Namespaces::NET)
        .capabilities([CHOWN])
        .best_effort(Feature::MemoryLimit)
        .user(1, 2);
    let bind = |call: &str, source: &str| format!("mount = [{{ {call} = {{ source = '{source}', target = '/x' }} }}]");
    for text in [
        bind("bind_ro", "/srv/data"),
        bind("bind_ro", "/srv/data/"),
        bind("bind_ro_try", "/srv/work"),
        bind("bind", "/srv/work"),
        "rootfs = { dir = '/srv/data', read_only = true }".to_owned(),
        "rootfs = { overlay = ['/srv/data'] }".to_owned(),
        "rootfs = '/srv/work'".to_owned(),
        "share = ['net']".to_owned(),
        "capabilities = ['CAP_CHOWN']".to_owned(),
        "capabilities = { ambient = ['CAP_CHOWN'] }".to_owned(),
        "best_effort = ['memory_limit']".to_owned(),
        "user = { uid = 1, gid = 2 }\ngroups = [2]".to_owned(),
    ] {
        assert_eq!(refused(&toml_of("strict", &text), &allow), Vec::<String>::new(), "{text}");
    }
    for text in [
        bind("bind", "/srv/data"),
        bind("bind_ro", "/srv"),
        "mount = [{ bind = { source = '/srv/work', target = '/x', disk_limit = '1 GiB' } }]".to_owned(),
        bind("bind_ro", "/srv/data/below"),
        bind("bind_ro", "/srv/work/.."),
        bind("bind_ro", "/srv/data/../data"),
        bind("bind_ro", "srv/data"),
        bind("bind_ro", ""),
        "rootfs = '/srv/data'".to_owned(),
        "rootfs = { overlay = ['/srv/data'], scratch = true }".to_owned(),
        "rootfs = { overlay = ['/srv/data'], upper = { upper = '/srv/work', work = '/srv/other' } }".to_owned(),
        "rootfs = { base = 'host' }".to_owned(),
        "share = ['net', 'pid']".to_owned(),
        "capabilities = ['CAP_CHOWN', 'CAP_SYS_ADMIN']".to_owned(),
        "capabilities = { keep = ['CAP_CHOWN'], bounding = ['CAP_SYS_ADMIN'] }".to_owned(),
        "capabilities = { securebits = ['noroot'] }".to_owned(),
        "best_effort = ['memory_limit', 'pids_limit']".to_owned(),
        "user = { uid = 0, gid = 0 }".to_owned(),
        "groups = [2, 0]".to_owned(),
        "io_limit = [{ path = '/srv/data', read_bps = 1 }]".to_owned(),
    ] {
        assert_eq!(refused(&toml_of("strict", &text), &allow).len(), 1, "{text}");
    }
    // A relative path that the caller names means nothing either.
    let relative = Allow::nothing().read("data");
    assert!(!refused(&toml_of("strict", &bind("bind_ro", "data")), &relative).is_empty());
    let long = toml_of("strict", &format!("#{}", "x".repeat(65 << 10)));
    assert!(Profile::untrusted(&long, &allow).unwrap_err().to_string().contains("at most 64.0 KiB"));
    assert!(Profile::from_toml(&long).is_ok());
    assert!(Profile::untrusted_json("{\"version\":1,\"preset\":\"strict\",\"init\":false}", &allow).is_err());
}
