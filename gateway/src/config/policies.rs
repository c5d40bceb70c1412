//! The `channels` and `limits` sections.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    checks::Checks,
    runtime::PolicyTable,
    schema::{LimitKeys, Rule},
    units::{Size, Span},
};
use crate::{
    channel::Target,
    policy::{ChannelPolicy, Limits, PolicyRule},
};

/// Most publications that a history may hold.
pub(super) const MAX_HISTORY: u64 = 10_000_000;
/// How long history may be kept, in milliseconds: up to a year.
pub(super) const TTL_RANGE: RangeInclusive<u64> = 1_000..=365 * 86_400_000;
/// Largest message that any limit may allow.
const MAX_MESSAGE: u64 = 64 << 20;
const DAY: u64 = 86_400_000;

pub(super) fn policies(
    checks: &mut Checks,
    rules: Vec<Rule>,
    fallback: ChannelPolicy,
    frame_bytes: usize,
) -> PolicyTable {
    let rules = rules
        .into_iter()
        .enumerate()
        .filter_map(|(at, rule)| {
            let key = format!("channels[{at}]");
            let pattern = rule.pattern.clone();
            if let Some(size) = rule.max_message_size.filter(|size| size.0 > frame_bytes as u64) {
                let frame = Size(frame_bytes as u64);
                let message = format!("{size} is more than limits.frame_bytes ({frame}) lets in");
                checks.warn(&format!("{key}.max_message_size"), message);
            }
            let policy = policy(checks, &key, rule, &fallback);
            Some(PolicyRule { pattern: checked(checks, &key, pattern)?, policy: Arc::new(policy) })
        })
        .collect();
    PolicyTable { rules, fallback }
}

fn checked(checks: &mut Checks, key: &str, pattern: Option<String>) -> Option<String> {
    let key = format!("{key}.pattern");
    let Some(pattern) = pattern else {
        checks.wrong(&key, "is missing: every element needs a channel name or pattern");
        return None;
    };
    match Target::parse(&pattern) {
        Ok(_) => Some(pattern),
        Err(error) => {
            checks.wrong(&key, error.to_string());
            None
        }
    }
}

/// What a rule does not say is as in the fallback.
fn policy(checks: &mut Checks, key: &str, rule: Rule, fallback: &ChannelPolicy) -> ChannelPolicy {
    let key = |name: &str| format!("{key}.{name}");
    ChannelPolicy {
        history_size: checks.number(
            &key("history_size"),
            rule.history_size,
            fallback.history_size,
            0..=MAX_HISTORY,
        ),
        history_ttl: checks.span(&key("history_ttl"), rule.history_ttl, fallback.history_ttl, TTL_RANGE),
        idempotency_window: checks.span(
            &key("idempotency_window"),
            rule.idempotency_window,
            fallback.idempotency_window,
            1_000..=7 * DAY,
        ),
        recovery: rule.recovery.unwrap_or(fallback.recovery),
        presence: rule.presence.unwrap_or(fallback.presence),
        join_leave: rule.join_leave.unwrap_or(fallback.join_leave),
        publisher_identity: rule.publisher_identity.unwrap_or(fallback.publisher_identity),
        max_message_size: checks.size(
            &key("max_message_size"),
            rule.max_message_size,
            fallback.max_message_size,
            1..=MAX_MESSAGE,
        ),
        transient: rule.transient.unwrap_or(fallback.transient),
        queue: fallback.queue.clone(),
    }
}

pub(super) fn limits(checks: &mut Checks, keys: LimitKeys, idle_timeout: Option<Span>) -> Limits {
    let of = Limits::default();
    let key = |name: &str| format!("limits.{name}");
    let count = 1..=1_000_000;
    let idle_timeout =
        checks.span("server.heartbeat.idle_timeout", idle_timeout, of.idle_timeout, 1_000..=7 * DAY);
    Limits {
        subscriptions_per_client: checks.number(
            &key("subscriptions_per_client"),
            keys.subscriptions_per_client,
            of.subscriptions_per_client,
            count.clone(),
        ),
        write_queue_bytes: checks.size(
            &key("write_queue_bytes"),
            keys.write_queue_bytes,
            of.write_queue_bytes,
            4_096..=1 << 30,
        ),
        publishes_per_second: checks.number(
            &key("publishes_per_second"),
            keys.publishes_per_second,
            of.publishes_per_second,
            count.clone(),
        ),
        publishes_per_second_per_user: switched_off(checks.number(
            &key("publishes_per_second_per_user"),
            keys.publishes_per_second_per_user,
            0,
            0..=1_000_000,
        )),
        calls_per_second: checks.number(
            &key("calls_per_second"),
            keys.calls_per_second,
            of.calls_per_second,
            count.clone(),
        ),
        connections_per_user: switched_off(checks.number(
            &key("connections_per_user"),
            keys.connections_per_user,
            0,
            0..=1_000_000,
        )),
        new_channels_per_minute: checks.number(
            &key("new_channels_per_minute"),
            keys.new_channels_per_minute,
            of.new_channels_per_minute,
            count.clone(),
        ),
        frame_bytes: checks.size(&key("frame_bytes"), keys.frame_bytes, of.frame_bytes, 1_024..=MAX_MESSAGE),
        errors_in_a_row: checks.number(
            &key("errors_in_a_row"),
            keys.errors_in_a_row,
            of.errors_in_a_row,
            count,
        ),
        connect_deadline: checks.span(
            &key("connect_deadline"),
            keys.connect_deadline,
            of.connect_deadline,
            100..=600_000,
        ),
        idle_timeout,
        ping_interval: ping_interval(checks, keys.ping_interval, of.ping_interval, idle_timeout),
        resume_window: checks.span(
            &key("resume_window"),
            keys.resume_window,
            of.resume_window,
            1_000..=7 * DAY,
        ),
        request_timeout: checks.span(
            &key("request_timeout"),
            keys.request_timeout,
            of.request_timeout,
            50..=600_000,
        ),
    }
}

/// In the file 0 stands for no limit where that is the default.
fn switched_off<T: Default + PartialEq>(limit: T) -> Option<T> {
    (limit != T::default()).then_some(limit)
}

/// Must be below the idle timeout, else clients that only answer pings would be closed. A MessageLoop file may
/// have a short idle timeout and knows no ping interval: then it follows.
fn ping_interval(checks: &mut Checks, value: Option<Span>, default: Duration, idle: Duration) -> Duration {
    let key = "limits.ping_interval";
    let interval = checks.span(key, value, default.min(idle / 2), 100..=DAY);
    if interval >= idle {
        checks.wrong(
            key,
            format!("{} must be below server.heartbeat.idle_timeout ({})", Span(interval), Span(idle)),
        );
    }
    interval
}
