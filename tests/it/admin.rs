//! The port for operators: metrics and probes over plain HTTP, and that nobody can wear the gateway out from there.

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use glacier_gateway::{
    app::AppSettings,
    emulator::{EmulatedCredentials, EmulatedJob, Settings, Tier},
    glacier::CredentialsHolder,
    server::Drained,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::Instant,
};

use crate::support::{
    gateway::{Gateway, PATIENCE, VAULT},
    page::Page,
};

fn with_admin(settings: &mut AppSettings) {
    settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
}

async fn start() -> (Gateway, SocketAddr) {
    let gateway = Gateway::start_with(with_admin).await;
    let admin = gateway.admin_address.unwrap();
    (gateway, admin)
}

/// Gives the emulator's credentials, which end in the year 2100 and at an odd second, once it may.
#[derive(Debug)]
struct OnceOpened(watch::Receiver<bool>);

impl ProvideCredentials for OnceOpened {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let mut opened = self.0.clone();
        future::ProvideCredentials::new(async move {
            opened.wait_for(|opened| *opened).await.unwrap();
            let EmulatedCredentials { access_key_id, secret_access_key, .. } = EmulatedCredentials::default();
            let expiry = UNIX_EPOCH + Duration::from_secs(4_102_444_801);
            Ok(Credentials::new(access_key_id, secret_access_key, None, Some(expiry), "scripted"))
        })
    }
}

#[tokio::test]
async fn ready_is_told_only_between_the_first_credentials_and_the_order_to_stop() {
    let (open, opened) = watch::channel(false);
    let credentials = CredentialsHolder::new(SharedCredentialsProvider::new(OnceOpened(opened)));
    let change = |settings: &mut AppSettings| {
        with_admin(settings);
        settings.server.lame_duck = Duration::from_hours(1);
    };
    let mut gateway = Gateway::start_as(Settings::default(), credentials, change).await;
    let admin = gateway.admin_address.unwrap();
    assert_eq!(Page::get(admin, "/readyz").await.status, 503);
    assert_eq!(Page::get(admin, "/livez").await.status, 200);
    let told = Page::get(admin, "/metrics").await;
    assert!(!told.body.contains("provider="), "{told:?}");
    assert!(told.has("glacier_gateway_ready 0"), "{told:?}");

    open.send_replace(true);
    Page::wait_for(admin, "/readyz", 200).await;
    let told = Page::get(admin, "/metrics").await;
    for line in [
        "glacier_gateway_ready 1",
        "glacier_gateway_credentials_info{provider=\"fixed\"} 1",
        "glacier_gateway_credentials_expiry_timestamp_seconds{provider=\"fixed\"} 4102444801.0",
        "glacier_gateway_credentials_loads_total{result=\"loaded\"} 1",
        "glacier_gateway_credentials_loads_total{result=\"failed\"} 0",
    ] {
        assert!(told.has(line), "{line} is missing in {told:?}");
    }

    gateway.order_stop();
    Page::wait_for(admin, "/readyz", 503).await;
    assert_eq!(Page::get(admin, "/livez").await.status, 200);
    let told = Page::get(admin, "/metrics").await;
    assert!(told.has("glacier_gateway_ready 0"), "{told:?}");
}

#[tokio::test]
async fn a_failed_load_of_credentials_is_counted() {
    let credentials = CredentialsHolder::new(SharedCredentialsProvider::new(Nothing));
    let gateway = Gateway::start_as(Settings::default(), credentials, with_admin).await;
    let admin = gateway.admin_address.unwrap();
    gateway.refusal("job").await;
    let told = Page::get(admin, "/metrics").await;
    assert!(!told.has("glacier_gateway_credentials_loads_total{result=\"failed\"} 0"), "{told:?}");
    assert!(told.has("glacier_gateway_credentials_loads_total{result=\"loaded\"} 0"), "{told:?}");
    assert!(!told.body.contains("provider="), "{told:?}");
}

/// Has no credentials to give.
#[derive(Debug)]
struct Nothing;

impl ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::error::CredentialsError;
        future::ProvideCredentials::ready(Err(CredentialsError::provider_error("down")))
    }
}

#[tokio::test]
async fn values_that_the_schema_cannot_hold_are_counted() {
    let (gateway, admin) = start().await;
    let counted = async |count: u32| {
        let told = Page::get(admin, "/metrics").await;
        assert!(told.has(&format!("glacier_gateway_unrecognized_values_total {count}")), "{told:?}");
        told
    };
    let known = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&known).await.unwrap();
    counted(0).await;
    let odd = gateway.add(EmulatedJob::archive(Tier::Bulk).with("Tier", "Instant").with("Action", "Ponder"));
    gateway.ask(&odd).await.unwrap();
    let told = counted(2).await;
    for name in [VAULT, &known, &odd, "Instant", "Ponder", "123456789012"] {
        let label = format!("\"{name}\"");
        assert!(!told.body.contains(&label), "callers and Glacier choose no series: {name} in {told:?}");
    }
    gateway.ask(&odd).await.unwrap();
    counted(2).await;
}

#[tokio::test]
async fn each_page_says_what_it_is_and_there_are_no_others() {
    let (_gateway, admin) = start().await;
    let metrics = Page::get(admin, "/metrics?name=up").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{metrics:?}");
    assert!(metrics.has("# TYPE glacier_gateway_unrecognized_values_total counter"), "{metrics:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(metrics.has(&format!("glacier_gateway_build_info{{version=\"{version}\"}} 1")), "{metrics:?}");
    let index = Page::get(admin, "/").await;
    for path in ["/metrics", "/livez", "/readyz"] {
        assert!(index.status == 200 && index.body.contains(path), "{index:?}");
        let head = Page::ask(admin, "HEAD", path).await;
        assert!(head.status != 405 && head.body.is_empty(), "{head:?}");
    }
    for path in ["/metrics/", "/healthz", "//", "/%2e%2e/metrics"] {
        assert_eq!(Page::get(admin, path).await.status, 404, "{path}");
    }
    let post = Page::ask(admin, "POST", "/metrics").await;
    assert!(post.status == 405 && post.head.contains("allow: get, head"), "{post:?}");
}

#[tokio::test]
async fn a_scraper_that_asks_for_open_metrics_gets_them() {
    let (_gateway, admin) = start().await;
    // What Prometheus sends.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let metrics = Page::get_as(admin, "/metrics", accept).await;
    assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics:?}");
    assert!(metrics.has("# TYPE glacier_gateway_unrecognized_values counter"), "{metrics:?}");
    assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
}

#[tokio::test]
async fn too_many_connections_are_closed_and_silent_ones_do_not_stay() {
    let (_gateway, admin) = start().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(admin).await.unwrap());
    }
    let one_more = TcpStream::connect(admin).await.unwrap();
    assert!(Page::ask_on(one_more, "GET", "/livez").await.is_none(), "closed at once");

    let slow = silent.last_mut().unwrap();
    let asked_at = Instant::now();
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    // However it ends.
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("it is not waited for for ever");
    assert!(asked_at.elapsed() < Duration::from_secs(9), "{:?}", asked_at.elapsed());
    // The others have ended, too, or are about to.
    tokio::time::timeout(PATIENCE, async {
        loop {
            let stream = TcpStream::connect(admin).await.unwrap();
            if let Some(page) = Page::ask_on(stream, "GET", "/livez").await {
                break assert_eq!(page.status, 200);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("there is place again");
}

#[tokio::test]
async fn the_port_ends_with_the_gateway_whoever_is_connected() {
    let (mut gateway, admin) = start().await;
    let mut silent = TcpStream::connect(admin).await.unwrap();
    Page::wait_for(admin, "/readyz", 200).await;
    gateway.order_stop();
    assert_eq!(gateway.stopped().await, Drained::Completely);
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("it is closed in time");
    assert!(ended.is_err() || ended.is_ok_and(|read| read == 0));
    let refused = async {
        while TcpStream::connect(admin).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody listens any more");
}
