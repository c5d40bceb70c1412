//! What Redis tells of itself by `INFO`: CPU time to the microsecond, memory, calls of scripts.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::time::timeout;

use super::resp::{Client, encode};

/// How long an answer is waited for, if nothing else is said.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a server has used up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RedisUsage {
    /// User and system time of the process.
    pub cpu: Duration,
    /// Of the thread that runs the commands; none before Redis 7.0.
    pub main_thread_cpu: Option<Duration>,
    /// Bytes that its data takes.
    pub used_memory: u64,
    /// Resident memory, KiB.
    pub rss_kib: u64,
    /// Calls of `EVALSHA`.
    pub evalsha_calls: u64,
}

/// A connection for reading [`RedisUsage`].
#[derive(Debug)]
pub struct Info {
    client: Client,
    /// How long an answer is waited for.
    patience: Duration,
}

impl Info {
    /// Connects to a server without a password.
    ///
    /// # Errors
    /// Nobody listens at `addr`, or answers within [`DEADLINE`].
    pub async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { client: in_time(DEADLINE, Client::connect(addr)).await?, patience: DEADLINE })
    }

    /// What the server has used. Not safe to cancel: the next call would read this one's replies.
    ///
    /// # Errors
    /// The connection is lost, nothing comes within [`DEADLINE`] (then it must not be used again), the server wants a password, or a field is missing.
    pub async fn usage(&mut self) -> anyhow::Result<RedisUsage> {
        // One section each: several in one INFO came with Redis 7.0.
        let requests = ["cpu", "memory", "commandstats"].map(|section| {
            let mut request = Vec::new();
            encode(&mut request, &[b"INFO", section.as_bytes()]);
            request
        });
        let replies = in_time(self.patience, self.client.pipeline(&requests, requests.len())).await?;
        parse(&replies.iter().map(|reply| reply.text()).collect::<String>())
    }
}

async fn in_time<T>(patience: Duration, doing: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(patience, doing).await.with_context(|| format!("Redis did not answer within {patience:?}"))?
}

fn parse(info: &str) -> anyhow::Result<RedisUsage> {
    let field =
        |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    let seconds = |names: [&str; 2]| {
        let [user, system] = names.map(|name| field(name)?.parse::<f64>().ok());
        Duration::try_from_secs_f64(user? + system?).ok()
    };
    let number = |name: &str| {
        let value = field(name).and_then(|value| value.parse::<u64>().ok());
        value.with_context(|| format!("INFO of Redis has no {name}"))
    };
    // "calls=3,usec=40,..."; no line before the first call.
    let calls = field("cmdstat_evalsha").and_then(|stats| stats.strip_prefix("calls=")?.split(',').next());
    Ok(RedisUsage {
        cpu: seconds(["used_cpu_user", "used_cpu_sys"]).context("INFO of Redis has no used_cpu_user")?,
        main_thread_cpu: seconds(["used_cpu_user_main_thread", "used_cpu_sys_main_thread"]),
        used_memory: number("used_memory")?,
        rss_kib: number("used_memory_rss")? / 1024,
        evalsha_calls: calls.map_or(Ok(0), str::parse).context("calls of EVALSHA")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# CPU\r\nused_cpu_sys:1.500000\r\nused_cpu_user:2.250000\r\n\
                       used_cpu_sys_children:9.0\r\n# Memory\r\nused_memory:1048576\r\n\
                       used_memory_human:1.00M\r\nused_memory_rss:2097152\r\n# Commandstats\r\n";

    #[test]
    fn an_old_server_without_calls_is_read() {
        let expected = RedisUsage {
            cpu: Duration::from_millis(3_750),
            main_thread_cpu: None,
            used_memory: 1 << 20,
            rss_kib: 2_048,
            evalsha_calls: 0,
        };
        assert_eq!(parse(OLD).unwrap(), expected);
    }

    #[test]
    fn the_main_thread_and_scripts_are_read() {
        let more = "used_cpu_sys_main_thread:0.5\r\nused_cpu_user_main_thread:0.25\r\n\
                    cmdstat_evalsha_ro:calls=8,usec=1\r\ncmdstat_evalsha:calls=42,usec=900,failed_calls=0\r\n";
        let usage = parse(&format!("{OLD}{more}")).unwrap();
        assert_eq!(usage.main_thread_cpu, Some(Duration::from_millis(750)));
        assert_eq!(usage.evalsha_calls, 42);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut info = Info::connect(listener.local_addr().unwrap()).await.unwrap();
        info.patience = Duration::from_millis(20);
        let error = info.usage().await.unwrap_err();
        assert!(error.to_string().contains("within 20ms"), "{error}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = parse(&OLD.replace("used_memory_rss", "rss")).unwrap_err();
        assert!(error.to_string().contains("used_memory_rss"), "{error}");
    }
}
