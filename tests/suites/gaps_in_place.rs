//! A gap is told to those it concerns: who recovered past the loss has heard of it already.

use streamgate_client::{Event, Message, Position, PublishOptions, SubscribeOptions, Subscription};
use streamgate_e2e::{
    cluster::Cluster,
    events,
    listening::{event, message, recovery},
    raw::Via,
};

/// Loses what `room` had at the offsets `lost`, behind the nodes' back, and lets the next publish begin a new epoch. It does
/// not reach the nodes' inboxes: they find it, and the loss, when they look after quiet channels.
fn lose(cluster: &Cluster, lost: &[Position]) {
    let history = cluster.history_key("room");
    for position in lost {
        cluster.redis.cli(&["XDEL", &history, &format!("{}-{}", position.epoch, position.offset)]);
    }
    let end = Position { offset: lost[0].offset - 1, ..lost[0].clone() };
    cluster.redis.cli(&["XSETID", &history, &format!("{}-{}", end.epoch, end.offset)]);
    let key = |name: &str| history.replace("h:room", name);
    assert_eq!(cluster.redis.cli(&["HDEL", &key("i"), "room"]), "1", "the nodes' interest");
    assert_eq!(cluster.redis.cli(&["HSET", &key("meta"), "replid", "another"]), "0");
}

/// Takes what comes until the message, and counts the gaps before it.
async fn gaps_until(subscription: &mut Subscription, wanted: &Position) -> (Vec<String>, Vec<Message>) {
    let (mut gaps, mut messages) = (Vec::new(), Vec::<Message>::new());
    while messages.last().and_then(|message| message.position.as_ref()) != Some(wanted) {
        match event(subscription).await {
            Event::Gap(gap) => gaps.push(gap.reason.to_string()),
            Event::Message(message) => messages.push(message),
            other => panic!("{other:?}"),
        }
    }
    (gaps, messages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_recovered_past_a_loss_is_not_told_of_it_again_and_who_did_not_is() {
    let cluster = Cluster::start(1).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let publish = async |text: &str| {
        let ack = publisher.publish("room", events::text(text, text), PublishOptions::default()).await;
        ack.unwrap().position.unwrap()
    };
    let stays = cluster.client(0, Via::WsJson).await;
    let mut stays = stays.subscribe("room").await.unwrap();
    let mut positions = Vec::new();
    for number in 1..=5 {
        positions.push(publish(&number.to_string()).await);
        message(&mut stays).await;
    }
    lose(&cluster, &positions[3..]);
    let anew = publish("4 again").await;
    assert!(anew.epoch != positions[0].epoch && anew.offset == 4, "{anew}");

    let mut recovered = Vec::new();
    for via in Via::ALL {
        let client = cluster.client(0, via).await;
        let options = SubscribeOptions::new("room").cursor(positions[4].clone());
        let mut subscription = client.subscribe(options).await.unwrap();
        let recovery = recovery(&mut subscription).await;
        assert_eq!((recovery.offsets(), recovery.reason()), (vec![4], "EPOCH_RESET"), "{via:?}");
        assert_eq!(recovery.gaps.len(), 1, "before what follows it: {recovery:?}");
        recovered.push((via, client, subscription));
    }
    let (told, seen) = gaps_until(&mut stays, &anew).await;
    assert_eq!((told, seen.len()), (vec!["EPOCH_RESET".to_owned()], 1));
    let next = publish("5 again").await;
    assert_eq!(message(&mut stays).await.position.as_ref(), Some(&next));
    for (via, _client, subscription) in &mut recovered {
        let (told, seen) = gaps_until(subscription, &next).await;
        assert!(told.is_empty() && seen.len() == 1, "{via:?}: {told:?} {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_answered_all_that_is_left_is_not_told_of_a_loss_when_a_publisher_is_quicker_than_the_node() {
    let cluster = Cluster::start(1).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let publish = async |text: &str| {
        let ack = publisher.publish("room", events::text(text, text), PublishOptions::default()).await;
        ack.unwrap().position.unwrap()
    };
    let stays = cluster.client(0, Via::WsJson).await;
    let mut stays = stays.subscribe("room").await.unwrap();
    let mut positions = Vec::new();
    for number in 1..=5 {
        positions.push(publish(&number.to_string()).await);
        message(&mut stays).await;
    }
    lose(&cluster, &positions[3..]);
    let mut recovered = Vec::new();
    for via in Via::ALL {
        let client = cluster.client(0, via).await;
        let options = SubscribeOptions::new("room").cursor(positions[0].clone());
        let mut subscription = client.subscribe(options).await.unwrap();
        let recovery = recovery(&mut subscription).await;
        assert_eq!((recovery.offsets(), recovery.reason()), (vec![2, 3], ""), "{via:?}");
        recovered.push((via, client, subscription));
    }
    let anew = publish("4 again").await;
    assert!(anew.epoch != positions[0].epoch && anew.offset == 4, "{anew}");
    let (told, seen) = gaps_until(&mut stays, &anew).await;
    assert_eq!((told, seen.len()), (vec!["EPOCH_RESET".to_owned()], 1));
    for (via, _client, subscription) in &mut recovered {
        let (told, seen) = gaps_until(subscription, &anew).await;
        assert!(told.is_empty() && seen.len() == 1, "{via:?}: {told:?} {seen:?}");
    }
}
