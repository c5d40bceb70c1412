//! Names of deliveries, `<job>.<attempt>@<group>/<channel>`: whoever has one can settle it through any node.

use std::fmt;

use super::{Group, QueueName};
use crate::channel::Channel;

/// Longest name of a job within its queue, in bytes.
const MAX_JOB: usize = 64;

/// Names one delivery of one job. `Display` gives the wire form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    /// Of which queue.
    pub queue: QueueName,
    /// The job, as its broker names it: letters, digits and `-`.
    pub job: String,
    /// 1 for the first delivery.
    pub attempt: u32,
}

/// It is not the name of a delivery. The text is fit for the client that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name a delivery")]
pub struct DeliveryIdError(String);

impl DeliveryId {
    /// Reads the wire form.
    ///
    /// # Errors
    /// [`DeliveryIdError`].
    pub fn parse(text: &str) -> Result<Self, DeliveryIdError> {
        Self::read(text).ok_or_else(|| DeliveryIdError(text.chars().take(80).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        let (job, queue) = text.split_once('@')?;
        let (job, attempt) = job.split_once('.')?;
        let (group, channel) = queue.split_once('/')?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let job = (!job.is_empty() && job.len() <= MAX_JOB && job.bytes().all(legal)).then_some(job)?;
        let group = if group.is_empty() { None } else { Group::parse(group).ok() }?;
        let queue = QueueName { channel: Channel::parse(channel).ok()?, group };
        let attempt = attempt.parse().ok().filter(|attempt| *attempt > 0)?;
        Some(Self { queue, job: job.to_owned(), attempt })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueueName { channel, group } = &self.queue;
        write!(f, "{}.{}@{group}/{}", self.job, self.attempt, channel.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_says_all_and_nothing_else_is_one() {
        let text = "1767225600000-3.2@mail/jobs.mail";
        let id = DeliveryId::parse(text).unwrap();
        assert_eq!((id.job.as_str(), id.attempt), ("1767225600000-3", 2));
        assert_eq!((id.queue.group.as_str(), id.queue.channel.as_str()), ("mail", "jobs.mail"));
        assert_eq!(id.to_string(), text);
        for wrong in
            ["", "1-3", "1-3.0@g/c", "1-3.x@g/c", ".1@g/c", "1-3.1@/c", "1-3.1@g/", "1 3.1@g/c", "1.1@g/a.*"]
        {
            assert!(DeliveryId::parse(wrong).is_err(), "{wrong}");
        }
        assert!(DeliveryId::parse(&format!("{}.1@g/c", "1".repeat(65))).is_err());
    }
}
