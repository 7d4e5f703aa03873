//! Amazon S3 Glacier over REST: the [`JobSource`] that really asks.
//!
//! One question is one signed `GET`. [`GlacierClient`] owns the connections and the limits on time and size; what to
//! send, how to sign it and what an answer means are pure functions in the modules below. Errors are in our own words;
//! Glacier's go to the log alone. [`retry`] decides whether a failed attempt is followed by another, and [`skew`] what
//! time it is at Glacier. [`network`](crate::network) is the way there.
//!
//! ```text
//! credentials ─▶ request ─▶ signing ─▶ (send) ─▶ response ─▶ description
//!                                        │           └─────▶ error        Glacier refused
//!                                        └─────────────────▶ transport    no answer at all
//!                   failure ─▶ retry, skew ─▶ again, or not
//! ```

mod endpoint;
mod error;
mod failure;
mod request;
mod response;
mod retry;
mod signing;
mod skew;
mod standing;
mod transport;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Method, Request, Response, Url};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tower::util::MapFutureLayer;

pub use self::{
    endpoint::{Endpoint, EndpointError},
    retry::{
        DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_BACKOFF, DEFAULT_THROTTLING_BASE, DEFAULT_TOKENS, DEFAULT_TRANSIENT_BASE,
        RetrySettings,
    },
    standing::{Refused, Standing},
};
use self::{
    failure::{Cause, Failure},
    response::{Answer, VaultArn},
    retry::{Bucket, Progress, Verdict},
    skew::{ClockOffset, Offset},
    standing::Judge,
    transport::Phase,
};
pub use crate::credentials::{CredentialsHolder, CredentialsUnavailable};
use crate::{
    clock::{Clock, Moment},
    credentials,
    job::{Identity, JobKey, OWN_ACCOUNT},
    metrics::{Attempt, UpstreamCode, UpstreamMetrics},
    network::{NetworkSettings, NetworkSetupError, Resolver},
    traces,
    upstream::{
        Described, Effort, Fetch, JobSource, UpstreamError, UpstreamErrorKind as Kind,
        admission::{Place, Turn},
    },
};

/// A connection inside a region takes milliseconds, one around the world a third of a second; 1.5 s survives one lost
/// SYN (sent again after 1 s) and leaves room for a second attempt in a fetch.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Glacier answers DescribeJob in tens of milliseconds; two attempts of 3 s fit the whole fetch's 8 s.
pub const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// A description has 1 to 4 KiB, with every member at its documented limit some tens.
pub const DEFAULT_BODY_LIMIT: usize = 1024 * 1024;
/// Shorter than the idle timeout of any load balancer in front of Glacier, so that seldom a connection is used that the
/// other side has just closed.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// As many as there are fetches in flight: none is closed only to be opened again.
pub const DEFAULT_MAX_IDLE_PER_HOST: usize = 64;

/// Error bodies hold a few hundred bytes. One this small is read to its end, so that the connection can be used again;
/// a larger one is cut, and status and headers decide.
const ERROR_BODY_LIMIT: usize = 64 * 1024;
/// Notices a peer that vanished while a connection idled.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// How to reach Glacier, and how long and how much to accept from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlacierSettings {
    /// Where Glacier answers, and the region that signatures name.
    pub endpoint: Endpoint,
    /// The way there.
    pub network: NetworkSettings,
    /// The most time for name, TCP and TLS together. [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// The most time for one attempt: connecting, headers and body together. [`DEFAULT_ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// The largest description accepted, in bytes. [`DEFAULT_BODY_LIMIT`].
    pub body_limit: usize,
    /// How long a connection may idle before it is closed. [`DEFAULT_IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// How many idle connections are kept. [`DEFAULT_MAX_IDLE_PER_HOST`].
    pub max_idle_per_host: usize,
    /// How failed attempts are repeated.
    pub retry: RetrySettings,
}

impl GlacierSettings {
    /// The defaults, at this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            network: NetworkSettings::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            attempt_timeout: DEFAULT_ATTEMPT_TIMEOUT,
            body_limit: DEFAULT_BODY_LIMIT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_idle_per_host: DEFAULT_MAX_IDLE_PER_HOST,
            retry: RetrySettings::default(),
        }
    }
}

/// Asks Glacier. Cheap to clone; clones share connections, credentials, retry tokens and the clock's offsets.
#[derive(Debug, Clone)]
pub struct GlacierClient {
    http: Client,
    settings: GlacierSettings,
    credentials: CredentialsHolder,
    clock: Clock,
    bucket: Arc<Bucket>,
    /// What signatures are dated by.
    offset: Arc<ClockOffset>,
    /// What answers are dated by.
    dates: Arc<ClockOffset>,
    judge: Arc<Judge>,
    metrics: UpstreamMetrics,
}

impl GlacierClient {
    /// Builds the HTTP client; connects to nothing.
    pub fn new(
        settings: GlacierSettings,
        credentials: CredentialsHolder,
        clock: Clock,
    ) -> Result<Self, NetworkSetupError> {
        Self::resolving_with(Resolver::of_the_system(), settings, credentials, clock)
    }

    fn resolving_with(
        resolver: Resolver,
        settings: GlacierSettings,
        credentials: CredentialsHolder,
        clock: Clock,
    ) -> Result<Self, NetworkSetupError> {
        let http = http_client(&settings, resolver)?;
        let bucket = Arc::new(Bucket::new(settings.retry.tokens));
        let metrics = UpstreamMetrics::default();
        let (offset, dates, judge) = Default::default();
        Ok(Self { http, settings, credentials, clock, bucket, offset, dates, judge, metrics })
    }

    /// The same, reporting its requests and retry tokens to `metrics`.
    #[must_use]
    pub fn reporting_to(self, metrics: &UpstreamMetrics) -> Self {
        let bucket = Arc::clone(&self.bucket);
        metrics.read_tokens(move || bucket.tokens().into());
        Self { metrics: metrics.clone(), ..self }
    }

    /// What Glacier's answers say about the credentials, now and later.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.judge.watch()
    }

    /// Attempts until one succeeds or no further one is worth it, and answers before the effort's end.
    async fn describe(&self, key: &JobKey, place: &Place<'_>, effort: Effort) -> Result<Described, UpstreamError> {
        let Effort { until, repeats } = effort;
        let max_attempts = if repeats { self.settings.retry.max_attempts } else { 1 };
        let settings = RetrySettings { max_attempts, ..self.settings.retry.clone() };
        let mut progress = Progress::default();
        let mut sent = false;
        let mut failed: Option<Failure> = None;
        // What the next request was paid for with.
        let mut paid = 0;
        loop {
            // Both anew for each attempt: another fetch may have found better ones meanwhile.
            let offset = self.offset.current();
            let credentials = match self.credentials(until).await {
                Ok(credentials) => credentials,
                Err(error) => return Err(UpstreamError { sent, ..error }),
            };
            let turn = match place.turn(until).await {
                Ok(turn) => turn,
                Err(held_back) => {
                    self.bucket.give(paid);
                    return Err(after(progress.requests, instead_of_another(failed, held_back.into())));
                }
            };
            progress.requests += 1;
            let outcome = self.attempt(progress.requests, key, &credentials, offset, until).await;
            report(turn, outcome.as_ref().map_err(|failure| &failure.error));
            let failure = match outcome {
                Ok(described) => {
                    self.bucket.reward(&progress);
                    return Ok(described);
                }
                Err(failure) => failure,
            };
            sent |= failure.error.sent;
            let left = until.saturating_duration_since(Instant::now());
            let tokens = self.bucket.tokens();
            let verdict = retry::decide(&settings, &failure, &progress, offset, tokens, left, fastrand::f64());
            if let Err(error) = self.follow(verdict, &failure, &credentials, until).await {
                return Err(after(progress.requests, UpstreamError { sent, ..error }));
            }
            tracing::debug!(
                job = key.as_str(),
                request = progress.requests,
                kind = failure.error.kind.name(),
                detail = failure.error.detail,
                how = verdict.name(),
                wait_ms = verdict.wait().map(|wait| wait.as_millis()),
                "asking glacier again"
            );
            paid = verdict.cost();
            progress.follow(verdict, failure.cause);
            failed = Some(Failure { error: UpstreamError { sent, ..failure.error }, ..failure });
        }
    }

    /// Does what `verdict` asks for before the next attempt. If there is to be none, the error is the fetch's.
    async fn follow(
        &self,
        verdict: Verdict,
        failure: &Failure,
        rejected: &Credentials,
        until: Instant,
    ) -> Result<(), UpstreamError> {
        match verdict {
            Verdict::GiveUp => Err(failure.error.clone()),
            Verdict::Resend => Ok(()),
            Verdict::Repeat { wait, cost } => {
                // Another fetch may have taken the last ones since they were counted.
                if !self.bucket.take(cost) {
                    return Err(failure.error.clone());
                }
                sleep(wait).await;
                Ok(())
            }
            Verdict::Refresh => match timeout_at(until, self.credentials.force_refresh_after(rejected)).await {
                Ok(Ok(fresh)) if !credentials::is_same(&fresh, rejected) => Ok(()),
                // With the same credentials the answer would be the same.
                Ok(Ok(_)) => Err(failure.error.clone()),
                // Whether Glacier rejects the gateway's identity or only these credentials is not known without others.
                Ok(Err(unavailable)) => Err(without_fresh_credentials(&failure.error, &unavailable.to_string())),
                Err(_elapsed) => Err(without_fresh_credentials(&failure.error, "no others in time")),
            },
            Verdict::CorrectClock(offset) => {
                if self.offset.keep(offset) {
                    let (offset_ms, code) = (offset.as_millis(), failure.error.glacier_code.as_deref());
                    tracing::warn!(offset_ms, code, "our clock disagrees with glacier's, which dates signatures now");
                }
                Ok(())
            }
        }
    }

    /// Valid credentials, if there are any before `until`.
    async fn credentials(&self, until: Instant) -> Result<Credentials, UpstreamError> {
        let unavailable = |why: String| UpstreamError::new(Kind::CredentialsUnavailable, false, why);
        // By our own clock: an offset that is wrong must not stop the request that would measure it anew.
        match timeout_at(until, self.credentials.current(self.clock.now().wall)).await {
            Ok(outcome) => outcome.map_err(|e| unavailable(e.to_string())),
            Err(_elapsed) => Err(unavailable("no credentials in time".to_owned())),
        }
    }

    /// One request, the `number`th of its fetch, freshly signed, and its answer. Ends at `until`, or after the attempt's own time if that is sooner.
    async fn attempt(
        &self,
        number: u32,
        key: &JobKey,
        credentials: &Credentials,
        offset: Offset,
        until: Instant,
    ) -> Result<Described, Failure> {
        let asked_at = self.clock.now();
        let left = until.saturating_duration_since(asked_at.instant);
        if left.is_zero() {
            return Err(UpstreamError::new(Kind::TimedOut, false, "no time left for an attempt").into());
        }
        let allowed = left.min(self.settings.attempt_timeout);
        let request = self.signed_request(key, credentials, offset.apply(asked_at.wall))?;
        let span = traces::current().request(request.url().as_str(), number);
        let exchange = self.exchange(request, key, asked_at);
        let outcome = timeout_at(asked_at.instant + allowed, exchange).await.unwrap_or_else(|_| {
            Err(UpstreamError::new(Kind::TimedOut, true, format!("no answer within {allowed:?}")).into())
        });
        let outcome = outcome.map_err(|failure| {
            let Failure { error, cause, offset } = failure.without_secrets(credentials);
            Failure { error: UpstreamError { asked_at: Some(asked_at.instant), ..error }, cause, offset }
        });
        let code = outcome.as_ref().map_or_else(|failure| failure.error.kind.into(), |_| UpstreamCode::Ok);
        let which = if number == 1 { Attempt::First } else { Attempt::Retry };
        self.metrics.requested(code, which, asked_at.instant.elapsed());
        span.end(code, outcome.as_ref().map_err(|failure| &failure.error));
        outcome
    }

    fn signed_request(
        &self,
        key: &JobKey,
        credentials: &Credentials,
        wall: SystemTime,
    ) -> Result<Request, UpstreamError> {
        let endpoint = &self.settings.endpoint;
        let unsigned = request::describe_job(endpoint, key);
        let signature = signing::headers(&unsigned, credentials, endpoint.region(), wall)
            .map_err(|e| UpstreamError::new(Kind::CredentialsUnavailable, false, e.to_string()))?;
        let not_a_request = || UpstreamError::new(Kind::Unexpected, false, "the request is not a legal one");
        let mut request = Request::new(Method::GET, Url::parse(&unsigned.url).map_err(|_| not_a_request())?);
        request.headers_mut().extend(unsigned.header_map().ok_or_else(not_a_request)?);
        request.headers_mut().extend(signature);
        Ok(request)
    }

    /// Sends, reads the answer within the limits, and interprets it.
    async fn exchange(&self, request: Request, key: &JobKey, asked_at: Moment) -> Result<Described, Failure> {
        let (outcome, used_before) = transport::noting_reuse(self.http.execute(request)).await;
        let mut response = outcome.map_err(|e| self.transport_failure(&e, Phase::Head { used_before }))?;
        let received_at = self.clock.now();
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = self.body(response, status, &headers).await?;
        let answer = Answer { status, headers: &headers, body: &body };
        let offset = skew::measure(&headers, asked_at, received_at);
        let job = response::interpret(&answer, key).map_err(|failure| Failure { offset, ..failure })?;
        let asked_at = Moment { wall: self.dates.follow(offset).apply(asked_at.wall), ..asked_at };
        Ok(Described { job, asked_at, request_id: error::request_id(&headers) })
    }

    /// The body chunk by chunk, and not a chunk beyond the limit.
    async fn body(&self, mut response: Response, status: StatusCode, headers: &HeaderMap) -> Result<Vec<u8>, Failure> {
        let about = |Failure { error, cause, offset }: Failure| {
            let (http_status, request_id) = (Some(status.as_u16()), error::request_id(headers));
            Failure { error: UpstreamError { http_status, request_id, ..error }, cause, offset }
        };
        let limit = if status.is_success() { self.settings.body_limit } else { ERROR_BODY_LIMIT };
        let too_large = || {
            let detail = format!("the answer is larger than {limit} bytes");
            // It would be as large again, and cost as much.
            about(Failure::new(UpstreamError::new(Kind::Malformed, true, detail), Cause::Permanent))
        };
        let declared = response.content_length().unwrap_or_default();
        if status.is_success() && declared > limit as u64 {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(body),
                // The header says all that matters of an error: a refusal is one, however little of it arrives.
                Err(_) if !status.is_success() && headers.contains_key(error::CODE_HEADER) => return Ok(body),
                Err(error) => return Err(about(self.transport_failure(&error, Phase::Body))),
            };
            if body.len() + chunk.len() > limit {
                // What follows is not read: dropping the response closes the connection.
                return if status.is_success() { Err(too_large()) } else { Ok(body) };
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn transport_failure(&self, error: &reqwest::Error, phase: Phase) -> Failure {
        transport::classify(error, phase, self.settings.connect_timeout)
    }
}

/// Glacier refused the credentials, and no others could be had: trouble of the gateway's that may end by itself.
fn without_fresh_credentials(refused: &UpstreamError, why: &str) -> UpstreamError {
    let detail = format!("{}, and fresh credentials could not be had: {why}", refused.detail);
    UpstreamError { kind: Kind::CredentialsUnavailable, detail, ..refused.clone() }
}

/// What Glacier answered counts for the rate at which it is asked; that nothing came back does not.
fn report(turn: Turn<'_>, outcome: Result<&Described, &UpstreamError>) {
    match outcome {
        Ok(_) => turn.answered(false),
        Err(error) if error.http_status.is_some() => turn.answered(error.kind == Kind::Throttled),
        Err(_) => {}
    }
}

/// The error of a fetch whose next request was held back: the last one's, unless that was to be put right by the next.
fn instead_of_another(failed: Option<Failure>, held_back: UpstreamError) -> UpstreamError {
    match failed {
        None => held_back,
        Some(Failure { cause: Cause::Credentials | Cause::Skewed, error, .. }) => {
            UpstreamError { sent: error.sent, ..held_back }
        }
        Some(Failure { error, .. }) => error,
    }
}

/// For logs: how often Glacier was asked, if more than once.
fn after(requests: u32, error: UpstreamError) -> UpstreamError {
    match requests {
        0 | 1 => error,
        _ => UpstreamError { detail: format!("{}, in request {requests} of the fetch", error.detail), ..error },
    }
}

impl JobSource for GlacierClient {
    fn describe_job<'a>(&'a self, key: JobKey, place: &'a Place<'a>, effort: Effort) -> Fetch<'a> {
        Box::pin(async move {
            let region = Some(self.settings.endpoint.region().to_owned());
            let outcome = self.describe(&key, place, effort).await;
            if let Some(refused) = self.judge.hear(&key, outcome.as_ref()) {
                self.credentials.report_refused(refused);
            }
            let described = match outcome {
                Ok(described) => described,
                Err(error) => return Err(UpstreamError { region, ..error }),
            };
            let vault = described.job.vault_arn.as_deref().and_then(VaultArn::parse);
            let own_account = self.credentials.own_account();
            if key.account_id() == OWN_ACCOUNT && vault.is_some_and(|vault| !own_account.answered(vault.account)) {
                let detail = "the description names another account than the credentials'";
                let error = UpstreamError::new(Kind::WrongJob, true, detail);
                return Err(UpstreamError { request_id: described.request_id, region, ..error });
            }
            Ok(described)
        })
    }

    fn identity(&self) -> Identity {
        self.credentials.own_account().identity()
    }
}

fn http_client(settings: &GlacierSettings, resolver: Resolver) -> Result<Client, NetworkSetupError> {
    settings.network.client(resolver, settings.connect_timeout, |client| {
        client
            .https_only(settings.endpoint.is_https())
            .connector_layer(MapFutureLayer::new(transport::note_connection))
            // A second net: the attempt's own timeout, which knows the fetch's end too, comes first.
            .timeout(settings.attempt_timeout.saturating_add(Duration::from_secs(1)))
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.max_idle_per_host)
            .tcp_keepalive(TCP_KEEPALIVE)
    })
}

#[cfg(test)]
mod tests;
