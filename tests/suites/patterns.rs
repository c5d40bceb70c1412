//! Patterns over two nodes: what they match, and what they recover of channels old and new.

use streamgate_client::{Client, Cursors, PublishAck, PublishOptions, StartAt, SubscribeOptions};
use streamgate_e2e::{
    cluster::Cluster,
    events,
    listening::{Recovery, assert_quiet, message, messages, recovery},
    raw::Via,
};

async fn publish(client: &Client, channel: &str, text: &str) -> PublishAck {
    client.publish(channel, events::text(text, text), PublishOptions::default()).await.unwrap()
}

/// `channel offset`, sorted by channel; in each channel the order stays.
fn sorted(recovery: &Recovery) -> Vec<String> {
    let mut messages: Vec<_> = recovery.messages.iter().collect();
    messages.sort_by(|one, other| one.channel.cmp(&other.channel));
    messages.iter().map(|message| format!("{} {}", message.channel, message.offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_segment_and_many_match_what_they_should_on_both_nodes() {
    let cluster = Cluster::start(2).await;
    let mut listeners = Vec::new();
    for node in 0..2 {
        for via in Via::ALL {
            let client = cluster.client(node, via).await;
            let many = client.subscribe("a.**").await.unwrap();
            let client_of_one = cluster.client(node, via).await;
            let one = client_of_one.subscribe("a.*").await.unwrap();
            listeners.push((many, client_of_one, one));
        }
    }
    for node in 0..2 {
        let publisher = cluster.client(node, Via::WsJson).await;
        for channel in ["a", "a.b", "a.b.c", "ab", "b.a", "a.b"] {
            publish(&publisher, channel, channel).await;
        }
    }
    for (many, client_of_one, one) in &mut listeners {
        let mut all: Vec<String> =
            messages(many, 8).await.into_iter().map(|message| message.channel).collect();
        all.sort();
        assert_eq!(all, ["a", "a", "a.b", "a.b", "a.b", "a.b", "a.b.c", "a.b.c"]);
        let ones: Vec<_> = messages(one, 4).await.iter().map(|m| (m.channel.clone(), m.offset)).collect();
        assert_eq!(ones, (1..=4).map(|offset| ("a.b".to_owned(), offset)).collect::<Vec<_>>());
        assert_quiet(client_of_one, one).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_recovers_elsewhere_with_channels_old_silent_and_new() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    // There before the subscription, and without a word during it.
    for channel in ["a.silent", "a.quiet"] {
        publish(&publisher, channel, "before").await;
    }
    for via in Via::ALL {
        let name = |channel: &str| format!("a.{channel}{}", via as u8);
        let (heard, born, deep) = (name("heard"), name("born"), format!("{}.deep", name("born")));
        let client = cluster.client(1, via).await;
        let mut live = client.subscribe("a.**").await.unwrap();
        publish(&publisher, &heard, "1").await;
        assert_eq!(message(&mut live).await.channel, heard);
        let cursors = live.cursors().clone();
        drop(live);
        client.close().await;

        publish(&publisher, &heard, "2").await;
        publish(&publisher, &born, "1").await;
        publish(&publisher, &born, "2").await;
        publish(&publisher, &deep, "1").await;
        let silent = publish(&publisher, "a.silent", "new").await;

        let elsewhere = cluster.client(0, via).await;
        let options = SubscribeOptions::new("a.**").cursors(cursors);
        let mut resumed = elsewhere.subscribe(options).await.unwrap();
        let replay = recovery(&mut resumed).await;
        assert_eq!((replay.reason(), replay.end.truncated, replay.gaps.len()), ("", false, 0), "{replay:?}");
        let mut expected = vec![
            format!("{heard} 2"),
            format!("{born} 1"),
            format!("{born} 2"),
            format!("{deep} 1"),
            format!("a.silent {}", silent.offset),
        ];
        expected.sort();
        assert_eq!(sorted(&replay), expected);
        assert!(replay.messages.iter().all(|message| message.replay));
        // And live goes on, of all of them.
        for channel in [&heard, &born, &deep] {
            let ack = publish(&publisher, channel, "live").await;
            assert_eq!(message(&mut resumed).await.position, ack.position);
        }
        assert_quiet(&elsewhere, &mut resumed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_removed_and_born_again_is_replayed_as_a_whole_and_told() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let client = cluster.client(1, Via::WsJson).await;
    let mut live = client.subscribe("a.*").await.unwrap();
    for channel in ["a.again", "a.gone", "a.whole"] {
        publish(&publisher, channel, "1").await;
        publish(&publisher, channel, "2").await;
        messages(&mut live, 2).await;
    }
    let cursors = live.cursors().clone();
    drop(live);
    for channel in ["a.again", "a.gone"] {
        cluster.redis.cli(&["DEL", &cluster.history_key(channel)]);
    }
    publish(&publisher, "a.again", "3").await;
    publish(&publisher, "a.whole", "3").await;

    let options = SubscribeOptions::new("a.*").cursors(cursors);
    let mut resumed = cluster.client(0, Via::WsProto).await.subscribe(options).await.unwrap();
    let replay = recovery(&mut resumed).await;
    assert_eq!(sorted(&replay), ["a.again 1", "a.whole 3"]);
    let mut gaps: Vec<_> =
        replay.gaps.iter().map(|gap| (gap.channel.as_str(), gap.reason.as_str())).collect();
    gaps.sort();
    assert_eq!(gaps, [("a.again", "EPOCH_RESET"), ("a.gone", "EXPIRED")], "{replay:?}");
    let ack = publish(&publisher, "a.gone", "3").await;
    assert_eq!(message(&mut resumed).await.position, ack.position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_starts_at_the_beginning_or_with_the_last_of_each_channel() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    for channel in ["a.one", "a.two", "a.two.deep"] {
        for text in ["1", "2", "3"] {
            publish(&publisher, channel, text).await;
        }
    }
    for (start, expected) in [
        (StartAt::Start, vec!["a.one 1", "a.one 2", "a.one 3", "a.two 1", "a.two 2", "a.two 3"]),
        (StartAt::Last(1), vec!["a.one 3", "a.two 3"]),
    ] {
        let client = cluster.client(1, Via::WsJson).await;
        let mut subscription = client.subscribe(SubscribeOptions::new("a.*").start_at(start)).await.unwrap();
        let replay = recovery(&mut subscription).await;
        assert_eq!(
            (sorted(&replay), replay.reason()),
            (expected.iter().map(ToString::to_string).collect(), "")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_of_before_the_first_channel_bring_all_that_was_born_since() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client(1, Via::WsJson).await;
    let mut live = client.subscribe("fresh.*").await.unwrap();
    assert_quiet(&client, &mut live).await;
    let cursors: Cursors = live.cursors().clone();
    assert!(!cursors.is_empty(), "there is a mark of the beginning");
    drop(live);
    let publisher = cluster.client(0, Via::WsProto).await;
    for number in 0..40 {
        publish(&publisher, &format!("fresh.c{number}"), "1").await;
    }
    let options = SubscribeOptions::new("fresh.*").cursors(cursors);
    let mut resumed = cluster.client(0, Via::WsProto).await.subscribe(options).await.unwrap();
    let replay = recovery(&mut resumed).await;
    assert_eq!((replay.messages.len(), replay.reason(), replay.end.truncated), (40, "", false));
    assert!(replay.messages.iter().all(|message| message.offset == 1));
}
