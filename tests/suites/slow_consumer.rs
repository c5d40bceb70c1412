//! One slow client harms only itself: it is cut with 3512 and catches up from history.

use streamgate_e2e::{
    events::{extended, frame, from, live, publish, recover, text, text_of},
    gateway::{Addrs, TestNode},
    process::GatewayProcess,
    raw::{Event, RawClient, Via, WsOptions},
    scrape::Scrape,
};
use streamgate_proto::v1::{
    HistoryRequest, InboundMessage, Position, Subscribe, inbound_message::Envelope as In,
    outbound_message::Envelope as Out, start_from::Point,
};

const CHANNEL: &str = "busy";
const END: &str = "the end";

/// Reads up to [`END`], and answers the offsets of all messages, that one's included.
async fn read_to_the_end(mut client: RawClient) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        let message = client.message().await;
        offsets.push(message.offset);
        if text_of(message.payload.as_ref().unwrap()) == END {
            return offsets;
        }
    }
}

/// A subscriber whose socket takes little that it has not read.
async fn small(addrs: Addrs, via: Via) -> RawClient {
    let options = match via {
        Via::WsJson => WsOptions::json(),
        Via::WsProto => WsOptions::proto(),
        Via::Grpc => return RawClient::connect_as(addrs, via, extended([live(CHANNEL)])).await,
    };
    let mut client = RawClient::open_ws(addrs, options.receive_buffer(4 * 1024)).await;
    client.say_connect(extended([live(CHANNEL)])).await;
    client
}

/// Publishes one after the other until `enough`, then the end. Answers how many that were.
async fn publish_until_cut(publisher: &mut RawClient, admin: std::net::SocketAddr, cut: f64) -> u64 {
    let data = "x".repeat(4 * 1024);
    let mut count = 0;
    while Scrape::of(admin).await.value("streamgate_slow_consumers_total") < cut {
        for _ in 0..20 {
            count = publisher.publish(CHANNEL, text("e", &data)).await.offset;
        }
        assert!(count < 5_000, "nobody was cut after {count} messages");
    }
    assert_eq!(publisher.publish(CHANNEL, text("end", END)).await.offset, count + 1);
    count + 1
}

/// What a cut client got before it was cut, and where it goes on.
async fn until_cut(client: &mut RawClient) -> (Vec<u64>, Position) {
    let mut at = client.connected.subscriptions[0].cursor.clone().expect("a cursor");
    let mut offsets = Vec::new();
    loop {
        match client.next().await {
            Event::Frame(frame) => {
                let Some(Out::Publication(publication)) = frame.envelope else { continue };
                for message in publication.messages {
                    offsets.push(message.offset);
                    at = message.position.expect("a position");
                }
            }
            Event::Ping => {}
            Event::Closed(code, reason) => {
                assert_eq!(code, 3512, "{reason}");
                return (offsets, at);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_is_closed_with_3512_while_100_others_lose_nothing_and_it_recovers_exactly() {
    let yaml = "{limits: {write_queue_bytes: 512KiB}, channels: [{pattern: '**', history_size: 10000}]}";
    let gateway = GatewayProcess::start(yaml).await;
    let addrs = gateway.addrs();
    let mut stalled = Vec::new();
    for via in Via::ALL {
        stalled.push(small(addrs, via).await);
    }
    let mut others = Vec::new();
    for n in 0..100 {
        let client = RawClient::connect_as(addrs, Via::ALL[n % 3], extended([live(CHANNEL)])).await;
        others.push(tokio::spawn(read_to_the_end(client)));
    }
    let mut publisher = RawClient::connect(addrs, Via::WsProto).await;
    let count = publish_until_cut(&mut publisher, addrs.admin, stalled.len() as f64).await;
    let all: Vec<u64> = (1..=count).collect();
    for other in others {
        assert_eq!(other.await.unwrap(), all, "who reads loses nothing");
    }
    for mut client in stalled {
        let (mut offsets, at) = until_cut(&mut client).await;
        assert!(offsets.len() < all.len(), "it was cut before the end");
        let mut client = RawClient::connect_as(addrs, client.via(), extended([recover(CHANNEL, at)])).await;
        let (replays, complete) = client.recovered().await;
        assert!(!complete.gap && !complete.truncated, "{complete:?}");
        offsets.extend(replays.iter().map(|message| message.offset));
        assert_eq!(offsets, all, "{:?}: each once, in order", client.via());
    }
    let scrape = Scrape::of(addrs.admin).await;
    assert_eq!(scrape.labelled("streamgate_closes_total", "code=\"3512\""), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_larger_than_the_write_queue_is_paced_and_not_cut() {
    let node = TestNode::start("limits: {write_queue_bytes: 64KiB}").await;
    let addrs = node.addrs();
    let mut publisher = RawClient::connect(addrs, Via::WsProto).await;
    let data = "y".repeat(8 * 1024);
    for n in 0..1_000 {
        publisher.send(InboundMessage { id: format!("p{n}"), ..publish(CHANNEL, text("e", &data)) }).await;
    }
    publisher.answer_to("p999").await;
    for via in Via::ALL {
        let mut client = small(addrs, via).await;
        // Live messages meanwhile wait for their turn.
        let subscribe = Subscribe { subscriptions: vec![from(CHANNEL, Point::Start(true))] };
        client.send(InboundMessage { id: "s".into(), ..frame(In::Subscribe(subscribe)) }).await;
        let live = publisher.publish(CHANNEL, text("live", "z")).await.offset;
        let first = history_start(live);
        let mut offsets = Vec::new();
        let mut completed = false;
        while offsets.last() != Some(&live) || !completed {
            match client.frame().await.envelope {
                Some(Out::Publication(publication)) => {
                    offsets.extend(publication.messages.iter().map(|message| message.offset));
                }
                Some(Out::RecoverComplete(complete)) => {
                    assert!(!complete.gap && !complete.truncated && !completed, "{via:?} {complete:?}");
                    completed = true;
                }
                Some(Out::SubscribeAck(_) | Out::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        // The subscription of before may have got the live one before the replay started.
        let start = offsets.iter().position(|offset| *offset < live).expect("replays");
        let replayed = &offsets[start..];
        assert!(replayed[0] == first || replayed[0] + 1 == first, "{via:?}: {} of {first}", replayed[0]);
        let expected: Vec<u64> = (replayed[0]..=*replayed.last().unwrap()).collect();
        assert_eq!(replayed, expected, "{via:?}");
        client.close().await;
    }
}

/// The first of the 1,000 messages that history keeps when `last` is the last.
fn history_start(last: u64) -> u64 {
    last - 999
}

#[tokio::test]
async fn a_burst_larger_than_the_write_queue_cuts_nobody_whose_socket_takes_it() {
    let node = TestNode::start("limits: {write_queue_bytes: 64KiB}").await;
    let addrs = node.addrs();
    let mut readers = Vec::new();
    for via in [Via::WsJson, Via::WsProto, Via::WsJson, Via::WsProto] {
        readers.push(RawClient::connect_as(addrs, via, extended([live(CHANNEL)])).await);
    }
    // Sent at once, they reach the other shard as one batch.
    let mut publisher = RawClient::connect(addrs, Via::WsProto).await;
    let data = "x".repeat(4 * 1024);
    for _ in 0..60 {
        publisher.send(publish(CHANNEL, text("e", &data))).await;
    }
    for reader in &mut readers {
        for offset in 1..=60 {
            assert_eq!(reader.message().await.offset, offset);
        }
    }
}

#[tokio::test]
async fn a_client_that_floods_requests_and_never_reads_harms_only_itself() {
    let node = TestNode::start("limits: {write_queue_bytes: 64KiB}").await;
    let mut flood = small(node.addrs(), Via::WsProto).await;
    let data = "x".repeat(2 * 1024);
    let flooding = async {
        // Pipelined without reading: acks and its own messages pile up, then its sends block or it is cut.
        for _ in 0..5_000 {
            flood.send(publish(CHANNEL, text("e", &data))).await;
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), flooding).await;
    let mut other = RawClient::connect(node.addrs(), Via::WsJson).await;
    other.subscribe_to("calm").await;
    other.publish("calm", text("1", "fine")).await;
    assert_eq!(other.texts(1).await, ["fine"]);
    let (code, reason) = flood.closed().await;
    assert!(matches!(code, 3512 | 1006), "{code} {reason}");
}

#[tokio::test]
async fn a_flood_of_requests_whose_answers_are_not_read_is_cut() {
    let node = TestNode::start("limits: {write_queue_bytes: 64KiB}").await;
    let metadata = [("echo".to_owned(), "x".repeat(8 * 1024))].into_iter().collect();
    let ping = InboundMessage { metadata, ..frame(In::Ping(Default::default())) };
    for via in Via::ALL {
        let mut flood = small(node.addrs(), via).await;
        let flooding = async {
            // More than all buffers of the system between the two hold.
            for _ in 0..3_000 {
                flood.send(ping.clone()).await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), flooding).await;
        let (code, reason) = flood.closed().await;
        assert_eq!(code, 3512, "{via:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pages_that_are_asked_for_at_once_are_all_answered_to_a_client_that_reads() {
    let node = TestNode::start("limits: {write_queue_bytes: 256KiB}").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsProto).await;
    let data = "x".repeat(8 * 1024);
    for _ in 0..40 {
        publisher.publish(CHANNEL, text("e", &data)).await;
    }
    let page = HistoryRequest { channel: CHANNEL.into(), limit: -1, ..HistoryRequest::default() };
    for via in Via::ALL {
        let mut client = small(node.addrs(), via).await;
        // Together twice what may wait, and ready in one step.
        for n in 0..8 {
            let ask = In::History(page.clone());
            client.send(InboundMessage { id: format!("h{n}"), ..frame(ask) }).await;
        }
        for n in 0..8 {
            let answer = client.answer_to(&format!("h{n}")).await;
            let Some(Out::History(page)) = answer.envelope else { panic!("{via:?}: {answer:?}") };
            assert!(page.truncated && page.messages.len() > 3, "{via:?}: {}", page.messages.len());
        }
        // What is live is not held up for ever, nor cut off.
        let live = publisher.publish(CHANNEL, text("live", "z")).await.offset;
        assert_eq!(client.message().await.offset, live);
        client.close().await;
    }
}
