//! The client against servers that behave, and those that do not.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use hyper::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

const LIMITS: CallLimits = CallLimits { deadline: Duration::from_secs(10), max_response_bytes: 1_000 };
const SHORT: CallLimits = CallLimits { deadline: Duration::from_millis(300), ..LIMITS };

fn client() -> HttpClient {
    HttpClient::new(&Trust::System).unwrap()
}

fn post(addr: SocketAddr) -> Request<Bytes> {
    let request = Request::builder().method(Method::POST).uri(format!("http://{addr}/hook?secret=1"));
    request.body(Bytes::from_static(b"{}")).unwrap()
}

/// Reads a request whole: its head and the two bytes of its body.
async fn take_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        match stream.read_buf(&mut seen).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}

/// A server that writes `answer` to each request, again and again if `endless`, and closes unless `keep`.
async fn server(
    answer: &'static str,
    endless: bool,
    keep: bool,
) -> (SocketAddr, tokio::sync::watch::Receiver<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (accepted, connections) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            accepted.send_modify(|count| *count += 1);
            tokio::spawn(async move {
                while take_request(&mut stream).await {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    while endless && stream.write_all(b"1\r\nx\r\n").await.is_ok() {}
                    if !keep {
                        return;
                    }
                }
            });
        }
    });
    (addr, connections)
}

async fn refused(answer: &'static str, endless: bool, keep: bool, limits: CallLimits) -> HttpError {
    let (addr, _connections) = server(answer, endless, keep).await;
    let begun = Instant::now();
    let error = client().call(post(addr), limits).await.unwrap_err();
    assert!(begun.elapsed() < limits.deadline + Duration::from_secs(2), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(error.was_sent());
    error
}

#[tokio::test]
async fn answers_of_any_status_but_3xx_are_answers_and_connections_are_used_again() {
    let (addr, connections) = server("HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbody", false, true).await;
    let client = client();
    for _ in 0..3 {
        let answer = client.clone().call(post(addr), LIMITS).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (503, &b"body"[..]));
    }
    assert_eq!(*connections.borrow(), 1);
}

#[tokio::test]
async fn as_many_connections_stay_as_there_were_calls_at_a_time() {
    const AT_A_TIME: usize = 300;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (accepted, connections) = tokio::sync::watch::channel(0);
    // Nobody is answered before all have asked.
    let all = Arc::new(tokio::sync::Barrier::new(AT_A_TIME));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            accepted.send_modify(|count| *count += 1);
            let all = all.clone();
            tokio::spawn(async move {
                while take_request(&mut stream).await {
                    all.wait().await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    let client = client();
    for _ in 0..3 {
        let calls = (0..AT_A_TIME).map(|_| client.call(post(addr), LIMITS));
        for answer in futures_util::future::join_all(calls).await {
            assert!(answer.unwrap().status().is_success());
        }
        assert_eq!(*connections.borrow(), AT_A_TIME);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, visits) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, true).await;
    let answer = format!("HTTP/1.1 307 Go\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
    let error = refused(answer.leak(), false, true, LIMITS).await;
    assert_eq!(error, HttpError::Redirect { status: 307 });
    assert_eq!(*visits.borrow(), 0);
}

#[tokio::test]
async fn bodies_without_end_are_cut_at_the_limit() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(refused(chunked, true, true, LIMITS).await, HttpError::TooLarge { limit: 1_000 });
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n";
    assert_eq!(refused(announced, false, true, LIMITS).await, HttpError::TooLarge { limit: 1_000 });
}

#[tokio::test]
async fn stalls_end_at_the_deadline_wherever_they_are() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let error = refused(answer, false, true, SHORT).await;
        assert_eq!(error, HttpError::Timeout { deadline: SHORT.deadline }, "{answer:?}");
    }
}

#[tokio::test]
async fn garbage_and_early_ends_are_broken_answers() {
    for answer in ["\u{1}\u{2}garbage\r\n\r\n", "", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let error = refused(answer, false, false, LIMITS).await;
        assert!(matches!(error, HttpError::Broken { .. }), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(2 * HEAD_BYTES));
    let error = refused(head.leak(), false, true, LIMITS).await;
    assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn what_never_left_this_node_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = client().call(post(addr), LIMITS).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }) && !error.was_sent(), "{error:?}");
    assert_eq!(error.to_string(), "cannot connect: connection refused");
    let relative = Request::builder().uri("/no-host").body(Bytes::new()).unwrap();
    let error = client().call(relative, LIMITS).await.unwrap_err();
    assert!(matches!(error, HttpError::Request { .. }), "{error:?}");
}

#[tokio::test]
async fn plain_servers_behind_an_https_url_are_never_spoken_to_in_the_clear() {
    let (addr, _connections) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, true).await;
    let uri = format!("https://{addr}/");
    let request = Request::builder().uri(uri).body(Bytes::new()).unwrap();
    let error = client().call(request, SHORT).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. } | HttpError::Timeout { .. }), "{error:?}");
}
