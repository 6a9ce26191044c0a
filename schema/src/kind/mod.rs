//! The kinds this build knows.

mod consumer;
mod credential;
mod plugin;
mod route;
mod service;
mod upstream;

pub use consumer::Consumer;
pub use credential::KeyauthCredential;
pub use plugin::Plugin;
pub use route::Route;
pub use service::Service;
pub use upstream::{Target, Upstream};

use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

/// A reference to another entity: `{"id": "<uuid>"}` in bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reference {
    /// The UUID of the entity referred to.
    pub id: Uuid,
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Bodies hold UUIDs as text also in MessagePack, where uuid's own Deserialize expects 16 bytes.
        #[derive(Deserialize)]
        struct Text<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        let text = Text::deserialize(deserializer)?;
        let id = Uuid::try_parse(&text.id).map_err(de::Error::custom)?;
        Ok(Self { id })
    }
}
