//! TLS on loopback: certificates of authorities of our own, and a front that speaks TLS before a plain upstream.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use glacier_gateway::clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::file::TemporaryFile;

const DAY: Duration = Duration::from_hours(24);

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    certificate: String,
    /// The same in a file.
    file: TemporaryFile,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A URI among a certificate's names.
pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// What a certificate says unless it is told otherwise: good today, for this DNS name.
fn params(host: &str) -> CertificateParams {
    let now = Clock::system().now().wall;
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + DAY).into());
    params
}

/// A certificate that its own key signed.
pub(crate) fn self_signed(host: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    Pair { certificate: params(host).self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

impl Pair {
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let file = TemporaryFile::new(&certificate);
        Self { issuer: Issuer::new(params, key), certificate, file }
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for `host` that is good today, except for what `change` makes of it.
    pub(crate) fn pair(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = params(host);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// One that ended yesterday.
    pub(crate) fn expired_pair(&self, host: &str) -> Pair {
        let now = Clock::system().now().wall;
        self.pair(host, |p| (p.not_before, p.not_after) = ((now - 30 * DAY).into(), (now - DAY).into()))
    }

    /// One that begins tomorrow.
    pub(crate) fn early_pair(&self, host: &str) -> Pair {
        let now = Clock::system().now().wall;
        self.pair(host, |p| (p.not_before, p.not_after) = ((now + DAY).into(), (now + 30 * DAY).into()))
    }

    /// What `SSL_CERT_FILE` must say for this authority to be trusted.
    pub(crate) fn file(&self) -> &Path {
        self.file.path()
    }

    /// A server's side of TLS with a certificate for `host` that is good today.
    pub(crate) fn issue(&self, host: &str) -> ServerConfig {
        server_config(&self.pair(host, |_| {}))
    }

    /// The same with one that ended yesterday.
    pub(crate) fn issue_expired(&self, host: &str) -> ServerConfig {
        server_config(&self.expired_pair(host))
    }
}

fn server_config(pair: &Pair) -> ServerConfig {
    let builder = ServerConfig::builder().with_no_client_auth();
    builder.with_single_cert(pair.certificates(), pair.private_key()).unwrap()
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
