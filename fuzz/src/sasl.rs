//! The messages of a broker in an exchange.

use kwal_protocol::sasl::{Mechanism, OAuthBearer, Plain, Scram, Step};

/// No challenge makes a mechanism panic, exceed the limit of work, or reveal a secret.
///
/// The first byte chooses the mechanism; the rest is challenges, separated by NUL. An `N` at the start of one
/// that begins with `r=N` stands for the nonce of SCRAM, which no input would find by chance. The requested
/// iterations are computed at most once, and only if that is quick.
pub fn sasl_exchange(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let mut mechanism: Box<dyn Mechanism> = match choice % 4 {
        0 => Box::new(Plain::new("alice", "wonderland").expect("well-formed")),
        1 => Box::new(OAuthBearer::new("wonderland").expect("well-formed")),
        2 => Box::new(Scram::sha_256("alice", "wonderland", [0; 24]).expect("well-formed")),
        _ => Box::new(Scram::sha_512("alice", "wonderland", [0; 24]).expect("well-formed")),
    };
    assert!(matches!(mechanism.respond(None), Ok(Step::Send(_))));
    for challenge in data.split(|byte| *byte == 0).take(8) {
        let challenge = match challenge.strip_prefix(b"r=N") {
            Some(rest) => [b"r=".as_slice(), &[b'A'; 32], rest].concat(),
            None => challenge.to_vec(),
        };
        match mechanism.respond(Some(&challenge)) {
            Ok(Step::Compute) => {
                let iterations = String::from_utf8_lossy(&challenge).into_owned();
                let iterations = iterations
                    .split(",i=")
                    .nth(1)
                    .and_then(|text| text.split(',').next()?.parse::<u64>().ok());
                let iterations = iterations.expect("checked");
                assert!((4_096..=1_000_000).contains(&iterations));
                if iterations > 5_000 || !matches!(mechanism.compute(), Ok(Step::Send(_))) {
                    return;
                }
            }
            Ok(Step::Send(reply)) => assert!(choice % 4 == 1 && *reply == b"\x01"[..], "{reply:?}"),
            // A fuzzer cannot find a valid signature.
            Ok(Step::Done) => assert!(choice % 4 < 2 && challenge.is_empty()),
            Err(error) => assert!(
                !format!("{mechanism:?}{error:?}{error}").contains("wonderland") || contains(&challenge)
            ),
        }
    }
}

/// The error contains the broker's own message.
fn contains(challenge: &[u8]) -> bool {
    String::from_utf8_lossy(challenge).contains("wonderland")
}
