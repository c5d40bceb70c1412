//! How much goes, and how fast it is at a part of that.
//!
//! A rate near the limit says more of queues than of the server, and one far below says little: so times are measured at a
//! given part of the most that went in the same run. Several subjects are measured in turn and at the same rate: times at
//! different ones do not compare.

use std::sync::Arc;

use anyhow::ensure;
use serde::Serialize;

use super::{
    run::Outcome,
    subject::Subject,
    topology::Topology,
    worker::{Load, connect_and_publish},
};
use crate::{
    clients::dialect::Detail,
    report::{number, result::Correctness},
};

/// Options of scenarios that publish.
#[derive(Debug, Clone, Copy, clap::Args, Serialize)]
#[command(next_help_heading = "Load")]
#[group(skip)]
pub struct Args {
    /// Publications a second; without it the most that goes is measured first, then times at a part of it
    #[arg(long)]
    pub rate: Option<f64>,
    /// Publications of each publisher that are under way when the most is looked for
    #[arg(long, default_value_t = 8)]
    pub window: u64,
    /// The part of the most at which times are measured
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    pub part: f64,
}

/// What was measured of one subject.
#[derive(Debug)]
pub struct Probe {
    /// As much as goes, unless the rate was given or nothing is published.
    pub most: Option<Outcome>,
    /// At `rate`, or the only run.
    pub timed: Outcome,
    /// Publications a second, where they are what is measured.
    pub rate: Option<f64>,
    /// Publications of each publisher that were under way in `most`.
    window: u64,
}

impl Probe {
    /// The rate at which times were measured, of the most that went there.
    pub fn part_of_own_most(&self) -> Option<f64> {
        self.rate.zip(self.most.as_ref()).map(|(rate, most)| rate / most.acked_a_second())
    }
}

impl Args {
    /// That something would be published.
    ///
    /// # Errors
    /// It would not.
    pub fn check(&self) -> anyhow::Result<()> {
        let rate = self.rate.unwrap_or(1.0);
        ensure!(rate > 0.0 && rate.is_finite(), "--rate {rate}: nothing would be published");
        ensure!(self.part > 0.0 && self.part.is_finite(), "--part {}: nothing would be published", self.part);
        ensure!(self.window > 0, "--window 0: nothing would be published");
        Ok(())
    }

    /// Measures all subjects, in this order: their clients connect and publish.
    ///
    /// # Errors
    /// Those of [`Subject::run`].
    pub async fn probe(&self, subjects: &[Subject], topology: &Arc<Topology>) -> anyhow::Result<Vec<Probe>> {
        self.probe_by(subjects, async |subject, load| {
            subject.run(topology.clone(), (load, Detail::Stamps), connect_and_publish).await
        })
        .await
    }

    /// Measures all subjects, in this order, each by what `run` does with a load.
    ///
    /// # Errors
    /// Those of `run`.
    pub async fn probe_by(
        &self,
        subjects: &[Subject],
        run: impl AsyncFn(&Subject, Load) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Vec<Probe>> {
        let mut mosts = Vec::new();
        if self.rate.is_none() {
            for subject in subjects {
                mosts.push(run(subject, Load::Saturate(self.window)).await?);
            }
        }
        let rate = self.rate.unwrap_or_else(|| {
            let least = mosts.iter().map(Outcome::acked_a_second).fold(f64::INFINITY, f64::min);
            // Something must be published, also where almost nothing goes.
            (least * self.part).max(1.0)
        });
        let mut mosts = mosts.into_iter();
        let mut probes = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let timed = run(subject, Load::Rate(rate)).await?;
            probes.push(Probe { most: mosts.next(), timed, rate: Some(rate), window: self.window });
        }
        Ok(probes)
    }
}

impl From<Outcome> for Probe {
    /// The only run.
    fn from(timed: Outcome) -> Self {
        Self { most: None, timed, rate: None, window: 0 }
    }
}

impl Probe {
    /// The run that shows what work costs: the saturated one, if there was one.
    pub fn busiest(&self) -> &Outcome {
        self.most.as_ref().unwrap_or(&self.timed)
    }

    /// Of all runs.
    pub fn correctness(&self) -> Correctness {
        let mut all = self.timed.correctness.clone();
        if let Some(most) = &self.most {
            all.add(&most.correctness);
        }
        all
    }

    /// What `timed` and `most` are called in a report, where rates count these.
    pub fn headings(&self, unit: &str) -> [String; 2] {
        let at = |rate: f64| format!("at {} {unit} a second", number::value(rate.round()));
        let window = self.window;
        [
            self.rate.map(at).unwrap_or_default(),
            format!("as much as goes, {window} {unit} of each client under way"),
        ]
    }
}
