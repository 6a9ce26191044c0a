use super::*;

#[test]
fn key_auth_has_no_consumer_and_looks_in_headers_that_can_be() {
    check(
        json!({"name": "key-auth", "consumer": {"id": uuid::Uuid::nil()}, "protocols": ["tcp"]}),
        json!({
            "consumer": "value must be null",
            "protocols": ["expected one of: grpc, grpcs, http, https"],
        }),
    );
    check(
        json!({"name": "key-auth", "config": {"key_names": ["a b"], "x": 1, "key_in_body": null}}),
        json!({"config": {
            "key_names": ["bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"],
            "x": "unknown field",
            "key_in_body": "required field missing",
        }}),
    );
}

#[test]
fn acl_has_kongs_defaults() {
    defaults(
        "acl",
        json!({"allow": ["a"]}),
        json!({
            "allow": ["a"], "hide_groups_header": false,
            "always_use_authenticated_groups": false,
        }),
    );
}

#[test]
fn basic_auth_has_kongs_defaults() {
    defaults(
        "basic-auth",
        json!({}),
        json!({"hide_credentials": false, "realm": "service"}),
    );
}

#[test]
fn hmac_auth_has_kongs_defaults() {
    defaults(
        "hmac-auth",
        json!({}),
        json!({
            "hide_credentials": false, "clock_skew": 300, "validate_request_body": false,
            "enforce_headers": [],
            "algorithms": ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"],
        }),
    );
}

#[test]
fn jwt_has_kongs_defaults() {
    defaults(
        "jwt",
        json!({}),
        json!({
            "uri_param_names": ["jwt"], "cookie_names": [], "key_claim_name": "iss",
            "secret_is_base64": false, "run_on_preflight": true, "maximum_expiration": 0,
            "header_names": ["authorization"],
        }),
    );
}

#[test]
fn key_auth_has_kongs_defaults() {
    defaults(
        "key-auth",
        json!({}),
        json!({
            "key_names": ["apikey"], "hide_credentials": false, "key_in_header": true,
            "key_in_query": true, "key_in_body": false, "run_on_preflight": true,
        }),
    );
}

#[test]
fn ldap_auth_has_kongs_defaults() {
    defaults(
        "ldap-auth",
        json!({"ldap_host": "ldap.example", "base_dn": "dc=example", "attribute": "cn"}),
        json!({
            "ldap_host": "ldap.example", "ldap_port": 389, "ldaps": false, "start_tls": false,
            "verify_ldap_host": false, "base_dn": "dc=example", "attribute": "cn",
            "cache_ttl": 60, "hide_credentials": false, "timeout": 10000, "keepalive": 60000,
            "header_type": "ldap",
        }),
    );
}

#[test]
fn oauth2_has_kongs_defaults() {
    defaults(
        "oauth2",
        json!({"enable_password_grant": true, "provision_key": "k"}),
        json!({
            "mandatory_scope": false, "provision_key": "k", "token_expiration": 7200,
            "enable_authorization_code": false, "enable_implicit_grant": false,
            "enable_client_credentials": false, "enable_password_grant": true,
            "hide_credentials": false, "accept_http_if_already_terminated": false,
            "global_credentials": false, "auth_header_name": "authorization",
            "refresh_token_ttl": 1209600, "reuse_refresh_token": false, "pkce": "lax",
        }),
    );
}

#[test]
fn session_has_kongs_defaults() {
    defaults(
        "session",
        json!({"secret": "s"}),
        json!({
            "secret": "s", "storage": "cookie", "audience": "default", "idling_timeout": 900,
            "rolling_timeout": 3600, "absolute_timeout": 86400, "stale_ttl": 10,
            "cookie_name": "session", "cookie_path": "/", "cookie_same_site": "Strict",
            "cookie_http_only": true, "cookie_secure": true, "remember": false,
            "remember_cookie_name": "remember", "remember_rolling_timeout": 604800,
            "remember_absolute_timeout": 2592000, "read_body_for_logout": false,
            "logout_methods": ["POST", "DELETE"], "logout_query_arg": "session_logout",
            "logout_post_arg": "session_logout", "hash_subject": false,
            "store_metadata": false,
        }),
    );
}

#[test]
fn standard_webhooks_has_kongs_defaults() {
    defaults(
        "standard-webhooks",
        json!({"secret_v1": "s"}),
        json!({"secret_v1": "s", "tolerance_second": 300}),
    );
}

#[test]
fn acl_has_one_list_of_groups() {
    let lists = "'config.allow', 'config.deny'";
    let exactly = format!("exactly one of these fields must be non-empty: {lists}");
    let some = format!("at least one of these fields must be non-empty: {lists}");
    refused(
        "acl",
        &[
            (json!({}), json!({"@entity": [exactly, some]})),
            (json!({"allow": []}), json!({"@entity": [exactly, some]})),
            (
                json!({"allow": ["a"], "deny": ["b"]}),
                json!({"@entity": [exactly]}),
            ),
        ],
    );
}

#[test]
fn hmac_auth_knows_four_algorithms() {
    refused(
        "hmac-auth",
        &[
            (
                json!({"clock_skew": 0}),
                json!({"clock_skew": "value must be greater than 0"}),
            ),
            (
                json!({"algorithms": ["hmac-sha256", "hmac-md5"]}),
                json!({"algorithms": [
                    null, one_of("hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512"),
                ]}),
            ),
        ],
    );
}

#[test]
fn jwt_with_a_longest_life_verifies_when_tokens_end() {
    refused(
        "jwt",
        &[
            (
                json!({"maximum_expiration": 60, "claims_to_verify": ["nbf"]}),
                json!({
                    "@entity": [conditional("config.maximum_expiration")],
                    "config": {"claims_to_verify": "expected to contain: exp"},
                }),
            ),
            (
                json!({"maximum_expiration": 31_536_001, "claims_to_verify": ["iat"]}),
                json!({
                    "maximum_expiration": "value should be between 0 and 31536000",
                    "claims_to_verify": [one_of("exp, nbf")],
                }),
            ),
        ],
    );
    check(
        json!({"name": "jwt", "config": {"maximum_expiration": 60, "claims_to_verify": ["exp", "exp"]}}),
        json!({"claims_to_verify": ["exp"]}),
    );
}

#[test]
fn ldap_auth_says_where_the_directory_is() {
    refused(
        "ldap-auth",
        &[(
            json!({"ldap_port": 70_000}),
            json!({
                "ldap_host": "required field missing",
                "base_dn": "required field missing",
                "attribute": "required field missing",
                "ldap_port": "value should be between 0 and 65535",
            }),
        )],
    );
}

#[test]
fn oauth2_has_a_flow_and_scopes_where_they_are_mandatory() {
    refused(
        "oauth2",
        &[
            (
                json!({}),
                json!(
                    "at least one of these fields must be true: enable_authorization_code, \
                       enable_implicit_grant, enable_client_credentials, enable_password_grant"
                ),
            ),
            (
                json!({"enable_password_grant": true, "mandatory_scope": true}),
                json!({
                    "@entity": [conditional("mandatory_scope")],
                    "scopes": "required field missing",
                }),
            ),
            (
                json!({"enable_password_grant": true, "refresh_token_ttl": 100_000_001, "pkce": "x"}),
                json!({
                    "refresh_token_ttl": "value should be between 0 and 100000000",
                    "pkce": one_of("none, lax, strict"),
                }),
            ),
        ],
    );
}

#[test]
fn secrets_nobody_gave_are_drawn_once() {
    for (name, field, config) in [
        (
            "oauth2",
            "provision_key",
            json!({"enable_password_grant": true}),
        ),
        ("session", "secret", json!({})),
    ] {
        let input = json!({"name": name, "config": config});
        let body = completed(input.clone(), Base::New).unwrap();
        let drawn = body["config"][field].as_str().unwrap();
        assert_eq!(drawn.len(), 32, "{name}");
        let again = completed(input, Base::Replace(&body)).unwrap();
        assert_eq!(again["config"][field], drawn, "{name}");
        let patch = json!({"config": {"anything": null}});
        let errors = completed(patch, Base::Merge(&body)).unwrap_err();
        assert_eq!(errors["config"]["anything"], "unknown field");
        let patched = completed(json!({"enabled": false}), Base::Merge(&body)).unwrap();
        assert_eq!(patched["config"][field], drawn, "{name}");
    }
}

#[test]
fn session_takes_the_names_and_values_of_old() {
    check(
        json!({"name": "session", "config": {
            "cookie_lifetime": 1, "cookie_idletime": 2, "cookie_renew": 3, "cookie_discard": 4,
            "cookie_samesite": "off", "cookie_httponly": false, "cookie_persistent": true,
        }}),
        json!({
            "rolling_timeout": 1, "idling_timeout": 2, "cookie_renew": null, "stale_ttl": 4,
            "cookie_same_site": "Lax", "cookie_http_only": false, "remember": true,
            "cookie_lifetime": null,
        }),
    );
    check(
        json!({"name": "session", "config": {"cookie_idletime": null}}),
        json!({"idling_timeout": 0}),
    );
    refused(
        "session",
        &[
            (
                json!({"storage": "x"}),
                json!({"storage": "Sluice keeps sessions in cookies only, as data planes write to no database: expected 'cookie'"}),
            ),
            (
                json!({"cookie_same_site": "off", "logout_methods": ["PUT"], "request_headers": ["x"]}),
                json!({
                    "cookie_same_site": one_of("Strict, Lax, None, Default"),
                    "logout_methods": [one_of("GET, POST, DELETE")],
                    "request_headers": [one_of("id, audience, subject, timeout, idling-timeout, \
                                                rolling-timeout, absolute-timeout")],
                }),
            ),
            (
                json!({"cookie_renew": "x"}),
                json!({"cookie_renew": "expected a number"}),
            ),
        ],
    );
}

#[test]
fn standard_webhooks_needs_a_secret() {
    refused(
        "standard-webhooks",
        &[(
            json!({"tolerance_second": -1}),
            json!({
                "secret_v1": "required field missing",
                "tolerance_second": "value must be greater than -1",
            }),
        )],
    );
}

#[test]
fn a_reference_to_a_vault_stands_for_a_secret_and_for_nothing_else() {
    check(
        json!({"name": "standard-webhooks", "config": {"secret_v1": "{vault://env/secret}"}}),
        json!({"secret_v1": "{vault://env/secret}"}),
    );
    check(
        json!({"name": "acme", "config": {"account_email": "{vault://env/mail}", "storage": "kong"}}),
        json!({"account_email": "{vault://env/mail}"}),
    );
    refused(
        "acme",
        &[(
            json!({"account_email": "{vault://env/mail", "storage": "kong", "api_uri": "{vault://a/b}"}),
            json!({
                "account_email": "invalid value: {vault://env/mail",
                "api_uri": "missing host in url",
            }),
        )],
    );
}

#[test]
fn sessions_are_kept_in_cookies_only() {
    let error = "Sluice keeps sessions in cookies only, as data planes write to no database: \
                 expected 'cookie'";
    refused(
        "session",
        &[(json!({"storage": "kong"}), json!({"storage": error}))],
    );
}
