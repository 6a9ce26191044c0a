//! What streams and subjects are called.

use super::{ChunkUse, LogError};
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
    /// All chunks and roots.
    pub(super) chunk_all: String,
    /// All roots.
    pub(super) root_all: String,
    /// Where programs ask control planes for what the Admin API does.
    pub(super) admin: String,
    /// All nodes' reports.
    pub(super) node_all: String,
    /// What all data planes have counted.
    pub(super) count_all: String,
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
            root_all: format!("{prefix}.chunk.root.>"),
            admin: format!("{prefix}.admin"),
            node_all: format!("{prefix}.node.*"),
            count_all: format!("{prefix}.count.*"),
            prefix,
        })
    }

    /// The subject an event is stored under.
    pub(super) fn event(&self, subject: &str) -> Result<String, LogError> {
        self.under("log", subject)
    }

    /// The subject a chunk is stored under.
    pub(super) fn chunk(&self, part: ChunkUse, hash: Hash32) -> String {
        format!("{}{hash}", self.chunk_prefix(part))
    }

    /// All chunks of a use.
    pub(super) fn chunks_of(&self, part: ChunkUse) -> String {
        format!("{}*", self.chunk_prefix(part))
    }

    /// The hash of the chunk that is stored under a subject; `None` if it is none of that use.
    pub(super) fn hash_in(&self, part: ChunkUse, subject: &str) -> Option<Hash32> {
        Hash32::from_hex(subject.strip_prefix(&self.chunk_prefix(part))?)
    }

    fn chunk_prefix(&self, part: ChunkUse) -> String {
        let part = match part {
            ChunkUse::Transaction => "tx",
            ChunkUse::Snapshot => "snap",
        };
        format!("{}.chunk.{part}.", self.prefix)
    }

    /// The subject a root is stored under. The name has been checked.
    pub(super) fn root(&self, name: &str) -> String {
        format!("{}.chunk.root.{name}", self.prefix)
    }

    /// The name of the root that is stored under a subject.
    pub(super) fn root_in<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.root_all.strip_suffix('>')?)
    }

    /// The subject a node reports on.
    pub(super) fn node(&self, node: &str) -> Result<String, LogError> {
        self.of_node("node", node)
    }

    /// The subject a data plane tells others on what it has counted.
    pub(super) fn count(&self, node: &str) -> Result<String, LogError> {
        self.of_node("count", node)
    }

    /// What those subjects begin with, before the node.
    pub(super) fn count_prefix(&self) -> String {
        format!("{}.count.", self.prefix)
    }

    fn of_node(&self, kind: &str, node: &str) -> Result<String, LogError> {
        if node.contains('.') {
            return Err(LogError::Unusable(format!(
                "the node id '{node}' contains a dot"
            )));
        }
        self.under(kind, node)
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
        assert!(names.count("a.b").is_err());
        assert_eq!(names.count("a").unwrap(), "sluice.eu-1.count.a");
    }

    #[test]
    fn chunks_and_roots_are_found_again_in_their_subjects() {
        let names = Names::new("eu-1").unwrap();
        let hash = Hash32::of(b"x");
        let subject = names.chunk(ChunkUse::Transaction, hash);
        assert_eq!(subject, format!("sluice.eu-1.chunk.tx.{hash}"));
        assert_eq!(names.hash_in(ChunkUse::Transaction, &subject), Some(hash));
        assert_eq!(names.hash_in(ChunkUse::Snapshot, &subject), None);
        assert_eq!(
            names.chunks_of(ChunkUse::Snapshot),
            "sluice.eu-1.chunk.snap.*"
        );
        assert_eq!(names.root("a-1"), "sluice.eu-1.chunk.root.a-1");
        assert_eq!(names.root_in("sluice.eu-1.chunk.root.a-1"), Some("a-1"));
        assert_eq!(names.root_in(&subject), None);
    }
}
