//! A shard's thread: its runtime, its loop, and the handle by which a node holds it.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc, sync::Arc, thread, time::Duration};

use slab::Slab;
use tokio::{
    sync::{Notify, watch},
    task::LocalSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    DrainProgress, FLUSH_BYTES, Inner, Mail, Mailbox, Neighbours, Shard, State,
    frames::ReplayFrames,
    index::Index,
    mailbox::{Inbox, mailbox},
    meters::Meters,
    watchers::Watchers,
    wheel::{TICK_MS, Wheel},
};
use crate::{
    broker::{Broker, SinkId},
    hooks::Lifecycle,
    rpc::Router,
    session::Settings,
    transport::Accepted,
};

/// Bytes of the buffer that all connections of a shard read into.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Mail taken before what it caused is written out.
const BATCH: usize = 256;

/// Serves an accepted socket; runs on the shard's thread.
pub type Serve = Arc<dyn Fn(&Shard, Accepted) + Send + Sync>;

/// What a shard works with.
#[derive(Clone)]
pub struct ShardConfig {
    /// Order, history, interest.
    pub broker: Arc<dyn Broker>,
    /// Policies and limits.
    pub settings: Settings,
    /// The node's shards, once all of them run.
    pub neighbours: Neighbours,
    /// Who answers calls, and where sessions are.
    pub rpc: Router,
    /// Backends that are told of sessions and subscriptions; none: nobody is.
    pub lifecycle: Option<Lifecycle>,
    /// Greatest time of an RPC.
    pub rpc_timeout: Duration,
    /// Serves accepted sockets.
    pub serve: Serve,
    /// Cancelled if a shard ends by a panic: its clients are gone, and new ones would be.
    pub failed: CancellationToken,
}

/// A running shard.
pub struct ShardHandle {
    mailbox: Mailbox,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts a shard on a thread of its own.
///
/// # Errors
/// The thread or its runtime cannot be made.
pub fn spawn(number: u16, config: ShardConfig) -> io::Result<ShardHandle> {
    let (mailbox, inbox) = mailbox();
    let sink = config.broker.attach(Arc::new(mailbox.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = config.failed.clone();
    let body = move || {
        let _failed = CancelOnPanic(failed);
        let serve = config.serve.clone();
        let shard = Shard::new(number, config, sink);
        LocalSet::new().block_on(&runtime, shard.run(inbox, &serve));
    };
    let thread = thread::Builder::new().name(format!("shard-{number}")).spawn(body)?;
    Ok(ShardHandle { mailbox, thread: Some(thread) })
}

/// Tells of the end of its thread by a panic.
struct CancelOnPanic(CancellationToken);

impl Drop for CancelOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cancel();
        }
    }
}

impl ShardHandle {
    /// Where to send mail.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Sends every client away, evenly over that time. Tells how far it is, `None` before its begin; no sender is left
    /// when the shard is gone.
    pub fn drain(&self, over: Duration) -> watch::Receiver<Option<DrainProgress>> {
        let (progress, watched) = watch::channel(None);
        self.mailbox.send(Mail::Drain(over, progress));
        watched
    }

    /// Ends the shard with whatever is still connected, and waits for its thread.
    pub fn stop(mut self) {
        self.mailbox.send(Mail::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a shard ended by a panic");
        }
    }
}

impl Shard {
    /// An empty shard, to which the broker knows `sink` to belong.
    pub(super) fn new(number: u16, config: ShardConfig, sink: SinkId) -> Self {
        let state = State {
            connections: Slab::new(),
            subscriptions: Slab::new(),
            index: Index::default(),
            watchers: Watchers::default(),
            wheel: Wheel::new(0),
            dirty: Vec::new(),
            replays: ReplayFrames::default(),
            settling: VecDeque::new(),
            members: Vec::new(),
            next_serial: 0,
            next_stamp: 0,
            delivery: 0,
            drain: None,
        };
        Self(Rc::new(Inner {
            state: RefCell::new(state),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            broker: config.broker,
            sink,
            settings: config.settings,
            number,
            neighbours: config.neighbours,
            rpc: config.rpc,
            lifecycle: config.lifecycle,
            rpc_timeout: config.rpc_timeout,
            started: Instant::now(),
            meters: Meters::new(),
            flush_soon: Notify::new(),
        }))
    }

    async fn run(&self, mut inbox: Inbox, serve: &Serve) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = inbox.receive(&mut batch, BATCH) => {
                    if !received || !self.take(&mut batch, serve) {
                        return;
                    }
                }
                () = self.0.flush_soon.notified() => self.flush(&mut self.0.state.borrow_mut()),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    /// Takes a batch of mail, then writes what it caused; `false` when told to stop.
    fn take(&self, batch: &mut Vec<Mail>, serve: &Serve) -> bool {
        let now = self.now();
        let mut unflushed = 0;
        for mail in batch.drain(..) {
            match mail {
                Mail::Delivered(delivery) => {
                    let state = &mut *self.0.state.borrow_mut();
                    self.deliver(state, now, &delivery);
                    unflushed += delivery.weight();
                    // Long before a write queue of usual size is full for a client that reads.
                    if unflushed >= FLUSH_BYTES {
                        self.flush(state);
                        unflushed = 0;
                    }
                }
                Mail::FellBehind(channel, before) => {
                    self.fell_behind(&mut self.0.state.borrow_mut(), &channel, before);
                }
                Mail::PresenceLost(channel) => self.presence_lost(&mut self.0.state.borrow_mut(), &channel),
                Mail::Accepted(accepted) => serve(self, accepted),
                Mail::Open(outlet, arrival, reply) => {
                    let id = self.open(outlet, arrival);
                    if reply.send(id).is_err() {
                        self.gone(id);
                    }
                }
                Mail::Frame(id, payload, _permit) => self.receive(id, &payload),
                Mail::Failed(id, code, reason) => self.fail(id, code, &reason),
                Mail::Revoked => self.check_revoked(),
                Mail::Doubt => self.keep_all(),
                Mail::Errand(errand) => self.run_errand(*errand),
                Mail::Drained(id) => self.drained(id),
                Mail::Gone(id) => self.gone(id),
                Mail::Drain(over, progress) => self.begin_drain(over, progress),
                Mail::Stop => {
                    self.flush(&mut self.0.state.borrow_mut());
                    return false;
                }
            }
        }
        self.flush(&mut self.0.state.borrow_mut());
        true
    }
}
