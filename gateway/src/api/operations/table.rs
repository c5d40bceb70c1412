//! The table of operations: what the service of the schema has, under which name and scope.

use streamgate_proto::{json, server::*};

use super::Operations;
use crate::{
    api::{Scope, schema},
    error::{ClientError, ErrorCode},
};

/// Hands every row to the macro `$use`: variant, method, name of the rpc, request, response, scope.
macro_rules! each_operation {
    ($use:ident) => {
        $use! {
            Publish, publish, "Publish", PublishRequest, PublishResponse, Publish;
            Broadcast, broadcast, "Broadcast", BroadcastRequest, BroadcastResponse, Publish;
            Subscribe, subscribe, "Subscribe", SubscribeRequest, SubscribeResponse, Manage;
            Unsubscribe, unsubscribe, "Unsubscribe", UnsubscribeRequest, UnsubscribeResponse, Manage;
            Disconnect, disconnect, "Disconnect", DisconnectRequest, DisconnectResponse, Manage;
            History, history, "History", HistoryRequest, HistoryResponse, Read;
            RemoveHistory, remove_history, "RemoveHistory", RemoveHistoryRequest, RemoveHistoryResponse, Manage;
            Presence, presence, "Presence", PresenceRequest, PresenceResponse, Read;
            Channels, channels, "Channels", ChannelsRequest, ChannelsResponse, Read;
            Sessions, sessions, "Sessions", SessionsRequest, SessionsResponse, Read;
            Call, call, "Call", CallRequest, CallResponse, Call;
            Survey, survey, "Survey", SurveyRequest, SurveyResponse, Call;
            Nodes, nodes, "Nodes", NodesRequest, NodesResponse, Read;
            Revoke, revoke, "Revoke", RevokeRequest, RevokeResponse, Manage;
        }
    };
}
pub(in crate::api) use each_operation;

macro_rules! table {
    ($($variant:ident, $method:ident, $rpc:literal, $request:ident, $response:ident, $scope:ident;)*) => {
        /// One operation of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation {
            $(#[doc = concat!("`", stringify!($method), "`.")] $variant,)*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in paths of the JSON door.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($method),)* }
            }

            /// Its name in the service of the schema.
            #[must_use]
            pub const fn rpc(self) -> &'static str {
                match self { $(Self::$variant => $rpc,)* }
            }

            /// What a token needs for it.
            #[must_use]
            pub const fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }

        impl Operations {
            /// Carries out a request in JSON; the answer is JSON, too.
            ///
            /// # Errors
            /// [`ErrorCode::BadRequest`] if `body` is not the operation's request in every field; else what the operation
            /// says.
            pub async fn run(&self, operation: Operation, body: &[u8]) -> Result<bytes::Bytes, ClientError> {
                match operation {
                    $(Operation::$variant => {
                        let request: $request = json::decode(body).map_err(|error| ClientError::bad_request(error.to_string()))?;
                        schema::refuse_unknown_fields(operation, body)?;
                        encoded(&self.$method(request).await?)
                    })*
                }
            }
        }
    };
}
each_operation!(table);

impl Operation {
    /// The operation of a path of the JSON door, without what all paths start with.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// The operation of a method of the service.
    #[must_use]
    pub fn of_rpc(rpc: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.rpc() == rpc)
    }
}

fn encoded<M: serde::Serialize>(response: &M) -> Result<bytes::Bytes, ClientError> {
    json::encode(response).map_err(|error| ClientError::new(ErrorCode::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_method_of_the_service_and_no_other() {
        let mut of_schema: Vec<_> =
            schema::service().methods().map(|method| method.name().to_owned()).collect();
        let mut of_table: Vec<_> =
            Operation::ALL.iter().map(|operation| operation.rpc().to_owned()).collect();
        of_schema.sort_unstable();
        of_table.sort_unstable();
        assert_eq!(of_table, of_schema);
        for operation in Operation::ALL {
            let words: String = operation.name().split('_').collect();
            assert_eq!(words, operation.rpc().to_lowercase());
            assert_eq!(Operation::of_name(operation.name()), Some(*operation));
            assert_eq!(Operation::of_rpc(operation.rpc()), Some(*operation));
        }
    }
}
