//! Connections of a link that have ended here, but perhaps not at the server.
//!
//! A server that was stopped, or a network that held bytes back, may execute the commands of an ended connection after
//! those of its successor: a leave after the join that followed it. So the successor ends its formers at the server before
//! it is used: what the server has not executed by then it never will.

use std::time::Duration;

use super::{
    command::{Command, CommandName},
    connection::Connection,
    error::CallError,
    hello::Hello,
};

/// Servers may change and come back; those that never do are forgotten beyond so many.
const GREATEST: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Formers {
    /// `run_id` of the server, and its number of the connection.
    ended: Vec<(String, u64)>,
    warned: bool,
}

impl Formers {
    /// Takes note of a connection that is about to be used.
    pub(super) fn add(&mut self, hello: &Hello) {
        if hello.run_id.is_empty() || hello.client_id == 0 {
            return;
        }
        if self.ended.len() == GREATEST {
            self.ended.remove(0);
        }
        self.ended.push((hello.run_id.clone(), hello.client_id));
    }

    /// Ends those of the server that `connection` leads to. A server that does not allow it is said once.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn end_at(
        &mut self,
        connection: &Connection,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let run = &connection.hello().run_id;
        let theirs = self.ended.iter().filter(|(other, _)| other == run);
        let kill = |id: &u64| Command::new(CommandName::Client).arg("KILL").arg("ID").number(*id);
        let calls: Vec<_> = theirs.map(|(_, id)| connection.call(kill(id), deadline)).collect();
        for call in calls {
            match call.await {
                Ok(_) => {}
                Err(CallError::Server(error)) if !connection.is_closed() => {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            %error,
                            "CLIENT KILL is not allowed: commands of a lost connection may be executed late"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.ended.retain(|(other, _)| other != run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_ended_is_noted_and_not_without_bound() {
        let hello = |run: &str, client_id| {
            let info = "role:master\r\nmaster_replid:abc\r\n";
            let hello = Hello::from_info(info, &format!("run_id:{run}\r\n"), 0).unwrap();
            Hello { client_id, ..hello }
        };
        let mut formers = Formers::default();
        formers.add(&hello("", 1));
        formers.add(&hello("r", 0));
        assert!(formers.ended.is_empty());
        for id in 1..=20 {
            formers.add(&hello("r", id));
        }
        assert_eq!((formers.ended.len(), formers.ended.first()), (GREATEST, Some(&("r".to_owned(), 5))));
    }
}
