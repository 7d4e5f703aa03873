//! `serve`: the gateway itself.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::failed;
use crate::{
    app::{App, AppSettings},
    clock::Clock,
    glacier::CredentialsHolder,
    server::tls::TlsSettings,
};

/// Binds, logs the bound address, serves until a signal, drains. A second signal ends the process at once.
pub async fn run(settings: AppSettings) -> ExitCode {
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot listen for signals: {error}")),
    };
    let endpoint = settings.glacier.endpoint.clone();
    let tls = match &settings.tls {
        None => "off",
        Some(TlsSettings { client_ca: None, .. }) => "server",
        Some(TlsSettings { client_ca: Some(_), .. }) => "mutual",
    };
    let credentials = CredentialsHolder::default_chain(endpoint.region()).await;
    let app = match App::bind(settings, credentials, Clock::system()).await {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let version = env!("CARGO_PKG_VERSION");
    let (address, admin_address) = (app.address(), app.admin_address().map(tracing::field::display));
    let health_address = app.health_address().map(tracing::field::display);
    let region = endpoint.region();
    tracing::info!(%address, tls, admin_address, health_address, %endpoint, region, version, "listening");
    let drained = app.run(signals.first_then_exit_on_second()).await;
    tracing::info!(?drained, "stopped");
    ExitCode::SUCCESS
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves at the first signal; from then on, the next one exits.
    pub(super) async fn first_then_exit_on_second(mut self) {
        self.next().await;
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!("a second signal: exiting at once");
            std::process::exit(128 + signal.as_raw_value());
        });
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
