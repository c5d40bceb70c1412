//! Sends what the combiner has collected.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    super::{
        combiner::{Sent, wrong_server},
        error::CallError,
        reply::Reply,
        scripts,
    },
    actor::{Actor, Done},
};

/// Pause before publishes that were refused unexecuted are tried again.
const REST: Duration = Duration::from_millis(25);

impl Actor {
    /// Sends the next batch if none is under way. Without a connection everyone is answered at once, unless publishes
    /// wait for a refusal to pass.
    pub(super) fn send_publishes(&mut self) {
        if !self.combiner.is_due() {
            return;
        }
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(_) if self.hold.is_on(Instant::now()) => return self.rest(),
            Err(error) => return self.combiner.fail_waiting(&error),
        };
        let mut args = caller.head();
        args.push(self.environment.inbox_max.to_string().into());
        args.push(self.environment.catalogue_max.to_string().into());
        args.push(Bytes::from_static(if caller.connection.hello().standalone { b"0" } else { b"1" }));
        let sent = self.combiner.next_batch(&self.beliefs, &mut args);
        let (call, connection) = (caller.call(&scripts::PUBLISH, args), caller.connection);
        self.later(async move {
            let outcome = call.await;
            if let Some(error) = outcome.as_ref().ok().and_then(wrong_server) {
                connection.end(&error.to_string());
            }
            Done::Published { sent, outcome }
        });
    }

    pub(super) fn finish_publishes(&mut self, sent: Sent, outcome: Result<Reply, CallError>) {
        let now = Instant::now();
        match &outcome {
            Ok(_) => self.hold.succeeded(),
            // The batch as a whole: nothing of it was written, so it may go again, before everything behind it.
            Err(CallError::Server(error)) if error.nothing_executed() => {
                if self.hold.refused(now, self.environment.deadline) {
                    tracing::debug!(partition = self.environment.partition, %error, "publishes wait");
                    self.combiner.put_back(sent);
                    return self.rest();
                }
            }
            Err(error) => {
                if error.nothing_executed() && self.hold.is_on(now) {
                    self.combiner.put_back(sent);
                    return self.rest();
                }
            }
        }
        self.combiner.finish(sent, outcome.map_err(Into::into), &mut self.beliefs);
    }

    fn rest(&mut self) {
        if self.combiner.rest() {
            self.later(async {
                tokio::time::sleep(REST).await;
                Done::Rested
            });
        }
    }
}
