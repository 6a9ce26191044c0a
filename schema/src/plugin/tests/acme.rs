use super::*;

#[test]
fn acme_has_kongs_defaults() {
    defaults(
        "acme",
        json!({"account_email": "a@b.example", "storage": "kong"}),
        json!({
            "account_email": "a@b.example",
            "api_uri": "https://acme-v02.api.letsencrypt.org/directory",
            "tos_accepted": false, "cert_type": "rsa", "rsa_key_size": 4096,
            "renew_threshold_days": 14, "allow_any_domain": false, "fail_backoff_minutes": 5,
            "storage": "kong",
            "storage_config": {
                "shm": {"shm_name": "kong"}, "kong": {},
                "redis": {
                    "port": 6379, "timeout": 2000, "database": 0, "ssl": false,
                    "ssl_verify": false, "extra_options": {"namespace": "", "scan_count": 10},
                },
                "consul": {"https": false},
                "vault": {"https": false, "tls_verify": true, "auth_method": "token"},
            },
            "enable_ipv4_common_name": true,
        }),
    );
}

fn acme(config: Value) -> Value {
    let mut whole = json!({"account_email": "a@b.example", "storage": "kong"});
    for (name, value) in config.as_object().unwrap() {
        whole[name] = value.clone();
    }
    whole
}

#[test]
fn acme_needs_an_account_and_a_storage_all_data_planes_share() {
    refused(
        "acme",
        &[
            (
                json!({"account_email": "a@b.example"}),
                json!({"@entity": ["\"shm\" storage can't be used in Hybrid mode"]}),
            ),
            (
                json!({"storage": "kong"}),
                json!({"account_email": "required field missing"}),
            ),
            (
                acme(json!({"account_email": "nobody"})),
                json!({"account_email": "invalid value: nobody"}),
            ),
            (
                acme(json!({"storage": "redis"})),
                json!({
                    "@entity": [conditional("config.storage")],
                    "config": {"storage_config": {"redis": {"host": "required field missing"}}},
                }),
            ),
            (
                acme(
                    json!({"storage": "x", "cert_type": "x", "rsa_key_size": 1024, "account_key": {}}),
                ),
                json!({
                    "storage": one_of("kong, shm, redis, consul, vault"),
                    "cert_type": one_of("rsa, ecc"),
                    "rsa_key_size": one_of("2048, 3072, 4096"),
                    "account_key": {"key_id": "required field missing"},
                }),
            ),
        ],
    );
}

#[test]
fn acme_asks_to_accept_the_terms_of_service() {
    let uri = "https://acme-staging-v02.api.letsencrypt.org";
    refused(
        "acme",
        &[
            (
                acme(json!({"api_uri": uri})),
                json!({
                    "@entity": ["terms of service must be accepted, \
                                 see https://letsencrypt.org/repository/"],
                    "config": {"tos_accepted": "value must be true"},
                }),
            ),
            (
                acme(json!({"api_uri": "a"})),
                json!({"api_uri": "missing host in url"}),
            ),
            (
                acme(json!({"domains": ["*.a.example", "a.*.b"]})),
                json!({"domains": [
                    null,
                    "invalid wildcard: must be placed at leftmost or rightmost label",
                ]}),
            ),
        ],
    );
    check(
        json!({"name": "acme", "config": acme(json!({"api_uri": uri, "tos_accepted": true}))}),
        json!({"api_uri": uri}),
    );
}

#[test]
fn acme_stores_where_it_is_told() {
    let redis = |redis: Value| acme(json!({"storage_config": {"redis": redis}}));
    refused(
        "acme",
        &[
            (
                redis(json!({"extra_options": {"namespace": "kong_acme:cert_key:x"}})),
                json!({"storage_config": {"redis": {"extra_options": {"namespace":
                    "namespace can't be prefixed with reserved word: kong_acme:cert_key:"}}}}),
            ),
            (
                acme(json!({"storage_config": {"vault": {"auth_method": "x", "port": 70_000}}})),
                json!({"storage_config": {"vault": {
                    "auth_method": one_of("token, kubernetes"),
                    "port": "value should be between 0 and 65535",
                }}}),
            ),
            (
                redis(json!({"auth": "a", "password": "b"})),
                json!({"storage_config": {"redis": {"auth": "both deprecated and new field are \
                    used but their values mismatch: auth = a vs password = b"}}}),
            ),
        ],
    );
    let old = json!({"auth": "p", "ssl_server_name": "s", "namespace": "n", "scan_count": 5});
    check(
        json!({"name": "acme", "config": redis(old)}),
        json!({"storage_config": {
            "shm": {"shm_name": "kong"},
            "kong": {},
            "redis": {
                "port": 6379, "timeout": 2000, "password": "p", "database": 0, "ssl": false,
                "ssl_verify": false, "server_name": "s",
                "extra_options": {"namespace": "n", "scan_count": 5},
            },
            "consul": {"https": false},
            "vault": {"https": false, "tls_verify": true, "auth_method": "token"},
        }}),
    );
}
