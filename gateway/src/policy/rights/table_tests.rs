//! The table: who, what, where, and which rule wins.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    super::{Actions, RulePattern},
    *,
};
use crate::{auth::Claims, channel::Channel};

fn rule(channels: &[&str], actions: &[Action], who: Who, effect: Effect) -> Rule {
    Rule {
        channels: channels.iter().map(|pattern| RulePattern::parse(pattern).unwrap()).collect(),
        actions: actions.iter().copied().collect::<Actions>(),
        who,
        effect,
    }
}

fn allow(channels: &[&str], who: Who) -> Rule {
    rule(channels, &Action::ALL, who, Effect::Allow)
}

fn deny(channels: &[&str], who: Who) -> Rule {
    rule(channels, &Action::ALL, who, Effect::Deny)
}

fn users(ids: &[&str]) -> Who {
    Who::Users(ids.iter().map(|id| (*id).to_owned()).collect())
}

fn claims(pairs: &[(&str, &[&str])]) -> Who {
    let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Who::Claims(pairs.iter().map(|(name, all)| ((*name).to_owned(), values(all))).collect::<BTreeMap<_, _>>())
}

fn grants(subscribe: &[&str], publish: &[&str], claims: serde_json::Value) -> Grants {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let serde_json::Value::Object(claims) = claims else { panic!("{claims}") };
    Grants { subscribe: texts(subscribe), publish: texts(publish), claims: Claims::of(&claims) }
}

fn ask(rules: &[Rule], action: Action, name: &str, user_id: &str, grants: &Grants) -> Verdict {
    Rights::new(rules.to_vec()).verdict(action, name, Subject { user_id, grants })
}

fn of(rules: &[Rule], name: &str, user_id: &str) -> Verdict {
    ask(rules, Action::Subscribe, name, user_id, &Grants::default())
}

#[test]
fn without_rules_all_is_open_but_survey_and_serve() {
    for action in Action::ALL {
        let expected = match action {
            Action::Survey | Action::Serve => Verdict::Unallowed,
            _ => Verdict::Allowed,
        };
        assert_eq!(ask(&[], action, "a.b", "", &Grants::default()), expected, "{action:?}");
    }
}

#[test]
fn a_rule_ends_the_default_of_the_actions_that_it_names_and_of_no_other() {
    for effect in [Effect::Allow, Effect::Deny] {
        for named in Action::ALL {
            let rules = [rule(&["other"], &[named], Who::Any, effect)];
            for action in Action::ALL {
                let open = action.open_by_default() && action != named;
                let expected = if open { Verdict::Allowed } else { Verdict::Unallowed };
                assert_eq!(
                    ask(&rules, action, "a", "ann", &Grants::default()),
                    expected,
                    "{named:?} {action:?}"
                );
            }
        }
    }
}

/// Every action with every kind of "who" and both effects, for a client who is meant and one who is not.
#[test]
fn each_rule_is_for_whom_it_says_and_for_its_actions() {
    let own = grants(&[], &[], json!({"role": "editor", "groups": ["x", "y"]}));
    let whos = [
        (Who::Any, ("ann", &own), None),
        (Who::Authenticated, ("ann", &own), Some("")),
        (users(&["bob", "ann"]), ("ann", &own), Some("cyd")),
        (claims(&[("role", &["admin", "editor"]), ("groups", &["y"])]), ("ann", &own), Some("cyd")),
    ];
    for (who, (user, own), other) in whos {
        for action in Action::ALL {
            let allowed = [rule(&["a.**"], &[action], who.clone(), Effect::Allow)];
            assert_eq!(ask(&allowed, action, "a.b", user, own), Verdict::Allowed, "{who:?} {action:?}");
            assert_eq!(ask(&allowed, action, "b", user, own), Verdict::Unallowed, "{who:?} {action:?}");
            let denied = [allow(&["**"], Who::Any), rule(&["a.**"], &[action], who.clone(), Effect::Deny)];
            assert_eq!(ask(&denied, action, "a.b", user, own), Verdict::Denied, "{who:?} {action:?}");
            assert_eq!(ask(&denied, action, "b", user, own), Verdict::Allowed, "{who:?} {action:?}");
            if let Some(other) = other {
                let none = Grants::default();
                assert_eq!(
                    ask(&allowed, action, "a.b", other, &none),
                    Verdict::Unallowed,
                    "{who:?} {action:?}"
                );
                assert_eq!(ask(&denied, action, "a.b", other, &none), Verdict::Allowed, "{who:?} {action:?}");
            }
        }
    }
}

#[test]
fn a_hook_is_asked_only_where_nothing_else_says_yes_or_no() {
    for action in Action::ALL {
        let verdict = |rules: &[Rule], name: &str| ask(rules, action, name, "ann", &Grants::default());
        let hook = allow(&["**"], Who::Hook);
        assert_eq!(verdict(std::slice::from_ref(&hook), "a"), Verdict::Ask);
        let mut rules = [
            hook,
            deny(&["secret.**"], Who::Any),
            allow(&["open.**"], Who::Any),
            allow(&["x"], users(&["bob"])),
        ];
        for _ in 0..rules.len() {
            // Whatever the order.
            rules.rotate_left(1);
            assert_eq!(verdict(&rules, "a"), Verdict::Ask);
            assert_eq!(verdict(&rules, "x"), Verdict::Ask, "the other rule is for bob");
            assert_eq!(verdict(&rules, "open.a"), Verdict::Allowed);
            assert_eq!(verdict(&rules, "secret.a"), Verdict::Denied);
            assert_eq!(verdict(&rules, "open.*"), Verdict::Allowed);
            assert_eq!(verdict(&rules, "*.*"), Verdict::Denied, "it reaches into secret");
        }
    }
}

#[test]
fn a_denial_wins_whatever_the_order_and_whatever_the_token_says() {
    let own = grants(&["**"], &["**"], json!({}));
    let rules = [allow(&["**"], Who::Any), deny(&["admin.**"], Who::Any)];
    for rules in [rules.clone(), [rules[1].clone(), rules[0].clone()]] {
        for action in Action::ALL {
            assert_eq!(ask(&rules, action, "admin.x", "ann", &own), Verdict::Denied);
            assert_eq!(ask(&rules, action, "a", "ann", &own), Verdict::Allowed);
        }
    }
}

#[test]
fn a_pattern_is_allowed_by_one_that_covers_it_and_denied_by_one_that_touches_it() {
    let rules = [
        allow(&["public.**", "news"], Who::Any),
        allow(&["news.*"], Who::Any),
        deny(&["public.admin.**"], Who::Any),
    ];
    for (name, expected) in [
        ("public.a.**", Verdict::Allowed),
        ("public.a", Verdict::Allowed),
        ("news.*", Verdict::Allowed),
        ("news", Verdict::Allowed),
        ("public.**", Verdict::Denied),
        ("public.*", Verdict::Denied),
        ("public.*.x", Verdict::Denied),
        ("public.admin", Verdict::Denied),
        ("**", Verdict::Denied),
        ("*", Verdict::Unallowed),
        // Two rules together would cover it, none alone does.
        ("news.**", Verdict::Unallowed),
    ] {
        assert_eq!(of(&rules, name, "ann"), expected, "{name}");
    }
}

#[test]
fn the_placeholder_is_the_own_user_id_if_that_is_one_legal_segment() {
    let rules = [allow(&["user.{user_id}.**"], Who::Any), deny(&["user.{user_id}.secret"], Who::Any)];
    for (name, user, expected) in [
        ("user.ann.x", "ann", Verdict::Allowed),
        ("user.ann", "ann", Verdict::Allowed),
        ("user.ann.x.*", "ann", Verdict::Allowed),
        ("user.ann.secret", "ann", Verdict::Denied),
        ("user.ann.**", "ann", Verdict::Denied),
        ("user.bob.x", "ann", Verdict::Unallowed),
        ("user.*.x", "ann", Verdict::Unallowed),
        ("user.{user_id}.x", "ann", Verdict::Unallowed),
    ] {
        assert_eq!(of(&rules, name, user), expected, "{name}");
    }
    for user in ["", "a.b", "*", "**", "a*", "a b", "a\tb", "\u{0}", "a\u{a0}b", &"x".repeat(256)] {
        for name in ["user.a.b.x", "user.*.x", "user.**", "user.x", "user.a"] {
            assert_eq!(of(&rules, name, user), Verdict::Unallowed, "{name} {user:?}");
        }
    }
}

#[test]
fn a_pattern_with_other_braces_is_refused() {
    for pattern in ["user.{id}.**", "user-{user_id}", "{user", "a.}"] {
        assert!(
            matches!(RulePattern::parse(pattern), Err(super::super::RuleError::Placeholder(_))),
            "{pattern}"
        );
    }
    assert!(RulePattern::parse("a..b").is_err());
    assert!(RulePattern::parse("{user_id}.**").is_ok());
}

#[test]
fn claims_of_the_token_allow_in_addition_to_the_table() {
    let rules = [allow(&["open"], Who::Any)];
    let own = grants(&["mine.**"], &["mine.in"], json!({}));
    let verdict = |action, name: &str| ask(&rules, action, name, "ann", &own);
    assert_eq!(verdict(Action::Subscribe, "mine.a.*"), Verdict::Allowed);
    assert_eq!(verdict(Action::Subscribe, "open"), Verdict::Allowed);
    assert_eq!(verdict(Action::Subscribe, "**"), Verdict::Unallowed);
    assert_eq!(verdict(Action::Publish, "mine.in"), Verdict::Allowed);
    assert_eq!(verdict(Action::Publish, "mine.a"), Verdict::Unallowed);
    assert_eq!(verdict(Action::History, "mine.a"), Verdict::Unallowed, "no other right comes with it");
}

#[test]
fn an_anonymous_client_is_no_user_of_the_empty_name() {
    assert_eq!(of(&[allow(&["**"], users(&[""]))], "a", ""), Verdict::Unallowed);
}

#[test]
fn a_reload_is_a_new_revision_only_if_it_changes_something() {
    let rights = Rights::new(vec![allow(&["a"], Who::Any)]);
    let before = rights.revision();
    rights.replace(vec![allow(&["a"], Who::Any)]);
    assert_eq!(rights.revision(), before);
    rights.clone().replace(vec![deny(&["a"], Who::Any)]);
    assert_ne!(rights.revision(), before);
    let subject = Subject { user_id: "ann", grants: &Grants::default() };
    assert_eq!(rights.verdict(Action::Subscribe, "a", subject), Verdict::Denied);
}

#[test]
fn a_guarded_channel_is_open_only_by_rules_that_name_it() {
    let guarding =
        |rules: &[Rule]| Rights::new(rules.to_vec()).guarding(Channel::parse("$sys.events").unwrap());
    let own = grants(&["**", "$sys.events"], &["**", "$sys.events"], json!({}));
    let subject = Subject { user_id: "ann", grants: &own };
    let read = [Action::Subscribe, Action::Presence, Action::History, Action::Survey];
    let named = |who: Who, effect| rule(&["a", "$sys.events"], &Action::ALL, who, effect);
    for (rules, expected) in [
        (vec![], Verdict::Denied),
        (vec![allow(&["**", "$sys.*", "*.events"], Who::Any)], Verdict::Denied),
        (vec![named(Who::Any, Effect::Allow)], Verdict::Allowed),
        (vec![named(users(&["ann"]), Effect::Allow)], Verdict::Allowed),
        (vec![named(users(&["bob"]), Effect::Allow), allow(&["**"], Who::Any)], Verdict::Denied),
        (vec![named(Who::Hook, Effect::Allow)], Verdict::Ask),
        (vec![named(Who::Any, Effect::Allow), deny(&["$sys.**"], Who::Any)], Verdict::Denied),
    ] {
        let rights = guarding(&rules);
        for action in read {
            assert_eq!(rights.verdict(action, "$sys.events", subject), expected, "{action:?} {rules:?}");
        }
        assert_eq!(rights.verdict(Action::Publish, "$sys.events", subject), Verdict::Denied, "{rules:?}");
    }
    let rights = guarding(&[named(Who::Any, Effect::Allow), allow(&["**"], Who::Any)]);
    for pattern in ["**", "*.*", "$sys.**", "$sys.*", "$sys.events.**"] {
        assert_eq!(rights.verdict(Action::Subscribe, pattern, subject), Verdict::Denied, "{pattern}");
    }
    for name in ["*", "a.**", "$sys.other", "$sys", "$sys.events.more"] {
        assert_eq!(rights.verdict(Action::Subscribe, name, subject), Verdict::Allowed, "{name}");
    }
    assert_eq!(rights.verdict(Action::Publish, "$sys.other", subject), Verdict::Allowed);
    assert_eq!(rights.verdict(Action::Rpc, "$sys.events", subject), Verdict::Allowed);
    rights.replace(vec![]);
    assert_eq!(rights.verdict(Action::Subscribe, "$sys.events", subject), Verdict::Denied, "after a reload");
    assert_eq!(rights.verdict(Action::Subscribe, "**", subject), Verdict::Denied);
}
