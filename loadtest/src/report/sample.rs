//! A result as a run of some seconds would leave it, for tests.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};

use super::result::{
    Better, Correctness, FORMAT, Figure, Latency, Machine, Phase, ProcessCost, RunResult, Second, Target,
};

/// Length of the run, seconds.
const SECONDS: u64 = 60;
/// Deliveries in a second.
const RATE: u64 = 2_000;

/// A run of `fanout` that met one goal and missed one, with one floor.
pub fn fanout() -> RunResult {
    let mut run = bare("fanout", "streamgate", ["gateway 1", "redis", "loadtest"].as_slice());
    run.options = serde_json::from_str(
        r#"{"connections": 1000, "rate": 2000, "channel": "bench", "history": true, "v1": false, "pid": null}"#,
    )
    .unwrap();
    run.figures = vec![
        figure("deliveries per gateway CPU second", 912_345.6, "1/s", Better::Higher, Some(1_000_000.0)),
        figure("publish to last delivery p99", 2_345.6, "us", Better::Lower, Some(3_000.0)),
        figure("connections", 1_000.0, "", Better::Neither, None),
        Figure { value: None, ..figure("Redis CPU per publish", 0.0, "us", Better::Lower, Some(15.0)) },
    ];
    run.latencies = vec![latency("deliver", 1.0), latency("ack", 0.4)];
    run.notes = vec!["the limit of open files was met: 15,000 of 20,000 connections".to_owned()];
    let mut floor = bare("floor-write", "floor", ["floor"].as_slice());
    floor.figures = vec![
        figure("deliveries per gateway CPU second", 1_100_000.0, "1/s", Better::Higher, None),
        figure("bytes per write", 130.0, "B", Better::Neither, None),
    ];
    floor.latencies = vec![latency("deliver", 0.5)];
    run.beside = vec![floor];
    run
}

/// The same, after a saturated run of it and of its floor.
pub fn saturated() -> RunResult {
    let mut run = fanout();
    run.phase = "at 2,000 publications a second".to_owned();
    run.saturated = Some(phase(&run, 3.0));
    run.beside[0].saturated = Some(phase(&run.beside[0], 2.0));
    run
}

/// A saturated run whose `deliver` takes `scale` times as long.
fn phase(run: &RunResult, scale: f64) -> Phase {
    Phase {
        phase: "as much as goes".to_owned(),
        started: run.started.clone(),
        latencies: vec![latency("deliver", scale)],
        correctness: Correctness { delivered: 777, ..Correctness::default() },
        processes: run.processes.clone(),
        series: run.series.clone(),
        notes: vec!["the queue was full".to_owned()],
    }
}

/// A run without figures and latencies.
fn bare(scenario: &str, server: &str, processes: &[&str]) -> RunResult {
    let deliveries = SECONDS * RATE;
    RunResult {
        format: FORMAT,
        scenario: scenario.to_owned(),
        version: "0.1.0".to_owned(),
        started: "2026-02-03T04:05:06Z".to_owned(),
        machine: Machine { cores: 2, processor: "Example 3000".to_owned(), kernel: "6.1.0".to_owned() },
        target: Target {
            server: server.to_owned(),
            broker: "redis".to_owned(),
            nodes: 1,
            transport: "ws".to_owned(),
            encoding: "json".to_owned(),
        },
        options: serde_json::Map::new(),
        figures: Vec::new(),
        latencies: Vec::new(),
        correctness: Correctness {
            published: deliveries,
            acked: deliveries,
            expected: deliveries,
            delivered: deliveries,
            ..Correctness::default()
        },
        processes: processes.iter().enumerate().map(|(index, name)| process(name, index as u64)).collect(),
        series: (1..=SECONDS).map(|at| second(at, processes.len())).collect(),
        phase: String::new(),
        saturated: None,
        beside: Vec::new(),
        notes: Vec::new(),
    }
}

fn figure(name: &str, value: f64, unit: &str, better: Better, goal: Option<f64>) -> Figure {
    Figure { name: name.to_owned(), value: Some(value), unit: unit.to_owned(), better, range: None, goal }
}

fn process(name: &str, index: u64) -> ProcessCost {
    let rss = 90_000 / (index + 1);
    ProcessCost {
        name: name.to_owned(),
        cpu_seconds: 42.5 / (index + 1) as f64,
        rss_before: rss,
        rss_after: rss + 6_000,
        rss_peak: rss + 8_000,
    }
}

/// Seconds differ in a pattern that repeats, with a stall in the middle of the run.
fn second(at: u64, processes: usize) -> Second {
    let wave = (at * 7 % 11) as f64;
    let stall: f64 = if at == SECONDS / 2 { 40.0 } else { 1.0 };
    Second {
        at: at as f64,
        connected: 1_000,
        published: RATE + at % 3 * 10,
        acked: RATE + at % 5 * 8,
        delivered: RATE * 2 + at % 7 * 40,
        p50: Some(300.0 + wave * 10.0),
        p99: (at % 20 != 7).then_some((1_500.0 + wave * 90.0) * stall.sqrt()),
        max: Some((4_000.0 + wave * 700.0) * stall),
        cpu: (0..processes).map(|index| (0.7 + wave / 60.0) / (index + 1) as f64).collect(),
        rss: (0..processes as u64).map(|index| 90_000 / (index + 1) + at * 100).collect(),
    }
}

/// A distribution with a long tail; `scale` 1 has a median of about 300 microseconds.
fn latency(name: &str, scale: f64) -> Latency {
    let mut nanoseconds = Histogram::<u64>::new(3).unwrap();
    for index in 0..100_000 {
        let rank = (f64::from(index) + 0.5) / 100_000.0;
        nanoseconds.record((scale * 200_000.0 * (1.0 - rank).powf(-0.45) + 20_000.0) as u64).unwrap();
    }
    let micros = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&nanoseconds, &mut bytes).unwrap();
    Latency {
        name: name.to_owned(),
        count: nanoseconds.len(),
        min: micros(0.0),
        mean: nanoseconds.mean() / 1e3,
        p50: micros(0.5),
        p90: micros(0.9),
        p99: micros(0.99),
        p999: micros(0.999),
        max: micros(1.0),
        histogram: BASE64_STANDARD.encode(bytes),
    }
}
