//! The body of a stream's response: what the outlet queues, until the session ends. Dropped, the client is gone.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::outlet::Shared;
use crate::{
    shard::{ConnId, Shard},
    transport::http::Patience,
};

/// The session of a stream, from its opening until the client is gone.
pub(super) struct Presence {
    pub shard: Shard,
    pub id: ConnId,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shard.gone(self.id);
    }
}

/// The text of a stream, piece by piece.
pub struct EventBody {
    pub(super) queue: Shared,
    /// Of the write queue.
    pub(super) limit: usize,
    pub(super) presence: Presence,
    /// With what is left when it ends.
    pub(super) patience: Rc<Patience>,
}

impl Drop for EventBody {
    fn drop(&mut self) {
        self.patience.rest_is_there();
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    /// Cancel: nothing is lost that was not taken.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let taken = this.queue.borrow_mut().poll_take(cx);
        if let Poll::Ready(Some(piece)) = &taken {
            let Presence { shard, id } = &this.presence;
            // A client that takes what it is sent is there; it cannot say so itself.
            shard.heard(*id);
            let left = this.queue.borrow().bytes();
            // Replays are paced at half of the limit.
            if left < this.limit / 2 && (left + piece.len() >= this.limit / 2 || left == 0) {
                shard.drained(*id);
            }
        }
        taken.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
