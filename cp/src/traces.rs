//! The trace of a write: begun by its request, carried by its event, continued by whoever applies that.
//!
//! The request is a span (`answered`), with those of the writer's steps below it; what data planes do with the event
//! is below the span of the append, whose name is the one in the event.

use http::HeaderMap;
use sluice_replica::environment::Environment;
use sluice_replica::traces::{Span, SpanKind, Tracer, Value, event_attributes, span_id};
use sluice_schema::decide::Proposal;
use sluice_schema::trace::{SpanId, TraceContext, TraceId};
use sluice_schema::version::{Time, Version};
use std::borrow::Cow;

const TRACEPARENT: &str = "traceparent";

/// What makes spans of writes.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Takes them.
    pub tracer: Tracer,
    /// How many of the writes that come without a trace begin one, 0 to 1.
    pub sample: f64,
}

/// A write's place in a trace, if it has one.
#[derive(Clone, Debug, Default)]
pub struct WriteTrace {
    /// The caller's span.
    caller: Option<TraceContext>,
    own: Option<Recorded>,
}

/// A request that is recorded.
#[derive(Clone, Debug)]
struct Recorded {
    tracer: Tracer,
    environment: Environment,
    context: TraceContext,
    start: Time,
}

impl Traces {
    /// Nobody wants spans.
    pub fn off() -> Self {
        Self {
            tracer: Tracer::off(),
            sample: 0.0,
        }
    }

    /// The trace of a write whose request has these headers.
    pub(crate) fn begin(&self, headers: &HeaderMap, environment: Environment) -> WriteTrace {
        let caller = headers.get(TRACEPARENT).and_then(|text| text.to_str().ok());
        let caller = caller.and_then(|text| TraceContext::parse(text.trim()));
        let context = self.tracer.begin(caller, self.sample, &environment);
        WriteTrace {
            caller,
            own: context.map(|context| Recorded {
                tracer: self.tracer.clone(),
                start: environment.now(),
                environment,
                context,
            }),
        }
    }
}

impl WriteTrace {
    /// The trace, for log lines; also one that is not recorded.
    pub(crate) fn id(&self) -> Option<TraceId> {
        let own = self.own.as_ref().map(|own| own.context);
        own.or(self.caller).map(|context| context.trace)
    }

    /// Whether spans are made.
    pub(crate) fn is_recorded(&self) -> bool {
        self.own.is_some()
    }

    /// The request has been answered. `failure` is what went wrong here, not what was wrong with the request.
    pub(crate) fn answered(
        &self,
        name: String,
        attributes: Vec<(&'static str, Value)>,
        failure: Option<Cow<'static, str>>,
    ) {
        if let Some(own) = &self.own {
            own.tracer.record(Span {
                name: name.into(),
                kind: SpanKind::Server,
                context: own.context,
                parent: self.caller.map(|caller| caller.span),
                start: own.start,
                end: own.environment.now(),
                attributes,
                events: Vec::new(),
                failure,
            });
        }
    }

    /// The command's way through the writer.
    pub(crate) fn steps(&self) -> Steps {
        Steps {
            caller: self.caller.filter(|caller| caller.sampled),
            own: self.own.as_ref().map(|own| Own {
                request: own.clone(),
                append: span_id(&own.environment),
                tries: 0,
                since: own.start,
            }),
        }
    }
}

/// A command's way through the writer, as spans: `decide`, `append`, `fold`. Several of the first if other control planes
/// were faster.
#[derive(Debug)]
pub(crate) struct Steps {
    caller: Option<TraceContext>,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    request: Recorded,
    append: SpanId,
    tries: u64,
    /// When the step under way began.
    since: Time,
}

impl Steps {
    /// What the event says. Where nothing is recorded here, data planes continue the caller's span.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        let own = self.own.as_ref().map(|own| TraceContext {
            span: own.append,
            ..own.request.context
        });
        own.or(self.caller)
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        if let Some(own) = &mut self.own {
            own.since = own.request.environment.now();
        }
    }

    /// The command was decided, on this version.
    pub(crate) fn decided(&mut self, on: Version, outcome: &'static str) {
        let Some(own) = &mut self.own else {
            return;
        };
        own.tries += 1;
        let attributes = vec![
            ("sluice.decided_on", on.0.into()),
            ("sluice.outcome", outcome.into()),
            ("sluice.attempt", own.tries.into()),
        ];
        let span = span_id(&own.request.environment);
        own.step("decide", SpanKind::Internal, span, attributes);
    }

    /// The log has acknowledged the event.
    pub(crate) fn appended(&mut self, proposal: &Proposal) {
        let Some(own) = &mut self.own else {
            return;
        };
        let event = &proposal.event;
        let (count, kind) = (event.mutations.count(), event.mutations.kind());
        let attributes = event_attributes(proposal.cursor, event.id, count, kind);
        own.step("append", SpanKind::Producer, own.append, attributes);
    }

    /// The event has come back, and reads see it.
    pub(crate) fn folded(&mut self, version: Version) {
        let Some(own) = &mut self.own else {
            return;
        };
        let attributes = vec![("sluice.version", version.0.into())];
        let span = span_id(&own.request.environment);
        own.step("fold", SpanKind::Internal, span, attributes);
    }
}

impl Own {
    /// The step under way ends, and the next one begins.
    fn step(
        &mut self,
        name: &'static str,
        kind: SpanKind,
        span: SpanId,
        attributes: Vec<(&'static str, Value)>,
    ) {
        let Recorded {
            tracer,
            environment,
            context,
            ..
        } = &self.request;
        let now = environment.now();
        tracer.record(Span {
            name: name.into(),
            kind,
            context: TraceContext { span, ..*context },
            parent: Some(context.span),
            start: self.since,
            end: now,
            attributes,
            events: Vec::new(),
            failure: None,
        });
        self.since = now;
    }
}
