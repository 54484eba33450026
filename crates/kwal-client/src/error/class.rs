//! An error in a word.

use std::fmt;

use super::{Error, ErrorKind};

/// What an error is, in a word: `error.type` of OpenTelemetry, and the label of metrics.
/// The broker's code, or the kind.
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

        // It fails where the name ends.
        let _ = match self.0.kind() {
            ErrorKind::Broker { code, .. } => fmt::write(&mut Name(f), format_args!("{code:?}")),
            kind => fmt::write(&mut Name(f), format_args!("{kind:?}")),
        };
        Ok(())
    }
}
