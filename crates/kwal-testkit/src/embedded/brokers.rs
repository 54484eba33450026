//! What a test does to brokers and leaders.

use std::time::Duration;

use super::cluster::EmbeddedCluster;
use crate::{
    cluster::{CannotLead, Cluster, PartitionId},
    error::Error,
};

/// Brokers.
impl EmbeddedCluster {
    /// The numbers of all brokers, also of those that are down.
    pub fn brokers(&self) -> Vec<i32> {
        self.shared.with(|cluster| cluster.node_ids().collect())
    }

    /// Adds a broker, which listens at once and has no partitions yet; answers its number.
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

    /// Takes a broker away for good: [stopped](Self::stop), and no longer told of.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn remove_broker(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.remove(broker))?;
        self.listeners.remove(broker);
        Ok(())
    }

    /// Ends a broker without a word, as `kill -9` does: its connections are closed, new ones refused, and what it led has no
    /// leader that answers until its session is over (`broker.session.timeout.ms`, 9 s).
    /// Logs and what is known of producers stay, for [`restart`](Self::restart).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn kill(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.kill(broker))?;
        self.listeners.close(broker);
        Ok(())
    }

    /// Ends a broker in good order, as `SIGTERM` does: others lead what it led, then its connections are closed and new ones
    /// refused, until [`restart`](Self::restart).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn stop(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.stop(broker))?;
        self.listeners.close(broker);
        Ok(())
    }

    /// Goes on at the same address after [`kill`](Self::kill) or [`stop`](Self::stop); a broker that runs is stopped first.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`]; [`Error::Listen`] or [`Error::ListenInMemory`] if the address cannot be had again.
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

    /// Stops a broker in the middle of whatever it does, as `SIGSTOP` does: connections stay open and can be made, and nobody
    /// answers, until [`resume`](Self::resume). When its session is over, others lead what it led.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn pause(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.pause(broker))
    }

    /// Lets a paused broker go on.
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

    /// Closes the connections of a broker; new ones are taken.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn disconnect(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.disconnect(broker))
    }

    /// Closes all connections; new ones are taken.
    pub fn disconnect_all(&self) {
        self.shared.with(|cluster| {
            let all: Vec<_> = cluster.node_ids().collect();
            all.into_iter().for_each(|node| cluster.disconnect(node));
        });
    }

    /// Keeps a broker from hearing of what changes in the cluster from now on: it goes on telling the leaders and epochs of
    /// today, until [`release_metadata`](Self::release_metadata).
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn hold_metadata(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.hold_metadata(broker))
    }

    /// Lets a broker hear of everything again.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn release_metadata(&self, broker: i32) -> Result<(), Error> {
        self.act(broker, |cluster| cluster.release_metadata(broker))
    }

    /// Which broker is the controller: all brokers name it, and where they do not
    /// [pass requests on](crate::Dialect::forwarding) it alone makes topics. At first it is broker 1, and if it dies the first
    /// that lives.
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
    /// The broker that leads a partition, if there is one.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>, Error> {
        self.look(topic, partition, |found| found.state.leader)
    }

    /// The leader epoch of a partition: 0 at first, and one more with each election.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Result<i32, Error> {
        self.look(topic, partition, |found| found.state.leader_epoch)
    }

    /// The brokers that are to have a partition, the preferred leader first.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn replicas(&self, topic: &str, partition: i32) -> Result<Vec<i32>, Error> {
        self.look(topic, partition, |found| found.state.replicas.clone())
    }

    /// The brokers that have all of a partition that is acknowledged (its ISR).
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn in_sync(&self, topic: &str, partition: i32) -> Result<Vec<i32>, Error> {
        self.look(topic, partition, |found| found.state.isr.clone())
    }

    /// Makes another replica in sync the leader, by an election. Does nothing if it leads already.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::CannotLead`] if the broker is not alive and in sync.
    pub fn move_leader(&self, topic: &str, partition: i32, to: i32) -> Result<(), Error> {
        self.elect(topic, partition, to, |cluster| cluster.move_leader(topic, partition, to))
    }

    /// Makes any replica the leader and the only one in sync, as an unclean election does: what it does not have is lost, and
    /// cut off from the others' logs. Does nothing if it leads already.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::CannotLead`] if the broker is not alive or has no replica.
    pub fn elect_unclean(&self, topic: &str, partition: i32, to: i32) -> Result<(), Error> {
        self.elect(topic, partition, to, |cluster| cluster.elect_unclean(topic, partition, to))
    }

    fn elect(
        &self,
        topic: &str,
        partition: i32,
        to: i32,
        elect: impl FnOnce(&mut Cluster) -> Result<(), CannotLead>,
    ) -> Result<(), Error> {
        self.look(topic, partition, |_| ())?;
        self.shared.with(elect).map_err(|CannotLead| Error::CannotLead { broker: to })
    }

    /// How long it takes until a follower has what the leader has, and then again until it knows that all have it.
    /// [`Duration::ZERO`], the default, is at once; with [`Duration::MAX`] it fetches nothing any more, and is out of sync after
    /// `replica.lag.time.max.ms` (30 s).
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], also if the broker has no replica.
    pub fn set_lag(&self, topic: &str, partition: i32, broker: i32, lag: Duration) -> Result<(), Error> {
        self.at_replica(topic, partition, broker, |cluster, id| cluster.set_lag(id, broker, lag))
    }

    /// Takes a follower out of sync, and it fetches nothing until its [lag](Self::set_lag) is set anew.
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
        self.look_at_replica(broker, topic, partition, |_| ())?;
        self.shared.with(|cluster| {
            if let Some(id) = cluster.partition_id(topic, partition) {
                act(cluster, id);
            }
        });
        Ok(())
    }
}
