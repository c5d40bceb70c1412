//! Pages of channels.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::store::Store;
use crate::{
    broker::{ChannelPage, ChannelQuery},
    channel::Channel,
};

/// Most names that one page looks at: the lock is held meanwhile.
const GREATEST_LOOK: usize = 20_000;

impl Store {
    /// Reads a page.
    pub(super) fn channels(&mut self, query: &ChannelQuery, now_ms: u64) -> ChannelPage {
        let prefix = query.prefix();
        let start = match query.after.as_ref().map(Channel::as_str) {
            Some(after) if after >= prefix => Excluded(after),
            _ if prefix.is_empty() => Unbounded,
            _ => Included(prefix),
        };
        let names = self.catalogue.range::<str, _>((start, Unbounded));
        let wanted = names.take_while(|name| name.as_str().starts_with(prefix)).take(GREATEST_LOOK + 1);
        let looked: Vec<Channel> = wanted.cloned().collect();
        let mut page = ChannelPage::default();
        for (at, channel) in looked.iter().enumerate() {
            if at == GREATEST_LOOK || page.channels.len() == query.limit {
                page.next = at.checked_sub(1).and_then(|before| looked.get(before)).cloned();
                break;
            }
            if query.matches(channel.as_str()) {
                let policy = self.policies.of(channel.as_str());
                self.refresh(channel, &policy, now_ms);
                if self.slot(channel).is_some_and(|slot| slot.history.is_some()) {
                    page.channels.push(channel.clone());
                }
            }
        }
        page
    }
}
