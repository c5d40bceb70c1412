//! What to say of this machine: listeners, their certificates, open files.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::finding::Finding;
use crate::{
    config::{Config, ListenAddr},
    tls::{Acceptor, Speaks, TlsFiles},
};

/// Open files that a node should be allowed: one for each client, and some more.
const OPEN_FILES: u64 = 65_536;
/// How long a gateway may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// The limit of open files.
pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let text = format!("ulimit -n {} (hard {})", shown(limit.current), shown(limit.maximum));
    match limit.current {
        Some(files) if files < OPEN_FILES => Finding::warn(
            "open files",
            format!("{text}: a node serves somewhat fewer clients than that"),
            format!("ulimit -n {OPEN_FILES}, or LimitNOFILE={OPEN_FILES} in the unit of systemd"),
        ),
        _ => Finding::ok("open files", text),
    }
}

/// Whether the listeners can be bound, and have certificates that can be used.
pub(super) async fn listeners(config: &Config) -> Vec<Finding> {
    let all = [
        ("transport.websocket", &config.websocket.addr, &config.websocket.tls, Speaks::Http1),
        ("transport.grpc", &config.grpc, &config.grpc_tls, Speaks::Http2),
        ("server.http", &config.admin, &config.admin_tls, Speaks::Both),
    ];
    let mut findings = Vec::new();
    let runs = match config.admin.addrs().first() {
        Some(admin) => is_gateway(*admin).await,
        None => false,
    };
    for (key, addr, tls, speaks) in all {
        findings.push(listener(key, addr, tls.is_some(), runs));
        findings.extend(tls.clone().and_then(|files| certificate(key, files, speaks)));
    }
    findings
}

fn listener(key: &str, addr: &ListenAddr, tls: bool, runs: bool) -> Finding {
    let subject = format!("listener {addr}");
    match bind(addr) {
        Ok(()) => {
            let reach =
                if addr.is_loopback() { "this machine alone reaches it" } else { "other machines reach it" };
            let tls = if tls { "TLS" } else { "plain" };
            Finding::ok(subject, format!("{key} is free; {tls}, {reach}"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse && runs => {
            Finding::ok(subject, format!("{key} is in use, and a gateway runs here"))
        }
        Err(error) => Finding::fail(
            subject,
            format!("{key} cannot listen there: {error}"),
            format!("{key}.addr, or end what listens there (ss -ltnp)"),
        ),
    }
}

/// The first that can be bound is enough, as for a node.
fn bind(listen: &ListenAddr) -> io::Result<()> {
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for addr in listen.addrs() {
        match TcpListener::bind(addr) {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn certificate(key: &'static str, files: TlsFiles, speaks: Speaks) -> Option<Finding> {
    let reason = Acceptor::new(key, files, speaks).err()?;
    Some(Finding::fail(format!("{key}.tls"), reason, "the files that it names"))
}

/// Whether a gateway's admin listener answers there. One with TLS is not asked.
async fn is_gateway(admin: SocketAddr) -> bool {
    let ask = async {
        let mut socket = TcpStream::connect(admin).await.ok()?;
        let request = format!("GET /health/live HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        socket.take(64).read_to_end(&mut answer).await.ok()?;
        answer.starts_with(b"HTTP/1.1 200 ").then_some(())
    };
    matches!(timeout(PATIENCE, ask).await, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn a_port_that_is_taken_is_told_unless_a_gateway_runs_there() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = ListenAddr::from(taken.local_addr().unwrap());
        assert_eq!(listener("k", &addr, false, false).level, Level::Fail);
        assert_eq!(listener("k", &addr, false, true).level, Level::Ok);
        let free = ListenAddr::parse("127.0.0.1:0").unwrap();
        assert_eq!(listener("k", &free, true, false).level, Level::Ok);
    }

    #[tokio::test]
    async fn what_does_not_answer_as_a_gateway_is_none() {
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = other.local_addr().unwrap();
        let answering = async {
            let (mut socket, _) = other.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
        };
        assert!(!tokio::join!(is_gateway(addr), answering).0);
        drop(other);
        assert!(!is_gateway(addr).await);
    }
}
