//! What Redis answered.

use std::fmt;

use bytes::Bytes;

use crate::broker::BrokerError;

/// A reply of Redis (RESP2).
///
/// The `Bytes` are slices of the connection's read buffer: nothing is copied on the way here, but one slice that is
/// kept alive pins about 225 KiB. Copy what is held for longer (`Bytes::copy_from_slice`) and drop the reply before
/// the next read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The nil bulk string or nil array.
    Nil,
    /// An integer.
    Int(i64),
    /// A bulk string.
    Bulk(Bytes),
    /// A status line such as `OK`.
    Simple(Bytes),
    /// An array.
    Array(Vec<Reply>),
    /// An error inside an array (scripts may return some); a reply that is an error as a whole is
    /// [`CallError::Server`](super::CallError::Server) instead.
    Error(RedisError),
}

impl Reply {
    /// Whether this is nil.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The integer.
    pub fn as_int(&self) -> Result<i64, ReplyError> {
        match self {
            Self::Int(int) => Ok(*int),
            other => Err(other.not("an integer")),
        }
    }

    /// An unsigned number: an integer, or a string of decimal digits (scripts keep large numbers as strings).
    pub fn as_u64(&self) -> Result<u64, ReplyError> {
        let parsed = match self {
            Self::Int(int) => u64::try_from(*int).ok(),
            Self::Bulk(text) | Self::Simple(text) => {
                std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        parsed.ok_or_else(|| self.not("an unsigned number"))
    }

    /// The bytes of a bulk string or status.
    pub fn as_bytes(&self) -> Result<&Bytes, ReplyError> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) => Ok(bytes),
            other => Err(other.not("a string")),
        }
    }

    /// The bytes of a bulk string or status, moved out. Still a slice of the read buffer.
    pub fn into_bytes(self) -> Result<Bytes, ReplyError> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) => Ok(bytes),
            other => Err(other.not("a string")),
        }
    }

    /// The bytes if there are any, `None` for nil.
    pub fn into_optional_bytes(self) -> Result<Option<Bytes>, ReplyError> {
        if self.is_nil() { Ok(None) } else { self.into_bytes().map(Some) }
    }

    /// The text of a bulk string or status.
    pub fn as_str(&self) -> Result<&str, ReplyError> {
        std::str::from_utf8(self.as_bytes()?).map_err(|_| self.not("UTF-8 text"))
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Result<&[Reply], ReplyError> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.not("an array")),
        }
    }

    /// The elements of an array, moved out.
    pub fn into_array(self) -> Result<Vec<Reply>, ReplyError> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.not("an array")),
        }
    }

    /// The elements of an array, or none for nil (`XREADGROUP` without entries).
    pub fn into_array_or_empty(self) -> Result<Vec<Reply>, ReplyError> {
        if self.is_nil() { Ok(Vec::new()) } else { self.into_array() }
    }

    /// The elements of an array of exactly `N` elements.
    pub fn into_exactly<const N: usize>(self) -> Result<[Reply; N], ReplyError> {
        let items = self.into_array()?;
        let got = items.len();
        <[Reply; N]>::try_from(items).map_err(|_| ReplyError::Length { expected: N, got })
    }

    fn not(&self, expected: &'static str) -> ReplyError {
        let got = match self {
            Self::Nil => "nil",
            Self::Int(_) => "an integer",
            Self::Bulk(_) => "a bulk string",
            Self::Simple(_) => "a status",
            Self::Array(_) => "an array",
            Self::Error(_) => "an error",
        };
        ReplyError::Kind { expected, got }
    }
}

/// A reply does not have the shape that its command promises. Never carries data: that may be a user's payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Another kind of reply.
    #[error("expected {expected}, Redis answered {got}")]
    Kind {
        /// What the caller can read.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// An array of another length.
    #[error("expected an array of {expected}, Redis answered {got} elements")]
    Length {
        /// Elements that the caller can read.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
}

impl From<ReplyError> for BrokerError {
    fn from(error: ReplyError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// An error line of Redis: `code` is its first word in capitals (`NOSCRIPT`, `OOM`, `ERR`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisError {
    /// The first word; `ERR` if the line has none in capitals.
    pub code: String,
    /// The rest of the line.
    pub message: String,
}

impl RedisError {
    /// Splits an error line (without its leading `-`).
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !first.is_empty() && first.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            Self { code: first.to_owned(), message: rest.to_owned() }
        } else {
            Self { code: "ERR".to_owned(), message: line.to_owned() }
        }
    }

    /// Whether the script is not loaded; nothing was executed.
    #[must_use]
    pub fn is_no_script(&self) -> bool {
        self.code == "NOSCRIPT"
    }

    /// Whether this connection leads to the wrong server or a server in the wrong state, so that it must be thrown
    /// away and the right one be looked for: role changed, slot moved, data not loaded, no longer authenticated, or
    /// (`STALEID`, of `scripts/meta.lua`) another replication id than the connection was told.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(
            self.code.as_str(),
            "READONLY"
                | "MOVED"
                | "UNBLOCKED"
                | "LOADING"
                | "MASTERDOWN"
                | "CLUSTERDOWN"
                | "NOAUTH"
                | "STALEID"
        )
    }

    /// Whether the server says that it is a replica, or becomes one. (`UNBLOCKED` alone may only mean that a stream is
    /// gone.)
    #[must_use]
    pub fn tells_of_role(&self) -> bool {
        match self.code.as_str() {
            "READONLY" | "MASTERDOWN" => true,
            "UNBLOCKED" => self.message.contains("instance state changed"),
            _ => false,
        }
    }

    /// Whether Redis refused before it executed anything, and the reason may pass: the slot is elsewhere or on its way,
    /// the Cluster or the data is not ready, the server must not write. From within a script these come only with its
    /// first access to keys, because every script touches the keys that it writes before its first write.
    #[must_use]
    pub fn nothing_executed(&self) -> bool {
        let refusals = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"];
        refusals.contains(&self.code.as_str()) || self.slot_refused_a_script()
    }

    /// A script met a key that is not here while its slot migrates, or a Cluster that is down.
    fn slot_refused_a_script(&self) -> bool {
        self.code == "ERR"
            && (self.message.contains("Script attempted to access a non local key")
                || self.message.contains("Script attempted to execute a")
                    && self.message.contains("while the cluster is down"))
    }

    /// Whether the same command may succeed later without anybody changing it. Memory that is full (`OOM`) and a disk
    /// that is (`MISCONF`) count: histories expire, inboxes are trimmed, operators help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let passes = ["BUSY", "NOREPLICAS", "OOM", "MISCONF"];
        self.ends_connection() || self.nothing_executed() || passes.contains(&self.code.as_str())
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

impl std::error::Error for RedisError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_say_what_came_instead() {
        assert_eq!(Reply::Int(7).as_int(), Ok(7));
        assert_eq!(
            Reply::Bulk("1".into()).as_int().unwrap_err().to_string(),
            "expected an integer, Redis answered a bulk string"
        );
        assert_eq!(Reply::Bulk("18446744073709551615".into()).as_u64(), Ok(u64::MAX));
        assert!(Reply::Int(-1).as_u64().is_err());
        assert_eq!(Reply::Nil.into_optional_bytes(), Ok(None));
        assert_eq!(Reply::Nil.into_array_or_empty(), Ok(vec![]));
        assert_eq!(
            Reply::Array(vec![Reply::Nil]).into_exactly::<2>(),
            Err(ReplyError::Length { expected: 2, got: 1 })
        );
    }

    #[test]
    fn error_lines_split_into_code_and_message() {
        let error = RedisError::parse("NOSCRIPT No matching script.");
        assert!(error.is_no_script());
        assert_eq!(error.message, "No matching script.");
        assert_eq!(RedisError::parse("odd thing").code, "ERR");
        assert_eq!(RedisError::parse("odd thing").message, "odd thing");
        assert!(RedisError::parse("READONLY You can't write").ends_connection());
        assert!(RedisError::parse("STALEID another replication id").ends_connection());
        let unblocked = |why: &str| RedisError::parse(&format!("UNBLOCKED {why}")).tells_of_role();
        assert!(unblocked(
            "force unblock from blocking operation, instance state changed (master -> replica?)"
        ));
        assert!(!unblocked("the stream key no longer exists"));
        let full = RedisError::parse("OOM command not allowed");
        assert!(full.is_transient() && !full.ends_connection());
        assert!(!RedisError::parse("WRONGTYPE Operation against a key").is_transient());
    }

    #[test]
    fn refusals_of_a_cluster_are_told_apart_also_from_within_scripts() {
        for line in [
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "ERR Script attempted to access a non local key in a cluster node script: 7b9, on @user_script:28.",
            "ERR Script attempted to execute a command while the cluster is down script: 7b9, on @user_script:1.",
            "ERR Script attempted to execute a write command while the cluster is down and readonly",
        ] {
            let error = RedisError::parse(line);
            assert!(error.nothing_executed() && error.is_transient(), "{line}");
        }
        for line in ["ERR Script attempted to access keys that do not hash to the same slot", "BUSY", "ERR x"]
        {
            assert!(!RedisError::parse(line).nothing_executed(), "{line}");
        }
        // The slot is still here, or nowhere else yet: the same connection will do.
        assert!(!RedisError::parse("ASK 1 h:1").ends_connection());
        assert!(!RedisError::parse("TRYAGAIN x").ends_connection());
    }
}
