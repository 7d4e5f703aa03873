//! Settings that are each valid and contradict each other.

use std::{net::SocketAddr, time::Duration};

use super::{Problems, ServeArguments};
use crate::app::AppSettings;

/// A setting by its flag, as given, and its value.
struct Setting<'a, T>(&'a str, &'a str, T);

impl ServeArguments {
    /// Notes every contradiction. Only for settings that are valid each for itself.
    pub(super) fn check_together(&self, settings: &AppSettings, problems: &mut Problems) {
        let (given, to, connection) = (&self.server, &self.glacier, &settings.server.connection);
        let connect = Setting("--connect-timeout", &to.connect_timeout, settings.glacier.connect_timeout);
        let attempt = Setting("--attempt-timeout", &to.attempt_timeout, settings.glacier.attempt_timeout);
        let budget = Setting("--fetch-budget", &to.fetch_budget, settings.describe.fetch_budget);
        let call = Setting("--max-call-duration", &given.max_call_duration, settings.grpc.max_call_duration);
        let drain = Setting("--drain", &given.drain, settings.server.drain);
        let grace =
            Setting("--max-connection-age-grace", &given.connection.max_connection_age_grace, connection.age_grace);
        let wait = Setting("--max-fetch-wait", &to.max_fetch_wait, settings.describe.limits.max_wait);
        let mut at_most = |smaller: &Setting<'_, Duration>, larger: &Setting<'_, Duration>, otherwise: &str| {
            let (Setting(flag, text, value), Setting(other, limit, most)) = (smaller, larger);
            if value > most {
                problems.add(format!("{flag}: must be at most {limit}, which is {other}: {otherwise}; got {text:?}"));
            }
        };
        at_most(&connect, &attempt, "an attempt would end before its connection is given up");
        at_most(&attempt, &budget, "a fetch would end before its first attempt");
        at_most(&budget, &call, "callers would hear that time is over, and not why the fetch failed");
        at_most(&call, &drain, "the drain would cut off calls that are in time");
        at_most(&call, &grace, "calls on a connection that has reached its age would be cut off");
        // A fetch that never got its turn would look like one that Glacier did not answer.
        let (Setting(flag, text, value), Setting(other, limit, more)) = (wait, budget);
        if value >= more {
            problems.add(format!("{flag}: {text} must be shorter than {other}, which is {limit}"));
        }

        if connection.stream_window > connection.connection_window {
            let (stream, whole) = (&given.connection.stream_window, &given.connection.connection_window);
            problems.add(format!(
                "--stream-window: must be at most {whole}, which is --connection-window: no call could use it; got {stream:?}"
            ));
        }
        let (most, of_caller) = (settings.server.max_connections, settings.server.max_connections_per_caller);
        if let Some(of_caller) = of_caller.filter(|of_caller| *of_caller > most) {
            problems.add(format!(
                "--max-connections-per-caller: must be at most {most}, which is --max-connections; got \"{of_caller}\""
            ));
        }
        distinct(settings, problems);
    }
}

/// Each listener needs an address of its own; with port 0 it gets one.
fn distinct(settings: &AppSettings, problems: &mut Problems) {
    let listeners: [(&str, Option<SocketAddr>); 3] = [
        ("--listen", Some(settings.listen)),
        ("--admin-listen", settings.admin_listen),
        ("--health-listen", settings.health_listen),
    ];
    for (index, (flag, address)) in listeners.iter().enumerate() {
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        for (other, _) in listeners[..index].iter().filter(|(_, taken)| *taken == Some(address)) {
            problems.add(format!("{flag}: must be another address than that of {other}; got \"{address}\""));
        }
    }
}
