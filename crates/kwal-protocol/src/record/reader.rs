use super::headers::HeaderView;
use crate::{error::DecodeErrorKind, varint};

/// The bytes of a record that are still to be decoded.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn header(&mut self) -> Result<HeaderView<'a>, DecodeErrorKind> {
        let length = self.length()?;
        let key = self.bytes(length)?;
        Ok(HeaderView { key, value: self.nullable()? })
    }

    /// Any negative length is null, as in Kafka.
    #[inline]
    pub(super) fn nullable(&mut self) -> Result<Option<&'a [u8]>, DecodeErrorKind> {
        match self.nullable_length()? {
            Ok(length) => self.bytes(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    #[inline]
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeErrorKind> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeErrorKind::UnexpectedEnd)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value,
            None => self.long(varint::get_u32)?,
        };
        Ok(varint::unzigzag_u32(value))
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value.into(),
            None => self.long(varint::get_u64)?,
        };
        Ok(varint::unzigzag_u64(value))
    }

    /// Reads a length or a count, which must not be negative.
    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, DecodeErrorKind> {
        match self.nullable_length()? {
            Ok(length) => Ok(length),
            Err(negative) => Err(DecodeErrorKind::NegativeLength(negative.into())),
        }
    }

    /// Reads a length that may be negative.
    #[inline]
    fn nullable_length(&mut self) -> Result<Result<usize, i32>, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value,
            None => self.long(varint::get_u32)?,
        };
        // The lowest bit of a zig-zag varint is its sign.
        Ok(if value & 1 == 0 { Ok((value >> 1) as usize) } else { Err(varint::unzigzag_u32(value)) })
    }

    /// Reads a varint of one or two bytes, as most are.
    #[inline]
    fn short(&mut self) -> Option<u32> {
        match *self.0 {
            [first, second, ..] => {
                if first < 0x80 {
                    self.0 = &self.0[1..];
                    return Some(first.into());
                }
                if second < 0x80 {
                    self.0 = &self.0[2..];
                    return Some(u32::from(first & 0x7f) | u32::from(second) << 7);
                }
                None
            }
            [first] if first < 0x80 => {
                self.0 = &self.0[1..];
                Some(first.into())
            }
            _ => None,
        }
    }

    #[inline]
    fn long<T>(
        &mut self,
        get: impl Fn(&[u8]) -> Result<(T, usize), DecodeErrorKind>,
    ) -> Result<T, DecodeErrorKind> {
        let (value, length) = get(self.0)?;
        self.0 = &self.0[length..];
        Ok(value)
    }
}
