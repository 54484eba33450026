//! A topic that is deleted and created again under its name.

use std::time::Duration;

use kwal_batching::reader::{follow, replay};
use kwal_client::error::{Error, ErrorKind};
use kwal_client::{ClientBuilder, Deadlines, Position};
use kwal_tests::kafka::{Kafka, Version};

use super::{append, connect, read_to_end, read_up_to};
use crate::fidelity::world::until;

kwal_tests::suite! {
    own: [created_again],
}

/// A stream that runs, and positions that another process keeps: one that the new log has, and one beyond its
/// end.
async fn created_again(version: Version) {
    let kafka = Kafka::shared(version);
    let topic = kafka.topic("again", 1, &[]).await;
    let client = connect(kafka).await;
    let partition = client.partition_client(&topic, 0).await.unwrap();
    let former_id = partition.topic_id().unwrap();
    for number in 0..8 {
        append(&partition, format!("former {number}")).await;
    }
    let mut kept = Vec::new();
    for end in [2, 8] {
        let mut replay = replay(&partition, 0).end(end).await.unwrap();
        assert_eq!(read_to_end(&mut replay).await.len() as i64, end);
        // As text, as another process would keep it.
        kept.push(replay.position().to_string());
    }
    let deadlines = Deadlines::default().operation(Duration::from_secs(20));
    let reader = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
    let reader = reader.partition_client(&topic, 0).await.unwrap();
    let mut stream = follow(&reader, 0).await.unwrap();
    assert_eq!(read_up_to(&mut stream, 8).await.len(), 8);
    let running = tokio::spawn(async move {
        let error = loop {
            match stream.next_batch().await {
                Ok(batch) => panic!("{batch:?}"),
                // Nobody has the topic for a moment.
                Err(error) if matches!(error.kind(), ErrorKind::TopicRecreated { .. }) => break error,
                Err(error) => assert!(error.is_retriable(), "{error:?}"),
            }
        };
        assert_eq!(stream.position().offset, 8);
        (error, stream.next_batch().await.unwrap_err())
    });

    let controller = client.controller_client().await.unwrap();
    controller.delete_topic(&topic).await.unwrap();
    until("the name is free", async || controller.create_topic(&topic, 1, 1).await.is_ok().then_some(()))
        .await;
    // A broker may know the former one for a moment.
    let partition = until("the topic is known", async || {
        let partition = connect(kafka).await.partition_client(&topic, 0).await.ok()?;
        (partition.topic_id() != Some(former_id)).then_some(partition)
    })
    .await;
    for number in 0..5 {
        append(&partition, format!("new {number}")).await;
    }

    for text in &kept {
        let position: Position = text.parse().unwrap();
        let is_recreated = |error: Error| {
            let ErrorKind::TopicRecreated { was, is, .. } = error.kind() else { panic!("{error:?}") };
            assert_eq!((Some(*was), Some(*is)), (Some(former_id), partition.topic_id()), "{error:?}");
        };
        is_recreated(partition.fetch(position).await.unwrap_err());
        match replay(&partition, position).await {
            Ok(mut replay) => is_recreated(replay.next_batch().await.unwrap_err()),
            Err(error) => is_recreated(error),
        }
        match follow(&partition, position).await {
            Ok(mut stream) => is_recreated(stream.next_batch().await.unwrap_err()),
            Err(error) => is_recreated(error),
        }
    }
    // A bare offset reads what is there.
    let mut replay = replay(&partition, 2).await.unwrap();
    let read = read_to_end(&mut replay).await;
    assert_eq!(read.into_values().collect::<Vec<_>>(), ["new 2", "new 3", "new 4"]);

    let (error, again) = running.await.unwrap();
    kwal_tests::report(format_args!("{version}: {error}"));
    assert!(matches!(again.kind(), ErrorKind::TopicRecreated { .. }), "{again:?}");
}
