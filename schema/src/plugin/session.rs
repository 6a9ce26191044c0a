//! session: who was known once is known by a cookie.

use super::PluginSchema;
use super::common::{TEXT, number, off, on, text};
use crate::field::{Alias, Auto, Field, Literal};
use serde_json::Value;

pub(super) static SCHEMA: PluginSchema =
    PluginSchema::new("session", PluginSchema::config(CONFIG).aliases(ALIASES))
        .no_consumer()
        .any_protocol();

const HEADER: Field = TEXT.one_of(&[
    "id",
    "audience",
    "subject",
    "timeout",
    "idling-timeout",
    "rolling-timeout",
    "absolute-timeout",
]);

const CONFIG: &[Field] = &[
    // Kong's default is random too, but another one on each start; here it is drawn once per plugin.
    Field::string("secret").secret().auto(Auto::Random),
    text("storage", "cookie").one_of(&["cookie"]).error(
        "Sluice keeps sessions in cookies only, as data planes write to no database: expected 'cookie'",
    ),
    text("audience", "default"),
    number("idling_timeout", 900),
    number("rolling_timeout", 3600),
    number("absolute_timeout", 86_400),
    number("stale_ttl", 10),
    text("cookie_name", "session"),
    text("cookie_path", "/"),
    Field::string("cookie_domain"),
    text("cookie_same_site", "Strict").one_of(&["Strict", "Lax", "None", "Default"]),
    on("cookie_http_only"),
    on("cookie_secure"),
    off("remember"),
    text("remember_cookie_name", "remember"),
    number("remember_rolling_timeout", 604_800),
    number("remember_absolute_timeout", 2_592_000),
    Field::set("response_headers", &HEADER),
    Field::set("request_headers", &HEADER),
    off("read_body_for_logout"),
    Field::set("logout_methods", &TEXT.one_of(&["GET", "POST", "DELETE"]))
        .default(Literal::Texts(&["POST", "DELETE"])),
    text("logout_query_arg", "session_logout"),
    text("logout_post_arg", "session_logout"),
    off("hash_subject"),
    off("store_metadata"),
];

const ALIASES: &[Alias] = &[
    Alias::new(Field::number("cookie_lifetime"), &["rolling_timeout"]),
    Alias::new(Field::number("cookie_idletime"), &["idling_timeout"]).convert(zero_for_none),
    Alias::dropped(Field::number("cookie_renew")),
    Alias::new(Field::number("cookie_discard"), &["stale_ttl"]),
    Alias::new(Field::string("cookie_samesite"), &["cookie_same_site"]).convert(same_site),
    Alias::new(Field::boolean("cookie_httponly"), &["cookie_http_only"]),
    Alias::new(Field::boolean("cookie_persistent"), &["remember"]),
];

/// No idle time meant that sessions do not become idle.
fn zero_for_none(value: Value) -> Value {
    if value.is_null() { 0.into() } else { value }
}

fn same_site(value: Value) -> Value {
    if value == "off" { "Lax".into() } else { value }
}
