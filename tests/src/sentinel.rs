//! A master with replicas, watched over by Sentinels: all of them real processes, gone when the test is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::redis_server::{RedisServer, RedisServerOptions};

/// What the Sentinels call the master.
pub const MASTER: &str = "main";
/// ACL user, and password, of the Sentinels at the servers.
const WATCHER: &str = "watcher";
/// Longest that a failover may take: elections may fail and are repeated after twice the failover timeout.
pub const FAILOVER: Duration = Duration::from_secs(60);

/// One master, its replicas, and Sentinels. Dropping it kills them all.
pub struct Watched {
    /// The servers; the first one is the master at first.
    pub servers: Vec<RedisServer>,
    /// The Sentinels; two must agree.
    pub sentinels: Vec<RedisServer>,
}

impl Watched {
    /// One master, two replicas and three Sentinels that know of each other.
    pub async fn start() -> Self {
        let mut servers = vec![RedisServer::start(server(&[]))];
        let port = servers[0].addr().port().to_string();
        for _ in 0..2 {
            servers.push(RedisServer::start(server(&["--replicaof", "127.0.0.1", &port])));
        }
        for server in &servers {
            server.cli(&["ACL", "SETUSER", WATCHER, "on", &format!(">{WATCHER}"), "~*", "&*", "+@all"]);
        }
        let mut watched = Self { servers, sentinels: Vec::new() };
        watched.in_sync().await;
        for _ in 0..3 {
            let lines = [
                format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
                format!("sentinel auth-user {MASTER} {WATCHER}"),
                format!("sentinel auth-pass {MASTER} {WATCHER}"),
                format!("sentinel down-after-milliseconds {MASTER} 1000"),
                format!("sentinel failover-timeout {MASTER} 3000"),
                format!("sentinel parallel-syncs {MASTER} 2"),
            ];
            watched.sentinels.push(RedisServer::start(RedisServerOptions::default().sentinel(lines)));
        }
        watched.acquainted().await;
        watched
    }

    /// Keys of `broker.redis` that lead here.
    #[must_use]
    pub fn redis_keys(&self) -> String {
        let addrs: Vec<String> = self.sentinels.iter().map(|s| format!("'{}'", s.addr())).collect();
        format!("mode: sentinel, addrs: [{}], sentinel: {{master_name: {MASTER}}}", addrs.join(", "))
    }

    /// The configuration of a node here; `more` is further keys of the top level, in block style.
    #[must_use]
    pub fn yaml(&self, more: &str) -> String {
        format!("broker: {{type: redis, redis: {{{}}}}}\n{more}\n", self.redis_keys())
    }

    /// The server at this address.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn server(&self, addr: SocketAddr) -> &RedisServer {
        self.servers.iter().find(|server| server.addr() == addr).expect("one of the servers")
    }

    /// Where the first Sentinel says that the master is.
    ///
    /// # Panics
    /// It does not know.
    #[must_use]
    pub fn master(&self) -> SocketAddr {
        master_of(&self.sentinels[0])
    }

    /// Waits until all Sentinels name the same master, another one than `old`, which says so itself.
    pub async fn replaced(&self, old: SocketAddr) -> SocketAddr {
        let mut new = old;
        until("a new master", || {
            new = self.master();
            new != old
                && self.sentinels.iter().all(|sentinel| master_of(sentinel) == new)
                && has_role(self.server(new), "master")
        })
        .await;
        new
    }

    /// Takes a server away from the Sentinels alone: everybody else can use it as before.
    pub fn hide_from_sentinels(&self, server: &RedisServer) {
        server.cli(&["ACL", "SETUSER", WATCHER, "off"]);
        server.cli(&["CLIENT", "KILL", "USER", WATCHER]);
        // Refused as this user they come as the default one: neither does it look alive to them, nor may they demote it
        // or close the connections of its clients.
        let denied = ["-ping", "-multi", "-replicaof", "-slaveof", "-client|kill"];
        server.cli(&[&["ACL", "SETUSER", "default"], &denied[..]].concat());
    }

    /// Waits until nobody but who asks, and the Sentinels in vain, is connected to this server as a client.
    pub async fn deserted(&self, server: &RedisServer) {
        until("a deserted server", || {
            let clients = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
            clients.lines().filter(|client| !client.contains(" name=sentinel-")).count() == 1
        })
        .await;
    }

    /// Makes the old master a replica of the new one. The Sentinels would do it, after 8 s at the earliest; its
    /// connections stay open here.
    pub fn demote(&self, old: SocketAddr, new: SocketAddr) {
        let port = new.port().to_string();
        assert_eq!(self.server(old).cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    }

    /// Waits until this server has been made a replica.
    pub async fn becomes_replica(&self, server: &RedisServer) {
        until("a replica", || has_role(server, "slave")).await;
    }

    /// Waits until the replicas have all that the first server had when this was called.
    pub async fn in_sync(&self) {
        let number = |server: &RedisServer, key: &str| -> u64 {
            server.info("replication").get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let (master, replicas) = self.servers.split_first().expect("a master");
        let offset = number(master, "master_repl_offset");
        until("replicas in sync", || {
            replicas.iter().all(|replica| {
                replica.info("replication")["master_link_status"] == "up"
                    && number(replica, "slave_repl_offset") >= offset
            })
        })
        .await;
    }

    /// Waits until every Sentinel knows the replicas and the other Sentinels.
    async fn acquainted(&self) {
        let knows = |sentinel: &RedisServer, field: &str, count: usize| {
            let text = sentinel.cli(&["SENTINEL", "MASTER", MASTER]);
            let mut lines = text.lines().skip_while(|line| *line != field);
            lines.nth(1) == Some(count.to_string().as_str())
        };
        until("acquainted Sentinels", || {
            self.sentinels
                .iter()
                .all(|sentinel| knows(sentinel, "num-slaves", 2) && knows(sentinel, "num-other-sentinels", 2))
        })
        .await;
    }
}

/// Answers like a Sentinel that has not heard of anything since its start. Dropping it closes it.
pub struct StaleSentinel {
    addr: SocketAddr,
    serving: JoinHandle<()>,
}

impl StaleSentinel {
    /// One that always names this master, in its first epoch.
    pub async fn naming(master: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, master));
            }
        });
        Self { addr, serving }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for StaleSentinel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers one connection: the two questions that matter, and `OK` to everything else.
async fn answer(stream: TcpStream, master: SocketAddr) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let bulk = |text: String| format!("${}\r\n{text}\r\n", text.len());
    let (ip, port) = (bulk(master.ip().to_string()), bulk(master.port().to_string()));
    let epoch = bulk("config-epoch".to_owned()) + &bulk("0".to_owned());
    while let Ok(Some(count)) = lines.next_line().await {
        let count: usize = count.trim_start_matches('*').parse().unwrap_or(0);
        let mut words = Vec::with_capacity(count);
        for _ in 0..count {
            let _length = lines.next_line().await;
            words.push(lines.next_line().await.ok().flatten().unwrap_or_default().to_uppercase());
        }
        let reply = match words.get(1).map(String::as_str) {
            Some("MASTER") => format!("*4\r\n{}{}{epoch}", bulk("name".to_owned()), bulk("main".to_owned())),
            Some("GET-MASTER-ADDR-BY-NAME") => format!("*2\r\n{ip}{port}"),
            _ => "+OK\r\n".to_owned(),
        };
        if writer.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn server(more: &[&str]) -> RedisServerOptions {
    RedisServerOptions::default()
        .args(&["--stream-node-max-bytes", "512", "--repl-diskless-sync-delay", "0"])
        .args(more)
}

/// Asked while it may be about to change, and the question be cut off.
fn has_role(server: &RedisServer, role: &str) -> bool {
    let said = server.try_cli(&["ROLE"]);
    said.is_ok_and(|said| said.lines().next() == Some(role))
}

fn master_of(sentinel: &RedisServer) -> SocketAddr {
    let text = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
    text.replace('\n', ":").parse().expect("an address")
}

/// Asks until it holds: what servers think of each other has no event.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FAILOVER, "{what}: not within {FAILOVER:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
