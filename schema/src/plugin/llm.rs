//! How a plugin reaches a large language model: fields and rules the `ai-` plugins share.

use super::common::{off, text, url};
use crate::field::{Check, Field, Literal, Match};
use serde_json::{Map, Value};

/// How many fields [`FIELDS`] has.
pub(super) const FIELD_COUNT: usize = 4;

/// The fields of the record.
pub(super) const FIELDS: [Field; FIELD_COUNT] = [
    Field::string("route_type").required().one_of(&[
        "llm/v1/chat",
        "llm/v1/completions",
        "preserve",
    ]),
    Field::record("auth", AUTH),
    Field::record("model", MODEL).required(),
    Field::record(
        "logging",
        &[
            off("log_statistics").required(),
            off("log_payloads").required(),
        ],
    )
    .required(),
];

/// In which format requests come and answers go.
pub(super) const FORMAT: Field =
    text("llm_format", "openai").one_of(&["openai", "bedrock", "gemini"]);

const AUTH: &[Field] = &[
    Field::string("header_name").referenceable(),
    Field::string("header_value").secret(),
    Field::string("param_name").referenceable(),
    Field::string("param_value").secret(),
    Field::string("param_location").one_of(&["query", "body"]),
    off("gcp_use_service_account"),
    Field::string("gcp_service_account_json").referenceable(),
    Field::string("aws_access_key_id").secret(),
    Field::string("aws_secret_access_key").secret(),
    off("allow_override"),
];

const MODEL: &[Field] = &[
    Field::string("provider").required().one_of(&[
        "openai",
        "azure",
        "anthropic",
        "cohere",
        "mistral",
        "llama2",
        "gemini",
        "bedrock",
        "huggingface",
    ]),
    Field::string("name"),
    Field::record("options", OPTIONS),
];

const OPTIONS: &[Field] = &[
    Field::integer("max_tokens"),
    Field::number("input_cost").gt(0.0),
    Field::number("output_cost").gt(0.0),
    Field::number("temperature").between(0, 5),
    Field::number("top_p").between(0, 1),
    Field::integer("top_k").between(0, 500),
    Field::string("anthropic_version"),
    Field::string("azure_instance"),
    text("azure_api_version", "2023-05-15"),
    Field::string("azure_deployment_id"),
    Field::string("llama2_format").one_of(&["raw", "openai", "ollama"]),
    Field::string("mistral_format").one_of(&["openai", "ollama"]),
    url("upstream_url"),
    Field::string("upstream_path"),
    Field::record("gemini", GEMINI).checks(&[Check::MutuallyRequired(&[
        "api_endpoint",
        "project_id",
        "location_id",
    ])]),
    Field::record("bedrock", &[Field::string("aws_region")]),
    Field::record(
        "huggingface",
        &[
            Field::boolean("use_cache"),
            Field::boolean("wait_for_model"),
        ],
    ),
];

const GEMINI: &[Field] = &[
    Field::string("api_endpoint"),
    Field::string("project_id"),
    Field::string("location_id"),
];

/// The rules over several fields of the record.
pub(super) const CHECKS: &[Check] = &[
    Check::Conditional {
        if_field: "model.provider",
        if_match: Match::OneOf(&["bedrock", "gemini"]),
        then_field: "auth.allow_override",
        then_match: Match::Is(Literal::Bool(false)),
        error: Some("bedrock and gemini only support auth.allow_override = false"),
    },
    Check::MutuallyRequired(&["auth.header_name", "auth.header_value"]),
    Check::MutuallyRequired(&["auth.param_name", "auth.param_value", "auth.param_location"]),
    provider_needs(&[(
        Match::OneOf(&["llama2"]),
        &["model.options.llama2_format"],
        "must set %s for llama2 provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["mistral"]),
        &["model.options.mistral_format"],
        "must set %s for mistral provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["anthropic"]),
        &["model.options.anthropic_version"],
        "must set %s for anthropic provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["azure"]),
        &["model.options.azure_instance"],
        "must set %s for azure provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["azure"]),
        &["model.options.azure_api_version"],
        "must set %s for azure provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["azure"]),
        &["model.options.azure_deployment_id"],
        "must set %s for azure provider",
    )]),
    provider_needs(&[(
        Match::OneOf(&["llama2"]),
        &["model.options.upstream_url"],
        "must set %s for self-hosted providers/models",
    )]),
    Check::Custom {
        fields: &["route_type", "model", "logging"],
        test: known_statistics,
    },
];

const fn provider_needs(arms: &'static [(Match, &'static [&'static str], &'static str)]) -> Check {
    Check::ConditionalAtLeastOneOf {
        if_field: "model.provider",
        arms,
    }
}

/// One provider says nothing to count for one kind of route.
fn known_statistics(llm: &Map<String, Value>) -> Result<(), String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let asked = llm
        .get("logging")
        .and_then(|logging| logging.get("log_statistics"));
    let provider = text(llm.get("model").and_then(|model| model.get("provider")));
    let route_type = text(llm.get("route_type"));
    if asked == Some(&Value::Bool(true))
        && provider.as_deref() == Some("anthropic")
        && route_type.as_deref() == Some("llm/v1/completions")
    {
        return Err(
            "anthropic does not support statistics when route_type is llm/v1/completions"
                .to_owned(),
        );
    }
    Ok(())
}
