//! Nodes among each other: what one asks the others, and how it is answered.
//!
//! Owns: [`Peers`], through which a node asks one node or all of them; the words of it ([`Ask`], [`Answer`]); [`Places`],
//! which says where on this node a session is; and [`Cards`], what each node shows of itself. Never does: touch sessions
//! or sockets; what is asked is carried out by whoever implements [`Respond`].
//!
//! Invariants:
//! - An ask is answered once, with an error if its node is gone, and within the time that the asker gives. Nobody waits
//!   for a node longer than its lease and a second.
//! - An ask that may have been sent is taken for sent: it ends with its answer or `RPC_TIMEOUT`, never with what would have it
//!   repeated. An answer is sent until it has gone, or nobody waits for it any more.
//! - Who no longer waits is no longer worked for: the other node is told. What is answered all the same is counted and
//!   dropped.
//! - A node asks itself without a letter, so that what concerns its own clients needs no broker.

mod cards;
mod exchange;
mod letter;
mod places;
mod posting;
#[cfg(test)]
mod tests;
mod yielding;

pub use cards::{CardSource, Cards, NodeCard, Offer};
pub use exchange::{Peers, Respond};
pub use letter::{
    Answer, Ask, CallAsk, CallTarget, Counts, DisconnectAsk, Outcome, SendAsk, SessionInfo, SessionsAnswer,
    SessionsAsk, SubscribeAnswer, SubscribeAsk, SurveyAnswers, SurveyAsk, Who, YieldAsk, who,
};
pub use places::{Opened, Place, Places};
