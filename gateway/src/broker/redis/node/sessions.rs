//! Records of sessions, each in the partition of its session's id.

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use prost::Message as _;

use super::{Answer, RedisBroker, failed};
use crate::broker::{
    BrokerError, Kept, LoadedSession, NodeId, SessionRecord,
    redis::{
        command::{Command, CommandName},
        reply::{Reply, ReplyError},
        script::Script,
        scripts,
    },
};

impl RedisBroker {
    pub(super) fn keep_session(
        &self,
        session: &str,
        tenure: u32,
        record: &SessionRecord,
        ttl_ms: u64,
    ) -> Answer<Kept> {
        let Some(node) = self.incarnation() else {
            let reason = "the node has no place in Redis yet".to_owned();
            return failed(BrokerError::NotAvailable { reason, sent: false });
        };
        let args = vec![
            record.encode_to_vec().into(),
            ttl_ms.max(1).to_string().into(),
            node.to_string().into(),
            tenure.to_string().into(),
        ];
        let call = self.call_session(&scripts::SAVE_SESSION, session, args);
        async move { kept(&call.await?) }.boxed()
    }

    pub(super) fn read_session(&self, session: &str) -> Answer<Option<LoadedSession>> {
        let call = self.call_session(&scripts::LOAD_SESSION, session, Vec::new());
        async move { loaded(&call.await?) }.boxed()
    }

    pub(super) fn look_up_session(&self, session: &str) -> Answer<Option<NodeId>> {
        let partition = self.keys.partition_of(session);
        let caller = match self.caller(partition) {
            Ok(caller) => caller,
            Err(error) => return failed(error),
        };
        let key = self.keys.key(partition, &format!("s:{session}"));
        let call =
            caller.connection.call(Command::new(CommandName::HGet).arg(key).arg("node"), self.deadline);
        async move {
            let Some(node) = call.await?.into_optional_bytes()? else { return Ok(None) };
            node_of(&node).map(Some)
        }
        .boxed()
    }

    fn call_session(&self, script: &'static Script, session: &str, args: Vec<Bytes>) -> Answer<Reply> {
        let partition = self.keys.partition_of(session);
        let caller = match self.caller(partition) {
            Ok(caller) => caller,
            Err(error) => return failed(error),
        };
        let keys = vec![self.keys.key(partition, &format!("s:{session}"))];
        let call = caller.connection.call_script(script, keys, args, self.deadline);
        async move { call.await.map_err(Into::into) }.boxed()
    }
}

fn kept(reply: &Reply) -> Result<Kept, BrokerError> {
    let items = reply.as_array()?;
    match items {
        [held] if held.as_int()? == 0 => Ok(Kept::Lost),
        [_, former] => {
            let former = former.as_bytes()?;
            let former = if former.is_empty() { None } else { Some(node_of(former)?) };
            Ok(Kept::Held { former })
        }
        _ => Err(ReplyError::Length { expected: 2, got: items.len() }.into()),
    }
}

fn loaded(reply: &Reply) -> Result<Option<LoadedSession>, BrokerError> {
    let items = reply.as_array()?;
    match items {
        [_] => Ok(None),
        [tenure, record] => {
            let record = SessionRecord::decode(&record.as_bytes()?[..])
                .map_err(|error| BrokerError::Damaged(error.to_string()))?;
            let tenure = u32::try_from(tenure.as_u64()?)
                .map_err(|_| BrokerError::Damaged("a session was resumed too often".to_owned()))?;
            Ok(Some(LoadedSession { record, tenure }))
        }
        _ => Err(ReplyError::Length { expected: 2, got: items.len() }.into()),
    }
}

fn node_of(text: &[u8]) -> Result<NodeId, BrokerError> {
    let node = std::str::from_utf8(text).ok().and_then(|node| node.parse().ok());
    node.map(NodeId).ok_or_else(|| BrokerError::Damaged("a session is on a node without a number".to_owned()))
}
