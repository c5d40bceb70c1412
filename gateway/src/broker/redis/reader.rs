//! Reads this node's inboxes through a consumer group that nobody else can be reading with.
//!
//! Owns the cursors: how far each inbox was read. A cursor moves only when its entries were handed to the partition.
//! Invariants:
//! - Each connection starts by making a group of a new generation at the cursor, in place of all former ones: a call
//!   of an abandoned connection that is still blocked on the server fails instead of swallowing entries.
//! - Whatever shows that entries may be missing (a hole in the sequence, an inbox that had to be made anew) makes the
//!   partition re-sync.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    appetite::Appetite,
    command::{Command, CommandName},
    connection::Connection,
    entry::{InboxEntry, inbox_entries},
    error::CallError,
    keys::Keys,
    link::Link,
    partition::FromReader,
    reply::Reply,
    scripts,
    topology::Reads,
};
use crate::broker::BrokerError;

/// Longest time that a read waits on the server.
const BLOCK: Duration = Duration::from_secs(1);
/// How often the node renews all its inboxes.
const RENEW: Duration = Duration::from_secs(10);
/// Entries after which an inbox is trimmed before its next renewal.
const TRIM: u64 = 2_000;
/// First and longest pause before inboxes that could not be registered are registered again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));

/// See the module.
pub struct Reader {
    reads: Reads,
    inboxes: Vec<Inbox>,
    keys: Keys,
    node: u64,
    times: Times,
    /// Links for commands to the same server.
    commands: Vec<Arc<Link>>,
    /// Replication id of the server at the last registration.
    replid: String,
    appetite: Appetite,
    generation: u64,
    /// Whether the node wants to know which channels are occupied.
    records_occupancy: Arc<AtomicBool>,
    /// Whether the inboxes exist and are being read.
    ready: watch::Sender<bool>,
}

/// How long a [`Reader`] waits and is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long Redis keeps what the node holds.
    pub lease: Duration,
    /// Longest wait for a reply.
    pub deadline: Duration,
    /// How long Redis keeps an inbox that its node does not renew.
    pub keep: Duration,
}

struct Inbox {
    partition: usize,
    key: Bytes,
    /// Sequence that was read last.
    cursor: u64,
    /// Up to where it was trimmed.
    trimmed: u64,
    /// Why entries may be missing, until the partition was told. It outlives a registration that breaks off.
    missed: Option<&'static str>,
    to: mpsc::Sender<FromReader>,
}

/// Why a connection is left.
enum Left {
    /// The inboxes must be registered again, on the same connection.
    Unregistered(String),
    /// The connection is of no use any more.
    Closed(String),
    /// The server is not, or no longer, the right one: no connection to it is of use.
    WrongServer(String),
    /// The partitions are gone.
    Stopped,
}

impl From<CallError> for Left {
    fn from(error: CallError) -> Self {
        match error {
            // NOGROUP: the inbox or the group is gone. Others may pass as well, on a fresh registration.
            CallError::Server(error) if !error.ends_connection() => Self::Unregistered(error.to_string()),
            CallError::Server(error) if error.tells_of_role() => Self::WrongServer(error.to_string()),
            error => Self::Closed(error.to_string()),
        }
    }
}

impl From<BrokerError> for Left {
    fn from(error: BrokerError) -> Self {
        Self::Unregistered(error.to_string())
    }
}

impl Reader {
    /// A reader of `reads`; `to` are the partitions' ends, in the order of `reads.partitions`; with the node's lease, and
    /// the longest wait for a reply.
    #[must_use]
    pub fn new(
        reads: Reads,
        to: Vec<mpsc::Sender<FromReader>>,
        keys: &Keys,
        node: u64,
        times: Times,
        ready: watch::Sender<bool>,
    ) -> Self {
        let inbox = |(partition, to): (&usize, _)| Inbox {
            partition: *partition,
            key: keys.key(*partition, &format!("in:{node}")),
            cursor: 0,
            trimmed: 0,
            missed: None,
            to,
        };
        let inboxes = reads.partitions.iter().zip(to).map(inbox).collect();
        Self {
            reads,
            inboxes,
            keys: keys.clone(),
            node,
            times,
            commands: Vec::new(),
            replid: String::new(),
            appetite: Appetite::default(),
            generation: 0,
            records_occupancy: Arc::default(),
            ready,
        }
    }

    /// Names the links for commands to the same server: a blocked read is the first to be told of a change of role.
    #[must_use]
    pub fn beside(mut self, commands: Vec<Arc<Link>>) -> Self {
        self.commands = commands;
        self
    }

    /// Tells Redis, while it is so, that the node wants to know which channels are occupied.
    #[must_use]
    pub fn recording(mut self, records_occupancy: Arc<AtomicBool>) -> Self {
        self.records_occupancy = records_occupancy;
        self
    }

    /// Reads until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_reading() => {}
        }
    }

    async fn keep_reading(&mut self) {
        while let Some(connection) = self.reads.link.connected().await {
            let mut pause = PAUSES.0;
            loop {
                let left = self.read_on(&connection).await;
                if self.ready.send_replace(false) {
                    pause = PAUSES.0;
                }
                match left {
                    Left::Unregistered(reason) if !connection.is_closed() => {
                        // Said once: while the slot of an inbox migrates it fails again and again.
                        if pause == PAUSES.0 {
                            tracing::warn!(reason, "the inboxes must be registered again");
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSES.1);
                    }
                    Left::WrongServer(reason) => {
                        tracing::debug!(reason, "the reader's server changed");
                        self.leave_server(&reason);
                        break;
                    }
                    Left::Unregistered(reason) | Left::Closed(reason) => {
                        tracing::debug!(reason, "the reader's connection ended");
                        break;
                    }
                    Left::Stopped => return,
                }
            }
            connection.end("the reader left it");
            // The link publishes the next one only after it has taken this one back.
            let mut connections = self.reads.link.connections();
            let other = |current: &Option<Arc<Connection>>| {
                current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, &connection))
            };
            if connections.wait_for(other).await.is_err() {
                return;
            }
        }
    }

    /// A former master keeps its connections, and a command on one of them would count as continuing what was before.
    fn leave_server(&self, reason: &str) {
        for connection in self.commands.iter().filter_map(|link| link.current()) {
            connection.end(reason);
        }
    }

    async fn read_on(&mut self, connection: &Connection) -> Left {
        match self.register_and_read(connection).await {
            Ok(never) => match never {},
            Err(left) => left,
        }
    }

    async fn register_and_read(&mut self, connection: &Connection) -> Result<std::convert::Infallible, Left> {
        self.generation += 1;
        self.register(connection).await?;
        self.ready.send_replace(true);
        self.appetite.reset();
        let mut renewed = Instant::now();
        loop {
            let reply = connection.call(self.read_command(), BLOCK + self.times.deadline).await?;
            let (mut bytes, mut most) = (0, 0);
            for stream in reply.into_array_or_empty().map_err(BrokerError::from)? {
                let (size, entries) = self.dispatch(stream).await?;
                bytes += size;
                most = most.max(entries);
            }
            self.appetite.took(bytes, most);
            let due = renewed.elapsed() >= RENEW;
            if due {
                renewed = Instant::now();
            }
            self.renew(connection, due).await?;
        }
    }

    fn group(&self) -> Bytes {
        format!("g{}", self.generation).into()
    }

    /// An inbox is kept for longer than the lease: the reaper removes it.
    fn keep_ms(&self) -> Bytes {
        self.times.keep.max(self.times.lease * 2).as_millis().to_string().into()
    }

    async fn register(&mut self, connection: &Connection) -> Result<(), Left> {
        // Another server, or the same one after a restart, may have less than was read, and more after that already.
        let replid = &connection.hello().replid;
        let restarted = self.replid != *replid;
        let mut calls = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            let args = vec![
                self.node.to_string().into(),
                self.generation.to_string().into(),
                inbox.cursor.to_string().into(),
                self.keep_ms(),
                self.keys.base(inbox.partition),
                self.times.lease.as_millis().to_string().into(),
                Bytes::from_static(if self.records_occupancy.load(Ordering::Relaxed) { b"1" } else { b"0" }),
            ];
            calls.push(connection.call_script(
                &scripts::REGISTER_NODE,
                vec![inbox.key.clone()],
                args,
                self.times.deadline,
            ));
        }
        // Whatever breaks off: an inbox may have been made anew without an answer that says so.
        let unanswered = (self.generation > 1).then_some("a registration was not answered");
        let told: Vec<_> = self.inboxes.iter().map(|inbox| inbox.missed).collect();
        self.inboxes.iter_mut().for_each(|inbox| inbox.missed = inbox.missed.or(unanswered));
        for ((inbox, call), told) in self.inboxes.iter_mut().zip(calls).zip(told) {
            let items = call.await?.into_array().map_err(BrokerError::from)?;
            let fresh = items.first().is_some_and(|fresh| fresh.as_int() == Ok(1));
            // At the very first registration nobody listens yet.
            let reason = match (fresh, restarted) {
                (true, _) => Some("the inbox was gone"),
                (false, true) => Some("Redis restarted"),
                (false, false) => None,
            };
            inbox.missed = told.or(reason.filter(|_| self.generation > 1));
        }
        // Kept until told: a registration that breaks off half-way is followed by another.
        for inbox in &mut self.inboxes {
            inbox.tell_missed().await?;
        }
        self.replid.clone_from(replid);
        Ok(())
    }

    fn read_command(&self) -> Command {
        let command = Command::with_capacity(CommandName::XReadGroup, 10 + 2 * self.inboxes.len())
            .arg("GROUP")
            .arg(self.group())
            .arg("n")
            .arg("COUNT")
            .number(self.appetite.count())
            .arg("BLOCK")
            .number(u64::try_from(BLOCK.as_millis()).unwrap_or(1_000))
            .arg("NOACK")
            .arg("STREAMS");
        command
            .args(self.inboxes.iter().map(|inbox| inbox.key.clone()))
            .args(self.inboxes.iter().map(|_| Bytes::from_static(b">")))
            .blocking()
    }

    /// Hands the entries of one inbox, `[key, [entry...]]`, to its partition; answers about how many bytes and how many
    /// entries that were.
    async fn dispatch(&mut self, stream: Reply) -> Result<(usize, usize), Left> {
        let [key, entries] = stream.into_exactly::<2>().map_err(BrokerError::from)?;
        let key = key.into_bytes().map_err(BrokerError::from)?;
        let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.key == key) else { return Ok((0, 0)) };
        let (mut taken, mut cursor): (Vec<InboxEntry>, u64) = (Vec::new(), inbox.cursor);
        let (entries, mut bytes) = (entries.as_array().map_err(BrokerError::from)?, 0);
        for entry in entries {
            for entry in inbox_entries(entry)? {
                bytes += entry.weight();
                if entry.sequence != cursor + 1 {
                    // Told at its place: what comes after it is to be doubted, what came before is not.
                    inbox.take(std::mem::take(&mut taken), cursor).await?;
                    inbox.tell(FromReader::Missed("entries are missing from the inbox")).await?;
                }
                cursor = entry.sequence;
                taken.push(entry);
            }
        }
        inbox.take(taken, cursor).await?;
        Ok((bytes, entries.len()))
    }

    /// Keeps the inboxes, trims what was consumed and measures what waits: of all of them if `all`, else of those that
    /// have much to trim.
    async fn renew(&mut self, connection: &Connection, all: bool) -> Result<(), Left> {
        let mut calls = Vec::new();
        for (at, inbox) in self.inboxes.iter().enumerate() {
            if all || inbox.cursor - inbox.trimmed >= TRIM {
                let args =
                    vec![self.node.to_string().into(), inbox.cursor.to_string().into(), self.keep_ms()];
                let keys = vec![inbox.key.clone()];
                calls.push((
                    at,
                    connection.call_script(&scripts::RENEW_INBOX, keys, args, self.times.deadline),
                ));
            }
        }
        for (at, call) in calls {
            let items = call.await?.into_array().map_err(BrokerError::from)?;
            let lag = items.first().and_then(|lag| lag.as_int().ok()).unwrap_or(-1);
            if lag < 0 {
                return Err(Left::Unregistered("an inbox is gone".to_owned()));
            }
            if let Some(inbox) = self.inboxes.get_mut(at) {
                inbox.trimmed = inbox.cursor;
                let partition = inbox.partition.to_string();
                metrics::gauge!(crate::telemetry::metrics::INBOX_LAG, "partition" => partition)
                    .set(lag as f64);
            }
        }
        Ok(())
    }
}

impl Inbox {
    async fn tell_missed(&mut self) -> Result<(), Left> {
        if let Some(reason) = self.missed {
            self.tell(FromReader::Missed(reason)).await?;
            self.missed = None;
        }
        Ok(())
    }

    /// Hands entries over, and moves the cursor behind the last one.
    async fn take(&mut self, entries: Vec<InboxEntry>, cursor: u64) -> Result<(), Left> {
        if !entries.is_empty() {
            self.tell(FromReader::Entries(entries)).await?;
            self.cursor = cursor;
        }
        Ok(())
    }

    async fn tell(&self, message: FromReader) -> Result<(), Left> {
        self.to.send(message).await.map_err(|_| Left::Stopped)
    }
}
