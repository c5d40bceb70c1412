//! A client of TLS alone: what a listener shows and agrees to.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    certificates::{Authority, Identity},
    scrape::Answer,
    within,
};

/// How to shake hands.
#[derive(Clone)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    identity: Option<Identity>,
}

impl TlsClient {
    /// One that trusts this authority and offers both versions.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(authority.ca_file()).expect("the authority's certificate");
        roots.add(ca).expect("an authority");
        Self { roots: Arc::new(roots), versions: vec![&TLS13, &TLS12], protocols: Vec::new(), identity: None }
    }

    /// Offers TLS 1.2 only.
    #[must_use]
    pub fn tls12(mut self) -> Self {
        self.versions = vec![&TLS12];
        self
    }

    /// Offers TLS 1.3 only.
    #[must_use]
    pub fn tls13(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// Offers this protocol (ALPN).
    #[must_use]
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.protocols.push(protocol.as_bytes().to_vec());
        self
    }

    /// Shows this certificate when it is asked for one.
    #[must_use]
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Connects and shakes hands with what listens on 127.0.0.1.
    ///
    /// # Errors
    /// The handshake failed. In TLS 1.3 a server refuses a client's certificate only afterwards.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::from_pem_file(&identity.cert_file).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(&identity.key_file).expect("a key");
                builder.with_client_auth_cert(vec![chain], key).expect("an identity")
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        let tcp = TcpStream::connect(addr).await.expect("connect");
        let name = ServerName::from(addr.ip());
        within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
    }

    /// GET of `path`.
    ///
    /// # Errors
    /// The connection failed before there was an answer.
    pub async fn get(&self, addr: SocketAddr, path: &str) -> io::Result<Answer> {
        let mut stream = self.connect(addr).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        within("an HTTP answer", async {
            stream.write_all(head.as_bytes()).await?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            Ok(Answer::of(&bytes))
        })
        .await
    }

    /// The certificate that the listener shows.
    pub async fn certificate(&self, addr: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(addr).await.expect("a handshake");
        let shown = stream.get_ref().1.peer_certificates().expect("certificates");
        shown.first().expect("a certificate").clone().into_owned()
    }
}
