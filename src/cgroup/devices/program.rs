//! The rules as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`, which the kernel runs at each open
//! and mknod.
//!
//! The program is a decision tree: first the type, then the major number, then the minor number,
//! then the access. In a chain of rules the kernel's verifier would follow every path with all that
//! it knows about the numbers, and loading 30 rules would take milliseconds. No path of the tree
//! tests a number that is already known.

use rbpf::insn_builder::{Arch, BpfCode, Cond, Instruction, IntoBytes, MemSize, Source};

use super::device::{DeviceAccess, Kind};
use super::rules::Devices;
use super::table::{Minors, Table};

/// Offsets in `struct bpf_cgroup_dev_ctx`: type and access in one word, then the two numbers.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// The registers that the program uses.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const REQUEST_TYPE: u8 = 2;
const REQUEST_ACCESS: u8 = 3;
const REQUEST_MAJOR: u8 = 4;
const REQUEST_MINOR: u8 = 5;

/// Returns the kernel's `BPF_DEVCG_DEV_*` of a type. The access bits are those of `DeviceAccess`.
fn type_number(kind: Kind) -> u32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

/// A node of the tree. Each node is one BPF instruction, so that jump distances can be counted.
#[derive(Debug, Clone, Copy)]
enum Branch {
    /// Jumps to the verdict.
    Done(DeviceAccess),
    /// Jumps to the verdict if the register holds the number.
    DoneIf(u8, u32, DeviceAccess),
    /// Skips this many instructions unless the register holds the number.
    SkipUnless(u8, u32, usize),
}

/// Returns the program in the form that `BPF_PROG_LOAD` takes.
pub(super) fn assemble(devices: &Devices) -> Vec<u8> {
    let tree = tree(&devices.table(Kind::Char), &devices.table(Kind::Block));
    let mut code = BpfCode::new();
    code.load_x(MemSize::Word).set_dst(REQUEST_TYPE).set_src(CONTEXT).set_off(ACCESS_TYPE).push();
    code.mov(Source::Reg, Arch::X32).set_dst(REQUEST_ACCESS).set_src(REQUEST_TYPE).push();
    code.right_shift(Source::Imm, Arch::X32).set_dst(REQUEST_ACCESS).set_imm(16).push();
    code.bit_and(Source::Imm, Arch::X32).set_dst(REQUEST_TYPE).set_imm(0xffff).push();
    code.load_x(MemSize::Word).set_dst(REQUEST_MAJOR).set_src(CONTEXT).set_off(MAJOR).push();
    code.load_x(MemSize::Word).set_dst(REQUEST_MINOR).set_src(CONTEXT).set_off(MINOR).push();
    let verdicts = Verdicts::of(&tree);
    for (at, branch) in tree.iter().enumerate() {
        // A jump counts from the instruction after itself.
        let left = tree.len() - at - 1;
        match *branch {
            Branch::Done(access) => {
                code.jump_unconditional().set_off(distance(left + verdicts.offset(access))).push();
            }
            Branch::DoneIf(register, number, access) => {
                let to = distance(left + verdicts.offset(access));
                let jump = code.jump_conditional(Cond::Equals, Source::Imm);
                jump.set_dst(register).set_imm(number as i32).set_off(to).push();
            }
            Branch::SkipUnless(register, number, count) => {
                let jump = code.jump_conditional(Cond::NotEquals, Source::Imm);
                jump.set_dst(register).set_imm(number as i32).set_off(distance(count)).push();
            }
        }
    }
    verdicts.write(&mut code);
    code.into_bytes().to_vec()
}

/// Converts a jump distance. Every distance fits, because the rules need at most `BRANCHES_MAX`.
fn distance(count: usize) -> i16 {
    i16::try_from(count).unwrap_or(i16::MAX)
}

fn tree(chars: &Table, blocks: &Table) -> Vec<Branch> {
    let mut tree = Vec::new();
    if chars != blocks {
        let of_blocks = branches(blocks);
        tree.push(Branch::SkipUnless(REQUEST_TYPE, type_number(Kind::Block), of_blocks.len()));
        tree.extend(of_blocks);
    }
    tree.extend(branches(chars));
    tree
}

fn branches(table: &Table) -> Vec<Branch> {
    let mut branches = Vec::new();
    for (major, minors) in &table.named {
        let inner = leaves(minors);
        branches.push(Branch::SkipUnless(REQUEST_MAJOR, *major, inner.len()));
        branches.extend(inner);
    }
    branches.extend(leaves(&table.others));
    branches
}

fn leaves(minors: &Minors) -> Vec<Branch> {
    let named = minors.named.iter().map(|(minor, access)| Branch::DoneIf(REQUEST_MINOR, *minor, *access));
    named.chain(std::iter::once(Branch::Done(minors.others))).collect()
}

/// The ends of the program that some branch reaches. The kernel refuses a program with unreachable
/// instructions. Each end exists once, and the last one denies.
struct Verdicts {
    reached: Vec<DeviceAccess>,
}

impl Verdicts {
    fn of(tree: &[Branch]) -> Verdicts {
        let ends = tree.iter().filter_map(|branch| match branch {
            Branch::Done(access) | Branch::DoneIf(_, _, access) => Some(*access),
            Branch::SkipUnless(..) => None,
        });
        let mut reached: Vec<DeviceAccess> = ends.collect();
        if reached.iter().any(|access| !access.is_all()) {
            reached.push(DeviceAccess::empty());
        }
        reached.sort_unstable_by(|a, b| b.cmp(a));
        reached.dedup();
        Verdicts { reached }
    }

    /// Returns the number of instructions between the tree and this verdict.
    fn offset(&self, access: DeviceAccess) -> usize {
        self.reached.iter().take_while(|one| **one != access).map(|one| Verdicts::length(*one)).sum()
    }

    /// Returns the length of a verdict: a result and the exit, and for partial access first a test
    /// whether the request asks for more than is allowed.
    fn length(access: DeviceAccess) -> usize {
        if access.is_all() || access.is_empty() { 2 } else { 4 }
    }

    fn write(&self, code: &mut BpfCode) {
        for access in &self.reached {
            if Verdicts::length(*access) > 2 {
                let denied = i32::from((!*access).bits());
                code.bit_and(Source::Imm, Arch::X32).set_dst(REQUEST_ACCESS).set_imm(denied).push();
                let behind = self.offset(*access) + Verdicts::length(*access);
                let to_the_last = self.offset(DeviceAccess::empty()) - behind + 2;
                let jump = code.jump_conditional(Cond::NotEquals, Source::Imm);
                jump.set_dst(REQUEST_ACCESS).set_imm(0).set_off(distance(to_the_last)).push();
            }
            code.mov(Source::Imm, Arch::X32).set_dst(RESULT).set_imm(i32::from(!access.is_empty())).push();
            code.exit().push();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Random, all_devices, decide};
    use super::*;
    use crate::cgroup::devices::device::Device;

    /// Returns whether the program, run in an emulator, permits the request.
    fn permits(code: &[u8], kind: Kind, major: u32, minor: u32, request: DeviceAccess) -> bool {
        let vm = rbpf::EbpfVmRaw::new(Some(code)).unwrap();
        let word = (u32::from(request.bits()) << 16) | type_number(kind);
        let mut context: Vec<u8> = [word, major, minor].into_iter().flat_map(u32::to_ne_bytes).collect();
        vm.execute_program(&mut context).unwrap() == 1
    }

    #[test]
    fn a_program_permits_what_the_rules_allow() {
        let mut random = Random(0xb9f);
        for _ in 0..60 {
            let devices = random.devices();
            let code = assemble(&devices);
            for (kind, major, minor) in all_devices() {
                let allowed = decide(&devices, kind, major, minor);
                for request in (1..8).map(DeviceAccess::from_bits_truncate) {
                    let got = permits(&code, kind, major, minor, request);
                    assert_eq!(got, allowed.contains(request), "{request:?} {kind:?} {major}:{minor} {devices:?}");
                }
            }
        }
    }

    #[test]
    fn the_longest_list_fits_into_a_program_of_the_oldest_kernel() {
        let rules = super::super::rules::RULES_MAX as u32;
        let one_by_one = (0..rules).fold(Devices::none(), |all, n| {
            all.allow(Device::char(n, n), DeviceAccess::from_bits_truncate(1 + (n % 6) as u8))
        });
        let crossed = (1..40).fold(Devices::none(), |all, n| {
            let access = DeviceAccess::from_bits_truncate(1 + (n % 6) as u8);
            all.allow(Device::char(n, None), access).allow(Device::char(None, n), !access)
        });
        for devices in [&one_by_one, &crossed] {
            assert_eq!(devices.invalid(), []);
            assert!(assemble(devices).len() / 8 <= 4096);
            if nix::unistd::geteuid().is_root() {
                crate::sys::bpf::load_device_program(&assemble(devices)).unwrap();
            }
        }
        let too_many = (0..250).fold(Devices::none(), |all, n| {
            all.allow(Device::char(n, None), DeviceAccess::READ).allow(Device::char(None, n), DeviceAccess::WRITE)
        });
        assert_eq!(too_many.invalid().len(), 1);
        let last = rules - 1;
        let access = DeviceAccess::from_bits_truncate(1 + (last % 6) as u8);
        assert!(permits(&assemble(&one_by_one), Kind::Char, last, last, access));
        assert!(!permits(&assemble(&one_by_one), Kind::Char, last, last - 1, access));
    }

    #[test]
    fn the_kernel_takes_every_program() {
        let mut random = Random(0xce11);
        for _ in 0..200 {
            match crate::sys::bpf::load_device_program(&assemble(&random.devices())) {
                Err(nix::errno::Errno::EPERM) if !nix::unistd::geteuid().is_root() => return,
                result => drop(result.unwrap()),
            }
        }
    }

    #[test]
    fn no_rules_are_one_verdict() {
        // Six instructions read the request; then follow the jump and the end.
        assert_eq!(assemble(&Devices::none()).len() / 8, 6 + 1 + 2);
    }
}
