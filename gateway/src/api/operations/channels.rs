//! What is known of channels: `history`, `remove_history`, `presence`, `channels`.

use prost::Message as _;
use streamgate_proto::server::{
    ChannelInfo, ChannelsRequest, ChannelsResponse, HistoryRequest, HistoryResponse, PresenceRequest,
    PresenceResponse, RemoveHistoryRequest, RemoveHistoryResponse,
};

use super::{Operations, page_size};
use crate::{
    broker::{BrokerError, ChannelQuery, HistoryQuery},
    channel::{Channel, Target},
    error::ClientError,
    position::Position,
    session::{switched_off, wire_member, wire_message, wire_position},
};

/// Bytes of events in one answer, give or take an event: gRPC clients take 4 MiB unless they are told otherwise.
const ANSWER_BYTES: usize = 2 * 1024 * 1024;

impl Operations {
    /// Reads a page of a channel's history.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`](crate::error::ErrorCode::BadRequest), or what the broker says.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, ClientError> {
        let query = HistoryQuery {
            channel: Channel::parse(&request.channel)?,
            since: request.since.map(|since| Position::from_wire(&since.epoch, since.offset)),
            limit: Some(page_size(request.limit, 100, 1_000)? as u64),
            reverse: request.reverse,
        };
        let page = self.within(told(self.broker.history(query))).await?;
        let mut response = HistoryResponse {
            position: page.position.map(wire_position),
            truncated: page.truncated,
            ..HistoryResponse::default()
        };
        let mut bytes = 0;
        for publication in &page.publications {
            if bytes >= ANSWER_BYTES {
                response.truncated = true;
                break;
            }
            let message = wire_message(publication, false)?;
            bytes += message.encoded_len();
            response.messages.push(message);
        }
        Ok(response)
    }

    /// Removes a channel's history; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub async fn remove_history(
        &self,
        request: RemoveHistoryRequest,
    ) -> Result<RemoveHistoryResponse, ClientError> {
        let channel = Channel::parse(&request.channel)?;
        self.within(told(self.broker.remove_history(channel))).await?;
        Ok(RemoveHistoryResponse {})
    }

    /// Tells who is on a channel.
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`](crate::error::ErrorCode::NotSupported) if the channel's policy has no presence; else as
    /// [`Self::history`].
    pub async fn presence(&self, request: PresenceRequest) -> Result<PresenceResponse, ClientError> {
        let channel = Channel::parse(&request.channel)?;
        let limit = page_size(request.limit, 1_000, 5_000)?;
        if !self.settings.policies.of(channel.as_str()).presence {
            return Err(switched_off(&channel, "presence"));
        }
        let page = self.within(told(self.broker.presence(channel, limit))).await?;
        let members: Vec<_> = page.members.iter().take(limit).map(|member| wire_member(member)).collect();
        let count = page.count.max(members.len() as u64);
        let truncated = (members.len() as u64) < count;
        Ok(PresenceResponse { members, count, truncated })
    }

    /// Lists the channels that have a history.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub async fn channels(&self, request: ChannelsRequest) -> Result<ChannelsResponse, ClientError> {
        let target = match request.pattern.as_str() {
            "" => None,
            pattern => Some(Target::parse(pattern)?),
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(Channel::parse(token).map_err(|_| {
                ClientError::bad_request("page_token is not the next_page_token of another answer")
            })?),
        };
        let limit = page_size(request.limit, 1_000, 10_000)?;
        let page = self.within(told(self.broker.channels(ChannelQuery { target, after, limit }))).await?;
        let channels = page
            .channels
            .iter()
            .map(|channel| ChannelInfo { channel: channel.as_str().to_owned() })
            .collect();
        let next_page_token = page.next.map(|next| next.as_str().to_owned()).unwrap_or_default();
        Ok(ChannelsResponse { channels, next_page_token })
    }
}

/// What a broker answers, with its error in the words of the API.
async fn told<T>(work: impl Future<Output = Result<T, BrokerError>> + Send) -> Result<T, ClientError> {
    work.await.map_err(|error| ClientError::from(&error))
}
