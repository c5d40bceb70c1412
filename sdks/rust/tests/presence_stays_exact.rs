//! A view of who is on a channel is exact, whatever happens to the connection.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use fake::{Peer, Server, live_at, named};
use streamgate_client::{
    Client, Error, Event, PresenceView, SubscribeOptions,
    proto::v1::{
        Member, Presence, PresenceEvent, Subscription, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

fn member(session: &str) -> Member {
    Member { session_id: session.into(), ..Member::default() }
}

/// Waits for the question; its id.
async fn asked(peer: &mut Peer) -> String {
    let frame = peer.frame().await;
    match frame.envelope {
        Some(In::PresenceQuery(query)) => assert_eq!(query.channel, "a"),
        other => panic!("a presence query expected, got {other:?}"),
    }
    frame.id
}

async fn answer(peer: &mut Peer, id: &str, sessions: &[&str]) {
    let members: Vec<_> = sessions.iter().map(|session| member(session)).collect();
    let count = members.len() as u64;
    let presence = Presence { channel: "a".into(), members, count, truncated: false };
    peer.answer(id, Out::Presence(presence)).await;
}

async fn tell(peer: &mut Peer, action: &str, session: &str) {
    let event = PresenceEvent { channel: "a".into(), action: action.into(), member: Some(member(session)) };
    peer.say(Out::PresenceEvent(event)).await;
}

async fn opened(client: &Client, peer: &mut Peer, sessions: &[&str]) -> PresenceView {
    let (view, ()) = tokio::join!(client.watch_presence("a"), async {
        let wanted = peer.accept_subscribe(live_at("a", "7:4")).await;
        assert!(wanted.presence);
        let id = asked(peer).await;
        answer(peer, &id, sessions).await;
    });
    view.unwrap()
}

fn there(view: &PresenceView) -> Vec<&str> {
    view.members().map(|member| member.session_id.as_str()).collect()
}

async fn news(view: &mut PresenceView) -> String {
    match view.next().await.unwrap() {
        Event::Presence(change) => {
            format!("{}{}", if change.joined { "+" } else { "-" }, change.member.session_id)
        }
        Event::Message(message) => format!("message {}", message.position.unwrap()),
        Event::Recovered(_) => "recovered".to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn joins_and_leaves_change_the_list_and_repeated_ones_do_not() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let mut view = opened(&client, &mut peer, &["s1", "s2"]).await;
    assert_eq!(there(&view), ["s1", "s2"]);
    for (action, session) in [("join", "s1"), ("leave", "s9"), ("join", "s3"), ("leave", "s1")] {
        tell(&mut peer, action, session).await;
    }
    peer.publication("a", "7:5", false).await;
    assert_eq!(news(&mut view).await, "+s3");
    assert_eq!(news(&mut view).await, "-s1");
    assert_eq!(there(&view), ["s2", "s3"]);
    assert_eq!(news(&mut view).await, "message 7:5");
}

#[tokio::test]
async fn after_a_reconnect_it_asks_again_and_yields_the_difference() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let mut view = opened(&client, &mut peer, &["stays", "left"]).await;
    drop(peer);
    let (mut peer, connect) = server.welcome().await;
    assert!(connect.subscriptions[0].presence);
    peer.recovered("a", Some(fake::at("7:4"))).await;
    assert_eq!(news(&mut view).await, "recovered");
    // The question is under way when this happens; its answer is of before.
    let (first, ()) = tokio::join!(news(&mut view), async {
        let id = asked(&mut peer).await;
        tell(&mut peer, "join", "late").await;
        tell(&mut peer, "leave", "early").await;
        answer(&mut peer, &id, &["stays", "early", "came"]).await;
    });
    assert_eq!(first, "+late");
    assert_eq!(news(&mut view).await, "-left");
    assert_eq!(news(&mut view).await, "+came");
    assert_eq!(there(&view), ["came", "late", "stays"]);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_now_is_asked_again() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (view, mut peer) = tokio::join!(client.watch_presence("a"), async {
        peer.accept_subscribe(live_at("a", "7:4")).await;
        let id = asked(&mut peer).await;
        peer.refuse(&id, "RATE_LIMITED").await;
        // And the second one is lost with its connection.
        asked(&mut peer).await;
        drop(peer);
        let (mut peer, _) = server.welcome().await;
        let id = asked(&mut peer).await;
        answer(&mut peer, &id, &["old"]).await;
        peer
    });
    let mut view = view.unwrap();
    assert_eq!(there(&view), ["old"]);
    peer.recovered("a", Some(fake::at("7:4"))).await;
    assert_eq!(news(&mut view).await, "recovered");
    let (first, ()) = tokio::join!(news(&mut view), async {
        let id = asked(&mut peer).await;
        answer(&mut peer, &id, &["new"]).await;
    });
    assert_eq!((first, news(&mut view).await), ("-old".to_owned(), "+new".to_owned()));
}

#[tokio::test]
async fn what_has_no_list_is_refused() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    assert!(matches!(client.watch_presence("a.*").await, Err(Error::Invalid(_))));
    let options = SubscribeOptions::new("a").ephemeral();
    let (refused, ()) = tokio::join!(client.watch_presence(options), async {
        let wanted = peer.accept_subscribe(named("a")).await;
        assert_eq!(wanted, Subscription { presence: true, ephemeral: true, ..named("a") });
        let id = asked(&mut peer).await;
        peer.refuse(&id, "NOT_SUPPORTED").await;
    });
    assert!(matches!(refused, Err(Error::Server { code, .. }) if code == "NOT_SUPPORTED"));
    // Nobody holds the subscription.
    assert!(matches!(peer.frame().await.envelope, Some(In::Unsubscribe(_))));
}
