//! Texts that are refused, hostile ones among them, and the forms of values.

use std::time::Duration;

use super::rows::HALF;
use super::*;

#[test]
fn a_wrong_text_is_refused_with_its_line() {
    let lines = [
        ("version = 1\n\nmemory = '1M'", Some(3), "unknown field `memory`"),
        ("version = 1\nmemory_limit = '1 lot'", Some(2), "1 lot"),
        ("version = 1\nmemory_limit = -1", Some(2), "-1"),
        ("version = 1\nwall_time = 5", Some(2), "a time with its unit"),
        ("version = 1\n[[mount]]\nbind = { source = '/a', target = '/b',\n rw = true }", Some(4), "unknown field `rw`"),
        ("version = 1\n[[mount]]\nbind = { source = '/a' }", Some(3), "missing field `target`"),
        ("version = 1\n[[mount]]\nnfs = '/a'", Some(3), "unknown variant `nfs`"),
        ("version = 1\nargs = ['a']\nargs = []", Some(3), "duplicate key"),
        ("version = 1\n[rootfs]\ndir = '/a'\nsuper = true", Some(4), "unknown field `super`"),
        ("version = 1\ncapabilities = ['CAP_ALL']", Some(2), "CAP_ALL"),
        ("version = 1\n[rlimit]\nopen_file = 5", Some(3), "open_file"),
        ("version = 1\nargs = [", Some(2), ""),
        ("version = 2", None, "version 2"),
        ("", None, "missing field `version`"),
        ("version = 1\ncpu_limit = nan", None, "finite"),
    ];
    for (text, line, what) in lines {
        let error = Profile::from_toml(text).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::Profile), "{text}");
        let said = error.to_string();
        assert!(said.contains(what), "{text}: {said}");
        if let Some(line) = line {
            assert!(said.contains(&format!("line {line}: ")), "{text}: {said}");
        }
    }
    for (text, what) in [
        ("{\n\"version\": 1,\n\"memory\": 1}", "line 3: unknown field `memory`"),
        ("{\"version\": 1, \"env\": {\"A\": \"1\", \"A\": \"2\"}}", "the same key twice"),
        ("{\"version\": 1, \"init\": true, \"init\": false}", "duplicate field `init`"),
        ("{\"version\": 1} 2", "trailing characters"),
    ] {
        let said = Profile::from_json(text).unwrap_err().to_string();
        assert!(said.contains(what), "{text}: {said}");
    }
    let contradictions = [
        "rootfs = { dir = '/a', base = 'host' }",
        "rootfs = { overlay = ['/a'], scratch = true, tmpfs = '1 MiB' }",
        "mount = [{ overlay = { target = '/o', lowers = ['/l'], upper = { upper = '/u', work = '/w' }, tmpfs = 1 } }]",
        "stdin = { bytes = 'a', hex = '00' }",
        "stdin = 'nul'",
        "seccomp = 'off'",
        "seccomp = { base = 'default', rule = [{ calls = ['read'], action = 'allow', args = [{ index = 0, eq = 1, ne = 2 }] }] }",
        "capabilities = { keep = [], all_but = [] }",
        "io_limit = [{ read_bps = 1 }]",
        "mount = [{ file = { target = '/f', text = 'a', hex = '00' } }]",
        "mount = [{ device_node = { target = '/d', kind = 'block', major = 8 } }]",
        "mount = [{ device_node = { target = '/d', kind = 'fifo', major = 8, minor = 0 } }]",
        "scheduler = { policy = 'idle', nice = 1 }",
        "scheduler = { policy = 'fifo' }",
        "scheduler = { policy = 'deadline', runtime = '1ms', period = '1s' }",
        "io_priority = { class = 'idle', level = 1 }",
        "io_priority = { class = 'realtime' }",
        "memory_policy = { mode = 'local', nodes = [0] }",
        "memory_policy = { mode = 'preferred', nodes = [0, 1] }",
        "memory_policy = { mode = 'bind' }",
    ];
    for text in contradictions {
        let profile = Profile::from_toml(&toml_of("new", text)).unwrap();
        assert_eq!(profile.sandbox().unwrap_err().kind(), ErrorKind::Invalid, "{text}");
    }
}

#[test]
fn hostile_texts_are_survived() {
    let deep = format!("version = 1\nargs = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let tables = format!("version = 1\na{} = 1", ".a".repeat(100_000));
    let brackets = format!("{{\"version\":1,\"args\":{}", "[".repeat(500_000));
    let name = format!("version = 1\n\"{}\\u001b[2J\" = 1", "x".repeat(500_000));
    for text in [&deep, &tables, &brackets, &name] {
        for said in
            [Profile::from_toml(text).unwrap_err(), Profile::from_json(text).unwrap_err()].map(|e| e.to_string())
        {
            assert!(said.len() < 2000 && !said.contains('\u{1b}'), "{}", said.len());
        }
    }
    let long = format!("version = 1\n#{}", "x".repeat(2 << 20));
    assert!(Profile::from_toml(&long).unwrap_err().to_string().contains("at most 1.0 MiB"));
    let begin = [toml_of("strict", "seccomp = { base = 'default', rule = [{ calls = ['read'], action = 'EPERM' }] }")];
    let begin: Vec<&str> =
        begin.iter().map(String::as_str).chain(["{\"version\":1,\"mount\":[{\"dir\":\"/a\"}]}"]).collect();
    crate::fuzz::texts(&begin, |text| {
        let _ = Profile::from_toml(text).and_then(|profile| profile.sandbox());
        let _ = Profile::from_json(text).and_then(|profile| profile.sandbox());
    });
}

#[test]
fn times_and_sizes_are_exact() {
    use crate::profile::text::Form;
    for (text, nanos) in
        [("1ns", 1), ("1.5us", 1500), ("0.25 ms", 250_000), ("90m", 5_400_000_000_000), ("1d", 86_400_000_000_000)]
    {
        assert_eq!(Duration::read(text), Some(Duration::from_nanos(nanos)), "{text}");
    }
    for text in [
        "",
        "s",
        "5",
        "-1s",
        "1.s",
        ".5s",
        "1.0.0s",
        "0.5ns",
        "1e3s",
        "99999999999999999999s",
        "999999999999999999d",
        "1 fortnight",
        "1.0000000000000000000s",
    ] {
        assert_eq!(Duration::read(text), None, "{text}");
    }
    for time in [Duration::ZERO, Duration::MAX, Duration::new(1, 1), HALF] {
        assert_eq!(Duration::read(&time.write()), Some(time));
    }
    for size in [0, 1, 1023, 1024, (1 << 20) + 1, 5 << 40, u64::MAX].map(Bytes::new) {
        assert_eq!(Bytes::read(&size.write()), Some(size));
    }
}
