//! What comes out of queues: jobs for sinks, and letters of the dead.

use std::sync::Arc;

use crate::{
    broker::{Delivery, Publication, Publish, Stored, memory::State, queue::JobOptions},
    channel::Channel,
};

impl State {
    /// Whether a queue is due before the timer wakes up by itself.
    pub(in crate::broker::memory) fn must_wake_earlier(&self) -> bool {
        self.store.queues.due_ms().is_some_and(|due_ms| due_ms < self.awake_ms)
    }

    /// Does what came out of queues: publishes what died, and delivers what was handed out.
    pub(in crate::broker::memory) fn flush(&mut self, now_ms: u64) {
        loop {
            let letters = self.store.queues.take_letters();
            if letters.is_empty() {
                break;
            }
            for (channel, letter) in letters {
                self.publish_dead(channel, &letter, now_ms);
            }
        }
        for (sink, job) in self.store.queues.take_handed() {
            if let Some(sink) = self.sinks.get(usize::from(sink.0)) {
                sink.deliver(Delivery::Job(Arc::new(job)));
            }
        }
    }

    /// The job stays on the dead shelf, whether its letter is taken or not.
    fn publish_dead(&mut self, channel: Channel, letter: &Publication, now_ms: u64) {
        let stored = Stored { exclude_session: String::new(), ..letter.stored.clone() };
        let publish = Publish {
            channel,
            stored,
            user_id: String::new(),
            idempotency_key: None,
            transient: false,
            job: JobOptions::default(),
        };
        let to = publish.channel.clone();
        if let Err(error) = self.publish(publish, now_ms) {
            tracing::warn!(from = %letter.channel, %to, %error, "a dead letter could not be published");
        }
    }
}
