//! Members, and who is told of joins and leaves.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use super::context::{Context, Listener, PATIENCE, eventually};
use crate::{
    broker::{
        Delivery, Member, Owner, PresenceAction,
        PresenceAction::{Join, Leave},
        PresencePage,
    },
    channel::{Channel, Target},
};

fn member(session: &str) -> Member {
    Member {
        session_id: session.to_owned(),
        user_id: "user {1}".to_owned(),
        client_id: "phone \u{e9}\n".to_owned(),
        connected_at: 1_700_000_000_123,
    }
}

impl Context {
    async fn join(&self, node: usize, channel: &Channel, session: &str, owner: u64) {
        self.node(node).join(channel.clone(), member(session), Owner(owner)).await.unwrap();
    }

    fn leave(&self, node: usize, channel: &Channel, session: &str, owner: u64) {
        self.node(node).leave(channel.clone(), session, Owner(owner));
    }

    async fn members(&self, node: usize, channel: &Channel, limit: usize) -> PresencePage {
        self.node(node).presence(channel.clone(), limit).await.unwrap()
    }
}

impl Listener {
    async fn watch(&self, name: &str) {
        self.node.watch(self.id, Target::parse(name).unwrap()).await.unwrap();
    }

    fn unwatch(&self, name: &str) {
        self.node.unwatch(self.id, Target::parse(name).unwrap());
    }

    /// The next join or leave, which must come.
    async fn next_event(&self) -> (PresenceAction, Channel, String) {
        match self.recorder.next(PATIENCE).await {
            Some(Delivery::Presence(event)) => {
                assert_eq!(*event.member, member(&event.member.session_id));
                (event.action, event.channel.clone(), event.member.session_id.clone())
            }
            other => panic!("{other:?} instead of a join or leave"),
        }
    }

    async fn expect(&self, action: PresenceAction, channel: &Channel, session: &str) {
        assert_eq!(self.next_event().await, (action, channel.clone(), session.to_owned()));
    }
}

pub(super) async fn joins_and_leaves_are_told_once_to_every_watcher(cx: Context) {
    let channel = cx.channel("keep", "room");
    let watchers = [cx.listener(0), cx.listener(1), cx.listener(1)];
    for watcher in &watchers {
        watcher.watch(channel.as_str()).await;
    }
    cx.join(0, &channel, "s1", 1).await;
    cx.join(0, &channel, "s1", 1).await;
    cx.join(1, &channel, "s2", 2).await;
    cx.leave(0, &channel, "s1", 1);
    cx.leave(0, &channel, "s1", 1);
    // Behind the leave on the same node, and so proof that nothing more comes of it.
    cx.join(0, &channel, "s3", 3).await;
    for watcher in &watchers {
        let mut seen: HashMap<String, Vec<PresenceAction>> = HashMap::new();
        for _ in 0..4 {
            let (action, of, session) = watcher.next_event().await;
            assert_eq!(of, channel);
            seen.entry(session).or_default().push(action);
        }
        assert_eq!(seen["s1"], [Join, Leave]);
        assert_eq!((&seen["s2"], &seen["s3"]), (&vec![Join], &vec![Join]));
        assert!(watcher.recorder.drain().is_empty());
    }
}

pub(super) async fn a_former_owner_ends_nothing(cx: Context) {
    let channel = cx.channel("keep", "room");
    let watcher = cx.listener(0);
    watcher.watch(channel.as_str()).await;
    cx.join(0, &channel, "s", 1).await;
    // Another connection of the same node, then one of the other node.
    cx.join(0, &channel, "s", 2).await;
    cx.leave(0, &channel, "s", 1);
    assert_eq!(cx.members(0, &channel, 10).await.count, 1);
    cx.join(1, &channel, "s", 3).await;
    cx.leave(0, &channel, "s", 2);
    assert_eq!(cx.members(0, &channel, 10).await.count, 1);
    assert_eq!(cx.members(1, &channel, 10).await.count, 1);
    cx.leave(1, &channel, "s", 3);
    assert_eq!(cx.members(1, &channel, 10).await, PresencePage::default());
    watcher.expect(Join, &channel, "s").await;
    watcher.expect(Leave, &channel, "s").await;
    cx.join(0, &channel, "s", 4).await;
    watcher.expect(Join, &channel, "s").await;
    assert!(watcher.recorder.drain().is_empty());
}

pub(super) async fn a_query_counts_all_and_lists_as_many_as_asked_for(cx: Context) {
    let channel = cx.channel("keep", "room");
    assert_eq!(cx.members(0, &channel, 10).await, PresencePage::default());
    let names: HashSet<String> = (0..700).map(|n| format!("session-{n}")).collect();
    join_all(names.iter().map(|name| cx.join(name.len(), &channel, name, 1))).await;
    for limit in [0, 1, 7, 699, 700, 5_000] {
        let page = cx.members(1, &channel, limit).await;
        assert_eq!((page.count, page.members.len()), (700, limit.min(700)));
        let listed: HashSet<String> = page.members.iter().map(|member| member.session_id.clone()).collect();
        assert_eq!(listed.len(), page.members.len(), "twice in one answer");
        assert!(listed.is_subset(&names));
        assert!(page.members.iter().all(|listed| **listed == member(&listed.session_id)));
    }
}

pub(super) async fn a_query_sees_what_its_node_asked_for_before(cx: Context) {
    let channel = cx.channel("keep", "room");
    for n in 0..50 {
        // Not awaited: the order of the calls counts.
        let joined = cx.node(0).join(channel.clone(), member("s"), Owner(n));
        let with = cx.node(0).presence(channel.clone(), 10);
        cx.leave(0, &channel, "s", n);
        let without = cx.node(0).presence(channel.clone(), 10);
        assert_eq!((with.await.unwrap().count, without.await.unwrap().count), (1, 0));
        joined.await.unwrap();
    }
}

pub(super) async fn a_join_goes_on_when_its_future_is_dropped(cx: Context) {
    let channel = cx.channel("keep", "room");
    let watcher = cx.listener(1);
    watcher.watch(channel.as_str()).await;
    drop(cx.node(0).join(channel.clone(), member("s"), Owner(1)));
    watcher.expect(Join, &channel, "s").await;
}

pub(super) async fn patterns_watch_every_channel_they_match(cx: Context) {
    let [one, two, deep, other] =
        ["a.one", "a.two", "a.b.deep", "b.one"].map(|rest| cx.channel("keep", rest));
    let patterns = ["a.*", "a.**", "**", "*.one"].map(|rest| cx.name("keep", rest));
    // Somebody was there before the watch.
    cx.join(0, &two, "before", 1).await;
    let watchers = patterns.clone().map(|pattern| (cx.listener(1), pattern));
    for (watcher, pattern) in &watchers {
        watcher.watch(pattern).await;
        watcher.watch(pattern).await;
    }
    for (session, channel) in [("1", &one), ("2", &two), ("3", &deep), ("4", &other)] {
        cx.join(0, channel, session, 2).await;
        cx.leave(0, channel, session, 2);
    }
    cx.leave(0, &two, "before", 1);
    for (watcher, pattern) in &watchers {
        let expected: Vec<_> = [("1", &one), ("2", &two), ("3", &deep), ("4", &other), ("before", &two)]
            .into_iter()
            .filter(|(_, channel)| crate::channel::glob(pattern, channel.as_str()))
            .collect();
        let count: usize = expected.iter().map(|(session, _)| if *session == "before" { 1 } else { 2 }).sum();
        let mut seen: HashMap<(String, Channel), Vec<PresenceAction>> = HashMap::new();
        for _ in 0..count {
            let (action, channel, session) = watcher.next_event().await;
            seen.entry((session, channel)).or_default().push(action);
        }
        for (session, channel) in expected {
            let wanted = if session == "before" { vec![Leave] } else { vec![Join, Leave] };
            assert_eq!(seen[&(session.to_owned(), channel.clone())], wanted, "{pattern}: {session}");
        }
        assert!(watcher.recorder.drain().is_empty(), "{pattern}");
    }
}

pub(super) async fn a_watcher_by_name_and_by_pattern_is_told_once(cx: Context) {
    let channel = cx.channel("keep", "a.room");
    let (watcher, pattern) = (cx.listener(0), cx.name("keep", "a.*"));
    watcher.watch(channel.as_str()).await;
    watcher.watch(&pattern).await;
    cx.join(1, &channel, "s", 1).await;
    watcher.expect(Join, &channel, "s").await;
    watcher.unwatch(channel.as_str());
    cx.leave(1, &channel, "s", 1);
    watcher.expect(Leave, &channel, "s").await;
    watcher.unwatch(&pattern);
    watcher.watch(channel.as_str()).await;
    cx.join(1, &channel, "s", 2).await;
    watcher.expect(Join, &channel, "s").await;
    assert!(watcher.recorder.drain().is_empty());
}

pub(super) async fn who_watches_no_more_is_told_nothing_more(cx: Context) {
    let channel = cx.channel("keep", "room");
    let (first, second) = (cx.listener(0), cx.listener(0));
    first.watch(channel.as_str()).await;
    second.watch(channel.as_str()).await;
    cx.join(1, &channel, "1", 1).await;
    first.expect(Join, &channel, "1").await;
    second.expect(Join, &channel, "1").await;
    first.unwatch(channel.as_str());
    cx.join(1, &channel, "2", 1).await;
    second.expect(Join, &channel, "2").await;
    assert!(first.recorder.drain().is_empty());
    // And again; the calls take effect in their order.
    for _ in 0..20 {
        second.unwatch(channel.as_str());
        second.watch(channel.as_str()).await;
    }
    cx.leave(1, &channel, "1", 1);
    second.expect(Leave, &channel, "1").await;
    cx.leave(1, &channel, "2", 1);
    second.expect(Leave, &channel, "2").await;
}

pub(super) async fn what_the_policy_keeps_quiet_is_listed_and_not_told(cx: Context) {
    let channel = cx.channel("quiet", "room");
    let watcher = cx.listener(0);
    watcher.watch(channel.as_str()).await;
    watcher.watch(&cx.name("quiet", "**")).await;
    cx.join(1, &channel, "s", 1).await;
    assert_eq!(cx.members(0, &channel, 10).await.count, 1);
    cx.leave(1, &channel, "s", 1);
    eventually(|| async { (cx.members(0, &channel, 10).await.count == 0).then_some(()) }).await;
    let loud = cx.channel("keep", "room");
    watcher.watch(loud.as_str()).await;
    cx.join(1, &loud, "s", 1).await;
    watcher.expect(Join, &loud, "s").await;
    assert!(watcher.recorder.drain().is_empty());
}

pub(super) async fn odd_names_of_channels_and_sessions_are_ordinary(cx: Context) {
    let watcher = cx.listener(1);
    watcher.watch(&cx.name("keep", "**")).await;
    let longest = "x".repeat(255 - cx.name("keep", "").len());
    let odd =
        ["{}", "a}b{", ":", "message", "0", "1-1", "%41", "\u{1f980}.\u{4e2d}\u{6587}", "lease", &longest];
    for name in odd {
        let channel = cx.channel("keep", name);
        for session in ["m", "lease", "{x}", "1/1", "\u{e9}", "a:b.c"] {
            cx.join(0, &channel, session, 1).await;
            watcher.expect(Join, &channel, session).await;
            cx.leave(0, &channel, session, 1);
            watcher.expect(Leave, &channel, session).await;
        }
        assert_eq!(cx.members(1, &channel, 10).await.count, 0);
    }
}

pub(super) async fn members_that_hop_between_nodes_stay(cx: Context) {
    let channel = cx.channel("keep", "room");
    let watcher = cx.listener(0);
    watcher.watch(channel.as_str()).await;
    let hop = |session: usize| {
        let (cx, channel) = (cx.clone(), channel.clone());
        async move {
            let name = session.to_string();
            for n in 0..10_usize {
                cx.join(n, &channel, &name, n as u64 + 1).await;
                if n > 0 {
                    // Its former node notices late.
                    cx.leave(n - 1, &channel, &name, n as u64);
                }
            }
        }
    };
    join_all((0..20).map(hop)).await;
    assert_eq!(cx.members(0, &channel, 100).await.count, 20);
    assert_eq!(cx.members(1, &channel, 100).await.count, 20);
    let mut joined = HashSet::new();
    for _ in 0..20 {
        let (action, _, session) = watcher.next_event().await;
        assert!(action == Join && joined.insert(session));
    }
    assert!(watcher.recorder.drain().is_empty());
}
