//! Further programs in control groups below that of their container: `exec --cgroup`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::exec::fails;
use super::{Bundle, PATIENT, groups};
use crate::common;

/// Makes a group of this name below the container's, in every hierarchy. In that of cpusets, it has all that the
/// container's has.
fn make_below(name: &str) {
    for group in groups() {
        let mut above = group;
        for part in Path::new(name) {
            let below = above.join(part);
            let _ = fs::create_dir(&below);
            for file in ["cpuset.cpus", "cpuset.mems"]
                .iter()
                .filter(|file| !below.join("cgroup.controllers").exists() && above.join(file).exists())
            {
                fs::write(below.join(file), fs::read(above.join(file)).unwrap()).unwrap();
            }
            above = below;
        }
    }
}

/// The directory of the container's group in the v2 hierarchy.
fn v2_group() -> Option<PathBuf> {
    groups().into_iter().find(|group| group.join("cgroup.controllers").exists())
}

/// A limit of huge pages, which are what v2 may count on a hybrid host.
fn limit_of_pages() -> Value {
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if controllers.contains("hugetlb") { json!([{"pageSize": "2MB", "limit": 0}]) } else { json!([]) }
}

/// The groups of a further program, as its own cgroup namespace shows them.
fn groups_of_exec(bundle: &Bundle, options: &[&str]) -> Vec<String> {
    let words = [&["exec"], options, &["box", "cat", "/proc/self/cgroup"]].concat();
    bundle.does(&words).lines().map(str::to_owned).collect()
}

#[test]
fn a_further_program_enters_a_group_below_that_of_its_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    make_below("inner/deep");
    let is_in = |options: &[&str], group: &str| {
        let lines = groups_of_exec(&bundle, options);
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.ends_with(&format!(":{group}"))),
            "{options:?} {lines:?}"
        );
    };
    is_in(&[], "/");
    for top in ["/", "", "."] {
        is_in(&["--cgroup", top], "/");
    }
    // Counted from the container's group on, however it is written.
    for path in ["inner/deep", "/inner/deep", "inner//./deep/"] {
        is_in(&["--cgroup", path], "/inner/deep");
    }
    // The program ends with its container there, too.
    bundle.does(&["exec", "--detach", "--cgroup", "inner", "box", "sleep", "1000"]);
    bundle.does(&["delete", "--force", "box"]);
    assert!(bundle.is_empty() && groups().is_empty(), "{:?}", groups());
}

#[test]
fn no_path_leads_a_further_program_out_of_the_group_of_its_container() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    make_below("inner");
    // The name of a group beside the container's begins as its own does.
    let beside: Vec<PathBuf> = groups().iter().map(|group| group.with_file_name("box-beside")).collect();
    beside.iter().for_each(|group| fs::create_dir(group).unwrap());
    for path in
        ["..", "../box-beside", "inner/..", "./../box", "inner/../inner", "/..", "memory:..", "memory:../box-beside"]
    {
        let said = fails(&bundle, &["exec", "--cgroup", path, "box", "true"]);
        assert!(
            said.contains("bad sub cgroup path") && said.contains(path.trim_start_matches("memory:")),
            "{path}: {said}"
        );
    }
    let long = "a/".repeat(3000);
    assert!(fails(&bundle, &["exec", "--cgroup", &long, "box", "true"]).contains("bad sub cgroup path"));
    for path in ["missing", "inner/missing", &"a".repeat(300), "cgroup.procs"] {
        let said = fails(&bundle, &["exec", "--cgroup", path, "box", "true"]);
        assert!(said.contains(" adding pid ") && said.contains("to cgroups: "), "{path}: {said}");
    }
    assert!(fails(&bundle, &["exec", "--cgroup", "missing", "box", "true"]).contains("No such file or directory"));
    let everywhere = groups().iter().map(|group| group.join("inner/cgroup.procs")).all(|procs| {
        let pids = fs::read_to_string(&procs).unwrap();
        pids.is_empty()
    });
    assert!(
        everywhere && beside.iter().all(|group| fs::read_to_string(group.join("cgroup.procs")).unwrap().is_empty())
    );
    beside.iter().for_each(|group| fs::remove_dir(group).unwrap());
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_group_may_be_named_for_single_controllers() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    for (word, said) in [
        ("whaaat:/", "unknown controller whaaat"),
        (":inner", "the name of the controller is empty"),
        ("memory,:inner", "the name of the controller is empty"),
    ] {
        let error = fails(&bundle, &["exec", "--cgroup", word, "box", "true"]);
        assert!(error.contains(said), "{word}: {error}");
    }
    let two = |one, other| fails(&bundle, &["exec", "--cgroup", one, "--cgroup", other, "box", "true"]);
    assert!(two("inner", "memory:inner").contains("the prefix with the controller is missing"));
    assert!(two("memory:inner", "pids,memory:inner").contains("controller memory is there more than once"));
    if !common::is_v2() {
        make_below("inner");
        let pids =
            |lines: &[String], name: &str| lines.iter().find(|line| line.contains(&format!(":{name}:"))).cloned();
        let lines = groups_of_exec(&bundle, &["--cgroup", "memory:inner", "--cgroup", "freezer,pids:/inner"]);
        for name in ["memory", "freezer", "pids"] {
            assert!(pids(&lines, name).is_some_and(|line| line.ends_with(":/inner")), "{name} {lines:?}");
        }
        let others = lines.iter().filter(|line| line.ends_with(":/")).count();
        assert_eq!(others, lines.len() - 3, "{lines:?}");
        let error = fails(&bundle, &["exec", "--cgroup", "memory:missing", "box", "true"]);
        assert!(error.contains(" adding pid ") && error.contains("No such file or directory"), "{error}");
    } else {
        let error = fails(&bundle, &["exec", "--cgroup", "memory:/", "box", "true"]);
        assert!(error.contains("unknown controller memory"), "{error}");
    }
    bundle.does(&["delete", "--force", "box"]);
}

#[test]
fn a_frozen_group_takes_no_further_program() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let bundle = Bundle::new(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    make_below("inner");
    let write = |file: &str, text: &str| {
        let files = groups().into_iter().map(|group| group.join("inner").join(file));
        files.filter(|path| path.exists()).for_each(|path| fs::write(path, text).unwrap());
    };
    write("cgroup.freeze", "1");
    write("freezer.state", "FROZEN");
    let said = fails(&bundle, &["exec", "--cgroup", "inner", "box", "true"]);
    assert!(said.contains("frozen"), "{said}");
    bundle.does(&["exec", "box", "true"]);
    write("cgroup.freeze", "0");
    write("freezer.state", "THAWED");
    bundle.does(&["exec", "--cgroup", "inner", "box", "true"]);
    bundle.does(&["delete", "--force", "box"]);
}

/// A v2 group that passes controllers on takes no process any more: cgroups(7), "no internal processes".
#[test]
fn a_further_program_follows_the_first_one_where_the_group_passes_controllers_on() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    if common::needs_root("a named control group") {
        return;
    }
    let mut bundle = Bundle::new(PATIENT);
    // A group has a controller only where somebody limits by it.
    bundle.config["linux"]["resources"]["hugepageLimits"] = limit_of_pages();
    bundle.does(&["run", "--detach", "box"]);
    let above = v2_group().and_then(|group| group.parent().map(Path::to_owned)).unwrap_or_default();
    let controllers = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
    let Some(controller) = controllers.split_whitespace().next() else {
        return common::skip("v2 groups have no controllers here", false);
    };
    fs::write(above.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    make_below("inner/deep");
    make_below("second");
    let group = v2_group().unwrap();
    let move_first =
        |to: &str| fs::write(group.join(to).join("cgroup.procs"), bundle.state()["pid"].to_string()).unwrap();
    let v2_of = |options: &[&str]| {
        let lines = groups_of_exec(&bundle, options);
        lines.into_iter().find(|line| line.starts_with("0::")).unwrap_or_default()
    };
    move_first("inner/deep");
    assert_eq!(v2_of(&[]), "0::/");
    // What sleeps in the program's loop may still be in the group itself.
    let enable = || fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).is_ok();
    common::eventually("the group has no process", enable);
    assert_eq!(v2_of(&[]), "0::/inner/deep");
    // Nothing else is taken for a group that was asked for.
    let said = fails(&bundle, &["exec", "--cgroup", "/", "box", "true"]);
    assert!(
        said.contains(" adding pid ") && said.contains("to cgroups") && said.contains("evice or resource busy"),
        "{said}"
    );
    assert_eq!(v2_of(&["--cgroup", "second"]), "0::/second");
    move_first("second");
    assert_eq!(v2_of(&[]), "0::/second");
    bundle.does(&["delete", "--force", "box"]);
    assert!(groups().is_empty() && Path::new(&group).parent().is_some_and(|above| !above.join("box").exists()));
}

#[test]
fn without_a_control_group_there_is_none_below() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::of_an_ordinary_user(PATIENT);
    bundle.does(&["run", "--detach", "box"]);
    let said = fails(&bundle, &["exec", "--cgroup", "inner", "box", "true"]);
    assert!(said.contains("the sandbox has no control group"), "{said}");
    bundle.does(&["exec", "--cgroup", "/", "box", "true"]);
    bundle.does(&["delete", "--force", "box"]);
}
