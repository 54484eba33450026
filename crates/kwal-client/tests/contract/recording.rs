//! What is logged on the current thread.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, set_default},
};

/// Records events and spans while it exists, one a line: the level, or `span`, then the fields.
pub(crate) struct Recording {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
    /// With a single subscriber, callsites that other tests reached first would be cached as disabled.
    _another: Dispatch,
}

impl Recording {
    /// Records what has this level or is more severe.
    pub(crate) fn at(level: Level) -> Self {
        let lines = Arc::default();
        let _another = Dispatch::new(Recorder { level, lines: Arc::default() });
        let _guard = set_default(Recorder { level, lines: Arc::clone(&lines) });
        Self { lines, _guard, _another }
    }

    /// Returns the lines since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// Returns the lines since the last time that contain a text.
    pub(crate) fn take_with(&self, text: &str) -> Vec<String> {
        self.take().into_iter().filter(|line| line.contains(text)).collect()
    }
}

struct Recorder {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn add(&self, mut line: String, record: impl FnOnce(&mut Text<'_>)) {
        record(&mut Text(&mut line));
        self.lines.lock().unwrap().push(line);
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.add(format!("span {}", span.metadata().name()), |text| span.record(text));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        self.add("span".to_owned(), |text| values.record(text));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.add(event.metadata().level().to_string(), |text| event.record(text));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}
