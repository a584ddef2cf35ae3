//! Hints about a step that failed, for the errnos that show the cause.

use nix::errno::Errno;

use crate::error::Step;
use crate::stub::wire;

const _: () = assert!(Errno::ELIBACC as i32 == wire::exec::NO_INTERPRETER);

/// The hint for a program that exists, and whose interpreter does not.
pub(crate) const NO_INTERPRETER: &str = "the program exists inside the sandbox, but not the interpreter that the program names: the loader of a dynamic program \
     (bind /lib, /lib64 and /usr, use RootFs::programs(), or link the program statically), or that of the #! line, to which a \
     carriage return at the end of the line belongs";

/// Returns the hint for a `step` that failed with `errno`.
pub(super) fn for_failure(step: Step, errno: Errno) -> Option<&'static str> {
    Some(match (step, errno) {
        (Step::Clone | Step::Unshare, Errno::EPERM) => {
            "creating namespaces needs CAP_SYS_ADMIN or user_ns(); if user_ns() is set already, a sysctl \
             (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) \
             or an outer seccomp filter forbids it"
        }
        (Step::Clone | Step::Unshare, Errno::ENOSPC) => {
            "a limit on namespaces is reached: see /proc/sys/user/max_*_namespaces, and namespaces nested 32 deep"
        }
        (Step::Clone | Step::Fork, Errno::EAGAIN) => {
            "no process can be added: raise the caller's RLIMIT_NPROC, pids.max of the control group, or kernel.pid_max"
        }
        (Step::Clone | Step::Fork, Errno::ENOMEM) => {
            "the machine has no memory left, or the first process of the caller's pid namespace has ended"
        }
        (Step::Clone | Step::Unshare, Errno::EINVAL) => {
            "the kernel lacks one of the namespaces: time needs 5.6, cgroup 4.6"
        }
        (Step::Clone | Step::JoinCgroup, Errno::EBUSY) => {
            "the control group has controllers enabled for its children and accepts no process"
        }
        (Step::PlaceFd, Errno::ETOOMANYREFS) => {
            "more descriptors are on their way between processes than the caller's soft limit of open files (RLIMIT_NOFILE) \
             allows: raise it, or use fewer mounts and descriptors"
        }
        (Step::LoadStub, Errno::EACCES | Errno::EPERM) => {
            "executing a memfd is forbidden here (vm.memfd_noexec is 2, or a security module refuses it), and there is no \
             place for a file: root needs fsopen(2) (Linux 5.2), others a TMPDIR, /run/user/UID, /dev/shm or /var/tmp that \
             is not noexec"
        }
        (Step::PivotRoot, Errno::EINVAL) => {
            "the host's root is an initramfs, which pivot_root(2) refuses: switch_root to a tmpfs first, or set no_pivot()"
        }
        (Step::Mount, Errno::EPERM) => {
            "in a user namespace this file system needs the namespace that it shows: proc needs pid_ns and a /proc of \
             the host without masked parts, sysfs needs net_ns, mqueue needs ipc_ns; an outer seccomp filter may refuse \
             fsopen(2) and fsmount(2), which came with Linux 5.2"
        }
        (Step::OpenTree, Errno::EINVAL) => {
            "mounts below the source that belong to another user namespace cannot be left out"
        }
        (Step::OpenTree | Step::MoveMount, Errno::ENOSYS | Errno::EPERM) => {
            "open_tree(2) and move_mount(2) need Linux 5.2, and an outer seccomp filter that allows them"
        }
        (Step::Mount, Errno::ENOSYS) => {
            "fsopen(2), fsconfig(2) and fsmount(2) need Linux 5.2, and an outer seccomp filter that allows them"
        }
        (Step::CopyUp, Errno::ENOSPC) => {
            "what is copied has to fit into the size and the inodes of the tmpfs: give it more"
        }
        (Step::CopyUp, Errno::EACCES) => {
            "the sandbox's user outside, which without a map of root's is nobody, may not read a file of the directory"
        }
        (Step::CopyUp, Errno::ENAMETOOLONG | Errno::EMFILE) => {
            "directories are copied 128 deep at most, with two open files each: bind the directory, or use an overlay"
        }
        (Step::MountAttr, Errno::EPERM) => {
            "in a user namespace a mount keeps the attributes that it has on the host: leave out the words that take one away, \
             and another way of keeping times of access"
        }
        (Step::MountAttr | Step::Propagation, Errno::ENOSYS) => "mount_setattr(2) needs Linux 5.12",
        (Step::MountAttr, Errno::EACCES | Errno::ENOENT) => {
            "this user cannot reach a mount below the path, or there is no /proc: without mount_setattr(2) (Linux 5.12) the \
             flags of such a mount cannot be changed"
        }
        (Step::MountAttr, Errno::EAGAIN | Errno::EBUSY) => {
            "the mounts below the path could not be distinguished, since directories are being renamed or another mount covers \
             the path; mount_setattr(2) (Linux 5.12) needs no names"
        }
        (Step::Mount, Errno::EACCES) => {
            "the sandbox's user outside, which without a map of root's is nobody, may not enter a layer, or write to the upper \
             directory: give them to the id that /proc/PID/uid_map shows, or map another with uid_map() and gid_map()"
        }
        (Step::Mount, Errno::ELOOP) => "layers of an overlay may not lie inside one another, nor be named twice",
        (Step::Mount, Errno::EINVAL) => {
            "the upper and the work directory of an overlay have to be two directories of one file system, neither in the \
             other, and not on an overlay themselves; otherwise the kernel's log (dmesg) may name the option that is refused"
        }
        (Step::MountTarget, Errno::EROFS) => {
            "the mount's target does not exist and the root is read-only: use an existing directory, such as /mnt, or \
             mount a tmpfs on one and put the target below it; RootFs::programs() has room for new targets"
        }
        (Step::MountTarget, Errno::EACCES) => {
            "the mount's target does not exist, and the sandbox's user outside, which without a map of root's is nobody, may \
             not make it, or may not enter the directory: make it, or map another id with uid_map() and gid_map()"
        }
        (Step::MountTarget, Errno::ENOENT | Errno::EPERM) => {
            "the mount's target does not exist and cannot be created: in /proc and /sys nothing can be created, and a path that \
             is to be read-only has to exist already if the program could create it"
        }
        (Step::MountTarget, Errno::ELOOP) => {
            "the path contains a symbolic link where none is accepted: name the path that it leads to, since a process that may \
             write to the directory of a link can replace the link; without openat2(2) (Linux 5.6) no link is accepted"
        }
        (Step::MountTarget, Errno::ENOSYS) => {
            "directories that the program could rename are distinguished by their mounts, which needs statx(2) of Linux 5.8, \
             open_tree(2) and move_mount(2)"
        }
        (Step::MountTarget, Errno::ENOTDIR) | (Step::MoveMount, Errno::EINVAL | Errno::ENOTDIR) => {
            "source and target must both be directories, or both be files, and all above the target are directories"
        }
        (Step::WriteIdMap | Step::TimeOffsets, Errno::EXDEV) => "the file system at /proc is not procfs",
        (Step::WriteIdMap, Errno::EPERM) => {
            "an ordinary user may map one id, its own; more need newuidmap and newgidmap, or root"
        }
        (Step::IdMapMount, Errno::EINVAL) => {
            "this file system takes no id map: ext4, xfs, btrfs and most others do, tmpfs since 6.3, proc and sysfs never"
        }
        (Step::IdMapMount, Errno::EPERM) => {
            "an id map needs CAP_SYS_ADMIN over the user namespace in which the file system was mounted, and a mount that is \
             not id-mapped yet"
        }
        (Step::IdMapMount, Errno::ENOSYS) => "id-mapped mounts need Linux 5.12, and as layers of an overlay 5.19",
        (Step::JoinCgroup, Errno::ENOSPC) => {
            "the group has no processors or no memory nodes: fill its cpuset.cpus and cpuset.mems"
        }
        (Step::JoinCgroup, Errno::EINVAL) => {
            "a caller of a realtime class (SCHED_FIFO, SCHED_RR) enters a v1 group of the controller cpu only where the \
             group has a share of it (cpu.rt_runtime_us): spawn from a thread of another class"
        }
        (Step::JoinCgroup, Errno::EAGAIN) => "the group accepts no process: its pids limit is reached",
        (Step::Seccomp, Errno::EINVAL) => "the kernel does not know a flag of the profile, or has no filters",
        (Step::Seccomp, Errno::EBUSY) => {
            "the caller itself runs under a filter with a supervisor, and the kernel allows only one"
        }
        (Step::Exec, Errno::ENOENT) => {
            "there is no such program inside the sandbox: the path is one of the sandbox's root, and a name without a slash is \
             looked up in the PATH of the sandbox's environment"
        }
        (Step::Exec, Errno::ELIBACC) => NO_INTERPRETER,
        (Step::Exec, Errno::EACCES) => {
            "the program's user may not execute the file or its loader (chmod a+rx), or not enter a directory on the way; or \
             the path is a directory, its mount is noexec, or Landlock does not allow it"
        }
        (Step::Exec, Errno::ENOEXEC) => {
            "the file is no program for this machine: it is of another architecture, empty, or a script without a #! line"
        }
        (Step::Exec, Errno::E2BIG) => "arguments and environment together are too large",
        (Step::Cwd, Errno::ENOENT) => {
            "the sandbox has no such directory: the working directory is a path inside the sandbox"
        }
        (Step::Cwd, Errno::ENOTDIR) => "the path leads to a file: name a directory inside the sandbox",
        (Step::Cwd, Errno::EACCES) => {
            "the program's user may not enter the directory, or one on the way: chmod a+x, or choose another user()"
        }
        (Step::Cwd, Errno::EXDEV) => "the working directory must lie inside the sandbox's root",
        (Step::Keyring, Errno::EDQUOT) => {
            "the user has as many keys as /proc/sys/kernel/keys allows; session_keyring(false) needs no key"
        }
        (Step::Rlimit, Errno::EPERM) => "raising a hard limit needs CAP_SYS_RESOURCE",
        (Step::Uid | Step::Gid, Errno::EINVAL) => {
            "the user namespace does not know the id: choose one that it maps, with user()"
        }
        (Step::Uid | Step::Gid | Step::Groups, Errno::EPERM) => {
            "changing to another user needs CAP_SETUID and CAP_SETGID"
        }
        (Step::OwnerAlive, Errno::EOWNERDEAD) => "the process that owns the sandbox has ended",
        _ => return None,
    })
}
