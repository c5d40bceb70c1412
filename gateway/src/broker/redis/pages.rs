//! Pages of history.

use std::sync::Arc;

use super::{
    paging::{Caller, GREATEST_BYTES, GREATEST_REPLAY, PAGE, bytes_of},
    range::{Part, Range},
};
use crate::{
    broker::{BrokerError, From, HistoryPage, HistoryQuery},
    policy::ChannelPolicy,
};

/// Reads a page.
///
/// # Errors
/// [`BrokerError`] of the calls.
pub async fn history(
    caller: Caller,
    policy: Arc<ChannelPolicy>,
    query: HistoryQuery,
) -> Result<HistoryPage, BrokerError> {
    if !policy.keeps_history() {
        return Ok(HistoryPage { truncated: query.since.is_some(), ..HistoryPage::default() });
    }
    let wanted = query.limit.map_or(GREATEST_REPLAY, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let wanted = wanted.min(GREATEST_REPLAY);
    // The first read always asks for one entry at least, which tells whether there is more than what is wanted.
    let mut part = match (query.since, query.reverse) {
        (since, true) => Part::Before(since),
        (Some(since), false) => Part::After(since),
        (None, false) => Part::From(From::Start),
    };
    // What is over counts for nothing: a page is read on until it is full of what is not.
    let (mut former, mut got, mut limit) = (None::<Range>, 0, first_limit(wanted));
    let (range, cut) = loop {
        let page = caller.page(&query.channel, &policy, part, limit).await?;
        let (full, last, before) = (page.more, page.read_to, got);
        let mut range = match former.take() {
            Some(mut range) => {
                if query.reverse {
                    range.extend_backwards(page)
                } else {
                    range.extend(page)
                }
                range
            }
            None => page,
        };
        range.drop_over();
        got = range.living().count();
        match last {
            Some(last) if full && wanted > 0 && got <= wanted && bytes_of(&range) < GREATEST_BYTES => {
                part = if query.reverse { Part::Before(Some(last)) } else { Part::After(last) };
                limit = next_limit(wanted, got, got.saturating_sub(before));
                former = Some(range);
            }
            // Enough bytes before enough entries is a cut.
            _ => break (range, full && got <= wanted),
        }
    };
    let lost =
        if query.reverse { lost_before(&caller, &policy, &query).await? } else { lost_after(&query, &range) };
    let truncated = lost || cut || range.hole || got > wanted;
    let publications = range.living().take(wanted).cloned().collect();
    Ok(HistoryPage { publications, position: range.ends.map(|ends| ends.last), truncated })
}

/// Entries of the first page: one more than wanted tells that there is more.
fn first_limit(wanted: usize) -> usize {
    (wanted + 1).min(PAGE)
}

/// Entries of the next page when there are `got` of those wanted, of which the last page brought `brought`. Past a page
/// that cannot be read, or is over, the next ones are whole: nobody knows how many more are so.
fn next_limit(wanted: usize, got: usize, brought: usize) -> usize {
    if brought == 0 { PAGE } else { first_limit(wanted.saturating_sub(got)) }
}

fn lost_after(query: &HistoryQuery, range: &Range) -> bool {
    query.since.is_some_and(|since| range.gap_after(since).is_some())
}

/// Whether `since` is no longer kept; a backwards read does not tell.
async fn lost_before(
    caller: &Caller,
    policy: &ChannelPolicy,
    query: &HistoryQuery,
) -> Result<bool, BrokerError> {
    let Some(since) = query.since else { return Ok(false) };
    let range = caller.page(&query.channel, policy, Part::After(since), 1).await?;
    Ok(range.gap_after(since).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_a_page_that_cannot_be_read_whole_pages_are_asked_for() {
        assert_eq!((first_limit(1), first_limit(9_000)), (2, PAGE));
        assert_eq!(next_limit(1, 0, 0), PAGE);
        assert_eq!(next_limit(600, 500, 500), 101);
        assert_eq!(next_limit(3, 1, 1), 3);
    }
}
