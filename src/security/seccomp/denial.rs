//! The record of refused calls. A profile that reports asks about each call that it would answer
//! with an errno. A thread records the call, and answers with that errno: a call is never let
//! through, so what the thread reads cannot deceive the filter.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::bpf::Filter;
use super::notify::{Notification, Notifications};
use super::rule::{Action, Compare, DenialRule, Rule};
use super::table;
use crate::sys::mutex;

/// The most records of one sandbox, and of one system call with one errno.
const MOST: usize = 256;
const MOST_OF_A_KIND: usize = 32;
/// The longest path that the kernel takes (`PATH_MAX`), with its final NUL.
const LONGEST_PATH: usize = 4096;
/// The calls that have a path as an argument, with the place of that argument. Of two paths, it is
/// the one that the call would change.
const PATHS: &[(&str, usize)] = &[
    ("access", 0),
    ("acct", 0),
    ("chdir", 0),
    ("chmod", 0),
    ("chown", 0),
    ("chroot", 0),
    ("creat", 0),
    ("execve", 0),
    ("execveat", 1),
    ("faccessat", 1),
    ("faccessat2", 1),
    ("fchmodat", 1),
    ("fchmodat2", 1),
    ("fchownat", 1),
    ("fspick", 1),
    ("inotify_add_watch", 1),
    ("lchown", 0),
    ("link", 1),
    ("linkat", 3),
    ("lstat", 0),
    ("mkdir", 0),
    ("mkdirat", 1),
    ("mknod", 0),
    ("mknodat", 1),
    ("mount", 1),
    ("mount_setattr", 1),
    ("name_to_handle_at", 1),
    ("newfstatat", 1),
    ("open", 0),
    ("open_tree", 1),
    ("open_tree_attr", 1),
    ("openat", 1),
    ("openat2", 1),
    ("pivot_root", 0),
    ("quotactl", 1),
    ("readlink", 0),
    ("readlinkat", 1),
    ("rename", 1),
    ("renameat", 3),
    ("renameat2", 3),
    ("rmdir", 0),
    ("setxattr", 0),
    ("stat", 0),
    ("statx", 1),
    ("swapoff", 0),
    ("swapon", 0),
    ("symlink", 1),
    ("symlinkat", 2),
    ("truncate", 0),
    ("umount2", 0),
    ("unlink", 0),
    ("unlinkat", 1),
    ("utimensat", 1),
];

/// A system call that the program was refused: [`Sandbox::denials`](crate::Sandbox::denials).
///
/// Calls that differ only in arguments that the profile does not compare are one record, with a
/// [`count`](Denial::count).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    number: i32,
    arch: u32,
    args: [u64; 6],
    /// The bits of each argument that the profile compares.
    masks: [u64; 6],
    errno: i32,
    rule: DenialRule,
    path: Option<PathBuf>,
    count: u64,
}

impl Denial {
    /// Returns the name of the call, or `None` for one that is newer than this crate, or of an
    /// architecture that the profile does not name.
    pub fn syscall(&self) -> Option<&'static str> {
        let ours = self.rule != DenialRule::Foreign;
        u32::try_from(self.number).ok().filter(|_| ours).and_then(|number| table::name_on(self.arch, number))
    }

    /// Returns the number of the call.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// Returns the arguments of the first such call. The man page of the call says how many it has;
    /// the others can have any value.
    pub fn args(&self) -> [u64; 6] {
        self.args
    }

    /// Returns the errno that the program got.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Returns the part of the profile that refused the call.
    pub fn rule(&self) -> DenialRule {
        self.rule
    }

    /// Returns the path that stood in the program's memory when the first such call was refused, if
    /// the call has one, and the caller may read that memory. This is a hint for people: the
    /// program can write what it likes there, and the path is as the program sees it, relative to a
    /// directory that is not recorded. At most 4,096 bytes.
    pub fn path_seen(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns the number of such calls.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the narrowest rule that has the profile allow the call:
    /// [`Seccomp::rule`](crate::Seccomp::rule). It names the values of those arguments that the
    /// profile compares. `None` for a call that no rule can name. The filter is one wall of
    /// several: the kernel can refuse the call still, for want of a capability, or at a limit.
    pub fn allowing_rule(&self) -> Option<Rule> {
        let compared = self.masks.iter().zip(&self.args).enumerate().filter(|(_, (mask, _))| **mask != 0);
        let compared =
            compared.map(|(index, (&mask, value))| (index as u8, Compare::MaskedEq { mask, value: value & mask }));
        let rule = Rule::new([self.syscall()?], Action::Allow);
        Some(compared.fold(rule, |rule, (index, compare)| rule.arg(index, compare)))
    }

    /// Returns the builder's call that would allow the system call, as text, or what else would
    /// help.
    pub fn allowed_by(&self) -> String {
        const NAMESPACES: [&str; 4] = ["clone", "clone3", "unshare", "setns"];
        let Some(name) = self.syscall() else {
            return match self.rule {
                DenialRule::Foreign => "a program that is built for this architecture".to_owned(),
                _ => "none: the call is newer than this crate".to_owned(),
            };
        };
        let mut rule = match self.masks.iter().any(|mask| *mask != 0) {
            false => format!(".seccomp(profile.allow([{name:?}]))"),
            true => {
                let compared = self.masks.iter().zip(&self.args).enumerate().filter(|(_, (mask, _))| **mask != 0);
                let args: String = compared.map(|(index, (mask, value))| show_arg(index, *mask, *value)).collect();
                format!(".seccomp(profile.rule(Rule::new([{name:?}], Action::Allow){args}))")
            }
        };
        if NAMESPACES.contains(&name) {
            rule.push_str(", or .max_user_namespaces() above 0 for namespaces below a user namespace");
        }
        rule
    }

    /// Returns whether a call with these properties belongs to this record.
    fn covers(&self, other: &Denial) -> bool {
        let compared =
            |denial: &Denial| denial.args.iter().zip(&denial.masks).map(|(arg, mask)| arg & mask).collect::<Vec<_>>();
        self.is_like(other) && compared(self) == compared(other) && self.path == other.path
    }

    /// Returns whether a call is of the same kind: the same system call, with the same errno.
    fn is_like(&self, other: &Denial) -> bool {
        (self.number, self.arch, self.errno) == (other.number, other.arch, other.errno)
    }
}

fn show_arg(index: usize, mask: u64, value: u64) -> String {
    match mask {
        0xffff_ffff => format!(".arg({index}, Compare::int({}))", value & mask),
        u64::MAX => format!(".arg({index}, Compare::Eq({value}))"),
        _ => format!(".arg({index}, Compare::MaskedEq {{ mask: {mask:#x}, value: {:#x} }})", value & mask),
    }
}

/// Writes the call with the arguments that were compared and the path that was seen, the errno, and
/// what refused the call.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.syscall() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "system call {}", self.number)?,
        }
        let compared = self.args.iter().zip(&self.masks).filter(|(_, mask)| **mask != 0);
        let mut words: Vec<String> = compared.map(|(arg, mask)| format!("{:#x}", arg & mask)).collect();
        // A quoted path has neither line breaks nor control characters.
        words.extend(self.path.as_ref().map(|path| format!("{path:?}")));
        if !words.is_empty() {
            write!(f, "({})", words.join(", "))?;
        }
        if self.count > 1 {
            write!(f, ", {} times", self.count)?;
        }
        write!(f, ": {:?}, by {}", Errno::from_raw(self.errno), self.rule)
    }
}

/// The system calls that a program was refused, in the order of their first refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denials {
    records: Vec<Denial>,
    dropped: u64,
}

impl Denials {
    /// Returns the records, the oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Denial> {
        self.records.iter()
    }

    /// Returns the number of calls that were refused and are in no record, because there were 32
    /// different ones of the same system call already, or 256 in all.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns true if no call was refused.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.dropped == 0
    }

    /// Returns whether a record of this kind still has a place.
    fn has_place_for(&self, denial: &Denial) -> bool {
        let alike = || self.records.iter().filter(|record| record.is_like(denial)).count();
        self.records.len() < MOST && alike() < MOST_OF_A_KIND
    }

    fn add(&mut self, denial: Denial) {
        if let Some(known) = self.records.iter_mut().find(|record| record.covers(&denial)) {
            known.count = known.count.saturating_add(1);
        } else if self.has_place_for(&denial) {
            self.records.push(denial);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

impl<'d> IntoIterator for &'d Denials {
    type Item = &'d Denial;
    type IntoIter = std::slice::Iter<'d, Denial>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Denials {
    type Item = Denial;
    type IntoIter = std::vec::IntoIter<Denial>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.into_iter()
    }
}

/// The record of one program, which the thread that answers and the handle share.
#[derive(Debug)]
pub(crate) struct DenialRecord {
    answers: Arc<Filter>,
    denials: Mutex<Denials>,
}

impl DenialRecord {
    pub(super) fn new(answers: Arc<Filter>) -> Self {
        DenialRecord { answers, denials: Mutex::default() }
    }

    /// Returns what has been recorded.
    pub(crate) fn denials(&self) -> Denials {
        mutex::lock(&self.denials).clone()
    }

    /// Records and refuses each call, until no process under the filter is left.
    pub(crate) fn refuse_all(&self, notifications: &Notifications) {
        // After an error the listener is closed, and each later call fails with ENOSYS.
        while let Ok(Some(call)) = notifications.recv() {
            let denial = self.judge(&call);
            let errno = denial.errno;
            self.note(&call, denial);
            // An error means that nobody waits for the answer.
            let _ = call.errno(errno);
        }
    }

    /// Judges a call as the filter would.
    fn judge(&self, call: &Notification) -> Denial {
        let (number, arch, args) = (call.number(), call.arch(), call.args());
        let (action, rule, masks) = self.answers.judge(arch, number as u32, &args);
        let errno = match action {
            Action::Errno(errno) => errno,
            // The filter asks about nothing else.
            _ => libc::EPERM,
        };
        Denial { number, arch, args, masks, errno, rule, path: None, count: 1 }
    }

    /// Records a call. The lock is not held while the program's memory is read, which can take as
    /// long as the program likes.
    fn note(&self, call: &Notification, mut denial: Denial) {
        if mutex::lock(&self.denials).has_place_for(&denial) {
            denial.path = denial.syscall().and_then(|name| path_of(call, name));
        }
        mutex::lock(&self.denials).add(denial);
    }
}

/// Reads the path that a call was given.
fn path_of(call: &Notification, name: &str) -> Option<PathBuf> {
    let (_, place) = PATHS.iter().find(|(known, _)| *known == name)?;
    let address = call.args()[*place];
    let path = call.read_string(address, LONGEST_PATH - 1).ok().filter(|path| !path.is_empty())?;
    Some(std::ffi::OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(number: i32, args: [u64; 6], path: Option<&str>) -> Denial {
        let path = path.map(PathBuf::from);
        let masks = [0xffff_ffff, 0, 0, 0, 0, 0];
        Denial {
            number,
            arch: table::AUDIT_ARCH,
            args,
            masks,
            errno: libc::EPERM,
            rule: DenialRule::Named,
            path,
            count: 1,
        }
    }

    #[test]
    fn calls_that_the_profile_cannot_tell_apart_are_one_record() {
        let mut denials = Denials::default();
        for address in 0..1000 {
            denials.add(denial(41, [16, address, 0, 0, 0, 0], None));
            denials.add(denial(41, [17 | address << 32, 0, 0, 0, 0, 0], None));
        }
        let counts: Vec<_> = denials.iter().map(|one| (one.args()[0], one.count())).collect();
        assert_eq!((counts, denials.dropped()), (vec![(16, 1000), (17, 1000)], 0));
    }

    #[test]
    fn a_flood_of_one_call_leaves_room_for_others() {
        let mut denials = Denials::default();
        for path in 0..10_000 {
            denials.add(denial(83, [0; 6], Some(&path.to_string())));
        }
        assert_eq!((denials.iter().len(), denials.dropped()), (MOST_OF_A_KIND, 10_000 - MOST_OF_A_KIND as u64));
        denials.add(denial(84, [0; 6], None));
        assert_eq!(denials.iter().last().unwrap().number(), 84);
        for number in 100..1000 {
            denials.add(denial(number, [0; 6], None));
        }
        assert_eq!(denials.iter().len(), MOST);
        let counted: u64 = denials.iter().map(Denial::count).sum();
        assert_eq!(counted + denials.dropped(), 10_901);
    }

    #[test]
    fn every_call_with_a_path_is_a_call() {
        for (name, place) in PATHS {
            assert_ne!(table::look_up(name), table::Known::Unknown, "{name}");
            assert!(*place < 6);
        }
        assert!(PATHS.is_sorted());
    }

    #[test]
    fn a_denial_is_shown_with_what_was_compared() {
        let number = libc::SYS_socket as i32;
        let shown = denial(number, [16, 7, 7, 7, 7, 7], Some("a\nb"));
        assert_eq!(shown.to_string(), "socket(0x10, \"a\\nb\"): EPERM, by a rule of the seccomp profile");
        let call = ".seccomp(profile.rule(Rule::new([\"socket\"], Action::Allow).arg(0, Compare::int(16))))";
        assert_eq!(shown.allowed_by(), call);
    }
}
