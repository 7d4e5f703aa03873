//! The command line and the environment, turned into settings that are valid.
//!
//! Two steps: [`arguments`] says what can be given (flags, each with a `GLACIER_GATEWAY_*` variable), and here the given
//! texts become the layers' settings. Every problem is found before any is reported, and settings that are each valid are then
//! compared ([`together`]). This is the only place that reads
//! the environment, apart from the AWS credential chain.

use std::ops::RangeInclusive;

use crate::{
    app::AppSettings,
    cache::CacheSettings,
    clock::Clock,
    credentials::{self, Profiles},
    describe::{DescribeSettings, FetchLimits},
    freshness::FreshnessSettings,
    glacier::{Endpoint, GlacierSettings, RetrySettings},
    grpc::{GrpcSettings, OpenCallLimits},
    policy::{Policy, PolicyErrors, PolicySettings},
    reload,
    server::{ConnectionSettings, ServerSettings},
    telemetry::{LogFormat, LogSettings},
};

mod arguments;
mod network;
mod tls;
mod together;
mod traces;
mod values;

use arguments::ConnectionArguments;
#[cfg(feature = "emulator")]
pub use arguments::DemoArguments;
pub use arguments::{Cli, Command, DescribeArguments, HealthcheckArguments, LogArguments, ServeArguments};
pub use values::Problems;

/// Reads one environment variable; empty counts as unset.
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

/// More attempts would not fit any sensible budget of a fetch, and would hammer a service that is down.
const MOST_ATTEMPTS: u32 = 10;

/// Below a kilobyte not even an honest request fits; no window can be above 2 GiB (RFC 9113 §6.9.1).
const WINDOWS: RangeInclusive<u32> = 1024..=i32::MAX.cast_unsigned();
/// Below a kilobyte not even an honest call's headers fit.
const HEADER_LISTS: RangeInclusive<u32> = 1024..=1 << 20;
const REQUESTS: RangeInclusive<u32> = 1024..=4 << 20;
const SEND_BUFFERS: RangeInclusive<u32> = 1024..=16 << 20;

/// Without client certificates no caller has a name, so a policy would deny everybody.
const POLICY_WITHOUT_NAMES: &str = "--policy: needs callers with verified names: give --tls-client-ca, too";

const PLAINTEXT_ENDPOINT: &str = "--plaintext-endpoint";

/// A text that is given. Manifests like to set variables to nothing; that counts as not given, as with AWS's own.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Who restricts callers hardly wants to tell all of them what there is, so a policy turns reflection off by default.
fn reflection(text: Option<&str>, with_policy: bool, problems: &mut Problems) -> bool {
    given(text).map_or(!with_policy, |text| problems.switch("--reflection", text))
}

/// Everything that `serve` needs.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// The layers.
    pub app: AppSettings,
    /// How to log.
    pub log: LogSettings,
    /// Which of AWS's providers would be asked for credentials; looked up only for `--check-config`.
    pub credentials: Option<String>,
}

impl ServeArguments {
    /// The settings, or all that is wrong. `environment` gives AWS's own variables and OpenTelemetry's.
    pub fn validate(&self, environment: impl Fn(&str) -> Option<String>) -> Result<ServeSettings, Problems> {
        let mut problems = Problems::default();
        let log = self.log.read(&mut problems);
        let endpoint = self.endpoint(&environment, &mut problems);
        self.refuse_plaintext(endpoint.as_ref(), &mut problems);
        let network = network::read(&environment, &mut problems);
        let connect_timeout = problems.duration("--connect-timeout", &self.glacier.connect_timeout);
        let attempt_timeout = problems.duration("--attempt-timeout", &self.glacier.attempt_timeout);
        let max_attempts = problems.count_within("--max-attempts", &self.glacier.max_attempts, 1..=MOST_ATTEMPTS);
        let retry = RetrySettings { max_attempts, ..RetrySettings::default() };
        let glacier = endpoint.map(|endpoint| GlacierSettings {
            network,
            connect_timeout,
            attempt_timeout,
            retry,
            ..GlacierSettings::new(endpoint)
        });
        let listen = problems.parsed("--listen", &self.listen, "ADDRESS:PORT, such as 0.0.0.0:50051");
        let admin_listen = match self.admin_listen.as_str() {
            "off" => None,
            address => problems.parsed("--admin-listen", address, "ADDRESS:PORT, such as 0.0.0.0:9090, or off"),
        };
        let health_listen = match self.health_listen.as_str() {
            "off" => None,
            address => problems.parsed("--health-listen", address, "ADDRESS:PORT, such as 0.0.0.0:50052, or off"),
        };
        let tls = self.tls.read(Clock::system().now().wall, &mut problems);
        let describe = self.describe(&mut problems);
        let freshness = self.freshness(&mut problems);
        let cache = CacheSettings { capacity_bytes: problems.bytes("--cache-capacity", &self.cache_capacity) };
        let callers_are_known = given(self.tls.client_ca.as_deref()).is_some();
        let policy = self.policy(callers_are_known, &mut problems);
        let grpc = GrpcSettings {
            max_call_duration: problems.duration("--max-call-duration", &self.server.max_call_duration),
            reflection: reflection(self.server.reflection.as_deref(), policy.is_some(), &mut problems),
            max_request_bytes: problems.size_within("--max-request-size", &self.server.max_request_size, REQUESTS),
            log_hits: problems.count_or_none("--log-hits", &self.log.hits),
            open_calls: OpenCallLimits::default(),
        };
        let traces = traces::read(&environment, &mut problems);
        let server = self.server(&mut problems);
        // Credentials may come later, so that only whoever checks wants to hear of them.
        let credentials = self.check_config.then(|| credentials::survey(&environment));
        for problem in credentials.iter().filter_map(|found| found.as_ref().err()).flatten() {
            problems.add(format!("AWS credentials: {problem}"));
        }
        let credentials = credentials.and_then(Result::ok);
        let (Some(glacier), Some(listen), true) = (glacier, listen, problems.is_empty()) else { return Err(problems) };
        let app = AppSettings {
            listen,
            admin_listen,
            health_listen,
            tls,
            glacier,
            describe,
            freshness,
            cache,
            grpc,
            policy,
            traces,
            server,
        };
        self.check_together(&app, &mut problems);
        if problems.is_empty() { Ok(ServeSettings { app, log, credentials }) } else { Err(problems) }
    }

    /// Flags come before our variables (clap sees to that), those before AWS's, and those before the profile.
    fn endpoint(&self, environment: &impl Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<Endpoint> {
        let given = &self.glacier;
        let text = |value: &Option<String>| self::given(value.as_deref()).map(str::to_owned);
        let profiles = match Profiles::read(environment) {
            Ok(profiles) => Some(profiles),
            // It may hold an endpoint, which must not be overlooked.
            Err(error) => {
                problems.add(format!("AWS's shared files: {error}"));
                None
            }
        };
        let profiles = profiles.as_ref();
        let region = text(&given.region).or_else(|| profiles?.region());
        let url = text(&given.endpoint_url).or_else(|| profiles?.endpoint_url());
        let fips = match (&text(&given.fips), profiles.and_then(Profiles::use_fips)) {
            (Some(value), _) => problems.switch("--fips", value),
            (None, Some(value)) => problems.switch("AWS_USE_FIPS_ENDPOINT", &value),
            (None, None) => false,
        };
        let Some(region) = region else {
            problems.add("no region: give --region, set AWS_REGION, or name a profile that has one");
            return None;
        };
        let region = region.trim();
        Endpoint::resolve(region, fips, url.as_deref()).map_err(|error| problems.add(error.to_string())).ok()
    }

    /// Session tokens would travel in clear. On loopback nobody listens but this machine.
    fn refuse_plaintext(&self, endpoint: Option<&Endpoint>, problems: &mut Problems) {
        let given = given(self.glacier.plaintext_endpoint.as_deref());
        let allowed = given.is_some_and(|text| problems.switch(PLAINTEXT_ENDPOINT, text));
        if let Some(endpoint) = endpoint.filter(|e| !allowed && !e.is_https() && !e.is_loopback()) {
            problems.add(format!(
                "the endpoint URL: {endpoint} is plain http to another machine, which sends session tokens in clear: use \
                 https, or allow it with {PLAINTEXT_ENDPOINT} true"
            ));
        }
    }

    /// The policy's file, which is read here once for the sake of its problems.
    fn policy(&self, callers_are_known: bool, problems: &mut Problems) -> Option<PolicySettings> {
        let path = &tls::file("--policy", self.server.policy.as_ref(), problems)?;
        if !callers_are_known {
            problems.add(POLICY_WITHOUT_NAMES);
        }
        let shown = path.display();
        match reload::read(path) {
            Err(error) => problems.add(format!("--policy: cannot read {shown}: {error}")),
            Ok(content) => {
                let errors = Policy::read(&content).err();
                errors
                    .iter()
                    .flat_map(PolicyErrors::iter)
                    .for_each(|e| problems.add(format!("--policy: {shown}: {e}")));
            }
        }
        Some(PolicySettings::new(path.to_owned()))
    }

    fn describe(&self, problems: &mut Problems) -> DescribeSettings {
        let given = &self.glacier;
        let fetch_budget = problems.duration("--fetch-budget", &given.fetch_budget);
        let limits = FetchLimits {
            in_flight: problems.count("--max-fetches", &given.max_fetches),
            waiting: problems.count_or_none("--max-waiting-fetches", &given.max_waiting_fetches),
            max_wait: problems.duration("--max-fetch-wait", &given.max_fetch_wait),
            per_caller: problems.count("--max-fetches-per-caller", &given.max_fetches_per_caller),
            starts_per_caller: problems.count_within(
                "--max-fetch-rate-per-caller",
                &given.max_fetch_rate_per_caller,
                1..=u32::MAX,
            ),
        };
        let stale_after = problems.duration_or_none("--stale-after", &self.freshness.stale_after);
        DescribeSettings { fetch_budget, stale_after, limits }
    }

    fn freshness(&self, problems: &mut Problems) -> FreshnessSettings {
        let given = &self.freshness;
        FreshnessSettings {
            in_progress: problems.duration("--fresh-in-progress", &given.in_progress),
            expedited: problems.duration("--fresh-expedited", &given.expedited),
            not_found: problems.duration("--fresh-not-found", &given.not_found),
            stale_in_progress: problems.duration_or_none("--stale-in-progress", &given.stale_in_progress),
            stale_completed: problems.duration_or_none("--stale-completed", &given.stale_completed),
            max_age_floor: problems.duration("--max-age-floor", &given.max_age_floor),
            ..FreshnessSettings::default()
        }
    }

    fn server(&self, problems: &mut Problems) -> ServerSettings {
        let given = &self.server;
        ServerSettings {
            max_connections: problems.count("--max-connections", &given.max_connections),
            max_connections_per_caller: self::given(given.max_connections_per_caller.as_deref())
                .map(|text| problems.count("--max-connections-per-caller", text)),
            connection: given.connection.read(problems),
            lame_duck: problems.duration_or_none("--lame-duck", &given.lame_duck),
            drain: problems.duration("--drain", &given.drain),
        }
    }
}

impl ConnectionArguments {
    fn read(&self, problems: &mut Problems) -> ConnectionSettings {
        ConnectionSettings {
            max_concurrent_streams: problems.count("--max-streams", &self.max_streams),
            stream_window: problems.size_within("--stream-window", &self.stream_window, WINDOWS),
            connection_window: problems.size_within("--connection-window", &self.connection_window, WINDOWS),
            max_header_list: problems.size_within("--max-header-list", &self.max_header_list, HEADER_LISTS),
            max_local_error_resets: problems.count("--max-error-resets", &self.max_error_resets),
            max_pending_accept_resets: problems.count("--max-pending-resets", &self.max_pending_resets),
            max_send_buffer: problems.size_within("--max-send-buffer", &self.max_send_buffer, SEND_BUFFERS),
            ping_interval: problems.duration("--ping-interval", &self.ping_interval),
            ping_timeout: problems.duration("--ping-timeout", &self.ping_timeout),
            handshake_timeout: problems.duration("--handshake-timeout", &self.handshake_timeout),
            write_timeout: problems.duration("--write-timeout", &self.write_timeout),
            max_control_frames: problems.count("--max-control-frames", &self.max_control_frames),
            max_resets: problems.count("--max-resets", &self.max_resets),
            max_age: problems.duration("--max-connection-age", &self.max_connection_age),
            age_grace: problems.duration("--max-connection-age-grace", &self.max_connection_age_grace),
        }
    }
}

impl LogArguments {
    fn read(&self, problems: &mut Problems) -> LogSettings {
        let format = match self.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                problems.add(format!("--log-format: must be text or json; got {other:?}"));
                LogFormat::Text
            }
        };
        let log = LogSettings { format, filter: self.filter.clone() };
        if let Err(error) = log.check() {
            problems.add(format!("--log: {error}"));
        }
        log
    }
}

#[cfg(feature = "emulator")]
impl DemoArguments {
    /// The address to listen on and how to log, or all that is wrong.
    pub fn validate(&self) -> Result<(std::net::SocketAddr, LogSettings), Problems> {
        let mut problems = Problems::default();
        let listen = problems.parsed("--listen", &self.listen, "ADDRESS:PORT, such as 127.0.0.1:50052");
        let log = LogArguments { filter: self.log.clone(), format: "text".to_owned(), hits: "1".to_owned() };
        let log = log.read(&mut problems);
        listen.filter(|_| problems.is_empty()).map(|listen| (listen, log)).ok_or(problems)
    }
}

#[cfg(test)]
mod tests;
