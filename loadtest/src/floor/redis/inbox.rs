//! Reading an inbox as the gateway does: by consumer group without acknowledgement, trimmed now and then.

use anyhow::ensure;
use bytes::Bytes;
use streamgate::broker::redis::scripts;

use super::bench::{KEEP, eval};
use crate::measure::resp::{Client, Value};

/// Entries in one read of an inbox, as in the gateway.
pub const COUNT: &str = "500";
/// Consumed publications after which the gateway trims its inbox.
const TRIM: u64 = 2_000;
/// Reads without an answer, a second each, after which nothing more is waited for.
const PATIENCE: u32 = 30;

/// The inbox of one node in one partition, and who reads it.
#[derive(Debug)]
pub struct Inbox {
    reader: Client,
    node: String,
    key: Bytes,
    /// Publications read since it was trimmed.
    consumed: u64,
    /// Sequence that was read last.
    last: u64,
}

impl Inbox {
    /// The inbox `key` of a registered node, with the first generation of its group.
    pub fn new(reader: Client, node: &str, key: Bytes) -> Self {
        Self { reader, node: node.to_owned(), key, consumed: 0, last: 0 }
    }

    /// Reads to its end; how many publications that were.
    ///
    /// # Errors
    /// Redis refuses, or an entry is not understood.
    pub async fn drain(&mut self) -> anyhow::Result<u64> {
        let mut got = 0;
        loop {
            let reply = self.read(None).await?;
            if reply == Value::Nil {
                self.trim().await?;
                return Ok(got);
            }
            got += self.take(&reply).await?;
        }
    }

    /// Reads `size` publications as they come.
    ///
    /// # Errors
    /// As [`drain`](Self::drain); or nothing comes for a while.
    pub async fn read_live(&mut self, size: u64) -> anyhow::Result<()> {
        let (mut got, mut idle) = (0, 0);
        while got < size {
            let reply = self.read(Some("1000")).await?;
            idle = if reply == Value::Nil { idle + 1 } else { 0 };
            ensure!(idle < PATIENCE, "only {got} of {size} publications came to the inbox");
            got += self.take(&reply).await?;
        }
        self.trim().await
    }

    async fn read(&mut self, block_ms: Option<&str>) -> anyhow::Result<Value> {
        let mut args: Vec<&[u8]> = vec![b"XREADGROUP", b"GROUP", b"g1", b"bench", b"COUNT", COUNT.as_bytes()];
        if let Some(block_ms) = block_ms {
            args.extend([&b"BLOCK"[..], block_ms.as_bytes()]);
        }
        args.extend([&b"NOACK"[..], b"STREAMS", &self.key, b">"]);
        self.reader.call(&args).await
    }

    /// Takes what a read answered; how many publications that were.
    async fn take(&mut self, reply: &Value) -> anyhow::Result<u64> {
        let entries =
            reply.items().first().and_then(|stream| stream.items().get(1)).map_or(&[][..], Value::items);
        let mut got = 0;
        for entry in entries {
            // A pair of fields for each publication; the entry has the sequence of its first one.
            let publications = entry.items().get(1).map_or(0, |fields| fields.items().len() as u64 / 2);
            let id = entry.items().first().map_or("", Value::text);
            let sequence: u64 = id.split_once('-').map_or("", |(_, sequence)| sequence).parse()?;
            self.last = sequence + publications - 1;
            got += publications;
        }
        self.consumed += got;
        if self.consumed >= TRIM {
            self.trim().await?;
        }
        Ok(got)
    }

    async fn trim(&mut self) -> anyhow::Result<()> {
        self.consumed = 0;
        let args = [self.node.clone(), self.last.to_string(), KEEP.as_millis().to_string()];
        let request = eval(&scripts::RENEW_INBOX, &self.key, &args);
        self.reader.pipeline(&[request], 1).await.map(drop)
    }
}
