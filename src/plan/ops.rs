//! The ops of the stub that need more than one system call, as methods. Only this module, the spawn
//! engine and the stub know the [`wire`](crate::stub::wire) format.

use std::os::fd::RawFd;
use std::path::Path;

use super::{Added, Arg, Plan, PlanFd, Ptr, Slot};
use crate::error::Step;
use crate::stub::wire::{MAX_FDS, code, copy_up, exec, record, target};

bitflags::bitflags! {
    /// The ways in which the stub finds or makes the place of a mount: [`Plan::find_place`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct PlaceFlags: u64 {
        /// The last component is a regular file, not a directory.
        const FILE = target::FILE;
        /// No component may be a symbolic link.
        const NO_SYMLINKS = target::NO_SYMLINKS;
        /// Nothing is created.
        const EXISTING = target::EXISTING;
        /// Directories on the path that the program could rename are bound onto themselves. The
        /// following flags need this one.
        const PINNED = target::PINNED;
        /// No link may be where the program could replace the link (ELOOP).
        const NO_LOOSE_LINKS = target::NO_LOOSE_LINKS;
        /// A missing component that the program could not create is ENODATA, and not ENOENT.
        const NOT_TO_BE_MADE = target::NOT_TO_BE_MADE;
        /// The program cannot change the files on the root's own mount, or nobody uses its changes
        /// afterwards.
        const FIXED_ROOT = target::FIXED_ROOT;
        /// What a dangling link leads to is created, below the root.
        const DANGLING = target::DANGLING;
    }

    /// The ways in which the stub executes the program: [`Plan::exec`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct ExecFlags: u64 {
        /// [`Plan::announce_exec`] was done before.
        const ANNOUNCED = exec::ANNOUNCED;
        /// The stub's filter may refuse, ask about or punish every call except the exec itself.
        const SILENT = exec::SILENT;
        /// The filter lets the stub exit.
        const MAY_EXIT = exec::MAY_EXIT;
        /// A supervisor is asked about each exec, and shall hear of no other than the program's.
        const ASKED = exec::ASKED;
    }
}

/// A request of the stub to its owner. The stub waits for the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// The owner writes the id maps.
    IdMaps,
    /// The owner moves the stub into its control group.
    ControlGroup,
    /// The owner runs what is to run before the root is entered.
    Hooks,
    /// The owner sets the scheduling of the stub, which has the program's rights by then.
    Scheduling,
}

/// The arguments of an exec. Each is an offset in the plan.
pub(crate) struct Exec {
    /// The paths to try, in this order.
    pub(crate) paths: Ptr,
    /// The same paths, each with a slash at its end.
    pub(crate) dirs: Ptr,
    pub(crate) argv: Ptr,
    pub(crate) envp: Ptr,
    pub(crate) flags: ExecFlags,
    /// The slot with the address of the page in which the stub leaves the errno of a silent
    /// failure.
    pub(crate) failure: Option<Slot>,
}

impl Plan {
    /// Sets every signal to its default action.
    pub(crate) fn reset_signals(&mut self) -> Added<'_> {
        self.op(Step::Signals, code::RESET_SIGNALS, [])
    }

    /// Asks the owner to do something for the stub, and waits for the answer.
    pub(crate) fn request(&mut self, step: Step, request: Request) -> Added<'_> {
        let kind = match request {
            Request::IdMaps => record::NEED_MAPS,
            Request::ControlGroup => record::NEED_GROUP,
            Request::Hooks => record::NEED_HOOKS,
            Request::Scheduling => record::NEED_SCHEDULING,
        };
        self.op(step, code::SYNC, [kind.into()])
    }

    /// Fails with EOWNERDEAD if the owner of the sandbox has died. `parent` is the pipe of the
    /// thread that cloned.
    pub(crate) fn check_owner(&mut self, parent: Arg) -> Added<'_> {
        self.op(Step::OwnerAlive, code::OWNER_ALIVE, [parent])
    }

    /// Forks: the child continues with the plan and becomes the program, the parent stays as init.
    /// With `silent`, init reports nothing, for a program that a later process starts.
    pub(crate) fn fork_init(&mut self, silent: bool) -> Added<'_> {
        self.op(Step::Fork, code::INIT, [(u64::from(silent) * code::SILENT_INIT).into()])
    }

    /// Clones a sibling that continues with the plan; the sibling is born into the namespaces that
    /// were joined or made.
    pub(crate) fn reclone(&mut self) -> Added<'_> {
        self.op(Step::Fork, code::RECLONE, [])
    }

    /// Clones a child that continues with the plan; when its parent ends, the system's init becomes
    /// its parent.
    #[cfg(feature = "systemd")]
    pub(crate) fn reclone_as_orphan(&mut self) -> Added<'_> {
        self.op(Step::Fork, code::RECLONE, [code::ORPHAN.into()])
    }

    /// Returns whether the plan goes on in a sibling of the stub, which is a child of the owner.
    pub(crate) fn reclones_sibling(&self) -> bool {
        self.ops.iter().any(|op| op.code == code::RECLONE && !matches!(op.args[0], Arg::Value(code::ORPHAN)))
    }

    /// Empties the inheritable and the ambient set of capabilities.
    pub(crate) fn clear_inheritable(&mut self) -> Added<'_> {
        self.op(Step::Capabilities, code::CLEAR_INHERITABLE, [])
    }

    /// Removes every capability that is not in `kept` from the bounding set.
    pub(crate) fn drop_bounding(&mut self, kept: u64) -> Added<'_> {
        self.op(Step::Capabilities, code::DROP_BOUNDING, [kept.into()]).at("bounding set")
    }

    /// Fails with EXDEV unless the working directory lies inside the root.
    pub(crate) fn check_cwd(&mut self) -> Added<'_> {
        self.op(Step::Cwd, code::CWD_INSIDE, [])
    }

    /// Fails with EACCES if the working directory is still the root.
    pub(crate) fn check_cwd_ahead(&mut self) -> Added<'_> {
        self.op(Step::Cwd, code::CWD_AHEAD, [])
    }

    /// Enters the working directory again, by its name.
    pub(crate) fn reenter_cwd(&mut self) -> Added<'_> {
        self.op(Step::Cwd, code::CWD_AGAIN, [])
    }

    /// Finds `path` below the directory `root`, creates missing components as `flags` say, and
    /// stores an `O_PATH` descriptor in `place`.
    pub(crate) fn find_place(&mut self, root: Slot, path: &Path, flags: PlaceFlags, place: Slot) -> Added<'_> {
        let name = self.string(path);
        let args = [root.into(), name.into(), flags.bits().into()];
        self.op(Step::MountTarget, code::TARGET, args).at(path).store(place)
    }

    /// Stores an `O_PATH` descriptor of what is mounted on the directory `place` in `top`:
    /// openat2(2), 5.6.
    pub(crate) fn open_top(&mut self, step: Step, place: Slot, top: Slot) -> Added<'_> {
        self.op(step, code::TOP, [place.into()]).store(top)
    }

    /// Makes the missing directories of `path` below the directory `root`, and stores an `O_PATH`
    /// descriptor of the last in `place`.
    pub(crate) fn make_directory(&mut self, root: Slot, path: &Path, place: Slot) -> Added<'_> {
        let name = self.string(path);
        self.op(Step::Cwd, code::TARGET, [root.into(), name.into(), 0.into()]).store(place)
    }

    /// Sets and clears flags, as mount(2) has them, of the mount whose root is `tree`, and with
    /// `recursive` of all mounts below that mount.
    pub(crate) fn remount(&mut self, tree: Slot, set: u64, clear: u64, recursive: bool) -> Added<'_> {
        let args = [tree.into(), set.into(), clear.into(), u64::from(recursive).into()];
        self.op(Step::MountAttr, code::REMOUNT, args)
    }

    /// Copies what is in the directory `from` to the empty directory `to`, which gets the owner,
    /// the mode and the times of the former. With `mode` or `owner` it keeps its own.
    pub(crate) fn copy_up(&mut self, from: Slot, to: Slot, mode: bool, owner: bool) -> Added<'_> {
        let kept = if mode { copy_up::MODE } else { 0 } | if owner { copy_up::OWNER } else { 0 };
        self.op(Step::CopyUp, code::COPY_UP, [from.into(), to.into(), kept.into()])
    }

    /// Gives the directory `to` owner, mode, times and attributes of the directory `from`.
    pub(crate) fn copy_attributes(&mut self, from: Slot, to: Slot) -> Added<'_> {
        self.op(Step::CopyUp, code::COPY_UP, [from.into(), to.into(), copy_up::NOTHING_INSIDE.into()])
    }

    /// Detaches the old root, with all mounts that are stacked on it, from the new root. There are
    /// at least `stacked` mounts.
    pub(crate) fn detach_old_root(&mut self, stacked: Arg) -> Added<'_> {
        self.op(Step::DetachOldRoot, code::DETACH_OLD_ROOT, [stacked]).at("/")
    }

    /// Fails with ENODEV unless the descriptor is the device with this type, as st_mode has it, and
    /// these numbers. Files that are no device have 0 for both.
    pub(crate) fn check_device(&mut self, step: Step, device: Slot, kind: u32, number: (u32, u32)) -> Added<'_> {
        self.op(step, code::IS_DEVICE, [device.into(), kind.into(), number.0.into(), number.1.into()])
    }

    /// Reports that the program is about to be executed.
    pub(crate) fn announce_exec(&mut self) -> Added<'_> {
        self.op(Step::Exec, code::ANNOUNCE, [])
    }

    /// Installs a filter, a struct sock_fprog, with `flags` of seccomp(2), and sends its listener
    /// to the owner. With `answered`, waits for an answer.
    pub(crate) fn install_filter_and_send_listener(&mut self, flags: u64, filter: Ptr, answered: bool) -> Added<'_> {
        self.op(Step::Seccomp, code::LISTEN, [flags.into(), filter.into(), u64::from(answered).into()])
    }

    /// Sends the master of the program's terminal to the owner.
    pub(crate) fn send_terminal(&mut self, master: Slot) -> Added<'_> {
        self.op(Step::Terminal, code::SEND_FD, [master.into(), record::TERMINAL.into()])
    }

    /// Sends the file of a rule of Landlock to the owner.
    pub(crate) fn send_rule_file(&mut self, file: Slot) -> Added<'_> {
        self.op(Step::Landlock, code::SEND_FD, [file.into(), record::RULE_FILE.into()])
    }

    /// Executes the program. This is the last op of a plan.
    pub(crate) fn exec(&mut self, exec: Exec) -> Added<'_> {
        let failure = exec.failure.map_or(0.into(), Arg::from);
        let flags = exec.flags.bits().into();
        let args = [exec.paths.into(), exec.argv.into(), exec.envp.into(), flags, failure, exec.dirs.into()];
        self.op(Step::Exec, code::EXEC, args)
    }

    /// Reports that the setup is finished, and waits for another plan. This is the last op of a
    /// plan. `parent` is the pipe of the thread that cloned.
    pub(crate) fn park(&mut self, parent: Arg) -> Added<'_> {
        self.op(Step::Report, code::PARK, [parent])
    }

    /// Fails as the exec of these paths would, if none of them can be executed.
    pub(crate) fn find_program(&mut self, paths: Ptr) -> Added<'_> {
        self.op(Step::Exec, code::FIND, [paths.into()])
    }

    /// Waits until the owner has the stub on record, lets go of the owner, and waits for a later
    /// process, which connects to `listener`. The plan goes on when that one says so. `parent` is
    /// the pipe of the thread that cloned.
    pub(crate) fn await_start(&mut self, listener: RawFd, parent: Arg) -> Added<'_> {
        self.op(Step::Create, code::AWAIT_START, [listener.into(), parent])
    }

    /// Receives the descriptors `fds`, each with its number, in messages that follow this plan. All
    /// numbers lie below `end`, and the report socket does not.
    pub(crate) fn receive_fds(
        &mut self,
        fds: impl IntoIterator<Item = (RawFd, PlanFd)>,
        end: RawFd,
        hint: &'static str,
    ) {
        let (numbers, fds): (Vec<RawFd>, Vec<PlanFd>) = fds.into_iter().unzip();
        for numbers in numbers.chunks(MAX_FDS) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
            let place = self.bytes(&bytes);
            self.op(Step::PlaceFd, code::RECEIVE_FDS, [place.into(), numbers.len().into(), end.into()]).hint(hint);
        }
        self.fds.extend(fds);
    }

    /// Blocks until the owner's thread closes the pipe that only that thread holds, which means
    /// until the owner ends.
    #[cfg(feature = "systemd")]
    pub(crate) fn await_end_of_owner(&mut self) -> Added<'_> {
        let byte = self.words(&[0]);
        self.call(Step::OwnerAlive, libc::SYS_read, [crate::stub::wire::PARENT_FD.into(), byte.into(), 1.into()])
    }
}
