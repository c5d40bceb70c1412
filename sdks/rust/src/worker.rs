//! The task that runs one handler: several calls at a time, each until it is done, its deadline, or the end of its connection.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use prost::Message as _;
use streamgate_proto::{
    Encoding, cloudevent::binary_form, cloudevents::CloudEvent, encode_inbound, v1::InboundMessage,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    client::Defaults,
    driver::{Command, Work},
    engine::{Asked, Outcome, Question, answer_frame, wire_error},
    serve::{Call, CallError},
};

/// What JSON makes of one byte at most: `\u001f`.
const JSON_GROWTH: usize = 6;

type Answer = BoxFuture<'static, Result<CloudEvent, CallError>>;

/// What answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler(Arc<dyn Fn(Asked) -> Answer + Send + Sync>);

impl Handler {
    pub(crate) fn of_calls<F, Fut>(handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<CloudEvent, CallError>> + Send + 'static,
    {
        Self(Arc::new(move |asked| {
            let (Question::Call(request_id) | Question::Survey(request_id)) = asked.question;
            let Asked { channel, method, event, deadline, .. } = asked;
            handler(Call { request_id, channel, method, event, deadline }).boxed()
        }))
    }

    pub(crate) fn of_surveys<F, Fut>(handler: F) -> Self
    where
        F: Fn(CloudEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<CloudEvent, CallError>> + Send + 'static,
    {
        Self(Arc::new(move |asked| handler(asked.event).boxed()))
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Worker {
    handler: Handler,
    concurrency: usize,
    /// Weak: a handler does not keep the connection open, its guard does.
    commands: mpsc::WeakUnboundedSender<Command>,
    json: bool,
    answer_bytes: usize,
}

impl Worker {
    pub(crate) fn new(defaults: &Defaults, handler: Handler, concurrency: usize) -> Self {
        let commands = defaults.commands.downgrade();
        Self { handler, concurrency, commands, json: defaults.json, answer_bytes: defaults.answer_bytes }
    }

    /// Runs until nothing more comes, and everything that came is done.
    pub(crate) async fn run(self, mut work: mpsc::Receiver<Work>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                // Both are safe to cancel: what is not returned stays.
                next = work.recv(), if running.len() < self.concurrency => match next {
                    Some(next) => {
                        running.spawn(self.clone().carry_out(next));
                    }
                    None => break,
                },
                Some(_) = running.join_next() => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn carry_out(self, work: Work) {
        let Work { asked, mut connection } = work;
        let (question, deadline) = (asked.question.clone(), Instant::from_std(asked.deadline));
        let handler = self.handler.clone();
        // It may panic when it is called, too.
        let answer = AssertUnwindSafe(async move { (handler.0)(asked).await }).catch_unwind();
        let outcome = tokio::select! {
            biased;
            // Nothing is ever sent: this is its end.
            _ = connection.changed() => None,
            () = sleep_until(deadline) => None,
            answer = answer => Some(match answer {
                Ok(Ok(event)) => self.fitting(&question, event),
                Ok(Err(error)) => self.fitting_error(&question, error),
                Err(_) => Err(wire_error("PROXY_ERROR", "proxy_error", "the handler panicked".to_owned())),
            }),
        };
        if let Some(commands) = self.commands.upgrade() {
            // An error means that the connection is gone, and nobody waits.
            let _ = commands.send(Command::Answered(question, outcome));
        }
    }

    /// The answer in a form that the encoding can carry, or why it cannot be sent.
    fn fitting(&self, question: &Question, event: CloudEvent) -> Outcome {
        let event = if self.json { binary_form(&event).into_owned() } else { event };
        let frame = answer_frame(u64::MAX, question.clone(), Ok(event.clone()));
        self.check(&frame).map(|()| event)
    }

    fn fitting_error(&self, question: &Question, error: CallError) -> Outcome {
        let error = error.into_wire();
        let frame = answer_frame(u64::MAX, question.clone(), Err(error.clone()));
        Err(self.check(&frame).err().unwrap_or(error))
    }

    fn check(&self, frame: &InboundMessage) -> Result<(), streamgate_proto::shared::Error> {
        let bytes = frame.encoded_len();
        let surely_fits = bytes.saturating_mul(JSON_GROWTH) <= self.answer_bytes;
        let got = if self.json && !surely_fits {
            encode_inbound(Encoding::Json, frame)
                .map_err(|error| wire_error("PROXY_ERROR", "proxy_error", error.to_string()))?
                .len()
        } else {
            bytes
        };
        if got <= self.answer_bytes {
            return Ok(());
        }
        let text = format!("the answer is a frame of {got} bytes, at most {} can be sent", self.answer_bytes);
        Err(wire_error("TOO_LARGE", "limit_error", text))
    }
}
