//! acl: that a consumer has a group's rights. Such a group is only a word.

use super::CONSUMER;
use crate::field::Field;
use crate::kind::common::{CREATED_AT, TAGS};
use crate::kind::{Kind, Nulls, Reference, Schema, Unique};
use serde::Deserialize;

/// That a consumer has a group's rights.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Acl {
    /// Who.
    pub consumer: Reference,
    /// The group.
    pub group: String,
}

pub(in crate::kind) static SCHEMA: Schema = Schema {
    endpoint_key: Some("group"),
    cache_key: &["consumer", "group"],
    unique: &[Unique {
        name: "group",
        fields: &["consumer", "group"],
        nulls: Nulls::Distinct,
    }],
    ..Schema::new(Kind::Acl, "acls", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    CONSUMER,
    Field::string("group").required(),
    TAGS,
];
