//! Logs: structured events to stderr, as text or as JSON lines. Also turns panics into events.

use std::{io, panic};

use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Text for people, JSON for collectors.
    pub format: LogFormat,
    /// A level, or `target=level` directives, as of tracing-subscriber's `EnvFilter`.
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
    #[error("the log filter is malformed: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else has set up logging in this process.
    #[error(transparent)]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

impl LogSettings {
    /// Whether the filter can be understood.
    pub fn check(&self) -> Result<(), TelemetryError> {
        EnvFilter::try_new(&self.filter)?;
        Ok(())
    }
}

/// Starts logging for the whole process.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match settings.format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().with_span_list(false).boxed(),
    };
    let without_secrets = tracing_subscriber::filter::filter_fn(may_be_logged);
    tracing_subscriber::registry().with(layer.with_filter(filter).with_filter(without_secrets)).try_init()?;
    log_panics();
    Ok(())
}

/// Below "info", these write whole requests, canonical requests and credentials: no filter may switch that on.
const TALKATIVE: [&str; 7] = ["aws_", "h2", "hyper", "reqwest", "rustls", "tonic", "tower"];

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= LevelFilter::INFO || !TALKATIVE.iter().any(|prefix| metadata.target().starts_with(prefix))
}

/// A panic is a bug; its place and words belong into the log like everything else.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let words = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(place, words, "a bug: panicked");
    }));
}
