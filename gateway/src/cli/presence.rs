//! `streamgate presence`.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};
use streamgate_client::{
    Client, Event, GapReason, PresenceChange, SubscribeOptions, is_pattern,
    proto::{v1::Member, wkt::Timestamp},
};

use super::{ConnectArgs, Failure, Format, output, subscribe::tell_connection};

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
        Format::Text => table(members),
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

/// A line for the names of the columns and one for each member; none without members.
fn table<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<String> {
    let mut rows: Vec<_> = members.map(columns).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    rows.insert(0, ["SESSION", "USER", "CLIENT", "CONNECTED"].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    rows.iter()
        .map(|[session, user, client, at]| {
            let [first, second, third] = widths;
            format!("{session:first$}  {user:second$}  {client:third$}  {at}")
        })
        .collect()
}

fn columns(member: &Member) -> [String; 4] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { output::printable(text) };
    [
        or_dash(&member.session_id),
        or_dash(&member.user_id),
        or_dash(&member.client_id),
        or_dash(connected_at(member).as_str().unwrap_or_default()),
    ]
}

fn change_line(format: Format, change: &PresenceChange) -> String {
    let action = if change.joined { "join" } else { "leave" };
    match format {
        Format::Text => format!("{action} {} {}", change.channel, columns(&change.member).join(" ")),
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
        "connected_at": connected_at(member),
    })
}

/// RFC 3339; null if the time is out of range.
fn connected_at(member: &Member) -> Value {
    let seconds = i64::try_from(member.connected_at / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(member.connected_at % 1_000).unwrap_or_default() * 1_000_000;
    serde_json::to_value(Timestamp { seconds, nanos }).unwrap_or_default()
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
    fn the_list_is_a_table_of_harmless_lines() {
        assert!(table([].iter()).is_empty());
        let lines = table([member("s-1", "phone\u{1b}[2J"), member("s-22", "ä")].iter());
        assert_eq!(
            lines,
            [
                "SESSION  USER  CLIENT          CONNECTED",
                "s-1      -     phone\\u{1b}[2J  2026-01-01T00:00:00.500Z",
                "s-22     -     ä               2026-01-01T00:00:00.500Z",
            ]
        );
    }

    #[test]
    fn a_change_is_a_line() {
        let change = PresenceChange { channel: "room".into(), joined: false, member: member("s-1", "phone") };
        assert_eq!(change_line(Format::Text, &change), "leave room s-1 - phone 2026-01-01T00:00:00.500Z");
        let parsed: Value = serde_json::from_str(&change_line(Format::Json, &change)).unwrap();
        assert_eq!((&parsed["action"], &parsed["member"]["session_id"]), (&json!("leave"), &json!("s-1")));
        let odd = Member { connected_at: u64::MAX, ..member("s", "c") };
        assert_eq!(connected_at(&odd), Value::Null);
    }
}
