//! D-Bus messages: the header, its fields, and the values after it. The wire format comes from the
//! zbus crate. That crate is built without its connections, so that no threads and no runtime of it
//! stay in the caller's process.

use nix::errno::Errno;
use zbus::wire::export::serde::{Deserialize, Serialize};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, LE, ObjectPath, Type, Variant, to_bytes};

/// The length of the fixed start of a message, up to and including the length of the header fields.
pub(super) const FIXED: usize = 16;
/// A bound far above the size of systemd's messages. The bound of the protocol is 128 MiB.
const LONGEST: usize = 1 << 20;
const VERSION: u8 = 1;

/// The types of messages.
pub(super) mod kind {
    pub(in super::super) const CALL: u8 = 1;
    pub(in super::super) const RETURN: u8 = 2;
    pub(in super::super) const ERROR: u8 = 3;
    pub(in super::super) const SIGNAL: u8 = 4;
}

/// The codes of the header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SENDER: u8 = 7;
    pub(super) const SIGNATURE: u8 = 8;
}

type Header<'v> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'v>)>);

/// The header of a message. A missing field is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) serial: u32,
    pub(super) reply_to: u32,
    pub(super) destination: String,
    pub(super) sender: String,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
}

/// A received message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    signature: String,
    body: Data<'static, 'static>,
}

impl Message {
    /// Returns the values after the header, if they have this type.
    pub(super) fn body<'m, T: Deserialize<'m> + Type>(&'m self) -> Result<T, Errno> {
        if T::SIGNATURE.to_string_no_parens() != self.signature {
            return Err(Errno::EBADMSG);
        }
        self.body.deserialize().map(|(value, _)| value).map_err(|_| Errno::EBADMSG)
    }
}

/// Encodes a message.
pub(super) fn encode<T: Serialize + Type>(head: &Head, body: Option<&T>) -> Result<Vec<u8>, Errno> {
    let invalid = |_: zbus::Error| Errno::EINVAL;
    let bytes = body.map(|body| to_bytes(Context::new(LE, 0), body)).transpose().map_err(invalid)?;
    let bytes = bytes.as_deref().unwrap_or_default();
    let mut fields: Vec<(u8, Variant<'_>)> = Vec::new();
    if !head.path.is_empty() {
        fields.push((field::PATH, ObjectPath::try_from(head.path.as_str()).map_err(|_| Errno::EINVAL)?.into()));
    }
    let texts = [
        (field::INTERFACE, &head.interface),
        (field::MEMBER, &head.member),
        (field::ERROR_NAME, &head.error),
        (field::DESTINATION, &head.destination),
        (field::SENDER, &head.sender),
    ];
    fields.extend(texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(code, text)| (code, text.into())));
    if head.reply_to != 0 {
        fields.push((field::REPLY_SERIAL, head.reply_to.into()));
    }
    let header: Header<'_> = (b'l', head.kind, 0, VERSION, bytes.len() as u32, head.serial, fields);
    let mut message = to_bytes(Context::new(LE, 0), &header).map_err(invalid)?.to_vec();
    if body.is_some() {
        add_signature(&mut message, &T::SIGNATURE.to_string_no_parens());
    }
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(bytes);
    Ok(message)
}

/// Appends the last header field. The zbus crate would write the signature of several values as the
/// signature of one structure.
fn add_signature(header: &mut Vec<u8>, signature: &str) {
    header.resize(header.len().next_multiple_of(8), 0);
    header.extend([field::SIGNATURE, 1, b'g', 0, signature.len() as u8]);
    header.extend_from_slice(signature.as_bytes());
    header.push(0);
    let len = (header.len() - FIXED) as u32;
    header[FIXED - 4..FIXED].copy_from_slice(&len.to_le_bytes());
}

fn endian(first: u8) -> Result<Endian, Errno> {
    match first {
        b'l' => Ok(Endian::Little),
        b'B' => Ok(Endian::Big),
        _ => Err(Errno::EBADMSG),
    }
}

/// Returns the lengths of the header and of the whole message that begins with `start`.
fn lengths(start: &[u8; FIXED]) -> Result<(usize, usize), Errno> {
    let endian = endian(start[0])?;
    let word = |at: usize| endian.read_u32(&start[at..at + 4]) as usize;
    let header = FIXED + word(12).min(LONGEST);
    let whole = header.next_multiple_of(8) + word(4).min(LONGEST);
    if whole > LONGEST { Err(Errno::EMSGSIZE) } else { Ok((header, whole)) }
}

/// Returns the number of bytes that follow the start of a message.
pub(super) fn remaining(start: &[u8; FIXED]) -> Result<usize, Errno> {
    lengths(start).map(|(_, whole)| whole - FIXED)
}

/// Decodes a whole message.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, Errno> {
    let start = bytes.first_chunk().ok_or(Errno::EBADMSG)?;
    let (header_len, whole) = lengths(start)?;
    if bytes.len() != whole {
        return Err(Errno::EBADMSG);
    }
    let context = Context::new(endian(start[0])?, 0);
    let data = Data::new(&bytes[..header_len], context);
    let (header, _): (Header<'_>, usize) = data.deserialize().map_err(|_| Errno::EBADMSG)?;
    let (_, kind, _, version, _, serial, fields) = header;
    if version != VERSION {
        return Err(Errno::EBADMSG);
    }
    let mut head = Head { kind, serial, ..Head::default() };
    let mut signature = String::new();
    for (code, value) in fields {
        let place = match code {
            field::PATH => &mut head.path,
            field::INTERFACE => &mut head.interface,
            field::MEMBER => &mut head.member,
            field::ERROR_NAME => &mut head.error,
            field::DESTINATION => &mut head.destination,
            field::SENDER => &mut head.sender,
            field::SIGNATURE => &mut signature,
            field::REPLY_SERIAL => {
                head.reply_to = u32::try_from(value).map_err(|_| Errno::EBADMSG)?;
                continue;
            }
            _ => continue,
        };
        *place = match value {
            Variant::Str(text) => text.to_string(),
            Variant::ObjectPath(path) => path.to_string(),
            Variant::Signature(signature) => signature.to_string_no_parens(),
            _ => return Err(Errno::EBADMSG),
        };
    }
    let body = Data::new(bytes[header_len.next_multiple_of(8)..].to_vec(), context);
    Ok(Message { head, signature, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let head = Head { kind: kind::CALL, serial: 7, path: "/a".into(), member: "M".into(), ..Head::default() };
        let bytes = encode(&head, Some(&("x", 5u32))).unwrap();
        let mut want = b"l\x01\x00\x01".to_vec();
        want.extend([12, 0, 0, 0, 7, 0, 0, 0]);
        // The header fields: their total length, then each one aligned to 8.
        want.extend([40, 0, 0, 0]);
        want.extend(b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00");
        want.extend(b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00");
        want.extend(b"\x08\x01g\x00\x02su\x00");
        want.extend(b"\x01\x00\x00\x00x\x00\x00\x00\x05\x00\x00\x00");
        assert_eq!(bytes, want);
        let again = decode(&bytes).unwrap();
        assert_eq!(again.head, head);
        assert_eq!(again.body::<(String, u32)>(), Ok(("x".to_owned(), 5)));
        assert_eq!(again.body::<(String,)>(), Err(Errno::EBADMSG));
    }

    #[test]
    fn nonsense_is_refused() {
        let head = Head { kind: kind::SIGNAL, serial: 1, ..Head::default() };
        let good = encode::<()>(&head, None).unwrap();
        assert!(decode(&good).is_ok());
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = decode(&bytes);
            }
            assert!(decode(&good[..at]).is_err());
        }
        let mut huge = *good.first_chunk::<FIXED>().unwrap();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(remaining(&huge), Err(Errno::EMSGSIZE));
        assert_eq!(remaining(b"x\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0"), Err(Errno::EBADMSG));
    }
}
