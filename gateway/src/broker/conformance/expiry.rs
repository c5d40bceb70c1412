//! Publications with a time to live.

use futures_util::future::join_all;

use super::context::{Context, all_of, eventually, message, offsets, only_position};
use crate::{
    broker::{HistoryQuery, Publish, Start},
    channel::Channel,
    position::Position,
};

const TTL_MS: u64 = 700;
const LONG_MS: u64 = 3_600_000;

fn living(channel: &Channel, text: &str, ttl_ms: u64) -> Publish {
    let mut publish = message(channel, text);
    publish.stored.ttl_ms = ttl_ms;
    publish
}

async fn publish(cx: &Context, node: usize, publish: Publish) -> Position {
    cx.node(node).publish(publish).await.unwrap().position.unwrap()
}

/// Waits until the history shows so many.
async fn shows(cx: &Context, channel: &Channel, count: usize) {
    eventually(|| async { (cx.all(channel).await.publications.len() == count).then_some(()) }).await;
}

pub(super) async fn what_is_over_is_in_no_page_and_leaves_its_offset_out(cx: Context) {
    let channel = cx.channel("keep", "a");
    let mut positions = Vec::new();
    for (n, ttl_ms) in [0, TTL_MS, LONG_MS, TTL_MS].into_iter().enumerate() {
        positions.push(publish(&cx, n, living(&channel, "x", ttl_ms)).await);
    }
    assert_eq!(positions.iter().map(|at| at.offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    shows(&cx, &channel, 2).await;
    let query =
        |since: Option<Position>, limit, reverse| HistoryQuery { since, limit, reverse, ..all_of(&channel) };
    for (query, expected, truncated) in [
        (query(None, None, false), vec![1, 3], false),
        (query(None, None, true), vec![3, 1], false),
        (query(None, Some(1), false), vec![1], true),
        (query(None, Some(2), false), vec![1, 3], false),
        (query(None, Some(1), true), vec![3], true),
        (query(Some(positions[0]), Some(1), false), vec![3], false),
        (query(Some(positions[1]), None, false), vec![3], false),
        (query(Some(positions[2]), None, false), vec![], false),
        (query(Some(positions[3]), None, true), vec![3, 1], false),
        (query(Some(positions[2]), None, true), vec![1], false),
    ] {
        for node in 0..2 {
            let page = cx.history(node, query.clone()).await;
            assert_eq!(
                (offsets(&page.publications), page.truncated),
                (expected.clone(), truncated),
                "{query:?}"
            );
            assert_eq!(page.position, Some(positions[3]), "{query:?}");
        }
    }
    // Its position is not given again.
    assert_eq!(publish(&cx, 1, message(&channel, "next")).await, Position { offset: 5, ..positions[3] });
}

pub(super) async fn pages_are_filled_with_what_comes_behind_what_is_over(cx: Context) {
    const OVER: usize = 600;
    let channel = cx.channel("keep", "a");
    publish(&cx, 0, message(&channel, "first")).await;
    join_all((0..OVER).map(|n| publish(&cx, n, living(&channel, "x", TTL_MS)))).await;
    for n in 0..3 {
        publish(&cx, n, message(&channel, "last")).await;
    }
    shows(&cx, &channel, 4).await;
    let last = OVER as u64 + 2;
    let page = |since, limit, reverse| {
        let query = HistoryQuery { since, limit: Some(limit), reverse, ..all_of(&channel) };
        let cx = &cx;
        async move {
            let page = cx.history(1, query).await;
            (offsets(&page.publications), page.truncated)
        }
    };
    assert_eq!(page(None, 2, false).await, (vec![1, last], true));
    assert_eq!(page(None, 4, false).await, (vec![1, last, last + 1, last + 2], false));
    assert_eq!(page(None, 4, true).await, (vec![last + 2, last + 1, last, 1], false));
    assert_eq!(page(None, 3, true).await, (vec![last + 2, last + 1, last], true));
}

pub(super) async fn deliveries_and_replays_tell_what_is_over_by_the_brokers_clock(cx: Context) {
    let channel = cx.channel("keep", "a");
    let (live, late) = (cx.listener(0), cx.listener(1));
    let start = only_position(&live.channel(&channel, Start::Live).await, &channel);
    for ttl_ms in [TTL_MS, 0, LONG_MS] {
        publish(&cx, 1, living(&channel, "x", ttl_ms)).await;
    }
    let mut taken = 0;
    for ttl_ms in [TTL_MS, 0, LONG_MS] {
        let publication = live.next().await;
        assert_eq!(publication.stored.ttl_ms, ttl_ms);
        taken = publication.time_ms;
    }
    // The clocks of both nodes are the broker's.
    for node in 0..2 {
        let now_ms = cx.node(node).now_ms();
        assert!(now_ms.abs_diff(taken) < 5_000, "{now_ms} {taken}");
    }
    shows(&cx, &channel, 2).await;
    // What is over stays where it was: whoever hands it out leaves it out.
    let subscribed = late.channel(&channel, Start::After(start)).await;
    let [part] = &subscribed.catchup.as_ref().unwrap().channels[..] else { panic!("{subscribed:?}") };
    assert_eq!((offsets(&part.publications), part.gap), (vec![1, 2, 3], None));
    // A node knows the broker's clock only about.
    for node in 0..2 {
        eventually(|| async { part.publications[0].is_over(cx.node(node).now_ms()).then_some(()) }).await;
        assert!(part.publications[1..].iter().all(|one| !one.is_over(cx.node(node).now_ms())));
    }
}

pub(super) async fn transient_publications_have_a_time_to_live(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(0);
    listener.channel(&channel, Start::Live).await;
    let sent = Publish { transient: true, ..living(&channel, "x", TTL_MS) };
    assert_eq!(cx.node(1).publish(sent).await.unwrap().position, None);
    let publication = listener.next().await;
    assert!(!publication.is_over(publication.time_ms) && publication.is_over(publication.time_ms + TTL_MS));
    let node = cx.node(0);
    eventually(|| async { publication.is_over(node.now_ms()).then_some(()) }).await;
    assert!(cx.all(&channel).await.position.is_none());
}
