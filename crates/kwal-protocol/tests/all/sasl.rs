//! SASL exchanges against Kafka's own, and against arbitrary messages of a broker.

use std::sync::LazyLock;

use kwal_protocol::sasl::{Mechanism, OAuthBearer, Plain, SaslError, Scram, Step};
use proptest::prelude::*;

struct Exchange {
    mechanism: &'static str,
    user: &'static str,
    password: &'static str,
    /// The first of 24 bytes, each 11 more than the previous one.
    random: u8,
    /// Of client and broker, alternating.
    messages: [&'static str; 4],
}

/// Messages of Kafka 4.3.1.
///
/// They were created by `org.apache.kafka.common.security.scram.internals.ScramFormatter` and
/// `ScramMessages`, which do not prepare the password either.
const KAFKAS: [Exchange; 8] = [
    Exchange {
        mechanism: "SCRAM-SHA-256",
        user: "user",
        password: "pencil",
        random: 0,
        messages: [
            "n,,n=user,r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9",
            "r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9srv00f9z,s=c2FsdC0wLW9mLWthZmth,i=4096",
            "c=biws,r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9srv00f9z,p=DxZFyFqB4S0s1s/FAqdl3X379dfOkNFg9duL1xCOzyI=",
            "v=A0TUAC/e3MehotGlQ9OhfdkidfzCQIsW/oLQig3gvG8=",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-256",
        user: "a=b,c",
        password: "p=a,s s",
        random: 1,
        messages: [
            "n,,n=a=3Db=2Cc,r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+",
            "r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+srv10f9z,s=c2FsdC0xLW9mLWthZmth,i=10000",
            "c=biws,r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+srv10f9z,p=sFQI3PVV9o1f3CNtjbfi2S6V+/jfKRtg1aiUDkdA2i4=",
            "v=yGJxWatH13oXEh9tFB7nYmlaMhAXMjvTdy4kgcd4vHg=",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-256",
        user: "jürgen",
        password: "Käse\u{2168}\u{ad}\u{301}",
        random: 2,
        messages: [
            "n,,n=jürgen,r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/",
            "r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/srv20f9z,s=c2FsdC0yLW9mLWthZmth,i=5000",
            "c=biws,r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/srv20f9z,p=Azi+QcH3kmUDOR4zIKhj1Ij9TTGyomR0nnQA7AV98Hg=",
            "v=Cfq79e/j81J5OmwVFUv1p6eAowjdxgBuYDHz3Q8+9HU=",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-256",
        user: "x",
        password: "\u{1} \u{a0}",
        random: 3,
        messages: [
            "n,,n=x,r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUA",
            "r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUAsrv30f9z,s=c2FsdC0zLW9mLWthZmth,i=4096",
            "c=biws,r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUAsrv30f9z,p=fZ65h+5LtlGGUOws/xD/onshALWDOuL9CKhKrYcVsck=",
            "v=3LUCwxf4WSwKn3X0KbD33dExS5wr4Gzf7+tEdDMf1EM=",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-512",
        user: "user",
        password: "pencil",
        random: 0,
        messages: [
            "n,,n=user,r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9",
            "r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9srv00f9z,s=c2FsdC0wLW9mLWthZmth,i=4096",
            "c=biws,r=AAsWISw3Qk1YY255hI+apbC7xtHc5/L9srv00f9z,p=cLHaWUcvjrpkMr1iVkMhlB0Fz6f+JSDtepTm3KdaLyHlywelHGMwd1E8uMprGP/VWYo/xtBzDekcxLMxvz9IVw==",
            "v=W0PKwL83VzWn6sjQvVUljcn250hRie/3aUqMg6iv4VWiLixxcPhvwlQgqrf/EaFSAkvwRa9R26swuiiCVn7igA==",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-512",
        user: "a=b,c",
        password: "p=a,s s",
        random: 1,
        messages: [
            "n,,n=a=3Db=2Cc,r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+",
            "r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+srv10f9z,s=c2FsdC0xLW9mLWthZmth,i=10000",
            "c=biws,r=AQwXIi04Q05ZZG96hZCbprG8x9Ld6PP+srv10f9z,p=EcvlQU1D/6+nLbPz3CjIQTA6teoLxfot7UHiA7JnK5RMD7Ge0/BYsZSBoBFREuryXhVM2E2b+vBmxP3C8IXelg==",
            "v=3U1lDW7bhSaq3vzZugCAiMYPfYWiwZqHRPANU0/bDgWVtsCDKooaKVhUsyJcKdHMqXfaKijRWjzSsUwXjvyiog==",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-512",
        user: "jürgen",
        password: "Käse\u{2168}\u{ad}\u{301}",
        random: 2,
        messages: [
            "n,,n=jürgen,r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/",
            "r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/srv20f9z,s=c2FsdC0yLW9mLWthZmth,i=5000",
            "c=biws,r=Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT/srv20f9z,p=QWX931EVYtsi9TGc9sk/HPOFYj/wwj4tyvcy9A9KG1EcTYww1YukCOtwscCZnSuT8HuK/TD+GylhXIbegPKXmw==",
            "v=3fONXP0fWhJNkNazseAaW3TaUfrXLIZW8EedHbDhtTHCnIjgt+oIrn+/29bxFVzbBXvf1w6hLN6Q/ZYmJo2AFQ==",
        ],
    },
    Exchange {
        mechanism: "SCRAM-SHA-512",
        user: "x",
        password: "\u{1} \u{a0}",
        random: 3,
        messages: [
            "n,,n=x,r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUA",
            "r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUAsrv30f9z,s=c2FsdC0zLW9mLWthZmth,i=4096",
            "c=biws,r=Aw4ZJC86RVBbZnF8h5KdqLO+ydTf6vUAsrv30f9z,p=XWm1MLVSJ9mYXsWKCxZmWSuuOUZ1xk0mwf37JCNOXft6tO2TCsqDHYjxYA2bJ8p2+8bk1GjRyRZOIagsI6bWZQ==",
            "v=rKxJR231rs4JAzCjXgPF7wlp+qUNc+VnqMLzDwqgorbEFwB+qosYAJCIcqH4aQ1ULDyMWI292RKWoT8SnCE4yw==",
        ],
    },
];

impl Exchange {
    fn begin(&self) -> Scram {
        let random: Vec<u8> = (0..24).map(|at: u8| at.wrapping_mul(11).wrapping_add(self.random)).collect();
        let random = random.try_into().unwrap();
        let new = match self.mechanism {
            "SCRAM-SHA-256" => Scram::sha_256,
            _ => Scram::sha_512,
        };
        new(self.user, self.password, random).unwrap()
    }
}

#[test]
fn scram_sends_the_messages_of_kafka() {
    for exchange in &KAFKAS {
        let [first, challenge, proof, signature] = exchange.messages;
        let mut scram = exchange.begin();
        assert_eq!(scram.name(), exchange.mechanism);
        assert_eq!(scram.respond(None), Ok(Step::Send(first.into())));
        assert_eq!(scram.respond(Some(challenge.as_bytes())), Ok(Step::Compute));
        assert_eq!(scram.compute(), Ok(Step::Send(proof.into())));
        assert_eq!(scram.respond(Some(signature.as_bytes())), Ok(Step::Done));
    }
}

/// A broker cannot prove itself without the password: it replays the signature of another exchange.
#[test]
fn scram_detects_an_impostor() {
    let mut scram = KAFKAS[0].begin();
    scram.respond(None).unwrap();
    scram.respond(Some(KAFKAS[0].messages[1].as_bytes())).unwrap();
    scram.compute().unwrap();
    let error = scram.respond(Some(KAFKAS[1].messages[3].as_bytes())).unwrap_err();
    assert_eq!(error, SaslError::NotTheBroker);
}

#[test]
fn no_mechanism_accepts_a_truncated_message() {
    let exchange = &KAFKAS[4];
    let [_, challenge, _, signature] = exchange.messages;
    for len in 0..challenge.len() {
        let mut scram = exchange.begin();
        scram.respond(None).unwrap();
        let answered = scram.respond(Some(&challenge.as_bytes()[..len]));
        assert!(answered.is_err(), "{len}: {answered:?}");
    }
    for len in 0..signature.len() {
        PROVEN.clone().respond(Some(&signature.as_bytes()[..len])).unwrap_err();
    }
}

/// SCRAM after a valid message of the broker and its own computation, which must not be repeated.
static PROVEN: LazyLock<Scram> = LazyLock::new(|| {
    let mut scram = KAFKAS[4].begin();
    scram.respond(None).unwrap();
    scram.respond(Some(KAFKAS[4].messages[1].as_bytes())).unwrap();
    scram.compute().unwrap();
    scram
});

/// Each mechanism at the point where the broker answers.
fn mechanisms() -> [Box<dyn Mechanism>; 4] {
    let mut mechanisms: [Box<dyn Mechanism>; 4] = [
        Box::new(Plain::new("alice", "secret").unwrap()),
        Box::new(OAuthBearer::new("token").unwrap()),
        Box::new(KAFKAS[4].begin()),
        Box::new(PROVEN.clone()),
    ];
    for mechanism in &mut mechanisms[..3] {
        mechanism.respond(None).unwrap();
    }
    mechanisms
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_challenge_makes_a_mechanism_panic(challenges in proptest::collection::vec("[ -~]{0,40}|[rsivemp]=[ -~]{0,60}|\\PC{0,20}", 1..4)) {
        for mut mechanism in mechanisms() {
            for challenge in &challenges {
                let _ = mechanism.respond(Some(challenge.as_bytes()));
            }
            let debug = format!("{mechanism:?}");
            prop_assert!(!debug.contains("secret") && !debug.contains("token") && !debug.contains("pencil"), "{}", debug);
        }
    }

    #[test]
    fn nor_does_one_with_a_byte_changed(at in 0usize..100, byte: u8) {
        let [_, challenge, _, signature] = KAFKAS[4].messages;
        let change = |message: &str| {
            let mut bytes = message.as_bytes().to_vec();
            let at = at % bytes.len();
            let same = std::mem::replace(&mut bytes[at], byte) == byte;
            (bytes, same)
        };
        let mut all = mechanisms();
        let (bytes, same) = change(signature);
        prop_assert_eq!(all[3].respond(Some(&bytes)).is_ok(), same);
        let (bytes, _) = change(challenge);
        let _ = all[2].respond(Some(&bytes));
    }
}
