//! A backend that answers calls with what it was sent: what hooks are asked of, and the floor of a call through one, when
//! it is asked directly.
//!
//! HTTP/1.1 with connections that stay open, one thread, hyper without a framework.

use std::{convert::Infallible, io::Write as _, net::SocketAddr, thread};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// The command that runs it.
pub const COMMAND: &str = "floor-backend";

/// Options of `floor-backend`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// As much of the hook `RPC`, and of its answer, as it takes to give back what came.
#[derive(Debug, Serialize, Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Serves until its standard input closes. Prints where it listens.
///
/// # Errors
/// It cannot listen.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    thread::spawn(|| {
        // Whatever comes is nothing to it, also an error: then it is closed as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        // An error is the caller's, who sees it, too.
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(refused()),
    };
    let echo = serde_json::from_slice::<Call<'_>>(&body).and_then(|call| serde_json::to_vec(&call));
    let Ok(echo) = echo else { return Ok(refused()) };
    let mut response = Response::new(Full::new(Bytes::from(echo)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn refused() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
