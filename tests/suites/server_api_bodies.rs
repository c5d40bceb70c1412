//! Requests to the server API whose bodies do not come.

use futures_util::stream;
use streamgate_e2e::{api::post, gateway::TestNode, within};
use streamgate_proto::server::{ChannelsRequest, ChannelsResponse, api_service_client::ApiServiceClient};
use tokio::task::JoinHandle;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

/// Connections, and requests without a body on each: together more than are carried out at once.
const MANY: (usize, usize) = (5, 1_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_their_body_take_no_place_of_others() {
    let node = TestNode::start("").await;
    let admin = node.addrs().admin;
    let mut kept = Vec::new();
    for _ in 0..MANY.0 {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{admin}")).unwrap();
        let channel = within("a connection", endpoint.connect()).await.unwrap();
        for _ in 0..MANY.1 {
            let mut client = Grpc::new(channel.clone());
            kept.push(tokio::spawn(async move {
                client.ready().await.unwrap();
                let path = PathAndQuery::from_static("/messageloop.server.v1.APIService/Channels");
                let codec = ProstCodec::<ChannelsRequest, ChannelsResponse>::default();
                client.client_streaming(Request::new(stream::pending()), path, codec).await
            }));
            tokio::task::yield_now().await;
        }
        // Goes behind those of its connection.
        let mut client = ApiServiceClient::new(channel);
        within("an answer", client.channels(ChannelsRequest::default())).await.unwrap();
    }
    let answer = post(admin, "channels", &[], "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!kept.iter().any(JoinHandle::is_finished), "all of them wait");
    for request in &kept {
        request.abort();
    }
}
