//! The library for backends (`streamgate_client::server`) against real nodes: the server API and hooks.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use streamgate_client::{
    CloudEvent, Error, HistoryOptions,
    server::{
        ApiBuilder, ApiClient, AuthenticateRequest, ChannelsQuery, Close, Destination, HookError,
        HookHandler, OnChannelOccupiedRequest, OnChannelVacatedRequest, OnDisconnectedRequest, Publication,
        PublishAclRequest, RpcRequest, SessionsQuery, SubscribeAclRequest, UserInfo, Who, serve,
    },
};
use streamgate_e2e::{
    certificates::Authority,
    cluster::Cluster,
    events::{extended, frame, live, text, text_of},
    gateway::{Addrs, TestNode},
    raw::{RawClient, Via},
    responder::{Responder, call},
    rights::{OPEN, showing, token},
    within,
};
use streamgate_proto::v1::{Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out};
use tokio::{net::TcpListener, sync::mpsc};

const NOBODY: &str = "2b1bb2c8-9f7e-4f0d-8f4f-2b4b8f2f1a11";

fn api(addrs: Addrs) -> ApiBuilder {
    ApiClient::builder(format!("http://{}", addrs.admin))
}

fn code<T>(outcome: &Result<T, Error>) -> &str {
    match outcome {
        Err(Error::Server { code, .. }) => code,
        Ok(_) => "",
        Err(error) => panic!("{error}"),
    }
}

async fn client(addrs: Addrs, user: &str) -> RawClient {
    RawClient::connect_as(addrs, Via::WsJson, showing(extended([]), &token(user))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_read_back_listed_and_removed() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut ann = client(cluster.addrs(1), "ann").await;
    ann.subscribe_to("room.a").await;
    let api = api(cluster.addrs(0)).build().unwrap();
    let publication = Publication::new(text("e1", "one"))
        .id("p")
        .channel("room.a")
        .channel("room..b")
        .session(NOBODY)
        .user("ann")
        .shown_as("private");
    let results = api.publish([publication]).await.unwrap();
    let told: Vec<_> = results.iter().map(|result| (result.to.clone(), code(&result.outcome))).collect();
    let expected = [
        (Destination::Channel("room.a".into()), ""),
        (Destination::Channel("room..b".into()), "BAD_REQUEST"),
        (Destination::Session(NOBODY.into()), "NOT_FOUND"),
        (Destination::User("ann".into()), ""),
    ];
    assert_eq!(told, expected);
    assert!(results.iter().all(|result| result.id == "p"));
    assert_eq!(results[3].outcome.as_ref().unwrap().sessions, 1);
    let mut got = [ann.message().await.channel, ann.message().await.channel];
    got.sort_unstable();
    assert_eq!(got, ["private", "room.a"]);

    let keyed =
        |id: &str| Publication::new(text(id, "two")).channel("room.a").channel("room.b").idempotency_key("k");
    let first = api.broadcast(keyed("e2")).await.unwrap();
    let again = api.broadcast(keyed("e3")).await.unwrap();
    for (first, again) in first.iter().zip(&again) {
        let (first, again) = (first.outcome.as_ref().unwrap(), again.outcome.as_ref().unwrap());
        assert!(!first.duplicate && again.duplicate && first.position == again.position);
    }
    let to_user = Publication::new(text("e", "")).user("ann");
    assert!(matches!(api.broadcast(to_user).await, Err(Error::Invalid(_))));

    let page = api
        .history("room.a", HistoryOptions { limit: Some(1), reverse: true, ..HistoryOptions::default() })
        .await
        .unwrap();
    assert!(page.truncated && page.messages[0].event.id == "e2" && page.messages[0].offset == 2);
    let since = page.messages[0].position.clone();
    let older = HistoryOptions { since, reverse: true, limit: None };
    assert_eq!(api.history("room.a", older).await.unwrap().messages[0].event.id, "e1");
    assert_eq!(code(&api.history("room.*", HistoryOptions::default()).await), "BAD_REQUEST");

    let presence = api.presence("room.a", 0).await.unwrap();
    assert_eq!((presence.count, presence.members[0].user_id.as_str()), (1, "ann"));
    let page = api.channels(ChannelsQuery { limit: 1, ..ChannelsQuery::default() }).await.unwrap();
    assert!(page.items.len() <= 1 && page.next.is_some(), "{page:?}");
    let query = ChannelsQuery { pattern: "room.*".into(), limit: 1, ..ChannelsQuery::default() };
    let all: Vec<_> = api.all_channels(query.clone()).try_collect().await.unwrap();
    assert_eq!(all, ["room.a", "room.b"]);
    api.remove_history("room.a").await.unwrap();
    let left: Vec<_> = api.all_channels(query).try_collect().await.unwrap();
    assert_eq!(left, ["room.b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_found_subscribed_asked_and_closed_on_the_other_node() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let api = api(cluster.addrs(0)).build().unwrap();
    let nodes = api.nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes.iter().filter(|node| node.local).count()), (2, 1));
    let far = nodes.iter().find(|node| !node.local).unwrap().id.clone();

    let mut ann = client(cluster.addrs(1), "ann").await;
    let id = ann.connected.session_id.clone();
    let query = SessionsQuery { limit: 1, ..SessionsQuery::default() };
    let listed: Vec<_> = api.all_sessions(query).try_collect().await.unwrap();
    let found: Vec<_> =
        listed.iter().map(|session| (&session.session_id, session.user_id.as_str(), &session.node)).collect();
    assert_eq!(found, [(&id, "ann", &far)]);
    let none = SessionsQuery { user_id: "bob".into(), ..SessionsQuery::default() };
    assert!(api.sessions(none).await.unwrap().items.is_empty());

    let results = api.subscribe(Who::session(&id), ["room", "a..b"]).await.unwrap();
    let codes: Vec<_> = results.iter().map(|result| code(&result.outcome)).collect();
    assert_eq!(codes, ["", "BAD_REQUEST"]);
    assert!(matches!(ann.frame().await.envelope, Some(Out::SubscribeAck(_))));
    let nobody = api.subscribe(Who::user("zoe"), ["room"]).await.unwrap();
    assert_eq!(code(&nobody[0].outcome), "NOT_FOUND");

    let bob = Responder::of(client(cluster.addrs(1), "bob").await, &[]).await;
    let answer = api.call(Who::session(&bob.session_id), "m.echo", text("1", "hello"), None).await.unwrap();
    assert_eq!(text_of(&answer), "hello");
    let refused = api.call(Who::user("bob"), "m.fail", text("1", ""), None).await.unwrap_err();
    let own =
        Error::Server { code: "OUT_OF_TEA".into(), kind: "kitchen".into(), message: "only coffee".into() };
    assert_eq!(refused, own, "as the client gave it");
    let soon = Some(Duration::from_millis(100));
    assert_eq!(code(&api.call(Who::user("bob"), "m.silent", text("1", ""), soon).await), "RPC_TIMEOUT");
    assert_eq!(code(&api.call(Who::user("zoe"), "m.echo", text("1", ""), None).await), "NOT_FOUND");
    api.subscribe(Who::user("bob"), ["poll"]).await.unwrap();
    let survey = api.survey("poll", text("q", "who"), None).await.unwrap();
    assert_eq!((survey.asked, survey.truncated, survey.answers.len()), (1, false, 1));
    assert_eq!(text_of(survey.answers[0].outcome.as_ref().unwrap()), bob.session_id);
    assert_eq!(code(&api.survey("empty", text("q", ""), None).await), "NOT_FOUND");

    let results = api.unsubscribe(Who::user("ann"), ["room"]).await.unwrap();
    assert_eq!((results[0].channel.as_str(), code(&results[0].outcome)), ("room", ""));
    assert!(matches!(ann.frame().await.envelope, Some(Out::UnsubscribeAck(_))));
    let close = Close { code: 4321, reason: "moved".into() };
    let results = api.disconnect([Who::session(&id), Who::user("zoe")], close).await.unwrap();
    assert_eq!((&results[0].who, &results[0].outcome), (&Who::session(&id), &Ok(1)));
    assert_eq!((&results[1].who, code(&results[1].outcome)), (&Who::user("zoe"), "NOT_FOUND"));
    assert_eq!(ann.closed().await, (4321, "moved".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_whether_the_token_the_gateway_or_the_network_is_at_fault() {
    let node =
        TestNode::start("api: {tokens: [{name: w, token: token-of-the-writer, scopes: [publish]}]}").await;
    let publish = || [Publication::new(text("e", "")).channel("room")];
    for (token, expected) in
        [(None, "AUTH_ERROR"), (Some("wrong"), "AUTH_ERROR"), (Some("token-of-the-writer"), "")]
    {
        let builder = api(node.addrs());
        let builder = match token {
            Some(token) => builder.token(token),
            None => builder,
        };
        assert!(!format!("{builder:?}").contains("token-of"), "{builder:?}");
        let api = builder.build().unwrap();
        assert_eq!(code(&api.publish(publish()).await), expected, "{token:?}");
        if expected.is_empty() {
            assert_eq!(code(&api.nodes().await), "ACL_ERROR");
        }
    }
    assert!(matches!(api(node.addrs()).token("two\nlines").build(), Err(Error::Invalid(_))));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    let nobody = || ApiClient::builder(format!("http://{address}"));
    // It accepts and says nothing.
    let silent = nobody().timeout(Duration::from_millis(300)).build().unwrap();
    assert_eq!(silent.nodes().await.unwrap_err(), Error::Timeout { what: "nodes" });
    drop(free);
    let unreachable =
        Error::Unreachable { address: address.to_string(), reason: "connection refused".into() };
    let gone = nobody().publish_timeout(Duration::from_secs(2)).build().unwrap();
    assert_eq!(gone.nodes().await.unwrap_err(), unreachable);
    // Only what has a key is tried again.
    let started = Instant::now();
    assert_eq!(gone.publish(publish()).await.unwrap_err(), unreachable);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let keyed = tokio::spawn(async move {
        gone.publish([Publication::new(text("e", "")).channel("room").idempotency_key("k")]).await
    });
    let late = TcpListener::bind(address).await.unwrap();
    let (mut client, _) = within("another attempt", late.accept()).await.unwrap();
    let mut gateway = tokio::net::TcpStream::connect(node.addrs().admin).await.unwrap();
    let passing = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut gateway).await });
    assert_eq!(code(&keyed.await.unwrap()), "AUTH_ERROR", "it came through, and has no token");
    passing.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_reached_through_tls() {
    let authority = Authority::new();
    let identity = authority.issue("admin", &["localhost"]);
    let node = TestNode::start(&format!(
        "server: {{http: {{addr: '127.0.0.1:0', tls: {{cert_file: {}, key_file: {}}}}}}}",
        identity.cert_file.display(),
        identity.key_file.display()
    ))
    .await;
    let url = format!("https://localhost:{}", node.addrs().admin.port());
    let api = ApiClient::builder(&url).ca_file(authority.ca_file()).build().unwrap();
    assert_eq!(api.nodes().await.unwrap().len(), 1);
    let other = Authority::new();
    let stranger = ApiClient::builder(&url).ca_file(other.ca_file()).build().unwrap();
    assert!(matches!(stranger.nodes().await, Err(Error::Unreachable { .. })));
}

/// Lets in who shows `good`, lets them subscribe to `room.*`, marks what they publish, and echoes calls.
struct Backend {
    ended: mpsc::UnboundedSender<OnDisconnectedRequest>,
    /// Channels, and whether they are occupied.
    channels: mpsc::UnboundedSender<(String, bool)>,
    told: AtomicBool,
}

impl HookHandler for Backend {
    async fn rpc(&self, request: RpcRequest) -> Result<CloudEvent, HookError> {
        match request.method.as_str() {
            "echo" => Ok(request.payload.unwrap_or_default()),
            _ => Err(HookError { kind: "kitchen".into(), ..HookError::new("OUT_OF_TEA", "only coffee") }),
        }
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<UserInfo, HookError> {
        match request.password.as_str() {
            "good" => Ok(UserInfo { id: "ann".into(), ..UserInfo::default() }),
            _ => Err(HookError::new("AUTH_ERROR", "who are you")),
        }
    }

    async fn subscribe_acl(&self, request: SubscribeAclRequest) -> Result<(), HookError> {
        let allowed = request.user_id == "ann" && request.channel.starts_with("room.");
        if allowed { Ok(()) } else { Err(HookError::denied("not here")) }
    }

    async fn publish_acl(&self, request: PublishAclRequest) -> Result<Option<CloudEvent>, HookError> {
        match request.channel.as_str() {
            "room.as.it.is" => Ok(None),
            _ => Ok(Some(text("marked", "marked"))),
        }
    }

    async fn on_disconnected(&self, request: OnDisconnectedRequest) -> Result<(), HookError> {
        self.ended.send(request).map_err(|_| HookError::new("GONE", "the test is over"))?;
        let again = self.told.swap(true, Relaxed);
        if again { Ok(()) } else { Err(HookError::new("BUSY", "tell it again")) }
    }

    async fn on_channel_occupied(&self, request: OnChannelOccupiedRequest) -> Result<(), HookError> {
        self.channels.send((request.channel, true)).map_err(|_| HookError::new("GONE", "the test is over"))
    }

    async fn on_channel_vacated(&self, request: OnChannelVacatedRequest) -> Result<(), HookError> {
        self.channels.send((request.channel, false)).map_err(|_| HookError::new("GONE", "the test is over"))
    }
}

struct Silent;

impl HookHandler for Silent {}

async fn gateway_for(listener: &TcpListener) -> TestNode {
    TestNode::start(&format!(
        "proxy:
  - name: b
    endpoint: '{}'
    grpc: {{insecure: true}}
    lifecycle: true
    occupancy: true
    routes:
      - {{channel: '', method: $authenticate}}
      - {{channel: '**', method: subscribe}}
      - {{channel: '**', method: publish}}
      - {{channel: '**', method: '**'}}
",
        listener.local_addr().unwrap()
    ))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_answers_every_hook() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = gateway_for(&listener).await;
    let (ended, mut endings) = mpsc::unbounded_channel();
    let (channels, mut occupancy) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, Backend { ended, channels, told: AtomicBool::new(false) }));
    let mut stranger = RawClient::open(node.addrs(), Via::WsJson).await;
    let error = stranger.refused(frame(In::Connect(showing(extended([]), "bad")))).await;
    assert_eq!((error.code.as_str(), stranger.close_code().await), ("AUTH_ERROR", 3500));

    let mut ann = RawClient::connect_as(node.addrs(), Via::WsJson, showing(extended([]), "good")).await;
    ann.subscribe_to("room.a").await;
    ann.subscribe_to("room.as.it.is").await;
    let elsewhere = frame(In::Subscribe(Subscribe { subscriptions: vec![live("hall")] }));
    assert_eq!(ann.refused(elsewhere).await.code, "ACL_ERROR");
    for (channel, expected) in [("room.a", "marked"), ("room.as.it.is", "word")] {
        ann.publish(channel, text("e", "word")).await;
        assert_eq!(text_of(&ann.message().await.payload.unwrap()), expected);
    }
    let answer = ann.request(call("any", "echo", text("1", "hello"))).await;
    assert!(matches!(answer.envelope, Some(Out::RpcReply(event)) if text_of(&event) == "hello"));
    let error = ann.refused(call("any", "other", text("1", ""))).await;
    assert_eq!((error.code.as_str(), error.r#type.as_str()), ("OUT_OF_TEA", "kitchen"));
    let api = api(node.addrs()).build().unwrap();
    let close = Close { code: 4000, reason: "over".into() };
    api.disconnect([Who::user("ann")], close).await.unwrap();
    let told = within("the end is told", endings.recv()).await.unwrap();
    assert_eq!((told.user_id.as_str(), told.code, told.reason.as_str()), ("ann", 4000, "over"));
    let again = within("and again, for it was not noted", endings.recv()).await.unwrap();
    assert_eq!(again.event_id, told.event_id);
    let mut of_channels = Vec::new();
    while of_channels.len() < 4 {
        of_channels.push(within("what becomes of channels", occupancy.recv()).await.unwrap());
    }
    for channel in ["room.a", "room.as.it.is"] {
        let of_one: Vec<_> = of_channels.iter().filter(|(of, _)| of == channel).collect();
        assert!(matches!(of_one[..], [(_, true), (_, false)]), "{of_channels:?}");
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_says_nothing_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', grpc: {{insecure: true}}, routes: [{{channel: '**', method: subscribe}}, \
         {{channel: '**', method: publish}}, {{channel: '**', method: '**'}}]}}]",
        listener.local_addr().unwrap()
    ))
    .await;
    let serving = tokio::spawn(serve(listener, Silent));
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    let subscribe = frame(In::Subscribe(Subscribe { subscriptions: vec![live("room")] }));
    assert_eq!(client.refused(subscribe).await.code, "ACL_ERROR");
    let publish = streamgate_e2e::events::publish("room", text("e", ""));
    assert_eq!(client.refused(publish).await.code, "ACL_ERROR");
    assert_eq!(client.refused(call("room", "m", text("1", ""))).await.code, "NO_PROXY");
    serving.abort();
}
