//! Reading a page of history.

use prost::Message as _;
use streamgate_proto::{
    cloudevents::Data,
    v1::{HistoryRequest, HistoryResponse, Message, OutboundMessage, outbound_message as out},
};

use super::{Effect, Effects, Now, ReplyTo, Session, render, rights::Then, subscribe::wire_position};
use crate::{
    broker::{BrokerError, HistoryPage, HistoryQuery},
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::rights::Action,
    position::Position,
};

/// Pages, and lists of members, that one client may have read, or have waiting for room in its write queue, at the same
/// time: each may hold much more than is sent of it.
pub(super) const READS_AT_A_TIME: u32 = 16;

impl Session {
    pub(super) fn history(&mut self, now: Now, reply: ReplyTo, request: HistoryRequest, fx: &mut Effects) {
        let channel = match Channel::parse(&request.channel) {
            Ok(channel) => channel,
            Err(error) => return self.fail(now, reply, &error.into(), fx),
        };
        let limit = match request.limit {
            -1 => None,
            got => match u64::try_from(got) {
                Ok(limit) => Some(limit),
                Err(_) => {
                    let text = format!("limit is {got}: -1 stands for all, 0 for the position only");
                    return self.fail(now, reply, &ClientError::bad_request(text), fx);
                }
            },
        };
        let since = request.since.map(|since| Position::from_wire(&since.epoch, since.offset));
        let asked = channel.clone();
        let query = HistoryQuery { channel, since, limit, reverse: request.reverse };
        self.permit(now, (Action::History, asked.as_str()), Then::History(reply, query), fx);
    }

    pub(super) fn history_allowed(
        &mut self,
        now: Now,
        reply: ReplyTo,
        query: HistoryQuery,
        fx: &mut Effects,
    ) {
        if self.reading >= READS_AT_A_TIME {
            let text = format!("more than {READS_AT_A_TIME} history and presence requests at a time");
            return self.fail(now, reply, &ClientError::new(ErrorCode::RateLimited, text), fx);
        }
        self.reading += 1;
        fx.push(Effect::History { reply, query });
    }

    /// Answers a history request. A page never fills more than half of the client's write queue: what does not fit
    /// is cut, and the page says that it is truncated.
    pub fn history_done(
        &mut self,
        now: Now,
        reply: ReplyTo,
        result: Result<HistoryPage, BrokerError>,
        fx: &mut Effects,
    ) {
        let page = match result {
            Ok(page) => self.page(now, reply, page),
            Err(error) => Err((reply, (&error).into())),
        };
        match page {
            // It counts until it is on its way.
            Ok(Some(frame)) => fx.push(Effect::SendPage(Box::new(frame))),
            Ok(None) => self.page_sent(),
            Err((reply, error)) => {
                self.page_sent();
                self.fail(now, reply, &error, fx);
            }
        }
    }

    /// Takes note that a page or list, or why there is none, has its place in the write queue.
    pub fn page_sent(&mut self) {
        self.reading = self.reading.saturating_sub(1);
    }

    /// The frame of a page; `None` if there is nobody to take it.
    fn page(
        &self,
        now: Now,
        reply: ReplyTo,
        page: HistoryPage,
    ) -> Result<Option<OutboundMessage>, (ReplyTo, ClientError)> {
        // So that what is live has room beside it.
        let mut room = self.settings.limits.load().write_queue_bytes / 4;
        let mut response = HistoryResponse {
            position: page.position.map(wire_position),
            truncated: page.truncated,
            ..HistoryResponse::default()
        };
        for publication in &page.publications {
            let message = match render::message(publication, false) {
                Ok(message) => message,
                Err(error) => return Err((reply, error)),
            };
            let Some(left) = room.checked_sub(json_bytes(&message)) else {
                response.truncated = true;
                break;
            };
            room = left;
            response.messages.push(message);
        }
        Ok(self.frame(now, reply, out::Envelope::History(response)))
    }
}

/// About as much as a message takes as JSON, rather more: a third more than protobuf for binary data, quotes for the rest, and
/// six bytes for a control character in text.
fn json_bytes(message: &Message) -> usize {
    let text = match message.payload.as_ref().and_then(|event| event.data.as_ref()) {
        Some(Data::TextData(text)) => text.as_bytes(),
        _ => &[],
    };
    let escapes: usize = text
        .iter()
        .map(|byte| match byte {
            0..0x20 => 5,
            b'"' | b'\\' => 1,
            _ => 0,
        })
        .sum();
    message.encoded_len() * 3 / 2 + 128 + escapes
}
