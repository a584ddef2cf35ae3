//! The plan as the stub reads it, and the records with which it answers.
//!
//! This file is compiled twice: into the crate, which writes plans, and into the stub, which runs them. Both are
//! built together, so the layout is private and needs no version.
//!
//! A plan is one block of bytes, a message on the report socket: a [`Header`], the [`Op`]s, a table of relocations, then strings and structures.
//! A relocation is the offset of a 64-bit word that holds an offset into the block; the stub adds the address at
//! which it has the block, after which every pointer of the plan is a plain pointer.

/// First word of every plan.
pub const MAGIC: u32 = 0x7269_6e67;
/// The reading end of a pipe whose writing end only the thread that cloned holds. The kernel closes that before it sends
/// the death signal, or gives the child to another parent.
pub const PARENT_FD: i32 = 6;
/// The number that the first descriptor handed to the stub has; the others follow it without a gap.
pub const FIRST_FD: i32 = 7;
/// Where the stub reports: one end of a `SOCK_SEQPACKET` pair.
pub const REPORT_FD: i32 = FIRST_FD;
/// How large a plan may be that comes as the first message on the report socket. One with the default masks of a few
/// processors fits. A larger one comes in a memfd, and the message is [`Elsewhere`].
pub const INLINE_MAX: usize = 32 << 10;
/// How many results of earlier calls a plan can refer to.
pub const SLOTS: usize = 64;
/// [`Op::store`] of a call whose result is not kept.
pub const NO_SLOT: u8 = u8::MAX;
/// The slot in which the stub keeps the number of its report descriptor.
pub const REPORT_SLOT: u8 = 0;
/// Where the sort stands in [`Op::code`].
pub const SORT_SHIFT: u32 = 16;
/// In [`Op::tolerate`]: ENOSYS, and EPERM, with which a filter around us may refuse a call that it does not know.
pub const MISSING: u16 = u16::MAX;
/// [`Record::op`] of the first [`record::STAMP`].
pub const BEGIN: u32 = u32::MAX;
/// [`Header::fail_at`] of a plan that is to run as it stands.
pub const NO_FAILURE: u32 = u32::MAX;

/// First word of [`Elsewhere`].
pub const ELSEWHERE: u32 = 0x666e_6972;

/// Where a plan is that did not fit into a message.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    pub magic: u32,
    /// Its number in the stub, or below 0 where it comes with the message, after three streams.
    pub fd: i32,
    pub size: u64,
}

/// The head of a plan.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub magic: u32,
    pub op_count: u32,
    pub reloc_offset: u32,
    pub reloc_count: u32,
    /// The op that a test makes fail, with which errno.
    pub fail_at: u32,
    pub fail_errno: i32,
}

/// One step: a system call, or one of the few things that need more than one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Op {
    /// What it does ([`code`]) in the low half; in the high half its sort, where the time is to be taken, else 0.
    pub code: u32,
    /// The number of the system call, for [`code::CALL`].
    pub nr: u32,
    /// Bit i is set where `args[i]` is a slot to be read.
    pub slot_args: u8,
    /// The slot that takes the result.
    pub store: u8,
    /// How many of the following ops are passed over when this one succeeds: they are its fallback.
    pub skip_on_success: u8,
    /// How many are passed over when this one fails with an errno that is tolerated: they build on it.
    pub skip_on_tolerated: u8,
    /// Errnos that are no failure here, or [`MISSING`]; 0 where there is none.
    pub tolerate: [u16; 2],
    pub args: [u64; 6],
}

/// What an [`Op`] does.
pub mod code {
    /// `nr(args…)`.
    pub const CALL: u32 = 1;
    /// Finds `args[1]` below the directory `args[0]`, making what is missing as `args[2]` says; stores an
    /// `O_PATH` descriptor.
    pub const TARGET: u32 = 2;
    /// Writes `args[2]` bytes at `args[1]` to the file of /proc named `args[0]`; EXDEV where that is no procfs.
    pub const WRITE_FILE: u32 = 3;
    /// Fails with EOWNERDEAD if the owner of the sandbox has died.
    pub const OWNER_ALIVE: u32 = 4;
    /// Sends a record of kind `args[0]` and waits for a byte in answer.
    pub const SYNC: u32 = 5;
    /// Sets every signal to its default.
    pub const RESET_SIGNALS: u32 = 6;
    /// Empties the inheritable and the ambient set.
    pub const CLEAR_INHERITABLE: u32 = 7;
    /// Goes on in a child; the parent stays as init, and reports how the child ends.
    pub const INIT: u32 = 8;
    /// Goes on in a sibling, born into the namespaces joined or made since; this process ends. With [`ORPHAN`] as `args[0]`
    /// in a child, which the end of its parent leaves to the system's init.
    pub const RECLONE: u32 = 9;
    /// See [`RECLONE`].
    #[allow(dead_code, reason = "only scopes of systemd have a use for it")]
    pub const ORPHAN: u64 = 1;
    /// Fails with EXDEV unless the working directory lies inside the root.
    pub const CWD_INSIDE: u32 = 10;
    /// Executes the first of the candidates `args[0]` that exists, with argv `args[1]` and environment `args[2]`, as the
    /// bits of `args[3]` ([`super::exec`]) say; `args[4]` is where a silent one leaves its errno.
    pub const EXEC: u32 = 11;
    /// Takes the old root, with all that is stacked on it, off the new one. `args[0]` says how many mounts those are at
    /// least.
    pub const DETACH_OLD_ROOT: u32 = 12;
    /// Fails with ENODEV unless the descriptor `args[0]` is the null device, character device 1:3.
    pub const IS_NULL: u32 = 14;
    /// Takes every capability that is not in `args[0]` out of the bounding set.
    pub const DROP_BOUNDING: u32 = 13;
    /// Says that the program is about to be executed.
    pub const ANNOUNCE: u32 = 15;
    /// Sets the flags `args[1]` and clears `args[2]`, as mount(2) has them, of the mount whose root `args[0]` is; where
    /// `args[3]` is not 0, of all mounts below it too.
    pub const REMOUNT: u32 = 16;
    /// Installs the filter of the struct sock_fprog at `args[1]` with the flags `args[0]`, and sends its listener.
    pub const LISTEN: u32 = 17;
    /// Says that the setup is done, and waits for another plan; `args[0]` is the pipe of the thread that cloned. The last op
    /// of its plan.
    pub const PARK: u32 = 18;
    /// Enters the working directory anew, by its name.
    pub const CWD_AGAIN: u32 = 19;
}

/// Bits of `args[3]` of [`code::EXEC`].
pub mod exec {
    /// [`code::ANNOUNCE`] has been done.
    pub const ANNOUNCED: u64 = 1;
    /// The filter that the stub stands under may refuse, ask about or punish every call but the exec itself.
    pub const SILENT: u64 = 2;
    /// It lets the stub exit.
    pub const MAY_EXIT: u64 = 4;
}

/// Bits of `args[2]` of [`code::TARGET`].
pub mod target {
    /// The last component is a regular file, not a directory.
    pub const FILE: u64 = 1;
    /// No component may be a symbolic link.
    pub const NO_SYMLINKS: u64 = 2;
    /// Nothing is made.
    pub const EXISTING: u64 = 4;
    /// Directories on the way that the program could rename are bound onto themselves. The following bits go with this one.
    pub const PINNED: u64 = 8;
    /// No link may stand where the program could exchange it (ELOOP).
    pub const NO_LOOSE_LINKS: u64 = 16;
    /// What is missing where the program could not make it is ENODATA, and not ENOENT.
    pub const NOT_TO_BE_MADE: u64 = 32;
    /// What lies on the root's own mount is not the program's to change, or of no use to anybody afterwards.
    pub const FIXED_ROOT: u64 = 64;
}

/// What travels back: one fixed-size record a message.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub kind: u32,
    /// The index of the op that it is about.
    pub op: u32,
    pub errno: i32,
    pub value: i32,
}

/// The kinds of [`Record`].
pub mod record {
    /// From the spawner: the child exists; `value` is its pid, and its pidfd comes with the message.
    pub const CLONED: u32 = 1;
    /// A step failed; nothing follows.
    pub const FAILED: u32 = 2;
    /// The clone, or the exec of the stub, failed; `value` says which ([`super::BEFORE_STUB_CLONE`]).
    pub const FAILED_BEFORE_STUB: u32 = 3;
    /// The program is about to be executed. End of file after it means that it was.
    pub const EXEC: u32 = 4;
    /// The stub waits for its id maps.
    pub const NEED_MAPS: u32 = 5;
    /// From init: the program was executed.
    pub const STARTED: u32 = 6;
    /// From init: the program ended; `value` is its wait status.
    pub const ENDED: u32 = 7;
    /// A sibling goes on in the stub's place; its pidfd comes with the message.
    pub const RECLONED: u32 = 8;
    /// The filter stands, and its listener comes with the message. It comes after EXEC and before the exec.
    pub const LISTENER: u32 = 9;
    /// The stub waits to be moved into its control group.
    pub const NEED_GROUP: u32 = 10;
    /// The setup is done; the stub waits for another plan.
    pub const PARKED: u32 = 11;
    /// How long the ops of the sort took of which `op` is the first, or for [`super::BEGIN`] when the first one began:
    /// nanoseconds, those of CLOCK_REALTIME, the low word in `errno`, the high one in `value`. These come just before EXEC.
    pub const STAMP: u32 = 12;
}

/// `value` of [`record::FAILED_BEFORE_STUB`]: the clone was refused.
pub const BEFORE_STUB_CLONE: i32 = 0;
/// `value` of [`record::FAILED_BEFORE_STUB`]: the stub could not be executed.
pub const BEFORE_STUB_EXEC: i32 = 1;
/// `value` of [`record::FAILED_BEFORE_STUB`]: there could be no file of the stub, and no clone was made.
pub const BEFORE_STUB_IMAGE: i32 = 2;
/// `value` of [`record::FAILED_BEFORE_STUB`]: the descriptors did not fit into the spawner's table, and no clone was made.
pub const BEFORE_STUB_FDS: i32 = 3;
