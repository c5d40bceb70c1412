//! Pages of history.

use std::sync::Arc;

use super::store::Store;
use crate::broker::{
    HistoryPage, HistoryQuery, Publication,
    recovery::{StreamState, classify},
};

/// Most publications in one answer.
const GREATEST_PAGE: u64 = 10_000;

impl Store {
    /// Reads a page.
    pub(super) fn history(&mut self, query: &HistoryQuery, now_ms: u64) -> HistoryPage {
        let policy = self.policies.of(query.channel.as_str());
        self.refresh(&query.channel, &policy, now_ms);
        let slot = self.slot(&query.channel);
        let lost_epoch = slot.map_or(self.forgotten, |slot| slot.lost_epoch());
        let history = slot.and_then(|slot| slot.history.as_ref());
        let verdict = query.since.map(|since| {
            let state =
                history.map_or(StreamState::Gone { lost_epoch }, |history| history.state(since, lost_epoch));
            classify(since, self.top, state)
        });
        let gap = verdict.is_some_and(|verdict| verdict.gap.is_some());
        let Some(history) = history else { return HistoryPage { truncated: gap, ..HistoryPage::default() } };

        let limit = query.limit.unwrap_or(GREATEST_PAGE).min(GREATEST_PAGE);
        let take = usize::try_from(limit).unwrap_or(usize::MAX);
        let (publications, more) = match (query.since, query.reverse) {
            (Some(since), true) => shown(history.before(since).rev(), take, now_ms),
            (None, true) => shown(history.after(0).rev(), take, now_ms),
            (_, false) => {
                let after =
                    verdict.map_or(0, |verdict| verdict.replay_after.unwrap_or(history.last().offset));
                shown(history.after(after), take, now_ms)
            }
        };
        HistoryPage { publications, position: Some(history.last()), truncated: gap || more }
    }
}

/// The first `take` of `entries` whose time is not over, and whether there are more.
fn shown<'a>(
    entries: impl Iterator<Item = &'a Arc<Publication>>,
    take: usize,
    now_ms: u64,
) -> (Vec<Arc<Publication>>, bool) {
    let mut living = entries.filter(|entry| !entry.is_over(now_ms));
    let page = living.by_ref().take(take).cloned().collect();
    (page, living.next().is_some())
}
