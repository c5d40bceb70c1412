//! Work that nodes share.

use bytes::Bytes;

use super::context::{Context, eventually};
use crate::broker::{Turn, WorkItem};

const PLENTY: u64 = 1_000;

fn items(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
}

fn texts(items: &[WorkItem]) -> Vec<&str> {
    items.iter().map(|item| std::str::from_utf8(&item.payload).unwrap()).collect()
}

fn ids(items: &[WorkItem]) -> Vec<String> {
    items.iter().map(|item| item.id.clone()).collect()
}

/// The next items of a lane, once it is the node's.
async fn next(cx: &Context, node: usize, queue: &str, lane: usize, most: usize) -> Vec<WorkItem> {
    after(cx, node, queue, lane, None, most).await
}

async fn after(
    cx: &Context,
    node: usize,
    queue: &str,
    lane: usize,
    id: Option<&str>,
    most: usize,
) -> Vec<WorkItem> {
    eventually(|| async {
        match cx.node(node).take_work(queue, lane, id.map(str::to_owned), most).await.unwrap() {
            Turn::Here(items) => Some(items),
            Turn::Elsewhere => None,
        }
    })
    .await
}

pub(super) async fn items_come_in_their_order_until_they_are_finished(cx: Context) {
    let queue = cx.name("queue", "a {b} c");
    let lane = cx.node(0).lane_of("session");
    assert_eq!(lane, cx.node(1).lane_of("session"));
    assert!(lane < cx.node(0).lanes());
    assert_eq!(next(&cx, 0, &queue, lane, 10).await, []);
    assert_eq!(cx.node(1).add_work(&queue, lane, items(&["a", "b", "c"]), PLENTY).await, Ok(3));
    let first = next(&cx, 0, &queue, lane, 2).await;
    assert_eq!(texts(&first), ["a", "b"]);
    assert_eq!(next(&cx, 0, &queue, lane, 2).await, first, "not finished, so they come again");
    cx.node(0).finish_work(&queue, lane, ids(&first[..1])).await.unwrap();
    assert_eq!(next(&cx, 0, &queue, lane, 2).await[0], first[1]);
    cx.node(0).finish_work(&queue, lane, ids(&first)).await.unwrap();
    let rest = next(&cx, 0, &queue, lane, 2).await;
    assert_eq!(texts(&rest), ["c"]);
    cx.node(0).finish_work(&queue, lane, ids(&rest)).await.unwrap();
    assert_eq!(next(&cx, 0, &queue, lane, 2).await, []);
}

pub(super) async fn items_are_read_beside_those_that_are_not_finished(cx: Context) {
    let queue = cx.name("queue", "beside");
    let lane = cx.node(0).lane_of("session");
    cx.node(0).add_work(&queue, lane, items(&["a", "b", "c"]), PLENTY).await.unwrap();
    let first = next(&cx, 0, &queue, lane, 2).await;
    let [a, b] = &ids(&first)[..] else { panic!("{first:?}") };
    assert_eq!(texts(&after(&cx, 0, &queue, lane, Some(a), 5).await), ["b", "c"]);
    cx.node(0).finish_work(&queue, lane, vec![b.clone()]).await.unwrap();
    // After one that is not there any more.
    let rest = after(&cx, 0, &queue, lane, Some(b), 5).await;
    assert_eq!(texts(&rest), ["c"]);
    assert_eq!(after(&cx, 0, &queue, lane, Some(&rest[0].id), 5).await, []);
    cx.node(0).add_work(&queue, lane, items(&["d"]), PLENTY).await.unwrap();
    assert_eq!(texts(&after(&cx, 0, &queue, lane, Some(&rest[0].id), 5).await), ["d"]);
    assert_eq!(texts(&next(&cx, 0, &queue, lane, 5).await), ["a", "c", "d"]);
    assert_eq!(next(&cx, 0, &queue, lane, 0).await, []);
}

pub(super) async fn a_lane_that_is_given_up_goes_to_another_node_with_what_is_not_finished(cx: Context) {
    let queue = cx.name("queue", "given");
    let lane = cx.node(0).lane_of("session");
    cx.node(0).add_work(&queue, lane, items(&["a", "b"]), PLENTY).await.unwrap();
    let taken = next(&cx, 0, &queue, lane, 1).await;
    cx.node(0).give_up_work(&queue, lane).await.unwrap();
    let again = next(&cx, 1, &queue, lane, 1).await;
    assert_eq!((texts(&again), ids(&again)), (vec!["a"], ids(&taken)));
    // Whoever comes too late does no harm.
    cx.node(0).finish_work(&queue, lane, ids(&taken)).await.unwrap();
    assert_eq!(texts(&next(&cx, 1, &queue, lane, 5).await), ["b"]);
}

pub(super) async fn a_full_lane_takes_no_more_and_says_so(cx: Context) {
    let queue = cx.name("queue", "full");
    assert_eq!(cx.node(0).add_work(&queue, 0, items(&["a", "b", "c"]), 2).await, Ok(2));
    assert_eq!(cx.node(1).add_work(&queue, 0, items(&["d"]), 2).await, Ok(0));
    let taken = next(&cx, 0, &queue, 0, 5).await;
    assert_eq!(texts(&taken), ["a", "b"]);
    assert_eq!(cx.node(1).add_work(&queue, 0, items(&["d"]), 2).await, Ok(0), "taken is not finished");
    cx.node(0).finish_work(&queue, 0, ids(&taken)).await.unwrap();
    assert_eq!(cx.node(1).add_work(&queue, 0, items(&["e"]), 2).await, Ok(1));
    assert_eq!(texts(&next(&cx, 0, &queue, 0, 5).await), ["e"]);
}

pub(super) async fn queues_are_separate(cx: Context) {
    let (one, other) = (cx.name("queue", "one"), format!("l:{}", cx.name("queue", "one")));
    cx.node(0).add_work(&one, 0, items(&["a"]), PLENTY).await.unwrap();
    assert_eq!(next(&cx, 0, &other, 0, 5).await, []);
    assert_eq!(texts(&next(&cx, 0, &one, 0, 5).await), ["a"]);
}
