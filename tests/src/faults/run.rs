//! One run: from the seed to the verdict.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    inject::inject,
    load::{CHANNELS, Load, channel},
    members::Members,
    plan::Plan,
    stage::Stage,
};
use crate::history::Report;

/// Carries out the plan under load, heals everything, waits until everybody has caught up, and checks. Prints the seed
/// first, and what happened at the end.
///
/// # Panics
/// Something of the harness fails; the text names the seed.
pub async fn run(plan: &Plan) -> Report {
    println!("faults: {plan} (repeat with FAULT_SEED={} FAULT_SECONDS={})", plan.seed, plan.end.as_secs());
    let stage = Arc::new(Stage::start(plan).await);
    let members = Members::start(&stage, plan.seed).await;
    let load = Load::start(&stage, plan.seed).await;
    let (start, began) = (Instant::now(), stage.recorder.now());
    let mut under_way = JoinSet::new();
    for (at, fault) in &plan.faults {
        sleep_until(start + *at).await;
        println!("  {:>7.3?} {fault:?}", stage.recorder.now());
        under_way.spawn(inject(stage.clone(), fault.clone()));
    }
    sleep_until(start + plan.end).await;
    while let Some(ended) = under_way.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {}: a fault could not be carried out: {error}", plan.seed));
    }
    stage.healed().await;
    let healed = stage.recorder.now();
    load.finish().await;
    members.finish().await;
    stage.read_logs().await;
    let report = verdict(plan, &stage, began, healed);
    if !report.is_sound() {
        println!(
            "  the nodes' logs and all events are in {}",
            keep_logs(plan, &stage, &report).await.display()
        );
    }
    report
}

/// Checks what was written down, and prints it in short.
fn verdict(plan: &Plan, stage: &Stage, began: Duration, healed: Duration) -> Report {
    let history = stage.recorder.history();
    let report = history.check();
    let outcome =
        if report.is_sound() { "sound".to_owned() } else { format!("seed {} FAILED: {report}", plan.seed) };
    println!(
        "  {} acked, {} of unknown outcome, {} sightings, gaps {:?}, faults {:.1?}, caught up after {:.1?}: {outcome}",
        history.acknowledged(),
        history.unknown(),
        history.sightings(),
        history.gaps(),
        healed.saturating_sub(began),
        stage.recorder.now().saturating_sub(healed),
    );
    report
}

/// The default length of a run.
pub const USUAL: Duration = Duration::from_secs(30);

/// Writes down all that may help to find out what went wrong: the verdict, the nodes' logs, what each subscriber saw, the
/// histories.
async fn keep_logs(plan: &Plan, stage: &Stage, report: &Report) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("streamgate-faults-seed-{}", plan.seed));
    fs::create_dir_all(&dir).expect("create a directory for the logs");
    let keep = |name: String, lines: Vec<String>| {
        fs::write(dir.join(name.replace([' ', '*'], "_") + ".log"), lines.join("\n")).expect("keep a log");
    };
    let faults = plan.faults.iter().map(|(at, fault)| format!("{at:?} {fault:?}"));
    keep("verdict".to_owned(), [format!("{plan}"), report.to_string()].into_iter().chain(faults).collect());
    stage.logs().into_iter().for_each(|(name, lines)| keep(name, lines));
    stage.recorder.history().events().into_iter().for_each(|(name, lines)| keep(name, lines));
    keep("presence".to_owned(), stage.recorder.history().presence.events());
    let redis = stage.redis.lock().await;
    for channel in (0..CHANNELS).map(channel) {
        let ids = redis.cli(&["XRANGE", &stage.history_key(&channel), "-", "+"]);
        keep(
            format!("history {channel}"),
            ids.lines().filter(|line| is_id(line)).map(str::to_owned).collect(),
        );
    }
    dir
}

fn is_id(line: &str) -> bool {
    line.len() > 13 && line.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}
