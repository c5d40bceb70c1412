//! The backend asked without a gateway: the same requests as the hook's, by the gateway's own HTTP client.

use std::{rc::Rc, sync::Arc, time::Duration};

use ::streamgate::http_client::{CallLimits, HttpClient, Trust};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use hyper::{Method, Request, header::CONTENT_TYPE};
use streamgate_proto::{
    json,
    proxy::{RpcRequest, RpcResponse},
    v1::inbound_message::Envelope,
};
use tokio::{select, sync::Semaphore, task::JoinSet};

use crate::{
    clients::dialect::{self, Detail, streamgate},
    load::{
        clock,
        pace::Pace,
        run::Outcome,
        stamp::Stamp,
        subject::Subject,
        topology::Topology,
        worker::{Load, Worker},
    },
};

/// From due to answered.
pub const CALL: &str = "call";
/// Calls of a thread at a time, as many as one node has under way to a backend unless it is told otherwise. Others wait, and
/// their time counts: without a bound each moment of a busy backend would open connections that make it busier.
const AT_A_TIME: usize = 256;
const LIMITS: CallLimits = CallLimits { deadline: Duration::from_secs(30), max_response_bytes: 1 << 20 };

/// Asks the backend that stands in the place of a node, by so many callers.
///
/// # Errors
/// Those of [`Subject::run`].
pub async fn run(subject: &Subject, load: Load, callers: usize) -> anyhow::Result<Outcome> {
    let script = async move |worker: &Worker| ask(worker, load, callers).await;
    // Nobody connects: each call has a connection of the client's pool.
    subject.run(Arc::new(Topology::default()), (Load::Silence, Detail::Stamps), script).await
}

async fn ask(worker: &Worker, load: Load, callers: usize) -> anyhow::Result<()> {
    let caller = Rc::new(Caller::new(worker)?);
    let window = worker.meet().await;
    let mut asked = JoinSet::new();
    match load {
        Load::Silence => {}
        Load::Saturate(window_of_each) => {
            let at_once = callers as u64 * window_of_each;
            let own =
                (0..at_once).filter(|number| number % worker.plan.threads as u64 == worker.index as u64);
            for _ in own {
                let (worker, caller) = (worker.clone(), caller.clone());
                asked.spawn_local(async move {
                    while clock::now() < window.end {
                        caller.call(&worker, clock::now()).await?;
                    }
                    anyhow::Ok(())
                });
            }
        }
        Load::Rate(rate) => {
            let threads = worker.plan.threads as f64;
            let mut pace = Pace::new(rate / threads, worker.index as f64 / threads)?;
            loop {
                let due = select! {
                    due = pace.due() => due,
                    () = worker.wait_until(window.end) => break,
                };
                for due in due {
                    let (worker, caller) = (worker.clone(), caller.clone());
                    asked.spawn_local(async move { caller.call(&worker, due).await });
                }
                while let Some(done) = asked.try_join_next() {
                    done??;
                }
            }
        }
    }
    while let Some(done) = asked.join_next().await {
        done??;
    }
    worker.done().await;
    Ok(())
}

/// What all calls of a thread have in common.
struct Caller {
    client: HttpClient,
    url: String,
    size: usize,
    room: Semaphore,
}

impl Caller {
    fn new(worker: &Worker) -> anyhow::Result<Self> {
        let backend = worker.plan.endpoints.first().context("there is no backend")?;
        let client = HttpClient::new(&Trust::System).map_err(|reason| anyhow!(reason))?;
        let url = format!("http://{}/RPC", backend.addr);
        Ok(Self { client, url, size: worker.plan.size, room: Semaphore::new(AT_A_TIME) })
    }

    /// Calls once, and counts it.
    async fn call(&self, worker: &Worker, due: u64) -> anyhow::Result<()> {
        let stamp = Stamp { run: worker.plan.run, stream: 0, sequence: due, due };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(self.body(stamp)?)?;
        {
            let mut traffic = worker.traffic.borrow_mut();
            let now = clock::now();
            let (_, tally) = traffic.counted();
            tally.asked(now);
        }
        let room = self.room.acquire().await?;
        let answer = self.client.call(request, LIMITS).await;
        drop(room);
        let now = clock::now();
        let mut traffic = worker.traffic.borrow_mut();
        let right = match &answer {
            Ok(answer) => json::decode::<RpcResponse>(answer.body())
                .ok()
                .and_then(|answer| streamgate::stamp_of(&answer.payload?))
                .is_some_and(|echo| echo == stamp),
            Err(error) => {
                traffic.note(format!("no answer: {error}"));
                false
            }
        };
        let (ledger, tally) = traffic.counted();
        ledger.other(1, u64::from(right), 0);
        if right {
            tally.told(CALL, now, due, 1);
        }
        Ok(())
    }

    /// The hook's question, as a node would ask it.
    fn body(&self, stamp: Stamp) -> anyhow::Result<Bytes> {
        let call = dialect::Request::Call { channel: "rpc", method: "rpc", stamp, size: self.size };
        let Some(Envelope::RpcRequest(payload)) = streamgate::request(1, &call).envelope else {
            return Err(anyhow!("a call is no call"));
        };
        // Ids of the length that nodes give.
        let id = "00000000-0000-0000-0000-000000000000";
        Ok(json::encode(&RpcRequest {
            id: id.to_owned(),
            channel: "rpc".to_owned(),
            method: "rpc".to_owned(),
            payload: Some(payload),
            session_id: id.to_owned(),
            client_id: "load-0".to_owned(),
            ..RpcRequest::default()
        })?)
    }
}
