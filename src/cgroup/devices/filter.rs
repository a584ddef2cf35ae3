//! The device rules of a v2 group: a BPF program that is attached before anything runs in the
//! group. The kernel frees the program together with the group.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;

use super::program;
use super::rules::Devices;
use crate::cgroup::kernfs;
use crate::cgroup::part::Part;
use crate::error::{Error, Result, Step};
use crate::sys::{bpf, mutex};

const EXCLUSIVE: &str = "a group above has a device program that admits no others (BPF_F_ALLOW_MULTI)";

/// Returns why this process cannot load device programs, and the remedy. The function has the kernel
/// look at one: a seccomp filter around the caller, the kernel's build and its settings can be found
/// in no other way.
pub(in crate::cgroup) fn obstacle() -> Option<(String, &'static str)> {
    Some(explain(bpf::check_device_programs().err()?))
}

fn explain(errno: Errno) -> (String, &'static str) {
    match errno {
        Errno::EPERM | Errno::EACCES => (
            "on cgroup v2 the rules are a BPF program, which the caller may not load".to_owned(),
            "run as root in the first user namespace, with CAP_SYS_ADMIN or (5.8) CAP_BPF and CAP_NET_ADMIN, and let \
             filters around it allow bpf(2)",
        ),
        Errno::ENOSYS => ("this kernel has no bpf(2)".to_owned(), "use a kernel with CONFIG_BPF_SYSCALL"),
        Errno::EINVAL => (
            "this kernel takes no device programs".to_owned(),
            "use one from 4.15 on with CONFIG_CGROUP_BPF, or mount the v1 devices hierarchy",
        ),
        errno => (format!("a BPF program cannot be loaded: {errno:?} ({})", errno.desc()), "make room for it"),
    }
}

/// Returns the nearest group, from `base` up to `mount`, whose own program does not permit programs
/// in groups below it.
pub(in crate::cgroup) fn exclusive_above(mount: &Path, base: &Path) -> Option<PathBuf> {
    for dir in base.ancestors().take_while(|dir| dir.starts_with(mount)) {
        // Missing groups are made later, without a program.
        let Ok(fd) = kernfs::open_dir(dir) else { continue };
        let attached = bpf::attached_device_programs(fd.as_fd()).ok()?;
        if attached.admits_more() {
            return None;
        }
        if !attached.ids.is_empty() {
            return (!attached.gives_way()).then(|| dir.to_owned());
        }
    }
    None
}

/// Returns why the group above a new group does not permit programs below it, and the remedy.
pub(in crate::cgroup) fn obstacle_above(mount: &Path, base: &Path) -> Option<(String, &'static str)> {
    let dir = exclusive_above(mount, base)?;
    let reason = format!("the device program of {} admits no others", dir.display());
    Some((reason, "attach that one with BPF_F_ALLOW_MULTI, or name another group with cgroup_parent"))
}

/// Enforces the rules in a new group.
pub(in crate::cgroup) fn attach(part: &Part, devices: &Devices) -> Result<()> {
    load(part, devices)
        .and_then(|program| bpf::attach_device_program(part.dir(), program.as_fd()).map_err(|e| failed(part, e)))
}

/// Enforces the rules in place of earlier ones. For a moment both apply.
pub(in crate::cgroup) fn replace(part: &Part, devices: &Devices) -> Result<()> {
    // Two calls at the same time would each leave the program that the other has attached.
    static TURN: Mutex<()> = Mutex::new(());
    let program = load(part, devices)?;
    let _turn = mutex::lock(&TURN);
    let old = bpf::attached_device_programs(part.dir()).map_err(|errno| failed(part, errno))?;
    bpf::attach_device_program(part.dir(), program.as_fd()).map_err(|errno| failed(part, errno))?;
    for id in old.ids {
        let detached = bpf::program_by_id(id).and_then(|old| bpf::detach_device_program(part.dir(), old.as_fd()));
        match detached {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(part, errno)),
        }
    }
    Ok(())
}

fn load(part: &Part, devices: &Devices) -> Result<std::os::fd::OwnedFd> {
    bpf::load_device_program(&program::assemble(devices)).map_err(|errno| {
        let (reason, remedy) = explain(errno);
        part.error(Step::DeviceRules, errno).detail(reason).hint(remedy)
    })
}

fn failed(part: &Part, errno: Errno) -> Error {
    let error = part.error(Step::DeviceRules, errno);
    match errno {
        Errno::EPERM => error.hint(EXCLUSIVE),
        Errno::E2BIG => error.hint("the group has as many programs as the kernel takes"),
        _ => error,
    }
}
