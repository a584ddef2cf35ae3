//! The listener of a filter, in a sandbox that one process creates and another starts.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg, send, socket,
};
use ringfence::{Action, Created, CreatedState, ErrorKind, Notifications, Rule, Sandbox, Seccomp, Stdio, Step};

use crate::common::{self, handover::receive};

/// The record of the protocol that brings the listener.
const LISTENER: u32 = 9;

struct Base {
    dir: common::TempDir,
}

impl Base {
    fn dir(&self) -> PathBuf {
        self.dir.path().join("box")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("out")).unwrap()
    }
}

/// A sandbox that asks about `calls`, and whose program makes a directory, which fails by itself.
fn create(calls: &[&'static str]) -> (Base, Created) {
    let base = Base { dir: common::TempDir::new() };
    let out = File::create(base.dir.path().join("out")).unwrap();
    let asks = Seccomp::deny_list().rule(Rule::new(calls.iter().copied(), Action::Notify));
    let sandbox = common::sandbox().seccomp(asks).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
    let sandbox: Sandbox = sandbox.command("/bin/sh").args(["-c", "echo ran; mkdir /no/such/dir && echo made"]);
    let created = sandbox.create(base.dir()).unwrap();
    (base, created)
}

/// Lets each call succeed that the filter asks about; a new program is really executed.
fn answers(notifications: Notifications) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut count = 0;
        while let Ok(Some(notification)) = notifications.recv() {
            count += 1;
            let answered = match notification.syscall() {
                Some("execve") => notification.proceed(),
                _ => notification.value(0),
            };
            answered.unwrap();
        }
        count
    })
}

#[test]
fn the_starter_gets_the_listener_before_the_program_runs() {
    let _clean = common::clean();
    for calls in [&["mkdir", "mkdirat"][..], &["mkdir", "mkdirat", "execve"]] {
        let (base, created) = create(calls);
        let program = created.attached().unwrap();
        // Another process than the creator, as far as the value knows.
        let starter = Created::open(base.dir()).unwrap();
        let mut supervisor = None;
        let take = |notifications| {
            assert_eq!(base.said(), "");
            supervisor = Some(answers(notifications));
            Ok(())
        };
        starter.start_with_listener(take).unwrap();
        assert!(program.wait().unwrap().success(), "{}", base.said());
        assert_eq!(base.said(), "ran\nmade\n");
        assert!(supervisor.unwrap().join().unwrap() >= 1);
        created.remove().unwrap();
    }
}

#[test]
fn a_filter_that_asks_is_not_started_without_anybody_to_answer() {
    let _clean = common::clean();
    let (base, created) = create(&["mkdir", "mkdirat"]);
    let error = created.start().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Control, Step::Start), "{error}");
    assert_eq!(created.state().unwrap(), CreatedState::Created);
    let error = created.start_with_listener(|_| Err(std::io::Error::other("the agent is gone"))).unwrap_err();
    assert_eq!(error.step(), Step::HandListenerOver);
    assert!(error.to_string().contains("the agent is gone"), "{error}");
    common::eventually("it ends", || created.state().unwrap() == CreatedState::Stopped);
    assert_eq!(base.said(), "");
    created.remove().unwrap();
    // And the other way round: nobody is asked, and somebody waits for questions.
    let base = Base { dir: common::TempDir::new() };
    let created = common::sandbox().command("/bin/true").stdin(Stdio::null()).create(base.dir()).unwrap();
    let error = created.start_with_listener(|_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    created.start().unwrap();
    created.remove().unwrap();
}

/// A supervisor that is named gets the listener from the create, before anything waits.
#[test]
fn a_supervisor_that_is_named_gets_the_listener_from_the_create() {
    let _clean = common::clean();
    for (init, new_privs) in [(false, false), (true, false), (false, true)] {
        let base = Base { dir: common::TempDir::new() };
        let path = base.dir.path().join("agent");
        let agent = UnixListener::bind(&path).unwrap();
        let out = File::create(base.dir.path().join("out")).unwrap();
        let asks =
            Seccomp::deny_list().rule(Rule::new(["mkdir", "mkdirat"], Action::Notify)).allow_new_privs(new_privs);
        let sandbox = common::sandbox().pid_ns().init(init).seccomp(asks);
        let sandbox = sandbox.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let sandbox = sandbox.command("/bin/sh").args(["-c", "echo ran; mkdir /no/such/dir && echo made"]);
        let told = |pid: u32| pid.to_string().into_bytes();
        let named = sandbox.clone().notify_socket(&path, told);
        let created = named.create(base.dir()).unwrap();
        let program = created.attached().unwrap();
        let (text, listener) = receive(&agent);
        assert_eq!(text, program.id().to_string());
        let supervisor = answers(Notifications::from(listener));
        // There is nothing left for the start to bring.
        let error = created.start_with_listener(|_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert_eq!(base.said(), "");
        Created::open(base.dir()).unwrap().start().unwrap();
        assert!(program.wait().unwrap().success(), "{}", base.said());
        assert_eq!(base.said(), "ran\nmade\n");
        assert_eq!(supervisor.join().unwrap(), 1);
        created.remove().unwrap();
        // Nothing is left of a create whose supervisor is not there, or hangs up.
        drop(agent);
        let error = named.create(base.dir()).unwrap_err();
        assert_eq!((error.step(), error.path()), (Step::HandListenerOver, Some(path.as_path())), "{error}");
        assert!(!base.dir().exists());
    }
}

/// What a version does that knows nothing of listeners: it passes over the record, and answers nothing.
#[test]
fn a_starter_that_passes_over_the_listener_starts_nothing() {
    let _clean = common::clean();
    let (base, created) = create(&["mkdir", "mkdirat"]);
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(connection.as_raw_fd(), &UnixAddr::new(&base.dir().join("start")).unwrap()).unwrap();
    send(connection.as_raw_fd(), b"RFSTART1", MsgFlags::empty()).unwrap();
    loop {
        let mut record = [0; 16];
        let (mut buffers, mut space) = ([std::io::IoSliceMut::new(&mut record)], cmsg_space!([i32; 1]));
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut buffers, Some(&mut space), flags).unwrap();
        assert_eq!(message.bytes, 16, "the end comes before the listener");
        let brought = message.cmsgs().unwrap().flat_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds,
            other => panic!("{other:?}"),
        });
        let brought: Vec<i32> = brought.collect();
        // It does so with what comes with a record that it does not know.
        brought.iter().for_each(|fd| nix::unistd::close(*fd).unwrap());
        if u32::from_ne_bytes(record[..4].try_into().unwrap()) == LISTENER {
            assert_eq!(brought.len(), 1);
            break;
        }
    }
    drop(connection);
    common::eventually("it ends", || created.state().unwrap() == CreatedState::Stopped);
    assert_eq!(base.said(), "");
    created.remove().unwrap();
}
