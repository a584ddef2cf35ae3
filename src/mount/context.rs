//! The facts about the rest of the sandbox on which the ops of mounts depend.

use crate::plan::Slot;

/// The facts about the rest of the sandbox on which the ops of mounts depend.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Context {
    /// The sandbox has a user namespace of its own: device nodes cannot be made, and overlayfs
    /// keeps its marks in user xattrs.
    pub(crate) user_ns: bool,
    /// The setup runs as a user to whom the caller's files may be closed.
    pub(crate) other_user: bool,
    /// The caller, and not the stub, copies the host's mounts. The flags of mounts that come in
    /// this way are not locked to a program that may remount.
    pub(crate) caller_copies: bool,
    /// The user and group of the program, inside.
    pub(crate) user: (u32, u32),
    /// Group 5, to which terminals belong, exists inside.
    pub(crate) tty_group: bool,
    /// The user and group whose files on the host are shown, by id-mapped mounts, as files of the
    /// ids that the sandbox has outside.
    pub(crate) mapped: Option<(u32, u32)>,
    /// The setup has left the host for the [`template`](super::template): the host's files come as
    /// descriptors.
    pub(crate) template: bool,
    /// The root is mounted at its own path, and not over `/`.
    pub(crate) in_place: bool,
    /// The root covers that of the host, which is not taken off.
    pub(crate) no_pivot: bool,
    /// The caller has made the device nodes.
    pub(crate) nodes: bool,
    /// The slot for the master of a terminal that is to be made on the sandbox's devpts.
    pub(crate) terminal: Option<Slot>,
}
