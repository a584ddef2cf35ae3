//! The protocol by which a later process starts a sandbox that was created before.
//!
//! This is all that two versions of this library ever say to each other, so it never changes. The
//! sandbox's own process listens on a socket of type `SOCK_SEQPACKET`. Who connects sends
//! [`GREETING`], and reads [`Record`]s until the end of the connection, which means that the
//! program was executed if [`kind::EXEC`] came and [`kind::FAILED`] did not. A process that is
//! greeted in another way closes the connection and listens again: a change of the protocol has
//! another greeting.
//!
//! This file is compiled into the crate and into the stub.

/// The only message to the sandbox.
pub const GREETING: [u8; 8] = *b"RFSTART1";

/// A report of the stub, or of the thread that has cloned it. Each message is one record of fixed
/// size, in the byte order of the machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub kind: u32,
    /// The index of the op to which the record belongs.
    pub op: u32,
    pub errno: i32,
    pub value: i32,
}

/// The kinds of [`Record`] that a start can bring. Whoever reads one that is not here passes over
/// it, together with a descriptor that comes with it.
pub mod kind {
    /// The op failed; no record follows.
    pub const FAILED: u32 = 2;
    /// The program is about to be executed.
    pub const EXEC: u32 = 4;
    /// The listener of the program's filter comes with the message. The program is executed once a
    /// byte has come as the answer. A process that passes over this record does not start the
    /// program.
    pub const LISTENER: u32 = 9;
}
