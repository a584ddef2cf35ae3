//! The ticket of a sandbox, by which a later process finds the sandbox again.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use crate::cgroup::{Group, GroupPath, NamedDir};
use crate::child::{Child, Left};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::EntryRecord;
use crate::owner;
use crate::proc::identity::Identity;
use crate::spawn::{self, Waits};
use crate::sys::{by_fd, table};
use crate::text::{Reader, Writer, escape, number, unescape};

/// The first word of a ticket, with the version of the text.
const VERSION: &str = "ringfence1";
/// The longest text of a ticket.
const SIZE_MAX: usize = 64 << 10;

/// The name of a running sandbox for later processes: [`Child::ticket`],
/// [`Attached::open`](crate::Attached::open).
///
/// A ticket is a line of ASCII text without blanks or quotes, 64 KiB long at most, and mostly below
/// 2 KiB. It names the first process of the sandbox by what no other process ever has (its pid with
/// its start time, the boot, and since Linux 6.9 the inode of its pidfd), the sandbox's control
/// group, and the policy for [`exec`](crate::Attached::exec). It has no variables of the
/// environment.
///
/// Keep a ticket as you would keep the handle: who has one and runs as the sandbox's owner can
/// control the sandbox. A ticket that somebody else has written can name a process that is no
/// sandbox. It gives its reader no right that the reader does not have, and gives
/// [`exec`](crate::Attached::exec) no program in other namespaces or groups, or of another user,
/// than the process that it names. But the kernel tells nobody what rules a seccomp filter has, nor
/// whether Landlock's are in place: who can change a ticket can have a further program go without
/// them. Keep it where the sandbox's programs cannot write.
///
/// A ticket has no signature: the library has no place for a key that is safer than the caller's
/// place for the ticket. Where tickets go through hands that are not trusted, such as those of the
/// clients of a service, give them a name for each, and keep the text; or sign the text with a key
/// that they do not have.
///
/// ```
/// use ringfence::{Sandbox, Ticket};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let child = Sandbox::new().command("sleep").arg("60").spawn()?;
/// let text = child.ticket()?.to_string();
/// let ticket: Ticket = text.parse()?;
/// assert_eq!(ticket.id(), child.id());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Ticket {
    text: String,
    pub(super) identity: Identity,
    /// The name of what the sandbox has on the host.
    pub(super) name: Option<String>,
    pub(super) places: Vec<GroupPath>,
    /// The directories of a group that the caller has named.
    pub(super) named: Vec<NamedDir>,
    /// Set for a sandbox whose program a later process starts.
    pub(super) door: Option<Door>,
    pub(super) entry: EntryRecord,
}

/// The directory of a sandbox whose program a later process starts. Until the start is done,
/// somebody listens on a socket in it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) dir: PathBuf,
}

impl Door {
    fn to_text(&self) -> String {
        format!("{}:{}:{}", self.device, self.inode, escape(self.dir.as_os_str().as_bytes()))
    }

    fn from_text(text: &str) -> Option<Door> {
        let words: Vec<&str> = text.split(':').collect();
        let [device, inode, dir] = words[..] else { return None };
        let dir = PathBuf::from(OsString::from_vec(unescape(dir)?));
        let is_whole = dir.is_absolute() && !dir.as_os_str().as_bytes().contains(&0);
        is_whole.then_some(Door { device: number(device)?, inode: number(inode)?, dir })
    }

    /// Refuses a sandbox that waits for its start: its first process has no filter yet, and a
    /// program beside it could take it over. Where nothing tells, the sandbox counts as waiting.
    pub(super) fn refuse_waiting(&self) -> Result<()> {
        let failed = |errno| Error::new(Step::Enter, errno).at(&self.dir).with_kind(ErrorKind::Control);
        let unknown = |errno| {
            failed(errno)
                .detail("nothing tells whether the program of the sandbox was started")
                .hint("call exec() where the directory of the sandbox is, as its owner")
        };
        let dir = nix::fcntl::open(&self.dir, OFlag::O_PATH | by_fd::DIR, Mode::empty());
        let dir = dir.and_then(table::above_stdio).map_err(unknown)?;
        let stat = fstat(&dir).map_err(unknown)?;
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return Err(unknown(Errno::ESTALE));
        }
        match spawn::connect_to(&Path::new(&by_fd::path_of(&dir)).join(spawn::SOCKET)).map_err(unknown)? {
            Waits::No => Ok(()),
            Waits::Yes(_) => Err(failed(Errno::EAGAIN)
                .detail("the program of the sandbox was not started yet")
                .hint("call Created::start() first")),
        }
    }
}

/// # Finding it again
impl Child {
    /// Returns the ticket by which a later process finds the sandbox again, after
    /// [`detach`](Child::detach), or while this handle lives.
    ///
    /// A sandbox survives its owner only with
    /// [`die_with_owner(false)`](crate::Sandbox::die_with_owner). What the owner watches ends with
    /// the owner: the wall time, the processor time that a control group counts, and the limit of
    /// output.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] for the handle of a further program, after the program has
    /// been waited for, and in a fork of the caller; [`ErrorKind::TooLarge`] for a policy that does
    /// not fit into 64 KiB, because of its filter.
    pub fn ticket(&self) -> Result<Ticket> {
        Ticket::of(&self.left()?)
    }
}

impl Ticket {
    /// Writes the ticket of a sandbox.
    pub(crate) fn of(left: &Left<'_>) -> Result<Ticket> {
        Ticket::of_created(left, None)
    }

    /// Writes the ticket of a sandbox that waits behind a door.
    pub(crate) fn of_created(left: &Left<'_>, door: Option<&Door>) -> Result<Ticket> {
        let failed = |errno| Error::new(Step::Attach, errno).with_kind(ErrorKind::Control);
        let identity = Identity::of(left.pidfd).map_err(|errno| match errno {
            Errno::ESRCH => failed(errno).hint("the program has ended"),
            errno => failed(errno),
        })?;
        let mut line = Writer::new(VERSION);
        line.put("process", identity.to_line().trim().replace(' ', ":"));
        door.iter().for_each(|door| line.put("door", door.to_text()));
        left.name.iter().for_each(|name| line.put("name", name));
        let has_own_name = |group: &Group| left.name.as_deref().map(OsStr::new) == group.name().file_name();
        match left.group {
            Some(group) if has_own_name(group) => {
                group.places()?.iter().for_each(|place| line.put("group", place.to_text()));
            }
            Some(group) => group.named_dirs()?.iter().for_each(|dir| line.put("named", dir.to_text())),
            None => {}
        }
        left.enter.record(&mut line);
        let text = line.finish();
        if text.len() > SIZE_MAX {
            let reason = format!("a ticket of {} bytes is longer than {SIZE_MAX}", text.len());
            return Err(Error::message(ErrorKind::TooLarge, Step::Attach, reason).hint("use a shorter filter"));
        }
        text.parse()
    }

    /// Adds to an error of the program's exec what the sandbox's filter has to do with it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.entry.explain(error)
    }

    /// Returns the pid of the program, or of its init, as the sandbox's owner sees it. Another
    /// process may have this pid by now.
    pub fn id(&self) -> u32 {
        self.identity.pid().unsigned_abs()
    }

    fn read(text: &str) -> Option<Ticket> {
        let mut line = Reader::new(text, VERSION)?;
        let identity = line.one("process", |value| {
            let words: Vec<&str> = value.split(':').collect();
            (words.len() == 4).then(|| Identity::parse(&words.join(" ")))?
        })?;
        let door = line.maybe("door", Door::from_text)?;
        let name = line.maybe("name", |name| owner::token_of(name).map(|_| name.to_owned()))?;
        let groups = line.all("group");
        let place = |text| GroupPath::from_text(text, name.as_deref()?);
        let places = groups.into_iter().map(place).collect::<Option<Vec<_>>>()?;
        let dir = |text| NamedDir::from_text(text, name.as_deref()?);
        let named = line.all("named").into_iter().map(dir).collect::<Option<Vec<_>>>()?;
        // One that stands twice would stand for another, which is left out.
        let twice = |place: &GroupPath| places.iter().filter(|other| other.is_beside(place)).count() > 1;
        if places.iter().any(twice) || !places.is_empty() && !named.is_empty() {
            return None;
        }
        let entry = EntryRecord::read(&mut line)?;
        line.is_empty().then(|| Ticket { text: text.to_owned(), identity, name, places, named, door, entry })
    }
}

/// Returns in how many hierarchies a process is in the group of a sandbox that this process is not
/// in. The arguments are the `/proc/PID/cgroup` of both.
pub(super) fn groups_of_sandboxes(theirs: &str, own: &str) -> usize {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(PathBuf::from);
    let is_named = |line: &&str| {
        let same = own.lines().find(|own| own.split(':').next() == line.split(':').next());
        let (Some(theirs), own) = (path(line), same.and_then(path).unwrap_or_default()) else { return false };
        let common = theirs.iter().zip(own.iter()).take_while(|(one, other)| one == other).count();
        theirs.iter().skip(common).any(|name| name.to_str().is_some_and(|name| owner::token_of(name).is_some()))
    };
    theirs.lines().filter(is_named).count()
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Ticket {
    type Err = Error;

    /// Reads a ticket.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Invalid`] for a text that is no ticket, that of another version of this
    /// library included, and [`ErrorKind::TooLarge`] beyond 64 KiB.
    fn from_str(text: &str) -> Result<Ticket> {
        let text = text.trim();
        if text.len() > SIZE_MAX {
            return Err(Error::message(ErrorKind::TooLarge, Step::Attach, "the text is longer than any ticket"));
        }
        Ticket::read(text).ok_or_else(|| {
            Error::message(ErrorKind::Invalid, Step::Attach, "the text is no ticket of this version of the library")
                .hint("pass the text that Ticket's Display has written")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "rk-0123456789abcdef0123456789abcdef-1";

    fn ticket(more: &str) -> String {
        format!("ringfence1,process=7:100:b-1:55,new=0,joined=0,caller=0:0:{more}")
    }

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        let group = format!(",name={NAME},group=2:c0:77:a/{NAME},group=1:1:78:{NAME}");
        let named = format!(",name={NAME},named=28:77:made:/sys/fs/cgroup/a%20b,named=29:1:max:/sys/c");
        for text in [ticket(""), ticket(&group), ticket(&named), ticket(",door=28:77:/run/a%20b")] {
            let read: Ticket = format!("{text}\n").parse().unwrap();
            assert_eq!((read.to_string(), read.id()), (text, 7));
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        let name = |name: &str, path: &str| ticket(&format!(",name={name},group=2:c0:77:{path}"));
        let texts = [
            String::new(),
            ticket("").replace("ringfence1", "ringfence2"),
            ticket("").replace("=7:", "=0:"),
            ticket("").replace("=7:", "=-1:"),
            ticket("").replace(":55", ""),
            ticket(",process=8:1:b:1"),
            ticket(",unknown=1"),
            ticket(",group=2:c0:77:x"),
            ticket(",door=28:77:run"),
            ticket(",door=28:/run"),
            ticket(",door=28:77:/run%00"),
            ticket(",door=28:77:/run,door=28:77:/run"),
            name("x", "x"),
            name("system.slice", "system.slice"),
            name(NAME, "system.slice"),
            name(NAME, &format!("../{NAME}")),
            name(NAME, &format!("{NAME},group=2:c1:77:{NAME}")),
            name(NAME, &format!("/{NAME}")),
            ticket(&format!(",name={NAME}%2f..")),
            ticket(",named=28:77:made:/sys/c"),
            ticket(&format!(",name={NAME},named=28:77:made:sys/c")),
            ticket(&format!(",name={NAME},named=28:77:made:/sys/../c")),
            ticket(&format!(",name={NAME},named=28:77:-1:/sys/c")),
            ticket(&format!(",name={NAME},group=2:c0:77:{NAME},named=28:77:made:/sys/c")),
        ];
        for text in texts {
            let error = text.parse::<Ticket>().expect_err(&text);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
        let error = "x".repeat(SIZE_MAX + 1).parse::<Ticket>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let whole = name(NAME, &format!("a/{NAME}"));
        crate::fuzz::texts(&[&whole, &ticket("")], |text| drop(text.parse::<Ticket>()));
    }

    #[test]
    fn the_groups_of_a_sandbox_are_those_that_this_process_is_not_in() {
        let groups = |name: &str| format!("2:memory:/a/{name}\n1:cpu,cpuacct:/b\n0::/a/{name}/x\n");
        let own = "2:memory:/a\n1:cpu,cpuacct:/\n0::/\n";
        assert_eq!(groups_of_sandboxes(&groups(NAME), own), 2);
        assert_eq!(groups_of_sandboxes(&groups("rk-1"), own), 0);
        assert_eq!(groups_of_sandboxes(&groups(NAME), &groups(NAME)), 0, "inside of a sandbox");
        assert_eq!(groups_of_sandboxes(&groups(&format!("{NAME}/rf-{}", &NAME[3..])), &groups(NAME)), 2);
        assert_eq!(groups_of_sandboxes("", own) + groups_of_sandboxes("x\n:", own), 0);
    }
}
