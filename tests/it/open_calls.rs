//! Limits on open calls: what exceeds one is refused, others are answered, and each lets go again.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt as _;
use glacier_gateway::{
    emulator::{EmulatedJob, Tier},
    grpc::OpenCallLimits,
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{
    gateway::{Gateway, PATIENCE, Refusal},
    page::Page,
    raw::{CHECK, DESCRIBE_JOB, REFLECTION, RawCall, RawConnection, WATCH},
};

const ENOUGH: u32 = 65_535;

async fn start(change: impl FnOnce(&mut OpenCallLimits)) -> Gateway {
    Gateway::start_with(|settings| {
        let any = "127.0.0.1:0".parse().unwrap();
        (settings.admin_listen, settings.health_listen) = (Some(any), Some(any));
        settings.grpc.max_call_duration = Duration::from_hours(1);
        change(&mut settings.grpc.open_calls);
    })
    .await
}

fn is_overloaded(refusal: &Refusal) {
    assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GATEWAY_OVERLOADED"));
    assert_eq!(refusal.retry_delay(), Some(Duration::from_secs(1)));
}

fn is_over_share(refusal: &Refusal) {
    assert_eq!((refusal.code, refusal.reason()), (Code::ResourceExhausted, "CALLER_OVER_SHARE"));
    assert_eq!(refusal.retry_delay(), Some(Duration::from_secs(1)));
}

async fn refused(gateway: &Gateway, limit: &str, times: u32) {
    let line = format!("glacier_gateway_open_calls_refused_total{{limit=\"{limit}\"}} {times}");
    Page::wait_for_line(gateway.admin_address.unwrap(), "/metrics", &line).await;
}

/// The first of such calls that is not refused: that another one has ended is noticed a moment later.
async fn until_begun(mut begin: impl AsyncFnMut() -> RawCall) -> RawCall {
    let beginning = async {
        loop {
            let mut call = begin().await;
            if !call.is_refused().await {
                return call;
            }
        }
    };
    tokio::time::timeout(PATIENCE, beginning).await.expect("there is room again")
}

async fn is_probed(address: SocketAddr) {
    let mut probe = RawConnection::open(address, ENOUGH).await;
    let mut check = probe.whole(CHECK, &HealthCheckRequest { service: "liveness".to_owned() }).await;
    let mut body = check.answer().await.into_body();
    while body.data().await.is_some() {}
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

/// D19, on both ports: who keeps checks unfinished is refused more than eight, and no probe of another is.
#[tokio::test]
async fn unfinished_health_checks_are_limited_and_probes_of_others_are_answered() {
    let gateway = start(|_| {}).await;
    for address in [gateway.address, gateway.health_address.unwrap()] {
        let mut hostile = Vec::new();
        let mut oldest = None;
        for _ in 0..8 {
            let mut connection = RawConnection::open(address, ENOUGH).await;
            let mut checks = Vec::new();
            for _ in 0..8 {
                checks.push(connection.unfinished(CHECK).await);
            }
            is_over_share(&connection.unfinished(CHECK).await.refusal().await);
            oldest = oldest.or_else(|| Some(checks.remove(0)));
            hostile.push((connection, checks));
        }
        is_probed(address).await;
        // The process has its 64; the next one makes the oldest leave, whose connection may then have another.
        let mut ninth = RawConnection::open(address, ENOUGH).await;
        let unfinished = ninth.unfinished(CHECK).await;
        is_overloaded(&oldest.unwrap().refusal().await);
        // A probe whose request comes in two pieces is answered, too.
        let mut probe = ninth.unfinished(CHECK).await;
        assert!(probe.answer().now_or_never().is_none());
        probe.body.send_data(vec![0; 5].into(), true).unwrap();
        assert!(!probe.is_refused().await);
        drop((unfinished, ninth, hostile));
    }
    refused(&gateway, "connection", 16).await;
}

/// D19: what ends on a connection makes room on it.
#[tokio::test]
async fn a_check_that_ends_makes_room_on_its_connection() {
    let gateway = start(|limits| limits.others_per_connection = 1).await;
    let mut connection = RawConnection::open(gateway.address, ENOUGH).await;
    let check = connection.unfinished(CHECK).await;
    is_over_share(&connection.unfinished(CHECK).await.refusal().await);
    is_over_share(&connection.unfinished(REFLECTION).await.refusal().await);
    drop(check);
    // It begins, which needs no message.
    let _stream = until_begun(async || connection.unfinished(REFLECTION).await).await;
}

/// D19: nobody keeps others from reflection by sitting on streams.
#[tokio::test]
async fn of_too_many_reflection_streams_the_oldest_ends() {
    let gateway = start(|limits| limits.others = 2).await;
    let mut connection = RawConnection::open(gateway.address, ENOUGH).await;
    let [oldest, mut second, mut third] = [
        connection.unfinished(REFLECTION).await,
        connection.unfinished(REFLECTION).await,
        connection.unfinished(REFLECTION).await,
    ];
    is_overloaded(&oldest.refusal().await);
    for stream in [&mut second, &mut third] {
        assert!(!stream.is_refused().await);
    }
    refused(&gateway, "others", 1).await;
}

/// D19, on both ports.
#[tokio::test]
async fn a_connection_has_four_watches() {
    let gateway = start(|_| {}).await;
    for address in [gateway.address, gateway.health_address.unwrap()] {
        let mut connection = RawConnection::open(address, ENOUGH).await;
        let about = HealthCheckRequest::default();
        let mut watches = Vec::new();
        for _ in 0..4 {
            let mut watch = connection.whole(WATCH, &about).await;
            assert!(!watch.is_refused().await);
            watches.push(watch);
        }
        is_over_share(&connection.whole(WATCH, &about).await.refusal().await);
        let mut another = RawConnection::open(address, ENOUGH).await;
        assert!(!another.whole(WATCH, &about).await.is_refused().await);
        watches.clear();
        let _again = until_begun(async || connection.whole(WATCH, &about).await).await;
    }
}

/// D18: whoever waits leaves room for those whom memory answers.
#[tokio::test]
async fn of_too_many_calls_that_wait_one_more_is_refused_and_hits_are_given() {
    let gateway = start(|limits| limits.waiting = 2).await;
    let known = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&known).await.unwrap();
    let [a, b] = [EmulatedJob::archive(Tier::Bulk), EmulatedJob::archive(Tier::Bulk)].map(|job| gateway.add(job));
    let hold = gateway.emulator.faults().hold();
    let mut connection = RawConnection::open(gateway.address, ENOUGH).await;
    let mut waiting = [connection.ask(&a).await, connection.ask(&b).await];
    gateway.emulator.wait_for_requests(3).await;
    is_overloaded(&gateway.refusal("third").await);
    gateway.ask(&known).await.unwrap();
    refused(&gateway, "waiting", 1).await;
    hold.release();
    for call in &mut waiting {
        assert!(!call.is_refused().await);
    }
    assert_eq!(gateway.refusal("third").await.reason(), "JOB_NOT_FOUND", "it waits in its turn");
}

/// D18: an answer that its caller does not take is an open call until it is taken.
#[tokio::test]
async fn answers_that_are_not_taken_are_limited_until_they_are() {
    let gateway = start(|limits| limits.all = 3).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&job).await.unwrap();
    let mut connection = RawConnection::open(gateway.address, 1).await;
    let mut untaken = Vec::new();
    for _ in 0..3 {
        let mut call = connection.ask(&job).await;
        let body = call.answer().await.into_body();
        untaken.push((call, body));
    }
    is_overloaded(&gateway.refusal(&job).await);
    let (_, mut body) = untaken.pop().unwrap();
    while let Some(piece) = body.data().await {
        let length = piece.unwrap().len();
        body.flow_control().release_capacity(length).unwrap();
    }
    let room = async { while gateway.ask(&job).await.is_err() {} };
    tokio::time::timeout(PATIENCE, room).await.expect("what is taken makes room");
}

/// D18: a request that is never finished does not keep out one that is.
#[tokio::test]
async fn of_too_many_unfinished_requests_the_oldest_is_refused() {
    let gateway = start(|limits| limits.unfinished = 1).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let mut connection = RawConnection::open(gateway.address, ENOUGH).await;
    let older = connection.unfinished(DESCRIBE_JOB).await;
    let _newer = connection.unfinished(DESCRIBE_JOB).await;
    is_overloaded(&older.refusal().await);
    refused(&gateway, "unfinished", 1).await;
    gateway.ask(&job).await.unwrap();
}
