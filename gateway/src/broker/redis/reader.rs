//! Reads this node's inboxes through a consumer group that nobody else can be reading with.
//!
//! Owns the cursors: how far each inbox was read. A cursor moves only when its entries were handed to the partition.
//! Invariants:
//! - Each connection starts by making a group of a new generation at the cursor, in place of all former ones: a call
//!   of an abandoned connection that is still blocked on the server fails instead of swallowing entries.
//! - Whatever shows that entries may be missing (a hole in the sequence, an inbox that had to be made anew) makes the
//!   partition re-sync.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, CommandName},
    connection::Connection,
    entry::{InboxEntry, inbox_entry},
    error::CallError,
    keys::Keys,
    partition::FromReader,
    reply::Reply,
    scripts,
    topology::Reads,
};
use crate::broker::BrokerError;

/// Longest time that a read waits on the server.
const BLOCK: Duration = Duration::from_secs(1);
/// Most entries of one inbox in one read.
const COUNT: u64 = 500;
/// How often the node renews all its inboxes.
const RENEW: Duration = Duration::from_secs(10);
/// Entries after which an inbox is trimmed before its next renewal.
const TRIM: u64 = 2_000;

/// See the module.
pub struct Reader {
    reads: Reads,
    inboxes: Vec<Inbox>,
    node: u64,
    deadline: Duration,
    /// How long Redis keeps an inbox that its node does not renew.
    keep: Duration,
    generation: u64,
    /// Whether the inboxes exist and are being read.
    ready: watch::Sender<bool>,
}

struct Inbox {
    partition: usize,
    key: Bytes,
    /// Sequence that was read last.
    cursor: u64,
    /// Up to where it was trimmed.
    trimmed: u64,
    to: mpsc::Sender<FromReader>,
}

/// Why a connection is left.
enum Left {
    /// The inboxes must be registered again, on the same connection.
    Unregistered(String),
    /// The connection is of no use any more.
    Closed(String),
    /// The partitions are gone.
    Stopped,
}

impl From<CallError> for Left {
    fn from(error: CallError) -> Self {
        match error {
            // NOGROUP: the inbox or the group is gone. Others may pass as well, on a fresh registration.
            CallError::Server(error) if !error.ends_connection() => Self::Unregistered(error.to_string()),
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
    /// A reader of `reads`; `to` are the partitions' ends, in the order of `reads.partitions`.
    #[must_use]
    pub fn new(
        reads: Reads,
        to: Vec<mpsc::Sender<FromReader>>,
        keys: &Keys,
        node: u64,
        deadline: Duration,
        keep: Duration,
        ready: watch::Sender<bool>,
    ) -> Self {
        let inbox = |(partition, to): (&usize, _)| Inbox {
            partition: *partition,
            key: keys.key(*partition, &format!("in:{node}")),
            cursor: 0,
            trimmed: 0,
            to,
        };
        let inboxes = reads.partitions.iter().zip(to).map(inbox).collect();
        Self { reads, inboxes, node, deadline, keep, generation: 0, ready }
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
            loop {
                let left = self.read_on(&connection).await;
                self.ready.send_replace(false);
                match left {
                    Left::Unregistered(reason) if !connection.is_closed() => {
                        tracing::warn!(reason, "the inboxes must be registered again");
                        // What fails again and again must not do so in a hot loop.
                        tokio::time::sleep(Duration::from_millis(50)).await;
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
        let mut renewed = Instant::now();
        loop {
            let reply = connection.call(self.read_command(), BLOCK + self.deadline).await?;
            for stream in reply.into_array_or_empty().map_err(BrokerError::from)? {
                self.dispatch(stream).await?;
            }
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

    fn keep_ms(&self) -> Bytes {
        self.keep.as_millis().to_string().into()
    }

    async fn register(&mut self, connection: &Connection) -> Result<(), Left> {
        let mut calls = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            let args = vec![
                self.node.to_string().into(),
                self.generation.to_string().into(),
                inbox.cursor.to_string().into(),
                self.keep_ms(),
            ];
            calls.push(connection.call_script(
                &scripts::REGISTER_NODE,
                vec![inbox.key.clone()],
                args,
                self.deadline,
            ));
        }
        for (inbox, call) in self.inboxes.iter_mut().zip(calls) {
            let items = call.await?.into_array().map_err(BrokerError::from)?;
            let fresh = items.first().is_some_and(|fresh| fresh.as_int() == Ok(1));
            // At the very first registration nobody listens yet.
            if fresh && self.generation > 1 {
                inbox.tell(FromReader::Missed("the inbox was gone")).await?;
            }
        }
        Ok(())
    }

    fn read_command(&self) -> Command {
        let command = Command::with_capacity(CommandName::XReadGroup, 10 + 2 * self.inboxes.len())
            .arg("GROUP")
            .arg(self.group())
            .arg("n")
            .arg("COUNT")
            .number(COUNT)
            .arg("BLOCK")
            .number(u64::try_from(BLOCK.as_millis()).unwrap_or(1_000))
            .arg("NOACK")
            .arg("STREAMS");
        command
            .args(self.inboxes.iter().map(|inbox| inbox.key.clone()))
            .args(self.inboxes.iter().map(|_| Bytes::from_static(b">")))
            .blocking()
    }

    /// Hands the entries of one inbox, `[key, [entry...]]`, to its partition.
    async fn dispatch(&mut self, stream: Reply) -> Result<(), Left> {
        let [key, entries] = stream.into_exactly::<2>().map_err(BrokerError::from)?;
        let key = key.into_bytes().map_err(BrokerError::from)?;
        let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.key == key) else { return Ok(()) };
        let mut taken: Vec<InboxEntry> = Vec::new();
        let mut hole = false;
        for entry in entries.as_array().map_err(BrokerError::from)? {
            let entry = inbox_entry(entry)?;
            hole |= entry.sequence != inbox.cursor + 1;
            inbox.cursor = entry.sequence;
            taken.push(entry);
        }
        inbox.tell(FromReader::Entries(taken)).await?;
        if hole {
            inbox.tell(FromReader::Missed("entries are missing from the inbox")).await?;
        }
        Ok(())
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
                calls.push((at, connection.call_script(&scripts::RENEW_INBOX, keys, args, self.deadline)));
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
    async fn tell(&self, message: FromReader) -> Result<(), Left> {
        self.to.send(message).await.map_err(|_| Left::Stopped)
    }
}
