//! Plugins that let clients without gRPC call gRPC services.

use super::PluginSchema;
use super::common::text;
use crate::field::Field;

/// The file that says what the service can do.
const PROTO: Field = Field::string("proto");

/// JSON requests become gRPC calls.
pub(super) static GATEWAY: PluginSchema = PluginSchema::of("grpc-gateway", &[PROTO]).any_protocol();

/// gRPC-Web requests become gRPC calls.
pub(super) static WEB: PluginSchema = PluginSchema::of(
    "grpc-web",
    &[
        PROTO,
        Field::boolean("pass_stripped_path"),
        text("allow_origin_header", "*"),
    ],
)
.any_protocol();
