//! Layers as they are compressed: gzip, zstd, or not at all; told by their first bytes, as media types are often wrong.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::MediaType;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use crate::error::{Error, ErrorKind, Step};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What a skippable frame of zstd begins with, but for the low half of the first byte.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// What layers of other tools, and of old ones, may be compressed with.
const UNREAD: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
/// How much of a frame is decoded at once.
const AT_ONCE: usize = 256 << 10;

/// What a layer that begins like this is.
pub(super) fn layer_type(start: &[u8]) -> MediaType {
    if start.starts_with(&GZIP) {
        MediaType::ImageLayerGzip
    } else if start.starts_with(&ZSTD) {
        MediaType::ImageLayerZstd
    } else {
        MediaType::ImageLayer
    }
}

/// The bytes without their compression.
pub(super) fn decoder<'r>(mut reader: impl BufRead + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
    let start = reader.fill_buf()?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    let skippable = start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start.get(1..4) == Some(&ZSTD_SKIPPABLE);
    if start.starts_with(&ZSTD) || skippable {
        return Ok(Box::new(Frames { reader, decoder: FrameDecoder::new(), within: false }));
    }
    if let Some((_, name)) = UNREAD.iter().find(|(magic, _)| start.starts_with(magic)) {
        let detail =
            format!("it is compressed with {name}; gzip and zstd are read, as the image specification has them");
        let error = Error::message(ErrorKind::Unsupported, Step::UnpackLayer, detail);
        return Err(error.hint("have the image made anew with gzip or zstd").into());
    }
    Ok(Box::new(reader))
}

/// The frames of a zstd stream, one after another. A window beyond 128 MiB is refused.
struct Frames<R> {
    reader: R,
    decoder: FrameDecoder,
    within: bool,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.reader.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.reader).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBytes;
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.within && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.reader, UptoBytes(AT_ONCE)).map_err(broken)?;
                continue;
            }
            if self.within {
                let (told, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
                if told.is_some() && told != found {
                    return Err(broken("a frame's checksum is wrong"));
                }
            }
            self.within = self.begin()?;
            if !self.within {
                return Ok(0);
            }
        }
    }
}
