//! The clients of one thread: they publish what they are told to, check what they get, and count both.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    clock,
    ledger::Ledger,
    reach::{Everybody, Reach},
    stamp::Stamp,
    tally::Tally,
    topology::Topology,
    worker::Plan,
};
use crate::clients::{
    dialect::{Event, Position, Request},
    links::{Links, NotSent},
    swarm::Crowd,
};

/// What one thread counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// What was sent against what arrived.
    pub ledger: Ledger,
    /// How much and how fast.
    pub tally: Tally,
    /// What went wrong, and how often.
    pub notes: BTreeMap<String, u64>,
}

/// What all threads together have done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients that are connected and subscribed.
    pub connected: AtomicU64,
    /// Publications sent.
    pub published: AtomicU64,
    /// Of them, answered.
    pub answered: AtomicU64,
    /// Deliveries that these must bring.
    pub owed: AtomicU64,
    /// Deliveries that came, each once.
    pub delivered: AtomicU64,
    /// Publications that some threads' receivers have got.
    pub(super) everybody: Arc<Everybody>,
}

/// How much may be under way at once when there is no rate but as much as goes.
#[derive(Debug, Clone, Copy)]
pub struct Saturation {
    /// Publications of a stream without an answer.
    pub window: u64,
    /// Deliveries to all threads that have not come.
    pub deliveries: u64,
}

/// Kinds of trouble that are told apart.
const GREATEST_NOTES: usize = 20;

/// The crowd of one thread.
#[derive(Debug)]
pub struct Traffic {
    topology: Arc<Topology>,
    counters: Arc<Counters>,
    run: u32,
    /// Bytes of a payload.
    size: usize,
    ledger: Ledger,
    tally: Tally,
    in_flight: HashMap<u64, Stamp, ahash::RandomState>,
    /// The next sequence number of each stream.
    next: Vec<u64>,
    reach: Reach,
    /// The streams that this thread publishes, in turn.
    own: Vec<u32>,
    turn: usize,
    saturation: Option<Saturation>,
    /// While as much as goes is published: the streams that may publish once more, each as often as it stands here.
    free: VecDeque<u32>,
    /// Where each client stands in each channel, if positions are asked for.
    places: HashMap<usize, HashMap<String, Position>>,
    /// When each client had caught up, since it was asked for.
    recovered: Vec<(usize, u64)>,
    /// Joins and leaves, since they were asked for.
    sightings: Vec<Sighting>,
    /// Clients that are connected and subscribed.
    connected: HashSet<usize>,
    /// Publishers that are about to leave.
    hushed: HashSet<usize>,
    /// What went wrong, and how often.
    notes: BTreeMap<String, u64>,
    /// The server cannot be asked for what the scenario needs.
    failure: Option<anyhow::Error>,
    delivered: u64,
}

/// A client has been told of a join or leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who was told.
    pub watcher: usize,
    /// Of whom: what that client says of itself.
    pub client: String,
    /// True for a join.
    pub joined: bool,
    /// When.
    pub at: u64,
}

impl Traffic {
    /// The clients of thread `index`.
    pub fn new(plan: &Plan, counters: Arc<Counters>, index: usize) -> Self {
        let topology = plan.topology.clone();
        let own = (0_u32..).zip(&topology.streams);
        let own = own.filter(|(_, stream)| stream.publisher % plan.threads == index);
        Self {
            own: own.map(|(number, _)| number).collect(),
            next: vec![0; topology.streams.len()],
            reach: Reach::new(&topology, (index, plan.threads), counters.everybody.clone()),
            topology,
            counters,
            run: plan.run,
            size: plan.size,
            ledger: Ledger::default(),
            tally: Tally::default(),
            in_flight: HashMap::default(),
            turn: 0,
            saturation: None,
            free: VecDeque::new(),
            places: HashMap::new(),
            recovered: Vec::new(),
            sightings: Vec::new(),
            connected: HashSet::new(),
            hushed: HashSet::new(),
            notes: BTreeMap::new(),
            failure: None,
            delivered: 0,
        }
    }

    /// From now on this is measured.
    pub fn measure(&mut self, tally: Tally) {
        self.tally = tally;
    }

    /// Publishes as much as goes from now on, or (`None`) only what it is told to.
    pub fn saturate(&mut self, limit: Option<Saturation>, links: &Links) {
        self.saturation = limit;
        self.free.clear();
        if let Some(limit) = limit {
            // One after the other, so that all begin at once.
            self.free.extend((0..limit.window).flat_map(|_| self.own.iter().copied()));
        }
        self.pump(links);
    }

    /// Publishes what may be under way, if as much as goes is to be published.
    pub fn pump(&mut self, links: &Links) {
        let Some(limit) = self.saturation else { return };
        let Counters { owed, delivered, .. } = &*self.counters.clone();
        while owed.load(Relaxed).saturating_sub(delivered.load(Relaxed)) < limit.deliveries {
            let Some(stream) = self.free.pop_front() else { return };
            self.publish(stream, clock::now(), links);
        }
    }

    /// Publishes to the next of this thread's streams; false if it has none.
    pub fn publish_next(&mut self, due: u64, links: &Links) -> bool {
        let Some(&stream) = self.own.get(self.turn) else { return false };
        self.turn = (self.turn + 1) % self.own.len();
        self.publish(stream, due, links);
        true
    }

    /// Publications that have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Where a client stands, channel by channel.
    pub fn places(&self, client: usize) -> Option<&HashMap<String, Position>> {
        self.places.get(&client)
    }

    /// Which clients have caught up, and when, since this was asked last.
    pub fn take_recovered(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.recovered)
    }

    /// Joins and leaves that clients were told of, since this was asked last.
    pub fn take_sightings(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.sightings)
    }

    /// A client is connected and subscribed from now on, or (`false`) no more.
    pub fn connected(&mut self, client: usize, connected: bool) {
        // One that is cut off before it is subscribed was never counted.
        if connected && self.connected.insert(client) {
            self.counters.connected.fetch_add(1, Relaxed);
        } else if !connected && self.connected.remove(&client) {
            self.counters.connected.fetch_sub(1, Relaxed);
        }
    }

    /// A client publishes no more, or (`false`) again.
    pub fn hush(&mut self, client: usize, quiet: bool) {
        if quiet {
            self.hushed.insert(client);
        } else {
            self.hushed.remove(&client);
        }
    }

    /// True if a client waits for the answer to a publication.
    pub fn awaits(&self, client: usize) -> bool {
        let publisher = |stamp: &Stamp| self.topology.streams[stamp.stream as usize].publisher;
        self.in_flight.values().any(|stamp| publisher(stamp) == client)
    }

    /// What was counted, to count more.
    pub fn counted(&mut self) -> (&mut Ledger, &mut Tally) {
        (&mut self.ledger, &mut self.tally)
    }

    /// What was counted, and what went wrong how often.
    ///
    /// # Errors
    /// The server could not be asked for what the scenario needs.
    pub fn take_counted(&mut self) -> anyhow::Result<Counted> {
        let (ledger, tally) = (std::mem::take(&mut self.ledger), std::mem::take(&mut self.tally));
        let notes = std::mem::take(&mut self.notes);
        self.failure.take().map_or(Ok(Counted { ledger, tally, notes }), Err)
    }

    fn publish(&mut self, stream: u32, due: u64, links: &Links) {
        let plan = &self.topology.streams[stream as usize];
        if self.hushed.contains(&plan.publisher) {
            return;
        }
        let next = &mut self.next[stream as usize];
        let stamp = Stamp { run: self.run, stream, sequence: *next, due };
        let (channel, size) = (&*plan.channel, self.size);
        let request = match plan.method.as_deref() {
            Some(method) => Request::Call { channel, method, stamp, size },
            None => Request::Publish { channel, stamp, size },
        };
        let id = match links.request(plan.publisher, &request) {
            Ok(id) => id,
            // Who is cut off publishes no more; that it was is counted as a fault.
            Err(NotSent::Closed(_)) => return,
            Err(NotSent::Unspoken(error)) => {
                self.failure.get_or_insert(error);
                return;
            }
        };
        *next += 1;
        self.ledger.sent(stream, stamp.sequence);
        self.in_flight.insert(id, stamp);
        self.tally.published(clock::now(), due);
        self.counters.published.fetch_add(1, Relaxed);
        self.counters.owed.fetch_add(plan.receivers.count as u64, Relaxed);
    }

    /// Notes a kind of trouble, at most so many kinds.
    pub fn note(&mut self, what: String) {
        if self.notes.len() < GREATEST_NOTES || self.notes.contains_key(&what) {
            *self.notes.entry(what).or_default() += 1;
        }
    }

    fn answered(&mut self, id: u64) -> Option<Stamp> {
        let stamp = self.in_flight.remove(&id)?;
        if self.saturation.is_some() {
            self.free.push_back(stamp.stream);
        }
        self.counters.answered.fetch_add(1, Relaxed);
        Some(stamp)
    }

    fn delivered(&mut self, client: usize, stamp: Stamp) {
        if stamp.run != self.run {
            return self.note("came from another run".to_owned());
        }
        let now = clock::now();
        let stream = self.topology.streams.get(stamp.stream as usize);
        let place = stream.and_then(|stream| stream.receivers.place(client));
        if !self.ledger.delivered(u32::try_from(client).unwrap_or(u32::MAX), place, stamp) {
            return;
        }
        self.delivered += 1;
        self.tally.delivered(now, stamp.due);
        if place.is_some()
            && stream.is_some_and(|stream| stream.receivers.count > 1)
            && let Some(last) = self.reach.count(stamp.stream, stamp.sequence, now)
        {
            self.tally.complete(last, stamp.due);
        }
    }
}

impl Crowd for Traffic {
    fn event(&mut self, client: usize, event: Event, links: &Links) {
        match event {
            Event::Called { call, stamp } => {
                self.delivered(client, stamp);
                // An error: the connection has ended, which is counted.
                let _ = links.request(client, &Request::Reply { call: &call, stamp, size: self.size });
            }
            Event::Replied { id, stamp } => match self.answered(id) {
                Some(asked) if stamp == Some(asked) => {
                    self.ledger.acked(asked.stream, asked.sequence);
                    self.tally.acked(clock::now(), asked.due);
                }
                Some(_) => {
                    self.ledger.misrouted(1);
                    self.note("the answer to another call".to_owned());
                }
                None => self.note("an answer that nobody waits for".to_owned()),
            },
            Event::Delivery(stamp) => self.delivered(client, stamp),
            Event::Placed { stamp, channel, position } => {
                if let Some(position) = position {
                    self.places.entry(client).or_default().insert(channel, position);
                }
                self.delivered(client, stamp);
            }
            Event::Acked { id } => {
                if let Some(stamp) = self.answered(id) {
                    self.ledger.acked(stamp.stream, stamp.sequence);
                    self.tally.acked(clock::now(), stamp.due);
                }
            }
            Event::Refused { id, code } => {
                if let Some(stamp) = self.answered(id) {
                    self.ledger.refused(stamp.stream, stamp.sequence);
                    let receivers = self.topology.streams[stamp.stream as usize].receivers;
                    self.counters.owed.fetch_sub(receivers.count as u64, Relaxed);
                    self.note(format!("refused: {code}"));
                }
            }
            Event::Recovered { channel, position, gap } => {
                if gap.is_some() {
                    self.ledger.gap();
                }
                if let Some(position) = position {
                    self.places.entry(client).or_default().insert(channel, position);
                }
                self.recovered.push((client, clock::now()));
            }
            Event::Gap { .. } => self.ledger.gap(),
            Event::Presence { client: member, joined, .. } => {
                self.sightings.push(Sighting { watcher: client, client: member, joined, at: clock::now() });
            }
            _ => {}
        }
    }

    fn pause(&mut self, links: &Links) {
        if self.delivered > 0 {
            self.counters.delivered.fetch_add(std::mem::take(&mut self.delivered), Relaxed);
        }
        self.pump(links);
    }

    fn cut_off(&mut self, client: usize, why: &str) {
        self.ledger.disconnected();
        self.connected(client, false);
        self.note(format!("cut off: {why}"));
        // Nobody answers these any more. They stay unanswered in the ledger.
        let topology = &self.topology;
        let before = self.in_flight.len();
        self.in_flight.retain(|_, stamp| topology.streams[stamp.stream as usize].publisher != client);
        self.counters.answered.fetch_add((before - self.in_flight.len()) as u64, Relaxed);
    }
}
