//! The record of a sandbox that outlives its creator, as text.
//!
//! The first line has what every later version of the library needs to start the sandbox and to
//! remove it: it is read also if it has words that this version does not know. The second line is
//! the ticket, which only the versions of its kind can read.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::{NamedDir, UnitId};
use crate::launch::Belongings;
use crate::owner;
use crate::plan::Note;
use crate::proc::identity::Identity;
use crate::text::{Reader, Writer, escape, number, unescape};

/// The first word of a record, with the version of the text.
const VERSION: &str = "ringfence-created1";

/// What is on record of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The boot in which the sandbox was created. Inodes mean nothing in another.
    pub(super) boot: Option<String>,
    /// The inode of the pid namespace of the process that has created the sandbox. Pids mean
    /// nothing in another.
    pub(super) pid_ns: Option<u64>,
    pub(super) belongings: Option<Belongings>,
    /// `None` as long as the sandbox is not ready.
    pub(super) ready: Option<Ready>,
    /// True once the program was started.
    pub(super) started: bool,
}

/// A sandbox that is ready.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) process: Identity,
    /// The details of the ops of a start.
    pub(super) notes: Vec<(u32, Note)>,
    /// The time that a start may take.
    pub(super) timeout: Duration,
    /// A start brings the listener of the program's filter.
    pub(super) listens: bool,
    /// The text of the ticket, or the reason why there is none.
    pub(super) ticket: Result<String, String>,
}

impl Record {
    pub(super) fn to_text(&self) -> String {
        let mut line = Writer::new(VERSION);
        let path = |path: &Path| escape(path.as_os_str().as_bytes());
        self.boot.iter().for_each(|boot| line.put("boot", boot));
        self.pid_ns.iter().for_each(|inode| line.put("pidns", inode));
        if let Some(Belongings { name, groups, missing, named, unit, scratch }) = &self.belongings {
            line.put("name", name);
            groups.iter().for_each(|group| line.put("group", path(group)));
            missing.iter().for_each(|group| line.put("missing", path(group)));
            named.iter().for_each(|dir| line.put("named", dir.to_text()));
            unit.iter().for_each(|unit| line.put("unit", unit.to_text()));
            scratch.iter().for_each(|base| line.put("scratch", path(base)));
        }
        let mut ticket = "";
        if let Some(ready) = &self.ready {
            line.put("process", ready.process.to_line().trim().replace(' ', ":"));
            line.put("timeout", ready.timeout.as_nanos());
            ready.notes.iter().for_each(|(index, note)| line.put("note", format!("{index}:{}", note.to_text())));
            if ready.listens {
                line.put("listens", 1);
            }
            match &ready.ticket {
                Ok(text) => ticket = text,
                Err(reason) => line.put("unticketed", escape(reason.as_bytes())),
            }
        }
        if self.started {
            line.put("started", 1);
        }
        format!("{}\n{ticket}\n", line.finish())
    }

    /// Reads what [`to_text`](Record::to_text) has written, in this version or a later one.
    pub(super) fn from_text(text: &str) -> Option<Record> {
        let (line, ticket) = text.strip_suffix('\n')?.split_once('\n')?;
        let mut line = Reader::new(line, VERSION)?;
        let path = |text: &str| Some(PathBuf::from(OsString::from_vec(unescape(text)?)));
        let whole = |text: &str| path(text).filter(|path| path.is_absolute());
        let pid_ns = line.maybe("pidns", number)?;
        let boot = line.maybe("boot", |text| is_boot(text).then(|| text.to_owned()))?;
        let name = line.maybe("name", |name| owner::token_of(name).map(|_| name.to_owned()))?;
        let belongings = match name {
            None => None,
            Some(name) => {
                let paths = |texts: Vec<&str>| texts.into_iter().map(whole).collect::<Option<Vec<_>>>();
                let (groups, missing) = (paths(line.all("group"))?, paths(line.all("missing"))?);
                // Nobody removes a group that is not the sandbox's.
                let is_own = |group: &PathBuf| group.file_name().is_some_and(|last| last.as_bytes() == name.as_bytes());
                if !groups.iter().all(is_own) {
                    return None;
                }
                let named = line.all("named").into_iter().map(|text| NamedDir::from_text(text, &name));
                let named = named.collect::<Option<_>>()?;
                let unit = line.maybe("unit", UnitId::from_text)?;
                Some(Belongings { name, groups, missing, named, unit, scratch: line.maybe("scratch", whole)? })
            }
        };
        let identity = |text: &str| {
            let words: Vec<&str> = text.split(':').collect();
            (words.len() == 4).then(|| Identity::parse(&words.join(" ")))?
        };
        let ready = match line.maybe("process", identity)? {
            None => None,
            Some(process) => {
                let note = |text: &str| {
                    let (index, note) = text.split_once(':')?;
                    Some((number(index)?, Note::from_text(note)?))
                };
                let reason = line.maybe("unticketed", |text| String::from_utf8(unescape(text)?).ok())?;
                Some(Ready {
                    process,
                    notes: line.all("note").into_iter().map(note).collect::<Option<_>>()?,
                    timeout: line.one("timeout", |nanos| Some(Duration::from_nanos(number(nanos)?)))?,
                    listens: line.flag("listens")?,
                    ticket: reason.map_or_else(|| Ok(ticket.to_owned()), Err),
                })
            }
        };
        Some(Record { boot, pid_ns, belongings, ready, started: line.flag("started")? })
    }
}

fn is_boot(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "rk-0123456789abcdef0123456789abcdef-1";

    /// What an older version has written is read by every later one.
    fn golden() -> String {
        format!(
            "ringfence-created1,boot=b-1,pidns=4026531836,name={NAME},group=/sys/fs/cgroup/a%20b/{NAME},scratch=/tmp,process=7:100:b-1:55,\
             timeout=30000000000,note=70:setrlimit:+NoFile:,note=75:exec:+/bin/a%3ab:+see%20there,started=1\n\
             ringfence1,process=7:100:b-1:55\n"
        )
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record::from_text(&golden()).unwrap();
        assert_eq!(record.to_text(), golden());
        let ready = record.ready.unwrap();
        assert_eq!((ready.process.pid(), ready.timeout, ready.notes.len()), (7, Duration::from_secs(30), 2));
        assert_eq!(ready.ticket.unwrap(), "ringfence1,process=7:100:b-1:55");
        let named = "missing=/sys/fs/cgroup/a/box,named=28:77:made:/sys/fs/cgroup/a/box,named=29:1:max:/sys/c";
        let named = format!("ringfence-created1,name={NAME},{named}\n\n");
        assert_eq!(Record::from_text(&named).unwrap().to_text(), named);
        let scope = named.replace("\n\n", ",unit=00112233445566778899aabbccddeeff:a-b%3ac.scope\n\n");
        assert_eq!(Record::from_text(&scope).unwrap().to_text(), scope);
        let bare = "ringfence-created1,process=7:100:b-1:55,timeout=1,listens=1,unticketed=no%20room\n\n";
        assert_eq!(Record::from_text(bare).unwrap().to_text(), bare);
        assert!(Record::from_text("ringfence-created1\n\n").unwrap().ready.is_none());
    }

    #[test]
    fn a_word_of_a_later_version_is_passed_over() {
        let text = golden().replace(",started=1", ",terminal=/run/x.sock,started=1");
        assert!(Record::from_text(&text).unwrap().started);
    }

    #[test]
    fn hostile_records_are_refused() {
        let golden = golden();
        for (from, to) in [
            ("created1", "created2"),
            ("=7:", "=0:"),
            ("=7:", "=-1:"),
            (":55,t", ",t"),
            (NAME, "system.slice"),
            ("a%20b/rk-", "a%20b/rk"),
            ("/sys/fs", "sys/fs"),
            ("scratch=/tmp", "scratch=tmp"),
            ("scratch=/tmp", "scratch=/tmp,scratch=/etc"),
            ("timeout=30000000000,", ""),
            ("scratch=/tmp", "missing=tmp"),
            ("scratch=/tmp", "named=28:77:made:tmp"),
            ("scratch=/tmp", "unit=00112233445566778899aabbccddeeff:dbus.service"),
            ("boot=b-1", "boot="),
            ("pidns=4", "pidns=x"),
            ("note=70:", "note=x:"),
            ("note=70:", "note="),
            ("started=1", "started=0"),
            ("\n", ""),
        ] {
            let text = golden.replacen(from, to, 1);
            assert!(text != golden && Record::from_text(&text).is_none(), "{text}");
        }
        crate::fuzz::texts(&[&golden, "ringfence-created1\n\n"], |text| drop(Record::from_text(text)));
    }
}
