//! The Redis broker (DESIGN section 5).
//!
//! Owns: keys and scripts in Redis, the node's inboxes, and one task for each partition. Never does: know of sessions or
//! sockets. Nothing here ever sends a command twice by itself; the one exception is a script that Redis had forgotten,
//! which was not executed.
//!
//! - Transport: one [`Connection`] is one TCP connection that is opened, watched and thrown away; a [`Link`] keeps one
//!   open and publishes it, where [`Locate`] says; `topology` says which link leads to a partition, `cluster` where the
//!   slots of a Cluster are.
//! - In Redis: `keys` names everything, `scripts/*.lua` do each step at once; `entry` and `range` read their answers.
//! - A node: `supervision` boots it, `reader` reads its inboxes, `partition` holds what it knows of channels, `queues` its
//!   consumers, `node`
//!   is the [`Broker`](crate::broker::Broker).

mod appetite;
mod beliefs;
mod boot;
mod catalogue;
mod client;
mod clock;
mod cluster;
mod combiner;
mod command;
mod connection;
mod continuity;
mod deployment;
mod entry;
mod error;
mod examine;
mod formers;
mod hello;
mod hold;
mod identity;
mod inspection;
pub mod keys;
mod link;
mod locate;
mod marker;
mod node;
mod options;
mod pages;
mod paging;
mod partition;
mod publish_args;
mod queues;
mod range;
mod reader;
mod replay_cache;
mod reply;
mod script;
pub mod scripts;
mod sentinel;
mod sinks;
mod supervision;
mod tls;
mod topology;

pub use boot::BootReport;
pub use command::{Command, CommandName};
pub use connection::Connection;
pub use deployment::{BootError, DATA_VERSION};
pub use error::{CallError, ConnectError};
pub use examine::{Examination, examine};
pub use hello::{Hello, Product, ServerVersion};
pub use link::{Link, LinkStatus};
pub use locate::{Address, Fixed, Locate};
pub use node::RedisBroker;
pub use options::{InvalidAddress, RedisOptions};
pub use publish_args::{Believed, PublishArgs, Setting};
pub use reply::{RedisError, Reply, ReplyError};
pub use script::Script;
pub use sentinel::SentinelOptions;
pub use tls::TlsOptions;
