//! rate-limiting: how many requests a client may send per period.

use super::PluginSchema;
use crate::check::text;
use crate::field::{Alias, Check, Field, Literal, Match};
use crate::kind::common::{HOST, PATH, PORT, TIMEOUT};
use serde_json::Value;

const PERIODS: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

pub(super) static SCHEMA: PluginSchema = PluginSchema::new(
    "rate-limiting",
    PluginSchema::config(CONFIG)
        .aliases(ALIASES)
        .custom(ascending),
)
.checks(&[
    Check::AtLeastOneOf(&[
        "config.second",
        "config.minute",
        "config.hour",
        "config.day",
        "config.month",
        "config.year",
    ]),
    needs("config.policy", "redis", "config.redis.host"),
    needs("config.policy", "redis", "config.redis.port"),
    needs("config.policy", "redis", "config.redis.timeout"),
    needs("config.limit_by", "header", "config.header_name"),
    needs("config.limit_by", "path", "config.path"),
]);

const CONFIG: &[Field] = &[
    Field::number("second").gt(0.0),
    Field::number("minute").gt(0.0),
    Field::number("hour").gt(0.0),
    Field::number("day").gt(0.0),
    Field::number("month").gt(0.0),
    Field::number("year").gt(0.0),
    Field::string("limit_by")
        .one_of(&["consumer", "credential", "ip", "service", "header", "path"])
        .default(Literal::Text("consumer")),
    Field::string("header_name").text(text::header_name),
    PATH,
    Field::string("policy")
        .one_of(&["local", "cluster", "redis"])
        .len_min(0)
        .default(Literal::Text("local")),
    Field::boolean("fault_tolerant")
        .required()
        .default(Literal::Bool(true)),
    Field::record("redis", REDIS).required(),
    Field::boolean("hide_client_headers")
        .required()
        .default(Literal::Bool(false)),
    Field::number("error_code")
        .gt(0.0)
        .default(Literal::Int(429)),
    Field::string("error_message").default(Literal::Text("API rate limit exceeded")),
    Field::number("sync_rate")
        .required()
        .default(Literal::Int(-1)),
];

const REDIS_HOST: Field = HOST;
const REDIS_USERNAME: Field = Field::string("username");
const REDIS_PASSWORD: Field = Field::string("password").len_min(0);
const REDIS_DATABASE: Field = Field::integer("database");
const REDIS_SSL: Field = Field::boolean("ssl");
const REDIS_SSL_VERIFY: Field = Field::boolean("ssl_verify");
const REDIS_SERVER_NAME: Field = Field::string("server_name").text(text::server_name);

const REDIS: &[Field] = &[
    REDIS_HOST,
    PORT.default(Literal::Int(6379)),
    TIMEOUT.default(Literal::Int(2000)),
    REDIS_USERNAME,
    REDIS_PASSWORD,
    REDIS_DATABASE.default(Literal::Int(0)),
    REDIS_SSL.default(Literal::Bool(false)),
    REDIS_SSL_VERIFY.default(Literal::Bool(false)),
    REDIS_SERVER_NAME,
];

const ALIASES: &[Alias] = &[
    Alias {
        field: REDIS_HOST.named("redis_host"),
        path: &["redis", "host"],
    },
    Alias {
        field: PORT.named("redis_port"),
        path: &["redis", "port"],
    },
    Alias {
        field: REDIS_PASSWORD.named("redis_password"),
        path: &["redis", "password"],
    },
    Alias {
        field: REDIS_USERNAME.named("redis_username"),
        path: &["redis", "username"],
    },
    Alias {
        field: REDIS_SSL.named("redis_ssl"),
        path: &["redis", "ssl"],
    },
    Alias {
        field: REDIS_SSL_VERIFY.named("redis_ssl_verify"),
        path: &["redis", "ssl_verify"],
    },
    Alias {
        field: REDIS_SERVER_NAME.named("redis_server_name"),
        path: &["redis", "server_name"],
    },
    Alias {
        field: TIMEOUT.named("redis_timeout"),
        path: &["redis", "timeout"],
    },
    Alias {
        field: REDIS_DATABASE.named("redis_database"),
        path: &["redis", "database"],
    },
];

const fn needs(if_field: &'static str, value: &'static str, then_field: &'static str) -> Check {
    Check::Conditional {
        if_field,
        if_match: Match::Is(Literal::Text(value)),
        then_field,
        then_match: Match::Required,
        error: None,
    }
}

/// A longer period cannot allow less than a shorter one.
fn ascending(config: &Value) -> Result<(), String> {
    let limits: Vec<_> = PERIODS
        .iter()
        .filter_map(|period| Some((period, config.get(*period)?.as_f64()?)))
        .collect();
    for (at, (lower, less)) in limits.iter().enumerate() {
        for (upper, more) in &limits[at + 1..] {
            if more < less {
                return Err(format!(
                    "The limit for {upper}({more:.1}) cannot be lower than the limit for \
                     {lower}({less:.1})"
                ));
            }
        }
    }
    Ok(())
}
