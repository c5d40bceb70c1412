//! How much goes, and how fast it is at a part of that.
//!
//! A rate near the limit says more of queues than of the server, and one far below says little: so times are measured at a
//! given part of the most that went in the same run.

use std::sync::Arc;

use anyhow::ensure;

use super::{
    options::Options,
    run::Outcome,
    topology::Topology,
    worker::{Load, connect_and_publish},
};
use crate::{clients::dialect::Detail, report::result::Correctness, servers::Servers};

/// Options of scenarios that publish.
#[derive(Debug, Clone, Copy, clap::Args)]
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

/// What was measured of one server.
#[derive(Debug)]
pub struct Probe {
    /// As much as goes, unless the rate was given.
    pub most: Option<Outcome>,
    /// At `rate`.
    pub timed: Outcome,
    /// Publications a second.
    pub rate: f64,
    /// Publications of each publisher that were under way in `most`.
    pub window: u64,
}

impl Args {
    /// Measures one server.
    ///
    /// # Errors
    /// Those of [`Options::run`].
    pub async fn probe(
        &self,
        options: &Options,
        servers: &Servers,
        topology: &Arc<Topology>,
    ) -> anyhow::Result<Probe> {
        let most = self.most(options, servers, topology).await?;
        self.after_most(options, servers, topology, most).await
    }

    /// Measures times, when the most is known.
    ///
    /// # Errors
    /// Those of [`Options::run`].
    pub async fn after_most(
        &self,
        options: &Options,
        servers: &Servers,
        topology: &Arc<Topology>,
        most: Option<Outcome>,
    ) -> anyhow::Result<Probe> {
        let rate = self.part_of(most.as_slice());
        Ok(Probe { timed: timed(options, servers, topology, rate).await?, most, rate, window: self.window })
    }

    /// Measures two servers, in turn and at the same rate: times at different ones do not compare.
    ///
    /// # Errors
    /// Those of [`Options::run`].
    pub async fn compare(
        &self,
        options: &Options,
        servers: [&Servers; 2],
        topology: &Arc<Topology>,
    ) -> anyhow::Result<[Probe; 2]> {
        let [one, two] = servers;
        let mosts = [self.most(options, one, topology).await?, self.most(options, two, topology).await?];
        let rate = self.part_of(&mosts.iter().flatten().collect::<Vec<_>>());
        let [most_of_one, most_of_two] = mosts;
        Ok([
            Probe {
                timed: timed(options, one, topology, rate).await?,
                most: most_of_one,
                rate,
                window: self.window,
            },
            Probe {
                timed: timed(options, two, topology, rate).await?,
                most: most_of_two,
                rate,
                window: self.window,
            },
        ])
    }

    /// As much as goes; nothing if the rate is given.
    ///
    /// # Errors
    /// Those of [`Options::run`].
    pub async fn most(
        &self,
        options: &Options,
        servers: &Servers,
        topology: &Arc<Topology>,
    ) -> anyhow::Result<Option<Outcome>> {
        if let Some(rate) = self.rate {
            ensure!(rate > 0.0, "--rate {rate}: nothing would be published");
            return Ok(None);
        }
        let what = (Load::Saturate(self.window.max(1)), Detail::Stamps);
        options.run(servers, topology.clone(), what, connect_and_publish).await.map(Some)
    }

    /// The given rate, or the part of what goes everywhere.
    fn part_of<O: std::borrow::Borrow<Outcome>>(&self, mosts: &[O]) -> f64 {
        let rates = mosts.iter().map(|most| most.borrow().acked_a_second());
        // Something must be published, also where almost nothing goes.
        self.rate.unwrap_or_else(|| (rates.fold(f64::INFINITY, f64::min) * self.part).max(1.0))
    }
}

async fn timed(
    options: &Options,
    servers: &Servers,
    topology: &Arc<Topology>,
    rate: f64,
) -> anyhow::Result<Outcome> {
    let what = (Load::Rate(rate), Detail::Stamps);
    options.run(servers, topology.clone(), what, connect_and_publish).await
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
}
