//! `healthcheck`: asks a gateway's `grpc.health.v1`, for containers that hold no shell and no `grpcurl`.

use std::{process::ExitCode, time::Duration};

use super::failed;
use crate::grpc::client::{self, Health};

/// What to ask about, and whom.
#[derive(Debug, Clone)]
pub struct Question {
    /// The gateway, `HOST:PORT`; plaintext.
    pub address: String,
    /// A name that the health service knows; empty for the gateway as a whole, which is its readiness.
    pub service: String,
    /// How long to wait for the answer, connecting included.
    pub timeout: Duration,
}

/// Asks, and exits with 0 only for SERVING. Silent then, since container engines keep what a health check prints.
pub async fn run(question: Question) -> ExitCode {
    match verdict(&question).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

async fn verdict(Question { address, service, timeout }: &Question) -> Result<(), String> {
    let asked = client::health(address, service, *timeout);
    match tokio::time::timeout(*timeout, asked).await {
        Err(_) => Err(format!("{address}: no answer within {timeout:?}")),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Ok(Ok(Health::Serving)) => Ok(()),
        Ok(Ok(Health::Otherwise(status))) => Err(format!("{address}: {status}")),
    }
}
