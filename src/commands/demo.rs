//! `demo`: the gateway in front of an emulated Glacier, a handful of calls over real gRPC, printed as they happen.
//!
//! Nothing is staged: the emulator speaks HTTP on a port of its own and verifies every signature, and the calls go through
//! the port that `grpcurl` uses afterwards. Only time is shorter: the running job takes seconds, not hours.

use std::{
    fmt,
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{failed, serve::Signals};
use crate::{
    app::{App, AppSettings},
    cache::CacheSettings,
    clock::Clock,
    describe::DescribeSettings,
    emulator::{EmulatedCredentials, EmulatedJob, Emulator, Settings, Tier},
    freshness::FreshnessSettings,
    glacier::{CredentialsHolder, Endpoint, GlacierSettings},
    grpc::{
        GrpcSettings,
        client::{Client, Described, Refusal},
    },
    metrics::Metrics,
    proto::v1::{DescribeJobRequest, StatusCode},
    server::ServerSettings,
};

const VAULT: &str = "photos";
const REGION: &str = "us-east-1";
const SUCCEEDED: &str = "archive-succeeded";
const RUNNING: &str = "archive-running";
const QUICK: &str = "-archive-that-takes-three-seconds";
const INVENTORY: &str = "inventory-succeeded";
const SELECT: &str = "select-succeeded";
const FORGOTTEN: &str = "archive-soon-forgotten";

/// How long the quick job runs, and how often the gateway asks about it: short, so that the change is seen.
const QUICK_LASTS: Duration = Duration::from_secs(3);
const QUICK_FRESH: Duration = Duration::from_secs(1);
/// A caller's patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo, then serves until a signal.
pub async fn run(listen: SocketAddr, metrics: Metrics) -> ExitCode {
    match Demo::start(listen, metrics).await {
        Ok(demo) => Box::pin(demo.show()).await,
        Err(error) => failed(&error),
    }
}

struct Demo {
    emulator: Emulator,
    app: App,
    signals: Signals,
}

impl Demo {
    async fn start(listen: SocketAddr, metrics: Metrics) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let signals = Signals::listen()?;
        let settings = Settings::default();
        let credentials = fixed(settings.credentials.first().ok_or("the emulator knows no credentials")?);
        let emulator = Emulator::start(0, settings).await?;
        fill(&emulator);
        let endpoint = Endpoint::resolve(REGION, false, Some(&emulator.endpoint()))?;
        let app = App::bind_reporting_to(metrics, settings_for(listen, endpoint), credentials, Clock::system()).await?;
        Ok(Self { emulator, app, signals })
    }

    /// Calls and prints while the gateway serves; then the gateway serves on.
    async fn show(self) -> ExitCode {
        let Self { emulator, app, signals } = self;
        let (first, second) = signals.in_turn();
        tokio::select! {
            code = show_until(first, emulator, app) => code,
            code = second => code,
        }
    }
}

async fn show_until(shutdown: impl Future<Output = ()>, emulator: Emulator, app: App) -> ExitCode {
    let address = app.address();
    let served = app.run(shutdown);
    tokio::pin!(served);
    let told = tokio::select! {
        // Interrupted in the middle of the tour: nothing is wrong.
        _drained = &mut served => return ExitCode::SUCCESS,
        told = tour(address, &emulator) => told,
    };
    if let Err(error) = told {
        return failed(&format!("the demo could not be printed: {error}"));
    }
    let _drained = served.await;
    emulator.stop().await;
    ExitCode::SUCCESS
}

fn fixed(credentials: &EmulatedCredentials) -> CredentialsHolder {
    CredentialsHolder::fixed(&credentials.access_key_id, &credentials.secret_access_key, None)
}

fn settings_for(listen: SocketAddr, endpoint: Endpoint) -> AppSettings {
    AppSettings {
        listen,
        admin_listen: None,
        health_listen: None,
        tls: None,
        glacier: GlacierSettings::new(endpoint),
        describe: DescribeSettings::default(),
        freshness: FreshnessSettings { expedited: QUICK_FRESH, ..FreshnessSettings::default() },
        cache: CacheSettings::default(),
        grpc: GrpcSettings::default(),
        policy: None,
        traces: None,
        // Nobody balances the demo, and whoever presses Ctrl-C wants it gone.
        server: ServerSettings { lame_duck: Duration::ZERO, ..ServerSettings::default() },
    }
}

fn fill(emulator: &Emulator) {
    let hour = Duration::from_hours(1);
    let store = emulator.store();
    store.create_vault(VAULT);
    store.add(VAULT, EmulatedJob::archive(Tier::Standard).with_id(SUCCEEDED).already_completed(hour));
    store.add(VAULT, EmulatedJob::archive(Tier::Bulk).with_id(RUNNING));
    store.add(VAULT, EmulatedJob::inventory().with_id(INVENTORY).already_completed(2 * hour));
    store.add(VAULT, EmulatedJob::select().with_id(SELECT).already_completed(3 * hour));
    let ended_a_day_ago = EmulatedJob::archive(Tier::Standard).with_id(FORGOTTEN).already_completed(24 * hour);
    store.add(VAULT, ended_a_day_ago.remembered(48 * hour));
}

/// The calls, in the order of the story.
async fn tour(address: SocketAddr, emulator: &Emulator) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut caller = Caller { client: Client::new(&format!("http://{address}"), PATIENCE)? };
    say(&format!("gateway {address}, in front of an emulated Glacier at {}\n", emulator.endpoint()))?;
    say(&Row { status: "status", cache: "cache-status", age: "age", latency: "latency", what: "call" }.to_string())?;

    caller.call("a job that has succeeded: asked from Glacier", SUCCEEDED, None).await?;
    sleep(Duration::from_millis(1100)).await;
    caller.call("the same again: from memory, and it says how old", SUCCEEDED, None).await?;

    emulator.store().add(VAULT, EmulatedJob::archive(Tier::Expedited).with_id(QUICK).lasting(QUICK_LASTS));
    caller.call("a job that takes three seconds", QUICK, None).await?;
    caller.call("asked again at once: memory is fresh enough", QUICK, None).await?;
    sleep(QUICK_LASTS).await;
    caller.call("three seconds later: asked again, and it has ended", QUICK, None).await?;

    caller.call("an inventory job", INVENTORY, None).await?;
    caller.call("a select job", SELECT, None).await?;

    caller.call("a job that ended a day ago", FORGOTTEN, None).await?;
    emulator.store().forget(FORGOTTEN);
    sleep(Duration::from_millis(1100)).await;
    let newest = Some(Duration::ZERO);
    caller.call("Glacier has forgotten it; max_age insists on news", FORGOTTEN, newest).await?;
    caller.call("a malformed request: Glacier is not asked", "not/a/job", None).await?;
    say(&format!("\n{} requests reached Glacier.\n", emulator.request_count()))?;
    say(&hints(address))?;
    Ok(())
}

struct Caller {
    client: Client,
}

impl Caller {
    async fn call(&mut self, what: &str, job_id: &str, max_age: Option<Duration>) -> Result<(), io::Error> {
        let request = DescribeJobRequest {
            account_id: String::new(),
            vault_name: VAULT.to_owned(),
            job_id: job_id.to_owned(),
            // A duration of our own making always fits.
            max_age: max_age.and_then(|age| age.try_into().ok()),
        };
        let before = Instant::now();
        let outcome = self.client.describe_job(request, PATIENCE).await;
        let latency = format!("{:.2} ms", before.elapsed().as_secs_f64() * 1e3);
        let (status, cache, age) = match &outcome {
            Ok(Described { cache_status, age, .. }) => ("OK".to_owned(), cache_status, age.as_deref()),
            Err(Refusal { code, cache_status, .. }) => (code.clone(), cache_status, None),
        };
        let cache = cache.as_deref().and_then(|status| status.split_once("; ")).map_or("-", |(_name, rest)| rest);
        let age = age.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
        let what = format!("{what}: {}", result(&outcome));
        say(&Row { status: &status, cache, age: &age, latency: &latency, what: &what }.to_string())
    }
}

/// What the caller learnt, in a few words.
fn result(outcome: &Result<Described, Refusal>) -> String {
    match outcome {
        Ok(described) => match described.response.job.as_ref().map(|job| (job.status_code(), job)) {
            Some((StatusCode::InProgress, _)) => "in progress".to_owned(),
            Some((StatusCode::Succeeded, job)) => match (job.archive_size_in_bytes, job.inventory_size_in_bytes) {
                (Some(bytes), _) => format!("succeeded, archive of {bytes} bytes"),
                (None, Some(bytes)) => format!("succeeded, inventory of {bytes} bytes"),
                (None, None) => format!("succeeded, output at {}", job.job_output_path()),
            },
            Some((StatusCode::Failed, job)) => format!("failed, {}", job.status_message()),
            Some((StatusCode::Unspecified, _)) | None => "no known status".to_owned(),
        },
        Err(refusal) => match refusal.violations.first() {
            Some((field, description)) => format!("{field} {description}"),
            None => refusal.reason.clone().unwrap_or_else(|| refusal.message.clone()),
        },
    }
}

/// A line of the table.
struct Row<'a> {
    status: &'a str,
    cache: &'a str,
    age: &'a str,
    latency: &'a str,
    what: &'a str,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, cache, age, latency, what } = self;
        write!(f, "  {status:<17} {cache:<18} {age:>4}  {latency:>9}  {what}")
    }
}

/// Commands that work as pasted.
fn hints(address: SocketAddr) -> String {
    let describe = "glacier.jobs.v1.JobService/DescribeJob";
    let ask = |job: &str| {
        format!(r#"grpcurl -plaintext -d '{{"vault_name":"{VAULT}","job_id":"{job}"}}' {address} {describe}"#)
    };
    [
        "Still serving. In another terminal:".to_owned(),
        String::new(),
        format!("  grpcurl -plaintext {address} list"),
        format!("  {}", ask(SUCCEEDED)),
        format!("  {}", ask(RUNNING)),
        format!("  grpcurl -plaintext {address} grpc.health.v1.Health/Check"),
        String::new(),
        "Ctrl-C ends it.".to_owned(),
    ]
    .join("\n")
}

fn say(line: &str) -> Result<(), io::Error> {
    writeln!(io::stdout(), "{line}")
}
