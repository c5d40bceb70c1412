//! What to say of a Redis server. Pure.

use super::finding::Finding;
use crate::broker::redis::{DATA_VERSION, Examination};

/// Part of `maxmemory` in use from which it is worth a warning, in percent.
const FULL_PERCENT: u64 = 80;
/// Difference of clocks that is told, and that which is too much, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 1_000;
const CLOCKS_APART_MS: u64 = 60_000;

/// Everything that there is to say of one master.
pub(super) fn findings(seen: &Examination, username: Option<&str>, partitions: u16) -> Vec<Finding> {
    let mut all = vec![
        version(seen),
        persistence(seen),
        policy(seen),
        memory(seen),
        node_bytes(seen),
        rights(seen, username),
        clock(seen.hello.clock_ahead_ms),
    ];
    all.extend(layout(seen, partitions));
    for finding in &mut all {
        finding.text = format!("{}: {}", seen.address, finding.text);
    }
    all
}

/// Why a setting is not known.
fn untold(seen: &Examination, name: &str) -> Option<String> {
    let (_, value) = seen.settings.iter().find(|(known, _)| *known == name)?;
    value.as_ref().err().map(|reason| format!("{name} is not told ({reason})"))
}

fn version(seen: &Examination) -> Finding {
    let subject = "redis version";
    match seen.hello.version {
        None => Finding::warn(
            subject,
            "the server does not tell it",
            "make sure of Redis 7.0 or Valkey 7.2, or later",
        ),
        Some(version) => match version.refusal() {
            Some(refusal) => Finding::fail(subject, refusal, "install Redis 7.0 or Valkey 7.2, or later"),
            None => Finding::ok(subject, version.to_string()),
        },
    }
}

fn persistence(seen: &Examination) -> Finding {
    let subject = "redis persistence";
    if let Some(reason) = untold(seen, "appendonly") {
        return Finding::warn(subject, reason, "make sure of appendonly yes, or allow +config|get");
    }
    let snapshots = seen.setting("save").is_some_and(|save| !save.is_empty());
    match (seen.setting("appendonly"), seen.setting("appendfsync")) {
        (Some("yes"), Some("always")) => Finding::ok(subject, "appendonly yes, appendfsync always"),
        (Some("yes"), fsync) => {
            let fsync = fsync.unwrap_or("unknown");
            Finding::ok(
                subject,
                format!("appendonly yes, appendfsync {fsync}: a crash may lose what came last"),
            )
        }
        _ if snapshots => Finding::warn(
            subject,
            "appendonly no: a restart loses what came since the last snapshot, which subscribers are told as a gap",
            "CONFIG SET appendonly yes, and the same in redis.conf",
        ),
        _ => Finding::warn(
            subject,
            "appendonly no, no snapshots: a restart loses all history, which subscribers are told as a gap",
            "CONFIG SET appendonly yes, and the same in redis.conf; leave it if history may be lost",
        ),
    }
}

fn policy(seen: &Examination) -> Finding {
    let subject = "redis eviction";
    if let Some(reason) = untold(seen, "maxmemory-policy") {
        return Finding::warn(
            subject,
            reason,
            "make sure of maxmemory-policy noeviction, or allow +config|get",
        );
    }
    match seen.setting("maxmemory-policy") {
        Some(policy) if policy != "noeviction" => Finding::fail(
            subject,
            format!(
                "maxmemory-policy is {policy}: under pressure Redis deletes history and interest silently"
            ),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        ),
        policy => Finding::ok(subject, format!("maxmemory-policy {}", policy.unwrap_or("noeviction"))),
    }
}

fn memory(seen: &Examination) -> Finding {
    let subject = "redis memory";
    let used = seen.used_memory.map_or_else(|| "unknown".to_owned(), mebibytes);
    let limit = seen.setting("maxmemory").and_then(|limit| limit.parse::<u64>().ok());
    match (limit, seen.used_memory) {
        (Some(0), _) => Finding::warn(
            subject,
            format!("{used} in use, without a limit: the system may kill Redis"),
            "CONFIG SET maxmemory to what it may have; publishes are refused then, and nothing is lost",
        ),
        (Some(limit), Some(bytes)) if bytes.saturating_mul(100) >= limit.saturating_mul(FULL_PERCENT) => {
            let text = format!("{used} of {} in use", mebibytes(limit));
            Finding::warn(subject, text, "raise maxmemory, or lower history_size and history_ttl of channels")
        }
        (Some(limit), _) => Finding::ok(subject, format!("{used} of {} in use", mebibytes(limit))),
        (None, _) => Finding::ok(subject, format!("{used} in use")),
    }
}

fn node_bytes(seen: &Examination) -> Finding {
    let subject = "redis streams";
    if let Some(reason) = untold(seen, "stream-node-max-bytes") {
        return Finding::warn(
            subject,
            reason,
            "512 is advised: the default of 4096 takes 4.3 KB for each channel",
        );
    }
    match seen.setting("stream-node-max-bytes").and_then(|bytes| bytes.parse::<u64>().ok()) {
        Some(bytes) if bytes == 0 || bytes >= 4096 => Finding::warn(
            subject,
            format!("stream-node-max-bytes is {bytes}: each channel's history takes at least 4.3 KB"),
            "CONFIG SET stream-node-max-bytes 512, and the same in redis.conf",
        ),
        Some(bytes) => Finding::ok(subject, format!("stream-node-max-bytes {bytes}")),
        None => Finding::ok(subject, "stream-node-max-bytes is not there"),
    }
}

fn rights(seen: &Examination, username: Option<&str>) -> Finding {
    let subject = "redis rights";
    let user = username.unwrap_or("default");
    match &seen.denied {
        Ok(denied) if denied.is_empty() => {
            Finding::ok(subject, format!("user {user} may do what a node needs"))
        }
        Ok(denied) => {
            let list = denied.join(", ");
            let rules: Vec<_> = denied.iter().map(|name| format!("+{name}")).collect();
            let change = format!("ACL SETUSER {user} {}", rules.join(" "));
            let text = format!("user {user} may not run {list}");
            // A node does without, and says so.
            if denied.iter().all(|name| name == "client|kill") {
                Finding::warn(subject, text, change)
            } else {
                Finding::fail(subject, text, change)
            }
        }
        Err(reason) => Finding::fail(
            subject,
            format!("what user {user} may do cannot be found out: {reason}"),
            format!("ACL SETUSER {user} +script|load +evalsha ~PREFIX:*, see docs/operations.md"),
        ),
    }
}

fn clock(ahead_ms: i64) -> Finding {
    let (subject, apart) = ("redis clock", ahead_ms.unsigned_abs());
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let text = format!("{apart} ms {side} this machine's");
    let change = "run NTP (chrony, systemd-timesyncd) on both machines";
    if apart >= CLOCKS_APART_MS {
        Finding::fail(subject, text, change)
    } else if apart >= CLOCKS_DIFFER_MS {
        Finding::warn(subject, text, change)
    } else {
        Finding::ok(subject, text)
    }
}

fn layout(seen: &Examination, partitions: u16) -> Option<Finding> {
    let subject = "deployment";
    let (recorded, version) = seen.recorded.as_ref()?;
    let ours = (partitions.to_string(), DATA_VERSION.to_string());
    Some(if *version != ours.1 {
        let text = format!("the data has version {version}, this program needs {}", ours.1);
        Finding::fail(subject, text, "use the version of before, or another broker.redis.key_prefix")
    } else if *recorded != ours.0 {
        let text = format!("it has {recorded} partitions, and {partitions} are configured");
        Finding::fail(subject, text, format!("broker.redis.partitions: {recorded}"))
    } else {
        Finding::ok(subject, format!("{recorded} partitions, data version {version}"))
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::redis::{Address, Hello},
        cli::doctor::finding::Level,
    };

    fn seen(settings: &[(&'static str, &str)]) -> Examination {
        let info = "role:master\r\nmaster_replid:r\r\n";
        let settings = settings.iter().map(|(name, value)| (*name, Ok(Some((*value).to_owned()))));
        Examination {
            address: Address::new("r", 1),
            hello: Hello::from_info(info, "redis_version:7.2.0\r\n", 0).unwrap(),
            settings: settings.collect(),
            used_memory: Some(90 << 20),
            denied: Ok(Vec::new()),
            recorded: Some(("16".to_owned(), DATA_VERSION.to_string())),
        }
    }

    const GOOD: [(&str, &str); 6] = [
        ("maxmemory", "1073741824"),
        ("maxmemory-policy", "noeviction"),
        ("stream-node-max-bytes", "512"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
    ];

    fn levels(seen: &Examination) -> Vec<(String, Level)> {
        let wrong = findings(seen, Some("node"), 16).into_iter().filter(|one| one.level > Level::Ok);
        wrong.map(|one| (one.subject, one.level)).collect()
    }

    #[test]
    fn a_good_server_gives_nothing_to_change() {
        assert_eq!(levels(&seen(&GOOD)), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_change() {
        let wrong = |name: &'static str, value: &str, subject: &str, level| {
            let mut settings = GOOD.to_vec();
            settings.retain(|(known, _)| *known != name);
            settings.push((name, value));
            assert_eq!(levels(&seen(&settings)), [(subject.to_owned(), level)], "{name} {value}");
        };
        wrong("maxmemory", "0", "redis memory", Level::Warn);
        wrong("maxmemory", "100000000", "redis memory", Level::Warn);
        wrong("maxmemory-policy", "allkeys-lru", "redis eviction", Level::Fail);
        wrong("stream-node-max-bytes", "4096", "redis streams", Level::Warn);
        wrong("appendonly", "no", "redis persistence", Level::Warn);
        let of = |change: fn(&mut Examination)| {
            let mut seen = seen(&GOOD);
            change(&mut seen);
            levels(&seen)
        };
        let expected = |subject: &str, level| vec![(subject.to_owned(), level)];
        assert_eq!(of(|seen| seen.hello.clock_ahead_ms = -1_500), expected("redis clock", Level::Warn));
        assert_eq!(of(|seen| seen.hello.clock_ahead_ms = 61_000), expected("redis clock", Level::Fail));
        assert_eq!(
            of(|seen| seen.denied = Ok(vec!["client|kill".into()])),
            expected("redis rights", Level::Warn)
        );
        assert_eq!(of(|seen| seen.denied = Ok(vec!["xlen".into()])), expected("redis rights", Level::Fail));
        assert_eq!(
            of(|seen| seen.recorded = Some(("8".into(), "2".into()))),
            expected("deployment", Level::Fail)
        );
        let mut seen = seen(&GOOD);
        seen.denied = Ok(vec!["xlen".into(), "xgroup|create".into()]);
        let rights = findings(&seen, Some("node"), 16).into_iter().find(|one| one.subject == "redis rights");
        assert_eq!(rights.unwrap().change.unwrap(), "ACL SETUSER node +xlen +xgroup|create");
    }

    #[test]
    fn what_is_not_told_is_a_warning() {
        let mut seen = seen(&GOOD);
        for (_, value) in &mut seen.settings {
            *value = Err("NOPERM".to_owned());
        }
        let told = levels(&seen);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().all(|(_, level)| *level == Level::Warn));
    }
}
