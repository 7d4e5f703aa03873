//! The two text formats of Prometheus, and which of them a scraper gets.
//!
//! The Prometheus crate writes `OpenMetrics`. What does not ask for that (a browser, curl, `promtool check metrics`) may not
//! understand it: in the older format `info` is no type, and a counter's family has the name of its series.

use std::fmt::{self, Write as _};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus's own, 0.0.4.
    Classic,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Exposition {
    /// The one for a scraper that sends this as `accept`: `OpenMetrics` if it is named and not declined.
    pub fn for_accept(accept: &str) -> Self {
        let wanted = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(OPEN_METRICS));
            let fits = |parameter: &str| match parameter.split_once('=') {
                Some(("q", weight)) => weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0),
                Some(("version", version)) => version == "1.0.0",
                Some(_) | None => true,
            };
            named && parts.all(fits)
        });
        if wanted { Self::OpenMetrics } else { Self::Classic }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The same in Prometheus's own format.
pub(super) fn classic(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut told = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The family's name is known with its type, which follows.
            help = rest.split_once(' ').map(|(_family, words)| words);
        } else if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                same => ("", same),
            };
            if let Some(words) = help.take() {
                writeln!(told, "# HELP {family}{suffix} {words}")?;
            }
            writeln!(told, "# TYPE {family}{suffix} {kind}")?;
        } else if !line.starts_with('#') {
            writeln!(told, "{line}")?;
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_for_those_who_ask_for_them() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let newer = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6, text/plain;q=0.1";
        for accept in
            [prometheus, newer, "application/openmetrics-text", "text/html, Application/OpenMetrics-Text; q=1"]
        {
            assert_eq!(Exposition::for_accept(accept), Exposition::OpenMetrics, "{accept}");
        }
        for accept in
            ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "application/openmetrics-text;version=0.0.1"]
        {
            assert_eq!(Exposition::for_accept(accept), Exposition::Classic, "{accept}");
        }
    }

    #[test]
    fn families_of_the_older_format_are_called_what_their_series_are() {
        let open_metrics = "# HELP calls How many.\n# TYPE calls counter\ncalls_total{a=\"b\"} 1\n\
                            # HELP age_seconds How old.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\nage_seconds 2.5\n\
                            # HELP build What.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
        let expected = "# HELP calls_total How many.\n# TYPE calls_total counter\ncalls_total{a=\"b\"} 1\n\
                        # HELP age_seconds How old.\n# TYPE age_seconds gauge\nage_seconds 2.5\n\
                        # HELP build_info What.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(classic(open_metrics).unwrap(), expected);
    }
}
