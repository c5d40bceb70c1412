//! Sends what the combiner has collected.

use super::{
    super::{combiner::wrong_server, scripts},
    actor::{Actor, Done},
};

impl Actor {
    /// Sends the next batch if none is under way; answers at once if there is no connection.
    pub(super) fn send_publishes(&mut self) {
        if !self.combiner.is_due() {
            return;
        }
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(error) => return self.combiner.fail_waiting(&error),
        };
        let mut args = caller.head();
        args.push(self.environment.inbox_max.to_string().into());
        args.push(self.environment.catalogue_max.to_string().into());
        let sent = self.combiner.next_batch(&self.beliefs, &mut args);
        let (call, connection) = (caller.call(&scripts::PUBLISH, args), caller.connection);
        self.later(async move {
            let outcome = call.await;
            if let Some(error) = outcome.as_ref().ok().and_then(wrong_server) {
                connection.end(&error.to_string());
            }
            Done::Published { sent, outcome: outcome.map_err(Into::into) }
        });
    }
}
