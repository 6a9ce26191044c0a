//! The formats, and which of them a plugin reads and writes.

use super::{Incoming, Outgoing};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

/// A format of headers. `b3` is several headers, `b3-single` is one; they are read as one format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    W3c,
    B3,
    B3Single,
    Jaeger,
    Ot,
    Datadog,
    Aws,
    Gcp,
    Instana,
}

/// What is read where a plugin names no formats, in this order.
const ALL: [Format; 8] = [
    Format::B3,
    Format::W3c,
    Format::Jaeger,
    Format::Ot,
    Format::Datadog,
    Format::Aws,
    Format::Gcp,
    Format::Instana,
];

/// The record `propagation` of a configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PropagationFields {
    #[serde(default)]
    extract: Option<Vec<Format>>,
    #[serde(default)]
    clear: Option<Vec<String>>,
    #[serde(default)]
    inject: Option<Vec<Inject>>,
    #[serde(default)]
    default_format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
enum Inject {
    Preserve(Preserve),
    Format(Format),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Preserve {
    Preserve,
}

const PRESERVE: Inject = Inject::Preserve(Preserve::Preserve);

/// Which formats are read, dropped and written.
#[derive(Clone, Debug)]
pub(crate) struct Propagation {
    extract: Vec<Format>,
    clear: Vec<HeaderName>,
    inject: Vec<Inject>,
    /// What `preserve` writes if nothing was read.
    default: Format,
}

impl Propagation {
    /// By `propagation` if that says anything, otherwise by the older `header_type`, of which `preserve` writes the format
    /// that came, `ignore` reads none, and any other is written beside the format that came.
    pub(crate) fn new(
        fields: PropagationFields,
        header_type: &str,
        default_type: Option<Format>,
    ) -> Result<Self, String> {
        let told = fields.extract.is_some() || fields.clear.is_some() || fields.inject.is_some();
        let default = fields
            .default_format
            .or(default_type)
            .unwrap_or(Format::W3c);
        let clear = fields.clear.unwrap_or_default();
        let clear = clear
            .iter()
            .map(HeaderName::try_from)
            .collect::<Result<_, _>>();
        let clear = clear.map_err(|_| "propagation.clear has what is no header's name")?;
        if told {
            return Ok(Self {
                extract: fields.extract.unwrap_or_default(),
                clear,
                inject: fields.inject.unwrap_or_default(),
                default,
            });
        }
        let default = default_type.unwrap_or(default);
        let (extract, inject) = match header_type {
            "preserve" => (ALL.to_vec(), vec![PRESERVE]),
            "ignore" => (Vec::new(), vec![PRESERVE]),
            named => {
                let format = Format::parse(named).ok_or("header_type is not known")?;
                (ALL.to_vec(), vec![Inject::Format(format), PRESERVE])
            }
        };
        Ok(Self {
            extract,
            clear,
            inject,
            default,
        })
    }

    /// What a request says, and in which format.
    pub(crate) fn extract(&self, headers: &HeaderMap) -> Option<(Format, Incoming)> {
        self.extract
            .iter()
            .find_map(|format| format.extract(headers))
    }

    /// Tells the upstream.
    pub(crate) fn inject(&self, headers: &mut HeaderMap, came: Option<Format>, span: &Outgoing) {
        for name in &self.clear {
            headers.remove(name);
        }
        // Beside a format that is named, `preserve` stands for what came only.
        let named = self.inject.iter().any(|inject| *inject != PRESERVE);
        for inject in &self.inject {
            let format = match inject {
                Inject::Format(format) => Some(*format),
                Inject::Preserve(_) => came.or((!named).then_some(self.default)),
            };
            if let Some(format) = format {
                format.inject(headers, span);
            }
        }
    }

    /// The trace's id as the client knows it.
    pub(crate) fn shown(&self, came: Option<Format>, span: &Outgoing) -> String {
        match came.unwrap_or(self.default) {
            Format::W3c | Format::Aws | Format::Gcp => span.trace.long_hex(),
            Format::Datadog => span.trace.low().to_string(),
            Format::B3 | Format::B3Single | Format::Jaeger | Format::Ot | Format::Instana => {
                span.trace.hex()
            }
        }
    }
}

impl Format {
    fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}
