//! Members of a channel that come, go and move between nodes, and watchers who are told of it.
//!
//! A session is truly there while its client is connected and subscribed. Where its connection breaks, it comes back with
//! its resume token, mostly at another node, and stays the same session: what the node of before knows of it must not
//! take it away again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use streamgate_client::{Client, Event, PresenceView, Status, SubscribeOptions};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{plan::Durability, rng::Rng, stage::Stage};
use crate::{
    cluster,
    history::{Recorder, Seen, presence::Told},
    raw::Via,
};

/// Where they meet.
const CHANNEL: &str = "meet";
const MEMBERS: usize = 24;
const WATCHERS: usize = 2;
/// How long the last change may take to be seen: twice the lease of a node that died, and some more.
const PATIENCE: Duration = Duration::from_secs(45);
/// How late a leave may be told (`gateway/src/broker/redis/options.rs`: twice the lease).
const GRACE: Duration = Duration::from_secs(20);

/// Sessions that are there now, by the number of their member.
type There = watch::Sender<Vec<Option<String>>>;

/// Members and watchers under way. Dropping it ends them.
pub struct Members {
    stage: Arc<Stage>,
    moving: watch::Sender<bool>,
    there: Arc<There>,
    views: Arc<watch::Sender<Vec<BTreeSet<String>>>>,
    tasks: JoinSet<()>,
}

impl Members {
    /// Lets watchers and members come.
    ///
    /// # Panics
    /// A watcher cannot begin while nothing has gone wrong yet.
    pub async fn start(stage: &Arc<Stage>, seed: u64) -> Self {
        let mut members = Self {
            stage: stage.clone(),
            moving: watch::Sender::new(true),
            there: Arc::new(watch::Sender::new(vec![None; MEMBERS])),
            views: Arc::new(watch::Sender::new(vec![BTreeSet::new(); WATCHERS])),
            tasks: JoinSet::new(),
        };
        for number in 0..WATCHERS {
            members.watch(number).await;
        }
        for number in 0..MEMBERS {
            let rng = Rng::new(seed ^ (0x2_0000 + number as u64));
            let member = Member { number, stage: stage.clone(), there: members.there.clone() };
            members.tasks.spawn(member.come_and_go(rng, members.moving.subscribe()));
        }
        members
    }

    async fn watch(&mut self, number: usize) {
        let via = if number == 0 { Via::WsProto } else { Via::Grpc };
        let client = cluster::connect(&self.stage.addrs(number), via).await;
        let options = SubscribeOptions::new(CHANNEL).ephemeral().unbounded();
        let view = client.watch_presence(options).await.expect("a view");
        let name = format!("watcher {number}");
        self.stage.recorder.listens(&name, CHANNEL);
        let members = Told::Members {
            channel: CHANNEL.to_owned(),
            sessions: sessions(&view),
            at: self.stage.recorder.now(),
        };
        self.stage.recorder.history().presence.told(&name, members);
        self.tasks.spawn(follow(name, number, view, self.stage.recorder.clone(), self.views.clone()));
    }

    /// Lets nobody come or go any more, waits until everybody knows who is there, and writes down what they know.
    pub async fn finish(mut self) {
        self.moving.send_replace(false);
        let client = cluster::connect(&self.stage.addrs(0), Via::WsJson).await;
        let begun = Instant::now();
        let listed = loop {
            let truly: BTreeSet<String> = self.there.borrow().iter().flatten().cloned().collect();
            let answer = client.presence(CHANNEL).await;
            let listed: BTreeSet<String> = answer
                .into_iter()
                .flat_map(|answer| answer.members)
                .map(|member| member.session_id)
                .collect();
            let agreed = truly.len() == MEMBERS
                && listed == truly
                && self.views.borrow().iter().all(|view| *view == truly);
            if agreed || begun.elapsed() >= PATIENCE {
                break listed;
            }
            // The list has no event to wait for.
            sleep(Duration::from_millis(100)).await;
        };
        println!("  members: {} listed, agreed after {:.1?}", listed.len(), begun.elapsed());
        let now = self.stage.recorder.now();
        let mut history = self.stage.recorder.history();
        let leaves_lost = self.stage.durability != Durability::Always;
        history.presence.terms(GRACE, now, leaves_lost);
        history.presence.members_at_end(CHANNEL, listed);
        drop(history);
        self.tasks.abort_all();
    }
}

fn sessions(view: &PresenceView) -> BTreeSet<String> {
    view.members().map(|member| member.session_id.clone()).collect()
}

/// Writes down what a watcher is told.
async fn follow(
    name: String,
    number: usize,
    mut view: PresenceView,
    recorder: Recorder,
    views: Arc<watch::Sender<Vec<BTreeSet<String>>>>,
) {
    while let Some(event) = view.next().await {
        let at = recorder.now();
        match event {
            Event::Presence(change) => {
                let (channel, session) = (change.channel, change.member.session_id);
                let told = if change.joined {
                    Told::Join { channel, session, at }
                } else {
                    Told::Leave { channel, session, at }
                };
                recorder.history().presence.told(&name, told);
                let now = sessions(&view);
                views.send_modify(|views| views[number] = now);
            }
            Event::Closed(error) => recorder.history().saw(&name, Seen::Ended { error: error.to_string() }),
            _ => {}
        }
    }
}

/// One place for a session after the other.
struct Member {
    number: usize,
    stage: Arc<Stage>,
    there: Arc<There>,
}

impl Member {
    async fn come_and_go(self, mut rng: Rng, mut moving: watch::Receiver<bool>) {
        loop {
            let via = Via::ALL[rng.index(Via::ALL.len())];
            let addrs = self.stage.addrs(rng.index(self.stage.slots.len()));
            let client = cluster::builder(&addrs, via).build().expect("valid addresses");
            let stay = rng.millis(2_000, 20_000);
            // Whoever is there when the moving ends stays.
            let enough = async {
                sleep(stay).await;
                let _ = moving.wait_for(|moving| *moving).await;
            };
            let present = self.be_there(&client);
            tokio::select! {
                () = present => {}
                () = enough => {}
            }
            self.is_gone();
            if rng.chance(50) {
                // It says goodbye; else it is just not there any more.
                client.close().await;
            }
            drop(client);
            sleep(rng.millis(0, 1_000)).await;
        }
    }

    /// Subscribes and follows what becomes of the connection. Safe to cancel.
    async fn be_there(&self, client: &Client) {
        let mut status = client.status();
        // Another attempt could not be told from the end of this one: it is somebody else's.
        let Ok(mut subscription) = client.subscribe(CHANNEL).await else { return };
        loop {
            // Every change of the status means that the connection was lost, if only for a moment.
            self.is_gone();
            if let Status::Connected { session_id, .. } = &*status.borrow_and_update() {
                self.is_there(session_id);
            }
            let ended = async { while subscription.next().await.is_some() {} };
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                () = ended => return,
            }
        }
    }

    fn is_there(&self, session: &str) {
        let at = self.stage.recorder.now();
        self.stage.recorder.history().presence.joined(CHANNEL, session, at);
        self.there.send_modify(|there| there[self.number] = Some(session.to_owned()));
    }

    fn is_gone(&self) {
        let at = self.stage.recorder.now();
        let before = self.there.borrow()[self.number].clone();
        if let Some(session) = before {
            self.stage.recorder.history().presence.left(CHANNEL, &session, at);
            self.there.send_modify(|there| there[self.number] = None);
        }
    }
}
