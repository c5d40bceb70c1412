//! Which channels have subscribers by name.

use super::context::{Context, eventually};
use crate::{
    broker::{OCCUPANCY, Occupancy, Start, Turn},
    channel::Channel,
};

const NOTHING: [bool; 0] = [];

/// Takes all that is recorded in the lane of `channel`; answers what is of it. Other channels may have the same lane.
async fn take(cx: &Context, channel: &Channel) -> Vec<bool> {
    let (node, mut told) = (cx.node(0), Vec::new());
    let lane = node.lane_of(channel.as_str());
    loop {
        let Turn::Here(items) = node.take_work(OCCUPANCY, lane, None, 1_000).await.unwrap() else {
            panic!("nobody else takes it")
        };
        if items.is_empty() {
            return told;
        }
        for item in &items {
            let read = Occupancy::parse(&item.payload).unwrap();
            assert!(read.time_ms > 1_700_000_000_000, "{read:?}");
            told.extend((read.channel == *channel).then_some(read.occupied));
        }
        let ids = items.into_iter().map(|item| item.id).collect();
        node.finish_work(OCCUPANCY, lane, ids).await.unwrap();
    }
}

/// One case: what a node has asked for holds for a while, for all that share its storage.
pub(super) async fn the_first_and_the_last_subscriber_are_recorded_once_somebody_wants_to_know(cx: Context) {
    let (one, other, third) = (cx.listener(0), cx.listener(1), cx.listener(0));
    let unheard = cx.channel("usual", "unheard");
    one.channel(&unheard, Start::Live).await;
    one.unsubscribe(unheard.as_str());
    // Behind the end of the interest.
    one.channel(&unheard, Start::Live).await;
    assert_eq!(take(&cx, &unheard).await, NOTHING, "nobody has asked");

    cx.node(0).record_occupancy();
    let channel = cx.channel("usual", "room.a");
    // In the partition of the channel, as each may be told at another time.
    eventually(|| async {
        one.channel(&channel, Start::Live).await;
        one.unsubscribe(channel.as_str());
        one.channel(&channel, Start::Live).await;
        let told = take(&cx, &channel).await;
        one.unsubscribe(channel.as_str());
        (!told.is_empty()).then_some(())
    })
    .await;
    eventually(|| async { take(&cx, &channel).await.ends_with(&[false]).then_some(()) }).await;

    one.pattern(&cx.pattern("usual", "room.*"), Start::Live).await;
    assert_eq!(take(&cx, &channel).await, NOTHING, "a pattern occupies nothing");
    one.channel(&channel, Start::Live).await;
    other.channel(&channel, Start::Live).await;
    third.channel(&channel, Start::Live).await;
    one.channel(&channel, Start::Live).await;
    assert_eq!(take(&cx, &channel).await, [true]);
    one.unsubscribe(channel.as_str());
    other.unsubscribe(channel.as_str());
    // What each node was asked before is done then.
    other.pattern(&cx.pattern("usual", "else.*"), Start::Live).await;
    assert_eq!(take(&cx, &channel).await, NOTHING, "one is left");
    third.unsubscribe(channel.as_str());
    eventually(|| async { (take(&cx, &channel).await == [false]).then_some(()) }).await;
    other.channel(&channel, Start::Live).await;
    assert_eq!(take(&cx, &channel).await, [true], "a second life");
}
