//! The encoding of a plan as the block of bytes that the stub maps ([`wire`]).

use super::{Arg, DraftOp, Plan};
use crate::error::Step;
use crate::stub::wire::{self, Header, Op};

/// An op that a test makes fail, and the errno. The tests check with it that a failure leaves
/// nothing behind.
pub(crate) type Injected = Option<(u32, i32)>;

struct Block {
    bytes: Vec<u8>,
    relocs: Vec<u32>,
    /// The offset of the plan's own data.
    data_at: usize,
}

impl Block {
    fn word32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn arg(&mut self, arg: Arg) {
        let value = match arg {
            Arg::Value(value) => value,
            Arg::Slot(slot) => u64::from(slot.0),
            Arg::Ptr(ptr) => {
                self.relocs.push(self.bytes.len() as u32);
                (self.data_at + ptr.0) as u64
            }
        };
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    /// Writes an op, in the order of the fields of [`Op`].
    fn op(&mut self, op: &DraftOp, timed: bool) {
        let slot_args = op
            .args
            .iter()
            .enumerate()
            .filter(|(_, arg)| matches!(arg, Arg::Slot(_)))
            .fold(0u8, |set, (i, _)| set | 1 << i);
        let sort = if timed { op.step as u32 + 1 } else { 0 };
        self.word32(op.code | sort << wire::SORT_SHIFT);
        self.word32(op.nr);
        let store = op.store.map_or(wire::NO_SLOT, |s| s.0);
        self.bytes.extend_from_slice(&[slot_args, store, op.skip_on_success, op.skip_on_tolerated]);
        for errno in op.tolerate {
            self.bytes.extend_from_slice(&errno.to_ne_bytes());
        }
        op.args.iter().for_each(|arg| self.arg(*arg));
    }
}

impl Plan {
    /// Encodes the plan. Everything in the block has its final place; only the address of the
    /// mapping is missing. With `timed`, the stub reports the time of each sort of step; a stub
    /// under a filter may not read the clock.
    pub(crate) fn encode(&self, fail: Injected, timed: bool) -> Vec<u8> {
        let header_size = size_of::<Header>();
        let data_at = header_size + self.ops.len() * size_of::<Op>();
        let mut block = Block {
            bytes: Vec::with_capacity(data_at + self.data.len() + 2048),
            relocs: Vec::with_capacity(512),
            data_at,
        };
        block.bytes.resize(header_size, 0);
        let mut filtered = false;
        for op in &self.ops {
            block.op(op, timed && !filtered);
            filtered |= op.step == Step::Seccomp;
        }
        block.bytes.extend_from_slice(&self.data);
        for place in &self.pointers {
            let at = data_at + place;
            block.relocs.push(at as u32);
            if let Some(word) = block.bytes.get_mut(at..at + 8) {
                let mut value = [0; 8];
                value.copy_from_slice(word);
                word.copy_from_slice(&(u64::from_ne_bytes(value) + data_at as u64).to_ne_bytes());
            }
        }
        block.bytes.resize(block.bytes.len().next_multiple_of(8), 0);
        let reloc_offset = block.bytes.len() as u32;
        for reloc in std::mem::take(&mut block.relocs) {
            block.word32(reloc);
        }
        let reloc_count = (block.bytes.len() as u32 - reloc_offset) / 4;
        let (fail_at, fail_errno) = fail.unwrap_or((wire::NO_FAILURE, 0));
        let header = [wire::MAGIC, self.ops.len() as u32, reloc_offset, reloc_count, fail_at, fail_errno as u32]
            .map(u32::to_ne_bytes);
        block.bytes[..header_size].copy_from_slice(header.as_flattened());
        block.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_stub_reads() {
        assert_eq!((size_of::<Header>(), size_of::<Op>()), (24, 64));
        let mut plan = Plan::new();
        let text = plan.string("abc");
        let slot = plan.slot();
        plan.call(Step::Cwd, 80, [text.into(), slot.into(), 7.into()]).store(slot).tolerate(nix::errno::Errno::ENOENT);
        let argv = plan.strings([["x".as_ref()], ["yz".as_ref()]]);
        plan.op(Step::Exec, wire::code::EXEC, [argv.into()]);
        let bytes = plan.encode(None, false);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((half(0), half(4)), (wire::MAGIC, 2));
        assert_eq!(&bytes[word(24 + 16)..][..4], b"abc\0");
        assert_eq!((bytes[24 + 8], bytes[24 + 9]), (0b010, slot.0), "slot arguments and store");
        let array = word(24 + 64 + 16);
        assert_eq!(array % 8, 0);
        assert_eq!(&bytes[word(array + 8)..][..3], b"yz\0");
        assert_eq!(word(array + 16), 0);
        let relocs: Vec<u32> = (0..half(12) as usize).map(|i| half(half(8) as usize + 4 * i)).collect();
        assert_eq!(relocs, [24 + 16, 24 + 64 + 16, array as u32, array as u32 + 8]);
    }

    #[test]
    fn what_is_under_a_filter_is_not_timed() {
        let mut plan = Plan::new();
        for step in [Step::Cwd, Step::Seccomp, Step::Exec] {
            plan.call(step, 0, []);
        }
        let sorts = |timed| {
            let bytes = plan.encode(None, timed);
            [0, 1, 2].map(|i| u16::from_ne_bytes(bytes[24 + 64 * i + 2..][..2].try_into().unwrap()))
        };
        assert_eq!(sorts(true), [Step::Cwd as u16 + 1, Step::Seccomp as u16 + 1, 0]);
        assert_eq!(sorts(false), [0; 3]);
    }

    #[test]
    fn a_failure_can_be_injected() {
        let bytes = Plan::new().encode(Some((3, 5)), false);
        assert_eq!((bytes[16], bytes[20]), (3, 5));
        assert_eq!(Plan::new().encode(None, false)[16..20], wire::NO_FAILURE.to_ne_bytes());
    }
}
