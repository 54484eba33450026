//! Progress on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, of offsets; invisible where nobody looks.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

const TEMPLATE: &str =
    "{prefix} {wide_bar} {percent:>3}% {human_pos}/{human_len}, {per_sec}, {eta} left {msg}";

impl Progress {
    pub(super) fn new(what: String, len: u64, is_hidden: bool) -> Self {
        let target = if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        // The template is tested.
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::with_draw_target(Some(len), target).with_style(style).with_prefix(what) }
    }

    /// Shows that so many offsets are done, and a word about them.
    pub(crate) fn set(&self, done: u64, word: impl Into<String>) {
        self.bar.set_position(done);
        self.bar.set_message(word.into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
