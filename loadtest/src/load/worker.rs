//! One thread of clients, and the steps that a scenario makes with it.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::Barrier, task::LocalSet, time::sleep};

use super::{
    clock,
    tally::{Tally, Window},
    topology::Topology,
    traffic::{Counted, Counters, Traffic},
};
use crate::clients::{
    dialect::{Detail, Dialect, Event, Request, Subscription},
    endpoint::Endpoint,
    links::{Links, NotSent},
    swarm::{Client, Swarm},
};

/// Connections that one thread opens at once.
const OPENING: usize = 64;
/// How often a thread looks whether the others are done, or more may be sent.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// Without any progress for so long the rest will not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What all threads of a run share.
#[derive(Debug)]
pub struct Plan {
    /// Who listens to what, and who publishes where.
    pub topology: Arc<Topology>,
    /// The nodes; clients are spread over them, and come back to another one.
    pub endpoints: Vec<Endpoint>,
    /// How they are spoken to.
    pub dialect: Dialect,
    /// How closely publications are looked at.
    pub detail: Detail,
    /// Bytes of a payload.
    pub size: usize,
    /// Source addresses, in turn; none: the system's choice.
    pub sources: Vec<IpAddr>,
    /// How much is published.
    pub load: Load,
    /// The number of this run, in every stamp.
    pub run: u32,
    /// Threads; client number n is in thread n modulo their number.
    pub threads: usize,
}

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many a second, of all publishers together.
    Rate(f64),
    /// As much as goes, with so many publications under way for each publisher.
    Saturate(u64),
    /// Nothing by itself.
    Silence,
}

/// Where all threads and who measures them meet.
#[derive(Debug)]
pub struct Stage {
    /// What was done so far.
    pub counters: Arc<Counters>,
    /// The time that is measured: set between the first and the second meeting.
    pub window: OnceLock<Window>,
    /// Everybody, three times: ready; the window is known; all is done.
    pub barrier: Barrier,
    /// The threads among themselves.
    threads: Barrier,
}

impl Stage {
    /// For so many threads and one who measures.
    pub fn new(threads: usize) -> Self {
        let (counters, window) = (Arc::default(), OnceLock::new());
        Self { counters, window, barrier: Barrier::new(threads + 1), threads: Barrier::new(threads) }
    }
}

/// One thread of clients.
#[derive(Clone)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What the run is.
    pub plan: Arc<Plan>,
    /// Where it meets the others.
    pub stage: Arc<Stage>,
    /// Its clients' crowd.
    pub traffic: Rc<RefCell<Traffic>>,
    swarm: Swarm<Traffic>,
    /// How often each client has connected.
    visits: Rc<RefCell<HashMap<usize, usize>>>,
}

/// Runs `script` with the clients of one thread; blocks. What they counted.
///
/// # Errors
/// Those of the script.
pub fn work<F>(index: usize, plan: Arc<Plan>, stage: Arc<Stage>, script: F) -> anyhow::Result<Counted>
where
    F: AsyncFnOnce(&Worker) -> anyhow::Result<()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    LocalSet::new().block_on(&runtime, async {
        let traffic = Rc::new(RefCell::new(Traffic::new(&plan, stage.counters.clone(), index)));
        let swarm = Swarm::new(plan.dialect.clone(), plan.detail, traffic.clone(), plan.sources.clone());
        let worker = Worker { index, plan, stage, traffic: traffic.clone(), swarm, visits: Rc::default() };
        script(&worker).await?;
        traffic.borrow_mut().take_counted()
    })
}

/// What most scenarios do: connect, offer to answer what they are to, publish or call for the time that is measured, wait
/// until all has arrived.
///
/// # Errors
/// A client does not get connected.
pub async fn connect_and_publish(worker: &Worker) -> anyhow::Result<()> {
    worker.connect_all().await?;
    worker.serve_all().await?;
    let window = worker.meet().await;
    worker.publish_until(window.end).await?;
    worker.settle().await;
    worker.done().await;
    Ok(())
}

impl Worker {
    /// The connections, to send.
    pub fn links(&self) -> &Links {
        self.swarm.links()
    }

    /// The numbers of this thread's clients.
    pub fn clients(&self) -> impl Iterator<Item = usize> + use<> {
        (self.index..self.plan.topology.clients.len()).step_by(self.plan.threads)
    }

    /// Connects all clients of this thread.
    ///
    /// # Errors
    /// One does not get connected.
    pub async fn connect_all(&self) -> anyhow::Result<()> {
        self.connect_those(self.clients()).await
    }

    /// Connects these clients.
    ///
    /// # Errors
    /// One does not get connected.
    pub async fn connect_those(&self, clients: impl Iterator<Item = usize>) -> anyhow::Result<()> {
        let opening = clients
            .map(|client| async move { self.connect(client, &self.plan.topology.clients[client]).await });
        stream::iter(opening).buffer_unordered(OPENING).try_collect().await
    }

    /// Connects one client, with these subscriptions.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn connect(&self, client: usize, subscriptions: &[Subscription]) -> anyhow::Result<()> {
        self.connect_as(client, "", subscriptions).await
    }

    /// Connects one client that shows this token, with these subscriptions.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn connect_as(
        &self,
        client: usize,
        token: &str,
        subscriptions: &[Subscription],
    ) -> anyhow::Result<()> {
        let endpoint = &self.plan.endpoints[self.node_of(client)];
        *self.visits.borrow_mut().entry(client).or_default() += 1;
        let who = Client { number: client, name: format!("load-{client}"), token, subscriptions };
        self.traffic.borrow_mut().hush(client, false);
        self.swarm.open(endpoint, &who).await?;
        self.traffic.borrow_mut().connected(client, self.links().is_open(client));
        Ok(())
    }

    /// Has the clients of this thread offer what they answer.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn serve_all(&self) -> anyhow::Result<()> {
        if self.plan.topology.streams.iter().all(|stream| stream.method.is_none()) {
            return Ok(());
        }
        for client in self.clients() {
            let methods = self.plan.topology.methods_of(client);
            if !methods.is_empty() {
                done(self.links().ask(client, &Request::Serve { methods: &methods }).await)?;
            }
        }
        Ok(())
    }

    /// The node that a client goes to: its home, or spread without regard to its number's meaning, and another one each time
    /// it comes.
    fn node_of(&self, client: usize) -> usize {
        if let Some(home) = self.plan.topology.homes.get(&client) {
            return home % self.plan.endpoints.len();
        }
        let visit = self.visits.borrow().get(&client).copied().unwrap_or_default();
        // Fibonacci hashing: the high bits of the product are well mixed.
        let mixed = (client as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (mixed as usize + visit) % self.plan.endpoints.len()
    }

    /// Ends a client's connection, when what it has published is answered, and does not count it as cut off.
    pub async fn disconnect(&self, client: usize) {
        self.traffic.borrow_mut().hush(client, true);
        let begun = clock::now();
        let patient = || u128::from(clock::now() - begun) < PATIENCE.as_nanos();
        while self.traffic.borrow().awaits(client) && self.links().is_open(client) && patient() {
            sleep(LOOK).await;
        }
        self.links().close(client);
        while self.links().is_open(client) {
            sleep(LOOK).await;
        }
        self.traffic.borrow_mut().connected(client, false);
    }

    /// Ends all subscriptions of a client, which stays connected. Nothing is wrong if it is not connected: then it was cut
    /// off, which is counted.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn unsubscribe(&self, client: usize) -> anyhow::Result<()> {
        let subscriptions = &self.plan.topology.clients[client];
        let channels: Vec<String> =
            subscriptions.iter().map(|subscription| subscription.channel.clone()).collect();
        done(self.links().ask(client, &Request::Unsubscribe { channels: &channels }).await)
    }

    /// Begins them again, from where the client stands; as [`Worker::unsubscribe`] if it is not connected.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn subscribe_again(&self, client: usize) -> anyhow::Result<()> {
        let subscriptions = self.with_cursors(client);
        done(self.links().ask(client, &Request::Subscribe { subscriptions: &subscriptions }).await)
    }

    /// How many members the server sees in a channel; asked by this client.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn members(&self, client: usize, channel: &str) -> anyhow::Result<u64> {
        match self.links().ask(client, &Request::Presence { channel }).await? {
            Some(Event::Members { count, .. }) => Ok(count),
            other => bail!("not told who is in {channel}: {other:?}"),
        }
    }

    /// Publishes once to each stream of this thread and waits until everybody has got it, so that all have a position.
    ///
    /// # Errors
    /// One of them has none: the server keeps no history, or does not tell positions.
    pub async fn take_positions(&self) -> anyhow::Result<()> {
        self.publish_burst(1).await;
        // All have published: else nothing would be waited for.
        self.together().await;
        self.settle().await;
        let topology = &self.plan.topology;
        let receives = |client| topology.streams.iter().any(|stream| stream.receivers.contains(client));
        let mut clients = self.clients().filter(|client| !topology.clients[*client].is_empty());
        let without =
            clients.find(|client| self.traffic.borrow().places(*client).is_none() && receives(*client));
        if let Some(client) = without {
            bail!(
                "client {client} was told no position in {}: is history kept for that channel? Without it nothing can be \
                 recovered",
                topology.clients[client][0].channel
            );
        }
        Ok(())
    }

    /// The subscriptions of a client, each from where the client stands.
    pub fn with_cursors(&self, client: usize) -> Vec<Subscription> {
        let traffic = self.traffic.borrow();
        let none = HashMap::new();
        let places = traffic.places(client).unwrap_or(&none);
        let with_cursor = |subscription: &Subscription| {
            let cursor = places.get(&subscription.channel).cloned();
            Subscription { cursor, ..subscription.clone() }
        };
        self.plan.topology.clients[client].iter().map(with_cursor).collect()
    }

    /// Meets everybody when this thread is ready, and learns what time is measured.
    pub async fn meet(&self) -> Window {
        self.stage.barrier.wait().await;
        self.stage.barrier.wait().await;
        let window = self.stage.window.get().copied().unwrap_or_default();
        self.traffic.borrow_mut().measure(Tally::new(window));
        window
    }

    /// Meets the other threads.
    pub async fn together(&self) {
        self.stage.threads.wait().await;
    }

    /// Tells that all is done, when everybody else has.
    pub async fn done(&self) {
        self.stage.barrier.wait().await;
    }

    /// Waits until that time, [`clock::now`].
    pub async fn wait_until(&self, time: u64) {
        sleep(Duration::from_nanos(time.saturating_sub(clock::now()))).await;
    }
}

/// That a request was carried out; nothing is wrong if the connection ended, which is counted elsewhere.
fn done(answer: Result<Option<Event>, NotSent>) -> anyhow::Result<()> {
    match answer {
        Ok(Some(Event::Done { .. }) | None) | Err(NotSent::Closed(_)) => Ok(()),
        Ok(Some(other)) => bail!("refused: {other:?}"),
        Err(unspoken) => Err(unspoken.into()),
    }
}

#[cfg(test)]
mod tests {
    use streamgate_proto::Encoding;

    use super::*;
    use crate::clients::swarm::Crowd as _;

    #[test]
    fn who_is_cut_off_ends_no_run() {
        done(Err(NotSent::Closed(7))).unwrap();
        done(Ok(None)).unwrap();
        done(Ok(Some(Event::Done { id: 1 }))).unwrap();
        done(Ok(Some(Event::Refused { id: 1, code: "NO".to_owned() }))).unwrap_err();
        done(Err(NotSent::Unspoken(anyhow::anyhow!("no such request")))).unwrap_err();
    }

    #[test]
    fn connections_are_counted_down_as_often_as_up() {
        let plan = Plan {
            topology: Arc::default(),
            endpoints: Vec::new(),
            dialect: Dialect::Streamgate(Encoding::Json),
            detail: Detail::Stamps,
            size: 0,
            sources: Vec::new(),
            load: Load::Silence,
            run: 0,
            threads: 1,
        };
        let counters = Arc::<Counters>::default();
        let mut traffic = Traffic::new(&plan, counters.clone(), 0);
        let count = || counters.connected.load(std::sync::atomic::Ordering::Relaxed);
        // Before it was subscribed.
        traffic.cut_off(1, "gone");
        assert_eq!(count(), 0);
        traffic.connected(1, true);
        traffic.connected(1, true);
        traffic.connected(2, true);
        assert_eq!(count(), 2);
        traffic.cut_off(1, "gone");
        traffic.connected(1, false);
        assert_eq!(count(), 1);
    }
}
