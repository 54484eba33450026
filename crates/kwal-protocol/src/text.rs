//! Strings of a peer in errors and logs.

use std::fmt;

/// Displays a string that a peer chose: escaped, and cut where it is long.
///
/// Control characters, line ends and characters that change the direction of a text are escaped as in Rust's
/// literals, so that a peer can neither forge lines of a log nor control a terminal. After
/// [`MAX`](Self::MAX) characters follow an ellipsis and the length in bytes.
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
            let escaped = c.escape_debug();
            // Quotes and backslashes do no harm.
            let is_plain = escaped.len() == 1 || c.is_ascii_graphic();
            let len = if is_plain { 1 } else { escaped.len() };
            if len > left {
                return write!(f, "… ({} bytes)", self.0.len());
            }
            left -= len;
            match is_plain {
                true => fmt::Write::write_char(f, c)?,
                false => escaped.fmt(f)?,
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
