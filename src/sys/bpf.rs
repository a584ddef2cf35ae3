//! Programs that decide about access to devices: bpf(2), with the type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` (4.15).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::table;

const PROG_LOAD: u64 = 5;
const PROG_ATTACH: u64 = 8;
const PROG_DETACH: u64 = 9;
const PROG_GET_FD_BY_ID: u64 = 13;
const PROG_QUERY: u64 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// The kernel also asks the programs of the groups above and below.
const F_ALLOW_MULTI: u32 = 1 << 1;
/// A group below may replace this program by its own.
const F_ALLOW_OVERRIDE: u32 = 1;
/// The kernel allows no more programs in one group (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

/// The name in `bpftool prog`: at most 15 letters, digits and underscores.
const NAME: &[u8; 16] = b"ringfence\0\0\0\0\0\0\0";
const LICENSE: &CStr = c"MIT";

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct ProgAttach {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

/// The whole structure of newer kernels: they write to `revision`, whatever size the call gives.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct GetFdById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
/// `A` is the kernel's structure for the command, from its beginning, and every pointer in it is
/// valid for what the command does with it.
unsafe fn bpf<A>(command: u64, attr: &mut A) -> Result<i32, Errno> {
    // SAFETY: the structure lives across the call, which is told its size; its pointers are the
    // caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    Errno::result(result).map(|number| number as i32)
}

/// Finds out whether this process may load programs, and whether the kernel has such. No program is
/// loaded: that of this call names a map by a descriptor that nobody has open. The kernel says so
/// (EBADF) once everything else allows the program, and before it is verified and compiled, which
/// takes a tenth of a millisecond.
pub(crate) fn check_device_programs() -> Result<(), Errno> {
    /// `BPF_LD | BPF_IMM | BPF_DW`, whose second half is the next instruction.
    const LOAD_MAP: u8 = 0x18;
    /// `BPF_PSEUDO_MAP_FD` as the source, register 1 as the target.
    const MAP_BY_FD: u8 = 0x11;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`: register 0 is 0.
    const NO: u8 = 0xb7;
    /// `BPF_JMP | BPF_EXIT`.
    const EXIT: u8 = 0x95;
    let none = (-1i32).to_ne_bytes();
    let code = [
        [LOAD_MAP, MAP_BY_FD, 0, 0, none[0], none[1], none[2], none[3]],
        [0; 8],
        [NO, 0, 0, 0, 0, 0, 0, 0],
        [EXIT, 0, 0, 0, 0, 0, 0, 0],
    ];
    match load_device_program(code.as_flattened()) {
        Err(Errno::EBADF) => Ok(()),
        other => other.map(drop),
    }
}

/// Loads a program, which the kernel verifies and compiles. Each instruction has eight bytes.
pub(crate) fn load_device_program(code: &[u8]) -> Result<OwnedFd, Errno> {
    const TRIES: u32 = 5;
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: (code.len() / 8) as u32,
        insns: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *NAME,
    };
    for _ in 1..TRIES {
        // SAFETY: the first part of `union bpf_attr` for this command; `code` and the license
        // outlive the call.
        match unsafe { bpf(PROG_LOAD, &mut attr) } {
            // The verifier stops when a signal arrives.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result.map(table::own).and_then(table::above_stdio),
        }
    }
    // SAFETY: as above.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(table::own).and_then(table::above_stdio)
}

/// Attaches the program to the v2 group: the kernel asks it about the group and all groups below,
/// beside the programs that are attached already. The program stays until the group is removed.
pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    attach_or_detach(PROG_ATTACH, group, program, F_ALLOW_MULTI)
}

/// Detaches one program from the group.
pub(crate) fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    attach_or_detach(PROG_DETACH, group, program, 0)
}

fn attach_or_detach(command: u64, group: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    let mut attr = ProgAttach {
        target_fd: group.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        attach_flags: flags,
    };
    // SAFETY: the first part of `union bpf_attr` for both commands, in which no pointer is.
    unsafe { bpf(command, &mut attr) }.map(drop)
}

/// The programs that are attached to a group itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    flags: u32,
    pub(crate) ids: Vec<u32>,
}

impl Attached {
    /// Returns true if groups below may have programs beside these.
    pub(crate) fn admits_more(&self) -> bool {
        self.flags & F_ALLOW_MULTI != 0
    }

    /// Returns true if groups below may have programs in place of these.
    pub(crate) fn gives_way(&self) -> bool {
        self.flags & F_ALLOW_OVERRIDE != 0
    }
}

/// Returns the programs that are attached to a group.
pub(crate) fn attached_device_programs(group: BorrowedFd<'_>) -> Result<Attached, Errno> {
    let mut ids = vec![0u32; PROGRAMS_MAX];
    let mut attr = ProgQuery {
        target_fd: group.as_raw_fd(),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: PROGRAMS_MAX as u32,
        ..ProgQuery::default()
    };
    // SAFETY: all of `union bpf_attr` for this command; `ids` has the room that it says.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(Attached { flags: attr.attach_flags, ids })
}

/// Returns the program with this id, if it is still loaded.
pub(crate) fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = GetFdById { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: the first part of `union bpf_attr` for this command, in which no pointer is.
    unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.map(table::own).and_then(table::above_stdio)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// `return 0`.
    const NO_DEVICE: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_check_says_what_a_load_says() {
        let both = || (check_device_programs(), load_device_program(&NO_DEVICE).map(drop));
        let (checked, loaded) = both();
        assert_eq!(checked, loaded);
        // capset(2) changes this thread alone.
        let without = move || {
            caps::clear(None, caps::CapSet::Effective).unwrap();
            both()
        };
        let (checked, loaded) = thread::spawn(without).join().unwrap();
        assert!(checked == loaded && checked == Err(Errno::EPERM), "{checked:?} {loaded:?}");
    }
}
