use super::*;

#[test]
fn ai_prompt_decorator_has_kongs_defaults() {
    defaults(
        "ai-prompt-decorator",
        json!({"prompts": {"append": [{"content": "c"}]}}),
        json!({
            "prompts": {"append": [{"role": "system", "content": "c"}]},
            "max_request_body_size": 8192, "llm_format": "openai",
        }),
    );
}

#[test]
fn ai_prompt_guard_has_kongs_defaults() {
    defaults(
        "ai-prompt-guard",
        json!({"deny_patterns": ["x"]}),
        json!({
            "deny_patterns": ["x"], "allow_all_conversation_history": false,
            "max_request_body_size": 8192, "match_all_roles": false, "llm_format": "openai",
        }),
    );
}

#[test]
fn ai_prompt_template_has_kongs_defaults() {
    defaults(
        "ai-prompt-template",
        json!({"templates": [{"name": "n", "template": "t"}]}),
        json!({
            "templates": [{"name": "n", "template": "t"}], "allow_untemplated_requests": true,
            "log_original_request": false, "max_request_body_size": 8192,
        }),
    );
}

#[test]
fn ai_proxy_has_kongs_defaults() {
    defaults(
        "ai-proxy",
        json!({"route_type": "llm/v1/chat", "model": {"provider": "openai"}}),
        json!({
            "route_type": "llm/v1/chat", "model": {"provider": "openai"},
            "logging": {"log_statistics": false, "log_payloads": false},
            "response_streaming": "allow", "max_request_body_size": 8192,
            "model_name_header": true, "llm_format": "openai",
        }),
    );
}

#[test]
fn ai_request_transformer_has_kongs_defaults() {
    defaults(
        "ai-request-transformer",
        json!({
            "prompt": "p",
            "llm": {
                "route_type": "llm/v1/chat", "auth": {},
                "model": {"provider": "openai", "options": {}},
            },
        }),
        json!({
            "prompt": "p", "http_timeout": 60000, "https_verify": true,
            "max_request_body_size": 8192,
            "llm": {
                "route_type": "llm/v1/chat",
                "auth": {"gcp_use_service_account": false, "allow_override": false},
                "model": {"provider": "openai", "options": {"azure_api_version": "2023-05-15"}},
                "logging": {"log_statistics": false, "log_payloads": false},
            },
        }),
    );
}

#[test]
fn ai_response_transformer_has_kongs_defaults() {
    defaults(
        "ai-response-transformer",
        json!({
            "prompt": "p",
            "llm": {"route_type": "llm/v1/chat", "model": {"provider": "openai"}},
        }),
        json!({
            "prompt": "p", "parse_llm_response_json_instructions": false,
            "http_timeout": 60000, "https_verify": true, "max_request_body_size": 8192,
            "llm": {
                "route_type": "llm/v1/chat", "model": {"provider": "openai"},
                "logging": {"log_statistics": false, "log_payloads": false},
            },
        }),
    );
}

#[test]
fn prompts_are_added_matched_or_filled() {
    refused(
        "ai-prompt-decorator",
        &[
            (
                json!({}),
                json!({"@entity": ["at least one of these fields must be non-empty: \
                                    'config.prompts.prepend', 'config.prompts.append'"]}),
            ),
            (
                json!({"prompts": {"prepend": [{"role": "x", "content": ""}]}}),
                json!({"prompts": {"prepend": [{
                    "role": one_of("system, assistant, user"),
                    "content": "length must be at least 1",
                }]}}),
            ),
            (
                json!({"prompts": {"prepend": vec![json!({"content": "c"}); 16]}}),
                json!({"prompts": {"prepend": "length must be at most 15"}}),
            ),
            (
                json!({"prompts": {"append": [{"content": "c".repeat(501)}]}, "max_request_body_size": 0}),
                json!({
                    "prompts": {"append": [{"content": "length must be at most 500"}]},
                    "max_request_body_size": "value must be greater than 0",
                }),
            ),
        ],
    );
    refused(
        "ai-prompt-guard",
        &[
            (
                json!({}),
                json!({"@entity": ["at least one of these fields must be non-empty: \
                                    'config.allow_patterns', 'config.deny_patterns'"]}),
            ),
            (
                json!({"deny_patterns": ["x"], "match_all_roles": true, "allow_all_conversation_history": true}),
                json!({
                    "@entity": [conditional("config.match_all_roles")],
                    "config": {"allow_all_conversation_history": "value must be false"},
                }),
            ),
            (
                json!({"allow_patterns": vec!["x"; 11], "deny_patterns": ["x".repeat(501)]}),
                json!({
                    "allow_patterns": "length must be at most 10",
                    "deny_patterns": ["length must be at most 500"],
                }),
            ),
        ],
    );
    refused(
        "ai-prompt-template",
        &[
            (json!({}), json!({"templates": "required field missing"})),
            (
                json!({"templates": [{"name": "n"}]}),
                json!({"templates": [{"template": "required field missing"}]}),
            ),
        ],
    );
}

/// A valid `ai-proxy` configuration for a provider, with options.
fn proxy(provider: &str, options: Value) -> Value {
    json!({
        "route_type": "llm/v1/chat",
        "model": {"provider": provider, "options": options},
    })
}

#[test]
fn each_provider_needs_what_it_is_reached_by() {
    let must = |name: &str, whom: &str| format!("must set 'model.options.{name}' for {whom}");
    refused(
        "ai-proxy",
        &[
            (
                proxy("llama2", json!({})),
                json!({"@entity": [
                    must("llama2_format", "llama2 provider"),
                    must("upstream_url", "self-hosted providers/models"),
                ]}),
            ),
            (
                proxy("mistral", json!({})),
                json!({"@entity": [must("mistral_format", "mistral provider")]}),
            ),
            (
                proxy("anthropic", json!({})),
                json!({"@entity": [must("anthropic_version", "anthropic provider")]}),
            ),
            (
                proxy("azure", json!({})),
                json!({"@entity": [
                    must("azure_instance", "azure provider"),
                    must("azure_deployment_id", "azure provider"),
                ]}),
            ),
            (
                proxy("gemini", json!({"gemini": {"project_id": "p"}})),
                json!({
                    "@entity": ["bedrock and gemini only support auth.allow_override = false"],
                    "auth": {"allow_override": "value must be false"},
                    "model": {"options": {"gemini": {"@entity": [
                        "all or none of these fields must be set: \
                         'api_endpoint', 'project_id', 'location_id'",
                    ]}}},
                }),
            ),
            (
                json!({
                    "route_type": "llm/v1/completions", "logging": {"log_statistics": true},
                    "model": {"provider": "anthropic", "options": {"anthropic_version": "v"}},
                }),
                json!({"@entity": ["anthropic does not support statistics when route_type is \
                                    llm/v1/completions"]}),
            ),
        ],
    );
}

#[test]
fn ai_proxy_takes_values_that_fit() {
    let header = "all or none of these fields must be set: 'auth.header_name', 'auth.header_value'";
    let param = "all or none of these fields must be set: 'auth.param_name', 'auth.param_value', \
                 'auth.param_location'";
    let native = |name: &str| {
        let mut config = proxy("openai", json!({}));
        config["llm_format"] = name.into();
        config
    };
    refused(
        "ai-proxy",
        &[
            (
                json!({}),
                json!({
                    "route_type": "required field missing",
                    "model": {"provider": "required field missing"},
                }),
            ),
            (
                json!({"route_type": "llm/v1/chat", "model": {"provider": "openai"},
                       "auth": {"header_name": "a", "param_value": "b"}}),
                json!({"@entity": [header, param]}),
            ),
            (
                proxy(
                    "openai",
                    json!({
                        "temperature": 6, "top_p": 1.5, "top_k": 501, "input_cost": 0,
                        "upstream_url": "a", "llama2_format": "x",
                    }),
                ),
                json!({"model": {"options": {
                    "temperature": "value should be between 0 and 5",
                    "top_p": "value should be between 0 and 1",
                    "top_k": "value should be between 0 and 500",
                    "input_cost": "value must be greater than 0",
                    "upstream_url": "missing host in url",
                    "llama2_format": one_of("raw, openai, ollama"),
                }}}),
            ),
            (
                native("bedrock"),
                json!({
                    "@entity": ["native llm_format 'bedrock' can only be used with the 'bedrock' \
                                 model.provider"],
                    "config": {"model": {"provider": "value must be bedrock"}},
                }),
            ),
            (
                native("gemini"),
                json!({
                    "@entity": ["native llm_format 'gemini' can only be used with the 'gemini' \
                                 model.provider"],
                    "config": {"model": {"provider": "value must be gemini"}},
                }),
            ),
        ],
    );
    // A reference may stand for either part of a header.
    check(
        json!({"name": "ai-proxy", "config": {
            "route_type": "preserve", "model": {"provider": "openai"},
            "auth": {"header_value": "{vault://env/key}"},
        }}),
        json!({"auth": {
            "header_value": "{vault://env/key}", "gcp_use_service_account": false,
            "allow_override": false,
        }}),
    );
}

#[test]
fn ai_transformers_chat_through_a_whole_proxy() {
    let llm = |route_type: &str| json!({"route_type": route_type, "model": {"provider": "openai"}});
    for name in ["ai-request-transformer", "ai-response-transformer"] {
        refused(
            name,
            &[
                (
                    json!({}),
                    json!({
                        "prompt": "required field missing",
                        "llm": {
                            "route_type": "required field missing",
                            "model": {"provider": "required field missing"},
                        },
                    }),
                ),
                (
                    json!({"prompt": "p", "llm": llm("preserve")}),
                    json!({
                        "@entity": ["'config.llm.route_type' must be 'llm/v1/chat' for AI \
                                     transformer plugins"],
                        "config": {"llm": {"route_type": "value must be llm/v1/chat"}},
                    }),
                ),
                (
                    json!({"prompt": "p", "llm": llm("llm/v1/chat"), "http_proxy_host": "a",
                           "https_proxy_port": 1}),
                    json!({"@entity": [
                        "all or none of these fields must be set: \
                         'config.http_proxy_host', 'config.http_proxy_port'",
                        "all or none of these fields must be set: \
                         'config.https_proxy_host', 'config.https_proxy_port'",
                    ]}),
                ),
            ],
        );
    }
}
