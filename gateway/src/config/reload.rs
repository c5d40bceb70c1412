//! What a running node may take over from a changed configuration.

use super::runtime::Config;

/// The outcome of [`Config::reload`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// What the node runs with from now on: the old configuration with the reloadable parts of the new one.
    pub config: Config,
    /// Sections that changed and hold now: `auth`, `allow_anonymous`, `api`, `channels`, `permissions`, `limits`,
    /// `log.level`.
    pub applied: Vec<&'static str>,
    /// Keys or sections that differ and hold only after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Sorts the differences between two checked configurations by whether they can hold at once. Pure: the caller
    /// installs `policies`, `limits` and the log level.
    #[must_use]
    pub fn reload(old: &Self, new: &Self) -> Reload {
        let differing = |differences: &[(&'static str, bool)]| {
            differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
        };
        let mut config = old.clone();
        config.policies = new.policies.clone();
        config.permissions.clone_from(&new.permissions);
        config.limits = new.limits.clone();
        config.api.clone_from(&new.api);
        // A listener that this process opened to other machines must not lose its lock by an edit.
        let unlocks = old.jwt.is_some() && new.jwt.is_none();
        if !unlocks {
            // One that is equal has keys that were fetched.
            if old.jwt != new.jwt {
                config.jwt.clone_from(&new.jwt);
            }
            config.allow_anonymous = new.allow_anonymous;
        }
        config.log.level.clone_from(&new.log.level);
        Reload {
            config,
            applied: differing(&[
                ("channels", old.policies != new.policies),
                ("permissions", old.permissions != new.permissions),
                ("limits", old.limits != new.limits),
                ("auth", old.jwt != new.jwt && !unlocks),
                ("api", old.api != new.api),
                ("allow_anonymous", old.allow_anonymous != new.allow_anonymous && !unlocks),
                ("log.level", old.log.level != new.log.level),
            ]),
            needs_restart: differing(&[
                ("server.http.addr", old.admin != new.admin),
                ("server.http.tls", old.admin_tls != new.admin_tls),
                ("server.rpc_timeout", old.rpc_timeout != new.rpc_timeout),
                ("transport.websocket", old.websocket != new.websocket),
                ("transport.grpc", old.grpc != new.grpc || old.grpc_tls != new.grpc_tls),
                ("transport.trusted_proxies", old.trusted_proxies != new.trusted_proxies),
                ("broker", old.broker != new.broker),
                ("auth", unlocks),
                ("allow_anonymous", old.allow_anonymous != new.allow_anonymous && unlocks),
                ("shards", old.shards != new.shards),
                ("log.format", old.log.format != new.log.format),
                ("presence.lease", old.lease != new.lease),
                ("drain.duration", old.drain.duration != new.drain.duration),
                ("drain.delay", old.drain.delay != new.drain.delay),
                ("proxy", old.backends != new.backends),
                ("client_events", old.client_events != new.client_events),
            ]),
        }
    }
}
