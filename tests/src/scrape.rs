//! HTTP in its simplest form, and what `/metrics` says.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::within;

/// An answer: status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// What a whole answer says.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, body: body.to_owned() }
    }
}

/// GET of `path`.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")).await
}

/// Sends `head` as it is and reads until the server closes. The answer's status is 0 if it is not HTTP.
pub async fn request(addr: SocketAddr, head: &str) -> Answer {
    within("an HTTP answer", async {
        let mut socket = TcpStream::connect(addr).await.expect("connect");
        socket.write_all(head.as_bytes()).await.expect("send the request");
        let mut bytes = Vec::new();
        // A reset after the answer is no failure of the answer.
        let _ = socket.read_to_end(&mut bytes).await;
        Answer::of(&bytes)
    })
    .await
}

/// What `/metrics` said.
#[derive(Debug, Clone)]
pub struct Scrape(String);

impl Scrape {
    /// Asks the admin listener.
    pub async fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self(answer.body)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The sum of all series of `name`; of a histogram ask for `name_count` or `name_sum`. 0 if there is none.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// The sum of the series of `name` whose labels contain `label`, as in `code="3512"`.
    #[must_use]
    pub fn labelled(&self, name: &str, label: &str) -> f64 {
        self.series(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// Whether there is a sample of `name`, or of the histogram `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.series(name).next().is_some() || self.series(&format!("{name}_count")).next().is_some()
    }

    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }
}

/// Asks for the metrics until `wanted` holds, and answers what held.
///
/// # Panics
/// It does not within [`DEADLINE`](crate::DEADLINE).
pub async fn metrics_until(admin: SocketAddr, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut last = None;
    let seen = tokio::time::timeout(crate::DEADLINE, async {
        loop {
            let scrape = Scrape::of(admin).await;
            if wanted(&scrape) {
                return scrape;
            }
            last = Some(scrape);
            // A gauge has no event to wait for.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    match seen.await {
        Ok(scrape) => scrape,
        Err(_) => {
            panic!("metrics: {what} did not come about:\n{}", last.map_or(String::new(), |last| last.0))
        }
    }
}
