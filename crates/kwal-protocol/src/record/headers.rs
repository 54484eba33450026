//! The headers of a record: an ordered list with possible duplicate keys and null values (KIP-82).

use std::{borrow::Cow, collections::BTreeMap, slice, vec};

use bytes::{Bytes, BytesMut};

/// The headers of a record, in order, with duplicates and null values.
///
/// ```
/// use kwal_protocol::record::Headers;
///
/// let mut headers: Headers = [("trace", "4711"), ("retry", "1")].into();
/// headers.push("retry", "2");
/// headers.push("empty", "");
/// headers.push("null", None::<&str>);
///
/// assert_eq!(headers.len(), 5);
/// assert_eq!(headers.get("retry").unwrap().value.as_deref(), Some(&b"2"[..]));
/// assert_eq!(headers.get("null").unwrap().value, None);
/// assert!(headers.get("other").is_none());
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// Creates an empty list without allocating.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Creates an empty list with capacity for `capacity` headers.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Appends a header.
    pub fn push(&mut self, key: impl IntoHeaderBytes, value: impl IntoHeaderValue) {
        self.0.push(Header::new(key, value));
    }

    /// Returns the last header with this key, like Kafka's `lastHeader`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Header> {
        self.0.iter().rev().find(|header| header.key == key.as_ref())
    }

    /// Returns an iterator over all headers, in order.
    pub fn iter(&self) -> slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all headers.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<K: IntoHeaderBytes, V: IntoHeaderValue> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(Header::from).collect())
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl<K: IntoHeaderBytes, V: IntoHeaderValue, const N: usize> From<[(K, V); N]> for Headers {
    fn from(headers: [(K, V); N]) -> Self {
        headers.into_iter().collect()
    }
}

impl<K: IntoHeaderBytes, V: IntoHeaderValue> From<Vec<(K, V)>> for Headers {
    fn from(headers: Vec<(K, V)>) -> Self {
        headers.into_iter().collect()
    }
}

/// In the order of the keys.
impl<K: IntoHeaderBytes, V: IntoHeaderValue> From<BTreeMap<K, V>> for Headers {
    fn from(headers: BTreeMap<K, V>) -> Self {
        headers.into_iter().collect()
    }
}

impl From<Vec<Header>> for Headers {
    fn from(headers: Vec<Header>) -> Self {
        Self(headers)
    }
}

impl<K: IntoHeaderBytes, V: IntoHeaderValue> Extend<(K, V)> for Headers {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, headers: I) {
        self.0.extend(headers.into_iter().map(Header::from));
    }
}

impl IntoIterator for Headers {
    type Item = Header;
    type IntoIter = vec::IntoIter<Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One header of a record.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Header {
    key: Bytes,
    /// The value: null, empty or any bytes.
    pub value: Option<Bytes>,
}

impl Header {
    /// Creates a header; `None::<&str>` is the null value.
    pub fn new(key: impl IntoHeaderBytes, value: impl IntoHeaderValue) -> Self {
        Self { key: key.into_header_bytes(), value: value.into_header_value() }
    }

    /// Returns the key. It should be UTF-8; invalid bytes become U+FFFD, as in Kafka.
    pub fn key(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }

    /// Returns the bytes of the key.
    pub fn key_bytes(&self) -> &Bytes {
        &self.key
    }
}

impl<K: IntoHeaderBytes, V: IntoHeaderValue> From<(K, V)> for Header {
    fn from((key, value): (K, V)) -> Self {
        Self::new(key, value)
    }
}

/// One header of a record, borrowed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HeaderView<'a> {
    /// The bytes of the key.
    pub key: &'a [u8],
    /// The value: null, empty or any bytes.
    pub value: Option<&'a [u8]>,
}

impl<'a> HeaderView<'a> {
    /// Returns the key. It should be UTF-8; invalid bytes become U+FFFD, as in Kafka.
    pub fn key_str(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

impl<'a> From<&'a Header> for HeaderView<'a> {
    fn from(header: &'a Header) -> Self {
        Self { key: &header.key, value: header.value.as_deref() }
    }
}

impl<'a> From<(&'a [u8], Option<&'a [u8]>)> for HeaderView<'a> {
    fn from((key, value): (&'a [u8], Option<&'a [u8]>)) -> Self {
        Self { key, value }
    }
}

impl<'a> From<(&'a str, &'a str)> for HeaderView<'a> {
    fn from((key, value): (&'a str, &'a str)) -> Self {
        Self { key: key.as_bytes(), value: Some(value.as_bytes()) }
    }
}

/// Types that can be the key of a header, or a value that is not null.
///
/// [`Bytes`] are kept; everything else is copied at most once.
pub trait IntoHeaderBytes {
    /// Converts to bytes.
    fn into_header_bytes(self) -> Bytes;
}

/// Types that can be the value of a header: those that convert to bytes, or an `Option` of them.
pub trait IntoHeaderValue {
    /// Converts to bytes, or to null.
    fn into_header_value(self) -> Option<Bytes>;
}

impl<T: IntoHeaderBytes> IntoHeaderValue for T {
    fn into_header_value(self) -> Option<Bytes> {
        Some(self.into_header_bytes())
    }
}

impl<T: IntoHeaderBytes> IntoHeaderValue for Option<T> {
    fn into_header_value(self) -> Option<Bytes> {
        self.map(T::into_header_bytes)
    }
}

macro_rules! into_header_bytes {
    ($($type:ty, $value:ident => $bytes:expr;)+) => {$(
        impl IntoHeaderBytes for $type {
            fn into_header_bytes(self) -> Bytes {
                let $value = self;
                $bytes
            }
        }
    )+};
}

into_header_bytes! {
    Bytes, value => value;
    BytesMut, value => value.freeze();
    Vec<u8>, value => value.into();
    String, value => value.into();
    &Bytes, value => value.clone();
    &[u8], value => Bytes::copy_from_slice(value);
    &Vec<u8>, value => Bytes::copy_from_slice(value);
    &str, value => Bytes::copy_from_slice(value.as_bytes());
    &String, value => Bytes::copy_from_slice(value.as_bytes());
    Cow<'_, str>, value => value.into_owned().into();
}

impl<const N: usize> IntoHeaderBytes for [u8; N] {
    fn into_header_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

impl<const N: usize> IntoHeaderBytes for &[u8; N] {
    fn into_header_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_constructors_work() {
        let expected = Headers(vec![Header {
            key: Bytes::from_static(b"foo"),
            value: Some(Bytes::from_static(b"bar")),
        }]);
        assert_eq!(expected, [("foo", "bar")].into());
        assert_eq!(expected, [("foo".to_owned(), b"bar")].into());
        assert_eq!(expected, [("foo", b"bar".to_vec())].into());
        assert_eq!(expected, [("foo", Some(Bytes::from_static(b"bar")))].into());
        assert_eq!(expected, vec![(b"foo", &b"bar"[..])].into());
        assert_eq!(expected, BTreeMap::from([("foo".to_owned(), b"bar".to_vec())]).into());
        assert_eq!(expected, [("foo", "bar")].into_iter().collect());
        assert_eq!(expected, [Header::new("foo", "bar")].into_iter().collect());

        let nulls: Headers = [("a", Some("1")), ("a", None)].into();
        assert_eq!(nulls.get("a").unwrap().value, None);
        assert_eq!(nulls.iter().next().unwrap().value.as_deref(), Some(&b"1"[..]));
        assert_ne!(nulls, Headers::from([("a", Some("1")), ("a", Some(""))]));
    }

    #[test]
    fn bytes_are_kept() {
        let value = Bytes::from(vec![1; 100]);
        let headers: Headers = [("a", &value)].into();
        assert_eq!(headers.get("a").unwrap().value.as_ref().unwrap().as_ptr(), value.as_ptr());
    }

    #[test]
    fn a_key_that_is_not_utf8_reads_as_with_kafka() {
        let header = Header::new([0xff, 0xfe, b'k'], "");
        assert_eq!(header.key(), "\u{fffd}\u{fffd}k");
        assert_eq!(header.key_bytes(), &[0xff, 0xfe, b'k'][..]);
        assert_eq!(HeaderView::from(&header).key_str(), header.key());
    }
}
