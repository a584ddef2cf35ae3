//! Reads profiles from files: `linux.seccomp` of the OCI runtime specification, with the extensions
//! of Docker and podman.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::rule::{Action, Compare, Rule};
use super::table::{self, Known};
use super::{Architecture, MAX_COMPARISONS, Seccomp};
use crate::error::{Error, ErrorKind, Problem, Result, Step};

/// The longest profile that is read, in bytes.
const MAX_LEN: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: Verb,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Vec<Flag>,
    #[serde(default)]
    syscalls: Option<Vec<Entry>>,
}

/// The further architectures of one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// The name, in files from before 2017.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: Verb,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

/// The condition of an entry. Unknown conditions are refused, as they may matter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Verb {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
}

impl Verb {
    /// Returns the action. `ret` is the errno, or the number for a tracer; the default is EPERM.
    fn action(self, ret: Option<u16>) -> Action {
        let ret = ret.unwrap_or(libc::EPERM as u16);
        match self {
            Verb::Allow => Action::Allow,
            Verb::Log => Action::Log,
            Verb::Errno => Action::Errno(i32::from(ret)),
            Verb::Notify => Action::Notify,
            Verb::Trace => Action::Trace(ret),
            Verb::Trap => Action::Trap,
            Verb::KillThread => Action::KillThread,
            Verb::KillProcess => Action::KillProcess,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

impl Arg {
    fn compare(&self) -> Compare {
        match self.op {
            Operator::Ne => Compare::Ne(self.value),
            Operator::Lt => Compare::Lt(self.value),
            Operator::Le => Compare::Le(self.value),
            Operator::Eq => Compare::Eq(self.value),
            Operator::Ge => Compare::Ge(self.value),
            Operator::Gt => Compare::Gt(self.value),
            Operator::MaskedEq => Compare::MaskedEq { mask: self.value, value: self.value_two },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Flag {
    /// For programs that have threads when the filter is installed. This one has none yet.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// Always set if the kernel supports it.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// What is read in the way of other runtimes, for a caller who tells of it. For any other it is an
/// error.
#[derive(Debug, Default)]
pub(crate) struct Leniencies {
    /// Names that are to be refused and that no system call has: they are passed over.
    pub(crate) unknown: BTreeSet<String>,
    /// Calls of entries that compare an argument more than once: one comparison that holds is
    /// enough, as with runc and crun.
    pub(crate) alternatives: BTreeSet<String>,
}

/// The properties of the host that conditions of a file refer to.
struct Host {
    capabilities: BTreeSet<String>,
    kernel: (u32, u32),
}

impl Host {
    /// The architecture by its name in Go.
    const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

    fn new(capabilities: BTreeSet<String>) -> Result<Self> {
        let failed = |errno| Error::new(Step::Detect, errno).at("uname");
        let release = nix::sys::utsname::uname().map_err(failed)?.release().to_string_lossy().into_owned();
        Ok(Host { capabilities, kernel: version(&release).unwrap_or((0, 0)) })
    }

    fn is_new_enough(&self, wanted: &str) -> Option<bool> {
        version(wanted).map(|wanted| self.kernel >= wanted)
    }

    /// Returns true if an entry applies: everything that it includes is present, and nothing that
    /// it excludes.
    fn counts(&self, entry: &Entry) -> Option<bool> {
        let nothing = Filter::default();
        let (includes, excludes) = (entry.includes.as_ref(), entry.excludes.as_ref());
        let (includes, excludes) = (includes.unwrap_or(&nothing), excludes.unwrap_or(&nothing));
        let here = |arches: &[String]| arches.iter().any(|arch| arch == Self::ARCH);
        let kernel =
            |filter: &Filter| filter.min_kernel.as_deref().map_or(Some(None), |v| self.is_new_enough(v).map(Some));
        let included = includes.caps.iter().all(|cap| self.capabilities.contains(cap))
            && (includes.arches.is_empty() || here(&includes.arches))
            && kernel(includes)? != Some(false);
        let excluded = excludes.caps.iter().any(|cap| self.capabilities.contains(cap))
            || here(&excludes.arches)
            || kernel(excludes)? == Some(true);
        Some(included && !excluded)
    }
}

/// Parses `6.18` from `6.18.5-vm`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Seccomp {
    /// Reads a profile: `linux.seccomp` of the OCI runtime specification, with the `includes`,
    /// `excludes` and `archMap` of Docker's and podman's own files. Needs the crate's feature
    /// `seccomp-json`.
    ///
    /// `capabilities` are those that the program will have, in the form `CAP_SYS_ADMIN`, as an
    /// entry may depend on them.
    ///
    /// ```
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    ///     {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    /// ]}"#;
    /// let profile = ringfence::Seccomp::from_json(text, [""; 0])?;
    /// let sandbox = ringfence::Sandbox::new().command("mkdir").arg("/tmp/x").seccomp(profile);
    /// assert!(!sandbox.output()?.outcome.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If several entries match a call, the first in the file decides. Names of calls that this
    /// architecture does not have are skipped, as in other runtimes, unless the file would refuse
    /// them and allow the rest. If the file names architectures, calls of those that it does not
    /// name kill the program, as with libseccomp; else they are refused with ENOSYS.
    /// `listenerPath` is left to the supervisor.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the text is not a profile or has more than 4 MiB; for an unknown
    /// action, operator or flag; or for an entry that compares one argument twice, which runtimes
    /// interpret differently.
    pub fn from_json(text: &str, capabilities: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Seccomp> {
        Seccomp::read_json(text, capabilities, None)
    }

    /// Reads a profile, and notes what is read in the way of other runtimes, if there are `notes`.
    pub(crate) fn read_json(
        text: &str,
        capabilities: impl IntoIterator<Item = impl AsRef<str>>,
        mut notes: Option<&mut Leniencies>,
    ) -> Result<Seccomp> {
        let invalid = |reason: String| Error::message(ErrorKind::Invalid, Step::Validate, reason);
        if text.len() > MAX_LEN {
            return Err(invalid(format!("a seccomp profile of {} bytes", text.len())));
        }
        let file: File = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the seccomp profile cannot be read: {error}")))?;
        let host = Host::new(capabilities.into_iter().map(|name| name.as_ref().to_owned()).collect())?;
        let mut problems = Vec::new();
        let default = file.default_action.action(file.default_errno_ret);
        let mut profile = Seccomp::with_default(default)
            .log(file.flags.contains(&Flag::Log))
            .allow_speculation(file.flags.contains(&Flag::SpecAllow));
        if let Some(names) = file.architectures() {
            // As libseccomp does it.
            profile = profile.foreign(Action::KillProcess);
            for name in names {
                match architecture(name) {
                    Some(further) => profile = further.into_iter().fold(profile, Seccomp::architecture),
                    None => {
                        let reason = format!("{name:?} is no architecture of the specification");
                        problems.push(Problem::invalid("seccomp", reason, "write it as in SCMP_ARCH_X86_64"));
                    }
                }
            }
        }
        // The rule added last decides, and in the file it is the first.
        for entry in file.syscalls.unwrap_or_default().into_iter().rev() {
            match host.counts(&entry) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    let reason = format!("{:?}: minKernel is not a kernel version", entry.names);
                    problems.push(Problem::invalid("seccomp", reason, "write it as in 5.10"));
                }
            }
            match entry.rules(default, notes.as_deref_mut()) {
                Ok(rules) => profile = rules.into_iter().fold(profile, Seccomp::rule),
                Err(problem) => problems.push(problem),
            }
        }
        problems.extend(profile.mistakes());
        if problems.is_empty() { Ok(profile) } else { Err(Error::refused(problems)) }
    }
}

impl File {
    /// Returns the names of the architectures that the file is for, if it says so: those of a list,
    /// and the further ones of this machine's own.
    fn architectures(&self) -> Option<Vec<&str>> {
        let own = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
        let listed = self.architectures.as_deref().filter(|list| !list.is_empty());
        let mapped = self.arch_map.as_deref().filter(|map| !map.is_empty());
        let here = mapped.into_iter().flatten().filter(|map| map.architecture == own);
        let further = here.flat_map(|map| map.sub_architectures.as_deref().unwrap_or_default());
        let names = listed.into_iter().flatten().chain(further).map(String::as_str).collect();
        (listed.is_some() || mapped.is_some()).then_some(names)
    }
}

/// The names of architectures in the specification. Those without a meaning here belong to other
/// machines.
fn architecture(name: &str) -> Option<Option<Architecture>> {
    const OTHERS: [&str; 20] = [
        "X86_64",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ];
    match name.strip_prefix("SCMP_ARCH_")? {
        "X86" => Some(Some(Architecture::X86)),
        "X32" => Some(Some(Architecture::X32)),
        "ARM" => Some(Some(Architecture::Arm)),
        other => OTHERS.contains(&other).then_some(None),
    }
}

impl Entry {
    fn rules(self, default: Action, mut notes: Option<&mut Leniencies>) -> Result<Vec<Rule>, Problem> {
        let action = self.action.action(self.errno_ret);
        let (known, unknown): (Vec<String>, Vec<String>) =
            self.names.into_iter().chain(self.name).partition(|name| table::look_up(name) != Known::Unknown);
        if !unknown.is_empty() && action.severity() > default.severity() {
            let Some(notes) = notes.as_deref_mut() else {
                let reason = format!("{unknown:?} would be refused, but no system call has this name");
                return Err(Problem::invalid("seccomp", reason, "use the name in its man page, or leave it out"));
            };
            notes.unknown.extend(unknown);
        }
        let args = self.args.unwrap_or_default();
        let indices: BTreeSet<u8> = args.iter().map(|arg| arg.index).collect();
        let rule = Rule::new(known.iter().cloned(), action);
        if indices.len() == args.len() {
            return Ok(vec![args.iter().fold(rule, |rule, arg| rule.arg(arg.index, arg.compare()))]);
        }
        let Some(notes) = notes.filter(|_| args.len() <= MAX_COMPARISONS) else {
            let reason = format!("{known:?}: an argument is compared twice, which runtimes read as `and` or as `or`");
            return Err(Problem::invalid("seccomp", reason, "write an entry for each comparison"));
        };
        notes.alternatives.extend(known);
        Ok(args.iter().map(|arg| rule.clone().arg(arg.index, arg.compare())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        crate::fuzz::texts(&[FILE], |text| drop(read(text, &["CAP_SYS_ADMIN"])));
    }

    fn read(text: &str, caps: &[&str]) -> Result<Seccomp> {
        Seccomp::from_json(text, caps)
    }

    fn actions(profile: &Seccomp, number: libc::c_long) -> Vec<Action> {
        profile.0.calls.answers(None).of(number as u32).actions().collect()
    }

    const FILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "extension": {"of": "somebody's"},
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read", "execve", "_llseek", "from_the_future"], "action": "SCMP_ACT_ALLOW", "comment": "x", "args": []},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
             "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}},
            {"names": ["clone", "mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"name": "kcmp", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4096.1"}},
            {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["close"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            {"names": ["fsync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}
        ]}"#;

    #[test]
    fn a_file_with_conditions_is_read() {
        let profile = read(FILE, &[]).unwrap();
        let refused = Action::ENOSYS;
        for (number, expected) in [
            (libc::SYS_read, vec![Action::Allow]),
            (libc::SYS_clone, vec![Action::Allow, refused]),
            (libc::SYS_mount, vec![refused]),
            (libc::SYS_ptrace, vec![Action::Allow]),
            (libc::SYS_kcmp, vec![refused]),
            (libc::SYS_socket, vec![Action::KillProcess, Action::Allow]),
            (libc::SYS_close, vec![refused]),
            (libc::SYS_fsync, vec![Action::Allow]),
            (libc::SYS_chroot, vec![Action::Trace(7)]),
        ] {
            assert_eq!(actions(&profile, number), expected, "{:?}", table::name_of(number as u32));
        }
        assert!(profile.0.log && profile.invalid().is_empty());
        assert_eq!(profile.0.calls.foreign, Action::KillProcess);
        let further = if cfg!(target_arch = "x86_64") { vec![Architecture::X86] } else { Vec::new() };
        assert_eq!(profile.0.calls.architectures.iter().copied().collect::<Vec<_>>(), further);
        let privileged = read(FILE, &["CAP_SYS_ADMIN"]).unwrap();
        assert_eq!(actions(&privileged, libc::SYS_clone), [Action::Allow]);
        assert_eq!(actions(&privileged, libc::SYS_mount), [Action::Allow]);
    }

    #[test]
    fn what_cannot_be_read_or_relied_upon_is_an_error() {
        let rule = |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
        let arg = |arg: &str| rule(&format!(r#"{{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{arg}]}}"#));
        let deep = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "extension": {}"#, "[".repeat(100_000));
        for (text, expected) in [
            (String::new(), "cannot be read"),
            ("{}".into(), "defaultAction"),
            (deep, "cannot be read"),
            (" ".repeat(MAX_LEN + 1), "bytes"),
            (r#"{"defaultAction": "SCMP_ACT_SMILE"}"#.into(), "SCMP_ACT_SMILE"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}"#.into(), "cannot be read"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 0}"#.into(), "errno"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}"#.into(), "FLAG_X"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}"#.into(), "VAX"),
            (rule(r#"{"names": ["opne"], "action": "SCMP_ACT_ERRNO"}"#), "opne"),
            (rule(r#"{"names": ["read"], "action": "SCMP_ACT_TRAP", "includes": {"moon": "full"}}"#), "moon"),
            (rule(r#"{"names": ["read"], "action": "SCMP_ACT_TRAP", "includes": {"minKernel": "new"}}"#), "minKernel"),
            (arg(r#"{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}"#), "six arguments"),
            (arg(r#"{"index": 300, "value": 1, "op": "SCMP_CMP_EQ"}"#), "cannot be read"),
            (arg(r#"{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}"#), "cannot be read"),
            (arg(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}"#), "SCMP_CMP_LIKE"),
            (arg(r#"{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}"#), "never"),
            (
                arg(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 5, "op": "SCMP_CMP_LE"}"#),
                "twice",
            ),
        ] {
            let error = read(&text, &[]).expect_err(expected);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
        // A name that would be allowed can be skipped.
        let text =
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["opne"], "action": "SCMP_ACT_ALLOW"}]}"#;
        assert!(read(text, &[]).is_ok());
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % below
        };
        let pieces = ["-1", "1e99", "null", "[", "}", "\"\"", "\u{0}", "18446744073709551616", "{}", "SCMP_ACT_", "é"];
        let (mut read_whole, mut refused) = (0, 0);
        for _ in 0..3000 {
            let mut text = FILE.to_owned();
            for _ in 0..=random(3) {
                let cut = |at: usize| (0..=at).rev().find(|at| FILE.is_char_boundary(*at)).unwrap_or(0);
                let from = cut(random(text.len()).min(FILE.len()));
                let to = (from + random(12)).min(text.len());
                if text.is_char_boundary(from) && text.is_char_boundary(to) {
                    text.replace_range(from..to, pieces[random(pieces.len())]);
                }
            }
            match read(&text, &["CAP_SYS_ADMIN"]) {
                Ok(profile) => {
                    profile.invalid();
                    read_whole += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    refused += 1;
                }
            }
        }
        assert!(read_whole > 10 && refused > 1000, "{read_whole} {refused}");
    }
}
