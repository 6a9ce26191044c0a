//! Plugins that change requests on their way to the service, and answers on their way back.
//!
//! What to put in is written `name:value`. In requests a value may be a [`Template`].

use super::PluginSchema;
use super::common::{TEXT, none_by_default, texts_or_none};
use crate::check::text::{Verdict, header_name, is_upper};
use crate::field::Field;
use crate::template::Template;

/// Changes requests.
pub(super) static REQUEST: PluginSchema = PluginSchema::of(
    "request-transformer",
    &[
        Field::string("http_method").pattern("^%u+$", is_upper),
        Field::record(
            "remove",
            &[
                texts_or_none("body"),
                none_by_default(Field::array("headers", &TEXT.text(named_header))),
                texts_or_none("querystring"),
            ],
        )
        .required(),
        Field::record(
            "rename",
            &[
                values("body"),
                none_by_default(Field::array("headers", &NEW_HEADER_NAME)),
                values("querystring"),
            ],
        )
        .required(),
        Field::record(
            "replace",
            &[
                values("body"),
                header_templates(),
                values("querystring"),
                Field::string("uri").text(template),
            ],
        )
        .required(),
        Field::record(
            "add",
            &[values("body"), header_templates(), values("querystring")],
        )
        .required(),
        Field::record(
            "append",
            &[values("body"), header_templates(), values("querystring")],
        )
        .required(),
    ],
)
.any_protocol();

/// Changes answers.
pub(super) static RESPONSE: PluginSchema = PluginSchema::of(
    "response-transformer",
    &[
        Field::record("remove", &[texts_or_none("json"), texts_or_none("headers")]).required(),
        Field::record(
            "rename",
            &[
                pairs("json"),
                none_by_default(Field::array("headers", &NEW_HEADER_NAME)),
            ],
        )
        .required(),
        Field::record("replace", JSON_AND_HEADERS).required(),
        Field::record("add", JSON_AND_HEADERS).required(),
        Field::record("append", JSON_AND_HEADERS).required(),
    ],
);

const JSON_AND_HEADERS: &[Field] = &[
    pairs("json"),
    none_by_default(Field::array(
        "json_types",
        &TEXT.one_of(&["boolean", "number", "string"]),
    )),
    headers(),
];

const PAIR: Field = TEXT.pattern("^[^:]+:.*$", |text| text.find(':').is_some_and(|at| at > 0));
const NEW_HEADER_NAME: Field = PAIR.text(two_header_names);

/// `name:value`; a text without a value is left to the one who uses it.
const fn pairs(name: &'static str) -> Field {
    none_by_default(Field::array(name, &PAIR))
}

/// `name:value`, where the value is not empty.
const fn values(name: &'static str) -> Field {
    const NAMED_VALUE: Field = TEXT.text(has_value);
    none_by_default(Field::array(name, &NAMED_VALUE))
}

/// The same with templates.
const fn header_templates() -> Field {
    const HEADER: Field = PAIR.text(header_and_template);
    none_by_default(Field::array("headers", &HEADER))
}

/// `name:value`, where the name is one of a header, and the value may be one of a header.
const fn headers() -> Field {
    const HEADER: Field = PAIR.text(header_and_value);
    none_by_default(Field::array("headers", &HEADER))
}

/// The name, and what follows its colons.
fn split(pair: &str) -> (&str, &str) {
    let at = pair.find(':').unwrap_or(pair.len());
    (&pair[..at], pair[at..].trim_start_matches(':'))
}

fn has_value(pair: &str) -> Verdict {
    let (name, value) = split(pair);
    if value.is_empty() {
        return Err(format!("key '{name}' has no value"));
    }
    template(value)
}

fn header_and_template(pair: &str) -> Verdict {
    header_and_value(pair)?;
    template(split(pair).1)
}

fn template(value: &str) -> Verdict {
    match Template::parse(value) {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!(
            "value '{value}' is not in supported format, error: {reason}"
        )),
    }
}

fn named_header(pair: &str) -> Verdict {
    let (name, _) = split(pair);
    valid_header(name, !name.is_empty() && header_name(name).is_ok())
}

fn two_header_names(pair: &str) -> Verdict {
    named_header(pair)?;
    let (_, name) = split(pair);
    valid_header(name, !name.is_empty() && header_name(name).is_ok())
}

fn header_and_value(pair: &str) -> Verdict {
    named_header(pair)?;
    let (_, value) = split(pair);
    valid_header(
        value,
        !value.chars().any(|c| c.is_ascii_control() && c != '\t'),
    )
}

fn valid_header(text: &str, valid: bool) -> Verdict {
    if valid {
        Ok(())
    } else {
        Err(format!("'{text}' is not a valid header"))
    }
}
