//! The credentials that requests are signed with, and the cache that the AWS default chain lacks.
//!
//! Credentials here are *current* until their own expiry and not a second less: a provider that is down for a while
//! costs nothing while they last. Near the end they are renewed in the background. Loads are single-flight and run in a
//! task of their own, so a caller that leaves cancels nothing, and a failed load is remembered for a moment, so callers
//! without credentials fail fast instead of queueing up before a dead provider.
//!
//! ```text
//! survey: what is set up? ─▶ chain: ask in order ─▶ usable: could it sign? ─▶ held here
//!    └ profiles: AWS's files      └ words: why one failed
//! ```

mod chain;
mod http_client;
mod own_account;
mod profiles;
mod survey;
mod usable;
mod words;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    credential_feature::AwsCredentialFeature,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

pub(crate) use self::own_account::OwnAccount;
pub use self::profiles::Profiles;
use self::{
    chain::{Chain, Failed, Loaded, in_our_words},
    http_client::ChainHttpClient,
    survey::Survey,
};
use crate::{
    metrics::CredentialMetrics,
    network::{NetworkSettings, NetworkSetupError},
};

/// Credentials that expire within this time are renewed in the background. AWS hands out instance credentials at least
/// five minutes before the old ones end.
const REFRESH_AHEAD: Duration = Duration::from_mins(5);
/// How long a provider may take. The chain's slowest healthy step, the instance metadata service with its retries, needs
/// about two seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the outcome of a load without use stands: long enough that a crowd costs one load, short enough that nobody
/// notices after the provider is back.
const OUTCOME_STANDS: Duration = Duration::from_secs(1);
/// So soon after a failed load nobody waits for the next one. Longer than a pause between background renewals and a load
/// together, so that a provider seen to be down makes nobody wait when the old credentials expire; short enough that a
/// rare caller gets credentials instead of old news.
const FAILURE_LASTS: Duration = Duration::from_secs(20);
/// Background renewals are this far apart, whether the provider fails or keeps giving credentials that end soon. There
/// are five minutes for about thirty of them.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// The same failure is not logged again sooner.
const LOGGED_AGAIN: Duration = Duration::from_mins(5);

/// Name that fixed credentials bear in the AWS crates' own messages.
const FIXED_PROVIDER: &str = "glacier-gateway";

/// Gives out current credentials. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct CredentialsHolder {
    shared: Arc<Shared>,
}

/// Why there are no credentials to sign with. Our own words: a provider's message may quote what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsUnavailable {
    /// No provider of the chain is configured.
    #[error("no credentials are configured")]
    NotConfigured,
    /// The provider did not answer in time.
    #[error("the credentials provider timed out")]
    TimedOut,
    /// A provider is configured wrongly.
    #[error("the credentials provider is configured wrongly")]
    InvalidConfiguration,
    /// The provider failed.
    #[error("the credentials provider failed")]
    ProviderFailed,
    /// The provider gave credentials that had expired already.
    #[error("the credentials provider gave expired credentials")]
    Expired,
}

type Outcome = Result<Credentials, CredentialsUnavailable>;

struct Shared {
    source: Source,
    own_account: OwnAccount,
    state: Mutex<State>,
}

/// Where credentials come from.
enum Source {
    Provider(SharedCredentialsProvider),
    Chain(Chain),
}

#[derive(Default)]
struct State {
    /// The newest credentials that a load gave, perhaps expired.
    current: Option<Credentials>,
    /// The load under way, if there is one; it becomes `Some` when the load ends.
    loading: Option<watch::Receiver<Option<Outcome>>>,
    /// When the last load ended, however it ended.
    load_ended: Option<Instant>,
    /// The last failure and when it happened, unless a load succeeded since.
    failure: Option<(CredentialsUnavailable, Instant)>,
    /// The last failure in full, until a load succeeds.
    tried: Option<Arc<str>>,
    /// The last failure that was logged, and when.
    logged: Option<(Failed, Instant)>,
    /// Whether Glacier has refused the current ones: the next load replaces them, whatever it gives.
    rejected: bool,
    /// When a forced refresh last gave the rejected credentials again.
    refreshed_in_vain: Option<Instant>,
    /// Told of every load.
    metrics: CredentialMetrics,
}

/// Which provider AWS's default chain would ask first, from the variables and files alone, or what is wrong with them, a line
/// for each.
pub fn survey(environment: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<String>> {
    Survey::of(environment).verdict()
}

impl CredentialsHolder {
    /// Over any provider.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self::over(Source::Provider(provider))
    }

    /// Over AWS's default chain: environment, shared files, web identity, container and instance metadata. `region` is
    /// where its security token calls go, `network` the way there. `environment` gives the process's variables, at each load
    /// anew. Loads nothing yet.
    pub fn default_chain(
        region: &str,
        network: &NetworkSettings,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self, NetworkSetupError> {
        let client = ChainHttpClient::new(network)?;
        Ok(Self::over(Source::Chain(Chain::new(region, client, Arc::new(environment)))))
    }

    fn over(source: Source) -> Self {
        let own_account = OwnAccount::default();
        Self { shared: Arc::new(Shared { source, own_account, state: Mutex::default() }) }
    }

    /// Always these credentials.
    pub fn fixed(access_key_id: &str, secret_access_key: &str, session_token: Option<String>) -> Self {
        let credentials = Credentials::new(access_key_id, secret_access_key, session_token, None, FIXED_PROVIDER);
        Self::new(SharedCredentialsProvider::new(credentials))
    }

    /// From now on `metrics` hears of every load, and now of the credentials that there are.
    pub fn report_to(&self, metrics: &CredentialMetrics) {
        let mut state = self.shared.lock();
        state.metrics = metrics.clone();
        if let Some(credentials) = &state.current {
            metrics.serving(source(credentials), credentials.expiry());
        }
    }

    /// Credentials that are valid at `wall`. Answers at once while there are some; otherwise waits for one load, at most
    /// five seconds. Fails at once if a load has lately failed; the next one then runs in the background.
    pub async fn current(&self, wall: SystemTime) -> Outcome {
        let load = {
            let mut state = self.shared.lock();
            if let Some(credentials) = state.current.clone().filter(|c| is_valid(c, wall)) {
                if ends_soon(&credentials, wall) && !within(state.load_ended, REFRESH_PAUSE) {
                    self.join_load(&mut state);
                }
                return Ok(credentials);
            }
            match state.failure {
                Some((error, at)) if within(Some(at), OUTCOME_STANDS) => return Err(error),
                Some((error, at)) if within(Some(at), FAILURE_LASTS) => {
                    self.join_load(&mut state);
                    return Err(error);
                }
                Some(_) | None => self.join_load(&mut state),
            }
        };
        let credentials = outcome_of(load).await?;
        if is_valid(&credentials, wall) {
            return Ok(credentials);
        }
        self.shared.lock().failure = Some((CredentialsUnavailable::Expired, Instant::now()));
        Err(CredentialsUnavailable::Expired)
    }

    /// Loads credentials unless some have been loaded before: what readiness asks for. Their expiry does not matter
    /// here.
    pub async fn resolve_once(&self) -> Result<(), CredentialsUnavailable> {
        let load = {
            let mut state = self.shared.lock();
            if state.current.is_some() {
                return Ok(());
            }
            match state.failure {
                Some((error, at)) if within(Some(at), OUTCOME_STANDS) => return Err(error),
                Some(_) | None => self.join_load(&mut state),
            }
        };
        outcome_of(load).await.map(|_| ())
    }

    /// Credentials other than `rejected`, which Glacier has just refused: those that somebody else has loaded meanwhile,
    /// or else those of one load shared by all who ask. A provider that insists gives `rejected` again; that stands for
    /// a second.
    pub async fn force_refresh_after(&self, rejected: &Credentials) -> Outcome {
        let load = {
            let mut state = self.shared.lock();
            if let Some(current) = state.current.clone() {
                let refreshed_already = !is_same(&current, rejected);
                if refreshed_already || within(state.refreshed_in_vain, OUTCOME_STANDS) {
                    return Ok(current);
                }
            }
            match state.failure {
                Some((error, at)) if within(Some(at), OUTCOME_STANDS) => return Err(error),
                Some(_) | None => {
                    state.rejected = true;
                    self.join_load(&mut state)
                }
            }
        };
        let credentials = outcome_of(load).await?;
        if is_same(&credentials, rejected) {
            self.shared.lock().refreshed_in_vain = Some(Instant::now());
        }
        Ok(credentials)
    }

    /// Why the last load failed, provider by provider; `None` after one that did not.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.shared.lock().tried.clone()
    }

    /// Whose credentials there are and until when, for people.
    pub fn describe(&self) -> Option<String> {
        let state = self.shared.lock();
        state.current.as_ref().map(|current| format!("{}, expires {}", source(current), expiry(current)))
    }

    /// Glacier refuses the credentials from now on, or does not any more.
    pub(crate) fn report_refused(&self, refused: bool) {
        self.shared.lock().metrics.refused(refused);
    }

    /// Which account the credentials belong to.
    pub(crate) fn own_account(&self) -> &OwnAccount {
        &self.shared.own_account
    }

    /// The load under way, or a new one in a task of its own.
    fn join_load(&self, state: &mut State) -> watch::Receiver<Option<Outcome>> {
        if let Some(load) = &state.loading {
            return load.clone();
        }
        let (tell, load) = watch::channel(None);
        state.loading = Some(load.clone());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let outcome = shared.load().await;
            let outcome = shared.finish(outcome);
            // Nobody may be waiting any more.
            let _ = tell.send(Some(outcome));
        });
        load
    }
}

impl fmt::Debug for CredentialsHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsHolder")
    }
}

impl Shared {
    /// One load. Another task runs the provider, so that a provider that panics is a provider that failed.
    async fn load(self: &Arc<Self>) -> Result<Loaded, Failed> {
        let until = Instant::now() + LOAD_TIMEOUT;
        let shared = Arc::clone(self);
        let mut running = tokio::spawn(async move { shared.source.load(until).await });
        // The chain ends at `until` itself, and then says who was silent. Another provider may not.
        let outcome = match timeout_at(until, &mut running).await {
            Ok(outcome) => outcome,
            Err(_elapsed) if matches!(self.source, Source::Chain(_)) => running.await,
            Err(_elapsed) => {
                running.abort();
                return Err(Failed::unexplained(CredentialsUnavailable::TimedOut));
            }
        };
        outcome.unwrap_or_else(|_panicked| Err(Failed::unexplained(CredentialsUnavailable::ProviderFailed)))
    }

    /// Takes what a load gave, for whoever waits for it.
    fn finish(&self, outcome: Result<Loaded, Failed>) -> Outcome {
        let mut state = self.lock();
        let now = Instant::now();
        state.loading = None;
        let rejected = std::mem::take(&mut state.rejected);
        state.load_ended = Some(now);
        match outcome {
            // A provider that is in trouble itself may give what it has, expired or about to: no reason to lose better ones.
            Ok(Loaded { credentials: worse, .. })
                if !rejected && state.current.as_ref().is_some_and(|old| ends_sooner(&worse, old)) =>
            {
                let (provider, expires) = (source(&worse), expiry(&worse));
                tracing::warn!(
                    provider,
                    expires,
                    "credentials loaded that end sooner than the old ones; keeping those"
                );
                state.metrics.kept_old();
                Ok(worse)
            }
            Ok(Loaded { credentials, passed_over }) => {
                self.own_account.loaded(&credentials);
                let (provider, expires) = (source(&credentials), expiry(&credentials));
                tracing::info!(provider, expires, passed_over, "credentials loaded");
                state.metrics.loaded(provider, credentials.expiry());
                state.current = Some(credentials.clone());
                (state.failure, state.tried, state.logged) = (None, None, None);
                Ok(credentials)
            }
            Err(failed) => {
                state.metrics.failed();
                let why = failed.why;
                state.failure = Some((why, now));
                state.tried = Some(failed.tried.as_str().into());
                state.log(failed, now);
                Err(why)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each field is valid by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    async fn load(&self, until: Instant) -> Result<Loaded, Failed> {
        match self {
            Self::Chain(chain) => chain.load(until).await,
            Self::Provider(provider) => match provider.provide_credentials().await {
                Ok(credentials) => Ok(Loaded { credentials, passed_over: None }),
                Err(error) => Err(Failed::unexplained(in_our_words(&error))),
            },
        }
    }
}

impl Failed {
    /// Nothing is known but what kind of failure it was.
    fn unexplained(why: CredentialsUnavailable) -> Self {
        Self { why, tried: why.to_string() }
    }
}

impl State {
    /// Once, and again when the cause changes or has lasted: loads are tried every few seconds.
    fn log(&mut self, failed: Failed, now: Instant) {
        let is_known =
            self.logged.as_ref().is_some_and(|(known, at)| *known == failed && now.duration_since(*at) < LOGGED_AGAIN);
        if is_known {
            return;
        }
        let (error, tried) = (failed.why, failed.tried.as_str());
        if let Some(old) = &self.current {
            // The old ones stay: they serve until they really expire.
            let (provider, expires) = (source(old), expiry(old));
            tracing::warn!(%error, tried, provider, expires, "credentials not renewed; keeping the old ones");
        } else {
            tracing::warn!(%error, tried, "no AWS credentials; trying again");
        }
        self.logged = Some((failed, now));
    }
}

async fn outcome_of(mut load: watch::Receiver<Option<Outcome>>) -> Outcome {
    match load.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(outcome)) => outcome,
        // The task went away without an outcome: the runtime is shutting down.
        Ok(None) | Err(_) => Err(CredentialsUnavailable::ProviderFailed),
    }
}

fn is_valid(credentials: &Credentials, wall: SystemTime) -> bool {
    credentials.expiry().is_none_or(|expiry| wall < expiry)
}

fn ends_sooner(one: &Credentials, other: &Credentials) -> bool {
    match (one.expiry(), other.expiry()) {
        (Some(one), Some(other)) => one < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn ends_soon(credentials: &Credentials, wall: SystemTime) -> bool {
    let left = |expiry: SystemTime| expiry.duration_since(wall).unwrap_or_default();
    credentials.expiry().is_some_and(|expiry| left(expiry) <= REFRESH_AHEAD)
}

/// Whether a signature by one is a signature by the other. Expiry and provenance do not matter.
pub(crate) fn is_same(one: &Credentials, other: &Credentials) -> bool {
    one.access_key_id() == other.access_key_id()
        && one.secret_access_key() == other.secret_access_key()
        && one.session_token() == other.session_token()
}

/// Which provider gave them, for logs and metrics. The crate keeps its own name of the provider to itself, but marks credentials with
/// what took part in getting them, the one that holds the keys first.
fn source(credentials: &Credentials) -> &'static str {
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>().map(Vec::as_slice).unwrap_or_default();
    match features.first() {
        Some(AwsCredentialFeature::CredentialsEnvVars) => "environment",
        Some(AwsCredentialFeature::CredentialsProfile) => "profile",
        // The crate marks the variables' web identity as a profile's, too.
        Some(
            AwsCredentialFeature::CredentialsProfileStsWebIdToken
            | AwsCredentialFeature::CredentialsEnvVarsStsWebIdToken
            | AwsCredentialFeature::CredentialsStsAssumeRoleWebId,
        ) => "web identity",
        Some(AwsCredentialFeature::CredentialsStsAssumeRole) => "assumed role",
        Some(AwsCredentialFeature::CredentialsProcess) => "process",
        Some(AwsCredentialFeature::CredentialsSso) => "sso",
        Some(AwsCredentialFeature::CredentialsLogin) => "login",
        Some(AwsCredentialFeature::CredentialsHttp) => "container",
        Some(AwsCredentialFeature::CredentialsImds) => "instance metadata",
        // The enum is open.
        Some(_) => "other",
        None => "fixed",
    }
}

/// When they end, as RFC 3339, for logs.
fn expiry(credentials: &Credentials) -> String {
    credentials.expiry().map_or_else(|| "never".to_owned(), |at| prost_types::Timestamp::from(at).to_string())
}

fn within(since: Option<Instant>, span: Duration) -> bool {
    since.is_some_and(|at| at.elapsed() < span)
}

#[cfg(test)]
mod tests;
