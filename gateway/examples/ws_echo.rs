//! Echo server over the gateway's WebSocket module, to point conformance suites (Autobahn's fuzzing
//! client, say) at.
//!
//! `cargo run --example ws_echo -- [ADDRESS [MAX_MESSAGE_BYTES]]`
//!
//! The address defaults to 127.0.0.1:9001 (port 0: the system chooses), the limit to the gateway's 64 KiB;
//! Autobahn's cases 9.* need 16777216. Pages of any origin may connect.

use anyhow::Context;
use streamgate::transport::ws::{DEFAULT_MAX_MESSAGE, OriginPolicy, echo};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let max_message = match args.next() {
        Some(bytes) => bytes.parse().with_context(|| format!("limit `{bytes}` is not a number of bytes"))?,
        None => DEFAULT_MAX_MESSAGE,
    };
    let listener = tokio::net::TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("ws://{}", listener.local_addr()?);
    echo::serve(listener, echo::EchoConfig { max_message, origins: OriginPolicy::new(["*"]) }).await?;
    Ok(())
}
