//! Flags win over the environment, the environment over the file, the file over the defaults.

use std::time::Duration;

use streamgate::config::{BrokerConfig, Config, Override, assemble, from_environment};

fn env(variables: &[(&str, &str)]) -> Vec<Override> {
    from_environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let file = "shards: 1\nlog: {level: warn, format: json}\nlimits: {frame_bytes: 32KiB}";
    let mut overrides = env(&[("STREAMGATE_SHARDS", "2"), ("STREAMGATE_LOG__LEVEL", "debug")]);
    overrides.push(Override::flag("--shards", "shards", "3"));
    let (config, _) = assemble("file", file, &overrides).unwrap();
    assert_eq!(config.shards, 3);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.log.format, streamgate::config::LogFormat::Json);
    assert_eq!(config.limits.frame_bytes, 32 * 1024);
    assert_eq!(config.limits.write_queue_bytes, Config::default().limits.write_queue_bytes);
}

#[test]
fn an_unknown_variable_is_named() {
    for name in ["STREAMGATE_SHARD", "STREAMGATE_SERVER__HTTP__ADR", "STREAMGATE_SERVER_HTTP_ADDR"] {
        let text = assemble("", "", &env(&[(name, "1")])).unwrap_err().to_string();
        assert!(text.starts_with(name) && text.contains("unknown field"), "{text}");
    }
}

#[test]
fn a_wrong_value_is_blamed_on_where_it_came_from() {
    let overrides = env(&[("STREAMGATE_LIMITS__FRAME_BYTES", "1"), ("STREAMGATE_DRAIN__DURATION", "soon")]);
    let text = assemble("file", "", &overrides).unwrap_err().to_string();
    assert!(
        text.starts_with("STREAMGATE_DRAIN__DURATION: drain.duration: `soon` is not a duration"),
        "{text}"
    );
    let text = assemble("file", "shards: 99", &overrides[1..]).unwrap_err().to_string();
    assert!(text.contains("STREAMGATE_LIMITS__FRAME_BYTES: limits.frame_bytes: 1 is out of range"), "{text}");
    assert!(text.contains("file: shards: 99 is out of range"), "{text}");
}

#[test]
fn a_file_alone_is_enough_for_what_it_says() {
    let (config, _) = assemble("", "server: {rpc_timeout: 7s}", &[]).unwrap();
    assert_eq!(config.rpc_timeout, Duration::from_secs(7));
}

#[test]
fn a_password_is_taken_as_it_is_and_never_shown() {
    let overrides =
        env(&[("STREAMGATE_BROKER__TYPE", "redis"), ("STREAMGATE_BROKER__REDIS__PASSWORD", "0042")]);
    assert!(!format!("{overrides:?}").contains("0042"));
    let (config, _) = assemble("", "", &overrides).unwrap();
    assert!(!format!("{config:?}").contains("0042"));
    let BrokerConfig::Redis(redis) = config.broker else { panic!("redis") };
    assert_eq!(redis.password.unwrap().reveal(), "0042");
}

#[test]
fn listeners_open_to_others_need_a_word() {
    let open = |text: &str| assemble("", text, &[]);
    for addr in ["':0'", "0.0.0.0:0", "'[::]:0'", "192.0.2.1:0"] {
        for transport in ["websocket", "grpc"] {
            let text = format!("transport: {{{transport}: {{addr: {addr}}}}}");
            let error = open(&text).unwrap_err().to_string();
            assert!(error.contains("no authentication is configured"), "{error}");
            assert!(open(&format!("{text}\nallow_anonymous: true")).is_ok());
        }
    }
    // Metrics and health need no token, wherever they are served.
    assert!(open("server: {http: {addr: ':0'}}").is_ok());
    assert!(open("transport: {websocket: {addr: 'localhost:0'}, grpc: {addr: '[::1]:0'}}").is_ok());
}

#[test]
fn a_reload_takes_policies_limits_and_level_and_names_the_rest() {
    let (old, _) = assemble("", "", &[]).unwrap();
    let text = "shards: 5\nlog: {level: debug}\nlimits: {frame_bytes: 1MiB}\nchannels: [{pattern: a}]\ndrain: {duration: 1s}";
    let (new, _) = assemble("", text, &[]).unwrap();
    let reload = Config::reload(&old, &new);
    assert_eq!(reload.applied, ["channels", "limits", "log.level"]);
    assert_eq!(reload.needs_restart, ["shards", "drain.duration"]);
    assert_eq!(reload.config.limits, new.limits);
    assert_eq!(reload.config.policies, new.policies);
    assert_eq!(reload.config.log.level, "debug");
    assert_eq!((reload.config.shards, reload.config.drain), (old.shards, old.drain));
    let again = Config::reload(&reload.config, &reload.config);
    assert!(again.applied.is_empty() && again.needs_restart.is_empty());
}
