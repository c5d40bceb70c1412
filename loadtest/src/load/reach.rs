//! When a publication has reached everybody, also where its receivers are in several threads.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use super::topology::Topology;

/// Publications that have reached all receivers of some threads but not of all: how many threads, and the latest time.
#[derive(Debug, Default)]
pub struct Everybody(Mutex<HashMap<(u32, u64), (usize, u64)>>);

/// What the receivers of one thread have got.
#[derive(Debug)]
pub struct Reach {
    streams: Vec<Here>,
    everybody: Arc<Everybody>,
}

/// One stream.
#[derive(Debug, Default)]
struct Here {
    /// Receivers in this thread.
    receivers: usize,
    /// Threads with receivers.
    threads: usize,
    /// The first publication that some of them have not got.
    first: u64,
    /// From it on: how many have got it.
    counts: VecDeque<usize>,
}

impl Reach {
    /// Of thread `index` of `threads`; client number n is in thread n modulo their number.
    pub fn new(topology: &Topology, (index, threads): (usize, usize), everybody: Arc<Everybody>) -> Self {
        let here = |stream: &super::topology::Stream| {
            let mut by_thread = vec![0; threads];
            stream.receivers.all().for_each(|client| by_thread[client % threads] += 1);
            let with_receivers = by_thread.iter().filter(|count| **count > 0).count();
            Here { receivers: by_thread[index], threads: with_receivers, ..Here::default() }
        };
        Self { streams: topology.streams.iter().map(here).collect(), everybody }
    }

    /// A receiver of this thread has got it for the first time; the time at which the last of all has, if that is known now.
    pub fn count(&mut self, stream: u32, sequence: u64, now: u64) -> Option<u64> {
        let here = self.streams.get_mut(stream as usize)?;
        let at = sequence.checked_sub(here.first)? as usize;
        if here.counts.len() <= at {
            here.counts.resize(at + 1, 0);
        }
        here.counts[at] += 1;
        let complete = here.counts[at] == here.receivers;
        while here.counts.front() == Some(&here.receivers) {
            here.counts.pop_front();
            here.first += 1;
        }
        if !complete || here.threads == 1 {
            return complete.then_some(now);
        }
        // A thread that panicked has ended the run already.
        let mut waiting = self.everybody.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (threads, latest) = waiting.entry((stream, sequence)).or_default();
        (*threads, *latest) = (*threads + 1, now.max(*latest));
        if *threads < here.threads {
            return None;
        }
        waiting.remove(&(stream, sequence)).map(|(_, latest)| latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::topology::Receivers;

    /// Receivers 0 to 3, in two threads.
    fn two_threads() -> [Reach; 2] {
        let mut topology = Topology::default();
        topology.stream(4, "a", Receivers::of(0..4));
        let everybody = Arc::<Everybody>::default();
        [0, 1].map(|index| Reach::new(&topology, (index, 2), everybody.clone()))
    }

    #[test]
    fn the_last_of_all_threads_counts_whoever_tells_it() {
        let [mut even, mut odd] = two_threads();
        assert_eq!([even.count(0, 0, 1), odd.count(0, 0, 2), odd.count(0, 0, 9)], [None; 3]);
        assert_eq!(even.count(0, 0, 5), Some(9));
        assert!(even.everybody.0.lock().unwrap().is_empty());
    }

    #[test]
    fn publications_complete_in_any_order() {
        let mut topology = Topology::default();
        topology.stream(0, "a", Receivers::of(1..3));
        let mut reach = Reach::new(&topology, (0, 1), Arc::default());
        let told =
            [(0, 1), (1, 2), (1, 3), (0, 4), (0, 5)].map(|(sequence, now)| reach.count(0, sequence, now));
        assert_eq!(told, [None, None, Some(3), Some(4), None]);
    }
}
