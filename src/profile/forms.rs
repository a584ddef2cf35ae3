//! The forms of values: numbers, words and short texts.

use std::time::Duration;

use caps::Capability;
use nix::errno::Errno;

use super::text::Form;
use crate::cgroup::{Device, DeviceAccess};
use crate::feature::Feature;
use crate::mount::HidePid;
use crate::namespace::{IdMap, Namespaces, TimeOffset, UserLimit};
use crate::program::{MemoryPolicyFlags, Personality, Resource, SchedulerFlags, Session};
use crate::security::{Action, Architecture, SecureBits};
use crate::units::Bytes;

/// An unsigned number. TOML has none above `i64::MAX`; these are texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl Form for Number {
    const WHAT: &str = "a number, 0x and hexadecimal digits, or unlimited";

    fn read(text: &str) -> Option<Self> {
        let read = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
            None if text == "unlimited" => Some(u64::MAX),
            None => text.parse().ok().filter(|_| !text.starts_with('+')),
        };
        read.map(Number)
    }

    fn write(&self) -> String {
        if self.0 == u64::MAX { "unlimited".to_owned() } else { self.0.to_string() }
    }

    fn of_number(number: u64) -> Option<Self> {
        Some(Number(number))
    }

    fn number(&self) -> Option<i64> {
        i64::try_from(self.0).ok()
    }
}

/// The permission bits of a file, which are octal as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

impl Form for Mode {
    const WHAT: &str = "permission bits, as in \"0755\"";

    fn read(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777).map(Mode)
    }

    fn write(&self) -> String {
        format!("{:04o}", self.0)
    }
}

impl Form for Bytes {
    const WHAT: &str = "an amount of bytes, as in \"64 MiB\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(unit, _)| self.get() > 0 && self.get().is_multiple_of(*unit));
        let (unit, name) = unit.unwrap_or((1, "B"));
        format!("{} {name}", self.get() / unit)
    }

    fn of_number(number: u64) -> Option<Self> {
        Some(Bytes::new(number))
    }
}

/// Reads a decimal number with a unit, exactly: nothing below a nanosecond, nothing rounded.
fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let nanos: u128 = match unit.trim_start() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let (whole, decimals) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    if whole.is_empty() || decimals.is_some_and(|d| d.is_empty() || d.len() > 18 || d.contains('.')) {
        return None;
    }
    let mut total = u128::from(whole.parse::<u64>().ok()?) * nanos;
    if let Some(decimals) = decimals {
        let (part, of) = (decimals.parse::<u128>().ok()? * nanos, 10u128.pow(decimals.len() as u32));
        total += part.is_multiple_of(of).then_some(part / of)?;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

fn duration_text(time: Duration) -> String {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let decimals = format!("{nanos:09}");
    format!("{seconds}.{}s", decimals.trim_end_matches('0'))
}

impl Form for Duration {
    const WHAT: &str = "a time with its unit, as in \"1.5s\" (ns, us, ms, s, m, h, d)";

    fn read(text: &str) -> Option<Self> {
        duration(text)
    }

    fn write(&self) -> String {
        duration_text(*self)
    }
}

impl Form for TimeOffset {
    const WHAT: &str = "an offset, as in \"1.5s\" or \"-1h\"";

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix('-') {
            Some(by) => duration(by).map(TimeOffset::Behind),
            None => duration(text).map(TimeOffset::Ahead),
        }
    }

    fn write(&self) -> String {
        match self {
            TimeOffset::Ahead(by) => duration_text(*by),
            TimeOffset::Behind(by) => format!("-{}", duration_text(*by)),
        }
    }
}

/// Gives values that are one of several words their form.
macro_rules! words {
    ($type:ty, $what:literal: $($word:literal => $value:expr,)+) => {
        impl Form for $type {
            const WHAT: &str = concat!($what, ": ", words!(@list $($word)+));

            fn read(text: &str) -> Option<Self> {
                Self::WORDS.into_iter().find(|(word, _)| *word == text).map(|(_, value)| value)
            }

            fn write(&self) -> String {
                let found = Self::WORDS.into_iter().find(|(_, value)| value == self);
                found.map(|(word, _)| word.to_owned()).unwrap_or_default()
            }
        }

        impl Words for $type {
            type All = [(&'static str, $type); [$($word),+].len()];
            const WORDS: Self::All = [$(($word, $value)),+];
        }
    };
    (@list $first:literal $($rest:literal)*) => { concat!($first, $(", ", $rest),*) };
}

/// Values that are one of several words.
pub(super) trait Words: Sized {
    type All: IntoIterator<Item = (&'static str, Self)>;
    const WORDS: Self::All;
}

/// What a profile begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    New,
    Strict,
}

words! { Preset, "a preset":
    "new" => Preset::New,
    "strict" => Preset::Strict,
}

/// The roots that need no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Host,
    Programs,
}

words! { Base, "a root":
    "host" => Base::Host,
    "programs" => Base::Programs,
}

/// The profiles of system calls that rules can be added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterBase {
    Default,
    Compute,
    AllowList,
    DenyList,
}

words! { FilterBase, "a profile of system calls":
    "default" => FilterBase::Default,
    "compute" => FilterBase::Compute,
    "allow_list" => FilterBase::AllowList,
    "deny_list" => FilterBase::DenyList,
}

words! { Namespaces, "a kind of namespace":
    "user" => Namespaces::USER,
    "pid" => Namespaces::PID,
    "mount" => Namespaces::MOUNT,
    "net" => Namespaces::NET,
    "ipc" => Namespaces::IPC,
    "uts" => Namespaces::UTS,
    "cgroup" => Namespaces::CGROUP,
    "time" => Namespaces::TIME,
}

words! { Resource, "a resource":
    "address_space" => Resource::AddressSpace,
    "core" => Resource::Core,
    "cpu" => Resource::Cpu,
    "data" => Resource::Data,
    "file_size" => Resource::FileSize,
    "locks" => Resource::Locks,
    "mem_lock" => Resource::MemLock,
    "message_queue" => Resource::MessageQueue,
    "nice" => Resource::Nice,
    "open_files" => Resource::OpenFiles,
    "processes" => Resource::Processes,
    "realtime_priority" => Resource::RealtimePriority,
    "realtime_time" => Resource::RealtimeTime,
    "resident_set" => Resource::ResidentSet,
    "signals_pending" => Resource::SignalsPending,
    "stack" => Resource::Stack,
}

/// The policies of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchedulerPolicy {
    Other,
    Batch,
    Idle,
    Fifo,
    RoundRobin,
    Deadline,
}

words! { SchedulerPolicy, "a policy of scheduling":
    "other" => SchedulerPolicy::Other,
    "batch" => SchedulerPolicy::Batch,
    "idle" => SchedulerPolicy::Idle,
    "fifo" => SchedulerPolicy::Fifo,
    "round_robin" => SchedulerPolicy::RoundRobin,
    "deadline" => SchedulerPolicy::Deadline,
}

words! { SchedulerFlags, "a flag of a scheduler":
    "reset_on_fork" => SchedulerFlags::RESET_ON_FORK,
    "reclaim" => SchedulerFlags::RECLAIM,
    "deadline_overrun" => SchedulerFlags::DEADLINE_OVERRUN,
}

/// The classes of an io priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoClass {
    Realtime,
    BestEffort,
    Idle,
}

words! { IoClass, "a class of priority":
    "realtime" => IoClass::Realtime,
    "best_effort" => IoClass::BestEffort,
    "idle" => IoClass::Idle,
}

/// The modes of a memory policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryMode {
    SystemDefault,
    Preferred,
    Bind,
    Interleave,
    Local,
    PreferredMany,
    WeightedInterleave,
}

words! { MemoryMode, "a policy of memory":
    "system_default" => MemoryMode::SystemDefault,
    "preferred" => MemoryMode::Preferred,
    "bind" => MemoryMode::Bind,
    "interleave" => MemoryMode::Interleave,
    "local" => MemoryMode::Local,
    "preferred_many" => MemoryMode::PreferredMany,
    "weighted_interleave" => MemoryMode::WeightedInterleave,
}

words! { MemoryPolicyFlags, "a flag of a memory policy":
    "static_nodes" => MemoryPolicyFlags::STATIC_NODES,
    "relative_nodes" => MemoryPolicyFlags::RELATIVE_NODES,
    "numa_balancing" => MemoryPolicyFlags::NUMA_BALANCING,
}

words! { Personality, "a part of a personality":
    "linux32" => Personality::LINUX32,
    "uname26" => Personality::UNAME26,
    "addr_no_randomize" => Personality::ADDR_NO_RANDOMIZE,
    "addr_compat_layout" => Personality::ADDR_COMPAT_LAYOUT,
    "read_implies_exec" => Personality::READ_IMPLIES_EXEC,
    "addr_limit_3gb" => Personality::ADDR_LIMIT_3GB,
}

/// The kinds of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    Character,
    Block,
    Fifo,
}

words! { NodeKind, "a kind of node":
    "character" => NodeKind::Character,
    "block" => NodeKind::Block,
    "fifo" => NodeKind::Fifo,
}

words! { Architecture, "an architecture":
    "x86" => Architecture::X86,
    "x32" => Architecture::X32,
    "arm" => Architecture::Arm,
}

words! { UserLimit, "a table of the kernel":
    "inotify_instances" => UserLimit::InotifyInstances,
    "inotify_watches" => UserLimit::InotifyWatches,
    "fanotify_groups" => UserLimit::FanotifyGroups,
    "fanotify_marks" => UserLimit::FanotifyMarks,
    "user_namespaces" => UserLimit::UserNamespaces,
}

words! { Session, "a session":
    "inherit" => Session::Inherit,
    "new_group" => Session::NewGroup,
    "new" => Session::New,
}

words! { HidePid, "a value of hidepid":
    "off" => HidePid::Off,
    "noaccess" => HidePid::NoAccess,
    "invisible" => HidePid::Invisible,
    "ptraceable" => HidePid::Ptraceable,
}

words! { SecureBits, "a bit of the securebits":
    "noroot" => SecureBits::NOROOT,
    "noroot_locked" => SecureBits::NOROOT_LOCKED,
    "no_setuid_fixup" => SecureBits::NO_SETUID_FIXUP,
    "no_setuid_fixup_locked" => SecureBits::NO_SETUID_FIXUP_LOCKED,
    "keep_caps" => SecureBits::KEEP_CAPS,
    "keep_caps_locked" => SecureBits::KEEP_CAPS_LOCKED,
    "no_cap_ambient_raise" => SecureBits::NO_CAP_AMBIENT_RAISE,
    "no_cap_ambient_raise_locked" => SecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
}

impl Form for Feature {
    const WHAT: &str = "a feature, as Feature::as_str() has it";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Form for IdMap {
    const WHAT: &str = "an id map: INSIDE:OUTSIDE:COUNT";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        format!("{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// The number of a capability. One that has no name here is written as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cap(pub(super) u8);

impl Form for Cap {
    const WHAT: &str = "a capability, as in \"CAP_NET_BIND_SERVICE\", or its number";

    fn read(text: &str) -> Option<Self> {
        text.parse::<Capability>().ok().map(|capability| Cap(capability.index()))
    }

    fn write(&self) -> String {
        let named = caps::all().into_iter().find(|capability| capability.index() == self.0);
        named.map_or_else(|| self.0.to_string(), |capability| capability.to_string())
    }

    fn of_number(number: u64) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| *number < 64).map(Cap)
    }

    fn number(&self) -> Option<i64> {
        let is_named = caps::all().iter().any(|capability| capability.index() == self.0);
        (!is_named).then_some(self.0.into())
    }
}

impl Form for Action {
    const WHAT: &str = "an action: allow, log, notify, trap, kill_thread, kill_process, trace N, the name of an errno \
                        as in EPERM, or errno N";

    fn read(text: &str) -> Option<Self> {
        let fixed = FIXED_ACTIONS.into_iter().find(|(word, _)| *word == text);
        if let Some((_, action)) = fixed {
            return Some(action);
        }
        match text.split_once(' ') {
            Some(("trace", number)) => number.parse().ok().map(Action::Trace),
            Some(("errno", number)) => number.parse().ok().map(Action::Errno),
            _ => errnos().find(|(_, name)| name == text).map(|(errno, _)| Action::Errno(errno)),
        }
    }

    fn write(&self) -> String {
        let fixed = FIXED_ACTIONS.into_iter().find(|(_, action)| action == self);
        match (fixed, self) {
            (Some((word, _)), _) => word.to_owned(),
            (_, Action::Trace(number)) => format!("trace {number}"),
            (_, Action::Errno(number)) => {
                let named = errnos().find(|(errno, _)| errno == number);
                named.map_or_else(|| format!("errno {number}"), |(_, name)| name)
            }
            _ => String::new(),
        }
    }
}

const FIXED_ACTIONS: [(&str, Action); 6] = [
    ("allow", Action::Allow),
    ("log", Action::Log),
    ("notify", Action::Notify),
    ("trap", Action::Trap),
    ("kill_thread", Action::KillThread),
    ("kill_process", Action::KillProcess),
];

/// Every errno with its name.
fn errnos() -> impl Iterator<Item = (i32, String)> {
    let known = (1..134).map(|number| (number, Errno::from_raw(number)));
    known.filter(|(_, errno)| *errno != Errno::UnknownErrno).map(|(number, errno)| (number, format!("{errno:?}")))
}

/// A rule for devices, as devices.allow of cgroup v1 has it, with `deny` before it where it denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceRule {
    pub(super) device: Device,
    pub(super) access: DeviceAccess,
    pub(super) allow: bool,
}

impl Form for DeviceRule {
    const WHAT: &str = "a rule for devices, as in \"c 1:3 rw\", \"b 8:* r\", \"a *:* rwm\" or \"deny c 10:200 rwm\"";

    fn read(text: &str) -> Option<Self> {
        let (allow, text) = text.strip_prefix("deny ").map_or((true, text), |text| (false, text));
        let mut words = text.split(' ');
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse::<u32>().ok().map(Some),
        };
        let device = match (kind, number(major)?, number(minor)?) {
            ("c", major, minor) => Device::char(major, minor),
            ("b", major, minor) => Device::block(major, minor),
            ("a", None, None) => Device::any(),
            _ => return None,
        };
        let mut rights = DeviceAccess::empty();
        for letter in access.chars() {
            rights |= ACCESS.into_iter().find(|(known, _)| *known == letter)?.1;
        }
        (words.next().is_none()).then_some(DeviceRule { device, access: rights, allow })
    }

    fn write(&self) -> String {
        let rights = ACCESS.into_iter().filter(|(_, right)| self.access.contains(*right));
        let rights: String = rights.map(|(letter, _)| letter).collect();
        format!("{}{} {rights}", if self.allow { "" } else { "deny " }, self.device)
    }
}

/// A rule for devices, or all those of `Devices::standard()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceItem {
    Standard,
    Rule(DeviceRule),
}

impl Form for DeviceItem {
    const WHAT: &str = "\"standard\", or a rule for devices, as in \"c 1:3 rw\" or \"deny c 10:200 rwm\"";

    fn read(text: &str) -> Option<Self> {
        if text == "standard" { Some(DeviceItem::Standard) } else { DeviceRule::read(text).map(DeviceItem::Rule) }
    }

    fn write(&self) -> String {
        match self {
            DeviceItem::Standard => "standard".to_owned(),
            DeviceItem::Rule(rule) => rule.write(),
        }
    }
}

const ACCESS: [(char, DeviceAccess); 3] =
    [('r', DeviceAccess::READ), ('w', DeviceAccess::WRITE), ('m', DeviceAccess::MKNOD)];

/// The numbers of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers(pub(super) u64, pub(super) u64);

impl Form for Numbers {
    const WHAT: &str = "the numbers of a device, as in \"8:0\"";

    fn read(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Numbers(major.parse().ok()?, minor.parse().ok()?))
    }

    fn write(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}

/// Bytes that are no text, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl Form for Hex {
    const WHAT: &str = "bytes, two hexadecimal digits each";

    fn read(text: &str) -> Option<Self> {
        if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let pairs = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
        pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>().map(Hex)
    }

    fn write(&self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
