//! Compiles a filter: a classic BPF program that finds the system call in a tree, and then compares
//! its arguments.
//!
//! The common crate `seccompiler` does not fit: it supports one action for what matches and one for
//! what does not, no notification, and only a kill for a foreign architecture; x32 calls on x86_64
//! pass its lists of refused calls; and it tests one call after another. With it, the default
//! profile has 1,300 instructions, and 200 as a tree. The kernel walks through the instructions for
//! each existing call when the filter is installed, which takes about 600 µs or 90 µs.

use std::collections::BTreeMap;

use super::rule::{Action, Compare, DenialRule};
use super::table::{self, AUDIT_ARCH, Architecture, X32_BIT};

/// struct sock_filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// The largest number of instructions that the kernel accepts (`BPF_MAXINSNS`).
pub(super) const MAX_LEN: usize = 4096;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

fn insn(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// The decision about one system call: the action of the first case whose comparisons all hold, or
/// else the default action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) cases: Vec<(Vec<(u8, Compare)>, Action)>,
    pub(super) otherwise: Action,
}

impl Decision {
    pub(super) fn always(action: Action) -> Self {
        Decision { cases: Vec::new(), otherwise: action }
    }

    /// Returns the action of the case whose comparisons all hold for these arguments, if there is
    /// one.
    fn case(&self, args: &[u64; 6]) -> Option<Action> {
        let holds =
            |(index, compare): &(u8, Compare)| args.get(usize::from(*index)).is_some_and(|arg| compare.holds(*arg));
        self.cases.iter().find(|(compared, _)| compared.iter().all(holds)).map(|(_, action)| *action)
    }

    /// Returns the action for a call with these arguments.
    pub(super) fn on(&self, args: [u64; 6]) -> Action {
        self.case(&args).unwrap_or(self.otherwise)
    }

    /// Returns all actions that the decision can lead to.
    pub(super) fn actions(&self) -> impl Iterator<Item = Action> {
        self.cases.iter().map(|(_, action)| *action).chain([self.otherwise])
    }
}

/// The answers of a filter to the calls of one architecture.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) calls: BTreeMap<u32, Decision>,
    /// The action for calls that are in the table and not in `calls`.
    pub(super) default: Action,
    /// The action for calls with numbers above `newest`.
    pub(super) newer: Action,
    pub(super) newest: u32,
}

impl Answers {
    pub(super) fn of(&self, number: u32) -> Decision {
        let default = if number > self.newest { self.newer } else { self.default };
        self.calls.get(&number).cloned().unwrap_or(Decision::always(default))
    }

    /// Returns the action for one call as [`code`](Answers::code) has it, with the part of the
    /// profile that decides, and the bits of each argument that the profile compares.
    fn judge(&self, number: u32, args: &[u64; 6]) -> (Action, DenialRule, [u64; 6]) {
        let decision = self.of(number);
        let case = decision.case(args);
        let rule = match case {
            _ if number > self.newest => DenialRule::Newer,
            None if decision.otherwise == self.default => DenialRule::Unlisted,
            _ => DenialRule::Named,
        };
        let mut masks = [0; 6];
        for (index, compare) in decision.cases.iter().flat_map(|(compared, _)| compared) {
            masks[usize::from(*index)] |= compare.mask();
        }
        (case.unwrap_or(decision.otherwise), rule, masks)
    }

    /// Returns the same answers, but a question in place of each errno.
    fn asking(&self) -> Answers {
        let ask_each = |decision: &Decision| Decision {
            cases: decision.cases.iter().map(|(args, action)| (args.clone(), ask(*action))).collect(),
            otherwise: ask(decision.otherwise),
        };
        Answers {
            calls: self.calls.iter().map(|(number, decision)| (*number, ask_each(decision))).collect(),
            default: ask(self.default),
            newer: ask(self.newer),
            newest: self.newest,
        }
    }

    /// Refuses seccomp(2) for a filter with a listener, as the kernel does as long as this filter
    /// has one. If it lost its listener, a program could install a filter that asks about the same
    /// calls, whose questions then come before those of this one, and let the calls through.
    fn keep_listeners_out(&mut self, arch: Option<Architecture>) {
        let Some(number) = table::number(arch, "seccomp") else { return };
        let mut decision = self.of(number);
        if decision.actions().any(Action::may_allow) {
            let is = |mask: u64, value: u64| Compare::MaskedEq { mask, value };
            let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let operation = u64::from(libc::SECCOMP_SET_MODE_FILTER);
            let asked = vec![(0, is(u64::from(u32::MAX), operation)), (1, is(listener, listener))];
            decision.cases.insert(0, (asked, Action::Errno(libc::EBUSY)));
            self.calls.insert(number, decision);
        }
    }

    /// Returns the instructions that answer the number that is loaded. `base` is a bit that all
    /// numbers have.
    fn code(&self, base: u32) -> Vec<Insn> {
        // Adjacent numbers with the same answer share one leaf of the tree.
        let mut leaves: Vec<(u32, Decision)> = Vec::new();
        for number in 0..=self.newest + 1 {
            let decision = self.of(number);
            if leaves.last().is_none_or(|(_, last)| *last != decision) {
                leaves.push((number | base, decision));
            }
        }
        // Calls of ARM's own have numbers far above.
        for (number, decision) in self.calls.range(self.newest + 2..) {
            leaves.push((number | base, decision.clone()));
            leaves.push(((number + 1) | base, Decision::always(self.newer)));
        }
        tree(&leaves)
    }
}

/// The answers of a filter.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) own: Answers,
    /// The answers to x32 calls, which have the machine's own architecture.
    pub(super) x32: Option<Answers>,
    /// The answers to calls of other architectures, by their numbers in audit(7).
    pub(super) others: Vec<(Architecture, Answers)>,
    /// The action for calls of an architecture that is not named.
    pub(super) foreign: Action,
}

/// Returns a question in place of an errno.
fn ask(action: Action) -> Action {
    if matches!(action, Action::Errno(_)) { Action::Notify } else { action }
}

impl Filter {
    /// Returns the action for one call as [`program`](Filter::program) has it, with the part of the
    /// profile that decides, and the bits of each argument that the profile compares.
    pub(super) fn judge(&self, arch: u32, number: u32, args: &[u64; 6]) -> (Action, DenialRule, [u64; 6]) {
        let found = match arch {
            AUDIT_ARCH if number >= X32_BIT => self.x32.as_ref(),
            AUDIT_ARCH => Some(&self.own),
            _ => self.others.iter().find_map(|(other, answers)| (other.audit() == arch).then_some(answers)),
        };
        let number = if arch == AUDIT_ARCH { number & !X32_BIT } else { number };
        found.map_or((self.foreign, DenialRule::Foreign, [0; 6]), |answers| answers.judge(number, args))
    }

    /// Returns the same answers, but a question in place of each errno.
    pub(super) fn asking(&self) -> Filter {
        Filter {
            own: self.own.asking(),
            x32: self.x32.as_ref().map(Answers::asking),
            others: self.others.iter().map(|(arch, answers)| (*arch, answers.asking())).collect(),
            foreign: ask(self.foreign),
        }
    }

    /// Returns the same answers for a filter that has a listener.
    pub(super) fn with_listener(mut self) -> Filter {
        self.own.keep_listeners_out(None);
        self.x32.iter_mut().for_each(|answers| answers.keep_listeners_out(Some(Architecture::X32)));
        self.others.iter_mut().for_each(|(arch, answers)| answers.keep_listeners_out(Some(*arch)));
        self
    }

    pub(super) fn program(&self) -> Vec<Insn> {
        let foreign = insn(RETURN, self.foreign.code());
        let x32 = self.x32.as_ref().map_or(vec![foreign], |answers| answers.code(X32_BIT));
        let mut program = vec![insn(LOAD, ARCH)];
        let mut own = vec![insn(LOAD, NUMBER)];
        own.extend(where_true(IF_GE, X32_BIT, x32));
        own.extend(self.own.code(0));
        program.extend(where_true(IF_EQ, AUDIT_ARCH, own));
        for (arch, answers) in &self.others {
            let mut block = vec![insn(LOAD, NUMBER)];
            block.extend(answers.code(0));
            program.extend(where_true(IF_EQ, arch.audit(), block));
        }
        program.push(foreign);
        program
    }
}

/// Returns a block behind a test of the loaded word. The block ends with a return.
fn where_true(test: u16, k: u32, block: Vec<Insn>) -> Vec<Insn> {
    let mut code = match u8::try_from(block.len()) {
        Ok(over) => vec![branch(test, k, 0, over)],
        // A branch reaches 255 instructions, and a jump reaches all.
        Err(_) => vec![branch(test, k, 1, 0), insn(JUMP, block.len() as u32)],
    };
    code.extend(block);
    code
}

/// Returns the instructions in the kernel's format.
pub(super) fn bytes(program: &[Insn]) -> Vec<u8> {
    let insn = |i: &Insn| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(insn).collect()
}

fn tree(leaves: &[(u32, Decision)]) -> Vec<Insn> {
    match leaves {
        [] => Vec::new(),
        [(_, decision)] => leaf(decision),
        _ => {
            let (low, high) = leaves.split_at(leaves.len() / 2);
            let (left, right) = (tree(low), tree(high));
            let pivot = high[0].0;
            let mut code = match u8::try_from(left.len()) {
                Ok(over) => vec![branch(IF_GE, pivot, over, 0)],
                // A branch reaches 255 instructions, and a jump reaches all.
                Err(_) => vec![branch(IF_GE, pivot, 0, 1), insn(JUMP, left.len() as u32)],
            };
            code.extend(left);
            code.extend(right);
            code
        }
    }
}

fn leaf(decision: &Decision) -> Vec<Insn> {
    let mut code = Vec::new();
    for (args, action) in &decision.cases {
        // Built from the end, so that each comparison knows the distance to the next case. Eight
        // comparisons have at most 56 instructions, which a branch can skip.
        let mut case = vec![insn(RETURN, action.code())];
        for (index, compare) in args.iter().rev() {
            let mut head = comparison(*index, *compare, case.len() as u8);
            head.append(&mut case);
            case = head;
        }
        code.append(&mut case);
    }
    code.push(insn(RETURN, decision.otherwise.code()));
    code
}

/// Continues if the comparison holds, and otherwise skips `over` instructions. BPF has words of 32
/// bits, and system calls have words of 64 bits.
fn comparison(index: u8, compare: Compare, over: u8) -> Vec<Insn> {
    let low_at = ARGS + 8 * u32::from(index);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    // The upper half decides, unless it is equal.
    let ordered = |value: u64, low_test: u16, wanted: bool| {
        let (high, low) = halves(value);
        let (greater, low_yes, low_no) = if wanted { (3, 0, over) } else { (over + 3, over, 0) };
        let less = if wanted { over + 2 } else { 2 };
        vec![
            insn(LOAD, low_at + 4),
            branch(IF_GT, high, greater, 0),
            branch(IF_EQ, high, 0, less),
            insn(LOAD, low_at),
            branch(low_test, low, low_yes, low_no),
        ]
    };
    match compare {
        Compare::Eq(value) => masked(low_at, u64::MAX, value, over),
        Compare::MaskedEq { mask, value } => masked(low_at, mask, value, over),
        Compare::Ne(value) => {
            let (high, low) = halves(value);
            let same = branch(IF_EQ, high, 0, 2);
            vec![insn(LOAD, low_at + 4), same, insn(LOAD, low_at), branch(IF_EQ, low, over, 0)]
        }
        Compare::Gt(value) => ordered(value, IF_GT, true),
        Compare::Ge(value) => ordered(value, IF_GE, true),
        Compare::Lt(value) => ordered(value, IF_GE, false),
        Compare::Le(value) => ordered(value, IF_GT, false),
    }
}

/// A half without relevant bits is not compared.
fn masked(low_at: u32, mask: u64, value: u64, over: u8) -> Vec<Insn> {
    let mut code = Vec::new();
    let halves = [(low_at, mask as u32, value as u32), (low_at + 4, (mask >> 32) as u32, (value >> 32) as u32)];
    for (at, mask, value) in halves.into_iter().filter(|(_, mask, _)| *mask != 0) {
        let mut head = vec![insn(LOAD, at)];
        if mask != u32::MAX {
            head.push(insn(AND, mask));
        }
        head.push(branch(IF_EQ, value, 0, over + code.len() as u8));
        head.append(&mut code);
        code = head;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on a call, as the kernel does.
    fn run(program: &[Insn], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            _ => {
                let arg = args[(offset - ARGS) as usize / 8];
                if (offset - ARGS).is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
        };
        let (mut a, mut pc) = (0u32, 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            let holds = match i.code {
                LOAD => {
                    a = word(i.k);
                    continue;
                }
                AND => {
                    a &= i.k;
                    continue;
                }
                RETURN => return i.k,
                JUMP => {
                    pc += i.k as usize;
                    continue;
                }
                IF_EQ => a == i.k,
                IF_GT => a > i.k,
                IF_GE => a >= i.k,
                other => panic!("no instruction {other:#x}"),
            };
            pc += usize::from(if holds { i.jt } else { i.jf });
        }
    }

    const EDGES: [u64; 12] = [
        0,
        1,
        7,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x7_0000_0007,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];

    fn answers(calls: BTreeMap<u32, Decision>) -> Answers {
        Answers { calls, default: Action::EPERM, newer: Action::ENOSYS, newest: 470 }
    }

    fn alone(own: Answers) -> Filter {
        Filter { own, x32: None, others: Vec::new(), foreign: Action::KillProcess }
    }

    #[test]
    fn every_comparison_is_that_of_the_numbers() {
        let kinds: [fn(u64) -> Compare; 8] = [
            Compare::Eq,
            Compare::Ne,
            Compare::Lt,
            Compare::Le,
            Compare::Gt,
            Compare::Ge,
            |value| Compare::MaskedEq { mask: value | 0x10, value },
            |value| Compare::int(value as u32),
        ];
        for kind in kinds {
            for value in EDGES {
                let compare = kind(value);
                // The comparison stands behind another one and before another case, so that a wrong
                // distance is noticed.
                let first = (vec![(5, Compare::Ge(3)), (2, compare)], Action::Allow);
                let second = (vec![(5, Compare::Le(4))], Action::Trap);
                let decision = Decision { cases: vec![first, second], otherwise: Action::KillThread };
                let own = alone(answers([(7, decision)].into()));
                let program = own.program();
                for arg in EDGES {
                    for other in [2, 3, 4, 5] {
                        let expected = match other {
                            3.. if compare.holds(arg) => Action::Allow,
                            ..=4 => Action::Trap,
                            _ => Action::KillThread,
                        };
                        let args = [0, 0, arg, 0, 0, other];
                        let got = run(&program, AUDIT_ARCH, 7, args);
                        assert_eq!(got, expected.code(), "{compare:?} of {arg:#x}, {other}");
                        assert_eq!(own.judge(AUDIT_ARCH, 7, &args).0, expected, "{compare:?} of {arg:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_number_finds_its_answer() {
        // Far apart, and with so long a body that the branches of the tree do not reach.
        let long = Decision {
            cases: (0..100).map(|i| (vec![(0, Compare::Eq(i))], Action::Errno(i as i32 + 1))).collect(),
            otherwise: Action::Log,
        };
        let calls: BTreeMap<u32, Decision> = (0..470)
            .filter(|n| n % 3 == 0)
            .map(|n| (n, if n % 150 == 0 { long.clone() } else { Decision::always(Action::Errno(n as i32 + 1)) }))
            .collect();
        let filter = alone(answers(calls));
        let (program, asking) = (filter.program(), filter.asking().program());
        assert!(program.len() <= MAX_LEN);
        for number in (0..600).chain([X32_BIT - 1]) {
            let decision = filter.own.of(number);
            let expected = if decision.cases.is_empty() { decision.otherwise } else { Action::Errno(43) };
            assert_eq!(run(&program, AUDIT_ARCH, number, [42, 0, 0, 0, 0, 0]), expected.code(), "{number}");
            assert_eq!(filter.judge(AUDIT_ARCH, number, &[42, 0, 0, 0, 0, 0]).0, expected, "{number}");
            let asked = if matches!(expected, Action::Errno(_)) { Action::Notify } else { expected };
            assert_eq!(run(&asking, AUDIT_ARCH, number, [42, 0, 0, 0, 0, 0]), asked.code(), "{number}");
        }
        for number in [X32_BIT, X32_BIT + 3, u32::MAX] {
            assert_eq!(run(&program, AUDIT_ARCH, number, [0; 6]), Action::KillProcess.code(), "x32");
            assert_eq!(filter.judge(AUDIT_ARCH, number, &[0; 6]).1, DenialRule::Foreign, "x32");
        }
        assert_eq!(run(&program, 0x4000_0003, 3, [0; 6]), Action::KillProcess.code(), "i386");
    }

    #[test]
    fn each_architecture_has_its_own_answers() {
        let only = |number: u32, errno: i32, count: u32| {
            let calls = (0..count).map(|n| (n * 2, Decision::always(Action::Errno(n as i32 % 50 + 1))));
            let far = (0xf_0005, Decision::always(Action::Trap));
            let calls = calls.chain([(number, Decision::always(Action::Errno(errno))), far]).collect();
            Answers { calls, default: Action::Log, newer: Action::ENOSYS, newest: 600 }
        };
        // Short blocks, and such as no branch reaches over.
        for count in [0, 200] {
            let others = vec![(Architecture::X86, only(20, 70, count)), (Architecture::Arm, only(20, 71, count))];
            let own = only(20, 72, count);
            let filter = Filter { own, x32: Some(only(20, 73, count)), others, foreign: Action::KillProcess };
            let program = filter.program();
            assert!(program.len() < MAX_LEN);
            let on = |arch, number| run(&program, arch, number, [0; 6]);
            for (arch, base, errno) in
                [(AUDIT_ARCH, 0, 72), (AUDIT_ARCH, X32_BIT, 73), (0x4000_0003, 0, 70), (0x4000_0028, 0, 71)]
            {
                assert_eq!(on(arch, base | 20), Action::Errno(errno).code(), "{arch:#x} {base:#x} {count}");
                assert_eq!(on(arch, base | 21), Action::Log.code(), "{arch:#x} {base:#x} {count}");
                assert_eq!(on(arch, base | 601), Action::ENOSYS.code(), "{arch:#x} {base:#x} {count}");
                assert_eq!(on(arch, base | 0xf_0005), Action::Trap.code(), "{arch:#x} {base:#x} {count}");
                assert_eq!(on(arch, base | 0xf_0006), Action::ENOSYS.code(), "{arch:#x} {base:#x} {count}");
            }
            assert_eq!(on(0x1234, 20), Action::KillProcess.code());
        }
    }

    #[test]
    fn a_filter_with_a_listener_refuses_every_other() {
        let number = |arch| table::number(arch, "seccomp").unwrap();
        let allow = |arch| Answers { newest: table::newest(arch), ..answers(BTreeMap::new()) };
        let filter = Filter {
            own: Answers { default: Action::Allow, ..allow(None) },
            x32: Some(Answers { default: Action::Notify, ..allow(Some(Architecture::X32)) }),
            others: vec![(Architecture::X86, Answers { default: Action::Allow, ..allow(Some(Architecture::X86)) })],
            foreign: Action::KillProcess,
        };
        let program = filter.with_listener().program();
        let own = (AUDIT_ARCH, number(None), Action::Allow);
        let x32 = (AUDIT_ARCH, X32_BIT | number(Some(Architecture::X32)), Action::Notify);
        for (arch, number, otherwise) in [own, x32, (0x4000_0003, number(Some(Architecture::X86)), Action::Allow)] {
            let on = |operation, flags| run(&program, arch, number, [operation, flags, 0, 0, 0, 0]);
            for (operation, flags) in [(1, 8), (1 | 1 << 32, 8 | 1 << 32), (1, 0xff)] {
                assert_eq!(on(operation, flags), Action::Errno(libc::EBUSY).code(), "{arch:#x}: {operation} {flags}");
            }
            for (operation, flags) in [(1, 0), (0, 8), (2, 0), (1, 8 << 32)] {
                assert_eq!(on(operation, flags), otherwise.code(), "{arch:#x}: {operation} {flags}");
            }
        }
    }
}
