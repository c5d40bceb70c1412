//! The commands this gateway may send, and how they are put together.
//!
//! The reply of a command outside this list could be mistaken for a pub/sub message by the Redis crate: it takes a
//! top-level array whose first element is the string `message`, `pmessage`, `smessage`, or (with 3 or 4 elements)
//! `subscribe`, `unsubscribe` and the like, for one, and then every later reply on that connection answers the wrong
//! command. So no command is listed whose reply is an array that begins with a string that a user can choose: no
//! `HMGET`, `MGET`, `HGETALL`, `SMEMBERS`, `SUNION`, `ZRANGE`, `LRANGE`, and nothing of pub/sub. What needs those goes
//! into a script, which returns an integer or an array that starts with one.

use bytes::Bytes;

macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A command that may be sent. See the module for what a listed command must never answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CommandName { $($(#[$doc])* $variant,)* }

        impl CommandName {
            /// Every command that may be sent.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name as Redis knows it; also the metric label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

commands! {
    /// `CLIENT`: only `KILL`, `ID`, `SETNAME` and `NO-EVICT`; integers and statuses.
    Client = "CLIENT",
    /// `CLUSTER`: `SLOTS` answers arrays that start with integers.
    Cluster = "CLUSTER",
    /// `CONFIG GET name`: the array starts with the name of the setting.
    Config = "CONFIG",
    /// Integer.
    Del = "DEL",
    /// A script: an integer, or an array that starts with one.
    EvalSha = "EVALSHA",
    /// Integer.
    Exists = "EXISTS",
    /// Bulk string.
    Get = "GET",
    /// Integer.
    HDel = "HDEL",
    /// Bulk string.
    HGet = "HGET",
    /// Integer.
    HSet = "HSET",
    /// Integer.
    HSetNx = "HSETNX",
    /// Integer.
    Incr = "INCR",
    /// Bulk string.
    Info = "INFO",
    /// Integer.
    PExpire = "PEXPIRE",
    /// Status.
    Ping = "PING",
    /// Integer.
    PTtl = "PTTL",
    /// The array starts with `master`, `slave` or `sentinel`.
    Role = "ROLE",
    /// Integer.
    SAdd = "SADD",
    /// Integer.
    SCard = "SCARD",
    /// `SCRIPT LOAD`: bulk string.
    Script = "SCRIPT",
    /// `SENTINEL MASTER`: the array starts with the word `name`. `SENTINEL GET-MASTER-ADDR-BY-NAME`: the array starts
    /// with a host, but has two elements, and what is taken for pub/sub has three or four. No other subcommand.
    Sentinel = "SENTINEL",
    /// Status or bulk string.
    Set = "SET",
    /// Integer.
    SIsMember = "SISMEMBER",
    /// Integer.
    SRem = "SREM",
    /// The array starts with a number as a string.
    Time = "TIME",
    /// Integer.
    Unlink = "UNLINK",
    /// Integer.
    XAck = "XACK",
    /// Bulk string (the ID).
    XAdd = "XADD",
    /// The array starts with an ID.
    XAutoClaim = "XAUTOCLAIM",
    /// Integer.
    XDel = "XDEL",
    /// Status or integer.
    XGroup = "XGROUP",
    /// Arrays of arrays, or an array that starts with the word `length`.
    XInfo = "XINFO",
    /// Integer.
    XLen = "XLEN",
    /// The array starts with an integer, or holds arrays.
    XPending = "XPENDING",
    /// Array of arrays.
    XRange = "XRANGE",
    /// Array of arrays.
    XRead = "XREAD",
    /// Array of arrays.
    XReadGroup = "XREADGROUP",
    /// Array of arrays.
    XRevRange = "XREVRANGE",
    /// Integer.
    XTrim = "XTRIM",
    /// Integer.
    ZAdd = "ZADD",
    /// Integer.
    ZCard = "ZCARD",
    /// Integer.
    ZRem = "ZREM",
    /// Bulk string.
    ZScore = "ZSCORE",
}

/// A command with its arguments, not yet sent.
#[derive(Debug, Clone)]
pub struct Command {
    name: CommandName,
    args: Vec<Bytes>,
    blocks: bool,
}

impl Command {
    /// A command without arguments so far.
    #[must_use]
    pub fn new(name: CommandName) -> Self {
        Self::with_capacity(name, 8)
    }

    /// A command that will get about `args` arguments.
    #[must_use]
    pub fn with_capacity(name: CommandName, args: usize) -> Self {
        Self { name, args: Vec::with_capacity(args), blocks: false }
    }

    /// Appends an argument without copying it.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<Bytes>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends a copy of an argument.
    #[must_use]
    pub fn copy(self, arg: impl AsRef<[u8]>) -> Self {
        self.arg(Bytes::copy_from_slice(arg.as_ref()))
    }

    /// Appends a number in decimal.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }

    /// Appends arguments without copying them.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = Bytes>) -> Self {
        self.args.extend(args);
        self
    }

    /// Says that the server may hold the reply back on purpose (`BLOCK`): its time is then no latency to measure.
    /// Later commands on the same connection wait behind it.
    #[must_use]
    pub fn blocking(mut self) -> Self {
        self.blocks = true;
        self
    }

    /// The command's name.
    #[must_use]
    pub fn name(&self) -> CommandName {
        self.name
    }

    /// Whether the server may hold the reply back on purpose.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.blocks
    }

    /// The arguments, moved out.
    pub(super) fn into_args(self) -> Vec<Bytes> {
        self.args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands whose reply starts with a string that users choose, and those that change the connection's mode.
    const NEVER: &[&str] = &[
        "MGET",
        "HMGET",
        "HGETALL",
        "HKEYS",
        "HVALS",
        "HRANDFIELD",
        "SMEMBERS",
        "SUNION",
        "SINTER",
        "SDIFF",
        "SPOP",
        "SRANDMEMBER",
        "LRANGE",
        "ZRANGE",
        "ZRANGEBYLEX",
        "ZRANGEBYSCORE",
        "ZPOPMIN",
        "ZPOPMAX",
        "KEYS",
        "SORT",
        "EVAL",
        "SUBSCRIBE",
        "PSUBSCRIBE",
        "SSUBSCRIBE",
        "UNSUBSCRIBE",
        "PUBSUB",
        "MONITOR",
        "MULTI",
        "EXEC",
        "HELLO",
        "RESET",
        "QUIT",
        "AUTH",
        "SELECT",
    ];

    #[test]
    fn no_command_is_listed_whose_reply_can_look_like_pub_sub() {
        for name in CommandName::ALL {
            assert!(!NEVER.contains(&name.as_str()), "{} must not be sent", name.as_str());
        }
    }

    #[test]
    fn names_are_single_upper_case_words_listed_once() {
        // The Redis crate splits a name at blanks and would send a subcommand that way; ours are arguments.
        let mut seen = std::collections::HashSet::new();
        for name in CommandName::ALL {
            assert!(name.as_str().bytes().all(|b| b.is_ascii_uppercase()), "{}", name.as_str());
            assert!(seen.insert(name.as_str()), "{} is listed twice", name.as_str());
        }
    }
}
