//! What a data plane does with an event, as a span of the trace of its write.

use super::{Span, SpanKind, Tracer, add, event_attributes, span_id};
use crate::environment::Environment;
use crate::run::Arrival;
use sluice_schema::trace::TraceContext;
use sluice_schema::version::Time;
use std::sync::{Mutex, PoisonError};

/// Spans of events that a data plane makes in a second: one that was away, and catches up, is no flood.
const SPANS_PER_SECOND: u32 = 100;
const SECOND_US: u64 = 1_000_000;

/// Makes spans of events that have become active. Of those decided before this process began it makes none: it did not
/// take long to apply them, it was not there. Nor of what came with a snapshot, which has no events. Of others it makes
/// at most 100 in a second.
#[derive(Debug)]
pub struct Applied {
    tracer: Tracer,
    environment: Environment,
    since: Time,
    budget: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    /// When the second began.
    began: Time,
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            began: Time::default(),
            left: SPANS_PER_SECOND,
        }
    }
}

impl Budget {
    fn take(&mut self, now: Time) -> bool {
        let passed = now.0.checked_sub(self.began.0);
        // Less than nothing has passed if the clock was set back.
        if passed.is_none_or(|passed| passed >= SECOND_US) {
            (self.began, self.left) = (now, SPANS_PER_SECOND);
        }
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }
}

impl Default for Applied {
    /// Makes no spans.
    fn default() -> Self {
        Self::new(Tracer::off(), Environment::system(), Time::default())
    }
}

impl Applied {
    /// Spans go to `tracer`; what was decided before `since` gets none.
    pub fn new(tracer: Tracer, environment: Environment, since: Time) -> Self {
        Self {
            tracer,
            environment,
            since,
            budget: Mutex::default(),
        }
    }

    /// For the metrics.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// These have become active now, having been received and stored before.
    pub fn active(&self, events: &[Arrival], now: Time) {
        let Some(outlet) = self.tracer.0.as_deref() else {
            return;
        };
        for event in events.iter().filter(|event| event.decided >= self.since) {
            let Some(parent) = event.trace.filter(|parent| parent.sampled) else {
                continue;
            };
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            if budget.take(now) {
                drop(budget);
                self.tracer.record(self.span(event, parent, now));
            } else {
                add(&outlet.counts.flooding, 1);
            }
        }
    }

    fn span(&self, event: &Arrival, parent: TraceContext, now: Time) -> Span {
        Span {
            name: "apply".into(),
            kind: SpanKind::Consumer,
            context: TraceContext {
                span: span_id(&self.environment),
                ..parent
            },
            parent: Some(parent.span),
            start: event.received,
            end: now,
            attributes: event_attributes(
                event.cursor,
                event.id,
                event.entities,
                event.kind.as_ref(),
            ),
            events: vec![
                ("received", event.received),
                ("stored", event.stored),
                ("active", now),
            ],
            failure: None,
        }
    }
}
