//! Plugins that find out who sent a request, and whether they may.

use super::PluginSchema;
use super::common::{ANONYMOUS, REALM, TEXT, number, off, on, text, texts};
use crate::check::text::header_name;
use crate::field::{Check, Field, Literal, Match};
use crate::kind::common::{HOST, PORT};

const HIDE_CREDENTIALS: Field = off("hide_credentials").required();
const RUN_ON_PREFLIGHT: Field = on("run_on_preflight").required();
const ACL_LISTS: &[&str] = &["config.allow", "config.deny"];
const HMAC_ALGORITHMS: &[&str] = &["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

/// Consumers may or may not go on by the groups they are in.
pub(super) static ACL: PluginSchema = PluginSchema::of(
    "acl",
    &[
        texts("allow"),
        texts("deny"),
        off("hide_groups_header").required(),
        off("always_use_authenticated_groups").required(),
    ],
)
.no_consumer()
.checks(&[Check::OnlyOneOf(ACL_LISTS), Check::AtLeastOneOf(ACL_LISTS)]);

/// Consumers are known by a name and a password.
pub(super) static BASIC_AUTH: PluginSchema = PluginSchema::of(
    "basic-auth",
    &[
        ANONYMOUS,
        HIDE_CREDENTIALS,
        text("realm", "service").required(),
    ],
)
.no_consumer();

/// Consumers are known by a signature over parts of the request.
pub(super) static HMAC_AUTH: PluginSchema = PluginSchema::of(
    "hmac-auth",
    &[
        HIDE_CREDENTIALS,
        number("clock_skew", 300).gt(0.0),
        ANONYMOUS,
        off("validate_request_body").required(),
        texts("enforce_headers").default(Literal::Texts(&[])),
        Field::array("algorithms", &TEXT.one_of(HMAC_ALGORITHMS))
            .default(Literal::Texts(HMAC_ALGORITHMS)),
        REALM,
    ],
)
.no_consumer();

/// Consumers are known by a signed token.
pub(super) static JWT: PluginSchema = PluginSchema::of(
    "jwt",
    &[
        Field::set("uri_param_names", &TEXT).default(Literal::Texts(&["jwt"])),
        Field::set("cookie_names", &TEXT).default(Literal::Texts(&[])),
        text("key_claim_name", "iss"),
        off("secret_is_base64").required(),
        Field::set("claims_to_verify", &TEXT.one_of(&["exp", "nbf"])),
        ANONYMOUS,
        RUN_ON_PREFLIGHT,
        number("maximum_expiration", 0).between(0, 31_536_000),
        Field::set("header_names", &TEXT).default(Literal::Texts(&["authorization"])),
        REALM,
    ],
)
.no_consumer()
.checks(&[Check::Conditional {
    if_field: "config.maximum_expiration",
    if_match: Match::Gt(0.0),
    then_field: "config.claims_to_verify",
    then_match: Match::Contains("exp"),
    error: None,
}]);

/// Consumers are known by a key they send.
pub(super) static KEY_AUTH: PluginSchema = PluginSchema::of(
    "key-auth",
    &[
        Field::array("key_names", &TEXT.text(header_name))
            .required()
            .default(Literal::Texts(&["apikey"])),
        HIDE_CREDENTIALS,
        ANONYMOUS,
        on("key_in_header").required(),
        on("key_in_query").required(),
        off("key_in_body").required(),
        RUN_ON_PREFLIGHT,
        REALM,
    ],
)
.no_consumer();

/// Users are known to a directory.
pub(super) static LDAP_AUTH: PluginSchema = PluginSchema::of(
    "ldap-auth",
    &[
        HOST.named("ldap_host").required(),
        PORT.named("ldap_port")
            .required()
            .default(Literal::Int(389)),
        off("ldaps").required(),
        off("start_tls").required(),
        off("verify_ldap_host").required(),
        Field::string("base_dn").required(),
        Field::string("attribute").required(),
        number("cache_ttl", 60).required(),
        HIDE_CREDENTIALS,
        number("timeout", 10_000),
        number("keepalive", 60_000),
        ANONYMOUS,
        text("header_type", "ldap"),
        REALM,
    ],
)
.no_consumer();

/// Requests are signed as the Standard Webhooks specification says.
pub(super) static STANDARD_WEBHOOKS: PluginSchema = PluginSchema::of(
    "standard-webhooks",
    &[
        Field::string("secret_v1").required().secret(),
        Field::integer("tolerance_second")
            .required()
            .gt(-1.0)
            .default(Literal::Int(300)),
    ],
)
.no_consumer();
