//! Which nodes have been heard, and who is to be told what it has forgotten.

use super::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How many are known; of more, those that were silent longest are forgotten.
const LIVES_MAX: usize = 4096;
/// A node that says nothing for so long does not make others wait longer.
const LATELY: Duration = Duration::from_secs(30);
/// Within which time somebody tells a node what it has forgotten: who draws the shortest wait.
const RELAY_SPREAD: Duration = Duration::from_millis(500);

/// The nodes, each from one start to the next.
#[derive(Debug, Default)]
pub(super) struct Lives {
    all: BTreeMap<u64, Life>,
    /// Lives that are over, of nodes that are to be told, and when.
    relays: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Life {
    node: String,
    heard: Instant,
}

impl Lives {
    /// Takes note of who says this.
    pub(super) fn hear(&mut self, from: &str, message: &Message, now: Instant) {
        if let Some(of) = &message.of {
            self.relays.remove(&message.life);
            self.insert(message.life, of, None, now);
            return;
        }
        self.insert(message.life, from, Some(now), now);
        if message.asks {
            let over = self.all.iter();
            let over = over.filter(|(life, known)| **life != message.life && known.node == from);
            let over: Vec<_> = over.map(|(life, _)| *life).collect();
            for life in over {
                let wait = RELAY_SPREAD.mul_f64(rand::random());
                self.relays.entry(life).or_insert(now + wait);
            }
        }
    }

    fn insert(&mut self, life: u64, node: &str, heard: Option<Instant>, now: Instant) {
        if let Some(known) = self.all.get_mut(&life) {
            known.heard = heard.unwrap_or(known.heard);
            return;
        }
        if self.all.len() >= LIVES_MAX {
            let silent = self.all.iter().min_by_key(|(_, known)| known.heard);
            if let Some(life) = silent.map(|(life, _)| *life) {
                self.all.remove(&life);
                self.relays.remove(&life);
            }
        }
        let node = node.to_owned();
        // One that is over was heard long ago.
        let long_ago = now.checked_sub(LATELY).unwrap_or(now);
        let heard = heard.unwrap_or(long_ago);
        self.all.insert(life, Life { node, heard });
    }

    /// How many were heard lately.
    pub(super) fn lately(&self, now: Instant) -> u32 {
        let lately = self.all.values();
        let lately = lately.filter(|life| now.saturating_duration_since(life.heard) < LATELY);
        u32::try_from(lately.count()).unwrap_or(u32::MAX)
    }

    /// Lives of which it is time to tell, with their nodes.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u64, String)> {
        let due = self.relays.extract_if(.., |_, at| *at <= now);
        let due: Vec<_> = due.map(|(life, _)| life).collect();
        let known = |life: u64| Some((life, self.all.get(&life)?.node.clone()));
        due.into_iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(life: u64, of: Option<&str>, asks: bool) -> Message {
        Message {
            life,
            of: of.map(str::to_owned),
            asks,
            counts: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_is_started_anew_is_told_once_what_it_has_forgotten() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        let later = now + RELAY_SPREAD;
        lives.hear("a", &message(1, None, true), now);
        lives.hear("b", &message(2, None, true), now);
        assert!(lives.due(later).is_empty());
        lives.hear("a", &message(3, None, true), now);
        assert_eq!(lives.due(later), [(1, "a".to_owned())]);
        assert!(lives.due(later).is_empty());
        // Somebody else was quicker.
        lives.hear("b", &message(4, None, true), now);
        lives.hear("a", &message(2, Some("b"), false), now);
        assert!(lives.due(later).is_empty());
        assert_eq!(lives.lately(now), 4);
        assert_eq!(lives.lately(now + LATELY), 0);
    }

    #[test]
    fn lives_are_bounded() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        for life in 0..10_000 {
            lives.hear("a", &message(life, None, true), now);
        }
        assert_eq!(lives.all.len(), LIVES_MAX);
        assert!(lives.relays.len() <= LIVES_MAX);
    }
}
