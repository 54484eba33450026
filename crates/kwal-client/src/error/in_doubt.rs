//! What is needed to find out whether a batch is on the log.

use std::{fmt, ops::Range};

use kwal_protocol::wire::Uuid;

/// A batch whose append ended with [`Outcome::Unknown`](super::Outcome::Unknown): what
/// [`PartitionClient::resolve`](crate::PartitionClient::resolve) needs to find out whether it is on the log.
///
/// Plain data: keep it with your own state, and resolve it later, from another process if need be. With the
/// feature `serde` it can be serialized; a topic id is then its text.
///
/// ```
/// use kwal_client::error::InDoubt;
///
/// let in_doubt = InDoubt {
///     topic: "wal".to_owned(),
///     topic_id: None,
///     partition: 3,
///     producer_id: 17,
///     epoch: 0,
///     sequence: 40,
///     record_count: 2,
///     after: Some(99),
///     transactional_id: None,
///     part: None,
/// };
/// let text = "producer id 17, epoch 0, sequence 40, 2 records, after offset 99";
/// assert_eq!(in_doubt.to_string(), format!("wal/3: {text}"));
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct InDoubt {
    /// The topic.
    pub topic: String,
    /// The id of the topic, so that one that was created again under the same name is not taken for it;
    /// `None` if the brokers are too old for topic ids.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::position::id_as_text"))]
    pub topic_id: Option<Uuid>,
    /// The partition.
    pub partition: i32,
    /// The producer id of the batch.
    pub producer_id: i64,
    /// Its producer epoch.
    pub epoch: i16,
    /// The sequence number of its first record.
    pub sequence: i32,
    /// How many records it has.
    pub record_count: usize,
    /// The last offset that was acknowledged to the same partition client before: the batch can only come
    /// after it. `None` if there is none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub after: Option<i64>,
    /// The transactional id of the [exclusive](crate::OpenPartition::exclusive) writer that appended it:
    /// name, topic and partition. `None` if it had no name.
    #[cfg_attr(feature = "serde", serde(default))]
    pub transactional_id: Option<String>,
    /// Which of its records the call was about, by index; `None` for all of them. A batch producer gathers
    /// the records of several callers, and each of them is told the offsets of its own.
    #[cfg_attr(feature = "serde", serde(default))]
    pub part: Option<Range<usize>>,
}

/// Where the batch was to be appended, and what identifies it in a dump of the log.
impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.topic, self.partition, self.batch())
    }
}

impl InDoubt {
    /// Returns what identifies the batch within its partition, as a text.
    pub(crate) fn batch(&self) -> impl fmt::Display {
        OfBatch(self)
    }
}

struct OfBatch<'a>(&'a InDoubt);

impl fmt::Display for OfBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InDoubt { producer_id, epoch, sequence, record_count, after, .. } = self.0;
        let plural = if *record_count == 1 { "" } else { "s" };
        write!(
            f,
            "producer id {producer_id}, epoch {epoch}, sequence {sequence}, {record_count} record{plural}"
        )?;
        match after {
            Some(after) => write!(f, ", after offset {after}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_doubt() -> InDoubt {
        InDoubt {
            topic: "wal".to_owned(),
            topic_id: Some("3WTQz4hjQ2mlVEDAmlYv2w".parse().unwrap()),
            partition: 3,
            producer_id: i64::MAX,
            epoch: 2,
            sequence: 40,
            record_count: 1,
            after: Some(99),
            transactional_id: None,
            part: None,
        }
    }

    #[test]
    fn its_text_is_what_a_dump_of_the_log_has() {
        for (record_count, after, text) in
            [(1, Some(99), "sequence 40, 1 record, after offset 99"), (2, None, "sequence 40, 2 records")]
        {
            let in_doubt = InDoubt { producer_id: 17, record_count, after, ..in_doubt() };
            assert_eq!(in_doubt.to_string(), format!("wal/3: producer id 17, epoch 2, {text}"));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_kept_as_text() {
        let json = serde_json::to_string(&in_doubt()).unwrap();
        let expected = r#"{"topic":"wal","topic_id":"3WTQz4hjQ2mlVEDAmlYv2w","partition":3,"producer_id":9223372036854775807,"epoch":2,"sequence":40,"record_count":1,"after":99,"transactional_id":null,"part":null}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<InDoubt>(&json).unwrap(), in_doubt());
        let exclusive = InDoubt { transactional_id: Some("writer-1/wal/3".to_owned()), ..in_doubt() };
        let json = serde_json::to_string(&exclusive).unwrap();
        assert!(json.contains(r#","transactional_id":"writer-1/wal/3","#), "{json}");
        assert_eq!(serde_json::from_str::<InDoubt>(&json).unwrap(), exclusive);
        let of_one = InDoubt { part: Some(0..1), ..in_doubt() };
        let json = serde_json::to_string(&of_one).unwrap();
        assert!(json.ends_with(r#","part":{"start":0,"end":1}}"#), "{json}");
        assert_eq!(serde_json::from_str::<InDoubt>(&json).unwrap(), of_one);
        // What is not known may be left out.
        let known =
            r#"{"topic":"wal","partition":3,"producer_id":17,"epoch":2,"sequence":40,"record_count":1}"#;
        let expected = InDoubt { topic_id: None, producer_id: 17, after: None, ..in_doubt() };
        assert_eq!(serde_json::from_str::<InDoubt>(known).unwrap(), expected);
        let json = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<InDoubt>(&json).unwrap(), expected);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn what_is_malformed_is_an_error() {
        let json = serde_json::to_string(&in_doubt()).unwrap();
        for (valid, malformed) in [
            ("\"3WTQz4hjQ2mlVEDAmlYv2w\"", "\"3WTQz4hjQ2mlVEDAmlYv2\""),
            ("\"3WTQz4hjQ2mlVEDAmlYv2w\"", "7"),
            ("\"partition\":3", "\"partition\":\"3\""),
            ("\"record_count\":1", "\"record_count\":-1"),
            ("\"epoch\":2", "\"epoch\":40000"),
            ("\"producer_id\":9223372036854775807,", ""),
        ] {
            assert!(json.contains(valid), "{valid}");
            let result = serde_json::from_str::<InDoubt>(&json.replace(valid, malformed));
            assert!(result.is_err(), "{malformed}: {result:?}");
        }
    }
}
