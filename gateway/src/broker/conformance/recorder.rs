//! A sink that remembers.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time};

use crate::broker::{Delivery, Sink};

/// Keeps deliveries, in order, until they are asked for. For one asker at a time.
#[derive(Debug, Default)]
pub struct Recorder {
    deliveries: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
}

impl Recorder {
    /// Takes the next delivery; `None` if none came within `patience`. Safe to cancel.
    pub async fn next(&self, patience: Duration) -> Option<Delivery> {
        let deadline = time::Instant::now() + patience;
        loop {
            if let Some(delivery) = self.pop() {
                return Some(delivery);
            }
            if time::timeout_at(deadline, self.arrived.notified()).await.is_err() {
                return self.pop();
            }
        }
    }

    /// Takes everything that is there now.
    pub fn drain(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    fn pop(&self) -> Option<Delivery> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Sink for Recorder {
    fn deliver(&self, delivery: Delivery) {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push_back(delivery);
        self.arrived.notify_one();
    }
}
