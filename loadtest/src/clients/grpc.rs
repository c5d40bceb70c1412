//! A client on a gRPC stream: the same events, without frames.

use std::rc::Rc;

use anyhow::Context as _;
use streamgate_proto::v1::{
    InboundMessage, OutboundMessage, messaging_service_client::MessagingServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    dialect::{Detail, Telling, streamgate},
    endpoint::Endpoint,
    links::Link,
};

/// Largest message that is taken, in bytes: a page of history is one.
const GREATEST: usize = 64 * 1024 * 1024;

/// A stream whose call is under way: the server may answer only after the first message.
pub(super) struct Call {
    queue: mpsc::UnboundedSender<InboundMessage>,
    client: MessagingServiceClient<Channel>,
    requests: mpsc::UnboundedReceiver<InboundMessage>,
}

impl Call {
    /// Connects.
    pub(super) async fn open(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let url = format!("http://{}", endpoint.addr);
        let channel = Channel::from_shared(url)?.tcp_nodelay(true).connect().await;
        let channel = channel.with_context(|| format!("cannot connect to {}", endpoint.addr))?;
        let client = MessagingServiceClient::new(channel).max_decoding_message_size(GREATEST);
        let (queue, requests) = mpsc::unbounded_channel();
        Ok(Self { queue, client, requests })
    }

    /// Where requests are queued.
    pub(super) fn queue(&self) -> mpsc::UnboundedSender<InboundMessage> {
        self.queue.clone()
    }

    /// Tells what comes, until the stream ends or this side closes it; why it ended.
    pub(super) async fn run(
        self,
        link: &Rc<Link>,
        detail: Detail,
        mut tell: impl FnMut(Telling<'_>),
    ) -> String {
        let Self { queue, mut client, requests } = self;
        let stream = tokio::select! {
            answer = client.message_loop(UnboundedReceiverStream::new(requests)) => answer,
            () = closing(link) => return "closed".to_owned(),
        };
        let mut stream: Streaming<OutboundMessage> = match stream {
            Ok(answer) => answer.into_inner(),
            Err(status) => return format!("{:?}: {}", status.code(), status.message()),
        };
        let end = loop {
            // Safe to cancel: a message that has not come whole stays in the stream.
            let message = tokio::select! {
                message = stream.message() => message,
                () = closing(link) => break "closed".to_owned(),
            };
            match message {
                Ok(Some(message)) => tell(&mut |each| streamgate::events(&message, detail, each)),
                Ok(None) => break "the stream ended".to_owned(),
                Err(status) => break format!("{:?}: {}", status.code(), status.message()),
            }
        };
        // The end of the requests is the goodbye.
        drop(queue);
        end
    }
}

/// Waits until this side wants to close.
async fn closing(link: &Link) {
    while !link.closing.get() {
        link.wake.notified().await;
    }
}
