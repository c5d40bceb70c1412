//! What the server itself does to a session, as backends ask for it.

use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, Subscription, UnsubscribeAck, outbound_message as out},
};

use super::{
    Effect, Effects, Now, ReplyTo, Session, SubscribeBatch, Ticket,
    rights::not_allowed,
    screen::{Grant, Wanted},
    subscribe::Plan,
};
use crate::{
    channel::Target,
    error::{ClientError, ErrorCode},
    policy::rights::{Action, Verdict},
};

impl Session {
    /// What kind of client it says it is.
    #[must_use]
    pub fn client_type(&self) -> &str {
        &self.client_type
    }

    /// When it connected, milliseconds since the Unix epoch.
    #[must_use]
    pub fn connected_at(&self) -> u64 {
        self.connected_unix_ms
    }

    /// How many channels and patterns it is subscribed to.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// Subscribes the session without its asking; the client is told by an ack of a request that it did not make. What became
    /// of it comes as [`Effect::Told`].
    pub fn subscribe_by_server(&mut self, now: Now, ticket: Ticket, channel: &str, fx: &mut Effects) {
        let target = match Target::parse(channel) {
            Ok(target) => target,
            Err(error) => return fx.push(Effect::Told { ticket, outcome: Err(error.into()) }),
        };
        // As the client has it: with its past, and its part in presence.
        if self.subscriptions.contains_key(&target) {
            return fx.push(Effect::Told { ticket, outcome: Ok(()) });
        }
        let most = self.settings.limits.load().subscriptions_per_client;
        if self.subscriptions.len() >= most {
            let error =
                ClientError::new(ErrorCode::RateLimited, format!("the session has {most} subscriptions"));
            return fx.push(Effect::Told { ticket, outcome: Err(error) });
        }
        // What is denied is denied whoever asks.
        if self.may(Action::Subscribe, channel) == Verdict::Denied {
            let refused = not_allowed(Action::Subscribe, channel);
            return fx.push(Effect::Told { ticket, outcome: Err(refused) });
        }
        let subscription = Subscription { channel: channel.to_owned(), ..Subscription::default() };
        let grant = Grant { server: true, ..Grant::default() };
        let wanted = Wanted { grant, ..Wanted::asked(subscription) };
        let Plan { items, changes, known, .. } = match self.plan(now, vec![wanted], fx) {
            Some(Ok(plan)) => plan,
            Some(Err(error)) => return fx.push(Effect::Told { ticket, outcome: Err(error) }),
            None => {
                let error = ClientError::new(ErrorCode::NotFound, "the session was closed over it");
                // Before the close, after which nothing follows.
                return fx.insert(fx.len() - 1, Effect::Told { ticket, outcome: Err(error) });
            }
        };
        if items.is_empty() && changes.is_empty() {
            return fx.push(Effect::Told { ticket, outcome: Ok(()) });
        }
        let (reply, ticket) = (ReplyTo::fresh(), Some(ticket));
        let batch = SubscribeBatch { reply, connecting: None, ticket, items, changes, known };
        fx.push(Effect::Subscribe(Box::new(batch)));
    }

    /// Ends a subscription without the client's asking, and tells it.
    ///
    /// # Errors
    /// The name is no channel and no pattern. A subscription that there is not is no error.
    pub fn unsubscribe_by_server(
        &mut self,
        now: Now,
        channel: &str,
        fx: &mut Effects,
    ) -> Result<(), ClientError> {
        let target = Target::parse(channel)?;
        let Some(held) = self.subscriptions.remove(&target) else { return Ok(()) };
        fx.push(Effect::Unsubscribe(vec![held.slot]));
        let subscriptions = vec![Subscription { channel: channel.to_owned(), ..Subscription::default() }];
        let ack = out::Envelope::UnsubscribeAck(UnsubscribeAck { subscriptions });
        self.answer(now, ReplyTo::fresh(), ack, fx);
        self.save(now, fx);
        Ok(())
    }

    /// Hands the client an event that it need not be subscribed for.
    ///
    /// # Errors
    /// The event is too large for the client.
    pub fn hand(
        &mut self,
        now: Now,
        channel: &str,
        event: CloudEvent,
        fx: &mut Effects,
    ) -> Result<(), ClientError> {
        let message = v1::Message {
            id: uuid::Uuid::new_v4().to_string(),
            channel: channel.to_owned(),
            payload: Some(self.sized(event)?),
            ..v1::Message::default()
        };
        let publication = out::Envelope::Publication(v1::Publication { messages: vec![message] });
        self.answer(now, ReplyTo::fresh(), publication, fx);
        Ok(())
    }
}
