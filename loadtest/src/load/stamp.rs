//! The mark at the beginning of every payload: which publication it is, and when it was meant to be sent.
//!
//! It is plain text of fixed length, so that it is found in a frame of any encoding without decoding it.

use memchr::memmem;

/// Who sent a publication, which one it is, and when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Of which run: what others publish, or an earlier run did, is none of this one's business.
    pub run: u32,
    /// One publisher's sequence in one channel.
    pub stream: u32,
    /// Its place in the stream, from 0.
    pub sequence: u64,
    /// The time that it was meant to be sent at: [`crate::load::clock::now`], nanoseconds.
    pub due: u64,
}

const MARK: &[u8] = b"sg!";

impl Stamp {
    /// Bytes of a stamp.
    pub const LENGTH: usize = 3 + 8 + 1 + 8 + 1 + 12 + 1 + 16 + 1;

    /// Appends the stamp and fills up to `size` bytes.
    pub fn write(self, size: usize, out: &mut String) {
        use std::fmt::Write as _;
        let start = out.len();
        // Writing to a String cannot fail.
        let _ =
            write!(out, "sg!{:08x}.{:08x}.{:012x}.{:016x}.", self.run, self.stream, self.sequence, self.due);
        let missing = size.saturating_sub(out.len() - start);
        out.extend(std::iter::repeat_n('x', missing));
    }

    /// Tells every stamp in `frame`, in order.
    pub fn find(frame: &[u8], mut tell: impl FnMut(Self)) {
        let mut rest = frame;
        while let Some(at) = memmem::find(rest, MARK) {
            rest = &rest[at..];
            match rest.get(..Self::LENGTH).and_then(Self::parse) {
                Some(stamp) => {
                    tell(stamp);
                    rest = &rest[Self::LENGTH..];
                }
                None => rest = &rest[MARK.len()..],
            }
        }
    }

    /// Reads a stamp that is `text` itself.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let number = |from: usize, to: usize| {
            u64::from_str_radix(std::str::from_utf8(text.get(from..to)?).ok()?, 16).ok()
        };
        let (run, stream) = (u32::try_from(number(3, 11)?).ok()?, u32::try_from(number(12, 20)?).ok()?);
        let whole = text.starts_with(MARK) && [11, 20, 33, 50].iter().all(|&at| text.get(at) == Some(&b'.'));
        whole.then_some(Self { run, stream, sequence: number(21, 33)?, due: number(34, 50)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_wherever_they_stand() {
        let stamps = [
            Stamp { run: 5, stream: 7, sequence: 9, due: 1_234_567_890_123 },
            Stamp { run: u32::MAX, stream: u32::MAX, sequence: 1, due: u64::MAX },
        ];
        let mut text = "sg!nothing {\"text\":\"".to_owned();
        for stamp in stamps {
            let start = text.len();
            stamp.write(100, &mut text);
            assert_eq!(text.len() - start, 100);
            text.push_str("\"},{");
        }
        let mut found = Vec::new();
        Stamp::find(text.as_bytes(), |stamp| found.push(stamp));
        assert_eq!(found, stamps);
    }

    #[test]
    fn a_stamp_has_its_length_and_no_less() {
        let mut text = String::new();
        Stamp { run: 0, stream: 1, sequence: 2, due: 3 }.write(0, &mut text);
        assert_eq!(text.len(), Stamp::LENGTH);
        assert_eq!(Stamp::parse(&text.as_bytes()[..Stamp::LENGTH - 1]), None);
    }
}
