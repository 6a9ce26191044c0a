use super::*;

#[test]
fn a_vault_is_of_an_installed_kind_and_has_a_prefix_of_its_own() {
    for (input, expected) in [
        (
            json!({"prefix": "my-env", "name": "env", "config": {"prefix": "A_"}, "description": "d"}),
            json!({"config": {"prefix": "A_"}, "description": "d"}),
        ),
        (
            json!({"prefix": "e1", "name": "env"}),
            json!({"config": null}),
        ),
        (
            json!({"prefix": "e1", "name": "hcv"}),
            json!({"name": "vault 'hcv' is not installed"}),
        ),
        (
            json!({"prefix": "e1"}),
            json!({"name": "required field missing"}),
        ),
        (
            json!({"name": "env"}),
            json!({"prefix": "required field missing"}),
        ),
        (
            json!({"prefix": "env", "name": "env"}),
            json!({"prefix": "must not be one of: env"}),
        ),
        (
            json!({"prefix": "1a", "name": "env"}),
            json!({"prefix": "invalid value: 1a"}),
        ),
        (
            json!({"prefix": "a-", "name": "env"}),
            json!({"prefix": "invalid value: a-"}),
        ),
        (
            json!({"prefix": "a", "name": "env"}),
            json!({"prefix": "invalid value: a"}),
        ),
        (
            json!({"prefix": "ab", "name": "env", "config": {"prefix": "1", "x": 1}}),
            json!({"config": {"prefix": "invalid value: 1", "x": "unknown field"}}),
        ),
    ] {
        check(Kind::Vault, input, expected);
    }
}

#[test]
fn no_filter_chain_is_accepted_while_nobody_runs_them() {
    let disabled = "wasm support is not enabled";
    for (input, expected) in [
        (
            json!({"service": reference(), "filters": [{"name": "f"}]}),
            json!({"@entity": [disabled], "filters": [{"name": "no such filter"}]}),
        ),
        (
            json!({"filters": []}),
            json!({
                "@entity": [
                    "at least one of these fields must be non-empty: 'service', 'route'",
                    disabled,
                ],
                "filters": "length must be at least 1",
            }),
        ),
        (
            json!({"service": reference(), "route": reference()}),
            json!({
                "@entity": [
                    "only one or none of these fields must be set: 'service', 'route'",
                    disabled,
                ],
                "filters": "required field missing",
            }),
        ),
    ] {
        check(Kind::FilterChain, input, expected);
    }
}
