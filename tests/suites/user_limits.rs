//! What one user may use of a node over all its connections.

use std::time::Duration;

use streamgate::policy::rights::Action;
use streamgate_e2e::{
    events::{extended, frame, text, v1},
    gateway::TestNode,
    raw::{Event, RawClient, Via},
    rights::{OPEN, attempt, client, showing, token},
};
use streamgate_proto::v1::{InboundMessage, inbound_message::Envelope as In};

#[tokio::test]
async fn one_connection_too_many_of_a_user_is_closed_with_3504() {
    let node = TestNode::start(&format!(
        "{OPEN}limits: {{connections_per_user: 2, publishes_per_second_per_user: 4, calls_per_second: 3}}\n"
    ))
    .await;
    let mut clients =
        [client(&node, Via::WsJson, &token("ann")).await, client(&node, Via::Grpc, &token("ann")).await];
    for via in Via::ALL {
        for connect in [extended([]), v1([])] {
            let mut third = RawClient::open(node.addrs(), via).await;
            third.send(frame(In::Connect(showing(connect, &token("ann"))))).await;
            assert_eq!(third.close_code().await, 3504, "{via:?}");
        }
        // Others have connections of their own, and who is nobody is not counted.
        client(&node, via, &token("bob")).await.close().await;
        RawClient::connect(node.addrs(), via).await;
    }
    // All connections of a user share its rate; a second passes at most, so the burst is not refilled in full.
    let mut codes = Vec::new();
    for at in 0..12 {
        codes.push(attempt(&mut clients[at % 2], Action::Publish, "a").await);
    }
    assert_eq!(&codes[..4], ["", "", "", ""]);
    assert!(codes.iter().any(|code| code == "RATE_LIMITED"), "{codes:?}");
    let mut calls = Vec::new();
    for _ in 0..12 {
        calls.push(attempt_call(&mut clients[0]).await);
    }
    assert_eq!(&calls[..3], ["NO_PROXY"; 3]);
    assert!(calls.iter().any(|code| code == "RATE_LIMITED"), "{calls:?}");
    let [first, second] = clients;
    first.close().await;
    // The node has noticed when the next one gets in.
    let getting_in = async {
        loop {
            let mut next = RawClient::open(node.addrs(), Via::WsJson).await;
            next.send(frame(In::Connect(showing(extended([]), &token("ann"))))).await;
            if let Event::Frame(_) = next.next().await {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), getting_in).await.expect("a place is free again");
    second.close().await;
}

async fn attempt_call(client: &mut RawClient) -> String {
    let call = InboundMessage { channel: "a".into(), ..frame(In::RpcRequest(text("1", ""))) };
    client.refused(call).await.code
}
