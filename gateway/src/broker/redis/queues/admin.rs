//! What is asked of queues apart from their consumers: calls that need no order.

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{
    super::{paging::Caller, reply::Reply, reply::ReplyError, script::Script, scripts},
    turn::{key_of, peeked},
};
use crate::{
    broker::{
        BrokerError,
        queue::{Group, QueueName, QueuePage, QueueQuery, QueueStats, QueuedJob, Shelf},
    },
    channel::{Channel, Target},
};

/// Names that one call looks at.
const PAGE: usize = 1_000;
/// Jobs that one call removes or makes ready again.
const BATCH: u64 = 500;
/// Most jobs that are looked at.
const MOST_PEEKED: usize = 1_000;

/// Calls to one partition.
pub struct Admin {
    /// Its connection.
    pub caller: Caller,
    /// Greatest length of an inbox.
    pub inbox_max: u64,
}

impl Admin {
    async fn call(&self, script: &'static Script, more: Vec<Bytes>) -> Result<Reply, BrokerError> {
        let mut args =
            vec![self.caller.keys.base(self.caller.partition), self.caller.node.to_string().into()];
        args.extend(more);
        Ok(self.caller.call(script, args).await?)
    }

    /// See [`crate::broker::queue::Queues::queue_stats`].
    pub async fn stats(&self, queue: &QueueName) -> Result<Option<QueueStats>, BrokerError> {
        let items = self.call(&scripts::QUEUE_STATS, vec![key_of(queue)]).await?.into_array()?;
        let numbers: Vec<u64> = items.iter().skip(1).map(Reply::as_u64).collect::<Result<_, _>>()?;
        match numbers.as_slice() {
            [] => Ok(None),
            [ready, in_flight, delayed, dead, oldest_age_ms, consumers] => Ok(Some(QueueStats {
                ready: *ready,
                in_flight: *in_flight,
                delayed: *delayed,
                dead: *dead,
                oldest_age_ms: *oldest_age_ms,
                consumers: *consumers,
            })),
            _ => Err(ReplyError::Length { expected: 7, got: items.len() }.into()),
        }
    }

    /// See [`crate::broker::queue::Queues::peek`].
    pub async fn peek(
        &self,
        queue: &QueueName,
        shelf: Shelf,
        limit: usize,
    ) -> Result<Vec<QueuedJob>, BrokerError> {
        let limit = limit.min(MOST_PEEKED).to_string().into();
        let args = vec![key_of(queue), word(shelf).into(), limit];
        let items = self.call(&scripts::QUEUE_PEEK, args).await?.into_array()?;
        items.iter().skip(1).map(|job| peeked(&queue.channel, job)).collect()
    }

    /// See [`crate::broker::queue::Queues::redrive`].
    pub async fn redrive(&self, queue: &QueueName, limit: u64, max_length: u64) -> Result<u64, BrokerError> {
        let mut moved = 0;
        while moved < limit {
            let most = (limit - moved).min(BATCH);
            let number = |number: u64| Bytes::from(number.to_string());
            let args = vec![number(self.inbox_max), key_of(queue), number(most), number(max_length)];
            let now = self.call(&scripts::QUEUE_REDRIVE, args).await?.as_u64()?;
            moved += now;
            if now < most {
                break;
            }
        }
        Ok(moved)
    }

    /// Removes what is on a shelf, or the group if there is none.
    pub async fn purge(&self, queue: &QueueName, shelf: Option<Shelf>) -> Result<u64, BrokerError> {
        let mut removed = 0;
        loop {
            let shelf = shelf.map_or("all", word);
            let inbox_max = self.inbox_max.to_string().into();
            let args = vec![inbox_max, key_of(queue), shelf.into(), BATCH.to_string().into()];
            let [now, more] = self.call(&scripts::QUEUE_PURGE, args).await?.into_exactly::<2>()?;
            removed += now.as_u64()?;
            if more.as_int()? == 0 {
                return Ok(removed);
            }
        }
    }

    /// Names of queues behind `after`, at most `limit`; and whether there are more.
    async fn names(
        &self,
        prefix: &str,
        query: &QueueQuery,
        limit: usize,
    ) -> Result<(Vec<QueueName>, bool), BrokerError> {
        let mut after = query.after.as_ref().map(listed).unwrap_or_default();
        if after.as_str() < prefix {
            after.clear();
        }
        let mut found = Vec::new();
        loop {
            let args = vec![prefix.to_owned().into(), after.clone().into(), PAGE.to_string().into()];
            let items = self.call(&scripts::QUEUES, args).await?.into_array()?;
            let names: Vec<&str> = items.iter().skip(1).map(Reply::as_str).collect::<Result<_, _>>()?;
            found
                .extend(names.iter().filter_map(|name| queue_of(name)).filter(|queue| matches(query, queue)));
            let full = names.len() == PAGE;
            match names.last() {
                Some(last) if full && found.len() <= limit => after = (*last).to_owned(),
                _ => {
                    let more = found.len() > limit || full;
                    found.truncate(limit);
                    return Ok((found, more));
                }
            }
        }
    }
}

/// A page of the queues of all partitions.
///
/// # Errors
/// [`BrokerError`] of the calls: a page without a partition would be no page.
pub async fn queues(partitions: Vec<Admin>, query: QueueQuery) -> Result<QueuePage, BrokerError> {
    let prefix = match &query.channels {
        Some(Target::Pattern(pattern)) => pattern.literal_prefix().to_owned(),
        Some(Target::Channel(channel)) => channel.as_str().to_owned(),
        None => String::new(),
    };
    let (query, prefix) = (&query, prefix.as_str());
    let names = partitions.iter().map(|admin| admin.names(prefix, query, query.limit));
    let (mut all, mut more) = (Vec::new(), false);
    for (partition, (names, cut)) in try_join_all(names).await?.into_iter().enumerate() {
        more |= cut;
        all.extend(names.into_iter().map(|name| (name, partition)));
    }
    all.sort();
    more |= all.len() > query.limit;
    all.truncate(query.limit);
    let stats = all.iter().map(|(queue, partition)| async {
        match partitions.get(*partition) {
            Some(admin) => admin.stats(queue).await,
            None => Ok(None),
        }
    });
    let stats = try_join_all(stats).await?;
    // One that has gone meanwhile is none.
    let queues = all.into_iter().zip(stats).filter_map(|((queue, _), stats)| Some((queue, stats?)));
    Ok(QueuePage { queues: queues.collect(), more })
}

fn word(shelf: Shelf) -> &'static str {
    match shelf {
        Shelf::Ready => "ready",
        Shelf::Delayed => "delayed",
        Shelf::InFlight => "in_flight",
        Shelf::Dead => "dead",
    }
}

fn matches(query: &QueueQuery, queue: &QueueName) -> bool {
    match &query.channels {
        None => true,
        Some(Target::Channel(channel)) => *channel == queue.channel,
        Some(Target::Pattern(pattern)) => pattern.matches(queue.channel.as_str()),
    }
}

/// The name in the list of queues.
fn listed(queue: &QueueName) -> String {
    format!("{} {}", queue.channel.as_str(), queue.group)
}

fn queue_of(name: &str) -> Option<QueueName> {
    let (channel, group) = name.split_once(' ')?;
    Some(QueueName { channel: Channel::parse(channel).ok()?, group: Group::parse(group).ok()? })
}
