//! Interfaces that a sandbox gets from its caller: they move from one network namespace into
//! another, network_namespaces(7), with their addresses.
//!
//! The kernel takes the addresses off on the way, and leaves the interface down. It moves an
//! interface first and renames it then: where it cannot, the interface has moved all the same.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use super::netlink::Socket;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::table;

/// The network namespace of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// An interface that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its name in the caller's network namespace.
    pub(crate) name: String,
    /// Its name in the sandbox.
    pub(crate) inside: String,
}

impl Device {
    /// Returns whether the kernel takes this for a name of an interface: `dev_valid_name`.
    pub(crate) fn is_name(name: &str) -> bool {
        const LEN_MAX: usize = 15;
        let plain = |byte: u8| !matches!(byte, b'/' | b':' | 0) && !byte.is_ascii_whitespace() && byte != 0x0b;
        !["", ".", ".."].contains(&name) && name.len() <= LEN_MAX && name.bytes().all(plain)
    }
}

/// Interfaces that have moved. They move back when this is dropped, unless they are to
/// [`stay`](Moved::stay).
#[derive(Debug)]
pub(crate) struct Moved {
    home: OwnedFd,
    outside: Socket,
    inside: Socket,
    devices: Vec<Away>,
}

/// An interface as it was at home.
#[derive(Debug)]
struct Away {
    device: Device,
    addresses: Vec<AddressMessage>,
    was_up: bool,
}

/// Moves interfaces of the caller's network namespace into another one, and sets them up there with
/// the addresses that they had: those that somebody gave them for good, and for the whole network.
/// An error leaves them where they were.
pub(crate) fn move_in(devices: &[Device], namespace: &OwnedFd) -> Result<Moved> {
    let failed = |errno| Error::new(Step::NetDevice, errno);
    let home = open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).and_then(table::above_stdio);
    let home = home.map_err(|errno| failed(errno).at(OWN))?;
    let id = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(failed);
    if id(&home)? == id(namespace)? {
        let reason = "the sandbox is in the network namespace of its caller";
        return Err(Error::message(ErrorKind::Invalid, Step::NetDevice, reason).hint("give it one of its own"));
    }
    let (outside, inside) = (Socket::open().map_err(failed)?, Socket::open_in(namespace).map_err(failed)?);
    let mut moved = Moved { home, outside, inside, devices: Vec::new() };
    for device in devices {
        moved.take(device, namespace).map_err(|errno| explain(errno, device))?;
    }
    Ok(moved)
}

impl Moved {
    /// Leaves the interfaces where they are.
    pub(crate) fn stay(mut self) {
        self.devices.clear();
    }

    fn take(&mut self, device: &Device, namespace: &OwnedFd) -> Result<(), Errno> {
        let link = link_of(&self.outside, &device.name)?;
        let addresses = addresses_of(&self.outside, link.header.index)?;
        let was_up = link.header.flags.contains(LinkFlags::Up);
        let mut away = Away { device: device.clone(), addresses, was_up };
        if let Err(errno) = send_away(&self.outside, link.header.index, &device.inside, namespace.as_fd()) {
            if link_of(&self.outside, &device.name) == Err(Errno::ENODEV) {
                away.device.inside.clone_from(&device.name);
                self.devices.push(away);
            }
            return Err(errno);
        }
        self.devices.push(away);
        let away = &self.devices[self.devices.len() - 1];
        arrive(&self.inside, &device.inside, &away.addresses, true)
    }

    fn give_back(&self, away: &Away) -> Result<(), Errno> {
        let index = link_of(&self.inside, &away.device.inside)?.header.index;
        send_away(&self.inside, index, &away.device.name, self.home.as_fd())?;
        arrive(&self.outside, &away.device.name, &away.addresses, away.was_up)
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for away in self.devices.iter().rev() {
            // The error that has ended the sandbox counts.
            let _ = self.give_back(away);
        }
    }
}

fn explain(errno: Errno, device: &Device) -> Error {
    let error = Error::new(Step::NetDevice, errno).at(&device.name);
    match errno {
        Errno::ENODEV => error.hint("the network namespace of the caller has no interface of this name (ip link)"),
        Errno::EEXIST => {
            error.hint(format!("the sandbox has an interface {:?} already: give another name", device.inside))
        }
        Errno::EINVAL => error.hint("the kernel moves no loopback, bridge or tunnel that belongs to its namespace"),
        Errno::EPERM => error.hint("run as root of both network namespaces, with CAP_NET_ADMIN"),
        _ => error,
    }
}

/// Finds an interface by its name.
fn link_of(socket: &Socket, name: &str) -> Result<LinkMessage, Errno> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = socket.ask(RouteNetlinkMessage::GetLink(link))?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    links.into_iter().next().ok_or(Errno::ENODEV)
}

/// Returns the addresses of an interface that are its own for good: no others mean something in
/// another network namespace.
fn addresses_of(socket: &Socket, index: u32) -> Result<Vec<AddressMessage>, Errno> {
    let answers = socket.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(address) => Some(address),
        _ => None,
    });
    let is_own = |address: &AddressMessage| {
        address.header.index == index
            && address.header.scope == AddressScope::Universe
            && address.header.flags.contains(AddressHeaderFlags::Permanent)
    };
    Ok(addresses.filter(is_own).collect())
}

/// Moves an interface into another network namespace, under another name.
fn send_away(socket: &Socket, index: u32, name: &str, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    socket.ask(RouteNetlinkMessage::SetLink(link)).map(drop)
}

/// Gives an interface that has just arrived its addresses, and sets it up.
fn arrive(socket: &Socket, name: &str, addresses: &[AddressMessage], up: bool) -> Result<(), Errno> {
    let index = link_of(socket, name)?.header.index;
    for address in addresses {
        let mut own = AddressMessage::default();
        own.header = address.header.clone();
        own.header.index = index;
        own.header.flags = AddressHeaderFlags::empty();
        own.attributes = address.attributes.iter().filter(|attribute| is_part_of_address(attribute)).cloned().collect();
        socket.ask(RouteNetlinkMessage::NewAddress(own))?;
    }
    if up {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        socket.ask(RouteNetlinkMessage::SetLink(link))?;
    }
    Ok(())
}

fn is_part_of_address(attribute: &AddressAttribute) -> bool {
    use AddressAttribute::{Address, Broadcast, Local};
    matches!(attribute, Address(_) | Local(_) | Broadcast(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for name in ["eth0", "a.b-c_d@e", "...", "fünfzehn-bytes", &"x".repeat(15)] {
            assert!(Device::is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a:1", "a b", "a\n", "a\x0b", "a\0", &"x".repeat(16)] {
            assert!(!Device::is_name(name), "{name:?}");
        }
    }
}
