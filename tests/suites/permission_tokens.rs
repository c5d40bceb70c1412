//! Rights by tokens, of connections and of subscriptions, and rights that change while a client is there.

use std::time::{Duration, Instant};

use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use streamgate::policy::rights::Action;
use streamgate_e2e::{
    api::post,
    events::{extended, frame, live, text, v1},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
    rights::{attempt, client, permissions, showing, signed, token},
};
use streamgate_proto::v1::{
    Connect, Refresh, Subscribe, Subscription, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};

fn with_token(channel: &str, claims: &Value) -> Subscription {
    Subscription { token: signed(claims), ..live(channel) }
}

#[tokio::test]
async fn claims_of_the_connection_allow_more_and_another_token_takes_it_away() {
    let node = TestNode::start(&permissions(
        "{channels: [open], actions: [subscribe, publish], who: any}, \
         {channels: [mine.secret], actions: [subscribe], who: any, effect: deny}",
    ))
    .await;
    for via in Via::ALL {
        let claims =
            json!({"sub": "ann", "subscribe": ["mine.**"], "publish": ["mine.in"], "channels": ["auto.*"]});
        let mut ann = client(&node, via, &signed(&claims)).await;
        assert_eq!(ann.connected.subscriptions[0].channel, "auto.*", "the claim itself allows it");
        for name in ["mine.a", "open", "auto.x"] {
            assert_eq!(attempt(&mut ann, Action::Subscribe, name).await, "", "{via:?} {name}");
        }
        for name in ["mine.**", "mine.secret", "other"] {
            assert_eq!(attempt(&mut ann, Action::Subscribe, name).await, "ACL_ERROR", "{via:?} {name}");
        }
        assert_eq!(attempt(&mut ann, Action::Publish, "mine.in").await, "");
        assert_eq!(attempt(&mut ann, Action::Publish, "mine.out").await, "ACL_ERROR");
        let refresh = |claims: Value| frame(In::Refresh(Refresh { token: signed(&claims) }));
        let same = json!({"sub": "ann", "subscribe": ["mine.a", "auto.**"]});
        let answer = ann.request(refresh(same)).await;
        assert!(matches!(answer.envelope, Some(Out::Ok(_))), "{answer:?}");
        assert_eq!(attempt(&mut ann, Action::Publish, "mine.in").await, "ACL_ERROR", "{via:?}");
        ann.request(refresh(json!({"sub": "ann", "subscribe": ["auto.**"]}))).await;
        let (code, reason) = ann.closed().await;
        assert_eq!(code, 3507, "{via:?}");
        assert!(reason.contains("mine.a"), "{reason}");
        // A right that cannot be read is no right.
        let bad = signed(&json!({"sub": "ann", "subscribe": ["a..b"]}));
        let mut client = RawClient::open(node.addrs(), via).await;
        let error = client.refused(frame(In::Connect(showing(extended([]), &bad)))).await;
        assert_eq!((error.code.as_str(), client.close_code().await), ("AUTH_ERROR", 3500));
    }
}

#[tokio::test]
async fn a_subscription_token_is_for_its_user_its_channel_and_its_time() {
    let node = TestNode::start(&permissions(
        "{channels: [open, free], actions: [subscribe], who: any}, \
         {channels: [secret.**], actions: [subscribe], who: any, effect: deny}",
    ))
    .await;
    let now = get_current_timestamp();
    let good =
        |channel: &str| with_token(channel, &json!({"sub": "ann", "channel": channel, "exp": now + 60}));
    for via in Via::ALL {
        let mut ann = client(&node, via, &token("ann")).await;
        for name in ["room.a", "room.*"] {
            assert_eq!(attempt(&mut ann, Action::Subscribe, name).await, "ACL_ERROR", "without");
            ann.subscribe([good(name)]).await;
        }
        let claims = |user: &str, channel: &str| json!({"sub": user, "channel": channel});
        let bad = [
            ("other", claims("ann", "room.a"), "channel"),
            ("room.b.*", claims("ann", "room.b.c"), "channel"),
            ("room.b.c", claims("ann", "room.b.*"), "channel"),
            ("room.b", claims("bob", "room.b"), "user"),
            ("room.b", json!({"channel": "room.b"}), "user"),
            ("room.b", json!({"sub": "ann", "channel": "room.b", "exp": now - 5}), "expired"),
            ("room.b", json!({"sub": "ann"}), "connection"),
            ("room.b", json!({"sub": "ann", "channel": ["room.b"]}), "`channel`"),
            ("open", claims("ann", "x"), "channel"),
            ("secret.a", claims("ann", "secret.a"), "not allowed"),
        ];
        for (name, claims, why) in bad {
            let subscribe = |claims: &Value| {
                frame(In::Subscribe(Subscribe {
                    subscriptions: vec![live("free"), with_token(name, claims)],
                }))
            };
            let error = ann.refused(subscribe(&claims)).await;
            assert_eq!(error.code, "ACL_ERROR", "{via:?} {name} {claims}");
            assert!(error.message.contains(why) && error.message.contains(name), "{why}: {}", error.message);
            let mut old = RawClient::connect_as(node.addrs(), via, showing(v1([]), &token("ann"))).await;
            assert_eq!(old.refused(subscribe(&claims)).await.code, "ACL_ERROR");
            assert_eq!(old.close_code().await, 3500, "{via:?} {name} {claims}");
        }
        // Nor does one open a connection.
        let mut client = RawClient::open(node.addrs(), via).await;
        let connect = showing(extended([]), &signed(&claims("ann", "room.a")));
        assert_eq!(client.refused(frame(In::Connect(connect))).await.code, "AUTH_ERROR");
        assert_eq!(client.close_code().await, 3500);
        // One without a user is for whoever has none.
        let mut nobody = RawClient::connect(node.addrs(), via).await;
        nobody.subscribe([with_token("room.a", &json!({"channel": "room.a"}))]).await;
        // Within a connect it does the same.
        let connect = showing(extended([good("room.z")]), &token("ann"));
        let one = RawClient::connect_as(node.addrs(), via, connect).await;
        assert_eq!(one.connected.subscriptions[0].channel, "room.z");
    }
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_unless_another_one_comes_in_time() {
    let node = TestNode::start(&permissions("{channels: [open], actions: [subscribe], who: any}")).await;
    let ending = |seconds: u64| {
        with_token("a", &json!({"sub": "ann", "channel": "a", "exp": get_current_timestamp() + seconds}))
    };
    for via in Via::ALL {
        let mut left = client(&node, via, &token("ann")).await;
        let mut stays = client(&node, via, &token("ann")).await;
        left.subscribe([ending(2)]).await;
        stays.subscribe([ending(2)]).await;
        stays.subscribe([ending(60)]).await;
        let (code, reason) = left.closed().await;
        assert_eq!(code, 3507, "{via:?}");
        assert!(reason.contains("expired"), "{reason}");
        stays.publish("a", text("1", "still here")).await;
    }
}

#[tokio::test]
async fn a_held_subscription_ends_when_its_token_is_revoked() {
    let node =
        TestNode::start(&permissions("{channels: [open], actions: [subscribe, publish], who: any}")).await;
    let until = (get_current_timestamp() + 3_600) * 1_000;
    let named = |id: &str| with_token("a", &json!({"sub": "ann", "channel": "a", "jti": id}));
    for via in Via::ALL {
        let mut revoked = client(&node, via, &token("ann")).await;
        let mut stays = client(&node, via, &token("ann")).await;
        let (gone, good) = (format!("gone-{via:?}"), format!("good-{via:?}"));
        revoked.subscribe([live("open"), named(&gone)]).await;
        stays.subscribe([live("open"), named(&good)]).await;
        let since = Instant::now();
        let body = json!({"token_id": gone, "until": until}).to_string();
        assert_eq!(post(node.addrs().admin, "revoke", &[], &body).await.status, 200);
        let closed = revoked.closed().await;
        assert_eq!(closed, (3507, "the token of the subscription to a is revoked".to_owned()), "{via:?}");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        stays.publish("open", text("1", "still here")).await;
        assert_eq!(stays.texts(1).await, ["still here"], "{via:?}");
        // It does not come back by the token, either.
        let mut again = client(&node, via, &token("ann")).await;
        let subscribe = Subscribe { subscriptions: vec![named(&gone)] };
        assert_eq!(again.refused(frame(In::Subscribe(subscribe))).await.code, "ACL_ERROR", "{via:?}");
    }
}

#[tokio::test]
async fn rights_that_a_reload_takes_away_close_who_uses_them() {
    let rules = |more: &str| {
        let all = "{channels: ['**'], actions: [subscribe, publish, presence], who: any}";
        format!("limits: {{ping_interval: 1s}}\n{}", permissions(&format!("{all}{more}")))
    };
    let mut node = TestNode::start(&rules("")).await;
    let mut lost = Vec::new();
    for via in Via::ALL {
        let mut client = client(&node, via, "").await;
        client.subscribe_to("admin.a").await;
        let mut watcher = RawClient::connect(node.addrs(), via).await;
        watcher.subscribe([Subscription { presence: true, ..live("quiet.a") }]).await;
        lost.extend([client, watcher]);
    }
    let mut stays = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    stays.subscribe_to("a").await;
    node.reload(&rules(
        ", {channels: [admin.**], actions: [subscribe, publish], who: any, effect: deny}, \
         {channels: [quiet.*], actions: [presence], who: any, effect: deny}",
    ));
    // New requests see the new table at once.
    assert_eq!(attempt(&mut stays, Action::Publish, "admin.a").await, "ACL_ERROR");
    for mut client in lost {
        assert_eq!(client.close_code().await, 3507, "{:?}", client.via());
    }
    stays.publish("a", text("1", "x")).await;
}

#[tokio::test]
async fn what_a_session_may_no_longer_have_is_not_brought_back() {
    let rules =
        |more: &str| permissions(&format!("{{channels: ['**'], actions: [subscribe], who: any}}{more}"));
    let mut node = TestNode::start(&rules("")).await;
    let mut first = client(&node, Via::WsJson, &token("ann")).await;
    first.subscribe([live("a"), live("secret")]).await;
    let resume_token = first.connected.resume_token.clone();
    first.close().await;
    node.reload(&rules(", {channels: [secret], actions: [subscribe], who: any, effect: deny}"));
    let connect = Connect { resume_token, ..showing(extended([]), &token("ann")) };
    let again = RawClient::connect_as(node.addrs(), Via::WsJson, connect).await;
    assert!(again.connected.resumed);
    let names: Vec<_> = again.connected.subscriptions.iter().map(|one| one.channel.as_str()).collect();
    assert_eq!(names, ["a"]);
}

#[tokio::test]
async fn rules_are_taken_over_on_sighup_and_a_bad_file_changes_nothing() {
    let gateway =
        GatewayProcess::start("permissions: [{channels: ['**'], actions: [publish], who: any}]").await;
    let mut client = RawClient::connect(gateway.addrs(), Via::WsJson).await;
    assert_eq!(attempt(&mut client, Action::Publish, "a").await, "");
    gateway.rewrite_config("permissions: [{channels: ['a**'], actions: [fly], who: some}]");
    gateway.sighup();
    let line = gateway.logged("the refusal", |line| line.contains("permissions[0].actions[0]")).await;
    assert!(line.contains("fly"), "{line}");
    assert_eq!(attempt(&mut client, Action::Publish, "a").await, "");
    gateway.rewrite_config("permissions: [{channels: ['**'], actions: [publish], who: any, effect: deny}]");
    gateway.sighup();
    gateway
        .logged("the reload", |line| line.contains("configuration reloaded") && line.contains("permissions"))
        .await;
    assert_eq!(attempt(&mut client, Action::Publish, "a").await, "ACL_ERROR");
}
