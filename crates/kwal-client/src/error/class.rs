//! An error in a word.

use std::fmt;

use super::{Error, ErrorKind};

/// What an error is, in a word: `error.type` of OpenTelemetry, and the label of metrics. The name of the
/// broker's code, or of the kind: of a finite set, whatever brokers send.
pub(crate) struct Class<'a>(pub(crate) &'a Error);

impl fmt::Display for Class<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Writes a name, and stops at what follows it.
        struct Name<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl fmt::Write for Name<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
                self.0.write_str(&text[..end])?;
                if end == text.len() { Ok(()) } else { Err(fmt::Error) }
            }
        }

        match self.0.kind() {
            ErrorKind::Broker { code, .. } => f.write_str(code.name().unwrap_or("UNKNOWN_CODE")),
            kind => {
                // It fails where the name ends.
                let _ = fmt::write(&mut Name(f), format_args!("{kind:?}"));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kwal_protocol::error_code::ErrorCode;

    use super::*;

    #[test]
    fn it_is_the_code_or_the_kind() {
        let broker = |code| Error::new(ErrorKind::Broker { code, message: Some("unbounded".to_owned()) });
        for (error, expected) in [
            (broker(ErrorCode::NOT_ENOUGH_REPLICAS), "NOT_ENOUGH_REPLICAS"),
            (broker(ErrorCode(12_345)), "UNKNOWN_CODE"),
            (Error::new(ErrorKind::Connect), "Connect"),
            (Error::new(ErrorKind::UnknownTopic { waited: Duration::ZERO }), "UnknownTopic"),
            (Error::new(ErrorKind::NoBroker { attempts: Vec::new() }), "NoBroker"),
            (Error::invalid_input("a reason"), "InvalidInput"),
        ] {
            assert_eq!(Class(&error).to_string(), expected);
        }
    }
}
