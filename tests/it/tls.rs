//! TLS with callers: who gets in and who does not, on a gateway with certificates of the tests' own authorities.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use glacier_gateway::{
    app::AppSettings,
    emulator::{EmulatedJob, Tier},
    grpc::client::{Client, ClientTls},
    server::tls::TlsSettings,
};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, SanType};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    file::TemporaryFile,
    gateway::{Gateway, PATIENCE, VAULT, channel, question},
    page::Page,
    process::{Served, run},
    tls::{Authority, Pair, self_signed, uri},
    tls_caller::TlsCaller,
};

/// A gateway that speaks TLS, with an authority for its own certificate and one for those of its callers.
struct Edge {
    gateway: Gateway,
    servers: Authority,
    callers: Authority,
    /// So far.
    failed: u32,
    _files: [TemporaryFile; 2],
}

impl Edge {
    async fn mutual() -> Self {
        Self::start(true, |_| {}).await
    }

    async fn start(mutual: bool, change: impl FnOnce(&mut TlsSettings)) -> Self {
        Self::start_with(mutual, change, |_| {}).await
    }

    async fn start_with(
        mutual: bool,
        change: impl FnOnce(&mut TlsSettings),
        limit: impl FnOnce(&mut AppSettings),
    ) -> Self {
        let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
        let pair = servers.pair("localhost", |_| {});
        let files = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
        let [certificate, key] = files.each_ref().map(|file| file.path().to_owned());
        let mut tls = TlsSettings::new(certificate, key, mutual.then(|| callers.file().to_owned()));
        // What is refused is refused because of what it says.
        tls.handshake_timeout = Duration::from_hours(1);
        change(&mut tls);
        let gateway = Gateway::start_with(|settings| {
            settings.tls = Some(tls);
            settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
            settings.server.connection.handshake_timeout = Duration::from_hours(1);
            limit(settings);
        });
        Self { gateway: gateway.await, servers, callers, failed: 0, _files: files }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    fn caller(&self) -> TlsCaller<'_> {
        TlsCaller::new(&self.servers)
    }

    /// This caller is served, and this many refusals have been counted before and after.
    async fn serves(&self, pair: &Pair) {
        self.caller().with(pair).connect(self.address()).await.unwrap();
        self.has_failed(self.failed).await;
    }

    async fn refuses(&mut self, pair: &Pair, how: &str) {
        let refusal = self.caller().with(pair).connect(self.address()).await.unwrap_err();
        assert_eq!(refusal, how);
        self.one_more_failed().await;
    }

    async fn one_more_failed(&mut self) {
        self.failed += 1;
        self.has_failed(self.failed).await;
    }

    async fn has_failed(&self, times: u32) {
        self.says(&format!("glacier_gateway_tls_handshakes_failed_total {times}")).await;
    }

    /// This line comes among the metrics.
    async fn says(&self, line: &str) {
        Page::wait_for_line(self.gateway.admin_address.unwrap(), "/metrics", line).await;
    }
}

/// All that comes until the gateway closes.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await.expect("closed in time");
    // A reset is an end, too: what was sent may not all have been read.
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    told
}

#[tokio::test]
async fn without_a_client_ca_callers_need_no_certificate() {
    let edge = Edge::start(false, |_| {}).await;
    let connection = edge.caller().connect(edge.address()).await.unwrap();
    assert_eq!(connection.version(), ProtocolVersion::TLSv1_3);
    let mut older = edge.caller();
    older.versions = vec![&TLS12];
    let connection = older.connect(edge.address()).await.unwrap();
    assert_eq!(connection.version(), ProtocolVersion::TLSv1_2);
    edge.has_failed(0).await;
    // Whoever trusts another authority leaves, and that is a failed handshake.
    let distrustful = TlsCaller::new(&edge.callers).connect(edge.address()).await.unwrap_err();
    assert!(distrustful.contains("UnknownIssuer"), "{distrustful}");
    edge.has_failed(1).await;
}

#[tokio::test]
async fn with_a_client_ca_only_certificates_of_it_get_in() {
    let mut edge = Edge::mutual().await;
    let good = edge.callers.pair("caller", |params| params.subject_alt_names.push(uri("spiffe://test/caller")));
    edge.serves(&good).await;

    let of_another = edge.servers.pair("caller", |_| {});
    edge.refuses(&of_another, "received fatal alert: UnknownCA").await;
    edge.refuses(&self_signed("caller"), "received fatal alert: UnknownCA").await;
    let expired = edge.callers.expired_pair("caller");
    edge.refuses(&expired, "received fatal alert: CertificateExpired").await;
    let early = edge.callers.early_pair("caller");
    edge.refuses(&early, "received fatal alert: CertificateExpired").await;
    let for_servers =
        edge.callers.pair("caller", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    edge.refuses(&for_servers, "received fatal alert: UnsupportedCertificate").await;
    let without = edge.caller().connect(edge.address()).await.unwrap_err();
    assert_eq!(without, "received fatal alert: CertificateRequired");
    edge.one_more_failed().await;

    edge.serves(&good).await;
}

#[tokio::test]
async fn no_name_is_no_reason_to_refuse_and_two_uris_are() {
    let mut edge = Edge::mutual().await;
    let nameless = edge.callers.pair("caller", |params| params.subject_alt_names.clear());
    edge.serves(&nameless).await;
    let one = edge.callers.pair("caller", |params| params.subject_alt_names.push(uri("spiffe://test/one")));
    edge.serves(&one).await;
    let two = edge.callers.pair("caller", |params| {
        params.subject_alt_names.extend([uri("spiffe://test/one"), uri("spiffe://test/two")]);
    });
    edge.refuses(&two, "closed").await;
    // One that is no text counts, too. By hand, because no honest tool makes it.
    let unreadable = edge.callers.pair("caller", |params| {
        let uri = |uri: &[u8]| [&[0x86, u8::try_from(uri.len()).unwrap()], uri].concat();
        let names = [uri(b"spiffe://test/one"), uri(b"spiffe://test/\xff")].concat();
        let names = [&[0x30, u8::try_from(names.len()).unwrap()], &names[..]].concat();
        params.subject_alt_names.clear();
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], names));
    });
    edge.refuses(&unreadable, "closed").await;
}

/// A session from before would spare a caller the look at its certificate.
#[tokio::test]
async fn every_connection_of_a_caller_shows_its_certificate_anew() {
    let edge = Edge::mutual().await;
    let pair = edge.callers.pair("caller", |_| {});
    for version in [&TLS12, &TLS13] {
        let mut caller = edge.caller().with(&pair);
        caller.versions = vec![version];
        for _ in 0..3 {
            assert!(caller.connect(edge.address()).await.unwrap().is_full());
        }
    }
}

#[tokio::test]
async fn nothing_but_http_2_is_agreed_on() {
    let mut edge = Edge::start(false, |_| {}).await;
    edge.caller().connect(edge.address()).await.unwrap();
    for (protocols, how) in
        [(vec![], "closed"), (vec![b"http/1.1".to_vec()], "received fatal alert: NoApplicationProtocol")]
    {
        let mut caller = edge.caller();
        caller.protocols = protocols;
        assert_eq!(caller.connect(edge.address()).await.unwrap_err(), how);
        edge.one_more_failed().await;
    }
    let mut both = edge.caller();
    both.protocols.insert(0, b"http/1.1".to_vec());
    both.connect(edge.address()).await.unwrap();
}

/// What a client says first that knows no TLS above `version`: a hello without the extension that newer ones have.
fn hello(version: [u8; 2]) -> Vec<u8> {
    let suites = [0xc0, 0x2f, 0xc0, 0x2b, 0xc0, 0x13, 0x00, 0x2f];
    // Named groups, point formats, and signature algorithms: all that a TLS 1.2 server wants to know.
    let groups = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    let extensions = [&groups[..], &signatures].concat();
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len()).unwrap().to_be_bytes());
    body.extend(suites);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let handshake = [&[1, 0][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
    [&[22, 3, 1][..], &u16::try_from(handshake.len()).unwrap().to_be_bytes(), &handshake].concat()
}

#[tokio::test]
async fn tls_1_1_is_refused_with_an_alert_that_says_so() {
    let mut edge = Edge::start(false, |_| {}).await;
    for version in [[3, 2], [3, 1], [3, 0]] {
        let mut stream = TcpStream::connect(edge.address()).await.unwrap();
        stream.write_all(&hello(version)).await.unwrap();
        let told = until_closed(&mut stream).await;
        // An alert (21), fatal (2), protocol_version (70).
        assert_eq!((told[0], &told[5..]), (21, &[2, 70][..]), "{told:?}");
        edge.one_more_failed().await;
    }
    // The control: the same in TLS 1.2 is answered by a handshake message (22), the ServerHello (2).
    let mut stream = TcpStream::connect(edge.address()).await.unwrap();
    stream.write_all(&hello([3, 3])).await.unwrap();
    let mut told = [0; 6];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut told)).await.expect("an answer in time").unwrap();
    assert_eq!((told[0], told[5]), (22, 2), "{told:?}");
}

#[tokio::test]
async fn plaintext_on_the_tls_port_is_closed_at_once() {
    let mut edge = Edge::start(false, |_| {}).await;
    let said: [&[u8]; 4] =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", &[0; 64], &[0xff; 10_000]];
    for words in said {
        let mut stream = TcpStream::connect(edge.address()).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(words).await;
        let told = until_closed(&mut stream).await;
        assert!(told.is_empty() || told[0] == 21, "an alert at most: {told:?}");
        edge.one_more_failed().await;
    }
    edge.caller().connect(edge.address()).await.unwrap();
}

/// D10.
#[tokio::test]
async fn silence_is_closed_when_the_time_for_the_handshake_is_over() {
    let mut edge = Edge::start(false, |tls| tls.handshake_timeout = Duration::from_millis(100)).await;
    let half_a_hello = &hello([3, 3])[..40];
    for words in [&[][..], half_a_hello] {
        let mut stream = TcpStream::connect(edge.address()).await.unwrap();
        stream.write_all(words).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty());
        edge.one_more_failed().await;
    }
    let mut connection = edge.caller().connect(edge.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(connection.is_alive().await, "the limit is the handshake's only");
}

/// The accept loop does not wait for handshakes, and neither does the end.
#[tokio::test]
async fn silent_callers_hold_up_neither_others_nor_the_end() {
    let Edge { mut gateway, servers, callers: _, failed: _, _files } = Edge::start(false, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    TlsCaller::new(&servers).connect(gateway.address).await.unwrap();
    gateway.order_stop();
    gateway.stopped().await;
    for stream in &mut silent {
        assert!(until_closed(stream).await.is_empty());
    }
}

/// D20: 300 strangers sit there, as long as they like, and new ones come all the time.
#[tokio::test]
async fn connections_that_never_authenticate_keep_out_nobody_who_does() {
    let edge = Edge::start_with(true, |_| {}, |settings| settings.server.max_connections = 200).await;
    let address = edge.address();
    let pair = edge.callers.pair("caller", |_| {});
    let mut sitting = Vec::new();
    for _ in 0..300 {
        sitting.push(TcpStream::connect(address).await.unwrap());
    }
    // The newest two hundred still have their seats.
    edge.says(r#"glacier_gateway_connections_refused_total{reason="stranger"} 100"#).await;
    edge.says("glacier_gateway_connections_strangers 200").await;
    for gone in &mut sitting[..100] {
        assert!(until_closed(gone).await.is_empty());
    }
    edge.serves(&pair).await;
    let coming = tokio::spawn(async move {
        let mut sitting = sitting;
        for next in (0..sitting.len()).cycle() {
            sitting[next] = TcpStream::connect(address).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    for _ in 0..20 {
        edge.serves(&pair).await;
    }
    coming.abort();
    assert!(coming.await.unwrap_err().is_cancelled(), "they came until the end");
    edge.says(r#"glacier_gateway_connections_refused_total{reason="full"} 0"#).await;
    // Whoever leaves gives its seat back.
    edge.says("glacier_gateway_connections_strangers 0").await;
}

/// D16: the other half of the places is for others.
#[tokio::test]
async fn one_caller_does_not_hold_every_connection() {
    let edge = Edge::start_with(true, |_| {}, |settings| settings.server.max_connections = 4).await;
    let (greedy, other) = (edge.callers.pair("greedy", |_| {}), edge.callers.pair("other", |_| {}));
    let connect = async |pair| edge.caller().with(pair).connect(edge.address()).await;
    let mut held = vec![connect(&greedy).await.unwrap(), connect(&greedy).await.unwrap()];
    for refused in 1..=3 {
        assert_eq!(connect(&greedy).await.unwrap_err(), "closed");
        edge.says(&format!(r#"glacier_gateway_connections_refused_total{{reason="caller_over_share"}} {refused}"#))
            .await;
    }
    let mut others = connect(&other).await.unwrap();
    assert!(others.is_alive().await && held[0].is_alive().await && held[1].is_alive().await);
    // Whoever closes one may have another.
    held.pop();
    edge.says("glacier_gateway_connections 2").await;
    connect(&greedy).await.unwrap();
    edge.says(r#"glacier_gateway_connections_refused_total{reason="full"} 0"#).await;
    edge.has_failed(0).await;
}

/// D16: a fetch refused for its caller's share says nothing about how busy this replica is.
#[tokio::test]
async fn what_is_more_than_a_callers_share_is_counted_apart_from_what_is_shed() {
    let share = |settings: &mut AppSettings| {
        let limits = &mut settings.describe.limits;
        // Two at once, and one of them (half of the places) in flight.
        (limits.in_flight, limits.per_caller, limits.max_wait) = (2, 2, Duration::from_millis(100));
    };
    let edge = Edge::start_with(true, |_| {}, share).await;
    let pair = edge.callers.pair("caller", |_| {});
    let target = format!("https://localhost:{}", edge.address().port());
    let hold = edge.gateway.emulator.faults().hold();
    let ask = |job: &'static str| {
        let identity = Some((pair.certificate.clone().into(), pair.key.clone().into()));
        let tls = ClientTls { authorities: edge.servers.certificate().into(), identity };
        let mut client = Client::over_tls(&target, PATIENCE, tls).unwrap();
        tokio::spawn(async move { client.describe_job(question(job), PATIENCE).await.unwrap_err() })
    };
    let first = ask("first");
    edge.says("glacier_gateway_upstream_in_flight 1").await;
    // One waits for the caller's own turn in vain; one more is refused at once, or is that one.
    for refused in [ask("second"), ask("third")] {
        assert_eq!(refused.await.unwrap().reason.as_deref(), Some("CALLER_OVER_SHARE"));
    }
    edge.says("glacier_gateway_caller_over_share_total 2").await;
    edge.says("glacier_gateway_upstream_shed_total 0").await;
    drop(hold);
    assert_eq!(first.await.unwrap().reason.as_deref(), Some("JOB_NOT_FOUND"));
}

fn text(path: impl Into<PathBuf>) -> String {
    path.into().to_str().unwrap().to_owned()
}

/// P3. The drain and the handshake may take an hour: it is not they that end this.
#[tokio::test]
async fn half_a_hello_does_not_hold_up_the_end_of_the_process() {
    let servers = Authority::new("servers");
    let pair = servers.pair("localhost", |_| {});
    let [certificate, key] = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
    let [certificate, key] = [&certificate, &key].map(|file| text(file.path()));
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key, "--tls-handshake-timeout", "1h"];
    let limits = ["--region", "us-east-1", "--lame-duck", "0s", "--drain", "1h"];
    let mut served = Served::start(&[&limits[..], &tls].concat()).await;
    let address: SocketAddr = served.address.parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello([3, 3])[..40]).await.unwrap();
    // One more is served after it, so it has been accepted.
    let connection = TlsCaller::new(&servers).connect(address).await.unwrap();
    served.signal("TERM").await;
    assert_eq!(served.wait_for("draining").await["connections"], 2);
    drop(connection);
    assert_eq!(served.exit_code().await, Some(0));
    assert!(until_closed(&mut stream).await.is_empty());
}

/// P1: its first calls may come with the last of the handshake, and only a GOAWAY tells it to send them elsewhere.
#[tokio::test]
async fn a_handshake_that_ends_as_the_drain_begins_is_served_and_told_to_go_away() {
    let mut edge = Edge::start(false, |_| {}).await;
    let stream = TcpStream::connect(edge.address()).await.unwrap();
    // One more is accepted after it, so it has been accepted.
    edge.caller().connect(edge.address()).await.unwrap();
    edge.gateway.order_stop();
    while TcpStream::connect(edge.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    edge.caller().finish(stream).await.unwrap();
}

/// The binary, its clients and Kubernetes' probes, with everything in files.
#[tokio::test]
async fn a_whole_gateway_with_mutual_tls_knows_its_callers_by_name() {
    let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
    let pair = servers.pair("localhost", |_| {});
    let [certificate, key] = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Bulk));
    let endpoint = upstream.emulator.endpoint();
    let paths = [certificate.path(), key.path(), callers.file()].map(text);
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--health-listen", "127.0.0.1:0"];
    let tls = ["--tls-certificate", &paths[0], "--tls-key", &paths[1], "--tls-client-ca", &paths[2]];
    let mut served = Served::start(
        &[&arguments[..], &tls[..], &["--lame-duck", "1h", "--drain", "10s", "--log-hits", "1"]].concat(),
    )
    .await;

    let spiffe = callers.pair("caller", |params| params.subject_alt_names.push(uri("spiffe://test/ns/a/sa/b")));
    let dns = callers.pair("B.a.svc", |_| {});
    let nameless = callers.pair("caller", |params| params.subject_alt_names.clear());
    let target = format!("https://localhost:{}", served.address.rsplit_once(':').unwrap().1);
    let authority = text(servers.file());
    for (pair, name) in
        [(&spiffe, "spiffe://test/ns/a/sa/b 127.0.0.1:"), (&dns, "b.a.svc 127."), (&nameless, "(nameless) 127.")]
    {
        let [certificate, key] = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
        let (certificate, key) = (text(certificate.path()), text(key.path()));
        let describe = ["describe", VAULT, &job, "--target", &target, "--tls-ca", &authority];
        let identity = ["--tls-certificate", &certificate, "--tls-key", &key];
        let (code, stdout, stderr) = run(&[&describe[..], &identity[..]].concat()).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains(&job), "{stdout}");
        let call = served.wait_for("call").await;
        assert!(call["caller"].as_str().unwrap().starts_with(name), "{call}");
    }
    // Without a certificate nobody gets anything, nor does one who trusts another authority.
    let (code, stdout, _) = run(&["describe", VAULT, &job, "--target", &target, "--tls-ca", &authority]).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    let (code, _, stderr) = run(&["describe", VAULT, &job, "--target", &target, "--tls-ca", &paths[2]]).await;
    assert!(code == 1 && stderr.contains("UnknownIssuer"), "{stderr}");
    for why in
        ["the TLS handshake failed: peer sent no certificates", "the TLS handshake failed: received fatal alert: "]
    {
        let refused = served.wait_for("a connection was refused by TLS").await;
        assert!(refused["error"].as_str().unwrap().starts_with(why), "{refused}");
        assert!(refused["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");
    }

    // Probes speak plaintext, on a port where there is nothing else, to the end.
    let probe: SocketAddr = served.health_address.as_ref().unwrap().parse().unwrap();
    let mut health = HealthClient::new(channel(probe).await);
    let mut status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status()
    };
    assert_eq!(status("readiness").await, ServingStatus::Serving);
    let target = format!("http://{probe}");
    let (code, _, stderr) = run(&["describe", VAULT, &job, "--target", &target]).await;
    assert!(code == 1 && stderr.contains("UNIMPLEMENTED"), "{stderr}");
    served.signal("TERM").await;
    served.wait_for("told to stop; not ready any more, still accepting").await;
    assert_eq!(status("readiness").await, ServingStatus::NotServing);
    assert_eq!(status("liveness").await, ServingStatus::Serving);
}

/// Issue 14, point 12: the log showed the first name of a certificate, whichever the policy had allowed.
#[tokio::test]
async fn the_log_names_a_caller_by_the_name_that_the_policy_allowed_and_by_all_if_it_allowed_none() {
    let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
    let pair = servers.pair("localhost", |_| {});
    let [certificate, key] = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
    let policy =
        TemporaryFile::new("[[allow]]\ncallers = [\"second.example\"]\naccounts = [\"-\"]\nvaults = [\"vault\"]\n");
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Bulk));
    let endpoint = upstream.emulator.endpoint();
    let paths = [certificate.path(), key.path(), callers.file(), policy.path()].map(text);
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--policy", &paths[3]];
    let tls = ["--tls-certificate", &paths[0], "--tls-key", &paths[1], "--tls-client-ca", &paths[2]];
    let mut served = Served::start(&[&arguments[..], &tls[..]].concat()).await;

    let pair = callers.pair("first.example", |params| {
        params.subject_alt_names.push(SanType::DnsName("second.example".try_into().unwrap()));
    });
    let files = [&pair.certificate, &pair.key].map(|content| TemporaryFile::new(content));
    let [certificate, key] = files.each_ref().map(|file| text(file.path()));
    let identity = ["--tls-certificate", &certificate, "--tls-key", &key];
    let target = format!("https://localhost:{}", served.address.rsplit_once(':').unwrap().1);
    let authority = text(servers.file());
    let mut called = async |vault: &str| {
        let describe = ["describe", vault, &job, "--target", &target, "--tls-ca", &authority];
        let (code, _, stderr) = run(&[&describe[..], &identity[..]].concat()).await;
        (code, stderr, served.wait_for("call").await)
    };
    let (code, stderr, call) = called(VAULT).await;
    assert!(code == 0 && call["caller"].as_str().unwrap().starts_with("second.example 127.0.0.1:"), "{stderr}{call}");
    let (code, _, call) = called("other").await;
    assert!(code == 1 && call["caller"].as_str().unwrap().starts_with("first.example,second.example 127."), "{call}");
    assert_eq!((&call["reason"], &call["vault"]), (&"CALLER_NOT_ALLOWED".into(), &"other".into()));
}

#[tokio::test]
async fn a_watch_on_the_health_port_hears_of_the_end_at_once() {
    let mut gateway = Gateway::start_with(|settings| {
        settings.health_listen = Some("127.0.0.1:0".parse().unwrap());
        settings.server.lame_duck = Duration::from_hours(1);
    })
    .await;
    let mut health = HealthClient::new(channel(gateway.health_address.unwrap()).await);
    for service in ["", "readiness", "glacier.jobs.v1.JobService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        let mut next = async || tokio::time::timeout(PATIENCE, watch.message()).await.expect("news in time");
        if service.is_empty() {
            while next().await.unwrap().unwrap().status() != ServingStatus::Serving {}
            gateway.order_stop();
        }
        assert_eq!(next().await.unwrap().unwrap().status(), ServingStatus::NotServing, "{service:?}");
    }
}

#[tokio::test]
async fn the_health_port_answers_when_the_main_port_is_full_and_until_the_end_of_the_drain() {
    let mut gateway = Gateway::start_with(|settings| {
        settings.health_listen = Some("127.0.0.1:0".parse().unwrap());
        settings.server.max_connections = 1;
        settings.server.drain = Duration::from_hours(1);
    })
    .await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let probe = gateway.health_address.unwrap();
    let status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        // As kubelet does: a new connection each time.
        HealthClient::new(channel(probe).await).check(request).await.unwrap().into_inner().status()
    };
    let hold = gateway.emulator.faults().hold();
    let mut client = gateway.client.clone();
    let question = question(&job);
    let waiting = tokio::spawn(async move { client.describe_job(question).await });
    gateway.emulator.wait_for_requests(1).await;
    let mut one_more = TcpStream::connect(gateway.address).await.unwrap();
    assert!(until_closed(&mut one_more).await.is_empty());
    assert_eq!(status("liveness").await, ServingStatus::Serving);

    gateway.order_stop();
    let refused = async {
        while TcpStream::connect(gateway.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the drain has begun");
    assert_eq!(status("readiness").await, ServingStatus::NotServing);
    assert_eq!(status("liveness").await, ServingStatus::Serving);
    hold.release();
    waiting.await.unwrap().unwrap();
    gateway.stopped().await;
    let refused = async {
        while TcpStream::connect(probe).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody listens any more");
}

/// P5.
#[tokio::test]
async fn files_of_no_use_are_told_whole_before_anything_starts() {
    let authority = Authority::new("servers");
    let (good, other) = (authority.pair("localhost", |_| {}), authority.pair("localhost", |_| {}));
    let file = |content: &str| TemporaryFile::new(content);
    let [certificate, key, other_key] = [&good.certificate, &good.key, &other.key].map(|content| file(content));
    let (expired, early) = (authority.expired_pair("localhost"), authority.early_pair("localhost"));
    let [expired, early] = [expired, early].map(|pair| file(&pair.certificate));
    let (half, empty) = (file(&good.key[..good.key.len() / 2]), file(""));
    let [certificate, key, other_key, expired, early, half, empty] =
        [&certificate, &key, &other_key, &expired, &early, &half, &empty].map(|file| text(file.path()));

    let cases: [(&[&str], &[&str]); 8] = [
        (&["--tls-certificate", &certificate], &["--tls-certificate: needs --tls-key"]),
        (&["--tls-key", &key], &["--tls-key: needs --tls-certificate"]),
        (&["--tls-client-ca", &certificate], &["--tls-client-ca: needs --tls-certificate and --tls-key"]),
        (
            &["--tls-certificate", &certificate, "--tls-key", &other_key],
            &["holds a private key that is not the certificate's"],
        ),
        (
            &["--tls-certificate", &expired, "--tls-key", "/nowhere/key", "--tls-client-ca", &empty],
            &["holds a certificate that ended at 20", "cannot read /nowhere/key: No such file", "holds no certificate"],
        ),
        (
            &["--tls-certificate", &early, "--tls-key", &half, "--tls-client-ca", "/dev/null"],
            &["holds a certificate that begins only at 20", "is not whole, valid PEM", "/dev/null: not a regular file"],
        ),
        (&["--tls-certificate", &key, "--tls-key", &certificate], &["holds no certificate", "holds no private key"]),
        (
            &["--tls-handshake-timeout", "0s", "--health-listen", "on"],
            &["--tls-handshake-timeout: ", "--health-listen: "],
        ),
    ];
    let serve = ["serve", "--region", "eu-west-1"];
    for (arguments, problems) in cases {
        let (code, _, stderr) = run(&[&serve[..], &["--check-config"], arguments].concat()).await;
        assert_eq!(code, 2, "{stderr}");
        assert_eq!(stderr.lines().count(), 1 + problems.len(), "{stderr}");
        for problem in problems {
            assert!(stderr.contains(problem), "{problem:?} is missing in {stderr}");
        }
        assert!(!stderr.contains("BEGIN"), "{stderr}");
        assert_eq!(run(&[&serve[..], arguments].concat()).await.0, 2);
    }
    let good = ["--tls-certificate", &certificate, "--tls-key", &key, "--tls-client-ca", &certificate];
    let (code, _, stderr) = run(&[&serve[..], &["--check-config"], &good].concat()).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn describe_says_what_its_tls_lacks() {
    let describe = ["describe", VAULT, "job"];
    let cases: [(&[&str], &str); 4] = [
        (&["--target", "https://localhost:1"], "https needs --tls-ca"),
        (&["--tls-ca", "/nowhere/ca"], "cannot read /nowhere/ca"),
        (&["--tls-certificate", "/nowhere/certificate"], "--tls-certificate and --tls-key need each other"),
        (&["--target", "nowhere"], "must be http://HOST:PORT"),
    ];
    for (arguments, problem) in cases {
        let (code, _, stderr) = run(&[&describe[..], arguments].concat()).await;
        assert!(code != 0 && stderr.contains(problem), "{stderr}");
    }
}
