//! A node inside another program: `cargo run --example embed`.
//!
//! It answers RPCs for the method `echo` in this process, and publishes the time to the channel `clock` once a
//! second through the same broker that its clients use. Another storage is a matter of implementing
//! [`streamgate::broker::Broker`] and passing it to [`NodeBuilder::broker`](streamgate::node::NodeBuilder::broker).

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use streamgate::{
    broker::{
        Broker, Publish, Stored,
        memory::{MemoryBroker, MemoryOptions},
    },
    channel::Channel,
    config::Config,
    node::Node,
    session::RpcRequest,
};
use streamgate_proto::cloudevents::{CloudEvent, cloud_event::Data};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::default();
    let broker: Arc<dyn Broker> =
        Arc::new(MemoryBroker::new(config.policies.build(), MemoryOptions::default()));
    let echo = |request: RpcRequest| async move { Ok(request.event) };
    let node = Node::builder(config).broker(broker.clone()).handler("**", "echo", echo).start().await?;
    println!("ws://{}/ws publishes the time on `clock` and answers the method `echo`", node.websocket_addr());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let published = broker.publish(tick()?).await?;
                println!("clock {}", published.position.map_or_else(String::new, |position| position.to_string()));
            }
            signal = tokio::signal::ctrl_c() => {
                signal?;
                break;
            }
        }
    }
    node.shutdown().await;
    Ok(())
}

/// A publication as the edge would make it from a client's event.
fn tick() -> Result<Publish, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let event = CloudEvent {
        id: now.as_millis().to_string(),
        source: "/embed/clock".into(),
        spec_version: "1.0".into(),
        r#type: "clock.tick".into(),
        data: Some(Data::TextData(now.as_secs().to_string())),
        ..CloudEvent::default()
    };
    let id = uuid::Uuid::new_v4().as_bytes().to_vec().into();
    Ok(Publish {
        channel: Channel::parse("clock")?,
        stored: Stored { id, event: event.encode_to_vec().into(), ..Stored::default() },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: Default::default(),
    })
}
