//! A live view of who is on a channel.
//!
//! Joins and leaves have no history: what happens while the connection is away is never told. So the view asks who is there
//! whenever its subscription begins anew, and yields the difference as joins and leaves of its own.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    time::Duration,
};

use streamgate_proto::v1::{self, Member};

use crate::{
    client::Client,
    error::Error,
    event::{Event, GapReason, PresenceChange},
    options::SubscribeOptions,
    subscription::Subscription,
    target::is_pattern,
};

/// How long to wait before asking again, if the server could not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Who is on a channel, by session.
#[derive(Debug, Default)]
struct Roster {
    members: BTreeMap<String, Member>,
    /// What was told since the question that is not answered yet; `None`: left.
    told: Option<HashMap<String, Option<Member>>>,
    truncated: bool,
}

impl Roster {
    /// The question is asked now: what was told before is in its answer.
    fn asking(&mut self) {
        self.told = Some(HashMap::new());
    }

    /// Takes a join or leave; true if it is news.
    fn told(&mut self, change: &PresenceChange) -> bool {
        let session = change.member.session_id.clone();
        if let Some(told) = &mut self.told {
            told.insert(session.clone(), change.joined.then(|| change.member.clone()));
        }
        if change.joined {
            self.members.insert(session, change.member.clone()).is_none()
        } else {
            self.members.remove(&session).is_some()
        }
    }

    /// Takes the answer, what was told meanwhile on top of it; the difference to what was known.
    fn answered(&mut self, answer: v1::Presence) -> Vec<PresenceChange> {
        let v1::Presence { channel, members, truncated, .. } = answer;
        let mut now: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.session_id.clone(), member)).collect();
        if truncated {
            // Whoever is not named may be there all the same.
            for (session, member) in &self.members {
                now.entry(session.clone()).or_insert_with(|| member.clone());
            }
        }
        for (session, member) in self.told.take().unwrap_or_default() {
            match member {
                Some(member) => now.insert(session, member),
                None => now.remove(&session),
            };
        }
        self.truncated = truncated;
        let before = std::mem::replace(&mut self.members, now);
        let change = |joined, member: &Member| PresenceChange {
            channel: channel.clone(),
            joined,
            member: member.clone(),
        };
        let left = before.iter().filter(|(session, _)| !self.members.contains_key(*session));
        let joined = self.members.iter().filter(|(session, _)| !before.contains_key(*session));
        left.map(|(_, member)| change(false, member))
            .chain(joined.map(|(_, member)| change(true, member)))
            .collect()
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<v1::Presence, Error>> + Send>>;

/// A subscription of a channel, with an exact list of who is on it: made by [`Client::watch_presence`].
///
/// [`next`](Self::next) yields what the subscription yields. Its [`Event::Presence`] are whatever changes the list: joins and leaves
/// as they are told, and after a reconnect the difference to the list of before.
pub struct PresenceView {
    subscription: Subscription,
    client: Client,
    roster: Roster,
    /// The question that is not answered yet.
    ask: Option<Asking>,
    /// What came before the first answer, or with one.
    ready: VecDeque<Event>,
    ended: bool,
}

impl PresenceView {
    /// Subscribes, and waits until it is known who is there.
    pub(crate) async fn open(client: &Client, options: SubscribeOptions) -> Result<Self, Error> {
        if is_pattern(&options.target) {
            let text = format!("{:?} is a pattern: who is there can be asked of a channel", options.target);
            return Err(Error::Invalid(text));
        }
        let subscription = client.subscribe(options.presence()).await?;
        let mut view = Self {
            subscription,
            client: client.clone(),
            roster: Roster::default(),
            ask: None,
            ready: VecDeque::new(),
            ended: false,
        };
        // Only now that the subscription is acknowledged: every change from here on is told.
        view.ask(Duration::ZERO);
        while view.ask.is_some() && !view.ended {
            view.step().await;
        }
        if view.ended {
            let closed = view.ready.into_iter().find_map(|event| match event {
                Event::Closed(error) => Some(error),
                _ => None,
            });
            return Err(closed.unwrap_or(Error::ClientClosed));
        }
        // Who was there first is the list, and no news.
        view.ready.retain(|event| !matches!(event, Event::Presence(_)));
        Ok(view)
    }

    /// Who is there, ordered by session. This client's own session is one of them unless it subscribed ephemeral.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.roster.members.values()
    }

    /// The channel has more members than the server names at once: the list is only of those that it named and of those
    /// that came since, and who left while the connection was away may still be in it.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.roster.truncated
    }

    /// The subscription below, for its cursors.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The next event; `None` when there will be none. Safe to cancel: an event that was not returned is returned next.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.step().await;
        }
    }

    /// Takes the next event or answer. Safe to cancel: the subscription keeps its events, and the question is kept here.
    async fn step(&mut self) {
        tokio::select! {
            // What was told before the answer came counts before it.
            biased;
            event = self.subscription.next() => match event {
                Some(event) => self.take(event),
                None => self.ended = true,
            },
            answer = answered(&mut self.ask) => {
                self.ask = None;
                self.take_answer(answer);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Presence(change) if !self.roster.told(change) => return,
            // One of the two comes whenever the subscription begins anew: what happened meanwhile was not told.
            Event::Recovered(_) => self.ask(Duration::ZERO),
            Event::Gap(gap) if gap.reason == GapReason::NotRecovered => self.ask(Duration::ZERO),
            Event::Closed(_) => self.ended = true,
            _ => {}
        }
        self.ready.push_back(event);
    }

    fn take_answer(&mut self, answer: Result<v1::Presence, Error>) {
        match answer {
            Ok(answer) => {
                let changes = self.roster.answered(answer);
                self.ready.extend(changes.into_iter().map(Event::Presence));
            }
            Err(error) if passes(&error) => self.ask(ASK_AGAIN),
            Err(error) => {
                self.ended = true;
                self.ready.push_back(Event::Closed(error));
            }
        }
    }

    fn ask(&mut self, delay: Duration) {
        self.roster.asking();
        let (client, channel) = (self.client.clone(), self.subscription.target().to_owned());
        self.ask = Some(Box::pin(async move {
            tokio::time::sleep(delay).await;
            client.presence(&channel).await
        }));
    }
}

impl std::fmt::Debug for PresenceView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresenceView").field("roster", &self.roster).finish_non_exhaustive()
    }
}

/// Whether the same question may be answered later.
fn passes(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::Server { code, .. } if code == "RATE_LIMITED")
}

async fn answered(ask: &mut Option<Asking>) -> Result<v1::Presence, Error> {
    match ask {
        Some(ask) => ask.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session: &str) -> Member {
        Member { session_id: session.to_owned(), ..Member::default() }
    }

    fn change(text: &str) -> PresenceChange {
        let (joined, session) = (text.starts_with('+'), text.get(1..).unwrap());
        PresenceChange { channel: "a".into(), joined, member: member(session) }
    }

    fn answer(roster: &mut Roster, sessions: &[&str], truncated: bool) -> Vec<String> {
        let members = sessions.iter().map(|session| member(session)).collect();
        let presence = v1::Presence { channel: "a".into(), members, truncated, ..v1::Presence::default() };
        let sign = |joined| if joined { '+' } else { '-' };
        let changes = roster.answered(presence);
        changes.iter().map(|change| format!("{}{}", sign(change.joined), change.member.session_id)).collect()
    }

    #[test]
    fn what_is_told_while_the_answer_is_under_way_comes_on_top_of_it() {
        let mut roster = Roster::default();
        roster.asking();
        for text in ["+new", "+gone", "-gone", "-left"] {
            roster.told(&change(text));
        }
        assert_eq!(answer(&mut roster, &["gone", "left", "stays"], false), ["+stays"]);
        assert_eq!(roster.members.keys().collect::<Vec<_>>(), ["new", "stays"]);
        assert!(!roster.told(&change("+new")) && !roster.told(&change("-left")), "no news");
        assert!(roster.told(&change("-new")) && roster.told.is_none());
    }

    #[test]
    fn a_second_answer_yields_the_difference() {
        let mut roster = Roster::default();
        roster.asking();
        answer(&mut roster, &["a", "b", "c"], false);
        roster.asking();
        roster.told(&change("-c"));
        assert_eq!(answer(&mut roster, &["b", "c", "d"], false), ["-a", "+d"]);
        assert!(answer(&mut roster, &["b", "d"], false).is_empty());
    }

    #[test]
    fn of_an_answer_that_is_cut_short_nobody_is_concluded_to_have_left() {
        let mut roster = Roster::default();
        answer(&mut roster, &["a", "b"], false);
        assert_eq!(answer(&mut roster, &["c"], true), ["+c"]);
        assert!(roster.truncated && roster.members.len() == 3);
    }
}
