//! Plugins that send requests to large language models, or change what is sent to them.

use super::PluginSchema;
use super::common::{REQUEST_BODY_MAX, TEXT, integer, off, on, text};
use super::llm;
use crate::field::{Check, Field, Literal, Match};
use crate::kind::common::{HOST, PORT};

/// Adds messages to those of the client.
pub(super) static PROMPT_DECORATOR: PluginSchema = PluginSchema::of(
    "ai-prompt-decorator",
    &[
        Field::record(
            "prompts",
            &[
                Field::array("prepend", &MESSAGE).len_max(15),
                Field::array("append", &MESSAGE).len_max(15),
            ],
        ),
        REQUEST_BODY_MAX,
        llm::FORMAT,
    ],
)
.checks(&[Check::AtLeastOneOf(&[
    "config.prompts.prepend",
    "config.prompts.append",
])]);

const MESSAGE: Field = Field::record(
    "",
    &[
        text("role", "system")
            .required()
            .one_of(&["system", "assistant", "user"]),
        Field::string("content").required().len_min(1).len_max(500),
    ],
);

/// Lets through or turns away what the client says.
pub(super) static PROMPT_GUARD: PluginSchema = PluginSchema::of(
    "ai-prompt-guard",
    &[
        Field::array("allow_patterns", &PROMPT_PATTERN).len_max(10),
        Field::array("deny_patterns", &PROMPT_PATTERN).len_max(10),
        off("allow_all_conversation_history").required(),
        REQUEST_BODY_MAX,
        off("match_all_roles").required(),
        llm::FORMAT,
    ],
)
.checks(&[
    Check::AtLeastOneOf(&["config.allow_patterns", "config.deny_patterns"]),
    Check::Conditional {
        if_field: "config.match_all_roles",
        if_match: Match::Is(Literal::Bool(true)),
        then_field: "config.allow_all_conversation_history",
        then_match: Match::Is(Literal::Bool(false)),
        error: None,
    },
]);

const PROMPT_PATTERN: Field = TEXT.len_min(1).len_max(500);

/// Fills the client's values into prepared prompts.
pub(super) static PROMPT_TEMPLATE: PluginSchema = PluginSchema::of(
    "ai-prompt-template",
    &[
        Field::array(
            "templates",
            &Field::record(
                "",
                &[
                    Field::string("name").required(),
                    Field::string("template").required(),
                ],
            ),
        )
        .required(),
        on("allow_untemplated_requests").required(),
        off("log_original_request").required(),
        REQUEST_BODY_MAX,
    ],
);

/// Sends requests to a model.
pub(super) static PROXY: PluginSchema = PluginSchema::new(
    "ai-proxy",
    PluginSchema::config(&[
        llm::FIELDS[0],
        llm::FIELDS[1],
        llm::FIELDS[2],
        llm::FIELDS[3],
        text("response_streaming", "allow").one_of(&["allow", "deny", "always"]),
        REQUEST_BODY_MAX,
        on("model_name_header"),
        llm::FORMAT,
    ])
    .checks(llm::CHECKS),
)
.checks(&[
    Check::Conditional {
        if_field: "config.llm_format",
        if_match: Match::OneOf(&["bedrock", "gemini"]),
        then_field: "config.route_type",
        then_match: Match::Is(Literal::Text("llm/v1/chat")),
        error: Some(
            "native provider options in llm_format can only be used with the 'llm/v1/chat' \
             route_type",
        ),
    },
    native_format(
        "bedrock",
        "native llm_format 'bedrock' can only be used with the 'bedrock' model.provider",
    ),
    native_format(
        "gemini",
        "native llm_format 'gemini' can only be used with the 'gemini' model.provider",
    ),
]);

const fn native_format(name: &'static str, error: &'static str) -> Check {
    Check::Conditional {
        if_field: "config.llm_format",
        if_match: Match::Is(Literal::Text(name)),
        then_field: "config.model.provider",
        then_match: Match::Is(Literal::Text(name)),
        error: Some(error),
    }
}

/// Lets a model rewrite requests.
pub(super) static REQUEST_TRANSFORMER: PluginSchema = PluginSchema::of(
    "ai-request-transformer",
    &[
        PROMPT,
        EXTRACT_PATTERN,
        HTTP_TIMEOUT,
        HTTPS_VERIFY,
        REQUEST_BODY_MAX,
        HTTP_PROXY_HOST,
        HTTP_PROXY_PORT,
        HTTPS_PROXY_HOST,
        HTTPS_PROXY_PORT,
        LLM,
    ],
)
.no_consumer()
.checks(TRANSFORMER_CHECKS);

/// Lets a model rewrite answers.
pub(super) static RESPONSE_TRANSFORMER: PluginSchema = PluginSchema::of(
    "ai-response-transformer",
    &[
        PROMPT,
        EXTRACT_PATTERN,
        off("parse_llm_response_json_instructions").required(),
        HTTP_TIMEOUT,
        HTTPS_VERIFY,
        REQUEST_BODY_MAX,
        HTTP_PROXY_HOST,
        HTTP_PROXY_PORT,
        HTTPS_PROXY_HOST,
        HTTPS_PROXY_PORT,
        LLM,
    ],
)
.checks(TRANSFORMER_CHECKS);

const PROMPT: Field = Field::string("prompt").required();
const EXTRACT_PATTERN: Field = Field::string("transformation_extract_pattern");
const HTTP_TIMEOUT: Field = integer("http_timeout", 60_000).required();
const HTTPS_VERIFY: Field = on("https_verify").required();
const HTTP_PROXY_HOST: Field = HOST.named("http_proxy_host");
const HTTP_PROXY_PORT: Field = PORT.named("http_proxy_port");
const HTTPS_PROXY_HOST: Field = HOST.named("https_proxy_host");
const HTTPS_PROXY_PORT: Field = PORT.named("https_proxy_port");
const LLM: Field = Field::record("llm", &llm::FIELDS)
    .required()
    .checks(llm::CHECKS);

const TRANSFORMER_CHECKS: &[Check] = &[
    Check::Conditional {
        if_field: "config.llm.route_type",
        if_match: Match::NotOneOf(&["llm/v1/chat"]),
        then_field: "config.llm.route_type",
        then_match: Match::Is(Literal::Text("llm/v1/chat")),
        error: Some("'config.llm.route_type' must be 'llm/v1/chat' for AI transformer plugins"),
    },
    Check::MutuallyRequired(&["config.http_proxy_host", "config.http_proxy_port"]),
    Check::MutuallyRequired(&["config.https_proxy_host", "config.https_proxy_port"]),
];
