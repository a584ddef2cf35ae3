//! The standard streams of the program, and further descriptors for it.

mod terminal;

use std::fs::{self, File};
use std::io::{self, IsTerminal, PipeReader, PipeWriter, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::unistd::{fchown, getegid, geteuid};

use crate::error::{Error, Result, Step};
use crate::plan::{Arg, Plan, PlanFd, Slot};
use crate::stub::wire::{FIRST_FD, PARENT_FD};
use crate::sys::fork_mark::PerProcess;
use crate::sys::{file_size, memfd, mount, table};
pub use terminal::TerminalSize;
use terminal::TerminalStreams;
pub(crate) use terminal::{Master, emit_slave, emit_slave_as_streams, open_terminal};

/// The hint for a descriptor that cannot be moved.
const BELOW_NOFILE: &str = "descriptor numbers, and as many above them again, must lie below RLIMIT_NOFILE";

/// One standard stream of the program, like `std::process::Stdio`. A value can be used for many
/// spawns.
///
/// ```
/// use std::fs::File;
/// use std::os::fd::OwnedFd;
///
/// use ringfence::{Sandbox, Stdio};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let input = OwnedFd::from(File::open("/etc/passwd")?);
/// let count = Sandbox::new().command("wc").arg("-l").stdin(input).stderr(Stdio::null());
/// assert!(count.output()?.outcome.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stdio(pub(crate) Source);

/// The source of a standard stream.
#[derive(Debug, Clone, Default)]
pub(crate) enum Source {
    #[default]
    Inherit,
    Null,
    Piped,
    Fd(Arc<OwnedFd>),
    Bytes(Arc<[u8]>),
    Pty(TerminalSize),
}

impl Stdio {
    /// Passes on the caller's own stream, or `/dev/null` where the caller has closed that stream.
    pub fn inherit() -> Self {
        Stdio(Source::Inherit)
    }

    /// Connects the stream to `/dev/null`.
    pub fn null() -> Self {
        Stdio(Source::Null)
    }

    /// Makes a pipe whose other end is in the [`Child`](crate::Child).
    pub fn piped() -> Self {
        Stdio(Source::Piped)
    }

    /// Makes a file in memory, for stdin, that holds `bytes` and that nobody can change. Each spawn
    /// reads the file from the beginning. So the input of a program, or a script for an
    /// interpreter, can be longer than an argument, for which the kernel's limit is 128 KiB
    /// (execve(2)). The file counts as memory of the caller. `memfd_create(2)`.
    ///
    /// ```
    /// use ringfence::{Sandbox, Stdio};
    ///
    /// let input = Stdio::bytes(vec![b'x'; 1 << 20]);
    /// let output = Sandbox::new().command("wc").arg("-c").stdin(input).output()?;
    /// assert_eq!(output.stdout, b"1048576\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Stdio(Source::Bytes(bytes.into()))
    }

    /// Makes a terminal of the program's own, of this size, whose other end is
    /// [`Child::terminal`](crate::Child::terminal). Set as stdin, it is also every other stream
    /// that is not set otherwise; set as stdout or stderr, it is that stream alone. A program has
    /// one terminal, whichever streams are set to it; the size is that of the first.
    ///
    /// The terminal is the controlling terminal of the program, which leads a session of its own:
    /// `/dev/tty` opens it, job control works, and Ctrl-C, the byte 3, interrupts the foreground
    /// process group. As pid 1 itself, without an [`init`](crate::Sandbox::init), the program gets
    /// such signals only if it has set an action.
    ///
    /// With a [`Dev`](crate::Dev) at `/dev`, which every root of the sandbox's own has by default,
    /// or a devpts at `/dev/pts`, the terminal belongs to the sandbox's devpts: it is `/dev/pts/0`
    /// and `/dev/console` there, and counts as one of [`Dev::terminals`](crate::Dev::terminals).
    /// Elsewhere, and for [`Child::exec`](crate::Child::exec), it belongs to the caller's devpts,
    /// and may have no name inside: ttyname(3).
    ///
    /// The output has to be read, or the program stops when the kernel's buffer is full.
    /// [`Child::wait_with_output`](crate::Child::wait_with_output) reads it as stdout.
    ///
    /// A [`Pool`](crate::Pool) has no terminals: that is
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). A
    /// [`session`](crate::Sandbox::session) other than [`Session::New`](crate::Session::New) is
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    ///
    /// ```
    /// use ringfence::{Sandbox, Stdio, TerminalSize};
    ///
    /// let terminal = Stdio::pty(TerminalSize { rows: 24, columns: 80 });
    /// let output = Sandbox::new().command("stty").arg("size").stdin(terminal).output()?;
    /// assert_eq!(output.stdout, b"24 80\r\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn pty(size: TerminalSize) -> Self {
        Stdio(Source::Pty(size))
    }

    /// Returns whether the stream is a terminal of the program's own.
    pub(crate) fn is_pty(&self) -> bool {
        matches!(self.0, Source::Pty(_))
    }

    /// Returns whether the other end of the stream would end with the caller. That of a terminal
    /// can be given away.
    pub(crate) fn ends_in_caller(&self) -> bool {
        matches!(self.0, Source::Piped)
    }

    /// Returns the streams that were set, and for the others those in `default`. The terminal is
    /// also the output, unless that was set.
    pub(crate) fn choose<'s>(set: [Option<&'s Stdio>; 3], default: &'s [Stdio; 3]) -> [&'s Stdio; 3] {
        let terminal = set[0].filter(|stdin| stdin.is_pty());
        [0, 1, 2].map(|i| set[i].or(terminal).unwrap_or(&default[i]))
    }

    /// Returns the default streams of a spawn: the caller's own.
    pub(crate) fn inherited() -> [Stdio; 3] {
        [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]
    }

    /// Returns the default streams of a run whose output is collected: an empty stdin, and two
    /// pipes.
    pub(crate) fn captured() -> [Stdio; 3] {
        [Stdio::null(), Stdio::piped(), Stdio::piped()]
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Stdio(Source::Fd(Arc::new(fd)))
    }
}

/// Implements `From` for a type that owns a descriptor.
macro_rules! from_owner {
    ($($owner:ty),*) => { $(
        impl From<$owner> for Stdio {
            fn from(owner: $owner) -> Self {
                OwnedFd::from(owner).into()
            }
        }
    )* };
}

from_owner!(File, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr, UnixStream);

/// Descriptors for the program beyond the streams, each with its number there.
pub(crate) type Fds = Vec<(RawFd, Arc<OwnedFd>)>;

/// The descriptors that the builder has for the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descriptors {
    /// stdin, stdout and stderr; `None` where the default of the spawn holds.
    pub(crate) streams: [Option<Stdio>; 3],
    pub(crate) extra: Fds,
    /// The caller's own streams become the program's user's.
    pub(crate) gives: bool,
}

/// The streams of one spawn: the program's ends, and the caller's ends of pipes.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Where a stream is the terminal, this is the null device.
    inside: [PlanFd; 3],
    terminal: Option<TerminalStreams>,
    pub(crate) outside: [Option<OwnedFd>; 3],
    /// The sinks of stdout and stderr.
    pub(crate) sinks: [Sink; 2],
}

impl Descriptors {
    /// Returns the streams of a run: those in `own`, else those of the policy, else `default`.
    pub(crate) fn choose<'s>(&'s self, own: Option<&'s [Option<Stdio>; 3]>, default: &'s [Stdio; 3]) -> [&'s Stdio; 3] {
        let set = |i: usize| own.and_then(|own| own[i].as_ref()).or(self.streams[i].as_ref());
        Stdio::choose([set(0), set(1), set(2)], default)
    }
}

/// The other end of an output stream, which decides how the output can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// A pipe or terminal that the library reads, or a stream without a reader.
    Counted,
    /// A file of this size.
    File(u64),
    /// The caller's own stream, passed on.
    Inherited,
    /// A descriptor with a reader outside of the library.
    External,
}

impl Stdio {
    /// Returns the other end of the stream, if it is used for output.
    pub(crate) fn sink(&self) -> Sink {
        match &self.0 {
            Source::Null | Source::Piped | Source::Bytes(_) | Source::Pty(_) => Sink::Counted,
            Source::Inherit => Sink::Inherited,
            Source::Fd(fd) => sink_of(fd.as_fd()),
        }
    }
}

fn sink_of(fd: BorrowedFd<'_>) -> Sink {
    let Ok(stat) = fstat(fd) else { return Sink::External };
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Sink::File(u64::try_from(stat.st_size).unwrap_or(0)),
        SFlag::S_IFCHR if is_null(fd) => Sink::Counted,
        _ => Sink::External,
    }
}

impl Streams {
    /// Returns the size of the largest file among stdout and stderr.
    pub(crate) fn largest_file(&self) -> Option<u64> {
        self.sinks.iter().filter_map(|sink| if let Sink::File(size) = sink { Some(*size) } else { None }).max()
    }

    /// Gives the pipes to the program's user, so that the program can open them by name, as in
    /// `echo > /dev/stdout`. A caller who may not give files away leaves them as they are.
    pub(crate) fn give_to(&self, (uid, gid): (u32, u32)) {
        if (uid, gid) == (geteuid().as_raw(), getegid().as_raw()) {
            return;
        }
        for pipe in self.outside.iter().flatten() {
            let _ = fchown(pipe, Some(uid.into()), Some(gid.into()));
        }
    }

    /// Gives the caller's own streams to the program's user as well: pipes, sockets, and files that
    /// are open for writing. Terminals and other devices stay as they are.
    pub(crate) fn give_inherited_to(&self, (uid, gid): (u32, u32)) {
        for (stream, number) in [(&io::stdin().as_fd(), 0), (&io::stdout().as_fd(), 1), (&io::stderr().as_fd(), 2)] {
            let is_passed = matches!(self.inside[number as usize], PlanFd::Held(held) if held == number);
            if is_passed && may_be_given(*stream) {
                let _ = fchown(stream, Some(uid.into()), Some(gid.into()));
            }
        }
    }

    /// Returns whether a stream is a terminal of the program's own.
    pub(crate) fn has_pty(&self) -> bool {
        self.terminal.is_some()
    }

    /// Makes the terminal among the streams the controlling terminal of the program.
    pub(crate) fn emit_controlling(&self, plan: &mut Plan) {
        self.terminal.into_iter().for_each(|terminal| terminal.emit_controlling(plan));
    }

    /// Returns the streams with their numbers, without those that are the terminal and have their
    /// numbers already.
    fn numbered(&self) -> impl Iterator<Item = (RawFd, PlanFd)> {
        let is_terminal = self.terminal.map_or([false; 3], |terminal| terminal.is_terminal);
        let streams = self.inside.iter().cloned().zip(is_terminal).zip(0..);
        streams.filter(|((_, is_terminal), _)| !is_terminal).map(|((fd, _), number)| (number, fd))
    }

    /// Returns the path of the terminal that the program inherits, if there is one.
    pub(crate) fn inherited_terminal(&self) -> Option<PathBuf> {
        self.inside.iter().find_map(terminal_path)
    }

    /// Opens the streams of one run.
    pub(crate) fn open(stdio: [&Stdio; 3]) -> Result<Streams> {
        let mut outside = [None, None, None];
        let mut open = |i: usize| -> Result<PlanFd> {
            match &stdio[i].0 {
                Source::Inherit if table::is_open(i as RawFd) && !is_own_null(i) => Ok(PlanFd::Held(i as RawFd)),
                Source::Fd(fd) if !is_null(fd.as_fd()) => Ok(PlanFd::Shared(fd.clone())),
                Source::Inherit | Source::Fd(_) | Source::Null | Source::Pty(_) => null(),
                Source::Bytes(bytes) => in_memory(bytes),
                Source::Piped => {
                    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
                        .and_then(|(read, write)| Ok((table::above_stdio(read)?, table::above_stdio(write)?)))
                        .map_err(|errno| Error::new(Step::Stdio, errno))?;
                    let (inside, ours) = if i == 0 { (read, write) } else { (write, read) };
                    outside[i] = Some(ours);
                    Ok(inside.into())
                }
            }
        };
        let inside = [open(0)?, open(1)?, open(2)?];
        let sinks = [stdio[1].sink(), stdio[2].sink()];
        let mut sizes =
            stdio.iter().filter_map(|stdio| if let Source::Pty(size) = stdio.0 { Some(size) } else { None });
        let is_terminal = stdio.map(Stdio::is_pty);
        let terminal = sizes.next().map(|size| TerminalStreams { size, is_terminal });
        Ok(Streams { inside, terminal, outside, sinks })
    }
}

/// Returns whether a stream of the caller's may become the program's user's.
fn may_be_given(stream: BorrowedFd<'_>) -> bool {
    let writes = || {
        let flags = fcntl(stream, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE != OFlag::O_RDONLY)
    };
    let Ok(stat) = fstat(stream) else { return false };
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFIFO | SFlag::S_IFSOCK => true,
        SFlag::S_IFREG => writes(),
        _ => false,
    }
}

/// Returns the path of a terminal that has a name of its own, which `/dev/tty` is not.
fn terminal_path(stream: &PlanFd) -> Option<PathBuf> {
    let is_terminal = match stream {
        PlanFd::Held(0) => io::stdin().is_terminal(),
        PlanFd::Held(1) => io::stdout().is_terminal(),
        PlanFd::Held(2) => io::stderr().is_terminal(),
        PlanFd::Shared(fd) => fd.is_terminal(),
        _ => false,
    };
    if !is_terminal {
        return None;
    }
    let open = PathBuf::from(format!("/proc/self/fd/{}", stream.raw()));
    let path = fs::read_link(&open).ok().filter(|path| !path.ends_with("tty") && !path.ends_with("ptmx"))?;
    let [open, named] =
        [fs::metadata(&open).ok()?, fs::symlink_metadata(&path).ok()?].map(|file| (file.dev(), file.ino()));
    (open == named).then_some(path)
}

/// Returns whether this is the null device.
fn is_null(fd: BorrowedFd<'_>) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(fd).is_ok_and(|stat| kind(stat.st_mode) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3))
}

/// Returns whether the caller's own stream is the null device.
fn is_own_null(number: usize) -> bool {
    match number {
        0 => is_null(io::stdin().as_fd()),
        1 => is_null(io::stdout().as_fd()),
        _ => is_null(io::stderr().as_fd()),
    }
}

/// Opens a null device for a program.
///
/// By a descriptor, whoever owns a file changes its mode, its owner and its times, and the host's
/// null device is root's. So root gives its programs another one, which nobody can change. A caller
/// who may make none gives them the host's.
fn null() -> Result<PlanFd> {
    static CLOSED: PerProcess<Option<OwnedFd>> = PerProcess::new();
    let failed = |errno| Error::new(Step::Stdio, errno).at("/dev/null");
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let closed = CLOSED.get_or_try(|| Ok::<_, Errno>(mount::closed_null().ok())).map_err(failed)?;
    let opened = closed.as_ref().and_then(|tree| openat(tree, "dev/null", flags, Mode::empty()).ok());
    let opened = opened.map_or_else(|| open("/dev/null", flags, Mode::empty()), Ok);
    opened.and_then(table::above_stdio).map(PlanFd::from).map_err(failed)
}

/// Makes a sealed file in memory of these bytes, open for reading from the beginning.
fn in_memory(bytes: &[u8]) -> Result<PlanFd> {
    let failed = |error: &std::io::Error| Error::io(Step::Stdio, error);
    let memory = memfd::create(c"ringfence-stdin").map_err(|errno| Error::new(Step::Stdio, errno))?;
    let mut file = File::from(memory);
    file_size::append(&file, bytes).map_err(|error| failed(&error))?;
    memfd::seal(&file).map_err(|errno| Error::new(Step::Stdio, errno))?;
    file.rewind().map_err(|error| failed(&error))?;
    Ok(OwnedFd::from(file).into())
}

impl Streams {
    /// Passes the descriptors on, and gives each its number right before the exec, which closes all
    /// other descriptors.
    pub(crate) fn emit(&self, plan: &mut Plan, policys: &Fds, own: &Fds) {
        let all = self.numbered().chain(extra_fds(policys)).chain(extra_fds(own));
        let mut placed: Vec<(RawFd, RawFd)> = all.map(|(number, fd)| (plan.fd(fd), number)).collect();
        if !(policys.is_empty() && own.is_empty()) {
            move_up(plan, &mut placed, &[]);
        }
        emit_close_on_exec(plan);
        emit_places(plan, &placed);
    }

    /// Passes the descriptors on, gives each its number, and closes all others but the report and
    /// the pipe of the spawner thread: close_range(2), 5.9. Returns the number that the pipe has
    /// then.
    pub(crate) fn emit_alone(&self, plan: &mut Plan, own: &Fds) -> Arg {
        let [parent] = self.emit_only(plan, own, [PARENT_FD]);
        parent.into()
    }

    /// Passes the descriptors on as [`emit_alone`](Streams::emit_alone) does, and keeps `listener`,
    /// which was added to the plan before them. Returns the numbers of the pipe and of the
    /// listener.
    pub(crate) fn emit_waiting(&self, plan: &mut Plan, policys: &Fds, listener: RawFd) -> (Arg, RawFd) {
        let [parent, listener] = self.emit_only(plan, policys, [PARENT_FD, listener]);
        (parent.into(), listener)
    }

    /// Passes the descriptors on, and closes all others but the report and those in `kept`. Returns
    /// the numbers that these have then.
    fn emit_only<const N: usize>(&self, plan: &mut Plan, own: &Fds, kept: [RawFd; N]) -> [RawFd; N] {
        let mut placed: Vec<(RawFd, RawFd)> =
            self.numbered().chain(extra_fds(own)).map(|(number, fd)| (plan.fd(fd), number)).collect();
        let mut highest = move_up(plan, &mut placed, &kept);
        let kept = kept.map(|from| {
            highest = highest.saturating_add(1);
            let place = [from.into(), highest.into(), libc::O_CLOEXEC.into()];
            plan.call(Step::PlaceFd, libc::SYS_dup3, place).hint(BELOW_NOFILE);
            highest
        });
        emit_places(plan, &placed);
        // The report is below the first that was moved.
        let above = kept.first().copied().unwrap_or(highest);
        let report = placed.iter().map(|(from, _)| *from).min().unwrap_or(above).saturating_sub(1);
        let numbers = placed.iter().map(|(_, number)| *number).chain(0..3);
        let mut open: Vec<RawFd> = numbers.chain([report]).chain(kept).collect();
        open.sort_unstable();
        open.dedup();
        let mut first = 0;
        for number in open {
            emit_close_range(plan, first, number.saturating_sub(1));
            first = number.saturating_add(1);
        }
        emit_close_range(plan, first, RawFd::MAX);
        kept
    }

    /// Returns the program's ends of the streams.
    pub(crate) fn inside(&self) -> &[PlanFd; 3] {
        &self.inside
    }
}

impl Descriptors {
    /// Passes the further descriptors on, and leaves 0, 1 and 2 free for streams that come later.
    /// Returns the number that the pipe of the spawner thread has then.
    pub(crate) fn emit_extra(&self, plan: &mut Plan) -> Arg {
        let mut placed: Vec<(RawFd, RawFd)> =
            extra_fds(&self.extra).map(|(number, fd)| (plan.fd(fd), number)).collect();
        let mut parent = Arg::from(PARENT_FD);
        if !placed.is_empty() {
            let highest = move_up(plan, &mut placed, &[]);
            let slot = plan.slot();
            let place = [parent, highest.saturating_add(1).into(), libc::O_CLOEXEC.into()];
            plan.call(Step::PlaceFd, libc::SYS_dup3, place).store(slot);
            parent = slot.into();
        }
        emit_close_on_exec(plan);
        emit_places(plan, &placed);
        for stream in 0..3 {
            plan.call(Step::CloseFds, libc::SYS_close, [stream.into()]).tolerate(Errno::EBADF);
        }
        parent
    }
}

/// Lets a stub that has waited receive the descriptors of its program, and give each its number.
/// Those of the policy have their numbers already.
pub(crate) fn emit_received(plan: &mut Plan, own: &Fds) {
    let Some(highest) = own.iter().map(|(number, _)| *number).max() else { return };
    // The report socket may have a number of the program's.
    let end = highest.saturating_add(1);
    let args = [Slot::REPORT.into(), libc::F_DUPFD_CLOEXEC.into(), end.into()];
    plan.call(Step::PlaceFd, libc::SYS_fcntl, args).store(Slot::REPORT).hint(BELOW_NOFILE);
    plan.receive_fds(extra_fds(own), end, BELOW_NOFILE);
}

/// Returns the further descriptors with their numbers.
fn extra_fds(extra: &Fds) -> impl Iterator<Item = (RawFd, PlanFd)> {
    extra.iter().map(|(number, fd)| (*number, PlanFd::Shared(fd.clone())))
}

/// Closes the descriptors from `first` to `last`, if there are any numbers between.
fn emit_close_range(plan: &mut Plan, first: RawFd, last: RawFd) {
    if first <= last {
        plan.call(Step::CloseFds, libc::SYS_close_range, [first.into(), last.into(), 0.into()])
            .hint("closing a range of descriptors needs Linux 5.9");
    }
}

/// Emits the move of each descriptor to its number.
fn emit_places(plan: &mut Plan, placed: &[(RawFd, RawFd)]) {
    for (from, to) in placed {
        plan.call(Step::PlaceFd, libc::SYS_dup3, [Arg::from(*from), Arg::from(*to), 0.into()])
            .at(to.to_string())
            .hint("descriptor numbers must lie below RLIMIT_NOFILE");
    }
}

/// Moves the sources, and the report socket, above every number that is about to be used, and above
/// those in `kept`. Returns the highest number in use after that.
fn move_up(plan: &mut Plan, placed: &mut [(RawFd, RawFd)], kept: &[RawFd]) -> RawFd {
    let used = placed.iter().flat_map(|(from, to)| [*from, *to]).chain(kept.iter().copied());
    let highest = used.max().unwrap_or(0).max(FIRST_FD);
    let flags = libc::O_CLOEXEC;
    let first_free = highest.saturating_add(1);
    plan.call(Step::PlaceFd, libc::SYS_dup3, [Slot::REPORT.into(), first_free.into(), flags.into()])
        .store(Slot::REPORT)
        .hint(BELOW_NOFILE);
    for (free, (from, _)) in (first_free.saturating_add(1)..).zip(&mut *placed) {
        plan.call(Step::PlaceFd, libc::SYS_dup3, [Arg::from(*from), free.into(), flags.into()]).hint(BELOW_NOFILE);
        *from = free;
    }
    placed.iter().map(|(from, _)| *from).max().unwrap_or(first_free)
}

/// Sets close-on-exec by `close_range(CLOSE_RANGE_CLOEXEC)`, since 5.11. Before, one by one: the
/// stub has no descriptors but those that were passed to it, and those that it opened
/// close-on-exec.
fn emit_close_on_exec(plan: &mut Plan) {
    // The report, the plan with its descriptors, and the directory of the v2 group in which the
    // stub was born.
    let passed = PARENT_FD..FIRST_FD + 3 + plan.fds().len() as RawFd;
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    plan.call(Step::CloseFds, libc::SYS_close_range, [3.into(), u32::MAX.into(), flag.into()])
        .may_be_missing()
        .tolerate(Errno::EINVAL)
        .skip_on_success(passed.len() as u8);
    for fd in passed {
        // EBADF: the plan's own descriptor is closed, and that of the report may have moved.
        plan.call(Step::CloseFds, libc::SYS_fcntl, [fd.into(), libc::F_SETFD.into(), libc::FD_CLOEXEC.into()])
            .tolerate(Errno::EBADF);
    }
}
