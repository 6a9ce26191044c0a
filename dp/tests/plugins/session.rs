//! `session`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;
use std::sync::atomic::{AtomicU64, Ordering};

fn session(config: Value) -> Entity {
    let mut all = json!({ "secret": "a secret" });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    global(30, "session", all)
}

/// Alice by a key, a session, or nobody.
fn entities(config: Value) -> Vec<Entity> {
    let mut all = key_auth(json!({ "anonymous": "guest" }));
    all.push(consumer(20, json!({ "username": "guest" })));
    all.push(session(config));
    all
}

/// The cookies a response sets: name, value, and what follows it.
fn cookies(reply: &Reply) -> Vec<(String, String, String)> {
    let all = reply.headers.get_all("set-cookie").iter();
    let parts = all.map(|cookie| {
        let text = cookie.to_str().unwrap();
        let (pair, attributes) = text.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned(), attributes.to_owned())
    });
    parts.collect()
}

/// What a browser sends after a response.
fn jar(reply: &Reply) -> String {
    let pairs = cookies(reply)
        .into_iter()
        .map(|(name, value, _)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("; ")
}

async fn with_cookie(gateway: &Gateway, method: &str, path: &str, cookie: &str) -> Reply {
    ask(gateway, method, path, &[("cookie", cookie)]).await
}

fn who(reply: &Reply) -> Option<String> {
    reply.received("x-consumer-username")
}

#[tokio::test]
async fn who_is_known_once_is_known_by_the_cookie() {
    let (_origin, gateway) = gateway_with(&entities(json!({ "cookie_name": "s" }))).await;
    let login = ask(&gateway, "GET", "/", &[("apikey", "secret")]).await;
    assert_eq!(who(&login).as_deref(), Some("alice"));
    let [(name, value, attributes)] = &*cookies(&login) else {
        panic!("{login:?}");
    };
    assert_eq!(
        (&**name, &**attributes),
        ("s", "Path=/; SameSite=Strict; Secure; HttpOnly")
    );
    let reply = with_cookie(&gateway, "GET", "/", &format!("x=y; s={value}")).await;
    assert_eq!(who(&reply).as_deref(), Some("alice"));
    assert_eq!(
        reply.received("x-consumer-custom-id").as_deref(),
        Some("a-1")
    );
    let id = uuid::Uuid::from_u128(11).to_string();
    assert_eq!(reply.received("x-credential-identifier"), Some(id));
    assert_eq!(reply.received("x-anonymous-consumer"), None);
    assert_eq!(cookies(&reply), [], "a young session is not written again");
    // Neither nobody's session nor a forged one. (Not its last letter is changed: some of the bits it stands for may be no one's.)
    let (first, rest) = value.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    for cookie in [
        "s=",
        "s=AAAA",
        &*format!("s={other}{rest}"),
        &*format!("t={value}"),
    ] {
        let reply = with_cookie(&gateway, "GET", "/", cookie).await;
        assert_eq!(who(&reply).as_deref(), Some("guest"), "{cookie}");
        assert_eq!(cookies(&reply), [], "{cookie}");
    }
    // Another secret, or another audience.
    for config in [
        json!({ "secret": "other", "cookie_name": "s" }),
        json!({ "audience": "other", "cookie_name": "s" }),
    ] {
        gateway.apply(&[session(config)]);
        let reply = with_cookie(&gateway, "GET", "/", &format!("s={value}")).await;
        assert_eq!(who(&reply).as_deref(), Some("guest"));
    }
}

#[tokio::test]
async fn a_session_ends_with_its_consumer_and_follows_who_comes_after() {
    let (_origin, gateway) = gateway_with(&entities(json!({}))).await;
    let cookie = jar(&ask(&gateway, "GET", "/", &[("apikey", "secret")]).await);
    gateway.remove(&[consumer(10, json!({}))]);
    let reply = with_cookie(&gateway, "GET", "/", &cookie).await;
    assert_eq!(who(&reply).as_deref(), Some("guest"));
    let (name, value, attributes) = cookies(&reply).remove(0);
    assert_eq!((&*name, &*value), ("session", ""));
    assert!(attributes.contains("Max-Age=0"), "{attributes}");
}

#[tokio::test]
async fn clients_can_log_out() {
    let config = json!({ "read_body_for_logout": true, "logout_methods": ["POST", "DELETE"] });
    let (_origin, gateway) = gateway_with(&entities(config)).await;
    let cookie = jar(&ask(&gateway, "GET", "/", &[("apikey", "secret")]).await);
    let form = "application/x-www-form-urlencoded";
    for (method, path, kind, body, is_out) in [
        ("DELETE", "/?session_logout", form, "", true),
        ("POST", "/?a=b&session_logout=1", form, "", true),
        ("POST", "/", form, "session_logout=1", true),
        (
            "POST",
            "/",
            "application/json",
            "{\"session_logout\":true}",
            true,
        ),
        ("GET", "/?session_logout=1", form, "", false),
        ("PUT", "/?session_logout=1", form, "", false),
        ("POST", "/?logout=1", form, "a=session_logout", false),
        ("POST", "/", "text/plain", "session_logout=1", false),
    ] {
        let headers = [("cookie", &*cookie), ("content-type", kind)];
        let reply = send(&gateway, method, path, &headers, full(body)).await;
        assert_eq!(reply.status, 200);
        if is_out {
            assert!(reply.body.is_empty(), "{method} {path}: {reply:?}");
            assert!(cookies(&reply)[0].2.contains("Max-Age=0"));
        } else {
            assert_eq!(who(&reply).as_deref(), Some("alice"), "{method} {path}");
            assert_eq!(reply.json()["body"], body);
            assert_eq!(cookies(&reply), []);
        }
    }
    // Who has no session cannot leave it.
    let reply = ask(&gateway, "DELETE", "/?session_logout", &[]).await;
    assert_eq!(who(&reply).as_deref(), Some("guest"));
    // Bodies are not read if that is not asked for.
    gateway.apply(&[session(json!({}))]);
    let headers = [("cookie", &*cookie), ("content-type", form)];
    let reply = send(&gateway, "POST", "/", &headers, full("session_logout=1")).await;
    assert_eq!(who(&reply).as_deref(), Some("alice"));
}

/// A gateway with this clock.
async fn clocked(clock: fn() -> u64, config: Value) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let options = Options {
        clock,
        ..Options::default()
    };
    let gateway = Gateway::with(options, &[&base[..], &entities(config)].concat());
    (origin, gateway)
}

/// What clients are told of a session's time.
fn told(reply: &Reply) -> [Option<u64>; 4] {
    let names = [
        "timeout",
        "idling-timeout",
        "rolling-timeout",
        "absolute-timeout",
    ];
    let header = |name| reply.header(&format!("session-{name}"));
    names.map(|name| header(name).map(|text| text.parse().unwrap()))
}

static CLOCK: AtomicU64 = AtomicU64::new(NOW);

#[tokio::test]
async fn a_session_goes_on_while_it_is_used_until_its_end() {
    let config = json!({
        "idling_timeout": 100, "rolling_timeout": 400, "absolute_timeout": 1000, "cookie_same_site": "Default",
        "cookie_secure": false, "cookie_http_only": false, "cookie_domain": "a.test", "cookie_path": "/p",
        "response_headers": ["id", "audience", "subject", "timeout", "idling-timeout", "rolling-timeout", "absolute-timeout"],
        "request_headers": ["subject", "timeout"],
    });
    let (_origin, gateway) = clocked(|| CLOCK.load(Ordering::SeqCst), config).await;
    let mut reply = ask(&gateway, "GET", "/", &[("apikey", "secret")]).await;
    assert_eq!(cookies(&reply)[0].2, "Path=/p; Domain=a.test");
    let id = |reply: &Reply| reply.header("session-id").unwrap().to_owned();
    assert_eq!(told(&reply), [100, 100, 400, 1000].map(Some));
    assert_eq!(reply.header("session-subject"), Some("alice"));
    assert_eq!(reply.header("session-audience"), Some("default"));
    let (mut cookie, mut known) = (jar(&reply), id(&reply));
    // Seconds after the request before, whether the cookie is written again, whether its id is new, what is told.
    for (later, is_set, is_new, expected) in [
        (24, false, false, [76, 76, 376, 976]),
        (1, true, false, [100, 100, 375, 975]),
        (99, true, false, [100, 100, 276, 876]),
        (99, true, false, [100, 100, 177, 777]),
        (77, true, true, [100, 100, 400, 700]),
        (90, true, false, [100, 100, 310, 610]),
        (90, true, false, [100, 100, 220, 520]),
        (90, true, false, [100, 100, 130, 430]),
        (90, true, true, [100, 100, 400, 340]),
        (90, true, false, [100, 100, 310, 250]),
        (90, true, false, [100, 100, 220, 160]),
        (90, true, false, [70, 100, 130, 70]),
    ] {
        CLOCK.fetch_add(later, Ordering::SeqCst);
        reply = with_cookie(&gateway, "GET", "/", &cookie).await;
        assert_eq!(who(&reply).as_deref(), Some("alice"));
        assert_eq!(told(&reply), expected.map(Some));
        assert_eq!(reply.received("session-subject").as_deref(), Some("alice"));
        assert_eq!(
            reply.received("session-timeout"),
            Some(expected[0].to_string())
        );
        assert_eq!(
            (cookies(&reply).is_empty(), known == id(&reply)),
            (!is_set, !is_new),
            "{expected:?}"
        );
        known = id(&reply);
        if is_set {
            cookie = jar(&reply);
        }
    }
    CLOCK.fetch_add(70, Ordering::SeqCst);
    reply = ask(
        &gateway,
        "GET",
        "/",
        &[("cookie", &cookie), ("session-subject", "forged")],
    )
    .await;
    assert_eq!(who(&reply).as_deref(), Some("guest"));
    assert_eq!(reply.received("session-subject"), None);
    assert_eq!(told(&reply), [None; 4]);
}

static LONG_CLOCK: AtomicU64 = AtomicU64::new(NOW);

#[tokio::test]
async fn a_client_is_remembered_after_its_session() {
    let config = json!({ "remember": true, "remember_rolling_timeout": 1000, "remember_absolute_timeout": 1500, "idling_timeout": 100 });
    let (_origin, gateway) = clocked(|| LONG_CLOCK.load(Ordering::SeqCst), config).await;
    let reply = ask(&gateway, "GET", "/", &[("apikey", "secret")]).await;
    let set = cookies(&reply);
    assert_eq!([&*set[0].0, &*set[1].0], ["session", "remember"]);
    assert!(set[1].2.ends_with("; Max-Age=1000"), "{}", set[1].2);
    LONG_CLOCK.fetch_add(900, Ordering::SeqCst);
    let reply = with_cookie(&gateway, "GET", "/", &jar(&reply)).await;
    assert_eq!(who(&reply).as_deref(), Some("alice"));
    let jar_now = jar(&reply);
    assert_eq!(cookies(&reply).len(), 2);
    let reply = with_cookie(&gateway, "GET", "/", &jar_now).await;
    assert_eq!(
        (who(&reply).as_deref(), cookies(&reply).len()),
        (Some("alice"), 0)
    );
    LONG_CLOCK.fetch_add(600, Ordering::SeqCst);
    let reply = with_cookie(&gateway, "GET", "/", &jar_now).await;
    assert_eq!(
        who(&reply).as_deref(),
        Some("guest"),
        "nothing is remembered for ever"
    );
    let reply = ask(
        &gateway,
        "DELETE",
        "/?session_logout",
        &[("apikey", "secret")],
    )
    .await;
    let cookie = jar(&reply);
    let reply = with_cookie(&gateway, "DELETE", "/?session_logout", &cookie).await;
    assert!(cookies(&reply).iter().all(|(_, value, _)| value.is_empty()));
    assert_eq!(cookies(&reply).len(), 2);
}

#[tokio::test]
async fn sessions_that_cannot_be_kept_or_kept_secret_are_refused() {
    let (_origin, gateway) = gateway_with(&[]).await;
    for (config, why) in [
        (json!({ "storage": "kong" }), "use `cookie`"),
        (
            json!({ "secret": "{vault://env/no-such-secret}" }),
            "no variable NO_SUCH_SECRET",
        ),
        (json!({ "secret": null }), "is empty"),
    ] {
        let refused = gateway.try_apply(&[session(config)]);
        assert!(refused[0].contains(why), "{refused:?}");
    }
}

#[tokio::test]
async fn session_is_consistent() {
    // A cookie of the even secret.
    let (_origin, gateway) = gateway_with(&entities(json!({ "secret": "even", "idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 0 }))).await;
    let cookie = jar(&ask(&gateway, "GET", "/", &[("apikey", "secret")]).await);
    is_consistent(
        |n| {
            let secret = if n % 2 == 0 { "even" } else { "odd" };
            let config = json!({ "secret": secret, "idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 0, "response_headers": ["audience"] });
            vec![
                consumer(10, json!({ "username": format!("v{n}") })),
                consumer(20, json!({ "username": format!("w{n}") })),
                global(12, "key-auth", json!({ "anonymous": uuid::Uuid::from_u128(20).to_string() })),
                global(30, "session", config),
            ]
        },
        async |client: &mut Client| client.get_with("/", &[("cookie", &cookie)]).await,
        |reply| {
            let is_known = reply.received("x-anonymous-consumer").is_none();
            assert_eq!(is_known, reply.header("session-audience").is_some(), "{reply:?}");
            let shown = numbers(&[who(reply)], if is_known { "v" } else { "w" });
            assert_eq!(shown[0].is_multiple_of(2), is_known, "{reply:?}");
            shown
        },
    )
    .await;
}
