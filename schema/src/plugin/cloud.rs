//! Plugins that call functions of cloud providers.

use super::PluginSchema;
use super::common::{number, off, on, text, url};
use crate::field::{Check, Field, Literal};
use crate::kind::common::{HOST, PORT};

/// Functions on AWS Lambda.
pub(super) static AWS_LAMBDA: PluginSchema = PluginSchema::of(
    "aws-lambda",
    &[
        number("timeout", 60_000).required(),
        number("keepalive", 60_000).required(),
        Field::string("aws_key").secret(),
        Field::string("aws_secret").secret(),
        Field::string("aws_assume_role_arn")
            .secret()
            .forbidden("Sluice does not assume roles: give aws_key and aws_secret of one that may call the function"),
        text("aws_role_session_name", "kong"),
        url("aws_sts_endpoint_url"),
        HOST.named("aws_region"),
        Field::string("function_name"),
        Field::string("qualifier"),
        text("invocation_type", "RequestResponse")
            .required()
            .one_of(&["RequestResponse", "Event", "DryRun"]),
        text("log_type", "Tail")
            .required()
            .one_of(&["Tail", "None"]),
        HOST,
        PORT.default(Literal::Int(443)),
        off("disable_https"),
        Field::integer("unhandled_status").between(100, 999),
        off("forward_request_method"),
        off("forward_request_uri"),
        off("forward_request_headers"),
        off("forward_request_body"),
        off("is_proxy_integration"),
        off("awsgateway_compatible"),
        url("proxy_url")
            .forbidden("Sluice does not call functions through a proxy: expected none"),
        on("skip_large_bodies"),
        on("base64_encode_body"),
        text("aws_imds_protocol_version", "v1")
            .required()
            .one_of(&["v1", "v2"]),
        text("empty_arrays_mode", "legacy")
            .required()
            .one_of(&["legacy", "correct"]),
    ],
)
.checks(&[Check::MutuallyRequired(&[
    "config.aws_key",
    "config.aws_secret",
])]);

/// Functions on Azure.
pub(super) static AZURE_FUNCTIONS: PluginSchema = PluginSchema::of(
    "azure-functions",
    &[
        number("timeout", 600_000),
        number("keepalive", 60_000),
        on("https"),
        off("https_verify"),
        Field::string("apikey").secret(),
        Field::string("clientid").secret(),
        Field::string("appname").required(),
        text("hostdomain", "azurewebsites.net").required(),
        text("routeprefix", "api"),
        Field::string("functionname").required(),
    ],
)
.any_protocol();
