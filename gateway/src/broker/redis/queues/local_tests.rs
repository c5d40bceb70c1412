//! What a node asks for in its turns.

use tokio::sync::oneshot::{self, Receiver};

use super::*;
use crate::{
    broker::queue::{Group, QueueName},
    channel::Channel,
};

const VISIBLE: Duration = Duration::from_secs(30);

fn queue() -> QueueName {
    QueueName { channel: Channel::parse("jobs").unwrap(), group: Group::default() }
}

fn consume(number: u64, session: &str, credit: u32) -> Consume {
    Consume { queue: queue(), consumer: ConsumerId(number), session: session.to_owned(), credit }
}

fn id(job: &str) -> DeliveryId {
    DeliveryId { queue: queue(), job: job.to_owned(), attempt: 1 }
}

/// A queue with these consumers, whose beginning Redis knows of; nobody asks.
fn begun(consumers: &[(u64, &str, u32)], now: Instant) -> LocalQueue {
    let mut local = LocalQueue::default();
    for (number, session, credit) in consumers {
        local.begin(SinkId(0), consume(*number, session, *credit), oneshot::channel().0);
    }
    let turn = local.next_turn(now).unwrap();
    let done = vec![Settled::Done; turn.steps.len()];
    assert!(local.finish(turn, &done, &[], None, VISIBLE, now).is_empty());
    local
}

fn wants(turn: &Turn) -> Vec<(u64, usize)> {
    let mut wants: Vec<_> = turn.wants.iter().map(|want| (want.consumer.0, want.jobs)).collect();
    wants.sort_unstable();
    wants
}

fn taken(jobs: &[(u64, &str)]) -> Vec<(ConsumerId, String)> {
    jobs.iter().map(|(consumer, job)| (ConsumerId(*consumer), (*job).to_owned())).collect()
}

fn settle(local: &mut LocalQueue, job: &str, how: Settle) -> Receiver<Result<Vec<Settled>, BrokerError>> {
    let (reply, answer) = oneshot::channel();
    local.settle("s1", vec![(id(job), how)], reply);
    answer
}

#[test]
fn a_turn_asks_for_as_much_as_there_is_credit_and_not_again_before_somebody_tells() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 2), (2, "s2", 1)], now);
    assert!(local.next_turn(now).is_none(), "there was nothing a moment ago");
    local.wake();
    let turn = local.next_turn(now).unwrap();
    assert_eq!(wants(&turn), [(1, 2), (2, 1)]);
    assert!(local.next_turn(now).is_none(), "one call at a time");
    local.finish(turn, &[], &taken(&[(1, "a"), (2, "b")]), None, VISIBLE, now);
    // One of three did not come: there is no more.
    assert!(local.next_turn(now).is_none());
    assert!(local.next_look().unwrap() <= now + LOOK);
    let turn = local.next_turn(now + LOOK).unwrap();
    assert_eq!(wants(&turn), [(1, 1)]);
    local.finish(turn, &[], &taken(&[(1, "c")]), None, VISIBLE, now + LOOK);
    // All that was asked for came, but there is no credit left.
    assert!(local.next_turn(now + LOOK * 2).is_none());
}

#[test]
fn an_ack_and_the_job_that_takes_its_place_are_one_call() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 1)], now);
    local.wake();
    let turn = local.next_turn(now).unwrap();
    local.finish(turn, &[], &taken(&[(1, "a")]), None, VISIBLE, now);
    let mut answer = settle(&mut local, "a", Settle::Ack);
    let turn = local.next_turn(now).unwrap();
    assert_eq!((turn.steps.len(), wants(&turn)), (1, vec![(1, 1)]));
    local.finish(turn, &[Settled::Done], &taken(&[(1, "b")]), None, VISIBLE, now);
    assert_eq!(answer.try_recv().unwrap(), Ok(vec![Settled::Done]));
}

#[test]
fn a_job_whose_time_is_over_takes_no_credit_unless_it_was_extended() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 2)], now);
    local.wake();
    let turn = local.next_turn(now).unwrap();
    local.finish(turn, &[], &taken(&[(1, "a"), (1, "b")]), None, VISIBLE, now);
    let by = Some(VISIBLE * 2);
    let _answer = settle(&mut local, "a", Settle::Extend { by });
    let turn = local.next_turn(now).unwrap();
    assert_eq!(wants(&turn), []);
    local.finish(turn, &[Settled::Done], &[], None, VISIBLE, now);
    assert_eq!(wants(&local.next_turn(now + VISIBLE).unwrap()), [(1, 1)]);
}

#[test]
fn what_was_settled_through_another_node_is_free_here() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 1)], now);
    local.wake();
    let turn = local.next_turn(now).unwrap();
    local.finish(turn, &[], &taken(&[(1, "a")]), None, VISIBLE, now);
    local.wake();
    assert!(local.next_turn(now).is_none());
    local.settled_elsewhere("s1", "a");
    local.wake();
    assert_eq!(wants(&local.next_turn(now).unwrap()), [(1, 1)]);
}

#[test]
fn a_job_for_a_consumer_that_has_ended_is_told() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 2)], now);
    local.wake();
    let turn = local.next_turn(now).unwrap();
    local.end(ConsumerId(1), true);
    assert_eq!(local.finish(turn, &[], &taken(&[(1, "a"), (1, "b")]), None, VISIBLE, now), [0, 1]);
    local.give_back("s1", id("a"));
    let turn = local.next_turn(now).unwrap();
    assert!(matches!(
        &turn.steps[..],
        [Step::End { release: true, .. }, Step::Settle { how: Settle::Nack { .. }, waits: None, .. }]
    ));
    local.finish(turn, &[Settled::Done; 2], &[], None, VISIBLE, now);
    assert!(local.is_idle());
}

#[test]
fn a_failed_turn_answers_who_waits_and_keeps_what_nobody_asks_for() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 1), (2, "s2", 1)], now);
    let mut answer = settle(&mut local, "a", Settle::Ack);
    local.end(ConsumerId(2), true);
    local.told("dead".to_owned());
    let turn = local.next_turn(now).unwrap();
    let error = BrokerError::NotAvailable { reason: "lost".to_owned(), sent: true };
    local.fail(turn, &error, now);
    assert_eq!(answer.try_recv().unwrap(), Err(error));
    let turn = local.next_turn(now).unwrap();
    assert!(matches!(&turn.steps[..], [Step::End { .. }, Step::Told { .. }]), "{turn:?}");
}

#[test]
fn after_a_re_sync_the_consumers_are_told_again() {
    let now = Instant::now();
    let mut local = begun(&[(1, "s1", 1)], now);
    local.begin_again();
    let turn = local.next_turn(now).unwrap();
    assert!(matches!(&turn.steps[..], [Step::Begin { reply: None, .. }]));
    assert_eq!(wants(&turn), [(1, 1)]);
}
