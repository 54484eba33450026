//! Authentication, in the order in which Kafka requires it.

use std::time::Duration;

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
        SaslHandshakeRequest,
    },
    sasl::{Mechanism, OAuthBearer, Plain, Scram, Step},
};
use kwal_testkit::{EmbeddedCluster, Sasl};
use tokio::time::{Instant, sleep};

use crate::client::Client;

const SECOND: Duration = Duration::from_secs(1);

fn cluster(sasl: Sasl) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 1).sasl(sasl).start_in_memory().unwrap()
}

fn alice() -> Sasl {
    Sasl::new().user("alice", "secret").user("bob", "secret")
}

fn plain(user: &str, password: &str) -> Plain {
    Plain::new(user, password).unwrap()
}

async fn name(client: &mut Client, mechanism: &str) -> (ErrorCode, Vec<String>) {
    let request = SaslHandshakeRequest { mechanism: mechanism.to_owned() };
    let response = client.call(&request, 1).await;
    (response.error_code, response.mechanisms)
}

async fn send(client: &mut Client, auth_bytes: Bytes) -> SaslAuthenticateResponse {
    client.call(&SaslAuthenticateRequest { auth_bytes }, 2).await
}

/// Runs a whole exchange; returns the last response.
async fn authenticate(client: &mut Client, mut mechanism: impl Mechanism) -> SaslAuthenticateResponse {
    let (code, _) = name(client, mechanism.name()).await;
    assert_eq!(code, ErrorCode::NONE);
    let mut step = mechanism.respond(None).unwrap();
    loop {
        match step {
            Step::Send(bytes) => {
                let response = send(client, bytes).await;
                if response.error_code.is_error() {
                    return response;
                }
                step = mechanism.respond(Some(&response.auth_bytes)).unwrap();
                if step == Step::Done {
                    return response;
                }
            }
            Step::Compute => step = mechanism.compute().unwrap(),
            Step::Done => panic!("it is done before anything was sent"),
        }
    }
}

async fn is_served(client: &mut Client) -> bool {
    client.send(&MetadataRequest::default(), 12).await;
    client.receive::<MetadataRequest>(12).await.is_some()
}

async fn is_closed(mut client: Client) -> bool {
    client.receive_frame().await.is_none()
}

#[tokio::test(start_paused = true)]
async fn each_mechanism() {
    let cluster = cluster(alice().oauthbearer(|token| (token == "good").then_some(60 * SECOND)));
    let mechanisms: [Box<dyn Mechanism>; 4] = [
        Box::new(plain("alice", "secret")),
        Box::new(Scram::sha_256("alice", "secret", [1; 24]).unwrap()),
        Box::new(Scram::sha_512("alice", "secret", [1; 24]).unwrap()),
        Box::new(OAuthBearer::new("good").unwrap()),
    ];
    for mechanism in mechanisms {
        let mut client = Client::connect(&cluster).await;
        let expected = if mechanism.name() == "OAUTHBEARER" { 60_000 } else { 0 };
        let last = authenticate(&mut client, Boxed(mechanism)).await;
        assert_eq!((last.error_code, last.session_lifetime_ms), (ErrorCode::NONE, expected));
        assert!(is_served(&mut client).await);
    }
}

#[derive(Debug)]
struct Boxed(Box<dyn Mechanism>);

impl Mechanism for Boxed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, kwal_protocol::sasl::SaslError> {
        self.0.respond(challenge)
    }

    fn compute(&mut self) -> Result<Step, kwal_protocol::sasl::SaslError> {
        self.0.compute()
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_have_kafkas_messages_are_delayed_and_close() {
    let cluster = cluster(alice().oauthbearer(|_| None));
    let invalid =
        "Authentication failed during authentication due to invalid credentials with SASL mechanism";
    let cases: [(Box<dyn Mechanism>, String); 4] = [
        (Box::new(plain("alice", "wrong")), "Authentication failed: Invalid username or password".to_owned()),
        (Box::new(Scram::sha_256("alice", "wrong", [1; 24]).unwrap()), format!("{invalid} SCRAM-SHA-256")),
        (Box::new(Scram::sha_512("missing", "secret", [1; 24]).unwrap()), format!("{invalid} SCRAM-SHA-512")),
        (Box::new(OAuthBearer::new("bad").unwrap()), "{\"status\":\"invalid_token\"}".to_owned()),
    ];
    for (mechanism, words) in cases {
        let mut client = Client::connect(&cluster).await;
        let begun = Instant::now();
        let last = authenticate(&mut client, Boxed(mechanism)).await;
        assert_eq!(last.error_code, ErrorCode::SASL_AUTHENTICATION_FAILED);
        assert_eq!(last.error_message, Some(words));
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        assert!(is_closed(client).await);
    }
}

#[tokio::test(start_paused = true)]
async fn mechanisms_that_are_not_enabled() {
    let cluster = cluster(alice().mechanisms(&["SCRAM-SHA-512"]));
    let mut client = Client::connect(&cluster).await;
    let offered = vec!["SCRAM-SHA-512".to_owned()];
    assert_eq!(name(&mut client, "PLAIN").await, (ErrorCode::UNSUPPORTED_SASL_MECHANISM, offered));
    assert!(is_closed(client).await);
}

#[tokio::test(start_paused = true)]
async fn before_authentication_only_api_versions_is_allowed() {
    let cluster = cluster(alice());
    let mut client = Client::connect(&cluster).await;
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).await.error_code, ErrorCode::NONE);
    assert!(!is_served(&mut client).await);
    let mut client = Client::connect(&cluster).await;
    name(&mut client, "PLAIN").await;
    assert!(!is_served(&mut client).await, "nor in the middle of it");
}

#[tokio::test(start_paused = true)]
async fn authentication_is_rejected_where_it_is_not_required() {
    let plain = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let open = cluster(alice());
    for cluster in [&plain, &open] {
        let mut client = Client::connect(cluster).await;
        if std::ptr::eq(cluster, &open) {
            authenticate(&mut client, self::plain("alice", "secret")).await;
        }
        assert_eq!(name(&mut client, "PLAIN").await.0, ErrorCode::ILLEGAL_SASL_STATE);
        assert_eq!(send(&mut client, Bytes::new()).await.error_code, ErrorCode::ILLEGAL_SASL_STATE);
        assert!(is_served(&mut client).await);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_end_unless_they_are_renewed() {
    let cluster = cluster(alice().max_session(5 * SECOND));
    let mut client = Client::connect(&cluster).await;
    for _ in 0..10 {
        let last = authenticate(&mut client, plain("alice", "secret")).await;
        assert_eq!(last.session_lifetime_ms, 5000);
        sleep(4 * SECOND).await;
        assert!(is_served(&mut client).await);
    }
    sleep(SECOND + Duration::from_millis(1)).await;
    assert!(!is_served(&mut client).await);
}

#[tokio::test(start_paused = true)]
async fn reauthentication_is_limited_and_keeps_the_principal() {
    let cluster = cluster(alice().max_session(5 * SECOND));
    let mut client = Client::connect(&cluster).await;
    authenticate(&mut client, plain("alice", "secret")).await;
    authenticate(&mut client, plain("alice", "secret")).await;
    assert_eq!(name(&mut client, "PLAIN").await.0, ErrorCode::ILLEGAL_SASL_STATE, "too soon");
    assert!(is_served(&mut client).await);
    sleep(SECOND).await;
    let last = authenticate(&mut client, plain("bob", "secret")).await;
    let words = "Cannot change principals during re-authentication from alice to bob";
    assert_eq!(last.error_message.as_deref(), Some(words));
    assert!(is_closed(client).await);
}
