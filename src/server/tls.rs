//! TLS with callers: rustls with aws-lc-rs, TLS 1.2 or later, HTTP/2 by ALPN or nothing, and, with a client CA, verified
//! client certificates, whose names say who calls.
//!
//! The files may change while the gateway serves: new handshakes use what is new, connections that are open stay as they
//! are until their age ends them. Files that are of no use leave the old ones in place.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::pki_types::CertificateDer, server::TlsStream};

use crate::{
    caller::{CallerIdentity, IdentityError, Source},
    clock::Clock,
    metrics::{ReloadMetrics, TlsMetrics},
    reload::{self, LoadError, Reloaded, Watched},
    telemetry::LineBudget,
};

mod certificate;
mod material;

use certificate::{Certificate, Unreadable};
pub use material::{Authorities, Chain, Key, MaterialError, Terms};

/// The one protocol that is spoken inside TLS, as ALPN names it.
const HTTP_2: &[u8] = b"h2";

/// Settings of TLS with callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate chain, leaf first, as PEM.
    pub certificate: PathBuf,
    /// The leaf's private key, as PEM: PKCS#8, PKCS#1 or SEC 1.
    pub key: PathBuf,
    /// The authorities of callers' certificates, as PEM. If there are any, callers must have a certificate.
    pub client_ca: Option<PathBuf>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How often the files are read again.
    pub reload_interval: Duration,
}

impl TlsSettings {
    /// The defaults, for these files.
    pub fn new(certificate: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Self {
        Self {
            certificate,
            key,
            client_ca,
            // As long as the HTTP/2 preface may take.
            handshake_timeout: Duration::from_secs(10),
            reload_interval: reload::INTERVAL,
        }
    }
}

/// The files make no usable TLS.
pub type TlsError = LoadError<FileError>;

/// A file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    path: PathBuf,
    error: MaterialError,
}

/// Makes connections into TLS connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    terms: Reloaded<Terms>,
    handshake_timeout: Duration,
    metrics: TlsMetrics,
    /// For connections that are refused.
    budget: Arc<LineBudget>,
}

/// Why a connection did not become a TLS connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no TLS handshake within {0:?}")]
    Late(Duration),
    #[error("the TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
    #[error("the caller did not ask for HTTP/2 by ALPN")]
    NotHttp2,
    #[error("the client certificate cannot be read: {0}")]
    Certificate(#[from] Unreadable),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl HandshakeError {
    /// Whether the other side went away, as probes of TCP do, and was refused by nobody.
    fn is_left(&self) -> bool {
        match self {
            // rustls' own errors come as invalid data.
            Self::Failed(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::Late(_) | Self::NotHttp2 | Self::Certificate(_) | Self::Identity(_) => false,
        }
    }
}

impl Tls {
    /// Reads the files, and goes on reading them until the last clone is dropped.
    pub async fn load(
        settings: &TlsSettings,
        clock: Clock,
        metrics: TlsMetrics,
        reloads: ReloadMetrics,
    ) -> Result<Self, TlsError> {
        let files = settings.clone();
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.client_ca.clone());
        let watched = Watched {
            what: "tls",
            paths,
            interval: settings.reload_interval,
            settle: reload::SETTLE,
            metrics: reloads,
        };
        let told = metrics.clone();
        let parse = move |contents: &[Vec<u8>]| {
            let terms = terms(&files, contents, &clock)?;
            told.serving_until(terms.not_after(), terms.authorities_not_after());
            Ok(terms)
        };
        let terms = Reloaded::load(watched, parse).await?;
        Ok(Self { terms, handshake_timeout: settings.handshake_timeout, metrics, budget: Arc::default() })
    }

    /// The handshake, and who the caller turned out to be. If there is none, that is counted, and logged.
    pub(super) async fn accept<I>(
        &self,
        stream: I,
        peer: SocketAddr,
    ) -> Option<(TlsStream<I>, Option<Arc<CallerIdentity>>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake_hands(stream).await.inspect_err(|error| self.failed(error, peer)).ok()
    }

    fn failed(&self, error: &HandshakeError, peer: SocketAddr) {
        self.metrics.handshake_failed();
        if error.is_left() {
            tracing::debug!(%peer, %error, "a connection ended before its TLS handshake");
        } else if let Some(one_in) = self.budget.one_in(Source::of_address(peer), Instant::now()) {
            let one_in = (one_in > 1).then_some(one_in);
            tracing::warn!(%peer, %error, one_in, "a connection was refused by TLS");
        }
    }

    async fn shake_hands<I>(&self, stream: I) -> Result<(TlsStream<I>, Option<Arc<CallerIdentity>>), HandshakeError>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.terms.current().config());
        let limit = self.handshake_timeout;
        let stream = timeout(limit, acceptor.accept(stream)).await.map_err(|_| HandshakeError::Late(limit))??;
        let (_, session) = stream.get_ref();
        // rustls turns away those who ask for something else, not those who ask for nothing.
        if session.alpn_protocol() != Some(HTTP_2) {
            return Err(HandshakeError::NotHttp2);
        }
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let identity = leaf.map(identity).transpose()?.map(Arc::new);
        Ok((stream, identity))
    }
}

/// The files' contents in the order of [`Tls::load`].
fn terms(files: &TlsSettings, contents: &[Vec<u8>], clock: &Clock) -> Result<Terms, FileError> {
    let content = |index: usize| contents.get(index).map(Vec::as_slice).unwrap_or_default();
    let about = |path: &PathBuf| {
        let path = path.clone();
        move |error| FileError { path, error }
    };
    let chain = Chain::from_pem(content(0), clock.now().wall).map_err(about(&files.certificate))?;
    let key = Key::from_pem(content(1)).map_err(about(&files.key))?;
    let authorities = files.client_ca.as_ref().map(|path| Authorities::from_pem(content(2)).map_err(about(path)));
    Terms::new(chain, key, authorities.transpose()?).map_err(about(&files.key))
}

/// Whom a verified certificate names.
fn identity(leaf: &CertificateDer<'_>) -> Result<CallerIdentity, HandshakeError> {
    let names = Certificate::read(leaf)?.names()?;
    Ok(CallerIdentity::from_names(names.uris, names.dns)?.unwrap_or(CallerIdentity::NAMELESS))
}
