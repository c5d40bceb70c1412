//! The clients of this node that answer calls.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    channel::glob,
    peers::{Offer, Place},
};

/// Who offers what, by pattern over methods.
#[derive(Debug, Default)]
pub struct Responders(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_pattern: HashMap<String, Vec<Place>>,
    by_place: HashMap<Place, Vec<String>>,
    turn: usize,
}

impl Responders {
    /// Replaces what a client offers.
    pub fn offer(&self, place: Place, mut methods: Vec<String>) {
        methods.sort_unstable();
        methods.dedup();
        let mut table = self.lock();
        table.withdraw(place);
        for method in &methods {
            table.by_pattern.entry(method.clone()).or_default().push(place);
        }
        if !methods.is_empty() {
            table.by_place.insert(place, methods);
        }
    }

    /// Forgets a client; whether it offered anything.
    pub fn withdraw(&self, place: Place) -> bool {
        self.lock().withdraw(place)
    }

    /// One of those who answer `method`, another one each time.
    #[must_use]
    pub fn pick(&self, method: &str) -> Option<Place> {
        let mut table = self.lock();
        table.turn = table.turn.wrapping_add(1);
        let turn = table.turn;
        let matching = || table.by_pattern.iter().filter(|(pattern, _)| glob(pattern, method));
        let count: usize = matching().map(|(_, places)| places.len()).sum();
        let nth = turn.checked_rem(count)?;
        matching().flat_map(|(_, places)| places).nth(nth).copied()
    }

    /// Whether this client answers `method`.
    #[must_use]
    pub fn answers(&self, place: Place, method: &str) -> bool {
        let table = self.lock();
        table.by_place.get(&place).is_some_and(|methods| methods.iter().any(|pattern| glob(pattern, method)))
    }

    /// How many offers of `method` there are.
    #[must_use]
    pub fn weight(&self, method: &str) -> u64 {
        let table = self.lock();
        let matching = table.by_pattern.iter().filter(|(pattern, _)| glob(pattern, method));
        matching.map(|(_, places)| places.len() as u64).sum()
    }

    /// What all of them offer together.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let table = self.lock();
        let mut offers: Vec<_> = table
            .by_pattern
            .iter()
            .map(|(methods, places)| Offer {
                methods: methods.clone(),
                clients: u32::try_from(places.len()).unwrap_or(u32::MAX),
            })
            .collect();
        offers.sort_by(|one, other| one.methods.cmp(&other.methods));
        offers
    }

    /// Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn withdraw(&mut self, place: Place) -> bool {
        let Some(methods) = self.by_place.remove(&place) else { return false };
        for method in methods {
            if let Some(places) = self.by_pattern.get_mut(&method) {
                places.retain(|other| *other != place);
                if places.is_empty() {
                    self.by_pattern.remove(&method);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ConnId;

    #[test]
    fn calls_go_round_those_who_answer_them() {
        let responders = Responders::default();
        let place = |shard| Place { shard, conn: ConnId::first() };
        assert_eq!(responders.pick("math.add"), None);
        responders.offer(place(1), vec!["math.*".into(), "echo".into(), "echo".into()]);
        responders.offer(place(2), vec!["math.add".into()]);
        let mut picked: Vec<_> =
            (0..4).filter_map(|_| responders.pick("math.add")).map(|p| p.shard).collect();
        picked.sort_unstable();
        assert_eq!(picked, [1, 1, 2, 2]);
        assert_eq!(responders.pick("math.add.more"), None);
        assert!(responders.answers(place(1), "math.sub") && !responders.answers(place(2), "math.sub"));
        let offers: Vec<_> = responders.offers().into_iter().map(|o| (o.methods, o.clients)).collect();
        assert_eq!(offers, [("echo".into(), 1), ("math.*".into(), 1), ("math.add".into(), 1)]);
        responders.offer(place(1), vec!["echo".into()]);
        assert_eq!(responders.pick("math.add"), Some(place(2)));
        assert!(responders.withdraw(place(2)) && !responders.withdraw(place(2)));
        assert_eq!((responders.pick("math.add"), responders.pick("echo")), (None, Some(place(1))));
    }
}
