//! Where a reader of entries resumes.

use std::{fmt, str::FromStr};

use kwal_client::Position;

use super::header::EntryId;

/// Where a [`Reader`](super::Reader) resumes: plain data that is kept with the state that was made of what
/// was read.
///
/// Reading begins again at [`from`](Self::from), the first record of the oldest unfinished entry, and what
/// was returned before is skipped: each entry is returned once, and each incomplete one reported once.
///
/// ```
/// use kwal_batching::entry::Checkpoint;
///
/// let text = "3WTQz4hjQ2mlVEDAmlYv2w:7:1200:1250:00112233445566778899aabbccddeeff-7";
/// let checkpoint: Checkpoint = text.parse()?;
/// assert_eq!((checkpoint.from.offset, checkpoint.until, checkpoint.given_up.len()), (1200, 1250, 1));
/// assert_eq!(checkpoint.to_string(), text);
/// # Ok::<(), kwal_batching::entry::InvalidCheckpoint>(())
/// ```
///
/// With the feature `serde` it can be serialized; ids are then their text.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct Checkpoint {
    /// Where reading begins again. It is verified, as every [`Position`].
    pub from: Position,
    /// What ends before this offset was returned.
    pub until: i64,
    /// The entries that were reported as incomplete, and of which fragments may come after `from`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub given_up: Vec<EntryId>,
}

impl From<Position> for Checkpoint {
    /// Everything before a position was returned, and nothing is unfinished there.
    fn from(position: Position) -> Self {
        Self { from: position, until: position.offset, given_up: Vec::new() }
    }
}

/// The position, the offset, and the entries that were given up, between colons.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, given_up } = self;
        write!(f, "{from}:{until}")?;
        given_up.iter().try_for_each(|entry| write!(f, ":{entry}"))
    }
}

impl FromStr for Checkpoint {
    type Err = InvalidCheckpoint;

    fn from_str(text: &str) -> Result<Self, InvalidCheckpoint> {
        let (colon, _) = text.match_indices(':').nth(2).ok_or(InvalidCheckpoint)?;
        let from = text[..colon].parse().map_err(|_| InvalidCheckpoint)?;
        let mut rest = text[colon + 1..].split(':');
        let until = rest.next().filter(|until| until.starts_with(|first: char| first.is_ascii_digit()));
        let until = until.and_then(|until| until.parse().ok()).ok_or(InvalidCheckpoint)?;
        let given_up = rest.map(|id| id.parse().map_err(|_| InvalidCheckpoint)).collect::<Result<_, _>>()?;
        Ok(Self { from, until, given_up })
    }
}

/// A text that is not a [`Checkpoint`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidCheckpoint;

impl fmt::Display for InvalidCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a checkpoint: expected a position, an offset and ids of entries between colons, as -:-:17:19",
        )
    }
}

impl std::error::Error for InvalidCheckpoint {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_texts_are_errors() {
        for text in [
            "",
            "-:-:17",
            "-:-:17:",
            "-:-:17:-1",
            "-:-:17:+1",
            "-:-:17:19:",
            "-:-:17:19:x",
            "x:-:17:19",
            "1:19",
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(InvalidCheckpoint), "{text:?}");
        }
        assert_eq!("-:-:17:19".parse(), Ok(Checkpoint { until: 19, ..Position::from(17).into() }));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_kept_as_text() {
        let text = "-:7:1200:1250:00112233445566778899aabbccddeeff-7";
        let checkpoint: Checkpoint = text.parse().unwrap();
        let json = serde_json::to_string(&checkpoint).unwrap();
        let expected = r#"{"from":{"topic_id":null,"leader_epoch":7,"offset":1200},"until":1250,"given_up":["00112233445566778899aabbccddeeff-7"]}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Checkpoint>(&json).unwrap(), checkpoint);
        let short = serde_json::from_str::<Checkpoint>(r#"{"from":{"offset":3},"until":3}"#).unwrap();
        assert_eq!(short, Position::from(3).into());
        assert!(
            serde_json::from_str::<Checkpoint>(r#"{"from":{"offset":3},"until":3,"given_up":["x"]}"#)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn its_text_is_read_back(
            epoch in prop::option::of(0..=i32::MAX), offset in 0..=i64::MAX, until in 0..=i64::MAX,
            ids in prop::collection::vec((any::<[u8; 16]>(), any::<u64>()), 0..4),
        ) {
            let from = Position { topic_id: None, leader_epoch: epoch, offset };
            let given_up = ids.into_iter().map(|(writer, number)| EntryId { writer, number }).collect();
            let checkpoint = Checkpoint { from, until, given_up };
            prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }

        #[test]
        fn no_text_panics(text in "[-0-9a-f:é]{0,60}") {
            let _ = text.parse::<Checkpoint>();
        }
    }
}
