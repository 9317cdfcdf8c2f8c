//! Undoes a content coding within bounds that hold while it runs: output, memory and the number of parts.
//!
//! A decoder is never given more room than the output that is still allowed and one byte, so a body that would grow past its
//! bound is noticed before it has. It does not know where the body came from, nor what it says.
use super::{Encoding, Fault, Limits};
use flate2::{Decompress, FlushDecompress, Status};
use std::io::Read;
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// The codings of [`Encoding`], for the `Accept-Encoding` of a 415.
pub const ACCEPT_ENCODING: &str = "gzip, deflate, zstd";

/// Most gzip members or zstd frames in one body: each of them costs a fresh decoder, however little it holds.
pub const MEMBERS_MAX: usize = 16;

/// Largest window of a zstd frame, as a power of two: 8 MiB, which RFC 9659 lets every sender assume and no sender exceed.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// By how much the output buffer grows at first; doubling from there on.
const STEP_BYTES_MIN: usize = 4096;

/// Replaces the contents of `out` by the decoded form of `input`.
///
/// # Errors
/// 413 as soon as the output would pass `body_bytes_max` or `decompress_ratio_max` times the input; 400 for a stream that is
/// corrupt, cut short or followed by anything else. None of them closes the connection, and `out` is empty after each.
pub fn decode(encoding: Encoding, input: &[u8], out: &mut Vec<u8>, limits: &Limits) -> Result<(), Fault> {
    out.clear();
    let mut output = Output::new(out, input.len(), limits);
    let result = match encoding {
        Encoding::Identity => output.copy(input),
        Encoding::Gzip => gunzip(input, &mut output),
        Encoding::Deflate => inflate(input, &mut output),
        Encoding::Zstd => unzstd(input, &mut output),
    };
    if result.is_err() {
        out.clear();
    }
    result
}

/// The output and what it may still become.
struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    bytes_max: usize,
    by_ratio: bool,
}

impl<'o> Output<'o> {
    fn new(bytes: &'o mut Vec<u8>, input_bytes: usize, limits: &Limits) -> Self {
        let ratio_bytes_max = limits.decompress_ratio_max.saturating_mul(input_bytes.max(1));
        Self { bytes, bytes_max: limits.body_bytes_max.min(ratio_bytes_max), by_ratio: ratio_bytes_max < limits.body_bytes_max }
    }

    /// Lets `fill` write into fresh room and keeps what it says it wrote. There is always room for one byte more than is
    /// allowed, so that a decoder which has exactly reached the bound can still show whether it has ended.
    fn extend<R>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<(usize, R), Fault>) -> Result<R, Fault> {
        let from = self.bytes.len();
        let room = from.max(STEP_BYTES_MIN).min(self.bytes_max + 1 - from);
        self.bytes.resize(from + room, 0);
        let (written, value) = fill(&mut self.bytes[from..])?;
        self.bytes.truncate(from + written);
        if self.bytes.len() > self.bytes_max {
            return Err(self.too_large());
        }
        Ok(value)
    }

    fn copy(&mut self, input: &[u8]) -> Result<(), Fault> {
        if input.len() > self.bytes_max {
            return Err(self.too_large());
        }
        self.bytes.extend_from_slice(input);
        Ok(())
    }

    fn too_large(&self) -> Fault {
        let bytes_max = self.bytes_max;
        Fault::staying(
            413,
            if self.by_ratio {
                format!("the body decompresses to more than {bytes_max} bytes, the most for its size; send it plain")
            } else {
                format!("the body decompresses to more than {bytes_max} bytes; send less in one request")
            },
        )
    }
}

fn corrupt(message: &'static str) -> Fault {
    Fault::staying(400, message)
}

fn gunzip(input: &[u8], output: &mut Output<'_>) -> Result<(), Fault> {
    let mut rest = input;
    for _ in 0..MEMBERS_MAX {
        let mut member = flate2::bufread::GzDecoder::new(&mut rest);
        loop {
            let read = output.extend(|room| {
                let read = member.read(room).map_err(|_| {
                    corrupt("the gzip body is corrupt, cut short or followed by something else; compress it again")
                })?;
                Ok((read, read))
            })?;
            if read == 0 {
                break;
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
    }
    Err(corrupt("the gzip body has too many members; compress it as one"))
}

fn inflate(input: &[u8], output: &mut Output<'_>) -> Result<(), Fault> {
    // The name means the zlib format, but some clients send the bare one. No bare stream begins with these two bytes unless
    // its encoder left padding bits set.
    let has_zlib_header =
        matches!(input, [cmf, flg, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
    let mut decoder = Decompress::new(has_zlib_header);
    loop {
        let read = decoder.total_in() as usize;
        let (status, progress) = output.extend(|room| {
            let before = decoder.total_out();
            let status = decoder
                .decompress(&input[read..], room, FlushDecompress::None)
                .map_err(|_| corrupt("the deflate body is corrupt; compress it again"))?;
            let written = (decoder.total_out() - before) as usize;
            Ok((written, (status, written > 0)))
        })?;
        let all_read = decoder.total_in() as usize == input.len();
        match status {
            Status::StreamEnd if all_read => return Ok(()),
            Status::StreamEnd => return Err(corrupt("the deflate body is followed by something else; send it alone")),
            Status::Ok | Status::BufError if progress || decoder.total_in() as usize > read => {}
            Status::Ok | Status::BufError => return Err(corrupt("the deflate body is cut short; send all of it")),
        }
    }
}

fn unzstd(input: &[u8], output: &mut Output<'_>) -> Result<(), Fault> {
    let internal = |_| Fault::staying(500, "the decoder for zstd could not be set up");
    let mut decoder = Decoder::new().map_err(internal)?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(internal)?;
    let (mut rest, mut frames) = (input, 0);
    loop {
        let (read, written, frame_ended) = output.extend(|room| {
            let status = decoder.run_on_buffers(rest, room).map_err(|_| {
                corrupt("the zstd body is corrupt, needs a window over 8 MiB or is followed by something else; compress it again")
            })?;
            Ok((status.bytes_written, (status.bytes_read, status.bytes_written, status.remaining == 0)))
        })?;
        rest = &rest[read..];
        if frame_ended {
            frames += 1;
            if rest.is_empty() {
                return Ok(());
            }
            if frames == MEMBERS_MAX {
                return Err(corrupt("the zstd body has too many frames; compress it as one"));
            }
        } else if read == 0 && written == 0 {
            return Err(corrupt("the zstd body is cut short; send all of it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{write, Compression};
    use std::io::Write;

    const CODED: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    fn limits(body_bytes_max: usize, decompress_ratio_max: usize) -> Limits {
        Limits { body_bytes_max, decompress_ratio_max, ..Limits::default() }
    }

    fn encode(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        let level = Compression::default();
        match encoding {
            Encoding::Identity => data.to_vec(),
            Encoding::Gzip => {
                let mut encoder = write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::stream::encode_all(data, 3).unwrap(),
        }
    }

    fn bare_deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn status(encoding: Encoding, input: &[u8], limits: &Limits) -> u16 {
        let mut out = b"left over".to_vec();
        match decode(encoding, input, &mut out, limits) {
            Ok(()) => 200,
            Err(fault) => {
                assert!(!fault.close, "{fault}");
                assert!(out.is_empty(), "{fault}");
                fault.status
            }
        }
    }

    /// Bytes that compress a little, the same each time.
    fn sample(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b"0123456789abcdef"[(state & 15) as usize]
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn round_trips_up_to_exactly_the_bound() {
        for bytes in [0, 1, 300, STEP_BYTES_MIN - 1, STEP_BYTES_MIN, STEP_BYTES_MIN + 1, 100_000] {
            let data = sample(bytes);
            let mut inputs: Vec<_> = CODED.iter().map(|&encoding| (encoding, encode(encoding, &data))).collect();
            inputs.push((Encoding::Deflate, bare_deflate(&data)));
            inputs.push((Encoding::Identity, data.clone()));
            for (encoding, input) in inputs {
                let mut out = b"left over".to_vec();
                decode(encoding, &input, &mut out, &limits(bytes.max(1), 100)).unwrap();
                assert_eq!(out, data, "{encoding:?} of {bytes}");
                if bytes > 1 {
                    assert_eq!(status(encoding, &input, &limits(bytes - 1, 100)), 413, "{encoding:?} of {bytes}");
                }
            }
        }
    }

    #[test]
    fn bombs_stop_at_the_bound() {
        const BOMB_BYTES: usize = 32 << 20;
        let zeros = vec![0u8; BOMB_BYTES];
        let mut bombs: Vec<_> = CODED.iter().map(|&encoding| (encoding, encode(encoding, &zeros))).collect();
        bombs.push((Encoding::Deflate, bare_deflate(&zeros)));
        for (encoding, bomb) in bombs {
            assert!(bomb.len() * 500 < BOMB_BYTES, "{encoding:?} is no bomb");
            for limits in [limits(100_000, usize::MAX), limits(super::super::BODY_BYTES_CAP, 2), limits(1, 1)] {
                let mut out = Vec::new();
                let fault = decode(encoding, &bomb, &mut out, &limits).unwrap_err();
                let bytes_max = limits.body_bytes_max.min(limits.decompress_ratio_max.saturating_mul(bomb.len()));
                assert_eq!(fault.status, 413, "{encoding:?}");
                assert!(fault.message.contains(&bytes_max.to_string()), "{fault}");
                assert!(out.capacity() <= 2 * (bytes_max + 1).max(8), "{encoding:?} took {} bytes", out.capacity());
            }
        }
    }

    #[test]
    fn the_ratio_binds_where_it_is_the_smaller_bound() {
        let data = vec![b'a'; 50_000];
        for encoding in CODED {
            let input = encode(encoding, &data);
            let needed = data.len().div_ceil(input.len());
            assert_eq!(status(encoding, &input, &limits(1 << 20, needed)), 200, "{encoding:?}");
            assert_eq!(status(encoding, &input, &limits(1 << 20, needed - 1)), 413, "{encoding:?}");
        }
    }

    #[test]
    fn streams_cut_anywhere_are_refused() {
        let data = sample(300);
        let mut inputs: Vec<_> = CODED.iter().map(|&encoding| (encoding, encode(encoding, &data))).collect();
        inputs.push((Encoding::Deflate, bare_deflate(&data)));
        for (encoding, input) in inputs {
            for length in 0..input.len() {
                assert_eq!(status(encoding, &input[..length], &limits(1 << 20, 1000)), 400, "{encoding:?} cut to {length}");
            }
        }
    }

    #[test]
    fn streams_with_anything_behind_them_are_refused() {
        for encoding in CODED {
            for tail in [&b"\0"[..], b"garbage that is long enough to look like a header", b"\x1f\x8b"] {
                let input = [encode(encoding, b"{}"), tail.to_vec()].concat();
                assert_eq!(status(encoding, &input, &limits(1 << 20, 1000)), 400, "{encoding:?} {tail:?}");
            }
        }
    }

    #[test]
    fn checksums_are_checked() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let mut input = encode(encoding, &sample(300));
            let at = input.len() - if encoding == Encoding::Gzip { 5 } else { 1 };
            input[at] ^= 1;
            assert_eq!(status(encoding, &input, &limits(1 << 20, 1000)), 400, "{encoding:?}");
        }
    }

    #[test]
    fn members_and_frames_are_joined_up_to_their_number() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let one = encode(encoding, b"ab");
            let mut out = Vec::new();
            decode(encoding, &one.repeat(MEMBERS_MAX), &mut out, &limits(1 << 20, 1000)).unwrap();
            assert_eq!(out, b"ab".repeat(MEMBERS_MAX));
            assert_eq!(status(encoding, &one.repeat(MEMBERS_MAX + 1), &limits(1 << 20, 1000)), 400, "{encoding:?}");
        }
        let twice = encode(Encoding::Deflate, b"ab").repeat(2);
        assert_eq!(status(Encoding::Deflate, &twice, &limits(1 << 20, 1000)), 400, "zlib has no members");
    }

    #[test]
    fn zstd_windows_are_bounded() {
        for (window_log, expected) in [(10, 200), (ZSTD_WINDOW_LOG_MAX, 200), (ZSTD_WINDOW_LOG_MAX + 1, 400)] {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(window_log)).unwrap();
            encoder.write_all(&sample(300)).unwrap();
            let input = encoder.finish().unwrap();
            assert_eq!(status(Encoding::Zstd, &input, &limits(1 << 20, 1000)), expected, "window of 2^{window_log}");
        }
    }
}
