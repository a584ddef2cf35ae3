//! The ops of the stub that need more than one system call, by name: only this floor, the spawn engine and the stub know the
//! [`wire`](crate::stub::wire).

use std::path::Path;

use super::{Added, Arg, Plan, Ptr, Slot};
use crate::error::Step;
use crate::stub::wire::{code, exec, record, target};

bitflags::bitflags! {
    /// How the stub finds or makes the place of a mount: [`Plan::find_place`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct PlaceFlags: u64 {
        /// The last component is a regular file, not a directory.
        const FILE = target::FILE;
        /// No component may be a symbolic link.
        const NO_SYMLINKS = target::NO_SYMLINKS;
        /// Nothing is made.
        const EXISTING = target::EXISTING;
        /// Directories on the way that the program could rename are bound onto themselves. The following flags go with this
        /// one.
        const PINNED = target::PINNED;
        /// No link may stand where the program could exchange the link (ELOOP).
        const NO_LOOSE_LINKS = target::NO_LOOSE_LINKS;
        /// A missing component that the program could not make is ENODATA, and not ENOENT.
        const NOT_TO_BE_MADE = target::NOT_TO_BE_MADE;
        /// The program cannot change what lies on the root's own mount, or its changes are of no use to anybody afterwards.
        const FIXED_ROOT = target::FIXED_ROOT;
    }

    /// How the stub executes the program: [`Plan::exec`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct ExecFlags: u64 {
        /// [`Plan::announce_exec`] has been done.
        const ANNOUNCED = exec::ANNOUNCED;
        /// The filter over the stub may refuse, ask about or punish every call but the exec itself.
        const SILENT = exec::SILENT;
        /// The filter lets the stub exit.
        const MAY_EXIT = exec::MAY_EXIT;
    }
}

/// A request of the stub to its owner, which the stub waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// Write the id maps.
    IdMaps,
    /// Move the stub into its control group.
    ControlGroup,
}

/// The arguments of an exec, each a place in the plan.
pub(crate) struct Exec {
    /// The paths that are tried in their order.
    pub(crate) paths: Ptr,
    pub(crate) argv: Ptr,
    pub(crate) envp: Ptr,
    pub(crate) flags: ExecFlags,
    /// Holds the address of the page in which a silent failure leaves its errno.
    pub(crate) failure: Option<Slot>,
}

impl Plan {
    /// Sets every signal to its default action.
    pub(crate) fn reset_signals(&mut self) -> Added<'_> {
        self.op(Step::Signals, code::RESET_SIGNALS, [])
    }

    /// Has the owner do something for the stub, and waits for the answer.
    pub(crate) fn request(&mut self, step: Step, request: Request) -> Added<'_> {
        let kind = match request {
            Request::IdMaps => record::NEED_MAPS,
            Request::ControlGroup => record::NEED_GROUP,
        };
        self.op(step, code::SYNC, [kind.into()])
    }

    /// Fails with EOWNERDEAD if the owner of the sandbox has died.
    pub(crate) fn check_owner(&mut self) -> Added<'_> {
        self.op(Step::OwnerAlive, code::OWNER_ALIVE, [])
    }

    /// Goes on in a child, which becomes the program; the parent stays as init.
    pub(crate) fn fork_init(&mut self) -> Added<'_> {
        self.op(Step::Fork, code::INIT, [])
    }

    /// Goes on in a sibling, which is born into the namespaces that were joined or made.
    pub(crate) fn reclone(&mut self) -> Added<'_> {
        self.op(Step::Fork, code::RECLONE, [])
    }

    /// Goes on in a child that the end of its parent leaves to the system's init.
    #[cfg(feature = "systemd")]
    pub(crate) fn reclone_as_orphan(&mut self) -> Added<'_> {
        self.op(Step::Fork, code::RECLONE, [code::ORPHAN.into()])
    }

    /// Empties the inheritable and the ambient set of capabilities.
    pub(crate) fn clear_inheritable(&mut self) -> Added<'_> {
        self.op(Step::Capabilities, code::CLEAR_INHERITABLE, [])
    }

    /// Takes every capability that is not in `kept` out of the bounding set.
    pub(crate) fn drop_bounding(&mut self, kept: u64) -> Added<'_> {
        self.op(Step::Capabilities, code::DROP_BOUNDING, [kept.into()]).at("bounding set")
    }

    /// Fails with EXDEV unless the working directory lies inside the root.
    pub(crate) fn check_cwd(&mut self) -> Added<'_> {
        self.op(Step::Cwd, code::CWD_INSIDE, [])
    }

    /// Enters the working directory anew, by its name.
    pub(crate) fn reenter_cwd(&mut self) -> Added<'_> {
        self.op(Step::Cwd, code::CWD_AGAIN, [])
    }

    /// Finds `path` below the directory `root`, makes what is missing as `flags` say, and leaves an `O_PATH` descriptor in
    /// `place`.
    pub(crate) fn find_place(&mut self, root: Slot, path: &Path, flags: PlaceFlags, place: Slot) -> Added<'_> {
        let name = self.string(path);
        let args = [root.into(), name.into(), flags.bits().into()];
        self.op(Step::MountTarget, code::TARGET, args).at(path).store(place)
    }

    /// Sets and clears flags, as mount(2) has them, of the mount whose root is `tree`, and with `recursive` of all mounts
    /// below.
    pub(crate) fn remount(&mut self, tree: Slot, set: u64, clear: u64, recursive: bool) -> Added<'_> {
        let args = [tree.into(), set.into(), clear.into(), u64::from(recursive).into()];
        self.op(Step::MountAttr, code::REMOUNT, args)
    }

    /// Takes the old root, with all that is stacked on it, off the new one: at least `stacked` mounts.
    pub(crate) fn detach_old_root(&mut self, stacked: Arg) -> Added<'_> {
        self.op(Step::DetachOldRoot, code::DETACH_OLD_ROOT, [stacked]).at("/")
    }

    /// Fails with ENODEV unless the descriptor is the null device, character device 1:3.
    pub(crate) fn check_null_device(&mut self, device: Slot) -> Added<'_> {
        self.op(Step::Mask, code::IS_NULL, [device.into()])
    }

    /// Says that the program is about to be executed.
    pub(crate) fn announce_exec(&mut self) -> Added<'_> {
        self.op(Step::Exec, code::ANNOUNCE, [])
    }

    /// Installs a filter, a struct sock_fprog, with `flags` of seccomp(2), and sends its listener to the owner.
    pub(crate) fn install_filter_and_send_listener(&mut self, flags: u64, filter: Ptr) -> Added<'_> {
        self.op(Step::Seccomp, code::LISTEN, [flags.into(), filter.into()])
    }

    /// Executes the program. The last op of a plan.
    pub(crate) fn exec(&mut self, exec: Exec) -> Added<'_> {
        let failure = exec.failure.map_or(0.into(), Arg::from);
        let args = [exec.paths.into(), exec.argv.into(), exec.envp.into(), exec.flags.bits().into(), failure];
        self.op(Step::Exec, code::EXEC, args)
    }

    /// Says that the setup is done, and waits for another plan. The last op of a plan. `parent`: the pipe of the thread that
    /// cloned.
    pub(crate) fn park(&mut self, parent: Arg) -> Added<'_> {
        self.op(Step::Report, code::PARK, [parent])
    }

    /// Blocks until the owner's thread closes the pipe that only that thread holds: until the owner's end.
    #[cfg(feature = "systemd")]
    pub(crate) fn await_end_of_owner(&mut self) -> Added<'_> {
        let byte = self.words(&[0]);
        self.call(Step::OwnerAlive, libc::SYS_read, [crate::stub::wire::PARENT_FD.into(), byte.into(), 1.into()])
    }
}
