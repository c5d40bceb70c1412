//! Which connections lead to a partition.
//!
//! Standalone: two links to the one master, for commands and for blocking reads. In a Cluster two such links for each
//! partition, to the owner of its slot, and one for what concerns the deployment as a whole: partitions move between
//! masters one by one, and a blocking read cannot span slots (decision 0013).

use std::sync::Arc;

use super::{
    cluster::{SlotMap, SlotOwner},
    connection::Connection,
    keys::{Keys, slot_of},
    link::{Link, LinkStatus},
    locate::{Fixed, Locate},
    options::RedisOptions,
    scripts,
    sentinel::Sentinels,
};

/// The links of a node. Dropping it closes them.
#[derive(Debug)]
pub struct Topology {
    /// The one link for all partitions, or one for each.
    commands: Vec<Arc<Link>>,
    readers: Vec<Reads>,
    deployment: Arc<Link>,
}

/// A link for blocking reads, with the partitions whose inboxes it reads.
#[derive(Debug, Clone)]
pub struct Reads {
    /// Used by nothing else: commands would wait behind a blocked read.
    pub link: Arc<Link>,
    /// Partitions, all on the server that the link leads to.
    pub partitions: Vec<usize>,
}

impl Topology {
    /// The links that `options` ask for.
    #[must_use]
    pub fn start(options: &Arc<RedisOptions>, keys: &Keys) -> Self {
        if options.cluster.is_empty() {
            Self::standalone(options, keys)
        } else {
            Self::cluster(options, keys)
        }
    }

    /// One server for all partitions; with Sentinel whichever is the master.
    fn standalone(options: &Arc<RedisOptions>, keys: &Keys) -> Self {
        let server: Arc<dyn Locate> = match &options.sentinel {
            Some(sentinel) => Arc::new(Sentinels::start(sentinel, options)),
            None => Arc::new(Fixed(options.server())),
        };
        let start = |name| Arc::new(Link::start(name, server.clone(), options.clone(), scripts::all()));
        let (commands, reader) = (start("commands"), start("reader"));
        Self {
            deployment: commands.clone(),
            commands: vec![commands],
            readers: vec![Reads { link: reader, partitions: (0..keys.partitions()).collect() }],
        }
    }

    /// The owner of each partition's slot.
    fn cluster(options: &Arc<RedisOptions>, keys: &Keys) -> Self {
        let map = Arc::new(SlotMap::start(options.clone()));
        let start = |name: String, key: bytes::Bytes| {
            let slot = slot_of(&key);
            let owner: Arc<dyn Locate> = Arc::new(SlotOwner::of(map.clone(), key, slot));
            Arc::new(Link::start(name, owner, options.clone(), scripts::all()))
        };
        let partitions = 0..keys.partitions();
        let commands = partitions.clone().map(|p| start(format!("partition {p}"), keys.key(p, "meta")));
        let readers = partitions
            .clone()
            .map(|p| Reads { link: start(format!("inbox {p}"), keys.key(p, "meta")), partitions: vec![p] });
        Self {
            commands: commands.collect(),
            readers: readers.collect(),
            deployment: start("deployment".to_owned(), keys.deployment("layout")),
        }
    }

    /// The ordered link for commands of a partition.
    #[must_use]
    pub fn commands(&self, partition: usize) -> Arc<Link> {
        // One server has all of them.
        self.commands.get(partition).or(self.commands.first()).unwrap_or(&self.deployment).clone()
    }

    /// The link for what concerns the deployment as a whole.
    #[must_use]
    pub fn deployment(&self) -> Arc<Link> {
        self.deployment.clone()
    }

    /// The links for inboxes.
    #[must_use]
    pub fn readers(&self) -> &[Reads] {
        &self.readers
    }

    /// Every link, those of partitions first.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        let own = (!self.commands.iter().any(|link| Arc::ptr_eq(link, &self.deployment)))
            .then_some(&self.deployment);
        self.commands.iter().chain(self.readers.iter().map(|reads| &reads.link)).chain(own)
    }

    /// Why some links do not lead anywhere at present, `None` if all do: says what is concerned, and the first reason.
    #[must_use]
    pub fn absence(&self) -> Option<String> {
        let (mut total, mut absent, mut reason) = (0, Vec::new(), None);
        for link in self.links() {
            total += 1;
            let why = match &*link.status().borrow() {
                LinkStatus::Up(_) => continue,
                LinkStatus::Starting(reason) | LinkStatus::Away(reason) => reason.clone(),
                LinkStatus::Stopped => "stopped".to_owned(),
            };
            absent.push(link.name().to_owned());
            reason.get_or_insert(why);
        }
        let reason = reason?;
        Some(if absent.len() == total || self.commands.len() == 1 {
            reason
        } else {
            format!("{}: {reason}", absent.join(", "))
        })
    }
}

/// The open connection of a link, or why there is none.
pub(super) fn open(link: &Link) -> Result<Arc<Connection>, crate::broker::BrokerError> {
    link.current().ok_or_else(|| crate::broker::BrokerError::NotAvailable {
        reason: format!("{:?}", *link.status().borrow()),
        sent: false,
    })
}
