//! What a configuration file may say, and what is said about one that is wrong.

use std::{path::PathBuf, time::Duration};

use streamgate::{
    auth::Grants,
    config::{self, BrokerConfig, Config, Override, Sources, from_environment},
    hooks::{BreakerOptions, Endpoint},
    policy::{
        ChannelPolicy,
        rights::{Action, Rights, Subject},
    },
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(name)
}

fn load(name: &str) -> Result<config::Loaded, config::ConfigError> {
    config::load(&Sources { file: Some(fixture(name)), ..Sources::default() })
}

fn env(name: &str, value: &str) -> Vec<Override> {
    from_environment([(name.to_owned(), value.to_owned())])
}

/// The reference file with every key that is commented out brought in.
fn uncommented() -> String {
    let is_key = |text: &str| {
        let text = text.strip_prefix("- ").unwrap_or(text);
        text.split_once(": ")
            .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    config::REFERENCE
        .lines()
        .map(|line| match line.split_once("# ") {
            Some((indent, text)) if indent.trim().is_empty() && is_key(text) => format!("{indent}{text}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_reference_file_says_exactly_the_defaults() {
    let (config, warnings) = config::assemble("reference", config::REFERENCE, &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(warnings, []);
}

#[test]
fn the_reference_file_with_every_key_brought_in_says_exactly_the_defaults() {
    let (mut config, warnings) = config::assemble("reference", &uncommented(), &[]).unwrap();
    assert_eq!(warnings, []);
    assert!(config.jwt.take().is_some());
    assert_eq!(std::mem::take(&mut config.api.tokens).len(), 1);
    let rules = std::mem::take(&mut config.policies.rules);
    let backends = std::mem::take(&mut config.backends);
    assert_eq!(backends.len(), 2);
    for backend in &backends {
        assert_eq!((backend.max_concurrent, backend.lifecycle, backend.occupancy), (256, false, false));
        assert_eq!(backend.breaker, BreakerOptions::default());
    }
    let permissions = std::mem::take(&mut config.permissions);
    assert_eq!(config, Config::default());
    let (with, without) = (Rights::new(permissions), Rights::default());
    for action in Action::ALL {
        let subject = Subject { user_id: "ann", grants: &Grants::default() };
        let verdict = |rights: &Rights| rights.verdict(action, "a.b", subject);
        assert_eq!(verdict(&with), verdict(&without), "{action:?}");
    }
    let [rule] = &rules[..] else { panic!("one rule: {rules:?}") };
    assert_eq!((&*rule.pattern, &*rule.policy), ("**", &ChannelPolicy::default()));

    let redis = [Override::flag("--broker", "broker.type", "redis")];
    let (config, _) = config::assemble("reference", &uncommented(), &redis).unwrap();
    let (default, _) = config::assemble("", "", &redis).unwrap();
    assert_eq!(config.broker, default.broker);
}

/// MessageLoop's keys are read but not advertised, except in `docs/configuration.md`.
const ONLY_MESSAGELOOP: [&str; 14] = [
    "transport.websocket.read_timeout",
    "transport.websocket.write_timeout",
    "transport.websocket.compression",
    "transport.grpc.write_timeout",
    "broker.redis.stream_max_length",
    "broker.redis.history_ttl",
    "broker.redis.pool_size",
    "broker.redis.min_idle_conns",
    "broker.redis.max_retries",
    "broker.redis.dial_timeout",
    "broker.redis.read_timeout",
    "broker.redis.write_timeout",
    "broker.redis.stream_approximate",
    "broker.redis.consumer_group",
];

#[test]
fn the_reference_file_has_every_key() {
    let text = uncommented();
    let tree: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    for key in config::keys() {
        if ONLY_MESSAGELOOP.contains(&key.as_str()) {
            continue;
        }
        // In one of the first two elements of its list: a backend has `http` or `grpc`.
        let found = ["0", "1"].iter().any(|at| {
            let path =
                key.trim_end_matches("[]").replacen("[].", &format!(".{at}."), 1).replace("[].", ".0.");
            tree.pointer(&format!("/{}", path.replace('.', "/"))).is_some()
        });
        assert!(found, "{key} is not in the reference file");
    }
}

#[test]
fn every_key_is_documented() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let docs = std::fs::read_to_string(path).unwrap();
    for key in config::keys() {
        let key = key.trim_end_matches("[]");
        assert!(docs.contains(&format!("`{key}`")), "{key} is not in docs/configuration.md");
    }
}

#[test]
fn a_messageloop_file_loads_as_it_is() {
    let loaded = config::load(&Sources {
        file: Some(fixture("messageloop_v0_1_1.yaml")),
        environment: env("STREAMGATE_ALLOW_ANONYMOUS", "true"),
        ..Sources::default()
    })
    .unwrap();
    let config = loaded.config;
    assert_eq!(config.admin.to_string(), ":8080");
    assert_eq!(config.websocket.addr.to_string(), ":9080");
    assert_eq!(config.grpc.to_string(), ":9090");
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.policies.fallback.history_size, 10_000);
    assert_eq!(config.policies.fallback.history_ttl, Duration::from_secs(86_400));
    let BrokerConfig::Redis(redis) = &config.broker else { panic!("{:?}", config.broker) };
    assert_eq!((redis.addrs[0].as_str(), redis.db, &redis.password), ("127.0.0.1:6379", 10, &None));
    assert_eq!(config.backends.len(), 2);
    assert_eq!(config.backends[1].routes[0].method, "$authenticate");
    let warned: Vec<_> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    for key in ["broker.redis.pool_size", "broker.redis.consumer_group", "broker.redis.max_retries"] {
        assert!(warned.contains(&key), "{key} in {warned:?}");
    }
    assert!(matches!(&config.backends[0].endpoint, Endpoint::Http(http) if http.headers[0].0 == "x-api-key"));
    assert!(
        matches!(&config.backends[1].endpoint, Endpoint::Grpc(grpc) if grpc.url == "http://127.0.0.1:9092")
    );
}

#[test]
fn a_messageloop_file_on_all_interfaces_needs_a_word() {
    // With the backend that tells who clients are it is not open to all.
    load("messageloop_v0_1_1.yaml").unwrap();
    let error = config::load(&Sources {
        file: Some(fixture("messageloop_v0_1_1.yaml")),
        environment: env("STREAMGATE_PROXY", "[]"),
        ..Sources::default()
    })
    .unwrap_err();
    let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["transport.websocket.addr", "transport.grpc.addr"]);
    assert!(error.to_string().contains("allow_anonymous: true"), "{error}");
}

#[test]
fn grpc_address_may_be_spelt_out() {
    assert_eq!(load("messageloop_readme.yaml").unwrap().config.grpc.to_string(), "127.0.0.1:9190");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    for (name, key, line) in [
        ("wrong_key_nested.yaml", "`adr`", "line 7"),
        ("wrong_key_top.yaml", "`shard`", "line 2"),
        ("wrong_key_in_list.yaml", "`history_length`", "line 5"),
    ] {
        let text = load(name).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(key) && text.contains(line), "{text}");
    }
}

#[test]
fn a_duration_without_a_unit_is_refused_with_its_line() {
    let text = load("wrong_unit.yaml").unwrap_err().to_string();
    assert!(text.contains("idle_timeout") && text.contains("300") && text.contains("line 3"), "{text}");
}

#[test]
fn every_wrong_value_is_reported_at_once_with_what_is_allowed() {
    let error = load("wrong_values.yaml").unwrap_err();
    let text = error.to_string();
    for expected in [
        "transport.websocket.addr: `nowhere` is not an address",
        "transport.websocket.path: `ws`",
        "transport.websocket.allowed_origins[1]: `b.example/x`",
        "broker.type: `kafka` is unknown, allowed is memory or redis",
        "broker.redis.partitions: 0 is out of range, allowed is 1 to 256",
        "broker.redis.key_prefix: `a{b}`",
        "channels[0].pattern: the channel \"a..b\" has an empty segment",
        "channels[1].pattern: is missing",
        "limits.frame_bytes: 12 is out of range, allowed is 1KiB to 64MiB",
        "limits.ping_interval: 10m must be below server.heartbeat.idle_timeout (5m)",
        "log.level: `inof` is not a level",
        "log.format: `xml` is unknown, allowed is text or json",
        "shards: 65 is out of range, allowed is 0 to 64",
        "client_events.channel: \"$events.**\" is a pattern",
        "proxy[0].routes[0].channel: `orders*` matches nothing: ",
        "proxy[0].routes[1].method: `get*` matches nothing: ",
    ] {
        assert!(text.contains(expected), "{expected}\nnot in\n{text}");
    }
    assert_eq!(error.problems.len(), 16, "{text}");
}

#[test]
fn an_unreadable_file_and_an_empty_directory_are_named() {
    let text = load("absent.yaml").unwrap_err().to_string();
    assert!(text.contains("absent.yaml"), "{text}");
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let text = config::load(&Sources { dir: Some(dir), ..Sources::default() }).unwrap_err().to_string();
    assert!(text.contains("has none of streamgate.yaml"), "{text}");
}

#[test]
fn a_directory_is_searched_for_the_file() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let loaded = config::load(&Sources { dir: Some(dir.clone()), ..Sources::default() }).unwrap();
    assert_eq!(loaded.file, Some(dir.join("streamgate.yaml")));
}

#[test]
fn the_first_matching_rule_inherits_what_it_does_not_say() {
    let text = "
channels:
  - {pattern: live.**, transient: true}
  - {pattern: '**', history_size: 7, history_ttl: 1h}
broker: {redis: {stream_max_length: 50}}";
    let (config, _) = config::assemble("file", text, &[]).unwrap();
    let policies = config.policies.build();
    assert!(policies.of("live.a").transient);
    assert_eq!(policies.of("live.a").history_size, 50);
    assert_eq!(policies.of("a").history_size, 7);
    assert_eq!(policies.of("a").idempotency_window, Duration::from_secs(300));
}

#[test]
fn a_short_idle_timeout_shortens_the_pings() {
    let (config, _) = config::assemble("", "server: {heartbeat: {idle_timeout: 20s}}", &[]).unwrap();
    assert_eq!(config.limits.ping_interval, Duration::from_secs(10));
}

/// What is wrong with these keys of `broker.redis`: the keys, and the whole text.
fn wrong_with(redis: &str) -> (Vec<String>, String) {
    let Err(error) = config::assemble("test", &format!("broker: {{redis: {{{redis}}}}}"), &[]) else {
        panic!("{redis} is accepted");
    };
    (error.problems.iter().map(|problem| problem.key.clone()).collect(), error.to_string())
}

#[test]
fn redis_may_be_named_by_a_url() {
    let yaml = "broker: {type: redis, redis: {addr: 'rediss://al:s3cret@redis.example/4'}}";
    let (config, _) = config::assemble("test", yaml, &[]).unwrap();
    let BrokerConfig::Redis(redis) = &config.broker else { panic!("{:?}", config.broker) };
    assert_eq!((redis.addrs[0].as_str(), redis.db, redis.tls.is_some()), ("redis.example:6379", 4, true));
    assert_eq!(
        (redis.username.as_deref(), redis.password.as_ref().unwrap().reveal()),
        (Some("al"), "s3cret")
    );
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn mistakes_about_redis_are_named_and_never_repeat_a_password() {
    for (redis, key) in [
        ("addr: 'redis://u:s3cret@h:x'", "addr"),
        ("addr: 'u:s3cret@h:6379'", "addr"),
        ("addr: 'redis://:s3cret@h', password: other", "password"),
        ("addr: 'redis://h/2', db: 3", "db"),
        ("tls: {ca_file: ca.pem}", "tls.ca_file"),
        ("addr: 'rediss://h', tls: {enabled: false}", "tls.enabled"),
        ("tls: {enabled: true, cert_file: c.pem}", "tls.key_file"),
        ("tls: {enabled: true, server_name: 'a b'}", "tls.server_name"),
        ("mode: sentinel, addrs: ['h:1']", "sentinel.master_name"),
        ("sentinel: {master_name: m}", "sentinel.master_name"),
        ("mode: sentinel, addr: 'redis://:s3cret@h:1', sentinel: {master_name: m}", "addr"),
        ("mode: cluster, addrs: ['rediss://h:1', 'h:2']", "addrs"),
        ("mode: twin", "mode"),
    ] {
        let (keys, text) = wrong_with(redis);
        assert_eq!(keys, [format!("broker.redis.{key}")], "{redis}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn mistakes_about_keys_of_tokens_are_named_and_never_repeat_a_secret() {
    for (jwt, key, why) in [
        ("keys: []", "keys", "no token could be checked"),
        ("issuer: us", "keys", "no token could be checked"),
        ("keys: [{algorithm: none, secret: s3cret}]", "keys[0].algorithm", "allowed is HS256"),
        ("keys: [{secret: s3cret}]", "keys[0].algorithm", "allowed is HS256"),
        ("keys: [{algorithm: HS256}]", "keys[0]", "needs one of"),
        ("keys: [{algorithm: HS256, secret: s3cret, secret_file: f}]", "keys[0]", "needs one of"),
        ("keys: [{algorithm: HS256, secret: s3cret}]", "keys[0]", "has 6 bytes, HS256 needs 32"),
        ("keys: [{algorithm: RS256, secret: s3cret}]", "keys[0]", "needs a public key"),
        (
            "keys: [{algorithm: RS256, public_key_file: /nowhere}]",
            "keys[0].public_key_file",
            "cannot be read",
        ),
        ("keys: [{algorithm: ES256, public_key_file: /dev/null}]", "keys[0]", "not a public key in PEM"),
        ("leeway: 1h, keys: [{algorithm: HS256, secret_file: /dev/null}]", "leeway", "allowed is 0s to 5m"),
    ] {
        let Err(error) = config::assemble("test", &format!("auth: {{jwt: {{{jwt}}}}}"), &[]) else {
            panic!("{jwt} is accepted");
        };
        let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert!(keys.contains(&format!("auth.jwt.{key}").as_str()), "{jwt}: {error}");
        assert!(error.to_string().contains(why), "{jwt}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn keys_open_the_door_and_are_never_shown() {
    let yaml = |listen| {
        format!(
            "{{transport: {{websocket: {{addr: '{listen}'}}}}, auth: {{jwt: {{keys: \
             [{{algorithm: HS256, secret: s3cret of thirty-two bytes or more}}]}}}}}}"
        )
    };
    let (config, _) = config::assemble("test", &yaml("0.0.0.0:0"), &[]).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    // Taken away while the node runs they would leave it open: that waits for a restart.
    let (open, _) = config::assemble("test", "", &[]).unwrap();
    let reload = Config::reload(&config, &open);
    assert!(reload.config.jwt.is_some() && !reload.applied.contains(&"auth"));
    assert!(reload.needs_restart.contains(&"auth"));
    assert!(Config::reload(&open, &config).config.jwt.is_some());
}

#[test]
fn requests_of_web_pages_are_checked_like_everything_else() {
    let cors = |keys: &str| {
        config::assemble("cors", &format!("transport: {{websocket: {{cors: {{{keys}}}}}}}"), &[])
            .map(|(config, _)| config.websocket.cors)
            .map_err(|error| error.to_string())
    };
    let good = cors(
        "allowed_origins: ['https://a.example'], allowed_headers: [X-Mine], credentials: true, max_age: 1h",
    );
    let good = good.unwrap();
    assert_eq!((good.allowed_headers[0].as_str(), good.max_age), ("x-mine", Duration::from_secs(3_600)));
    for (bad, why) in [
        ("allowed_origins: [a.example]", "cors.allowed_origins[0]: `a.example` is not an origin"),
        ("allowed_headers: ['a b']", "cors.allowed_headers[0]: `a b` is not the name of a header"),
        ("allowed_origins: ['*'], credentials: true", "cors.credentials: does not go with the origin *"),
        ("max_age: 48h", "cors.max_age"),
        ("origins: []", "origins"),
    ] {
        let error = cors(bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}
