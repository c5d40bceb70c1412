//! A connection that breaks during a replay neither hides the gap that its end would have told, nor repeats anything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use fake::{Peer, Server, at, live_at, next};
use streamgate_client::{
    Client, Subscription,
    proto::v1::{Connect, RecoverComplete, outbound_message::Envelope as Out},
};

/// A client that has seen `7:5` of the channel `a`, then lost its connection, and is back.
async fn came_back(server: &Server) -> (Client, Subscription, Peer, Connect) {
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:4")));
    let mut subscription = subscription.unwrap();
    peer.publication("a", "7:5", false).await;
    assert_eq!(next(&mut subscription).await, "a 7:5");
    drop(peer);
    let (peer, connect) = server.welcome().await;
    (client, subscription, peer, connect)
}

/// Replays the positions, and waits until the client has taken them in.
async fn replay(peer: &mut Peer, positions: &[&str]) {
    for position in positions {
        peer.publication("a", position, true).await;
    }
    peer.answer("after", Out::Ping(Default::default())).await;
    assert_eq!(peer.frame().await.id, "after");
}

async fn end(peer: &mut Peer, position: &str, reason: &str) {
    peer.say(Out::RecoverComplete(RecoverComplete {
        channel: "a".into(),
        position: Some(at(position)),
        gap: !reason.is_empty(),
        gap_reason: reason.into(),
        ..RecoverComplete::default()
    }))
    .await;
}

#[tokio::test]
async fn a_gap_is_told_although_the_connection_broke_before_the_end_of_its_replay() {
    let server = Server::start().await;
    let (_client, mut subscription, mut peer, _) = came_back(&server).await;
    replay(&mut peer, &["9:3", "9:4"]).await;
    drop(peer);
    for _ in 0..2 {
        let (mut peer, connect) = server.welcome().await;
        assert_eq!(connect.subscriptions[0].cursor, Some(at("7:5")), "the gap is still to be told");
        replay(&mut peer, &["9:3", "9:4", "9:5"]).await;
    }
    let (mut peer, _) = server.welcome().await;
    replay(&mut peer, &["9:3", "9:4", "9:5"]).await;
    end(&mut peer, "9:5", "EPOCH_RESET").await;
    peer.publication("a", "9:6", false).await;
    let expected = ["gap a EPOCH_RESET", "a 9:3", "a 9:4", "a 9:5", "recovered a EPOCH_RESET", "a 9:6"];
    assert_eq!(next(&mut subscription).await, expected[0]);
    // Whoever saves this goes on behind a gap that it was told of.
    assert_eq!(subscription.cursors().get("a").unwrap().to_string(), "9:2");
    for event in &expected[1..] {
        assert_eq!(next(&mut subscription).await, *event);
    }
}

#[tokio::test]
async fn a_replay_that_is_proven_whole_is_handed_on_and_not_asked_for_again() {
    let server = Server::start().await;
    let (_client, mut subscription, mut peer, _) = came_back(&server).await;
    // From 9:8 on its end must vouch for it.
    replay(&mut peer, &["7:6", "7:7", "9:8"]).await;
    for event in ["a 7:6", "a 7:7"] {
        assert_eq!(next(&mut subscription).await, event);
    }
    drop(peer);
    let (mut peer, connect) = server.welcome().await;
    assert_eq!(connect.subscriptions[0].cursor, Some(at("7:7")));
    replay(&mut peer, &["9:8", "9:9"]).await;
    end(&mut peer, "9:9", "").await;
    for event in ["a 9:8", "a 9:9", "recovered a"] {
        assert_eq!(next(&mut subscription).await, event);
    }
}

#[tokio::test]
async fn a_hole_inside_a_replay_is_told_where_it_is() {
    let server = Server::start().await;
    let (_client, mut subscription, mut peer, _) = came_back(&server).await;
    replay(&mut peer, &["7:6", "7:9", "7:10"]).await;
    end(&mut peer, "7:10", "MIDDLE").await;
    for event in ["a 7:6", "gap a MIDDLE", "a 7:9", "a 7:10", "recovered a MIDDLE"] {
        assert_eq!(next(&mut subscription).await, event);
    }
}

#[tokio::test]
async fn offsets_that_a_replay_leaves_out_are_no_gap_if_its_end_tells_none() {
    let server = Server::start().await;
    let (_client, mut subscription, mut peer, _) = came_back(&server).await;
    // What stood at 7:7 and 7:8 has expired.
    replay(&mut peer, &["7:6", "7:9"]).await;
    end(&mut peer, "7:10", "").await;
    peer.publication("a", "7:12", false).await;
    for event in ["a 7:6", "a 7:9", "recovered a", "a 7:12"] {
        assert_eq!(next(&mut subscription).await, event);
    }
}
