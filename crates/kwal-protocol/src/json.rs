//! Messages as JSON, in the names and form of Kafka's own JSON converters (feature `serde`).
//!
//! The fields of a message depend on its version, so it is serialized with one: [`AtVersion`]. Fields that
//! the version does not carry are omitted, and tagged fields if they have their default. Deserializing needs
//! no version: absent fields get their default, and names that are not in the schema are rejected.
//!
//! `bytes` and `records` are padded base64, ids are in Kafka's text form (see [`Uuid`]), and 64-bit integers
//! are numbers.
//!
//! ```
//! use kwal_protocol::{json::AtVersion, messages::ListOffsetsRequest};
//!
//! let request: ListOffsetsRequest = serde_json::from_str(r#"{"replicaId": -1, "isolationLevel": 1}"#)?;
//! assert_eq!(request.replica_id, -1);
//! let version = ListOffsetsRequest::version(1)?;
//! let json = serde_json::to_string(&AtVersion { value: &request, version })?;
//! assert_eq!(json, r#"{"replicaId":-1,"topics":[]}"#);
//! # use kwal_protocol::api::Body;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::wire::{Spliced, Uuid, Version};

/// A value and the version in which it is serialized.
#[derive(Clone, Copy, Debug)]
pub struct AtVersion<'a, T> {
    /// The message, or a part of one.
    pub value: &'a T,
    /// The version, which determines the fields.
    pub version: Version,
}

impl<T: Json> Serialize for AtVersion<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.write_json(serializer, self.version)
    }
}

/// A type of the schemas as JSON. Implemented by messages and their parts.
pub trait Json: Sized {
    /// Serializes the value in a version.
    ///
    /// # Errors
    /// Those of the serializer.
    fn write_json<S: Serializer>(&self, serializer: S, version: Version) -> Result<S::Ok, S::Error>;

    /// Deserializes a value.
    ///
    /// # Errors
    /// Those of the deserializer, and text that is neither base64 nor an id.
    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// For `deserialize_with`.
pub(crate) fn field<'de, D: Deserializer<'de>, T: Json>(deserializer: D) -> Result<T, D::Error> {
    T::read_json(deserializer)
}

macro_rules! plain {
    ($($ty:ty),*) => { $(
        impl Json for $ty {
            fn write_json<S: Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
                Serialize::serialize(self, serializer)
            }

            fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Deserialize::deserialize(deserializer)
            }
        }
    )* };
}
plain!(bool, i8, i16, i32, i64, u16, String);

impl Json for Bytes {
    fn write_json<S: Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self))
    }

    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self::from).map_err(D::Error::custom)
    }
}

impl Json for Spliced {
    fn write_json<S: Serializer>(&self, serializer: S, version: Version) -> Result<S::Ok, S::Error> {
        self.clone().into_bytes().write_json(serializer, version)
    }

    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::read_json(deserializer).map(Self::from)
    }
}

impl Json for Uuid {
    fn write_json<S: Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<T: Json> Json for Vec<T> {
    fn write_json<S: Serializer>(&self, serializer: S, version: Version) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|value| AtVersion { value, version }))
    }

    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = Vec::<Element<T>>::deserialize(deserializer)?;
        Ok(elements.into_iter().map(|Element(value)| value).collect())
    }
}

impl<T: Json> Json for Option<T> {
    fn write_json<S: Serializer>(&self, serializer: S, version: Version) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write_json(serializer, version),
            None => serializer.serialize_none(),
        }
    }

    fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Element<T>>::deserialize(deserializer)?.map(|Element(value)| value))
    }
}

/// Applies the rules of [`Json`] inside serde's own containers.
struct Element<T>(T);

impl<'de, T: Json> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read_json(deserializer).map(Self)
    }
}
