//! What can be given on the command line and in the environment. Values stay texts here: clap would stop at the first bad
//! one.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown as they stand")]

use clap::{ArgAction, Args, Parser, Subcommand};

/// A gRPC gateway in front of Amazon S3 Glacier's DescribeJob: signs for everybody, asks Glacier as seldom as the truth
/// allows, and says how old each answer is.
#[derive(Debug, Parser)]
#[command(name = "glacier-gateway", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve glacier.jobs.v1.JobService until SIGTERM or SIGINT
    Serve(Box<ServeArguments>),
    /// Run the gateway in front of an emulated Glacier, make some calls to it and print them
    #[cfg(feature = "emulator")]
    Demo(DemoArguments),
    /// Ask a running gateway about one job; prints the answer as JSON
    Describe(DescribeArguments),
    /// Ask a running gateway whether it is healthy; exits with 0 if it is, and with 1 if not
    Healthcheck(HealthcheckArguments),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
AWS's own variables and files keep their meaning: AWS_REGION, AWS_ENDPOINT_URL_GLACIER before AWS_ENDPOINT_URL,
AWS_IGNORE_CONFIGURED_ENDPOINT_URLS, AWS_USE_FIPS_ENDPOINT, what a profile says of these (AWS_PROFILE, AWS_CONFIG_FILE,
AWS_SHARED_CREDENTIALS_FILE), and all that the AWS credential chain reads (AWS_ACCESS_KEY_ID, profiles, web identity,
container and instance credentials). A flag comes before its GLACIER_GATEWAY_ variable, that before AWS's, and that before
the profile.
HTTPS_PROXY, NO_PROXY and AWS_CA_BUNDLE (else SSL_CERT_FILE) apply to Glacier and STS alike.

Exit codes: 0 drained after SIGTERM or SIGINT, 1 could not start, 2 the configuration is not valid,
130 or 143 stopped at once by a second signal.")]
pub struct ServeArguments {
    /// Check the configuration, say what is wrong with it and where AWS credentials would come from, and exit
    #[arg(long)]
    pub check_config: bool,
    /// With --check-config: ask for AWS credentials once, as serving would
    #[arg(long, requires = "check_config")]
    pub live: bool,
    /// Address and port to listen on
    #[arg(long, env = "GLACIER_GATEWAY_LISTEN", default_value = "127.0.0.1:50051", value_name = "ADDRESS:PORT")]
    pub listen: String,
    /// Address and port for metrics and probes over plain HTTP (/metrics, /livez, /readyz), or off
    #[arg(long, env = "GLACIER_GATEWAY_ADMIN_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS:PORT")]
    pub admin_listen: String,
    /// Address and port for nothing but grpc.health.v1 in plaintext, for probes that know no TLS, or off
    #[arg(long, env = "GLACIER_GATEWAY_HEALTH_LISTEN", default_value = "off", value_name = "ADDRESS:PORT")]
    pub health_listen: String,
    /// TLS with callers.
    #[command(flatten, next_help_heading = "TLS")]
    pub tls: TlsArguments,
    /// The edge to Glacier.
    #[command(flatten, next_help_heading = "Glacier")]
    pub glacier: GlacierArguments,
    /// How long things are believed.
    #[command(flatten, next_help_heading = "Freshness")]
    pub freshness: FreshnessArguments,
    /// The serving side.
    #[command(flatten, next_help_heading = "Serving")]
    pub server: ServerArguments,
    /// Memory for what is known about jobs: a whole number with a unit of B, KiB, MiB or GiB
    #[arg(
        long,
        env = "GLACIER_GATEWAY_CACHE_CAPACITY",
        default_value = "128MiB",
        value_name = "SIZE",
        help_heading = "Serving"
    )]
    pub cache_capacity: String,
    /// How to log.
    #[command(flatten, next_help_heading = "Logs")]
    pub log: LogArguments,
}

/// Arguments about TLS with callers.
#[derive(Debug, Args)]
pub struct TlsArguments {
    /// The certificate to show to callers and those that lead to its authority, as PEM [default: plaintext]. All three
    /// files are read again when they change
    #[arg(long = "tls-certificate", env = "GLACIER_GATEWAY_TLS_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<String>,
    /// The certificate's private key, as PEM
    #[arg(long = "tls-key", env = "GLACIER_GATEWAY_TLS_KEY", value_name = "FILE")]
    pub key: Option<String>,
    /// The authorities of callers' certificates, as PEM; with it, callers must have one. Each of them may vouch for any name:
    /// name one, or only such as you trust with every caller's name
    #[arg(long = "tls-client-ca", env = "GLACIER_GATEWAY_TLS_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<String>,
    /// Longest time for a handshake
    #[arg(
        long = "tls-handshake-timeout",
        id = "tls_handshake_timeout",
        env = "GLACIER_GATEWAY_TLS_HANDSHAKE_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub handshake_timeout: String,
}

/// Arguments about the edge to Glacier.
#[derive(Debug, Args)]
pub struct GlacierArguments {
    /// AWS region of the vaults [default: AWS_REGION, the profile's]
    #[arg(long, env = "GLACIER_GATEWAY_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Glacier's address, if it is not AWS's own for the region: http or https, host, and port if need be
    /// [default: AWS_ENDPOINT_URL_GLACIER, AWS_ENDPOINT_URL, the profile's]
    #[arg(long, env = "GLACIER_GATEWAY_ENDPOINT_URL", value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// Whether that address may be plain http on another machine, where session tokens travel in clear: true or false
    /// [default: false]
    #[arg(long, env = "GLACIER_GATEWAY_PLAINTEXT_ENDPOINT", value_name = "BOOL")]
    pub plaintext_endpoint: Option<String>,
    /// Whether to use the region's FIPS-validated endpoint: true or false [default: AWS_USE_FIPS_ENDPOINT, the profile's, false]
    #[arg(long, env = "GLACIER_GATEWAY_FIPS", value_name = "BOOL")]
    pub fips: Option<String>,
    /// Longest time to connect to Glacier
    #[arg(long, env = "GLACIER_GATEWAY_CONNECT_TIMEOUT", default_value = "1500ms", value_name = "DURATION")]
    pub connect_timeout: String,
    /// Longest time for one attempt, from sending to the end of the body
    #[arg(long, env = "GLACIER_GATEWAY_ATTEMPT_TIMEOUT", default_value = "3s", value_name = "DURATION")]
    pub attempt_timeout: String,
    /// Most attempts of one fetch, the first included: 1 to 10. A request that only corrects the one before (on another
    /// connection, with refreshed credentials, by a corrected clock) is not counted
    #[arg(long, env = "GLACIER_GATEWAY_MAX_ATTEMPTS", default_value = "3", value_name = "COUNT")]
    pub max_attempts: String,
    /// Longest time for one fetch, waiting included; callers' deadlines do not shorten it
    #[arg(long, env = "GLACIER_GATEWAY_FETCH_BUDGET", default_value = "8s", value_name = "DURATION")]
    pub fetch_budget: String,
    /// Most fetches from Glacier at once
    #[arg(long, env = "GLACIER_GATEWAY_MAX_FETCHES", default_value = "64", value_name = "COUNT")]
    pub max_fetches: String,
    /// Most fetches that wait for one of those places; one more is refused at once. While more come than Glacier takes, only as
    /// many wait as get a place in time
    #[arg(long, env = "GLACIER_GATEWAY_MAX_WAITING_FETCHES", default_value = "1024", value_name = "COUNT")]
    pub max_waiting_fetches: String,
    /// Longest time that a fetch waits for a place
    #[arg(long, env = "GLACIER_GATEWAY_MAX_FETCH_WAIT", default_value = "1s", value_name = "DURATION")]
    pub max_fetch_wait: String,
    /// Most fetches under way and waiting because one caller (by the name in its certificate) asked; one more is refused,
    /// and half of --max-fetches at most are one caller's
    #[arg(long, env = "GLACIER_GATEWAY_MAX_FETCHES_PER_CALLER", default_value = "256", value_name = "COUNT")]
    pub max_fetches_per_caller: String,
    /// Most fetches that one such caller starts in a second, in the long run; more are answered from what is known, or refused
    #[arg(long, env = "GLACIER_GATEWAY_MAX_FETCH_RATE_PER_CALLER", default_value = "50", value_name = "COUNT")]
    pub max_fetch_rate_per_caller: String,
}

/// Arguments about freshness.
#[derive(Debug, Args)]
pub struct FreshnessArguments {
    /// How long a job in progress is not asked about again (Standard, Bulk, or no tier), ±10 %
    #[arg(
        long = "fresh-in-progress",
        env = "GLACIER_GATEWAY_FRESH_IN_PROGRESS",
        default_value = "30s",
        value_name = "DURATION"
    )]
    pub in_progress: String,
    /// The same for Expedited jobs, ±10 %
    #[arg(
        long = "fresh-expedited",
        env = "GLACIER_GATEWAY_FRESH_EXPEDITED",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub expedited: String,
    /// How long "no such job" and "no such vault" are believed
    #[arg(
        long = "fresh-not-found",
        env = "GLACIER_GATEWAY_FRESH_NOT_FOUND",
        default_value = "5s",
        value_name = "DURATION"
    )]
    pub not_found: String,
    /// How long an in-progress answer past its freshness is still given while Glacier fails; 0s for never
    #[arg(
        long = "stale-in-progress",
        env = "GLACIER_GATEWAY_STALE_IN_PROGRESS",
        default_value = "10m",
        value_name = "DURATION"
    )]
    pub stale_in_progress: String,
    /// How long after its completion a completed job is still given while Glacier fails
    #[arg(
        long = "stale-completed",
        env = "GLACIER_GATEWAY_STALE_COMPLETED",
        default_value = "48h",
        value_name = "DURATION"
    )]
    pub stale_completed: String,
    /// How long a caller waits for Glacier before it is given an answer past its freshness, where there is one; the request to
    /// Glacier goes on
    #[arg(long, env = "GLACIER_GATEWAY_STALE_AFTER", default_value = "500ms", value_name = "DURATION")]
    pub stale_after: String,
    /// The smallest max_age that a caller can demand; smaller ones are raised to it
    #[arg(long, env = "GLACIER_GATEWAY_MAX_AGE_FLOOR", default_value = "1s", value_name = "DURATION")]
    pub max_age_floor: String,
}

/// Arguments about the serving side.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// Longest time for one call, whatever deadline the caller sets
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CALL_DURATION", default_value = "10s", value_name = "DURATION")]
    pub max_call_duration: String,
    /// File that says which callers, by the names in their certificates, may ask about which accounts and vaults; all
    /// others are denied. Needs client certificates
    #[arg(long, env = "GLACIER_GATEWAY_POLICY", value_name = "FILE")]
    pub policy: Option<String>,
    /// Whether to offer server reflection: true or false [default: true without --policy, false with it]
    #[arg(long, env = "GLACIER_GATEWAY_REFLECTION", value_name = "BOOL")]
    pub reflection: Option<String>,
    /// Largest request message: a whole number with a unit of B, KiB or MiB
    #[arg(long, env = "GLACIER_GATEWAY_MAX_REQUEST_SIZE", default_value = "16KiB", value_name = "SIZE")]
    pub max_request_size: String,
    /// Most connections at once, and at most half of the descriptors that the process may have; one more is closed
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CONNECTIONS", default_value = "10000", value_name = "COUNT")]
    pub max_connections: String,
    /// Most of them that one caller (by the name in its certificate) may have; one more is closed after its handshake
    /// [default: half of --max-connections]
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CONNECTIONS_PER_CALLER", value_name = "COUNT")]
    pub max_connections_per_caller: Option<String>,
    /// After the order to stop: how long to report NOT_SERVING and still accept connections
    #[arg(long, env = "GLACIER_GATEWAY_LAME_DUCK", default_value = "5s", value_name = "DURATION")]
    pub lame_duck: String,
    /// After that: how long calls may still run before what is left is closed
    #[arg(long, env = "GLACIER_GATEWAY_DRAIN", default_value = "12s", value_name = "DURATION")]
    pub drain: String,
    /// Limits of each connection.
    #[command(flatten, next_help_heading = "Connections")]
    pub connection: ConnectionArguments,
}

/// Arguments about each connection.
#[derive(Debug, Args)]
pub struct ConnectionArguments {
    /// Most calls at once
    #[arg(long, env = "GLACIER_GATEWAY_MAX_STREAMS", default_value = "200", value_name = "COUNT")]
    pub max_streams: String,
    /// HTTP/2 flow-control window of a call
    #[arg(long, env = "GLACIER_GATEWAY_STREAM_WINDOW", default_value = "64KiB", value_name = "SIZE")]
    pub stream_window: String,
    /// HTTP/2 flow-control window of the connection
    #[arg(long, env = "GLACIER_GATEWAY_CONNECTION_WINDOW", default_value = "1MiB", value_name = "SIZE")]
    pub connection_window: String,
    /// Most bytes of all headers of a call
    #[arg(long, env = "GLACIER_GATEWAY_MAX_HEADER_LIST", default_value = "16KiB", value_name = "SIZE")]
    pub max_header_list: String,
    /// Most bytes of an answer that wait to be sent
    #[arg(long, env = "GLACIER_GATEWAY_MAX_SEND_BUFFER", default_value = "64KiB", value_name = "SIZE")]
    pub max_send_buffer: String,
    /// Most calls that we may have to reset for the client's faults before the connection is closed
    #[arg(long, env = "GLACIER_GATEWAY_MAX_ERROR_RESETS", default_value = "1024", value_name = "COUNT")]
    pub max_error_resets: String,
    /// Most calls that the client may have reset before we looked at them
    #[arg(long, env = "GLACIER_GATEWAY_MAX_PENDING_RESETS", default_value = "1000", value_name = "COUNT")]
    pub max_pending_resets: String,
    /// Most calls that the client may reset in a second
    #[arg(long, env = "GLACIER_GATEWAY_MAX_RESETS", default_value = "2000", value_name = "COUNT")]
    pub max_resets: String,
    /// Most frames in a second that ask for nothing (PING, SETTINGS, empty DATA and the like), beside ten for each call
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CONTROL_FRAMES", default_value = "1000", value_name = "COUNT")]
    pub max_control_frames: String,
    /// How long the client may be silent before it is pinged
    #[arg(long, env = "GLACIER_GATEWAY_PING_INTERVAL", default_value = "60s", value_name = "DURATION")]
    pub ping_interval: String,
    /// How long it may take to answer a ping
    #[arg(long, env = "GLACIER_GATEWAY_PING_TIMEOUT", default_value = "20s", value_name = "DURATION")]
    pub ping_timeout: String,
    /// Longest time for the HTTP/2 preface, and for each frame and header block once it has begun
    #[arg(long, env = "GLACIER_GATEWAY_HANDSHAKE_TIMEOUT", default_value = "10s", value_name = "DURATION")]
    pub handshake_timeout: String,
    /// How long the client may leave unread what waits for it, and an answer without HTTP/2 window (up to twice as long)
    #[arg(long, env = "GLACIER_GATEWAY_WRITE_TIMEOUT", default_value = "30s", value_name = "DURATION")]
    pub write_timeout: String,
    /// Age at which a connection is told to go away, ±10 %, so that balancers spread callers anew
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CONNECTION_AGE", default_value = "30m", value_name = "DURATION")]
    pub max_connection_age: String,
    /// How long the calls of such a connection may then still run
    #[arg(long, env = "GLACIER_GATEWAY_MAX_CONNECTION_AGE_GRACE", default_value = "15s", value_name = "DURATION")]
    pub max_connection_age_grace: String,
}

/// Arguments about logs.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// What to log to stderr: off, error, warn, info, debug or trace, or target=level directives. A level without a target is the
    /// gateway's own; libraries log at warn then, and AWS's crates nothing
    #[arg(long = "log", env = "GLACIER_GATEWAY_LOG", default_value = "info", value_name = "FILTER")]
    pub filter: String,
    /// How to log: text or json
    #[arg(long = "log-format", env = "GLACIER_GATEWAY_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub format: String,
    /// Of this many successful calls that were answered from memory, fresh, or by joining another's fetch, one is logged: 1
    /// logs all, 0 none. Of other calls, 100 at once and then 10 a second are logged for each caller and status code
    #[arg(long = "log-hits", env = "GLACIER_GATEWAY_LOG_HITS", default_value = "1000", value_name = "COUNT")]
    pub hits: String,
}

/// Arguments of `demo`.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Address and port on which the gateway listens
    #[arg(long, env = "GLACIER_GATEWAY_LISTEN", default_value = "127.0.0.1:50051", value_name = "ADDRESS:PORT")]
    pub listen: String,
    /// What to log to stderr: off, error, warn, info, debug or trace, or target=level directives
    #[arg(long, env = "GLACIER_GATEWAY_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

/// Arguments of `describe`.
// Vault names and job ids may begin with "-", and one job id in 64 times 64 begins with "-h": so no short flags here.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct DescribeArguments {
    /// The vault's name
    #[arg(allow_hyphen_values = true)]
    pub vault: String,
    /// The job's id; may begin with "-"
    #[arg(allow_hyphen_values = true)]
    pub job: String,
    /// The account that owns the vault: 12 digits, or "-" for the account of the gateway's credentials
    #[arg(long, default_value = "-", allow_hyphen_values = true, value_name = "ID")]
    pub account: String,
    /// The oldest answer to accept, such as 30s [default: the gateway's policy]
    #[arg(long, value_name = "DURATION")]
    pub max_age: Option<humantime::Duration>,
    /// The gateway: http://HOST:PORT, or https://HOST:PORT with --tls-ca
    #[arg(long, env = "GLACIER_GATEWAY_TARGET", default_value = "http://127.0.0.1:50051", value_name = "URL")]
    pub target: String,
    /// The authorities of the gateway's certificate, as PEM
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<String>,
    /// A certificate to show to the gateway, as PEM
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// That certificate's private key, as PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// How long to wait for the answer
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    pub timeout: humantime::Duration,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArguments {
    /// Where the gateway answers health checks in plaintext: its --listen, or with TLS its --health-listen
    #[arg(long, default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    pub address: String,
    /// What to ask about: readiness, liveness, or a gRPC service [default: the gateway as a whole, its readiness]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub service: String,
    /// How long to wait for the answer
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    pub timeout: humantime::Duration,
}
