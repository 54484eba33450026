//! The shape of every call that talks to a broker: a request that can be configured and awaited.

use kwal_transport::BoxFuture;
use tracing::{Instrument, Span, field::display};

use crate::error::{Class, Error};

/// Defines a request: a struct with a `deadline` that can be awaited. Its `run` does the work, within
/// the span that its `span` makes.
macro_rules! request {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident<$life:lifetime> -> $output:ty {
            $( $(#[$field_attribute:meta])* $field:ident: $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug)]
        #[must_use = "nothing happens until it is awaited"]
        pub struct $name<$life> {
            $( $(#[$field_attribute])* $field: $ty, )*
            deadline: Option<std::time::Duration>,
        }

        impl $name<'_> {
            /// Sets the time limit of this call. Default:
            /// [`Deadlines::operation`](crate::Deadlines::operation).
            pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
                self.deadline = Some(deadline);
                self
            }
        }

        impl<$life> IntoFuture for $name<$life> {
            type Output = $output;
            type IntoFuture = kwal_transport::BoxFuture<$life, Self::Output>;

            /// Makes it a future, for what takes futures and not requests: `join_all`, `try_join_all`,
            /// `select!`, `pin!`, `tokio::spawn`.
            fn into_future(self) -> Self::IntoFuture {
                crate::request::within(self.span(), Box::pin(self.run()))
            }
        }
    };
}

/// Makes the span of a call: what it does, to which topic and partition, and more fields. While it is
/// disabled, it costs an atomic load.
macro_rules! call_span {
    ($name:literal $(, $topic:expr $(, $partition:expr)?)? $(; $($field:tt)+)?) => {
        tracing::debug_span!(
            $name,
            messaging.system = "kafka",
            messaging.operation.name = $name,
            $( messaging.destination.name = $topic, $( messaging.destination.partition.id = %$partition, )? )?
            error.type = tracing::field::Empty,
            $( $($field)+ )?
        )
    };
}

pub(crate) use {call_span, request};

/// What a call returns.
pub(crate) trait CallResult {
    /// Returns the first error.
    fn error(&self) -> Option<&Error>;
}

impl<T> CallResult for Result<T, Error> {
    fn error(&self) -> Option<&Error> {
        self.as_ref().err()
    }
}

impl CallResult for Vec<Error> {
    fn error(&self) -> Option<&Error> {
        self.first()
    }
}

/// Runs a call within its span, if that is enabled.
///
/// The call is in a box already, since its future takes kilobytes: as an argument it would be copied.
pub(crate) fn within<'a, T: CallResult + 'a>(span: Span, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    if span.is_disabled() {
        return call;
    }
    let within = span.clone();
    let call = async move {
        let result = call.await;
        if let Some(error) = result.error() {
            within.record("error.type", display(Class(error)));
        }
        result
    };
    Box::pin(call.instrument(span))
}
