//! Clients that write through several control planes and remember what they were told.

use super::history::{Answer, History, What, Write};
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a writer waits for an answer. Longer than a control plane looks into an unknown outcome.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between two writes of one writer: the load, not a synchronisation.
const PACE: Duration = Duration::from_millis(20);
/// How often a write whose outcome is unknown is repeated with the same key.
const REPEATS_MAX: u32 = 3;
/// Counters that all writers share.
const COUNTERS: usize = 3;
/// The field of a service that counts.
pub(super) const COUNT: &str = "connect_timeout";

/// A client. Everything it does follows from its seed and the answers.
#[derive(Debug)]
pub struct Writer {
    number: usize,
    controls: Vec<String>,
    agent: ureq::Agent,
    random: StdRng,
    repeats_max: u32,
    /// Services it made and has not deleted.
    own: Vec<String>,
    made: usize,
}

/// What came back for one attempt.
struct Reply {
    status: u16,
    version: Option<u64>,
    etag: Option<String>,
    body: Value,
}

/// The shared counters' names.
pub fn counters() -> impl Iterator<Item = String> {
    (0..COUNTERS).map(|number| format!("counter-{number}"))
}

impl Writer {
    /// A client of the control planes at these addresses.
    pub fn new(number: usize, controls: Vec<String>, seed: u64, patience: Duration) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience))
            .build()
            .into();
        Self {
            number,
            controls,
            agent,
            random: StdRng::seed_from_u64(seed),
            repeats_max: REPEATS_MAX,
            own: Vec::new(),
            made: 0,
        }
    }

    /// Takes an unknown outcome for an answer, instead of repeating the write.
    #[must_use]
    pub fn without_repeats(self) -> Self {
        Self {
            repeats_max: 0,
            ..self
        }
    }

    /// Writes until told to stop.
    pub fn run(mut self, history: &History, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.step(history);
            std::thread::sleep(PACE);
        }
    }

    /// One write, of a kind and through a control plane that chance chooses.
    pub fn step(&mut self, history: &History) {
        let control = self.random.random_range(0..self.controls.len());
        match self.random.random_range(0..10) {
            0..4 => drop(self.create(control, history)),
            4..6 => self.update(control, history),
            6 => self.delete(control, history),
            _ => self.increment(control, history),
        }
    }

    /// Makes the counters, through the first control plane. Done once, before anything goes wrong.
    ///
    /// # Errors
    /// If that is not acknowledged.
    pub fn make_counters(&mut self) -> Result<()> {
        for name in counters() {
            let body = json!({ "name": name, "host": "counter.example", COUNT: 1 });
            let reply = self.send(0, "POST", "/services", &[], Some(&body))?;
            anyhow::ensure!(reply.status == 201, "{}: {}", reply.status, reply.body);
        }
        Ok(())
    }

    /// Makes a route of its own service, through the first control plane. Done once, before anything goes wrong.
    ///
    /// # Errors
    /// If that is not acknowledged.
    pub fn make_route(&mut self, name: &str, path: &str) -> Result<()> {
        let service = json!({ "name": name, "host": "127.0.0.1", "port": 1 });
        let route = json!({ "name": name, "paths": [path], "service": { "name": name } });
        for (path, body) in [("/services", service), ("/routes", route)] {
            let reply = self.send(0, "POST", path, &[], Some(&body))?;
            anyhow::ensure!(reply.status == 201, "{}: {}", reply.status, reply.body);
        }
        Ok(())
    }

    /// Makes a service of its own through a control plane.
    pub fn create(&mut self, control: usize, history: &History) -> Answer {
        self.made += 1;
        let name = format!("w{}-{}", self.number, self.made);
        let body = json!({ "name": name, "host": "origin.example" });
        let what = What::Create(name.clone());
        let answer = self.write(control, what, "POST", "/services", body, None, history);
        // One that may be there is neither changed nor deleted: it would not be known what to expect.
        if let Answer::Acknowledged(_) = &answer {
            self.own.push(name);
        }
        answer
    }

    /// Sends a request that is not part of a history, and gives its status.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn ask(&self, control: usize, method: &str, path: &str, body: &Value) -> Result<u16> {
        let body = Some(body).filter(|body| !body.is_null());
        Ok(self.send(control, method, path, &[], body)?.status)
    }

    fn update(&mut self, control: usize, history: &History) {
        let Some(name) = self.own.choose(&mut self.random).cloned() else {
            return;
        };
        let path = format!("/services/{name}");
        let what = What::Update(name);
        self.write(control, what, "PATCH", &path, json!({}), None, history);
    }

    fn delete(&mut self, control: usize, history: &History) {
        if self.own.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.own.len());
        let name = self.own.swap_remove(at);
        let path = format!("/services/{name}");
        let what = What::Delete(name);
        self.write(control, what, "DELETE", &path, Value::Null, None, history);
    }

    fn increment(&mut self, control: usize, history: &History) {
        let name = format!("counter-{}", self.random.random_range(0..COUNTERS));
        let path = format!("/services/{name}");
        let Ok(read) = self.send(control, "GET", &path, &[], None) else {
            return;
        };
        let (Some(from), Some(etag)) = (read.body[COUNT].as_u64(), read.etag) else {
            return;
        };
        let what = What::Increment { name, from };
        let body = json!({ COUNT: from + 1 });
        self.write(control, what, "PATCH", &path, body, Some(etag), history);
    }

    /// Sends a write, repeats it if its outcome is unknown and chance says so, and records it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn write(
        &mut self,
        mut control: usize,
        what: What,
        method: &str,
        path: &str,
        mut body: Value,
        etag: Option<String>,
        history: &History,
    ) -> Answer {
        let id = Uuid::from_u128(self.random.random());
        let text = id.to_string();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("tags".to_owned(), json!([text]));
        }
        let mut headers = vec![
            ("x-request-id", text.as_str()),
            ("idempotency-key", text.as_str()),
        ];
        if let Some(etag) = &etag {
            headers.push(("if-match", etag));
        }
        let asked = Instant::now();
        let mut attempts = 0;
        let answer = loop {
            attempts += 1;
            let sent = self.send(
                control,
                method,
                path,
                &headers,
                Some(&body).filter(|body| !body.is_null()),
            );
            let answer = understand(sent, attempts);
            let unknown = matches!(answer, Answer::Unknown(_));
            if !unknown || attempts > self.repeats_max || self.random.random_bool(0.5) {
                break answer;
            }
            control = self.random.random_range(0..self.controls.len());
        };
        history.record(Write {
            id,
            what,
            control,
            attempts,
            asked,
            answered: Instant::now(),
            answer: answer.clone(),
        });
        answer
    }

    fn send(
        &self,
        control: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.controls[control]))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = self.agent.run(request.body(body)?)?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| Some(value.to_str().ok()?.to_owned()))
        };
        let (version, etag) = (header("sluice-version"), header("etag"));
        let status = response.status().as_u16();
        let text = response.into_body().read_to_string();
        let text = text.context("the answer broke off")?;
        Ok(Reply {
            status,
            version: version.and_then(|version| version.parse().ok()),
            etag,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        })
    }
}

/// What an attempt's answer says about the write.
fn understand(sent: Result<Reply>, attempts: u32) -> Answer {
    let reply = match sent {
        Ok(reply) => reply,
        Err(error) => {
            let never_sent = error
                .downcast_ref::<ureq::Error>()
                .is_some_and(is_refused_connection);
            let text = format!("{error:#}");
            return match never_sent && attempts == 1 {
                true => Answer::Refused(0, text),
                false => Answer::Unknown(text),
            };
        }
    };
    let said = reply.body["message"].as_str().unwrap_or_default();
    match (reply.status, reply.version) {
        (200 | 201 | 204, Some(version)) => Answer::Acknowledged(version),
        // A refusal of a repeated write says nothing about the first attempt.
        (400..500, _) if attempts == 1 => Answer::Refused(reply.status, said.to_owned()),
        (503, _) if attempts == 1 && said.starts_with("The configuration cannot be changed") => {
            Answer::Refused(reply.status, said.to_owned())
        }
        (status, _) => Answer::Unknown(format!("{status}: {}", reply.body)),
    }
}

/// Whether there was nobody to send to.
fn is_refused_connection(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}
