//! Groups of consumers, and who belongs to them.

use super::common::{CREATED_AT, TAGS, UPDATED_AT};
use super::{Inside, Kind, Nulls, Reference, Schema, Unique};
use crate::field::{Field, OnDelete};
use serde::Deserialize;

/// A group of consumers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ConsumerGroup {
    /// Unique.
    pub name: String,
}

/// That a consumer belongs to a group.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ConsumerGroupConsumer {
    /// The group.
    pub consumer_group: Reference,
    /// The member.
    pub consumer: Reference,
}

pub(super) static SCHEMA: Schema = Schema {
    unique: &[Unique::field("name", &["name"])],
    ..Schema::new(Kind::ConsumerGroup, "consumer_groups", FIELDS)
};

/// Not reached by paths of its own: `/consumer_groups/{g}/consumers` and `/consumers/{c}/consumer_groups` show what it
/// leads to.
pub(super) static MEMBER_SCHEMA: Schema = Schema {
    path: None,
    nested_path: None,
    endpoint_key: None,
    cache_key: &["consumer_group", "consumer"],
    inside: &[
        Inside {
            by: "consumer",
            list: "groups",
            item: "consumer_group",
        },
        Inside {
            by: "consumer_group",
            list: "consumers",
            item: "consumer",
        },
    ],
    unique: &[Unique {
        name: "member",
        fields: &["consumer_group", "consumer"],
        nulls: Nulls::Distinct,
    }],
    ..Schema::new(
        Kind::ConsumerGroupConsumer,
        "consumer_group_consumers",
        MEMBER_FIELDS,
    )
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    Field::string("name").required().unique(),
    TAGS,
];

const MEMBER_FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    Field::foreign("consumer_group", Kind::ConsumerGroup, OnDelete::Cascade).required(),
    Field::foreign("consumer", Kind::Consumer, OnDelete::Cascade).required(),
];
