//! Subscribing and unsubscribing: a batch is done as a whole or not at all.

use std::collections::HashSet;

use streamgate_proto::v1::{
    Position as WirePosition, SubscribeAck, Subscription, UnsubscribeAck, outbound_message as out,
    start_from::Point,
};

use super::{
    Change, Effect, Effects, Held, Item, Now, Phase, ReplyTo, Session, SubscribeBatch, Wish,
    screen::{Grant, Wanted},
};
use crate::{
    broker::{BrokerError, From, PatternCursors, Start, Subscribed},
    channel::{Channel, Target},
    error::{ClientError, CloseCode, ErrorCode},
    policy::Limits,
    position::Position,
};

/// What a batch asks for.
#[derive(Default)]
pub(super) struct Plan {
    /// New subscriptions.
    pub items: Vec<Item>,
    /// Those that are held already, and change.
    pub changes: Vec<Change>,
    /// Those that are held already.
    pub known: Vec<Target>,
    /// By what those that are held are allowed from now on.
    renewed: Vec<(Target, Grant)>,
}

impl Session {
    /// Carries out a batch that the client may have; what it took back meanwhile is only acknowledged.
    pub(super) fn subscribe_allowed(
        &mut self,
        now: Now,
        reply: ReplyTo,
        wanted: Vec<Wanted>,
        withdrawn: Vec<Target>,
        fx: &mut Effects,
    ) {
        let Plan { items, changes, mut known, .. } = match self.plan(now, wanted, fx) {
            Some(Ok(plan)) => plan,
            Some(Err(error)) => return self.fail(now, reply, &error, fx),
            None => return,
        };
        known.extend(withdrawn);
        let batch = SubscribeBatch { reply, connecting: None, ticket: None, items, changes, known };
        if batch.items.is_empty() && batch.changes.is_empty() {
            self.subscribe_done(now, batch, &[], fx);
        } else {
            fx.push(Effect::Subscribe(Box::new(batch)));
        }
    }

    /// Checks a whole batch and takes slots for what is new; `None` if the session was closed over it.
    pub(super) fn plan(
        &mut self,
        now: Now,
        wanted: Vec<Wanted>,
        fx: &mut Effects,
    ) -> Option<Result<Plan, ClientError>> {
        let limits = self.settings.limits.load_full();
        let mut plan = Plan::default();
        let mut seen = HashSet::new();
        // What the first connect brings back is bounded by the number of subscriptions alone.
        let charged = !matches!(self.phase, Phase::Connecting(_)) || self.connects > 1;
        for Wanted { subscription, grant, .. } in wanted {
            let (target, wish) = match self.wish(&subscription, &grant) {
                Ok(wish) => wish,
                Err(error) => return Some(Err(error)),
            };
            if !seen.insert(target.clone()) {
                continue;
            }
            let ephemeral = subscription.ephemeral;
            let watch = self.extended && subscription.presence;
            let member = self.is_membership(&target, ephemeral);
            if let Some(held) = self.subscriptions.get(&target).filter(|held| held.open)
                && wish == Wish::Live
            {
                plan.renewed.push((target.clone(), grant));
                if (held.ephemeral, held.watch, held.member) == (ephemeral, watch, member) {
                    plan.known.push(target);
                    continue;
                }
                let slot = held.slot;
                // Others are told of it: a client that changes its mind all the time must not keep them busy.
                if held.member != member
                    && !self.channels.take(now.mono_ms, target.as_str(), true, limits.new_channels_per_minute)
                {
                    return Some(Err(too_many_channels(&limits)));
                }
                plan.changes.push(Change { slot, target, ephemeral, member, watch });
                continue;
            }
            if charged
                && !self.channels.take(now.mono_ms, target.as_str(), member, limits.new_channels_per_minute)
            {
                return Some(Err(too_many_channels(&limits)));
            }
            let (former, replaces) = (None, false);
            plan.items.push(Item {
                slot: 0,
                target,
                wish,
                ephemeral,
                member,
                watch,
                former,
                replaces,
                grant,
            });
        }
        let fresh = plan.items.iter().filter(|item| !self.subscriptions.contains_key(&item.target)).count();
        if self.subscriptions.len() + fresh > limits.subscriptions_per_client {
            let reason = format!("more than {} subscriptions", limits.subscriptions_per_client);
            self.close(CloseCode::ChannelLimit, &reason, fx);
            return None;
        }
        self.take_slots(&mut plan);
        Some(Ok(plan))
    }

    /// Notes what a plan that is sound will make of the subscriptions.
    fn take_slots(&mut self, plan: &mut Plan) {
        for item in &mut plan.items {
            item.slot = self.next_slot;
            self.next_slot += 1;
            let held = Held {
                slot: item.slot,
                ephemeral: item.ephemeral,
                watch: item.watch,
                member: item.member,
                grant: item.grant.clone(),
                open: false,
            };
            // Asked for again with a cursor: the old subscription ends, the new one replays.
            if let Some(former) = self.subscriptions.insert(item.target.clone(), held) {
                (item.former, item.replaces) = (Some(former.slot), true);
            }
        }
        for (target, grant) in plan.renewed.drain(..) {
            if let Some(held) = self.subscriptions.get_mut(&target) {
                held.grant = grant;
            }
        }
        // At once, for the next request to compare with: if the batch fails, the connection ends.
        for change in &plan.changes {
            if let Some(held) = self.subscriptions.get_mut(&change.target) {
                (held.ephemeral, held.watch, held.member) = (change.ephemeral, change.watch, change.member);
            }
        }
    }

    /// Checks one subscription: what it names and where it is to start.
    fn wish(&self, wanted: &Subscription, grant: &Grant) -> Result<(Target, Wish), ClientError> {
        let target = Target::parse(&wanted.channel)?;
        if !self.extended {
            return Ok((target, Wish::Live));
        }
        if wanted.queue.is_some() {
            return Err(ClientError::new(ErrorCode::NotSupported, "queue subscriptions are not offered"));
        }
        if wanted.presence
            && let Some(error) = self.unwatchable(&target)
        {
            return Err(error);
        }
        let from = wanted.from.as_ref().and_then(|from| from.point.as_ref());
        let from = match from {
            None | Some(Point::Start(false)) => None,
            Some(Point::Start(true)) => Some(From::Start),
            Some(Point::TimeMs(at)) => Some(From::TimeMs(*at)),
            Some(Point::Last(count)) => Some(From::Last(u64::from(*count))),
        };
        if !wanted.recover && from.is_none() {
            return Ok((target, Wish::Live));
        }
        if let Target::Channel(channel) = &target
            && !self.settings.policies.of(channel.as_str()).recovery
        {
            return Ok((target, Wish::Refused("the channel's policy allows no recovery")));
        }
        if grant.past_refused {
            return Ok((target, Wish::Refused("the client may not read the channel's history")));
        }
        let cursors = if wanted.recover { cursors(&target, wanted)? } else { None };
        let start = match (cursors, from) {
            (Some(cursors), _) => Start::After(cursors),
            (None, Some(from)) => Start::From(from),
            (None, None) => Start::Live,
        };
        Ok((target, Wish::Past(start)))
    }

    /// Acknowledges a batch; the shard starts the replays after the effects of this.
    pub fn subscribe_done(
        &mut self,
        now: Now,
        batch: SubscribeBatch,
        answers: &[Subscribed],
        fx: &mut Effects,
    ) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        for item in &batch.items {
            if let Some(held) = self.subscriptions.get_mut(&item.target).filter(|held| held.slot == item.slot)
            {
                held.open = true;
            }
        }
        let mut acked: Vec<_> =
            batch.items.iter().zip(answers).map(|(item, answer)| Self::acked(item, answer)).collect();
        let held = batch.changes.iter().map(|change| &change.target).chain(&batch.known);
        acked.extend(held.map(|target| {
            let held = self.subscriptions.get(target);
            Subscription {
                channel: target.as_str().to_owned(),
                ephemeral: held.is_some_and(|held| held.ephemeral),
                presence: held.is_some_and(|held| held.watch),
                ..Subscription::default()
            }
        }));
        // The first of them to end may be one of these.
        let ends = acked.iter().any(|acked| self.ends(&acked.channel));
        match batch.connecting {
            Some(connecting) => self.connected(now, *connecting, acked, fx),
            None => {
                let ack = SubscribeAck { subscriptions: acked };
                self.answer(now, batch.reply, out::Envelope::SubscribeAck(ack), fx);
                fx.extend(batch.ticket.map(|ticket| Effect::Told { ticket, outcome: Ok(()) }));
                if !batch.items.is_empty() || !batch.changes.is_empty() {
                    self.save(now, fx);
                }
                if ends {
                    fx.push(Effect::Opened);
                }
            }
        }
    }

    /// Whether the subscription ends with a token of its own.
    fn ends(&self, name: &str) -> bool {
        let held = Target::parse(name).ok().and_then(|target| self.subscriptions.get(&target));
        held.is_some_and(|held| held.grant.token.is_some())
    }

    /// Takes back a whole batch.
    pub fn subscribe_failed(
        &mut self,
        now: Now,
        batch: SubscribeBatch,
        error: &BrokerError,
        fx: &mut Effects,
    ) {
        self.subscriptions.retain(|_, held| !batch.items.iter().any(|item| item.slot == held.slot));
        fx.push(Effect::Unsubscribe(batch.items.iter().map(|item| item.slot).collect()));
        match batch.connecting {
            Some(connecting) => {
                let reply = connecting.into_reply();
                self.connect_failed(now, reply, &error.into(), fx);
            }
            None => match batch.ticket {
                Some(ticket) => fx.push(Effect::Told { ticket, outcome: Err(error.into()) }),
                None => self.fail(now, batch.reply, &error.into(), fx),
            },
        }
        // All or none: but what was replaced is gone, and a change cannot be taken back. The client comes back and
        // recovers it.
        if batch.items.iter().any(|item| item.replaces) || !batch.changes.is_empty() {
            self.close(CloseCode::NotAvailable, "a subscription could not be renewed", fx);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Now,
        reply: ReplyTo,
        wanted: Vec<Subscription>,
        fx: &mut Effects,
    ) {
        let targets: Result<Vec<_>, _> = wanted.iter().map(|one| Target::parse(&one.channel)).collect();
        let targets = match targets {
            Ok(targets) => targets,
            Err(error) => return self.fail(now, reply, &error.into(), fx),
        };
        let slots: Vec<_> = targets
            .iter()
            .filter_map(|target| {
                self.withdraw(target);
                self.subscriptions.remove(target)
            })
            .map(|held| held.slot)
            .collect();
        let changed = !slots.is_empty();
        if changed {
            fx.push(Effect::Unsubscribe(slots));
        }
        let subscriptions = targets
            .iter()
            .map(|target| Subscription { channel: target.as_str().to_owned(), ..Subscription::default() })
            .collect();
        self.answer(now, reply, out::Envelope::UnsubscribeAck(UnsubscribeAck { subscriptions }), fx);
        if changed {
            self.save(now, fx);
        }
    }

    /// How a subscription is acknowledged: an extended client that starts live learns where that is, so that it can
    /// recover from there.
    fn acked(item: &Item, answer: &Subscribed) -> Subscription {
        let mut acked = Subscription {
            channel: item.target.as_str().to_owned(),
            ephemeral: item.ephemeral,
            presence: item.watch,
            ..Subscription::default()
        };
        if matches!(item.wish, Wish::Past(_)) {
            return acked;
        }
        match &item.target {
            Target::Channel(_) => acked.cursor = answer.positions.first().map(|(_, at)| wire_position(*at)),
            Target::Pattern(pattern) => {
                acked.cursors = answer
                    .positions
                    .iter()
                    .map(|(name, at)| (name.as_str().to_owned(), wire_position(*at)))
                    .collect();
                if let Some(marker) = &answer.marker {
                    let marker = WirePosition { epoch: marker.clone(), offset: 0 };
                    acked.cursors.insert(pattern.as_str().to_owned(), marker);
                }
            }
        }
        acked
    }
}

fn too_many_channels(limits: &Limits) -> ClientError {
    let text =
        format!("more than {} new channels, joins or leaves in a minute", limits.new_channels_per_minute);
    ClientError::new(ErrorCode::RateLimited, text)
}

/// The wire form of a position.
pub(crate) fn wire_position(position: Position) -> WirePosition {
    WirePosition { epoch: position.epoch.to_string(), offset: position.offset }
}

/// The cursors of a recovering subscription; `None` if it brings none. The marker of a pattern travels under the
/// pattern's own name, which is never the name of a channel.
fn cursors(target: &Target, wanted: &Subscription) -> Result<Option<PatternCursors>, ClientError> {
    let mut cursors = PatternCursors::default();
    match target {
        Target::Channel(channel) => {
            let Some(cursor) = &wanted.cursor else { return Ok(None) };
            cursors.channels.insert(channel.clone(), Position::from_wire(&cursor.epoch, cursor.offset));
        }
        Target::Pattern(pattern) => {
            if wanted.cursors.is_empty() {
                return Ok(None);
            }
            for (name, cursor) in &wanted.cursors {
                if name == pattern.as_str() {
                    cursors.marker = Some(cursor.epoch.clone());
                    continue;
                }
                let channel = Channel::parse(name)?;
                if !pattern.matches(name) {
                    let text = format!("a cursor names {name:?}, which {pattern} does not match");
                    return Err(ClientError::bad_request(text));
                }
                cursors.channels.insert(channel, Position::from_wire(&cursor.epoch, cursor.offset));
            }
        }
    }
    Ok(Some(cursors))
}
