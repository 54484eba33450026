//! The headers of fragments: what they say, and how they are written and read.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use kwal_client::record::AnyRecord;
use kwal_protocol::record::{HeaderView, Headers};

/// Identifies an entry: its writer, and the number that the writer gave it.
///
/// ```
/// use kwal_batching::entry::EntryId;
///
/// let text = "00112233445566778899aabbccddeeff-7";
/// let id: EntryId = text.parse()?;
/// assert_eq!((id.writer[1], id.number), (0x11, 7));
/// assert_eq!(id.to_string(), text);
/// # Ok::<(), kwal_batching::entry::InvalidEntryId>(())
/// ```
///
/// With the feature `serde` it is serialized as its text.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// What distinguishes the [`Writer`](super::Writer) from every other one: random bytes.
    pub writer: [u8; 16],
    /// How many entries of more than one fragment the writer had begun before.
    pub number: u64,
}

/// The writer as 32 hexadecimal digits in lower case, a hyphen, and the number in decimal.
impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.writer.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{}", self.number)
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text.as_bytes()).ok_or(InvalidEntryId)
    }
}

impl EntryId {
    fn read(text: &[u8]) -> Option<Self> {
        let (writer, rest) = text.split_first_chunk::<32>()?;
        let number = decimal(rest.strip_prefix(b"-")?)?;
        let mut id = Self { writer: [0; 16], number };
        for (byte, digits) in id.writer.iter_mut().zip(writer.chunks_exact(2)) {
            *byte = hexadecimal(digits)? as u8;
        }
        Some(id)
    }
}

/// A text that is not an [`EntryId`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidEntryId;

impl fmt::Display for InvalidEntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not the id of an entry: expected 32 hexadecimal digits in lower case, a hyphen and a number",
        )
    }
}

impl std::error::Error for InvalidEntryId {}

/// What the headers of a fragment say. The [module](super#format) has the format.
///
/// A reader that does not put entries together recognises fragments by it, as it recognises
/// [barriers](kwal_client::record::Barrier):
///
/// ```
/// use kwal_batching::entry::Fragment;
/// use kwal_client::record::AnyRecord;
///
/// fn is_whole(record: &impl AnyRecord) -> bool {
///     Fragment::parse(record).is_none()
/// }
/// # use kwal_protocol::record::{Headers, OwnedRecord};
/// # let headers = Headers::from([("trace", "1")]);
/// # let record = OwnedRecord {
/// #     offset: 0, timestamp_ms: 0, leader_epoch: 0, key: None, value: None, headers,
/// # };
/// # assert!(is_whole(&record));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Fragment {
    /// The entry that it belongs to.
    pub entry: EntryId,
    /// Its index among the fragments of the entry, from 0 on.
    pub index: u32,
    /// How many fragments the entry has, at least 2.
    pub count: u32,
    /// The length of the value of the entry, in bytes.
    pub length: u64,
    /// The CRC-32C of the value of the entry.
    pub crc32c: u32,
}

impl Fragment {
    /// The header with the [id](EntryId) of the entry. No record but a fragment has it.
    pub const ENTRY: &str = "kwal.entry";
    /// The header with index and number of fragments: decimal numbers with a slash between them.
    pub const FRAGMENT: &str = "kwal.fragment";
    /// The header with the length of the value of the entry: a decimal number.
    pub const LENGTH: &str = "kwal.length";
    /// The header with the CRC-32C of the value of the entry: 8 hexadecimal digits in lower case.
    pub const CRC32C: &str = "kwal.crc32c";
    /// The header with the key of the entry, or null. Only the first fragment has it.
    pub const KEY: &str = "kwal.key";

    /// The most bytes that the first four headers take, the number of headers aside.
    pub(super) const MAX_LEN: usize = {
        let names = Self::ENTRY.len() + Self::FRAGMENT.len() + Self::LENGTH.len() + Self::CRC32C.len();
        let values = (32 + 1 + 20) + (10 + 1 + 10) + 20 + 8;
        names + values + 4 * crate::size::HEADER
    };

    /// Returns what the headers of a fragment say; `None` for every other record.
    ///
    /// # Errors
    /// The record has the header [`ENTRY`](Self::ENTRY), and is not a fragment: it differs in something from
    /// the [format](super#format).
    pub fn parse(record: &impl AnyRecord) -> Option<Result<Self, MalformedFragment>> {
        let (key, value, mut headers) = record.parts();
        let count = headers.len();
        if count == 0 {
            return None;
        }
        let first = headers.next()?;
        if first.key != Self::ENTRY.as_bytes() {
            // Somebody may have put a header of their own in front of ours.
            let misplaced = headers.any(|header| header.key == Self::ENTRY.as_bytes());
            return misplaced.then_some(Err(MalformedFragment("kwal.entry is not its first header")));
        }
        Some(Self::read(first, headers, (count, key.is_some(), value.is_some())).map_err(MalformedFragment))
    }

    fn read<'a>(
        first: HeaderView<'a>,
        mut headers: impl Iterator<Item = HeaderView<'a>>,
        (count, has_key, has_value): (usize, bool, bool),
    ) -> Result<Self, &'static str> {
        let id = "kwal.entry is not the id of an entry";
        let entry = EntryId::read(first.value.ok_or(id)?).ok_or(id)?;
        let mut next = |name: &str| headers.next().filter(|header| header.key == name.as_bytes());
        let mut value = |name: &str| next(name).and_then(|header| header.value);
        let place = value(Self::FRAGMENT).ok_or("kwal.fragment is not its second header")?;
        let (index, of) = place_of(place).ok_or("kwal.fragment is not an index and a number of fragments")?;
        let length = value(Self::LENGTH).ok_or("kwal.length is not its third header")?;
        let length = decimal(length).ok_or("kwal.length is not a length")?;
        let crc32c = value(Self::CRC32C).filter(|digits| digits.len() == 8);
        let crc32c = crc32c.and_then(hexadecimal).ok_or("kwal.crc32c is not a checksum")?;
        match index {
            0 if next(Self::KEY).is_none() => return Err("it is the first one, and has no kwal.key"),
            1.. if count != 4 => return Err("it has further headers, and is not the first one"),
            _ => {}
        }
        match (has_key, has_value) {
            (true, _) => Err("it has a key"),
            (_, false) => Err("it has no value"),
            _ => Ok(Self { entry, index, count: of, length, crc32c }),
        }
    }

    /// Whether it is the last one of its entry.
    pub(super) fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }
}

/// A record that has the header `kwal.entry` and is not a fragment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MalformedFragment(&'static str);

impl fmt::Display for MalformedFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a malformed fragment: {}", self.0)
    }
}

impl std::error::Error for MalformedFragment {}

/// Writes the headers of the fragments of one entry.
#[derive(Debug)]
pub(super) struct HeaderWriter {
    id: Bytes,
    count: u32,
    length: Bytes,
    crc32c: Bytes,
}

impl HeaderWriter {
    pub(super) fn new(entry: EntryId, count: u32, length: usize, crc32c: u32) -> Self {
        Self {
            id: entry.to_string().into(),
            count,
            length: length.to_string().into(),
            crc32c: format!("{crc32c:08x}").into(),
        }
    }

    /// Returns the headers of the first fragment: also key and headers of the entry.
    pub(super) fn first(&self, key: Option<Bytes>, own: Headers) -> Headers {
        let mut headers = self.headers(0, 5 + own.len());
        headers.push(Fragment::KEY, key);
        headers.extend(own.into_iter().map(|header| (header.key_bytes().clone(), header.value)));
        headers
    }

    /// Returns the headers of another fragment.
    pub(super) fn further(&self, index: u32) -> Headers {
        self.headers(index, 4)
    }

    fn headers(&self, index: u32, capacity: usize) -> Headers {
        let mut headers = Headers::with_capacity(capacity);
        headers.push(Bytes::from_static(Fragment::ENTRY.as_bytes()), self.id.clone());
        headers.push(Bytes::from_static(Fragment::FRAGMENT.as_bytes()), format!("{index}/{}", self.count));
        headers.push(Bytes::from_static(Fragment::LENGTH.as_bytes()), self.length.clone());
        headers.push(Bytes::from_static(Fragment::CRC32C.as_bytes()), self.crc32c.clone());
        headers
    }
}

/// Reads `index/count`.
fn place_of(text: &[u8]) -> Option<(u32, u32)> {
    let slash = text.iter().position(|byte| *byte == b'/')?;
    let number = |text| decimal(text).and_then(|number| u32::try_from(number).ok());
    let (index, count) = (number(&text[..slash])?, number(&text[slash + 1..])?);
    (count >= 2 && index < count).then_some((index, count))
}

/// Reads a number that has neither sign nor leading zeros.
fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let has_one_form = text == "0" || !text.starts_with(['0', '+', '-']);
    text.parse().ok().filter(|_| has_one_form)
}

/// Reads up to eight digits in lower case.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u32::from(digit))
    })
}

#[cfg(feature = "serde")]
mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::EntryId;

    impl Serialize for EntryId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for EntryId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::record::OwnedRecord;
    use proptest::prelude::*;

    use super::*;

    fn record(headers: Headers) -> OwnedRecord {
        let value = Some(Bytes::from_static(b"v"));
        OwnedRecord { offset: 7, timestamp_ms: 0, leader_epoch: 0, key: None, value, headers }
    }

    fn id() -> EntryId {
        EntryId { writer: std::array::from_fn(|at| at as u8 * 17), number: 7 }
    }

    #[test]
    fn headers_are_text() {
        let writer = HeaderWriter::new(id(), 42, 41_943_040, 0xbeef);
        let text = |headers: &Headers| {
            let text = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap();
            let one = |header: &kwal_protocol::record::Header| {
                (header.key().into_owned(), header.value.as_ref().map(text))
            };
            headers.iter().map(one).collect::<Vec<_>>()
        };
        let pair = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let common = |place| {
            let id = "00112233445566778899aabbccddeeff-7";
            let id = pair("kwal.entry", id);
            vec![
                id,
                pair("kwal.fragment", place),
                pair("kwal.length", "41943040"),
                pair("kwal.crc32c", "0000beef"),
            ]
        };
        assert_eq!(text(&writer.further(41)), common("41/42"));
        let first = writer.first(Some("k".into()), [("a", "b")].into());
        assert_eq!(text(&first), [common("0/42"), vec![pair("kwal.key", "k"), pair("a", "b")]].concat());
        let without_key = writer.first(None, Headers::new());
        assert_eq!(text(&without_key)[4], ("kwal.key".to_owned(), None));
        let largest = EntryId { number: u64::MAX, ..id() };
        let largest = HeaderWriter::new(largest, u32::MAX, usize::MAX, u32::MAX).further(u32::MAX - 1);
        let len =
            largest.iter().map(|header| header.key_bytes().len() + header.value.as_ref().unwrap().len());
        assert_eq!(len.sum::<usize>() + 4 * crate::size::HEADER, Fragment::MAX_LEN);
    }

    #[test]
    fn what_differs_from_the_format_is_malformed() {
        let valid = || HeaderWriter::new(id(), 3, 5, 9).further(1);
        let change = |at: usize, value: &str| {
            let change = |(index, header): (usize, kwal_protocol::record::Header)| {
                (
                    header.key_bytes().clone(),
                    Some(if index == at {
                        Bytes::copy_from_slice(value.as_bytes())
                    } else {
                        header.value.unwrap()
                    }),
                )
            };
            record(valid().into_iter().enumerate().map(change).collect())
        };
        let parsed = Fragment::parse(&record(valid())).unwrap().unwrap();
        assert_eq!(parsed, Fragment { entry: id(), index: 1, count: 3, length: 5, crc32c: 9 });
        assert!(!parsed.is_last());
        for (at, value) in [
            (0, ""),
            (0, "00112233445566778899aabbccddeeff"),
            (0, "00112233445566778899aabbccddeeff-"),
            (0, "00112233445566778899aabbccddeeff-07"),
            (0, "00112233445566778899aabbccddeeff-18446744073709551616"),
            (0, "00112233445566778899AABBCCDDEEFF-7"),
            (1, "1"),
            (1, "3/3"),
            (1, "0/1"),
            (1, "1/0"),
            (1, "+1/3"),
            (1, "1/4294967296"),
            (1, "0/3"),
            (2, "-5"),
            (2, "05"),
            (2, "18446744073709551616"),
            (3, "9"),
            (3, "0000000G"),
            (3, "000000009"),
        ] {
            let parsed = Fragment::parse(&change(at, value));
            assert!(matches!(parsed, Some(Err(_))), "{at} {value:?}: {parsed:?}");
        }
        let mut further = valid();
        further.push("more", "1");
        let misplaced: Headers = [("more", "1"), ("kwal.entry", "1")].into();
        let order: Headers =
            valid().into_iter().rev().map(|header| (header.key_bytes().clone(), header.value)).collect();
        let cut: Headers =
            valid().into_iter().take(2).map(|header| (header.key_bytes().clone(), header.value)).collect();
        let keyed = OwnedRecord { key: Some(Bytes::new()), ..record(valid()) };
        let null = OwnedRecord { value: None, ..record(valid()) };
        let all = [record(further), record(misplaced), record(order), record(cut), keyed, null];
        let reasons = all.map(|record| Fragment::parse(&record).unwrap().unwrap_err().to_string());
        let expected = [
            "it has further headers, and is not the first one",
            "kwal.entry is not its first header",
            "kwal.entry is not its first header",
            "kwal.length is not its third header",
            "it has a key",
            "it has no value",
        ];
        assert_eq!(reasons, expected.map(|reason| format!("a malformed fragment: {reason}")));
        assert_eq!(Fragment::parse(&record([("kwal.fragment", "0/2")].into())), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            writer in any::<[u8; 16]>(), number in any::<u64>(), count in 2_u32.., index in any::<u32>(),
            length in any::<usize>(), crc32c in any::<u32>(),
        ) {
            let (entry, index) = (EntryId { writer, number }, index % count);
            prop_assert_eq!(entry.to_string().parse(), Ok(entry));
            let headers = HeaderWriter::new(entry, count, length, crc32c);
            let headers = if index == 0 { headers.first(None, Headers::new()) } else { headers.further(index) };
            let parsed = Fragment::parse(&record(headers)).unwrap();
            prop_assert_eq!(parsed, Ok(Fragment { entry, index, count, length: length as u64, crc32c }));
        }

        #[test]
        fn no_headers_panic(
            values in prop::collection::vec(prop::option::of("[-/0-9a-f]{0,60}"), 4..6),
            names in prop::collection::vec(0..6_usize, 6),
        ) {
            let all = [Fragment::ENTRY, Fragment::FRAGMENT, Fragment::LENGTH, Fragment::CRC32C, Fragment::KEY, "x"];
            let ordered = values.iter().enumerate().map(|(at, value)| (all[at], value.clone()));
            let _ = Fragment::parse(&record(ordered.collect()));
            let mixed = values.iter().zip(&names).map(|(value, name)| (all[*name], value.clone()));
            let _ = Fragment::parse(&record(mixed.collect()));
        }
    }
}
