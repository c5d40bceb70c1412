//! `streamgate presence`.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};
use streamgate_client::{
    Client, Event, GapReason, PresenceChange, SubscribeOptions, is_pattern, proto::v1::Member,
};

use super::{
    ConnectArgs, Failure, Format, output,
    stream::tell_connection,
    table::{cell, table},
};

/// Options of `presence`.
#[derive(Debug, Args)]
#[command(
    after_help = "With --watch, CHANNEL may be a pattern: there is no list then, only joins and leaves. After a
reconnect, those of a channel that were missed follow; of a pattern that is told on standard error.

Examples:
  streamgate presence room.blue
  streamgate presence room.blue --watch
  streamgate presence 'room.**' --watch -o json | jq .member.client_id"
)]
pub struct PresenceArgs {
    /// Channel whose members to list
    pub channel: String,
    /// Go on with joins and leaves as they come
    #[arg(long)]
    pub watch: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) async fn run(args: PresenceArgs) -> Result<(), Failure> {
    if is_pattern(&args.channel) && !args.watch {
        return Err(Failure::Usage(format!(
            "{} is a pattern: name a channel, or watch it with --watch",
            args.channel
        )));
    }
    let client = args.connect.connect().await?;
    if !args.watch {
        let outcome = list(&client, &args).await;
        client.close().await;
        return outcome;
    }
    let notes = tokio::spawn(tell_connection(client.status()));
    let outcome = tokio::select! {
        outcome = watch(&client, &args) => outcome,
        // Also when there is nothing to write that would tell.
        () = output::closed() => Err(Failure::OutputClosed),
    };
    // Its end is this side's own doing, and no news.
    notes.abort();
    client.close().await;
    outcome
}

async fn list(client: &Client, args: &PresenceArgs) -> Result<(), Failure> {
    let mut presence = client.presence(&args.channel).await?;
    presence.members.sort_by(|one, other| one.session_id.cmp(&other.session_id));
    let named = presence.members.len();
    print_list(args, presence.members.iter())?;
    if presence.truncated {
        eprintln!("{named} of {} members: the gateway names no more at once", presence.count);
    }
    Ok(())
}

async fn watch(client: &Client, args: &PresenceArgs) -> Result<(), Failure> {
    // Who looks on is not one of them, and does not need the messages that it missed.
    let options = SubscribeOptions::new(&args.channel).ephemeral().recover(false);
    if is_pattern(&args.channel) {
        let mut events = client.subscribe(options.presence()).await?;
        eprintln!("watching {}", args.channel);
        while let Some(event) = events.next().await {
            match event {
                Event::Gap(gap) if gap.reason == GapReason::NotRecovered => {
                    eprintln!("gap: joins and leaves of {} may be missing", args.channel);
                }
                other => print_event(args, other)?,
            }
        }
        return Ok(());
    }
    let mut view = client.watch_presence(options).await?;
    print_list(args, view.members())?;
    if view.is_truncated() {
        eprintln!("{} members are named: the gateway names no more at once", view.members().len());
    }
    while let Some(event) = view.next().await {
        print_event(args, event)?;
    }
    Ok(())
}

fn print_event(args: &PresenceArgs, event: Event) -> Result<(), Failure> {
    match event {
        Event::Presence(change) => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", change_line(args.output, &change))?;
            Ok(out.flush()?)
        }
        Event::Closed(error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn print_list<'a>(args: &PresenceArgs, members: impl Iterator<Item = &'a Member>) -> Result<(), Failure> {
    let lines = match args.output {
        Format::Text => table(["SESSION", "USER", "CLIENT", "CONNECTED"], members.map(columns)),
        Format::Json => members
            .map(|member| json!({"channel": args.channel, "member": object(member)}).to_string())
            .collect(),
    };
    if lines.is_empty() {
        eprintln!("nobody is on {}", args.channel);
    }
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn columns(member: &Member) -> [String; 4] {
    let connected = output::time(member.connected_at).as_str().unwrap_or_default().to_owned();
    [member.session_id.clone(), member.user_id.clone(), member.client_id.clone(), connected]
}

fn change_line(format: Format, change: &PresenceChange) -> String {
    let action = if change.joined { "join" } else { "leave" };
    match format {
        Format::Text => {
            let columns = columns(&change.member).map(cell);
            format!("{action} {} {}", change.channel, columns.join(" "))
        }
        Format::Json => {
            json!({"action": action, "channel": change.channel, "member": object(&change.member)}).to_string()
        }
    }
}

fn object(member: &Member) -> Value {
    json!({
        "session_id": member.session_id,
        "user_id": member.user_id,
        "client_id": member.client_id,
        "connected_at": output::time(member.connected_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session: &str, client: &str) -> Member {
        Member {
            session_id: session.into(),
            client_id: client.into(),
            connected_at: 1_767_225_600_500,
            ..Member::default()
        }
    }

    #[test]
    fn a_change_is_a_line() {
        let change = PresenceChange { channel: "room".into(), joined: false, member: member("s-1", "phone") };
        assert_eq!(change_line(Format::Text, &change), "leave room s-1 - phone 2026-01-01T00:00:00.500Z");
        let parsed: Value = serde_json::from_str(&change_line(Format::Json, &change)).unwrap();
        assert_eq!((&parsed["action"], &parsed["member"]["session_id"]), (&json!("leave"), &json!("s-1")));
        assert_eq!(output::time(u64::MAX), Value::Null);
    }
}
