//! Notifications of a filter to its supervisor: seccomp_unotify(2).

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::table;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::seccomp::{self as kernel, Answer, Question};
use crate::sys::{mutex, timeout};

/// A stream of the system calls that wait for an answer, from all processes and threads in the
/// sandbox.
///
/// If a profile has [`Action::Notify`](crate::Action::Notify) (Linux 5.0),
/// [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised) returns the notifications, or
/// they are in [`Child::notifications`](crate::Child::notifications). The descriptor polls as
/// readable while a call waits, and as hung up when no process under the filter is left.
///
/// After this value is dropped, calls that need an answer fail with ENOSYS. The program cannot have
/// a supervisor of its own in its place (EBUSY), which could let them through.
#[derive(Debug)]
pub struct Notifications {
    listener: Arc<OwnedFd>,
    /// Held between the check for a notification and its receipt, so that no other thread receives
    /// it.
    turn: Mutex<()>,
}

impl From<OwnedFd> for Notifications {
    /// Takes a listener that another process has sent:
    /// [`Sandbox::notify_socket`](crate::Sandbox::notify_socket), or an OCI runtime with
    /// `listenerPath`. With any other descriptor, each receipt is an error.
    fn from(listener: OwnedFd) -> Self {
        Notifications::new(listener)
    }
}

impl Notifications {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Notifications { listener: Arc::new(listener), turn: Mutex::new(()) }
    }

    /// Waits for the next call. Returns `None` if no process under the filter is left.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn recv(&self) -> Result<Option<Notification>> {
        loop {
            if let Received::Question(notification) = self.receive(None)? {
                return Ok(Some(notification));
            }
            if self.is_over() {
                return Ok(None);
            }
        }
    }

    /// Waits for the next call, at most for `timeout`. Returns `None` if no call came, or if no
    /// process under the filter is left ([`is_over`](Notifications::is_over)).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Notification>> {
        let until = Instant::now().checked_add(timeout);
        loop {
            match self.receive(until)? {
                Received::Question(notification) => return Ok(Some(notification)),
                Received::Nothing => return Ok(None),
                Received::Withdrawn => {}
            }
        }
    }

    /// Returns true if no process under the filter is left (Linux 5.8; older kernels do not report
    /// this).
    ///
    /// Before Linux 6.11, a process counts until it is reaped. A thread of this library reaps the
    /// program itself as soon as it has ended, and its [`Child`](crate::Child) still returns its
    /// outcome.
    pub fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::empty())];
        let told = poll(&mut fds, timeout::until(Instant::now())).is_ok_and(|n| n > 0);
        told && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// Returns an iterator over the calls, until no process under the filter is left.
    pub fn iter(&self) -> impl Iterator<Item = Result<Notification>> + '_ {
        std::iter::from_fn(|| self.recv().transpose())
    }

    fn receive(&self, until: Option<Instant>) -> Result<Received> {
        let _turn = mutex::lock(&self.turn);
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        loop {
            // Without a time limit, a wait is as long as possible.
            let slice = until.unwrap_or_else(|| Instant::now() + LONG);
            match poll(&mut fds, timeout::until(slice)) {
                Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(Received::Nothing),
                Ok(0) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
                Ok(_) => break,
            }
        }
        if !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return Ok(Received::Nothing);
        }
        match kernel::receive(self.listener.as_fd()) {
            Ok(question) => {
                let listener = self.listener.clone();
                Ok(Received::Question(Notification { listener, question, answered: false }))
            }
            // The calling thread was killed, or a signal has interrupted the call.
            Err(Errno::ENOENT | Errno::EINTR) => Ok(Received::Withdrawn),
            Err(errno) => Err(failed(errno)),
        }
    }
}

const LONG: Duration = Duration::from_secs(3600);

enum Received {
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

/// A system call that waits for an answer. If the value is dropped without an answer, the call
/// fails with EPERM.
///
/// # What it is good for, and what not
///
/// An argument that is a number cannot change. Memory that an argument points to can: another
/// thread of the program can change it at any time, also after you have read it and before the
/// kernel does. So **do not decide by memory and then [`proceed`](Notification::proceed)**: do the
/// operation in the supervisor and answer with its result, as [`fd`](Notification::fd) does for
/// opens. Allowing a call by the contents of its memory is not a security boundary
/// (seccomp_unotify(2)).
///
/// Each answer returns true if it was still wanted, and false if the program was killed or
/// interrupted by a signal.
#[derive(Debug)]
pub struct Notification {
    listener: Arc<OwnedFd>,
    question: Question,
    answered: bool,
}

impl Notification {
    /// Returns the name of the call, or `None` for one that is newer than this crate.
    pub fn syscall(&self) -> Option<&'static str> {
        u32::try_from(self.question.number).ok().and_then(|number| table::name_on(self.question.arch, number))
    }

    /// Returns the number of the call on the architecture of the calling program, which may be a
    /// [further](crate::Seccomp::architecture) one.
    pub fn number(&self) -> i32 {
        self.question.number
    }

    /// Returns the architecture of the call, as the audit log writes it.
    pub(super) fn arch(&self) -> u32 {
        self.question.arch
    }

    /// Returns the arguments. The man page of the call says how many it has; the others can have
    /// any value.
    pub fn args(&self) -> [u64; 6] {
        self.question.args
    }

    /// Returns the id of the calling thread in this process's pid namespace, or 0 if it has none
    /// there.
    pub fn pid(&self) -> u32 {
        self.question.pid
    }

    /// Returns the address of the call in the program.
    pub fn instruction_pointer(&self) -> u64 {
        self.question.instruction
    }

    /// Returns true if the call still waits. Information found by the pid before this call returns
    /// true belongs to the right process; after that, the pid may be another process's.
    pub fn is_valid(&self) -> bool {
        kernel::is_valid(self.listener.as_fd(), self.question.id)
    }

    /// Answers with a return value, without executing the call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if the kernel refuses.
    pub fn value(self, value: i64) -> Result<bool> {
        self.answer(Answer::Value(value))
    }

    /// Answers with an errno, without executing the call.
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

    /// Lets the kernel execute the call (Linux 5.5). See [`Notification`] for what this must not be
    /// used for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] with EINVAL before Linux 5.5.
    pub fn proceed(self) -> Result<bool> {
        self.answer(Answer::Continue)
    }

    /// Gives the program a new descriptor for the same open file as `fd`, and answers with its
    /// number: for an open, or any other call that returns a descriptor (Linux 5.9). `cloexec` says
    /// whether an exec closes the descriptor.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] with EMFILE if the program has reached its limit of descriptors, and
    /// with EINVAL before Linux 5.9.
    pub fn fd(mut self, fd: impl AsFd, cloexec: bool) -> Result<bool> {
        match kernel::add_fd(self.listener.as_fd(), self.question.id, fd.as_fd(), cloexec, true) {
            Ok(_) => {
                self.answered = true;
                Ok(true)
            }
            // Since Linux 5.14, this is one step with the answer. With two steps, a signal between
            // them leaves the descriptor in the program.
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

    /// Gives the program a descriptor without answering yet (Linux 5.9). Returns its number in the
    /// program, or `None` if the call no longer waits.
    ///
    /// # Errors
    ///
    /// The errors of [`fd`](Notification::fd).
    pub fn add_fd(&self, fd: impl AsFd, cloexec: bool) -> Result<Option<i32>> {
        match kernel::add_fd(self.listener.as_fd(), self.question.id, fd.as_fd(), cloexec, false) {
            Ok(number) => Ok(Some(number)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Reads the program's memory at `address` into `buffer`, and checks afterwards that it was
    /// this program's. Returns the number of bytes read. Uses process_vm_readv(2), so the caller
    /// must be allowed to trace the program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] with EFAULT if no memory is mapped at the address, with ESRCH if the
    /// call no longer waits, and with EPERM if the caller may not trace the program.
    pub fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let remote = RemoteIoVec { base: address as usize, len: buffer.len() };
        let pid = Pid::from_raw(self.question.pid as i32);
        let read = process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &[remote]);
        // The pid may meanwhile belong to another process.
        if !self.is_valid() {
            return Err(failed(Errno::ESRCH));
        }
        read.map_err(failed)
    }

    /// Reads the string at `address`, such as a path, without its final NUL. The string may have at
    /// most `longest` bytes.
    ///
    /// # Errors
    ///
    /// The errors of [`read_memory`](Notification::read_memory); ENAMETOOLONG if there is no NUL.
    pub fn read_string(&self, address: u64, longest: usize) -> Result<Vec<u8>> {
        const PAGE: usize = 4096;
        let mut text = Vec::new();
        while text.len() <= longest {
            let at = address.checked_add(text.len() as u64).ok_or_else(|| failed(Errno::EFAULT))?;
            // Up to the end of the page, as the next page may not be mapped.
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
            // A failure does not matter, as the calling thread is gone then.
            let _ = kernel::answer(self.listener.as_fd(), self.question.id, Answer::Errno(libc::EPERM));
        }
    }
}
