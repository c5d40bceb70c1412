//! Which fault happens when: determined by a seed. Pure.

use std::{fmt, time::Duration};

use super::{load::CHANNELS, rng::Rng};

/// Nodes of a run.
pub const NODES: usize = 3;
/// Longest and shortest time from one fault to the next. Faults last longer than that: they overlap.
const PAUSE_MS: (u64, u64) = (300, 2_200);

/// The last fault is always a node that hangs for so long that its clients leave it: what it does when it wakes must stand
/// by itself. Other faults make nodes compare what they hold with Redis, and so repair what one of them broke.
const LAST_PAUSE: Duration = Duration::from_millis(4_500);
/// How long before the end that is.
const FINALE: Duration = Duration::from_secs(6);

/// What Redis keeps when it is killed. The end of its file is cut off then, unless it is [`Always`](Self::Always): as if
/// the machine had lost its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Everything (`appendfsync always`): no write may get lost in such a run, and no reset may be told.
    Always,
    /// All but the end (`appendfsync everysec`).
    EverySecond,
    /// Nothing.
    None,
}

/// Something that goes wrong. Those with a time end by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Redis is stopped (SIGSTOP).
    PauseRedis(Duration),
    /// Redis closes all its connections, several times.
    KillConnections(u32),
    /// Redis is killed, and started again after a while, without the last so many bytes of its file.
    RestartRedis {
        /// Until it is started.
        down: Duration,
        /// Bytes that are lost, if the run's durability loses any.
        lost: u64,
    },
    /// Redis forgets all scripts.
    FlushScripts,
    /// Only the last so many publications of a channel are kept.
    TrimHistory {
        /// Its index.
        channel: usize,
        /// How many.
        keep: u64,
    },
    /// A channel's history is removed.
    RemoveHistory {
        /// Its index.
        channel: usize,
    },
    /// A node is killed, and another one takes its place after a while.
    KillNode {
        /// Which.
        node: usize,
        /// Until there is another.
        down: Duration,
    },
    /// A node is told to drain and end; another one takes its place at once.
    DrainNode {
        /// Which.
        node: usize,
    },
    /// A node is stopped (SIGSTOP).
    PauseNode {
        /// Which.
        node: usize,
        /// How long.
        time: Duration,
        /// Its inboxes are trimmed meanwhile, as if they had overflowed.
        overflow: bool,
    },
    /// A node's inboxes are removed.
    RemoveInboxes {
        /// Whose.
        node: usize,
    },
    /// All sockets of a node's clients break.
    CutClients {
        /// Whose.
        node: usize,
    },
    /// All sockets between a node and Redis break, several times.
    CutRedis {
        /// Whose.
        node: usize,
        /// How often.
        times: u32,
    },
    /// The sockets between a node and Redis stay open on both ends, and nothing arrives any more; new ones work.
    SwallowRedis {
        /// Whose.
        node: usize,
        /// Until the ends of Redis are closed.
        time: Duration,
    },
    /// What a node and Redis say to each other takes longer.
    DelayRedis {
        /// Whose.
        node: usize,
        /// By how much.
        delay: Duration,
        /// How long.
        time: Duration,
    },
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What determined it.
    pub seed: u64,
    /// What Redis keeps.
    pub durability: Durability,
    /// Faults in the order of their times, which count from the start of the schedule.
    pub faults: Vec<(Duration, Fault)>,
    /// When the schedule ends.
    pub end: Duration,
}

impl Plan {
    /// The schedule of `seed`, so many seconds long. Seeds that follow each other take turns with the durabilities.
    #[must_use]
    pub fn of(seed: u64, seconds: u64) -> Self {
        let durability = match seed % 4 {
            0 => Durability::None,
            2 => Durability::EverySecond,
            _ => Durability::Always,
        };
        let mut rng = Rng::new(seed);
        let end = Duration::from_secs(seconds);
        let (mut at, mut faults) = (rng.millis(500, 1_500), Vec::new());
        let finale = end.saturating_sub(FINALE);
        while at < finale {
            faults.push((at, fault(&mut rng, durability)));
            at += rng.millis(PAUSE_MS.0, PAUSE_MS.1);
        }
        let last = Fault::PauseNode { node: rng.index(NODES), time: LAST_PAUSE, overflow: false };
        faults.push((finale, last));
        Self { seed, durability, faults, end }
    }
}

fn fault(rng: &mut Rng, durability: Durability) -> Fault {
    let (node, channel) = (rng.index(NODES), rng.index(CHANNELS));
    match rng.below(100) {
        0..8 => Fault::PauseRedis(rng.millis(200, 5_000)),
        8..16 => Fault::KillConnections(u32::try_from(1 + rng.below(3)).unwrap_or(1)),
        16..26 => Fault::RestartRedis { down: rng.millis(0, 2_500), lost: rng.below(150_000) },
        26..30 => Fault::FlushScripts,
        30..36 => Fault::TrimHistory { channel, keep: rng.below(20) },
        // Who loses what by a removal and what by a restart could not be told apart.
        36..39 if durability == Durability::Always => Fault::RemoveHistory { channel },
        36..46 => Fault::KillNode { node, down: rng.millis(0, 3_000) },
        46..51 => Fault::DrainNode { node },
        51..56 => Fault::PauseNode { node, time: rng.millis(500, 8_000), overflow: false },
        // Shorter than what makes its clients leave: they must be there when it wakes.
        56..62 => Fault::PauseNode { node, time: rng.millis(300, 2_000), overflow: true },
        62..65 => Fault::RemoveInboxes { node },
        65..75 => Fault::CutClients { node },
        75..81 => Fault::CutRedis { node, times: u32::try_from(1 + rng.below(5)).unwrap_or(1) },
        81..93 => Fault::SwallowRedis { node, time: rng.millis(1_000, 6_000) },
        _ => Fault::DelayRedis { node, delay: rng.millis(5, 120), time: rng.millis(500, 4_000) },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {:?}, {} faults in {:?}", self.seed, self.durability, self.faults.len(), self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_plan() {
        assert_eq!(Plan::of(7, 60), Plan::of(7, 60));
        assert_ne!(Plan::of(7, 60).faults, Plan::of(9, 60).faults);
    }

    #[test]
    fn twenty_plans_have_every_kind_of_fault() {
        let kinds: std::collections::HashSet<_> = (1..=20)
            .flat_map(|seed| Plan::of(seed, 60).faults)
            .map(|(_, fault)| std::mem::discriminant(&fault))
            .collect();
        assert_eq!(kinds.len(), 14);
    }

    #[test]
    fn no_history_is_removed_where_redis_may_lose_it_by_itself() {
        let lossy =
            (1..=40).map(|seed| Plan::of(seed, 60)).filter(|plan| plan.durability != Durability::Always);
        let removes =
            |plan: Plan| plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::RemoveHistory { .. }));
        assert!(!lossy.into_iter().any(removes));
    }
}
