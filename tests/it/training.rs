//! What `deploy/pgo` lets the compiler learn from: a server at its ordinary work, over plaintext and over TLS on both sides.
//!
//! Callers who ask again and again about what is known, callers with new questions, and questions without an answer. Run with
//! `GATEWAY_BIN=… cargo test --test it training -- --ignored`; every answer is checked, nothing is timed.

use glacier_gateway::{
    emulator::{EmulatedJob, Tier},
    proto::v1::job_service_client::JobServiceClient,
};
use tokio::task::JoinSet;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::support::{
    file::TemporaryFile,
    gateway::{Gateway, question},
    process::Served,
    tls::{Authority, TlsFront},
};

const CONNECTIONS: usize = 4;
/// Calls at once on a connection: answers that leave together, and answers that leave alone.
const CALLERS: [usize; 2] = [32, 1];
/// Of each caller.
const HITS: [usize; 2] = [150, 600];
const MISSES: usize = 20;
/// A server with counters in it, on a busy machine, is slow, and over TLS all come from one caller.
const UNLIMITED: [&str; 6] =
    ["--max-fetch-wait", "7s", "--max-fetches-per-caller", "100000", "--max-fetch-rate-per-caller", "100000"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a load of some seconds, for deploy/pgo"]
async fn in_plaintext() {
    let upstream = Gateway::start().await;
    let endpoint = upstream.emulator.endpoint();
    let served =
        Served::start(&[&["--region", "us-east-1", "--endpoint-url", &endpoint], &UNLIMITED[..]].concat()).await;
    let target = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    work(&upstream, || target.clone().connect_lazy()).await;
    end(served).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a load of some seconds, for deploy/pgo"]
async fn over_tls_on_both_sides() {
    let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
    let pair = servers.pair("localhost", |_| {});
    let files = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
    let upstream = Gateway::start().await;
    let front = TlsFront::start(servers.issue("localhost"), upstream.emulator.address()).await;
    let endpoint = format!("https://localhost:{}", front.port);
    let [certificate, key, client_ca] = [files[0].path(), files[1].path(), callers.file()].map(|p| p.to_str().unwrap());
    let tls = ["--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", client_ca];
    let arguments = [&["--region", "us-east-1", "--endpoint-url", &endpoint], &tls[..], &UNLIMITED].concat();
    let served = Served::start_in(&arguments, |command| {
        command.env("SSL_CERT_FILE", servers.file());
    })
    .await;

    let caller = callers.pair("caller.example", |_| {});
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(servers.certificate()))
        .identity(Identity::from_pem(&caller.certificate, &caller.key));
    let port = served.address.rsplit_once(':').unwrap().1;
    let target = Channel::from_shared(format!("https://localhost:{port}")).unwrap().tls_config(tls).unwrap();
    work(&upstream, || target.clone().connect_lazy()).await;
    end(served).await;
}

/// A profile is written at an ordinary exit only.
async fn end(served: Served) {
    served.signal("TERM").await;
    assert_eq!(served.exit_code().await, Some(0));
}

async fn work(upstream: &Gateway, connect: impl Fn() -> Channel) {
    for (callers, hits) in CALLERS.into_iter().zip(HITS) {
        let mut work = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let client = JobServiceClient::new(connect());
            for _ in 0..callers {
                let jobs: Vec<_> = (0..MISSES).map(|_| upstream.add(EmulatedJob::archive(Tier::Bulk))).collect();
                work.spawn(ask(client.clone(), jobs, hits));
            }
        }
        while let Some(done) = work.join_next().await {
            done.unwrap();
        }
    }
}

async fn ask(mut client: JobServiceClient<Channel>, jobs: Vec<String>, hits: usize) {
    for job in &jobs {
        client.describe_job(question(job)).await.unwrap();
    }
    for job in jobs.iter().cycle().take(hits) {
        let answer = client.describe_job(question(job)).await.unwrap();
        assert_eq!(answer.into_inner().job.unwrap().job_id(), job);
    }
    for unknown in ["nobody", "no/body"] {
        let refused = client.describe_job(question(unknown)).await.unwrap_err();
        assert!(matches!(refused.code(), Code::NotFound | Code::InvalidArgument), "{refused}");
    }
}
