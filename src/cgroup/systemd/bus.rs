//! A connection to a message bus: opened for a few calls, with a deadline, and closed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Uid;
use zbus::wire::Type;
use zbus::wire::export::serde::Serialize;

use super::message::{self, FIXED, Head, Message, kind};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{table, timeout};

const DAEMON: Object<'_> =
    Object { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
/// A bound above the number of signals that can arrive between a call and its answer.
const MOST_WAITING: usize = 10_000;

/// The address of a method's object on the bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'o> {
    pub(super) destination: &'static str,
    pub(super) path: &'o str,
    pub(super) interface: &'static str,
}

/// The socket of a bus, from the environment or at the usual path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// Returns the sockets of the system bus for root, and of the user's own bus for everyone else.
    pub(super) fn of_caller() -> Vec<Address> {
        let uid = uid_outside();
        let (variable, usual) = if uid.is_root() {
            ("DBUS_SYSTEM_BUS_ADDRESS", PathBuf::from("/run/dbus/system_bus_socket"))
        } else {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
            ("DBUS_SESSION_BUS_ADDRESS", runtime.unwrap_or_else(|| format!("/run/user/{uid}").into()).join("bus"))
        };
        let named = std::env::var_os(variable).map(|text| Address::list(text.as_bytes())).unwrap_or_default();
        if named.is_empty() { vec![Address::Path(usual)] } else { named }
    }

    /// Reads `unix:path=/a;unix:abstract=b,guid=…`. Other transports are skipped.
    pub(super) fn list(text: &[u8]) -> Vec<Address> {
        let pairs = |entry: &[u8]| entry.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let entries = text.split(|byte| *byte == b';').filter_map(|entry| entry.strip_prefix(b"unix:")).map(pairs);
        entries
            .filter_map(|pairs| {
                pairs.iter().find_map(|pair| {
                    let path = pair.strip_prefix(b"path=").map(|path| Address::Path(unescape(path)));
                    let named = || pair.strip_prefix(b"abstract=").map(|name| Address::Abstract(bytes(unescape(name))));
                    path.or_else(named)
                })
            })
            .collect()
    }

    fn text(&self) -> OsString {
        match self {
            Address::Path(path) => path.clone().into_os_string(),
            Address::Abstract(name) => OsString::from_vec([b"@", name.as_slice()].concat()),
        }
    }

    fn connect(&self, until: Instant) -> nix::Result<OwnedFd> {
        let address = match self {
            Address::Path(path) => UnixAddr::new(path.as_path())?,
            Address::Abstract(name) => UnixAddr::new_abstract(name)?,
        };
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let fd = table::above_stdio(fd)?;
        // The timeout also bounds connect(2), which waits while the daemon's backlog is full.
        let left = until.saturating_duration_since(Instant::now()).as_millis().clamp(1, 1 << 31);
        setsockopt(&fd, SendTimeout, &TimeVal::milliseconds(left as i64))?;
        connect(fd.as_raw_fd(), &address)?;
        Ok(fd)
    }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// Decodes an address, in which unusual bytes are written as `%20`.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// A connection on which the daemon has given this process a name.
#[derive(Debug)]
pub(super) struct Bus {
    fd: OwnedFd,
    until: Instant,
    serial: u32,
    socket_name: OsString,
    /// The signals that arrived while a call waited for its answer.
    waiting: VecDeque<Message>,
    /// The name that the daemon gave to this process.
    pub(super) name: String,
}

impl Bus {
    /// Opens the first of `addresses` that answers. Every call on this connection ends at `until`.
    pub(super) fn open(addresses: &[Address], until: Instant) -> Result<Bus> {
        let mut last = None;
        for address in addresses {
            match address.connect(until) {
                Ok(fd) => return Bus::greet(fd, until, address.text()),
                Err(errno) => last = Some(no_bus(errno, &address.text())),
            }
        }
        Err(last.unwrap_or_else(|| no_bus(Errno::ENOENT, &OsString::from("DBUS_SESSION_BUS_ADDRESS"))))
    }

    /// Does the handshake. The daemon learns the caller's user from the kernel, by the socket.
    fn greet(fd: OwnedFd, until: Instant, socket_name: OsString) -> Result<Bus> {
        let mut bus = Bus { fd, until, serial: 0, socket_name, waiting: VecDeque::new(), name: String::new() };
        let uid: String = uid_outside().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 1000 {
                return Err(bus.failed(Errno::EBADMSG));
            }
            line.extend(bus.read::<1>()?);
        }
        if !line.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&line).trim().to_owned();
            let detail = format!("the bus does not let user {} in: {answer}", Uid::effective());
            let hint = "in a user namespace whose user the bus does not know, the caller is a stranger to it";
            return Err(Error::message(ErrorKind::Unsupported, Step::SystemdScope, detail)
                .at(&bus.socket_name)
                .hint(hint));
        }
        bus.write(b"BEGIN\r\n")?;
        let hello = bus.call(DAEMON, "Hello", None::<&()>)?;
        bus.name = hello.body().map_err(|errno| bus.failed(errno))?;
        Ok(bus)
    }

    /// Calls a method of the daemon itself.
    pub(super) fn call_daemon<T: Serialize + Type>(&mut self, member: &str, body: &T) -> Result<Message> {
        self.call(DAEMON, member, Some(body))
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call<T: Serialize + Type>(
        &mut self,
        name: Object<'_>,
        member: &str,
        body: Option<&T>,
    ) -> Result<Message> {
        let answer = self.ask(name, member, body)?;
        if answer.head.kind == kind::ERROR { Err(self.refused(member, &answer)) } else { Ok(answer) }
    }

    /// Calls a method, and returns `None` for an answer that is one of the errors `absences`.
    pub(super) fn call_unless<T: Serialize + Type>(
        &mut self,
        absences: &[&str],
        name: Object<'_>,
        member: &str,
        body: &T,
    ) -> Result<Option<Message>> {
        let answer = self.ask(name, member, Some(body))?;
        match answer.head.kind {
            kind::ERROR if absences.contains(&answer.head.error.as_str()) => Ok(None),
            kind::ERROR => Err(self.refused(member, &answer)),
            _ => Ok(Some(answer)),
        }
    }

    /// Calls a method and waits for the answer, which may be an error.
    fn ask<T: Serialize + Type>(&mut self, name: Object<'_>, member: &str, body: Option<&T>) -> Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let head = Head {
            kind: kind::CALL,
            serial,
            destination: name.destination.into(),
            path: name.path.into(),
            interface: name.interface.into(),
            member: member.into(),
            ..Head::default()
        };
        let bytes = message::encode(&head, body).map_err(|errno| self.failed(errno).detail(member))?;
        self.write(&bytes)?;
        loop {
            let message = self.read_message()?;
            match message.head.kind {
                kind::RETURN | kind::ERROR if message.head.reply_to == serial => return Ok(message),
                kind::SIGNAL if self.waiting.len() < MOST_WAITING => self.waiting.push_back(message),
                _ => {}
            }
        }
    }

    /// Returns the next signal.
    pub(super) fn signal(&mut self) -> Result<Message> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.read_message()?;
            if message.head.kind == kind::SIGNAL {
                return Ok(message);
            }
        }
    }

    pub(super) fn read_message(&mut self) -> Result<Message> {
        let start: [u8; FIXED] = self.read()?;
        let rest = message::remaining(&start).map_err(|errno| self.failed(errno))?;
        let mut bytes = start.to_vec();
        bytes.resize(FIXED + rest, 0);
        self.read_into(&mut bytes[FIXED..])?;
        message::decode(&bytes).map_err(|errno| self.failed(errno))
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&mut self, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            match recv(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(self.failed(Errno::ECONNRESET).hint("the bus has closed the connection")),
                Ok(count) => bytes = &mut bytes[count..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait()?,
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout::until(self.until)) {
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.failed(errno)),
            Ok(_) if Instant::now() >= self.until => Err(self.late()),
            Ok(_) => Ok(()),
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(self.late()),
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(())
    }

    fn failed(&self, errno: Errno) -> Error {
        Error::new(Step::SystemdScope, errno).at(&self.socket_name)
    }

    /// Returns the error for a peer that does not answer in time.
    pub(super) fn late(&self) -> Error {
        let detail = "no answer from systemd in time";
        Error::message(ErrorKind::Timeout, Step::SystemdScope, detail).at(&self.socket_name).hint("see setup_timeout()")
    }

    /// Returns the error for a call that was answered with an error.
    fn refused(&self, member: &str, answer: &Message) -> Error {
        let text = answer.body::<(String,)>().map(|(text,)| text).unwrap_or_default();
        let name = answer.head.error.as_str();
        let absent = ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
        let (kind, hint) = if absent.contains(&name) || name.starts_with("org.freedesktop.DBus.Error.Spawn.") {
            (ErrorKind::Unsupported, Some("no systemd answers on this bus: name a group with cgroup_parent instead"))
        } else if name == "org.freedesktop.DBus.Error.AccessDenied"
            || name.ends_with(".InteractiveAuthorizationRequired")
        {
            (ErrorKind::Setup, Some("an ordinary user asks the manager of its own, root the system's"))
        } else {
            (ErrorKind::Setup, None)
        };
        let error =
            Error::message(kind, Step::SystemdScope, format!("{member}: {text} ({name})")).at(&self.socket_name);
        hint.into_iter().fold(error, Error::hint)
    }
}

/// Returns the caller's user as the bus sees it: outside of the caller's user namespace.
pub(super) fn uid_outside() -> Uid {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let uid = Uid::effective().as_raw();
    Uid::from_raw(outside_of(&map, uid).unwrap_or(uid))
}

/// Returns the id outside of `id` by a uid_map: lines of the first id inside, the first outside,
/// and the count.
fn outside_of(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [inside, outside, count] = numbers[..] else { return None };
        let offset = u64::from(id).checked_sub(inside).filter(|offset| *offset < count)?;
        u32::try_from(outside.checked_add(offset)?).ok()
    })
}

fn no_bus(errno: Errno, socket_name: &OsString) -> Error {
    let hint = if uid_outside().is_root() {
        "it needs systemd and the system's message bus; without them name a group with cgroup_parent"
    } else {
        "it needs a user manager (loginctl enable-linger, or a login) with its bus, which XDG_RUNTIME_DIR or \
         DBUS_SESSION_BUS_ADDRESS names"
    };
    Error::new(Step::SystemdScope, errno).with_kind(ErrorKind::Unsupported).at(Path::new(socket_name)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_the_bus_is_the_one_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(
            [0, 1, 65536, 65537].map(|id| outside_of(map, id)),
            [Some(1000), Some(100_000), Some(165_535), None]
        );
        assert_eq!(outside_of("0 0 4294967295\n", 1000), Some(1000));
        for map in ["", "x", "0 0", "0 18446744073709551615 5\n", "0 4294967296 1\n"] {
            assert_eq!(outside_of(map, 1), None, "{map}");
        }
        crate::fuzz::texts(&[map], |text| _ = outside_of(text, 7));
    }

    #[test]
    fn addresses_are_read_as_the_specification_writes_them() {
        let text = b"tcp:host=x;unix:guid=1,path=/run/a%20b;unix:abstract=/tmp/c,guid=2;unix:tmpdir=/tmp";
        assert_eq!(Address::list(text), [Address::Path("/run/a b".into()), Address::Abstract(b"/tmp/c".to_vec())]);
        assert_eq!(unescape(b"%%2%2f%zz"), PathBuf::from("%%2/%zz"));
    }
}
