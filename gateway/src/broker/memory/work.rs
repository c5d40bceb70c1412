//! Shared work in memory: one node, thus one lane for each queue.

use std::collections::VecDeque;

use ahash::AHashMap;
use bytes::Bytes;

use crate::broker::WorkItem;

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Work {
    queues: AHashMap<String, VecDeque<(u64, Bytes)>>,
    last: u64,
}

impl Work {
    /// Appends items as long as there are fewer than `most`; answers how many.
    pub fn add(&mut self, queue: &str, items: Vec<Bytes>, most: u64) -> usize {
        let waiting = self.queues.entry(queue.to_owned()).or_default();
        let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(waiting.len());
        let added = room.min(items.len());
        for item in items.into_iter().take(added) {
            self.last += 1;
            waiting.push_back((self.last, item));
        }
        added
    }

    /// The first items that are not finished, after one with this id if there is any.
    pub fn take(&self, queue: &str, after: Option<&str>, most: usize) -> Vec<WorkItem> {
        let Some(waiting) = self.queues.get(queue) else { return Vec::new() };
        let after: u64 = after.and_then(|id| id.parse().ok()).unwrap_or(0);
        let read = waiting.partition_point(|(id, _)| *id <= after);
        let next = waiting.iter().skip(read).take(most);
        next.map(|(id, payload)| WorkItem { id: id.to_string(), payload: payload.clone() }).collect()
    }

    /// Removes items that are done.
    pub fn finish(&mut self, queue: &str, ids: &[String]) {
        if let Some(waiting) = self.queues.get_mut(queue) {
            let done: Vec<u64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            waiting.retain(|(id, _)| !done.contains(id));
        }
    }
}
