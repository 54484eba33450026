//! Where reading goes on: a place on the log that can be verified.

use std::{fmt, str::FromStr};

use kwal_protocol::wire::Uuid;

/// Where reading goes on: plain data that is kept with the caller's own state, and verified when it is used
/// again, days later, by another process.
///
/// [`PartitionClient::fetch`](crate::PartitionClient::fetch) from a position fails with
/// [`LogTruncated`](crate::error::ErrorKind::LogTruncated) if records before it were lost since, as in an
/// unclean election; with [`TopicRecreated`](crate::error::ErrorKind::TopicRecreated) if the topic was
/// deleted and created again; with [`Trimmed`](crate::error::ErrorKind::Trimmed) and
/// [`BeyondEnd`](crate::error::ErrorKind::BeyondEnd) if the log does not have the offset. What a position
/// does not know is not verified: one from a bare offset, `Position::from(17)`, reads what is there now.
///
/// Positions are had from what was read: [`Fetched::position`](crate::Fetched::position) after all of it,
/// [`FetchedBatch::position`](crate::FetchedBatch::position) after a batch,
/// [`PartitionClient::position_after`](crate::PartitionClient::position_after) after a record.
///
/// ```
/// use kwal_client::Position;
///
/// let text = "3WTQz4hjQ2mlVEDAmlYv2w:7:1200";
/// let position: Position = text.parse()?;
/// assert_eq!((position.leader_epoch, position.offset), (Some(7), 1200));
/// assert_eq!(position.to_string(), text);
/// assert_eq!(Position::from(17).to_string(), "-:-:17");
/// # Ok::<(), kwal_client::InvalidPosition>(())
/// ```
///
/// With the feature `serde` it can be serialized; a topic id is then its text.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct Position {
    /// The id of the topic (KIP-516), so that one that was created again under the same name is not taken
    /// for it; `None` if it is not known.
    #[cfg_attr(feature = "serde", serde(default, with = "id_as_text"))]
    pub topic_id: Option<Uuid>,
    /// The leader epoch of the last record before the offset (KIP-320); `None` if it is not known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub leader_epoch: Option<i32>,
    /// The offset of the next record.
    pub offset: i64,
}

impl Position {
    /// Returns the epoch on the wire; −1 if it is not known.
    pub(crate) fn epoch(self) -> i32 {
        self.leader_epoch.unwrap_or(-1)
    }
}

impl From<i64> for Position {
    /// A bare offset: what is there now is read, whatever was there before.
    fn from(offset: i64) -> Self {
        Self { topic_id: None, leader_epoch: None, offset }
    }
}

/// Topic id, leader epoch and offset, between colons; `-` stands for what is not known.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.topic_id {
            Some(id) => write!(f, "{id}:")?,
            None => f.write_str("-:")?,
        }
        match self.leader_epoch {
            Some(epoch) => write!(f, "{epoch}:")?,
            None => f.write_str("-:")?,
        }
        self.offset.fmt(f)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (id, rest) = text.split_once(':').ok_or(InvalidPosition)?;
        let (epoch, offset) = rest.split_once(':').ok_or(InvalidPosition)?;
        let topic_id = match id {
            "-" => None,
            id => Some(id.parse().map_err(|_| InvalidPosition)?),
        };
        let leader_epoch = match epoch {
            "-" => None,
            epoch => Some(number(epoch)?),
        };
        Ok(Self { topic_id, leader_epoch, offset: number(offset)? })
    }
}

/// Reads a number without a sign.
fn number<T: FromStr>(text: &str) -> Result<T, InvalidPosition> {
    let has_digits = text.starts_with(|first: char| first.is_ascii_digit());
    text.parse().ok().filter(|_| has_digits).ok_or(InvalidPosition)
}

/// A text that is not a [`Position`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "not a position: expected topic id, leader epoch and offset between colons, as 3WTQz4hjQ2mlVEDAmlYv2w:7:1200 or -:-:17"
)]
pub struct InvalidPosition;

/// A topic id as its text, in any format.
#[cfg(feature = "serde")]
pub(crate) mod id_as_text {
    use kwal_protocol::wire::Uuid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(id: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
        id.map(|id| id.to_string()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_texts_are_errors() {
        for text in [
            "",
            "17",
            "7:17",
            "-:-:",
            "-:-:-",
            "-:-:-1",
            "-:-:+1",
            "-:-1:17",
            "-:2147483648:17",
            "-:-:9223372036854775808",
            "3WTQz4hjQ2mlVEDAmlYv2:7:17",
            "-:-:17:",
            " -:-:17",
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_kept_as_text() {
        let position: Position = "3WTQz4hjQ2mlVEDAmlYv2w:7:1200".parse().unwrap();
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(json, r#"{"topic_id":"3WTQz4hjQ2mlVEDAmlYv2w","leader_epoch":7,"offset":1200}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        // What is not known may be left out.
        assert_eq!(serde_json::from_str::<Position>(r#"{"offset":17}"#).unwrap(), Position::from(17));
        for malformed in [r#"{"topic_id":"x","offset":17}"#, r#"{"offset":"17"}"#, "{}"] {
            assert!(serde_json::from_str::<Position>(malformed).is_err(), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn its_text_is_read_back(
            id in any::<Option<[u8; 16]>>(),
            leader_epoch in prop::option::of(0..=i32::MAX),
            offset in 0..=i64::MAX,
        ) {
            let position = Position { topic_id: id.map(Uuid), leader_epoch, offset };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn no_text_panics(text in "[-0-9A-Za-z_:+]{0,40}") {
            let _ = text.parse::<Position>();
        }
    }
}
