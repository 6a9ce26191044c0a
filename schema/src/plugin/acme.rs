//! acme: certificates from a certificate authority.

use super::PluginSchema;
use super::common::{TEXT, needs, number, off, on, text, url};
use super::redis;
use crate::check::text::{Verdict, wildcard_host};
use crate::field::{Alias, Check, Field, Literal, Match};
use crate::kind::common::{HOST, PORT};
use serde_json::{Map, Value};

pub(super) static SCHEMA: PluginSchema = PluginSchema::of("acme", CONFIG).global().checks(&[
    Check::Conditional {
        if_field: "config.api_uri",
        if_match: Match::OneOf(&[
            "https://acme-v02.api.letsencrypt.org",
            "https://acme-staging-v02.api.letsencrypt.org",
        ]),
        then_field: "config.tos_accepted",
        then_match: Match::Is(Literal::Bool(true)),
        error: Some("terms of service must be accepted, see https://letsencrypt.org/repository/"),
    },
    needs(
        "config.storage",
        Literal::Text("redis"),
        "config.storage_config.redis.host",
    ),
    needs(
        "config.storage",
        Literal::Text("redis"),
        "config.storage_config.redis.port",
    ),
    Check::Custom {
        fields: &["config.storage"],
        test: shared_storage,
    },
]);

const CONFIG: &[Field] = &[
    Field::string("account_email")
        .required()
        .secret()
        // Finds its place anywhere in the text, so that all it asks for is an at sign.
        .pattern("%w*%p*@+%w*%.?%w*", |text| text.contains('@')),
    Field::record(
        "account_key",
        &[Field::string("key_id").required(), Field::string("key_set")],
    ),
    url("api_uri").default(Literal::Text(
        "https://acme-v02.api.letsencrypt.org/directory",
    )),
    off("tos_accepted"),
    Field::string("eab_kid").secret(),
    Field::string("eab_hmac_key").secret(),
    text("cert_type", "rsa").one_of(&["rsa", "ecc"]),
    number("rsa_key_size", 4096).one_of_ints(&[2048, 3072, 4096]),
    number("renew_threshold_days", 14),
    Field::array("domains", &TEXT.text(wildcard_host)),
    off("allow_any_domain"),
    number("fail_backoff_minutes", 5),
    text("storage", "shm").one_of(&["kong", "shm", "redis", "consul", "vault"]),
    Field::record("storage_config", STORAGE_CONFIG).required(),
    Field::string("preferred_chain"),
    on("enable_ipv4_common_name"),
];

const STORAGE_CONFIG: &[Field] = &[
    Field::record("shm", &[text("shm_name", "kong")]).required(),
    Field::record("kong", &[]).required(),
    Field::record("redis", &REDIS)
        .required()
        .aliases(REDIS_ALIASES),
    Field::record(
        "consul",
        &[
            off("https"),
            HOST,
            PORT,
            Field::string("kv_path"),
            Field::number("timeout"),
            TOKEN,
        ],
    )
    .required(),
    Field::record(
        "vault",
        &[
            off("https"),
            HOST,
            PORT,
            Field::string("kv_path"),
            Field::number("timeout"),
            TOKEN,
            on("tls_verify"),
            Field::string("tls_server_name"),
            text("auth_method", "token").one_of(&["token", "kubernetes"]),
            Field::string("auth_path"),
            Field::string("auth_role"),
            Field::string("jwt_path"),
        ],
    )
    .required(),
];

const TOKEN: Field = Field::string("token").referenceable();

/// The shared record and one more field.
const REDIS: [Field; redis::FIELD_COUNT + 1] = {
    let mut fields = [EXTRA_OPTIONS; redis::FIELD_COUNT + 1];
    let mut at = 0;
    while at < redis::FIELD_COUNT {
        fields[at] = redis::FIELDS[at];
        at += 1;
    }
    fields
};

const EXTRA_OPTIONS: Field = Field::record(
    "extra_options",
    &[
        text("namespace", "")
            .required()
            .len_min(0)
            .text(free_namespace),
        number("scan_count", 10),
    ],
)
.required();

const REDIS_ALIASES: &[Alias] = &[
    Alias::new(Field::string("auth").len_min(0), &["password"]),
    Alias::new(Field::string("ssl_server_name"), &["server_name"]),
    Alias::new(
        Field::string("namespace").len_min(0),
        &["extra_options", "namespace"],
    ),
    Alias::new(
        Field::integer("scan_count"),
        &["extra_options", "scan_count"],
    ),
];

const RESERVED_NAMESPACES: &[&str] = &[
    "kong_acme:renew_config:",
    "kong_acme:renew_last_run",
    "kong_acme:cert_key:",
];

fn free_namespace(namespace: &str) -> Verdict {
    let reserved = RESERVED_NAMESPACES
        .iter()
        .find(|reserved| namespace.starts_with(**reserved));
    reserved.map_or(Ok(()), |reserved| {
        Err(format!(
            "namespace can't be prefixed with reserved word: {reserved}"
        ))
    })
}

/// What one data plane keeps in its memory, another one cannot answer a challenge with.
fn shared_storage(body: &Map<String, Value>) -> Result<(), String> {
    let storage = body.get("config").and_then(|config| config.get("storage"));
    if storage.and_then(Value::as_str) == Some("shm") {
        return Err("\"shm\" storage can't be used in Hybrid mode".to_owned());
    }
    Ok(())
}
