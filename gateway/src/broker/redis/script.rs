//! Lua scripts: files of their own, loaded at connect, called by their SHA-1.

use std::{fmt::Write, sync::OnceLock, time::Duration};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::{
    command::{Command, CommandName},
    connection::Connection,
    error::CallError,
    reply::Reply,
};

/// A Lua script. It returns an integer or an array that starts with one (see `command.rs` for why).
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    sha: OnceLock<Bytes>,
}

impl Script {
    /// A script by its file's name and text (`include_str!`).
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, sha: OnceLock::new() }
    }

    /// For logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Lower-case hexadecimal SHA-1 of the text: the name under which Redis keeps it.
    #[must_use]
    pub fn sha(&self) -> Bytes {
        let compute = || {
            let mut hex = String::with_capacity(40);
            for byte in Sha1::digest(self.source.as_bytes()) {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            Bytes::from(hex)
        };
        self.sha.get_or_init(compute).clone()
    }

    /// `SCRIPT LOAD` of this script.
    #[must_use]
    pub fn load_command(&self) -> Command {
        Command::with_capacity(CommandName::Script, 2).arg("LOAD").arg(self.source)
    }

    /// `EVALSHA` of this script.
    #[must_use]
    pub fn call_command(&self, keys: Vec<Bytes>, args: Vec<Bytes>) -> Command {
        Command::with_capacity(CommandName::EvalSha, 2 + keys.len() + args.len())
            .arg(self.sha())
            .arg(keys.len().to_string())
            .args(keys)
            .args(args)
    }
}

impl Connection {
    /// Loads scripts; the commands travel together.
    ///
    /// # Errors
    /// The first [`CallError`]; `Server` if a script does not compile.
    pub async fn load_scripts(
        &self,
        scripts: &[&'static Script],
        deadline: Duration,
    ) -> Result<(), CallError> {
        let calls: Vec<_> = scripts.iter().map(|script| self.call(script.load_command(), deadline)).collect();
        for call in calls {
            call.await?;
        }
        Ok(())
    }

    /// Queues a call of `script` now, in order with every other call (see [`Connection::call`]).
    ///
    /// If Redis has forgotten the script (`SCRIPT FLUSH`) it is loaded and called once more: `NOSCRIPT` means that
    /// nothing was executed. The second call queues behind what was queued meanwhile; who needs calls to take effect
    /// in order in this case as well keeps one under way at a time. Each of the steps may take `deadline`.
    pub fn call_script(
        &self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        let caller = self.caller();
        let again = (keys.clone(), args.clone());
        let first = caller.call(script.call_command(keys, args), deadline);
        async move {
            let outcome = match first.await {
                Err(CallError::Server(error)) if error.is_no_script() => {
                    let load = caller.call(script.load_command(), deadline);
                    let second = caller.call(script.call_command(again.0, again.1), deadline);
                    load.await?;
                    second.await
                }
                outcome => outcome,
            };
            outcome.and_then(|reply| match &reply {
                Reply::Array(items) if matches!(items.first(), Some(Reply::Bulk(_) | Reply::Simple(_))) => {
                    let reason =
                        format!("script {} answered an array that starts with a string", script.name);
                    caller.end(&reason);
                    Err(CallError::MaybeExecuted(reason))
                }
                _ => Ok(reply),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha_is_the_one_redis_computes() {
        static SCRIPT: Script = Script::new("one", "return 1");
        // redis-cli SCRIPT LOAD "return 1"
        assert_eq!(SCRIPT.sha(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
