//! What a filter asks its supervisor: seccomp_unotify(2).

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::table;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::seccomp::{self as kernel, Answer, Question};
use crate::sys::timeout;

/// The system calls that wait for an answer: a stream, from every process and thread in the sandbox.
///
/// Where a profile has [`Action::Notify`](crate::Action::Notify) (5.0), they come with
/// [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised), or stand in [`Child::notifications`](crate::Child::notifications).
/// The descriptor polls as readable while a call waits, and as hung up once nobody is left who could ask.
///
/// Once this is dropped, calls that would have been asked about fail with ENOSYS.
#[derive(Debug)]
pub struct Notifications {
    listener: Arc<OwnedFd>,
    /// Between the look whether there is a question and its taking, nobody else may take it.
    turn: Mutex<()>,
}

impl Notifications {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Notifications { listener: Arc::new(listener), turn: Mutex::new(()) }
    }

    /// Waits for the next call; `None` once nobody is left who could make one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn recv(&self) -> Result<Option<Notification>> {
        loop {
            if let Heard::Question(notification) = self.hear(None)? {
                return Ok(Some(notification));
            }
            if self.is_over() {
                return Ok(None);
            }
        }
    }

    /// Waits for `timeout` at most; `None` if no call came, or nobody is left ([`is_over`](Notifications::is_over)).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Notification>> {
        let until = Instant::now().checked_add(timeout);
        loop {
            match self.hear(until)? {
                Heard::Question(notification) => return Ok(Some(notification)),
                Heard::Nothing => return Ok(None),
                Heard::Withdrawn => {}
            }
        }
    }

    /// Whether nobody is left who could ask (5.8; older kernels don't tell).
    ///
    /// Before 6.11 a process counts until it has been reaped. The program itself is reaped by a thread of the library's as
    /// soon as it has ended, and its [`Child`](crate::Child) gives its outcome all the same.
    pub fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::empty())];
        let told = poll(&mut fds, timeout::until(Instant::now())).is_ok_and(|n| n > 0);
        told && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// The calls one after the other, until nobody is left.
    pub fn iter(&self) -> impl Iterator<Item = Result<Notification>> + '_ {
        std::iter::from_fn(|| self.recv().transpose())
    }

    fn hear(&self, until: Option<Instant>) -> Result<Heard> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        loop {
            // Without a time of its own a wait is as long as one can be told.
            let slice = until.unwrap_or_else(|| Instant::now() + LONG);
            match poll(&mut fds, timeout::until(slice)) {
                Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(Heard::Nothing),
                Ok(0) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
                Ok(_) => break,
            }
        }
        if !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return Ok(Heard::Nothing);
        }
        match kernel::receive(self.listener.as_fd()) {
            Ok(question) => {
                let listener = self.listener.clone();
                Ok(Heard::Question(Notification { listener, question, answered: false }))
            }
            // Who asked was killed, or a signal has called the question off.
            Err(Errno::ENOENT | Errno::EINTR) => Ok(Heard::Withdrawn),
            Err(errno) => Err(failed(errno)),
        }
    }
}

const LONG: Duration = Duration::from_secs(3600);

enum Heard {
    Question(Notification),
    Nothing,
    Withdrawn,
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::Notify, errno).with_kind(ErrorKind::Control)
}

/// A system call that waits for an answer. One that is dropped without an answer fails with EPERM.
///
/// # What it is good for, and what not
///
/// An argument that is a number is what it is. An argument that points into memory is not: another thread of the program
/// can change what it points to at any time, also between a look at it and the kernel's own. So **do not decide by memory
/// and then [`proceed`](Notification::proceed)**: do the work outside and answer with its result, as
/// [`fd`](Notification::fd) does for opens. To let a call through by what its memory holds is no boundary
/// (seccomp_unotify(2)).
///
/// Each answer gives whether it was still wanted: the program may have been killed, or interrupted by a signal.
#[derive(Debug)]
pub struct Notification {
    listener: Arc<OwnedFd>,
    question: Question,
    answered: bool,
}

impl Notification {
    /// The name of the call; `None` for one that is newer than this crate.
    pub fn syscall(&self) -> Option<&'static str> {
        u32::try_from(self.question.number).ok().and_then(table::name_of)
    }

    /// The number of the call, on this architecture.
    pub fn number(&self) -> i32 {
        self.question.number
    }

    /// The arguments. A call takes as many of them as its man page says; the others hold anything.
    pub fn args(&self) -> [u64; 6] {
        self.question.args
    }

    /// The thread that calls, as this process's pid namespace counts; 0 if it does not show there.
    pub fn pid(&self) -> u32 {
        self.question.pid
    }

    /// Where in the program the call stands.
    pub fn instruction_pointer(&self) -> u64 {
        self.question.instruction
    }

    /// Whether the call still waits. What was found out about the process by its pid before this says yes was about the
    /// right one; afterwards it may be another's.
    pub fn is_valid(&self) -> bool {
        kernel::is_valid(self.listener.as_fd(), self.question.id)
    }

    /// The call gives this value, and is not carried out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn value(self, value: i64) -> Result<bool> {
        self.answer(Answer::Value(value))
    }

    /// The call fails with this errno, and is not carried out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if `errno` is not one of 1 to 4095.
    pub fn errno(self, errno: i32) -> Result<bool> {
        if !super::Action::Errno(errno).is_valid() {
            return Err(failed(Errno::EINVAL));
        }
        self.answer(Answer::Errno(errno))
    }

    /// The kernel carries the call out, as if nobody had been asked (5.5). See above what this must not be used for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`]: EINVAL before Linux 5.5.
    pub fn proceed(self) -> Result<bool> {
        self.answer(Answer::Continue)
    }

    /// The program gets a descriptor of its own for the same open file as `fd`, and the call gives its number: the answer to
    /// an open, or to anything else that makes a descriptor (5.9). `cloexec` says whether an exec closes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`]: EMFILE if the program has as many descriptors as it may have; EINVAL before Linux 5.9.
    pub fn fd(mut self, fd: impl AsFd, cloexec: bool) -> Result<bool> {
        match kernel::add_fd(self.listener.as_fd(), self.question.id, fd.as_fd(), cloexec, true) {
            Ok(_) => {
                self.answered = true;
                Ok(true)
            }
            // In one step with the answer since 5.14. In two, a signal between them leaves the descriptor there.
            Err(Errno::EINVAL) => match self.add_fd(fd, cloexec)? {
                Some(number) => self.value(i64::from(number)),
                None => Ok(false),
            },
            Err(Errno::ENOENT) => {
                self.answered = true;
                Ok(false)
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Gives the program a descriptor without answering yet (5.9); the number that it has there, or `None` if the call does
    /// not wait any more.
    ///
    /// # Errors
    ///
    /// Those of [`fd`](Notification::fd).
    pub fn add_fd(&self, fd: impl AsFd, cloexec: bool) -> Result<Option<i32>> {
        match kernel::add_fd(self.listener.as_fd(), self.question.id, fd.as_fd(), cloexec, false) {
            Ok(number) => Ok(Some(number)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Reads the program's memory at `address` into `buffer`, and checks afterwards that it was this program's; gives how
    /// much there was. process_vm_readv(2): the caller needs to be one that may trace the program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`]: EFAULT where there is no memory, ESRCH if the call does not wait any more, EPERM.
    pub fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let remote = RemoteIoVec { base: address as usize, len: buffer.len() };
        let pid = Pid::from_raw(self.question.pid as i32);
        let read = process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &[remote]);
        // A pid that has come free, and to another process, meanwhile.
        if !self.is_valid() {
            return Err(failed(Errno::ESRCH));
        }
        read.map_err(failed)
    }

    /// Reads the string at `address`, a path for instance, without the NUL that ends it, of `longest` bytes at most.
    ///
    /// # Errors
    ///
    /// Those of [`read_memory`](Notification::read_memory); ENAMETOOLONG where no NUL comes.
    pub fn read_string(&self, address: u64, longest: usize) -> Result<Vec<u8>> {
        const PAGE: usize = 4096;
        let mut text = Vec::new();
        while text.len() <= longest {
            let at = address.checked_add(text.len() as u64).ok_or_else(|| failed(Errno::EFAULT))?;
            // Up to the end of the page: the next one may not be there.
            let mut chunk = [0; PAGE];
            let len = (PAGE - at as usize % PAGE).min((longest - text.len()).saturating_add(1));
            let read = self.read_memory(at, &mut chunk[..len])?;
            match chunk[..read].iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&chunk[..end]);
                    return Ok(text);
                }
                None if read == 0 => return Err(failed(Errno::EFAULT)),
                None => text.extend_from_slice(&chunk[..read]),
            }
        }
        Err(failed(Errno::ENAMETOOLONG))
    }

    fn answer(mut self, answer: Answer) -> Result<bool> {
        let result = kernel::answer(self.listener.as_fd(), self.question.id, answer);
        self.answered = matches!(result, Ok(()) | Err(Errno::ENOENT));
        match result {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.answered {
            // Nobody is left to whom a failure would matter.
            let _ = kernel::answer(self.listener.as_fd(), self.question.id, Answer::Errno(libc::EPERM));
        }
    }
}
