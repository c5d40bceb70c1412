//! Where Redis is and how long to wait for it: the runtime form of the configuration.

use std::{fmt, str::FromStr, time::Duration};

use super::{locate::Address, sentinel::SentinelOptions, tls::TlsOptions};

/// Settings of the Redis broker, checked. `Debug` and `Display` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Host name or address, an IPv6 address without brackets. Default `127.0.0.1`.
    pub host: String,
    /// TCP port. Default 6379.
    pub port: u16,
    /// Nodes of a Redis Cluster to ask first where everything is, instead of `host` and `port`. Default none: no
    /// Cluster.
    pub cluster: Vec<Address>,
    /// The Sentinels that know where the master is, instead of `host` and `port`. Default none: no Sentinel.
    pub sentinel: Option<SentinelOptions>,
    /// ACL user; `None` is the server's default user.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
    /// How to speak TLS; `None` is plain TCP.
    pub tls: Option<TlsOptions>,
    /// Database number, 0 to 255. Default 0; always 0 in a Cluster.
    pub db: u8,
    /// Every key starts with this. Default `streamgate`.
    pub key_prefix: String,
    /// Hash slices of the channels, fixed for a deployment. Default 16.
    pub partitions: u16,
    /// Longest wait for a TCP connection and, after it, for each step of the greeting. Default 3 s.
    pub connect_timeout: Duration,
    /// Longest wait for the reply of a command that does not block; then the connection is thrown away. Default 3 s.
    pub command_timeout: Duration,
    /// Entries that an inbox keeps for a node that does not read, about; each partition has one. Default 20,000.
    pub inbox_max_length: u64,
    /// How long an inbox outlives the last sign of its node. Default 60 s.
    pub inbox_ttl: Duration,
    /// Shortest pause before another attempt to connect. Default 20 ms.
    pub backoff_min: Duration,
    /// Longest pause before another attempt to connect. Default 1 s.
    pub backoff_max: Duration,
    /// How long Redis keeps what a node holds (interest, members) without a sign of its life. Default 10 s.
    pub lease: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6379,
            cluster: Vec::new(),
            sentinel: None,
            username: None,
            password: None,
            tls: None,
            db: 0,
            key_prefix: "streamgate".to_owned(),
            partitions: 16,
            connect_timeout: Duration::from_secs(3),
            command_timeout: Duration::from_secs(3),
            inbox_max_length: 20_000,
            inbox_ttl: Duration::from_secs(60),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            lease: Duration::from_secs(10),
        }
    }
}

impl RedisOptions {
    /// The one server that `host` and `port` name.
    #[must_use]
    pub fn server(&self) -> Address {
        Address::new(self.host.clone(), self.port)
    }

    /// Where Redis is, for logs and errors: no credentials. In a Cluster the nodes that are asked first,
    /// with Sentinel the name of the master and the Sentinels.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.sentinel {
            Some(sentinel) => format!("{}@{}", sentinel.master_name, joined(&sentinel.sentinels)),
            None if self.cluster.is_empty() => self.server().to_string(),
            None => joined(&self.cluster),
        }
    }
}

fn joined(addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
    addresses.join(",")
}

impl fmt::Display for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.address(), self.db)
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("address", &self.address())
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("tls", &self.tls)
            .field("db", &self.db)
            .field("key_prefix", &self.key_prefix)
            .field("partitions", &self.partitions)
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("inbox_max_length", &self.inbox_max_length)
            .field("inbox_ttl", &self.inbox_ttl)
            .finish_non_exhaustive()
    }
}

/// An address that cannot be read. The text never repeats the input: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Another scheme than `redis://` or `rediss://`.
    #[error(
        "the scheme `{0}://` is not supported: write redis[s]://[user:password@]host[:port][/db] or host:port"
    )]
    Scheme(String),
    /// No host.
    #[error("the Redis address has no host")]
    NoHost,
    /// Not a port.
    #[error("the Redis address has no valid port (1 to 65535)")]
    Port,
    /// Not a database number.
    #[error("the database in the Redis address is not a number from 0 to 255")]
    Database,
    /// A bad percent escape in user or password.
    #[error("user or password in the Redis address has a bad percent escape")]
    Escape,
    /// Something after the database.
    #[error("the Redis address takes no query or fragment")]
    Extra,
}

impl FromStr for RedisOptions {
    type Err = InvalidAddress;

    /// Reads `redis://[user[:password]@]host[:port][/db]` or plain `host[:port]`; everything else is the default.
    /// `rediss://` is TLS, by the authorities of the system.
    /// User and password are percent-decoded. `redis://:password@host` is the default user's password.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let mut options = Self::default();
        let rest = match text.split_once("://") {
            Some(("redis", rest)) => rest,
            Some(("rediss", rest)) => {
                options.tls = Some(TlsOptions::default());
                rest
            }
            Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
                return Err(InvalidAddress::Scheme(scheme.to_owned()));
            }
            _ => text,
        };
        let rest = match rest.rsplit_once('@') {
            Some((credentials, rest)) => {
                (options.username, options.password) = credentials_of(credentials)?;
                rest
            }
            None => rest,
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidAddress::Extra);
        }
        let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
        if !db.is_empty() {
            options.db = db.parse().map_err(|_| InvalidAddress::Database)?;
        }
        (options.host, options.port) = host_and_port(authority, options.port)?;
        Ok(options)
    }
}

fn credentials_of(text: &str) -> Result<(Option<String>, Option<String>), InvalidAddress> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(unescape(password)?)),
        None => (text, None),
    };
    Ok(((!user.is_empty()).then(|| unescape(user)).transpose()?, password.filter(|text| !text.is_empty())))
}

fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16), InvalidAddress> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(InvalidAddress::NoHost)?;
        match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':').ok_or(InvalidAddress::Port)?)),
        }
    } else {
        match authority.rsplit_once(':') {
            // More than one colon without brackets is an IPv6 address without a port.
            Some((host, _)) if host.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err(InvalidAddress::NoHost);
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(InvalidAddress::Port)?,
        None => default_port,
    };
    Ok((host.to_owned(), port))
}

/// Percent-decodes (RFC 3986 section 2.1).
fn unescape(text: &str) -> Result<String, InvalidAddress> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit =
            || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(InvalidAddress::Escape);
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).map_err(|_| InvalidAddress::Escape)?);
    }
    String::from_utf8(out).map_err(|_| InvalidAddress::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisOptions {
        text.parse().unwrap()
    }

    #[test]
    fn urls_and_plain_addresses_are_read() {
        let all = parsed("redis://al%40ice:s%3Ae%2Fcret@redis.example:7000/3");
        assert_eq!((all.host.as_str(), all.port, all.db), ("redis.example", 7000, 3));
        assert_eq!((all.username.as_deref(), all.password.as_deref()), (Some("al@ice"), Some("s:e/cret")));
        let only_password = parsed("redis://:pw@h");
        assert_eq!((only_password.username, only_password.password.as_deref()), (None, Some("pw")));
        let tls = parsed("rediss://:pw@h:7003/1");
        assert_eq!(
            (tls.tls.clone(), tls.to_string()),
            (Some(TlsOptions::default()), "rediss://h:7003/1".into())
        );
        assert_eq!((only_password.tls, tls.password.as_deref()), (None, Some("pw")));
        assert_eq!(parsed("h:7001").address(), "h:7001");
        assert_eq!(parsed("h").address(), "h:6379");
        assert_eq!(parsed("redis://[::1]:7002").address(), "[::1]:7002");
        assert_eq!(parsed("::1").address(), "[::1]:6379");
    }

    #[test]
    fn what_cannot_be_read_is_named_without_repeating_it() {
        for (text, error) in [
            ("redises://h", InvalidAddress::Scheme("redises".into())),
            ("redis://", InvalidAddress::NoHost),
            ("redis://:pw@:6379", InvalidAddress::NoHost),
            ("h:0", InvalidAddress::Port),
            ("h:seven", InvalidAddress::Port),
            ("redis://h/256", InvalidAddress::Database),
            ("redis://u:%zz@h", InvalidAddress::Escape),
            ("redis://h/0?tls=1", InvalidAddress::Extra),
        ] {
            assert_eq!(text.parse::<RedisOptions>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let options = parsed("redis://alice:hunter2@h");
        assert!(!format!("{options:?} {options}").contains("hunter2"));
    }
}
