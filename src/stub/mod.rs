//! The stub as bytes, and the format of its plans. The source of the stub is in `program/`.

#[allow(missing_docs, reason = "private; documented where a name does not say it")]
pub(crate) mod start;
#[allow(missing_docs, reason = "private; documented where a name does not say it")]
pub(crate) mod wire;

/// The static program that build.rs compiled from `program/`. Empty on docs.rs, which runs nothing.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::start::{GREETING, Record, kind};

    /// A sandbox that was created by an older version is started by a newer one, and the other way
    /// round. What stands here is never to be changed.
    #[test]
    fn the_protocol_of_a_start_is_what_it_always_was() {
        assert_eq!(GREETING, [0x52, 0x46, 0x53, 0x54, 0x41, 0x52, 0x54, 0x31]);
        let places =
            [offset_of!(Record, kind), offset_of!(Record, op), offset_of!(Record, errno), offset_of!(Record, value)];
        assert_eq!((places, size_of::<Record>()), ([0, 4, 8, 12], 16));
        assert_eq!([kind::FAILED, kind::EXEC, kind::LISTENER], [2, 4, 9]);
    }
}
