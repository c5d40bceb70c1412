//! One rule: channels, actions, for whom, and whether it allows or denies.

use std::{collections::BTreeMap, fmt};

use crate::{
    auth::Claims,
    channel::{NameError, Target, covers_segments, is_segment, overlaps_segments},
};

/// What stands for the client's own user id in the pattern of a rule.
pub const USER_ID: &str = "{user_id}";

/// What a client may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Receive what is published to a channel or to all that a pattern matches.
    Subscribe,
    /// Publish to a channel.
    Publish,
    /// Ask who is on a channel, and be told of joins and leaves.
    Presence,
    /// Read what was published before: `history`, `from`, and recovery.
    History,
    /// Ask all subscribers of a channel.
    Survey,
    /// Call: the pattern is over the channel of the call.
    Rpc,
    /// Answer calls: the pattern is over the methods that the client offers.
    Serve,
}

impl Action {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::Subscribe, Self::Publish, Self::Presence, Self::History, Self::Survey, Self::Rpc, Self::Serve];

    /// The word in files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Survey => "survey",
            Self::Rpc => "rpc",
            Self::Serve => "serve",
        }
    }

    /// The action of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// Whether anybody may do it as long as no rule names it.
    #[must_use]
    pub const fn open_by_default(self) -> bool {
        !matches!(self, Self::Survey | Self::Serve)
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions(u8);

impl Actions {
    /// Whether `action` is one of them.
    #[must_use]
    pub const fn contain(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |set, action| set | 1 << action as u8))
    }
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Every client.
    Any,
    /// Every client with a user id.
    Authenticated,
    /// These users.
    Users(Vec<String>),
    /// Clients whose token has, for each of these claims, one of the values.
    Claims(BTreeMap<String, Vec<String>>),
    /// Those whom a backend lets: asked only where nothing else allows.
    Hook,
}

/// What a rule does for whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Allows.
    Allow,
    /// Denies, whatever else allows.
    Deny,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// It is about what any of these matches.
    pub channels: Vec<RulePattern>,
    /// What may be done, or not.
    pub actions: Actions,
    /// By whom.
    pub who: Who,
    /// May, or may not.
    pub effect: Effect,
}

/// A channel name or pattern of a rule, in which `{user_id}` as a whole segment stands for the client's own user id. For a
/// user whose id is not one legal segment, a pattern with it matches nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct RulePattern {
    text: Box<str>,
    of_user: bool,
}

/// Why a rule's pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Neither a channel name nor a pattern.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Braces, but not the one word that is known, as a whole segment.
    #[error("the pattern {0:?} has braces: {USER_ID} as a whole segment is the only placeholder")]
    Placeholder(String),
}

impl RulePattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`RuleError`]
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        Target::parse(text)?;
        let of_user = text.split('.').any(|segment| segment == USER_ID);
        if text.split('.').any(|segment| segment != USER_ID && segment.contains(['{', '}'])) {
            return Err(RuleError::Placeholder(text.to_owned()));
        }
        Ok(Self { text: text.into(), of_user })
    }

    /// Whether it is this very name.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        &*self.text == name
    }

    /// Whether all that `name`, a channel or a pattern, stands for is of this pattern, for the user of that id.
    #[must_use]
    pub fn covers(&self, name: &str, user_id: &str) -> bool {
        self.is_for(user_id) && covers_segments(self.segments(user_id), name.split('.'))
    }

    /// Whether something that `name`, a channel or a pattern, stands for is of this pattern, for the user of that id.
    #[must_use]
    pub fn overlaps(&self, name: &str, user_id: &str) -> bool {
        self.is_for(user_id) && overlaps_segments(self.segments(user_id), name.split('.'))
    }

    fn is_for(&self, user_id: &str) -> bool {
        !self.of_user || is_segment(user_id)
    }

    fn segments<'a>(&'a self, user_id: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.split('.').map(move |segment| if segment == USER_ID { user_id } else { segment })
    }
}

impl fmt::Debug for RulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl Who {
    /// Whether the rule is for this client; never so of a hook, which is asked.
    pub(super) fn is(&self, user_id: &str, claims: &Claims) -> bool {
        match self {
            Self::Any => true,
            Self::Authenticated => !user_id.is_empty(),
            Self::Users(users) => !user_id.is_empty() && users.iter().any(|user| user == user_id),
            Self::Claims(wanted) => {
                wanted.iter().all(|(name, values)| values.iter().any(|value| claims.has(name, value)))
            }
            Self::Hook => false,
        }
    }
}
