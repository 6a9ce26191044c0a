//! Filter chains: WebAssembly filters of a route or service. No data plane of ours runs them, so that none is accepted,
//! as with Kong when it is told not to run them.

use super::common::{CREATED_AT, NAME, TAGS, UPDATED_AT};
use super::{Kind, Schema, Unique};
use crate::check::Errors;
use crate::field::{Check, Field, Literal, OnDelete, Type};
use crate::version::Time;
use serde_json::{Map, Value};

/// What the Admin API answers to requests for filter chains.
pub const WASM_DISABLED: &str = "this endpoint is only available when wasm is enabled";

pub(super) static SCHEMA: Schema = Schema {
    path: Some("filter-chains"),
    nested_path: Some("filter-chains"),
    cache_key: &["route", "service"],
    unique: &[
        Unique::field("name", &["name"]),
        Unique::field("route", &["route"]),
        Unique::field("service", &["service"]),
    ],
    checks: &[
        Check::MutuallyExclusive(&["service", "route"]),
        Check::AtLeastOneOf(&["service", "route"]),
    ],
    verify: Some(refuse),
    ..Schema::new(Kind::FilterChain, "filter_chains", FIELDS)
};

const FIELDS: &[Field] = &[
    NAME,
    Field::boolean("enabled")
        .required()
        .default(Literal::Bool(true)),
    Field::foreign("route", Kind::Route, OnDelete::Cascade).unique(),
    Field::foreign("service", Kind::Service, OnDelete::Cascade).unique(),
    Field::array("filters", &FILTER).required().len_min(1),
    CREATED_AT,
    UPDATED_AT,
    TAGS,
];

const FILTER: Field = Field::record(
    "",
    &[
        Field::string("name")
            .required()
            .text(|_| Err("no such filter".to_owned())),
        Field::boolean("enabled")
            .required()
            .default(Literal::Bool(true)),
        Field::new("config", Type::Json),
    ],
);

fn refuse(_: &Map<String, Value>, _: Option<&Map<String, Value>>, _: Time, errors: &mut Errors) {
    errors.entity("wasm support is not enabled");
}
