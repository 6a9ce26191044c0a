//! How many connections each client address has open, on all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of an IPv6 address that count: who has one address has its whole network.
const IPV6_NETWORK: u128 = !0 << 64;

/// Counts connections by address; nothing is counted where there is no limit.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection that counts, for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Option<(Addresses, IpAddr)>);

impl Addresses {
    /// Counts a connection. `None` if its address has `max` already; 0 is no limit.
    pub(super) fn enter(&self, address: IpAddr, max: u32) -> Option<Counted> {
        if max == 0 {
            return Some(Counted(None));
        }
        let address = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & IPV6_NETWORK).into()),
            address @ IpAddr::V4(_) => address,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted(Some((self.clone(), address))))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else {
            return;
        };
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_and_gets_it_back() {
        let addresses = Addresses::default();
        let enter = |text: &str, max| addresses.enter(text.parse().unwrap(), max);
        let first = enter("10.0.0.1", 2).unwrap();
        let _second = enter("::ffff:10.0.0.1", 2).unwrap();
        assert!(enter("10.0.0.1", 2).is_none());
        let _other = enter("10.0.0.2", 2).unwrap();
        drop(first);
        let _third = enter("10.0.0.1", 2).unwrap();
        let network = enter("2001:db8::1", 1).unwrap();
        assert!(enter("2001:db8::ffff:2", 1).is_none());
        drop(network);
        assert!(enter("2001:db8:0:1::1", 1).is_some());
        assert!((0..10).all(|_| enter("10.0.0.9", 0).is_some()));
        drop((_second, _other, _third));
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
