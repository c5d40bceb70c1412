//! `streamgate doctor`: what is wrong with where a node is to run, and what to change.
//!
//! Owns: the findings and how they are judged. Never does: change anything; the one key that it writes in Redis, to try the
//! user's rights, it removes.

mod finding;
mod machine;
mod redis;

use std::{io::Write as _, time::Duration};

use clap::Args;

use self::finding::{Finding, Level};
use super::{Failure, Format, ServeArgs, exit::FAILED, question};
use crate::{
    broker::redis::examine,
    config::{BrokerConfig, Config, Loaded, RedisConfig, load},
    node::redis_options,
};

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads the configuration as `serve` does, with the same options and variables, and looks at what a node would meet:
the configuration itself, its listeners and certificates, the limit of open files, and every Redis master: version,
persistence, eviction, memory, rights of the user, clock, layout. It changes nothing.

The exit code is 1 if something would keep a node from working, or lose messages silently; with --strict also for warnings.

Examples:
  streamgate doctor --config streamgate.yaml
  streamgate doctor --redis-addr 127.0.0.1:6379 --strict -o json"
)]
pub struct DoctorArgs {
    /// Fail over warnings, too
    #[arg(long)]
    pub strict: bool,
    /// How long to wait for a connection to Redis
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = question::timeout)]
    pub wait: Duration,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// What `serve` would run with.
    #[command(flatten)]
    pub serve: ServeArgs,
}

pub(super) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let DoctorArgs { strict, wait, output, serve } = args;
    let sources = serve.sources().map_err(|error| Failure::Usage(error.to_string()))?;
    let findings = match load(&sources) {
        Ok(loaded) => {
            let mut findings = configuration(&loaded);
            findings.extend(machine::listeners(&loaded.config).await);
            findings.push(machine::open_files());
            findings.extend(broker(&loaded.config, wait).await);
            findings
        }
        Err(error) => error
            .problems
            .iter()
            .map(|problem| Finding::fail("configuration", problem.to_string(), "see docs/configuration.md"))
            .collect(),
    };
    print(&findings, output)?;
    let failed = findings
        .iter()
        .any(|finding| finding.level == Level::Fail || (strict && finding.level == Level::Warn));
    if failed { Err(Failure::Silent(FAILED)) } else { Ok(()) }
}

fn print(findings: &[Finding], format: Format) -> Result<(), Failure> {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    for line in findings.iter().flat_map(|finding| finding.lines(format, width)) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn configuration(loaded: &Loaded) -> Vec<Finding> {
    let subject = "configuration";
    let what = match &loaded.file {
        Some(file) => format!("{} is valid", file.display()),
        None => "no file: defaults, variables and options".to_owned(),
    };
    let warnings = loaded.warnings.iter().map(|warning| {
        Finding::warn(subject, warning.to_string(), "take it out, or see docs/configuration.md")
    });
    std::iter::once(Finding::ok(subject, what)).chain(warnings).collect()
}

async fn broker(config: &Config, wait: Duration) -> Vec<Finding> {
    match &config.broker {
        BrokerConfig::Memory(memory) => {
            let text = format!(
                "memory, up to {} bytes: one node, nothing is kept across a restart",
                memory.max_bytes
            );
            vec![Finding::ok("broker", text)]
        }
        BrokerConfig::Redis(redis) => masters(redis, wait).await,
    }
}

async fn masters(config: &RedisConfig, wait: Duration) -> Vec<Finding> {
    let found = match redis_options(config) {
        Ok(options) => examine(options, wait).await,
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(masters) => masters
            .iter()
            .flat_map(|master| redis::findings(master, config.username.as_deref(), config.partitions))
            .collect(),
        Err(reason) => {
            vec![Finding::fail(
                "redis",
                reason,
                "broker.redis (addr, username, password, tls, mode), or start it",
            )]
        }
    }
}
