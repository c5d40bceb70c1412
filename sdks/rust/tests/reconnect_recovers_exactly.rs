//! Subscriptions go on where they were, whatever happens to the connection.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use fake::{Server, at, extended, live_at, message, named, next};
use streamgate_client::{
    Encoding, StartAt, SubscribeOptions,
    proto::v1::{
        Gap, Ping, Publication, Subscription, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

#[tokio::test]
async fn a_channel_recovers_from_the_last_message_seen_and_drops_what_it_has() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let server = Server::start().await;
        let client = server.builder().encoding(encoding).build().unwrap();
        let (mut peer, connect) = server.welcome().await;
        assert_eq!((connect.caps, connect.client_id.as_str()), (vec!["streamgate.v1".to_owned()], "test"));
        let (subscription, wanted) =
            tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:4")));
        let mut subscription = subscription.unwrap();
        assert!(!wanted.recover && wanted.cursor.is_none());
        peer.publication("a", "7:5", false).await;
        assert_eq!(next(&mut subscription).await, "a 7:5");
        drop(peer);

        let (mut peer, connect) = server.welcome().await;
        assert_eq!(connect.resume_token, "secret");
        assert_eq!(
            connect.subscriptions,
            [Subscription { recover: true, cursor: Some(at("7:5")), ..named("a") }]
        );
        for offset in [4, 5, 6] {
            peer.publication("a", &format!("7:{offset}"), true).await;
        }
        peer.recovered("a", Some(at("7:6"))).await;
        for position in ["7:6", "7:7", "8:1", "7:9", "8:2"] {
            peer.publication("a", position, false).await;
        }
        for expected in ["a 7:6", "recovered a", "a 7:7", "a 8:1", "a 8:2"] {
            assert_eq!(next(&mut subscription).await, expected);
        }
        assert_eq!(subscription.cursors().get("a").unwrap().to_string(), "8:2");
    }
}

#[tokio::test]
async fn a_quiet_channel_recovers_from_where_it_began() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    let _subscription = subscription.unwrap();
    drop(peer);
    let (_peer, connect) = server.welcome().await;
    assert_eq!(connect.subscriptions[0].cursor, Some(at("7:0")));
}

#[tokio::test]
async fn a_pattern_brings_its_mark_and_a_cursor_for_every_channel() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let entry = Subscription {
        cursors: [("a.b".to_owned(), at("7:3")), ("a.*".to_owned(), at("9:0"))].into(),
        ..named("a.*")
    };
    let (subscription, _) = tokio::join!(client.subscribe("a.*"), peer.accept_subscribe(entry));
    let mut subscription = subscription.unwrap();
    peer.publication("a.c", "8:1", false).await;
    assert_eq!(next(&mut subscription).await, "a.c 8:1");
    drop(peer);

    let (mut peer, connect) = server.welcome().await;
    let wanted = &connect.subscriptions[0];
    assert!(wanted.recover && wanted.cursor.is_none());
    let expected =
        [("a.*", "9:0"), ("a.b", "7:3"), ("a.c", "8:1")].map(|(name, text)| (name.to_owned(), at(text)));
    assert_eq!(wanted.cursors, expected.into());
    peer.recovered("a.*", Some(at("11:0"))).await;
    assert_eq!(next(&mut subscription).await, "recovered a.*");
    assert_eq!(subscription.cursors().get("a.*").unwrap().to_string(), "11:0");
}

#[tokio::test]
async fn a_first_replay_that_was_cut_short_goes_on() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let options = SubscribeOptions::new("a").start_at(StartAt::Start);
    let (subscription, wanted) = tokio::join!(client.subscribe(options), peer.accept_subscribe(named("a")));
    assert!(wanted.from.is_some());
    let mut subscription = subscription.unwrap();
    peer.publication("a", "7:1", true).await;
    assert_eq!(next(&mut subscription).await, "a 7:1");
    drop(peer);
    let (mut peer, _) = server.welcome().await;
    let wanted = peer.accept_subscribe(named("a")).await;
    assert_eq!((wanted.cursor, wanted.from), (Some(at("7:1")), None));
}

#[tokio::test]
async fn overlapping_subscriptions_each_get_everything_and_recover_one_after_the_other() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let entry = Subscription {
        cursors: [("a.b".to_owned(), at("7:9")), ("a.*".to_owned(), at("9:0"))].into(),
        ..named("a.*")
    };
    let (pattern, _) = tokio::join!(client.subscribe("a.*"), peer.accept_subscribe(entry));
    let mut pattern = pattern.unwrap();
    let options = SubscribeOptions::new("a.b").start_at(StartAt::Start);
    let (channel, _) = tokio::join!(client.subscribe(options), peer.accept_subscribe(named("a.b")));
    let mut channel = channel.unwrap();
    // A live message for the pattern comes in the middle of the channel's replay.
    peer.publication("a.b", "7:8", true).await;
    peer.publication("a.b", "7:10", false).await;
    peer.publication("a.b", "7:9", true).await;
    peer.recovered("a.b", Some(at("7:9"))).await;
    assert_eq!(next(&mut pattern).await, "a.b 7:10");
    for expected in ["a.b 7:8", "a.b 7:9", "recovered a.b", "a.b 7:10"] {
        assert_eq!(next(&mut channel).await, expected);
    }
    drop(peer);

    // Only one of the two goes along; the other one waits for its end.
    let (mut peer, connect) = server.welcome().await;
    assert_eq!(connect.subscriptions.len(), 1);
    assert_eq!(connect.subscriptions[0].channel, "a.*");
    peer.publication("a.b", "7:11", true).await;
    peer.recovered("a.*", Some(at("9:0"))).await;
    let wanted = peer.accept_subscribe(named("a.b")).await;
    assert_eq!(wanted.cursor, Some(at("7:10")));
    peer.publication("a.b", "7:11", true).await;
    peer.recovered("a.b", Some(at("7:11"))).await;
    for expected in ["a.b 7:11", "recovered a.*"] {
        assert_eq!(next(&mut pattern).await, expected);
    }
    for expected in ["a.b 7:11", "recovered a.b"] {
        assert_eq!(next(&mut channel).await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_recovered_is_a_gap() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let options = SubscribeOptions::new("a").recover(false);
    let (subscription, _) =
        tokio::join!(client.subscribe(options), peer.accept_subscribe(live_at("a", "7:4")));
    let mut subscription = subscription.unwrap();
    drop(peer);
    let (mut peer, connect) = server.welcome().await;
    assert!(!connect.subscriptions[0].recover);
    assert_eq!(next(&mut subscription).await, "gap a NOT_RECOVERED");
    let gap = Gap { channel: "a".into(), position: Some(at("8:0")), gap_reason: "EPOCH_RESET".into() };
    peer.say(Out::Gap(gap)).await;
    assert_eq!(next(&mut subscription).await, "gap a EPOCH_RESET");
    assert_eq!(subscription.cursors().get("a").unwrap().to_string(), "8:0");
}

#[tokio::test]
async fn a_slow_subscriber_loses_nothing_and_the_connection_lives() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let options = SubscribeOptions::new("a").capacity(2);
    let (subscription, _) =
        tokio::join!(client.subscribe(options), peer.accept_subscribe(live_at("a", "7:0")));
    let mut subscription = subscription.unwrap();
    for offset in 1..=50 {
        peer.publication("a", &format!("7:{offset}"), false).await;
    }
    // A command is carried out although nothing is read.
    let publish = client.publish("b", streamgate_client::CloudEvent::default(), Default::default());
    let (id, _) = peer.publish().await;
    peer.ack(&id, "7:1").await;
    for offset in 1..=50 {
        assert_eq!(next(&mut subscription).await, format!("a 7:{offset}"));
    }
    publish.await.unwrap();
}

#[tokio::test]
async fn a_dropped_subscription_is_unsubscribed_also_if_a_resumed_session_brings_it_back() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    drop(subscription.unwrap());
    for round in 0..2 {
        match peer.frame().await.envelope {
            Some(In::Unsubscribe(unsubscribe)) => assert_eq!(unsubscribe.subscriptions[0].channel, "a"),
            other => panic!("unsubscribe expected in round {round}, got {other:?}"),
        }
        drop(peer);
        let connected = streamgate_client::proto::v1::Connected {
            resumed: true,
            subscriptions: vec![named("a")],
            ..extended()
        };
        let (again, connect) = server.welcome_with(connected).await;
        assert!(connect.subscriptions.is_empty());
        peer = again;
    }
}

#[tokio::test]
async fn odd_frames_change_nothing() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    let mut subscription = subscription.unwrap();
    for text in ["", "{", "[]", "{\"id\":\"1\"}", "{\"publication\":{}}", "{\"new_thing\":{\"x\":1}}"] {
        peer.raw(text.into()).await;
    }
    peer.raw(vec![1u8, 2, 3].into()).await;
    peer.recovered("a", Some(at("9:9"))).await;
    peer.recovered("nobody", None).await;
    let bare =
        streamgate_client::proto::v1::Message { payload: None, position: None, ..message("a", "7:1", true) };
    peer.say(Out::Publication(Publication { messages: vec![bare] })).await;
    peer.answer("ping-1", Out::Ping(Ping {})).await;
    let pong = peer.frame().await;
    assert_eq!((pong.id.as_str(), matches!(pong.envelope, Some(In::Pong(_)))), ("ping-1", true));
    peer.publication("a", "7:1", false).await;
    assert_eq!(next(&mut subscription).await, "a -");
    assert_eq!(next(&mut subscription).await, "a 7:1");
}
