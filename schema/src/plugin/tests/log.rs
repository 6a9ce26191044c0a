use super::*;

#[test]
fn file_log_has_kongs_defaults() {
    defaults(
        "file-log",
        json!({"path": "/tmp/a.log"}),
        json!({"path": "/tmp/a.log", "reopen": false}),
    );
}

#[test]
fn http_log_has_kongs_defaults() {
    defaults(
        "http-log",
        json!({"http_endpoint": "http://a.example"}),
        json!({
            "http_endpoint": "http://a.example", "method": "POST",
            "content_type": "application/json", "timeout": 10000, "keepalive": 60000,
            "queue": queue(),
        }),
    );
}

#[test]
fn loggly_has_kongs_defaults() {
    defaults(
        "loggly",
        json!({"key": "k"}),
        json!({
            "host": "logs-01.loggly.com", "port": 514, "key": "k", "tags": ["kong"],
            "log_level": "info", "successful_severity": "info",
            "client_errors_severity": "info", "server_errors_severity": "info",
            "timeout": 10000,
        }),
    );
}

#[test]
fn syslog_has_kongs_defaults() {
    defaults(
        "syslog",
        json!({}),
        json!({
            "log_level": "info", "successful_severity": "info",
            "client_errors_severity": "info", "server_errors_severity": "info",
            "facility": "user",
        }),
    );
}

#[test]
fn tcp_log_has_kongs_defaults() {
    defaults(
        "tcp-log",
        json!({"host": "a", "port": 1}),
        json!({"host": "a", "port": 1, "timeout": 10000, "keepalive": 60000, "tls": false}),
    );
}

#[test]
fn udp_log_has_kongs_defaults() {
    defaults(
        "udp-log",
        json!({"host": "a", "port": 1}),
        json!({"host": "a", "port": 1, "timeout": 10000}),
    );
}

#[test]
fn file_log_has_a_file_name() {
    let invalid = json!({"path": "not a valid filename"});
    refused(
        "file-log",
        &[
            (json!({}), json!({"path": "required field missing"})),
            (json!({"path": "/tmp/a*"}), invalid.clone()),
            (json!({"path": " /tmp/a"}), invalid.clone()),
            (json!({"path": "/tmp/a "}), invalid.clone()),
            (json!({"path": "a"}), invalid.clone()),
            (json!({"path": "/tmp/%a"}), invalid),
            (
                json!({"path": "/tmp/a b", "custom_fields_by_lua": {"x": ""}}),
                json!({"custom_fields_by_lua": "length must be at least 1"}),
            ),
        ],
    );
}

#[test]
fn http_log_sets_some_headers_itself() {
    let at = "http://a.example";
    let forbidden = |name: &str| {
        (
            json!({"http_endpoint": at, "headers": {name.to_lowercase(): "x"}}),
            json!({"headers": format!("cannot contain '{name}' header")}),
        )
    };
    refused(
        "http-log",
        &[
            forbidden("Host"),
            forbidden("Content-Length"),
            forbidden("Content-Type"),
            (
                json!({"http_endpoint": at, "headers": {"a b": "x"}}),
                json!({"headers":
                    "bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"}),
            ),
            (
                json!({"http_endpoint": at, "headers": {"a": 1}}),
                json!({"headers": "expected a string"}),
            ),
            (
                json!({"http_endpoint": "http://u:p@a", "headers": {"AuthoRIZATion": "x"}}),
                json!(
                    "specifying both an 'Authorization' header and user info in 'http_endpoint' \
                       is not allowed"
                ),
            ),
        ],
    );
}

#[test]
fn http_log_sends_to_a_url_in_batches() {
    refused(
        "http-log",
        &[
            (
                json!({}),
                json!({"http_endpoint": "required field missing"}),
            ),
            (
                json!({"http_endpoint": "a", "method": "GET", "content_type": "text/plain"}),
                json!({
                    "http_endpoint": "missing host in url",
                    "method": one_of("POST, PUT, PATCH"),
                    "content_type": one_of("application/json, application/json; charset=utf-8"),
                }),
            ),
            (
                json!({"http_endpoint": "http://a", "queue": {
                    "max_batch_size": 0, "max_coalescing_delay": 3601, "max_entries": 1_000_001,
                    "initial_retry_delay": 0.0001, "max_retry_delay": 1_000_001,
                    "concurrency_limit": 2, "max_bytes": 0.5,
                }}),
                json!({"queue": {
                    "max_batch_size": "value should be between 1 and 1000000",
                    "max_coalescing_delay": "value should be between 0 and 3600",
                    "max_entries": "value should be between 1 and 1000000",
                    "initial_retry_delay": "value should be between 0 and 1000000",
                    "max_retry_delay": "value should be between 0 and 1000000",
                    "concurrency_limit": one_of("-1, 1"),
                    "max_bytes": "expected an integer",
                }}),
            ),
        ],
    );
    check(
        json!({"name": "http-log", "config": {
            "http_endpoint": "{vault://env/url}", "retry_count": 1, "queue_size": 2, "flush_timeout": 0.5,
        }}),
        json!({
            "http_endpoint": "{vault://env/url}", "retry_count": 1, "queue_size": 2,
            "flush_timeout": 0.5, "queue": queue(),
        }),
    );
}

#[test]
fn logs_go_to_a_host_with_a_severity() {
    let severities = one_of("debug, info, notice, warning, err, crit, alert, emerg");
    refused(
        "loggly",
        &[(
            json!({"host": "a:1", "log_level": "x"}),
            json!({
                "key": "required field missing",
                "host": "must not have a port",
                "log_level": severities,
            }),
        )],
    );
    refused(
        "syslog",
        &[(
            json!({"server_errors_severity": "x", "facility": "x"}),
            json!({
                "server_errors_severity": severities,
                "facility": one_of("auth, authpriv, cron, daemon, ftp, kern, lpr, mail, news, \
                    syslog, user, uucp, local0, local1, local2, local3, local4, local5, local6, local7"),
            }),
        )],
    );
    for name in ["tcp-log", "udp-log"] {
        refused(
            name,
            &[
                (
                    json!({}),
                    json!({"host": "required field missing", "port": "required field missing"}),
                ),
                (
                    json!({"host": "a b", "port": 65_536}),
                    json!({
                        "host": "invalid value: a b",
                        "port": "value should be between 0 and 65535",
                    }),
                ),
            ],
        );
    }
}

#[test]
fn lua_is_refused_wherever_kong_takes_it() {
    const NO_LUA: &str = "Sluice does not run Lua; docs/guide/plugins.md says what to use instead";
    for name in ["pre-function", "post-function"] {
        let expected = json!({"name": format!("plugin '{name}' cannot run: {NO_LUA}")});
        for config in [json!({}), json!({"access": ["return"]}), json!({"x": 1})] {
            check(json!({"name": name, "config": config}), expected.clone());
        }
    }
    for (name, config) in [
        ("file-log", json!({"path": "/tmp/a.log"})),
        ("http-log", json!({"http_endpoint": "http://a.example"})),
        ("loggly", json!({"key": "k"})),
        ("syslog", json!({})),
        ("tcp-log", json!({"host": "a", "port": 1})),
        ("udp-log", json!({"host": "a", "port": 1})),
    ] {
        let with = |fields: Value| {
            let mut config = config.clone();
            config["custom_fields_by_lua"] = fields;
            config
        };
        let fields = json!({"kong": "return nil"});
        refused(
            name,
            &[(with(fields), json!({"custom_fields_by_lua": NO_LUA}))],
        );
        for none in [json!(null), json!({})] {
            check(json!({"name": name, "config": with(none)}), json!({}));
        }
    }
}
