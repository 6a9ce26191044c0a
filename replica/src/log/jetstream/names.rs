//! What streams and subjects are called.

use super::LogError;
use sluice_schema::hash::Hash32;

const CLUSTER_BYTES_MAX: usize = 64;

/// The names of one cluster's streams and subjects.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The stream of events.
    pub(super) log_stream: String,
    /// The stream of chunks.
    pub(super) chunk_stream: String,
    /// Where heads are announced.
    pub(super) head: String,
    /// All events.
    pub(super) log_all: String,
    /// All events, as the broker sends them on once stored.
    pub(super) tail_all: String,
    /// All chunks.
    pub(super) chunk_all: String,
    /// All nodes' reports.
    pub(super) node_all: String,
    prefix: String,
}

impl Names {
    pub(super) fn new(cluster: &str) -> Result<Self, LogError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX || !cluster.bytes().all(plain) {
            let reason = format!("the cluster name '{cluster}' must be 1 to 64 of a-z A-Z 0-9 - _");
            return Err(LogError::Unusable(reason));
        }
        let prefix = format!("sluice.{cluster}");
        Ok(Self {
            log_stream: format!("SLUICE_{cluster}"),
            chunk_stream: format!("SLUICE_{cluster}_chunks"),
            head: format!("{prefix}.head"),
            log_all: format!("{prefix}.log.>"),
            tail_all: format!("{prefix}.tail.>"),
            chunk_all: format!("{prefix}.chunk.>"),
            node_all: format!("{prefix}.node.*"),
            prefix,
        })
    }

    /// The subject an event is stored under.
    pub(super) fn event(&self, subject: &str) -> Result<String, LogError> {
        self.under("log", subject)
    }

    /// The subject a chunk is stored under.
    pub(super) fn chunk(&self, hash: Hash32) -> String {
        format!("{}.chunk.{hash}", self.prefix)
    }

    /// The subject a node reports on.
    pub(super) fn node(&self, node: &str) -> Result<String, LogError> {
        if node.contains('.') {
            return Err(LogError::Unusable(format!(
                "the node id '{node}' contains a dot"
            )));
        }
        self.under("node", node)
    }

    fn under(&self, kind: &str, subject: &str) -> Result<String, LogError> {
        let token = |token: &str| {
            let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
            !token.is_empty() && !token.contains(bad)
        };
        if !subject.split('.').all(token) {
            return Err(LogError::Unusable(format!(
                "'{subject}' cannot be part of a subject"
            )));
        }
        Ok(format!("{}.{kind}.{subject}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_mean_something_to_the_broker_are_refused() {
        for cluster in ["", "a.b", "a b", "a*", ">", "ä", &"x".repeat(65)] {
            assert!(Names::new(cluster).is_err(), "{cluster}");
        }
        let names = Names::new("eu-1").unwrap();
        assert_eq!(
            names.event("ws.route.1").unwrap(),
            "sluice.eu-1.log.ws.route.1"
        );
        for subject in ["", "a..b", ".a", "a.", "a b", "a.*", ">", "a\r\nPUB x"] {
            assert!(names.event(subject).is_err(), "{subject:?}");
        }
        assert!(names.node("a.b").is_err());
    }
}
