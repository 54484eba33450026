//! C3, from storms: what callers of a batch producer hand over between a failure and its error.

use std::time::Duration;

use kwal_batching::producer::BatchProducer;
use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;

use crate::support::{broker, open, polled, record, settle, values};

#[track_caller]
fn is_behind<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

/// What is handed over before the error of an earlier one was returned fails as well, also if its batch would
/// be sent later.
#[tokio::test(start_paused = true)]
async fn nothing_that_was_handed_over_before_an_error_was_returned_is_on_the_log() {
    for linger in [0, 10] {
        let broker = broker();
        let producer = BatchProducer::builder(open(&broker).await).linger(Duration::from_millis(linger));
        let producer = producer.build();
        producer.produce(record("first")).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));

        let failed = producer.reserve().await.unwrap().send(record("failed"));
        producer.flush().await.unwrap_err();
        // It has failed, and its caller does not know.
        let behind = producer.reserve().await.unwrap().send(record("behind"));
        assert!(polled(producer.produce(record("produced")), 1).await.is_none());
        assert!(matches!(failed.await.unwrap_err().kind(), ErrorKind::Broker { .. }));
        // The one behind has failed, too, and its caller does not know.
        let next = producer.reserve().await.unwrap().send(record("next"));
        is_behind(behind.await);
        is_behind(producer.produce(record("produced again")).await);
        is_behind(producer.produce(record("produced in no time")).deadline(Duration::ZERO).await);
        is_behind(next.await);
        producer.produce(record("last")).await.unwrap();
        assert_eq!(values(&broker), ["first", "last"]);
    }
}

/// Callers that try again at once let those run that have not got their errors yet.
#[tokio::test(start_paused = true)]
async fn callers_that_try_again_at_once_do_not_keep_others_from_their_errors() {
    let broker = broker();
    let producer = BatchProducer::new(open(&broker).await);
    producer.produce(record("first")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));

    let one = producer.reserve().await.unwrap().send(record("one"));
    let clone = producer.clone();
    let other = tokio::spawn(async move { clone.produce(record("other")).await.map(|_| ()) });
    settle().await;
    drop(one);
    while producer.produce(record("again")).await.is_err() {}
    assert!(other.await.unwrap().is_err());
    assert_eq!(values(&broker), ["first", "again"]);
}
