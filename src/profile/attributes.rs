//! Scheduling and placement, from a profile and to it.

use super::file::{IoPriorityTable, MemoryPolicyTable, SchedulerTable};
use super::forms::{IoClass, MemoryMode, SchedulerPolicy, Words};
use super::keys::no_text;
use super::refuse;
use super::text::{Form, Text};
use crate::error::Result;
use crate::program::{IoPriority, MemoryPolicy, Scheduler};

/// The flags that a list names, and the list of flags.
pub(super) fn flags_of<T: bitflags::Flags + Copy>(names: Option<&[Text<T>]>) -> T {
    names.into_iter().flatten().fold(T::empty(), |all, name| all.union(name.0))
}

pub(super) fn flags_key<T: bitflags::Flags + Copy>(call: &str, flags: T) -> Result<Vec<Text<T>>> {
    if flags.contains_unknown_bits() {
        return Err(no_text(call, "a flag without a name"));
    }
    Ok(T::FLAGS.iter().map(|flag| *flag.value()).filter(|flag| flags.contains(*flag)).map(Text).collect())
}

pub(super) fn scheduler(table: &SchedulerTable) -> Result<Scheduler> {
    let SchedulerTable { policy, nice, priority, runtime, deadline, period, flags } = table;
    let times = (runtime.map(|time| time.0), deadline.map(|time| time.0), period.map(|time| time.0));
    let made = match (policy.0, nice, priority, times) {
        (SchedulerPolicy::Other, Some(nice), None, (None, None, None)) => Scheduler::other(*nice),
        (SchedulerPolicy::Batch, Some(nice), None, (None, None, None)) => Scheduler::batch(*nice),
        (SchedulerPolicy::Idle, None, None, (None, None, None)) => Scheduler::idle(),
        (SchedulerPolicy::Fifo, None, Some(priority), (None, None, None)) => Scheduler::fifo(*priority),
        (SchedulerPolicy::RoundRobin, None, Some(priority), (None, None, None)) => Scheduler::round_robin(*priority),
        (SchedulerPolicy::Deadline, None, None, (Some(runtime), Some(deadline), Some(period))) => {
            Scheduler::deadline(runtime, deadline, period)
        }
        (policy, ..) => {
            let needs = match policy {
                SchedulerPolicy::Other | SchedulerPolicy::Batch => "`nice`",
                SchedulerPolicy::Fifo | SchedulerPolicy::RoundRobin => "`priority`",
                SchedulerPolicy::Deadline => "`runtime`, `deadline` and `period`",
                SchedulerPolicy::Idle => "no number",
            };
            return Err(refuse(format!("scheduler: {} has {needs}, and nothing else", policy.write())));
        }
    };
    Ok(made.flags(flags_of(flags.as_deref())))
}

pub(super) fn scheduler_key(own: &Scheduler) -> Result<SchedulerTable> {
    let flags = Some(flags_key("scheduler", own.flags)?).filter(|flags| !flags.is_empty());
    let made = SchedulerPolicy::WORDS.into_iter().find_map(|(_, policy)| {
        let (is_nice, is_deadline) = match policy {
            SchedulerPolicy::Other | SchedulerPolicy::Batch => (true, false),
            SchedulerPolicy::Deadline => (false, true),
            _ => (false, false),
        };
        let has_priority = matches!(policy, SchedulerPolicy::Fifo | SchedulerPolicy::RoundRobin);
        let time = |time| is_deadline.then_some(Text(time));
        let table = SchedulerTable {
            policy: Text(policy),
            nice: is_nice.then_some(own.nice),
            priority: has_priority.then_some(own.priority),
            runtime: time(own.runtime),
            deadline: time(own.deadline),
            period: time(own.period),
            flags: flags.clone(),
        };
        scheduler(&table).is_ok_and(|made| made == *own).then_some(table)
    });
    made.ok_or_else(|| no_text("scheduler", "this scheduling"))
}

pub(super) fn io_priority(table: &IoPriorityTable) -> Result<IoPriority> {
    match (table.class.0, table.level) {
        (IoClass::Realtime, Some(level)) => Ok(IoPriority::realtime(level)),
        (IoClass::BestEffort, Some(level)) => Ok(IoPriority::best_effort(level)),
        (IoClass::Idle, None) => Ok(IoPriority::idle()),
        (IoClass::Idle, Some(_)) => Err(refuse("io_priority: idle has no `level`")),
        (class, None) => Err(refuse(format!("io_priority: {} has a `level`", class.write()))),
    }
}

pub(super) fn io_priority_key(own: &IoPriority) -> Result<IoPriorityTable> {
    let made = IoClass::WORDS.into_iter().find_map(|(_, class)| {
        let level = Some(own.level).filter(|_| class != IoClass::Idle);
        let table = IoPriorityTable { class: Text(class), level };
        io_priority(&table).is_ok_and(|made| made == *own).then_some(table)
    });
    made.ok_or_else(|| no_text("io_priority", "this priority"))
}

pub(super) fn memory_policy(table: &MemoryPolicyTable) -> Result<MemoryPolicy> {
    let MemoryPolicyTable { mode, nodes, flags } = table;
    let numbers = || nodes.iter().flatten().map(|node| *node as usize);
    let made = match (mode.0, nodes.as_deref()) {
        (MemoryMode::SystemDefault, None) => MemoryPolicy::system_default(),
        (MemoryMode::Local, None) => MemoryPolicy::local(),
        (MemoryMode::Preferred, Some([node])) => MemoryPolicy::preferred(*node as usize),
        (MemoryMode::Bind, Some(_)) => MemoryPolicy::bind(numbers()),
        (MemoryMode::Interleave, Some(_)) => MemoryPolicy::interleave(numbers()),
        (MemoryMode::PreferredMany, Some(_)) => MemoryPolicy::preferred_many(numbers()),
        (MemoryMode::WeightedInterleave, Some(_)) => MemoryPolicy::weighted_interleave(numbers()),
        (mode, _) => {
            let needs = match mode {
                MemoryMode::SystemDefault | MemoryMode::Local => "no `nodes`",
                MemoryMode::Preferred => "one of `nodes`",
                _ => "`nodes`",
            };
            return Err(refuse(format!("memory_policy: {} has {needs}", mode.write())));
        }
    };
    Ok(made.flags(flags_of(flags.as_deref())))
}

pub(super) fn memory_policy_key(own: &MemoryPolicy) -> Result<MemoryPolicyTable> {
    let flags = Some(flags_key("memory_policy", own.flags)?).filter(|flags| !flags.is_empty());
    let nodes = numbers_key("memory_policy", &own.nodes)?;
    let made = MemoryMode::WORDS.into_iter().find_map(|(_, mode)| {
        let has_nodes = !matches!(mode, MemoryMode::SystemDefault | MemoryMode::Local);
        let nodes = Some(nodes.clone()).filter(|_| has_nodes);
        let table = MemoryPolicyTable { mode: Text(mode), nodes, flags: flags.clone() };
        memory_policy(&table).is_ok_and(|made| made == *own).then_some(table)
    });
    made.ok_or_else(|| no_text("memory_policy", "this policy"))
}

/// Returns processors or memory nodes as numbers.
pub(super) fn numbers_key<'n>(call: &str, numbers: impl IntoIterator<Item = &'n usize>) -> Result<Vec<u32>> {
    let number = |number: &usize| u32::try_from(*number).map_err(|_| no_text(call, "a number above 4,294,967,295"));
    numbers.into_iter().map(number).collect()
}
