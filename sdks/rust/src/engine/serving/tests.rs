//! The rules of offers, step by step.

use streamgate_proto::v1::InboundMessage;

use super::*;

/// Servings with a clock and a wire of its own.
struct Rig {
    servings: Servings,
    ids: RequestIds,
    now: Instant,
    effects: Effects,
}

impl Rig {
    fn new(methods: &[&str]) -> (Self, Vec<watch::Receiver<Offered>>) {
        let mut rig = Self {
            servings: Servings::default(),
            ids: RequestIds::default(),
            now: Instant::now(),
            effects: Effects::new(),
        };
        let offered = (1..).zip(methods).map(|(id, method)| {
            let (told, offered) = watch::channel(Offered::NotYet);
            rig.servings.add(Offering { id, method: Some((*method).to_owned()), told });
            offered
        });
        let offered = offered.collect();
        (rig, offered)
    }

    /// The next offer, if there is one to make.
    fn offer(&mut self) -> Option<(u64, Vec<String>)> {
        self.servings.sync(&mut self.ids, self.now, &mut self.effects);
        let effect = self.effects.pop_front()?;
        let Effect::Send(InboundMessage { id, envelope: Some(Envelope::RpcServe(serve)), .. }) = effect
        else {
            panic!("{effect:?} is no offer")
        };
        Some((id.parse().unwrap(), serve.methods))
    }

    fn accept(&mut self, methods: &[&str]) {
        let (request, offered) = self.offer().unwrap();
        assert_eq!(offered, methods);
        assert!(self.servings.accepted(request, &mut self.effects));
    }

    fn refuse(&mut self, methods: &[&str], code: &str) {
        let (request, offered) = self.offer().unwrap();
        assert_eq!(offered, methods);
        let error = Error::Server { code: code.into(), kind: String::new(), message: String::new() };
        assert!(self.servings.refused(request, &error, self.now, &mut self.effects));
    }
}

#[test]
fn of_several_that_are_refused_together_only_the_culprit_ends() {
    let (mut rig, offered) = Rig::new(&["a", "bad", "c"]);
    rig.refuse(&["a", "bad", "c"], "ACL_ERROR");
    rig.accept(&["a"]);
    rig.refuse(&["a", "bad"], "ACL_ERROR");
    assert!(matches!(rig.effects.pop_front(), Some(Effect::Unserved(2))));
    rig.accept(&["a", "c"]);
    assert!(rig.offer().is_none() && rig.servings.is_settled());
    let told: Vec<_> = offered.iter().map(|offered| offered.borrow().clone()).collect();
    assert!(matches!(told.as_slice(), [Offered::Accepted, Offered::Ended(_), Offered::Accepted]), "{told:?}");
}

#[test]
fn a_server_that_cannot_take_it_now_is_asked_again_and_the_connection_told() {
    for code in ["NOT_AVAILABLE", "RPC_TIMEOUT"] {
        let (mut rig, offered) = Rig::new(&["a"]);
        assert!(!rig.servings.is_settled());
        rig.refuse(&["a"], code);
        assert!(rig.servings.is_settled() && rig.offer().is_none());
        rig.now = rig.servings.next_retry().unwrap();
        rig.accept(&["a"]);
        assert_eq!(*offered[0].borrow(), Offered::Accepted);
        assert_eq!(rig.servings.next_retry(), None);
    }
}

#[test]
fn offers_are_made_one_after_the_other_and_begin_anew_with_each_connection() {
    let (mut rig, _offered) = Rig::new(&["a", "a"]);
    let (old, methods) = rig.offer().unwrap();
    assert_eq!(methods, ["a"]);
    rig.servings.remove(2, &mut rig.effects);
    assert!(rig.offer().is_none(), "one is under way");
    rig.servings.lost(&mut rig.effects);
    assert!(matches!(rig.effects.pop_front(), Some(Effect::Unserved(2))));
    assert!(!rig.servings.accepted(old, &mut rig.effects), "of another connection");
    rig.accept(&["a"]);
    rig.servings.remove(1, &mut rig.effects);
    rig.accept(&[]);
    assert!(matches!(rig.effects.pop_front(), Some(Effect::Unserved(1))));
    assert!(rig.servings.offers.is_empty());
}
