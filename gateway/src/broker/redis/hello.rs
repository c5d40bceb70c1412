//! What a server says of itself before its connection is handed out.

use std::fmt;

/// Which server it is. They count versions differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// Redis (or a server that claims to be).
    Redis,
    /// Valkey.
    Valkey,
}

/// A server's product and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerVersion {
    /// Redis or Valkey.
    pub product: Product,
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl ServerVersion {
    /// Reads the `server` section of `INFO`. Valkey also claims a `redis_version`, so its own line goes first.
    #[must_use]
    pub fn from_info(info: &str) -> Option<Self> {
        let (product, text) = field(info, "valkey_version")
            .map(|text| (Product::Valkey, text))
            .or_else(|| field(info, "redis_version").map(|text| (Product::Redis, text)))?;
        // "7.2.0-rc1" counts as 7.2.0.
        let mut parts = text.split(['.', '-']).map(|part| part.parse::<u32>().ok());
        let mut next = || parts.next().flatten();
        Some(Self { product, major: next()?, minor: next().unwrap_or(0), patch: next().unwrap_or(0) })
    }

    /// Whether this server has what the gateway needs: Redis 7.0 (or later) or Valkey 7.2 (or later).
    #[must_use]
    pub fn is_supported(&self) -> bool {
        match self.product {
            Product::Redis => self.major >= 7,
            Product::Valkey => (self.major, self.minor) >= (7, 2),
        }
    }

    /// Why the server will not do, fit for an operator; `None` if it will.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        (!self.is_supported())
            .then(|| format!("{self} is too old: Redis 7.0 or Valkey 7.2 (or later) is needed"))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = match self.product {
            Product::Redis => "Redis",
            Product::Valkey => "Valkey",
        };
        write!(f, "{product} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What was read on the very connection that is handed out, before anything else was sent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// `master_replid`: changes at every restart and failover. Part of every publish.
    pub replid: String,
    /// `role` of the `replication` section; always `master` on a connection that is handed out.
    pub role: String,
    /// The server's version, if `INFO server` told.
    pub version: Option<ServerVersion>,
    /// `run_id`: another one after each restart. Empty if not told.
    pub run_id: String,
    /// Whether it is a node of a Redis Cluster (`redis_mode`), as far as it tells.
    pub clustered: bool,
    /// Whether it calls itself standalone; anything else may be a node of a Cluster.
    pub standalone: bool,
    /// The server's number of this connection (`CLIENT ID`); 0 if not told.
    pub client_id: u64,
    /// How many milliseconds the server's clock was ahead of this node's when it was asked, give or take the time that the
    /// answer took; 0 if not told.
    pub clock_ahead_ms: i64,
}

impl Hello {
    /// Reads the `replication` and `server` sections of `INFO`; an error says what is missing.
    pub fn from_info(replication: &str, server: &str, clock_ahead_ms: i64) -> Result<Self, String> {
        let need = |name: &str| {
            field(replication, name)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| format!("INFO replication has no {name}"))
        };
        // Valkey calls it `server_mode`.
        let mode = field(server, "redis_mode").or_else(|| field(server, "server_mode"));
        Ok(Self {
            replid: need("master_replid")?,
            role: need("role")?,
            version: ServerVersion::from_info(server),
            run_id: field(server, "run_id").unwrap_or_default().to_owned(),
            clustered: mode == Some("cluster"),
            standalone: mode == Some("standalone"),
            client_id: 0,
            clock_ahead_ms,
        })
    }
}

/// The value of `name` in the text of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let (key, value) = line.trim_end().split_once(':')?;
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(info: &str) -> ServerVersion {
        ServerVersion::from_info(info).unwrap()
    }

    #[test]
    fn versions_that_lack_what_is_needed_are_refused() {
        assert!(version("# Server\r\nredis_version:7.0.15\r\n").is_supported());
        assert!(version("redis_version:8.2.1\r\n").is_supported());
        let old = version("redis_version:6.2.14\r\n");
        assert_eq!(
            old.refusal().unwrap(),
            "Redis 6.2.14 is too old: Redis 7.0 or Valkey 7.2 (or later) is needed"
        );
    }

    #[test]
    fn valkey_counts_by_its_own_version() {
        let valkey = version("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n");
        assert_eq!((valkey.product, valkey.major), (Product::Valkey, 8));
        assert!(valkey.is_supported());
        assert!(version("redis_version:7.2.4\r\nvalkey_version:7.2.5\r\n").is_supported());
        assert!(!version("valkey_version:7.1.0\r\n").is_supported());
        assert!(version("redis_version:7.2.0-rc1\r\n").is_supported());
        assert_eq!(ServerVersion::from_info("redis_mode:standalone"), None);
    }

    #[test]
    fn hello_needs_role_and_replid() {
        let replication = "# Replication\r\nrole:master\r\nmaster_replid:abc\r\n";
        let server = "run_id:r1\r\nredis_version:7.0.1\r\nredis_mode:cluster\r\n";
        let hello = Hello::from_info(replication, server, 5).unwrap();
        assert!(hello.clustered);
        let hello = Hello::from_info(replication, "run_id:r1\r\nredis_version:7.0.1\r\n", 5).unwrap();
        assert!(!hello.standalone && !hello.clustered, "may be one");
        for mode in ["redis_mode", "server_mode"] {
            let standalone = format!("{mode}:standalone\r\nrun_id:r1\r\n");
            let hello = Hello::from_info(replication, &standalone, 5).unwrap();
            assert!(hello.standalone && !hello.clustered);
        }
        assert_eq!(
            (hello.role.as_str(), hello.replid.as_str(), hello.run_id.as_str()),
            ("master", "abc", "r1")
        );
        let error = Hello::from_info("role:master\r\n", "", 0).unwrap_err();
        assert_eq!(error, "INFO replication has no master_replid");
    }
}
