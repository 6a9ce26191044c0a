//! Spans: what became of a change, step by step, for a collector of traces.
//!
//! Who makes a span hands it over and goes on at once: `export` sends spans in batches, and what finds no room in its
//! queue, or no collector, is dropped and counted. Nothing waits for it.

mod applied;
mod export;
mod otlp;
mod target;

pub use applied::Applied;
pub use export::Exporter;
pub use target::{Target, TargetError};

use crate::environment::Environment;
use sluice_schema::entity::KindName;
use sluice_schema::event::EventId;
use sluice_schema::trace::{SpanId, TraceContext, TraceId};
use sluice_schema::version::{Cursor, Time};
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Spans that may wait to be sent.
const QUEUE_SPANS_MAX: usize = 4096;

/// Something that took a while, as a part of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// What it was; one of few names.
    pub name: Cow<'static, str>,
    /// How it stands to others.
    pub kind: SpanKind,
    /// Its own place.
    pub context: TraceContext,
    /// The span it is a part of, or that caused it.
    pub parent: Option<SpanId>,
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// What else is to be said of it. No secrets: collectors belong to others.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened meanwhile.
    pub events: Vec<(&'static str, Time)>,
    /// What went wrong, if it did.
    pub failure: Option<Cow<'static, str>>,
}

/// How a span stands to others; the numbers are OTLP's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// Work within a program.
    Internal = 1,
    /// A request that was answered.
    Server = 2,
    /// Something was sent, for whoever wants it.
    Producer = 4,
    /// It was taken in.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// Who makes the spans, as the collector is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// The program's name.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The node's id.
    pub node: String,
    /// The machine's name.
    pub hostname: String,
    /// The cluster's name.
    pub cluster: String,
}

/// Takes spans. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Outlet>>);

#[derive(Debug)]
struct Outlet {
    spans: mpsc::Sender<Span>,
    counts: Arc<Counts>,
}

/// What became of the spans.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    /// The queue was full.
    crowded: AtomicU64,
    /// The collector did not take them.
    undelivered: AtomicU64,
    /// There were too many at a time: see [`Applied`].
    flooding: AtomicU64,
}

impl Tracer {
    /// Nobody wants spans.
    pub fn off() -> Self {
        Self(None)
    }

    /// Spans go to `target`, by the exporter, which is to be run.
    pub fn new(target: Target, resource: Resource) -> (Self, Exporter) {
        let (spans, inbox) = mpsc::channel(QUEUE_SPANS_MAX);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(inbox, target, resource, Arc::clone(&counts));
        (Self(Some(Arc::new(Outlet { spans, counts }))), exporter)
    }

    /// Whether anybody wants spans.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands over a span. Never waits.
    pub fn record(&self, span: Span) {
        if let Some(outlet) = &self.0
            && outlet.spans.try_send(span).is_err()
        {
            add(&outlet.counts.crowded, 1);
        }
    }

    /// The place of a span that begins here: in the trace of `caller` if that one is recorded, else in a new one, for
    /// so many of them (0 to 1). `None` if the span is not recorded.
    pub fn begin(
        &self,
        caller: Option<TraceContext>,
        sample: f64,
        environment: &Environment,
    ) -> Option<TraceContext> {
        self.0.as_ref()?;
        let wanted = match caller {
            Some(caller) => caller.sampled,
            None => environment.fraction() < sample,
        };
        wanted.then(|| {
            let (trace, span) = names(environment);
            TraceContext {
                trace: caller.map_or(trace, |caller| caller.trace),
                span,
                sampled: true,
            }
        })
    }

    /// What became of the spans, in Prometheus' text format; nothing if nobody wants any. Names begin with `prefix`.
    pub fn write(&self, prefix: &str, text: &mut String) {
        let Some(Outlet { counts, .. }) = self.0.as_deref() else {
            return;
        };
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (sent, dropped) = ("trace_spans_sent_total", "trace_spans_dropped_total");
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP {prefix}_{sent} Spans that the collector of traces has taken.\n# TYPE {prefix}_{sent} counter\n{prefix}_{sent} {}\n# HELP {prefix}_{dropped} Spans that were dropped, by why.\n# TYPE {prefix}_{dropped} counter",
            value(&counts.sent)
        );
        for (reason, count) in [
            ("queue", &counts.crowded),
            ("collector", &counts.undelivered),
            ("rate", &counts.flooding),
        ] {
            let count = value(count);
            let _ = writeln!(text, "{prefix}_{dropped}{{reason=\"{reason}\"}} {count}");
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What is told of an event: the cursor after it, its name, how many entities it is about, and their kind if it is one.
pub fn event_attributes(
    cursor: Cursor,
    id: EventId,
    entities: u64,
    kind: Option<&KindName>,
) -> Vec<(&'static str, Value)> {
    let mut attributes = vec![
        ("sluice.version", cursor.version.0.into()),
        ("sluice.epoch", cursor.epoch.to_string().into()),
        ("sluice.event.id", id.to_string().into()),
        ("sluice.entities", entities.into()),
    ];
    attributes.extend(kind.map(|kind| ("sluice.kind", kind.as_str().into())));
    attributes
}

/// The name of a span that is part of a trace.
pub fn span_id(environment: &Environment) -> SpanId {
    names(environment).1
}

/// A trace's name and a span's, by chance.
fn names(environment: &Environment) -> (TraceId, SpanId) {
    loop {
        let seed = environment.seed();
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&seed[..16]);
        span.copy_from_slice(&seed[16..24]);
        if let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) {
            return (trace, span);
        }
    }
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
