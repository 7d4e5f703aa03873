//! `serve`: the gateway itself.

use std::{future::Future, process::ExitCode};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::failed;
use crate::{
    app::{App, AppSettings},
    clock::Clock,
    glacier::CredentialsHolder,
    metrics::Metrics,
    server::{Drained, tls::TlsSettings},
};

/// Binds, logs the bound address, serves until a signal, drains. A second signal ends the process at once.
/// `environment` gives the process's variables, for AWS's credential chain.
pub async fn run(
    settings: AppSettings,
    metrics: Metrics,
    environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> ExitCode {
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
    let policy = if settings.policy.is_some() { "on" } else { "off" };
    let traces = settings.traces.as_ref().map_or_else(|| "off".to_owned(), |traces| traces.endpoint.clone());
    let network = settings.glacier.network.clone();
    let credentials = match CredentialsHolder::default_chain(endpoint.region(), &network, environment) {
        Ok(credentials) => credentials,
        Err(error) => return failed(&error),
    };
    let app = match App::bind_reporting_to(metrics, settings, credentials, Clock::system()).await {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let proxy = network.proxy.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string);
    let roots = network.roots;
    let version = env!("CARGO_PKG_VERSION");
    let (address, admin_address) = (app.address(), app.admin_address().map(tracing::field::display));
    let health_address = app.health_address().map(tracing::field::display);
    let region = endpoint.region();
    tracing::info!(
        %address, tls, policy, traces, admin_address, health_address, %endpoint, region, proxy, %roots,
        version, "listening"
    );
    let (first, second) = signals.in_turn();
    tokio::select! {
        drained = app.run(first) => {
            let closed = match drained {
                Drained::Completely => 0,
                Drained::Closed(connections) => connections,
            };
            tracing::info!(closed, "stopped");
            ExitCode::SUCCESS
        }
        code = second => code,
    }
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

    /// The first resolves at the first signal; the second at the one after, with the exit code for it. The second must
    /// be polled for either to resolve.
    pub(super) fn in_turn(mut self) -> (impl Future<Output = ()>, impl Future<Output = ExitCode>) {
        let (tell, told) = oneshot::channel();
        let first = async {
            // The sender lives as long as the second future, and so as long as this one is polled.
            let _told = told.await;
        };
        let second = async move {
            self.next().await;
            // Nobody listens if serving has ended already.
            let _heard = tell.send(());
            let signal = self.next().await;
            tracing::warn!("a second signal: exiting at once");
            u8::try_from(128 + signal.as_raw_value()).map_or(ExitCode::FAILURE, ExitCode::from)
        };
        (first, second)
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
