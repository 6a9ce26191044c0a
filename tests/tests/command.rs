//! The `sluice` command, as a person would use it.

#![cfg(test)]

use serde_json::Value;
use sluice_replica::keys::PublicLine;
use sluice_tests::processes::{binary, command};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn sluice(arguments: &[&str]) -> Output {
    command("sluice").unwrap().args(arguments).output().unwrap()
}

/// What a command prints if it succeeds.
fn said(arguments: &[&str]) -> String {
    let output = sluice(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains about if it fails.
fn complaint(arguments: &[&str]) -> String {
    let output = sluice(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// `sluice up` on free ports. Killed when dropped.
struct Up {
    child: Child,
    admin: String,
    proxy: String,
}

impl Up {
    fn start(directory: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(binary("sluice").unwrap())
            .args([
                "up",
                "--proxy-listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
            ])
            .args(["--status-listen=127.0.0.1:0", "--log-format=json"])
            .arg(format!("--data-dir={}", directory.display()))
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let (mut admin, mut proxy) = (None, None);
        while admin.is_none() || proxy.is_none() {
            let line = lines
                .recv_timeout(PATIENCE)
                .expect("sluice up did not start");
            let Ok(line) = serde_json::from_str::<Value>(&line) else {
                panic!("{line}")
            };
            match line["message"].as_str() {
                Some("the Admin API is listening") => {
                    admin = line["admin"].as_str().map(str::to_owned)
                }
                Some("the proxy is listening") => {
                    proxy = line["proxy"]
                        .as_str()
                        .map(|text| text.trim_matches(['[', ']']).to_owned());
                }
                Some(_) | None => {}
            }
        }
        Self {
            child,
            admin: format!("http://{}", admin.unwrap()),
            proxy: proxy.unwrap(),
        }
    }

    /// The status of a request through the proxy.
    fn request(&self, path: &str) -> u16 {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut response = agent
            .get(format!("http://{}{path}", self.proxy))
            .call()
            .unwrap();
        let status = response.status().as_u16();
        let _ = response.body_mut().as_reader().read_to_end(&mut Vec::new());
        status
    }

    /// Waits until a request is answered with this status.
    fn wait_for(&self, path: &str, status: u16) {
        let began = Instant::now();
        while self.request(path) != status {
            assert!(
                began.elapsed() < PATIENCE,
                "{path} is not answered with {status}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const GOOD: &str = "_format_version: '3.0'
services:
- name: shop
  url: http://127.0.0.1:9
  routes:
  - name: shop
    paths: [/shop]
    plugins:
    - name: key-auth
";

#[test]
fn up_applies_serves_and_remembers_over_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, "shop.yaml", GOOD);
    let data = directory.path().join("data");
    let up = Up::start(&data, &["--apply", &file]);
    up.wait_for("/shop", 401);
    assert_eq!(up.request("/elsewhere"), 404);
    // Only what is on disk survives a kill; the embedded log is, always.
    drop(up);
    let up = Up::start(&data, &[]);
    up.wait_for("/shop", 401);
}

#[test]
fn a_file_is_applied_shown_in_the_log_and_dumped_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, "shop.yaml", GOOD);
    let up = Up::start(&directory.path().join("data"), &[]);
    let admin = format!("--admin-url={}", up.admin);

    let plan = said(&["apply", &file, &admin, "--dry-run"]);
    assert!(plan.contains("+ service shop\n"), "{plan}");
    assert!(
        plan.ends_with("3 to create, 0 to update, 0 to delete, 0 unchanged\n"),
        "{plan}"
    );
    let detailed = ["apply", &file, &admin, "--dry-run", "--detailed-exitcode"];
    assert_eq!(sluice(&detailed).status.code(), Some(2));
    assert_eq!(sluice(&["diff", &file, &admin]).status.code(), Some(1));
    assert_eq!(sluice(&["diff", "/nowhere", &admin]).status.code(), Some(2));
    let applied = said(&[
        "apply", &file, &admin, "--reason", "first", "--actor", "anna",
    ]);
    assert!(
        applied.starts_with("version 2: 3 created, 0 updated, 0 deleted, 0 unchanged"),
        "{applied}"
    );
    let again = said(&["apply", &file, &admin]);
    assert!(
        again.starts_with("version 2: 0 created, 0 updated, 0 deleted, 3 unchanged"),
        "{again}"
    );

    assert_eq!(
        sluice(&["diff", &file, &admin, "--prune"]).status.code(),
        Some(0)
    );
    assert_eq!(sluice(&detailed).status.code(), Some(0));
    let changed = GOOD.replace("[/shop]", "[/store]");
    let changed = write(&directory, "changed.yaml", &changed);
    let difference = sluice(&["diff", &changed, &admin]);
    let difference = String::from_utf8(difference.stdout).unwrap();
    assert!(
        difference
            .contains("~ route shop of service shop\n    ~ paths: [\"/shop\"] -> [\"/store\"]\n"),
        "{difference}"
    );

    let json = said(&["dump", &admin, "--format", "json"]);
    assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    let dump = write(&directory, "dump.yaml", &said(&["dump", &admin]));
    let same = said(&["apply", &dump, &admin, "--prune"]);
    assert!(
        same.starts_with("version 2: 0 created, 0 updated, 0 deleted, 3 unchanged"),
        "{same}"
    );

    let log = said(&["log", &admin]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[1].contains("anna")
            && lines[1].contains("put route shop")
            && lines[1].ends_with("\"first\""),
        "{log}"
    );

    let empty = write(&directory, "empty.yaml", "_format_version: '3.0'\n");
    let kept = said(&["apply", &empty, &admin]);
    assert!(kept.contains("0 deleted"), "{kept}");
    let pruned = said(&["apply", &empty, &admin, "--prune"]);
    assert!(
        pruned.starts_with("version 3: 0 created, 0 updated, 3 deleted"),
        "{pruned}"
    );
    up.wait_for("/shop", 404);

    let nodes = said(&["nodes", &admin]);
    assert!(nodes.contains("following"), "{nodes}");
}

#[test]
fn several_files_are_one_transaction_and_variables_are_put_in() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(&directory.path().join("data"), &[]);
    let admin = format!("--admin-url={}", up.admin);
    let files = tempfile::tempdir().unwrap();
    write(
        &files,
        "1.yaml",
        "_format_version: '3.0'\nservices:\n- {name: a, host: ${{ env \"TEST_HOST\" }}}\n",
    );
    write(
        &files,
        "2.json",
        "{\"_format_version\": \"3.0\",\n\"routes\": [\n{\"name\": \"r\", \"paths\": [\"/r\"], \"service\": \"a\"}]}",
    );
    let directory = files.path().display().to_string();
    let run = |host: Option<&str>| {
        let mut command = Command::new(binary("sluice").unwrap());
        command
            .args(["apply", &directory, &admin])
            .env_remove("TEST_HOST");
        if let Some(host) = host {
            command.env("TEST_HOST", host);
        }
        command.output().unwrap()
    };
    refused(
        &run(None),
        "1.yaml:3: the environment variable 'TEST_HOST' is not set",
    );
    assert!(accepted(run(Some("h"))).starts_with("version 2: 2 created"));
    let broken = write(
        &files,
        "2.json",
        "{\"_format_version\": \"3.0\",\n\"routes\": [\n{\"name\": \"r\", \"paths\": [\"r\"]}]}",
    );
    refused(&run(Some("h")), &format!("{broken}:3:"));
}

#[test]
fn a_broken_file_is_told_with_every_mistake_and_its_line_and_nothing_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(&directory.path().join("data"), &[]);
    let admin = format!("--admin-url={}", up.admin);
    let text = "_format_version: '3.0'
services:
- name: shop
  host: shop.internal
  port: 70000
  colour: red
  routes:
  - name: shop
    paths: ['~/a(']
- name: two
  routes:
  - name: two
    methods: [get]
plugins:
- name: no-such-plugin
- name: rate-limiting
  service: missing
  config: {minute: 0}
";
    let file = write(&directory, "broken.yaml", text);
    let complaint = complaint(&["apply", &file, &admin]);
    for expected in [
        ":5:9: services[0].port: value should be between 0 and 65535",
        ":6:11: services[0].colour: unknown field",
        "services[0].routes[0].paths",
        "services[1].host: required field missing",
        "services[1].routes[0].methods",
        "plugins[0].name: plugin 'no-such-plugin' not enabled",
        "plugins[1].service: there is no service 'missing'",
    ] {
        assert!(
            complaint.contains(expected),
            "{expected} is not in\n{complaint}"
        );
    }
    // The first event may come a little later than the first answer.
    let began = Instant::now();
    let log = loop {
        let log = said(&["log", &admin]);
        if !log.is_empty() || began.elapsed() > PATIENCE {
            break log;
        }
    };
    assert_eq!(log.lines().count(), 1, "something was applied: {log}");
}

#[test]
fn keys_are_made_once_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("keys/a.key").display().to_string();
    let made = said(&["keys", "new", &key, "--name", "cp-a"]);
    assert!(
        made.starts_with("ed25519 ") && made.trim_end().ends_with("cp-a"),
        "{made}"
    );
    assert!(complaint(&["keys", "new", &key]).contains("could not use key file"));
    let shown = said(&[
        "keys",
        "show",
        &directory.path().join("keys").display().to_string(),
    ]);
    assert!(shown.starts_with(&made), "{shown}");
    let secret = std::fs::read_to_string(&key).unwrap();
    assert!(!shown.contains(secret.trim()), "the secret is shown");
}

/// A key's id, from the line `sluice keys` prints of it.
fn id_of(line: &str) -> String {
    let line = PublicLine::parse(line).expect("a line of a .pub file");
    line.key.id()
}

/// A directory with a root key, the keys of two control planes, and what replicas are given.
struct Office {
    directory: TempDir,
    /// The ids of `cp-a` and `cp-b`.
    ids: [String; 2],
}

impl Office {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let made = said(&["keys", "root", &path("root.key")]);
        assert!(made.starts_with("ed25519-root "), "{made}");
        let ids = ["a", "b"].map(|name| {
            let file = path(&format!("{name}.key"));
            id_of(&said(&[
                "keys",
                "new",
                &file,
                "--name",
                &format!("cp-{name}"),
            ]))
        });
        std::fs::create_dir(directory.path().join("trusted")).unwrap();
        std::fs::copy(path("root.pub"), path("trusted/root.pub")).unwrap();
        Self { directory, ids }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Makes a first keyring.
    fn begin(&self, more: &[&str]) -> Output {
        self.sign("root.key", false, more)
    }

    /// Makes the next keyring.
    fn next(&self, more: &[&str]) -> Output {
        self.sign("root.key", true, more)
    }

    fn sign(&self, root: &str, next: bool, more: &[&str]) -> Output {
        let (root, ring) = (self.path(root), self.path("trusted/keyring"));
        let mut arguments = vec!["keys", "sign", "--root", &root, "--out", &ring];
        if next {
            arguments.extend(["--from", &ring]);
        }
        arguments.extend(more);
        sluice(&arguments)
    }
}

fn accepted(output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(output: &Output, reason: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && complaint.contains(reason),
        "{complaint}"
    );
}

#[test]
fn a_keyring_is_signed_changed_and_shown_and_nonsense_is_refused() {
    let office = Office::new();
    let [a, b] = &office.ids;
    let (a_pub, b_pub) = (office.path("a.pub"), office.path("b.pub"));
    refused(&office.begin(&[]), "nothing to do");
    let root_pub = office.path("root.pub");
    refused(&office.begin(&["--add", &root_pub]), "never in a keyring");
    let one = accepted(office.begin(&["--add", &a_pub]));
    assert!(
        one.contains("keyring 1 signed") && one.contains(&format!("added: {a} (cp-a)")),
        "{one}"
    );
    refused(&office.begin(&["--add", &b_pub]), "is there already");

    refused(&office.next(&["--add", &a_pub]), "is active already");
    refused(&office.next(&["--retire", "cp-c"]), "no key 'cp-c'");
    let twice = ["--add", &b_pub, "--retire", "cp-b"];
    refused(&office.next(&twice), "named twice");
    let moved = ["--add", &b_pub, "--retire", "cp-a", "--note", "moved house"];
    let two = accepted(office.next(&moved));
    assert!(
        two.contains("keyring 2") && two.contains(&format!("retired: {a}")),
        "{two}"
    );
    let three = accepted(office.next(&["--revoke", a]));
    assert!(
        three.contains("keyring 3") && three.contains(&format!("revoked: {a}")),
        "{three}"
    );
    refused(&office.next(&["--add", &a_pub]), "is revoked, and stays so");
    refused(&office.next(&["--retire", "cp-a"]), "cannot be retired");

    let shown = said(&["keys", "show", &office.path("trusted")]);
    for expected in [
        "keyring 3 signed by root",
        "its signature is good",
        &format!("{a}  revoked   cp-a"),
        &format!("{b}  active    cp-b  moved house"),
    ] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    let ring = office.path("trusted/keyring");
    let json: Value = serde_json::from_str(&said(&["keys", "show", &ring, "--json"])).unwrap();
    assert_eq!(json["keyring"]["serial"], 3);
    assert_eq!(json["keyring"]["signature"], "good");
}

#[test]
fn only_a_root_signs_keyrings_and_another_root_only_when_told_of_the_first() {
    let office = Office::new();
    let (a_pub, b_pub) = (office.path("a.pub"), office.path("b.pub"));
    accepted(office.begin(&["--add", &a_pub]));
    let by = |root: &str, more: &[&str]| office.sign(root, true, more);
    refused(
        &by("a.key", &["--add", &b_pub]),
        "the key of a control plane",
    );
    let second = office.path("second.key");
    said(&["keys", "root", &second, "--name", "second"]);
    refused(
        &by("second.key", &["--add", &b_pub]),
        "not a keyring of this root",
    );
    let root_pub = office.path("root.pub");
    let handed_over = accepted(by("second.key", &["--from-root", &root_pub]));
    assert!(handed_over.contains("keyring 2"), "{handed_over}");
    let shown = said(&["keys", "show", &office.path("trusted")]);
    assert!(shown.contains("NOT CHECKED"), "{shown}");
    // A key that was only pinned is revoked by its file.
    let revoked = accepted(by("second.key", &["--revoke", &b_pub]));
    assert!(
        revoked.contains(&format!("revoked: {}", office.ids[1])),
        "{revoked}"
    );
}

#[test]
fn a_keyring_is_published_to_a_running_control_plane() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let data = directory.path().join("data");
    let up = Up::start(&data, &[]);
    let admin = format!("--admin-url={}", up.admin);
    let (root, ring) = (path("root.key"), path("keyring"));
    said(&["keys", "root", &root]);
    let own = data.join("keys/up.pub").display().to_string();
    said(&[
        "keys", "sign", "--root", &root, "--add", &own, "--out", &ring,
    ]);
    assert!(complaint(&["keys", "publish", &ring, &admin]).contains("no root key is pinned"));
    assert!(complaint(&["keys", "publish", &root, &admin]).contains("is not a keyring"));

    // The root is pinned while it runs; files are looked at every two seconds.
    std::fs::copy(path("root.pub"), data.join("keys/root.pub")).unwrap();
    let began = Instant::now();
    while !sluice(&["keys", "publish", &ring, &admin]).status.success() {
        assert!(began.elapsed() < PATIENCE, "the root is not taken up");
        std::thread::sleep(Duration::from_millis(50));
    }
    let again = said(&["keys", "publish", &ring, &admin]);
    assert!(
        again.contains("keyring 1 was in force there already"),
        "{again}"
    );
    let file = write(&directory, "shop.yaml", GOOD);
    assert!(said(&["apply", &file, &admin]).starts_with("version 2: 3 created"));
    up.wait_for("/shop", 401);

    let id = id_of(&std::fs::read_to_string(&own).unwrap());
    let signed = ["--from", &ring, "--out", &ring, "--retire", &id];
    said(&[&["keys", "sign", "--root", &root][..], &signed].concat());
    said(&["keys", "publish", &ring, &admin]);
    let empty = write(&directory, "empty.yaml", "_format_version: '3.0'\n");
    let refused = complaint(&["apply", &empty, &admin, "--prune"]);
    assert!(
        refused.contains(&format!("signing key {id} is retired")),
        "{refused}"
    );
    up.wait_for("/shop", 401);
}

#[test]
fn what_cannot_be_understood_is_refused_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, "up.toml", "admin_lisen = '127.0.0.1:1'\n");
    let output = sluice(&["up", "--config", &file]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("unknown key 'admin_lisen'; did you mean 'admin_listen'?"),
        "{said}"
    );
    assert!(
        complaint(&["nodes", "--admin-url=http://127.0.0.1:1"])
            .contains("could not reach the control plane")
    );
}
