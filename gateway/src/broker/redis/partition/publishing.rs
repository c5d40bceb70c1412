//! Sends what the combiner has collected.

use bytes::Bytes;

use super::{
    super::scripts,
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
        args.push(Bytes::from_static(if caller.connection.hello().cluster { b"1" } else { b"0" }));
        let sent = self.combiner.next_batch(&self.beliefs, &mut args);
        let call = caller.call(&scripts::PUBLISH, args);
        self.later(async move { Done::Published { sent, outcome: call.await.map_err(Into::into) } });
    }
}
