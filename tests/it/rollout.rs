//! Replicas are replaced one after the other in the middle of a load, and no caller notices.
//!
//! Run by hand against the release binary, with more rounds:
//! `ROUNDS=20 GATEWAY_BIN=target/release/glacier-gateway cargo test --test it rollout -- --nocapture`.

use std::{
    env,
    error::Error as _,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use glacier_gateway::{
    emulator::{EmulatedJob, Tier},
    proto::v1::job_service_client::JobServiceClient,
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    gateway::{Gateway, PATIENCE, channel, question},
    process::Served,
};

const CALLERS: usize = 64;
/// Calls between two replacements, so that each comes in the middle of a load.
const CALLS: u64 = 2000;

/// Whether the connection was told to go away before the server took the call, so that it may be sent again (RFC 9113
/// §6.8). hyper's client leaves that to its caller.
fn was_never_taken(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
}

/// What a balancer does: new connections go to the replica of which it has heard last that it serves.
#[derive(Clone)]
struct Balanced(watch::Receiver<SocketAddr>);

impl tower::Service<http::Uri> for Balanced {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let address = *self.0.borrow();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn replica(endpoint: &str) -> Served {
    let flags = ["--region", "us-east-1", "--endpoint-url", endpoint, "--log", "warn,glacier_gateway::commands=info"];
    Served::start(&[&flags[..], &["--lame-duck", "300ms", "--drain", "10s"]].concat()).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test by hand is told how long to run; the gateway reads nothing of it"
)]
fn rounds() -> u64 {
    env::var("ROUNDS").map_or(2, |rounds| rounds.parse().unwrap())
}

/// Resolves once the replica says that it does, or does not, serve.
async fn says(replica: &Served, wanted: ServingStatus) {
    let mut health = HealthClient::new(channel(replica.address.parse().unwrap()).await);
    let about = HealthCheckRequest { service: String::new() };
    let mut news = health.watch(about).await.unwrap().into_inner();
    while news.message().await.unwrap().unwrap().status() != wanted {}
}

/// P1.
#[tokio::test(flavor = "multi_thread")]
async fn no_caller_notices_that_replicas_are_replaced_under_load() {
    let rounds = rounds();
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1)));
    let endpoint = upstream.emulator.endpoint();
    let mut serving = replica(&endpoint).await;
    says(&serving, ServingStatus::Serving).await;
    let (balancer, current) = watch::channel(serving.address.parse().unwrap());

    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(Balanced(current));
    let client = JobServiceClient::with_origin(client, "http://gateway".parse().unwrap());
    let (done, resent, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (mut client, question) = (client.clone(), question(&job));
            let (done, resent, stop) = (Arc::clone(&done), Arc::clone(&resent), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    match client.describe_job(question.clone()).await {
                        Ok(_) => done.fetch_add(1, SeqCst),
                        Err(status) if was_never_taken(&status) => resent.fetch_add(1, SeqCst),
                        Err(status) => return Err(status),
                    };
                }
                Ok(())
            })
        })
        .collect();

    let start = Instant::now();
    for round in 1..=rounds {
        let enough = done.load(SeqCst) + CALLS;
        timeout(PATIENCE, async {
            while done.load(SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("calls are being made");
        let next = replica(&endpoint).await;
        says(&next, ServingStatus::Serving).await;
        serving.signal("TERM").await;
        says(&serving, ServingStatus::NotServing).await;
        balancer.send(next.address.parse().unwrap()).unwrap();
        assert_eq!(serving.exit_code().await, Some(0), "round {round}");
        serving = next;
    }
    stop.store(true, SeqCst);
    for caller in callers {
        timeout(PATIENCE, caller).await.unwrap().unwrap().expect("no call fails");
    }
    let (calls, resent) = (done.load(SeqCst), resent.load(SeqCst));
    let rate = u128::from(calls) * 1000 / start.elapsed().as_millis();
    println!("{rounds} replicas replaced, {calls} calls ({rate} a second), {resent} sent again, none failed");
    // Only what was about to be sent when a connection was told to go away.
    assert!(resent <= u64::try_from(CALLERS).unwrap() * rounds, "{resent}");
}
