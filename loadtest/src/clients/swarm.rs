//! Opens connections, reads what comes, and tells it to the scenario's [`Crowd`].

use std::{
    cell::RefCell,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::tcp::OwnedReadHalf,
    sync::oneshot,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::{
    dialect::{Detail, Dialect, Event, Request, Subscription, Telling},
    endpoint::{Endpoint, Transport},
    frames::{self, Frame},
    grpc,
    links::{CONNECT, Link, Links, Out},
};

/// Bytes that are read at once, by all connections in turn.
const SCRATCH: usize = 256 * 1024;
/// For one connection to be connected and subscribed.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the clients of a scenario make of what they are told. Called by the thread that drives them, one call at a time.
pub trait Crowd: 'static {
    /// The server said something to a client.
    fn event(&mut self, client: usize, event: Event, links: &Links);

    /// All that came with one read has been told.
    fn pause(&mut self, links: &Links);

    /// A connection ended that was not asked to.
    fn cut_off(&mut self, client: usize, why: &str);
}

/// The connections of one thread and who listens to them. Must live within a `LocalSet`.
pub struct Swarm<C> {
    shared: Rc<Shared<C>>,
}

struct Shared<C> {
    links: Links,
    crowd: Rc<RefCell<C>>,
    scratch: RefCell<Vec<u8>>,
    /// Bound to before connecting, in turn; the ports of one address are limited.
    sources: Vec<IpAddr>,
}

/// Who connects.
#[derive(Debug, Clone)]
pub struct Client<'a> {
    /// Its number, which all calls name it by.
    pub number: usize,
    /// What it says of itself.
    pub name: String,
    /// Proves who it is; empty: anonymous.
    pub token: &'a str,
    /// What it subscribes to at once.
    pub subscriptions: &'a [Subscription],
}

impl<C> Clone for Swarm<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C: Crowd> Swarm<C> {
    /// Nobody yet.
    pub fn new(dialect: Dialect, detail: Detail, crowd: Rc<RefCell<C>>, sources: Vec<IpAddr>) -> Self {
        let (links, scratch) = (Links::new(dialect, detail), RefCell::new(vec![0; SCRATCH]));
        Self { shared: Rc::new(Shared { links, crowd, scratch, sources }) }
    }

    /// The connections, to send.
    pub fn links(&self) -> &Links {
        &self.shared.links
    }

    /// Connects a client and waits until it is subscribed.
    ///
    /// # Errors
    /// It does not come about within a minute, or the server refuses.
    pub async fn open(&self, endpoint: &Endpoint, client: &Client<'_>) -> anyhow::Result<()> {
        let number = client.number;
        let opening = timeout(DEADLINE, self.try_open(endpoint, client)).await;
        let opened = opening.unwrap_or_else(|_| bail!("no answer within {DEADLINE:?}"));
        if opened.is_err() {
            self.links().close(number);
        }
        opened.with_context(|| format!("client {number} at {}", endpoint.host))
    }

    async fn try_open(&self, endpoint: &Endpoint, client: &Client<'_>) -> anyhow::Result<()> {
        let number = client.number;
        let (connected, answer) = oneshot::channel();
        let task = match endpoint.transport {
            Transport::Ws => self.open_ws(endpoint, number).await?,
            Transport::Grpc => self.open_grpc(endpoint, number).await?,
        };
        let at_once = self.links().dialect.subscribes_in_connect();
        let subscriptions = if at_once { client.subscriptions } else { &[] };
        self.links().await_connected(number, connected);
        let (name, token) = (&client.name, client.token);
        self.links().queue(number, CONNECT, &Request::Connect { client: name, token, subscriptions })?;
        self.links().flush();
        match answer.await {
            Ok(Event::Connected) => {}
            Ok(refusal) => bail!("refused: {refusal:?}"),
            Err(_) => bail!("closed: {}", task.await.unwrap_or_else(|error| error.to_string())),
        }
        if at_once {
            return Ok(());
        }
        for subscriptions in client.subscriptions.chunks(self.links().dialect.subscriptions_at_once()) {
            match self.links().ask(number, &Request::Subscribe { subscriptions }).await? {
                Some(Event::Done { .. }) => {}
                other => bail!("not subscribed to {subscriptions:?}: {other:?}"),
            }
        }
        Ok(())
    }

    /// The task answers why the connection ended.
    async fn open_ws(&self, endpoint: &Endpoint, client: usize) -> anyhow::Result<JoinHandle<String>> {
        let sources = &self.shared.sources;
        let source = (!sources.is_empty()).then(|| sources[client % sources.len()]);
        let (stream, first) = endpoint.open(self.links().dialect.subprotocol(), source).await?;
        let (read, half) = stream.into_split();
        let link =
            self.links().insert(client, Out::WebSocket { half: half.into(), pending: RefCell::default() });
        let reader = Reader { shared: self.shared.clone(), client, link, read, rest: first };
        Ok(spawn_local(reader.run()))
    }

    async fn open_grpc(&self, endpoint: &Endpoint, client: usize) -> anyhow::Result<JoinHandle<String>> {
        let call = grpc::Call::open(endpoint).await?;
        let link = self.links().insert(client, Out::Grpc(call.queue()));
        let (shared, detail) = (self.shared.clone(), self.links().detail);
        Ok(spawn_local(async move {
            let why = call.run(&link, detail, |events| shared.tell(client, events)).await;
            shared.ended(client, &link, why)
        }))
    }
}

impl<C: Crowd> Shared<C> {
    /// Tells events, after those that somebody has asked for; then lets the crowd act.
    fn tell(&self, client: usize, each: Telling<'_>) {
        let mut crowd = self.crowd.borrow_mut();
        each(&mut |event| match event {
            // An error means that the connection has ended.
            Event::Ping => drop(self.links.queue(client, CONNECT, &Request::Pong)),
            event => {
                if let Some(event) = self.links.answer(client, event) {
                    crowd.event(client, event, &self.links);
                }
            }
        });
        crowd.pause(&self.links);
        drop(crowd);
        self.links.flush();
    }

    fn ended(&self, client: usize, link: &Link, why: String) -> String {
        self.links.remove(client);
        // Who never got so far is told by the call that opens.
        let was_open = link.connected.borrow_mut().take().is_none();
        if was_open && !link.closing.get() {
            self.crowd.borrow_mut().cut_off(client, &why);
        }
        why
    }
}

/// Reads one WebSocket to its end.
struct Reader<C> {
    shared: Rc<Shared<C>>,
    client: usize,
    link: Rc<Link>,
    read: OwnedReadHalf,
    /// An unfinished frame.
    rest: Vec<u8>,
}

impl<C: Crowd> Reader<C> {
    async fn run(mut self) -> String {
        let early = std::mem::take(&mut self.rest);
        let mut end = self.take(&early);
        let link = self.link.clone();
        let mut stuck = false;
        while end.is_none() {
            if link.closing.get() {
                link.say_goodbye();
                end = Some("closed".to_owned());
                break;
            }
            // Reading is safe to cancel: nothing is taken from the socket before it is ready.
            tokio::select! {
                read = std::future::poll_fn(|context| self.poll(context)) => end = read,
                () = link.wake.notified() => stuck = link.unwritten(),
                // While it waits to write it reads: the server may wait for just that.
                () = link.writable(), if stuck => {
                    link.write_some();
                    stuck = link.unwritten();
                }
            }
        }
        let why = end.unwrap_or_default();
        self.shared.ended(self.client, &self.link, why)
    }

    /// Reads once; why the connection ended, if it did.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        let shared = self.shared.clone();
        let mut scratch = shared.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match ready!(Pin::new(&mut self.read).poll_read(context, &mut buffer)) {
            Err(error) => Poll::Ready(Some(error.to_string())),
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Some("closed by the server".to_owned())),
            Ok(()) => Poll::Ready(self.take(buffer.filled())),
        }
    }

    /// Tells the frames in `bytes`, after what was left before; why the connection ended, if it did.
    fn take(&mut self, bytes: &[u8]) -> Option<String> {
        if self.rest.is_empty() {
            let (used, end) = self.frames(bytes);
            self.rest.extend_from_slice(&bytes[used..]);
            return end;
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let (used, end) = self.frames(&rest);
        rest.drain(..used);
        if !rest.is_empty() {
            self.rest = rest;
        }
        end
    }

    /// Tells all whole frames: how many bytes they have, and why the connection ended, if it did.
    fn frames(&self, input: &[u8]) -> (usize, Option<String>) {
        let (mut used, mut end) = (0, None);
        let (shared, client) = (&self.shared, self.client);
        shared.tell(client, &mut |tell| {
            while end.is_none() {
                match frames::read(&input[used..]) {
                    Ok(None) => break,
                    Err(error) => end = Some(error.to_string()),
                    Ok(Some((frame, length))) => {
                        used += length;
                        end = match frame {
                            Frame::Data(payload) => {
                                let links = &shared.links;
                                let read =
                                    links.dialect.read(payload, links.detail, &mut |event| tell(event));
                                read.err().map(|error| error.to_string())
                            }
                            Frame::Ping(payload) => {
                                shared.links.pong(client, payload);
                                None
                            }
                            Frame::Pong => None,
                            Frame::Close(code, reason) => Some(format!("closed with {code} {reason}")),
                        };
                    }
                }
            }
        });
        (used, end)
    }
}
