//! Shared work on Redis: a stream with a consumer group for each lane, a lane for each partition.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;

use super::{Answer, RedisBroker, failed};
use crate::broker::{
    BrokerError, Turn, WorkItem,
    redis::{reply::Reply, script::Script, scripts},
};

impl RedisBroker {
    pub(super) fn append_work(
        &self,
        queue: &str,
        lane: usize,
        items: Vec<Bytes>,
        most: u64,
    ) -> Answer<usize> {
        let mut args = vec![Bytes::from(most.to_string())];
        args.extend(items);
        let added = self.call_lane(&scripts::ADD_WORK, lane, vec![self.lane(queue, lane)], args);
        async move { Ok(usize::try_from(added.await?.as_u64()?).unwrap_or(usize::MAX)) }.boxed()
    }

    pub(super) fn next_work(
        &self,
        queue: &str,
        lane: usize,
        after: Option<String>,
        most: usize,
    ) -> Answer<Turn> {
        let taken = self.ask_lane(queue, lane, after, most.to_string());
        async move { turn(taken.await?) }.boxed()
    }

    pub(super) fn release_work(&self, queue: &str, lane: usize) -> Answer<()> {
        let given = self.ask_lane(queue, lane, None, "-1".to_owned());
        async move { given.await.map(drop) }.boxed()
    }

    pub(super) fn remove_work(&self, queue: &str, lane: usize, ids: Vec<String>) -> Answer<()> {
        if ids.is_empty() {
            return async { Ok(()) }.boxed();
        }
        let args = ids.into_iter().map(Bytes::from).collect();
        let removed = self.call_lane(&scripts::FINISH_WORK, lane, vec![self.lane(queue, lane)], args);
        async move { removed.await.map(drop) }.boxed()
    }

    fn ask_lane(&self, queue: &str, lane: usize, after: Option<String>, most: String) -> Answer<Reply> {
        // Without an incarnation a node could not be told from others.
        let Some(node) = self.incarnation() else {
            let reason = "the node has no place in Redis yet".to_owned();
            return failed(BrokerError::NotAvailable { reason, sent: false });
        };
        let keys = vec![self.lane(queue, lane), self.keys.key(lane, &format!("ql:{queue}"))];
        let lease = self.lease.max(Duration::from_secs(1)).as_millis();
        let from = after.unwrap_or_else(|| "0".to_owned());
        let args = vec![node.to_string().into(), lease.to_string().into(), most.into(), from.into()];
        self.call_lane(&scripts::TAKE_WORK, lane, keys, args)
    }

    fn call_lane(
        &self,
        script: &'static Script,
        lane: usize,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Answer<Reply> {
        match self.caller(lane) {
            Ok(caller) => {
                let call = caller.connection.call_script(script, keys, args, self.deadline);
                async move { call.await.map_err(Into::into) }.boxed()
            }
            Err(error) => failed(error),
        }
    }

    fn lane(&self, queue: &str, lane: usize) -> Bytes {
        self.keys.key(lane, &format!("q:{queue}"))
    }
}

/// The reply of `take_work.lua`.
fn turn(reply: Reply) -> Result<Turn, BrokerError> {
    let mut items = reply.into_array()?.into_iter();
    if items.next().map(|here| here.as_int()).transpose()? != Some(1) {
        return Ok(Turn::Elsewhere);
    }
    let item = |reply: Reply| {
        let [id, payload] = reply.into_exactly::<2>()?;
        // A slice of the reply would keep all of it.
        let payload = Bytes::copy_from_slice(payload.as_bytes()?);
        Ok(WorkItem { id: id.as_str()?.to_owned(), payload })
    };
    items.map(item).collect::<Result<_, BrokerError>>().map(Turn::Here)
}
