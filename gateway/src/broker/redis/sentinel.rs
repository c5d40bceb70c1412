//! Where the master is that Sentinels watch over.
//!
//! Every Sentinel is asked twice a second, each over a connection of its own: there is no message that could be missed,
//! so a link can neither be left at a master that was replaced nor wait for news that went astray
//! (docs/decisions/0014). Of different answers the one of the highest configuration epoch is true; Sentinels raise it
//! with each failover. Whoever is named must still say on the new connection that it is a master.
//!
//! Invariants: no answer is used that is older than [`Watch::stale`]; a lower epoch than one seen before is believed only
//! if most of the Sentinels say so.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    client::Wire,
    command::{Command, CommandName},
    error::{CallError, ConnectError},
    locate::{Address, Locate},
    options::RedisOptions,
    reply::Reply,
};

/// How often each Sentinel is asked.
const ASK: Duration = Duration::from_millis(500);

/// The Sentinels of one master, and how to be let in there. `Debug` never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelOptions {
    /// Where they are; all of them: others are not looked for.
    pub sentinels: Vec<Address>,
    /// What they call the master.
    pub master_name: String,
    /// ACL user at the Sentinels; `None` is their default user.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
}

impl fmt::Debug for SentinelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentinelOptions")
            .field("sentinels", &self.sentinels)
            .field("master_name", &self.master_name)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
}

/// Follows what the Sentinels say. Shared by all links to the master; dropping it ends the questions.
pub struct Sentinels {
    watch: Arc<Watch>,
    _asking: DropGuard,
}

/// What the askers and the links share.
struct Watch {
    name: String,
    sentinels: Vec<Address>,
    /// Options by which Sentinels are connected to.
    options: RedisOptions,
    view: watch::Sender<View>,
    /// Wakes the askers before their time.
    hurry: Notify,
}

/// What the Sentinels said last.
#[derive(Debug, Clone)]
struct View {
    answers: Vec<Answer>,
    /// Epoch and address that hold.
    master: Option<(u64, Address)>,
    /// Since when the answers may be of no use: a link was disappointed then.
    doubted: Instant,
}

/// What one Sentinel said last.
#[derive(Debug, Clone)]
struct Answer {
    at: Instant,
    said: Result<(u64, Address), String>,
}

impl Sentinels {
    /// Starts to ask. Within a Tokio runtime.
    #[must_use]
    pub fn start(sentinel: &SentinelOptions, options: &RedisOptions) -> Self {
        let now = Instant::now();
        let unknown = Answer { at: now, said: Err("has not answered yet".to_owned()) };
        let watch = Arc::new(Watch {
            name: sentinel.master_name.clone(),
            sentinels: sentinel.sentinels.clone(),
            options: RedisOptions {
                username: sentinel.username.clone(),
                password: sentinel.password.clone(),
                db: 0,
                ..options.clone()
            },
            view: watch::Sender::new(View {
                answers: vec![unknown; sentinel.sentinels.len()],
                master: None,
                doubted: now,
            }),
            hurry: Notify::new(),
        });
        let stop = CancellationToken::new();
        let (asked, stopped) = (watch.clone(), stop.clone());
        tokio::spawn(async move {
            // Dropped, and so ended, with this task.
            let mut askers = JoinSet::new();
            for (number, address) in asked.sentinels.iter().enumerate() {
                askers.spawn(asked.clone().ask_for_ever(number, address.clone()));
            }
            stopped.cancelled().await;
        });
        Self { watch, _asking: stop.drop_guard() }
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels").field("view", &*self.watch.view.borrow()).finish_non_exhaustive()
    }
}

impl Locate for Sentinels {
    fn locate(&self) -> BoxFuture<'_, Result<Address, ConnectError>> {
        let watch = &self.watch;
        async move {
            watch.hurry.notify_waiters();
            let mut view = watch.view.subscribe();
            let known = view.wait_for(|view| watch.is_settled(view));
            // Bounded by what an asker may take for one question.
            let _ = timeout(watch.patience() + ASK, known).await;
            let view = watch.view.borrow();
            view.current(watch.stale()).ok_or_else(|| watch.nobody_knows(&view))
        }
        .boxed()
    }

    fn moved_from<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, ()> {
        let mut view = self.watch.view.subscribe();
        async move {
            let elsewhere = |view: &View| view.master.as_ref().is_some_and(|(_, master)| master != address);
            // The sender lives as long as `self`.
            let _ = view.wait_for(elsewhere).await;
        }
        .boxed()
    }

    fn suspect(&self, _address: &Address) {
        self.watch.view.send_modify(|view| view.doubted = Instant::now());
        self.watch.hurry.notify_waiters();
    }
}

impl Watch {
    /// Longest time that one question may take.
    fn patience(&self) -> Duration {
        self.options.command_timeout.min(self.options.connect_timeout)
    }

    /// Age at which an answer is not used any more.
    fn stale(&self) -> Duration {
        self.patience() * 2 + ASK * 2
    }

    /// Whether there is an answer since the last disappointment, or everybody failed to give one.
    fn is_settled(&self, view: &View) -> bool {
        let fresh = |answer: &&Answer| answer.at > view.doubted;
        let mut answers = view.answers.iter();
        answers.clone().filter(fresh).any(|answer| answer.said.is_ok()) || answers.all(|a| fresh(&a))
    }

    fn nobody_knows(&self, view: &View) -> ConnectError {
        let said: Vec<String> = self
            .sentinels
            .iter()
            .zip(&view.answers)
            .map(|(address, answer)| match &answer.said {
                Ok(_) => format!("{address} does not answer any more"),
                Err(reason) => format!("{address} {reason}"),
            })
            .collect();
        ConnectError::NoMaster { name: self.name.clone(), reason: said.join("; ") }
    }

    async fn ask_for_ever(self: Arc<Self>, number: usize, address: Address) {
        loop {
            let reason = self.ask_on_one_connection(number, &address).await;
            self.note(number, Err(reason));
            self.pause().await;
        }
    }

    /// Until it fails, and answers why.
    async fn ask_on_one_connection(&self, number: usize, address: &Address) -> String {
        let opened = timeout(self.patience(), Wire::open(&self.options, address)).await;
        let wire = match opened {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return format!("fails: {error}"),
            Err(_) => return "cannot be reached in time".to_owned(),
        };
        loop {
            match self.ask(&wire).await {
                Ok(master) => self.note(number, Ok(master)),
                Err(reason) => return reason,
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = sleep(ASK.mul_f64(0.8 + 0.4 * rand::random::<f64>())) => {}
            () = self.hurry.notified() => {
                // However many links ask in vain, and however often.
                sleep(ASK / 10).await;
            }
        }
    }

    /// Epoch and address in the words of one Sentinel. `MASTER` still names the old master while the Sentinel that leads
    /// the failover waits for the other replicas; its epoch is the new one by then. The epoch is asked for first: a
    /// change in between then gives the new address a vote too few, never the old one a vote too many.
    async fn ask(&self, wire: &Wire) -> Result<(u64, Address), String> {
        let name = || self.name.clone();
        let master = Command::new(CommandName::Sentinel).arg("MASTER").arg(name());
        let master = wire.caller().call(master, self.patience());
        let place = Command::new(CommandName::Sentinel).arg("GET-MASTER-ADDR-BY-NAME").arg(name());
        let place = wire.caller().call(place, self.patience());
        let epoch = epoch_of(&master.await.map_err(|error| self.refused(error))?)?;
        let address = address_of(&place.await.map_err(|error| self.refused(error))?)?;
        Ok((epoch, address))
    }

    fn refused(&self, error: CallError) -> String {
        match error {
            CallError::Server(error) if error.to_string().contains("No such master") => {
                format!("does not know a master `{}`", self.name)
            }
            error => format!("fails: {error}"),
        }
    }

    fn note(&self, number: usize, said: Result<(u64, Address), String>) {
        let (stale, name) = (self.stale(), &self.name);
        self.view.send_modify(|view| {
            if let Some(answer) = view.answers.get_mut(number) {
                *answer = Answer { at: Instant::now(), said };
            }
            let before = view.master.clone().map(|(_, address)| address);
            view.judge(stale);
            match (&before, &view.master) {
                (before, Some((epoch, master))) if before.as_ref() != Some(master) => {
                    tracing::info!(name, %master, epoch, "the Sentinels name this master");
                }
                _ => {}
            }
        });
    }
}

impl View {
    /// The master, if somebody still says so.
    fn current(&self, stale: Duration) -> Option<Address> {
        let recent = self.recent(stale).next().is_some();
        self.master.as_ref().filter(|_| recent).map(|(_, address)| address.clone())
    }

    fn recent(&self, stale: Duration) -> impl Iterator<Item = &(u64, Address)> {
        let recent = self.answers.iter().filter(move |answer| answer.at.elapsed() < stale);
        recent.filter_map(|answer| answer.said.as_ref().ok())
    }

    /// The address of the highest epoch; if an epoch has several, that of most Sentinels, then the one held before.
    fn judge(&mut self, stale: Duration) {
        let said: Vec<(u64, Address)> = self.recent(stale).cloned().collect();
        let Some(epoch) = said.iter().map(|(epoch, _)| *epoch).max() else { return };
        let backwards = self.master.as_ref().is_some_and(|(known, _)| epoch < *known);
        if backwards && said.len() * 2 <= self.answers.len() {
            return;
        }
        let rank = |place: &(u64, Address)| {
            let votes = said.iter().filter(|other| *other == place).count();
            (votes, self.master.as_ref() == Some(place))
        };
        let best = said.iter().filter(|(of, _)| *of == epoch).max_by_key(|place| rank(place)).cloned();
        self.master = best;
    }
}

/// `config-epoch` in the fields and values of `SENTINEL MASTER`.
fn epoch_of(reply: &Reply) -> Result<u64, String> {
    let items = reply.as_array().map_err(|error| error.to_string())?;
    let field = items.chunks(2).find_map(|pair| match pair {
        [name, value] if name.as_str() == Ok("config-epoch") => value.as_str().ok()?.parse().ok(),
        _ => None,
    });
    field.ok_or_else(|| "tells no config-epoch".to_owned())
}

/// Host and port of `SENTINEL GET-MASTER-ADDR-BY-NAME`.
fn address_of(reply: &Reply) -> Result<Address, String> {
    let items = reply.as_array().map_err(|error| error.to_string())?;
    let read = || match items {
        [host, port] => Some(Address::new(host.as_str().ok()?, port.as_str().ok()?.parse().ok()?)),
        _ => None,
    };
    read().ok_or_else(|| "tells no address of the master".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(5);

    fn place(epoch: u64, port: u16) -> Result<(u64, Address), String> {
        Ok((epoch, Address::new("h", port)))
    }

    fn view(said: Vec<Result<(u64, Address), String>>) -> View {
        let at = Instant::now();
        let answers = said.into_iter().map(|said| Answer { at, said }).collect();
        View { answers, master: None, doubted: at }
    }

    fn judged(mut view: View, known: Option<(u64, u16)>) -> Option<u16> {
        view.master = known.map(|(epoch, port)| (epoch, Address::new("h", port)));
        view.judge(STALE);
        view.current(STALE).map(|address| address.port)
    }

    fn down() -> Result<(u64, Address), String> {
        Err("is down".to_owned())
    }

    #[test]
    fn the_highest_epoch_is_true_however_few_know_it() {
        assert_eq!(judged(view(vec![place(3, 1), place(3, 1), place(4, 2)]), Some((3, 1))), Some(2));
    }

    #[test]
    fn of_one_epoch_the_address_of_most_is_true_and_then_the_one_held_before() {
        assert_eq!(judged(view(vec![place(3, 1), place(3, 2), place(3, 2)]), None), Some(2));
        assert_eq!(judged(view(vec![place(3, 2), place(3, 1)]), Some((3, 1))), Some(1));
        assert_eq!(judged(view(vec![place(3, 1), place(3, 2)]), Some((3, 1))), Some(1));
    }

    #[test]
    fn a_stale_sentinel_that_is_left_alone_is_not_believed() {
        assert_eq!(judged(view(vec![place(3, 1), down(), down()]), Some((4, 2))), Some(2));
    }

    #[test]
    fn most_sentinels_may_begin_again_at_a_lower_epoch() {
        assert_eq!(judged(view(vec![place(0, 1), place(0, 1), down()]), Some((4, 2))), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_the_master_if_no_sentinel_says_so_any_more() {
        let view = view(vec![place(3, 1), down()]);
        tokio::time::advance(STALE).await;
        assert_eq!(judged(view, Some((3, 1))), None);
        assert_eq!(judged(self::view(vec![down()]), None), None);
    }

    #[test]
    fn replies_of_sentinels_are_read() {
        let bulk = |text: &'static str| Reply::Bulk(text.into());
        let fields = ["name", "m", "ip", "h", "port", "1", "config-epoch", "7"];
        assert_eq!(epoch_of(&Reply::Array(fields.map(bulk).to_vec())), Ok(7));
        assert!(epoch_of(&Reply::Array(vec![bulk("name")])).is_err());
        // Two elements are never taken for pub/sub, whatever the host is called.
        let reply = Reply::Array(vec![bulk("message"), bulk("6379")]);
        assert_eq!(address_of(&reply), Ok(Address::new("message", 6379)));
        assert!(address_of(&Reply::Nil).is_err());
    }
}
