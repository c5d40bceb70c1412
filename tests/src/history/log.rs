//! What happened in one run, as it was written down.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use streamgate_client::matches;

use super::{
    canon::Canon,
    presence,
    publishing::check_publishing,
    subscriber::check_subscriber,
    violation::{Report, Rule, Violation},
};

/// A position: `(epoch, offset)`, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The epoch.
    pub epoch: u64,
    /// Goes on across epochs.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// One acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The position that it gave.
    pub place: Place,
    /// When it came, since the start of the run.
    pub at: Duration,
    /// It says that the key was known.
    pub duplicate: bool,
}

/// One publish: all attempts with one idempotency key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publish {
    /// To which channel.
    pub channel: String,
    /// Of its data.
    pub digest: u64,
    /// When the first attempt began, since the start of the run.
    pub sent_at: Duration,
    /// The acknowledgements of all attempts.
    pub acks: Vec<Ack>,
    /// An attempt ended in a way that leaves it open whether it was stored.
    pub open: bool,
    /// An attempt was refused before anything was stored.
    pub refused: bool,
}

/// What one subscriber saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A subscription began, and with it a new stretch of continuity.
    Subscribed {
        /// When it was acknowledged.
        at: Duration,
    },
    /// A publication.
    Publication {
        /// Its channel.
        channel: Arc<str>,
        /// Its position.
        place: Place,
        /// Which publish.
        id: Arc<str>,
        /// Of its data.
        digest: u64,
        /// It came from history.
        replay: bool,
        /// When.
        at: Duration,
    },
    /// It was told that publications are missing.
    Gap {
        /// In which channel.
        channel: Arc<str>,
        /// Up to where.
        place: Option<Place>,
        /// Why.
        reason: String,
        /// When.
        at: Duration,
    },
    /// A recovery is over.
    Recovered {
        /// Up to where, if it is a channel and not a pattern.
        place: Option<Place>,
        /// Why something is missing.
        gap: Option<String>,
        /// When.
        at: Duration,
    },
    /// The subscriber left; nothing is owed to it from here on.
    Unsubscribed,
    /// The server ended the subscription.
    Ended {
        /// What it said.
        error: String,
    },
}

/// A subscriber: what it subscribed, and what it saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscriber {
    /// A channel, or a pattern.
    pub(super) target: String,
    pub(super) seen: Vec<Seen>,
}

/// What happened in one run.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub(super) publishes: HashMap<Arc<str>, Publish>,
    pub(super) subscribers: BTreeMap<String, Subscriber>,
    pub(super) restarts: Vec<Loss>,
    pub(super) cuts: HashMap<String, Cut>,
    pub(super) truncation: bool,
    holes: Vec<(String, String)>,
    /// Who came and went, and who was told of it.
    pub presence: presence::Presence,
}

/// When Redis lost what was written last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// Nobody can have been told of it before.
    pub(super) from: Duration,
    /// What is sent afterwards is not lost any more.
    pub(super) to: Duration,
}

/// What was done to the history of a channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    /// The first time that its beginning was cut off.
    pub(super) trimmed: Option<Duration>,
    /// The first time that it was removed.
    pub(super) removed: Option<Duration>,
}

impl History {
    /// What tells the data of one publish from that of another.
    #[must_use]
    pub fn digest(data: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        hasher.finish()
    }

    /// A publish begins. Later attempts with the same key are the same publish.
    pub fn publishing(&mut self, id: &str, channel: &str, data: &str, at: Duration) {
        self.publishes.entry(id.into()).or_insert_with(|| Publish {
            channel: channel.to_owned(),
            digest: Self::digest(data),
            sent_at: at,
            ..Publish::default()
        });
    }

    /// It was acknowledged.
    ///
    /// # Panics
    /// Nobody said before that it was published.
    pub fn acked(&mut self, id: &str, ack: Ack) {
        self.publish_mut(id).acks.push(ack);
    }

    /// An attempt failed, and its outcome is unknown.
    ///
    /// # Panics
    /// As [`acked`](Self::acked).
    pub fn left_open(&mut self, id: &str) {
        self.publish_mut(id).open = true;
    }

    /// An attempt was refused: by itself it stored nothing.
    ///
    /// # Panics
    /// As [`acked`](Self::acked).
    pub fn refused(&mut self, id: &str) {
        self.publish_mut(id).refused = true;
    }

    fn publish_mut(&mut self, id: &str) -> &mut Publish {
        self.publishes.get_mut(id).unwrap_or_else(|| panic!("{id} was never published"))
    }

    /// A subscriber of `target` begins: it is owed everything that is sent from then on.
    pub fn subscribed(&mut self, name: &str, target: &str, at: Duration) {
        let subscriber = self.subscribers.entry(name.to_owned()).or_default();
        target.clone_into(&mut subscriber.target);
        subscriber.seen.push(Seen::Subscribed { at });
    }

    /// A subscriber saw something.
    pub fn saw(&mut self, name: &str, seen: Seen) {
        if let Some(subscriber) = self.subscribers.get_mut(name) {
            return subscriber.seen.push(seen);
        }
        panic!("{name} never subscribed");
    }

    /// Redis is about to lose what was written last.
    pub fn lossy_restart(&mut self, at: Duration) {
        self.lossy_failover(at, at);
    }

    /// Redis has two masters for some time, and what the one of before is told meanwhile may be lost.
    pub fn lossy_failover(&mut self, from: Duration, to: Duration) {
        self.restarts.push(Loss { from, to });
    }

    /// Whether it may be lost if it was sent at this time.
    pub(super) fn may_lose(&self, sent: Duration) -> bool {
        self.restarts.iter().any(|loss| sent <= loss.to)
    }

    /// The beginning of a channel's history is about to be cut off.
    pub fn trimmed(&mut self, channel: &str, at: Duration) {
        self.cuts.entry(channel.to_owned()).or_default().trimmed.get_or_insert(at);
    }

    /// A channel's history is about to be removed.
    pub fn removed(&mut self, channel: &str, at: Duration) {
        self.cuts.entry(channel.to_owned()).or_default().removed.get_or_insert(at);
    }

    /// More may be missed in this run than is replayed at once.
    pub fn allow_truncation(&mut self) {
        self.truncation = true;
    }

    /// A node found entries missing in its inbox, and nothing had been done to that.
    pub fn inbox_hole(&mut self, node: &str, log_line: &str) {
        self.holes.push((node.to_owned(), log_line.to_owned()));
    }

    /// Publishes that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.publishes.values().filter(|publish| !publish.acks.is_empty()).count()
    }

    /// Publishes whose outcome nobody knows.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.publishes.values().filter(|publish| publish.open && publish.acks.is_empty()).count()
    }

    /// Publications that were seen, by all subscribers together.
    #[must_use]
    pub fn sightings(&self) -> usize {
        let seen = self.subscribers.values().flat_map(|subscriber| &subscriber.seen);
        seen.filter(|seen| matches!(seen, Seen::Publication { .. })).count()
    }

    /// Gaps that were told, by their reason.
    #[must_use]
    pub fn gaps(&self) -> BTreeMap<String, usize> {
        let mut gaps = BTreeMap::new();
        for seen in self.subscribers.values().flat_map(|subscriber| &subscriber.seen) {
            if let Seen::Gap { reason, .. } | Seen::Recovered { gap: Some(reason), .. } = seen {
                *gaps.entry(reason.clone()).or_default() += 1;
            }
        }
        gaps
    }

    /// How many gaps each subscriber that listens to `channel` was told of there, while it was live.
    #[must_use]
    pub fn gaps_in(&self, channel: &str) -> BTreeMap<String, usize> {
        let told = |seen: &&Seen| matches!(seen, Seen::Gap { channel: of, .. } if **of == *channel);
        let listening = self.subscribers.iter().filter(|(_, all)| matches(&all.target, channel));
        listening.map(|(name, all)| (name.clone(), all.seen.iter().filter(told).count())).collect()
    }

    /// What every subscriber saw, a line for each event.
    #[must_use]
    pub fn events(&self) -> BTreeMap<String, Vec<String>> {
        let line = |seen: &Seen| match seen {
            Seen::Publication { channel, .. } | Seen::Gap { channel, .. } => format!("{channel} {seen}"),
            _ => seen.to_string(),
        };
        self.subscribers
            .iter()
            .map(|(name, all)| (name.clone(), all.seen.iter().map(line).collect()))
            .collect()
    }

    /// Everything that is wrong. Takes `O(n log n)` of what was written down.
    #[must_use]
    pub fn check(&self) -> Report {
        let canon = Canon::of(self);
        let mut violations = Vec::new();
        check_publishing(self, &canon, &mut violations);
        for (name, subscriber) in &self.subscribers {
            check_subscriber(self, &canon, name, subscriber, &mut violations);
        }
        violations.extend(self.holes.iter().map(|(node, line)| Violation {
            rule: Rule::InboxHole,
            channel: String::new(),
            subscriber: None,
            place: None,
            what: format!("{node} says: {line}"),
            around: Vec::new(),
        }));
        self.presence.check(&mut violations);
        Report { violations }
    }

    /// Ends the test if anything is wrong.
    ///
    /// # Panics
    /// With the report.
    pub fn assert_sound(&self) {
        let report = self.check();
        assert!(report.is_sound(), "among {} acknowledged publishes: {report}", self.acknowledged());
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribed { at } => write!(f, "{at:.3?} subscribed"),
            Self::Publication { place, id, replay, at, .. } => {
                write!(f, "{at:.3?} {place} {id}{}", if *replay { " (replay)" } else { "" })
            }
            Self::Gap { place, reason, at, .. } => match place {
                Some(place) => write!(f, "{at:.3?} gap {reason} up to {place}"),
                None => write!(f, "{at:.3?} gap {reason}"),
            },
            Self::Recovered { place, gap, at } => {
                write!(f, "{at:.3?} recovered")?;
                if let Some(place) = place {
                    write!(f, " up to {place}")?;
                }
                gap.as_ref().map_or(Ok(()), |gap| write!(f, ", gap {gap}"))
            }
            Self::Unsubscribed => f.write_str("unsubscribed"),
            Self::Ended { error } => write!(f, "ended: {error}"),
        }
    }
}
