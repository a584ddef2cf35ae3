//! A seccomp filter over a test's own process that refuses system calls, as an older kernel or a filter around the caller
//! does. It asks a thread of the process what to answer, which counts.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use nix::errno::Errno;

/// A system call that is refused: always, or where this argument has this value, or where this process makes it with
/// arguments of which the function says so.
#[derive(Clone, Copy)]
pub struct Call {
    pub number: libc::c_long,
    pub only: Only,
}

#[derive(Clone, Copy)]
pub enum Only {
    Always,
    Equal(u32, u32),
    Ours(fn(&[u64; 6]) -> bool),
    /// Where the first argument is a string that begins so, whichever process makes the call.
    Named(&'static str),
}

/// The call, whatever its arguments.
pub const fn call(number: libc::c_long) -> Call {
    Call { number, only: Only::Always }
}

/// The errno that a case was told as its second word.
pub fn errno_of(words: &[&str]) -> Errno {
    Errno::from_raw(words[1].parse().unwrap())
}

/// How often each call of the case has been refused, or seen.
static REFUSED: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

/// Refuses `calls` with `errno` in this thread and in all that it starts from here on. Where the outcome shows which
/// call did it, this and not the outcome is what makes a case one.
pub fn refuse(calls: &[Call], errno: Errno) {
    let (give, take) = mpsc::channel();
    let asked = calls.to_vec();
    let judge = move |question: &libc::seccomp_notif| {
        REFUSED[index_of(question, &asked)?].fetch_add(1, Ordering::SeqCst);
        // What a kernel does not have is a file here.
        Some(if question.data.nr == libc::SYS_openat as i32 { Errno::ENOENT } else { errno })
    };
    std::thread::spawn(move || answer(take.recv().unwrap(), judge));
    give.send(install(&program(calls))).unwrap();
}

/// Ends this process by SIGKILL at the `nth` of `calls`, counted from 0, that this thread or anything it starts from here on
/// makes: before the kernel carries it out.
pub fn die_at(calls: &[Call], nth: usize) {
    let (give, take) = mpsc::channel();
    let (asked, seen) = (calls.to_vec(), AtomicUsize::new(0));
    let judge = move |question: &libc::seccomp_notif| {
        let index = asked.iter().position(|call| call.number == libc::c_long::from(question.data.nr))?;
        let counts = match asked[index].only {
            Only::Ours(applies) => applies(&question.data.args),
            _ => true,
        };
        if counts && seen.fetch_add(1, Ordering::SeqCst) == nth {
            nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL).unwrap();
            loop {
                std::thread::park();
            }
        }
        None
    };
    std::thread::spawn(move || answer(take.recv().unwrap(), judge));
    give.send(install(&program(calls))).unwrap();
}

/// Does something before the kernel carries out each of `calls` that this thread, or anything it starts from here on,
/// makes, and lets the call through.
pub fn before(calls: &[Call], act: impl Fn() + Send + 'static) {
    let (give, take) = mpsc::channel();
    let asked = calls.to_vec();
    let judge = move |question: &libc::seccomp_notif| {
        REFUSED[index_of(question, &asked)?].fetch_add(1, Ordering::SeqCst);
        act();
        None
    };
    std::thread::spawn(move || answer(take.recv().unwrap(), judge));
    give.send(install(&program(calls))).unwrap();
}

/// The filter, as instructions of the kernel's packet filter over struct seccomp_data.
fn program(calls: &[Call]) -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let jump = |test: u32| (libc::BPF_JMP | test | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut all = Vec::new();
    for call in calls {
        let (argument, test, value) = match call.only {
            Only::Always | Only::Ours(_) | Only::Named(_) => (0, libc::BPF_JGE, 0),
            Only::Equal(argument, value) => (argument, libc::BPF_JEQ, value),
        };
        all.extend([
            line(LOAD, 0, 0, 0),
            line(jump(libc::BPF_JEQ), 0, 3, call.number as u32),
            // The low half of the argument, on machines whose low half comes first.
            line(LOAD, 0, 0, 16 + 8 * argument),
            line(jump(test), 0, 1, value),
            line(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        ]);
    }
    all.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    all
}

/// Puts the filter over this thread, and gives the descriptor on which it asks.
fn install(program: &[libc::sock_filter]) -> OwnedFd {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if !super::is_root() {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    }
    // SAFETY: the program lives across the call, which copies it.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    assert!(fd >= 0, "seccomp: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// The process that asks, which stands still, gave a string as the first argument that begins so.
fn is_named(question: &libc::seccomp_notif, begin: &str) -> bool {
    let mut text = vec![0; begin.len()];
    let memory = std::fs::File::open(format!("/proc/{}/mem", question.pid)).unwrap();
    memory.read_exact_at(&mut text, question.data.args[0]).is_ok() && text == begin.as_bytes()
}

/// Which of the calls it is that is asked about, if it is to be refused.
fn index_of(question: &libc::seccomp_notif, calls: &[Call]) -> Option<usize> {
    let index = calls.iter().position(|call| call.number == libc::c_long::from(question.data.nr))?;
    let applies = match calls[index].only {
        Only::Ours(applies) => applies,
        Only::Named(begin) => return is_named(question, begin).then_some(index),
        Only::Always | Only::Equal(..) => return Some(index),
    };
    let is_ours = Path::new(&format!("/proc/self/task/{}", question.pid)).exists();
    (is_ours && applies(&question.data.args)).then_some(index)
}

/// Answers each question by what `judge` says: an errno, or `None` for the kernel's own answer.
fn answer(listener: OwnedFd, judge: impl Fn(&libc::seccomp_notif) -> Option<Errno>) {
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    loop {
        // SAFETY: zeroed bytes are valid for both, and the kernel asks for them; they live across the calls.
        unsafe {
            let mut question: libc::seccomp_notif = std::mem::zeroed();
            if receive(listener.as_raw_fd(), &raw mut question).is_err() {
                continue;
            }
            let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
            answer.id = question.id;
            match judge(&question) {
                Some(errno) => answer.error = -(errno as i32),
                None => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            }
            let _ = send(listener.as_raw_fd(), &raw mut answer);
        }
    }
}

/// Each call of the case has been refused since the last look.
#[track_caller]
pub fn all_refused(calls: &[Call]) {
    for (call, count) in calls.iter().zip(&REFUSED) {
        assert!(count.swap(0, Ordering::SeqCst) > 0, "system call {} was never made", call.number);
    }
}

/// Whether any has.
pub fn has_refused() -> bool {
    REFUSED.iter().any(|count| count.load(Ordering::SeqCst) > 0)
}
