//! The house rules that a compiler does not check: imports run downward only and never in a circle, and `unsafe` stands
//! in three places.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. A module may use those of lower floors, and none of its own floor.
const FLOORS: [&[&str]; 15] = [
    &["fuzz"],
    &["units", "idmap", "feature", "stub", "text"],
    &["sys", "error"],
    &["plan", "proc", "collect", "changes", "foreign_root"],
    &["namespace", "mount", "cgroup", "security", "network", "stdio", "program", "passwd"],
    &["owner", "command"],
    &["spawn"],
    &["child"],
    &["policy"],
    &["judge"],
    &["launch"],
    &["sandbox", "attach"],
    &["pool", "image", "profile", "durable"],
    &["registry", "asynchronous"],
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
        // The modules by topic show what stands in the root.
        if module.trim() == "crate" {
            continue;
        }
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

/// Every path that a `use` brings in, as its words: with braces expanded and without new names; and whether it is brought in
/// for others.
fn imports(code: &str) -> Vec<(Vec<String>, bool)> {
    fn expand(tree: &str, before: &[String], all: &mut Vec<Vec<String>>) {
        let Some(open) = tree.find('{') else {
            let path = tree.split(" as ").next().unwrap_or(tree);
            let words = path.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty());
            return all.push(before.iter().cloned().chain(words).collect());
        };
        let head = tree[..open].split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty());
        let before: Vec<String> = before.iter().cloned().chain(head).collect();
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut start) = (0, 0);
        for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inner[start..i].trim().is_empty() {
                        expand(&inner[start..i], &before, all);
                    }
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    for statement in code.split(';') {
        let lines: Vec<&str> = statement.lines().map(str::trim).collect();
        let begin = lines.iter().rposition(|line| {
            let line = line.strip_prefix("pub").map_or(*line, |rest| rest.rsplit(") ").next().unwrap_or(rest).trim());
            line.starts_with("use ")
        });
        let Some(begin) = begin else { continue };
        let text = lines[begin..].join(" ");
        let Some((visible, tree)) = text.split_once("use ") else { continue };
        let mut paths = Vec::new();
        expand(tree, &[], &mut paths);
        all.extend(paths.into_iter().map(|path| (path, !visible.trim().is_empty())));
    }
    all
}

/// The sources by the modules that they are, and what each brings in.
struct Modules {
    imports: BTreeMap<Vec<String>, Vec<(Vec<String>, bool)>>,
}

impl Modules {
    fn of(sources: &[(String, String)]) -> Self {
        let mut all = BTreeMap::new();
        for (path, text) in sources {
            let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').skip(1).map(str::to_owned).collect();
            module.retain(|word| word != "mod" && word != "lib");
            // What only tests need may go any way.
            let code = code_of(text);
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or(&code);
            all.insert(module, imports(code));
        }
        Modules { imports: all }
    }

    /// The module whose file has what `path` names for `module`, through what other files pass on.
    fn home(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let mut rest = path.iter();
        let mut at = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            child => {
                let mut at = module.to_vec();
                at.push(child.to_owned());
                self.imports.contains_key(&at).then_some(())?;
                at
            }
        };
        rest.next();
        for word in rest {
            if word == "super" {
                at.pop();
                continue;
            }
            let mut below = at.clone();
            below.push(word.clone());
            if self.imports.contains_key(&below) {
                at = below;
                continue;
            }
            let passed = self.imports[&at].iter().find(|(path, _)| path.last() == Some(word) && path.len() > 1);
            return match passed {
                Some((path, _)) if depth < 8 => self.home(&at, path, depth + 1).or(Some(at)),
                _ => Some(at),
            };
        }
        Some(at)
    }

    /// The files that each file needs. What a file passes on, it does not need.
    fn needs(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let mut needs = BTreeMap::new();
        for (module, paths) in &self.imports {
            let homes = paths.iter().filter(|(_, passes_on)| !passes_on);
            let homes = homes.filter_map(|(path, _)| self.home(module, path, 0)).filter(|home| home != module);
            needs.insert(module.clone(), homes.collect());
        }
        needs
    }
}

/// The arrows between files from whose end another way leads back to their beginning.
fn circles(needs: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<String> {
    let leads = |from: &Vec<String>, to: &Vec<String>| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(needs.get(at).into_iter().flatten());
            }
        }
        seen.contains(to)
    };
    let arrows = needs.iter().flat_map(|(from, below)| below.iter().map(move |to| (from, to)));
    let show = |module: &[String]| module.join("::");
    arrows.filter(|(from, to)| leads(to, from)).map(|(from, to)| format!("{} -> {}", show(from), show(to))).collect()
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let all: Vec<_> = crate_sources().into_iter().filter(|(path, _)| !path.starts_with("src/stub/program/")).collect();
    let needs = Modules::of(&all).needs();
    let arrows: usize = needs.values().map(BTreeSet::len).sum();
    assert!(arrows > 500, "only {arrows} imports were understood");
    let found = circles(&needs);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_of_files_is_caught() {
    let found = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| (format!("src/{path}"), (*text).to_owned())).collect();
        circles(&Modules::of(&files).needs()).len()
    };
    let passes_on = ("a/mod.rs", "mod b;\nmod c;\npub(crate) use b::B;\nuse crate::x::{self, X};");
    let x = ("x.rs", "use std::fs;");
    assert_eq!(found(&[passes_on, x, ("a/b.rs", "use super::c::C;"), ("a/c.rs", "use crate::x::X;")]), 0);
    assert_eq!(found(&[passes_on, x, ("a/b.rs", "use super::c::{D, C};"), ("a/c.rs", "use super::b;")]), 2);
    assert_eq!(found(&[passes_on, x, ("a/b.rs", "use super::c::C;"), ("a/c.rs", "use super::B;")]), 2);
    let through_lib = [("lib.rs", "mod a;\npub use a::B;"), passes_on, ("a/b.rs", "use crate::x::X;"), ("a/c.rs", "")];
    assert_eq!(found(&[&through_lib[..], &[("x.rs", "use crate::B;")]].concat()), 2);
    let in_tests = "#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}";
    assert_eq!(found(&[passes_on, x, ("a/b.rs", "use super::c::C;"), ("a/c.rs", in_tests)]), 0);
}

/// The text between the braces of the function `name`.
fn body_of<'t>(code: &'t str, name: &str) -> Option<&'t str> {
    let start = [format!("fn {name}("), format!("fn {name}<")].iter().find_map(|head| code.find(head.as_str()))?;
    let open = start + code[start..].find('{')?;
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&code[open..=open + i]);
        }
    }
    None
}

/// The frames that docs/architecture.md lists: functions with their files and floors. A row in between without a function
/// parts two threads.
fn frames(text: &str) -> Vec<Vec<(String, String, usize)>> {
    let table = text.split("### The frames on the way to the clone").nth(1).unwrap();
    let mut threads = vec![Vec::new()];
    for row in
        table.lines().skip_while(|line| !line.starts_with("| ---")).skip(1).take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        match cells[2].split('`').nth(1) {
            Some(function) => {
                let name = function.rsplit("::").next().unwrap().to_owned();
                threads.last_mut().unwrap().push((
                    name,
                    cells[3].trim_matches('`').to_owned(),
                    cells[4].parse().unwrap(),
                ));
            }
            None => threads.push(Vec::new()),
        }
    }
    threads
}

#[test]
fn the_way_to_the_clone_is_as_the_documentation_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let threads = frames(&fs::read_to_string(root.join("docs/architecture.md")).unwrap());
    assert_eq!(threads.len(), 2);
    assert!(threads.iter().map(Vec::len).sum::<usize>() - 1 <= 12, "more than a dozen frames");
    for (name, file, level) in threads.iter().flatten() {
        let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap();
        assert_eq!(floor(module), Some(*level), "{name} of {file}");
    }
    for pair in threads.iter().flat_map(|thread| thread.windows(2)) {
        let [(caller, file, from), (called, _, to)] = pair else { unreachable!() };
        assert!(from >= to, "{caller} calls upward");
        let code = code_of(&fs::read_to_string(root.join(file)).unwrap());
        let body = body_of(&code, caller).unwrap_or_else(|| panic!("{file} has no {caller}"));
        assert!(body.contains(&format!("{called}(")), "{caller} of {file} does not call {called}");
    }
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
