//! Reading the bodies of requests: each within a time and a size, and all of them within one budget.
//!
//! A request whose body does not come takes nothing of what others need: it gets its share of the budget when the first
//! bytes are there, and its place among the requests that are carried out ([`Door::enter`](super::Door)) after the last.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::error::{ClientError, ErrorCode};

/// Time for a request's body.
const TIME: Duration = Duration::from_secs(30);
/// KiB that the bodies of all requests may take while they are read and decoded.
const BUDGET_KIB: usize = 64 * 1024;

/// The budget of all bodies. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bodies(Arc<Semaphore>);

/// A whole body, with its share of the budget.
#[derive(Debug)]
pub(super) struct Whole {
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum NoBody {
    /// It did not come in time.
    Late(ClientError),
    /// It is too large, or breaks off.
    Unfit(ClientError),
}

impl NoBody {
    pub fn into_error(self) -> ClientError {
        match self {
            Self::Late(error) | Self::Unfit(error) => error,
        }
    }
}

impl Bodies {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB)))
    }

    /// The whole body, if it has at most `limit` bytes. `says`: how many it will have, by what its beginning says; what says
    /// nothing may have as many as are allowed. Trailers are left out.
    ///
    /// Cancel: safe, the body is lost.
    pub async fn read<B>(
        &self,
        body: B,
        limit: usize,
        says: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<Whole, NoBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(too_large(&announced.to_string(), limit));
        }
        let most = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
        let reading = async {
            let mut body = Limited::new(body, limit);
            let Some(first) = first(&mut body, limit).await? else {
                return Ok(Whole { bytes: Bytes::new(), _share: None });
            };
            let said = most.or_else(|| says(&first));
            let most = said.unwrap_or(limit).min(limit).max(first.len());
            let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
            // Fails if it is closed, which nobody does.
            let share = self.0.clone().acquire_many_owned(kib).await.ok();
            let mut bytes = first.to_vec();
            bytes.reserve_exact(if said.is_some() { most - first.len() } else { 0 });
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| broken(&*error, limit))?.into_data() else { continue };
                // Its share is no larger.
                if data.len() > most - bytes.len() {
                    return Err(too_large("more", most));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Whole { bytes: bytes.into(), _share: share })
        };
        timeout(TIME, reading).await.unwrap_or_else(|_| {
            Err(NoBody::Late(ClientError::bad_request(format!("the request did not come within {TIME:?}"))))
        })
    }
}

/// The first bytes of a body; `None` if it has none.
async fn first<B>(body: &mut Limited<B>, limit: usize) -> Result<Option<Bytes>, NoBody>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&*error, limit))?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn broken(error: &(dyn std::error::Error + Send + Sync + 'static), limit: usize) -> NoBody {
    if error.is::<LengthLimitError>() {
        return too_large("more", limit);
    }
    NoBody::Unfit(ClientError::bad_request(format!("the request breaks off: {error}")))
}

fn too_large(size: &str, limit: usize) -> NoBody {
    let text = format!("the request has {size} bytes, at most {limit} are allowed");
    NoBody::Unfit(ClientError::new(ErrorCode::TooLarge, text))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const LIMIT: usize = 4 * 1024 * 1024;

    /// A body whose rest never comes.
    fn endless(start: &'static [u8]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let start = stream::iter([Ok(Frame::data(Bytes::from_static(start)))]);
        StreamBody::new(start.chain(stream::pending()))
    }

    fn nothing(_: &[u8]) -> Option<usize> {
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_ends_with_its_time_and_takes_nothing_before_it_begins() {
        let bodies = Bodies::new();
        for (start, left) in [(&b""[..], 64 * 1024), (&b"x"[..], 60 * 1024)] {
            let reading = tokio::spawn({
                let bodies = bodies.clone();
                async move { bodies.read(endless(start), LIMIT, nothing).await }
            });
            tokio::time::sleep(TIME / 2).await;
            assert_eq!(bodies.0.available_permits(), left);
            let started = tokio::time::Instant::now();
            assert!(matches!(reading.await.unwrap(), Err(NoBody::Late(_))));
            assert!(started.elapsed() <= TIME / 2 + Duration::from_secs(1));
            assert_eq!(bodies.0.available_permits(), BUDGET_KIB);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_bodies_together_stay_within_the_budget_while_they_are_there() {
        let bodies = Bodies::new();
        let says = |start: &[u8]| Some(usize::from(start[0]) * 1024);
        let mut whole = Vec::new();
        for _ in 0..64 {
            let body = StreamBody::new(stream::iter([Ok::<_, Infallible>(Frame::data("\u{40}".into()))]));
            whole.push(bodies.read(body, LIMIT, says).await.unwrap());
        }
        assert_eq!(bodies.0.available_permits(), BUDGET_KIB - 64 * 64);
        drop(whole);
        assert_eq!(bodies.0.available_permits(), BUDGET_KIB);
        // More than it says at its beginning is not taken.
        let parts = ["\u{1}".to_owned(), "x".repeat(1024)];
        let parts = parts.map(|part| Ok::<_, Infallible>(Frame::data(part.into())));
        let outcome = bodies.read(StreamBody::new(stream::iter(parts)), LIMIT, says).await;
        assert_eq!(outcome.unwrap_err().into_error().code, ErrorCode::TooLarge);
        // One that says how long it is gets that much.
        let whole = bodies.read(Full::new(Bytes::from(vec![7; 3_000])), LIMIT, nothing).await.unwrap();
        assert_eq!((whole.bytes.len(), bodies.0.available_permits()), (3_000, BUDGET_KIB - 3));
        assert!(bodies.read(Empty::<Bytes>::new(), LIMIT, nothing).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_or_breaks_off_is_told_apart() {
        let bodies = Bodies::new();
        let code = |outcome: Result<Whole, NoBody>| outcome.unwrap_err().into_error().code;
        let full = Full::new(Bytes::from_static(b"four"));
        assert_eq!(code(bodies.read(full, 3, nothing).await), ErrorCode::TooLarge);
        let parts = ["fo", "ur"].map(|part| Ok::<_, Infallible>(Frame::data(part.into())));
        let chunked = StreamBody::new(stream::iter(parts));
        assert_eq!(code(bodies.read(chunked, 3, nothing).await), ErrorCode::TooLarge);
        let parts = [Ok(Frame::data(Bytes::from_static(b"fo"))), Err(std::io::Error::other("gone"))];
        let broken = StreamBody::new(stream::iter(parts));
        assert_eq!(code(bodies.read(broken, 9, nothing).await), ErrorCode::BadRequest);
    }
}
