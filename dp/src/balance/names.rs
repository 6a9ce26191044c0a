//! Names that the configuration uses, and what they resolve to. Looking up happens elsewhere (`resolve`): here is only
//! what is known, and who wants to know it.

use super::group::Group;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// How long the first request for a name waits for it: longer than a look-up takes.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// Names are not forgotten while there are no more than this.
const NAMES_KEPT: usize = 10_000;

/// An address of a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Record {
    pub(crate) ip: IpAddr,
    /// Of an SRV record: port, weight and host.
    pub(crate) srv: Option<(u16, u16, Arc<str>)>,
}

/// What is known of a name.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was not looked up yet.
    Pending,
    /// Its addresses in order, at least one, and when they were last confirmed.
    Known(Box<[Record]>, Instant),
    /// It has none, or nobody could tell.
    Failed,
}

impl Answer {
    /// Its addresses; none if there are none, or none known.
    pub(crate) fn records(&self) -> &[Record] {
        match self {
            Self::Known(records, _) => records,
            Self::Pending | Self::Failed => &[],
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        match self {
            Self::Pending => true,
            Self::Known(..) | Self::Failed => false,
        }
    }
}

/// A name in use.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) text: Box<str>,
    answer: Arc<ArcSwap<Answer>>,
    changed: Notify,
    /// The groups that are made anew when the answer changes.
    users: Mutex<Vec<Weak<Group>>>,
    /// Its refreshing has ended because nobody used it.
    resting: AtomicBool,
    /// Look-ups in a row without an answer.
    pub(crate) failures: AtomicU32,
}

impl Name {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            answer: Arc::new(ArcSwap::from_pointee(Answer::Pending)),
            changed: Notify::new(),
            users: Mutex::default(),
            resting: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        }
    }

    /// What is known now.
    pub(crate) fn answer(&self) -> Arc<Answer> {
        self.answer.load_full()
    }

    /// The place where the answer is, for those who look often.
    pub(super) fn place(&self) -> Arc<ArcSwap<Answer>> {
        Arc::clone(&self.answer)
    }

    /// Waits until it was looked up once.
    pub(crate) async fn first_answer(&self) {
        let answered = async {
            loop {
                let changed = self.changed.notified();
                if !self.answer.load().is_pending() {
                    return;
                }
                changed.await;
            }
        };
        // Whoever waits finds out by looking again.
        let _ = tokio::time::timeout(FIRST_WAIT, answered).await;
    }

    /// Sets what is known. Groups have followed when those who wait go on.
    pub(crate) fn set(&self, answer: Answer) {
        let before = self.answer.swap(Arc::new(answer));
        let now = self.answer.load();
        let same = before.is_pending() == now.is_pending() && before.records() == now.records();
        if !same {
            let users: Vec<_> = {
                let mut users = self.lock();
                users.retain(|group| group.strong_count() > 0);
                users.clone()
            };
            for group in users.iter().filter_map(Weak::upgrade) {
                if !group.follow(self) {
                    self.lock()
                        .retain(|user| user.as_ptr() != Arc::as_ptr(&group));
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// Lets a group follow its answers.
    pub(super) fn add_user(&self, group: &Arc<Group>) {
        let mut users = self.lock();
        if !users.iter().any(|user| user.as_ptr() == Arc::as_ptr(group)) {
            users.push(Arc::downgrade(group));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Group>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name somebody wants to know.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) name: Arc<Name>,
    /// A request may be waiting.
    pub(crate) urgent: bool,
}

/// All names in use: one look-up for each, however many use it.
#[derive(Debug)]
pub(crate) struct Names {
    all: Mutex<HashMap<Box<str>, Arc<Name>>>,
    wishes: mpsc::UnboundedSender<Wish>,
}

/// Strong references to a name that nobody uses: the list of all names has one.
const OWN_REFERENCES: usize = 1;

impl Names {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Wish>) {
        let (wishes, wished) = mpsc::unbounded_channel();
        let all = Mutex::default();
        (Self { all, wishes }, wished)
    }

    /// The name, which is looked up if it is new or was not used for a while.
    pub(crate) fn find(&self, text: &str, urgent: bool) -> Arc<Name> {
        let text = text.to_ascii_lowercase();
        let mut all = self.lock();
        let (name, new) = match all.get(&*text) {
            Some(name) => (Arc::clone(name), false),
            None => {
                let name = Arc::new(Name::new(&text));
                all.insert(text.into(), Arc::clone(&name));
                (name, true)
            }
        };
        let wakes =
            name.resting.load(Ordering::Relaxed) && name.resting.swap(false, Ordering::Relaxed);
        if new || wakes {
            let name = Arc::clone(&name);
            // Without a keeper nobody looks up: the proxy was never started.
            let _ = self.wishes.send(Wish { name, urgent });
        }
        name
    }

    /// Puts a name in front of those that no request waits for.
    pub(super) fn hurry(&self, name: &Arc<Name>) {
        let name = Arc::clone(name);
        let _ = self.wishes.send(Wish { name, urgent: true });
    }

    /// Whether a name is refreshed no longer, because nobody uses it. `name` is the caller's only reference.
    pub(crate) fn rest(&self, name: &Arc<Name>) -> bool {
        let _all = self.lock();
        let unused = Arc::strong_count(name) <= OWN_REFERENCES + 1;
        name.resting.store(unused, Ordering::Relaxed);
        unused
    }

    /// Forgets names that nobody uses if there are many.
    pub(crate) fn prune(&self) {
        let mut all = self.lock();
        if all.len() > NAMES_KEPT {
            let used = |name: &Arc<Name>| Arc::strong_count(name) > OWN_REFERENCES;
            all.retain(|_, name| used(name) || !name.resting.load(Ordering::Relaxed));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Arc<Name>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
