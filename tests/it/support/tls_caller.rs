//! A caller that speaks TLS and just enough HTTP/2 to see whether it is served, and says what happened in rustls' words.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        pki_types::CertificateDer,
        version::{TLS12, TLS13},
    },
};

use super::{
    gateway::PATIENCE,
    tls::{Authority, Pair},
};

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0whatever";
const SETTINGS_FRAME: u8 = 4;
const PING_FRAME: u8 = 6;
const ACK: u8 = 1;

/// How a caller speaks TLS.
pub(crate) struct TlsCaller<'a> {
    trusted: &'a Authority,
    identity: Option<&'a Pair>,
    pub(crate) protocols: Vec<Vec<u8>>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// Made once, because it remembers sessions.
    config: OnceLock<Arc<ClientConfig>>,
}

impl<'a> TlsCaller<'a> {
    /// Trusts this authority, offers TLS 1.2 and 1.3, and asks for HTTP/2.
    pub(crate) fn new(trusted: &'a Authority) -> Self {
        let (protocols, versions) = (vec![b"h2".to_vec()], vec![&TLS13, &TLS12]);
        Self { trusted, identity: None, protocols, versions, config: OnceLock::new() }
    }

    /// Shows this certificate when asked.
    pub(crate) fn with(self, identity: &'a Pair) -> Self {
        Self { identity: Some(identity), ..self }
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let trusted = Pair { certificate: self.trusted.certificate().to_owned(), key: String::new() }.certificates();
        roots.add_parsable_certificates(trusted);
        let builder = ClientConfig::builder_with_protocol_versions(&self.versions).with_root_certificates(roots);
        let mut config = match self.identity {
            Some(pair) => builder.with_client_auth_cert(pair.certificates(), pair.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config
    }

    /// A connection that the gateway serves, or how it was refused: an alert, or `closed`.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, String> {
        self.finish(TcpStream::connect(address).await.unwrap()).await
    }

    /// The same over a connection that has been made.
    pub(crate) async fn finish(&self, stream: TcpStream) -> Result<Connection, String> {
        let connected = async {
            let config = self.config.get_or_init(|| Arc::new(self.config()));
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
            let mut connection = Connection { stream };
            // In TLS 1.3 the client is done before the server has seen its certificate: a refusal comes now.
            let said = connection.stream.write_all(HELLO).await;
            connection.frame(SETTINGS_FRAME, 0).await?;
            said?;
            Ok(connection)
        };
        let outcome: io::Result<_> = tokio::time::timeout(PATIENCE, connected).await.expect("an end in time");
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "closed".to_owned()
            }
            _ => error.to_string(),
        })
    }
}

/// A connection that was served.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
}

impl Connection {
    /// The certificate that the gateway showed.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        self.stream.get_ref().1.protocol_version().unwrap()
    }

    /// Whether certificates were looked at, rather than a session resumed.
    pub(crate) fn is_full(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Resumed)
    }

    /// Whether it is still served.
    pub(crate) async fn is_alive(&mut self) -> bool {
        let answered = async {
            self.stream.write_all(PING).await?;
            self.frame(PING_FRAME, ACK).await
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time").is_ok()
    }

    /// Reads up to a frame of this kind and with these flags.
    async fn frame(&mut self, kind: u8, flags: u8) -> io::Result<()> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length.try_into().unwrap()];
            self.stream.read_exact(&mut body).await?;
            if (head[3], head[4]) == (kind, flags) {
                return Ok(());
            }
        }
    }
}
