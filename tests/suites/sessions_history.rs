//! Pages of history.

use streamgate_e2e::{
    events::{history, text, text_of},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::{HistoryRequest, HistoryResponse, Position};

fn texts(page: &HistoryResponse) -> Vec<&str> {
    page.messages.iter().map(|message| text_of(message.payload.as_ref().unwrap())).collect()
}

async fn filled(client: &mut RawClient, channel: &str) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in 1..=5 {
        let ack = client.publish(channel, text(&format!("e{n}"), &n.to_string())).await;
        positions.push(ack.position.expect("a position"));
    }
    positions
}

#[tokio::test]
async fn a_page_is_what_was_asked_for() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        let channel = format!("page.{via:?}");
        let at = filled(&mut client, &channel).await;
        let ask = |limit, reverse, since: Option<usize>| HistoryRequest {
            reverse,
            since: since.map(|n| at[n - 1].clone()),
            ..history(&channel, limit)
        };
        let cases: [(HistoryRequest, &[&str], bool); 10] = [
            (ask(-1, false, None), &["1", "2", "3", "4", "5"], false),
            (ask(0, false, None), &[], true),
            (ask(2, false, None), &["1", "2"], true),
            (ask(5, false, None), &["1", "2", "3", "4", "5"], false),
            (ask(100, true, None), &["5", "4", "3", "2", "1"], false),
            (ask(2, true, None), &["5", "4"], true),
            (ask(-1, false, Some(3)), &["4", "5"], false),
            (ask(1, false, Some(3)), &["4"], true),
            (ask(-1, true, Some(3)), &["2", "1"], false),
            (ask(-1, false, Some(5)), &[], false),
        ];
        for (request, expected, truncated) in cases {
            let page = client.history(request.clone()).await;
            assert_eq!(texts(&page), expected, "{via:?} {request:?}");
            assert_eq!(page.position, Some(at[4].clone()), "{via:?} {request:?}");
            if request.limit != 0 {
                assert_eq!(page.truncated, truncated, "{via:?} {request:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_channel_that_nobody_used_has_an_empty_page() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    let page = client.history(history("nobody", -1)).await;
    assert!(page.messages.is_empty() && !page.truncated);
}

#[tokio::test]
async fn no_page_holds_more_than_the_policy_keeps() {
    let node = TestNode::start("channels: [{pattern: 'short', history_size: 3}]").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    filled(&mut client, "short").await;
    let page = client.history(history("short", -1)).await;
    assert_eq!(texts(&page), ["3", "4", "5"]);
}

#[tokio::test]
async fn a_page_that_does_not_fit_the_write_queue_is_cut_and_can_be_continued() {
    let node = TestNode::start("limits: {write_queue_bytes: 64KiB}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        let channel = format!("large.{via:?}");
        let data = "x".repeat(4 * 1024);
        for n in 0..40 {
            client.publish(&channel, text(&format!("e{n}"), &data)).await;
        }
        let (mut offsets, mut since) = (Vec::new(), None);
        loop {
            let page = client.history(HistoryRequest { since, ..history(&channel, -1) }).await;
            offsets.extend(page.messages.iter().map(|message| message.offset));
            if !page.truncated {
                break;
            }
            since = page.messages.last().expect("a cut page holds something").position.clone();
        }
        assert_eq!(offsets, (1..=40).collect::<Vec<_>>(), "{via:?}");
    }
}

#[tokio::test]
async fn a_limit_below_minus_one_is_a_bad_request() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    use streamgate_proto::v1::inbound_message::Envelope as In;
    let error = client.refused(streamgate_e2e::events::frame(In::History(history("a", -2)))).await;
    assert_eq!(error.code, "BAD_REQUEST");
}
