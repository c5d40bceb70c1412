//! A server of key sets (JWKS), whose answers a test decides and counts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A key with which tokens are signed (ES256).
pub struct SigningKey {
    id: String,
    pair: KeyPair,
}

impl SigningKey {
    /// A new key of this name.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { id: id.to_owned(), pair }
    }

    /// A token with these claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.id, claims)
    }

    /// A token that claims to be signed by another key.
    #[must_use]
    pub fn sign_as(&self, id: &str, claims: &Value) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        encode(&header, claims, &key).expect("a token")
    }

    /// Its public part, as it stands in a set.
    #[must_use]
    pub fn public(&self) -> Value {
        let (x, y) = self.pair.public_key_raw()[1..].split_at(32);
        let base64 = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": base64(x), "y": base64(y)})
    }
}

/// What the server answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A set with these keys.
    Keys(Vec<Value>),
    /// This head and body.
    Raw(String),
    /// Nothing, and the connection stays open.
    Silence,
}

/// The server; it listens on 127.0.0.1 until it is dropped.
pub struct KeyServer {
    addr: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl KeyServer {
    /// A server with these keys.
    pub async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let addr = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(Answer::Keys(keys.iter().map(|key| key.public()).collect())));
        let (count, asked) = watch::channel(0);
        let shown = answer.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(serve(stream, shown.clone(), count.clone()));
            }
        });
        Self { addr, answer, asked, task }
    }

    /// Where the set is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/keys?s3cret", self.addr)
    }

    /// Changes what is answered from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().expect("not poisoned") = answer;
    }

    /// Changes the keys.
    pub fn keys(&self, keys: &[&SigningKey]) {
        self.answer(Answer::Keys(keys.iter().map(|key| key.public()).collect()));
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> watch::Receiver<usize> {
        self.asked.clone()
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Mutex<Answer>>, count: watch::Sender<usize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let answer = answer.lock().expect("not poisoned").clone();
    let text = match answer {
        Answer::Keys(keys) => {
            let body = json!({ "keys": keys }).to_string();
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        }
        Answer::Raw(text) => text,
        Answer::Silence => String::new(),
    };
    let silent = text.is_empty();
    // Whoever has gone does not need it.
    let _ = stream.write_all(text.as_bytes()).await;
    count.send_modify(|count| *count += 1);
    if silent {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}
