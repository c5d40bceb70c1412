//! The scripts, each a file with a header that lists keys, arguments and result.

use super::script::Script;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $label:literal [$($part:literal),+];)*) => {
        $($(#[$doc])* pub static $name: Script =
            Script::new($label, concat!($(include_str!(concat!("scripts/", $part, ".lua")), "\n"),+));)*

        /// Every script, to be loaded on each new connection.
        pub fn all() -> Vec<&'static Script> {
            vec![$(&$name),*]
        }
    };
}

scripts! {
    /// Many publishes of one partition.
    PUBLISH = "publish" ["meta", "publish"];
    /// Interest in a channel, with what was missed.
    SUBSCRIBE = "subscribe" ["meta", "lease", "history", "subscribe"];
    /// Interest in a pattern, with the channels it matches.
    SUBSCRIBE_PATTERN = "subscribe_pattern" ["meta", "lease", "subscribe_pattern"];
    /// Withdraws interest.
    UNSUBSCRIBE = "unsubscribe" ["unsubscribe"];
    /// Ranges of histories.
    READ = "read" ["meta", "history", "read"];
    /// Which histories end elsewhere than the node thinks.
    CHECK = "check" ["meta", "lease", "check"];
    /// Inbox and consumer group of a node.
    REGISTER_NODE = "register_node" ["register_node"];
    /// Keeps and trims an inbox.
    RENEW_INBOX = "renew_inbox" ["renew_inbox"];
    /// Removes a history.
    REMOVE_HISTORY = "remove_history" ["remove_history"];
    /// Withdraws all that a node holds.
    LEAVE = "leave" ["presence", "reap", "leave"];
    /// Joins and leaves.
    CHANGE_MEMBERS = "change_members" ["presence", "lease", "change_members"];
    /// A page of a channel's members.
    MEMBERS = "members" ["clock", "lease", "members"];
    /// A page of the channels that have members.
    MEMBER_CHANNELS = "member_channels" ["clock", "lease", "member_channels"];
    /// Renews the lease and reaps.
    HEARTBEAT = "heartbeat" ["presence", "reap", "heartbeat"];
    /// Keeps a session's record.
    SAVE_SESSION = "save_session" ["save_session"];
    /// Layout of the deployment and node incarnation.
    DEPLOYMENT = "deployment" ["deployment"];
}
