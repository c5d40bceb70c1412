//! The call of a turn: `scripts/queue_turn.lua`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{
        entry::position_of,
        paging::Caller,
        reply::{Reply, ReplyError},
    },
    local::{Step, Turn},
};
use crate::{
    broker::{
        BrokerError, Publication, Stored,
        queue::{DEFAULT_GROUP, QueueName, QueuedJob, Settle, Settled},
    },
    channel::Channel,
    policy::QueuePolicy,
};

/// The name of a queue in keys (`scripts/jobs.lua`).
pub fn key_of(queue: &QueueName) -> Bytes {
    format!("{}/{}", queue.group, queue.channel.as_str()).into()
}

/// Where dead jobs are published: not where they came from.
pub fn letters_to<'a>(queue: &QueueName, policy: &'a QueuePolicy) -> Option<&'a Channel> {
    policy.dead_letter.as_ref().filter(|channel| **channel != queue.channel)
}

/// Arguments, from the base on.
pub fn args(
    caller: &Caller,
    inbox_max: u64,
    queue: &QueueName,
    policy: &QueuePolicy,
    turn: &Turn,
) -> Vec<Bytes> {
    let flag = |set: bool| Bytes::from_static(if set { b"1" } else { b"0" });
    let mut args = vec![
        caller.keys.base(caller.partition),
        caller.node.to_string().into(),
        inbox_max.to_string().into(),
        key_of(queue),
        policy.visibility_timeout.as_millis().max(1).to_string().into(),
        policy.max_attempts.max(1).to_string().into(),
        policy.max_dead.to_string().into(),
        flag(letters_to(queue, policy).is_some()),
        turn.steps.len().to_string().into(),
    ];
    // The default group of a queue channel is there without a note.
    let noted = !(policy.channel_is_queue && queue.group.as_str() == DEFAULT_GROUP);
    for step in &turn.steps {
        args.extend(step_args(step, noted, policy));
    }
    for want in &turn.wants {
        args.push(want.session.clone().into());
        args.push(want.jobs.to_string().into());
    }
    args
}

fn step_args(step: &Step, noted: bool, policy: &QueuePolicy) -> [Bytes; 5] {
    let flag = |set: bool| Bytes::from_static(if set { b"1" } else { b"0" });
    let none = Bytes::new();
    match step {
        Step::Begin { session, .. } => {
            [Bytes::from_static(b"c"), session.clone().into(), none.clone(), none, flag(noted)]
        }
        Step::End { session, release } => {
            [Bytes::from_static(b"u"), session.clone().into(), none.clone(), none, flag(*release)]
        }
        Step::Told { job } => {
            [Bytes::from_static(b"d"), none.clone(), job.clone().into(), none.clone(), none]
        }
        Step::Settle { session, id, how, .. } => {
            let (what, argument) = match how {
                Settle::Ack => ("a", 0),
                Settle::Nack { delay } => ("n", delay.as_millis()),
                Settle::Extend { by } => ("e", by.unwrap_or(policy.visibility_timeout).as_millis()),
            };
            let (session, job) = (session.clone().into(), id.job.clone().into());
            [what.into(), session, job, id.attempt.to_string().into(), argument.to_string().into()]
        }
    }
}

/// A job that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Place of the consumer among those that wanted some.
    pub want: usize,
    /// Its name.
    pub job: String,
    /// 1 for the first.
    pub attempt: u32,
    /// Milliseconds since the Unix epoch by Redis' clock.
    pub deadline_ms: u64,
    /// The message.
    pub publication: Arc<Publication>,
}

/// What a turn brought.
#[derive(Debug)]
pub struct Outcome {
    /// Of each step.
    pub steps: Vec<Settled>,
    /// By Redis' clock.
    pub due_ms: Option<u64>,
    /// Jobs that ran out of attempts.
    pub died: u64,
    /// Dead jobs that there was no room for.
    pub dropped: u64,
    /// Jobs, or why one is none: then it is not delivered until its attempts are over.
    pub taken: Vec<Taken>,
    /// Dead jobs that are to be published.
    pub dead: Vec<(String, Bytes)>,
}

impl Outcome {
    /// Reads the script's result.
    ///
    /// # Errors
    /// [`BrokerError::Damaged`].
    pub fn of(channel: &Channel, reply: Reply) -> Result<Self, BrokerError> {
        let [_, outcomes, due, died, dropped, taken, dead] = reply.into_exactly::<7>()?;
        let steps = outcomes.as_bytes()?.iter().map(|outcome| match outcome {
            b'.' => Settled::Done,
            b'x' => Settled::Expired,
            b'n' => Settled::NotYours,
            _ => Settled::Gone,
        });
        let due_ms = if due.as_bytes()?.is_empty() { None } else { Some(whole(&due)?) };
        let taken = taken.as_array()?.iter().filter_map(|job| match read(channel, job) {
            Ok(taken) => Some(taken),
            Err(error) => {
                tracing::error!(%channel, %error, "a job is damaged");
                None
            }
        });
        let dead = dead.into_array()?.into_iter().map(|job| {
            let [id, blob] = job.into_exactly::<2>()?;
            Ok((id.as_str()?.to_owned(), Bytes::copy_from_slice(blob.as_bytes()?)))
        });
        Ok(Self {
            steps: steps.collect(),
            due_ms,
            died: died.as_u64()?,
            dropped: dropped.as_u64()?,
            taken: taken.collect(),
            dead: dead.collect::<Result<_, BrokerError>>()?,
        })
    }
}

/// A score of a zset may have a fraction, or be printed with an exponent.
fn whole(score: &Reply) -> Result<u64, BrokerError> {
    let text = score.as_str()?;
    let number = text.parse::<f64>().ok().filter(|number| (0.0..9e15).contains(number));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    number.map(|number| number as u64).ok_or_else(|| BrokerError::Damaged(format!("{text:?} is no time")))
}

fn read(channel: &Channel, job: &Reply) -> Result<Taken, BrokerError> {
    let items = job.as_array()?;
    let [want, id, attempt, deadline, time, position, blob] = items else {
        return Err(ReplyError::Length { expected: 7, got: items.len() }.into());
    };
    let want = usize::try_from(want.as_u64()?).unwrap_or(usize::MAX);
    Ok(Taken {
        want: want.checked_sub(1).ok_or_else(|| BrokerError::Damaged("a job for nobody".to_owned()))?,
        job: id.as_str()?.to_owned(),
        attempt: u32::try_from(attempt.as_u64()?).unwrap_or(u32::MAX),
        deadline_ms: deadline.as_u64()?,
        publication: publication(channel, time, position, blob)?,
    })
}

fn publication(
    channel: &Channel,
    time: &Reply,
    position: &Reply,
    blob: &Reply,
) -> Result<Arc<Publication>, BrokerError> {
    let position = position.as_bytes()?;
    Ok(Arc::new(Publication {
        channel: channel.clone(),
        position: if position.is_empty() { None } else { Some(position_of(position)?) },
        time_ms: time.as_u64()?,
        stored: Stored::from_bytes(Bytes::copy_from_slice(blob.as_bytes()?))?,
    }))
}

/// Reads a job of `scripts/queue_peek.lua`.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn peeked(channel: &Channel, job: &Reply) -> Result<QueuedJob, BrokerError> {
    let items = job.as_array()?;
    let [id, deliveries, ordering_key, time, position, blob] = items else {
        return Err(ReplyError::Length { expected: 6, got: items.len() }.into());
    };
    Ok(QueuedJob {
        job: id.as_str()?.to_owned(),
        attempts: u32::try_from(deliveries.as_u64()?).unwrap_or(u32::MAX),
        ordering_key: ordering_key.as_str()?.to_owned(),
        publication: publication(channel, time, position, blob)?,
    })
}
