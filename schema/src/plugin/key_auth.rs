//! key-auth: consumers are known by a key they send.

use super::PluginSchema;
use crate::check::text;
use crate::field::{Field, Literal};

pub(super) static SCHEMA: PluginSchema =
    PluginSchema::new("key-auth", PluginSchema::config(CONFIG)).no_consumer();

const CONFIG: &[Field] = &[
    Field::array("key_names", &Field::string("").text(text::header_name))
        .required()
        .default(Literal::Texts(&["apikey"])),
    Field::boolean("hide_credentials")
        .required()
        .default(Literal::Bool(false)),
    Field::string("anonymous"),
    Field::boolean("key_in_header")
        .required()
        .default(Literal::Bool(true)),
    Field::boolean("key_in_query")
        .required()
        .default(Literal::Bool(true)),
    Field::boolean("key_in_body")
        .required()
        .default(Literal::Bool(false)),
    Field::boolean("run_on_preflight")
        .required()
        .default(Literal::Bool(true)),
    Field::string("realm"),
];
