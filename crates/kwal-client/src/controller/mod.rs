//! What changes and describes topics and the cluster, an operation a file; here is how the right broker is asked.

mod configs;
mod create_partitions;
mod create_topic;
mod delete_topic;
mod describe_cluster;
mod ensure_topic;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kwal_protocol::error_code::{Effect, ErrorCode};
use tokio::time::Instant;

pub(crate) use self::configs::Resource;
pub use self::{
    configs::{AlterTopicConfigs, ConfigSource, ConfigSynonym, ConfigValue, DescribeTopicConfigs},
    create_partitions::CreatePartitions,
    create_topic::{CreateTopic, CreatedTopic},
    describe_cluster::{BrokerDescription, ClusterDescription},
    ensure_topic::{EnsureTopic, EnsuredTopic, TopicDifference},
};
use crate::{
    cluster::{Cluster, Place},
    error::{At, Error},
    speak::Speak,
};

/// Sets topics up and looks after them. Made by [`Client::controller_client`](crate::Client::controller_client); cheap to
/// clone.
///
/// Every call is retried within [`Deadlines::operation`](crate::Deadlines::operation), goes after the controller when it has
/// moved, and pauses as long as the brokers' throttles and quotas ask for.
///
/// What was changed is known to the controller at once and to the other brokers a moment later. Until then one that is asked
/// may still tell what was before.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    pub(crate) cluster: Arc<Cluster>,
}

/// Which broker is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whom {
    /// The one that changes things, as metadata names it. In a KRaft cluster it is any broker, which passes the request on.
    Controller,
    /// The same if there is one, or else any other: they all know.
    Any,
    /// This one alone.
    Broker(i32),
}

/// What is asked for: about which topic, until when, and whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) whom: Whom,
    pub(crate) deadline: Instant,
    /// How long the broker itself may wait before it answers, if it was told.
    pub(crate) wait: Option<Duration>,
}

/// An answer in its three parts: what went wrong or `NONE`, in which words, and what was asked for.
pub(crate) type Told<T> = (ErrorCode, Option<String>, T);

/// How a question ended that has no answer.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What the last attempt failed with.
    pub(crate) error: Error,
    /// Whether an attempt may have been carried out.
    pub(crate) open: bool,
    at: Box<At>,
}

impl Refused {
    fn is(&self, code: ErrorCode) -> bool {
        matches!(self.error, Error::Broker { code: found, .. } if found == code)
    }
}

impl From<Refused> for Error {
    fn from(Refused { error, open, at }: Refused) -> Self {
        if open { error.unsettled(|| at) } else { error }
    }
}

impl<'a> Question<'a> {
    /// One with as much time as an operation has.
    pub(crate) fn new(controller: &ControllerClient, place: Place<'a>, whom: Whom) -> Self {
        Self { place, whom, deadline: controller.deadline(), wait: None }
    }
}

impl ControllerClient {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// When an operation that begins now has to be done.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.cluster.config.deadlines.operation
    }

    /// How long the broker waits: a little shorter than we wait for the broker.
    fn broker_wait(&self, timeout: Option<Duration>) -> i32 {
        let wait = timeout.unwrap_or(self.cluster.config.deadlines.request * 9 / 10);
        i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
    }

    /// Asks until there is an answer, or an error that no further attempt would mend. The request depends on the version that
    /// is spoken.
    pub(crate) async fn ask<R: Speak, T>(
        &self,
        question: Question<'_>,
        request: impl Fn(i16) -> R,
        mut answer: impl FnMut(&mut R::Response) -> Option<Told<T>>,
    ) -> Result<T, Refused> {
        let Question { place, whom, deadline, wait } = question;
        let deadlines = self.cluster.config.deadlines;
        let limit = wait.map(|wait| deadlines.request.max(wait + deadlines.request / 10));
        let mut attempts = self.cluster.attempts_until(deadline, R::KEY, place);
        let mut open = false;
        let mut first = true;
        loop {
            let attempt = async {
                if !first {
                    self.cluster.refresh().await?;
                }
                let broker = self.whom(whom).ok_or_else(|| Error::Broker {
                    code: ErrorCode::NOT_CONTROLLER,
                    message: None,
                    at: place.at(R::KEY, None),
                })?;
                let lane = self.cluster.lane(broker, R::KEY, place).await?;
                let request = request(lane.version::<R>().unwrap_or(R::OURS.newest));
                let mut response = lane.call(&request, place, R::OURS, limit).await?;
                let at = || place.at(R::KEY, Some(lane.broker()));
                match answer(&mut response) {
                    Some((ErrorCode::NONE, _, result)) => Ok(result),
                    Some((code, message, _)) => Err(Error::Broker { code, message: said(message), at: at() }),
                    None => Err(Error::NoAnswer { at: at() }),
                }
            };
            let error = match attempts.within(attempt).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            // A deadline may have cut an attempt off that was under way.
            let cut = matches!(error, Error::DeadlineExceeded { .. });
            open |= R::KEY.changes_something() && (cut || error.effect() == Effect::Unknown);
            first = false;
            if let Err(error) = attempts.again(error, 0).await {
                return Err(Refused { error, open, at: place.at(R::KEY, None) });
            }
        }
    }

    fn whom(&self, whom: Whom) -> Option<i32> {
        let metadata = self.cluster.metadata();
        match whom {
            Whom::Controller => metadata.controller,
            Whom::Any => metadata.controller.or_else(|| metadata.brokers.keys().next().copied()),
            Whom::Broker(id) => Some(id),
        }
    }
}

/// The broker's words, if it had any.
fn said(message: Option<String>) -> Option<String> {
    message.filter(|message| !message.is_empty())
}

/// Refuses an assignment of replicas that no controller would take; answers how many replicas each partition has.
fn check_assignment(brokers_by_partition: &[Vec<i32>]) -> Result<usize, Error> {
    let invalid = |what: String| Err(Error::InvalidInput(format!("the assignment {what}")));
    let Some(first) = brokers_by_partition.first() else {
        return invalid("has no partition".to_owned());
    };
    for (partition, brokers) in brokers_by_partition.iter().enumerate() {
        let mut seen = BTreeSet::new();
        if brokers.is_empty() {
            return invalid(format!("gives partition {partition} no broker"));
        }
        if let Some(broker) = brokers.iter().find(|broker| **broker < 0) {
            return invalid(format!("names broker {broker}, which is negative"));
        }
        if let Some(broker) = brokers.iter().find(|broker| !seen.insert(**broker)) {
            return invalid(format!("names broker {broker} twice for partition {partition}"));
        }
        if brokers.len() != first.len() {
            let (one, other) = (first.len(), brokers.len());
            return invalid(format!("gives partition 0 {one} replicas and partition {partition} {other}"));
        }
    }
    Ok(first.len())
}

/// Refuses settings without a name, and such that are given twice.
fn check_configs<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(Error::InvalidInput("a setting has no name".to_owned()));
        }
        if !seen.insert(name) {
            return Err(Error::InvalidInput(format!("setting {name} is given twice")));
        }
    }
    Ok(())
}
