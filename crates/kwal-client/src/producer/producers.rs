//! The producers of a client, for its end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::join_all;

use super::{Producer, appends::Appends};
use crate::{
    error::{Error, ErrorKind},
    routing::Deadline,
};

/// The producers of a client that are open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    producers: Vec<Weak<Appends>>,
    /// How many there may be before those that are gone are removed.
    room: usize,
    is_closed: bool,
}

impl Producers {
    /// Adds one, unless they were closed.
    pub(crate) fn add(&self, producer: &Producer) -> Result<(), Error> {
        let registry = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.is_closed {
            return Err(producer.appends.call().error(ErrorKind::Closed));
        }
        if registry.producers.len() >= registry.room {
            registry.producers.retain(|producer| producer.strong_count() > 0);
            registry.room = 2 * registry.producers.len() + 16;
        }
        registry.producers.push(Arc::downgrade(&producer.appends));
        Ok(())
    }

    /// Closes all of them at the same time. Returns the errors of appends that failed meanwhile.
    pub(crate) async fn close(&self, deadline: Deadline) -> Vec<Error> {
        let producers: Vec<_> = {
            let registry = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            registry.is_closed = true;
            registry.producers.iter().filter_map(Weak::upgrade).collect()
        };
        join_all(producers.iter().map(|appends| appends.close(deadline))).await.concat()
    }
}
