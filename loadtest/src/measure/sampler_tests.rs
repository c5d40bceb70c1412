use std::process::{Child, Command, Stdio};

use super::*;

fn usage(ms: u64, rss_kib: u64) -> Vec<Usage> {
    vec![Usage { cpu: Duration::from_millis(ms), rss_kib }]
}

/// The readings after the first: when, milliseconds of CPU, KiB; the last one ends it.
fn samples(readings: &[(f64, u64, u64)]) -> Samples {
    let mut series = Series::new(usage(1_000, 50));
    let (last, ticks) = readings.split_last().unwrap();
    for (at, ms, rss) in ticks {
        series.tick(*at, &usage(*ms, *rss));
    }
    series.end(last.0, &usage(last.1, last.2), std::iter::once("one".to_owned()))
}

fn cpu_ms(samples: &Samples) -> Vec<(f64, u64)> {
    samples.seconds.iter().map(|s| (s.at, (s.cpu[0] * 1_000.0).round() as u64)).collect()
}

#[test]
fn each_second_has_what_was_spent_in_it() {
    let samples = samples(&[(1.001, 1_100, 90), (2.0, 1_400, 70), (2.7, 1_450, 60)]);
    assert_eq!(cpu_ms(&samples), [(1.0, 100), (2.0, 300), (2.7, 50)]);
    assert_eq!(samples.seconds.iter().map(|s| s.rss[0]).collect::<Vec<_>>(), [90, 70, 60]);
    let cost = &samples.costs[0];
    assert_eq!((cost.name.as_str(), cost.rss_before, cost.rss_after, cost.rss_peak), ("one", 50, 60, 90));
    assert!((cost.cpu_seconds - 0.45).abs() < 1e-9, "{cost:?}");
}

#[test]
fn a_short_rest_belongs_to_the_last_second_unless_there_is_none() {
    assert_eq!(cpu_ms(&samples(&[(1.0, 1_100, 1), (1.2, 1_150, 1)])), [(1.0, 150)]);
    assert_eq!(cpu_ms(&samples(&[(0.2, 1_150, 1)])), [(0.2, 150)]);
}

#[test]
fn missed_seconds_share_what_was_spent() {
    let samples = samples(&[(1.0, 1_100, 1), (4.1, 1_700, 1), (5.0, 1_800, 1), (5.001, 1_800, 1)]);
    assert_eq!(cpu_ms(&samples), [(1.0, 100), (2.0, 200), (3.0, 200), (4.0, 200), (5.0, 100)]);
}

#[test]
fn a_series_is_filled_whatever_its_length() {
    let samples = samples(&[(1.0, 1_100, 10), (2.0, 1_300, 20), (2.1, 1_300, 20)]);
    for length in 0..4 {
        let mut series = vec![Second { delivered: 7, ..Second::default() }; length];
        samples.merge_into(&mut series);
        assert_eq!(series.len(), length.max(2));
        assert!(series.iter().all(|second| second.cpu.len() == 1 && second.rss.len() == 1));
        assert_eq!((series[1].cpu[0], series[1].rss[0]), (samples.seconds[1].cpu[0], 20));
        if length > 2 {
            assert_eq!((series[2].cpu[0], series[2].rss[0]), (0.0, 20));
        }
    }
}

#[tokio::test]
async fn this_process_is_seen_to_burn_cpu() {
    let own = Watched { name: "loadtest".into(), source: Source::Process(std::process::id()) };
    let sampler = Sampler::start(vec![own.clone()]).await.unwrap();
    let before = Process::open(std::process::id()).unwrap().usage().unwrap().cpu;
    // By CPU time, not by the wall: the machine may be busy. In a thread, which has ended when it is counted.
    let burn = move || {
        while Process::open(std::process::id()).unwrap().usage().unwrap().cpu < before + SECOND {
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
    };
    tokio::task::spawn_blocking(burn).await.unwrap();
    let samples = sampler.stop().await.unwrap();
    let cost = &samples.costs[0];
    assert!(cost.cpu_seconds >= 1.0, "{cost:?}");
    assert!(cost.rss_before > 0 && cost.rss_peak >= cost.rss_before.max(cost.rss_after), "{cost:?}");
    let sum: f64 = samples.seconds.iter().map(|second| second.cpu[0]).sum();
    assert!((sum - cost.cpu_seconds).abs() < 1e-6, "{samples:?}");
    // The thread takes at least a second.
    assert!(samples.seconds.len() >= 2 || samples.seconds[0].at < 1.5, "{samples:?}");
}

fn child() -> Child {
    Command::new("sh").args(["-c", "read -r _"]).stdin(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn a_process_that_ends_fails_the_run_by_name() {
    let mut child = child();
    let watched = Watched { name: "gateway 2".into(), source: Source::Process(child.id()) };
    let sampler = Sampler::start(vec![watched.clone()]).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let error = format!("{:#}", sampler.stop().await.unwrap_err());
    assert!(error.contains("gateway 2") && error.contains("has ended"), "{error}");
    let error = format!("{:#}", Sampler::start(vec![watched]).await.unwrap_err());
    assert!(error.contains("gateway 2"), "{error}");
}
