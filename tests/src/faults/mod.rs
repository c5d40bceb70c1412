//! A random schedule of faults, the load that it disturbs, and the run that ends with the history checker.
//!
//! Owns: everything that one run needs: a Redis, nodes as processes, relays in front of and behind them, clients. Must
//! never decide anything by a clock or a random number of its own: what happens when is in the [`plan`], which a seed
//! determines. (What the faults hit is not determined: processes run as they like.)
//!
//! - [`plan::Plan`]: which fault at what time. [`relay::Relay`]: TCP between two parties, cut, delayed or swallowed.
//! - [`stage::Stage`]: Redis and nodes. `inject` carries a fault out on it.
//! - [`load::Load`]: publishers and subscribers, who write down what they see.
//! - [`members::Members`]: who comes, goes and moves, and who is told of it.
//! - [`run::run`]: all of it, from the seed to the verdict.
//!
//! Faults of other topologies (a Sentinel failover, a slot that moves) belong into [`plan::Fault`] and `inject`; the stage
//! then starts that topology in place of its one server.

mod inject;
pub mod load;
pub mod members;
pub mod plan;
pub mod relay;
pub mod rng;
pub mod run;
pub mod stage;
