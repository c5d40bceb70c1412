//! A random schedule of faults under load, judged by the history checker.
//!
//! - `FAULT_SEED=7` repeats one run, `FAULT_SEEDS=1..20` makes one after the other; the default is random seeds for a minute.
//! - `FAULT_SECONDS` is the length of each run (default 30).
//! - With `STREAMGATE_LONG=1` runs of random seeds follow each other for 15 minutes, unless seeds are named.

use std::time::{Duration, Instant, SystemTime};

use streamgate_e2e::faults::{
    plan::Plan,
    run::{USUAL, run},
};

/// So long runs of random seeds follow each other.
const USUALLY: Duration = Duration::from_secs(60);
/// The same in the long form.
const LONG: Duration = Duration::from_secs(15 * 60);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The seeds that the environment names: `7` or `1..20`, the last one included.
fn named_seeds() -> Option<Vec<u64>> {
    if let Some(seed) = number("FAULT_SEED") {
        return Some(vec![seed]);
    }
    let text = std::env::var("FAULT_SEEDS").ok()?;
    let (from, to) = text.split_once("..").expect("FAULT_SEEDS is as in 1..20");
    let bound =
        |text: &str| text.trim_matches(['=', ' ']).parse::<u64>().expect("FAULT_SEEDS is as in 1..20");
    Some((bound(from)..=bound(to)).collect())
}

/// Small, so that it is easily typed again.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right");
    now.as_millis() as u64 % 1_000_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_in_a_random_schedule_of_faults() {
    let seconds = number("FAULT_SECONDS").unwrap_or(USUAL.as_secs());
    let start = Instant::now();
    let long = std::env::var("STREAMGATE_LONG").is_ok_and(|long| long == "1");
    let time = if long { LONG } else { USUALLY };
    let mut named = named_seeds().map(Vec::into_iter);
    let mut failed = Vec::new();
    loop {
        let seed = match &mut named {
            Some(seeds) => seeds.next(),
            None => Some(random_seed()),
        };
        let Some(seed) = seed else { break };
        let report = run(&Plan::of(seed, seconds)).await;
        if !report.is_sound() {
            failed.push(format!("seed {seed}: {report}"));
        }
        if named.is_none() && start.elapsed() >= time {
            break;
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
