//! Members of channels: clients of the library, each subscribed to one channel, and written down.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use streamgate_client::{Client, Status};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinHandle},
};

use crate::{cluster, gateway::Addrs, history::Recorder, raw::Via, within};

/// Connections that are being opened at a time.
const OPENING: usize = 25;

/// A client that is a member of one channel. Dropping it ends the client without a word.
pub struct Attendee {
    /// Where it is a member.
    pub channel: String,
    /// As whom.
    pub session: String,
    client: Client,
    status: watch::Receiver<Status>,
    task: AbortHandle,
}

/// Many of them.
pub struct Crowd {
    recorder: Recorder,
    /// Whoever is there.
    pub attendees: Vec<Attendee>,
}

impl Drop for Attendee {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Crowd {
    /// Nobody yet.
    #[must_use]
    pub fn none(recorder: &Recorder) -> Self {
        Self { recorder: recorder.clone(), attendees: Vec::new() }
    }

    /// So many more, over all transports, in turn on these nodes and these channels. Each knows one node only.
    ///
    /// # Panics
    /// A subscription is refused.
    pub async fn grow(&mut self, count: usize, nodes: &[Addrs], channels: &[String]) {
        let (opening, first) = (Arc::new(Semaphore::new(OPENING)), self.attendees.len());
        let coming = (first..first + count).map(|number| {
            let (opening, recorder) = (opening.clone(), &self.recorder);
            let (node, channel) = (nodes[number % nodes.len()], &channels[number % channels.len()]);
            async move {
                let _turn = opening.acquire().await.expect("nobody closes it");
                Attendee::come(recorder, node, Via::ALL[number % Via::ALL.len()], channel).await
            }
        });
        self.attendees.extend(join_all(coming).await);
    }

    /// Somebody says goodbye; its session.
    ///
    /// # Panics
    /// Nobody is there.
    pub async fn one_leaves(&mut self) -> String {
        let one = self.attendees.pop().expect("somebody is there");
        self.gone(&one);
        within("a goodbye", one.client.close()).await;
        one.session.clone()
    }

    /// All of these are not members any more: their node is dead, or sleeps.
    pub fn all_gone(&self) {
        self.attendees.iter().for_each(|one| self.gone(one));
    }

    /// They are members again.
    pub fn all_back(&self) {
        let at = self.recorder.now();
        for one in &self.attendees {
            self.recorder.history().presence.joined(&one.channel, &one.session, at);
        }
    }

    /// Who is there.
    #[must_use]
    pub fn sessions(&self) -> BTreeSet<String> {
        self.attendees.iter().map(|one| one.session.clone()).collect()
    }

    /// Asserts that nobody ever lost the connection.
    ///
    /// # Panics
    /// Somebody did.
    pub fn assert_stayed(&self) {
        for one in &self.attendees {
            let changed = one.status.has_changed().unwrap_or(true);
            assert!(!changed, "a member was disconnected: {:?}", *one.status.borrow());
        }
    }

    fn gone(&self, one: &Attendee) {
        let at = self.recorder.now();
        self.recorder.history().presence.left(&one.channel, &one.session, at);
    }
}

impl Attendee {
    async fn come(recorder: &Recorder, node: Addrs, via: Via, channel: &str) -> Self {
        let client = cluster::connect(&[node], via).await;
        let mut status = client.status();
        let session = match &*status.borrow_and_update() {
            Status::Connected { session_id, .. } => session_id.clone(),
            other => panic!("just connected, and {other:?}"),
        };
        let at = recorder.now();
        recorder.history().presence.joined(channel, &session, at);
        let subscription = within("a member's subscription", client.subscribe(channel)).await;
        let mut subscription = subscription.expect("a subscription");
        let task: JoinHandle<()> = tokio::spawn(async move { while subscription.next().await.is_some() {} });
        Self { channel: channel.to_owned(), session, client, status, task: task.abort_handle() }
    }
}
