//! What comes from the server, and whom it concerns.

use std::time::{Duration, Instant};

use streamgate_proto::v1::{
    self, Connected, InboundMessage, OutboundMessage, inbound_message as inbound, outbound_message::Envelope,
};

use super::{EXTENDED, Effect, Engine, Link, heartbeat::Heartbeat};
use crate::error::Error;

impl Engine {
    /// Takes a frame from the server.
    pub(crate) fn frame(&mut self, message: OutboundMessage, now: Instant) {
        self.heard(now);
        // Frames of the server's own have ids that are no numbers, or that nobody waits for.
        let request = message.id.parse::<u64>().ok();
        let Some(envelope) = message.envelope else { return };
        if let Link::Connecting { request: expected, .. } = self.link {
            return match envelope {
                Envelope::Connected(connected) => self.connected(expected, connected, now),
                Envelope::Error(error) => self.connect_refused(Error::from_wire(error)),
                _ => {}
            };
        }
        match envelope {
            Envelope::Publication(publication) => {
                for message in publication.messages {
                    self.subscriptions.message(message.into(), &mut self.effects);
                }
            }
            // What answers a request is not the server's word on the connection, whatever it looks like.
            Envelope::Error(error) if request.is_some() => self.error(request, Error::server(error), now),
            Envelope::Error(error) => self.error(None, Error::from_wire(error), now),
            Envelope::SubscribeAck(ack) => {
                if let Some(request) = request {
                    self.subscriptions.acked(request, ack.subscriptions, self.extended, &mut self.effects);
                    self.start_subscriptions(now);
                }
            }
            Envelope::UnsubscribeAck(ack) => self.subscriptions.unsubscribed(&ack.subscriptions),
            Envelope::RecoverComplete(complete) => {
                self.subscriptions.recovered(complete.into(), &mut self.effects);
                self.start_subscriptions(now);
            }
            Envelope::Gap(gap) => self.subscriptions.gap(gap, &mut self.effects),
            Envelope::PresenceEvent(event) => self.subscriptions.presence(event, &mut self.effects),
            Envelope::RpcCall(call) => {
                self.servings.call(call, message.time, now, &mut self.ids, &mut self.effects);
            }
            Envelope::SurveyRequest(survey) => {
                self.servings.survey(survey, now, &mut self.ids, &mut self.effects);
            }
            Envelope::Ping(_) => {
                let pong = InboundMessage {
                    id: message.id,
                    envelope: Some(inbound::Envelope::Pong(v1::Pong {})),
                    ..InboundMessage::default()
                };
                self.effects.push_back(Effect::Send(pong));
            }
            Envelope::Reconnect(reconnect) => {
                if let Link::Up { leave_at, leaving, .. } = &mut self.link {
                    *leave_at = Some(now + Duration::from_millis(reconnect.after_ms.into()));
                    *leaving = reconnect.after_ms == 0;
                }
                self.withdraw_when_leaving();
            }
            answer => self.answer(request, answer, now),
        }
        self.leave_when_answered();
    }

    fn connected(&mut self, request: u64, connected: Connected, now: Instant) {
        self.extended = self.settings.extended && connected.caps.iter().any(|cap| cap == EXTENDED);
        self.resume_token = connected.resume_token;
        self.connect_bare = false;
        let heartbeat = Heartbeat::new(connected.ping_interval_ms, self.settings.ping_interval, now);
        self.link = Link::Up { heartbeat, leave_at: None, leaving: false };
        let opened = Effect::Opened { session_id: connected.session_id, resumed: connected.resumed };
        self.announcement = Some((opened, now + self.settings.connect_timeout));
        // First of all: whoever is told of the connection can be sure that calls come.
        self.sync_servings(now);
        // A resumed session may hold what was unsubscribed while there was no connection. What else it holds was given to it: by
        // its token, or by a backend.
        let dropped =
            self.subscriptions.still_held(connected.subscriptions.iter().map(|held| &*held.channel));
        self.subscriptions.acked(request, connected.subscriptions, self.extended, &mut self.effects);
        if !dropped.is_empty() {
            self.send_unsubscribe(dropped);
        }
        self.start_subscriptions(now);
        self.requests.flush(now, &mut self.effects);
    }

    /// Takes what answers a request.
    fn answer(&mut self, request: Option<u64>, answer: Envelope, now: Instant) {
        let Some(request) = request else { return };
        if matches!(answer, Envelope::Ok(_)) && self.servings.accepted(request, &mut self.effects) {
            self.sync_servings(now);
        } else {
            self.requests.answer(request, answer);
        }
    }

    fn connect_refused(&mut self, error: Error) {
        let over_subscriptions = matches!(&error, Error::Server { code, .. }
            if code != "AUTH_ERROR" && code != "NOT_AVAILABLE");
        if over_subscriptions {
            self.connect_bare = true;
        }
        self.leave(error, false);
    }

    fn error(&mut self, request: Option<u64>, error: Error, now: Instant) {
        if matches!(error, Error::Closed { .. }) {
            return self.leave(error, false);
        }
        let Some(request) = request else {
            tracing::warn!(%error, "the server reports an error that belongs to no request");
            return;
        };
        if self.servings.refused(request, &error, now, &mut self.effects) {
            return self.sync_servings(now);
        }
        if error.is_retryable() && self.requests.retry_later(request, now) {
            return;
        }
        self.requests.refuse(request, error.clone());
        self.subscriptions.refused(request, error, Some(now), &mut self.effects);
    }
}
