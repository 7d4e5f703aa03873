//! Logs: structured events to stderr, as text or as JSON lines, never at the cost of whoever logs ([`writer`]), and never so
//! many of one caller that others' are lost ([`LineBudget`]). Also turns panics into events.

use std::{io, panic, time::Duration};

use tokio::time::Instant;
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::metrics::LogMetrics;

mod budget;
mod writer;

pub use budget::LineBudget;
use writer::Lines;

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Text for people, JSON for collectors.
    pub format: LogFormat,
    /// Levels (off, error, warn, info, debug, trace), of the gateway or as `target=level`, with commas between. Libraries that
    /// are not named log what is at warn or above, and AWS's nothing. Release builds
    /// hold nothing below debug.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error(
        "must be off, error, warn, info, debug or trace, or such levels as target=level, with commas between; got {0:?}"
    )]
    Filter(String),
    /// The thread that writes cannot be started.
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// Somebody else has set up logging in this process.
    #[error(transparent)]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

impl LogSettings {
    /// Whether the filter can be understood.
    pub fn check(&self) -> Result<(), TelemetryError> {
        self.targets().map(drop)
    }

    /// Stricter than the library's own reading, to which a misspelt level is the name of a target, and an empty one "error".
    fn targets(&self) -> Result<Targets, TelemetryError> {
        let malformed = || TelemetryError::Filter(self.filter.clone());
        let mut targets = Targets::new();
        for directive in self.filter.split(',').map(str::trim) {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, directive),
            };
            if level.is_empty() || target.is_some_and(str::is_empty) {
                return Err(malformed());
            }
            let level = level.parse::<LevelFilter>().map_err(|_| malformed())?;
            targets = match target {
                Some(target) => targets.with_target(target, level),
                // Of everything else an operator wants to hear only what went wrong, and of AWS's crates not even that by
                // default: each failure is logged in our own words.
                None => targets
                    .with_default(level.min(LevelFilter::WARN))
                    .with_target(OURS, level)
                    .with_target(AWS, LevelFilter::OFF),
            };
        }
        Ok(targets)
    }
}

/// The log of the process. Dropping it waits, not long, until the last lines are written; logging goes on.
#[derive(Debug)]
#[must_use = "without it the last lines may be lost"]
pub struct Log(Lines);

impl Drop for Log {
    fn drop(&mut self) {
        // If they cannot be written there is nobody to tell.
        let _written = self.0.flush(LAST_LINES);
    }
}

/// Starts logging for the whole process. What cannot be written, and panics, are reported to `metrics`.
pub fn init(settings: &LogSettings, metrics: &LogMetrics) -> Result<Log, TelemetryError> {
    let filter = settings.targets()?;
    let lines = Lines::written_to(io::stderr(), metrics.clone())?;
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let layer = match settings.format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().with_span_list(false).boxed(),
    };
    let without_secrets = tracing_subscriber::filter::filter_fn(may_be_logged);
    // The outermost filter says what level anybody listens to at all, and only that one is asked: the first question of every
    // event in h2, some hundred of them in a call.
    tracing_subscriber::registry().with(layer.with_filter(without_secrets).with_filter(filter)).try_init()?;
    log_panics(metrics.clone());
    Ok(Log(lines))
}

/// What this crate's events are named after.
const OURS: &str = "glacier_gateway";
/// What those of AWS's crates are.
const AWS: &str = "aws_";
/// Fields in which AWS's crates put an error with all that it holds, such as what a credential process wrote.
const QUOTING: [&str; 4] = ["context", "creds", "err", "error"];

/// Below "info", these write whole requests, canonical requests and credentials: no filter may switch that on.
const TALKATIVE: [&str; 8] = ["aws_", "h2", "hyper", "opentelemetry", "reqwest", "rustls", "tonic", "tower"];

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let quotes = || metadata.fields().iter().any(|field| QUOTING.contains(&field.name()));
    if metadata.target().starts_with(AWS) && quotes() {
        return false;
    }
    *metadata.level() <= LevelFilter::INFO || !TALKATIVE.iter().any(|prefix| metadata.target().starts_with(prefix))
}

/// A panic is a bug; its place and words belong into the log like everything else.
fn log_panics(metrics: LogMetrics) {
    let budget = LineBudget::default();
    panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map(ToString::to_string);
        // A caller may have found out how to cause it.
        if let Some(one_in) = budget.one_in(&place, Instant::now()) {
            let words = panic.payload_as_str().unwrap_or("(no message)");
            tracing::error!(place, words, one_in, "a bug: panicked");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_everything_and_of_targets_are_understood_and_nothing_else() {
        use tracing::Level;
        let settings = |filter: &str| LogSettings { filter: filter.to_owned(), ..LogSettings::default() };
        let targets = settings("warn, glacier_gateway::app=debug,h2=off").targets().unwrap();
        let listens = |target, level| targets.would_enable(target, &level);
        assert!(listens("other", Level::WARN) && !listens("other", Level::INFO));
        assert!(listens("glacier_gateway::app", Level::DEBUG));
        assert!(!listens("h2", Level::ERROR));
        let usual = settings("info").targets().unwrap();
        let listens = |target, level| usual.would_enable(target, &level);
        assert!(listens("glacier_gateway::app", Level::INFO) && listens("glacier_gateway", Level::INFO));
        assert!(listens("h2::server", Level::WARN) && !listens("h2::server", Level::INFO));
        assert!(!listens("aws_config::profile", Level::ERROR));
        let raised = settings("info,aws_config=info").targets().unwrap();
        assert!(raised.would_enable("aws_config::profile", &Level::INFO));
        for level in ["off", "error", "WARN", "info", "debug", "trace"] {
            assert!(settings(level).check().is_ok(), "{level}");
        }
        for malformed in ["", " ", "inof", "info,", "h2", "h2=", "=info", "h2=loud", "a=info=debug", "info;warn"] {
            let problem = settings(malformed).check().unwrap_err().to_string();
            assert!(problem.ends_with(&format!("got {malformed:?}")), "{problem}");
        }
    }

    #[test]
    fn a_panic_is_counted() {
        let (before, metrics) = (panic::take_hook(), LogMetrics::default());
        log_panics(metrics.clone());
        let caught = panic::catch_unwind(|| panic!("on purpose"));
        panic::set_hook(before);
        assert!(caught.is_err());
        // Other tests may panic on purpose at the same time.
        assert!(metrics.panics_so_far() >= 1);
    }
}
