//! The credentials that requests are signed with, and the cache that the AWS default chain lacks.
//!
//! Credentials here are *current* until their own expiry and not a second less: a provider that is down for a while
//! costs nothing while they last. Near the end they are renewed in the background. Loads are single-flight and run in a
//! task of their own, so a caller that leaves cancels nothing, and a failed load is remembered for a moment, so callers
//! without credentials fail fast instead of queueing up before a dead provider.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::{Region, default_provider::credentials::DefaultCredentialsChain, provider_config::ProviderConfig};
use aws_credential_types::{
    Credentials,
    credential_feature::AwsCredentialFeature,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{GlacierSetupError, chain_client::ChainClient, network::NetworkSettings, own_account::OwnAccount};
use crate::metrics::CredentialMetrics;

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
    provider: SharedCredentialsProvider,
    own_account: OwnAccount,
    state: Mutex<State>,
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
    /// Whether Glacier has refused the current ones: the next load replaces them, whatever it gives.
    rejected: bool,
    /// When a forced refresh last gave the rejected credentials again.
    refreshed_in_vain: Option<Instant>,
    /// Told of every load.
    metrics: CredentialMetrics,
}

impl CredentialsHolder {
    /// Over any provider.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        let own_account = OwnAccount::default();
        Self { shared: Arc::new(Shared { provider, own_account, state: Mutex::default() }) }
    }

    /// Over AWS's default chain: environment, shared files, web identity, container and instance metadata. `region` is
    /// where its security token calls go, `network` the way there. Reads the environment, but loads nothing yet.
    pub async fn default_chain(region: &str, network: &NetworkSettings) -> Result<Self, GlacierSetupError> {
        let client = ChainClient::new(network).map_err(GlacierSetupError)?;
        let config = ProviderConfig::default().with_http_client(client);
        let region = Region::new(region.to_owned());
        let chain = DefaultCredentialsChain::builder().configure(config).region(region).build().await;
        Ok(Self::new(SharedCredentialsProvider::new(chain)))
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

    /// Which account the credentials belong to.
    pub(super) fn own_account(&self) -> &OwnAccount {
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
            shared.finish(&outcome);
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
    async fn load(&self) -> Outcome {
        let provider = self.provider.clone();
        let mut running = tokio::spawn(async move { provider.provide_credentials().await });
        match timeout(LOAD_TIMEOUT, &mut running).await {
            Ok(Ok(Ok(credentials))) => Ok(credentials),
            Ok(Ok(Err(error))) => Err(in_our_words(&error)),
            Ok(Err(_panicked)) => Err(CredentialsUnavailable::ProviderFailed),
            Err(_elapsed) => {
                running.abort();
                Err(CredentialsUnavailable::TimedOut)
            }
        }
    }

    fn finish(&self, outcome: &Outcome) {
        let mut state = self.lock();
        let now = Instant::now();
        state.loading = None;
        let rejected = std::mem::take(&mut state.rejected);
        state.load_ended = Some(now);
        match outcome {
            // A provider that is in trouble itself may give what it has, expired or about to: no reason to lose better ones.
            Ok(worse) if !rejected && state.current.as_ref().is_some_and(|old| ends_sooner(worse, old)) => {
                let (provider, expires) = (source(worse), expiry(worse));
                tracing::warn!(
                    provider,
                    expires,
                    "credentials loaded that end sooner than the old ones; keeping those"
                );
                state.metrics.kept_old();
            }
            Ok(credentials) => {
                self.own_account.loaded(credentials);
                let (provider, expires) = (source(credentials), expiry(credentials));
                tracing::info!(provider, expires, "credentials loaded");
                state.metrics.loaded(provider, credentials.expiry());
                state.current = Some(credentials.clone());
                state.failure = None;
            }
            Err(error) => {
                // The old ones stay: they serve until they really expire.
                if let Some(old) = &state.current {
                    let (provider, expires) = (source(old), expiry(old));
                    tracing::warn!(%error, provider, expires, "credentials not renewed; keeping the old ones");
                }
                state.metrics.failed();
                state.failure = Some((*error, now));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each field is valid by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) fn is_same(one: &Credentials, other: &Credentials) -> bool {
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

fn in_our_words(error: &CredentialsError) -> CredentialsUnavailable {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsUnavailable::NotConfigured,
        CredentialsError::ProviderTimedOut(_) => CredentialsUnavailable::TimedOut,
        CredentialsError::InvalidConfiguration(_) => CredentialsUnavailable::InvalidConfiguration,
        // The enum is open; what is new is a failure too.
        _ => CredentialsUnavailable::ProviderFailed,
    }
}

#[cfg(test)]
mod tests;
