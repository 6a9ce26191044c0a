//! Who this node is: an id that outlives its processes, and that permissions on the broker can name.

use anyhow::Context;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use uuid::Uuid;

const BYTES_MAX: usize = 64;

/// A node's id: 1 to 64 of A-Z a-z 0-9 _ -. Part of the subject the node reports on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeId(String);

impl NodeId {
    /// The id kept in `data_dir`, made at the first start.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn load_or_make(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("node_id");
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(id) = text.trim().parse()
        {
            return Ok(id);
        }
        let id = Self(Uuid::new_v4().to_string());
        std::fs::create_dir_all(data_dir)
            .and_then(|()| std::fs::write(&path, format!("{id}\n")))
            .with_context(|| format!("could not write '{}' (data_dir)", path.display()))?;
        Ok(id)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > BYTES_MAX || !text.bytes().all(plain) {
            return Err("expected 1 to 64 of A-Z a-z 0-9 _ -");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_plain_token_of_a_subject() {
        for id in [
            "dp-1",
            "A_b",
            "0",
            &"x".repeat(64),
            &Uuid::nil().to_string(),
        ] {
            assert!(id.parse::<NodeId>().is_ok(), "{id}");
        }
        for id in ["", "a.b", "*", ">", "a b", "ä", &"x".repeat(65)] {
            assert!(id.parse::<NodeId>().is_err(), "{id}");
        }
    }

    #[test]
    fn an_id_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let made = NodeId::load_or_make(directory.path()).unwrap();
        assert_eq!(NodeId::load_or_make(directory.path()).unwrap(), made);
        std::fs::write(directory.path().join("node_id"), "dp-7\n").unwrap();
        let read = NodeId::load_or_make(directory.path()).unwrap();
        assert_eq!(read.as_str(), "dp-7");
    }
}
