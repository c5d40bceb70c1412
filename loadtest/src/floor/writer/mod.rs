//! The bare writer, the server side of the floor `floor-write`: a fan-out without a gateway.
//!
//! It speaks as much of Streamgate's protocol as clients of the load generator need: connect, subscribe, publish, ping.
//! A publication is built once for each form in use, then written to the sockets of its channel in a plain loop, one
//! `write` for each socket and nothing more. Whoever fans out must do that much. A socket that takes no more is waited
//! for, which a gateway must not do: so what this is slow at, it is slow at for all.
//!
//! It owns its sockets and one thread. Clients that say nothing cost nothing: they are only looked at by `epoll`, which
//! is asked when everything is written.

mod handshake;
mod words;

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::Context as _;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    fd::OwnedFd,
    io::Errno,
};
use slab::Slab;
use streamgate::transport::ws::{DataKinds, Event, FrameReader, OpCode, encode_close, encode_frame};
use streamgate_proto::{
    Encoding,
    cloudevents::CloudEvent,
    decode_inbound,
    v1::{
        InboundMessage, OutboundMessage, Pong, Position, SubscribeAck, Subscription,
        inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};

use tokio::net::TcpSocket;

use self::words::{EXTENDED, Form};
use crate::measure::limits::raise_open_files;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Names the listener among the sockets that `epoll` tells of.
const LISTENER: u64 = u64::MAX;
/// Bytes of one read, and greatest message.
const SCRATCH: usize = 64 * 1024;
const GREATEST_MESSAGE: u32 = 1 << 20;
/// Greatest upgrade request, bytes.
const GREATEST_HEAD: usize = 8 * 1024;
/// How long a client that does not read is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Every so manieth publication is a faulty one, if one shall be.
const FAULT_EVERY: u64 = 10;

/// Options of `floor-writer`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Does something wrong with every tenth publication: what a test shows that it is noticed by
    #[arg(long, value_enum)]
    fault: Option<Fault>,
}

/// What may be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// One listener does not get it.
    Lose,
    /// One listener gets it twice.
    Repeat,
    /// The publisher gets it, too.
    Misroute,
    /// It is not acked.
    Swallow,
}

/// Serves until its standard input closes. Prints where it listens.
///
/// # Errors
/// It cannot listen, or the system refuses what it needs.
pub async fn run(args: Args) -> anyhow::Result<()> {
    raise_open_files()?;
    let mut writer = Writer::listen(args.listen, args.fault)?;
    println!("{}", writer.listener.local_addr()?);
    io::stdout().flush()?;
    thread::spawn(|| {
        // Whatever comes is nothing to it, also an error: then it is closed as well.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    loop {
        writer.turn()?;
    }
}

/// All sockets, and who listens where.
struct Writer {
    fault: Option<Fault>,
    epoll: OwnedFd,
    listener: TcpListener,
    clients: Slab<Client>,
    channels: HashMap<String, Channel>,
    /// Of all positions: when it started.
    epoch: String,
    /// Clients whose socket failed, to be removed when nobody goes through them.
    failed: Vec<usize>,
    scratch: Vec<u8>,
}

/// One connection.
struct Client {
    socket: TcpStream,
    /// `None` while something that it said is carried out. Apart, so that a fan-out goes through little memory.
    session: Option<Box<Session>>,
}

/// What is known of a client.
struct Session {
    phase: Phase,
    form: Form,
    /// Where it listens.
    channels: Vec<String>,
}

enum Phase {
    /// The beginning of its upgrade request.
    Upgrading(Vec<u8>),
    Open(FrameReader),
}

#[derive(Default)]
struct Channel {
    /// Of the last publication.
    offset: u64,
    /// Clients of each form.
    listeners: [Vec<usize>; 4],
}

impl Writer {
    fn listen(addr: SocketAddr, fault: Option<Fault>) -> anyhow::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(addr).with_context(|| format!("bind {addr}"))?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            fault,
            epoll,
            listener,
            clients: Slab::new(),
            channels: HashMap::new(),
            epoch: words::unix_ms().to_string(),
            failed: Vec::new(),
            scratch: vec![0; SCRATCH],
        })
    }

    /// Waits for something to read, and takes it.
    fn turn(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(1024);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => return Ok(()),
            waited => waited.context("epoll")?,
        };
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept()?,
                // A key that was given to another client meanwhile: there is nothing to read then.
                key => self.read(usize::try_from(key)?),
            }
            self.remove_failed();
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    return Err(error).context("accept a connection (enough open files? ulimit -Hn)");
                }
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let form = Form { encoding: Encoding::Json, extended: false };
            let session = Session { phase: Phase::Upgrading(Vec::new()), form, channels: Vec::new() };
            let entry = self.clients.vacant_entry();
            let data = epoll::EventData::new_u64(entry.key() as u64);
            epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
            entry.insert(Client { socket, session: Some(Box::new(session)) });
        }
    }

    /// Reads once; `epoll` tells again if there is more.
    fn read(&mut self, key: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(client) = self.clients.get_mut(key) {
            match client.socket.read(&mut scratch) {
                Ok(0) => self.failed.push(key),
                Ok(length) => {
                    if let Some(mut session) = client.session.take() {
                        self.received(key, &mut session, &mut scratch[..length]);
                        self.clients[key].session = Some(session);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.failed.push(key),
            }
        }
        self.scratch = scratch;
    }

    fn received(&mut self, key: usize, session: &mut Session, input: &mut [u8]) {
        let head = match &mut session.phase {
            Phase::Open(_) => return self.frames(key, session, input),
            Phase::Upgrading(head) => head,
        };
        head.extend_from_slice(input);
        let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
            if head.len() > GREATEST_HEAD {
                self.failed.push(key);
            }
            return;
        };
        let mut behind = head.split_off(end + 4);
        match handshake::accept(&String::from_utf8_lossy(head)) {
            Some(accepted) => {
                session.form.encoding = accepted.encoding;
                session.phase = Phase::Open(FrameReader::new(GREATEST_MESSAGE, DataKinds::Both));
                self.write(key, accepted.response.as_bytes());
                self.frames(key, session, &mut behind);
            }
            None => self.failed.push(key),
        }
    }

    fn frames(&mut self, key: usize, session: &mut Session, input: &mut [u8]) {
        let Session { phase: Phase::Open(reader), form, channels } = session else { return };
        for event in reader.read(input) {
            match event {
                Ok(Event::Text(text)) => self.message(key, form, channels, text.as_bytes()),
                Ok(Event::Binary(bytes)) => self.message(key, form, channels, &bytes),
                Ok(Event::Ping(payload)) => self.write(key, &encode_frame(OpCode::Pong, &payload)),
                Ok(Event::Pong(_)) => {}
                Ok(Event::Close(_)) => {
                    self.write(key, &encode_close(None));
                    self.failed.push(key);
                }
                Err(_) => self.failed.push(key),
            }
        }
    }

    fn message(&mut self, key: usize, form: &mut Form, channels: &mut Vec<String>, frame: &[u8]) {
        let InboundMessage { id, channel, envelope, .. } = match decode_inbound(form.encoding, frame) {
            Ok(message) => message,
            Err(error) => {
                let answer = words::error(String::new(), "BAD_REQUEST", &error.to_string());
                return self.say(key, *form, answer);
            }
        };
        let answer = match envelope {
            Some(In::Connect(connect)) => {
                form.extended = connect.caps.iter().any(|cap| cap == EXTENDED);
                match self.subscribe(key, *form, channels, &connect.subscriptions) {
                    Ok(()) => words::connected(id, connect.subscriptions),
                    Err(what) => words::error(id, "NOT_SUPPORTED", what),
                }
            }
            Some(In::Subscribe(subscribe)) => {
                match self.subscribe(key, *form, channels, &subscribe.subscriptions) {
                    Ok(()) => {
                        let subscriptions = subscribe.subscriptions;
                        words::answer(id, Out::SubscribeAck(SubscribeAck { subscriptions }))
                    }
                    Err(what) => words::error(id, "NOT_SUPPORTED", what),
                }
            }
            Some(In::Publish(event)) => return self.publish(key, *form, id, channel, event),
            Some(In::Ping(_)) => words::answer(id, Out::Pong(Pong {})),
            Some(In::Pong(_)) => return,
            _ => words::error(
                id,
                "NOT_SUPPORTED",
                "the bare writer knows connect, subscribe, publish and ping",
            ),
        };
        self.say(key, *form, answer);
    }

    /// All or none.
    fn subscribe(
        &mut self,
        key: usize,
        form: Form,
        channels: &mut Vec<String>,
        wanted: &[Subscription],
    ) -> Result<(), &'static str> {
        if wanted.iter().any(|subscription| subscription.recover || subscription.channel.contains('*')) {
            return Err("the bare writer has neither history nor patterns");
        }
        for subscription in wanted {
            if !channels.contains(&subscription.channel) {
                channels.push(subscription.channel.clone());
                let channel = self.channels.entry(subscription.channel.clone()).or_default();
                channel.listeners[form.index()].push(key);
            }
        }
        Ok(())
    }

    /// The loop that this is all about.
    fn publish(&mut self, key: usize, form: Form, id: String, channel: String, event: CloudEvent) {
        let name = if channel.is_empty() { event.source.clone() } else { channel };
        let channel = self.channels.entry(name.clone()).or_default();
        channel.offset += 1;
        let position = Position { epoch: self.epoch.clone(), offset: channel.offset };
        let fault = self.fault.filter(|_| channel.offset.is_multiple_of(FAULT_EVERY));
        let wanted = channel.listeners.each_ref().map(|listeners| !listeners.is_empty());
        let frames = match words::publication(&name, position.clone(), event, wanted) {
            Ok(frames) => frames,
            Err(error) => return self.say(key, form, words::error(id, "BAD_REQUEST", &error.to_string())),
        };
        if fault != Some(Fault::Swallow)
            && let Ok(ack) = form.frame(words::publish_ack(id, position))
            && write(&self.clients[key].socket, &ack).is_err()
        {
            self.failed.push(key);
        }
        for (frame, listeners) in frames.iter().zip(&channel.listeners) {
            let Some(frame) = frame else { continue };
            let listeners = match (fault, listeners.as_slice()) {
                (Some(Fault::Lose), [_, others @ ..]) => others,
                (Some(Fault::Repeat), [first, ..]) => {
                    // That it failed is seen by the next one.
                    let _ = write(&self.clients[*first].socket, frame);
                    listeners
                }
                (Some(Fault::Misroute), _) => {
                    let _ = write(&self.clients[key].socket, frame);
                    listeners
                }
                _ => listeners,
            };
            for &listener in listeners {
                if write(&self.clients[listener].socket, frame).is_err() {
                    self.failed.push(listener);
                }
            }
        }
    }

    fn say(&mut self, key: usize, form: Form, message: OutboundMessage) {
        match form.frame(message) {
            Ok(frame) => self.write(key, &frame),
            Err(_) => self.failed.push(key),
        }
    }

    fn write(&mut self, key: usize, bytes: &[u8]) {
        if write(&self.clients[key].socket, bytes).is_err() {
            self.failed.push(key);
        }
    }

    /// Closes the sockets that failed, and withdraws where their clients listen.
    fn remove_failed(&mut self) {
        while let Some(key) = self.failed.pop() {
            let Some(Client { session: Some(session), .. }) = self.clients.try_remove(key) else { continue };
            for name in session.channels {
                if let Some(channel) = self.channels.get_mut(&name) {
                    for listeners in &mut channel.listeners {
                        listeners.retain(|&listener| listener != key);
                    }
                }
            }
        }
    }
}

/// Writes all bytes; with one system call, if the socket takes them.
fn write(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        match rustix::io::write(socket, bytes) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&PATIENCE))? == 0 {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
