//! Runs the streams of HTTP/2 connections on their worker's own thread.

use hyper::rt::Executor;

/// The tasks of this thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExec;

impl<F> Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}
