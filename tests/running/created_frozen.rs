//! A sandbox of the first version, as this one finds and starts it: its record and the words of its stub are written out
//! here, byte by byte. The other way round, the stub of this version and the words of a starter, stands in created.rs.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv,
    sendmsg, socket,
};

use crate::common;
use ringfence::{Created, CreatedState, ErrorKind, Step};

/// The first process of a sandbox that an older build has left in a directory, with nothing but what its record says.
struct Old {
    above: common::TempDir,
    process: Child,
}

impl Old {
    /// Writes the record of the first version. Of the process it names what Linux before 6.9 tells.
    fn new() -> Old {
        let old = Old { above: common::TempDir::new(), process: Command::new("sleep").arg("1000").spawn().unwrap() };
        fs::DirBuilder::new().mode(0o700).create(old.dir()).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", old.process.id())).unwrap();
        let started = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let (boot, pid_ns) = (boot.trim(), fs::metadata("/proc/self/ns/pid").unwrap().ino());
        let process = format!("{}:{started}:{boot}:-", old.process.id());
        let record = format!(
            "ringfence-created1,boot={boot},pidns={pid_ns},process={process},timeout=30000000000,\
             note=70:setrlimit:+NoFile:,note=75:exec:+/bin/a%3ab:+see%20there,unticketed=no%20room\n\n"
        );
        fs::write(old.dir().join("record"), record).unwrap();
        old
    }

    fn dir(&self) -> PathBuf {
        self.above.path().join("box")
    }

    fn record(&self) -> String {
        fs::read_to_string(self.dir().join("record")).unwrap()
    }

    /// Waits as a stub does for the next eight bytes, and says these records then.
    fn says(&self, records: Vec<([u32; 4], Option<File>)>) -> JoinHandle<Vec<u8>> {
        let waits = listens_at(&self.dir().join("start"));
        std::thread::spawn(move || {
            loop {
                // SAFETY: accept(2) has just made the descriptor, and nobody else has it.
                let starter = unsafe { OwnedFd::from_raw_fd(accept(waits.as_raw_fd()).unwrap()) };
                let mut heard = [0; 64];
                let length = recv(starter.as_raw_fd(), &mut heard, MsgFlags::empty()).unwrap();
                if length == 0 {
                    continue;
                }
                for (numbers, file) in &records {
                    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
                    let fds: Vec<_> = file.iter().map(AsRawFd::as_raw_fd).collect();
                    let with: Vec<_> =
                        (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds)).into_iter().collect();
                    let bytes = [IoSlice::new(&bytes)];
                    sendmsg::<()>(starter.as_raw_fd(), &bytes, &with, MsgFlags::MSG_NOSIGNAL, None).unwrap();
                }
                return heard[..length].to_vec();
            }
        })
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        // Whoever has removed the sandbox has killed and reaped its process, if that was a child.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listens_at(path: &Path) -> OwnedFd {
    let waits = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(waits.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&waits, Backlog::new(1).unwrap()).unwrap();
    waits
}

#[test]
fn one_of_the_first_version_is_found_started_and_removed() {
    let _clean = common::clean();
    let old = Old::new();
    // 4: the program is about to be executed. The end of the connection says that it was. What has another number, and what
    // comes with it, is passed over.
    let stub = old.says(vec![([77, 0, 0, 0], Some(File::open("/dev/null").unwrap())), ([4, 75, 0, 0], None)]);
    let created = Created::open(old.dir()).unwrap();
    assert_eq!(created.state().unwrap(), CreatedState::Created);
    assert_eq!(created.id(), Some(old.process.id()));
    let before = old.record();
    created.start().unwrap();
    assert_eq!(stub.join().unwrap(), [0x52, 0x46, 0x53, 0x54, 0x41, 0x52, 0x54, 0x31]);
    assert_eq!(created.state().unwrap(), CreatedState::Running);
    assert_eq!(old.record(), before.replacen('\n', ",started=1\n", 1));
    assert_eq!(Created::open(old.dir()).unwrap().state().unwrap(), CreatedState::Running);
    assert_eq!(created.start().unwrap_err().raw_os_error(), Some(libc::EALREADY));
    created.remove().unwrap();
    assert!(!old.dir().exists());
}

#[test]
fn its_failure_is_told_by_the_notes_of_its_record() {
    let _clean = common::clean();
    let old = Old::new();
    // 2: the op has failed, with this errno.
    let stub = old.says(vec![([4, 75, 0, 0], None), ([2, 75, libc::ENOENT as u32, 0], None)]);
    let created = Created::open(old.dir()).unwrap();
    let error = created.start().unwrap_err();
    assert_eq!(stub.join().unwrap(), b"RFSTART1");
    let is = (error.kind(), error.step(), error.raw_os_error(), error.path());
    assert_eq!(is, (ErrorKind::Exec, Step::Exec, Some(libc::ENOENT), Some(Path::new("/bin/a:b"))), "{error}");
    assert!(error.to_string().contains("see there"), "{error}");
    assert!(!old.record().contains("started"));
    created.remove().unwrap();
}

#[test]
fn a_word_of_a_later_version_in_its_record_stays_there() {
    let _clean = common::clean();
    let old = Old::new();
    let record = old.record().replacen(",unticketed", ",colour=blue,unticketed", 1);
    fs::write(old.dir().join("record"), &record).unwrap();
    let stub = old.says(vec![([4, 75, 0, 0], None)]);
    Created::open(old.dir()).unwrap().start().unwrap();
    stub.join().unwrap();
    assert_eq!(old.record(), record.replacen('\n', ",started=1\n", 1));
    Created::open(old.dir()).unwrap().remove().unwrap();
}
