//! Records as the interop tests compare them, and samples of the kinds that some client has mishandled
//! before.

use serde::{Deserialize, Serialize};

/// A record, independent of the types of any client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The offset; not sent when producing.
    #[serde(default, skip_serializing)]
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    #[serde(with = "hex")]
    pub key: Option<Vec<u8>>,
    /// The value.
    #[serde(with = "hex")]
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<MessageHeader>,
}

/// A header of a [`Message`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageHeader {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(with = "hex")]
    pub value: Option<Vec<u8>>,
}

impl Message {
    /// Creates a record without headers.
    pub fn new(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            offset: 0,
            timestamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: &str, value: Option<&[u8]>) -> Self {
        self.headers.push(MessageHeader { key: key.to_owned(), value: value.map(<[u8]>::to_vec) });
        self
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) if bytes.len() > 40 => format!("{} bytes {:02x?}…", bytes.len(), &bytes[..16]),
            Some(bytes) => format!("{bytes:02x?}"),
            None => "null".to_owned(),
        };
        write!(f, "#{} at {} {} = {}", self.offset, self.timestamp, short(&self.key), short(&self.value))?;
        for header in &self.headers {
            write!(f, ", {}: {}", header.key, short(&header.value))?;
        }
        Ok(())
    }
}

/// Returns a record of each kind, with offsets from 0.
///
/// Keys and values are null, empty, binary and large; headers are repeated, null, empty and not ASCII;
/// timestamps go backwards once. Every client can send them: no header key is empty, which librdkafka
/// rejects.
pub fn samples() -> Vec<Message> {
    let now = 1_750_000_000_000;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = pseudo_random(300_000, 7);
    let messages = [
        Message::new(now, None, None),
        Message::new(now + 1, None, Some(b"value")),
        Message::new(now + 2, Some(b"key"), None),
        Message::new(now + 3, Some(b""), Some(b"")),
        Message::new(now - 86_400_000, Some(&every_byte), Some(&every_byte)),
        Message::new(now + 4, Some(b"large value"), Some(&large)),
        Message::new(now + 5, Some(&large[..70_000]), Some(b"large key")),
        Message::new(now + 6, Some(b"headers"), Some(b"v"))
            .header("twice", Some(b"1"))
            .header("other", Some(b"2"))
            .header("twice", Some(b"3"))
            .header("twice", Some(b"1")),
        Message::new(now + 7, None, Some(b"v"))
            .header("null", None)
            .header("empty", Some(b""))
            .header("binary", Some(&every_byte))
            .header("größe \u{1f980}", Some("müll".as_bytes())),
        Message::new(now + 8, Some(b"last"), Some(&[0; 2_000])),
    ];
    messages.into_iter().zip(0..).map(|(message, offset)| Message { offset, ..message }).collect()
}

/// Returns `len` incompressible bytes, determined by the seed.
pub fn pseudo_random(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        match bytes {
            None => serializer.serialize_none(),
            Some(bytes) => {
                let digits =
                    |byte: &u8| [byte >> 4, byte & 15].map(|nibble| char::from(DIGITS[usize::from(nibble)]));
                serializer.serialize_str(&bytes.iter().flat_map(digits).collect::<String>())
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(D::Error::custom)?;
            u8::from_str_radix(pair, 16).map_err(D::Error::custom)
        });
        pairs.collect::<Result<_, _>>().map(Some)
    }
}
