//! The way into a sandbox as text, for a later process.
//!
//! A later process must not start a program with fewer walls around it than the sandbox's own have.
//! So the text has everything of the policy that is one, and what the new program would take from
//! the process that starts it: its user, its groups, and the namespaces that the sandbox shares
//! with it. What cannot be repeated is recorded as such, and refused. Variables are not recorded:
//! they may be secrets, and a ticket is no place for them.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Uid, getgroups};

use super::enter::open_root;
use super::entrance::Entrance;
use super::excess::{Process, excess};
use crate::cgroup::Limits;
use crate::child::{Enter, Inside};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::feature::{Enforced, Feature};
use crate::judge::Judgement;
use crate::mount::RootFs;
use crate::namespace::{IdMap, IdMaps, JoinSource, Namespaces, Outside, Writer};
use crate::policy::Policy;
use crate::program::{Attributes, Resource, Session};
use crate::security::{Capabilities, Labels, Landlock, Privileges, Seccomp};
use crate::sys::pidfd;
use crate::text::{self, escape, hex, number, unescape};

/// The most lines of a map, and the most groups.
const LIST_MAX: usize = 1024;

/// The way into a sandbox as it stands in a text.
#[derive(Debug, Clone)]
pub(crate) struct EntryRecord {
    entrance: Arc<Entrance>,
    /// What of the sandbox cannot be repeated.
    unrepeatable: Option<Unrepeatable>,
    /// The ids of the process that has started the sandbox, if its programs keep them.
    caller: Option<(u32, u32, Vec<u32>)>,
    /// The inodes of the namespaces that the sandbox shares with that process.
    shared: Vec<(Namespaces, u64)>,
    /// The root directory of that process, if the sandbox has it as well.
    root: Option<(u64, u64)>,
}

/// A wall that a later process cannot make again.
#[derive(Debug, Clone, Copy)]
enum Unrepeatable {
    Landlock,
    Label,
}

impl Entrance {
    /// Writes the pairs of the entry.
    pub(super) fn write(&self, line: &mut text::Writer) {
        let (policy, judgement) = (&*self.policy, &*self.judgement);
        let rules = policy.landlock.as_ref().filter(|_| !judgement.landlock.is_empty());
        if rules.is_some_and(|rules| !rules.write_to(line, &judgement.landlock, &self.rule_files)) {
            // The paths of the ruleset were opened before the program could exchange them.
            line.put("refused", "landlock");
        } else if !judgement.security.labels.is_empty() {
            // A text without the label would go unnoticed: labels change with each exec.
            line.put("refused", "label");
        }
        line.put("new", format!("{:x}", policy.namespaces.new.bits()));
        let joined = policy.namespaces.join.iter().fold(Namespaces::empty(), |all, (kind, _)| all | *kind);
        line.put("joined", format!("{:x}", joined.bits()));
        for kind in (Namespaces::all() - policy.namespaces.apart()).iter() {
            if let Some((name, inode)) = kind.file().and_then(|name| Some((name, own_namespace(name)?))) {
                line.put("shared", format!("{name}:{inode}"));
            }
        }
        if !policy.namespaces.apart().contains(Namespaces::MOUNT)
            && let Some((device, inode)) = own_root()
        {
            line.put("rootdir", format!("{device}:{inode}"));
        }
        self.write_program(line);
        if let Some(maps) = &judgement.maps {
            let lines = |lines: &[IdMap]| {
                let lines = lines.iter().map(|l| format!("{}-{}-{}", l.inside, l.outside, l.count));
                lines.collect::<Vec<_>>().join("+")
            };
            let by_itself = u8::from(maps.writer == Writer::Inside);
            let (deny, own) = (u8::from(maps.deny_setgroups), u8::from(maps.outside != Outside::Mapped));
            line.put("maps", format!("{}:{}:{deny}:{by_itself}:{own}", lines(&maps.uid), lines(&maps.gid)));
        }
        if let Some((uid, gid)) = self.user_outside {
            line.put("outside", format!("{uid}:{gid}"));
        }
        let security = &judgement.security;
        if let Some(capabilities) = &security.capabilities {
            line.put("caps", capabilities.to_text());
        }
        if let Some(profile) = &judgement.seccomp {
            line.put("seccomp", profile.to_text());
        }
        let flags = [
            ("fenced", self.has_boundary),
            ("nnp", security.no_new_privs),
            ("keyring", security.session_keyring),
            ("bounding", judgement.bounding),
            ("init", policy.program.init),
            ("outlives", policy.program.outlive_owner),
            ("root", policy.mounts.root.is_some()),
            // For a further program the two are one: none has CAP_SYS_ADMIN.
            ("covers", policy.mounts.no_pivot || policy.namespaces.ends_in.is_some()),
            ("counts", judgement.account_cpu),
            ("cuts", policy.output_cut),
            ("uncounted", !policy.has_to_count()),
        ];
        flags.into_iter().filter(|(_, is_set)| *is_set).for_each(|(name, _)| line.put(name, 1));
        let times = [
            ("wall", policy.wall_time),
            ("grace", policy.wall_time_grace),
            ("cpu", policy.cpu_time),
            ("setup", policy.setup_timeout),
        ];
        for (name, time) in times {
            time.into_iter().for_each(|time| line.put(name, time.as_nanos()));
        }
        policy.output_limit.into_iter().for_each(|bytes| line.put("output", bytes));
    }

    fn write_program(&self, line: &mut text::Writer) {
        let program = &self.policy.program;
        let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join("+");
        if program.user.is_none() || program.groups.is_none() {
            let (uid, gid, groups) = own_ids();
            line.put("caller", format!("{uid}:{gid}:{}", list(&groups)));
        }
        if let Some((uid, gid)) = program.user {
            line.put("user", format!("{uid}:{gid}"));
        }
        if let Some(groups) = &program.groups {
            line.put("groups", list(groups));
        }
        program.umask.into_iter().for_each(|mask| line.put("umask", mask));
        program.attributes.write(line);
        for (resource, soft, hard) in &program.rlimits {
            line.put("rlimit", format!("{}:{soft}:{hard}", resource.number()));
        }
        program.session.into_iter().for_each(|session| {
            let name = match session {
                Session::Inherit => "inherit",
                Session::NewGroup => "group",
                Session::New => "new",
            };
            line.put("session", name);
        });
        program.cwd.iter().for_each(|cwd| line.put("cwd", escape(cwd.as_os_str().as_bytes())));
        program.stop_signal.into_iter().for_each(|signal| line.put("stop", signal));
    }
}

impl EntryRecord {
    /// Reads what [`Entrance::write`] has written. Returns `None` for a text that it has not.
    pub(crate) fn read(line: &mut text::Reader<'_>) -> Option<EntryRecord> {
        let mut policy = Policy::default();
        policy.namespaces.new = namespaces(line.one("new", Some)?)?;
        let joined = namespaces(line.one("joined", Some)?)?;
        policy.namespaces.join = joined.iter().map(|kind| (kind, JoinSource::Pid(0))).collect();
        let shared = line.all("shared").into_iter().map(shared).collect::<Option<Vec<_>>>()?;
        let root = line.maybe("rootdir", |value| pair(value, number, number))?;
        let caller = line.maybe("caller", |value| {
            let (uid, rest) = value.split_once(':')?;
            let (gid, groups) = rest.split_once(':')?;
            Some((number(uid)?, number(gid)?, ids(groups)?))
        })?;
        read_program(&mut policy, line)?;
        policy.seccomp = line.maybe("seccomp", Seccomp::from_text)?;
        // The capability is held for this filter alone, whatever the text says.
        let new_privs = policy.seccomp.as_ref().is_some_and(Seccomp::allows_new_privs);
        let security = Privileges {
            capabilities: line.maybe("caps", Capabilities::from_text)?,
            no_new_privs: line.flag("nnp")?,
            session_keyring: line.flag("keyring")?,
            labels: Labels::default(),
            admin_until_exec: new_privs,
        };
        policy.security = security.clone();
        policy.mounts.root = line.flag("root")?.then(RootFs::host);
        policy.mounts.no_pivot = line.flag("covers")?;
        let nanos = |value| Some(Duration::from_nanos(number(value)?));
        let (rules, rule_files) = Landlock::read_from(line)?;
        policy.landlock = rules;
        policy.wall_time = line.maybe("wall", nanos)?;
        policy.wall_time_grace = line.maybe("grace", nanos)?;
        policy.cpu_time = line.maybe("cpu", nanos)?;
        policy.setup_timeout = line.maybe("setup", nanos)?;
        policy.output_limit = line.maybe("output", number)?;
        policy.output_cut = line.flag("cuts")?;
        if line.flag("uncounted")? {
            policy.best_effort.insert(Feature::OutputLimit);
        }
        let judgement = Judgement {
            enforced: Enforced::default(),
            limits: Limits::default(),
            account_cpu: line.flag("counts")?,
            maps: line.maybe("maps", maps)?,
            landlock: policy.landlock.as_ref().map_or_else(Vec::new, Landlock::features),
            security,
            bounding: line.flag("bounding")?,
            seccomp: policy.seccomp.clone(),
            control_groups: Vec::new(),
            shows_groups: false,
        };
        let user_outside = line.maybe("outside", |value| pair(value, number, number))?;
        let unrepeatable = line.maybe("refused", |value| match value {
            "landlock" => Some(Unrepeatable::Landlock),
            "label" => Some(Unrepeatable::Label),
            _ => None,
        })?;
        let has_boundary = line.flag("fenced")?;
        let needs_caller = policy.program.user.is_none() || policy.program.groups.is_none();
        // None of them goes with a filter that leaves set-user-ID programs their rights.
        let gives_up = policy.security.no_new_privs || policy.program.init || policy.landlock.is_some();
        let contradicts = new_privs && gives_up;
        let valid = policy.program.invalid().is_empty() && needs_caller == caller.is_some() && !contradicts;
        let entrance = Entrance {
            policy: Arc::new(policy),
            judgement: Arc::new(judgement),
            user_outside,
            has_boundary,
            ruleset: None,
            rule_files,
        };
        valid.then_some(EntryRecord { entrance: Arc::new(entrance), unrepeatable, caller, shared, root })
    }

    #[cfg(test)]
    pub(super) fn entrance_of_text(&self) -> &Entrance {
        &self.entrance
    }

    /// Returns whether the sandbox has a pid namespace of its own.
    pub(crate) fn own_pid_ns(&self) -> bool {
        self.entrance.policy.namespaces.new.contains(Namespaces::PID)
    }

    /// Adds the filter's explanation to an error of an exec.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.entrance.judgement.explain_by_profile(error)
    }

    /// Returns the signal that asks the program to end.
    pub(crate) fn stop_signal(&self) -> i32 {
        self.entrance.policy.program.stop_signal.unwrap_or(libc::SIGTERM)
    }

    /// Returns the way into the sandbox, after a comparison of the text with its first process:
    /// that has at most the rights that the text gives, and this process is what the first owner
    /// was. What the command says by itself is the caller's, and not the text's.
    pub(crate) fn entrance(&self, pid: i32, process: BorrowedFd<'_>, command: &Command) -> Result<Arc<dyn Enter>> {
        let refuse = |reason: String, hint: &str| {
            Err(Error::message(ErrorKind::Unsupported, Step::Enter, reason).hint(hint.to_owned()))
        };
        let is_said = |wall: &Unrepeatable| matches!(wall, Unrepeatable::Label) && command.says_label();
        if let Some(wall) = self.unrepeatable.filter(|wall| !is_said(wall)) {
            let (what, hint) = match wall {
                Unrepeatable::Landlock => (
                    "the rules of Landlock",
                    "call exec() in the process that has started the sandbox, or start it with die_with_owner(false)",
                ),
                Unrepeatable::Label => ("the label", "call exec() in the process that has started the sandbox"),
            };
            let reason = format!("{what} of this sandbox cannot be repeated by another process");
            return refuse(reason, hint);
        }
        let (terms, _) = self.entrance.terms(command);
        let program = &terms.policy.program;
        if let Some((uid, gid, groups)) = &self.caller {
            let (own_uid, own_gid, own_groups) = own_ids();
            let same_user = program.user.is_some() || (own_uid, own_gid) == (*uid, *gid);
            if !same_user || program.groups.is_none() && own_groups.iter().any(|group| !groups.contains(group)) {
                let reason = format!("the sandbox's programs have the user and the groups of its owner, user {uid}");
                return refuse(reason, "attach as that user, with those groups");
            }
        }
        for (kind, inode) in &self.shared {
            let name = kind.file().unwrap_or_default();
            if own_namespace(name) != Some(*inode) {
                let reason =
                    format!("the sandbox shares the {name} namespace with its owner, and this process has another");
                return refuse(reason, "attach in the namespaces of the process that has started the sandbox");
            }
        }
        if self.root.is_some() && own_root() != self.root {
            let reason = "the sandbox has its owner's root directory, and this process has another";
            return refuse(reason.into(), "attach in the root directory of the process that has started the sandbox");
        }
        let read = |dir: &str| Process::read(dir).map_err(|error| Error::io(Step::Enter, &error).at(dir));
        let theirs = read(&format!("/proc/{pid}"));
        // As long as nobody has reaped the process, the pid is its own.
        if pidfd::pid_of(process) != Some(pid) {
            return Err(Error::new(Step::Enter, nix::errno::Errno::ESRCH));
        }
        match excess(&terms, &theirs?, &read("/proc/thread-self")?) {
            Some(what) => refuse(
                format!("the ticket would give a further program {what}"),
                "the ticket is not that of this sandbox, or this process has more rights than the sandbox's owner",
            ),
            None => self.with_rules(pid, process),
        }
    }

    /// Returns the way into the sandbox with its rules of Landlock, made again.
    fn with_rules(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<Arc<dyn Enter>> {
        let Entrance { policy, judgement, user_outside, has_boundary, rule_files, .. } = &*self.entrance;
        let Some(rules) = &policy.landlock else { return Ok(self.entrance.clone()) };
        let root = open_root(&Inside { pid, pidfd, group: None })?;
        Ok(Arc::new(Entrance {
            policy: policy.clone(),
            judgement: judgement.clone(),
            user_outside: *user_outside,
            has_boundary: *has_boundary,
            ruleset: Some(rules.make_again(root.as_fd(), rule_files)?),
            rule_files: rule_files.clone(),
        }))
    }
}

/// Reads the pairs about the program.
fn read_program(policy: &mut Policy, line: &mut text::Reader<'_>) -> Option<()> {
    let program = &mut policy.program;
    program.env_clear = true;
    program.user = line.maybe("user", |value| pair(value, number, number))?;
    program.groups = line.maybe("groups", ids)?;
    program.umask = line.maybe("umask", |value| number(value).filter(|mask| *mask <= 0o777))?;
    program.rlimits = line.all("rlimit").into_iter().map(rlimit).collect::<Option<_>>()?;
    program.session = line.maybe("session", |value| {
        Some(match value {
            "inherit" => Session::Inherit,
            "group" => Session::NewGroup,
            "new" => Session::New,
            _ => return None,
        })
    })?;
    program.cwd = line.maybe("cwd", |value| Some(OsString::from_vec(unescape(value)?).into()))?;
    program.stop_signal = line.maybe("stop", |value| number(value).filter(|signal| (1..=64).contains(signal)))?;
    program.init = line.flag("init")?;
    program.attributes = Attributes::read(line, program.init)?;
    program.outlive_owner = line.flag("outlives")?;
    Some(())
}

fn pair<A, B>(text: &str, first: fn(&str) -> Option<A>, second: fn(&str) -> Option<B>) -> Option<(A, B)> {
    let (one, other) = text.split_once(':')?;
    Some((first(one)?, second(other)?))
}

fn namespaces(text: &str) -> Option<Namespaces> {
    Namespaces::from_bits(hex(text)?)
}

fn shared(text: &str) -> Option<(Namespaces, u64)> {
    let (name, inode) = text.split_once(':')?;
    let kind = Namespaces::all().iter().find(|kind| kind.file() == Some(name))?;
    Some((kind, number(inode)?))
}

fn ids(text: &str) -> Option<Vec<u32>> {
    let words = text.split('+').filter(|_| !text.is_empty());
    let ids = words.take(LIST_MAX + 1).map(number).collect::<Option<Vec<u32>>>()?;
    (ids.len() <= LIST_MAX).then_some(ids)
}

fn rlimit(text: &str) -> Option<(Resource, u64, u64)> {
    let words: Vec<&str> = text.split(':').collect();
    let [resource, soft, hard] = words[..] else { return None };
    Some((Resource::of_number(number(resource)?)?, number(soft)?, number(hard)?))
}

fn maps(text: &str) -> Option<IdMaps> {
    let words: Vec<&str> = text.split(':').collect();
    let [uid, gid, deny, by_itself, own] = words[..] else { return None };
    let lines = |text: &str| {
        let line = |line: &str| {
            let words: Vec<&str> = line.split('-').collect();
            let [inside, outside, count] = words[..] else { return None };
            let line = IdMap::new(number(inside)?, number(outside)?, number(count)?);
            // The kernel takes no line that leaves the ids there are.
            let fits = |first: u32| first.checked_add(line.count).is_some();
            (fits(line.inside) && fits(line.outside)).then_some(line)
        };
        let lines = text.split('+').take(LIST_MAX + 1).map(line).collect::<Option<Vec<_>>>()?;
        (lines.len() <= LIST_MAX).then_some(lines)
    };
    let flag = |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    Some(IdMaps {
        uid: lines(uid)?,
        gid: lines(gid)?,
        deny_setgroups: flag(deny)?,
        writer: if flag(by_itself)? { Writer::Inside } else { Writer::Caller },
        outside: if flag(own)? { Outside::Leased } else { Outside::Mapped },
    })
}

/// Returns the inode of a namespace of this process.
fn own_namespace(name: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/self/ns/{name}")).ok()?.ino())
}

fn own_root() -> Option<(u64, u64)> {
    let root = fs::metadata("/").ok()?;
    Some((root.dev(), root.ino()))
}

fn own_ids() -> (u32, u32, Vec<u32>) {
    let groups = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    (Uid::effective().as_raw(), Gid::effective().as_raw(), groups)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::launch) fn record(pairs: &str) -> Option<EntryRecord> {
        let text = format!("x,{pairs}");
        let mut line = text::Reader::new(&text, "x")?;
        let record = EntryRecord::read(&mut line)?;
        line.is_empty().then_some(record)
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let filter = Seccomp::default().to_text();
        let text = format!(
            "new=7c020000,joined=10000000,caller=0:0:7+8,user=1:2,umask=18,oom=-5,\
             scheduler=batch:0:-3,io=2:7,affinity=ff+1,memory=2:8000:3,personality=40008,rlimit=7:77:99,session=new,\
             cwd=/a%20b,stop=2,\
             maps=0-1000-1+5-6-7:0-100-1:1:0:1,outside=5:6,caps=1.1.1.0.0.-,seccomp={filter},nnp=1,keyring=1,bounding=1,\
             init=1,root=1,wall=60000000000,output=77,\
             rules=c:28:7:/etc+4:28:8:/a%20b,ports=1:80+2:443,scopes=3"
        );
        let read = record(&text).unwrap();
        let mut line = text::Writer::new("x");
        read.entrance.write(&mut line);
        let again = line.finish();
        let without_own = |text: &str| -> Vec<String> {
            let own = ["caller=", "shared=", "rootdir=", "x"];
            let mut words: Vec<String> =
                text.split(',').filter(|w| !own.iter().any(|o| w.starts_with(o))).map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(without_own(&again), without_own(&text));
    }

    #[test]
    fn an_entry_that_nobody_has_written_is_refused() {
        let base = "new=0,joined=0,caller=0:0:";
        assert!(record(base).is_some());
        for text in [
            "new=1,joined=0,caller=0:0:",
            "new=0,joined=0",
            "new=0,joined=0,caller=0:0:,user=4294967295:0",
            "new=0,joined=0,caller=0:0:,rlimit=99:1:1",
            "new=0,joined=0,caller=0:0:,rlimit=7:2:1",
            "new=0,joined=0,caller=0:0:,stop=65",
            "new=0,joined=0,caller=0:0:,seccomp=default.0",
            "new=0,joined=0,caller=0:0:,maps=0-4294967295-2:0-0-1:0:0:0",
            "new=0,joined=0,caller=0:0:,init=0",
            "new=0,joined=0,caller=0:0:,oom=-1001",
            "new=0,joined=0,caller=0:0:,scheduler=deadline:0:1:2:3",
            "new=0,joined=0,caller=0:0:,affinity=0",
            "new=0,joined=0,caller=0:0:,admin=1",
            "new=0,joined=0,caller=0:0:,refused=attributes",
            "new=0,joined=0,caller=0:0:,rules=c:1:2",
            "new=0,joined=0,caller=0:0:,more=1",
            "new=0,joined=0,caller=0:0:,new=0",
        ] {
            assert!(record(text).is_none(), "{text}");
        }
        crate::fuzz::texts(&[base, "new=20000,joined=0,caller=0:0:7,maps=0-1-1:0-1-1:1:1:0,stop=3"], |text| {
            drop(record(text))
        });
    }

    #[test]
    fn a_capability_is_held_for_its_filter_alone() {
        let base = "new=0,joined=0,caller=0:0:";
        let filter = |wanted| Seccomp::deny_list().deny(["mkdir"]).allow_new_privs(wanted).to_text();
        let held = |text: &str| record(text).map(|read| read.entrance.judgement.security.admin_until_exec);
        assert_eq!(held(base), Some(false));
        assert_eq!(held(&format!("{base},seccomp={}", filter(false))), Some(false));
        let text = format!("{base},seccomp={}", filter(true));
        assert_eq!(held(&text), Some(true));
        for forged in ["admin=1", "nnp=1", "init=1", "scopes=1"] {
            assert_eq!(held(&format!("{text},{forged}")), None, "{forged}");
        }
    }
}
