//! The way from a shard to the body of a stream. Both are on the shard's thread.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use streamgate_proto::v1::{OutboundMessage, Position, outbound_message::Envelope};
use tokio::sync::oneshot;

use super::{
    frame::{Packed, notice, unpack},
    ids::Ids,
};
use crate::{
    channel::Target,
    error::{ClientError, CloseCode},
    transport::{Outlet, Overflow, Wire, cloudevents::Notice, cursor::Cursor},
};

/// What a piece of text costs beside its bytes, as in the write queue of WebSocket.
const PIECE_OVERHEAD: usize = 64;
/// How long a client waits before it comes back, in ms, where no drain says otherwise: one that was told to hurry then
/// must not do so for ever.
const RETRY_MS: u32 = 3_000;
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Text that waits for the client.
#[derive(Default)]
pub(super) struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were taken so far.
    taken: u64,
    /// Nothing follows.
    closed: bool,
    reader: Option<Waker>,
}

/// Both ends of a stream hold it; never borrowed while the shard is called.
pub(super) type Shared = Rc<RefCell<Queue>>;

impl Queue {
    fn fits(&self, bytes: usize, limit: usize) -> bool {
        self.pieces.is_empty() || self.bytes + bytes + PIECE_OVERHEAD * (self.pieces.len() + 1) <= limit
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// The next piece; ready without one at the end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.pieces.pop_front() {
            Some(piece) => {
                self.bytes -= piece.len();
                self.taken += piece.len() as u64;
                Poll::Ready(Some(piece))
            }
            None if self.closed => Poll::Ready(None),
            None => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How the request of a stream ends.
#[derive(Debug)]
pub(super) enum Begin {
    /// The session is connected: the stream begins.
    Stream,
    /// It is refused.
    Refused(ClientError),
    /// The session ended before.
    Closed(CloseCode, String),
}

/// The shard's side.
pub(super) struct SseOutlet {
    queue: Shared,
    limit: usize,
    ids: Ids,
    /// Patterns of which the client's cursor did not tell everything.
    unsure: Vec<Target>,
    /// Until the stream has begun or is refused.
    begin: Option<oneshot::Sender<Begin>>,
}

impl SseOutlet {
    pub fn new(
        queue: Shared,
        limit: usize,
        targets: &[Target],
        cursor: &Cursor,
        begin: oneshot::Sender<Begin>,
    ) -> Result<Self, ClientError> {
        let patterns = targets.iter().filter(|target| matches!(target, Target::Pattern(_)));
        let unsure = if cursor.is_partial() { patterns.cloned().collect() } else { Vec::new() };
        Ok(Self { queue, limit, ids: Ids::new(targets, cursor)?, unsure, begin: Some(begin) })
    }

    fn answer(&mut self, begin: Begin) -> bool {
        // Who asked may be gone; the shard hears of that by itself.
        self.begin.take().map(|asked| asked.send(begin)).is_some()
    }

    /// Queues text behind the id of where the client stands with it.
    fn queue(&mut self, id: Option<String>, text: Bytes) -> Result<(), Overflow> {
        let id = id.map(|id| Bytes::from(format!("id: {id}\n")));
        let mut queue = self.queue.borrow_mut();
        if queue.closed || !queue.fits(text.len() + id.as_ref().map_or(0, Bytes::len), self.limit) {
            return Err(Overflow);
        }
        id.into_iter().for_each(|id| queue.push(id));
        queue.push(text);
        Ok(())
    }

    fn envelope(&mut self, frame: &OutboundMessage) -> Result<(), Overflow> {
        match &frame.envelope {
            Some(Envelope::Connected(connected)) => {
                let acked: Vec<_> = connected.subscriptions.iter().map(Cursor::of_ack).collect();
                acked.iter().for_each(|cursor| self.ids.take(cursor));
                return self.begun(frame);
            }
            Some(Envelope::Error(error)) if self.begin.is_some() => {
                self.answer(Begin::Refused(ClientError::from_wire(error.clone())));
                return Ok(());
            }
            Some(Envelope::SubscribeAck(ack)) => {
                let acked: Vec<_> = ack.subscriptions.iter().map(Cursor::of_ack).collect();
                acked.iter().for_each(|cursor| self.ids.take(cursor));
            }
            Some(Envelope::Gap(gap)) => self.see(&gap.channel, gap.position.as_ref()),
            Some(Envelope::RecoverComplete(end)) => self.see(&end.channel, end.position.as_ref()),
            _ => {}
        }
        let Some(said) = Notice::of(frame) else { return Ok(()) };
        let mut text = Vec::new();
        if let Some(Envelope::Reconnect(reconnect)) = &frame.envelope {
            text = format!("retry: {}\n", reconnect.after_ms).into_bytes();
        }
        text.extend(rendered(&said, frame.time));
        self.queue(self.ids.text(), text.into())
    }

    fn see(&mut self, name: &str, at: Option<&Position>) {
        if let Some(at) = at {
            self.ids.see_at(name, at);
        }
    }

    /// The head of the stream: an id without data, which is no event, but tells a client that loses its connection before the
    /// first event where to go on.
    fn begun(&mut self, frame: &OutboundMessage) -> Result<(), Overflow> {
        self.answer(Begin::Stream);
        self.queue(self.ids.text(), format!("retry: {RETRY_MS}\n\n").into())?;
        for pattern in std::mem::take(&mut self.unsure) {
            let gap = Notice::gap(pattern.as_str(), None, "TRUNCATED");
            self.queue(None, rendered(&gap, frame.time).into())?;
        }
        Ok(())
    }
}

/// The time of an answer is always one that JSON can carry.
fn rendered(said: &Notice, time_ms: u64) -> Vec<u8> {
    notice(said, time_ms).unwrap_or_default()
}

impl Outlet for SseOutlet {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        match unpack(frame) {
            Some(Packed::Publication { name, place, text }) => {
                let placed = place.is_some();
                if let Some(place) = place {
                    self.ids.see(&name, place);
                }
                let id = if placed { self.ids.text() } else { None };
                self.queue(id, text)
            }
            Some(Packed::Envelope(frame)) => self.envelope(&frame),
            // Something that is not said on streams.
            None => Ok(()),
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queue.borrow().bytes
    }

    fn taken_bytes(&self) -> u64 {
        self.queue.borrow().taken
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn flush(&mut self) {
        let reader = self.queue.borrow_mut().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn ping(&mut self) {
        let mut queue = self.queue.borrow_mut();
        if !queue.closed && queue.pieces.is_empty() {
            queue.push(KEEP_ALIVE);
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.answer(Begin::Closed(code, reason.to_owned())) {
            let mut queue = self.queue.borrow_mut();
            if code == CloseCode::SlowConsumer {
                queue.pieces.clear();
                queue.bytes = 0;
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or_default();
            queue.push(rendered(&Notice::closed(code, reason), now_ms).into());
        }
        self.queue.borrow_mut().closed = true;
        self.flush();
    }

    /// The client says nothing.
    fn pause_reading(&mut self, _paused: bool) {}
}

impl Drop for SseOutlet {
    /// The shard has ended with whatever was connected.
    fn drop(&mut self) {
        self.queue.borrow_mut().closed = true;
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;
    use streamgate_proto::{
        cloudevents::CloudEvent,
        v1::{Connected, Message, Publication, Subscription},
    };

    use super::*;

    const LIMIT: usize = 2_000;

    fn stream(names: &[&str], cursor: &str) -> (SseOutlet, Shared, oneshot::Receiver<Begin>) {
        let targets: Vec<_> = names.iter().map(|name| Target::parse(name).unwrap()).collect();
        let (begin, begun) = oneshot::channel();
        let queue = Shared::default();
        let cursor = Cursor::parse(cursor, None).unwrap();
        (SseOutlet::new(queue.clone(), LIMIT, &targets, &cursor, begin).unwrap(), queue, begun)
    }

    fn push(outlet: &mut SseOutlet, envelope: Envelope) -> Result<(), Overflow> {
        let frame = OutboundMessage { envelope: Some(envelope), ..OutboundMessage::default() };
        outlet.push(Wire::Sse.frame(&frame).unwrap())
    }

    fn publication(offset: u64) -> Envelope {
        let event = CloudEvent { id: offset.to_string(), ..CloudEvent::default() };
        let position = Some(Position { epoch: "17".into(), offset });
        let message = Message { channel: "a".into(), payload: Some(event), position, ..Message::default() };
        Envelope::Publication(Publication { messages: vec![message] })
    }

    fn connected() -> Envelope {
        let cursor = Some(Position { epoch: "17".into(), offset: 3 });
        let subscription = Subscription { channel: "a".into(), cursor, ..Subscription::default() };
        Envelope::Connected(Connected { subscriptions: vec![subscription], ..Connected::default() })
    }

    /// What is there to read, and whether it is the end.
    fn read(queue: &Shared) -> (String, bool) {
        let mut text = String::new();
        let mut cx = Context::from_waker(noop_waker_ref());
        loop {
            match queue.borrow_mut().poll_take(&mut cx) {
                Poll::Ready(Some(piece)) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Poll::Ready(None) => return (text, true),
                Poll::Pending => return (text, false),
            }
        }
    }

    #[test]
    fn a_stream_begins_with_an_id_and_each_event_has_its_own() {
        let (mut outlet, queue, mut begun) = stream(&["a"], "");
        push(&mut outlet, connected()).unwrap();
        assert!(matches!(begun.try_recv(), Ok(Begin::Stream)));
        assert_eq!(read(&queue).0, "id: 17:3\nretry: 3000\n\n");
        push(&mut outlet, publication(4)).unwrap();
        let (text, ended) = read(&queue);
        assert!(text.starts_with("id: 17:4\ndata: {") && text.ends_with("}\n\n") && !ended, "{text}");
    }

    #[test]
    fn what_a_cursor_does_not_tell_is_a_gap_of_the_patterns() {
        let (mut outlet, queue, _begun) = stream(&["a", "b.*"], "a=17:1,~");
        push(&mut outlet, connected()).unwrap();
        let (text, _) = read(&queue);
        assert!(text.starts_with("id: a=17:3,~\n"), "{text}");
        assert_eq!(text.matches("event: gap").count(), 1, "{text}");
        assert!(text.contains("TRUNCATED") && text.contains("b.*"), "{text}");
    }

    #[test]
    fn who_does_not_read_is_told_why_the_stream_ends_and_nothing_else() {
        let (mut outlet, queue, _begun) = stream(&["a"], "");
        push(&mut outlet, connected()).unwrap();
        let fits = (4..).take_while(|offset| push(&mut outlet, publication(*offset)).is_ok()).count();
        assert!((3..20).contains(&fits), "{fits}");
        assert!(outlet.queued_bytes() <= LIMIT);
        outlet.close(CloseCode::SlowConsumer, "slow");
        let (text, ended) = read(&queue);
        assert!(text.starts_with("event: closed\n") && text.contains("3512") && ended, "{text}");
    }

    #[test]
    fn what_ends_it_before_its_begin_is_the_answer_and_no_text() {
        let (mut outlet, queue, mut begun) = stream(&["a"], "");
        push(&mut outlet, Envelope::Error(ClientError::bad_request("no").to_wire())).unwrap();
        assert!(matches!(begun.try_recv(), Ok(Begin::Refused(error)) if error.message == "no"));
        let (mut closed, _, mut begun) = stream(&["a"], "");
        closed.close(CloseCode::ConnectionLimit, "too many");
        assert!(matches!(begun.try_recv(), Ok(Begin::Closed(CloseCode::ConnectionLimit, _))));
        drop(outlet);
        assert_eq!(read(&queue), (String::new(), true));
    }
}
