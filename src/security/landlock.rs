//! Landlock: what a program may do with paths, TCP ports, signals and abstract sockets, without any namespace.
//! landlock(7), since 5.13.
//!
//! The ruleset is made by the caller, who knows what the kernel offers. Its paths are those that the program sees, so the
//! stub opens them, after the last mount. It restricts itself when nothing more has to be opened: from then on mount(2) is
//! refused, and what was opened before stays usable.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags,
};
use nix::errno::Errno;

use super::Seccomp;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::feature::{Enforcement, Feature};
use crate::plan::{Plan, RunFd, has_nul};
use crate::sys::table;

/// The last version of Landlock whose rights are known here. What later ones add is left as it is without Landlock.
const NEWEST: ABI = ABI::V6;
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// MakeChar and MakeBlock are restricted and never given.
const CHANGE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | MakeFifo | MakeSock | RemoveFile | RemoveDir | Refer
});
/// What can be given on something that is no directory; the kernel refuses a rule with more (EINVAL).
const OF_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | WriteFile | Truncate | IoctlDev});

/// What the program may do by Landlock, a security module that needs neither root nor a namespace: landlock(7).
///
/// `Landlock::new()` restricts nothing by itself. Naming a path restricts all of the file system to the paths that are
/// named, naming a port all of TCP to those ports. It brings `no_new_privs`: a program cannot gain rights by executing a
/// setuid file. It holds for everything that the program starts, and cannot be taken off.
///
/// ```
/// use ringfence::{Landlock, Sandbox};
///
/// let rules = Landlock::new().execute("/usr").read("/etc").write("/srv/work").device("/dev").connect_tcp(443);
/// let sandbox = Sandbox::new().command("/usr/bin/make").cwd("/srv/work").landlock(rules);
/// # drop(sandbox);
/// ```
///
/// Paths are absolute, are looked up inside the sandbox, and have to exist there; what lies below them is meant too. What
/// no path allows fails with EACCES. Not restricted: looking at a file's attributes (stat(2)), changing them as its owner
/// (chmod(2), chown(2), utimensat(2), setxattr(2)), chdir(2), connecting to a unix socket in the file system, and UDP. The
/// program's own file, its loader and its libraries have to be executable and readable by some path, and the descriptors
/// that it is given stay usable.
///
/// | part | feature | Linux |
/// | --- | --- | --- |
/// | paths | [`Feature::LandlockFiles`] | 6.2; 5.13 with a gap, see there; ioctl(2) of devices 6.10 |
/// | TCP ports | [`Feature::LandlockTcp`] | 6.7, with seccomp(2) filters |
/// | signals | [`Feature::LandlockSignals`] | 6.12 |
/// | abstract sockets | [`Feature::LandlockAbstractSockets`] | 6.12 |
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landlock {
    paths: Vec<(PathBuf, BitFlags<AccessFs>)>,
    /// Ports, where TCP is restricted.
    tcp: Option<Vec<(u16, AccessNet)>>,
    scopes: BitFlags<Scope>,
}

impl Landlock {
    /// No restriction yet.
    pub fn new() -> Self {
        Landlock::default()
    }

    fn allow(mut self, path: impl Into<PathBuf>, rights: BitFlags<AccessFs>) -> Self {
        self.paths.push((path.into(), rights));
        self
    }

    /// Files at and below `path` may be read, directories listed.
    pub fn read(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ)
    }

    /// Files at and below `path` may be executed, and read: programs, loaders, libraries, scripts.
    ///
    /// That keeps files from being executed, not code from being run: Landlock knows files by their paths, so a program can
    /// execute what it has written to a memfd (memfd_create(2)), or map it, and what it reads a loader or an interpreter runs.
    /// What the code may do is limited by the same rules. A [`Seccomp`](crate::Seccomp) that refuses `memfd_create` closes
    /// the first.
    pub fn execute(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | AccessFs::Execute)
    }

    /// Files at and below `path` may be read, written, truncated, made, renamed and removed; not executed. Device nodes
    /// cannot be made.
    pub fn write(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | CHANGE)
    }

    /// Devices at and below `path` may be read, written and controlled by ioctl(2): `/dev/null`, terminals.
    pub fn device(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev}))
    }

    /// Whether something at or below `path` may be written to.
    pub(crate) fn lets_write(&self, path: &Path) -> bool {
        let written = CHANGE | AccessFs::WriteFile;
        let meets = |rule: &PathBuf| {
            let rule = rule.canonicalize().unwrap_or_else(|_| rule.clone());
            path.starts_with(&rule) || rule.starts_with(path)
        };
        self.paths.is_empty() || self.paths.iter().any(|(rule, rights)| rights.intersects(written) && meets(rule))
    }

    /// No TCP port may be bound or connected to, but those that are named. Binding to port 0 is, as any other, refused.
    ///
    /// Landlock sees connect(2) and bind(2) of TCP sockets. A filter of seccomp(2), which comes along, refuses what leads to
    /// TCP on other ways:
    ///
    /// | system calls | answer | |
    /// | --- | --- | --- |
    /// | `listen`, where no port may be bound | EACCES | without bind(2) the kernel chooses a port. A filter cannot tell unix sockets from others here: a program that listens on these needs [`bind_tcp(0)`](Landlock::bind_tcp) |
    /// | `sendto`, `sendmsg`, `sendmmsg` with MSG_FASTOPEN | EOPNOTSUPP | connects as it sends; programs then connect first |
    /// | `socket` of AF_INET and AF_INET6 with a protocol other than 0, TCP, UDP and ICMP, or another type than SOCK_STREAM and SOCK_DGRAM | EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM | so no MPTCP, which Linux 6.14 and newer take for no TCP, no SMC, and no TCP by hand |
    /// | `socket` of families but AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_ALG and AF_VSOCK | EAFNOSUPPORT | so no AF_SMC, AF_RDS, AF_PACKET, … |
    /// | `setsockopt` with TCP_ULP | ENOPROTOOPT | so no TLS in the kernel |
    /// | `io_uring_setup`, `io_uring_enter`, `io_uring_register` | EPERM | makes sockets behind the filter's back |
    /// | all calls by the rules of another architecture | ENOSYS | 32-bit programs do not run |
    ///
    /// Where ports may be bound, but not port 0, it is [`Enforcement::Partial`](crate::Enforcement): the program can listen on
    /// a port of the kernel's choice as well.
    pub fn restrict_tcp(mut self) -> Self {
        self.tcp.get_or_insert_default();
        self
    }

    fn allow_port(mut self, port: u16, right: AccessNet) -> Self {
        self.tcp.get_or_insert_default().push((port, right));
        self
    }

    /// TCP sockets may be bound to `port`; 0 stands for a port of the kernel's choice. What may bind any port may also listen
    /// on one of the kernel's choice, whether 0 is named or not: see [`restrict_tcp`](Landlock::restrict_tcp).
    pub fn bind_tcp(self, port: u16) -> Self {
        self.allow_port(port, AccessNet::BindTcp)
    }

    /// TCP sockets may be connected to `port`, of any host.
    pub fn connect_tcp(self, port: u16) -> Self {
        self.allow_port(port, AccessNet::ConnectTcp)
    }

    /// Signals reach only what runs under the same restriction; others fail with EPERM.
    pub fn scope_signals(mut self) -> Self {
        self.scopes |= Scope::Signal;
        self
    }

    /// Abstract unix sockets, unix(7), of programs outside the restriction cannot be connected to (EPERM).
    pub fn scope_abstract_sockets(mut self) -> Self {
        self.scopes |= Scope::AbstractUnixSocket;
        self
    }

    /// What contradicts itself.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if *self == Landlock::new() {
            let remedy = "name what is allowed: execute(\"/usr\"), restrict_tcp(), …";
            problems.push(Problem::invalid("landlock", "the ruleset restricts nothing", remedy));
        }
        let is_clean = |path: &Path| path.is_absolute() && path.components().all(|c| c != Component::ParentDir);
        for (path, _) in self.paths.iter().filter(|(path, _)| has_nul(path) || !is_clean(path)) {
            let reason = format!("the path {path:?} is not absolute, or holds `..` or a NUL byte");
            problems.push(Problem::invalid("landlock", reason, "give the absolute path inside the sandbox"));
        }
        problems
    }

    /// What this kernel makes of each part that was asked for.
    pub(crate) fn judge(&self) -> Vec<Part> {
        self.judge_for(kernel_abi())
    }

    fn judge_for(&self, abi: ABI) -> Vec<Part> {
        let signals = (Feature::LandlockSignals, ABI::V6, "6.12");
        let sockets = (Feature::LandlockAbstractSockets, ABI::V6, "6.12");
        let others = [
            self.scopes.contains(Scope::Signal).then_some(signals),
            self.scopes.contains(Scope::AbstractUnixSocket).then_some(sockets),
        ];
        let files = (!self.paths.is_empty()).then(|| judge_files(abi));
        let tcp = self.tcp.as_ref().map(|ports| judge_tcp(abi, ports));
        files
            .into_iter()
            .chain(tcp)
            .chain(others.into_iter().flatten().map(|(feature, needs, kernel)| judge(abi, feature, needs, kernel)))
            .collect()
    }
}

/// One part of a ruleset and what the kernel makes of it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) feature: Feature,
    /// What holds where the caller takes what it can get.
    pub(crate) enforcement: Enforcement,
    /// What speaks against it where the caller does not.
    pub(crate) problem: Option<Problem>,
}

fn missing(abi: ABI, feature: Feature, kernel: &str) -> Problem {
    let reason = match abi {
        ABI::Unsupported => "this kernel has no Landlock, or a filter hides it".to_owned(),
        abi => format!("Landlock here is of version {}", abi as i32),
    };
    let remedy = format!("Linux {kernel}, with `landlock` among CONFIG_LSM or in the boot option lsm=");
    Problem::unsupported(feature.as_str(), reason, remedy).for_feature(feature)
}

fn judge(abi: ABI, feature: Feature, needs: ABI, kernel: &str) -> Part {
    if abi >= needs {
        return Part { feature, enforcement: Enforcement::Full, problem: None };
    }
    let problem = missing(abi, feature, kernel);
    let enforcement = Enforcement::Missing(format!("{}; {}", problem.reason, problem.remedy));
    Part { feature, enforcement, problem: Some(problem) }
}

fn judge_files(abi: ABI) -> Part {
    let feature = Feature::LandlockFiles;
    match abi {
        ABI::Unsupported => judge(abi, feature, ABI::V1, "6.2"),
        ABI::V1 | ABI::V2 => {
            let enforcement = Enforcement::Partial("files that may not be written can be truncated, before Linux 6.2");
            Part { feature, enforcement, problem: Some(missing(abi, feature, "6.2")) }
        }
        ABI::V3 | ABI::V4 => {
            let enforcement = Enforcement::Partial("ioctl(2) of devices is not restricted, before Linux 6.10");
            Part { feature, enforcement, problem: None }
        }
        _ => Part { feature, enforcement: Enforcement::Full, problem: None },
    }
}

/// Landlock alone would leave ways around it: what the filter beside it closes.
fn judge_tcp(abi: ABI, ports: &[(u16, AccessNet)]) -> Part {
    let feature = Feature::LandlockTcp;
    let part = judge(abi, feature, ABI::V4, "6.7");
    if part.problem.is_some() {
        return part;
    }
    if let Some(problem) = Seccomp::beside_landlock(may_listen(ports)).unsupported() {
        let enforcement = Enforcement::Missing(format!("{}; {}", problem.reason, problem.remedy));
        return Part { feature, enforcement, problem: Some(problem.for_feature(feature)) };
    }
    if may_listen(ports) && !ports.contains(&(0, AccessNet::BindTcp)) {
        let gap = "what listens without bind(2) gets a port of the kernel's choice, though bind_tcp(0) is not named";
        return Part { enforcement: Enforcement::Partial(gap), ..part };
    }
    part
}

fn may_listen(ports: &[(u16, AccessNet)]) -> bool {
    ports.iter().any(|(_, right)| *right == AccessNet::BindTcp)
}

fn hard() -> landlock::Ruleset {
    landlock::Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

/// The version of the kernel's Landlock, as far as it is known here, by the right that each has brought.
fn kernel_abi() -> ABI {
    let by_file = [
        (ABI::V5, AccessFs::IoctlDev),
        (ABI::V3, AccessFs::Truncate),
        (ABI::V2, AccessFs::Refer),
        (ABI::V1, AccessFs::Execute),
    ];
    if hard().scope(Scope::Signal).is_ok() {
        return NEWEST;
    }
    let by_file = by_file.into_iter().find(|(_, right)| hard().handle_access(*right).is_ok());
    match by_file.map_or(ABI::Unsupported, |(abi, _)| abi) {
        ABI::V3 if hard().handle_access(AccessNet::BindTcp).is_ok() => ABI::V4,
        abi => abi,
    }
}

/// A ruleset of the kernel's, as a plan knows it.
#[derive(Debug)]
pub(crate) struct Ruleset {
    /// Its numbers in the stub: the ruleset's own, and one that is overwritten with each path in turn.
    fd: i32,
    path_fd: i32,
    /// What stands beside rules for ports.
    filter: Option<Seccomp>,
}

impl Landlock {
    /// The ruleset of one run, without its paths: these are found, and added, inside.
    pub(crate) fn make(&self, held: &[Feature]) -> Result<Option<OwnedFd>> {
        let made = self.create(kernel_abi(), held).map_err(|error| not_made(&error))?;
        made.map(table::above_stdio).transpose().map_err(|errno| Error::new(Step::Landlock, errno))
    }

    /// Adds the paths to the ruleset, which is given twice for each run: once as what it is, once to take a number that the
    /// paths can have. To be called after the last mount, while the stub may still search every directory.
    pub(crate) fn emit(&self, plan: &mut Plan, held: &[Feature]) -> Option<Ruleset> {
        if held.is_empty() {
            return None;
        }
        let ports = self.tcp.as_ref().filter(|_| held.contains(&Feature::LandlockTcp));
        let filter = ports.map(|ports| Seccomp::beside_landlock(may_listen(ports)));
        let ruleset = Ruleset { fd: plan.run_fd(RunFd::Ruleset), path_fd: plan.run_fd(RunFd::Ruleset), filter };
        if held.contains(&Feature::LandlockFiles) {
            let abi = kernel_abi();
            for (path, rights) in &self.paths {
                ruleset.emit_path(plan, path, *rights & AccessFs::from_all(abi));
            }
        }
        Some(ruleset)
    }

    fn create(&self, abi: ABI, held: &[Feature]) -> Result<Option<OwnedFd>, RulesetError> {
        let mut ruleset = hard();
        let holds = |feature| held.contains(&feature);
        if !self.paths.is_empty() && holds(Feature::LandlockFiles) {
            ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
        }
        let ports = self.tcp.as_ref().filter(|_| holds(Feature::LandlockTcp));
        if ports.is_some() {
            ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
        }
        let scopes =
            [(Scope::Signal, Feature::LandlockSignals), (Scope::AbstractUnixSocket, Feature::LandlockAbstractSockets)];
        for (scope, _) in scopes.into_iter().filter(|(scope, part)| self.scopes.contains(*scope) && holds(*part)) {
            ruleset = ruleset.scope(scope)?;
        }
        if held.is_empty() {
            return Ok(None);
        }
        let mut created = ruleset.create()?;
        for (port, right) in ports.into_iter().flatten() {
            created = created.add_rule(NetPort::new(*port, *right))?;
        }
        Ok(created.into())
    }
}

fn not_made(error: &RulesetError) -> Error {
    Error::message(ErrorKind::Setup, Step::Landlock, error.to_string())
}

impl Ruleset {
    /// The rule names the path by a descriptor whose number has to stand in a structure, so it gets a number that is known
    /// beforehand.
    fn emit_path(&self, plan: &mut Plan, path: &Path, rights: BitFlags<AccessFs>) {
        const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
        let (name, slot) = (plan.string(path), plan.slot());
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        plan.call(Step::Landlock, libc::SYS_openat, [libc::AT_FDCWD.into(), name.into(), flags.into()])
            .at(path)
            .hint("the path is looked up inside the sandbox, and has to exist there")
            .store(slot);
        let place = [slot.into(), self.path_fd.into(), libc::O_CLOEXEC.into()];
        plan.call(Step::Landlock, libc::SYS_dup3, place).at(path);
        plan.close(Step::Landlock, slot);
        // First as for a directory. Of anything else the kernel takes no more than a file can have.
        for (rights, is_last) in [(rights, false), (rights & OF_FILES, true)] {
            // struct landlock_path_beneath_attr, packed: the rights, the descriptor.
            let mut rule = rights.bits().to_ne_bytes().to_vec();
            rule.extend_from_slice(&self.path_fd.to_ne_bytes());
            let rule = plan.bytes(&rule);
            let kind = LANDLOCK_RULE_PATH_BENEATH.into();
            let args = [self.fd.into(), kind, rule.into(), 0.into()];
            let added = plan.call(Step::Landlock, libc::SYS_landlock_add_rule, args).at(path);
            if !is_last {
                added.tolerate(Errno::EINVAL).skip_on_success(1);
            }
        }
    }

    /// Puts the ruleset on the stub, and so on the program, with the filter beside it. To be called when nothing more has to be opened, and before
    /// descriptors get the numbers that the program knows.
    pub(crate) fn emit_restriction(&self, plan: &mut Plan) {
        let set = [libc::PR_SET_NO_NEW_PRIVS.into(), 1.into(), 0.into(), 0.into(), 0.into()];
        plan.call(Step::Prctl, libc::SYS_prctl, set).at("PR_SET_NO_NEW_PRIVS");
        plan.call(Step::Landlock, libc::SYS_landlock_restrict_self, [self.fd.into(), 0.into()])
            .hint("E2BIG: sixteen Landlock rulesets are in force around the caller already");
        self.filter.iter().for_each(|filter| filter.emit_early(plan));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Landlock {
        Landlock::new().read("/etc").restrict_tcp().scope_signals().scope_abstract_sockets()
    }

    /// Whether the parts are refused, and what best effort leaves of them.
    fn judged(abi: ABI) -> Vec<(bool, Enforcement)> {
        all().judge_for(abi).into_iter().map(|part| (part.problem.is_some(), part.enforcement)).collect()
    }

    #[test]
    fn older_versions_do_without_what_they_lack_or_are_refused() {
        let is_missing = |part: &(bool, Enforcement)| part.0 && matches!(part.1, Enforcement::Missing(_));
        let is_full = |part: &(bool, Enforcement)| *part == (false, Enforcement::Full);
        assert!(judged(ABI::Unsupported).iter().all(is_missing));
        for abi in [ABI::V1, ABI::V2] {
            assert!(matches!(judged(abi)[0], (true, Enforcement::Partial(_))), "{abi:?}");
        }
        assert!(matches!(judged(ABI::V3)[0], (false, Enforcement::Partial(_))));
        assert!(is_missing(&judged(ABI::V3)[1]) && is_full(&judged(ABI::V4)[1]));
        assert!(judged(ABI::V5)[2..].iter().all(is_missing) && is_full(&judged(ABI::V5)[0]));
        assert!(judged(ABI::V6).iter().all(is_full));
    }

    #[test]
    fn whoever_may_bind_some_port_may_listen_on_any() {
        let judged = |rules: Landlock| rules.judge_for(ABI::V6).remove(0).enforcement;
        assert_eq!(judged(Landlock::new().restrict_tcp().connect_tcp(443)), Enforcement::Full);
        assert!(matches!(judged(Landlock::new().bind_tcp(80)), Enforcement::Partial(_)));
        assert_eq!(judged(Landlock::new().bind_tcp(80).bind_tcp(0)), Enforcement::Full);
    }

    #[test]
    fn a_ruleset_of_each_older_version_can_be_made() {
        let newest = kernel_abi();
        for abi in [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6].into_iter().filter(|abi| *abi <= newest) {
            let held: Vec<Feature> = all()
                .judge_for(abi)
                .into_iter()
                .filter(|part| !matches!(part.enforcement, Enforcement::Missing(_)))
                .map(|part| part.feature)
                .collect();
            assert!(all().create(abi, &held).unwrap().is_some(), "{abi:?}");
        }
        assert!(all().create(newest, &[]).unwrap().is_none());
    }

    #[test]
    fn rulesets_that_mean_nothing_are_refused() {
        assert_eq!(Landlock::new().invalid().len(), 1);
        assert_eq!(Landlock::new().read("etc").write("/a/../b").read("/a\0").invalid().len(), 3);
        assert!(Landlock::new().restrict_tcp().invalid().is_empty());
    }
}
