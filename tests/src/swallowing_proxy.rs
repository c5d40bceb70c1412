//! A TCP proxy between a node and Redis that can do what networks do: delay, cut, refuse, and swallow while both ends
//! believe that the connection is open.
//!
//! Everything happens at once and concerns chosen connections, or all of them with those to come. Dropping the proxy
//! cuts all.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// What becomes of bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They go on.
    #[default]
    Pass,
    /// They go on so much later; the line holds any number of them.
    Delay(Duration),
    /// They are gone, as is the end of the connection: the other side goes on believing in it.
    Swallow,
}

/// Both directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flows {
    /// From the client to the server.
    pub to_server: Flow,
    /// From the server to the client.
    pub to_client: Flow,
}

impl Flows {
    /// The same in both directions.
    #[must_use]
    pub fn both(flow: Flow) -> Self {
        Self { to_server: flow, to_client: flow }
    }
}

/// See the module.
pub struct SwallowingProxy {
    addr: SocketAddr,
    lines: Arc<Mutex<Lines>>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Lines {
    /// By the port from which the server sees the connection come.
    open: BTreeMap<u16, Line>,
    /// What new connections get.
    flows: Flows,
    refusing: bool,
    accepted: usize,
}

struct Line {
    flows: watch::Sender<Flows>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SwallowingProxy {
    /// A proxy to the server at `target`, which it need not reach yet.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let lines = Arc::new(Mutex::new(Lines::default()));
        let accepting = tokio::spawn(accept(listener, target, lines.clone())).abort_handle();
        Self { addr, lines, accepting }
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The open connections, by the port from which the server sees them come (`addr` in `CLIENT LIST`).
    #[must_use]
    pub fn connections(&self) -> Vec<u16> {
        self.lines().open.keys().copied().collect()
    }

    /// How many connections there ever were.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.lines().accepted
    }

    /// Changes one connection.
    ///
    /// # Panics
    /// There is no such connection.
    pub fn set(&self, connection: u16, flows: Flows) {
        let lines = self.lines();
        let line = lines.open.get(&connection).unwrap_or_else(|| panic!("no connection from {connection}"));
        line.flows.send_replace(flows);
    }

    /// Changes all connections, those to come as well.
    pub fn set_all(&self, flows: Flows) {
        let mut lines = self.lines();
        lines.flows = flows;
        for line in lines.open.values() {
            line.flows.send_replace(flows);
        }
    }

    /// Changes all open connections, not those to come.
    pub fn set_open(&self, flows: Flows) {
        for line in self.lines().open.values() {
            line.flows.send_replace(flows);
        }
    }

    /// Closes one connection at both ends.
    pub fn cut(&self, connection: u16) {
        self.lines().open.remove(&connection);
    }

    /// Closes all connections at both ends.
    pub fn cut_all(&self) {
        self.lines().open.clear();
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refusing: bool) {
        self.lines().refusing = refusing;
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        lock(&self.lines)
    }
}

impl Drop for SwallowingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, target: SocketAddr, lines: Arc<Mutex<Lines>>) {
    while let Ok((client, _)) = listener.accept().await {
        if lock(&lines).refusing {
            continue;
        }
        // A server that is not there: the client is closed as well.
        let Ok(server) = TcpStream::connect(target).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let Ok(port) = server.local_addr().map(|addr| addr.port()) else { continue };
        let mut held = lock(&lines);
        let flows = watch::Sender::new(held.flows);
        let task = tokio::spawn(serve(client, server, flows.clone())).abort_handle();
        held.accepted += 1;
        held.open.insert(port, Line { flows, task });
        held.open.retain(|_, line| !line.task.is_finished());
    }
}

/// Until both directions have ended.
async fn serve(client: TcpStream, server: TcpStream, flows: watch::Sender<Flows>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pump(from_client, to_server, flows.subscribe(), |flows| flows.to_server),
        pump(from_server, to_client, flows.subscribe(), |flows| flows.to_client),
    );
}

/// Carries one direction, with its end.
async fn pump(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut flows: watch::Receiver<Flows>,
    of: fn(&Flows) -> Flow,
) {
    let (line, arriving) = mpsc::unbounded_channel();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                // An end that is swallowed is told when the line is whole again.
                let _ = flows.wait_for(|flows| of(flows) != Flow::Swallow).await;
                return;
            }
            let flow = of(&flows.borrow());
            let due = match flow {
                Flow::Pass => Instant::now(),
                Flow::Delay(by) => Instant::now() + by,
                Flow::Swallow => continue,
            };
            if line.send((due, Bytes::copy_from_slice(&buffer[..read]))).is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, write(to, arriving));
}

async fn write(mut to: OwnedWriteHalf, mut arriving: mpsc::UnboundedReceiver<(Instant, Bytes)>) {
    while let Some((due, bytes)) = arriving.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within;

    /// A client and the server's end of the same connection.
    async fn pair() -> (SwallowingProxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = SwallowingProxy::start(listener.local_addr().unwrap()).await;
        let client = TcpStream::connect(proxy.addr()).await.unwrap();
        let server = within("the connection", listener.accept()).await.unwrap().0;
        (proxy, client, server)
    }

    async fn receives(socket: &mut TcpStream, text: &str) {
        let mut buffer = vec![0; text.len()];
        within("the bytes", socket.read_exact(&mut buffer)).await.unwrap();
        assert_eq!(buffer, text.as_bytes());
    }

    #[tokio::test]
    async fn one_direction_is_swallowed_and_the_other_passes() {
        let (proxy, mut client, mut server) = pair().await;
        client.write_all(b"one").await.unwrap();
        receives(&mut server, "one").await;
        let [connection] = proxy.connections()[..] else { panic!("one connection") };
        proxy.set(connection, Flows { to_client: Flow::Swallow, ..Flows::default() });
        server.write_all(b"gone").await.unwrap();
        client.write_all(b"two").await.unwrap();
        receives(&mut server, "two").await;
        // That nothing comes has no event to wait for.
        let mut nothing = [0; 1];
        let came = tokio::time::timeout(Duration::from_millis(100), client.read(&mut nothing)).await;
        assert!(came.is_err(), "{came:?}");
        proxy.set_all(Flows::default());
        server.write_all(b"three").await.unwrap();
        receives(&mut client, "three").await;
    }

    #[tokio::test]
    async fn the_end_of_a_swallowed_connection_is_not_told_and_a_cut_is() {
        let (proxy, client, mut server) = pair().await;
        while proxy.connections().is_empty() {
            tokio::task::yield_now().await;
        }
        proxy.set_open(Flows::both(Flow::Swallow));
        drop(client);
        let mut buffer = [0; 1];
        let told = tokio::time::timeout(Duration::from_millis(100), server.read(&mut buffer)).await;
        assert!(told.is_err(), "the server believes in it");
        proxy.cut_all();
        assert_eq!(within("the end", server.read(&mut buffer)).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn what_is_delayed_comes_later_and_in_order() {
        let (proxy, mut client, mut server) = pair().await;
        proxy.set_all(Flows { to_server: Flow::Delay(Duration::from_millis(200)), ..Flows::default() });
        let start = Instant::now();
        client.write_all(b"a").await.unwrap();
        client.write_all(b"b").await.unwrap();
        receives(&mut server, "ab").await;
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
