//! A real Redis Cluster for a test: masters with replicas as `redis-server` processes, all gone when the test is.
//!
//! Owns: the servers, how they are joined, failovers and the official steps of moving slots. Everything here blocks, as
//! [`RedisServer`] does; within a test that goes on meanwhile, call it by [`blocking`].

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use crate::redis_server::{RedisServer, RedisServerOptions};

/// Slots of a Cluster.
pub const SLOTS: u16 = 16_384;
/// After how many ms without an answer nodes take each other for failed.
const NODE_TIMEOUT: &str = "2000";
/// How long the servers may take to agree.
const AGREE: Duration = Duration::from_secs(60);
/// Keys in one `MIGRATE`.
const KEYS: &str = "50";

/// The servers of one Cluster. Masters come first, then in the same order their replicas.
pub struct RedisCluster {
    servers: Vec<RedisServer>,
    masters: usize,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Myself {
    /// Its id.
    pub id: String,
    /// Whether it is a master.
    pub master: bool,
    /// Id of its master, if it is a replica.
    pub replica_of: String,
    /// Its slots.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl RedisCluster {
    /// So many masters with even shares of the slots and one replica each, joined and working.
    #[must_use]
    pub fn start(masters: usize) -> Self {
        Self::start_with(masters, &[])
    }

    /// As [`Self::start`], with further arguments of `redis-server`.
    #[must_use]
    pub fn start_with(masters: usize, args: &[&str]) -> Self {
        let servers: Vec<RedisServer> = thread::scope(|scope| {
            let starting: Vec<_> = (0..masters * 2).map(|_| scope.spawn(|| server(args))).collect();
            starting.into_iter().map(|server| server.join().expect("a server starts")).collect()
        });
        let cluster = Self { servers, masters };
        cluster.join();
        cluster
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// One of the servers.
    #[must_use]
    pub fn server(&self, at: usize) -> &RedisServer {
        &self.servers[at]
    }

    /// Kills a server at once.
    pub fn kill9(&mut self, at: usize) {
        self.servers[at].kill9();
    }

    /// Starts a killed server again, with its part in the Cluster.
    pub fn restart(&mut self, at: usize) {
        self.servers[at].restart();
    }

    /// Stops all servers from running; see [`RedisServer::pause`].
    pub fn pause_all(&self) {
        self.servers.iter().for_each(RedisServer::pause);
    }

    /// Lets all servers go on.
    pub fn resume_all(&self) {
        self.servers.iter().for_each(RedisServer::resume);
    }

    /// The first replica of the master at `master`, as started.
    #[must_use]
    pub fn replica_of(&self, master: usize) -> usize {
        self.masters + master
    }

    /// The broker's settings for a node on this Cluster.
    #[must_use]
    pub fn yaml(&self) -> String {
        let addrs: Vec<String> = self.servers.iter().map(|server| format!("'{}'", server.addr())).collect();
        format!("broker: {{type: redis, redis: {{mode: cluster, addrs: [{}]}}}}\n", addrs.join(", "))
    }

    /// Which server owns `slot` now, in its own view.
    ///
    /// # Panics
    /// None does.
    #[must_use]
    pub fn owner(&self, slot: u16) -> usize {
        let owns = |server: &RedisServer| {
            server.is_running()
                && myself(server)
                    .is_some_and(|me| me.master && me.slots.iter().any(|range| range.contains(&slot)))
        };
        self.servers.iter().position(owns).expect("a server owns the slot")
    }

    /// Has the replica at `replica` take its master's place: `how` is nothing, FORCE or TAKEOVER. Waits until all
    /// servers that run agree.
    pub fn fail_over(&self, replica: usize, how: &str) {
        let me = || myself(&self.servers[replica]);
        let before = me().expect("it runs").replica_of;
        let mut words = vec!["CLUSTER", "FAILOVER"];
        words.extend((!how.is_empty()).then_some(how));
        // A replica of a master that has just been killed may have to find out first.
        until("the failover", || {
            if !me().is_some_and(|me| me.master) {
                let _ = self.servers[replica].cli(&words);
                thread::sleep(Duration::from_millis(200));
            }
            me().is_some_and(|me| me.master && me.id != before)
        });
        self.agreed();
    }

    /// Keeps the replicas of a master from following it from now on: they miss what it writes next.
    pub fn sever_replicas(&self, master: usize) {
        let (source, replica) = (&self.servers[master], &self.servers[self.replica_of(master)]);
        assert_eq!(source.cli(&["ACL", "SETUSER", "default", "-psync", "-sync"]), "OK");
        source.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        until("the replica is cut off", || replica.info("replication")["master_link_status"] == "down");
    }

    /// Moves slots, by the official steps: the keys go in batches while the slots are between two masters.
    pub fn move_slots(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        self.begin_move(slots.clone(), from, to);
        self.move_keys(slots.clone(), from, to);
        self.end_move(slots, from, to);
    }

    /// First step of [`Self::move_slots`].
    pub fn begin_move(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) = (id(source), id(target));
        ok(target, slots.clone().map(|slot| format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")));
        ok(source, slots.map(|slot| format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")));
    }

    /// Second step of [`Self::move_slots`].
    pub fn move_keys(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let counts = source.pipe(slots.clone().map(|slot| format!("CLUSTER COUNTKEYSINSLOT {slot}")));
        let port = target.addr().port().to_string();
        for (slot, _) in slots.zip(counts).filter(|(_, count)| count != "0") {
            loop {
                // Keys appear while they are moved.
                let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), KEYS]);
                let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
                if keys.is_empty() {
                    break;
                }
                let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
                words.extend(keys);
                let answer = source.cli(&words);
                // NOKEY: they have expired meanwhile.
                assert!(matches!(answer.as_str(), "OK" | "NOKEY"), "MIGRATE: {answer}");
            }
        }
    }

    /// Third step of [`Self::move_slots`].
    pub fn end_move(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let target_id = id(target);
        for server in [target, source] {
            ok(server, slots.clone().map(|slot| format!("CLUSTER SETSLOT {slot} NODE {target_id}")));
        }
    }

    fn join(&self) {
        let (masters, replicas) = self.servers.split_at(self.masters);
        for (at, master) in masters.iter().enumerate() {
            let share = |n: usize| n * usize::from(SLOTS) / masters.len();
            let (first, last) = (share(at).to_string(), (share(at + 1) - 1).to_string());
            assert_eq!(master.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
            assert_eq!(master.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]), "OK");
        }
        let all = self.servers.len().to_string();
        let complete =
            || self.servers.iter().all(|server| cluster_info(server, "cluster_known_nodes") == all);
        until("all servers know each other", || {
            // Again and again: on a busy machine a handshake may run out of time, and is not repeated.
            self.meet();
            let patience = Instant::now() + Duration::from_secs(4);
            while !complete() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(20));
            }
            complete()
        });
        for (master, replica) in masters.iter().zip(replicas) {
            let id = id(master);
            until("the replica knows its master", || replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK");
        }
        until("the replicas follow", || {
            replicas.iter().all(|replica| replica.info("replication")["master_link_status"] == "up")
        });
        self.agreed();
    }

    /// Has all others introduced to the first server.
    fn meet(&self) {
        for server in self.servers.iter().skip(1) {
            let (port, bus) =
                (server.addr().port().to_string(), server.cli(&["CONFIG", "GET", "cluster-port"]));
            let bus = bus.lines().nth(1).expect("the bus port").to_owned();
            assert_eq!(self.servers[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
    }

    /// Waits until the replica of a master has everything that the master has written up to now. (`WAIT` would only wait
    /// for writes of its own connection.)
    pub fn caught_up(&self, master: usize) {
        let number = |server: &RedisServer, name: &str| {
            server.info("replication").get(name).and_then(|offset| offset.parse::<u64>().ok())
        };
        let written = number(&self.servers[master], "master_repl_offset").expect("a master's offset");
        let replica = &self.servers[self.replica_of(master)];
        until("the replica has it all", || number(replica, "slave_repl_offset") >= Some(written));
    }

    /// Waits until all servers that run say that the Cluster works, and that the same servers own the same slots.
    pub fn agreed(&self) {
        until("the Cluster works", || {
            let running = || self.servers.iter().filter(|server| server.is_running());
            let mut maps: Vec<Vec<String>> = running().map(slot_map).collect();
            maps.dedup();
            maps.len() == 1 && running().all(|server| cluster_info(server, "cluster_state") == "ok")
        });
    }
}

/// Runs what blocks beside the test's own tasks.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

/// What a server says of itself; `None` if it does not answer as one of a Cluster.
#[must_use]
pub fn myself(server: &RedisServer) -> Option<Myself> {
    let nodes = server.cli(&["CLUSTER", "NODES"]);
    let line = nodes.lines().find(|line| line.contains("myself"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let number = |text: &str| text.parse::<u16>().ok();
    let slots = words.iter().skip(8).filter_map(|word| match word.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(word).map(|slot| slot..=slot),
    });
    Some(Myself {
        id: words.first()?.to_string(),
        master: words.get(2)?.contains("master"),
        replica_of: words.get(3)?.to_string(),
        slots: slots.collect(),
    })
}

fn server(args: &[&str]) -> RedisServer {
    let cluster = [
        ["--cluster-config-file", "nodes.conf"],
        ["--cluster-node-timeout", NODE_TIMEOUT],
        ["--repl-diskless-sync-delay", "0"],
        ["--stream-node-max-bytes", "512"],
    ];
    RedisServer::start(RedisServerOptions::default().cluster().args(&cluster.concat()).args(args))
}

fn id(server: &RedisServer) -> String {
    server.cli(&["CLUSTER", "MYID"])
}

fn cluster_info(server: &RedisServer, name: &str) -> String {
    let info = server.cli(&["CLUSTER", "INFO"]);
    let of = |line: &str| {
        line.trim_end().split_once(':').filter(|(key, _)| *key == name).map(|(_, v)| v.to_owned())
    };
    info.lines().find_map(of).unwrap_or_default()
}

/// Masters and their slots as a server sees them: `<id> <slots>`, in order.
fn slot_map(server: &RedisServer) -> Vec<String> {
    let nodes = server.cli(&["CLUSTER", "NODES"]);
    let with_slots = nodes.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words.len() > 8).then(|| format!("{} {}", words[0], words[8..].join(" ")))
    });
    let mut map: Vec<String> = with_slots.collect();
    map.sort();
    map
}

/// Runs commands that must all be answered OK.
fn ok(server: &RedisServer, commands: impl Iterator<Item = String>) {
    let commands: Vec<String> = commands.collect();
    for (command, answer) in commands.iter().zip(server.pipe(commands.iter().cloned())) {
        assert_eq!(answer, "OK", "{command}");
    }
}

fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + AGREE;
    while !true_now() {
        assert!(Instant::now() < deadline, "{what}: not within {AGREE:?}");
        // There is no event to wait for.
        thread::sleep(Duration::from_millis(20));
    }
}
