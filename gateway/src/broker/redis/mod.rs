//! The Redis broker.
//!
//! Transport layer: one [`Connection`] is one TCP connection that is opened, watched and thrown away; a [`Link`] keeps
//! one open and publishes it. Nothing here ever sends a command twice by itself; the one exception is a script that
//! Redis had forgotten, which was not executed.

mod boot;
mod client;
mod command;
mod connection;
mod error;
mod hello;
mod link;
mod options;
mod reply;
mod script;

pub use boot::BootReport;
pub use command::{Command, CommandName};
pub use connection::Connection;
pub use error::{CallError, ConnectError};
pub use hello::{Hello, Product, ServerVersion};
pub use link::{Link, LinkStatus};
pub use options::{InvalidAddress, RedisOptions};
pub use reply::{RedisError, Reply, ReplyError};
pub use script::Script;
