//! Places on a log, as they are written on a command line.

use std::{ops::Range, str::FromStr};

use kwal::client::{OffsetAt, Position};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Where reading begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    At(OffsetAt),
    Position(Position),
    Relative(Relative),
}

/// So many offsets after the beginning of a log, or before its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relative {
    AfterEarliest(i64),
    BeforeLatest(i64),
}

impl Relative {
    /// Returns the offset on a log; beyond an end of it there is that end.
    pub(crate) fn on(self, log: &Range<i64>) -> i64 {
        match self {
            Self::AfterEarliest(n) => log.start.saturating_add(n).min(log.end),
            Self::BeforeLatest(n) => log.end.saturating_sub(n).max(log.start),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (n, relative): (_, fn(i64) -> Self) = match text.strip_prefix("earliest+") {
            Some(n) => (n, Self::AfterEarliest),
            None => (text.strip_prefix("latest-")?, Self::BeforeLatest),
        };
        n.parse().ok().filter(|n| *n >= 0).map(relative)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::At(OffsetAt::Earliest)),
            "latest" => return Ok(Self::At(OffsetAt::Latest)),
            _ => {}
        }
        if let Some(relative) = Relative::parse(text) {
            return Ok(Self::Relative(relative));
        }
        if let Ok(offset @ 0..) = text.parse::<i64>() {
            return Ok(Self::Position(offset.into()));
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        match text.parse() {
            Ok(Time(at)) => Ok(Self::At(OffsetAt::Timestamp(at))),
            Err(_) => Err("neither earliest, latest, latest-N, an offset, a position nor a time, such as \
                           2026-03-01T00:00:00Z or @1700000000000"
                .to_owned()),
        }
    }
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Until {
    Latest,
    /// The first offset that is not read.
    Offset(i64),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(offset @ 0..) => Ok(Self::Offset(offset)),
            _ if text == "latest" => Ok(Self::Latest),
            _ => Err("neither latest nor an offset".to_owned()),
        }
    }
}

/// A time in RFC 3339, or `@` and milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Time(pub(crate) OffsetDateTime);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_prefix('@') {
            Some(ms) => ms
                .parse::<i64>()
                .ok()
                .and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()),
            None => OffsetDateTime::parse(text, &Rfc3339).ok(),
        };
        parsed.map(Self).ok_or_else(|| {
            "no time: write it as 2026-03-01T00:00:00Z, or as @ and milliseconds since the epoch".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_place() {
        let time = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        for (text, place) in [
            ("earliest", Place::At(OffsetAt::Earliest)),
            ("latest", Place::At(OffsetAt::Latest)),
            ("earliest+3", Place::Relative(Relative::AfterEarliest(3))),
            ("latest-0", Place::Relative(Relative::BeforeLatest(0))),
            ("0", Place::Position(0.into())),
            ("-:7:12", Place::Position(Position { topic_id: None, leader_epoch: Some(7), offset: 12 })),
            ("@1700000000000", Place::At(OffsetAt::Timestamp(time))),
            ("2023-11-14T22:13:20Z", Place::At(OffsetAt::Timestamp(time))),
            ("2023-11-14T23:13:20+01:00", Place::At(OffsetAt::Timestamp(time))),
        ] {
            let parsed = text.parse::<Place>().unwrap();
            match (parsed, place) {
                (Place::At(OffsetAt::Timestamp(parsed)), Place::At(OffsetAt::Timestamp(time))) => {
                    assert_eq!(parsed, time, "{text}");
                }
                (parsed, place) => assert_eq!(parsed, place, "{text}"),
            }
        }
        for text in [
            "",
            "-1",
            "soon",
            "@",
            "@x",
            "2023-11-14",
            "1:2",
            "@99999999999999999",
            "latest-",
            "latest+1",
            "earliest--1",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
            assert!(text.parse::<Until>().is_err(), "{text}");
        }
        let relative = [Relative::AfterEarliest(3), Relative::BeforeLatest(3)];
        assert_eq!(relative.map(|relative| relative.on(&(10..20))), [13, 17]);
        assert_eq!(relative.map(|relative| relative.on(&(10..12))), [12, 10]);
        assert_eq!(("latest".parse(), "3".parse()), (Ok(Until::Latest), Ok(Until::Offset(3))));
    }
}
