//! `serve --check-config`: the configuration is valid; what is left is where credentials come from.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::failed;
use crate::{credentials::CredentialsHolder, glacier::GlacierSettings};

/// Prints which provider `would_be` asked. With `live` settings, really asks as serving would with these, and exits with 1 if
/// that gives nothing.
pub async fn run(
    would_be: String,
    live: Option<GlacierSettings>,
    environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> ExitCode {
    let Some(GlacierSettings { endpoint, network, .. }) = live else {
        return say(&format!("AWS credentials: would come from {would_be}"));
    };
    let credentials = match CredentialsHolder::default_chain(endpoint.region(), &network, environment) {
        Ok(credentials) => credentials,
        Err(error) => return failed(&error),
    };
    match credentials.resolve_once().await {
        Ok(()) => say(&format!("AWS credentials: {}", credentials.describe().unwrap_or_default())),
        Err(error) => {
            let tried = credentials.trouble();
            failed(&format!("AWS credentials: {error}: {}", tried.as_deref().unwrap_or_default()))
        }
    }
}

fn say(line: &str) -> ExitCode {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot print: {error}")),
    }
}
