//! The working directory of the program, where it is to be made.

use std::path::{Component, Path};

use super::paths::clean;
use crate::error::{Problem, Step};
use crate::plan::{Plan, Slot};

/// Returns the problem of a directory that cannot be made inside.
pub(crate) fn invalid_workdir(cwd: Option<&Path>, own_root: bool) -> Option<Problem> {
    let refuse = |reason, remedy| Some(Problem::invalid("make_cwd", reason, remedy));
    match cwd {
        None => refuse("there is no working directory to make", "name it with cwd()"),
        Some(_) if !own_root => {
            refuse("without a root of the sandbox's own, the directory would be made on the host", "add rootfs()")
        }
        Some(cwd) if cwd.components().any(|part| part == Component::ParentDir) => {
            refuse("the working directory contains `..`", "name it without")
        }
        Some(_) => None,
    }
}

/// Makes the missing directories of `cwd` below `root`, as the user of the setup. To be called once
/// all mounts are made, before the root becomes read-only. No link leads out of the root, and none
/// of /proc to what the stub has open.
pub(super) fn emit_workdir(plan: &mut Plan, cwd: &Path, root: Slot) {
    let path = clean(cwd);
    if path.as_os_str().is_empty() || path == Path::new("/") {
        return;
    }
    let place = plan.slot();
    plan.make_directory(root, &path, place)
        .at(cwd)
        .hint("make_cwd() makes directories of the sandbox, whose mount must not be read-only there");
    plan.close(Step::Cwd, place);
}
