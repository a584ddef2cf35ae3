//! The remedies for limits of the caller's.

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::Step;

/// The number of files that a sandbox with some mounts has open for a moment, at most.
const FILES_OF_A_SANDBOX: u64 = 64;

/// Returns the remedy for an errno that shows which limit is reached, whatever the step was about.
pub(super) fn remedy_of(step: Step, errno: Errno) -> Option<String> {
    Some(match (step, errno) {
        (_, Errno::EMFILE) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            let enough = limit.saturating_add(FILES_OF_A_SANDBOX);
            format!(
                "the caller's soft limit of open files (RLIMIT_NOFILE), which is {limit}, is reached: raise it to {enough}, \
                 or use fewer mounts and descriptors"
            )
        }
        (_, Errno::ENFILE) => {
            "all processes together have as many files open as /proc/sys/fs/file-max allows: raise that limit"
                .to_owned()
        }
        (
            Step::Spawner
            | Step::LoadStub
            | Step::ReadPlan
            | Step::Owner
            | Step::Scratch
            | Step::Stdio
            | Step::Report
            | Step::Create,
            Errno::EFBIG,
        ) => {
            let limit = getrlimit(Resource::RLIMIT_FSIZE).map_or(0, |(soft, _)| soft);
            format!(
                "the caller's limit on the size of files (RLIMIT_FSIZE) is {limit}, and the library writes small files for a \
                 sandbox: raise it to 1048576"
            )
        }
        (_, Errno::EFBIG) if writes_large_files(step) => {
            let limit = getrlimit(Resource::RLIMIT_FSIZE).map_or(0, |(soft, _)| soft);
            if limit == RLIM_INFINITY {
                return None;
            }
            format!("the caller's limit on the size of files (RLIMIT_FSIZE) is {limit}: raise it to the size of the file")
        }
        (Step::Spawner, Errno::EAGAIN) => {
            "no thread can be added: raise the caller's RLIMIT_NPROC, pids.max of its control group, or kernel.pid_max; \
             or its RLIMIT_AS leaves no room for the thread's stack"
                .to_owned()
        }
        (Step::Spawner, Errno::ENOMEM) => {
            "the caller's RLIMIT_AS or RLIMIT_DATA is reached, or the machine has no memory left".to_owned()
        }
        _ => return None,
    })
}

/// Returns whether the step writes files of any size.
fn writes_large_files(step: Step) -> bool {
    #[cfg(feature = "image")]
    if matches!(step, Step::ImageIndex | Step::PackLayer | Step::UnpackLayer | Step::WriteBlob) {
        return true;
    }
    matches!(step, Step::Collect | Step::Commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_that_shows_a_limit_has_its_remedy_at_every_step_and_others_have_none() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        for step in [Step::OpenSource, Step::Detect, Step::Stats] {
            let remedy = remedy_of(step, Errno::EMFILE).unwrap();
            assert!(remedy.contains(&format!("is {soft}, ")) && remedy.contains(&(soft + 64).to_string()), "{remedy}");
            assert!(remedy_of(step, Errno::ENFILE).unwrap().contains("/proc/sys/fs/file-max"));
            assert_eq!(remedy_of(step, Errno::ENOENT), None);
        }
        // A file that somebody else has made too large is not the caller's limit.
        assert!(remedy_of(Step::Owner, Errno::EFBIG).is_some() && remedy_of(Step::OpenSource, Errno::EFBIG).is_none());
        assert!(remedy_of(Step::Spawner, Errno::EAGAIN).is_some() && remedy_of(Step::Wait, Errno::EAGAIN).is_none());
    }
}
