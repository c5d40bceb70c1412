//! One subscription: what to ask the server for, and what of its messages to hand on.

use std::time::Instant;

use streamgate_proto::v1;
use tokio::sync::oneshot;

use super::{Effect, Effects, Return, SubscriptionId, held::Held};
use crate::{
    error::Error,
    event::{Event, Gap, GapReason, Message},
    options::{StartAt, SubscribeOptions},
    position::{Cursors, Position},
    target::is_pattern,
};

/// A new subscription and who waits for it.
#[derive(Debug)]
pub(crate) struct Subscribing {
    pub(crate) id: SubscriptionId,
    pub(crate) options: SubscribeOptions,
    /// Told when the server has acknowledged or refused.
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// What a subscriber gets.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are the large one")]
#[derive(Debug)]
pub(crate) enum Delivery {
    Event(Event),
    /// Where live begins: replaces the subscriber's cursors.
    Cursors(Cursors),
    /// Nothing follows.
    End(Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server does not know of it on this connection.
    Idle,
    /// The request with this id asks for it.
    Asked { request: u64, recovering: bool },
    /// Replay goes on until `recover_complete`.
    Recovering,
    /// Messages pass through.
    Live,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) options: SubscribeOptions,
    pub(super) phase: Phase,
    /// Was live before, on any connection.
    pub(super) settled: bool,
    /// After a refusal that may pass: when to ask again.
    pub(super) not_before: Option<Instant>,
    cursors: Cursors,
    held: Held,
    /// The end of a replay that waits for the recovery's own end, see [`Self::replayed`].
    unproven: Vec<Message>,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Subscription {
    pub(super) fn new(subscribing: Subscribing) -> Self {
        let Subscribing { id, options, reply } = subscribing;
        Self {
            id,
            cursors: options.cursors.clone(),
            options,
            phase: Phase::Idle,
            settled: false,
            not_before: None,
            held: Held::default(),
            unproven: Vec::new(),
            reply: Some(reply),
        }
    }

    /// What to ask for, and whether that will be answered by a recovery.
    pub(super) fn wire(&self, extended: bool) -> (v1::Subscription, bool) {
        let options = &self.options;
        let mut wire = v1::Subscription {
            channel: options.target.clone(),
            ephemeral: options.ephemeral,
            token: options.token.clone(),
            ..v1::Subscription::default()
        };
        if !extended {
            return (wire, false);
        }
        wire.presence = options.presence;
        wire.queue.clone_from(&options.queue);
        if options.queue.is_some() {
            // The server redelivers what was not acknowledged.
            return (wire, false);
        }
        if self.can_use_cursors() {
            wire.recover = true;
            if is_pattern(&options.target) {
                wire.cursors =
                    self.cursors.iter().map(|(name, at)| (name.to_owned(), at.clone().into())).collect();
            } else {
                wire.cursor = self.cursors.get(&options.target).cloned().map(v1::Position::from);
            }
        } else if !self.settled {
            wire.from = options.start.to_wire();
        }
        let recovering = wire.recover || wire.from.is_some();
        (wire, recovering)
    }

    /// A pattern's first replay that was cut short starts again: the cursors of the channels seen so far do not tell of
    /// those that were still to come. What is replayed twice is recognised by the same cursors.
    fn can_use_cursors(&self) -> bool {
        let options = &self.options;
        let whole = !is_pattern(&options.target) || options.start == StartAt::Live || self.settled;
        options.recover && whole && !self.cursors.is_empty()
    }

    pub(super) fn asked(&mut self, request: u64, recovering: bool) {
        self.phase = Phase::Asked { request, recovering };
        self.not_before = None;
        self.held.clear();
        self.unproven.clear();
    }

    pub(super) fn lost(&mut self) {
        self.phase = Phase::Idle;
        self.not_before = None;
        self.held.clear();
        self.unproven.clear();
    }

    pub(super) fn is_recovering(&self) -> bool {
        matches!(self.phase, Phase::Recovering | Phase::Asked { recovering: true, .. })
    }

    /// The server has accepted; `entry` says where live begins, unless it recovers.
    pub(super) fn acked(&mut self, entry: Option<v1::Subscription>, extended: bool, effects: &mut Effects) {
        let Phase::Asked { recovering, .. } = self.phase else { return };
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Ok(()));
        }
        if recovering && extended {
            self.phase = Phase::Recovering;
            return;
        }
        let begins = entry.map(|entry| self.begins(entry)).unwrap_or_default();
        let position = begins.get(&self.options.target).cloned();
        if !begins.is_empty() {
            self.cursors = begins;
            effects.push_back(Effect::Deliver(self.id, Delivery::Cursors(self.cursors.clone())));
        }
        // It was away, and what was published meanwhile is not asked for.
        if (self.settled || recovering) && self.options.queue.is_none() {
            let channel = self.options.target.clone();
            let gap = Gap { channel, position, reason: GapReason::NotRecovered };
            self.deliver(Event::Gap(gap), effects);
        }
        self.go_live(effects);
    }

    fn begins(&self, entry: v1::Subscription) -> Cursors {
        let exact = entry.cursor.map(|at| (self.options.target.clone(), Position::from(at)));
        entry.cursors.into_iter().map(|(name, at)| (name, at.into())).chain(exact).collect()
    }

    /// The server has refused: true if that is the end of it.
    pub(super) fn refused(
        &mut self,
        error: &Error,
        retry_at: Option<Instant>,
        effects: &mut Effects,
    ) -> bool {
        let limited = matches!(error, Error::Server { code, .. } if code == "RATE_LIMITED");
        let passing = error.is_retryable() || (self.settled && limited);
        if retry_at.is_some() && passing {
            self.phase = Phase::Idle;
            self.not_before = retry_at;
            return false;
        }
        self.end(error, effects);
        true
    }

    /// Tells whoever waits or listens that it is over.
    pub(super) fn end(&mut self, error: &Error, effects: &mut Effects) {
        match self.reply.take() {
            Some(reply) => {
                let _ = reply.send(Err(error.clone()));
            }
            None => effects.push_back(Effect::Deliver(self.id, Delivery::End(error.clone()))),
        }
    }

    /// A message of a matching channel; `replay_is_live`: no subscription recovers, so it can only be meant for those that
    /// are live.
    pub(super) fn message(&mut self, message: Message, replay_is_live: bool, effects: &mut Effects) {
        match self.phase {
            Phase::Idle => {}
            // Belongs to others, but may also come after this one's beginning.
            Phase::Asked { .. } if message.replay || message.position.is_none() => {}
            Phase::Asked { .. } => self.held.push(message),
            Phase::Recovering if message.replay => self.replayed(message, effects),
            Phase::Recovering if message.position.is_none() => self.hand_on(message, effects),
            Phase::Recovering => self.held.push(message),
            Phase::Live if message.replay && !replay_is_live => {}
            Phase::Live => self.hand_on(message, effects),
        }
    }

    /// A gap of a channel's recovery is told at its end. So what follows the place where it may be waits for that: otherwise
    /// a connection that breaks in between, or a subscriber that leaves, would go on behind a gap that nobody has told.
    /// Offsets that follow each other in one epoch prove that nothing is missing; one that is left out may have expired. What waits is a part of one history, and
    /// only after a replay has changed its epoch or skipped something. A pattern's gaps are told by themselves.
    fn replayed(&mut self, message: Message, effects: &mut Effects) {
        if !self.unproven.is_empty() || self.may_follow_a_gap(&message) {
            self.unproven.push(message);
        } else {
            self.hand_on(message, effects);
        }
    }

    fn may_follow_a_gap(&self, message: &Message) -> bool {
        let last = self.cursors.get(&message.channel);
        !is_pattern(&self.options.target)
            && last.zip(message.position.as_ref()).is_some_and(|(last, next)| {
                let continues = next.epoch == last.epoch && last.offset.checked_add(1) == Some(next.offset);
                next.is_after(last) && !continues
            })
    }

    /// Hands on what waited for the end of the recovery, behind the gap that it told.
    fn prove(&mut self, gap: Option<&GapReason>, effects: &mut Effects) {
        let unproven = std::mem::take(&mut self.unproven);
        let first = unproven.first().and_then(|message| message.position.clone());
        // What was cut off is missing behind the replay.
        if let Some((reason, first)) = gap.filter(|reason| **reason != GapReason::Truncated).zip(first) {
            let position = Position { offset: first.offset.saturating_sub(1), ..first };
            let (channel, position) = (self.options.target.clone(), Some(position));
            self.deliver(Event::Gap(Gap { channel, position, reason: reason.clone() }), effects);
        }
        for message in unproven {
            self.hand_on(message, effects);
        }
    }

    /// The recovery is over.
    pub(super) fn recovered(&mut self, recovered: crate::event::Recovered, effects: &mut Effects) {
        if self.phase != Phase::Recovering {
            return;
        }
        self.prove(recovered.gap.as_ref(), effects);
        let target = &self.options.target;
        if let Some(position) = &recovered.position {
            if is_pattern(target) {
                self.cursors.insert(target.clone(), position.clone());
            } else {
                self.cursors.advance(target, position);
            }
        }
        self.deliver(Event::Recovered(recovered), effects);
        self.go_live(effects);
    }

    /// Continuity was lost in `gap.channel`, which matches.
    pub(super) fn gap(&mut self, gap: Gap, effects: &mut Effects) {
        if !matches!(self.phase, Phase::Recovering | Phase::Live) {
            return;
        }
        // What is still to be handed on moves the cursor itself.
        if let Some(position) = gap.position.as_ref().filter(|_| self.unproven.is_empty()) {
            self.cursors.advance(&gap.channel, position);
        }
        self.deliver(Event::Gap(gap), effects);
    }

    pub(super) fn deliver(&self, event: Event, effects: &mut Effects) {
        effects.push_back(Effect::Deliver(self.id, Delivery::Event(event)));
    }

    fn go_live(&mut self, effects: &mut Effects) {
        self.phase = Phase::Live;
        self.settled = true;
        let (messages, overflowed) = self.held.take();
        for message in messages {
            self.hand_on(message, effects);
        }
        if overflowed {
            let text = format!("{} must recover what came while it recovered", self.options.target);
            effects.push_back(Effect::Leave { error: Error::ConnectionLost(text), back: Return::AtOnce });
        }
    }

    fn hand_on(&mut self, message: Message, effects: &mut Effects) {
        let known = message.position.as_ref().is_some_and(|at| !self.cursors.advance(&message.channel, at));
        if !known {
            self.deliver(Event::Message(message), effects);
        }
    }
}
