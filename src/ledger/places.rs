//! A sparse directory of the log in memory: where segments begin and where every 64th batch stands. Pure.
//!
//! Deliberately does not know entries, files, or how far the log is durable.
use crate::domain::Seq;

/// One batch in this many is noted; finding an entry reads at most so many headers.
pub const BATCHES_PER_NOTE: u64 = 64;

/// Where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u64,
    /// The offset in the segment, in bytes.
    pub offset: u64,
    /// Its first entry.
    pub first_seq: Seq,
}

struct SegmentPlaces {
    index: u64,
    segment_bytes: u64,
    first: Place,
    batches: u64,
    notes: Vec<Place>,
}

/// The directory. Segments and batches are noted in the order of the log.
#[derive(Default)]
pub struct Places {
    segments: Vec<SegmentPlaces>,
}

impl Places {
    /// A segment of this size that begins with this place.
    pub fn note_segment(&mut self, first: Place, segment_bytes: u64) {
        assert!(self.segments.last().map_or(true, |last| last.index + 1 == first.segment), "segments are noted in order");
        self.segments.push(SegmentPlaces { index: first.segment, segment_bytes, first, batches: 0, notes: Vec::new() });
    }

    /// A batch of the last segment.
    pub fn note_batch(&mut self, place: Place) {
        let last = self.segments.last_mut().expect("a batch stands in a segment");
        assert_eq!(place.segment, last.index, "batches are noted in order");
        if last.batches % BATCHES_PER_NOTE == 0 {
            last.notes.push(place);
        }
        last.batches += 1;
    }

    /// The nearest place at or before the batch that holds the entry, in the right segment; `None` before the first entry.
    pub fn locate(&self, seq: Seq) -> Option<Place> {
        let segment = self.segments[..self.segments.partition_point(|segment| segment.first.first_seq <= seq)].last()?;
        let noted = segment.notes[..segment.notes.partition_point(|note| note.first_seq <= seq)].last();
        Some(noted.copied().unwrap_or(segment.first))
    }

    /// Full size of a segment, in bytes.
    pub fn segment_bytes(&self, index: u64) -> Option<u64> {
        let at = self.segments.binary_search_by_key(&index, |segment| segment.index).ok()?;
        Some(self.segments[at].segment_bytes)
    }

    /// Where the first batch of a segment begins.
    pub fn segment_start(&self, index: u64) -> Option<Place> {
        let at = self.segments.binary_search_by_key(&index, |segment| segment.index).ok()?;
        Some(self.segments[at].first)
    }

    /// First and last entry of a segment that is followed by another one.
    pub fn sealed(&self, index: u64) -> Option<(Seq, Seq)> {
        let at = self.segments.binary_search_by_key(&index, |segment| segment.index).ok()?;
        let next = self.segments.get(at + 1)?;
        Some((self.segments[at].first.first_seq, Seq(next.first.first_seq.0 - 1)))
    }

    /// The first entry that is there.
    pub fn first_seq(&self) -> Option<Seq> {
        Some(self.segments.first()?.first.first_seq)
    }

    /// Numbers of the first segment and of the one that is being written.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((self.segments.first()?.index, self.segments.last()?.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_located_at_or_before_their_batch() {
        let mut places = Places::default();
        let place = |segment, offset, first_seq| Place { segment, offset, first_seq: Seq(first_seq) };
        places.note_segment(place(1, 8192, 1), 1 << 20);
        for batch in 0..200 {
            places.note_batch(place(1, 8192 + batch * 4096, 1 + batch * 10));
        }
        places.note_segment(place(2, 8192, 2001), 1 << 21);
        assert_eq!(places.locate(Seq(0)), None);
        assert_eq!(places.locate(Seq(1)), Some(place(1, 8192, 1)));
        assert_eq!(places.locate(Seq(640)), Some(place(1, 8192, 1)));
        assert_eq!(places.locate(Seq(641)), Some(place(1, 8192 + 64 * 4096, 641)));
        assert_eq!(places.locate(Seq(2000)), Some(place(1, 8192 + 192 * 4096, 1921)));
        assert_eq!(places.locate(Seq(2001)), Some(place(2, 8192, 2001)));
        assert_eq!(places.sealed(1), Some((Seq(1), Seq(2000))));
        assert_eq!(places.sealed(2), None);
        assert_eq!(places.segment_start(2), Some(place(2, 8192, 2001)));
        assert_eq!(places.segment_bytes(2), Some(1 << 21));
        assert_eq!(places.range(), Some((1, 2)));
    }
}
