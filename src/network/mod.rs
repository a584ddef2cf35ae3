//! Network interfaces of the host that move into a sandbox, by rtnetlink(7).

mod device;
mod netlink;

pub(crate) use device::{Device, Moved, move_in};
