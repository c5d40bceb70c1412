//! Presence as a client sees it: being a member, asking who is there, and being told.

use streamgate_proto::v1::{self, Presence, PresenceEvent, PresenceQuery, outbound_message as out};

use super::{Effect, Effects, Now, ReplyTo, Session, history::READS_AT_A_TIME, render, rights::Then};
use crate::{
    broker::{self, BrokerError, Member, PresencePage},
    channel::{Channel, Target},
    error::{ClientError, ErrorCode},
    policy::rights::Action,
};

/// Members that one answer names at most.
pub const MOST_MEMBERS: usize = 1_000;

/// Bytes of one answer, in JSON: many clients take no larger frame than 64 KiB.
const PAGE_BYTES: usize = 60 * 1024;

/// Bytes of a member in JSON besides its texts: names, quotes, commas and the time.
const MEMBER_BYTES: usize = 85;

/// Bytes of the client's own name that others see: every channel keeps a copy.
const CLIENT_ID_BYTES: usize = 255;

impl Session {
    /// This session as one of a channel's members.
    #[must_use]
    pub fn member(&self) -> Member {
        let mut end = self.client_id.len().min(CLIENT_ID_BYTES);
        while !self.client_id.is_char_boundary(end) {
            end -= 1;
        }
        Member {
            session_id: self.id.clone(),
            user_id: self.user_id.clone(),
            client_id: self.client_id.get(..end).unwrap_or_default().to_owned(),
            connected_at: self.connected_unix_ms,
        }
    }

    /// Whether a subscription makes its session a member: patterns never do.
    pub(super) fn is_membership(&self, target: &Target, ephemeral: bool) -> bool {
        match target {
            Target::Channel(channel) => !ephemeral && self.settings.policies.of(channel.as_str()).presence,
            Target::Pattern(_) => false,
        }
    }

    /// Why nobody is told of joins and leaves of `target`; `None` if they are. A pattern may match channels of
    /// either kind.
    pub(super) fn unwatchable(&self, target: &Target) -> Option<ClientError> {
        let Target::Channel(channel) = target else { return None };
        let policy = self.settings.policies.of(channel.as_str());
        match (policy.presence, policy.join_leave) {
            (true, true) => None,
            (false, _) => Some(switched_off(channel, "presence")),
            (true, false) => Some(switched_off(channel, "join_leave")),
        }
    }

    pub(super) fn presence_query(
        &mut self,
        now: Now,
        reply: ReplyTo,
        query: &PresenceQuery,
        fx: &mut Effects,
    ) {
        let channel = match Channel::parse(&query.channel) {
            Ok(channel) => channel,
            Err(error) => return self.fail(now, reply, &error.into(), fx),
        };
        if !self.settings.policies.of(channel.as_str()).presence {
            return self.fail(now, reply, &switched_off(&channel, "presence"), fx);
        }
        let asked = channel.clone();
        let then = Then::Presence(reply, channel);
        self.permit(now, (Action::Presence, asked.as_str()), then, fx);
    }

    pub(super) fn presence_allowed(&mut self, now: Now, reply: ReplyTo, channel: Channel, fx: &mut Effects) {
        if self.reading >= READS_AT_A_TIME {
            let text = format!("more than {READS_AT_A_TIME} history and presence requests at a time");
            return self.fail(now, reply, &ClientError::new(ErrorCode::RateLimited, text), fx);
        }
        self.reading += 1;
        fx.push(Effect::Presence { reply, channel, limit: MOST_MEMBERS });
    }

    /// Answers who is on `channel`. Members that do not fit are left out, and the answer says that it is truncated.
    pub fn presence_done(
        &mut self,
        now: Now,
        reply: ReplyTo,
        channel: &Channel,
        result: Result<PresencePage, BrokerError>,
        fx: &mut Effects,
    ) {
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                self.page_sent();
                return self.fail(now, reply, &(&error).into(), fx);
            }
        };
        let mut room = PAGE_BYTES.min(self.settings.limits.load().write_queue_bytes / 4);
        let mut members = Vec::with_capacity(page.members.len().min(MOST_MEMBERS));
        for member in page.members.iter().take(MOST_MEMBERS) {
            let Some(left) = room.checked_sub(json_bytes(member)) else { break };
            room = left;
            members.push(wire_member(member));
        }
        let count = page.count.max(page.members.len() as u64);
        let truncated = (members.len() as u64) < count;
        let presence = Presence { channel: channel.as_str().to_owned(), members, count, truncated };
        match self.frame(now, reply, out::Envelope::Presence(presence)) {
            // It counts until it is on its way.
            Some(frame) => fx.push(Effect::SendPage(Box::new(frame))),
            None => self.page_sent(),
        }
    }
}

/// The frame that tells of a join or leave; the same for everyone.
#[must_use]
pub fn presence_frame(event: &broker::PresenceEvent, now: Now) -> v1::OutboundMessage {
    render::fresh(
        now,
        out::Envelope::PresenceEvent(PresenceEvent {
            channel: event.channel.as_str().to_owned(),
            action: event.action.as_str().to_owned(),
            member: Some(wire_member(&event.member)),
        }),
    )
}

pub(crate) fn wire_member(member: &Member) -> v1::Member {
    v1::Member {
        session_id: member.session_id.clone(),
        user_id: member.user_id.clone(),
        client_id: member.client_id.clone(),
        connected_at: member.connected_at,
    }
}

pub(crate) fn switched_off(channel: &Channel, setting: &str) -> ClientError {
    let text = format!("the policy of {channel} has `{setting}` off");
    ClientError::new(ErrorCode::NotSupported, text)
}

/// At least what the member takes in JSON, which takes more than protobuf.
fn json_bytes(member: &Member) -> usize {
    let escaped = |text: &str| -> usize {
        let longest = |byte: u8| match byte {
            0..0x20 | 0x7f => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        };
        text.bytes().map(longest).sum()
    };
    MEMBER_BYTES + escaped(&member.session_id) + escaped(&member.user_id) + escaped(&member.client_id)
}
