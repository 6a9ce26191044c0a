//! Looking up names in the DNS: A, AAAA where there is no A, SRV for names that are of that form. The hosts file and
//! resolv.conf are followed, and read again when they change.

use super::names::Record;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long one look-up may take, whatever resolv.conf says.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer counts as fresh, whatever its records say.
const FRESH_MIN: Duration = Duration::from_secs(1);
const FRESH_MAX: Duration = Duration::from_secs(3600);
/// Questions at a time over one connection to a server.
const REQUESTS_MAX: usize = 256;
/// Hosts of an SRV answer that are looked up.
const SRV_HOSTS_MAX: usize = 256;

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// In place of the servers of resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// Servers, search domains and options.
    pub resolv_conf: PathBuf,
    /// Names that are known without asking.
    pub hosts: PathBuf,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// Addresses, and until when they count as fresh.
pub(crate) type Found = (Box<[Record]>, Instant);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("the name has no address")]
    Nothing,
    #[error("the name could not be looked up")]
    Dns(#[from] NetError),
    #[error("the name could not be looked up in time")]
    Timeout,
}

/// The resolver, and what it was made from.
pub(crate) struct LookUp {
    options: DnsOptions,
    resolver: Arc<TokioResolver>,
    made_from: [Option<SystemTime>; 2],
}

impl LookUp {
    pub(crate) fn new(options: DnsOptions) -> Result<Self, NetError> {
        let made_from = stamps(&options);
        let resolver = Arc::new(make(&options)?);
        Ok(Self {
            options,
            resolver,
            made_from,
        })
    }

    /// Reads the files again if they have changed. Says whether they had.
    pub(crate) fn reload(&mut self) -> bool {
        let stamps = stamps(&self.options);
        if stamps == self.made_from {
            return false;
        }
        match make(&self.options) {
            Ok(resolver) => {
                tracing::info!("resolv.conf or the hosts file has changed and was read again");
                self.resolver = Arc::new(resolver);
            }
            Err(error) => tracing::warn!(%error, "could not set up DNS anew; the old way stays"),
        }
        self.made_from = stamps;
        true
    }

    /// Looks a name up.
    pub(crate) fn find(
        &self,
        name: Box<str>,
    ) -> impl Future<Output = Result<Found, ResolveError>> + use<> {
        let resolver = Arc::clone(&self.resolver);
        async move {
            let found = async {
                if is_srv_name(&name) {
                    find_srv(&resolver, &name).await
                } else {
                    find_addresses(&resolver, &name).await
                }
            };
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, found);
            found.await.map_err(|_| ResolveError::Timeout)?
        }
    }
}

fn stamps(options: &DnsOptions) -> [Option<SystemTime>; 2] {
    let stamp = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    [stamp(&options.resolv_conf), stamp(&options.hosts)]
}

fn make(options: &DnsOptions) -> Result<TokioResolver, NetError> {
    let read = std::fs::read(&options.resolv_conf).map_err(NetError::from);
    let (mut config, mut settings) = match read.and_then(parse_resolv_conf) {
        Ok(parsed) => parsed,
        Err(error) => {
            if options.servers.is_empty() {
                let path = options.resolv_conf.display();
                tracing::warn!(%path, %error, "no DNS server is known: only names of the hosts file resolve");
            }
            (ResolverConfig::default(), ResolverOpts::default())
        }
    };
    if !options.servers.is_empty() {
        let (domain, search, _) = config.into_parts();
        let servers = options.servers.iter().map(|server| name_server(*server));
        config = ResolverConfig::from_parts(domain, search, servers.collect());
    }
    settings.max_active_requests = REQUESTS_MAX;
    settings.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    // What is known is kept in `Names`, for as long as the records say.
    settings.cache_size = 0;
    settings.use_hosts_file = ResolveHosts::Never;
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut resolver = builder.with_options(settings).build()?;
    let mut hosts = Hosts::default();
    if let Ok(file) = std::fs::File::open(&options.hosts)
        && let Err(error) = hosts.read_hosts_conf(file)
    {
        tracing::warn!(%error, "could not read the hosts file");
    }
    resolver.set_hosts(Arc::new(hosts));
    Ok(resolver)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// `_service._protocol.name`, by RFC 2782.
fn is_srv_name(name: &str) -> bool {
    let mut labels = name.split('.');
    let mut marked = || {
        labels
            .next()
            .is_some_and(|label| label.len() > 1 && label.starts_with('_'))
    };
    marked() && marked()
}

async fn find_addresses(resolver: &TokioResolver, name: &str) -> Result<Found, ResolveError> {
    let found = resolver.lookup_ip(name).await?;
    let records = found.iter().map(Record::fixed).collect();
    finish(records, found.valid_until())
}

async fn find_srv(resolver: &TokioResolver, name: &str) -> Result<Found, ResolveError> {
    let found = resolver.srv_lookup(name).await?;
    let mut services: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| {
            // An answer may bring other records along.
            let RData::SRV(srv) = &record.data else {
                return None;
            };
            Some(srv.clone())
        })
        .collect();
    // Those of a higher number are for when these are gone, which the DNS does not tell.
    let first = services.iter().map(|srv| srv.priority).min();
    services.retain(|srv| Some(srv.priority) == first);
    services.truncate(SRV_HOSTS_MAX);
    let mut fresh = found.valid_until();
    let mut records = Vec::new();
    let hosts = services.iter().map(|srv| async move {
        let host = srv.target.to_utf8();
        (srv, resolver.lookup_ip(&*host).await)
    });
    let mut failure = None;
    for (srv, found) in futures::future::join_all(hosts).await {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        fresh = fresh.min(found.valid_until());
        let host: Arc<str> = srv.target.to_utf8().trim_end_matches('.').into();
        let record = |ip| Record {
            ip,
            srv: Some((srv.port, srv.weight, Arc::clone(&host))),
        };
        records.extend(found.iter().map(record));
    }
    match failure {
        Some(error) if records.is_empty() => Err(error.into()),
        Some(_) | None => finish(records, fresh),
    }
}

fn finish(mut records: Vec<Record>, fresh: Instant) -> Result<Found, ResolveError> {
    // Servers turn the order about, which must not look like a change.
    records.sort_unstable();
    records.dedup();
    if records.is_empty() {
        return Err(ResolveError::Nothing);
    }
    let now = Instant::now();
    Ok((
        records.into(),
        fresh.clamp(now + FRESH_MIN, now + FRESH_MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_form_of_srv_are_asked_for_srv() {
        let yes = ["_http._tcp.shop.test", "_a._b"];
        let no = [
            "shop.test",
            "_http.shop.test",
            "a._tcp.x",
            "_._tcp.x",
            "_http",
            "",
        ];
        assert!(yes.into_iter().all(is_srv_name));
        assert!(!no.into_iter().any(is_srv_name));
    }
}
