//! What can be measured: each file has one scenario's options, its topology, and its figures.
//!
//! A [`Scenario`] says what is measured and what is made of it; starting servers, the order of what is measured in turn,
//! and the result are shared, here.

pub mod connect;
mod delivery;
pub mod fanout;
pub mod history;
pub mod idle;
pub mod pairs;
pub mod patterns;
pub mod presence_storm;
pub mod recover_storm;
pub mod rooms;
pub mod rpc;
pub mod soak;

use serde::Serialize;
use serde_json::Value;

use crate::{
    load::{
        options::Options,
        probe::Probe,
        subject::{Role, Subject},
    },
    measure::machine,
    report::result::{Better, Figure, RunResult, Target},
};

/// Share of the latency from which on the lateness of sending is told of.
const BEHIND: f64 = 0.1;

/// One scenario with its options, which are recorded as they are serialised.
pub trait Scenario: Serialize {
    /// As on the command line.
    const NAME: &'static str;
    /// What its rates count.
    const UNIT: &'static str = "publications";

    /// Options that all have.
    fn options(&self) -> &Options;

    /// That its own options make sense, before anything is started.
    ///
    /// # Errors
    /// They do not.
    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// What is measured; the result is of the first.
    ///
    /// # Errors
    /// Something does not start.
    async fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        Subject::all(self.options()).await
    }

    /// Measures all in this order.
    ///
    /// # Errors
    /// Clients or servers fail.
    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>>;

    /// What the first is of its floor.
    fn of_floor(&self, _own: &Probe, _floor: &Probe) -> Vec<Figure> {
        Vec::new()
    }
}

/// What was found out about one subject.
#[derive(Debug)]
pub struct Findings {
    /// What was measured.
    pub probe: Probe,
    /// What is made of it.
    pub figures: Vec<Figure>,
}

/// One run of a scenario, the `turn`th: every second one measures in reverse order, so that what comes first has no
/// advantage from it.
///
/// # Errors
/// Servers or clients do not start, or fail.
pub async fn run<S: Scenario>(scenario: &S, turn: usize) -> anyhow::Result<RunResult> {
    let mut subjects = scenario.subjects().await?;
    let mut who: Vec<(Role, Target)> =
        subjects.iter().map(|subject| (subject.role, subject.target())).collect();
    let reverse = turn % 2 == 1;
    if reverse {
        subjects.reverse();
        who.reverse();
    }
    let findings = scenario.measure(subjects).await?;
    let mut all: Vec<_> = who.into_iter().zip(findings).collect();
    if reverse {
        all.reverse();
    }
    let mut all = all.into_iter();
    let Some(((_, main), mut own)) = all.next() else { anyhow::bail!("nothing was measured") };
    let mut beside = Vec::new();
    for ((role, target), other) in all {
        let (name, ratios) = match role {
            Role::Floor(name) => (name, scenario.of_floor(&own.probe, &other.probe)),
            Role::Main | Role::Beside => {
                let name = target.name_beside(&main).unwrap_or("the other");
                (S::NAME, ratios(&own.figures, &other.figures, name))
            }
        };
        own.figures.extend(ratios);
        beside.push(result(name, scenario, target, other)?);
    }
    Ok(RunResult { beside, ..result(S::NAME, scenario, main, own)? })
}

/// Measures one after the other.
///
/// # Errors
/// Those of `measure`.
async fn in_turn(
    subjects: &[Subject],
    measure: impl AsyncFn(&Subject) -> anyhow::Result<Findings>,
) -> anyhow::Result<Vec<Findings>> {
    let mut all = Vec::with_capacity(subjects.len());
    for subject in subjects {
        all.push(measure(subject).await?);
    }
    Ok(all)
}

/// All figures with a direction that both have, those of the first divided by those of the other.
fn ratios(own: &[Figure], others: &[Figure], server: &str) -> Vec<Figure> {
    let ratio = |figure: &Figure| {
        let other = others.iter().find(|other| other.name == figure.name)?;
        let value = figure.value.zip(other.value).map(|(own, other)| own / other);
        let name = format!("{}, of {server}'s", figure.name);
        let ratio =
            Figure { better: figure.better, ..Figure::fact(name, value.filter(|v| v.is_finite()), "") };
        (figure.better != Better::Neither).then_some(ratio)
    };
    own.iter().filter_map(ratio).collect()
}

fn result<S: Scenario>(
    name: &str,
    scenario: &S,
    target: Target,
    findings: Findings,
) -> anyhow::Result<RunResult> {
    let Findings { probe, figures } = findings;
    let p99 = |name| probe.timed.latency(name).map_or(0.0, |latency| latency.p99);
    let mut notes = probe.timed.warnings.clone();
    if p99("send lag") > p99("deliver") * BEHIND && p99("deliver") > 0.0 {
        notes.push("the load generator itself was late: see send lag; latencies include it".to_owned());
    }
    if probe.most.as_ref().is_some_and(|most| most.is_busy(scenario.options().clients.threads)) {
        notes.push(
            "the load generator was busy all the time: that no more went may be due to it (--threads)"
                .to_owned(),
        );
    }
    if cfg!(debug_assertions) {
        notes.push("this load generator is a debug build: its figures say nothing of speed".to_owned());
    }
    let Value::Object(options) = serde_json::to_value(scenario)? else {
        anyhow::bail!("options are names and values")
    };
    let (correctness, [phase, saturated]) = (probe.correctness(), probe.headings(S::UNIT));
    let Probe { most, timed, .. } = probe;
    Ok(RunResult {
        scenario: name.to_owned(),
        started: machine::rfc3339(timed.begun),
        machine: machine::machine(),
        target,
        options,
        figures,
        latencies: timed.latencies,
        correctness,
        processes: timed.processes,
        series: timed.series,
        phase,
        saturated: most.map(|most| most.into_phase(saturated)),
        notes,
        ..RunResult::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_both_have_and_what_has_a_direction() {
        let own = [
            Figure::higher("speed", Some(3.0), "1/s"),
            Figure::lower("time", Some(3.0), "us"),
            Figure::fact("rate", Some(1.0), "1/s"),
            Figure::lower("none", None, "us"),
            Figure::lower("own", Some(1.0), "us"),
        ];
        let other = [
            Figure::higher("speed", Some(2.0), "1/s"),
            Figure::lower("time", Some(0.0), "us"),
            Figure::lower("none", Some(1.0), "us"),
            Figure::fact("rate", Some(1.0), "1/s"),
        ];
        let ratios = ratios(&own, &other, "x");
        let values: Vec<_> = ratios.iter().map(|one| (one.name.as_str(), one.value, one.better)).collect();
        assert_eq!(
            values,
            [
                ("speed, of x's", Some(1.5), Better::Higher),
                ("time, of x's", None, Better::Lower),
                ("none, of x's", None, Better::Lower),
            ]
        );
    }
}
