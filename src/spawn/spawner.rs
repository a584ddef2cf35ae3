//! The threads that clone.
//!
//! The parent of a sandbox must not end before the sandbox: the death signal follows the *thread*
//! that cloned, and runtimes end their threads. For this reason a few threads that live as long as
//! the process are the parents of all sandboxes. They are started on demand, at most one for each
//! core, and as many for sandboxes that start from a sparse mount namespace. Each thread has an
//! empty descriptor table of its own. So a clone copies next to nothing, however many descriptors
//! the caller has open, and a fork elsewhere in the process never holds the descriptors of a
//! sandbox. A job comes as one message with its descriptors, which therefore have known numbers
//! ([`wire::FIRST_FD`]).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use super::clone::{self, Cloned, Request, Stack};
use super::stub_file;
use crate::error::{Error, Result, Step};
use crate::mount::NODES;
use crate::stub::wire::{self, MAX_FDS};
use crate::sys::fork_mark::PerProcess;
use crate::sys::shortage::unless_refused;
use crate::sys::{background, mount, mutex, pidfd, table};

/// The most threads that are ever started. Threads beyond one for each core replace threads that a
/// clone blocks for good.
const MAX_SPAWNERS: usize = 64;
/// The load of a clone that did not return in time.
const STUCK: u32 = 1 << 16;

/// The parameters of one spawn, for a spawner. They are sent as words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// The CLONE_NEW* flags.
    pub(super) namespaces: u64,
    /// If true, the last descriptor of the message is the directory of the v2 group in which the
    /// child is born.
    pub(super) into_cgroup: bool,
    /// If true, this spawn needs a stub file of its own: processes in the sandbox can reach the
    /// file, and change its mode, but not its bytes.
    pub(super) own_stub: bool,
    /// If true, the stub is no memfd, because the exec of a memfd was refused.
    pub(super) file_stub: bool,
    /// The number of messages with further descriptors that wait on the report socket, before the
    /// plan.
    pub(super) ahead: u32,
    /// The caller's umask, for a thread that has one of its own.
    pub(super) umask: u32,
}

impl Job {
    const SIZE: usize = 24;

    fn encode(self) -> [u8; Job::SIZE] {
        let mut bytes = [0; Job::SIZE];
        bytes[..8].copy_from_slice(&self.namespaces.to_ne_bytes());
        bytes[8] = u8::from(self.into_cgroup);
        bytes[9] = u8::from(self.own_stub);
        bytes[10] = u8::from(self.file_stub);
        bytes[12..16].copy_from_slice(&self.ahead.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.umask.to_ne_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Job::SIZE]) -> Self {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        let [into_cgroup, own_stub, file_stub] = [bytes[8], bytes[9], bytes[10]].map(|byte| byte != 0);
        let number = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let namespaces = u64::from_ne_bytes(word);
        Job { namespaces, into_cgroup, own_stub, file_stub, ahead: number(12), umask: number(16) }
    }
}

/// All spawners of this process.
#[derive(Debug)]
pub(super) struct Spawners {
    threads: [Spawner; MAX_SPAWNERS],
    /// True if each thread is in a sparse mount namespace of its own.
    sparse: bool,
    cores: OnceLock<usize>,
    /// Held while a thread is chosen. Otherwise two callers could both start the last thread that
    /// is allowed.
    choice: Mutex<()>,
}

#[derive(Debug, Default)]
struct Spawner {
    /// The number of jobs that were sent and have not ended.
    busy: AtomicU32,
    socket: Mutex<Option<Connection>>,
    started: AtomicBool,
    /// The id of the thread, once it runs.
    tid: AtomicI32,
    /// The number of jobs that the thread has taken and cloned for. Jobs are numbered from 1.
    finished: AtomicU64,
    /// The last job whose clone did not return in time.
    stuck: AtomicU64,
}

/// The caller's connection to a thread.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// The number of jobs that were sent.
    jobs: u64,
}

impl Spawner {
    /// Returns the load. A blocked thread has such a high load that it gets no job if there is
    /// another thread.
    fn load(&self) -> u32 {
        let is_stuck = self.stuck.load(Ordering::Relaxed) > self.finished.load(Ordering::Relaxed);
        self.busy.load(Ordering::Relaxed) + if is_stuck { STUCK } else { 0 }
    }
}

/// Counts a job while the job runs.
#[derive(Debug)]
pub(super) struct Ticket {
    spawner: &'static Spawner,
    number: u64,
}

impl Ticket {
    /// Notes that the clone did not return: jobs go to other threads until it does.
    pub(super) fn stuck(&self) {
        self.spawner.stuck.fetch_max(self.number, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.spawner.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

static SPAWNERS: PerProcess<Spawners> = PerProcess::new();
/// The spawners whose threads are in sparse mount namespaces, unless the first could not make one.
static IN_SPARSE: PerProcess<Option<Spawners>> = PerProcess::new();

/// Returns the pids of the children of all spawners: proc_tid_children(5). One may be missing if
/// another is reaped meanwhile.
pub(super) fn children() -> Vec<i32> {
    let all = SPAWNERS.get().into_iter().chain(IN_SPARSE.get().and_then(Option::as_ref));
    let tids = all.flat_map(|spawners| &spawners.threads).map(|spawner| spawner.tid.load(Ordering::Relaxed));
    let lists = tids.filter(|tid| *tid != 0).map(|tid| format!("/proc/self/task/{tid}/children"));
    let texts = lists.filter_map(|list| std::fs::read_to_string(list).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

impl Spawners {
    /// Returns the spawners of this process that are in the caller's mount namespace. A fork gets
    /// new ones, because threads do not survive a fork.
    pub(super) fn get() -> Result<&'static Spawners> {
        SPAWNERS.get_or_try(|| Ok(Spawners::new(false))).map_err(failed)
    }

    /// Returns the spawners that are in sparse mount namespaces, unless none can be made here.
    pub(super) fn in_sparse() -> Result<Option<&'static Spawners>> {
        let make = || {
            let thread = background::spawn("ringfence-mounts", enter_sparse);
            Ok(unless_refused(thread.map(JoinHandle::join))?.map(|()| Spawners::new(true)))
        };
        let made = IN_SPARSE.get_or_try(make).map_err(failed)?;
        Ok(made.as_ref())
    }

    fn new(sparse: bool) -> Self {
        Spawners {
            threads: std::array::from_fn(|_| Spawner::default()),
            sparse,
            cores: OnceLock::new(),
            choice: Mutex::default(),
        }
    }

    /// Returns true in the process that made the spawners, and false in a fork of that process.
    pub(super) fn is_here(&self) -> bool {
        SPAWNERS.is_current(self)
    }

    /// Returns the number of threads that work at a time. The first one needs none of the files that
    /// tell it.
    fn cores(&self) -> usize {
        *self.cores.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(MAX_SPAWNERS))
    }

    /// Chooses an idle thread if there is one; otherwise a new thread while there are fewer threads
    /// than cores; otherwise the thread with the least load.
    fn choose(&'static self) -> Ticket {
        let _choice = mutex::lock(&self.choice);
        let started = || self.threads.iter().filter(|s| s.started.load(Ordering::Relaxed));
        let working = started().filter(|s| s.load() < STUCK).count();
        let unstarted = self.threads.iter().find(|s| !s.started.load(Ordering::Relaxed));
        let idle = started().find(|s| s.load() == 0);
        let fresh = if working == 0 || working < self.cores() { unstarted } else { None };
        let least = started().min_by_key(|s| s.load());
        let spawner = idle.or(fresh).or(least).unwrap_or(&self.threads[0]);
        spawner.started.store(true, Ordering::Relaxed);
        spawner.busy.fetch_add(1, Ordering::Relaxed);
        Ticket { spawner, number: 0 }
    }

    /// Sends a job to a thread. The result comes as records on the report socket, whose other end
    /// is the first of `fds`; the second is the plan. If threads are blocked and their queues are
    /// full, tries again until `until`.
    pub(super) fn submit(&'static self, job: Job, fds: &[RawFd], until: Instant) -> Result<Ticket> {
        loop {
            match self.try_submit(job, fds) {
                Err(Unsent::QueueFull) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                Err(Unsent::QueueFull) => return Err(unsent(Errno::EAGAIN)),
                Err(Unsent::Failed(error)) => return Err(error),
                Ok(ticket) => return Ok(ticket),
            }
        }
    }

    fn try_submit(&'static self, job: Job, fds: &[RawFd]) -> Result<Ticket, Unsent> {
        let mut ticket = self.choose();
        let spawner = ticket.spawner;
        let mut socket = mutex::lock(&spawner.socket);
        let started = match &mut *socket {
            Some(started) => started,
            none => {
                let socket = start(spawner, self.sparse).map_err(Unsent::Failed)?;
                none.insert(Connection { socket, jobs: 0 })
            }
        };
        let message = job.encode();
        let rights = [ControlMessage::ScmRights(fds)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(started.socket.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None)
            .map_err(|errno| if errno == Errno::EAGAIN { Unsent::QueueFull } else { Unsent::Failed(unsent(errno)) })?;
        started.jobs += 1;
        ticket.number = started.jobs;
        drop(socket);
        Ok(ticket)
    }
}

/// The reason why a job was not sent.
enum Unsent {
    /// The thread has more jobs than fit into its socket, because a clone blocks it.
    QueueFull,
    Failed(Error),
}

fn unsent(errno: Errno) -> Error {
    failed(errno).detail("sending a job to a spawning thread")
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::Spawner, errno)
}

fn enter_sparse() -> std::result::Result<(), Errno> {
    mount::enter_sparse_namespace(&NODES.map(|(name, ..)| name))
}

/// Starts a thread, and returns the socket on which the thread takes jobs.
fn start(spawner: &'static Spawner, sparse: bool) -> Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(failed)?;
    let stub = match stub_file::memfd() {
        Err(errno) if stub_file::is_refusal(errno) => None,
        result => Some(result.map_err(failed)?),
    };
    let (socket, stub_fd) = (theirs.as_raw_fd(), stub.as_ref().map(AsRawFd::as_raw_fd));
    let (ready, is_ready) = mpsc::sync_channel(1);
    let enter = move || if sparse { enter_sparse() } else { Ok(()) };
    let work = move || match enter().and_then(|()| table::make_private(socket, stub_fd)).and_then(|()| Stack::new()) {
        Ok(stack) => {
            spawner.tid.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
            let _ = ready.send(Ok(()));
            serve(&stack, stub_fd.is_some(), sparse, &spawner.finished);
        }
        Err(errno) => {
            let _ = ready.send(Err(errno));
        }
    };
    let name = if sparse { "ringfence-sparse" } else { "ringfence" };
    background::spawn(name, work).map_err(|error| Error::io(Step::Spawner, &error))?;
    is_ready.recv().map_err(|_| failed(Errno::ESRCH))?.map_err(failed)?;
    table::above_stdio(ours).map_err(failed)
}

/// Runs a spawner: one job after the other, until the process ends. `has_stub` says whether a stub
/// is in the thread's table, `has_umask` whether the thread has an umask of its own.
fn serve(stack: &Stack, has_stub: bool, has_umask: bool, finished: &AtomicU64) -> ! {
    loop {
        // If the message was cut, or its descriptors did not fit, the caller sees that its socket
        // is closed.
        if let Ok((job, count)) = take_job() {
            let ahead = (0..job.ahead).try_fold(count, |count, _| {
                let more = receive(wire::REPORT_FD, &mut [0])?;
                Ok(count + more)
            });
            // This descriptor is closed below, with all others that came for the job.
            let stub = if job.own_stub || job.file_stub || !has_stub {
                stub_file::for_one_spawn(job.file_stub).map(IntoRawFd::into_raw_fd)
            } else {
                Ok(table::STUB)
            };
            if has_umask {
                mount::set_umask(job.umask);
            }
            let failed = |value| move |errno| (value, errno);
            answer(ahead.map_err(failed(wire::BEFORE_STUB_FDS)).and_then(|count| {
                let stub = stub.map_err(failed(wire::BEFORE_STUB_IMAGE))?;
                let cgroup = job.into_cgroup.then(|| wire::FIRST_FD + count as RawFd - 1);
                let request = Request { namespaces: job.namespaces, cgroup, stub };
                clone::clone(stack, &request).map_err(failed(wire::BEFORE_STUB_CLONE))
            }));
        }
        let _ = table::close_from(wire::FIRST_FD);
        finished.fetch_add(1, Ordering::Relaxed);
    }
}

fn take_job() -> Result<(Job, usize), Errno> {
    let mut bytes = [0; Job::SIZE];
    let count = receive(table::SOCKET, &mut bytes)?;
    Ok((Job::decode(&bytes), count))
}

/// Receives one message, and returns the number of its descriptors.
fn receive(socket: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut buffers = [IoSliceMut::new(bytes)];
    // MSG_CMSG_CLOEXEC is not set: everything that arrives is for the stub.
    let message = recvmsg::<()>(socket, &mut buffers, Some(&mut space), MsgFlags::empty())?;
    let mut count = 0;
    // nix returns an error if there was no room for all descriptors.
    for control in message.cmsgs().map_err(|_| Errno::EMFILE)? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            count += fds.len();
        }
    }
    Ok(count)
}

/// Sends the result of the clone, or the failure before it, to the caller on the report socket. If
/// the caller no longer waits, kills the child.
fn answer(result: Result<Cloned, (i32, Errno)>) {
    use wire::{Record, record};
    match result {
        Ok(Cloned { pid, pidfd }) => {
            let record = Record { kind: record::CLONED, op: 0, errno: 0, value: pid };
            if send_record(record, &[ControlMessage::ScmRights(&[pidfd.as_raw_fd()])]).is_err() {
                let _ = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
                let _ = pidfd::wait(pidfd.as_fd(), true);
            }
        }
        Err((value, errno)) => {
            let kind = record::FAILED_BEFORE_STUB;
            let _ = send_record(Record { kind, op: 0, errno: errno as i32, value }, &[]);
        }
    }
}

fn send_record(record: wire::Record, rights: &[ControlMessage<'_>]) -> Result<usize, Errno> {
    let bytes = super::report::encode(record);
    sendmsg::<()>(wire::REPORT_FD, &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)
}
