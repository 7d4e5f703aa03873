//! TLS with callers: rustls with aws-lc-rs, TLS 1.2 or later, HTTP/2 by ALPN or nothing, and, with a client CA, verified
//! client certificates, whose names say who calls.
//!
//! The files may change while the gateway serves: new handshakes use what is new, connections that are open stay as they
//! are until their age ends them. Files that are of no use leave the old ones in place.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::pki_types::{CertificateDer, ServerName},
    server::TlsStream,
};
use webpki::EndEntityCert;

use crate::{
    caller::{CallerIdentity, IdentityError},
    clock::Clock,
    metrics::{ReloadMetrics, TlsMetrics},
    reload::{self, LoadError, Reloaded, Watched},
};

mod material;

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
    Certificate(#[from] webpki::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
        Ok(Self { terms, handshake_timeout: settings.handshake_timeout, metrics })
    }

    /// The handshake, and who the caller turned out to be.
    pub(super) async fn accept<I>(
        &self,
        stream: I,
    ) -> Result<(TlsStream<I>, Option<Arc<CallerIdentity>>), HandshakeError>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake_hands(stream).await.inspect_err(|_| self.metrics.handshake_failed())
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
    let certificate = EndEntityCert::try_from(leaf)?;
    let uris = uri_count(&certificate)?;
    if uris > 1 {
        return Err(IdentityError::SeveralUris(uris).into());
    }
    let named = CallerIdentity::from_names(certificate.valid_uri_names(), certificate.valid_dns_names())?;
    Ok(named.unwrap_or(CallerIdentity::NAMELESS))
}

/// How many URIs are among the names, readable or not: webpki's iterator leaves out those that are not UTF-8. It tells all
/// names when it is asked about one that is not among them.
fn uri_count(certificate: &EndEntityCert<'_>) -> Result<usize, webpki::Error> {
    let nobody = ServerName::from(IpAddr::from(Ipv6Addr::UNSPECIFIED));
    match certificate.verify_is_valid_for_subject_name(&nobody) {
        Err(webpki::Error::CertNotValidForName(names)) => {
            Ok(names.presented.iter().filter(|name| name.starts_with("UniformResourceIdentifier(")).count())
        }
        Err(error) => Err(error),
        // An address that nobody can have.
        Ok(()) => Err(webpki::Error::UnsupportedNameType),
    }
}
