//! Backends that hooks are asked of: over plain HTTP, written by hand so that it can misbehave, and over gRPC. Both answer
//! by the same function over the JSON form of the messages, and note what they were asked.

mod grpc;
mod http;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::watch;

use crate::within;

pub use grpc::GrpcBackend;
pub use http::HttpBackend;

/// What a backend was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Name of the hook.
    pub hook: String,
    /// Path of the request.
    pub path: String,
    /// Headers or metadata, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The message as JSON.
    pub body: Value,
}

/// What a backend does.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Answers with this HTTP status, or what is like it in gRPC, and this message.
    Json(u16, Value),
    /// Never answers.
    Stall,
    /// Sends what is no answer at all.
    Garbage,
    /// Answers with a message that is none (HTTP alone).
    NoMessage,
    /// Sends the caller elsewhere (HTTP alone).
    Redirect,
    /// Sends without end (HTTP alone).
    Endless,
    /// Closes the connection (HTTP alone).
    Close,
}

type Answering = dyn Fn(&Question) -> Reply + Send + Sync;

/// What both kinds of backend share.
#[derive(Clone)]
pub struct Notes {
    answer: Arc<Mutex<Arc<Answering>>>,
    asked: watch::Sender<Vec<Question>>,
}

impl Notes {
    fn new(answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(Mutex::new(Arc::new(answer))), asked: watch::Sender::default() }
    }

    fn take(&self, question: Question) -> Reply {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reply = answer(&question);
        self.asked.send_modify(|asked| asked.push(question));
        reply
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answer);
    }

    /// All questions so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Question> {
        self.asked.borrow().clone()
    }

    /// Waits until there are `count` questions of `hook`.
    pub async fn until(&self, hook: &str, count: usize) -> Vec<Question> {
        let of_hook = |asked: &Vec<Question>| -> Vec<Question> {
            asked.iter().filter(|question| question.hook == hook).cloned().collect()
        };
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| of_hook(asked).len() >= count);
        let asked =
            within(&format!("{count} of {hook}"), enough).await.expect("the backend is there").clone();
        of_hook(&asked)
    }
}
