//! Channels: their history, who is there, and which there are.

use futures_util::Stream;
use streamgate_proto::{server as wire, v1};

use super::{
    api::ApiClient,
    pages::{Page, all},
};
use crate::{HistoryOptions, HistoryPage, Message, Position, error::Error};

/// Which channels to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelsQuery {
    /// Only those that this channel or pattern matches; empty: all.
    pub pattern: String,
    /// At most so many on a page, up to 10,000; 0: 1,000.
    pub limit: u32,
    /// [`Page::next`] of the page before; empty: the first page.
    pub page_token: String,
}

impl ApiClient {
    /// A page of a channel's history, up to 1,000 messages; 100, if `options` has no limit. Where `truncated` says that there is
    /// more, ask again from the last message's position.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn history(&self, channel: &str, options: HistoryOptions) -> Result<HistoryPage, Error> {
        let request = wire::HistoryRequest {
            channel: channel.to_owned(),
            since: options.since.map(v1::Position::from),
            limit: options.limit.unwrap_or_default(),
            reverse: options.reverse,
        };
        let page =
            self.ask("history", self.timeout, request, |mut api, request| async move {
                api.history(request).await
            })
            .await?;
        Ok(HistoryPage {
            messages: page.messages.into_iter().map(Message::from).collect(),
            position: page.position.map(Position::from),
            truncated: page.truncated,
        })
    }

    /// Removes a channel's history, if there is one. Its subscribers are told of the gap.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn remove_history(&self, channel: &str) -> Result<(), Error> {
        let request = wire::RemoveHistoryRequest { channel: channel.to_owned() };
        let wire::RemoveHistoryResponse {} = self
            .ask("remove_history", self.timeout, request, |mut api, request| async move {
                api.remove_history(request).await
            })
            .await?;
        Ok(())
    }

    /// Who is on a channel, at most `limit` of them (up to 5,000; 0: 1,000); `count` is how many there are.
    ///
    /// # Errors
    /// See [`ApiClient`]; `NOT_SUPPORTED` if the channel's policy has no presence.
    pub async fn presence(&self, channel: &str, limit: u32) -> Result<wire::PresenceResponse, Error> {
        let request = wire::PresenceRequest { channel: channel.to_owned(), limit };
        self.ask(
            "presence",
            self.timeout,
            request,
            |mut api, request| async move { api.presence(request).await },
        )
        .await
    }

    /// A page of the channels that have a history, in the order of their names.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn channels(&self, query: ChannelsQuery) -> Result<Page<String>, Error> {
        let ChannelsQuery { pattern, limit, page_token } = query;
        let request = wire::ChannelsRequest { pattern, limit, page_token };
        let page: wire::ChannelsResponse =
            self.ask("channels", self.timeout, request, |mut api, request| async move {
                api.channels(request).await
            })
            .await?;
        Ok(Page::new(page.channels.into_iter().map(|info| info.channel).collect(), page.next_page_token))
    }

    /// All of these channels, page after page as they are taken. An error ends it.
    ///
    /// ```no_run
    /// # async fn example(api: streamgate_client::server::ApiClient) -> Result<(), streamgate_client::Error> {
    /// use futures_util::TryStreamExt as _;
    /// use streamgate_client::server::ChannelsQuery;
    /// let query = ChannelsQuery { pattern: "room.*".into(), ..ChannelsQuery::default() };
    /// let mut channels = std::pin::pin!(api.all_channels(query));
    /// while let Some(channel) = channels.try_next().await? {
    ///     println!("{channel}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn all_channels(
        &self,
        query: ChannelsQuery,
    ) -> impl Stream<Item = Result<String, Error>> + Send + use<> {
        let api = self.clone();
        all(query.page_token.clone(), move |page_token| {
            let (api, query) = (api.clone(), ChannelsQuery { page_token, ..query.clone() });
            async move { api.channels(query).await }
        })
    }
}
