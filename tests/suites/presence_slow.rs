//! A watcher that does not read harms only itself.

use streamgate_e2e::{
    events::{extended, live},
    gateway::TestNode,
    raw::{RawClient, Via, WsOptions},
};
use streamgate_proto::v1::Subscription;

use crate::presence::{expect, named, session, watcher, watching};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_closed_with_3512_and_others_miss_nothing() {
    const CHANNELS: usize = 500;
    let node = TestNode::start("limits: {write_queue_bytes: 512KiB, new_channels_per_minute: 1000000}").await;
    let options = WsOptions::json().receive_buffer(4 * 1024);
    let mut stalled = RawClient::open_ws(node.addrs(), options).await;
    stalled.say_connect(extended([watching("flood.*")])).await;
    let mut reader = watcher(node.addrs(), Via::WsProto, "flood.*").await;
    let connect = named(&"x".repeat(255), extended([]));
    let mut subject = RawClient::connect_as(node.addrs(), Via::WsProto, connect).await;
    let all =
        |ephemeral| (0..CHANNELS).map(move |n| Subscription { ephemeral, ..live(&format!("flood.{n}")) });
    for round in 0..60 {
        let hide = round % 2 == 1;
        subject.subscribe(all(hide)).await;
        for n in 0..CHANNELS {
            let action = if hide { "leave" } else { "join" };
            expect(&mut reader, &format!("{action} flood.{n}"), &session(&subject)).await;
        }
    }
    assert_eq!(stalled.close_code().await, 3512);
    subject.subscribe_to("flood.0").await;
    expect(&mut reader, "join flood.0", &session(&subject)).await;
    reader.quiet().await;
}
