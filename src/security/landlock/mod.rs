//! Landlock: limits on a program's use of paths, TCP ports, signals and abstract sockets, without
//! any namespace. landlock(7), since Linux 5.13.
//!
//! The caller makes the ruleset, as it knows what the kernel supports. The paths are those that the
//! program sees, so the stub opens them after the last mount. The stub restricts itself when
//! nothing more has to be opened: from then on mount(2) is refused, and files that were opened
//! before stay usable.

mod again;

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use nix::errno::Errno;

pub(crate) use again::RuleFile;

use super::Seccomp;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::feature::{Enforcement, Feature};
use crate::plan::{Plan, RunFd, has_nul};
use crate::sys::table;

/// The newest version of Landlock that is supported here. Rights of later versions stay
/// unrestricted.
const NEWEST: ABI = ABI::V6;
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// MakeChar and MakeBlock are restricted and never granted.
const CHANGE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | MakeFifo | MakeSock | RemoveFile | RemoveDir | Refer
});
/// The rights that can be granted on a file that is not a directory. The kernel refuses a rule with
/// more (EINVAL).
const OF_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | WriteFile | Truncate | IoctlDev});

/// The rights of a program by Landlock, a security module that needs neither root nor a namespace:
/// landlock(7).
///
/// `Landlock::new()` alone restricts nothing. Naming a path restricts the use of the file system to
/// the named paths, and naming a port restricts TCP to the named ports. Landlock implies
/// `no_new_privs`: a program cannot gain rights by executing a setuid file. The restriction applies
/// to everything that the program starts, and cannot be removed.
///
/// ```
/// use ringfence::{Landlock, Sandbox};
///
/// let rules = Landlock::new().execute("/usr").read("/etc").write("/srv/work").device("/dev");
/// let rules = rules.connect_tcp(443);
/// let sandbox = Sandbox::new().command("/usr/bin/make").cwd("/srv/work").landlock(rules);
/// # drop(sandbox);
/// ```
///
/// Paths are absolute. They are looked up inside the sandbox, and have to exist there; a path
/// includes everything below it. What no path allows fails with EACCES. Not restricted are: reading
/// a file's attributes (stat(2)), changing them as its owner (chmod(2), chown(2), utimensat(2),
/// setxattr(2)), chdir(2), connecting to a unix socket in the file system, and UDP. Some path has
/// to make the program's own file, its loader and its libraries executable and readable.
/// Descriptors that the program inherits stay usable.
///
/// | part | feature | Linux |
/// | --- | --- | --- |
/// | paths | [`Feature::LandlockFiles`] | 6.2; 5.13 with a gap, see there; ioctl(2) of devices 6.10 |
/// | TCP ports | [`Feature::LandlockTcp`] | 6.7, with seccomp(2) filters |
/// | signals | [`Feature::LandlockSignals`] | 6.12 |
/// | abstract sockets | [`Feature::LandlockAbstractSockets`] | 6.12 |
#[must_use = "a builder does nothing by itself: each call returns it"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landlock {
    paths: Vec<(PathBuf, BitFlags<AccessFs>)>,
    /// The allowed ports, if TCP is restricted.
    tcp: Option<Vec<(u16, AccessNet)>>,
    scopes: BitFlags<Scope>,
}

impl Landlock {
    /// Creates a value without restrictions.
    pub fn new() -> Self {
        Landlock::default()
    }

    fn allow(mut self, path: impl Into<PathBuf>, rights: BitFlags<AccessFs>) -> Self {
        self.paths.push((path.into(), rights));
        self
    }

    /// Allows reading files and listing directories at and below `path`.
    pub fn read(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ)
    }

    /// Allows executing and reading files at and below `path`: programs, loaders, libraries,
    /// scripts.
    ///
    /// Without this right, files cannot be executed, but code can still be run. Landlock knows
    /// files by their paths: a program can execute or map what it has written to a memfd
    /// (memfd_create(2)), and a loader or an interpreter can run what it reads. The same rules
    /// limit what such code may do. A [`Seccomp`](crate::Seccomp) profile that refuses
    /// `memfd_create` prevents the first case.
    pub fn execute(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | AccessFs::Execute)
    }

    /// Allows reading, writing, truncating, creating, renaming and removing files at and below
    /// `path`, but not executing them. Device nodes cannot be created.
    pub fn write(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | CHANGE)
    }

    /// Allows reading, writing and ioctl(2) on devices at and below `path`, such as `/dev/null` and
    /// terminals.
    pub fn device(self, path: impl Into<PathBuf>) -> Self {
        self.allow(path, READ | make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev}))
    }

    /// Returns the paths of the calls `read`, `execute`, `write` and `device`.
    #[cfg(feature = "serde")]
    pub(crate) fn paths(&self) -> [Vec<&Path>; 4] {
        let none = BitFlags::empty();
        let device = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});
        [none, AccessFs::Execute.into(), CHANGE, device].map(|more| {
            let of_call = self.paths.iter().filter(|(_, rights)| *rights == READ | more);
            of_call.map(|(path, _)| path.as_path()).collect()
        })
    }

    /// Returns the ports to bind and the ports to connect to, if TCP is restricted.
    #[cfg(feature = "serde")]
    pub(crate) fn ports(&self) -> Option<[Vec<u16>; 2]> {
        let ports = self.tcp.as_ref()?;
        let with = |wanted| ports.iter().filter(|(_, right)| *right == wanted).map(|(port, _)| *port).collect();
        Some([with(AccessNet::BindTcp), with(AccessNet::ConnectTcp)])
    }

    /// Returns whether signals, and whether abstract sockets, are kept inside.
    #[cfg(feature = "serde")]
    pub(crate) fn scopes(&self) -> [bool; 2] {
        [Scope::Signal, Scope::AbstractUnixSocket].map(|scope| self.scopes.contains(scope))
    }

    /// Returns true if a rule allows writing at or below `path`.
    pub(crate) fn lets_write(&self, path: &Path) -> bool {
        let written = CHANGE | AccessFs::WriteFile;
        let meets = |rule: &PathBuf| {
            let rule = rule.canonicalize().unwrap_or_else(|_| rule.clone());
            path.starts_with(&rule) || rule.starts_with(path)
        };
        self.paths.is_empty() || self.paths.iter().any(|(rule, rights)| rights.intersects(written) && meets(rule))
    }

    /// Refuses binding and connecting to all TCP ports, except those that are named. Binding to
    /// port 0 is refused like any other port.
    ///
    /// Landlock controls connect(2) and bind(2) of TCP sockets. An additional seccomp(2) filter
    /// refuses other ways to use TCP:
    ///
    /// - `listen`, if no port may be bound: EACCES. Without bind(2) the kernel chooses a port. A
    ///   filter cannot distinguish unix sockets here: a program that listens on these needs
    ///   [`bind_tcp(0)`](Landlock::bind_tcp).
    /// - `sendto`, `sendmsg`, `sendmmsg` with MSG_FASTOPEN: EOPNOTSUPP. They connect and send in
    ///   one call; programs then connect first.
    /// - `socket` of AF_INET and AF_INET6 with a protocol other than 0, TCP, UDP and ICMP, or with
    ///   a type other than SOCK_STREAM and SOCK_DGRAM: EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPERM.
    ///   This excludes MPTCP, which Landlock does not treat as TCP since Linux 6.14, SMC, and TCP
    ///   packets made by hand.
    /// - `socket` of families other than AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_ALG and
    ///   AF_VSOCK: EAFNOSUPPORT. This excludes AF_SMC, AF_RDS, AF_PACKET and others.
    /// - `setsockopt` with TCP_ULP: ENOPROTOOPT. This excludes TLS in the kernel.
    /// - `io_uring_setup`, `io_uring_enter`, `io_uring_register`: EPERM. io_uring creates sockets
    ///   that the filter does not see.
    /// - All calls of another architecture: ENOSYS. 32-bit programs do not run.
    ///
    /// If some ports may be bound, but not port 0, the enforcement is
    /// [`Enforcement::Partial`](crate::Enforcement): the program can also listen on a port that the
    /// kernel chooses.
    pub fn restrict_tcp(mut self) -> Self {
        self.tcp.get_or_insert_default();
        self
    }

    fn allow_port(mut self, port: u16, right: AccessNet) -> Self {
        self.tcp.get_or_insert_default().push((port, right));
        self
    }

    /// Allows binding TCP sockets to `port`. Port 0 means a port that the kernel chooses. A program
    /// that may bind any port can also listen on a port that the kernel chooses, even if 0 is not
    /// named: see [`restrict_tcp`](Landlock::restrict_tcp).
    pub fn bind_tcp(self, port: u16) -> Self {
        self.allow_port(port, AccessNet::BindTcp)
    }

    /// Allows connecting TCP sockets to `port` on any host.
    pub fn connect_tcp(self, port: u16) -> Self {
        self.allow_port(port, AccessNet::ConnectTcp)
    }

    /// Limits signals to processes under the same restriction. Other signals fail with EPERM.
    pub fn scope_signals(mut self) -> Self {
        self.scopes |= Scope::Signal;
        self
    }

    /// Refuses connections to abstract unix sockets, unix(7), of programs outside of the
    /// restriction (EPERM).
    pub fn scope_abstract_sockets(mut self) -> Self {
        self.scopes |= Scope::AbstractUnixSocket;
        self
    }

    /// Returns the settings that contradict each other.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if *self == Landlock::new() {
            let remedy = "name what is allowed: execute(\"/usr\"), restrict_tcp(), …";
            problems.push(Problem::invalid("landlock", "the ruleset restricts nothing", remedy));
        }
        let is_clean = |path: &Path| path.is_absolute() && path.components().all(|c| c != Component::ParentDir);
        for (path, _) in self.paths.iter().filter(|(path, _)| has_nul(path) || !is_clean(path)) {
            let reason = format!("the path {path:?} is not absolute, or contains `..` or a NUL byte");
            problems.push(Problem::invalid("landlock", reason, "use the absolute path inside the sandbox"));
        }
        problems
    }

    /// Returns how this kernel enforces each part of the ruleset.
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

/// One part of a ruleset, and how the kernel enforces it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) feature: Feature,
    /// The enforcement with best effort.
    pub(crate) enforcement: Enforcement,
    /// The problem without best effort.
    pub(crate) problem: Option<Problem>,
}

fn missing(abi: ABI, feature: Feature, kernel: &str) -> Problem {
    let reason = match abi {
        ABI::Unsupported => "this kernel has no Landlock, or a filter hides it".to_owned(),
        abi => format!("this kernel has version {} of Landlock", abi as i32),
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

/// Judges the TCP ports. The filter beside Landlock closes the ways around it.
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
        let gap = "a program that listens without bind(2) gets a port that the kernel chooses, although bind_tcp(0) is not named";
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

/// Returns the version of the kernel's Landlock, up to the newest that is supported here. Each
/// version is recognised by a right that it introduced.
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

/// A ruleset of the kernel in a plan.
#[derive(Debug)]
pub(crate) struct Ruleset {
    /// The numbers of the stub's descriptors: the ruleset, and one that is replaced by each path in
    /// turn.
    fd: i32,
    path_fd: i32,
    /// The filter beside the rules for ports.
    filter: Option<Seccomp>,
}

impl Landlock {
    /// Creates the ruleset of one run without its paths, which are opened and added inside the
    /// sandbox.
    pub(crate) fn make(&self, held: &[Feature]) -> Result<Option<OwnedFd>> {
        let made = self.create(kernel_abi(), held).map_err(|error| not_made(&error))?;
        let made: Option<OwnedFd> = made.and_then(Into::into);
        made.map(table::above_stdio).transpose().map_err(|errno| Error::new(Step::Landlock, errno))
    }

    /// Emits the use of a ruleset that has its paths already.
    pub(crate) fn emit_filled(&self, plan: &mut Plan, held: &[Feature]) -> Option<Ruleset> {
        if held.is_empty() {
            return None;
        }
        let fd = plan.run_fd(RunFd::Ruleset);
        Some(Ruleset { fd, path_fd: fd, filter: self.filter_beside(held) })
    }

    /// Returns the filter beside the rules for ports, if those hold.
    fn filter_beside(&self, held: &[Feature]) -> Option<Seccomp> {
        let ports = self.tcp.as_ref().filter(|_| held.contains(&Feature::LandlockTcp));
        ports.map(|ports| Seccomp::beside_landlock(may_listen(ports)))
    }

    /// Emits the ops that add the paths to the ruleset. Each run receives the ruleset twice: as the
    /// ruleset, and as a placeholder for the number of the path's descriptor. Must come after the
    /// last mount, while the stub may still search every directory. With `sends`, the owner gets the
    /// files to which the paths lead.
    pub(crate) fn emit(&self, plan: &mut Plan, held: &[Feature], sends: bool) -> Option<Ruleset> {
        if held.is_empty() {
            return None;
        }
        let filter = self.filter_beside(held);
        let ruleset = Ruleset { fd: plan.run_fd(RunFd::Ruleset), path_fd: plan.run_fd(RunFd::Ruleset), filter };
        if held.contains(&Feature::LandlockFiles) {
            let abi = kernel_abi();
            for (path, rights) in &self.paths {
                ruleset.emit_path(plan, path, *rights & AccessFs::from_all(abi), sends);
            }
        }
        Some(ruleset)
    }

    fn create(&self, abi: ABI, held: &[Feature]) -> Result<Option<RulesetCreated>, RulesetError> {
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
        Ok(Some(created))
    }
}

fn not_made(error: &RulesetError) -> Error {
    Error::message(ErrorKind::Setup, Step::Landlock, error.to_string())
}

impl Ruleset {
    /// Emits the rule for one path. The rule contains the number of the path's descriptor, so the
    /// descriptor gets a number that is known in advance.
    fn emit_path(&self, plan: &mut Plan, path: &Path, rights: BitFlags<AccessFs>, sends: bool) {
        const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
        let (name, slot) = (plan.string(path), plan.slot());
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        plan.call(Step::Landlock, libc::SYS_openat, [libc::AT_FDCWD.into(), name.into(), flags.into()])
            .at(path)
            .hint("the path is looked up inside the sandbox, and has to exist there")
            .store(slot);
        if sends {
            plan.send_rule_file(slot).at(path);
        }
        let place = [slot.into(), self.path_fd.into(), libc::O_CLOEXEC.into()];
        plan.call(Step::Landlock, libc::SYS_dup3, place).at(path);
        plan.close(Step::Landlock, slot);
        // First as for a directory. For other files, the kernel accepts only the rights of files.
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

    /// Emits the ops that restrict the stub, and thus the program, by the ruleset and the filter
    /// beside it. Must come when nothing more has to be opened, and before descriptors get the
    /// numbers that the program knows.
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

    /// Returns, for each part, whether it is refused, and its enforcement with best effort.
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
