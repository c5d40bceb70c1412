//! TLS of the node's listeners.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::{
    config::Config,
    tls::{Acceptor, Speaks, TlsFiles},
};

/// One acceptor for each listener that has TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenersTls {
    pub websocket: Option<Acceptor>,
    pub grpc: Option<Acceptor>,
    pub admin: Option<Acceptor>,
}

impl ListenersTls {
    /// Reads the files that the configuration names.
    pub async fn read(config: &Config) -> Result<Self, StartError> {
        let (websocket, grpc) = (config.websocket.tls.clone(), config.grpc_tls.clone());
        let admin = config.admin_tls.clone();
        let reading = tokio::task::spawn_blocking(move || {
            Ok(Self {
                websocket: acceptor("transport.websocket.tls", "websocket", websocket, Speaks::Http1)?,
                grpc: acceptor("transport.grpc.tls", "grpc", grpc, Speaks::Http2)?,
                admin: acceptor("server.http.tls", "admin", admin, Speaks::Both)?,
            })
        });
        reading.await.map_err(std::io::Error::other)?
    }

    /// Looks after the files until `stop`.
    pub fn watch(&self, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        self.each().map(|acceptor| tokio::spawn(acceptor.clone().watch(stop.clone()))).collect()
    }

    /// Reads the files again, now.
    pub fn reload(&self) {
        for acceptor in self.each() {
            acceptor.reload();
        }
    }

    fn each(&self) -> impl Iterator<Item = &Acceptor> {
        [&self.websocket, &self.grpc, &self.admin].into_iter().flatten()
    }
}

fn acceptor(
    key: &'static str,
    listener: &'static str,
    files: Option<TlsFiles>,
    speaks: Speaks,
) -> Result<Option<Acceptor>, StartError> {
    let made = files.map(|files| Acceptor::new(listener, files, speaks)).transpose();
    made.map_err(|reason| StartError::Tls { key, reason })
}
