//! Notices that the server behind an open connection is no longer the one that it was.
//!
//! A master that is demoted, and one that is promoted again, keeps its connections. Then what was read when the
//! connection was opened, the role and the replication id, does not hold any more: writes under the former id would be
//! taken for a continuation of the former history.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    command::{Command, CommandName},
    connection::Connection,
    hello::Hello,
};

/// Pause between two questions.
const ASK: Duration = Duration::from_secs(2);

/// Asks the server again and again who it is, and ends the connection when that is another than it was, or when no
/// answer comes within `deadline`. Returns why the connection ended. Safe to cancel.
pub async fn closed_or_changed(connection: &Connection, deadline: Duration) -> String {
    tokio::select! {
        reason = connection.closed() => reason,
        reason = changed(connection, deadline) => {
            connection.end(&reason);
            // What ended it first is the reason, if that was something else.
            connection.closed().await
        }
    }
}

async fn changed(connection: &Connection, deadline: Duration) -> String {
    loop {
        sleep(ASK).await;
        let ask = connection.call(Command::new(CommandName::Info).arg("replication"), deadline);
        let info = match ask.await {
            Ok(reply) => reply.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned()),
            Err(error) => return error.to_string(),
        };
        let now = info.map_err(|error| error.to_string()).and_then(|info| Hello::from_info(&info, "", 0));
        match now {
            Ok(now) => {
                if let Some(difference) = difference(connection.hello(), &now) {
                    return difference;
                }
            }
            Err(error) => return format!("INFO replication: {error}"),
        }
    }
}

/// What has changed since the connection was opened.
fn difference(before: &Hello, now: &Hello) -> Option<String> {
    if now.role != before.role {
        return Some(format!("the server is not a {} any more (role {})", before.role, now.role));
    }
    (now.replid != before.replid).then(|| "the replication id of the server has changed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_role_or_replication_id_is_another_server() {
        let hello = |role: &str, replid: &str| {
            let info = format!("role:{role}\r\nmaster_replid:{replid}\r\n");
            Hello::from_info(&info, "", 0).unwrap()
        };
        let before = hello("master", "a");
        assert_eq!(difference(&before, &hello("master", "a")), None);
        assert!(difference(&before, &hello("slave", "a")).unwrap().contains("role slave"));
        assert!(difference(&before, &hello("master", "b")).unwrap().contains("replication id"));
    }
}
