//! Where a plugin reaches Redis.

use super::common::needs;
use crate::check::text;
use crate::field::{Alias, Check, Field, Literal};
use crate::kind::common::{HOST, PORT, TIMEOUT};

const USERNAME: Field = Field::string("username").referenceable();
const PASSWORD: Field = Field::string("password").len_min(0).secret();
const DATABASE: Field = Field::integer("database");
const SSL: Field = Field::boolean("ssl");
const SSL_VERIFY: Field = Field::boolean("ssl_verify");
const SERVER_NAME: Field = Field::string("server_name").text(text::server_name);

/// How many fields [`FIELDS`] has.
pub(super) const FIELD_COUNT: usize = 9;

/// The fields of the record.
pub(super) const FIELDS: [Field; FIELD_COUNT] = [
    HOST,
    PORT.default(Literal::Int(6379)),
    TIMEOUT.default(Literal::Int(2000)),
    USERNAME,
    PASSWORD,
    DATABASE.default(Literal::Int(0)),
    SSL.default(Literal::Bool(false)),
    SSL_VERIFY.default(Literal::Bool(false)),
    SERVER_NAME,
];

/// The record.
pub(super) const RECORD: Field = Field::record("redis", &FIELDS).required();

/// The fields from before there was a record.
pub(super) const ALIASES: &[Alias] = &[
    Alias::new(HOST.named("redis_host"), &["redis", "host"]),
    Alias::new(PORT.named("redis_port"), &["redis", "port"]),
    Alias::new(PASSWORD.named("redis_password"), &["redis", "password"]),
    Alias::new(USERNAME.named("redis_username"), &["redis", "username"]),
    Alias::new(SSL.named("redis_ssl"), &["redis", "ssl"]),
    Alias::new(
        SSL_VERIFY.named("redis_ssl_verify"),
        &["redis", "ssl_verify"],
    ),
    Alias::new(
        SERVER_NAME.named("redis_server_name"),
        &["redis", "server_name"],
    ),
    Alias::new(TIMEOUT.named("redis_timeout"), &["redis", "timeout"]),
    Alias::new(DATABASE.named("redis_database"), &["redis", "database"]),
];

/// Who counts in Redis must say where it is.
pub(super) const NEEDS_HOST: Check = needs_redis("config.redis.host");
/// Who counts in Redis must say where it is.
pub(super) const NEEDS_PORT: Check = needs_redis("config.redis.port");
/// Who counts in Redis must say how long to wait for it.
pub(super) const NEEDS_TIMEOUT: Check = needs_redis("config.redis.timeout");

const fn needs_redis(field: &'static str) -> Check {
    needs("config.policy", Literal::Text("redis"), field)
}
