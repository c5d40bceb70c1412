//! Who is on a channel, and who is told: on one node with the memory broker, and on two nodes with Redis. Each scenario
//! takes two places to connect to.

use streamgate_e2e::{
    cluster::Cluster,
    events::{extended, frame, live, recover, text, v1},
    gateway::{Addrs, TestNode},
    raw::{Event, RawClient, Via},
};
use streamgate_proto::v1::{
    Connect, Member, Presence, PresenceQuery, Subscription, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};

macro_rules! scenarios {
    ($($name:ident,)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let node = TestNode::start(CONFIG).await;
                super::$name([node.addrs(), node.addrs()]).await;
            })*
        }

        mod two_nodes {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let cluster = Cluster::start_with(2, CONFIG).await;
                super::$name([cluster.addrs(0), cluster.addrs(1)]).await;
            })*
        }
    };
}

const CONFIG: &str = "channels:
  - {pattern: dark.**, presence: false}
  - {pattern: silent.**, join_leave: false}
";

scenarios! {
    joins_and_leaves_reach_every_watcher_but_not_their_subject,
    a_client_of_the_first_version_is_a_member_and_gets_nothing_of_presence,
    an_ephemeral_subscription_is_invisible_until_it_is_no_longer_ephemeral,
    subscribing_again_with_a_cursor_is_no_news,
    a_client_that_vanishes_leaves,
    a_pattern_watches_the_channels_that_it_matches_once_per_connection,
    a_query_names_the_members_and_is_bounded,
    who_stops_watching_is_told_nothing_more,
    a_held_subscription_begins_to_watch,
    a_session_that_comes_back_before_it_is_gone_is_no_news,
    a_session_that_comes_back_after_it_left_joins_again,
    a_policy_switches_presence_off,
    a_resumed_watcher_goes_on_watching,
}

pub(crate) fn watching(channel: &str) -> Subscription {
    Subscription { presence: true, ephemeral: true, ..live(channel) }
}

pub(crate) async fn watcher(addrs: Addrs, via: Via, target: &str) -> RawClient {
    let mut client = RawClient::connect(addrs, via).await;
    let ack = client.subscribe([watching(target)]).await;
    assert!(ack.subscriptions[0].presence, "{ack:?}");
    client
}

pub(crate) fn named(name: &str, connect: Connect) -> Connect {
    Connect { client_id: name.into(), ..connect }
}

fn resuming(client: &RawClient) -> Connect {
    Connect { resume_token: client.connected.resume_token.clone(), ..extended([]) }
}

pub(crate) fn session(client: &RawClient) -> String {
    client.connected.session_id.clone()
}

/// The next join or leave; anything else but pings panics.
async fn told(client: &mut RawClient) -> (String, Member) {
    loop {
        match client.frame().await.envelope {
            Some(Out::PresenceEvent(event)) => {
                return (format!("{} {}", event.action, event.channel), event.member.unwrap());
            }
            Some(Out::Ping(_)) => {}
            other => panic!("{other:?} instead of a join or leave"),
        }
    }
}

/// Expects exactly this as the next news.
pub(crate) async fn expect(client: &mut RawClient, news: &str, session: &str) {
    let via = client.via();
    let (got, member) = told(client).await;
    assert_eq!((got.as_str(), member.session_id.as_str()), (news, session), "{via:?}");
}

async fn who(client: &mut RawClient, channel: &str) -> Presence {
    let query = In::PresenceQuery(PresenceQuery { channel: channel.into() });
    match client.request(frame(query)).await.envelope {
        Some(Out::Presence(presence)) => presence,
        other => panic!("the query was answered with {other:?}"),
    }
}

async fn sessions(client: &mut RawClient, channel: &str) -> Vec<String> {
    let mut names: Vec<_> =
        who(client, channel).await.members.into_iter().map(|member| member.session_id).collect();
    names.sort_unstable();
    names
}

async fn joins_and_leaves_reach_every_watcher_but_not_their_subject([here, there]: [Addrs; 2]) {
    let mut watchers = Vec::new();
    for via in Via::ALL {
        watchers.push(watcher(there, via, "room").await);
        watchers.push(watcher(here, via, "room").await);
    }
    for via in Via::ALL {
        let mut subject = RawClient::connect_as(here, via, named("phone", extended([]))).await;
        subject.subscribe([Subscription { presence: true, ..live("room") }]).await;
        for watcher in &mut watchers {
            let (news, member) = told(watcher).await;
            assert_eq!((news.as_str(), &member.session_id), ("join room", &subject.connected.session_id));
            assert_eq!((member.client_id.as_str(), member.user_id.as_str()), ("phone", ""));
            assert!(member.connected_at > 1_700_000_000_000, "{member:?}");
        }
        subject.quiet().await;
        subject.unsubscribe("room").await;
        for watcher in &mut watchers {
            expect(watcher, "leave room", &session(&subject)).await;
        }
        subject.quiet().await;
        subject.subscribe_to("room").await;
        let id = session(&subject);
        subject.close().await;
        for watcher in &mut watchers {
            expect(watcher, "join room", &id).await;
            expect(watcher, "leave room", &id).await;
            watcher.quiet().await;
        }
    }
}

async fn a_client_of_the_first_version_is_a_member_and_gets_nothing_of_presence([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::WsJson, "room").await;
    for via in Via::ALL {
        // Its frames are checked against the schema of the first version.
        let wanted = Subscription { presence: true, ..live("room") };
        let mut old = RawClient::connect_as(here, via, v1([wanted])).await;
        expect(&mut watcher, "join room", &session(&old)).await;
        let mut other = RawClient::connect_v1(there, via).await;
        other.subscribe_to("room").await;
        expect(&mut watcher, "join room", &session(&other)).await;
        old.quiet().await;
        let query = In::PresenceQuery(PresenceQuery { channel: "room".into() });
        assert_eq!(old.refused(frame(query)).await.code, "NOT_SUPPORTED");
        old.unsubscribe("room").await;
        expect(&mut watcher, "leave room", &session(&old)).await;
        let id = session(&other);
        other.close().await;
        expect(&mut watcher, "leave room", &id).await;
    }
}

async fn an_ephemeral_subscription_is_invisible_until_it_is_no_longer_ephemeral([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::WsProto, "room").await;
    let mut hidden = RawClient::connect(here, Via::WsJson).await;
    let ephemeral = Subscription { ephemeral: true, ..live("room") };
    hidden.subscribe([ephemeral.clone()]).await;
    assert!(sessions(&mut watcher, "room").await.is_empty());
    hidden.subscribe_to("room").await;
    expect(&mut watcher, "join room", &session(&hidden)).await;
    assert_eq!(sessions(&mut watcher, "room").await, [session(&hidden)]);
    let ack = hidden.subscribe([ephemeral]).await;
    assert!(ack.subscriptions[0].ephemeral);
    expect(&mut watcher, "leave room", &session(&hidden)).await;
    // Hidden or not, it is the same subscription.
    hidden.publish("room", text("1", "still there")).await;
    assert_eq!(hidden.texts(1).await, ["still there"]);
    let mut visible = RawClient::connect(here, Via::WsJson).await;
    visible.subscribe_to("room").await;
    hidden.close().await;
    loop {
        match watcher.next().await {
            Event::Frame(frame) if matches!(frame.envelope, Some(Out::Publication(_))) => {}
            Event::Frame(frame) => {
                let Some(Out::PresenceEvent(event)) = frame.envelope else { panic!("{frame:?}") };
                assert_eq!(event.member.unwrap().session_id, session(&visible));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    watcher.quiet().await;
}

async fn subscribing_again_with_a_cursor_is_no_news([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::Grpc, "room.*").await;
    for via in Via::ALL {
        let mut subject = RawClient::connect(here, via).await;
        let channel = format!("room.{via:?}");
        let at = subject.publish(&channel, text("1", "one")).await.position.unwrap();
        assert_eq!(told_past_messages(&mut watcher, 1).await, Vec::<String>::new());
        subject.subscribe_to(&channel).await;
        expect(&mut watcher, &format!("join {channel}"), &session(&subject)).await;
        for _ in 0..3 {
            subject.subscribe([recover(&channel, at.clone())]).await;
            subject.recovered().await;
        }
        // It also changes sides without a word.
        let watched = Subscription { presence: true, ..recover(&channel, at) };
        subject.subscribe([watched]).await;
        subject.recovered().await;
        assert_eq!(sessions(&mut watcher, &channel).await, [session(&subject)]);
        subject.unsubscribe(&channel).await;
        expect(&mut watcher, &format!("leave {channel}"), &session(&subject)).await;
        subject.quiet().await;
    }
}

/// Takes so many messages; what else came.
async fn told_past_messages(client: &mut RawClient, messages: usize) -> Vec<String> {
    let (mut news, mut left) = (Vec::new(), messages);
    while left > 0 {
        match client.frame().await.envelope {
            Some(Out::Publication(publication)) => left -= publication.messages.len(),
            Some(Out::Ping(_)) => {}
            other => news.push(format!("{other:?}")),
        }
    }
    news
}

async fn a_client_that_vanishes_leaves([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::WsJson, "room").await;
    for via in Via::ALL {
        let mut subject = RawClient::connect(here, via).await;
        subject.subscribe_to("room").await;
        let id = session(&subject);
        expect(&mut watcher, "join room", &id).await;
        // The socket closes without a word.
        drop(subject);
        expect(&mut watcher, "leave room", &id).await;
    }
    assert!(sessions(&mut watcher, "room").await.is_empty());
}

async fn a_pattern_watches_the_channels_that_it_matches_once_per_connection([here, there]: [Addrs; 2]) {
    let mut pattern = watcher(there, Via::WsJson, "room.*").await;
    pattern.subscribe([watching("**"), watching("room.a")]).await;
    let mut subject = RawClient::connect(here, Via::WsProto).await;
    // A pattern makes nobody a member.
    subject.subscribe([live("room.a"), live("room.*"), live("hall.a"), live("room.a.b")]).await;
    let mut news = Vec::new();
    for _ in 0..3 {
        let (what, member) = told(&mut pattern).await;
        assert_eq!(member.session_id, session(&subject));
        news.push(what);
    }
    news.sort_unstable();
    assert_eq!(news, ["join hall.a", "join room.a", "join room.a.b"]);
    pattern.unsubscribe("**").await;
    subject.unsubscribe("hall.a").await;
    subject.unsubscribe("room.a").await;
    expect(&mut pattern, "leave room.a", &session(&subject)).await;
    pattern.quiet().await;
}

async fn a_query_names_the_members_and_is_bounded([here, there]: [Addrs; 2]) {
    let mut asking = RawClient::connect(there, Via::WsJson).await;
    let empty = who(&mut asking, "crowd").await;
    assert_eq!((empty.channel.as_str(), empty.count, empty.truncated), ("crowd", 0, false));
    let mut members = Vec::new();
    for n in 0..40 {
        let name = if n == 0 { "x".repeat(40_000) } else { format!("{n}{}", "\u{1}".repeat(300)) };
        let connect = named(&name, extended([live("crowd")]));
        members.push(RawClient::connect_as(here, Via::ALL[n % 3], connect).await);
    }
    let page = who(&mut asking, "crowd").await;
    // Each of these names takes six times its bytes in JSON.
    assert!(page.truncated && page.count == 40, "{} of {}", page.members.len(), page.count);
    assert!((20..40).contains(&page.members.len()), "{}", page.members.len());
    assert!(page.members.iter().all(|member| member.client_id.len() <= 255));
    drop(members.split_off(10));
    let mut left: Vec<_> = members.iter().map(session).collect();
    left.sort_unstable();
    // The sockets were closed; that they left comes soon.
    streamgate_e2e::within("the others leave", async {
        while sessions(&mut asking, "crowd").await != left {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    for bad in ["", "crowd.*", "a b"] {
        let query = In::PresenceQuery(PresenceQuery { channel: bad.into() });
        assert_eq!(asking.refused(frame(query)).await.code, "BAD_REQUEST", "{bad:?}");
    }
}

async fn who_stops_watching_is_told_nothing_more([here, there]: [Addrs; 2]) {
    let mut still = watcher(there, Via::WsProto, "room").await;
    for via in Via::ALL {
        let mut stopped = watcher(there, via, "room").await;
        let mut changed = watcher(there, via, "room").await;
        stopped.unsubscribe("room").await;
        changed.subscribe([Subscription { ephemeral: true, ..live("room") }]).await;
        let subject = RawClient::connect_as(here, via, extended([live("room")])).await;
        expect(&mut still, "join room", &session(&subject)).await;
        let id = session(&subject);
        subject.close().await;
        expect(&mut still, "leave room", &id).await;
        stopped.quiet().await;
        changed.quiet().await;
    }
}

async fn a_held_subscription_begins_to_watch([here, there]: [Addrs; 2]) {
    for via in Via::ALL {
        let channel = format!("begin.{via:?}");
        let mut client = RawClient::connect(there, via).await;
        client.subscribe_to(&channel).await;
        client.subscribe([Subscription { presence: true, ..live(&channel) }]).await;
        let other = RawClient::connect_as(here, via, extended([live(&channel)])).await;
        expect(&mut client, &format!("join {channel}"), &session(&other)).await;
        client.publish(&channel, text("1", "once")).await;
        assert_eq!(client.texts(1).await, ["once"], "{via:?}");
        client.quiet().await;
    }
}

async fn a_session_that_comes_back_before_it_is_gone_is_no_news([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::WsJson, "room").await;
    for via in Via::ALL {
        let mut old = RawClient::connect(here, via).await;
        old.subscribe_to("room").await;
        let id = session(&old);
        expect(&mut watcher, "join room", &id).await;
        let mut connect = resuming(&old);
        for at in [there, here, there] {
            let new = RawClient::connect_as(at, via, connect).await;
            assert!(new.connected.resumed && session(&new) == id);
            connect = resuming(&new);
            // Only now the old connection goes; the member is no longer its own.
            old.close().await;
            old = new;
            assert_eq!(sessions(&mut watcher, "room").await, std::slice::from_ref(&id), "{via:?}");
            watcher.quiet().await;
        }
        old.unsubscribe("room").await;
        expect(&mut watcher, "leave room", &id).await;
        watcher.quiet().await;
    }
}

async fn a_session_that_comes_back_after_it_left_joins_again([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::Grpc, "room").await;
    let mut client = RawClient::connect(here, Via::WsJson).await;
    client.subscribe_to("room").await;
    let id = session(&client);
    expect(&mut watcher, "join room", &id).await;
    let connect = resuming(&client);
    client.close().await;
    expect(&mut watcher, "leave room", &id).await;
    let again = RawClient::connect_as(there, Via::WsProto, connect).await;
    assert_eq!(session(&again), id);
    expect(&mut watcher, "join room", &id).await;
}

async fn a_policy_switches_presence_off([here, there]: [Addrs; 2]) {
    let mut watcher = watcher(there, Via::WsJson, "**").await;
    let mut client = RawClient::connect(here, Via::WsJson).await;
    client.subscribe([live("dark.a"), live("silent.a"), live("lit.a")]).await;
    expect(&mut watcher, "join lit.a", &session(&client)).await;
    watcher.quiet().await;
    for channel in ["dark.a", "silent.a"] {
        let wanted = streamgate_proto::v1::Subscribe { subscriptions: vec![watching(channel)] };
        let error = client.refused(frame(In::Subscribe(wanted))).await;
        assert!(error.code == "NOT_SUPPORTED" && error.message.contains(channel), "{error:?}");
    }
    let query = In::PresenceQuery(PresenceQuery { channel: "dark.a".into() });
    assert_eq!(client.refused(frame(query)).await.code, "NOT_SUPPORTED");
    assert_eq!(sessions(&mut watcher, "silent.a").await, [session(&client)]);
}

async fn a_resumed_watcher_goes_on_watching([here, there]: [Addrs; 2]) {
    let client = watcher(here, Via::WsJson, "room").await;
    let connect = resuming(&client);
    client.close().await;
    let mut client = RawClient::connect_as(there, Via::WsProto, connect).await;
    assert!(client.connected.resumed && client.connected.subscriptions[0].presence);
    let other = RawClient::connect_as(here, Via::WsJson, extended([live("room")])).await;
    expect(&mut client, "join room", &session(&other)).await;
}
