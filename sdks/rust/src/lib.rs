//! Client of Streamgate, a realtime gateway: subscriptions that survive reconnects without losing messages, publishes
//! that are retried without happening twice.
//!
//! ```no_run
//! use streamgate_client::{Client, CloudEventBuilder, Event, PublishOptions, StartAt, SubscribeOptions};
//!
//! # async fn example() -> Result<(), streamgate_client::Error> {
//! // Two nodes of one gateway: when one is gone, the other takes over.
//! let client = Client::builder("127.0.0.1:9080").node("127.0.0.1:9180").connect().await?;
//!
//! let options = SubscribeOptions::new("room.*").start_at(StartAt::Start);
//! let mut room = client.subscribe(options).await?;
//!
//! let event = CloudEventBuilder::new("note.added").source("/phone/7").text("hello").build();
//! let ack = client.publish("room.blue", event, PublishOptions::default()).await?;
//! println!("stored at {:?}", ack.position);
//!
//! while let Some(event) = room.next().await {
//!     match event {
//!         Event::Message(message) => println!("{}: {:?}", message.channel, message.event.data),
//!         Event::Gap(gap) => println!("messages of {} are missing: {}", gap.channel, gap.reason),
//!         Event::Closed(error) => return Err(error),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//! - A [`Subscription`] yields the messages of a channel with history in order, none twice and none missing; where that is
//!   not possible, it says so with [`Event::Gap`] or [`Event::Recovered`]. To that end it recovers from its cursors after
//!   every reconnect, at whichever node.
//! - [`Client::publish`] retries with one idempotency key until a deadline. An error that leaves the outcome open says so.
//! - A [`PresenceView`] knows exactly who is on a channel, also after it was away.
//! - [`Client::call`] is sent once and never again; where it is not known whether it was carried out, the error says so.
//! - What [`Client::serve`] offers is offered again after every reconnect, before the client says that it is connected.
//! - What the server gives a client unasked (channels of its token, what backends publish to its session) is kept, and comes by
//!   [`Client::unasked`].
//! - Nothing is dropped when a subscriber is slow: the client stops reading, and if the server then gives it up, it
//!   recovers what it missed. See [`SubscribeOptions::capacity`].
//!
//! # For backends
//! With the feature `server`, the module `server` has the server API, hooks and the minting of tokens.
//!
//! # Layers
//! `engine` is the protocol as a pure state machine, `transport` moves frames, `driver` is the one task that joins the
//! two; [`Client`] and [`Subscription`] are handles to it.

mod backoff;
mod builder;
mod call;
mod client;
mod cloud_event;
mod driver;
mod engine;
mod error;
mod event;
mod options;
mod position;
mod presence;
mod serve;
#[cfg(feature = "server")]
pub mod server;
mod status;
mod subscription;
mod target;
mod transport;
mod unasked;
mod worker;

pub use backoff::Backoff;
pub use builder::Builder;
pub use call::{CallOptions, SurveyAnswer, SurveyResult};
pub use client::{Client, HistoryPage, PublishAck};
pub use cloud_event::CloudEventBuilder;
pub use error::Error;
pub use event::{Event, Gap, GapReason, Message, PresenceChange, Publisher, Recovered};
pub use options::{DEFAULT_CAPACITY, HistoryOptions, PublishOptions, StartAt, SubscribeOptions};
pub use position::{Cursors, Position, PositionError};
pub use presence::PresenceView;
pub use serve::{Call, CallError, ServeOptions, Serving};
pub use status::Status;
pub use streamgate_proto as proto;
pub use streamgate_proto::cloudevents::CloudEvent;
pub use subscription::Subscription;
pub use target::{is_pattern, matches};
pub use transport::Encoding;
pub use unasked::{Unasked, UnaskedEvent};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
