//! Clients that answer calls and surveys.

use streamgate_proto::{
    cloudevents::CloudEvent,
    shared,
    v1::{
        InboundMessage, RpcCall, RpcResult, RpcServe, SurveyResponse, inbound_message::Envelope as In,
        outbound_message::Envelope as Out, rpc_result::Outcome,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    events::{frame, text, text_of},
    gateway::Addrs,
    raw::{Event, RawClient, Via},
};

/// Lets clients offer methods and ask subscribers: both are denied unless the configuration says otherwise.
pub const OPEN: &str = "permissions: [{channels: ['**'], actions: [serve, survey], who: any}]";

/// A client that answers by itself, in a task of its own. Dropping it ends the connection.
pub struct Responder {
    /// Its session.
    pub session_id: String,
    /// The calls that it got, in order.
    pub calls: mpsc::UnboundedReceiver<RpcCall>,
    task: JoinHandle<()>,
}

impl Responder {
    /// One that offers `methods` and answers:
    /// - `*.echo` with what it was sent, `*.who` with its session,
    /// - `*.fail` with an error of its own, `*.silent` not at all,
    /// - surveys with its session, unless they ask for `silence`.
    pub async fn start(addrs: Addrs, via: Via, methods: &[&str]) -> Self {
        Self::of(RawClient::connect(addrs, via).await, methods).await
    }

    /// The same for a client that is connected.
    pub async fn of(mut client: RawClient, methods: &[&str]) -> Self {
        if !methods.is_empty() {
            let answer = client.request(serve(methods)).await;
            assert!(matches!(answer.envelope, Some(Out::Ok(_))), "{answer:?}");
        }
        let session_id = client.connected.session_id.clone();
        let (seen, calls) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(client, session_id.clone(), seen));
        Self { session_id, calls, task }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(mut client: RawClient, session: String, seen: mpsc::UnboundedSender<RpcCall>) {
    loop {
        // Idle for as long as the test likes.
        let frame_in = match client.next_event().await {
            Event::Frame(frame) => *frame,
            Event::Ping => continue,
            Event::Closed(..) => return,
        };
        match frame_in.envelope {
            Some(Out::RpcCall(call)) => {
                if let Some(outcome) = outcome_of(&call, &session) {
                    client.send(result(&call.request_id, outcome)).await;
                }
                // The test may not look at them.
                let _ = seen.send(call);
            }
            Some(Out::SurveyRequest(request)) => {
                let question = request.payload.unwrap_or_default();
                if text_of(&question) != "silence" {
                    let answer = SurveyResponse {
                        request_id: request.request_id,
                        payload: Some(text("answer", &session)),
                        error: None,
                    };
                    client.send(frame(In::SurveyResponse(answer))).await;
                }
            }
            _ => {}
        }
    }
}

fn outcome_of(call: &RpcCall, session: &str) -> Option<Outcome> {
    let payload = call.payload.clone().unwrap_or_default();
    match call.method.rsplit('.').next() {
        Some("echo") => Some(Outcome::Payload(payload)),
        Some("who") => Some(Outcome::Payload(text("who", session))),
        Some("fail") => Some(Outcome::Error(shared::Error {
            code: "OUT_OF_TEA".into(),
            r#type: "kitchen".into(),
            message: "only coffee".into(),
            metadata: None,
        })),
        _ => None,
    }
}

/// The frame that offers `methods`.
#[must_use]
pub fn serve(methods: &[&str]) -> InboundMessage {
    let methods = methods.iter().map(|method| (*method).to_owned()).collect();
    frame(In::RpcServe(RpcServe { methods }))
}

/// The frame that answers a call.
#[must_use]
pub fn result(request_id: &str, outcome: Outcome) -> InboundMessage {
    frame(In::RpcResult(RpcResult { request_id: request_id.to_owned(), outcome: Some(outcome) }))
}

/// The frame that calls `method` on `channel`.
#[must_use]
pub fn call(channel: &str, method: &str, event: CloudEvent) -> InboundMessage {
    InboundMessage { channel: channel.into(), method: method.into(), ..frame(In::RpcRequest(event)) }
}
