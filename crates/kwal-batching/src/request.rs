//! The shape of every call that waits: a request that can be configured and awaited.

/// Completes a request, which is a struct with a `deadline`: the setter of that, and what makes it a future.
/// Its `run` does the work.
macro_rules! request {
    ($name:ident<$life:lifetime $(, $param:ident: $bound:ident)?> -> $output:ty) => {
        impl<$life $(, $param: $bound)?> $name<$life $(, $param)?> {
            /// Sets the time limit of this call. Default:
            /// [`Deadlines::operation`](kwal_client::Deadlines::operation).
            pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
                self.deadline = Some(deadline);
                self
            }
        }

        impl<$life $(, $param: $bound)?> IntoFuture for $name<$life $(, $param)?> {
            type Output = $output;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + $life>>;

            /// Makes it a future, for what takes futures and not requests: `join_all`, `try_join_all`,
            /// `select!`, `pin!`, `tokio::spawn`.
            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.run())
            }
        }
    };
}

pub(crate) use request;
