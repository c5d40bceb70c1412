//! The result of a run, as it is written to disk: one JSON document, format [`FORMAT`].
//!
//! Everything that is printed, plotted or compared is read from it, so that a file from another day says the same.

use serde::{Deserialize, Serialize};

/// Version of the format. A reader refuses a newer one.
pub const FORMAT: u32 = 1;

/// One run of one scenario. The default is one of nothing, by this version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Name of the scenario, as on the command line.
    pub scenario: String,
    /// Version of the load generator.
    pub version: String,
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// Where it ran.
    pub machine: Machine,
    /// What was loaded.
    pub target: Target,
    /// Options of the scenario, by name, as given or defaulted.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The figures to look at first, in order.
    pub figures: Vec<Figure>,
    /// Times, each with its whole distribution.
    pub latencies: Vec<Latency>,
    /// What was sent against what arrived.
    pub correctness: Correctness,
    /// What each process spent while it was measured.
    pub processes: Vec<ProcessCost>,
    /// One element for each second of the measurement.
    pub series: Vec<Second>,
    /// Which of the scenario's runs `latencies`, `processes` and `series` are of, as a heading; empty if there was one run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// The run as fast as it goes that came before, if there was one. `correctness` is that of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturated: Option<Phase>,
    /// Runs that belong to this one, made in turn with it and with the same sizes: of floors, or of another server.
    #[serde(default, alias = "floors")]
    pub beside: Vec<RunResult>,
    /// What a reader should know of this run, such as a limit that was met.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One of several runs that a result is of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// As [`RunResult::phase`].
    pub phase: String,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Times, each with its whole distribution.
    pub latencies: Vec<Latency>,
    /// What was sent against what arrived, in this run alone.
    pub correctness: Correctness,
    /// What each process spent while it was measured.
    pub processes: Vec<ProcessCost>,
    /// One element for each second of the measurement.
    pub series: Vec<Second>,
    /// What a reader should know of it.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl RunResult {
    /// The saturated run in the place of the timed one, here and in those beside it, for whoever shows both in the same
    /// way. Its figures are those of the whole result. None if there was no such run.
    pub fn as_saturated(&self) -> Option<Self> {
        let Phase { phase, started, latencies, correctness, processes, series, notes } =
            self.saturated.clone()?;
        let beside = self.beside.iter().filter_map(Self::as_saturated).collect();
        let saturated = None;
        Some(Self {
            started,
            latencies,
            correctness,
            processes,
            series,
            phase,
            saturated,
            beside,
            notes,
            ..self.clone()
        })
    }

    /// What a run beside `main` is called there: its scenario, else its server.
    pub fn name_beside(&self, main: &Self) -> String {
        match () {
            () if self.scenario != main.scenario => self.scenario.clone(),
            () => self.target.name_beside(&main.target).unwrap_or("the other").to_owned(),
        }
    }
}

impl Default for RunResult {
    fn default() -> Self {
        Self {
            format: FORMAT,
            scenario: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: String::new(),
            machine: Machine::default(),
            target: Target::default(),
            options: serde_json::Map::new(),
            figures: Vec::new(),
            latencies: Vec::new(),
            correctness: Correctness::default(),
            processes: Vec::new(),
            series: Vec::new(),
            phase: String::new(),
            saturated: None,
            beside: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The machine that the load generator ran on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that may be used.
    pub cores: usize,
    /// Model of the processor.
    pub processor: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// The servers under load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// `streamgate`, the name of an adapter's server, or the floor.
    pub server: String,
    /// `memory`, `redis`, or empty if not known.
    pub broker: String,
    /// How many nodes.
    pub nodes: usize,
    /// `ws` or `grpc`.
    pub transport: String,
    /// `json`, `protobuf` or `text` (an adapter).
    pub encoding: String,
}

impl Target {
    /// The server's name beside those of `main`; none if it is no other.
    pub fn name_beside(&self, main: &Self) -> Option<&str> {
        (self.server != main.server).then_some(self.server.as_str())
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, unique within the run.
    pub name: String,
    /// The value; `null` if it could not be measured.
    pub value: Option<f64>,
    /// Its unit, such as `1/s`, `us`, `KiB`; empty for a ratio.
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
    /// Least and greatest of several runs, if the value is their median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// The bound to keep to, if one was set for it: at most, or at least, as `better` says.
    #[serde(default)]
    pub goal: Option<f64>,
}

/// Which direction of a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// A fact, no verdict.
    Neither,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// What took that long, such as `deliver`.
    pub name: String,
    /// Values.
    pub count: u64,
    /// Least, microseconds.
    pub min: f64,
    /// Mean, microseconds.
    pub mean: f64,
    /// Median, microseconds.
    pub p50: f64,
    /// 90th percentile, microseconds.
    pub p90: f64,
    /// 99th percentile, microseconds.
    pub p99: f64,
    /// 99.9th percentile, microseconds.
    pub p999: f64,
    /// Greatest, microseconds.
    pub max: f64,
    /// The whole histogram of nanoseconds: HdrHistogram V2 deflated, base64.
    pub histogram: String,
}

/// What was sent against what arrived. A run with a [`Correctness::fault`] has failed, whatever its figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correctness {
    /// Publications that were sent.
    pub published: u64,
    /// Of them, accepted by the server.
    pub acked: u64,
    /// Of them, refused with an error.
    pub refused: u64,
    /// Of them, neither at the end: they may arrive and need not, but a server that is there answers.
    pub unanswered: u64,
    /// Deliveries due for what was acked.
    pub expected: u64,
    /// Deliveries that came, each counted once.
    pub delivered: u64,
    /// Due and not come.
    pub lost: u64,
    /// Come again.
    pub duplicated: u64,
    /// Come after a later one of the same publisher and channel.
    pub reordered: u64,
    /// Come to somebody who had not subscribed to it.
    #[serde(default)]
    pub misrouted: u64,
    /// Losses that the server announced by `gap`.
    pub gaps: u64,
    /// Connections that ended without being asked to.
    pub disconnected: u64,
}

impl Correctness {
    /// True if something was lost, repeated, out of order, misrouted, cut off, refused, or never answered: whoever refuses
    /// has little to deliver, and delivers it soon.
    pub fn fault(&self) -> bool {
        let arrived_wrongly = self.lost + self.duplicated + self.reordered + self.misrouted + self.gaps;
        arrived_wrongly + self.disconnected + self.refused + self.unanswered > 0
    }
}

/// What one process spent from the beginning to the end of the measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessCost {
    /// `gateway 1`, `redis`, `loadtest`, `floor`.
    pub name: String,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory at the beginning, KiB; 0 if not known.
    pub rss_before: u64,
    /// Resident memory at the end, KiB; 0 if not known.
    pub rss_after: u64,
    /// Greatest resident memory seen between, KiB; 0 if not known.
    pub rss_peak: u64,
}

/// One second of the measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// End of the second, seconds since the measurement began.
    pub at: f64,
    /// Clients that are connected at its end.
    pub connected: u64,
    /// Publications sent.
    pub published: u64,
    /// Publications acked.
    pub acked: u64,
    /// Deliveries received.
    pub delivered: u64,
    /// Median time from the intended publish to a delivery received in this second, microseconds; `null` if none.
    pub p50: Option<f64>,
    /// 99th percentile of the same.
    pub p99: Option<f64>,
    /// Greatest of the same.
    pub max: Option<f64>,
    /// CPU seconds of each process, in the order of [`RunResult::processes`].
    pub cpu: Vec<f64>,
    /// Resident memory of each process at the end of the second, KiB, in the same order.
    pub rss: Vec<u64>,
}

impl Correctness {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        let Self { published, acked, refused, unanswered, expected, delivered, .. } = other;
        let Self { lost, duplicated, reordered, misrouted, gaps, disconnected, .. } = other;
        self.published += published;
        self.acked += acked;
        self.refused += refused;
        self.unanswered += unanswered;
        self.expected += expected;
        self.delivered += delivered;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.misrouted += misrouted;
        self.gaps += gaps;
        self.disconnected += disconnected;
    }
}

impl Figure {
    /// Whether the goal is kept; `None` without a goal, a value or a direction.
    pub fn met(&self) -> Option<bool> {
        let (value, goal) = (self.value?, self.goal?);
        match self.better {
            Better::Lower => Some(value <= goal),
            Better::Higher => Some(value >= goal),
            Better::Neither => None,
        }
    }

    /// Less is better.
    pub fn lower(name: impl Into<String>, value: Option<f64>, unit: &str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            better: Better::Lower,
            range: None,
            goal: None,
        }
    }

    /// More is better.
    pub fn higher(name: impl Into<String>, value: Option<f64>, unit: &str) -> Self {
        Self { better: Better::Higher, ..Self::lower(name, value, unit) }
    }

    /// A fact, no verdict.
    pub fn fact(name: impl Into<String>, value: Option<f64>, unit: &str) -> Self {
        Self { better: Better::Neither, ..Self::lower(name, value, unit) }
    }

    /// With the bound to keep to.
    #[must_use]
    pub fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}
