//! The plan of the setup inside the sandbox: a flat list of ops with their strings and descriptors,
//! without any policy.
//!
//! The policy modules write ops into a [`Plan`]; the spawn engine sends the encoded plan to the
//! stub. When an op fails, the spawn engine turns the report into an [`Error`], with the [`Note`]
//! that was stored when the op was written.

mod encode;
mod fd;
mod ops;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

pub(crate) use fd::{Made, PlanFd, RunFd, RunFds, Tree};
pub(crate) use ops::{Exec, ExecFlags, PlaceFlags, Request};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::stub::wire;
use crate::text::{escape, unescape};

/// An offset in the plan's block of strings and structures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ptr(usize);

/// The result of an op, to which a later op refers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// The descriptor on which the stub reports.
    pub(crate) const REPORT: Slot = Slot(wire::REPORT_SLOT);
}

/// An argument of an op.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    Value(u64),
    Ptr(Ptr),
    Slot(Slot),
}

impl Arg {
    /// The pipe of the thread that cloned, as long as the plan has not moved it.
    pub(crate) const PARENT: Arg = Arg::Value(wire::PARENT_FD as u64);
}

macro_rules! arg_from {
    ($($from:ty),*) => {$(
        impl From<$from> for Arg {
            fn from(value: $from) -> Self {
                Arg::Value(value as u64)
            }
        }
    )*};
}
arg_from!(i32, u32, i64, u64, usize);

impl From<Ptr> for Arg {
    fn from(ptr: Ptr) -> Self {
        Arg::Ptr(ptr)
    }
}

impl From<Slot> for Arg {
    fn from(slot: Slot) -> Self {
        Arg::Slot(slot)
    }
}

/// The details of an op, for the error when it fails.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) step: Step,
    path: Option<OsString>,
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl Note {
    pub(crate) fn error(&self, errno: Errno) -> Error {
        let kind = if self.step == Step::Exec { ErrorKind::Exec } else { ErrorKind::Setup };
        // To execve(2) a missing interpreter is ENOENT, too. The hint has the difference.
        let errno = if errno as i32 == wire::exec::NO_INTERPRETER { Errno::ENOENT } else { errno };
        let error = Error::new(self.step, errno).with_kind(kind);
        let error = match &self.path {
            Some(path) => error.at(path),
            None => error,
        };
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }

    /// Returns the note as text for a later process.
    pub(crate) fn to_text(&self) -> String {
        let path = self.path.as_ref().map(|path| escape(path.as_bytes()));
        let hint = self.hint.as_ref().map(|hint| escape(hint.as_bytes()));
        let some = |text: Option<String>| text.map_or_else(String::new, |text| format!("+{text}"));
        format!("{}:{}:{}", escape(self.step.as_str().as_bytes()), some(path), some(hint))
    }

    /// Reads what [`to_text`](Note::to_text) has written. A step that this version does not know is
    /// [`Step::Start`].
    pub(crate) fn from_text(text: &str) -> Option<Note> {
        let words: Vec<&str> = text.split(':').collect();
        let [step, path, hint] = words[..] else { return None };
        let some = |word: &str| match word {
            "" => Some(None),
            word => Some(Some(unescape(word.strip_prefix('+')?)?)),
        };
        let string = |bytes| String::from_utf8(bytes).ok();
        let hint = match some(hint)? {
            Some(hint) => Some(string(hint)?.into()),
            None => None,
        };
        let step = Step::of_text(&string(unescape(step)?)?).unwrap_or(Step::Start);
        Some(Note { step, path: some(path)?.map(OsString::from_vec), hint })
    }
}

#[derive(Debug, Clone)]
struct DraftOp {
    code: u32,
    nr: u32,
    store: Option<Slot>,
    skip_on_success: u8,
    skip_on_tolerated: u8,
    tolerate: [u16; 2],
    args: [Arg; 6],
    step: Step,
    /// A range in [`Plan::paths`].
    path: Option<(usize, usize)>,
    hint: Option<&'static str>,
}

/// The ops in their order, with all data to which they refer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    ops: Vec<DraftOp>,
    data: Vec<u8>,
    /// Offsets in `data` of 64-bit words that hold an offset in `data`.
    pointers: Vec<usize>,
    /// The paths of the ops, one after the other. They are not sent to the stub.
    paths: Vec<u8>,
    fds: Vec<PlanFd>,
    /// True if the plan holds a resource that only one run can use.
    single_use: bool,
    id_mapped: Vec<IdMappedTree>,
    slots: u8,
    free_slots: Vec<Slot>,
}

/// A detached mount whose ids are mapped once the sandbox has its maps.
#[derive(Debug, Clone)]
pub(crate) struct IdMappedTree {
    pub(crate) tree: Arc<OwnedFd>,
    /// The path that the mount was copied from.
    pub(crate) path: PathBuf,
    pub(crate) recursive: bool,
}

/// The op that was added last, for further settings.
pub(crate) struct Added<'p> {
    op: &'p mut DraftOp,
    paths: &'p mut Vec<u8>,
}

impl Added<'_> {
    /// Sets the path of the file that the op uses.
    pub(crate) fn at(self, path: impl AsRef<OsStr>) -> Self {
        let start = self.paths.len();
        self.paths.extend_from_slice(path.as_ref().as_bytes());
        self.op.path = Some((start, self.paths.len()));
        self
    }

    /// Sets the hint for the error when the op fails.
    pub(crate) fn hint(self, hint: &'static str) -> Self {
        self.op.hint = Some(hint);
        self
    }

    /// Keeps the result in a slot.
    pub(crate) fn store(self, slot: Slot) -> Self {
        self.op.store = Some(slot);
        self
    }

    /// Tolerates `errno`: the plan continues with the next op. An op can have at most two such
    /// errnos.
    pub(crate) fn tolerate(self, errno: Errno) -> Self {
        self.tolerate_code(errno as u16)
    }

    fn tolerate_code(self, code: u16) -> Self {
        if let Some(free) = self.op.tolerate.iter_mut().find(|e| **e == 0) {
            *free = code;
        }
        self
    }

    /// Tolerates any errno: the plan continues with the next op.
    pub(crate) fn tolerate_all(self) -> Self {
        self.tolerate_code(wire::ANY)
    }

    /// Skips the next `count` ops, which build on this one, after a failure that is tolerated.
    pub(crate) fn skip_on_tolerated(self, count: u8) -> Self {
        self.op.skip_on_tolerated = count;
        self
    }

    /// Tolerates ENOSYS and EPERM, for a call that the kernel, or an outer filter, may not know.
    /// The ops that follow are a fallback, which reports a real EPERM.
    pub(crate) fn may_be_missing(self) -> Self {
        self.tolerate_code(wire::MISSING)
    }

    /// Skips the next `count` ops, which are the fallback, after a success.
    pub(crate) fn skip_on_success(self, count: u8) -> Self {
        self.op.skip_on_success = count;
        self
    }
}

/// Returns a copy with room for `more`.
fn roomy<T: Clone>(of: &[T], more: usize) -> Vec<T> {
    let mut copy = Vec::with_capacity(of.len() + more);
    copy.extend_from_slice(of);
    copy
}

impl Plan {
    pub(crate) fn new() -> Self {
        // As much as a full sandbox takes.
        Plan {
            ops: Vec::with_capacity(192),
            data: Vec::with_capacity(8 << 10),
            pointers: Vec::with_capacity(64),
            paths: Vec::with_capacity(4 << 10),
            slots: wire::REPORT_SLOT + 1,
            ..Plan::default()
        }
    }

    /// Returns a plan for the same stub that runs after this one. The slots keep the results of
    /// this plan.
    pub(crate) fn continued(&self) -> Self {
        Plan { slots: self.slots, free_slots: self.free_slots.clone(), ..Plan::default() }
    }

    fn add(&mut self, step: Step, code: u32, nr: u32, given: &[Arg]) -> Added<'_> {
        let mut args = [Arg::Value(0); 6];
        args[..given.len()].copy_from_slice(given);
        let op = DraftOp {
            code,
            nr,
            store: None,
            skip_on_success: 0,
            skip_on_tolerated: 0,
            tolerate: [0; 2],
            args,
            step,
            path: None,
            hint: None,
        };
        self.ops.push(op);
        let last = self.ops.len() - 1;
        Added { op: &mut self.ops[last], paths: &mut self.paths }
    }

    /// Adds a system call.
    pub(crate) fn call<const N: usize>(&mut self, step: Step, number: libc::c_long, args: [Arg; N]) -> Added<'_> {
        const { assert!(N <= 6, "a system call has at most six arguments") };
        self.add(step, wire::code::CALL, number as u32, &args)
    }

    /// Adds one of the ops that need more than one call ([`wire::code`]).
    fn op<const N: usize>(&mut self, step: Step, code: u32, args: [Arg; N]) -> Added<'_> {
        const { assert!(N <= 6, "an op has at most six arguments") };
        self.add(step, code, 0, &args)
    }

    /// Makes the ops since `first` the fallback of the op before them.
    pub(crate) fn fallback_from(&mut self, first: usize) {
        if let Some((op, count)) = self.before(first) {
            op.skip_on_success = count;
        }
    }

    /// Skips the ops since `first` after a tolerated failure of the op before them.
    pub(crate) fn depend_from(&mut self, first: usize) {
        if let Some((op, count)) = self.before(first) {
            op.skip_on_tolerated = count;
        }
    }

    /// Returns the op before `first`, and the number of ops since.
    fn before(&mut self, first: usize) -> Option<(&mut DraftOp, u8)> {
        let count = (self.ops.len() - first) as u8;
        Some((self.ops.get_mut(first.checked_sub(1)?)?, count))
    }

    /// Adds an op that writes `text` to a file of /proc.
    pub(crate) fn write_file(&mut self, step: Step, path: &str, text: &str) -> Added<'_> {
        let name = self.string(path);
        let data = self.bytes(text.as_bytes());
        self.op(step, wire::code::WRITE_FILE, [name.into(), data.into(), text.len().into()]).at(path)
    }

    /// Adds an op that closes the descriptor in a slot, and frees the slot.
    pub(crate) fn close(&mut self, step: Step, slot: Slot) {
        self.call(step, libc::SYS_close, [slot.into()]);
        self.free_slots.push(slot);
    }

    /// Returns a slot that no later op reads. No policy holds more than a handful of slots at a
    /// time.
    pub(crate) fn slot(&mut self) -> Slot {
        self.free_slots.pop().unwrap_or_else(|| {
            let slot = Slot(self.slots);
            debug_assert!(usize::from(self.slots) < wire::SLOTS, "a plan uses too many slots");
            self.slots += 1;
            slot
        })
    }

    /// Adds a descriptor to send. Returns the number of the descriptor in the stub.
    pub(crate) fn fd(&mut self, fd: impl Into<PlanFd>) -> i32 {
        self.fds.push(fd.into());
        wire::REPORT_FD + self.fds.len() as i32
    }

    /// Adds a descriptor that each run provides ([`for_run`](Plan::for_run)). Returns the number of
    /// the descriptor in the stub.
    pub(crate) fn run_fd(&mut self, name: RunFd) -> i32 {
        self.fd(PlanFd::OfRun(name))
    }

    /// Returns the plan of one run, with the descriptors that the run provides. `ids` is the user
    /// namespace with which mounts map ids.
    pub(crate) fn for_run(&self, given: &RunFds<'_>, ids: Option<BorrowedFd<'_>>) -> Result<Plan> {
        Ok(Plan {
            ops: roomy(&self.ops, 64),
            data: roomy(&self.data, 8 << 10),
            pointers: roomy(&self.pointers, 128),
            paths: roomy(&self.paths, 1 << 10),
            fds: self.fds.iter().map(|fd| fd.open(given, ids)).collect::<Result<_>>()?,
            single_use: self.single_use,
            id_mapped: self.id_mapped.clone(),
            slots: self.slots,
            free_slots: self.free_slots.clone(),
        })
    }

    /// Drops what was opened while the plan was written: every run opens its own.
    pub(crate) fn release(&self) {
        self.fds.iter().for_each(PlanFd::release);
    }

    pub(crate) fn is_single_use(&self) -> bool {
        self.single_use
    }

    /// Maps the ids of a detached mount as the user namespace of the stub does, once that namespace
    /// has its maps, and with `recursive` also of the mounts below.
    pub(crate) fn map_ids_of(&mut self, tree: Arc<OwnedFd>, path: &Path, recursive: bool) {
        self.single_use = true;
        self.id_mapped.push(IdMappedTree { tree, path: path.to_owned(), recursive });
    }

    pub(crate) fn id_mapped(&self) -> &[IdMappedTree] {
        &self.id_mapped
    }

    pub(crate) fn fds(&self) -> &[PlanFd] {
        &self.fds
    }

    /// Adds bytes, aligned for 64-bit words.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Ptr {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        Ptr(at)
    }

    /// Adds 64-bit words, as in a structure of the kernel.
    pub(crate) fn words(&mut self, words: &[u64]) -> Ptr {
        let at = self.bytes(&[]);
        words.iter().for_each(|word| self.data.extend_from_slice(&word.to_ne_bytes()));
        at
    }

    /// Adds a structure of words, some of which point into the plan. The value of a slot is not
    /// known yet, and is written as 0.
    pub(crate) fn record<const N: usize>(&mut self, fields: [Arg; N]) -> Ptr {
        let words = fields.map(|field| match field {
            Arg::Value(value) => value,
            Arg::Ptr(ptr) => ptr.0 as u64,
            Arg::Slot(_) => 0,
        });
        let at = self.words(&words);
        let pointers = fields.iter().enumerate().filter(|(_, field)| matches!(field, Arg::Ptr(_)));
        self.pointers.extend(pointers.map(|(i, _)| at.0 + 8 * i));
        at
    }

    /// Adds a string that ends with a NUL. The policy has refused strings that contain a NUL
    /// ([`has_nul`]).
    pub(crate) fn string(&mut self, text: impl AsRef<OsStr>) -> Ptr {
        let at = self.data.len();
        self.data.extend_from_slice(text.as_ref().as_bytes());
        self.data.push(0);
        Ptr(at)
    }

    /// Adds a null-terminated array of strings, such as argv; each string is given in pieces. A NUL
    /// within a string would end the string early: the policy has refused those, and only the
    /// caller's own environment could contain one.
    pub(crate) fn strings<'s, const N: usize>(&mut self, texts: impl IntoIterator<Item = [&'s OsStr; N]>) -> Ptr {
        let mut words = Vec::new();
        for pieces in texts {
            words.push(self.data.len() as u64);
            pieces.iter().for_each(|piece| self.data.extend_from_slice(piece.as_bytes()));
            self.data.push(0);
        }
        let count = words.len();
        words.push(0);
        let array = self.words(&words);
        self.pointers.extend((0..count).map(|i| array.0 + 8 * i));
        array
    }

    /// Returns true if offsets no longer fit into the words that hold them. The kernel's own limits
    /// are far lower.
    pub(crate) fn is_too_large(&self) -> bool {
        self.data.len() > 1 << 30 || self.ops.len() > 1 << 20
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Returns the details of the ops from `first` on, each with its index.
    pub(crate) fn notes_from(&self, first: usize) -> Vec<(u32, Note)> {
        (first as u32..self.ops.len() as u32).map(|index| (index, self.note(index))).collect()
    }

    /// Returns the index of the op behind which a later process starts the program.
    pub(crate) fn behind_start(&self) -> Option<usize> {
        self.ops.iter().position(|op| op.code == wire::code::AWAIT_START).map(|index| index + 1)
    }

    /// Returns the details of op `index` for an error.
    pub(crate) fn note(&self, index: u32) -> Note {
        let Some(op) = self.ops.get(index as usize) else {
            return Note { step: Step::ReadPlan, path: None, hint: None };
        };
        let path = op.path.and_then(|(start, end)| self.paths.get(start..end));
        Note {
            step: op.step,
            path: path.map(|path| OsStr::from_bytes(path).to_owned()),
            hint: op.hint.map(Cow::Borrowed),
        }
    }
}

/// Returns true if `text` contains a NUL, and cannot be passed to the kernel as a string.
pub(crate) fn has_nul(text: impl AsRef<OsStr>) -> bool {
    text.as_ref().as_bytes().contains(&0)
}

#[cfg(test)]
impl Plan {
    /// Returns the place of the first op of a step.
    pub(crate) fn first(&self, step: Step) -> Option<usize> {
        self.ops.iter().position(|op| op.step == step)
    }

    /// Returns the files of /proc that the ops of a step write to, each with the text.
    pub(crate) fn written(&self, step: Step) -> Vec<(String, String)> {
        let text = |at: usize, len: usize| String::from_utf8_lossy(&self.data[at..at + len]).into_owned();
        let len = |at: usize| self.data[at..].iter().position(|byte| *byte == 0).unwrap_or_default();
        let ops = self.ops.iter().filter(|op| op.step == step && op.code == wire::code::WRITE_FILE);
        ops.map(|op| match op.args {
            [Arg::Ptr(name), Arg::Ptr(data), Arg::Value(size), ..] => {
                (text(name.0, len(name.0)), text(data.0, size as usize))
            }
            _ => panic!("{op:?}"),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let notes = [
            Note { step: Step::Exec, path: Some("/bin/a b:c".into()), hint: Some("see x: y".into()) },
            Note { step: Step::Seccomp, path: None, hint: None },
            Note { step: Step::Rlimit, path: Some(OsString::new()), hint: None },
            Note { step: Step::Cwd, path: Some(OsString::from_vec(vec![0xff, b',', b'\n'])), hint: Some("".into()) },
        ];
        for note in notes {
            let text = note.to_text();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','), "{text}");
            let read = Note::from_text(&text).unwrap();
            assert_eq!((read.step, &read.path, &read.hint), (note.step, &note.path, &note.hint), "{text}");
        }
        assert_eq!(Note::from_text("of%20the%20future::").unwrap().step, Step::Start);
        for text in ["", "exec", "exec::x", "exec:x:", "exec:::", "exec::+%ff", "%ff::", "exec:+%:"] {
            assert!(Note::from_text(text).is_none(), "{text}");
        }
        crate::fuzz::texts(&["exec:+/bin/a%20b:+x", "chdir::"], |text| drop(Note::from_text(text)));
    }
}
