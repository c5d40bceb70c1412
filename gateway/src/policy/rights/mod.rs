//! Rights: which client may do what on which channels.
//!
//! Owns: the table of rules, [`Rights`], and how it is read; the [`Arbiter`] that decides what rules leave to a backend. Never
//! does: know sessions, wait, or look at tokens (that is `auth`).
//!
//! Order: a rule that denies wins, wherever it stands; then any rule, or claim of the client's token, that allows; then the
//! hook, if a rule leaves it to one; else the answer is no. The order of the file means nothing.
//!
//! Invariants:
//! - An action that no rule names has its default: `subscribe`, `publish`, `presence`, `history` and `rpc` are for anybody,
//!   `survey` and `serve` for nobody. One rule that names it, and the default is gone.
//! - A pattern is allowed only if one rule or claim that allows covers all of it, and denied if one that denies overlaps it.
//! - A channel that is guarded ([`Rights::guarding`]) is open only by rules that name exactly it, and closed for publishes.
//! - A lookup sees one whole table; a reload swaps it at once.

mod arbiter;
mod guarded;
mod rule;
mod table;

pub use arbiter::{Arbiter, Asked};
pub use rule::{Action, Actions, Effect, Rule, RuleError, RulePattern, USER_ID, Who};
pub use table::{Rights, Subject, Verdict};
