//! Asking where there is one node.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, pending};
use prost::Message as _;
use streamgate_proto::shared;
use tokio_util::sync::CancellationToken;

use super::{
    letter::{AnswerBody, AskBody, Body, Letter},
    *,
};
use crate::{
    broker::{Broker as _, NodeId, memory::MemoryBroker},
    error::{ClientError, ErrorCode},
    policy::Policies,
    shard::ConnId,
};

/// Counts whoever is named, and never answers a send.
struct Double;

impl Respond for Double {
    fn respond(&self, ask: Ask, _: Duration) -> BoxFuture<'static, Result<Answer, ClientError>> {
        match ask {
            Ask::Disconnect(ask) => {
                let counts = vec![1; ask.who.len()];
                Box::pin(async { Ok(Answer::Counted(Counts { counts })) })
            }
            Ask::Send(_) => Box::pin(pending()),
            _ => Box::pin(async { Err(ClientError::new(ErrorCode::NotFound, "nobody")) }),
        }
    }
}

fn peers() -> (Peers, Arc<MemoryBroker>) {
    let broker = Arc::new(MemoryBroker::new(Policies::default(), Default::default()));
    let peers = Peers::new(broker.clone(), CancellationToken::new());
    (peers, broker)
}

fn disconnect() -> Ask {
    Ask::Disconnect(DisconnectAsk { who: vec![Who::session("s"), Who::user("u")], ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn a_node_asks_itself_and_waits_no_longer_than_it_says() {
    let (peers, broker) = peers();
    let (here, second) = (broker.node().unwrap(), Duration::from_secs(1));
    assert_eq!(peers.ask(here, disconnect(), second).await.unwrap_err().code, ErrorCode::NotAvailable);
    peers.respond_with(Arc::new(Double));
    let counted = Answer::Counted(Counts { counts: vec![1, 1] });
    assert_eq!(peers.ask(here, disconnect(), second).await, Ok(counted.clone()));
    assert_eq!(peers.ask_every(disconnect(), second).await, Ok(vec![(here, Ok(counted))]));
    let silent = Ask::Send(SendAsk::default());
    assert_eq!(peers.ask(here, silent, second).await.unwrap_err().code, ErrorCode::RpcTimeout);
    let gone = peers.ask(NodeId(77), disconnect(), second).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
}

#[test]
fn what_another_version_says_is_not_supported() {
    // Field 30 of an answer, and of an ask, which nobody here knows.
    let unknown = [0xf2, 0x01, 0x01, b'x'];
    let answer = AnswerBody::decode(&unknown[..]).unwrap();
    assert_eq!(answer.outcome().unwrap_err().code, ErrorCode::NotSupported);
    assert_eq!(AskBody::decode(&unknown[..]).unwrap().ask, None);
    assert_eq!(Letter::decode(&unknown[..]).unwrap().body, None);
}

#[test]
fn errors_cross_as_they_are() {
    let own = shared::Error { code: "OUT_OF_TEA".into(), r#type: "kitchen".into(), ..Default::default() };
    let crossed = |error: ClientError| {
        let letter = Letter { id: 1, from: 2, body: Some(Body::Answer(AnswerBody::of(Err(error)))) };
        let letter = Letter::decode(&letter.encode_to_vec()[..]).unwrap();
        let Some(Body::Answer(answer)) = letter.body else { panic!() };
        answer.outcome().unwrap_err()
    };
    assert_eq!(crossed(ClientError::from_wire(own.clone())).to_wire(), own);
    let ours = crossed(ClientError::new(ErrorCode::RpcTimeout, "late"));
    assert_eq!((ours.code, ours.message.as_str()), (ErrorCode::RpcTimeout, "late"));
}

#[test]
fn places_are_found_by_session_and_by_user_until_they_close() {
    let places = Places::default();
    let id = uuid::Uuid::new_v4().to_string();
    let (first, second) =
        (Place { shard: 0, conn: ConnId::first() }, Place { shard: 1, conn: ConnId::first() });
    let (other, bystander) = (uuid::Uuid::new_v4().to_string(), Place { shard: 2, conn: ConnId::first() });
    let of_ann = || {
        let mut shards: Vec<_> = places.user("ann").iter().map(|place| place.shard).collect();
        shards.sort_unstable();
        shards
    };
    assert_eq!(places.open(&id, "ann", first, 1), Opened::Alone);
    assert_eq!(places.open(&other, "ann", bystander, 1), Opened::Alone);
    assert_eq!((places.session(&id), of_ann(), places.count()), (Some(first), vec![0, 2], 2));
    // The session has moved to another connection: the end of the former one changes nothing of it.
    assert_eq!(places.open(&id, "ann", second, 3), Opened::Took(first));
    places.close(&id, "ann", first);
    assert_eq!((places.session(&id), of_ann()), (Some(second), vec![1, 2]));
    // One that was resumed before that, and opens after it, has come too late.
    assert_eq!(places.open(&id, "ann", first, 2), Opened::Late);
    assert_eq!((places.session(&id), of_ann()), (Some(second), vec![1, 2]));
    assert_eq!((places.before(&id, 3), places.before(&id, 4)), (None, Some(second)));
    places.close(&id, "ann", second);
    places.close(&other, "ann", bystander);
    assert_eq!((places.session(&id), of_ann(), places.session("no id")), (None, vec![], None));
}
