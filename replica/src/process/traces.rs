//! The settings of traces, the same for every program that makes spans.

use super::settings::SettingsError;
use crate::traces::{Target, TargetError};
use std::str::FromStr;

/// Where spans go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct TracesSettings {
    /// Where spans of changes go: the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; or off
    /// [default: that of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, else off]
    #[arg(
        long,
        env = "SLUICE_TRACES_ENDPOINT",
        hide_env_values = true,
        value_name = "URL|off"
    )]
    traces_endpoint: Option<Wish>,
}

/// Which changes get a trace, for programs that begin one.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct SamplingSettings {
    /// How many of the writes that come without a trace (the header traceparent) begin one: 0 (none) to 1 (all)
    #[arg(long, env = "SLUICE_TRACES_SAMPLE", default_value = "1", value_parser = parse_ratio, value_name = "RATIO")]
    pub traces_sample: f64,
}

/// What is said of a collector.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wish {
    Off,
    To(Target),
}

impl FromStr for Wish {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text {
            "off" => Ok(Self::Off),
            url => Ok(Self::To(url.parse()?)),
        }
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok();
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

impl TracesSettings {
    /// Where spans go, if anywhere. What is not set is looked up in OpenTelemetry's own variables.
    ///
    /// # Errors
    /// If the headers for a collector that was set are none.
    pub fn target(&self) -> Result<Option<Target>, SettingsError> {
        self.target_with(|name| std::env::var(name).ok())
    }

    fn target_with(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Target>, SettingsError> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        let headers = variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_HEADERS"))
            .unwrap_or_default();
        match &self.traces_endpoint {
            Some(Wish::Off) => Ok(None),
            Some(Wish::To(target)) => {
                let target = target.clone().with_headers(&headers);
                let unusable =
                    |error| SettingsError::Unusable(format!("OTEL_EXPORTER_OTLP_HEADERS: {error}"));
                target.map(Some).map_err(unusable)
            }
            None => {
                let own = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| url.parse());
                let base =
                    || variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| Target::below(&url));
                let Some(target) = own.or_else(base) else {
                    return Ok(None);
                };
                let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                    .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
                if protocol.as_deref() == Some("grpc") {
                    tracing::warn!(
                        "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which is not spoken here: no spans are sent"
                    );
                    return Ok(None);
                }
                // They were set for all programs of this machine: no reason not to start.
                let target = target.and_then(|target| target.with_headers(&headers));
                Ok(target
                    .inspect_err(|error| {
                        tracing::warn!(%error, "the OTEL_EXPORTER_OTLP_ variables cannot be used: no spans are sent");
                    })
                    .ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        traces: TracesSettings,
    }

    fn check(flag: Option<&str>, variables: &[(&str, &str)], expected: Option<&str>) {
        let flag = flag.map(|url| format!("--traces-endpoint={url}"));
        let arguments = std::iter::once("sample".to_owned()).chain(flag);
        let sample = Sample::try_parse_from(arguments).unwrap();
        let found = sample.traces.target_with(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let shown = found.unwrap().map(|target| target.url());
        assert_eq!(shown.as_deref(), expected);
    }

    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn our_setting_goes_before_the_variables_and_the_closer_one_before_the_other() {
        let both = [(BASE, "http://a:1/otlp/"), (OWN, "https://b/x?y=z")];
        check(None, &[], None);
        check(None, &both[..1], Some("http://a:1/otlp/v1/traces"));
        check(None, &both, Some("https://b:443/x?y=z"));
        check(Some("http://c"), &both, Some("http://c:80/v1/traces"));
        check(
            Some("http://[::1]:4318/"),
            &both,
            Some("http://::1:4318/v1/traces"),
        );
        check(Some("off"), &both, None);
        check(None, &[(BASE, " ")], None);
        check(None, &[(BASE, "nonsense")], None);
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        check(None, &[both[0], grpc], None);
    }

    #[test]
    fn what_is_no_collector_is_refused() {
        for url in ["a:4318", "ftp://a", "http://ann:secret@a", ""] {
            assert!(url.parse::<Wish>().is_err(), "{url}");
        }
        assert!(parse_ratio("1.5").is_err() && parse_ratio("NaN").is_err());
    }
}
