//! The words by which engines know an error.

use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Step};
use crate::feature::Feature;
use crate::spawn::NO_INTERPRETER;

/// Adds the words by which engines, and those who read what runc says, know an error.
pub(super) fn in_words_of_engines(error: Error, program: &str) -> Error {
    let is_missing = error.kind() == ErrorKind::Exec && error.raw_os_error() == Some(libc::ENOENT);
    let is_found = error.remedy() == Some(NO_INTERPRETER);
    if is_missing && !program.contains('/') && !is_found {
        return error.detail(format!("{program:?}: executable file not found in $PATH"));
    }
    if error.kind() == ErrorKind::Exec
        && let Some(errno) = error.raw_os_error()
    {
        return error.detail(format!("exec {program}: {}", words_of(errno)));
    }
    if error.problems().iter().any(|problem| problem.feature == Some(Feature::Unified)) {
        let words = "invalid configuration: cannot use unified on cgroup v1";
        let mut problems = error.problems().to_vec();
        for problem in problems.iter_mut().filter(|problem| problem.feature == Some(Feature::Unified)) {
            problem.reason += &format!(" ({words})");
        }
        return Error::refused(problems);
    }
    if error.step() == Step::MountTarget && error.raw_os_error() == Some(libc::ELOOP) {
        return error.detail("it must be mounted on ordinary directory");
    }
    if error.step() == Step::MountAttr
        && let (Some(errno), Some(path)) = (error.raw_os_error(), error.path())
    {
        let words = format!("error mounting {path:?} to rootfs: {}", words_of(errno));
        return error.detail(words);
    }
    if error.step() == Step::HandListenerOver {
        return error.detail("failed to connect with seccomp agent");
    }
    if error.step() == Step::JoinCgroup && error.raw_os_error().is_some() {
        let errno = error.raw_os_error().map_or("", |errno| Errno::from_raw(errno).desc());
        return error.detail(format!("error adding pid of the program to cgroups: {errno}"));
    }
    if error.step() == Step::CreateCgroup && error.raw_os_error() == Some(libc::EBUSY) {
        let text = error.to_string();
        let known = [
            ("processes run in it", "container's cgroup is not empty"),
            ("it is frozen", "container's cgroup unexpectedly frozen"),
        ];
        if let Some((_, words)) = known.into_iter().find(|(own, _)| text.contains(own)) {
            return error.detail(words);
        }
    }
    error
}

/// Returns what an errno means, in small letters, as runtimes that are written in Go say it.
fn words_of(errno: i32) -> String {
    Errno::from_raw(errno).desc().to_lowercase()
}
