//! Strings of a peer in errors, in logs and on terminals.

use std::{char::EscapeDebug, fmt};

/// Returns what to display instead of a character that a peer chose; `None` if it may be displayed as it is.
///
/// Control characters, line ends, characters of no width or that change the direction of a text, and those
/// that are drawn over the one before them are escaped as in Rust's literals, so that a peer can neither
/// forge lines, nor control a terminal, nor hide a part of a text. Quotes and backslashes are not escaped.
///
/// ```
/// use kwal_protocol::text::escape;
///
/// assert!(escape('x').is_none() && escape('"').is_none() && escape('é').is_none());
/// assert_eq!(escape('\n').map(|escaped| escaped.to_string()).as_deref(), Some("\\n"));
/// assert_eq!(escape('\u{202e}').map(|escaped| escaped.to_string()).as_deref(), Some("\\u{202e}"));
/// ```
pub fn escape(c: char) -> Option<EscapeDebug> {
    let escaped = c.escape_debug();
    let is_plain = escaped.len() == 1 || c.is_ascii_graphic();
    (!is_plain).then_some(escaped)
}

/// Displays a string that a peer chose: escaped, and cut where it is long.
///
/// [`escape`] says what is escaped. After [`MAX`](Self::MAX) characters follow an ellipsis and the length in
/// bytes.
///
/// ```
/// use kwal_protocol::text::Printable;
///
/// assert_eq!(Printable("Invalid \"password\"").to_string(), "Invalid \"password\"");
/// assert_eq!(Printable("no\r\nERROR: \u{202e}").to_string(), "no\\r\\nERROR: \\u{202e}");
/// assert!(Printable(&"x".repeat(30_000)).to_string().ends_with("xxx… (30000 bytes)"));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// The most characters of the string that are displayed, with those that escape them.
    pub const MAX: usize = 300;
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = Self::MAX;
        for c in self.0.chars() {
            let escaped = escape(c);
            let len = escaped.as_ref().map_or(1, ExactSizeIterator::len);
            if len > left {
                return write!(f, "… ({} bytes)", self.0.len());
            }
            left -= len;
            match escaped {
                Some(escaped) => escaped.fmt(f)?,
                None => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_displayed_controls_what_displays_it() {
        for c in (0..=0xffff).filter_map(char::from_u32) {
            let text = Printable(c.encode_utf8(&mut [0; 4])).to_string();
            let is_escaped = text.len() > 1 && text.starts_with('\\');
            let is_harmful = c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{61c}');
            assert!(is_escaped || !is_harmful, "{c:?}: {text}");
            assert!(is_escaped || text.chars().eq([c]), "{c:?}: {text}");
        }
    }

    #[test]
    fn a_long_string_is_cut_and_its_length_given() {
        let max = Printable::MAX;
        for (text, shown) in [
            ("x".repeat(max), "x".repeat(max)),
            ("x".repeat(max + 1), format!("{}… ({} bytes)", "x".repeat(max), max + 1)),
            ("ü".repeat(max), "ü".repeat(max)),
            ("ü".repeat(max + 1), format!("{}… ({} bytes)", "ü".repeat(max), 2 * (max + 1))),
            ("\n".repeat(max), format!("{}… ({max} bytes)", "\\n".repeat(max / 2))),
        ] {
            assert_eq!(Printable(&text).to_string(), shown);
        }
    }
}
