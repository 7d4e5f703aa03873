//! What AWS's chain would do, without doing it: each provider in the chain's order, and whether it is configured.
//!
//! AWS's providers say little about why they were passed over, and some of their words quote what they read. So the
//! settings are looked at here, and only what is set up is run ([`super::chain`]). Nothing here asks anybody: variables and
//! files only.

use std::{fmt, fs::File};

use aws_runtime::env_config::section::Profile;

use super::{profiles::Profiles, usable};

/// A provider of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Environment,
    Profile,
    WebIdentity,
    Container,
    InstanceMetadata,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "environment",
            Self::Profile => "profile",
            Self::WebIdentity => "web identity",
            Self::Container => "container",
            Self::InstanceMetadata => "instance metadata",
        })
    }
}

/// How a provider is set up. The texts name variables, files and profiles, and hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    /// Not at all.
    Absent(String),
    /// In part, or by a name that does not exist: a mistake, over which the chain passes nevertheless.
    PassedOver(String),
    /// Wrongly, and the chain goes no further.
    Broken(String),
    /// It would be asked.
    Ready(String),
}

/// All providers in the chain's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey(pub(super) Vec<(Provider, Stand)>);

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Survey {
    /// Looks at the variables and files as they are now.
    pub(super) fn of(environment: Environment<'_>) -> Self {
        // Empty means unset, as it does to AWS's own provider of variables.
        let set = |name: &str| environment(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        Self(vec![
            (Provider::Environment, keys_in_variables(&set)),
            (Provider::Profile, profile(environment, &set)),
            (Provider::WebIdentity, web_identity(&set)),
            (Provider::Container, container(&set)),
            (Provider::InstanceMetadata, instance_metadata(&set)),
        ])
    }

    /// The provider that would be asked first, or what is wrong, a line each.
    pub(super) fn verdict(&self) -> Result<String, Vec<String>> {
        let mut problems = Vec::new();
        for (provider, stand) in &self.0 {
            match stand {
                Stand::Absent(_) => {}
                Stand::PassedOver(why) => problems.push(format!("{provider}: {why}")),
                Stand::Broken(why) => {
                    problems.push(format!("{provider}: {why}"));
                    return Err(problems);
                }
                Stand::Ready(what) if problems.is_empty() => return Ok(format!("{provider}: {what}")),
                Stand::Ready(_) => return Err(problems),
            }
        }
        if problems.is_empty() {
            problems.extend(self.0.iter().map(|(provider, stand)| format!("{provider}: {}", stand.words())));
        }
        Err(problems)
    }
}

impl Stand {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Absent(words) | Self::PassedOver(words) | Self::Broken(words) | Self::Ready(words) => words,
        }
    }
}

fn keys_in_variables(set: Environment<'_>) -> Stand {
    let secret = set("AWS_SECRET_ACCESS_KEY").or_else(|| set("SECRET_ACCESS_KEY"));
    match (set("AWS_ACCESS_KEY_ID"), secret) {
        (Some(id), Some(secret)) => {
            let token = set("AWS_SESSION_TOKEN");
            match usable::check(Provider::Environment, &id, &secret, token.as_deref()) {
                Ok(()) => Stand::Ready("AWS_ACCESS_KEY_ID".to_owned()),
                Err(why) => Stand::Broken(why),
            }
        }
        (Some(_), None) => Stand::PassedOver("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not".to_owned()),
        (None, Some(_)) => Stand::PassedOver("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not".to_owned()),
        (None, None) => Stand::Absent("AWS_ACCESS_KEY_ID is not set".to_owned()),
    }
}

fn profile(environment: Environment<'_>, set: Environment<'_>) -> Stand {
    let profiles = match Profiles::read(environment) {
        Ok(profiles) => profiles,
        Err(error) => return Stand::Broken(error),
    };
    let (name, files) = (profiles.name(), profiles.files());
    let Some(profile) = profiles.selected() else {
        return match (profiles.is_named(), set("AWS_DEFAULT_PROFILE")) {
            (true, _) => Stand::PassedOver(format!("AWS_PROFILE names {name:?}, which is not in {files}")),
            // The AWS CLI's variable alone.
            (false, Some(other)) => Stand::Absent(format!(
                "no profile {name:?} in {files}; AWS_DEFAULT_PROFILE names {other:?}, but AWS's SDKs read AWS_PROFILE only"
            )),
            (false, None) => Stand::Absent(format!("no profile {name:?} in {files}")),
        };
    };
    let about = |words: String| format!("{name:?} of {files}: {words}");
    match method(&profiles, profile, true) {
        Ok(Some(what)) => Stand::Ready(about(what)),
        Ok(None) => Stand::Absent(about("no credentials in it".to_owned())),
        Err(why) => Stand::Broken(about(why)),
    }
}

/// How a profile says to get credentials, in the order in which AWS's provider looks.
fn method(profiles: &Profiles, profile: &Profile, is_first: bool) -> Result<Option<String>, String> {
    let get = |key| profile.get(key).filter(|value| !value.is_empty());
    if !is_first && get("aws_access_key_id").is_some() && get("aws_secret_access_key").is_some() {
        return Ok(Some("aws_access_key_id".to_owned()));
    }
    if let Some(role) = get("role_arn") {
        return match (get("web_identity_token_file"), get("source_profile"), get("credential_source")) {
            (Some(file), _, _) => {
                readable("web_identity_token_file", file).map(|()| Some(format!("role {role}, by the token in {file}")))
            }
            (None, Some(_), Some(_)) => Err("both source_profile and credential_source are set".to_owned()),
            (None, None, None) => Err("role_arn needs source_profile or credential_source".to_owned()),
            (None, None, Some(source)) => Ok(Some(format!("role {role}, by credential_source {source}"))),
            (None, Some(source), None) if source == profile.name() => Ok(Some(format!("role {role}"))),
            (None, Some(source), None) => match profiles.named(source) {
                None => Err(format!("source_profile names {source:?}, which does not exist")),
                Some(_) => Ok(Some(format!("role {role}, by source_profile {source:?}"))),
            },
        };
    }
    if let Some(session) = get("sso_session").or_else(|| get("sso_start_url")) {
        if get("sso_session").is_some() && !profiles.has_sso_session(session) {
            return Err(format!("sso_session names {session:?}, which does not exist"));
        }
        if !cfg!(feature = "sign-in") {
            return Err("sso needs a gateway built with the feature sign-in".to_owned());
        }
        return match (get("sso_account_id"), get("sso_role_name")) {
            (Some(account), Some(role)) => Ok(Some(format!("sso, role {role} of account {account}"))),
            _ => Err("sso needs both sso_account_id and sso_role_name".to_owned()),
        };
    }
    if let Some(session) = get("login_session") {
        if !cfg!(feature = "sign-in") {
            return Err("login_session needs a gateway built with the feature sign-in".to_owned());
        }
        return Ok(Some(format!("login_session {session}")));
    }
    // The command is not shown: its arguments may be secret.
    if get("credential_process").is_some() {
        return Ok(Some("credential_process".to_owned()));
    }
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => usable::check(Provider::Profile, id, secret, get("aws_session_token"))
            .map(|()| Some("aws_access_key_id".to_owned())),
        (Some(_), None) => Err("aws_access_key_id is set, but aws_secret_access_key is not".to_owned()),
        (None, Some(_)) => Err("aws_secret_access_key is set, but aws_access_key_id is not".to_owned()),
        (None, None) => Ok(None),
    }
}

fn web_identity(set: Environment<'_>) -> Stand {
    match (set("AWS_WEB_IDENTITY_TOKEN_FILE"), set("AWS_ROLE_ARN")) {
        (None, _) => Stand::Absent("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_owned()),
        (Some(_), None) => Stand::PassedOver("AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not".to_owned()),
        (Some(file), Some(role)) => match readable("AWS_WEB_IDENTITY_TOKEN_FILE", &file) {
            Ok(()) => Stand::Ready(format!("role {role}, by the token in {file}")),
            Err(why) => Stand::Broken(why),
        },
    }
}

fn container(set: Environment<'_>) -> Stand {
    let token_file = set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let variable = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let Some(variable) = variable.into_iter().find(|name| set(name).is_some()) else {
        return Stand::Absent("AWS_CONTAINER_CREDENTIALS_FULL_URI is not set".to_owned());
    };
    match token_file.map(|file| readable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)) {
        Some(Err(why)) => Stand::Broken(why),
        Some(Ok(())) | None => Stand::Ready(variable.to_owned()),
    }
}

fn instance_metadata(set: Environment<'_>) -> Stand {
    if set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Stand::Absent("disabled by AWS_EC2_METADATA_DISABLED".to_owned());
    }
    Stand::Ready("the instance's role".to_owned())
}

fn readable(setting: &str, path: &str) -> Result<(), String> {
    File::open(path).map(drop).map_err(|error| format!("{setting}: cannot read {path}: {error}"))
}

#[cfg(test)]
mod tests;
