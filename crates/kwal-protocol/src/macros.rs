//! One definition per message, in the notation of Kafka's schemas, from which everything else is derived.
//!
//! ```text
//! message! {
//!     pub struct FetchRequest {
//!         /// The broker asking, −1 for a consumer.
//!         0-14 replica_id: i32 = -1,                                        versions 0 to 14, default −1
//!         4+   isolation_level: IsolationLevel [ignorable],                 from version 4 on
//!         12+  cluster_id: Option<String> [nullable 12+, tag 0, ignorable] = None,
//!     }
//! }
//! ```
//! A line consists of versions, name, type, flags and default. Untagged fields are listed in wire order,
//! tagged ones by ascending tag. A field that a version does not carry gets its default when it is read. When
//! it is written it must have its default, unless it is `ignorable`.

use crate::{
    error::{DecodeError, DecodeErrorKind, EncodeError},
    reader::Reader,
    wire::{Version, Wire},
    writer::Writer,
};

/// The versions and flags of a line of [`message!`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    since: i16,
    until: i16,
    nullable_since: i16,
    nullable_until: i16,
    tag: Option<u32>,
    ignorable: bool,
    classic: bool,
}

impl Field {
    pub(crate) const fn new(name: &'static str, since: i16, until: i16) -> Self {
        Self {
            name,
            since,
            until,
            nullable_since: i16::MAX,
            nullable_until: i16::MIN,
            tag: None,
            ignorable: false,
            classic: false,
        }
    }

    pub(crate) const fn nullable(mut self, since: i16, until: i16) -> Self {
        self.nullable_since = since;
        self.nullable_until = until;
        self
    }

    pub(crate) const fn tag(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self
    }

    pub(crate) const fn ignorable(mut self) -> Self {
        self.ignorable = true;
        self
    }

    pub(crate) const fn classic(mut self) -> Self {
        self.classic = true;
        self
    }

    /// Whether the version carries the field, tagged or not.
    #[inline]
    pub(crate) const fn is_in(&self, version: Version) -> bool {
        self.since <= version.number && version.number <= self.until
    }

    /// Whether the field is on the wire: always if untagged, unless it has its default if tagged.
    #[inline]
    pub(crate) fn is_sent<T: PartialEq>(
        &self,
        value: &T,
        version: Version,
        default: impl FnOnce() -> T,
    ) -> bool {
        self.is_in(version) && (self.tag.is_none() || *value != default())
    }

    #[inline]
    pub(crate) const fn is_tagged(&self) -> bool {
        self.tag.is_some()
    }

    pub(crate) fn has_tag(&self, tag: u32, version: Version) -> bool {
        self.tag == Some(tag) && self.is_in(version)
    }

    const fn encoding(&self, version: Version) -> Version {
        Version { number: version.number, flexible: version.flexible && !self.classic }
    }

    const fn may_be_null(&self, version: Version) -> bool {
        self.nullable_since <= version.number && version.number <= self.nullable_until
    }

    /// Writes an untagged field, or checks that no value is lost where the version does not carry it.
    #[inline]
    pub(crate) fn write<T: Wire + PartialEq>(
        &self,
        value: &T,
        writer: &mut Writer,
        version: Version,
        default: impl FnOnce() -> T,
    ) {
        if self.is_in(version) {
            if self.tag.is_none() {
                self.write_value(value, writer, version);
            }
        } else if !self.ignorable && *value != default() {
            writer.refuse(EncodeError::NotInVersion { field: self.name, version: version.number });
        }
    }

    /// Writes a field of the tagged section.
    pub(crate) fn write_tagged<T: Wire>(&self, value: &T, writer: &mut Writer, version: Version) {
        if let Some(tag) = self.tag {
            writer.put_tagged(tag, |writer| self.write_value(value, writer, version));
        }
    }

    #[inline]
    fn write_value<T: Wire>(&self, value: &T, writer: &mut Writer, version: Version) {
        if value.is_null() && !self.may_be_null(version) {
            writer.refuse(EncodeError::Null { field: self.name, version: version.number });
        }
        value.write(writer, self.encoding(version));
    }

    /// Reads a field of the tagged section.
    pub(crate) fn read_tagged<T: Wire>(
        &self,
        reader: &mut Reader<'_>,
        size: usize,
        tag: u32,
        version: Version,
    ) -> Result<T, DecodeError> {
        reader.exactly(size, |reader| self.read(reader, version)).map_err(|fault| match fault.kind {
            // Only left over here, since no value inside of it has a size of its own.
            DecodeErrorKind::TrailingBytes(_) => DecodeErrorKind::InvalidTag(tag).at(fault.at),
            _ => fault,
        })
    }

    #[inline]
    pub(crate) fn read<T: Wire>(&self, reader: &mut Reader<'_>, version: Version) -> Result<T, DecodeError> {
        let at = reader.position();
        match T::read(reader, self.encoding(version)) {
            Ok(value) if value.is_null() && !self.may_be_null(version) => {
                Err(DecodeError { kind: DecodeErrorKind::UnexpectedNull, at, field: self.name })
            }
            Err(fault) if fault.field.is_empty() => Err(DecodeError { field: self.name, ..fault }),
            result => result,
        }
    }
}

/// Defines messages and the structures in them; see the module.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $since:literal $(- $until:literal)? $(+)? $field:ident: $ty:ty $([$($flags:tt)*])? $(= $default:expr)?
            ),* $(,)?
        }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Deserialize),
            serde(default, rename_all = "camelCase", deny_unknown_fields)
        )]
        #[cfg_attr(feature = "arbitrary", derive(::arbitrary::Arbitrary))]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::json::field"))]
                #[cfg_attr(feature = "arbitrary", arbitrary(with = $crate::arbitrary::field))]
                pub $field: $ty,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::macros::default!($($default)?)),* }
            }
        }

        impl $crate::wire::Wire for $name {
            fn write(&self, writer: &mut $crate::writer::Writer, version: $crate::wire::Version) {
                $({
                    const FIELD: $crate::macros::Field =
                        $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                    FIELD.write(&self.$field, writer, version, || $crate::macros::default!($($default)?));
                })*
                if version.flexible {
                    let mut tags = 0;
                    $({
                        const FIELD: $crate::macros::Field =
                            $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                        if FIELD.is_tagged()
                            && FIELD.is_sent(&self.$field, version, || $crate::macros::default!($($default)?))
                        {
                            tags += 1;
                        }
                    })*
                    writer.put_uvarint(tags);
                    if tags > 0 {
                        $({
                            const FIELD: $crate::macros::Field =
                                $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                            if FIELD.is_tagged()
                                && FIELD.is_sent(&self.$field, version, || $crate::macros::default!($($default)?))
                            {
                                FIELD.write_tagged(&self.$field, writer, version);
                            }
                        })*
                    }
                }
            }

            fn read(
                reader: &mut $crate::reader::Reader<'_>,
                version: $crate::wire::Version,
            ) -> Result<Self, $crate::error::DecodeError> {
                let mut this = Self::default();
                $({
                    const FIELD: $crate::macros::Field =
                        $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                    if FIELD.is_in(version) && !FIELD.is_tagged() {
                        this.$field = FIELD.read(reader, version)?;
                    }
                })*
                if version.flexible {
                    for _ in 0..reader.uvarint()? {
                        let tag = reader.uvarint()?;
                        let size = reader.uvarint()?;
                        $({
                            const FIELD: $crate::macros::Field =
                                $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                            if FIELD.has_tag(tag, version) {
                                this.$field = FIELD.read_tagged(reader, size as usize, tag, version)?;
                                continue;
                            }
                        })*
                        // An unknown tag, of a later version or of a vendor (KIP-482), is skipped.
                        reader.skip(size as usize)?;
                    }
                }
                Ok(this)
            }
        }

        impl $crate::wire::Nullable for $name {
            fn write_null(writer: &mut $crate::writer::Writer, _: $crate::wire::Version) {
                writer.put_slice(&[0xff]);
            }

            fn write_present(&self, writer: &mut $crate::writer::Writer, version: $crate::wire::Version) {
                writer.put_slice(&[1]);
                $crate::wire::Wire::write(self, writer, version);
            }

            fn read_nullable(
                reader: &mut $crate::reader::Reader<'_>,
                version: $crate::wire::Version,
            ) -> Result<Option<Self>, $crate::error::DecodeError> {
                match <i8 as $crate::wire::Wire>::read(reader, version)? {
                    ..0 => Ok(None),
                    0.. => $crate::wire::Wire::read(reader, version).map(Some),
                }
            }
        }

        #[cfg(feature = "arbitrary")]
        impl $crate::arbitrary::Arbitrate for $name {
            fn arbitrate(bytes: &mut ::arbitrary::Unstructured<'_>) -> ::arbitrary::Result<Self> {
                ::arbitrary::Arbitrary::arbitrary(bytes)
            }
        }

        #[cfg(feature = "serde")]
        impl $crate::json::Json for $name {
            fn write_json<S: serde::Serializer>(
                &self,
                serializer: S,
                version: $crate::wire::Version,
            ) -> Result<S::Ok, S::Error> {
                #[allow(unused_mut, reason = "there may be no field")]
                let mut map = serde::Serializer::serialize_map(serializer, None)?;
                $({
                    const FIELD: $crate::macros::Field =
                        $crate::macros::field!($field, $since $(- $until)? $(, $($flags)*)?);
                    if FIELD.is_sent(&self.$field, version, || $crate::macros::default!($($default)?)) {
                        let value = $crate::json::AtVersion { value: &self.$field, version };
                        serde::ser::SerializeMap::serialize_entry(&mut map, FIELD.name, &value)?;
                    }
                })*
                serde::ser::SerializeMap::end(map)
            }

            fn read_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(deserializer)
            }
        }
    )+ };
}
pub(crate) use message;

macro_rules! default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}
pub(crate) use default;

macro_rules! field {
    ($field:ident, $since:literal $(, $($flags:tt)*)?) => {
        $crate::macros::flags!(
            $crate::macros::Field::new($crate::macros::camel_case!($field), $since, i16::MAX); $($($flags)*)?
        )
    };
    ($field:ident, $since:literal - $until:literal $(, $($flags:tt)*)?) => {
        $crate::macros::flags!(
            $crate::macros::Field::new($crate::macros::camel_case!($field), $since, $until); $($($flags)*)?
        )
    };
}
pub(crate) use field;

macro_rules! flags {
    ($field:expr;) => { $field };
    ($field:expr; , $($rest:tt)*) => { $crate::macros::flags!($field; $($rest)*) };
    ($field:expr; ignorable $($rest:tt)*) => { $crate::macros::flags!($field.ignorable(); $($rest)*) };
    ($field:expr; classic $($rest:tt)*) => { $crate::macros::flags!($field.classic(); $($rest)*) };
    ($field:expr; tag $tag:literal $($rest:tt)*) => { $crate::macros::flags!($field.tag($tag); $($rest)*) };
    ($field:expr; nullable $since:literal + $($rest:tt)*) => {
        $crate::macros::flags!($field.nullable($since, i16::MAX); $($rest)*)
    };
    ($field:expr; nullable $since:literal - $until:literal $($rest:tt)*) => {
        $crate::macros::flags!($field.nullable($since, $until); $($rest)*)
    };
}
pub(crate) use flags;

/// The name of a field as in the schema.
macro_rules! camel_case {
    ($field:ident) => {{
        const SNAKE: &str = stringify!($field);
        const CAMEL: [u8; $crate::macros::camel_len(SNAKE)] = $crate::macros::camel(SNAKE);
        match std::str::from_utf8(&CAMEL) {
            Ok(name) => name,
            Err(_) => SNAKE,
        }
    }};
}
pub(crate) use camel_case;

pub(crate) const fn camel_len(snake: &str) -> usize {
    let snake = snake.as_bytes();
    let mut len = 0;
    let mut i = 0;
    while i < snake.len() {
        len += (snake[i] != b'_') as usize;
        i += 1;
    }
    len
}

pub(crate) const fn camel<const N: usize>(snake: &str) -> [u8; N] {
    let snake = snake.as_bytes();
    let mut name = [0; N];
    let (mut from, mut to) = (0, 0);
    while from < snake.len() {
        if snake[from] == b'_' {
            from += 1;
            name[to] = snake[from].to_ascii_uppercase();
        } else {
            name[to] = snake[from];
        }
        from += 1;
        to += 1;
    }
    name
}

/// Defines integers of the wire with names; unknown values are preserved.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($ty:ty);
        $( $(#[$const_meta:meta])* $const:ident = $value:literal; )*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $ty);

        impl $name {
            $( $(#[$const_meta])* pub const $const: Self = Self($value); )*

            /// Returns Kafka's name of the value, if it is known here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some(stringify!($const)), )*
                    _ => None,
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl $crate::wire::Wire for $name {
            fn write(&self, writer: &mut $crate::writer::Writer, version: $crate::wire::Version) {
                self.0.write(writer, version);
            }

            fn read(
                reader: &mut $crate::reader::Reader<'_>,
                version: $crate::wire::Version,
            ) -> Result<Self, $crate::error::DecodeError> {
                <$ty>::read(reader, version).map(Self)
            }
        }

        #[cfg(feature = "arbitrary")]
        impl $crate::arbitrary::Arbitrate for $name {
            fn arbitrate(bytes: &mut ::arbitrary::Unstructured<'_>) -> ::arbitrary::Result<Self> {
                ::arbitrary::Arbitrary::arbitrary(bytes).map(Self)
            }
        }

        #[cfg(feature = "serde")]
        impl $crate::json::Json for $name {
            fn write_json<S: serde::Serializer>(
                &self,
                serializer: S,
                _: $crate::wire::Version,
            ) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&self.0, serializer)
            }

            fn read_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(deserializer).map(Self)
            }
        }
    };
}
pub(crate) use open_enum;
