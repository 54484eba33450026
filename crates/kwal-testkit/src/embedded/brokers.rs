//! Brokers and leaders, as a test controls them.

use std::time::Duration;

use super::cluster::EmbeddedCluster;
use crate::{
    cluster::{CannotLead, Cluster, PartitionId},
    error::Error,
};

/// Brokers.
impl EmbeddedCluster {
    /// Returns the ids of all brokers, including those that are down.
    pub fn brokers(&self) -> Vec<i32> {
        self.shared.with(|cluster| cluster.node_ids().collect())
    }

    /// Adds a broker without partitions, which listens at once; returns its id.
    ///
    /// # Errors
    /// [`Error::Listen`] or [`Error::ListenInMemory`].
    pub fn add_broker(&self) -> Result<i32, Error> {
        let broker = self.shared.with(|cluster| cluster.fresh_node());
        let acceptor = self.bind.listen(broker, &self.runtime)?;
        let address = acceptor.address()?;
        self.shared.with(|cluster| cluster.register(broker, address.clone()));
        self.listeners.open(broker, address, acceptor, &self.shared, &self.runtime);
        Ok(broker)
    }

    /// Removes a broker for good: [stops](Self::stop) it and drops it from metadata.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn remove_broker(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.remove(broker))?;
        self.listeners.remove(broker);
        Ok(())
    }

    /// Kills a broker, as `kill -9` does.
    ///
    /// Its connections are closed and new ones refused. The partitions that it led have no leader that
    /// responds until its session has timed out (`broker.session.timeout.ms`, 9 s). Logs and producer state
    /// are kept for [`restart`](Self::restart).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn kill(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.kill(broker))?;
        self.listeners.close(broker);
        Ok(())
    }

    /// Shuts a broker down cleanly, as `SIGTERM` does.
    ///
    /// Its partitions get other leaders, then its connections are closed and new ones refused until
    /// [`restart`](Self::restart).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn stop(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.stop(broker))?;
        self.listeners.close(broker);
        Ok(())
    }

    /// Starts a broker again at the same address.
    ///
    /// It may have been [killed](Self::kill) or [stopped](Self::stop). A running broker is stopped first.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`]; [`Error::Listen`] or [`Error::ListenInMemory`] if the address is no longer
    /// available.
    pub fn restart(&self, broker: i32) -> Result<(), Error> {
        let address = self.address(broker)?;
        if self.listeners.is_open(broker) {
            self.stop(broker)?;
        }
        let acceptor = self.bind.listen_at(address.clone(), &self.runtime)?;
        self.act(broker, |cluster| cluster.revive(broker))?;
        self.listeners.open(broker, address, acceptor, &self.shared, &self.runtime);
        Ok(())
    }

    /// Suspends a broker, as `SIGSTOP` does.
    ///
    /// Connections stay open and can be made, and nothing is answered until [`resume`](Self::resume). When
    /// its session has timed out, its partitions get other leaders.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn pause(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.pause(broker))
    }

    /// Resumes a paused broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn resume(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| {
            if cluster.is_paused(broker) {
                cluster.revive(broker);
            }
        })
    }

    /// Closes the connections of a broker; new ones are accepted.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn disconnect(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.disconnect(broker))
    }

    /// Limits how many connections a broker keeps open at a time; `None` removes the limit.
    ///
    /// Connections beyond it are accepted and closed at once, as in Kafka, and counted as
    /// [refused](crate::Connections::refused). Open connections stay. With 0, the address accepts and closes.
    ///
    /// The default is the [setting](crate::EmbeddedClusterBuilder::setting) `max.connections.per.ip`: all
    /// clients of the embedded cluster have the same address.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn limit_connections(&self, broker: i32, limit: Option<usize>) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.limit_connections(broker, limit))
    }

    /// Closes all connections; new ones are accepted.
    pub fn disconnect_all(&self) {
        self.shared.with(|cluster| {
            let all: Vec<_> = cluster.node_ids().collect();
            all.into_iter().for_each(|node| cluster.disconnect(node));
        });
    }

    /// Keeps a broker from learning of cluster changes.
    ///
    /// It reports the leaders and epochs of this moment until [`release_metadata`](Self::release_metadata).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn hold_metadata(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.hold_metadata(broker))
    }

    /// Lets a broker learn of all cluster changes again.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn release_metadata(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.release_metadata(broker))
    }

    /// Returns the controller.
    ///
    /// All brokers name it in metadata. Where they do not [forward requests](crate::Dialect::forwarding), it
    /// alone creates topics. It is broker 1 at first; if it dies, the live broker with the lowest id takes
    /// over.
    pub fn controller(&self) -> Option<i32> {
        Some(self.shared.with(|cluster| cluster.controller())).filter(|id| *id >= 0)
    }

    /// Makes another broker the controller.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`]; [`Error::CannotLead`] if it is not alive.
    pub fn move_controller(&self, to: i32) -> Result<(), Error> {
        match self.act(to, |cluster| cluster.move_controller(to))? {
            true => Ok(()),
            false => Err(Error::CannotLead { broker: to }),
        }
    }

    fn act<T>(&self, broker: i32, act: impl FnOnce(&mut Cluster) -> T) -> Result<T, Error> {
        self.shared.with(|cluster| match cluster.node(broker) {
            Some(_) => Ok(act(cluster)),
            None => Err(Error::UnknownBroker { broker }),
        })
    }
}

/// Leaders and replicas.
impl EmbeddedCluster {
    /// Returns the leader of a partition, if there is one.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>, Error> {
        self.read_partition(topic, partition, |found| found.state.leader)
    }

    /// Returns the leader epoch of a partition: 0 at first, one more with each election.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Result<i32, Error> {
        self.read_partition(topic, partition, |found| found.state.leader_epoch)
    }

    /// Returns the brokers assigned to a partition, the preferred leader first.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn replicas(&self, topic: &str, partition: i32) -> Result<Vec<i32>, Error> {
        self.read_partition(topic, partition, |found| found.state.replicas.clone())
    }

    /// Returns the brokers whose replicas are in sync (the ISR).
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn in_sync(&self, topic: &str, partition: i32) -> Result<Vec<i32>, Error> {
        self.read_partition(topic, partition, |found| found.state.isr.clone())
    }

    /// Makes another replica in sync the leader, by an election. Does nothing if it is the leader.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::CannotLead`] if the broker is not alive and in sync.
    pub fn move_leader(&self, topic: &str, partition: i32, to: i32) -> Result<(), Error> {
        self.elect(topic, partition, to, |cluster| cluster.move_leader(topic, partition, to))
    }

    /// Makes any replica the leader and the only one in sync, as an unclean election does.
    ///
    /// Records that it does not have are lost, and the other replicas truncate them. Does nothing if it is
    /// the leader.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::CannotLead`] if the broker is not alive or has no replica.
    pub fn elect_unclean(&self, topic: &str, partition: i32, to: i32) -> Result<(), Error> {
        self.elect(topic, partition, to, |cluster| cluster.elect_unclean(topic, partition, to))
    }

    /// Makes a replica in sync, also the current one, the leader in an earlier leader epoch.
    ///
    /// This happens to a cluster whose metadata was restored from a backup: the topic keeps its id, and all
    /// brokers agree on a leader epoch that is lower than the one that clients know. Logs stay, and their
    /// later epochs are forgotten. All connections are closed, because the brokers were restarted.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::CannotLead`] if the broker is not alive and in sync;
    /// [`Error::NotEarlier`].
    pub fn rewind_leader_epoch(&self, topic: &str, partition: i32, to: i32, epoch: i32) -> Result<(), Error> {
        let current = self.leader_epoch(topic, partition)?;
        match self.shared.with(|cluster| cluster.rewind_epoch(topic, partition, to, epoch)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotEarlier { epoch, current }),
            Err(CannotLead) => Err(Error::CannotLead { broker: to }),
        }
    }

    fn elect(
        &self,
        topic: &str,
        partition: i32,
        to: i32,
        elect: impl FnOnce(&mut Cluster) -> Result<(), CannotLead>,
    ) -> Result<(), Error> {
        self.read_partition(topic, partition, |_| ())?;
        self.shared.with(elect).map_err(|CannotLead| Error::CannotLead { broker: to })
    }

    /// Sets the time after which a follower has what the leader has.
    ///
    /// It learns of the high watermark after the same time again. [`Duration::ZERO`], the default, replicates
    /// at once. With [`Duration::MAX`] it fetches nothing and is out of sync after `replica.lag.time.max.ms`
    /// (30 s).
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], also if the broker has no replica.
    pub fn set_lag(&self, topic: &str, partition: i32, broker: i32, lag: Duration) -> Result<(), Error> {
        self.at_replica(topic, partition, broker, |cluster, id| cluster.set_lag(id, broker, lag))
    }

    /// Takes a follower out of sync. It fetches nothing until its [lag](Self::set_lag) is set again.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], also if the broker has no replica; [`Error::IsLeader`] if it leads.
    pub fn shrink_isr(&self, topic: &str, partition: i32, broker: i32) -> Result<(), Error> {
        if self.leader(topic, partition)? == Some(broker) {
            return Err(Error::IsLeader { broker });
        }
        self.at_replica(topic, partition, broker, |cluster, id| cluster.shrink_isr(id, broker))
    }

    fn at_replica(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        act: impl FnOnce(&mut Cluster, PartitionId),
    ) -> Result<(), Error> {
        self.read_replica(broker, topic, partition, |_| ())?;
        self.shared.with(|cluster| {
            if let Some(id) = cluster.partition_id(topic, partition) {
                act(cluster, id);
            }
        });
        Ok(())
    }
}
