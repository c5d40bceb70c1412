//! Work that all nodes share and that outlives each of them: each item is done at least once.
//!
//! A queue has lanes. The items of a lane are done in their order, by one node at a time; which lane a thing belongs to is
//! [`Broker::lane_of`](super::Broker::lane_of). An item that was taken and not finished is taken again, by the same node
//! or, when that one is gone, by another one.

use bytes::Bytes;

/// An item that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkItem {
    /// Names it towards the broker.
    pub id: String,
    /// What is to be done.
    pub payload: Bytes,
}

/// The next items of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Another node does them.
    Elsewhere,
    /// They are this node's, in their order. So is the lane, until the lease ends: whatever of it is not finished by then
    /// may be done by another node as well.
    Here(Vec<WorkItem>),
}
