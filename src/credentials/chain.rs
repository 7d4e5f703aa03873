//! AWS's default chain, built anew for each load, and told what became of each provider.
//!
//! aws-config keeps the files that it has read, and the errors that it has met, for as long as a chain lives. A chain that
//! lives for one load sees a file that has come or changed since. And as aws-config's own chain says only that nothing was
//! found, its providers are asked here one after the other, in the same order and by the same rule: one that is not
//! configured is passed over, one that fails ends the load.

use std::{fmt, sync::Arc};

use aws_config::{
    Region,
    ecs::EcsCredentialsProvider,
    environment::EnvironmentVariableCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider,
    profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
    web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider},
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use tokio::time::{Instant, timeout_at};

use super::{
    CredentialsUnavailable,
    http_client::ChainHttpClient,
    profiles::selected_name,
    survey::{Provider, Stand, Survey},
    usable::usable,
    words::words,
};

/// Gives a variable's value.
pub(super) type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What becomes a chain at each load.
pub(super) struct Chain {
    region: Region,
    client: ChainHttpClient,
    environment: Environment,
}

/// Credentials, and the mistakes that were passed over on the way to them.
pub(super) struct Loaded {
    pub(super) credentials: Credentials,
    pub(super) passed_over: Option<String>,
}

/// Why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: CredentialsUnavailable,
    /// Each provider that was tried and what became of it.
    pub(super) tried: String,
}

/// The providers so far, with what became of them.
#[derive(Default)]
struct Tried {
    lines: Vec<String>,
    mistakes: Vec<String>,
}

impl Tried {
    fn note(&mut self, provider: Provider, what: impl fmt::Display) {
        self.lines.push(format!("{provider}: {what}"));
    }

    fn ended(self, why: CredentialsUnavailable) -> Failed {
        Failed { why, tried: self.lines.join("; ") }
    }
}

impl Chain {
    pub(super) fn new(region: &str, client: ChainHttpClient, environment: Environment) -> Self {
        Self { region: Region::new(region.to_owned()), client, environment }
    }

    /// One load, which ends at `until`.
    pub(super) async fn load(&self, until: Instant) -> Result<Loaded, Failed> {
        let mut tried = Tried::default();
        let config = self.provider_config();
        for (provider, stand) in Survey::of(&*self.environment).0 {
            match &stand {
                Stand::Absent(why) => tried.note(provider, why),
                Stand::PassedOver(why) => {
                    tried.note(provider, why);
                    tried.mistakes.push(format!("{provider}: {why}"));
                }
                Stand::Broken(why) => {
                    tried.note(provider, why);
                    return Err(tried.ended(CredentialsUnavailable::InvalidConfiguration));
                }
                Stand::Ready(what) => match timeout_at(until, self.ask(provider, &config)).await {
                    Ok(Ok(credentials)) => match usable(credentials, provider) {
                        Ok(credentials) => {
                            let passed_over = (!tried.mistakes.is_empty()).then(|| tried.mistakes.join("; "));
                            return Ok(Loaded { credentials, passed_over });
                        }
                        Err(why) => {
                            tried.note(provider, format_args!("{what}: {why}"));
                            return Err(tried.ended(CredentialsUnavailable::InvalidConfiguration));
                        }
                    },
                    Ok(Err(error)) => {
                        tried.note(provider, format_args!("{what}: {}", words(&error)));
                        match in_our_words(&error) {
                            // As AWS's chain has it: nobody else is asked, unless there is nobody to ask here.
                            CredentialsUnavailable::NotConfigured => {}
                            why => return Err(tried.ended(why)),
                        }
                    }
                    Err(_elapsed) => {
                        tried.note(provider, format_args!("{what}: no answer in time"));
                        return Err(tried.ended(CredentialsUnavailable::TimedOut));
                    }
                },
            }
        }
        Err(tried.ended(CredentialsUnavailable::NotConfigured))
    }

    /// How the providers reach STS, metadata and the like. Anew for each load: it holds the files that were read.
    fn provider_config(&self) -> ProviderConfig {
        let config = ProviderConfig::without_region().with_region(Some(self.region.clone()));
        config.with_http_client(self.client.clone())
    }

    async fn ask(&self, provider: Provider, config: &ProviderConfig) -> Result<Credentials, CredentialsError> {
        match provider {
            Provider::Environment => EnvironmentVariableCredentialsProvider::new().provide_credentials().await,
            Provider::Profile => {
                let profile = ProfileFileCredentialsProvider::builder().configure(config);
                profile.profile_name(selected_name(&*self.environment)).build().provide_credentials().await
            }
            Provider::WebIdentity => {
                let set = |name: &str| (self.environment)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
                let missing = || CredentialsError::not_loaded_no_source();
                let role = StaticConfiguration {
                    web_identity_token_file: set("AWS_WEB_IDENTITY_TOKEN_FILE").ok_or_else(missing)?.into(),
                    role_arn: set("AWS_ROLE_ARN").ok_or_else(missing)?,
                    session_name: set("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.to_owned()),
                };
                let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(config);
                web_identity.static_configuration(role).build().provide_credentials().await
            }
            Provider::Container => {
                EcsCredentialsProvider::builder().configure(config).build().provide_credentials().await
            }
            Provider::InstanceMetadata => {
                ImdsCredentialsProvider::builder().configure(config).build().provide_credentials().await
            }
        }
    }
}

/// What AWS's audit log shows of a session that nobody has named.
const SESSION: &str = "glacier-gateway";

pub(super) fn in_our_words(error: &CredentialsError) -> CredentialsUnavailable {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsUnavailable::NotConfigured,
        CredentialsError::ProviderTimedOut(_) => CredentialsUnavailable::TimedOut,
        CredentialsError::InvalidConfiguration(_) => CredentialsUnavailable::InvalidConfiguration,
        // The enum is open; what is new is a failure too.
        _ => CredentialsUnavailable::ProviderFailed,
    }
}
