//! TCP between two parties: passed on, delayed, cut, or swallowed.
//!
//! Its address stays while what is behind it changes, so clients find the node that takes another's place.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What is to be done with connections, by their number.
#[derive(Debug, Clone)]
struct Control {
    /// Where new connections lead.
    upstream: SocketAddr,
    /// Connections with a lower number end now.
    cut_below: u64,
    /// Connections with a lower number carry nothing any more, and stay open, also when one end closes.
    swallow_below: u64,
    /// How much later everything arrives.
    delay: Duration,
}

/// A relay on 127.0.0.1. Dropping it ends all its connections.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    control: watch::Sender<Control>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay to `upstream`, on a port that the system chose.
    ///
    /// # Panics
    /// There is no port.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind a port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let control = Control { upstream, cut_below: 0, swallow_below: 0, delay: Duration::ZERO };
        let control = watch::Sender::new(control);
        let accepted = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, control.clone(), accepted.clone()));
        Self { addr, control, accepted, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.control.send_modify(|control| control.upstream = upstream);
    }

    /// Ends all connections of now.
    pub fn cut(&self) {
        let accepted = self.accepted.load(Ordering::SeqCst);
        self.control.send_modify(|control| control.cut_below = accepted);
    }

    /// From now on the connections of now carry nothing, and do not end before the next [`cut`](Self::cut). Those that
    /// come later are not affected.
    pub fn swallow(&self) {
        let accepted = self.accepted.load(Ordering::SeqCst);
        self.control.send_modify(|control| control.swallow_below = accepted);
    }

    /// Ends the swallowed connections.
    pub fn cut_swallowed(&self) {
        self.control.send_modify(|control| control.cut_below = control.cut_below.max(control.swallow_below));
    }

    /// How much later everything arrives from now on.
    pub fn delay(&self, delay: Duration) {
        self.control.send_modify(|control| control.delay = delay);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.control.send_modify(|control| control.cut_below = u64::MAX);
    }
}

async fn accept(listener: TcpListener, control: watch::Sender<Control>, accepted: Arc<AtomicU64>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let number = accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(carry(number, socket, control.subscribe()));
    }
}

/// Carries one connection to its end.
async fn carry(number: u64, client: TcpStream, mut control: watch::Receiver<Control>) {
    let upstream = control.borrow().upstream;
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    // Without these, small frames would wait for acknowledgements.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (one, other) = (control.clone(), control.clone());
    let both = async {
        tokio::join!(pump(number, from_client, to_server, one), pump(number, from_server, to_client, other),)
    };
    tokio::select! {
        _ = both => {}
        // An error means that the relay is gone.
        _ = control.wait_for(|control| number < control.cut_below) => {}
    }
}

/// Carries one direction until its source ends, and ends the sink then.
async fn pump(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    control: watch::Receiver<Control>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let (swallowed, delay) = {
            let control = control.borrow();
            (number < control.swallow_below, control.delay)
        };
        if swallowed && read == 0 {
            // The other end must not learn that this one has gone.
            return std::future::pending().await;
        }
        if swallowed {
            continue;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    // It may have gone already.
    let _ = to.shutdown().await;
}
