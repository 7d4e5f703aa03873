//! HTTP/2 windows: a client that grants none for its answers is not waited for, and one that grants little is.

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use glacier_gateway::{
    emulator::{EmulatedJob, Tier},
    server::Drained,
};
use h2::client::{Builder, ResponseFuture, SendRequest};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::gateway::{Gateway, PATIENCE, question};

const WRITE_TIMEOUT: Duration = Duration::from_millis(300);

async fn start() -> Gateway {
    Gateway::start_with(|settings| settings.server.connection.write_timeout = WRITE_TIMEOUT).await
}

/// A connection that grants each answer this many bytes, and no more than is asked of it.
async fn connect(
    address: SocketAddr,
    window: u32,
) -> (SendRequest<Bytes>, impl Future<Output = Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    Builder::new().initial_window_size(window).handshake(stream).await.unwrap()
}

fn ask(client: &mut SendRequest<Bytes>, job: &str) -> ResponseFuture {
    let request = http::Request::post("http://gateway/glacier.jobs.v1.JobService/DescribeJob");
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let message = question(job).encode_to_vec();
    let prefix = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat();
    body.send_data([prefix, message].concat().into(), true).unwrap();
    answer
}

/// D11. It reads all that is written, so no byte waits for it.
#[tokio::test]
async fn a_client_that_grants_no_window_for_its_answers_is_left_and_no_other() {
    let mut gateway = start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let about = HealthCheckRequest::default();
    let mut watch = HealthClient::new(gateway.channel().await).watch(about).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    // With one byte, h2 takes the whole answer and keeps the rest of it.
    for window in [0, 1] {
        let (mut client, connection) = connect(gateway.address, window).await;
        let connection = tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..5 {
            client = client.ready().await.unwrap();
            let answer = ask(&mut client, &job);
            answers.push(tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap());
        }
        // It ends although it still has calls.
        let ended = tokio::time::timeout(PATIENCE, connection).await;
        assert!(ended.is_ok(), "still open with a window of {window}");
        drop(answers);
    }
    gateway.ask(&job).await.unwrap();
    // A stream that says nothing for longer than that is none that waits for its client.
    tokio::time::sleep(3 * WRITE_TIMEOUT).await;
    gateway.order_stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(watch);
    assert_eq!(gateway.stopped().await, Drained::Completely);
}

#[tokio::test]
async fn a_client_that_grants_little_at_a_time_gets_its_answers() {
    let gateway = start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let (mut client, connection) = connect(gateway.address, 64).await;
    tokio::spawn(connection);
    for _ in 0..3 {
        client = client.ready().await.unwrap();
        let answer = ask(&mut client, &job);
        let mut body = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap().into_body();
        let (mut length, mut pieces) = (0, 0);
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            (length, pieces) = (length + piece.len(), pieces + 1);
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        assert!(length > 128 && pieces > 2, "{length} bytes in {pieces} pieces");
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        tokio::time::sleep(2 * WRITE_TIMEOUT).await;
    }
}
