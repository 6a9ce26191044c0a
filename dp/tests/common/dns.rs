//! A DNS server over UDP for the length of a test.

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use sluice_dp::balance::DnsOptions;
use sluice_dp::proxy::Options;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), Vec<(u32, RData)>>,
    queries: Vec<(String, RecordType)>,
    is_broken: bool,
}

/// Names that begin with `silent` get no answer.
#[derive(Clone)]
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Self {
            address: socket.local_addr().unwrap(),
            zone: Arc::default(),
        };
        let zone = Arc::clone(&dns.zone);
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..count]).unwrap();
                let answer = zone.lock().unwrap().answer(&question).to_vec().unwrap();
                let name = question.queries[0].name().to_ascii();
                if !name.starts_with("silent") {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        dns
    }

    /// Options of a gateway that asks only here.
    pub(crate) fn options(&self) -> Options {
        let nowhere = "/no/such/file";
        Options {
            dns: DnsOptions {
                servers: vec![self.address],
                resolv_conf: nowhere.into(),
                hosts: nowhere.into(),
            },
            ..Options::default()
        }
    }

    /// Sets the addresses of a name, with their time to live.
    pub(crate) fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let mut zone = self.zone.lock().unwrap();
        let parsed = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap());
        let (mut a, mut aaaa) = (Vec::new(), Vec::new());
        for address in parsed {
            match address {
                IpAddr::V4(ip) => a.push((ttl, RData::A(A(ip)))),
                IpAddr::V6(ip) => aaaa.push((ttl, RData::AAAA(AAAA(ip)))),
            }
        }
        zone.records.insert((name.to_owned(), RecordType::A), a);
        zone.records
            .insert((name.to_owned(), RecordType::AAAA), aaaa);
    }

    /// Sets the services of a name: priority, weight, port, host.
    pub(crate) fn set_srv(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let host = Name::from_ascii(host).unwrap();
            (ttl, RData::SRV(SRV::new(*priority, *weight, *port, host)))
        };
        let records = services.iter().map(record).collect();
        let mut zone = self.zone.lock().unwrap();
        zone.records
            .insert((name.to_owned(), RecordType::SRV), records);
    }

    /// From now on it only says that it fails, or not any more.
    pub(crate) fn fail(&self, is_broken: bool) {
        self.zone.lock().unwrap().is_broken = is_broken;
    }

    /// How often it was asked for a name.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let zone = self.zone.lock().unwrap();
        let asked = zone.queries.iter();
        asked
            .filter(|(asked, of)| asked == name && *of == kind)
            .count()
    }
}

impl Zone {
    fn answer(&mut self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let query = question.queries[0].clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.').to_owned();
        self.queries.push((name.clone(), query.query_type()));
        if self.is_broken {
            answer.metadata.response_code = ResponseCode::ServFail;
        } else if let Some(found) = self.records.get(&(name.clone(), query.query_type())) {
            for (ttl, data) in found {
                answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, data.clone()));
            }
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(query);
        answer
    }
}
