//! Plugins: behaviour a configuration adds to requests. One file per plugin, in the folder of its family.
//!
//! A plugin is a type that implements [`Plugin`]: its prepared configuration, with a method for each phase it has a part
//! in. An entity is compiled once, when it changes, into an [`Instance`]; the table holds instances and merges them into
//! the [`Chain`](crate::table::Chain) of a request. What must outlive a change of configuration (counters, caches, queues,
//! connections) is not in a prepared form but in [`State`], keyed by identity; notices of changes ([`Change`]) keep it true.
//! How to write one: docs/guide/write-a-plugin.md.

mod auth;
mod bounded;
mod cache;
mod call;
mod change;
mod context;
mod function;
mod logging;
mod observe;
mod peers;
mod phase;
mod protocols;
mod queue;
mod registry;
mod reply;
mod request;
mod state;
mod traffic;
mod transform;

pub(crate) use auth::identifies;
pub use cache::{Cache, Stamp};
pub use change::Change;
pub use context::{Context, Credential, Identity, Record, Seen, Shared, Try};
pub(crate) use observe::prometheus::CountConsumer;
pub use peers::{Heard, Peers};
pub use phase::{Answer, Content, Flow, Phases, Plugin, Step, Waiting};
pub use protocols::Protocols;
pub use registry::{CompileError, Entity, Instance, Registered, Registry};
pub use reply::{BodyFilter, Collect, Origin, Reply};
pub(crate) use request::RequestBody;
pub use request::{Access, BodyFault, Rewrite, Target};
pub use state::{Lasting, State, Surroundings};

/// The plugins of this build, a line each.
pub const STANDARD: Registry = Registry::new(&[
    Registered::of::<auth::basic_auth::BasicAuth>(),
    Registered::of::<auth::hmac_auth::HmacAuth>(),
    Registered::of::<auth::jwt::Jwt>(),
    Registered::of::<auth::key_auth::KeyAuth>(),
    Registered::of::<auth::ldap_auth::LdapAuth>(),
    Registered::of::<auth::oauth2::Oauth2>(),
    Registered::of::<auth::session::Session>(),
    Registered::of::<auth::standard_webhooks::StandardWebhooks>(),
    Registered::of::<traffic::acl::Acl>(),
    Registered::of::<traffic::bot_detection::BotDetection>(),
    Registered::of::<traffic::cors::Cors>(),
    Registered::of::<traffic::ip_restriction::IpRestriction>(),
    Registered::of::<traffic::proxy_cache::ProxyCache>(),
    Registered::of::<traffic::rate_limiting::RateLimiting>(),
    Registered::of::<traffic::response_ratelimiting::ResponseRatelimiting>(),
    Registered::of::<logging::file_log::FileLog>(),
    Registered::of::<logging::http_log::HttpLog>(),
    Registered::of::<logging::loggly::Loggly>(),
    Registered::of::<logging::syslog::Syslog>(),
    Registered::of::<logging::tcp_log::TcpLog>(),
    Registered::of::<logging::udp_log::UdpLog>(),
    Registered::of::<observe::datadog::Datadog>(),
    #[cfg(feature = "opentelemetry")]
    Registered::of::<observe::opentelemetry::OpenTelemetry>(),
    Registered::of::<observe::prometheus::Prometheus>(),
    Registered::of::<observe::statsd::Statsd>(),
    Registered::of::<observe::zipkin::Zipkin>(),
    Registered::of::<function::aws_lambda::AwsLambda>(),
    Registered::of::<function::azure_functions::AzureFunctions>(),
    Registered::of::<traffic::redirect::Redirect>(),
    Registered::of::<traffic::request_size_limiting::RequestSizeLimiting>(),
    Registered::of::<traffic::request_termination::RequestTermination>(),
    Registered::of::<transform::correlation_id::CorrelationId>(),
    #[cfg(feature = "grpc-gateway")]
    Registered::of::<transform::grpc_gateway::GrpcGateway>(),
    Registered::of::<transform::grpc_web::GrpcWeb>(),
    Registered::of::<transform::request_transformer::RequestTransformer>(),
    Registered::of::<transform::response_transformer::ResponseTransformer>(),
]);
