//! Consumers: users of services.

use super::common::{CREATED_AT, TAGS, UPDATED_AT};
use super::{Kind, Schema, Unique};
use crate::field::{Check, Field};
use serde::Deserialize;

/// The fields of a consumer the data plane uses. At least one of the two is set.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Consumer {
    /// A unique name.
    pub username: Option<String>,
    /// A unique id of the caller's own system.
    pub custom_id: Option<String>,
}

pub(super) static SCHEMA: Schema = Schema {
    endpoint_key: Some("username"),
    unique: &[
        Unique::field("username", &["username"]),
        Unique::field("custom_id", &["custom_id"]),
    ],
    checks: &[Check::AtLeastOneOf(&["custom_id", "username"])],
    ..Schema::new(Kind::Consumer, "consumers", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    Field::string("username").unique(),
    Field::string("custom_id").unique(),
    TAGS,
];
