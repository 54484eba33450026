//! Messages from arbitrary bytes, for fuzzers (feature `arbitrary`): every message implements [`Arbitrary`].

use ::arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;

use crate::wire::{Spliced, Uuid};

/// A type of the schemas made from arbitrary bytes. Implemented by messages and their parts.
pub trait Arbitrate: Sized {
    /// Creates a value.
    ///
    /// # Errors
    /// As [`Arbitrary::arbitrary`].
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self>;
}

/// For `#[arbitrary(with = …)]`.
pub(crate) fn field<T: Arbitrate>(bytes: &mut Unstructured<'_>) -> Result<T> {
    T::arbitrate(bytes)
}

macro_rules! plain {
    ($($ty:ty),*) => { $(
        impl Arbitrate for $ty {
            fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
                Self::arbitrary(bytes)
            }
        }
    )* };
}
plain!(bool, i8, i16, i32, i64, u16, String);

impl Arbitrate for Uuid {
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Arbitrary::arbitrary(bytes).map(Self)
    }
}

impl Arbitrate for Bytes {
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Vec::<u8>::arbitrary(bytes).map(Self::from)
    }
}

impl Arbitrate for Spliced {
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self::new(Bytes::arbitrate(bytes)?, Bytes::arbitrate(bytes)?))
    }
}

impl<T: Arbitrate> Arbitrate for Vec<T> {
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let mut elements = Self::new();
        while !bytes.is_empty() && bool::arbitrary(bytes)? {
            elements.push(T::arbitrate(bytes)?);
        }
        Ok(elements)
    }
}

impl<T: Arbitrate> Arbitrate for Option<T> {
    fn arbitrate(bytes: &mut Unstructured<'_>) -> Result<Self> {
        match bool::arbitrary(bytes)? {
            true => T::arbitrate(bytes).map(Some),
            false => Ok(None),
        }
    }
}
