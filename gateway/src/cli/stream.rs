//! The messages of channels and patterns, one after the other, for the commands that show them or do something with them.

use std::{
    future::Future,
    io::{self, BufWriter, Stdout, Write},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, SelectAll},
};
use streamgate_client::{Client, Event, Message, Status, SubscribeOptions, is_pattern, matches};
use tokio::time::{Instant, sleep_until};

use super::{ConnectArgs, Failure, exit::LATE, output, point::Point, signals::Signals};

/// What to take.
#[derive(Debug)]
pub(super) struct Plan {
    /// Channels and patterns.
    pub patterns: Vec<String>,
    /// Where to begin; none: now.
    pub from: Option<Point>,
    /// End after so many messages.
    pub count: Option<u64>,
    /// End after this time: too early, if there is a count.
    pub timeout: Option<Duration>,
    /// By the first signal what is under way is finished, by the second not.
    pub signals: Option<Signals>,
}

/// What becomes of the messages.
pub(super) trait Taker {
    /// Takes one.
    fn take(&mut self, message: &Message) -> impl Future<Output = Result<(), Failure>>;

    /// There is nothing more to take at once.
    fn flush(&mut self) -> io::Result<()>;

    /// There will be no more.
    fn end(self) -> Result<(), Failure>;
}

/// Lines on standard output.
pub(super) struct Lines<F> {
    line: F,
    out: BufWriter<Stdout>,
}

impl<F: Fn(&Message) -> String> Lines<F> {
    /// What `line` makes of each message.
    pub(super) fn new(line: F) -> Self {
        Self { line, out: BufWriter::new(io::stdout()) }
    }
}

impl<F: Fn(&Message) -> String> Taker for Lines<F> {
    async fn take(&mut self, message: &Message) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{}", (self.line)(message))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// Hands messages to `taker` until the plan is fulfilled.
pub(super) async fn run(connect: &ConnectArgs, mut plan: Plan, mut taker: impl Taker) -> Result<(), Failure> {
    plan.patterns.sort();
    plan.patterns.dedup();
    let one = plan.patterns.len() == 1 && plan.patterns.first().is_some_and(|name| !is_pattern(name));
    if matches!(plan.from, Some(Point::After(_))) && !one {
        let text = "a position is one channel's: --from EPOCH:OFFSET takes one channel";
        return Err(Failure::Usage(text.to_owned()));
    }
    let client = connect.connect().await?;
    let notes = tokio::spawn(tell_connection(client.status()));
    let outcome = tokio::select! {
        outcome = take_all(&client, plan, &mut taker) => outcome,
        // Also when there is nothing to write that would tell.
        () = output::closed() => Err(Failure::OutputClosed),
    };
    // Its end is this side's own doing, and no news.
    notes.abort();
    client.close().await;
    let ended = taker.end();
    outcome.and(ended)
}

async fn take_all(client: &Client, mut plan: Plan, taker: &mut impl Taker) -> Result<(), Failure> {
    let mut events = SelectAll::new();
    for (index, pattern) in plan.patterns.iter().enumerate() {
        let mut options = SubscribeOptions::new(pattern);
        match &plan.from {
            None => {}
            Some(Point::Start(point)) => options = options.start_at(*point),
            Some(Point::After(position)) => options = options.cursor(position.clone()),
        }
        let subscription = client.subscribe(options).await?;
        events.push(stream::repeat(index).zip(subscription));
    }
    let deadline = plan.timeout.map(|timeout| Instant::now() + timeout);
    let (mut taken, mut stopped) = (0, false);
    while plan.count != Some(taken) && !stopped {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return late(&plan, taken);
        }
        // Flush when there is nothing more to take at once.
        let event = match events.next().now_or_never() {
            Some(event) => event,
            None => {
                taker.flush()?;
                tokio::select! {
                    event = events.next() => event,
                    () = until(deadline) => return late(&plan, taken),
                    () = told(&mut plan.signals) => return Ok(()),
                }
            }
        };
        let Some((index, event)) = event else { break };
        match event {
            Event::Message(message) if is_first_match(&plan.patterns, index, &message) => {
                stopped = take(taker, &message, &mut plan.signals).await?;
                taken += 1;
            }
            Event::Message(_) => {}
            Event::Closed(error) => return Err(error.into()),
            other => note(&other),
        }
    }
    Ok(())
}

/// Lets one message be taken; whether to stop then.
async fn take(
    taker: &mut impl Taker,
    message: &Message,
    signals: &mut Option<Signals>,
) -> Result<bool, Failure> {
    let taking = taker.take(message);
    tokio::pin!(taking);
    let first = tokio::select! {
        taken = &mut taking => Some(taken),
        () = told(signals) => None,
    };
    match first {
        Some(taken) => taken.map(|()| false),
        None => tokio::select! {
            taken = &mut taking => taken.map(|()| true),
            () = told(signals) => Ok(true),
        },
    }
}

/// Waits for a signal, if signals are waited for. Safe to cancel.
async fn told(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => signals.received().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Time is up: that is the end that was asked for, unless there should be more messages.
fn late(plan: &Plan, taken: u64) -> Result<(), Failure> {
    plan.count.map_or(Ok(()), |count| {
        Err(Failure::Coded(LATE, format!("{taken} of {count} messages came in time")))
    })
}

/// Overlapping patterns each get the message; it is taken once.
fn is_first_match(patterns: &[String], index: usize, message: &Message) -> bool {
    patterns.iter().position(|pattern| matches(pattern, &message.channel)) == Some(index)
}

/// What is not data goes to standard error.
pub(super) fn note(event: &Event) {
    match event {
        Event::Gap(gap) => eprintln!("gap: messages of {} may be missing: {}", gap.channel, gap.reason),
        Event::Recovered(recovered) => {
            if let Some(reason) = &recovered.gap {
                eprintln!("gap: messages of {} are missing: {reason}", recovered.target);
            } else if recovered.truncated {
                eprintln!(
                    "gap: messages of {} are missing: more than the server sends at once",
                    recovered.target
                );
            }
            if let Some(error) = &recovered.error {
                eprintln!("gap: {} could not be recovered: {error}", recovered.target);
            }
        }
        _ => {}
    }
}

/// Tells of reconnects.
pub(super) async fn tell_connection(mut status: tokio::sync::watch::Receiver<Status>) {
    // The first connection is what everybody expects.
    let mut away = !matches!(*status.borrow_and_update(), Status::Connected { .. });
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        match now {
            Status::Disconnected { error, .. } if !away => {
                away = true;
                eprintln!("disconnected: {error}; reconnecting");
            }
            Status::Connected { address, .. } => {
                away = false;
                eprintln!("connected to {address}");
            }
            _ => {}
        }
    }
}
