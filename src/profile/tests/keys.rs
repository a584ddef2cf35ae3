//! Every call has its key, and the schema has the same keys.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::rows::{ROWS, WITHOUT_KEY};
use super::*;

/// The calls that the builder's sources have: those that take the builder and give it back.
fn builder_calls() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> =
        std::fs::read_dir(root.join("sandbox")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("image/run.rs"));
    let mut calls = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for call in text.split("    pub fn ").skip(1) {
            // A long head stands on several lines.
            let head = call.split('{').next().unwrap().replace("(\n        ", "(");
            let takes_builder = ["(mut self", "(self"].iter().any(|form| head.contains(form));
            if takes_builder && (head.contains("-> Self") || head.contains("Result<Sandbox>")) {
                calls.insert(head.split(['(', '<']).next().unwrap().to_owned());
            }
        }
    }
    calls
}

#[test]
fn every_call_of_the_builder_has_its_key() {
    let calls = builder_calls();
    assert!(calls.len() > 90, "only {} calls were found", calls.len());
    let mut known: BTreeSet<String> = ROWS.iter().map(|(call, ..)| (*call).to_owned()).collect();
    known.extend(WITHOUT_KEY.iter().map(|(call, reason)| {
        assert!(!reason.is_empty());
        (*call).to_owned()
    }));
    if cfg!(not(feature = "systemd")) {
        known.insert("systemd_scope".to_owned());
    }
    let without: Vec<_> = calls.difference(&known).collect();
    assert!(without.is_empty(), "no key, and no reason for that: {without:?}");
    let gone: Vec<_> = known.difference(&calls).collect();
    assert!(gone.is_empty(), "no such calls any more: {gone:?}");
    // And no key without a call.
    let mut used: BTreeSet<String> = ["version".to_owned(), "preset".to_owned()].into();
    used.extend(ROWS.iter().map(|(_, text, ..)| text.split(" =").next().unwrap().to_owned()));
    used.insert("systemd_scope".to_owned());
    assert_eq!(keys_of("", ""), used);
}

/// The keys that a table may have, as the reader itself names them for one that it may not.
fn keys_of(before: &str, after: &str) -> BTreeSet<String> {
    let json = format!("{{\"version\":1{before}{{\"?\":0{after}");
    let json = if before.is_empty() { "{\"?\":0}".to_owned() } else { json };
    let error = serde_json::from_str::<File>(&json).unwrap_err().to_string();
    let list = error.split_once("expected ").unwrap_or_else(|| panic!("{json}: {error}")).1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_same_keys_and_takes_the_same_texts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/profile.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let keys = |name: &str| {
        let table = if name.is_empty() { &schema } else { &schema["$defs"][name] };
        assert_eq!(table["additionalProperties"], Value::Bool(false), "{name}");
        table["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>()
    };
    assert_eq!(keys(""), keys_of("", ""));
    let tables = [
        ("limits", ",\"limits\":", "}}"),
        ("resources", ",\"resources\":", "}}"),
        ("device_weight", ",\"resources\":{\"device_weight\":[", "}]}}"),
        ("rdma", ",\"resources\":{\"rdma\":{\"a\":", "}}}}"),
        ("scheduler", ",\"scheduler\":", "}}"),
        ("io_priority", ",\"io_priority\":", "}}"),
        ("memory_policy", ",\"memory_policy\":", "}}"),
        ("ids", ",\"user\":", "}}"),
        ("join", ",\"join_pid\":[", "}]}"),
        ("join_path", ",\"join_path\":[", "}]}"),
        ("huge_pages", ",\"hugetlb_limit\":[", "}]}"),
        ("soft_hard", ",\"rlimit\":{\"core\":", "}}}"),
        ("scope", ",\"systemd_scope\":", "}}"),
        ("io", ",\"io_limit\":[", "}]}"),
        ("stream", ",\"stdin\":", "}}"),
        ("terminal_size", ",\"stdin\":{\"pty\":", "}}}"),
        ("root", ",\"rootfs\":", "}}"),
        ("upper", ",\"rootfs\":{\"upper\":", "}}}"),
        ("disk", ",\"rootfs\":{\"disk_limit\":", "}}}"),
        ("mount", ",\"mount\":[", "}]}"),
        ("bind", ",\"mount\":[{\"bind\":", "}}]}"),
        ("tmpfs", ",\"mount\":[{\"tmpfs\":", "}}]}"),
        ("file", ",\"mount\":[{\"file\":", "}}]}"),
        ("symlink", ",\"mount\":[{\"symlink\":", "}}]}"),
        ("proc", ",\"mount\":[{\"proc\":", "}}]}"),
        ("dev", ",\"mount\":[{\"dev\":", "}}]}"),
        ("cgroupfs", ",\"mount\":[{\"cgroupfs\":", "}}]}"),
        ("overlay", ",\"mount\":[{\"overlay\":", "}}]}"),
        ("device_node", ",\"mount\":[{\"device_node\":", "}}]}"),
        ("raw", ",\"mount\":[{\"raw\":", "}}]}"),
        ("capability_sets", ",\"capabilities\":", "}}"),
        ("filter", ",\"seccomp\":", "}}"),
        ("filter_rule", ",\"seccomp\":{\"base\":\"default\",\"rule\":[", "}]}}"),
        ("filter_arg", ",\"seccomp\":{\"base\":\"default\",\"rule\":[{\"args\":[", "}]}]}}"),
        ("masked", ",\"seccomp\":{\"base\":\"default\",\"rule\":[{\"args\":[{\"masked_eq\":", "}}]}]}}"),
        ("landlock", ",\"landlock\":", "}}"),
    ];
    for (name, before, after) in tables {
        assert_eq!(keys(name), keys_of(before, after), "{name}");
    }
    let of_schema: BTreeSet<&String> = schema["$defs"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, table)| table.get("properties").is_some())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(of_schema.len(), tables.len(), "{of_schema:?}");
    for (call, text, ..) in ROWS {
        let profile = Profile::from_toml(&toml_of("new", text)).unwrap();
        let json: Value = serde_json::from_str(&profile.to_json().unwrap()).unwrap();
        fits(&schema, &schema, &json).unwrap_or_else(|why| panic!("{call}: {why}"));
        let read: Value = toml::from_str(&toml_of("new", text)).unwrap();
        fits(&schema, &schema, &read).unwrap_or_else(|why| panic!("{call}: {why}"));
    }
    let wrong = serde_json::json!({"version": 1, "mount": [{"tmpfs": {"target": 5}}]});
    assert!(fits(&schema, &schema, &wrong).is_err());
}

/// Checks a value by the parts of JSON schema that the schema uses.
fn fits(schema: &Value, rule: &Value, value: &Value) -> std::result::Result<(), String> {
    let wrong = |what: &str| Err(format!("{value} is no {what}, which {rule} wants"));
    for (key, what) in rule.as_object().unwrap() {
        match (key.as_str(), what) {
            ("$ref", Value::String(path)) => {
                fits(schema, &schema["$defs"][path.strip_prefix("#/$defs/").unwrap()], value)?;
            }
            ("anyOf", Value::Array(rules)) if !rules.iter().any(|rule| fits(schema, rule, value).is_ok()) => {
                return wrong("fit");
            }
            ("const", what) if value != what => return wrong("constant"),
            ("enum", Value::Array(words)) if !words.contains(value) => return wrong("word"),
            ("type", Value::String(kind)) => {
                let is = match kind.as_str() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    other => panic!("a type {other}"),
                };
                if !is {
                    return wrong(kind);
                }
            }
            ("items", rule) => value.as_array().into_iter().flatten().try_for_each(|item| fits(schema, rule, item))?,
            ("required", Value::Array(names)) => {
                if let Some(name) = names.iter().find(|name| value.get(name.as_str().unwrap()).is_none()) {
                    return wrong(&format!("table with {name}"));
                }
            }
            ("properties", Value::Object(rules)) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match (rules.get(name), rule.get("additionalProperties")) {
                        (Some(rule), _) => fits(schema, rule, value)?,
                        (None, Some(Value::Bool(false))) => return wrong(&format!("table without {name}")),
                        _ => {}
                    }
                }
            }
            ("additionalProperties", rule @ Value::Object(_)) => {
                value.as_object().into_iter().flatten().try_for_each(|(_, value)| fits(schema, rule, value))?;
            }
            ("propertyNames", rule) => {
                let names = value.as_object().into_iter().flatten().map(|(name, _)| Value::String(name.clone()));
                names.into_iter().try_for_each(|name| fits(schema, rule, &name))?;
            }
            _ => {}
        }
    }
    Ok(())
}
