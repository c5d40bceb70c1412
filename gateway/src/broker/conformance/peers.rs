//! Nodes among each other.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::context::{Context, eventually};
use crate::broker::{Addressee, Broker, NodeId, Revoked};

fn letters(node: &dyn Broker) -> mpsc::UnboundedReceiver<Bytes> {
    let (sender, receiver) = mpsc::unbounded_channel();
    node.take_letters(std::sync::Arc::new(move |letter| {
        // Nobody may read them.
        let _ = sender.send(letter);
    }));
    receiver
}

pub(super) async fn letters_reach_the_nodes_they_are_for(cx: Context) {
    let (first, second) = (cx.node(0).node().unwrap(), cx.node(1).node().unwrap());
    let mut inbox = letters(&**cx.node(1));
    let binary = Bytes::from_iter(0..=255);
    for letter in [binary.clone(), Bytes::new(), Bytes::from_static(b"message")] {
        let taken = cx.node(0).post(Addressee::Node(second), letter.clone()).await.unwrap();
        assert_eq!(taken, [second]);
        assert_eq!(inbox.recv().await.unwrap(), letter);
    }
    let all = cx.node(0).post(Addressee::Every, binary.clone()).await.unwrap();
    assert!(all.contains(&first) && all.contains(&second), "{all:?}");
    assert_eq!(inbox.recv().await.unwrap(), binary);
    assert_eq!(cx.node(0).post(Addressee::Node(NodeId(7)), binary).await.unwrap(), []);
}

pub(super) async fn nodes_show_their_cards(cx: Context) {
    let second = cx.node(1).node().unwrap();
    for card in [&b"message"[..], b"", b"\0\xff"] {
        cx.node(1).announce(Bytes::from_static(card)).await.unwrap();
        let nodes = cx.node(0).nodes().await.unwrap();
        let shown = nodes.iter().find(|(node, _)| *node == second);
        assert_eq!(shown.map(|(_, card)| &card[..]), Some(card));
        assert!(nodes.iter().any(|(node, _)| Some(*node) == cx.node(0).node()));
        assert!(nodes.is_sorted());
    }
}

pub(super) async fn a_session_is_found_where_it_was_saved_last(cx: Context) {
    let session = cx.name("session", "x");
    assert_eq!(cx.node(0).find_session(&session).await, Ok(None));
    for (node, tenure) in [(0, 1), (1, 2), (0, 3)] {
        cx.node(node).save_session(&session, tenure, Default::default(), 60_000).await.unwrap();
        assert_eq!(cx.node(1).find_session(&session).await, Ok(cx.node(node).node()));
    }
}

pub(super) async fn revocations_are_listed_until_their_time_is_over(cx: Context) {
    let (user, token) = (Revoked::User(cx.name("ann", " x")), Revoked::Token(cx.name("id", ":1")));
    let before = cx.node(1).revocations(u64::MAX).await.unwrap().unwrap();
    let now_ms = u64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    cx.node(0).revoke(user.clone(), now_ms + 60_000).await.unwrap();
    let first = cx.node(1).revocations(before.version).await.unwrap().unwrap();
    assert_ne!(first.version, before.version);
    let entry = first.entries.iter().find(|entry| entry.what == user).unwrap();
    assert!(entry.at_ms.abs_diff(now_ms) < 30_000 && entry.until_ms == now_ms + 60_000, "{entry:?}");
    // An earlier end does not undo it.
    cx.node(1).revoke(user.clone(), now_ms + 1_000).await.unwrap();
    let first = cx.node(1).revocations(before.version).await.unwrap().unwrap();
    let entry = first.entries.iter().find(|entry| entry.what == user).unwrap();
    assert_eq!(entry.until_ms, now_ms + 60_000);
    cx.node(0).revoke(token.clone(), now_ms + 1_500).await.unwrap();
    let second = cx.node(1).revocations(first.version).await.unwrap().unwrap();
    assert!([user.clone(), token.clone()].iter().all(|what| second.entries.iter().any(|e| e.what == *what)));
    // Cases may share one storage: others may revoke, too.
    eventually(|| async {
        let entries = cx.node(1).revocations(u64::MAX).await.unwrap().unwrap().entries;
        assert!(entries.iter().any(|entry| entry.what == user));
        entries.iter().all(|entry| entry.what != token).then_some(())
    })
    .await;
    assert_eq!(cx.node(0).revocations(u64::MAX - 1).await.unwrap().map(|list| list.version > 0), Some(true));
}
