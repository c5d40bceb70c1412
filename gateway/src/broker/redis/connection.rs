//! An open connection, as the rest of the broker sees it.

use std::time::Duration;

use bytes::Bytes;

use super::{
    client::{Caller, Wire},
    clock,
    command::{Command, CommandName},
    error::{CallError, ConnectError},
    hello::Hello,
    locate::Address,
    options::RedisOptions,
    reply::Reply,
};

/// One open connection. Share it in an `Arc`; dropping the last one closes the socket.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    address: Address,
    hello: Hello,
    generation: u64,
}

impl Connection {
    /// Connects to `address`, authenticates, selects the database and reads who the server is; what else it needs is
    /// in `options`. `generation` is the caller's number for this connection. Must be called within a Tokio runtime.
    ///
    /// Safe to cancel: what was opened so far is closed.
    ///
    /// # Errors
    /// [`ConnectError`]; a server that is not a master is refused.
    pub async fn open(
        options: &RedisOptions,
        address: &Address,
        generation: u64,
    ) -> Result<Self, ConnectError> {
        let wire = Wire::open(options, address).await?;
        let hello = greet(wire.caller(), &address.to_string(), options.connect_timeout).await?;
        Ok(Self { wire, address: address.clone(), hello, generation })
    }

    /// The server that it leads to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks whether the server owns the slot of `key` (Redis Cluster), whether or not the key exists.
    ///
    /// # Errors
    /// [`ConnectError::NotOwner`] with what it said instead.
    pub(super) async fn must_own(&self, key: Bytes, deadline: Duration) -> Result<(), ConnectError> {
        let address = self.address.to_string();
        match self.call(Command::new(CommandName::Exists).arg(key), deadline).await {
            Ok(_) => Ok(()),
            // The slot is on its way to another node and this key, which need not exist, has none here: still the owner.
            Err(CallError::Server(error)) if error.code == "ASK" => Ok(()),
            Err(CallError::Server(error)) if error.code == "NOPERM" || error.code == "NOAUTH" => {
                Err(ConnectError::Denied { address, reason: error.to_string() })
            }
            Err(CallError::Server(error)) => {
                Err(ConnectError::NotOwner { address, reason: error.to_string() })
            }
            Err(CallError::NeverSent(reason) | CallError::MaybeExecuted(reason)) => {
                Err(ConnectError::Unreachable { address, reason })
            }
        }
    }

    /// What the server said on this connection before it was handed out.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The number given by who opened it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Queues `command` now and answers with its reply. Commands are written in the order of these calls; the future
    /// only waits. It may be dropped: the command then still runs, its reply is discarded.
    ///
    /// If the reply does not come within `deadline` the connection is ended: nothing on it can be trusted any more,
    /// and everything else under way on it fails as [`CallError::MaybeExecuted`].
    pub fn call(
        &self,
        command: Command,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        self.wire.caller().call(command, deadline)
    }

    /// Calls commands on this connection without keeping it open.
    pub(super) fn caller(&self) -> Caller {
        self.wire.caller().clone()
    }

    /// Waits until the connection has ended and answers why. Safe to cancel.
    pub async fn closed(&self) -> String {
        self.wire.caller().closed().await.to_string()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.wire.caller().closed_reason().is_some()
    }

    /// Ends the connection: closes the socket, fails what is under way.
    pub fn end(&self, reason: &str) {
        self.wire.caller().end(reason);
    }
}

/// Asks who the server is; the questions travel together.
async fn greet(caller: &Caller, address: &str, timeout: Duration) -> Result<Hello, ConnectError> {
    let asked_ms = clock::unix_ms();
    let info = |section: &'static str| caller.call(Command::new(CommandName::Info).arg(section), timeout);
    let (replication, server) = (info("replication"), info("server"));
    let role = caller.call(Command::new(CommandName::Role), timeout);
    let time = caller.call(Command::new(CommandName::Time), timeout);
    let id = caller.call(Command::new(CommandName::Client).arg("ID"), timeout);

    let failed = |error: CallError| match error {
        CallError::Server(error) if error.code == "NOPERM" || error.code == "NOAUTH" => {
            ConnectError::Denied { address: address.to_owned(), reason: error.to_string() }
        }
        CallError::Server(error) => {
            ConnectError::Unusable { address: address.to_owned(), reason: error.to_string() }
        }
        CallError::NeverSent(reason) | CallError::MaybeExecuted(reason) => {
            ConnectError::Unreachable { address: address.to_owned(), reason }
        }
    };
    let replication = replication.await.map_err(failed)?;
    let server = server.await.map_err(failed)?;
    let role = match role.await {
        Ok(reply) => first_word(&reply),
        // An ACL may keep ROLE back; INFO replication says the same, in one reply with the replication id.
        Err(CallError::Server(error)) if error.code == "NOPERM" => None,
        Err(error) => return Err(failed(error)),
    };
    // Kept back by an ACL as well: then the clocks are taken to agree, and whoever follows this connection cannot end it
    // at the server.
    let client_id = id.await.ok().and_then(|reply| reply.as_u64().ok()).unwrap_or(0);
    let time_ms = time.await.ok().and_then(|reply| milliseconds(&reply));
    let ahead_ms = time_ms.map_or(0, |time_ms| clock::ahead_ms(time_ms, asked_ms, clock::unix_ms()));

    let text = |reply: &Reply| reply.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned());
    let unusable = |reason: String| ConnectError::Unusable { address: address.to_owned(), reason };
    let mut hello = text(&replication)
        .and_then(|replication| Ok((replication, text(&server)?)))
        .map_err(|error| unusable(format!("INFO: {error}")))
        .and_then(|(replication, server)| {
            Hello::from_info(&replication, &server, ahead_ms).map_err(unusable)
        })?;
    hello.client_id = client_id;
    let role = role.unwrap_or_else(|| hello.role.clone());
    if role != "master" || hello.role != "master" {
        return Err(ConnectError::NotMaster { address: address.to_owned(), role });
    }
    Ok(hello)
}

/// The first element of `ROLE`'s array.
fn first_word(reply: &Reply) -> Option<String> {
    reply.as_array().ok()?.first()?.as_str().ok().map(str::to_owned)
}

/// `TIME`: seconds and microseconds.
fn milliseconds(reply: &Reply) -> Option<u64> {
    match reply.as_array().ok()? {
        [seconds, micros] => Some(seconds.as_u64().ok()? * 1000 + micros.as_u64().ok()? / 1000),
        _ => None,
    }
}
