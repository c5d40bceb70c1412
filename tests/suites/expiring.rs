//! Messages with a time to live: nobody gets them once it is over, however they come, and nothing is taken for missing.

use std::time::Duration;

use serde_json::json;
use streamgate_client::{
    CloudEventBuilder, HistoryOptions, PublishOptions,
    server::{ApiClient, Publication},
};
use streamgate_e2e::{
    api::post,
    cluster::Cluster,
    events::{self, extended, frame, from, live, publish_with, recover, text, text_of},
    gateway::TestNode,
    listening::recovery,
    raw::{RawClient, Via},
    within,
};
use streamgate_proto::v1::{
    self, HistoryRequest, Message, Position, inbound_message::Envelope as In,
    outbound_message::Envelope as Out, start_from::Point,
};
const TTL_MS: u64 = 800;

fn with(ttl_ms: u64) -> v1::PublishOptions {
    v1::PublishOptions { ttl_ms, ..v1::PublishOptions::default() }
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| text_of(message.payload.as_ref().unwrap())).collect()
}

/// Publishes `first`, one that is over soon, `middle`, another such, and `last`; their positions.
async fn fill(publisher: &mut RawClient, channel: &str) -> Vec<Position> {
    let mut positions = Vec::new();
    for (name, ttl_ms) in
        [("first", 0), ("soon", TTL_MS), ("middle", 3_600_000), ("soon too", TTL_MS), ("last", 0)]
    {
        let ack = publisher.publish_frame(publish_with(channel, text(name, name), with(ttl_ms))).await;
        positions.push(ack.position.unwrap());
    }
    positions
}

async fn history(client: &mut RawClient, channel: &str, limit: i32) -> v1::HistoryResponse {
    client.history(HistoryRequest { channel: channel.into(), limit, ..HistoryRequest::default() }).await
}

/// Waits until what is over is not shown any more.
async fn is_over(client: &mut RawClient, channel: &str) {
    within("the messages are over", async {
        // Time alone brings it.
        while history(client, channel, -1).await.messages.len() > 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_not_delivered_replayed_or_shown_and_is_no_gap() {
    let cluster = Cluster::start(2).await;
    let mut publisher = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let mut old = RawClient::connect_as(cluster.addrs(1), Via::WsJson, events::v1([live("room.news")])).await;
    let mut new = RawClient::connect_as(cluster.addrs(1), Via::WsJson, extended([live("room.news")])).await;
    let positions = fill(&mut publisher, "room.news").await;
    let offsets: Vec<_> = positions.iter().map(|at| at.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
    // As long as they live they are messages as any other.
    let all = ["first", "soon", "middle", "soon too", "last"];
    assert_eq!(
        (old.texts(5).await, new.texts(5).await),
        (all.map(str::to_owned).to_vec(), all.map(str::to_owned).to_vec())
    );
    is_over(&mut publisher, "room.news").await;

    let left = ["first", "middle", "last"];
    for node in 0..2 {
        for via in Via::ALL {
            let subscriptions = [from("room.news", Point::Start(true)), from("room.*", Point::Last(5))];
            let mut client = RawClient::connect(cluster.addrs(node), via).await;
            for subscription in subscriptions {
                client.subscribe([subscription.clone()]).await;
                let (replays, complete) = client.recovered().await;
                assert_eq!(texts(&replays), left, "{via:?}");
                assert!(!complete.gap && !complete.truncated && complete.error.is_none(), "{complete:?}");
                client.unsubscribe(&subscription.channel).await;
            }
            client.subscribe([recover("room.news", positions[0].clone())]).await;
            let (replays, complete) = client.recovered().await;
            assert_eq!((texts(&replays), complete.gap), (left[1..].to_vec(), false));
            assert_eq!(complete.position, Some(positions[4].clone()));
            let page = history(&mut client, "room.news", -1).await;
            assert_eq!((texts(&page.messages), page.truncated), (left.to_vec(), false));
            assert_eq!(page.position, Some(positions[4].clone()));
            let page = history(&mut client, "room.news", 2).await;
            assert_eq!((texts(&page.messages), page.truncated), (left[..2].to_vec(), true));
            client.quiet().await;
        }
    }
    // Live goes on behind them.
    let ack = publisher.publish("room.news", text("e", "more")).await;
    assert_eq!(ack.position.unwrap().offset, 6);
    assert_eq!((old.texts(1).await, new.texts(1).await), (vec!["more".to_owned()], vec!["more".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_recovers_past_what_is_over_without_a_gap() {
    let cluster = Cluster::start(2).await;
    let mut raw = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let positions = fill(&mut raw, "room.news").await;
    is_over(&mut raw, "room.news").await;
    let client = cluster.client(1, Via::WsProto).await;
    let cursor = streamgate_client::Position::from(positions[0].clone());
    let options = streamgate_client::SubscribeOptions::new("room.news").cursor(cursor);
    let recovery = recovery(&mut client.subscribe(options).await.unwrap()).await;
    assert_eq!((recovery.offsets(), recovery.reason()), (vec![3, 5], ""));
    let page = client.history("room.news", HistoryOptions::default()).await.unwrap();
    assert_eq!(page.messages.iter().map(|message| message.offset).collect::<Vec<_>>(), [1, 3, 5]);

    let publish = |ttl| {
        let options = PublishOptions { ttl: Some(ttl), ..PublishOptions::default() };
        client.publish("room.news", text("e", "x"), options)
    };
    assert!(publish(Duration::from_secs(60)).await.is_ok());
    let refused = publish(Duration::ZERO).await.unwrap_err();
    assert!(matches!(refused, streamgate_client::Error::Invalid(_)), "{refused}");
    let refused = publish(Duration::from_secs(366 * 86_400)).await.unwrap_err();
    assert!(refused.to_string().contains("ttl_ms"), "{refused}");
}

#[tokio::test]
async fn bounds_are_told_and_transient_messages_may_have_a_time_to_live() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect_as(node.addrs(), Via::WsJson, extended([live("a")])).await;
    let greatest = 365 * 86_400_000;
    let error = client.refused(publish_with("a", text("e", "x"), with(greatest + 1))).await;
    assert!(error.code == "BAD_REQUEST" && error.message.contains("31536000000"), "{error:?}");
    let options = v1::PublishOptions { transient: true, ..with(greatest) };
    let answer = client.request(publish_with("a", text("e", "passing"), options)).await;
    assert!(
        matches!(answer.envelope, Some(Out::PublishAck(ref ack)) if ack.position.is_none()),
        "{answer:?}"
    );
    assert_eq!(client.texts(1).await, ["passing"]);
    // Anything else that is not built says so.
    let delayed = v1::PublishOptions { delay_ms: 1, ..v1::PublishOptions::default() };
    let error = client.refused(publish_with("a", text("e", "x"), delayed)).await;
    assert_eq!(error.code, "NOT_SUPPORTED");
    let answer = client.request(frame(In::Ping(v1::Ping {}))).await;
    assert!(matches!(answer.envelope, Some(Out::Pong(_))));
}

#[tokio::test]
async fn the_server_api_takes_it_for_channels_and_hides_what_is_over() {
    let node = TestNode::start("").await;
    let event = json!({"id": "e", "source": "/s", "spec_version": "1.0", "type": "t", "text_data": "x"});
    let request = |to: serde_json::Value, ttl: serde_json::Value| {
        json!({"publications": [{"destination": to, "options": {"ttl_ms": ttl}, "payload": event}]})
            .to_string()
    };
    let admin = node.addrs().admin;
    let channels = json!({"channels": ["a"]});
    for ttl in [json!("1"), json!(3_600_000)] {
        let answer = post(admin, "publish", &[], &request(channels.clone(), ttl)).await;
        assert!(answer.json()["results"][0].get("error").is_none(), "{answer:?}");
    }
    let code = |answer: streamgate_e2e::api::ApiAnswer| {
        answer.json()["results"][0]["error"]["code"].as_str().unwrap_or_default().to_owned()
    };
    let long = post(admin, "publish", &[], &request(channels, json!("31536000001"))).await;
    assert_eq!(code(long), "BAD_REQUEST");
    let session = post(admin, "publish", &[], &request(json!({"sessions": ["s"]}), json!(5))).await;
    assert_eq!(code(session), "NOT_SUPPORTED");
    let shown = || async { post(admin, "history", &[], &json!({"channel": "a"}).to_string()).await.json() };
    within("one is over", async {
        while shown().await["messages"].as_array().map(Vec::len) != Some(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let page = shown().await;
    assert_eq!((&page["messages"][0]["offset"], page.get("truncated")), (&json!("2"), None), "{page}");

    let api = ApiClient::builder(format!("http://{admin}")).build().unwrap();
    let event = || CloudEventBuilder::new("t").text("x").build();
    let publications = [Duration::from_secs(60), Duration::from_secs(400 * 86_400)]
        .map(|ttl| Publication::new(event()).channel("b").ttl(ttl));
    let results = api.publish(publications).await.unwrap();
    assert!(results[0].outcome.is_ok() && results[1].outcome.is_err(), "{results:?}");
}
