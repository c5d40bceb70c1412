//! Which connection leads to a partition.
//!
//! Standalone and Sentinel: one link to the one master. In a Cluster each partition will have the link to the owner of
//! its slot: everything else already asks here, partition by partition.

use std::sync::Arc;

use super::{
    connection::Connection,
    link::Link,
    locate::{Fixed, Locate},
    options::RedisOptions,
    scripts,
    sentinel::Sentinels,
};

/// The links of a node. Dropping it closes them.
#[derive(Debug)]
pub struct Topology {
    commands: Arc<Link>,
    readers: Vec<Reads>,
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
    /// One server for all partitions; with Sentinel whichever is the master.
    #[must_use]
    pub fn standalone(options: &Arc<RedisOptions>) -> Self {
        let server: Arc<dyn Locate> = match &options.sentinel {
            Some(sentinel) => Arc::new(Sentinels::start(sentinel, options)),
            None => Arc::new(Fixed(options.server())),
        };
        let start = |name| Arc::new(Link::start(name, server.clone(), options.clone(), scripts::all()));
        let reader =
            Reads { link: start("reader"), partitions: (0..usize::from(options.partitions)).collect() };
        Self { commands: start("commands"), readers: vec![reader] }
    }

    /// The ordered link for commands of a partition; one server has all of them.
    #[must_use]
    pub fn commands(&self, _partition: usize) -> Arc<Link> {
        self.commands.clone()
    }

    /// The link for what concerns the deployment as a whole.
    #[must_use]
    pub fn deployment(&self) -> Arc<Link> {
        self.commands.clone()
    }

    /// The links for inboxes.
    #[must_use]
    pub fn readers(&self) -> &[Reads] {
        &self.readers
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        std::iter::once(&self.commands).chain(self.readers.iter().map(|reads| &reads.link))
    }
}

/// The open connection of a link, or why there is none.
pub(super) fn open(link: &Link) -> Result<Arc<Connection>, crate::broker::BrokerError> {
    link.current().ok_or_else(|| crate::broker::BrokerError::NotAvailable {
        reason: format!("{:?}", *link.status().borrow()),
        sent: false,
    })
}
