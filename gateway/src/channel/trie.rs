//! A trie of patterns by segment: which patterns match a channel, without asking each.

use hashbrown::HashMap;

use super::Pattern;

/// Values by pattern; looked up by the channels that the patterns match.
#[derive(Debug)]
pub struct PatternTrie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    /// Value of the pattern that ends here.
    here: Option<T>,
    /// Value of the pattern that ends in `**` after this node.
    rest: Option<T>,
    /// By the next segment, literally or `*`, which no channel contains.
    children: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for PatternTrie<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { here: None, rest: None, children: HashMap::new() }
    }
}

impl<T> PatternTrie<T> {
    /// How many patterns have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no pattern has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of exactly this pattern.
    #[must_use]
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        let mut node = &self.root;
        for segment in pattern.as_str().split('.') {
            if segment == "**" {
                return node.rest.as_ref();
            }
            node = node.children.get(segment)?;
        }
        node.here.as_ref()
    }

    /// The place of this pattern's value, made if there is none.
    fn slot(&mut self, pattern: &Pattern) -> &mut Option<T> {
        let mut node = &mut self.root;
        for segment in pattern.as_str().split('.') {
            if segment == "**" {
                return &mut node.rest;
            }
            node = node.children.entry(segment.into()).or_default();
        }
        &mut node.here
    }

    /// Sets the value of `pattern`, and returns the former one.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> Option<T> {
        let former = self.slot(pattern).replace(value);
        self.len += usize::from(former.is_none());
        former
    }

    /// Removes the value of `pattern`, and the nodes that only led to it.
    pub fn remove(&mut self, pattern: &Pattern) -> Option<T> {
        let former = self.root.remove(pattern.as_str());
        self.len -= usize::from(former.is_some());
        former
    }

    /// Calls `found` with the value of every pattern that matches `channel`, in no particular order.
    pub fn for_each_match<'t>(&'t self, channel: &str, found: &mut impl FnMut(&'t T)) {
        if self.len > 0 {
            self.root.matches(Some(channel), found);
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.rest.is_none() && self.children.is_empty()
    }

    fn remove(&mut self, pattern: &str) -> Option<T> {
        if pattern == "**" {
            return self.rest.take();
        }
        let (segment, tail) = split(pattern);
        let child = self.children.get_mut(segment)?;
        let former = match tail {
            Some(tail) => child.remove(tail),
            None => child.here.take(),
        };
        if child.is_empty() {
            self.children.remove(segment);
        }
        former
    }

    /// `left`: what of the channel's name is below this node, `None` if nothing.
    fn matches<'t>(&'t self, left: Option<&str>, found: &mut impl FnMut(&'t T)) {
        if let Some(value) = &self.rest {
            found(value);
        }
        let Some(left) = left else {
            if let Some(value) = &self.here {
                found(value);
            }
            return;
        };
        let (segment, tail) = split(left);
        for key in [segment, "*"] {
            if let Some(child) = self.children.get(key) {
                child.matches(tail, found);
            }
        }
    }
}

fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((segment, tail)) => (segment, Some(tail)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::glob;

    #[test]
    fn a_lookup_finds_the_patterns_that_match_and_no_others() {
        let patterns = ["a.*", "a.**", "**", "*.b", "a.*.c", "a.b.c.**", "*", "*.*.**"];
        let mut trie = PatternTrie::default();
        for pattern in patterns {
            assert_eq!(trie.insert(&Pattern::parse(pattern).unwrap(), pattern), None);
        }
        for channel in ["a", "a.b", "a.b.c", "a.x.c", "b", "x.b", "a.b.c.d"] {
            let mut found = Vec::new();
            trie.for_each_match(channel, &mut |pattern| found.push(*pattern));
            found.sort_unstable();
            let mut expected: Vec<_> =
                patterns.into_iter().filter(|pattern| glob(pattern, channel)).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{channel}");
        }
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut trie = PatternTrie::default();
        for pattern in ["a.*.c", "a.**", "**"] {
            trie.insert(&Pattern::parse(pattern).unwrap(), pattern);
        }
        for pattern in ["a.*.c", "a.**", "**"] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(trie.get(&pattern), Some(&pattern.as_str()));
            assert_eq!(trie.remove(&pattern), Some(pattern.as_str()));
            assert_eq!(trie.remove(&pattern), None);
        }
        assert!(trie.is_empty() && trie.root.is_empty());
    }
}
