//! Tokens that the library for backends mints (`streamgate_client::server::TokenMinter`), shown to real nodes.

use std::{path::PathBuf, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::KeyPair as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::json;
use streamgate_client::server::{
    Algorithm, ApiClient, ConnectionToken, Revocation, SubscriptionToken, TokenMinter,
};
use streamgate_e2e::{
    events::{extended, frame, live},
    gateway::TestNode,
    raw::{RawClient, Via},
    rights::{OPEN, showing},
};
use streamgate_proto::v1::{
    Subscribe, Subscription, inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

/// As in [`OPEN`].
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// A key of each kind, in files that are gone with it.
#[derive(Debug)]
struct Key {
    algorithm: Algorithm,
    private: Vec<u8>,
    /// As it stands in the configuration.
    config: String,
    file: PathBuf,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let file = std::env::temp_dir().join(format!("streamgate-key-{}.pem", uuid::Uuid::new_v4()));
        let (private, public) = match algorithm {
            Algorithm::HS512 => (vec![7; 64], vec![7; 64]),
            Algorithm::RS256 => rsa(),
            other => {
                let kind = if other == Algorithm::ES256 { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ED25519 };
                let pair = KeyPair::generate_for(kind).unwrap();
                (pair.serialize_pem().into_bytes(), pair.public_key_pem().into_bytes())
            }
        };
        std::fs::write(&file, public).unwrap();
        let name = if algorithm == Algorithm::HS512 { "secret_file" } else { "public_key_file" };
        let config = format!("{{id: k, algorithm: {algorithm:?}, {name}: {}}}", file.display());
        Self { algorithm, private, config, file }
    }

    fn minter(&self) -> TokenMinter {
        let minter = match self.algorithm {
            Algorithm::HS512 => TokenMinter::with_secret(self.algorithm, &self.private),
            _ => TokenMinter::with_private_pem(self.algorithm, &self.private),
        };
        minter.unwrap().key_id("k").issuer("shop").audience("gate")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A private key and the public one.
fn rsa() -> (Vec<u8>, Vec<u8>) {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into_bytes()
    };
    (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minted_tokens_are_accepted_with_every_kind_of_key_and_can_be_revoked() {
    for algorithm in [Algorithm::HS512, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = Key::new(algorithm);
        let (minter, config) = (key.minter(), &key.config);
        let node = TestNode::start(&format!(
            "allow_anonymous: true\nauth: {{jwt: {{issuer: shop, audience: gate, keys: [{config}]}}}}\n\
             permissions: [{{channels: [staff], actions: [subscribe], who: {{claims: {{role: [admin]}}}}}}]"
        ))
        .await;
        let hour = Duration::from_secs(3_600);
        let connection = ConnectionToken::new("ann")
            .expires_in(hour)
            .id("t-1")
            .channel("news")
            .subscribe("news")
            .subscribe("mine.**")
            .claim("role", "admin");
        let shown = showing(extended([]), &minter.connection(&connection).unwrap());
        let mut ann = RawClient::connect_as(node.addrs(), Via::WsJson, shown).await;
        assert_eq!(ann.connected.subscriptions[0].channel, "news", "{algorithm:?}");
        ann.subscribe_to("staff").await;
        ann.subscribe_to("mine.a").await;
        let subscription = SubscriptionToken::new("secret").user("ann").expires_in(hour);
        let with = Subscription { token: minter.subscription(&subscription).unwrap(), ..live("secret") };
        let without = frame(In::Subscribe(Subscribe { subscriptions: vec![live("secret")] }));
        assert_eq!(ann.refused(without).await.code, "ACL_ERROR");
        ann.subscribe([with]).await;

        let api = ApiClient::builder(format!("http://{}", node.addrs().admin)).build().unwrap();
        api.revoke(Revocation::Token("t-1".into()), hour).await.unwrap();
        assert_eq!(ann.close_code().await, 3500, "{algorithm:?}");
        let other = minter.connection(&ConnectionToken::new("bob")).unwrap();
        let connect = showing(extended([]), &other);
        let mut bob = RawClient::connect_as(node.addrs(), Via::Grpc, connect).await;
        api.revoke(Revocation::User("bob".into()), hour).await.unwrap();
        assert_eq!(bob.close_code().await, 3500);
    }
    let stranger = TokenMinter::with_secret(Algorithm::HS256, b"another secret of thirty-two bytes").unwrap();
    let node = TestNode::start(OPEN).await;
    for (minter, accepted) in
        [(TokenMinter::with_secret(Algorithm::HS256, SECRET).unwrap(), true), (stranger, false)]
    {
        let token = minter.connection(&ConnectionToken::new("ann").claim("list", json!([1]))).unwrap();
        let mut client = RawClient::open(node.addrs(), Via::WsJson).await;
        client.send(frame(In::Connect(showing(extended([]), &token)))).await;
        if accepted {
            assert!(matches!(client.frame().await.envelope, Some(Out::Connected(_))));
        } else {
            assert_eq!(client.close_code().await, 3500);
        }
    }
}
