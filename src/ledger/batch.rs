//! A whole batch as bytes: put together from lane batches, taken apart again into entries. Pure.
//!
//! Invariant: entries pass through untouched; committing copies and hashes bytes, it never looks into an entry. Reading trusts
//! nothing: lengths, counts and every entry are checked, although the body hash has been checked before.
use super::layout::{
    array_at, extent_bytes, is_zero, u32_at, u64_at, BatchHeader, Fault, BATCH_HEAD_BYTES, SECTION_HEAD_BYTES, ZERO_BLOCK,
};
use crate::domain::{Entry, LaneBatch, LogId, Root, Seq};

/// Where and after what a batch stands.
#[derive(Clone, Debug)]
pub struct Position {
    /// The log.
    pub log_id: LogId,
    /// The segment.
    pub segment: u64,
    /// The offset in the segment, in bytes.
    pub offset: u64,
    /// The entry with which the batch begins.
    pub first_seq: Seq,
    /// Chain hash before it.
    pub prev: Root,
    /// The epoch of the writer; of a batch that is read, the least that it may have.
    pub epoch: u64,
}

/// Length of the body that these batches make, in bytes. Neighbours of the same lane share a section.
pub fn body_bytes(parts: &[LaneBatch]) -> usize {
    let mut bytes = 0;
    let mut lane = None;
    for part in parts {
        bytes += part.bytes.len() + if lane == Some(part.lane) { 0 } else { SECTION_HEAD_BYTES };
        lane = Some(part.lane);
    }
    bytes
}

/// Writes the batch made of `parts` into `buffer`, ready for the disk: header, body, zeros up to a whole block. Returns the chain hash.
///
/// # Panics
/// If there is nothing to write, or neighbours of one lane do not follow each other: the caller's mistake.
pub fn assemble(parts: &[LaneBatch], position: &Position, buffer: &mut Vec<u8>) -> Root {
    assert!(!parts.is_empty(), "a batch has at least one entry");
    let body_bytes = body_bytes(parts);
    buffer.clear();
    buffer.reserve(extent_bytes(body_bytes) as usize);
    buffer.extend_from_slice(&ZERO_BLOCK[..BATCH_HEAD_BYTES]);
    let (mut sections, mut entries) = (0, 0u32);
    for group in parts.chunk_by(|left, right| left.lane == right.lane) {
        let first = &group[0];
        let mut count = 0u32;
        for part in group {
            assert!(part.count > 0 && !part.bytes.is_empty(), "a lane batch has at least one entry");
            assert_eq!(part.lane_first, first.lane_first + u64::from(count), "batches of a lane follow each other");
            count += part.count;
        }
        let bytes: usize = group.iter().map(|part| part.bytes.len()).sum();
        buffer.extend_from_slice(&first.lane.to_le_bytes());
        buffer.extend_from_slice(&[0; 2]);
        buffer.extend_from_slice(&count.to_le_bytes());
        buffer.extend_from_slice(&first.lane_first.to_le_bytes());
        buffer.extend_from_slice(&u32::try_from(bytes).expect("bounded by the largest body").to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        group.iter().for_each(|part| buffer.extend_from_slice(&part.bytes));
        sections += 1;
        entries += count;
    }
    assert_eq!(buffer.len(), BATCH_HEAD_BYTES + body_bytes);
    let header = BatchHeader {
        sections,
        epoch: position.epoch,
        first_seq: position.first_seq,
        entries,
        body_bytes: u32::try_from(body_bytes).expect("bounded by the largest body"),
        segment: position.segment,
        offset: position.offset,
        durable_through: Seq(position.first_seq.0 - 1),
        log_id: position.log_id,
        prev: position.prev,
        body_hash: *blake3::hash(&buffer[BATCH_HEAD_BYTES..]).as_bytes(),
    };
    let (head, root) = header.encode();
    buffer[..BATCH_HEAD_BYTES].copy_from_slice(&head);
    buffer.resize(extent_bytes(body_bytes) as usize, 0);
    root
}

/// Whether an intact header is the one that belongs here: right log and place. Says nothing about order.
pub fn check_place(header: &BatchHeader, log_id: LogId, segment: u64, offset: u64, segment_bytes: u64) -> Result<(), Fault> {
    let misfit = |what: String| Err(Fault::Misfit(what));
    if header.log_id != log_id {
        return misfit("an intact batch of another ledger stands here".into());
    }
    if (header.segment, header.offset) != (segment, offset) {
        return misfit(format!("the batch was written for segment {} byte {}", header.segment, header.offset));
    }
    if header.body_bytes == 0 || header.entries == 0 || offset.saturating_add(header.extent_bytes()) > segment_bytes {
        return misfit("the header states a length that no writer produces".into());
    }
    Ok(())
}

/// Whether the header continues the log at this position.
pub fn check_order(header: &BatchHeader, position: &Position) -> Result<(), Fault> {
    let misfit = |what: String| Err(Fault::Misfit(what));
    if header.first_seq != position.first_seq {
        return misfit(format!("the batch begins with entry {}", header.first_seq.0));
    }
    if header.prev != position.prev {
        return misfit("the batch continues another chain: its previous hash is not that of the batch before it".into());
    }
    if header.epoch < position.epoch {
        return misfit(format!("the batch has epoch {}, the one before it {}", header.epoch, position.epoch));
    }
    if header.durable_through.0 >= header.first_seq.0 {
        return misfit("the header calls its own entries durable".into());
    }
    Ok(())
}

/// Checks body and padding, the bytes that follow the header up to the end of its extent.
pub fn check_body<'a>(header: &BatchHeader, rest: &'a [u8]) -> Result<&'a [u8], Fault> {
    let (body, padding) = rest.split_at(header.body_bytes as usize);
    if *blake3::hash(body).as_bytes() != header.body_hash {
        return Err(Fault::BodyHash);
    }
    if !is_zero(padding) {
        return Err(Fault::Misfit("the padding after the body is not zero".into()));
    }
    Ok(body)
}

/// The entries of one lane within a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The lane.
    pub lane: u16,
    /// Number of the first entry within the lane and epoch.
    pub lane_first: u64,
    /// How many entries.
    pub count: u32,
    /// The entries, one after the other.
    pub bytes: &'a [u8],
}

/// Splits a body into its sections.
pub fn sections<'a>(header: &BatchHeader, body: &'a [u8]) -> Result<Vec<Section<'a>>, Fault> {
    let misfit = |what: &str| Fault::Misfit(what.into());
    let mut rest = body;
    let mut sections = Vec::new();
    let mut entries = 0u64;
    while !rest.is_empty() {
        if rest.len() < SECTION_HEAD_BYTES {
            return Err(misfit("a section header is cut short"));
        }
        let (head, after) = rest.split_at(SECTION_HEAD_BYTES);
        let (count, bytes) = (u32_at(head, 4), u32_at(head, 16) as usize);
        if !is_zero(&head[2..4]) || !is_zero(&head[20..24]) || count == 0 || bytes == 0 || bytes > after.len() {
            return Err(misfit("a section header states what no writer produces"));
        }
        let (section, after) = after.split_at(bytes);
        let lane = u16::from_le_bytes(array_at(head, 0));
        sections.push(Section { lane, lane_first: u64_at(head, 8), count, bytes: section });
        entries += u64::from(count);
        rest = after;
    }
    if sections.len() != header.sections as usize || entries != u64::from(header.entries) {
        return Err(misfit("sections and entries are not as many as the header says"));
    }
    Ok(sections)
}

/// Parses every entry of a body and hands it over with its position.
pub fn for_each_entry<'a, E: From<Fault>>(
    header: &BatchHeader,
    body: &'a [u8],
    mut each: impl FnMut(Seq, Entry<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut seq = header.first_seq;
    for section in sections(header, body)? {
        let mut rest = section.bytes;
        for _ in 0..section.count {
            let (entry, after) =
                Entry::parse(rest).map_err(|fault| Fault::Misfit(format!("entry {} cannot be read: {fault}", seq.0)))?;
            each(seq, entry)?;
            seq = Seq(seq.0 + 1);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(Fault::Misfit("a section has more bytes than entries".into()).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sample;

    fn position() -> Position {
        Position { log_id: LogId([5; 16]), segment: 1, offset: 8192, first_seq: Seq(10), prev: [6; 32], epoch: 2 }
    }

    #[test]
    fn what_is_put_together_comes_apart_unchanged() {
        let parts = [
            sample::lane_batch(0, 1, 3),
            sample::lane_batch(0, 4, 2),
            sample::lane_batch(7, 100, 1),
            sample::lane_batch(2, 1, 9),
        ];
        let mut buffer = vec![0xAA; 3];
        let root = assemble(&parts, &position(), &mut buffer);
        assert_eq!(buffer.len() % 4096, 0);
        let (header, decoded_root) = BatchHeader::decode(&buffer).unwrap();
        assert_eq!((decoded_root, header.entries, header.sections, header.durable_through), (root, 15, 3, Seq(9)));
        check_place(&header, LogId([5; 16]), 1, 8192, 1 << 20).unwrap();
        check_order(&header, &position()).unwrap();
        let body = check_body(&header, &buffer[BATCH_HEAD_BYTES..]).unwrap();
        let joined: Vec<u8> = [&parts[0].bytes[..], &parts[1].bytes[..]].concat();
        let split = sections(&header, body).unwrap();
        assert_eq!(split[0], Section { lane: 0, lane_first: 1, count: 5, bytes: &joined });
        assert_eq!((split[1].lane, split[1].lane_first, split[1].bytes), (7, 100, &parts[2].bytes[..]));
        let mut seen = Vec::new();
        for_each_entry::<Fault>(&header, body, |seq, entry| {
            seen.push((seq, entry.bytes().to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.len(), 15);
        assert_eq!((seen[0].0, seen[14].0), (Seq(10), Seq(24)));
        let bytes: Vec<u8> = seen.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(bytes, parts.iter().flat_map(|part| part.bytes.clone()).collect::<Vec<u8>>());
    }

    #[test]
    fn every_flipped_bit_of_an_extent_is_noticed() {
        let mut buffer = Vec::new();
        assemble(&[sample::lane_batch(3, 1, 2)], &position(), &mut buffer);
        for bit in 0..buffer.len() * 8 {
            buffer[bit / 8] ^= 1 << (bit % 8);
            let intact =
                BatchHeader::decode(&buffer).and_then(|(header, _)| check_body(&header, &buffer[BATCH_HEAD_BYTES..]).map(|_| ()));
            assert!(intact.is_err(), "bit {bit}");
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_batch_in_the_wrong_place_or_order_is_refused() {
        let mut buffer = Vec::new();
        assemble(&[sample::lane_batch(3, 1, 2)], &position(), &mut buffer);
        let (header, _) = BatchHeader::decode(&buffer).unwrap();
        assert!(check_place(&header, LogId([4; 16]), 1, 8192, 1 << 20).is_err());
        assert!(check_place(&header, LogId([5; 16]), 2, 8192, 1 << 20).is_err());
        assert!(check_place(&header, LogId([5; 16]), 1, 4096, 1 << 20).is_err());
        assert!(check_place(&header, LogId([5; 16]), 1, 8192, 8192).is_err());
        assert!(check_order(&header, &Position { first_seq: Seq(9), ..position() }).is_err());
        assert!(check_order(&header, &Position { prev: [0; 32], ..position() }).is_err());
        assert!(check_order(&header, &Position { epoch: 3, ..position() }).is_err());
        assert!(check_order(&header, &Position { epoch: 1, ..position() }).is_ok());
    }

    #[test]
    fn sections_that_do_not_add_up_are_refused() {
        let mut buffer = Vec::new();
        assemble(&[sample::lane_batch(3, 1, 2), sample::lane_batch(4, 1, 2)], &position(), &mut buffer);
        let (header, _) = BatchHeader::decode(&buffer).unwrap();
        let body = check_body(&header, &buffer[BATCH_HEAD_BYTES..]).unwrap();
        assert!(sections(&BatchHeader { sections: 1, ..header.clone() }, body).is_err());
        assert!(sections(&BatchHeader { entries: 5, ..header.clone() }, body).is_err());
        assert!(sections(&header, &body[..body.len() - 1]).is_err());
        for (at, value) in [(2, 1u8), (4, 0), (16, 0xFF), (20, 1)] {
            let mut bad = body.to_vec();
            bad[at] = value;
            assert!(sections(&header, &bad).is_err(), "byte {at}");
        }
    }
}
