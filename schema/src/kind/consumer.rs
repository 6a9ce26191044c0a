//! Consumers: users of services.

use serde::Deserialize;

/// The fields of a consumer the data plane uses. At least one of the two is set.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Consumer {
    /// A unique name.
    pub username: Option<String>,
    /// A unique id of the caller's own system.
    pub custom_id: Option<String>,
}
