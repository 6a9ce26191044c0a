use super::*;

const NO_CONSUMER: &[&str] = &[
    "acl",
    "acme",
    "ai-request-transformer",
    "basic-auth",
    "bot-detection",
    "cors",
    "hmac-auth",
    "jwt",
    "key-auth",
    "ldap-auth",
    "oauth2",
    "session",
    "standard-webhooks",
];

/// Those that run on connections too.
const ANY_PROTOCOL: &[&str] = &[
    "azure-functions",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "http-log",
    "ip-restriction",
    "loggly",
    "prometheus",
    "proxy-cache",
    "request-transformer",
    "session",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

#[test]
fn the_table_has_every_plugin_kong_bundles_in_order() {
    let names: Vec<_> = PLUGINS.iter().map(|plugin| plugin.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.len(), 45);
}

#[test]
fn scopes_a_plugin_cannot_have_are_refused() {
    let scope = json!({"id": uuid::Uuid::nil()});
    for plugin in available() {
        let name = plugin.name;
        let input = json!({"name": name, "consumer": scope, "service": scope, "route": scope});
        let errors = completed(input, Base::New).err().unwrap_or_default();
        let expected = |refused: bool| refused.then(|| json!("value must be null"));
        let consumer = expected(NO_CONSUMER.contains(&name));
        let place = expected(name == "acme");
        assert_eq!(errors.get("consumer"), consumer.as_ref(), "{name}");
        assert_eq!(errors.get("service"), place.as_ref(), "{name}");
        assert_eq!(errors.get("route"), place.as_ref(), "{name}");
        let groups = plugin.no_scope.contains(&"consumer_group");
        assert_eq!(groups, NO_CONSUMER.contains(&name), "{name}");
    }
}

#[test]
fn plugins_run_on_the_protocols_they_can() {
    for plugin in available() {
        let name = plugin.name;
        let protocols = |protocols: Value| {
            let input = json!({"name": name, "protocols": protocols});
            let errors = completed(input, Base::New).err().unwrap_or_default();
            errors.get("protocols").cloned()
        };
        let streams = protocols(json!(["tcp", "tls", "tls_passthrough", "udp"]));
        assert_eq!(streams.is_none(), ANY_PROTOCOL.contains(&name), "{name}");
        assert_eq!(
            protocols(json!(["grpc", "grpcs", "http", "https"])),
            None,
            "{name}"
        );
        let known = match ANY_PROTOCOL.contains(&name) {
            true => "grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp",
            false => "grpc, grpcs, http, https",
        };
        assert_eq!(
            protocols(json!(["ws"])),
            Some(json!([one_of(known)])),
            "{name}"
        );
        let default = match name {
            "ip-restriction" => json!(["http", "https", "tcp", "tls", "grpc", "grpcs"]),
            _ => json!(["grpc", "grpcs", "http", "https"]),
        };
        let literal = plugin.protocols.default.map(Literal::value);
        assert_eq!(literal, Some(default), "{name}");
    }
}
