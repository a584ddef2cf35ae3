//! The time that each sort of step takes, for an owner that asks for it.

use core::mem::MaybeUninit;

use crate::syscall::{nr, syscall};
use crate::wire::{BEGIN, Record, record};

/// The most sorts that are counted. The times of further sorts are added to the last one.
const MOST: usize = 64;

#[derive(Clone, Copy)]
struct Sum {
    sort: u32,
    /// The first op of its sort.
    op: u32,
    nanos: u64,
}

pub struct Stamps {
    begin: u64,
    since: u64,
    /// The current sort, and the index of its sum.
    sort: u32,
    place: usize,
    count: usize,
    sums: [MaybeUninit<Sum>; MOST],
}

impl Stamps {
    pub fn new() -> Self {
        let sums = [const { MaybeUninit::uninit() }; MOST];
        Stamps { begin: 0, since: 0, sort: 0, place: 0, count: 0, sums }
    }

    /// Reads the clock if `sort` differs from the sort before. For 0, does not read the clock.
    pub fn take(&mut self, op: u32, sort: u32) {
        if sort == 0 || sort == self.sort {
            return;
        }
        let now = now();
        if self.sort == 0 {
            self.begin = now;
        } else {
            // SAFETY: `place` is below `count`, since a sort has been taken before.
            let sum = unsafe { self.sums[self.place % MOST].assume_init_mut() };
            sum.nanos += now - self.since;
        }
        (self.since, self.sort, self.place) = (now, sort, self.place_of(op, sort));
    }

    fn place_of(&mut self, op: u32, sort: u32) -> usize {
        if let Some(known) = self.sums().position(|sum| sum.sort == sort) {
            return known;
        }
        if let Some(free) = self.sums.get_mut(self.count) {
            free.write(Sum { sort, op, nanos: 0 });
            self.count += 1;
        }
        self.count - 1
    }

    fn sums(&self) -> impl Iterator<Item = Sum> + '_ {
        // SAFETY: so many were written, one after the other.
        self.sums.iter().take(self.count).map(|sum| unsafe { sum.assume_init() })
    }

    /// Returns the records to send; there are none if the clock was never read.
    pub fn all(&self) -> impl Iterator<Item = Record> + '_ {
        let stamp =
            |op, nanos: u64| Record { kind: record::STAMP, op, errno: nanos as i32, value: (nanos >> 32) as i32 };
        let begin = if self.count == 0 { None } else { Some(stamp(BEGIN, self.begin)) };
        begin.into_iter().chain(self.sums().map(move |sum| stamp(sum.op, sum.nanos)))
    }
}

/// Returns the nanoseconds of CLOCK_REALTIME.
fn now() -> u64 {
    const CLOCK_REALTIME: u64 = 0;
    let mut time = [0u64; 2];
    let _ = syscall(nr::CLOCK_GETTIME, [CLOCK_REALTIME, time.as_mut_ptr() as u64, 0, 0, 0, 0]);
    // SAFETY: `time` is a local that the kernel has just written.
    let [seconds, nanos] = unsafe { (&raw const time).read_volatile() };
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}
