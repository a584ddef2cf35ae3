//! The house rules that a compiler does not check: imports run downward only, and `unsafe` stands in three places.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. A module may use those of lower floors, and none of its own floor.
const FLOORS: [&[&str]; 12] = [
    &["fuzz"],
    &["units", "feature", "stub"],
    &["sys", "error"],
    &["plan", "proc"],
    &["namespace", "mount", "cgroup", "security", "network", "stdio", "program"],
    &["owner", "command"],
    &["spawn"],
    &["child"],
    &["sandbox"],
    &["pool", "image"],
    &["registry"],
    &["container", "oci"],
];
const MAY_BE_UNSAFE: [&str; 3] = ["src/sys/", "src/stub/", "src/spawn/clone.rs"];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The text without comments and without the contents of strings.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                code.push('"');
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push('"');
            }
            '\'' => {
                // A character, unless it is a lifetime.
                code.push('\'');
                if rest.next_if_eq(&'\\').is_some() || rest.clone().nth(1) == Some('\'') {
                    rest.next();
                    while rest.next_if(|c| *c != '\'').is_some() {}
                }
            }
            c => code.push(c),
        }
    }
    code
}

/// The names that stand right behind a `crate::`, also within its braces.
fn first_names(after: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
    if !after.starts_with('{') {
        return vec![name(after)];
    }
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), false);
    for (i, c) in after.char_indices() {
        match c {
            '{' => {
                depth += 1;
                at_start = depth == 1;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            c if c.is_whitespace() => {}
            _ if at_start => {
                names.push(name(&after[i..]));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// What `code`, which stands `depth` modules below the crate's root, takes from there.
fn uses(code: &str, depth: usize) -> Vec<String> {
    let mut names: Vec<String> = code
        .match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .flat_map(|(at, text)| first_names(&code[at + text.len()..]))
        .collect();
    // `super::super::…` that arrives at the root; a module within the file stands one deeper.
    let mut inner: Vec<usize> = Vec::new();
    for line in code.lines() {
        let indent = line.len() - line.trim_start().len();
        if inner.last() == Some(&indent) && line.trim_start().starts_with('}') {
            inner.pop();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut from = 0;
        while let Some(at) = line[from..].find("super::").map(|at| at + from) {
            let path = &line[at..];
            let count = path.match_indices("super::").zip((0..).step_by(7)).take_while(|((at, _), i)| at == i).count();
            if count >= depth + inner.len() {
                names.extend(first_names(&path[count * 7..]));
            }
            from = at + count * 7;
        }
        if words.contains(&"mod") && words.last() == Some(&"{") {
            inner.push(indent);
        }
    }
    names
}

/// The names that lib.rs re-exports, with the modules they come from.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in code_of(lib).split(';') {
        let Some((_, path)) = line.split_once("pub use ") else { continue };
        let Some((module, names)) = path.split_once("::") else { continue };
        let names = names.trim_matches(['{', '}', '\n', ' ']);
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let shown = name.split(" as ").last().unwrap_or(name);
            all.insert(shown.rsplit("::").next().unwrap_or(shown).to_owned(), module.trim().to_owned());
        }
    }
    all
}

/// Imports of `module` that do not run downward.
fn upward(module: &str, code: &str, depth: usize, exports: &BTreeMap<String, String>) -> Vec<String> {
    let Some(own) = floor(module) else { return vec![format!("{module} has no floor: give it one in this test")] };
    let mut wrong = Vec::new();
    for name in uses(code, depth) {
        let target = exports.get(&name).unwrap_or(&name);
        let fine = target == module || floor(target).is_some_and(|floor| floor < own);
        if !fine {
            wrong.push(format!("{module} (floor {own}) uses {name} of {target} (floor {:?})", floor(target)));
        }
    }
    wrong
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
    all
}

/// Path below the crate, and text, of every source file.
fn crate_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = sources(&root.join("src"));
    let shown = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    all.iter().map(|path| (shown(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn imports_run_downward_only() {
    let all = crate_sources();
    let lib = &all.iter().find(|(path, _)| path == "src/lib.rs").unwrap().1;
    let exports = exports(lib);
    assert_eq!(exports.get("Sandbox").map(String::as_str), Some("sandbox"), "lib.rs was not understood: {exports:?}");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    // The stub's program is a crate of its own, which has nothing above it.
    for (path, text) in all.iter().filter(|(path, _)| path != "src/lib.rs" && !path.starts_with("src/stub/program/")) {
        let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').skip(1).collect();
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        let code = code_of(text);
        seen += uses(&code, depth).len();
        wrong.extend(upward(parts[0], &code, depth, &exports).into_iter().map(|fault| format!("{path}: {fault}")));
    }
    assert!(seen > 80, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_where_it_may() {
    let is_keyword = |code: &str| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        code.match_indices("unsafe")
            .any(|(at, text)| !code[..at].ends_with(word) && !code[at + text.len()..].starts_with(word))
    };
    assert!(is_keyword("unsafe { x }") && !is_keyword("#![deny(unsafe_code)]"));
    let (mut with, mut wrong) = (0, Vec::new());
    for (path, text) in crate_sources() {
        let code = code_of(&text);
        let allowed = MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place));
        with += usize::from(allowed && is_keyword(&code));
        if !allowed && (is_keyword(&code) || code.contains("allow(unsafe_code)")) {
            wrong.push(path);
        }
    }
    assert!(with >= 3, "the sources were not understood");
    assert!(wrong.is_empty(), "{wrong:?}");
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![deny(unsafe_code)]"));
}

#[test]
fn an_upward_import_is_caught() {
    let exports = exports("pub use child::{Child, Outcome};\npub use sandbox::Sandbox;\npub use units::Bytes;\n");
    let faults = |module, code: &str, depth| upward(module, &code_of(code), depth, &exports).len();
    assert_eq!(faults("spawn", "use crate::plan::Plan;\nuse crate::{sys, error::{Error, Step}};", 2), 0);
    assert_eq!(faults("spawn", "use crate::child::Child;", 2), 1);
    assert_eq!(faults("spawn", "use crate::{\n    plan::{Plan, Op},\n    sandbox,\n    Outcome,\n};", 2), 2);
    assert_eq!(faults("plan", "fn f(_: &crate::Sandbox) {}", 2), 1);
    assert_eq!(faults("plan", "pub(crate) fn f() -> crate::Bytes { todo!() }", 2), 0);
    assert_eq!(faults("mount", "use crate::namespace::Namespaces;", 2), 1, "policies do not know one another");
    assert_eq!(faults("mount", "use crate::*;", 2), 1);
    assert_eq!(faults("mount", "use super::super::spawn;", 2), 1);
    assert_eq!(faults("mount", "use super::spawn;", 2), 0, "a module of mount's own");
    assert_eq!(faults("plan", "mod tests {\n    use super::super::child;\n}\nuse super::child;", 1), 2);
    assert_eq!(faults("plan", "mod tests {\n    use super::child;\n}", 1), 0);
    assert_eq!(faults("plan", "/// See [`x`](crate::Sandbox).\n// crate::child\nfn f() { \"crate::child\"; }", 2), 0);
    assert_eq!(faults("nowhere", "", 1), 1);
}
