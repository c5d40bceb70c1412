//! The scripts, each a file with a header that lists keys, arguments and result.
//!
//! A script touches (`EXISTS`, or a read) every key that it writes before its first write. While a slot of a Redis
//! Cluster migrates, a key that is not, or not any more, on this server fails the script: so it fails as a whole. The
//! exceptions are writes that are complete in themselves and may be repeated, such as those of `open_meta`.

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
    PUBLISH = "publish" ["interest", "jobs", "meta", "publish"];
    /// Interest in a channel, with what was missed.
    SUBSCRIBE = "subscribe" ["interest", "meta", "lease", "history", "subscribe"];
    /// Interest in a pattern, with the channels it matches.
    SUBSCRIBE_PATTERN = "subscribe_pattern" ["interest", "meta", "lease", "subscribe_pattern"];
    /// Withdraws interest.
    UNSUBSCRIBE = "unsubscribe" ["interest", "unsubscribe"];
    /// Ranges of histories.
    READ = "read" ["meta", "history", "read"];
    /// Which histories end elsewhere than the node thinks.
    CHECK = "check" ["interest", "meta", "lease", "check"];
    /// Inbox and consumer group of a node.
    REGISTER_NODE = "register_node" ["register_node"];
    /// Keeps and trims an inbox.
    RENEW_INBOX = "renew_inbox" ["renew_inbox"];
    /// A page of the catalogue.
    CHANNELS = "channels" ["channels"];
    /// Removes a history.
    REMOVE_HISTORY = "remove_history" ["remove_history"];
    /// Withdraws all that a node holds.
    LEAVE = "leave" ["interest", "presence", "reap", "leave"];
    /// Joins and leaves.
    CHANGE_MEMBERS = "change_members" ["presence", "lease", "change_members"];
    /// A page of a channel's members.
    MEMBERS = "members" ["clock", "lease", "members"];
    /// A page of the channels that have members.
    MEMBER_CHANNELS = "member_channels" ["clock", "lease", "member_channels"];
    /// A page of what a node holds.
    HELD = "held" ["clock", "held"];
    /// Renews the lease and reaps.
    HEARTBEAT = "heartbeat" ["interest", "presence", "reap", "sweep", "heartbeat"];
    /// Letters for nodes.
    POST = "post" ["clock", "post"];
    /// A node's card.
    ANNOUNCE = "announce" ["clock", "announce"];
    /// The nodes that live.
    NODES = "nodes" ["clock", "nodes"];
    /// Adds to the list of revocations.
    REVOKE = "revoke" ["clock", "revoke"];
    /// The list of revocations.
    REVOCATIONS = "revocations" ["clock", "revocations"];
    /// Keeps a session's record, for the connection that has the session.
    SAVE_SESSION = "save_session" ["save_session"];
    /// Reads a session's record, and numbers who resumes it.
    LOAD_SESSION = "load_session" ["load_session"];
    /// Appends shared work.
    ADD_WORK = "add_work" ["add_work"];
    /// Takes a lane of shared work and its next items.
    TAKE_WORK = "take_work" ["take_work"];
    /// Removes shared work that is done.
    FINISH_WORK = "finish_work" ["finish_work"];
    /// A node's turn at a queue.
    QUEUE_TURN = "queue_turn" ["clock", "jobs", "queue_turn"];
    /// How a queue is doing.
    QUEUE_STATS = "queue_stats" ["clock", "jobs", "queue_stats"];
    /// A page of the queues.
    QUEUES = "queues" ["clock", "queues"];
    /// Looks at jobs.
    QUEUE_PEEK = "queue_peek" ["clock", "jobs", "queue_peek"];
    /// Makes dead jobs ready again.
    QUEUE_REDRIVE = "queue_redrive" ["clock", "jobs", "queue_redrive"];
    /// Removes jobs of a queue, or all of it.
    QUEUE_PURGE = "queue_purge" ["clock", "jobs", "queue_purge"];
    /// Layout of the deployment and node incarnation.
    DEPLOYMENT = "deployment" ["deployment"];
}
