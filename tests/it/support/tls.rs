//! An upstream over TLS: certificates of an authority of our own, and a front that speaks TLS before a plain upstream.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use glacier_gateway::clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::file::TemporaryFile;

const DAY: Duration = Duration::from_hours(24);

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in a file of PEM.
    file: TemporaryFile,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let file = TemporaryFile::new(&params.self_signed(&key).unwrap().pem());
        Self { issuer: Issuer::new(params, key), file }
    }

    /// What `SSL_CERT_FILE` must say for this authority to be trusted.
    pub(crate) fn file(&self) -> &Path {
        self.file.path()
    }

    /// A certificate for `host` that is good today.
    pub(crate) fn issue(&self, host: &str) -> ServerConfig {
        let now = Clock::system().now().wall;
        self.issue_for(host, now - DAY, now + DAY)
    }

    /// A certificate for `host` that ended yesterday.
    pub(crate) fn issue_expired(&self, host: &str) -> ServerConfig {
        let now = Clock::system().now().wall;
        self.issue_for(host, now - 30 * DAY, now - DAY)
    }

    fn issue_for(&self, host: &str, from: SystemTime, to: SystemTime) -> ServerConfig {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.into()], key.into()).unwrap()
    }
}

/// Speaks TLS with callers and forwards what they say to a plain upstream. Dropping it ends it.
pub(crate) struct TlsFront {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl TlsFront {
    pub(crate) async fn start(config: ServerConfig, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        let server = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A caller that does not like the certificate ends it here.
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let mut plain = TcpStream::connect(target).await.unwrap();
                    // How a connection ends is the business of its two ends.
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self { port, connections, server }
    }

    /// How many connections were accepted in all, good handshakes or not.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.server.abort();
    }
}
