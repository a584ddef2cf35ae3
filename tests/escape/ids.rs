//! What a sandbox of root's can do to others by the id that it has outside: kill(2) reaches by it, and the kernel counts by
//! it what no control group counts. The attack works where both are mapped to one id.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringfence::{Child, Command, IdMap, RootFs, Sandbox, Stdio};

use crate::{Answers, attack, attack_inside, common};

/// An id of the test's own, for two that share it.
const ONE: u32 = 0x7700_1234;

fn needs_ids() -> bool {
    if common::needs_root("ids that are not the caller's") {
        return true;
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let has_all = map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    if !has_all {
        common::skip("the ids that sandboxes have are the host's", true);
    }
    !has_all
}

fn mapped(sandbox: Sandbox, inside: u32) -> Sandbox {
    let map = IdMap::new(inside, ONE, 1);
    sandbox.uid_map(map).gid_map(map)
}

/// The kernel lets anybody signal whose id is the same, wherever that lives.
#[test]
fn a_sandbox_that_sees_others_cannot_signal_them() {
    let _clean = common::clean();
    if needs_ids() {
        return;
    }
    let strict = || common::strict_sh("sleep 1000");
    let pool = strict().pool(1).unwrap();
    pool.wait_ready(Duration::from_secs(30)).unwrap();
    let own = || Sandbox::new().user_ns().rootfs(RootFs::host());
    let shared = common::TempDir::new();
    let bound = |sandbox: Sandbox| sandbox.bind(shared.path(), "/mnt");
    let mut victims = vec![
        bound(strict()).spawn().unwrap(),
        strict().spawn().unwrap(),
        own().command("/bin/sleep").arg("1000").spawn().unwrap(),
    ];
    victims.push(pool.spawn(Command::new("/bin/sleep").arg("1000")).unwrap());
    for (attacker, attack) in [
        (Sandbox::new().user_ns(), attack as fn(Sandbox, &str) -> Answers),
        (own(), attack_inside),
        (bound(own()), attack_inside),
    ] {
        for victim in &mut victims {
            let pid = victim.id().to_string();
            assert_eq!(attack(attacker.clone(), &format!("kill {pid}")).get(&pid), "EPERM");
            assert!(victim.try_wait().unwrap().is_none());
        }
    }
    let mut victim = mapped(own(), 0).command("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = victim.id().to_string();
    assert_eq!(attack(mapped(Sandbox::new().user_ns(), 0), &format!("kill {pid}")).get(&pid), "ok");
    victim.wait().unwrap();
}

/// Starts an attack that goes on until its stdin ends, and gives what it has said by then.
fn start(sandbox: Sandbox, what: &str) -> (Child, Answers) {
    let exe = std::env::current_exe().unwrap();
    let sandbox = sandbox.bind_ro(exe, "/tmp/attack").command("/tmp/attack").env("RINGFENCE_ATTACK", what);
    let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
    while !text.ends_with("waits=yes\n") {
        text += &lines.next().expect("the attack has ended").unwrap();
        text += "\n";
    }
    (child, Answers::of(&text))
}

/// What a second sandbox has while a first one takes all that there is for its id.
fn beside(first: Sandbox, second: Sandbox, takes: &str, has: &str) -> (Answers, Answers) {
    let (holder, taken) = start(first, takes);
    let (rest, left) = start(second, has);
    rest.close().unwrap();
    holder.close().unwrap();
    (taken, left)
}

#[test]
fn descriptors_in_flight_are_counted_for_each_sandbox() {
    let _clean = common::clean();
    if needs_ids() {
        return;
    }
    let shared = common::TempDir::new();
    for sandbox in [common::strict(), common::strict().bind(shared.path(), "/d")] {
        let (taken, left) = beside(sandbox.clone(), sandbox, "in-flight 4000", "in-flight 1");
        assert_eq!(taken.get("ends"), "ETOOMANYREFS");
        assert_eq!((left.get("sent"), left.get("ends")), ("1", "none"));
    }
    let one = || mapped(common::strict(), 65_534);
    let (_, left) = beside(one(), one(), "in-flight 4000", "in-flight 1");
    assert_eq!((left.get("sent"), left.get("ends")), ("0", "ETOOMANYREFS"), "the attack itself works");
}

#[test]
fn pages_of_pipes_are_counted_for_each_sandbox() {
    let _clean = common::clean();
    if needs_ids() {
        return;
    }
    let soft = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
    if !(1..=32_768).contains(&soft.trim().parse::<u64>().unwrap()) {
        return common::skip("the limit of pipe-user-pages-soft is another than the kernel's own", true);
    }
    let (taken, left) = beside(common::strict(), common::strict(), "pipes", "pipe");
    assert_ne!(taken.get("last"), "65536");
    assert_eq!(left.get("size"), "65536");
    let one = || mapped(common::strict(), 65_534);
    assert_ne!(beside(one(), one(), "pipes", "pipe").1.get("size"), "65536", "the attack itself works");
}

/// Keeps what was taken until it is ended.
fn wait() {
    println!("waits=yes");
    let _ = io::stdout().flush();
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// Sends one descriptor again and again to sockets that nobody reads: user namespaces have no part in the count, ids have.
pub fn in_flight(most: usize) {
    let (mut sent, mut ends) = (0, "none".to_owned());
    let mut sockets = Vec::new();
    'all: while sent < most {
        sockets.push(UnixStream::pair().unwrap());
        let Some((here, _)) = sockets.last() else { break };
        for _ in 0..8.min(most - sent) {
            match send(here, &io::stdout().as_fd(), 128.min(most - sent)) {
                Ok(count) => sent += count,
                Err(error) => {
                    ends = crate::attack::errno(&error);
                    break 'all;
                }
            }
        }
    }
    println!("sent={sent}\nends={ends}");
    wait();
    drop(sockets);
}

fn send(to: &UnixStream, fd: &impl AsRawFd, count: usize) -> io::Result<usize> {
    let fds: Vec<RawFd> = vec![fd.as_raw_fd(); count];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let data = [io::IoSlice::new(b"x")];
    nix::sys::socket::sendmsg::<()>(to.as_raw_fd(), &data, &rights, nix::sys::socket::MsgFlags::MSG_DONTWAIT, None)?;
    Ok(count)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe().map_err(io::Error::from)
}

fn resize(pipe: &OwnedFd, size: i32) -> io::Result<i32> {
    nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(size)).map_err(io::Error::from)
}

fn size(pipe: &OwnedFd) -> i32 {
    nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap()
}

/// Makes pipes as large as they can be, until a new one is small. Their pages are counted, and not used.
pub fn pipes() {
    let mut all = Vec::new();
    while all.len() < 400 {
        let (read, write) = pipe().unwrap();
        if size(&read) < 65_536 || resize(&read, 1 << 20).is_err() {
            all.push((read, write));
            break;
        }
        all.push((read, write));
    }
    let new = pipe().unwrap();
    println!("last={}", size(&new.0));
    wait();
    drop(all);
}

pub fn one_pipe() {
    println!("size={}", size(&pipe().unwrap().0));
    wait();
}
