//! What may be done with an endpoint, in enough detail for the OpenAPI document.

use http::Method;

/// What may be done with an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::admin) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// HEAD is a GET whose body the server leaves out.
    pub(in crate::admin) fn parse(method: &Method) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "PATCH" => Some(Self::Patch),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }

    /// The methods it stands for.
    pub(in crate::admin) fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Get => &["GET", "HEAD"],
            Self::Post => &["POST"],
            Self::Put => &["PUT"],
            Self::Patch => &["PATCH"],
            Self::Delete => &["DELETE"],
        }
    }
}

/// One method of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Operation {
    pub(in crate::admin) verb: Verb,
    /// What it does, in a few words.
    pub(in crate::admin) summary: &'static str,
    /// The query arguments it reads.
    pub(in crate::admin) query: &'static [Argument],
    /// The body it reads.
    pub(in crate::admin) takes: Takes,
    /// The status when it worked, and the body.
    pub(in crate::admin) gives: (u16, Gives),
    /// Other statuses it may answer with.
    pub(in crate::admin) others: &'static [u16],
}

/// A query argument.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Argument {
    pub(in crate::admin) name: &'static str,
    /// Its type: `boolean`, `integer` or `string`.
    pub(in crate::admin) kind: &'static str,
    pub(in crate::admin) summary: &'static str,
}

/// What a request's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Takes {
    /// None.
    Nothing,
    /// An entity of the endpoint's kind, all of what it needs.
    Entity,
    /// Those fields of an entity that are to change.
    Fields,
    /// An object.
    Object,
    /// Anything with this media type.
    Raw(&'static str),
}

/// What an answer's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Gives {
    /// None.
    Nothing,
    /// An entity of the endpoint's kind.
    Entity,
    /// A page of them.
    Page,
    /// An object.
    Object,
    /// Anything with this media type.
    Raw(&'static str),
}

/// What any read may answer if it does not work.
const READ_PROBLEMS: &[u16] = &[400, 403, 404];
/// What any write may answer if it does not work.
pub(super) const WRITE_PROBLEMS: &[u16] = &[400, 403, 404, 408, 409, 412, 413, 415, 422, 503];

impl Operation {
    /// A GET that answers with an object.
    pub(super) const fn get(summary: &'static str) -> Self {
        Self {
            verb: Verb::Get,
            summary,
            query: &[],
            takes: Takes::Nothing,
            gives: (200, Gives::Object),
            others: READ_PROBLEMS,
        }
    }

    /// A change that answers with an object.
    pub(super) const fn change(verb: Verb, summary: &'static str) -> Self {
        Self {
            verb,
            summary,
            query: &[],
            takes: Takes::Nothing,
            gives: (200, Gives::Object),
            others: WRITE_PROBLEMS,
        }
    }

    pub(super) const fn query(mut self, query: &'static [Argument]) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn takes(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }

    pub(super) const fn gives(mut self, status: u16, gives: Gives) -> Self {
        self.gives = (status, gives);
        self
    }

    pub(super) const fn others(mut self, others: &'static [u16]) -> Self {
        self.others = others;
        self
    }
}

impl Argument {
    pub(super) const fn flag(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            kind: "boolean",
            summary,
        }
    }

    pub(super) const fn number(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            kind: "integer",
            summary,
        }
    }

    pub(super) const fn text(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            summary,
        }
    }
}

pub(super) const SIZE: Argument = Argument::number("size", "Elements of a page, 1 to 1000");
pub(super) const OFFSET: Argument = Argument::text("offset", "Where the page before ended");
pub(super) const DRY_RUN: Argument =
    Argument::flag("dry_run", "Decide and show the event, but append nothing");
pub(super) const AT: Argument = Argument::text(
    "at",
    "What was there at this version or time: a number, a time in the form of RFC 3339, or how long ago (10m, 2h, 7d)",
);
