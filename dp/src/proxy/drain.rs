//! The signal by which a worker asks its connections to finish. Local to a thread: no atomics, and one registration
//! per connection, because every poll of a connection passes here.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a connection that has not asked for anything yet is waited for. Its request may be on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(2);

/// The signal.
#[derive(Default)]
pub(super) struct Drain {
    asked: Cell<bool>,
    /// One slot per connection; free slots are `None`.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Drain {
    /// Asks all present and future connections to finish.
    pub(super) fn ask(&self) {
        self.asked.set(true);
        for slot in self.waiting.borrow_mut().iter_mut() {
            if let Some(waker) = slot.take() {
                waker.wake();
            }
        }
    }

    /// Ready once the connections are asked to finish.
    pub(super) fn asked(self: Rc<Self>) -> Asked {
        Asked {
            drain: self,
            slot: None,
        }
    }
}

/// Ready some time after the connections are asked to finish: for clients that have connected and are about to ask.
pub(super) async fn overdue(drain: Rc<Drain>) {
    drain.asked().await;
    tokio::time::sleep(FIRST_REQUEST_GRACE).await;
}

/// See [`Drain::asked`]. Must stay within one task: its waker is registered once.
pub(super) struct Asked {
    drain: Rc<Drain>,
    slot: Option<usize>,
}

impl Future for Asked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.asked.get() {
            return Poll::Ready(());
        }
        if self.slot.is_none() {
            let mut waiting = self.drain.waiting.borrow_mut();
            let slot = self.drain.free.borrow_mut().pop().unwrap_or_else(|| {
                waiting.push(None);
                waiting.len() - 1
            });
            waiting[slot] = Some(cx.waker().clone());
            drop(waiting);
            self.slot = Some(slot);
        }
        Poll::Pending
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.drain.waiting.borrow_mut()[slot] = None;
            self.drain.free.borrow_mut().push(slot);
        }
    }
}
