//! Interfaces of the host that move into the container: `linux.netDevices`.

use oci_spec::runtime::Linux;

use super::namespaces::Kinds;
use super::surroundings::Surroundings;
use crate::namespace::Namespaces;
use crate::network::Device;
use crate::oci::problems::Problems;

const NAMES: &str = "give a name of at most 15 bytes, without white space, `/` and `:`";

/// Returns the interfaces, in the order of their names.
pub(super) fn net_devices(
    linux: Option<&Linux>,
    kinds: Kinds,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Vec<Device> {
    let listed = linux.and_then(|linux| linux.net_devices().as_ref());
    let named = listed.into_iter().flatten().map(|(name, device)| {
        let inside = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(name);
        Device { name: name.clone(), inside: inside.clone() }
    });
    let mut devices: Vec<Device> = named.collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    if devices.is_empty() {
        return devices;
    }
    if !kinds.has(Namespaces::NET) {
        let reason = "unable to move network devices without a NET namespace";
        problems.invalid("linux.netDevices", reason, "add a namespace of the type `network`");
    }
    if !around.is_root {
        problems.refused("linux.netDevices", "interfaces of the host are moved by the host's root");
    }
    for (i, device) in devices.iter().enumerate() {
        for name in [&device.name, &device.inside] {
            if !Device::is_name(name) {
                problems.invalid("linux.netDevices", format!("{name:?} is no name of an interface"), NAMES);
            }
        }
        if devices[..i].iter().any(|other| other.inside == device.inside) {
            let reason = format!("two interfaces would have the name {:?}", device.inside);
            problems.invalid("linux.netDevices", reason, "give each a name of its own");
        }
    }
    devices
}
