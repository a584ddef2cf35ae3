//! Decompresses layers: gzip, zstd, or uncompressed. The first bytes decide, as media types are
//! often wrong.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::MediaType;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use crate::error::{Error, ErrorKind, Step};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The start of a skippable zstd frame (RFC 8878), without the low half of its first byte.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// The start of formats that are recognised and not supported: other tools, and old ones, make such
/// layers.
const UNREAD: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
/// The number of bytes of a frame that are decoded at once.
const AT_ONCE: usize = 256 << 10;

/// Returns the media type of a layer that starts with these bytes.
pub(super) fn layer_type(start: &[u8]) -> MediaType {
    if start.starts_with(&GZIP) {
        MediaType::ImageLayerGzip
    } else if start.starts_with(&ZSTD) {
        MediaType::ImageLayerZstd
    } else {
        MediaType::ImageLayer
    }
}

/// Returns a reader of the decompressed bytes.
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
        let detail = format!(
            "the layer is compressed with {name}; only gzip and zstd are supported, as in the image specification"
        );
        let error = Error::message(ErrorKind::Unsupported, Step::UnpackLayer, detail);
        return Err(error.hint("build the image again with gzip or zstd").into());
    }
    Ok(Box::new(reader))
}

/// A reader of the frames of a zstd stream. Frames with a window larger than 128 MiB are refused.
struct Frames<R> {
    reader: R,
    decoder: FrameDecoder,
    within: bool,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}

impl<R: BufRead> Frames<R> {
    /// Starts the next frame. Returns false at the end of the stream.
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
                let (expected, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
                if expected.is_some() && expected != found {
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
