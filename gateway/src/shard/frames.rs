//! Publications as frames: encoded once for each form in use, whoever gets them.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use streamgate_proto::v1::OutboundMessage;

use crate::{
    broker::Publication,
    error::{CloseCode, ErrorCode},
    session::{Now, publication_frame},
    transport::Wire,
};

/// Publications, and bytes of their frames, that the replay cache may hold before it starts anew.
const REPLAY_PUBLICATIONS: usize = 4096;
const REPLAY_BYTES: usize = 16 * 1024 * 1024;
/// How long the replay cache is kept after its last use.
const REPLAY_IDLE_MS: u64 = 2_000;

/// Encodes an envelope for a connection.
///
/// # Errors
/// [`CloseCode::InappropriateProtocol`]: the encoding cannot carry it.
pub(super) fn encode(wire: Wire, message: &OutboundMessage) -> Result<Bytes, CloseCode> {
    wire.frame(message).map_err(|error| {
        tracing::warn!(%error, "a frame cannot be encoded");
        CloseCode::InappropriateProtocol
    })
}

/// The frames of one publication, made when first asked for.
#[derive(Debug, Default)]
pub(super) struct Frames([Option<Result<Bytes, CloseCode>>; 2 * Wire::COUNT]);

impl Frames {
    /// Whether that frame was made before.
    fn has(&self, wire: Wire, extended: bool) -> bool {
        self.0[slot(wire, extended)].is_some()
    }

    /// The frame for clients with this form and schema.
    ///
    /// # Errors
    /// The code to close such a client with.
    pub fn get(
        &mut self,
        publication: &Publication,
        wire: Wire,
        extended: bool,
        replay: bool,
        now: Now,
    ) -> Result<Bytes, CloseCode> {
        let made = &mut self.0[slot(wire, extended)];
        made.get_or_insert_with(|| {
            let frame = publication_frame(publication, extended, replay, now).map_err(|error| {
                tracing::error!(channel = %publication.channel, %error, "a publication cannot be read");
                debug_assert_eq!(error.code, ErrorCode::Internal);
                CloseCode::Internal
            })?;
            encode(wire, &frame)
        })
        .clone()
    }
}

/// The place of a form in a table of all.
fn slot(wire: Wire, extended: bool) -> usize {
    2 * wire.index() + usize::from(extended)
}

/// Frames of replays, which many clients ask for at the same time after an outage.
#[derive(Debug, Default)]
pub(super) struct ReplayFrames {
    /// By the publication's address, which is its own as long as the cache holds it.
    by_address: AHashMap<usize, (Arc<Publication>, Frames)>,
    bytes: usize,
    used_ms: u64,
}

impl ReplayFrames {
    /// As [`Frames::get`], for a replay.
    pub fn get(
        &mut self,
        publication: &Arc<Publication>,
        wire: Wire,
        extended: bool,
        now: Now,
    ) -> Result<Bytes, CloseCode> {
        self.used_ms = now.mono_ms;
        if self.by_address.len() >= REPLAY_PUBLICATIONS || self.bytes >= REPLAY_BYTES {
            self.by_address.clear();
            self.bytes = 0;
        }
        let address = Arc::as_ptr(publication) as usize;
        let (publication, frames) =
            self.by_address.entry(address).or_insert_with(|| (publication.clone(), Frames::default()));
        let made = frames.has(wire, extended);
        let frame = frames.get(publication, wire, extended, true, now)?;
        if !made {
            self.bytes += frame.len() + publication.stored.event.len();
        }
        Ok(frame)
    }

    /// Frees what nobody asked for lately.
    pub fn sweep(&mut self, now: Now) {
        if !self.by_address.is_empty() && now.mono_ms > self.used_ms + REPLAY_IDLE_MS {
            self.by_address = AHashMap::new();
            self.bytes = 0;
        }
    }
}
