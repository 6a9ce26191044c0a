use super::*;

#[test]
fn request_transformer_has_kongs_defaults() {
    defaults(
        "request-transformer",
        json!({}),
        json!({
            "remove": {"body": [], "headers": [], "querystring": []},
            "rename": {"body": [], "headers": [], "querystring": []},
            "replace": {"body": [], "headers": [], "querystring": []},
            "add": {"body": [], "headers": [], "querystring": []},
            "append": {"body": [], "headers": [], "querystring": []},
        }),
    );
}

#[test]
fn response_transformer_has_kongs_defaults() {
    defaults(
        "response-transformer",
        json!({}),
        json!({
            "remove": {"json": [], "headers": []}, "rename": {"json": [], "headers": []},
            "replace": {"json": [], "json_types": [], "headers": []},
            "add": {"json": [], "json_types": [], "headers": []},
            "append": {"json": [], "json_types": [], "headers": []},
        }),
    );
}

#[test]
fn grpc_gateway_has_kongs_defaults() {
    defaults("grpc-gateway", json!({}), json!({}));
}

#[test]
fn grpc_web_has_kongs_defaults() {
    defaults("grpc-web", json!({}), json!({"allow_origin_header": "*"}));
}

#[test]
fn aws_lambda_has_kongs_defaults() {
    defaults(
        "aws-lambda",
        json!({}),
        json!({
            "timeout": 60000, "keepalive": 60000, "aws_role_session_name": "kong",
            "invocation_type": "RequestResponse", "log_type": "Tail", "port": 443,
            "disable_https": false, "forward_request_method": false,
            "forward_request_uri": false, "forward_request_headers": false,
            "forward_request_body": false, "is_proxy_integration": false,
            "awsgateway_compatible": false, "skip_large_bodies": true,
            "base64_encode_body": true, "aws_imds_protocol_version": "v1",
            "empty_arrays_mode": "legacy",
        }),
    );
}

#[test]
fn azure_functions_has_kongs_defaults() {
    defaults(
        "azure-functions",
        json!({"appname": "a", "functionname": "f"}),
        json!({
            "timeout": 600000, "keepalive": 60000, "https": true, "https_verify": false,
            "appname": "a", "hostdomain": "azurewebsites.net", "routeprefix": "api",
            "functionname": "f",
        }),
    );
}

#[test]
fn request_transformer_takes_names_and_values() {
    refused(
        "request-transformer",
        &[
            (
                json!({"http_method": "get"}),
                json!({"http_method": "invalid value: get"}),
            ),
            (
                json!({"remove": {"headers": ["x-a", "x a"]}, "replace": {"uri": ""}}),
                json!({
                    "remove": {"headers": [null, "'x a' is not a valid header"]},
                    "replace": {"uri": "length must be at least 1"},
                }),
            ),
            (
                json!({"rename": {"headers": ["a:b", "a", "a:b c", "a b:c", ":b", "a:"]}}),
                json!({"rename": {"headers": [
                    null,
                    "invalid value: a",
                    "'b c' is not a valid header",
                    "'a b' is not a valid header",
                    "invalid value: :b",
                    "'' is not a valid header",
                ]}}),
            ),
            (
                json!({"add": {
                    "headers": ["a:b c", "a:$(headers.x)", "a", "a:x\r\ny"],
                    "body": ["a:b", "a", "a:"],
                    "querystring": ["a::b", "a:::"],
                }}),
                json!({"add": {
                    "headers": [null, null, "invalid value: a", "'x\r\ny' is not a valid header"],
                    "body": [null, "key 'a' has no value", "key 'a' has no value"],
                    "querystring": [null, "key 'a' has no value"],
                }}),
            ),
        ],
    );
}

#[test]
fn request_transformer_takes_templates_and_no_other_lua() {
    let lua = |value: &str| {
        format!(
            "value '{value}' is not in supported format, error: only headers, query_params, uri_captures and \
             shared are supported here, with a name, and texts, with 'or' between them; no other Lua"
        )
    };
    refused(
        "request-transformer",
        &[(
            json!({
                "replace": {"uri": "/$(os.getenv('HOME'))"},
                "add": {
                    "headers": ["a:$(headers.x or 'y')", "a:$(headers.x .. 'y')"],
                    "body": ["a:$(shared.x)", "a:$(f())"],
                    "querystring": ["a:$(uri_captures[1])", "a:$(query_params)"],
                },
            }),
            json!({
                "replace": {"uri": lua("/$(os.getenv('HOME'))")},
                "add": {
                    "headers": [null, lua("$(headers.x .. 'y')")],
                    "body": [null, lua("$(f())")],
                    "querystring": [null, lua("$(query_params)")],
                },
            }),
        )],
    );
}

#[test]
fn response_transformer_takes_names_and_values() {
    refused(
        "response-transformer",
        &[
            (
                json!({"add": {"json": ["a:1", "a"], "json_types": ["number", "object"]}}),
                json!({"add": {
                    "json": [null, "invalid value: a"],
                    "json_types": [null, one_of("boolean, number, string")],
                }}),
            ),
            (
                json!({"rename": {"json": ["a"], "headers": ["a:b c"]}, "append": {"headers": ["x y:z"]}}),
                json!({
                    "rename": {
                        "json": ["invalid value: a"],
                        "headers": ["'b c' is not a valid header"],
                    },
                    "append": {"headers": ["'x y' is not a valid header"]},
                }),
            ),
        ],
    );
}

#[test]
fn aws_lambda_has_both_parts_of_a_key_and_neither_role_nor_proxy() {
    let both = "all or none of these fields must be set: 'config.aws_key', 'config.aws_secret'";
    refused(
        "aws-lambda",
        &[
            (json!({"aws_key": "k"}), json!({"@entity": [both]})),
            (
                json!({"proxy_url": "http://a", "aws_assume_role_arn": "{vault://env/arn}"}),
                json!({
                    "proxy_url": "Sluice does not call functions through a proxy: expected none",
                    "aws_assume_role_arn": "Sluice does not assume roles: give aws_key and aws_secret of \
                        one that may call the function",
                }),
            ),
            (
                json!({
                    "aws_region": "a:1", "unhandled_status": 99, "port": -1,
                    "invocation_type": "x", "log_type": "x", "empty_arrays_mode": "x",
                    "aws_imds_protocol_version": "v3",
                }),
                json!({
                    "aws_region": "must not have a port",
                    "unhandled_status": "value should be between 100 and 999",
                    "port": "value should be between 0 and 65535",
                    "invocation_type": one_of("RequestResponse, Event, DryRun"),
                    "log_type": one_of("Tail, None"),
                    "empty_arrays_mode": one_of("legacy, correct"),
                    "aws_imds_protocol_version": one_of("v1, v2"),
                }),
            ),
        ],
    );
    // What a reference stands for is not known, so no rule is applied to it.
    check(
        json!({"name": "aws-lambda", "config": {"aws_key": "{vault://env/key}"}}),
        json!({"aws_key": "{vault://env/key}", "aws_secret": null}),
    );
}

#[test]
fn azure_functions_names_the_function() {
    refused(
        "azure-functions",
        &[(
            json!({"hostdomain": null}),
            json!({
                "appname": "required field missing",
                "functionname": "required field missing",
                "hostdomain": "required field missing",
            }),
        )],
    );
}
