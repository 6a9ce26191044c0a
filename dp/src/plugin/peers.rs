//! The way to the other data planes of the cluster.

use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt;
use std::pin::Pin;

/// Carries short messages between data planes: to all that listen, perhaps twice or not at all, in no particular order. Who
/// uses it says things again, and says them so that hearing them twice does no harm.
pub trait Peers: Send + Sync + fmt::Debug {
    /// Sends to all others. Whether it has left; nothing is kept while nobody can be reached.
    fn tell(&self, message: Bytes) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// What others send from now on; perhaps also what this node does. `None` if nobody can be listened to now. The stream
    /// ends if that changes; it goes on through times without a connection.
    fn listen(
        &self,
    ) -> Pin<Box<dyn Future<Output = Option<BoxStream<'static, Heard>>> + Send + '_>>;
}

/// What is heard from others.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A message.
    Message {
        /// The node that sent it, as whoever carries messages says.
        from: String,
        /// What it says.
        message: Bytes,
    },
    /// There is a connection (again): anything may have been missed, and not have arrived.
    Connected,
}
