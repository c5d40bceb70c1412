//! The list of channels.

use super::context::{Context, eventually};
use crate::{
    broker::ChannelQuery,
    channel::{Channel, Target},
};

impl Context {
    /// All that a node lists for a target of this case, page by page; every page must keep its limit and its order.
    async fn listed(&self, node: usize, policy: &str, target: &str, limit: usize) -> Vec<String> {
        let target = Target::parse(&self.name(policy, target)).unwrap();
        let (mut after, mut names) = (None, Vec::new());
        loop {
            let query = ChannelQuery { target: Some(target.clone()), after: after.clone(), limit };
            let page = self.node(node).channels(query).await.unwrap();
            assert!(page.channels.len() <= limit && page.channels.is_sorted());
            assert!(
                page.channels.first().is_none_or(|first| after.as_ref().is_none_or(|after| after < first))
            );
            let own = self.name(policy, "").len();
            names.extend(page.channels.iter().map(|channel| channel.as_str()[own..].to_owned()));
            match page.next {
                Some(next) => assert!(after.replace(next.clone()).is_none_or(|before| before < next)),
                None => return names,
            }
        }
    }
}

pub(super) async fn channels_with_a_history_are_listed_page_by_page(cx: Context) {
    let mut names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    for (node, name) in names.iter().enumerate() {
        cx.publish(node, &cx.channel("keep", name), "x").await;
    }
    names.sort_unstable();
    for limit in [1, 7, 40, 1_000] {
        assert_eq!(cx.listed(1, "keep", "**", limit).await, names, "{limit}");
    }
    // All channels of the storage: those of this case are among them.
    let after = Some(Channel::parse(&cx.name("keep", "n3")).unwrap());
    let page = cx.node(0).channels(ChannelQuery { target: None, after, limit: 1 }).await.unwrap();
    assert_eq!(page.channels, [cx.channel("keep", "n30")]);
    assert_eq!(page.next.as_ref(), page.channels.first());
}

pub(super) async fn patterns_choose_among_them(cx: Context) {
    for name in ["a", "a.b", "a.b.c", "a-b", "a/b", "ab.c", "b.b"] {
        cx.publish(0, &cx.channel("keep", name), "x").await;
    }
    for (pattern, expected) in [
        ("a", &["a"][..]),
        ("a.*", &["a.b"]),
        ("a.**", &["a", "a.b", "a.b.c"]),
        ("*.b", &["a.b", "b.b"]),
        ("*", &["a", "a-b", "a/b"]),
        ("a.b", &["a.b"]),
        ("c.**", &[]),
    ] {
        for limit in [1, 2, 100] {
            assert_eq!(cx.listed(0, "keep", pattern, limit).await, expected, "{pattern} {limit}");
        }
    }
}

pub(super) async fn channels_without_a_history_are_not_listed(cx: Context) {
    let (kept, removed, short) = (cx.channel("keep", "a"), cx.channel("keep", "b"), cx.channel("short", "c"));
    for channel in [&kept, &removed, &short] {
        cx.publish(0, channel, "x").await;
    }
    cx.node(0).publish(super::context::message(&cx.channel("none", "d"), "x")).await.unwrap();
    cx.node(0).publish(super::context::message(&cx.channel("transient", "e"), "x")).await.unwrap();
    cx.node(0).remove_history(removed).await.unwrap();
    assert_eq!(cx.listed(1, "keep", "**", 10).await, ["a"]);
    assert!(cx.listed(1, "none", "**", 10).await.is_empty());
    assert!(cx.listed(1, "transient", "**", 10).await.is_empty());
    eventually(|| async { cx.listed(1, "short", "**", 10).await.is_empty().then_some(()) }).await;
}
