//! The `permissions` section.

use std::collections::BTreeMap;

use serde_yaml_ng::{Mapping, Value};

use super::{checks::Checks, schema::Permission};
use crate::auth::RESERVED_CLAIMS;
use crate::policy::rights::{Action, Actions, Effect, Rule, RulePattern, Who};

/// The rules, checked; one that is wrong is left out and told.
pub(super) fn permissions(checks: &mut Checks, rules: Vec<Permission>) -> Vec<Rule> {
    let read = rules.into_iter().enumerate().filter_map(|(at, keys)| rule(checks, at, keys));
    let rules: Vec<_> = read.collect();
    for action in Action::ALL {
        let mut named = rules.iter().filter(|rule| rule.actions.contain(action)).peekable();
        if named.peek().is_some() && named.all(|rule| rule.effect == Effect::Deny) {
            let message = format!(
                "only denies `{}`: with a rule that names it nobody may do it unless another one allows it",
                action.as_str()
            );
            checks.warn("permissions", message);
        }
    }
    rules
}

fn rule(checks: &mut Checks, at: usize, keys: Permission) -> Option<Rule> {
    let key = |name: &str| format!("permissions[{at}].{name}");
    let channels = channels(checks, &key("channels"), keys.channels.unwrap_or_default());
    let actions = actions(checks, &key("actions"), keys.actions.unwrap_or_default());
    let effect = match keys.effect.as_deref() {
        None | Some("allow") => Some(Effect::Allow),
        Some("deny") => Some(Effect::Deny),
        Some(other) => {
            checks.wrong(&key("effect"), format!("`{other}` is unknown, allowed is allow or deny"));
            None
        }
    };
    let who = match keys.who.as_ref().map(who) {
        Some(Ok(who)) => Some(who),
        Some(Err(message)) => {
            checks.wrong(&key("who"), message);
            None
        }
        None => {
            checks.wrong(&key("who"), "is missing: write `any` for everybody");
            None
        }
    };
    let rule = Rule { channels: channels?, actions: actions?, who: who?, effect: effect? };
    if rule.who == Who::Hook && rule.effect == Effect::Deny {
        checks.wrong(&key("effect"), "a hook can only be asked to allow");
    }
    Some(rule)
}

fn channels(checks: &mut Checks, key: &str, names: Vec<String>) -> Option<Vec<RulePattern>> {
    if names.is_empty() {
        checks.wrong(key, "is empty: write [\"**\"] for all channels");
    }
    let mut patterns = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        match RulePattern::parse(name) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => checks.wrong(&format!("{key}[{at}]"), error.to_string()),
        }
    }
    (!names.is_empty() && patterns.len() == names.len()).then_some(patterns)
}

fn actions(checks: &mut Checks, key: &str, names: Vec<String>) -> Option<Actions> {
    let all = || Action::ALL.map(Action::as_str).join(", ");
    if names.is_empty() {
        checks.wrong(key, format!("is empty: write some of {}", all()));
        return None;
    }
    let mut actions = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        match Action::parse(name) {
            Some(action) => actions.push(action),
            None => {
                let message = format!("`{name}` is unknown, allowed is {}", all());
                checks.wrong(&format!("{key}[{at}]"), message);
            }
        }
    }
    (actions.len() == names.len()).then(|| actions.into_iter().collect())
}

fn who(value: &Value) -> Result<Who, String> {
    const ALLOWED: &str =
        "allowed is any, authenticated, hook, {users: [ID, ...]} or {claims: {NAME: VALUE or [VALUE, ...]}}";
    match value {
        Value::String(word) => match word.as_str() {
            "any" => Ok(Who::Any),
            "authenticated" => Ok(Who::Authenticated),
            "hook" => Ok(Who::Hook),
            other => Err(format!("`{other}` is unknown, {ALLOWED}")),
        },
        Value::Mapping(keys) if keys.len() == 1 => match (keys.get("users"), keys.get("claims")) {
            (Some(users), _) => Ok(Who::Users(list(users, "users")?)),
            (_, Some(Value::Mapping(claims))) => claims_of(claims),
            _ => Err(format!("is not understood, {ALLOWED}")),
        },
        _ => Err(format!("is not understood, {ALLOWED}")),
    }
}

fn claims_of(claims: &Mapping) -> Result<Who, String> {
    let mut wanted = BTreeMap::new();
    for (name, values) in claims {
        let name = name.as_str().ok_or("the name of a claim is not a text")?;
        if RESERVED_CLAIMS.contains(&name) {
            return Err(format!("`{name}` has a meaning of its own, rules can look at other claims only"));
        }
        wanted.insert(name.to_owned(), list(values, name)?);
    }
    if wanted.is_empty() {
        return Err("names no claim".to_owned());
    }
    Ok(Who::Claims(wanted))
}

/// One value or a list of them, in the words of a token: numbers and truth values are texts there, too.
fn list(value: &Value, name: &str) -> Result<Vec<String>, String> {
    let values = match value {
        Value::Sequence(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => Err(format!("`{name}` is not a text, number, truth value, or a list of them")),
    };
    match values {
        [] => Err(format!("`{name}` is empty")),
        values => values.iter().map(text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        auth::Grants,
        config::{Config, assemble},
        policy::rights::{Action, Rights, Subject, Verdict},
    };

    fn read(rules: &str) -> (Config, Vec<String>) {
        let (config, warnings) = assemble("test", &format!("permissions: [{rules}]"), &[]).unwrap();
        (config, warnings.into_iter().map(|warning| warning.to_string()).collect())
    }

    fn wrong(rules: &str) -> String {
        assemble("test", &format!("permissions: [{rules}]"), &[]).unwrap_err().to_string()
    }

    #[test]
    fn rules_say_for_whom_they_are_in_five_ways() {
        for (who, user, expected) in [
            ("any", "", Verdict::Allowed),
            ("authenticated", "", Verdict::Unallowed),
            ("authenticated", "ann", Verdict::Allowed),
            ("{users: [ann, 7]}", "7", Verdict::Allowed),
            ("{users: ann}", "ann", Verdict::Allowed),
            ("{users: ann}", "bob", Verdict::Unallowed),
            ("{claims: {role: [a, 1, true]}}", "ann", Verdict::Unallowed),
            ("hook", "ann", Verdict::Ask),
        ] {
            let (config, warnings) = read(&format!("{{channels: [a], actions: [publish], who: {who}}}"));
            assert!(warnings.is_empty(), "{warnings:?}");
            let rights = Rights::new(config.permissions);
            let subject = Subject { user_id: user, grants: &Grants::default() };
            assert_eq!(rights.verdict(Action::Publish, "a", subject), expected, "{who} {user}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named_and_what_is_odd_is_warned_of() {
        let rule = |who: &str, more: &str| format!("{{channels: [a], actions: [publish], who: {who}{more}}}");
        for (rules, expected) in [
            (rule("some", ""), "permissions[0].who: `some` is unknown, allowed is any"),
            (rule("{users: []}", ""), "permissions[0].who: `users` is empty"),
            (rule("{users: [a], claims: {a: b}}", ""), "permissions[0].who: is not understood"),
            (rule("{claims: {}}", ""), "permissions[0].who: names no claim"),
            (rule("{claims: {sub: a}}", ""), "permissions[0].who: `sub` has a meaning of its own"),
            (rule("{claims: {a: {b: c}}}", ""), "permissions[0].who: `a` is not a text"),
            (rule("any", ", effect: maybe"), "permissions[0].effect: `maybe` is unknown"),
            (rule("hook", ", effect: deny"), "permissions[0].effect: a hook can only be asked to allow"),
            ("{channels: [a], actions: [publish]}".into(), "permissions[0].who: is missing"),
            ("{channels: [a], actions: [], who: any}".into(), "permissions[0].actions: is empty"),
            (
                "{channels: [a], actions: [fly], who: any}".into(),
                "permissions[0].actions[0]: `fly` is unknown",
            ),
            ("{actions: [publish], who: any}".into(), "permissions[0].channels: is empty"),
            (
                "{channels: [a, 'user.{id}'], actions: [publish], who: any}".into(),
                "permissions[0].channels[1]: the pattern \"user.{id}\" has braces",
            ),
            (
                "{channels: ['a**'], actions: [publish], who: any}".into(),
                "permissions[0].channels[0]: the pattern",
            ),
        ] {
            let text = wrong(&rules);
            assert!(text.contains(expected), "{expected}\nnot in\n{text}");
        }
        let (_, warnings) = read(&rule("any", ", effect: deny"));
        assert!(warnings.len() == 1 && warnings[0].contains("only denies `publish`"), "{warnings:?}");
    }
}
