//! What the kernel keeps for a process beside its ids and limits: how it is scheduled, where it
//! runs and allocates, how it is taken when memory runs out.
//!
//! Stage: inside. The badness for the OOM killer comes first of all, while /proc is the caller's;
//! the rest comes before the change of user, which takes away the right to some of it.

use std::collections::BTreeSet;

use super::scheduler::Scheduler;
use crate::error::{Problem, Step};
use crate::plan::{Plan, Ptr};
use crate::text::{Reader, Writer, hex, number, signed};

/// The most processors and memory nodes that a mask here has room for; Linux has at most 8,192 and
/// 1,024.
const MOST_BITS: usize = 8192;

bitflags::bitflags! {
    /// The execution domain of the program: personality(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Personality: u32 {
        /// uname(2) names the 32-bit machine, as `setarch linux32` has it: `PER_LINUX32`.
        const LINUX32 = 0x0008;
        /// uname(2) gives a version 2.6.40 or newer.
        const UNAME26 = 0x0002_0000;
        /// Addresses are the same in each run, also those of the stack: `setarch -R`.
        const ADDR_NO_RANDOMIZE = 0x0004_0000;
        /// Mappings are laid out upward, as before Linux 2.6.9.
        const ADDR_COMPAT_LAYOUT = 0x0020_0000;
        /// What can be read can be executed as well, in mappings of the program's.
        const READ_IMPLIES_EXEC = 0x0040_0000;
        /// The address space is at most 3 GiB.
        const ADDR_LIMIT_3GB = 0x0800_0000;
    }

    /// The flags of a [`MemoryPolicy`]: set_mempolicy(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct MemoryPolicyFlags: u32 {
        /// The numbers are those of the machine, whatever cpuset the program is in:
        /// `MPOL_F_STATIC_NODES`.
        const STATIC_NODES = 1 << 15;
        /// The numbers count the nodes of the program's cpuset: `MPOL_F_RELATIVE_NODES`.
        const RELATIVE_NODES = 1 << 14;
        /// Pages move to the node that uses them, with [`MemoryPolicy::bind`] and, since Linux
        /// 6.11, [`MemoryPolicy::preferred_many`]: `MPOL_F_NUMA_BALANCING` (5.12).
        const NUMA_BALANCING = 1 << 13;
    }
}

/// The priority of the program's input and output at the disk: ioprio_set(2). Only some of the
/// kernel's disk schedulers heed it, bfq for one.
///
/// ```
/// use ringfence::{IoPriority, Sandbox};
///
/// // A backup that waits for everybody else at the disk.
/// let sandbox = Sandbox::new().io_priority(IoPriority::idle()).command("true");
/// assert!(sandbox.status()?.success());
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IoPriority {
    class: u16,
    pub(crate) level: u8,
}

impl IoPriority {
    /// Before all others; `level` 0 is the first of 8. Needs CAP_SYS_NICE, or CAP_SYS_ADMIN.
    pub fn realtime(level: u8) -> Self {
        IoPriority { class: 1, level }
    }

    /// The class of most processes; `level` 0 is the first of 8.
    pub fn best_effort(level: u8) -> Self {
        IoPriority { class: 2, level }
    }

    /// Only while nobody else wants the disk.
    pub fn idle() -> Self {
        IoPriority { class: 3, level: 0 }
    }

    /// The same, with a level, which means nothing in this class and is shown by ioprio_get(2).
    #[cfg(feature = "oci")]
    pub(crate) fn idle_at(level: u8) -> Self {
        IoPriority { class: 3, level }
    }
}

/// The memory nodes from which the program's memory comes: set_mempolicy(2).
///
/// ```no_run
/// use ringfence::{MemoryPolicy, Sandbox};
///
/// let sandbox = Sandbox::new().memory_policy(MemoryPolicy::interleave([0, 1]));
/// sandbox.command("database").status()?;
/// # Ok::<(), ringfence::Error>(())
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: u32,
    pub(crate) flags: MemoryPolicyFlags,
    pub(crate) nodes: BTreeSet<usize>,
    /// Whether the mode needs nodes, or takes none.
    needs_nodes: bool,
}

impl MemoryPolicy {
    fn of(mode: u32, nodes: impl IntoIterator<Item = usize>, needs_nodes: bool) -> Self {
        MemoryPolicy { mode, flags: MemoryPolicyFlags::empty(), nodes: nodes.into_iter().collect(), needs_nodes }
    }

    /// As the machine does it for everybody, whatever the caller has: `MPOL_DEFAULT`.
    pub fn system_default() -> Self {
        Self::of(0, [], false)
    }

    /// From one node as long as it has memory: `MPOL_PREFERRED`.
    pub fn preferred(node: usize) -> Self {
        Self::of(1, [node], true)
    }

    /// From these nodes and no others: `MPOL_BIND`.
    pub fn bind(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self::of(2, nodes, true)
    }

    /// Page by page from these nodes in turn: `MPOL_INTERLEAVE`.
    pub fn interleave(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self::of(3, nodes, true)
    }

    /// From the node of the processor that asks: `MPOL_LOCAL` (3.8).
    pub fn local() -> Self {
        Self::of(4, [], false)
    }

    /// From these nodes as long as they have memory: `MPOL_PREFERRED_MANY` (5.15).
    pub fn preferred_many(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self::of(5, nodes, true)
    }

    /// From these nodes in turn, by the weights of the machine: `MPOL_WEIGHTED_INTERLEAVE` (6.9).
    pub fn weighted_interleave(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self::of(6, nodes, true)
    }

    /// Sets flags.
    pub fn flags(self, flags: MemoryPolicyFlags) -> Self {
        MemoryPolicy { flags, ..self }
    }
}

/// The attributes that a policy asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) cpu_affinity: Option<BTreeSet<usize>>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) personality: Option<Personality>,
}

impl Attributes {
    /// Writes the attributes for a later process.
    pub(crate) fn write(&self, line: &mut Writer) {
        let Attributes { oom_score_adj, scheduler, io_priority, cpu_affinity, memory_policy, personality } = self;
        oom_score_adj.iter().for_each(|badness| line.put("oom", badness));
        scheduler.iter().for_each(|scheduler| line.put("scheduler", scheduler.to_text()));
        io_priority.iter().for_each(|IoPriority { class, level }| line.put("io", format!("{class}:{level}")));
        cpu_affinity.iter().for_each(|cpus| line.put("affinity", mask_text(cpus)));
        memory_policy.iter().for_each(|MemoryPolicy { mode, flags, nodes, needs_nodes: _ }| {
            line.put("memory", format!("{mode}:{:x}:{}", flags.bits(), mask_text(nodes)));
        });
        personality.iter().for_each(|domain| line.put("personality", format!("{:x}", domain.bits())));
    }

    /// Reads what [`write`](Attributes::write) has written. `forks`: the program is a child of an
    /// init.
    pub(crate) fn read(line: &mut Reader<'_>, forks: bool) -> Option<Self> {
        let attributes = Attributes {
            oom_score_adj: line.maybe("oom", signed)?,
            scheduler: line.maybe("scheduler", Scheduler::from_text)?,
            io_priority: line.maybe("io", |value| {
                Some(match value.split_once(':')? {
                    ("1", level) => IoPriority::realtime(number(level)?),
                    ("2", level) => IoPriority::best_effort(number(level)?),
                    ("3", level) => IoPriority { class: 3, level: number(level).filter(|level| *level < 8)? },
                    _ => return None,
                })
            })?,
            cpu_affinity: line.maybe("affinity", mask)?,
            memory_policy: line.maybe("memory", memory_policy)?,
            personality: line
                .maybe("personality", |value| Some(Personality::from_bits_retain(hex(value)?.try_into().ok()?)))?,
        };
        attributes.invalid(forks).is_empty().then_some(attributes)
    }

    /// Returns the problems of attributes that no kernel takes. `forks`: the program is a child of
    /// an init.
    pub(crate) fn invalid(&self, forks: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(badness) = self.oom_score_adj.filter(|badness| !(-1000..=1000).contains(badness)) {
            let reason = format!("{badness} is not between -1000 and 1000");
            problems.push(Problem::invalid("oom_score_adj", reason, "give a number of that range"));
        }
        if let Some(scheduler) = &self.scheduler {
            problems.extend(scheduler.invalid());
            if forks && !self.survive_fork() {
                let reason = "an init forks the program, and the kernel gives this scheduling to no child";
                problems.push(Problem::invalid("scheduler", reason, "leave out init()"));
            }
        }
        if let Some(priority) = self.io_priority.filter(|priority| priority.level > 7) {
            let reason = format!("level {} is not between 0 and 7", priority.level);
            problems.push(Problem::invalid("io_priority", reason, "give a level of that range"));
        }
        if let Some(cpus) = &self.cpu_affinity {
            problems.extend(unusable("cpu_affinity", "processor", cpus));
        }
        if let Some(policy) = &self.memory_policy {
            if policy.needs_nodes {
                problems.extend(unusable("memory_policy", "memory node", &policy.nodes));
            }
            if policy.flags.contains(MemoryPolicyFlags::STATIC_NODES | MemoryPolicyFlags::RELATIVE_NODES) {
                let reason = "node numbers are either static or relative";
                problems.push(Problem::invalid("memory_policy", reason, "set one of the two flags"));
            }
        }
        problems
    }

    /// Returns whether a child has the same attributes.
    pub(crate) fn survive_fork(&self) -> bool {
        self.scheduler.is_none_or(|scheduler| scheduler.survives_fork())
    }

    /// Emits what is written to a file: oom_score_adj(5). Must come while /proc is the caller's and
    /// the stub can still be looked into, as the file is its owner's only so long.
    pub(crate) fn emit_badness(&self, plan: &mut Plan) {
        const FILE: &str = "/proc/self/oom_score_adj";
        if let Some(badness) = self.oom_score_adj {
            plan.write_file(Step::OomScoreAdj, FILE, &badness.to_string())
                .hint("to lower it below what the caller was given needs CAP_SYS_RESOURCE on the host");
        }
    }

    /// Emits the rest. Must come before the change of user.
    pub(crate) fn emit(&self, plan: &mut Plan) {
        if let Some(cpus) = &self.cpu_affinity {
            let (mask, bits) = emit_mask(plan, cpus);
            plan.call(Step::CpuAffinity, libc::SYS_sched_setaffinity, [0.into(), (bits / 8).into(), mask.into()])
                .hint("EINVAL: the program's cpuset has none of these processors");
        }
        if let Some(policy) = &self.memory_policy {
            let mode = policy.mode | policy.flags.bits();
            let args = if policy.needs_nodes {
                let (mask, bits) = emit_mask(plan, &policy.nodes);
                // The kernel looks at one bit less than it is told.
                [mode.into(), mask.into(), (bits + 1).into()]
            } else {
                [mode.into(), 0.into(), 0.into()]
            };
            plan.call(Step::MemoryPolicy, libc::SYS_set_mempolicy, args)
                .hint("EINVAL: the program's cpuset has none of these nodes, or the kernel is older than the mode");
        }
        if let Some(IoPriority { class, level }) = self.io_priority {
            const IOPRIO_WHO_PROCESS: u32 = 1;
            let value = u32::from(class) << 13 | u32::from(level);
            plan.call(Step::IoPriority, libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS.into(), 0.into(), value.into()])
                .hint("the realtime class needs CAP_SYS_NICE or CAP_SYS_ADMIN on the host");
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.emit(plan);
        }
        if let Some(personality) = self.personality {
            plan.call(Step::Personality, libc::SYS_personality, [personality.bits().into()]);
        }
    }
}

/// Returns a problem with numbers that make no mask.
fn unusable(call: &'static str, what: &str, numbers: &BTreeSet<usize>) -> Option<Problem> {
    let reason = match numbers.last() {
        None => format!("no {what} is named"),
        Some(most) if *most >= MOST_BITS => format!("{most} is no {what} of any machine"),
        Some(_) => return None,
    };
    Some(Problem::invalid(call, reason, "name what the machine has"))
}

/// Reads the policy of [`Attributes::write`].
fn memory_policy(text: &str) -> Option<MemoryPolicy> {
    let (mode, rest) = text.split_once(':')?;
    let (flags, nodes) = rest.split_once(':')?;
    let nodes = mask(nodes)?;
    let policy = match (mode, nodes.first(), nodes.len()) {
        ("0", None, _) => MemoryPolicy::system_default(),
        ("1", Some(node), 1) => MemoryPolicy::preferred(*node),
        ("2", Some(_), _) => MemoryPolicy::bind(nodes),
        ("3", Some(_), _) => MemoryPolicy::interleave(nodes),
        ("4", None, _) => MemoryPolicy::local(),
        ("5", Some(_), _) => MemoryPolicy::preferred_many(nodes),
        ("6", Some(_), _) => MemoryPolicy::weighted_interleave(nodes),
        _ => return None,
    };
    Some(policy.flags(MemoryPolicyFlags::from_bits_retain(hex(flags)?.try_into().ok()?)))
}

/// Writes a mask as hexadecimal words of 64 bits, the lowest first.
fn mask_text(numbers: &BTreeSet<usize>) -> String {
    words_of(numbers).iter().map(|word| format!("{word:x}")).collect::<Vec<_>>().join("+")
}

/// Reads what [`mask_text`] has written.
fn mask(text: &str) -> Option<BTreeSet<usize>> {
    let words = text.split('+').take(MOST_BITS / 64 + 1).map(hex).collect::<Option<Vec<_>>>()?;
    let bits = words.iter().enumerate().flat_map(|(index, word)| {
        let is_set = move |bit: &usize| word & 1 << bit != 0;
        (0..64).filter(is_set).map(move |bit| index * 64 + bit)
    });
    (words.len() <= MOST_BITS / 64).then(|| bits.collect())
}

/// Puts a mask into the plan, and returns it with its size in bits, a multiple of 64.
fn emit_mask(plan: &mut Plan, numbers: &BTreeSet<usize>) -> (Ptr, usize) {
    let words = words_of(numbers);
    (plan.words(&words), words.len() * 64)
}

/// Returns a bit for each number.
fn words_of(numbers: &BTreeSet<usize>) -> Vec<u64> {
    let mut words = vec![0; numbers.last().map_or(1, |most| most / 64 + 1)];
    for number in numbers {
        words[number / 64] |= 1 << (number % 64);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::scheduler::SchedulerFlags;
    use super::*;

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let invalid = |attributes: Attributes| attributes.invalid(false).len();
        assert_eq!(invalid(Attributes::default()), 0);
        assert_eq!(invalid(Attributes { oom_score_adj: Some(1001), ..Attributes::default() }), 1);
        assert_eq!(invalid(Attributes { oom_score_adj: Some(-1000), ..Attributes::default() }), 0);
        let io = |priority| invalid(Attributes { io_priority: Some(priority), ..Attributes::default() });
        assert_eq!((io(IoPriority::best_effort(7)), io(IoPriority::realtime(8))), (0, 1));
        let cpus = |cpus: &[usize]| {
            let cpu_affinity = Some(cpus.iter().copied().collect());
            invalid(Attributes { cpu_affinity, ..Attributes::default() })
        };
        assert_eq!((cpus(&[]), cpus(&[0, 8191]), cpus(&[8192]), cpus(&[usize::MAX])), (1, 0, 1, 1));
        let memory = |policy| invalid(Attributes { memory_policy: Some(policy), ..Attributes::default() });
        assert_eq!((memory(MemoryPolicy::local()), memory(MemoryPolicy::bind([]))), (0, 1));
        assert_eq!(memory(MemoryPolicy::bind([0]).flags(MemoryPolicyFlags::all())), 1);
        let scheduler = |scheduler| Attributes { scheduler: Some(scheduler), ..Attributes::default() };
        assert_eq!(scheduler(Scheduler::fifo(1)).invalid(true).len(), 0);
        assert_eq!(scheduler(Scheduler::fifo(1).reset_on_fork()).invalid(true).len(), 1);
    }

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let ms = Duration::from_millis;
        let none = Attributes::default;
        let schedulers = [
            Scheduler::other(-20),
            Scheduler::batch(7),
            Scheduler::idle(),
            Scheduler::fifo(1),
            Scheduler::round_robin(99).reset_on_fork(),
            Scheduler::deadline(ms(1), ms(2), ms(3)).flags(SchedulerFlags::all()),
        ];
        let priorities = [IoPriority::realtime(7), IoPriority::best_effort(0), IoPriority::idle()];
        let policies = [
            MemoryPolicy::system_default(),
            MemoryPolicy::preferred(70),
            MemoryPolicy::bind([0, 1, 1023]),
            MemoryPolicy::interleave([0]).flags(MemoryPolicyFlags::STATIC_NODES),
            MemoryPolicy::local(),
            MemoryPolicy::preferred_many([3]),
            MemoryPolicy::weighted_interleave([1]).flags(MemoryPolicyFlags::RELATIVE_NODES),
        ];
        let mut all = vec![none()];
        all.extend([-1000, 0, 1000].map(|badness| Attributes { oom_score_adj: Some(badness), ..none() }));
        all.extend(schedulers.map(|scheduler| Attributes { scheduler: Some(scheduler), ..none() }));
        all.extend(priorities.map(|priority| Attributes { io_priority: Some(priority), ..none() }));
        all.extend(policies.map(|policy| Attributes { memory_policy: Some(policy), ..none() }));
        all.push(Attributes { cpu_affinity: Some([0, 63, 64, 8191].into()), ..none() });
        all.push(Attributes { cpu_affinity: Some((0..MOST_BITS).collect()), ..none() });
        all.push(Attributes { personality: Some(Personality::all()), ..none() });
        for attributes in all {
            let mut line = Writer::new("x");
            attributes.write(&mut line);
            let text = line.finish();
            assert!(text.len() < 2500, "{text}");
            let mut line = Reader::new(&text, "x").unwrap();
            assert_eq!(Attributes::read(&mut line, false), Some(attributes), "{text}");
            assert!(line.is_empty(), "{text}");
        }
    }

    #[test]
    fn attributes_that_nobody_has_written_are_refused() {
        let read = |text: &str| Attributes::read(&mut Reader::new(text, "x")?, true);
        let long = format!("x,affinity={}", "1+".repeat(128) + "1");
        for text in [
            "x,oom=1001",
            "x,oom=+5",
            "x,oom=1,oom=1",
            "x,scheduler=other:0:20",
            "x,scheduler=other:0",
            "x,scheduler=idle:0:0",
            "x,scheduler=fifo:0:0",
            "x,scheduler=fifo:1:5",
            "x,scheduler=deadline:0:1:2:3",
            "x,scheduler=deadline:0:1024:2048:4096:1",
            "x,scheduler=later:0:0",
            "x,io=0:0",
            "x,io=2:8",
            "x,io=3:8",
            "x,affinity=",
            "x,affinity=0",
            "x,affinity=1++1",
            &long,
            "x,memory=1:0:3",
            "x,memory=2:0:0",
            "x,memory=4:0:1",
            "x,memory=7:0:1",
            "x,memory=2:c000:1",
            "x,personality=100000000",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let begin =
            ["x,oom=-5,scheduler=deadline:1:1024:2048:4096,io=2:7", "x,affinity=ff+1,memory=2:8000:3,personality=8"];
        crate::fuzz::texts(&begin, |text| drop(read(text)));
    }

    #[test]
    fn a_mask_has_a_bit_for_each_number() {
        let mut plan = Plan::new();
        assert_eq!(emit_mask(&mut plan, &[0, 63].into()).1, 64);
        assert_eq!(emit_mask(&mut plan, &[64].into()).1, 128);
    }
}
