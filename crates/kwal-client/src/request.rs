//! The shape of every call that talks to a broker: a request that can be configured and awaited.

/// Defines a request: a struct with a `deadline` that can be awaited. Its `run` does the work.
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
                Box::pin(self.run())
            }
        }
    };
}

pub(crate) use request;
