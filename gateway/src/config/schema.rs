//! The file as it is written: every key that may stand in it. `docs/configuration.md` says what each does.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use super::{
    layer::section,
    units::{Size, Span},
};

section! {
    /// The whole file.
    Root {
        server: Server,
        transport: Transport,
        broker: Broker,
        channels: Vec<Rule>,
        permissions: Vec<Permission>,
        limits: LimitKeys,
        auth: Auth,
        api: Api,
        allow_anonymous: bool,
        shards: u64,
        log: Log,
        presence: Presence,
        drain: Drain,
        proxy: Vec<Proxy>,
        client_events: ClientEvents,
    }
}

section! {
    /// `server`
    Server { http: Http, heartbeat: Heartbeat, rpc_timeout: Span, }
}

section! {
    /// `server.http`: the admin listener.
    Http { addr: String, tls: ListenerTls, }
}

section! {
    /// `server.heartbeat`
    Heartbeat { idle_timeout: Span, }
}

section! {
    /// `transport`
    Transport { websocket: WebSocket, grpc: Grpc, trusted_proxies: Vec<String>, forwarded_header: String, }
}

section! {
    /// `transport.websocket`; the last three are MessageLoop's and mean nothing here.
    WebSocket {
        addr: String,
        path: String,
        allowed_origins: Vec<String>,
        cors: Cors,
        tls: ListenerTls,
        read_timeout: Span,
        write_timeout: Span,
        compression: bool,
    }
}

section! {
    /// `transport.websocket.cors`
    Cors { allowed_origins: Vec<String>, allowed_headers: Vec<String>, credentials: bool, max_age: Span, }
}

section! {
    /// `transport.grpc`; the last one is MessageLoop's and means nothing here.
    Grpc {
        // MessageLoop's README says `address`, its code `addr`.
        #[serde(alias = "address")]
        addr: String,
        tls: ListenerTls,
        write_timeout: Span,
    }
}

section! {
    /// `tls` of a listener.
    ListenerTls { cert_file: String, key_file: String, client_ca_file: String, client_auth: String, }
}

section! {
    /// `broker`
    Broker { r#type: String, memory: Memory, redis: Redis, }
}

section! {
    /// `broker.memory`
    Memory { max_bytes: Size, }
}

section! {
    /// `broker.redis`; from `stream_max_length` on they are MessageLoop's, the first two of them mean something.
    Redis {
        mode: String,
        addr: String,
        addrs: Vec<String>,
        sentinel: Sentinel,
        username: String,
        password: String,
        tls: Tls,
        db: u64,
        key_prefix: String,
        partitions: u64,
        connect_timeout: Span,
        command_timeout: Span,
        inbox_max_length: u64,
        inbox_ttl: Span,
        stream_max_length: u64,
        history_ttl: Span,
        pool_size: u64,
        min_idle_conns: u64,
        max_retries: Value,
        dial_timeout: Span,
        read_timeout: Span,
        write_timeout: Span,
        stream_approximate: bool,
        consumer_group: String,
    }
}

section! {
    /// `broker.redis.sentinel`
    Sentinel { master_name: String, username: String, password: String, }
}

section! {
    /// `broker.redis.tls`
    Tls {
        enabled: bool,
        ca_file: String,
        cert_file: String,
        key_file: String,
        server_name: String,
    }
}

section! {
    /// An element of `channels`.
    Rule {
        pattern: String,
        history_size: u64,
        history_ttl: Span,
        idempotency_window: Span,
        recovery: bool,
        presence: bool,
        join_leave: bool,
        publisher_identity: bool,
        max_message_size: Size,
        transient: bool,
    }
}

section! {
    /// An element of `permissions`. `who` is a word, or a mapping with one key.
    Permission { channels: Vec<String>, actions: Vec<String>, who: Value, effect: String, }
}

section! {
    /// `limits`
    LimitKeys {
        subscriptions_per_client: u64,
        write_queue_bytes: Size,
        publishes_per_second: u64,
        publishes_per_second_per_user: u64,
        calls_per_second: u64,
        connections_per_user: u64,
        new_channels_per_minute: u64,
        frame_bytes: Size,
        errors_in_a_row: u64,
        connect_deadline: Span,
        ping_interval: Span,
        resume_window: Span,
        request_timeout: Span,
    }
}

section! {
    /// `log`
    Log { level: String, format: String, }
}

section! {
    /// `presence`
    Presence { lease: Span, }
}

section! {
    /// `client_events`
    ClientEvents { channel: String, }
}

section! {
    /// `drain`
    Drain { duration: Span, delay: Span, }
}

section! {
    /// `auth`
    Auth { jwt: Jwt, }
}

section! {
    /// `auth.jwt`
    Jwt { keys: Vec<JwtKeyEntry>, jwks: JwksKeys, issuer: String, audience: String, leeway: Span, }
}

section! {
    /// `auth.jwt.jwks`
    JwksKeys {
        url: String,
        ca_file: String,
        algorithms: Vec<String>,
        refresh: Span,
        refetch_after: Span,
        timeout: Span,
        max_age: Span,
    }
}

section! {
    /// An element of `auth.jwt.keys`.
    JwtKeyEntry {
        id: String,
        algorithm: String,
        secret: String,
        secret_file: String,
        public_key_file: String,
    }
}

section! {
    /// `api`
    Api { tokens: Vec<ApiTokenEntry>, max_request_bytes: Size, }
}

section! {
    /// An element of `api.tokens`.
    ApiTokenEntry { name: String, token: String, token_file: String, scopes: Vec<String>, }
}

section! {
    /// An element of `proxy`: a backend that hooks and RPCs go to.
    Proxy {
        name: String,
        endpoint: String,
        timeout: Span,
        max_concurrent: u64,
        lifecycle: bool,
        occupancy: bool,
        forward_headers: Vec<String>,
        breaker: Breaker,
        http: ProxyHttp,
        grpc: ProxyGrpc,
        routes: Vec<Route>,
    }
}

section! {
    /// `proxy[].breaker`
    Breaker {
        failure_ratio: f64,
        minimum_calls: u64,
        window: Span,
        open_for: Span,
        trial_calls: u64,
    }
}

section! {
    /// `proxy[].http`
    ProxyHttp {
        headers: BTreeMap<String, String>,
        header_files: BTreeMap<String, String>,
        ca_file: String,
        max_response_bytes: Size,
    }
}

section! {
    /// `proxy[].grpc`
    ProxyGrpc {
        insecure: bool,
        metadata: BTreeMap<String, String>,
        metadata_files: BTreeMap<String, String>,
        ca_file: String,
        max_message_bytes: Size,
    }
}

section! {
    /// An element of `proxy[].routes`.
    Route { channel: String, method: String, }
}
