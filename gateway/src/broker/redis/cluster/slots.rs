//! Who owns which slots, as one node of a Cluster told it. Pure.

use super::super::{
    locate::Address,
    reply::{Reply, ReplyError},
};

/// One node's view of a Cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    ranges: Vec<Range>,
    nodes: Vec<Address>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    master: Address,
}

impl Slots {
    /// Reads the reply of `CLUSTER SLOTS`: of each range the first slot, the last slot, the master, its replicas.
    /// `asked` is who told: a node that does not know its own name leaves it out.
    ///
    /// # Errors
    /// The reply has another shape.
    pub fn from_reply(reply: &Reply, asked: &Address) -> Result<Self, ReplyError> {
        let mut slots = Self::default();
        for range in reply.as_array()? {
            let [first, last, nodes @ ..] = range.as_array()? else {
                return Err(ReplyError::Length { expected: 3, got: range.as_array()?.len() });
            };
            let (first, last) = (first.as_u64()?, last.as_u64()?);
            for (at, node) in nodes.iter().enumerate() {
                let address = address_of(node, asked)?;
                if at == 0 {
                    slots.ranges.push(Range { first, last, master: address.clone() });
                }
                if !slots.nodes.contains(&address) {
                    slots.nodes.push(address);
                }
            }
        }
        Ok(slots)
    }

    /// The master that owns `slot`, `None` if nobody does.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<&Address> {
        let slot = u64::from(slot);
        let holds = |range: &&Range| (range.first..=range.last).contains(&slot);
        self.ranges.iter().find(holds).map(|range| &range.master)
    }

    /// Every node, masters and replicas.
    #[must_use]
    pub fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    /// Whether it knows of any slot: a node that was reset or forgotten does not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// `[host, port, id, ...]`; a host that is unknown is nil, empty or `?`.
fn address_of(node: &Reply, asked: &Address) -> Result<Address, ReplyError> {
    let [host, port, ..] = node.as_array()? else {
        return Err(ReplyError::Length { expected: 2, got: node.as_array()?.len() });
    };
    let host = if host.is_nil() { "" } else { host.as_str()? };
    let host = if matches!(host, "" | "?") { asked.host.as_str() } else { host };
    Ok(Address::new(host, u16::try_from(port.as_u64()?).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Reply, port: i64) -> Reply {
        Reply::Array(vec![host, Reply::Int(port), Reply::Bulk("id".into()), Reply::Array(vec![])])
    }

    fn at(host: &'static str, port: i64) -> Reply {
        node(Reply::Bulk(host.into()), port)
    }

    fn range(first: i64, last: i64, nodes: Vec<Reply>) -> Reply {
        Reply::Array([Reply::Int(first), Reply::Int(last)].into_iter().chain(nodes).collect())
    }

    #[test]
    fn each_slot_has_the_master_of_its_range() {
        let reply = Reply::Array(vec![
            range(0, 5460, vec![at("10.0.0.1", 7000), at("10.0.0.4", 7000)]),
            range(5461, 9000, vec![at("10.0.0.2", 7000)]),
            range(9002, 16383, vec![at("10.0.0.2", 7000)]),
        ]);
        let slots = Slots::from_reply(&reply, &Address::new("seed", 1)).unwrap();
        let owner = |slot| slots.owner(slot).map(ToString::to_string);
        assert_eq!(owner(0).as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(owner(5460).as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(owner(5461).as_deref(), Some("10.0.0.2:7000"));
        assert_eq!(owner(9001), None);
        assert_eq!(owner(16383).as_deref(), Some("10.0.0.2:7000"));
        assert_eq!(slots.nodes().len(), 3);
    }

    #[test]
    fn a_node_without_a_known_name_is_the_one_that_was_asked() {
        for host in [Reply::Nil, Reply::Bulk("".into()), Reply::Bulk("?".into())] {
            let reply = Reply::Array(vec![range(0, 1, vec![node(host, 7001)])]);
            let slots = Slots::from_reply(&reply, &Address::new("seed", 1)).unwrap();
            assert_eq!(slots.owner(0), Some(&Address::new("seed", 7001)));
        }
    }

    #[test]
    fn a_node_that_knows_nothing_is_told_apart_and_nonsense_is_an_error() {
        let asked = Address::new("seed", 1);
        assert!(Slots::from_reply(&Reply::Array(vec![]), &asked).unwrap().is_empty());
        assert!(Slots::from_reply(&Reply::Int(1), &asked).is_err());
        assert!(Slots::from_reply(&Reply::Array(vec![Reply::Array(vec![])]), &asked).is_err());
        assert!(
            Slots::from_reply(&Reply::Array(vec![range(0, 1, vec![Reply::Array(vec![])])]), &asked).is_err()
        );
    }
}
