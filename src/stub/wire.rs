//! The format of plans for the stub, and of the records that the stub sends back.
//!
//! This file is compiled twice: into the crate, which writes plans, and into the stub, which runs
//! them. Both are built together, so the layout is private and needs no version.
//!
//! A plan is one block of bytes, which is a message on the report socket: a [`Header`], the
//! [`Op`]s, a table of relocations, then strings and structures. A relocation is the offset of a
//! 64-bit word that holds an offset into the block. The stub adds the address of the block to this
//! word; after that, every pointer of the plan is a plain pointer.

/// The first word of every plan.
pub const MAGIC: u32 = 0x7269_6e67;
/// The reading end of a pipe whose writing end only the thread that cloned holds. The kernel closes
/// the writing end before it sends the death signal, or gives the child to another parent.
pub const PARENT_FD: i32 = 6;
/// The number of the first descriptor that is passed to the stub; the others follow without a gap.
pub const FIRST_FD: i32 = 7;
/// The report socket of the stub: one end of a `SOCK_SEQPACKET` pair.
pub const REPORT_FD: i32 = FIRST_FD;
/// The largest size of a plan that comes as the first message on the report socket. A plan with the
/// default masks of a few processors fits. A larger plan comes in a memfd, and the message is
/// [`Elsewhere`].
pub const INLINE_MAX: usize = 32 << 10;
/// The most descriptors that one message can carry (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;
/// The number of results of earlier calls to which a plan can refer.
pub const SLOTS: usize = 64;
/// The value of [`Op::store`] for a call whose result is not kept.
pub const NO_SLOT: u8 = u8::MAX;
/// The slot in which the stub keeps the number of its report descriptor.
pub const REPORT_SLOT: u8 = 0;
/// The position of the sort in [`Op::code`].
pub const SORT_SHIFT: u32 = 16;
/// A value in [`Op::tolerate`]: ENOSYS, and EPERM, with which an outer filter may refuse a call
/// that it does not know.
pub const MISSING: u16 = u16::MAX;
/// A value in [`Op::tolerate`]: any errno.
pub const ANY: u16 = u16::MAX - 1;
/// The value of [`Record::op`] in the first [`record::STAMP`].
pub const BEGIN: u32 = u32::MAX;
/// The value of [`Header::fail_at`] for a plan without an injected failure.
pub const NO_FAILURE: u32 = u32::MAX;

/// The first word of [`Elsewhere`].
pub const ELSEWHERE: u32 = 0x666e_6972;

/// The place of a plan that did not fit into a message.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    pub magic: u32,
    /// The number of the plan's descriptor in the stub. A negative number means that the descriptor
    /// comes with the message, after three streams.
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
    /// The op that a test makes fail; `fail_errno` is the errno.
    pub fail_at: u32,
    pub fail_errno: i32,
}

/// One op of a plan: a system call, or one of the few operations that need more than one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Op {
    /// The low half is the operation ([`code`]). The high half is the sort of the op if the time is
    /// to be measured, and 0 otherwise.
    pub code: u32,
    /// The number of the system call, for [`code::CALL`].
    pub nr: u32,
    /// Bit i is set if `args[i]` is a slot, whose value is the argument.
    pub slot_args: u8,
    /// The slot in which the result is stored.
    pub store: u8,
    /// The number of following ops that are skipped after a success: they are the fallback of this
    /// op.
    pub skip_on_success: u8,
    /// The number of following ops that are skipped after a tolerated failure: they build on this
    /// op.
    pub skip_on_tolerated: u8,
    /// The errnos that are tolerated, or [`MISSING`]; 0 for an unused entry.
    pub tolerate: [u16; 2],
    pub args: [u64; 6],
}

/// The operations of an [`Op`].
pub mod code {
    /// Makes the system call `nr(args…)`.
    pub const CALL: u32 = 1;
    /// Finds `args[1]` below the directory `args[0]`, creates missing components as `args[2]` says,
    /// and stores an `O_PATH` descriptor.
    pub const TARGET: u32 = 2;
    /// Writes `args[2]` bytes at `args[1]` to the file of /proc named `args[0]`. Fails with EXDEV
    /// if that is on no procfs.
    pub const WRITE_FILE: u32 = 3;
    /// Fails with EOWNERDEAD if the owner of the sandbox has died.
    pub const OWNER_ALIVE: u32 = 4;
    /// Sends a record of kind `args[0]` and waits for a byte as the answer.
    pub const SYNC: u32 = 5;
    /// Sets every signal to its default action.
    pub const RESET_SIGNALS: u32 = 6;
    /// Empties the inheritable and the ambient set of capabilities.
    pub const CLEAR_INHERITABLE: u32 = 7;
    /// Forks: the child continues with the plan; the parent stays as init, and reports the end of
    /// the child. With [`SILENT_INIT`] as `args[0]`, the parent does not wait for the exec of the
    /// program, reports nothing, and keeps no descriptor.
    pub const INIT: u32 = 8;
    /// See [`INIT`].
    pub const SILENT_INIT: u64 = 1;
    /// Clones a sibling that continues with the plan, and ends this process. The sibling is born
    /// into the namespaces that were joined or made before. With [`ORPHAN`] as `args[0]`, clones a
    /// child instead; when this process ends, the system's init becomes the child's parent.
    pub const RECLONE: u32 = 9;
    /// See [`RECLONE`].
    #[allow(dead_code, reason = "only scopes of systemd have a use for it")]
    pub const ORPHAN: u64 = 1;
    /// Fails with EXDEV unless the working directory lies inside the root.
    pub const CWD_INSIDE: u32 = 10;
    /// Executes the first of the candidates `args[0]` that exists, with argv `args[1]` and
    /// environment `args[2]`, as the bits of `args[3]` ([`super::exec`]) say. A silent failure
    /// leaves its errno at `args[4]`.
    pub const EXEC: u32 = 11;
    /// Detaches the old root, with all mounts that are stacked on it, from the new root. There are
    /// at least `args[0]` such mounts.
    pub const DETACH_OLD_ROOT: u32 = 12;
    /// Fails with ENODEV unless the descriptor `args[0]` is a file of type `args[1]`, as st_mode
    /// has it, with the numbers `args[2]` and `args[3]` of a device.
    pub const IS_DEVICE: u32 = 14;
    /// Removes every capability that is not in `args[0]` from the bounding set.
    pub const DROP_BOUNDING: u32 = 13;
    /// Reports that the program is about to be executed.
    pub const ANNOUNCE: u32 = 15;
    /// Sets the flags `args[1]` and clears the flags `args[2]`, as mount(2) has them, of the mount
    /// whose root is `args[0]`. If `args[3]` is not 0, does the same for all mounts below that
    /// mount.
    pub const REMOUNT: u32 = 16;
    /// Installs the filter of the struct sock_fprog at `args[1]` with the flags `args[0]`, and
    /// sends the filter's listener. If `args[2]` is not 0, waits for a byte as the answer.
    pub const LISTEN: u32 = 17;
    /// Reports that the setup is finished, and waits for another plan; `args[0]` is the pipe of the
    /// thread that cloned. This is the last op of its plan.
    pub const PARK: u32 = 18;
    /// Enters the working directory again, by its name.
    pub const CWD_AGAIN: u32 = 19;
    /// Receives the next message on the report socket, which brings `args[1]` descriptors, and
    /// gives each its number. The numbers are the words of four bytes at `args[0]`, and lie below
    /// `args[2]`. The report socket does not lie below that.
    pub const RECEIVE_FDS: u32 = 20;
    /// Sends the descriptor `args[0]` with a record of kind `args[1]`.
    pub const SEND_FD: u32 = 21;
    /// Copies what is in the directory `args[0]` to the empty directory `args[1]`, which gets the
    /// attributes of the former, except for those in `args[2]` ([`super::copy_up`]).
    pub const COPY_UP: u32 = 22;
    /// Fails as the exec of the candidates `args[0]` would, if none of them is a file that this
    /// process may execute.
    pub const FIND: u32 = 23;
    /// Waits until the owner has the stub on record, lets go of the owner, and waits for a later
    /// process, which connects to the listener `args[0]`. The connection takes the place of the
    /// report socket. `args[1]` is the pipe of the thread that cloned. If `args[2]` is not 0, a
    /// signal that asks a process to end ends this one, also as the init of a pid namespace.
    pub const AWAIT_START: u32 = 24;
    /// Fails with EACCES if the working directory is the root.
    pub const CWD_AHEAD: u32 = 25;
    /// Stores an `O_PATH` descriptor of what is mounted on the directory `args[0]`.
    pub const TOP: u32 = 26;
}

/// Bits of `args[2]` of [`code::COPY_UP`].
pub mod copy_up {
    /// The mode stays.
    pub const MODE: u64 = 1;
    /// The owner stays.
    pub const OWNER: u64 = 2;
    /// Nothing is copied but the attributes.
    pub const NOTHING_INSIDE: u64 = 4;
}

/// Bits of `args[3]` of [`code::EXEC`], and what the stub says of it.
pub mod exec {
    /// ELIBACC, which no execve(2) returns: the program exists, and its interpreter does not.
    pub const NO_INTERPRETER: i32 = 79;
    /// [`code::ANNOUNCE`] was done before.
    pub const ANNOUNCED: u64 = 1;
    /// The stub's filter may refuse, ask about or punish every call except the exec itself.
    pub const SILENT: u64 = 2;
    /// The filter lets the stub exit.
    pub const MAY_EXIT: u64 = 4;
    /// A supervisor is asked about each exec, and shall hear of no other than the program's.
    pub const ASKED: u64 = 8;
}

/// Bits of `args[2]` of [`code::TARGET`].
pub mod target {
    /// The last component is a regular file, not a directory.
    pub const FILE: u64 = 1;
    /// No component may be a symbolic link.
    pub const NO_SYMLINKS: u64 = 2;
    /// Nothing is created.
    pub const EXISTING: u64 = 4;
    /// Directories on the path that the program could rename are bound onto themselves. The
    /// following bits need this one.
    pub const PINNED: u64 = 8;
    /// No link may be where the program could replace the link (ELOOP).
    pub const NO_LOOSE_LINKS: u64 = 16;
    /// A missing component that the program could not create is ENODATA, and not ENOENT.
    pub const NOT_TO_BE_MADE: u64 = 32;
    /// The program cannot change the files on the root's own mount, or nobody uses its changes
    /// afterwards.
    pub const FIXED_ROOT: u64 = 64;
    /// The target of a dangling link is created.
    pub const DANGLING: u64 = 128;
}

pub use super::start::Record;

/// The kinds of [`Record`]. Those of a later [start](super::start) keep their numbers for ever.
pub mod record {
    use super::super::start::kind;

    /// The spawner reports that the child exists; `value` is the pid of the child, and its pidfd
    /// comes with the message.
    pub const CLONED: u32 = 1;
    /// A step failed; no record follows.
    pub const FAILED: u32 = kind::FAILED;
    /// The clone, or the exec of the stub, failed; `value` says which
    /// ([`super::BEFORE_STUB_CLONE`]).
    pub const FAILED_BEFORE_STUB: u32 = 3;
    /// The program is about to be executed. An end of file after this record means that the program
    /// was executed.
    pub const EXEC: u32 = kind::EXEC;
    /// The stub waits for its id maps.
    pub const NEED_MAPS: u32 = 5;
    /// Init reports that the program was executed.
    pub const STARTED: u32 = 6;
    /// Init reports that the program ended; `value` is the program's wait status.
    pub const ENDED: u32 = 7;
    /// A sibling continues in the stub's place; the pidfd of the sibling comes with the message.
    pub const RECLONED: u32 = 8;
    /// The filter is installed, and its listener comes with the message. This record comes after
    /// EXEC and before the exec.
    pub const LISTENER: u32 = kind::LISTENER;
    /// The stub waits until it is moved into its control group.
    pub const NEED_GROUP: u32 = 10;
    /// The setup is finished; the stub waits for another plan.
    pub const PARKED: u32 = 11;
    /// The time that one sort of ops took, where `op` is the first op of the sort. With
    /// [`super::BEGIN`] as `op`, the time at which the first op began. The unit is nanoseconds, of
    /// CLOCK_REALTIME; `errno` is the low word, `value` the high one. These records come just
    /// before EXEC.
    pub const STAMP: u32 = 12;
    /// The master of the program's terminal comes with the message.
    pub const TERMINAL: u32 = 13;
    /// The setup is finished; the stub waits until it is on record.
    pub const NEED_SAVE: u32 = 14;
    /// The stub has let go of its owner, and waits for a later process to start the program.
    pub const CREATED: u32 = 15;
    /// The root is made and not entered yet; the stub waits for what is to run before that.
    pub const NEED_HOOKS: u32 = 16;
    /// The file that a rule of Landlock is about comes with the message, as an `O_PATH` descriptor.
    /// These records come in the order of the rules.
    pub const RULE_FILE: u32 = 17;
    /// The stub is the last of its kind, and waits for the scheduling that no fork hands down.
    pub const NEED_SCHEDULING: u32 = 18;
}

/// `value` of [`record::FAILED_BEFORE_STUB`]: the clone was refused.
pub const BEFORE_STUB_CLONE: i32 = 0;
/// `value` of [`record::FAILED_BEFORE_STUB`]: the stub could not be executed.
pub const BEFORE_STUB_EXEC: i32 = 1;
/// `value` of [`record::FAILED_BEFORE_STUB`]: no file of the stub could be made, and there was no
/// clone.
pub const BEFORE_STUB_IMAGE: i32 = 2;
/// `value` of [`record::FAILED_BEFORE_STUB`]: the descriptors did not fit into the spawner's table,
/// and there was no clone.
pub const BEFORE_STUB_FDS: i32 = 3;
