//! The publish combiner of one partition: one script call under way, the next one takes everything that waits.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    beliefs::{Beliefs, is_due, keep},
    entry::position_of,
    partition::Permit,
    publish_args::{Believed, PublishArgs, Setting},
    reply::{RedisError, Reply, ReplyError},
};
use crate::{
    broker::{BrokerError, Published, queue::JobOptions},
    channel::Channel,
    policy::ChannelPolicy,
};

/// Most publishes in one call.
const GREATEST_BATCH: usize = 128;
/// Bytes that close a batch.
const BATCH_BYTES: usize = 512 * 1024;

/// A publish that waits for its turn.
#[derive(Debug)]
pub struct Waiting {
    /// Where to.
    pub channel: Channel,
    /// The encoded message.
    pub blob: Bytes,
    /// The channel's policy.
    pub policy: Arc<ChannelPolicy>,
    /// Deliver only.
    pub transient: bool,
    /// Name of the idempotency record.
    pub record: Option<String>,
    /// How it waits in queues.
    pub job: JobOptions,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Published, BrokerError>>,
    /// Its share of the partition's load.
    pub _permit: Permit,
}

/// A batch that was sent.
#[derive(Debug)]
pub struct Sent {
    publishes: Vec<Waiting>,
    /// Whether each told Redis to keep the history longer.
    refreshed: Vec<bool>,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Combiner {
    queue: VecDeque<Waiting>,
    under_way: bool,
    /// The next batch waits for [`Combiner::go_on`].
    rests: bool,
}

impl Combiner {
    /// Takes a publish.
    pub fn push(&mut self, publish: Waiting) {
        self.queue.push_back(publish);
    }

    /// Whether a batch should be sent now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.under_way && !self.rests && !self.queue.is_empty()
    }

    /// Takes the next batch and its arguments (`scripts/publish.lua`).
    pub fn next_batch(&mut self, beliefs: &Beliefs, args: &mut Vec<Bytes>) -> Sent {
        let (mut publishes, mut refreshed, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut columns = PublishArgs::default();
        let now = Instant::now();
        while publishes.len() < GREATEST_BATCH && bytes < BATCH_BYTES {
            let Some(publish) = self.queue.pop_front() else { break };
            bytes += publish.blob.len();
            let setting = setting_of(&publish, beliefs, now);
            refreshed.push(setting.refresh);
            let (channel, blob) = (publish.channel.as_str(), publish.blob.clone());
            let record = publish.record.clone().unwrap_or_default();
            columns.push(channel, blob, believed(&publish, beliefs), setting, record.into(), &publish.job);
            publishes.push(publish);
        }
        columns.append_to(args);
        self.under_way = true;
        metrics::histogram!(crate::telemetry::metrics::PUBLISH_BATCH_SIZE).record(publishes.len() as f64);
        Sent { publishes, refreshed, at: now }
    }

    /// Takes what became of the batch: answers whoever waits and learns.
    pub fn finish(&mut self, sent: Sent, outcome: Result<Reply, BrokerError>, beliefs: &mut Beliefs) {
        self.under_way = false;
        let outcomes = outcome.and_then(|reply| outcomes_of(reply, sent.publishes.len()));
        match outcomes {
            Ok(outcomes) => {
                for ((publish, refreshed), outcome) in
                    sent.publishes.into_iter().zip(sent.refreshed).zip(outcomes)
                {
                    if let Ok(Published { position: Some(position), duplicate: false }) = outcome {
                        let promised = publish.policy.history_ttl;
                        beliefs.learn(&publish.channel, position.epoch, promised, refreshed, sent.at);
                    }
                    // Who does not wait any more needs no answer.
                    let _ = publish.reply.send(outcome);
                }
            }
            Err(error) => {
                for publish in sent.publishes {
                    let _ = publish.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Takes back a batch of which nothing was executed: it is the next one again.
    pub fn put_back(&mut self, sent: Sent) {
        self.under_way = false;
        for publish in sent.publishes.into_iter().rev() {
            self.queue.push_front(publish);
        }
    }

    /// No batch until [`go_on`](Self::go_on); `false` if that is so already.
    pub fn rest(&mut self) -> bool {
        !std::mem::replace(&mut self.rests, true)
    }

    /// Ends the rest.
    pub fn go_on(&mut self) {
        self.rests = false;
    }

    /// Answers everyone who waits.
    pub fn fail_waiting(&mut self, error: &BrokerError) {
        for publish in self.queue.drain(..) {
            let _ = publish.reply.send(Err(error.clone()));
        }
    }
}

fn setting_of(publish: &Waiting, beliefs: &Beliefs, now: Instant) -> Setting {
    let policy = &publish.policy;
    let belief = beliefs.of(&publish.channel);
    Setting {
        history_size: policy.history_size,
        keep: keep(policy.history_ttl),
        refresh: belief.is_none_or(|belief| is_due(belief, policy.history_ttl, now)),
        idempotency_window: policy.idempotency_window,
        channel_is_queue: policy.queue.channel_is_queue,
        max_jobs: policy.queue.max_length,
    }
}

fn believed(publish: &Waiting, beliefs: &Beliefs) -> Believed {
    match beliefs.of(&publish.channel) {
        _ if publish.transient || !publish.policy.keeps_history() => Believed::NoHistory,
        Some(belief) => Believed::Epoch(belief.epoch),
        None => Believed::Unknown,
    }
}

/// Reads the script's result.
fn outcomes_of(reply: Reply, expected: usize) -> Result<Vec<Result<Published, BrokerError>>, BrokerError> {
    let items = reply.into_array()?;
    if items.len() != expected + 1 {
        return Err(ReplyError::Length { expected: expected + 1, got: items.len() }.into());
    }
    items.iter().skip(1).map(|item| Ok(outcome_of(item.as_bytes()?))).collect()
}

/// The error by which a publish of the batch says that its server is not, or no longer, the right one.
#[must_use]
pub fn wrong_server(reply: &Reply) -> Option<RedisError> {
    let errors = reply.as_array().ok()?.iter().filter_map(|item| item.as_bytes().ok()?.strip_prefix(b"!"));
    errors.map(|text| RedisError::parse(&String::from_utf8_lossy(text))).find(RedisError::ends_connection)
}

/// What the script says of a queue without room: `QUEUEFULL <limit> <group>`.
fn queue_full(error: &RedisError) -> Option<BrokerError> {
    let said = (error.code == "QUEUEFULL").then(|| error.message.split_once(' ')).flatten();
    said.and_then(|(limit, group)| Some((limit.parse().ok()?, group.to_owned())))
        .map(|(limit, group)| BrokerError::QueueFull { group, limit })
}

fn outcome_of(text: &[u8]) -> Result<Published, BrokerError> {
    if let Some(error) = text.strip_prefix(b"!") {
        let error = RedisError::parse(&String::from_utf8_lossy(error));
        if let Some(full) = queue_full(&error) {
            return Err(full);
        }
        // The script answers an error for a publish only if nothing of it was written.
        return Err(if error.is_transient() {
            BrokerError::NotAvailable { reason: error.to_string(), sent: false }
        } else {
            BrokerError::Refused(error.to_string())
        });
    }
    let (duplicate, id) = match text.strip_prefix(b"=") {
        Some(id) => (true, id),
        None => (false, text),
    };
    let position = if id.is_empty() { None } else { Some(position_of(id)?) };
    Ok(Published { position, duplicate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    #[test]
    fn outcomes_are_told_apart() {
        let position = Some(Position { epoch: 7, offset: 3 });
        assert_eq!(outcome_of(b"7-3"), Ok(Published { position, duplicate: false }));
        assert_eq!(outcome_of(b"=7-3"), Ok(Published { position, duplicate: true }));
        assert_eq!(outcome_of(b""), Ok(Published { position: None, duplicate: false }));
        assert_eq!(outcome_of(b"="), Ok(Published { position: None, duplicate: true }));
        assert!(matches!(outcome_of(b"!WRONGTYPE of a key"), Err(BrokerError::Refused(_))));
        for passing in ["!TRYAGAIN later", "!OOM command not allowed"] {
            let outcome = outcome_of(passing.as_bytes());
            assert!(matches!(outcome, Err(BrokerError::NotAvailable { sent: false, .. })), "{outcome:?}");
        }
        assert!(matches!(outcome_of(b"x"), Err(BrokerError::Damaged(_))));
    }

    #[test]
    fn a_publish_that_a_replica_refused_betrays_the_server() {
        let reply = |outcome: &'static str| {
            Reply::Array(vec![Reply::Int(2), Reply::Bulk("5-1".into()), Reply::Bulk(outcome.into())])
        };
        let error = wrong_server(&reply("!READONLY You can't write against a read only replica.")).unwrap();
        assert_eq!(error.code, "READONLY");
        assert_eq!(wrong_server(&reply("!OOM command not allowed")), None);
        assert_eq!(wrong_server(&reply("=5-1")), None);
    }

    #[test]
    fn a_batch_that_was_put_back_goes_first_and_in_its_order() {
        let (mut combiner, mut answers, beliefs) = (Combiner::default(), Vec::new(), Beliefs::default());
        let mut push = |combiner: &mut Combiner, blob: &'static str| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            combiner.push(Waiting {
                channel: Channel::parse("a").unwrap(),
                blob: blob.into(),
                policy: Arc::default(),
                transient: false,
                record: None,
                job: JobOptions::default(),
                reply,
                _permit: Permit::default(),
            });
        };
        push(&mut combiner, "1");
        push(&mut combiner, "2");
        let sent = combiner.next_batch(&beliefs, &mut Vec::new());
        push(&mut combiner, "3");
        combiner.put_back(sent);
        assert!(combiner.rest() && !combiner.rest() && !combiner.is_due());
        combiner.go_on();
        assert!(combiner.is_due());
        let again = combiner.next_batch(&beliefs, &mut Vec::new());
        let blobs: Vec<_> = again.publishes.iter().map(|publish| publish.blob.clone()).collect();
        assert_eq!(blobs, ["1", "2", "3"]);
    }

    #[test]
    fn one_batch_is_under_way_and_the_next_takes_what_waits() {
        let mut combiner = Combiner::default();
        let (mut beliefs, mut answers) = (Beliefs::default(), Vec::new());
        for n in 0..GREATEST_BATCH + 2 {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            combiner.push(Waiting {
                channel: Channel::parse("a").unwrap(),
                blob: n.to_string().into(),
                policy: Arc::default(),
                transient: false,
                record: None,
                job: JobOptions::default(),
                reply,
                _permit: Permit::default(),
            });
        }
        let mut args = Vec::new();
        let sent = combiner.next_batch(&beliefs, &mut args);
        let keep = (keep(ChannelPolicy::default().history_ttl)).as_millis().to_string();
        assert_eq!(args.len(), 8 + 3 * GREATEST_BATCH);
        assert_eq!((&args[1][..], &args[3][..], &args[4][..]), (&b"128"[..], keep.as_bytes(), &b"1"[..]));
        let first = [8, 8 + GREATEST_BATCH, 8 + 2 * GREATEST_BATCH].map(|at| &args[at][..]);
        assert_eq!(first, [&b"a"[..], b"0", b""]);
        assert!(!combiner.is_due());
        let ids = (1..=GREATEST_BATCH).map(|n| Reply::Bulk(format!("5-{n}").into()));
        let reply = std::iter::once(Reply::Int(128)).chain(ids).collect();
        combiner.finish(sent, Ok(Reply::Array(reply)), &mut beliefs);
        assert_eq!(answers[1].try_recv().unwrap().unwrap().position, Some(Position { epoch: 5, offset: 2 }));
        assert!(combiner.is_due());
        args.clear();
        combiner.next_batch(&beliefs, &mut args);
        assert_eq!((args.len(), &args[4][..], &args[12][..]), (14, &b"0"[..], &b"5"[..]));
    }
}
