//! Where an error happened.

use std::fmt;

use kwal_protocol::api::ApiKey;

use super::{Error, ErrorKind};

/// Where an error happened: API, topic, partition and broker, as far as the call got.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Context {
    /// The API that was called; `None` if the input was rejected before.
    pub api: Option<ApiKey>,
    /// The topic, if the call was about one.
    pub topic: Option<String>,
    /// The partition, if the call was about one.
    pub partition: Option<i32>,
    /// The broker by id and address, as far as known.
    pub broker: Option<String>,
    /// The transactional id of an [exclusive](crate::OpenPartition::exclusive) writer, if the call was about
    /// one.
    pub transactional_id: Option<String>,
}

/// What a call is about, borrowed. It becomes a [`Context`] only when the call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallContext<'a> {
    pub(crate) api: ApiKey,
    pub(crate) topic: Option<&'a str>,
    pub(crate) partition: Option<i32>,
    pub(crate) transactional_id: Option<&'a str>,
}

impl<'a> CallContext<'a> {
    /// A call that is about the cluster.
    pub(crate) fn cluster(api: ApiKey) -> Self {
        Self { api, topic: None, partition: None, transactional_id: None }
    }

    pub(crate) fn topic(api: ApiKey, topic: &'a str) -> Self {
        Self { topic: Some(topic), ..Self::cluster(api) }
    }

    pub(crate) fn partition(api: ApiKey, topic: &'a str, partition: i32) -> Self {
        Self { partition: Some(partition), ..Self::topic(api, topic) }
    }

    /// The same subject in a call of another API.
    pub(crate) fn with_api(self, api: ApiKey) -> Self {
        Self { api, ..self }
    }

    /// A call about the partition's transactional id.
    pub(crate) fn with_transactional_id(self, transactional_id: &'a str) -> Self {
        Self { transactional_id: Some(transactional_id), ..self }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            api: Some(self.api),
            topic: self.topic.map(str::to_owned),
            partition: self.partition,
            broker: None,
            transactional_id: self.transactional_id.map(str::to_owned),
        }
    }

    pub(crate) fn at_broker(&self, broker: &impl ToString) -> Context {
        Context { broker: Some(broker.to_string()), ..self.context() }
    }

    /// An error of the caller's input, which names the topic and the partition but not the API: nothing was
    /// called.
    pub(crate) fn invalid_input(&self, reason: impl Into<String>) -> Error {
        Error::invalid_input(reason).with_context(Context { api: None, ..self.context() })
    }

    /// An error of this call that no broker is part of.
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind).with_context(self.context())
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.api, &self.topic) {
            (Some(api), Some(_)) => write!(f, "{api} of ")?,
            (Some(api), None) => write!(f, "{api}")?,
            (None, Some(_)) => {}
            (None, None) => f.write_str("a call")?,
        }
        match (&self.topic, self.partition) {
            (Some(topic), Some(partition)) => write!(f, "{topic}/{partition}")?,
            (Some(topic), None) => write!(f, "{topic}")?,
            _ => {}
        }
        match &self.broker {
            Some(broker) => write!(f, " at {broker}"),
            None => Ok(()),
        }
    }
}
