//! Progress on a terminal.

use std::{
    fmt::{self, Display},
    io,
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use terminal_size::terminal_size_of;

/// A bar on standard error; invisible where nobody looks.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(what: &str, len: u64, unit: &str, is_hidden: bool) -> Self {
        let target = if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let columns = terminal_size_of(io::stderr()).map_or(0, |(width, _)| width.0);
        // The templates are tested.
        let style = ProgressStyle::with_template(&template(columns, unit));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("left", left);
        let bar = ProgressBar::with_draw_target(Some(len), target);
        Self { bar: bar.with_style(style).with_prefix(end(what)) }
    }

    /// Shows that so much is done.
    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Shows that so much is done, and how fast.
    pub(crate) fn set_with_rate(&self, done: u64, rate: impl Display) {
        self.set(done);
        self.bar.set_message(format!(", {rate}/s"));
    }

    /// Does something while the bar is away, such as printing.
    pub(crate) fn hide_for<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What a line of so many columns has room for: a line that is wrapped cannot be drawn over.
fn template(columns: u16, unit: &str) -> String {
    match columns {
        100.. => format!(
            "{{prefix}} {{wide_bar}} {{percent:>3}}% {{human_pos}} of {{human_len}} {unit}{{msg}}{{left}}"
        ),
        60.. => "{prefix} {wide_bar} {percent:>3}%{msg}{left}".to_owned(),
        _ => "{prefix} {percent:>3}%{left}".to_owned(),
    }
}

/// How long it may take, as far as that is known.
fn left(state: &ProgressState, line: &mut dyn fmt::Write) {
    if state.pos() > 0 {
        // A line in memory.
        let _ = write!(line, ", {:#} left", HumanDuration(state.eta()));
    }
}

/// The end of a name, which has the number of the partition.
fn end(name: &str) -> String {
    const MAX: usize = 24;
    match name.chars().count() {
        ..=MAX => name.to_owned(),
        len => format!("…{}", name.chars().skip(len + 1 - MAX).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for columns in [0, 40, 60, 100] {
            assert!(ProgressStyle::with_template(&template(columns, "offsets")).is_ok());
        }
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(end("wal/0"), "wal/0");
        assert_eq!(end("a-topic-with-a-very-long-name/12"), "…ith-a-very-long-name/12");
    }
}
