//! Certificates that change while the gateway serves, as Kubernetes changes them and as people do.

use std::{net::SocketAddr, time::Duration};

use glacier_gateway::server::tls::TlsSettings;

use crate::support::{
    file::MountedSecret,
    gateway::{Gateway, PATIENCE},
    page::Page,
    tls::{Authority, Pair},
    tls_caller::{Connection, TlsCaller},
};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CLIENT_CA: &str = "ca.crt";

/// A gateway whose certificate, key and client CA are one mounted secret.
struct Rotating {
    gateway: Gateway,
    secret: MountedSecret,
    servers: Authority,
    callers: Authority,
    /// A caller's certificate.
    caller: Pair,
}

impl Rotating {
    async fn start() -> (Self, Pair) {
        let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
        let first = servers.pair("localhost", |_| {});
        let secret = MountedSecret::new(&files(&first, &callers));
        let mut tls = TlsSettings::new(secret.path(CERTIFICATE), secret.path(KEY), Some(secret.path(CLIENT_CA)));
        tls.reload_interval = Duration::from_millis(20);
        let gateway = Gateway::start_with(|settings| {
            settings.tls = Some(tls);
            settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        });
        let caller = callers.pair("caller", |_| {});
        (Self { gateway: gateway.await, secret, servers, callers, caller }, first)
    }

    async fn connect(&self) -> Connection {
        self.connect_as(&self.caller).await.unwrap()
    }

    async fn connect_as(&self, caller: &Pair) -> Result<Connection, String> {
        TlsCaller::new(&self.servers).with(caller).connect(self.gateway.address).await
    }

    fn admin(&self) -> SocketAddr {
        self.gateway.admin_address.unwrap()
    }

    /// Waits for this count.
    async fn counted(&self, result: &str, times: u32) {
        let line = format!("glacier_gateway_reloads_total{{what=\"tls\",result=\"{result}\"}} {times}");
        Page::wait_for_line(self.admin(), "/metrics", &line).await;
    }

    async fn counts(&self, result: &str) -> u32 {
        let start = format!("glacier_gateway_reloads_total{{what=\"tls\",result=\"{result}\"}} ");
        let page = Page::get(self.admin(), "/metrics").await;
        page.body.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }

    async fn expiry(&self) -> f64 {
        self.expiry_of("certificate").await
    }

    async fn expiry_of(&self, what: &str) -> f64 {
        let page = Page::get(self.admin(), "/metrics").await;
        let start = format!("glacier_gateway_tls_{what}_expiry_timestamp_seconds ");
        page.body.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }
}

fn files<'a>(pair: &'a Pair, callers: &'a Authority) -> [(&'static str, &'a str); 3] {
    [(CERTIFICATE, &pair.certificate), (KEY, &pair.key), (CLIENT_CA, callers.certificate())]
}

fn shows(connection: &Connection, pair: &Pair) -> bool {
    connection.certificate() == pair.certificates()[0]
}

/// P6.
#[tokio::test]
async fn new_handshakes_get_the_new_certificate_and_open_connections_live_on() {
    let (mut rotating, first) = Rotating::start().await;
    let mut open = rotating.connect().await;
    assert!(shows(&open, &first));
    let ends = rotating.expiry().await;

    let later = |params: &mut rcgen::CertificateParams| params.not_after += Duration::from_hours(1);
    let second = rotating.servers.pair("localhost", later);
    rotating.secret.replace(&files(&second, &rotating.callers));
    rotating.counted("loaded", 1).await;
    assert!(shows(&rotating.connect().await, &second));
    assert!(open.is_alive().await);
    assert!((3590.0..3700.0).contains(&(rotating.expiry().await - ends)), "it ends an hour later");

    // And again: the link that was swapped is swapped once more.
    let third = rotating.servers.pair("localhost", |_| {});
    rotating.secret.replace(&files(&third, &rotating.callers));
    rotating.counted("loaded", 2).await;
    assert!(shows(&rotating.connect().await, &third));
    assert!(open.is_alive().await);
    assert_eq!(rotating.counts("refused").await, 0);
}

/// P6.
#[tokio::test]
async fn whatever_is_of_no_use_keeps_the_old_pair_and_is_counted_once_each() {
    let (mut rotating, first) = Rotating::start().await;
    let ends = rotating.expiry().await;
    let (good, other) = (rotating.servers.pair("localhost", |_| {}), rotating.servers.pair("localhost", |_| {}));
    let half = good.certificate[..good.certificate.len() / 2].to_owned();
    let bad = [
        Pair { certificate: half, ..good.clone() },
        Pair { key: String::new(), ..good.clone() },
        Pair { key: other.key, ..good.clone() },
        rotating.servers.expired_pair("localhost"),
        rotating.servers.early_pair("localhost"),
    ];
    for (refused, pair) in (1..).zip(&bad) {
        rotating.secret.replace(&files(pair, &rotating.callers));
        rotating.counted("refused", refused).await;
        assert!(shows(&rotating.connect().await, &first));
    }
    rotating.secret.replace(&[(CERTIFICATE, &good.certificate)]);
    rotating.counted("refused", 6).await;
    assert!(shows(&rotating.connect().await, &first));
    // It has been read many times since, and said once.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((rotating.counts("refused").await, rotating.counts("loaded").await), (6, 0));
    assert!((rotating.expiry().await - ends).abs() < 1.0, "the old one's");

    rotating.secret.replace(&files(&good, &rotating.callers));
    rotating.counted("loaded", 1).await;
    assert!(shows(&rotating.connect().await, &good));
}

/// P6. A file after the other, in place, as people do.
#[tokio::test]
async fn a_pair_that_is_written_in_two_steps_is_taken_when_it_is_whole() {
    let (rotating, first) = Rotating::start().await;
    let second = rotating.servers.pair("localhost", |_| {});
    rotating.secret.overwrite(CERTIFICATE, &second.certificate);
    rotating.counted("refused", 1).await;
    assert!(shows(&rotating.connect().await, &first));
    rotating.secret.overwrite(KEY, &second.key);
    rotating.counted("loaded", 1).await;
    assert!(shows(&rotating.connect().await, &second));
}

/// P6.
#[tokio::test]
async fn another_client_ca_holds_for_new_handshakes() {
    let (mut rotating, pair) = Rotating::start().await;
    let mut open = rotating.connect().await;
    assert!(rotating.expiry_of("client_ca").await > rotating.expiry().await, "those of the tests end late");
    let successors = Authority::new("callers, the next");
    let newcomer = successors.pair("caller", |_| {});
    let unknown = "received fatal alert: UnknownCA";
    assert_eq!(rotating.connect_as(&newcomer).await.unwrap_err(), unknown);

    // Both for a while, as one changes authorities.
    let both = [rotating.callers.certificate(), successors.certificate()].concat();
    rotating.secret.replace(&[(CERTIFICATE, &pair.certificate), (KEY, &pair.key), (CLIENT_CA, &both)]);
    rotating.counted("loaded", 1).await;
    rotating.connect_as(&newcomer).await.unwrap();
    rotating.connect().await;

    rotating.secret.replace(&files(&pair, &successors));
    rotating.counted("loaded", 2).await;
    rotating.connect_as(&newcomer).await.unwrap();
    assert_eq!(rotating.connect_as(&rotating.caller).await.unwrap_err(), unknown);
    assert!(open.is_alive().await, "it ends at its age");

    rotating.secret.replace(&[(CERTIFICATE, &pair.certificate), (KEY, &pair.key), (CLIENT_CA, "")]);
    rotating.counted("refused", 1).await;
    rotating.connect_as(&newcomer).await.unwrap();
}

/// P6.
#[test]
fn files_are_read_again_within_a_minute() {
    assert!(TlsSettings::new(CERTIFICATE.into(), KEY.into(), None).reload_interval <= Duration::from_mins(1));
}

/// The last copy of what is watched is the gateway's: nothing goes on reading after its end.
#[tokio::test]
async fn the_gateway_ends_while_its_files_are_missing() {
    let (mut rotating, _) = Rotating::start().await;
    rotating.secret.replace(&[]);
    rotating.counted("refused", 1).await;
    // Not only once: for as long as it is so.
    Page::wait_for_line(rotating.admin(), "/metrics", "glacier_gateway_reload_pending{what=\"tls\"} 1").await;
    rotating.gateway.order_stop();
    let stopped = rotating.gateway.stopped();
    tokio::time::timeout(PATIENCE, stopped).await.expect("in time");
}
