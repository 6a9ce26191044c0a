//! An upstream outside the configuration: its lineup now, and the members that stay while the configuration changes
//! around them. A member is known by its target's host and port and by its address.

use super::lineup::{Lineup, Seat};
use super::member::Member;
use super::names::{Answer, Name, Names, Record};
use crate::table::{Target, Upstream};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

type Members = BTreeMap<(Box<str>, u16, SocketAddr), Arc<Member>>;

/// An upstream in use. Keyed by the entity's id, shared by all workers.
#[derive(Debug)]
pub(crate) struct Group {
    /// The lineup now.
    pub(super) lineup: Arc<ArcSwap<Lineup>>,
    state: Mutex<State>,
    /// Someone sees to its active checks.
    pub(super) is_watched: AtomicBool,
    /// The lineup has changed, or the group is gone.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    members: Members,
    /// The names of the targets, in the order of the targets. Absent for addresses.
    names: Vec<Option<Arc<Name>>>,
    /// Older forms of the upstream that a request may still have.
    retired: Vec<Weak<Upstream>>,
}

impl Group {
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|group| Self {
            lineup: Arc::new(ArcSwap::from_pointee(Lineup::empty(group.clone()))),
            state: Mutex::default(),
            is_watched: AtomicBool::new(false),
            changed: Arc::default(),
        })
    }

    /// The lineup now.
    pub(crate) fn lineup(&self) -> Arc<Lineup> {
        self.lineup.load_full()
    }

    /// Makes it the group of this form of its upstream, unless that is an older one.
    pub(super) fn adopt(self: &Arc<Self>, upstream: &Arc<Upstream>, names: &Names, urgent: bool) {
        let mut state = self.lock();
        let before = self.lineup.load_full();
        let retired = state
            .retired
            .iter()
            .any(|old| old.as_ptr() == Arc::as_ptr(upstream));
        if retired || before.is_of(upstream) {
            return;
        }
        state.retired.retain(|old| old.strong_count() > 0);
        state
            .retired
            .extend(before.upstream.as_ref().map(Arc::downgrade));
        let name = |target: &Arc<Target>| {
            let is_name = target.host.parse::<IpAddr>().is_err();
            is_name.then(|| names.find(&target.host, urgent))
        };
        state.names = upstream.targets.iter().map(name).collect();
        for name in state.names.iter().flatten() {
            // Before its answer is read, so that none is missed.
            name.add_user(self);
        }
        self.rebuild(&mut state, upstream);
    }

    /// Takes up the answer of a name. Says whether it still uses it.
    pub(super) fn follow(self: &Arc<Self>, name: &Name) -> bool {
        let mut state = self.lock();
        let uses = |own: &Arc<Name>| std::ptr::eq(&raw const **own, name);
        if !state.names.iter().flatten().any(uses) {
            return false;
        }
        if let Some(upstream) = self.lineup.load_full().upstream.clone() {
            self.rebuild(&mut state, &upstream);
        }
        true
    }

    /// Takes up what has become of its members' health.
    pub(crate) fn turned(&self) {
        let _state = self.lock();
        let renewed = self.lineup.load().renewed();
        self.lineup.store(Arc::new(renewed));
        self.changed.notify_one();
    }

    /// Ends the watch over active checks. Says whether it ended: they may be wanted again already.
    pub(crate) fn end_watch(&self) -> bool {
        self.is_watched.store(false, Ordering::Release);
        let wanted = self.lineup.load().is_watched();
        !wanted || self.is_watched.swap(true, Ordering::AcqRel)
    }

    /// Told when the lineup has changed or the group is gone.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn rebuild(self: &Arc<Self>, state: &mut State, upstream: &Arc<Upstream>) {
        let mut members = Members::new();
        let (mut seats, mut waiting, mut unresolved) = (Vec::new(), Vec::new(), Vec::new());
        for (index, target) in upstream.targets.iter().enumerate() {
            let name = state.names.get(index).and_then(Option::as_ref);
            let answer = match name {
                Some(name) => name.answer(),
                None => fixed(&target.host),
            };
            match (&*answer, name) {
                (Answer::Pending, Some(name)) => waiting.push(Arc::clone(name)),
                (Answer::Failed, _) => unresolved.push(index),
                (Answer::Known(..) | Answer::Pending, _) => {}
            }
            for record in answer.records() {
                let (port, _) = record.port_and_weight(target.port, 0);
                let address = SocketAddr::new(record.ip, port);
                let key = (target.host.clone(), target.port, address);
                let known = state.members.get(&key).cloned();
                let member = known.unwrap_or_else(|| Arc::new(Member::new(address)));
                if !upstream.checks.is_on {
                    // Nobody looks, so nobody may be left out.
                    member.health.set(true);
                }
                members.insert(key, Arc::clone(&member));
                seats.push(Seat::of_target(upstream, index, target, record, member));
            }
        }
        state.members = members;
        let lineup = Lineup::of_upstream(
            upstream,
            self,
            seats.into(),
            waiting.into(),
            unresolved.into(),
        );
        self.lineup.store(Arc::new(lineup));
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer for an address.
fn fixed(host: &str) -> Arc<Answer> {
    let answer = match host.parse::<IpAddr>() {
        Ok(ip) => Answer::Known(Box::new([Record::fixed(ip)]), std::time::Instant::now()),
        Err(_) => Answer::Failed,
    };
    Arc::new(answer)
}

impl Drop for Group {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}
