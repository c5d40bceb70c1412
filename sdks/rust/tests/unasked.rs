//! What the server gives a client without its asking is kept, and handed on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use fake::{Server, extended, live_at, named};
use streamgate_client::{
    Client, Unasked, UnaskedEvent,
    proto::v1::{
        Connected, Subscription, UnsubscribeAck, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

/// What the session holds, as the server says.
fn holding(channels: &[&str]) -> Connected {
    let subscriptions: Vec<Subscription> = channels.iter().map(|channel| named(channel)).collect();
    Connected { resumed: true, subscriptions, ..extended() }
}

async fn channel(unasked: &mut Unasked) -> String {
    match unasked.next().await {
        Some(UnaskedEvent::Message(message)) => message.channel,
        other => panic!("{other:?} instead of a message"),
    }
}

#[tokio::test]
async fn a_channel_of_the_token_is_not_unsubscribed_and_its_messages_are_handed_on() {
    let server = Server::start().await;
    let client: Client = server.client();
    let mut unasked = client.unasked().unwrap();
    let (mut peer, _) = server.welcome_with(holding(&["news"])).await;
    peer.publication("news", "7:1", false).await;
    assert_eq!(channel(&mut unasked).await, "news");
    // To its session alone.
    peer.publication("private", "0:0", false).await;
    assert_eq!(channel(&mut unasked).await, "private");
    // The next thing that the client says is not that it does not want the channel.
    let (subscription, _) =
        tokio::join!(client.subscribe("room"), peer.accept_subscribe(live_at("room", "7:0")));
    let mut room = subscription.unwrap();
    peer.publication("room", "7:1", false).await;
    assert_eq!(fake::next(&mut room).await, "room 7:1");
    drop(peer);
    assert_eq!(unasked.next().await, Some(UnaskedEvent::Interrupted));
    client.close().await;
    assert_eq!(unasked.next().await, None);
}

#[tokio::test]
async fn only_what_was_dropped_here_is_unsubscribed_after_a_reconnect() {
    let server = Server::start().await;
    let client = server.client();
    let mut unasked = client.unasked().unwrap();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) =
        tokio::join!(client.subscribe("room"), peer.accept_subscribe(live_at("room", "7:0")));
    drop(peer);
    assert_eq!(unasked.next().await, Some(UnaskedEvent::Interrupted));
    drop(subscription.unwrap());
    let (mut peer, _) = server.welcome_with(holding(&["news", "room"])).await;
    let frame = peer.frame().await;
    let Some(In::Unsubscribe(unsubscribe)) = frame.envelope else { panic!("{frame:?}") };
    let names: Vec<_> = unsubscribe.subscriptions.iter().map(|one| one.channel.as_str()).collect();
    assert_eq!(names, ["room"]);
    // What is still on its way of that is for nobody; when the server knows, what comes there was given by somebody.
    peer.publication("room", "7:1", false).await;
    peer.publication("news", "7:1", false).await;
    assert_eq!(channel(&mut unasked).await, "news");
    let ack = UnsubscribeAck { subscriptions: unsubscribe.subscriptions };
    peer.answer(&frame.id, Out::UnsubscribeAck(ack)).await;
    peer.publication("room", "7:2", false).await;
    assert_eq!(channel(&mut unasked).await, "room");
}
