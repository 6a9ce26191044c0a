use super::*;

/// What is desired, warned of, and wrong; one a line.
fn check(text: &str, expected: &[&str]) {
    let document = match read(text) {
        Ok(document) => document,
        Err(mistakes) => Document {
            mistakes,
            ..Document::default()
        },
    };
    let desired = document.desired.iter().map(|desired| {
        let fields = Value::Object(desired.fields.clone());
        format!("{} {fields}", desired.place.path)
    });
    let warnings = document
        .warnings
        .iter()
        .map(|warning| format!("warning {warning}"));
    let mistakes = document.mistakes.iter().map(ToString::to_string);
    let found: Vec<String> = desired.chain(warnings).chain(mistakes).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn nested_entities_follow_their_parents() {
    check(
        "_format_version: '3.0'\nservices:\n- name: a\n  url: http://x\n  routes:\n  - name: r\n    paths: [/r]\n    plugins:\n    - name: key-auth\nconsumers:\n- username: u\n  keyauth_credentials:\n  - key: k\n",
        &[
            r#"services[0] {"name":"a","url":"http://x"}"#,
            r#"services[0].routes[0] {"name":"r","paths":["/r"]}"#,
            r#"services[0].routes[0].plugins[0] {"name":"key-auth"}"#,
            r#"consumers[0] {"username":"u"}"#,
            r#"consumers[0].keyauth_credentials[0] {"key":"k"}"#,
        ],
    );
}

#[test]
fn members_and_names_may_be_plain_texts() {
    check(
        "_format_version: '3.0'\nconsumers:\n- username: u\n  groups: [{name: gold}, silver]\nconsumer_groups:\n- name: gold\n  consumers: [u]\n  plugins: []\ncertificates:\n- cert: c\n  snis: [a.example, {name: b.example}]\n",
        &[
            r#"consumers[0] {"username":"u"}"#,
            r#"consumers[0].groups[0] {"consumer_group":{"name":"gold"}}"#,
            r#"consumers[0].groups[1] {"consumer_group":"silver"}"#,
            r#"consumer_groups[0] {"name":"gold"}"#,
            r#"consumer_groups[0].consumers[0] {"consumer":"u"}"#,
            r#"certificates[0] {"cert":"c"}"#,
            r#"certificates[0].snis[0] {"name":"a.example"}"#,
            r#"certificates[0].snis[1] {"name":"b.example"}"#,
        ],
    );
}

#[test]
fn old_formats_are_brought_to_the_new_one_with_a_remark() {
    check(
        "_format_version: 2.1\nroutes:\n- paths: [/a/b, '/a/\\d+', '~/c']\nplugins:\n- name: key-auth\n  run_on: first\n",
        &[
            r#"routes[0] {"paths":["/a/b","~/a/\\d+","~/c"]}"#,
            r#"plugins[0] {"name":"key-auth"}"#,
            r"warning 3:17: routes[0].paths[1]: before format 3.0 '/a/\d+' means '~/a/\d+'",
            "warning 6:11: plugins[0].run_on: means nothing since Kong 2 and is left out",
        ],
    );
    check(
        "_format_version: '3.0'\nroutes:\n- paths: ['/a/\\d+']\n",
        &[
            r#"routes[0] {"paths":["/a/\\d+"]}"#,
            r"warning 3:11: routes[0].paths[0]: '/a/\d+' is taken literally: a regex begins with ~",
        ],
    );
}

#[test]
fn every_document_has_its_own_format_and_all_share_tags_defaults_and_configurations() {
    check(
        "_format_version: '1.1'
_info: {select_tags: [a], defaults: {route: {https_redirect_status_code: 301, headers: {x: [y]}}}}
routes:
- {name: r, paths: ['/(a)']}
---
# nothing
---
_format_version: '3.0'
_info: {select_tags: [b, a], defaults: {route: {https_redirect_status_code: 302, strip_path: false}}}
_plugin_configs: {shared: {minute: 5, policy: local}}
routes:
- {name: r, paths: ['/(a)'], strip_path: null, headers: {z: [z]}}
plugins:
- {name: rate-limiting, _config: shared, config: {minute: 6}}
- {name: rate-limiting, _config: shared}
",
        &[
            r#"routes[0] {"headers":{"x":["y"]},"https_redirect_status_code":301,"name":"r","paths":["~/(a)"],"strip_path":false}"#,
            r#"routes[0] {"headers":{"x":["y"],"z":["z"]},"https_redirect_status_code":301,"name":"r","paths":["/(a)"],"strip_path":false}"#,
            r#"plugins[0] {"config":{"minute":6,"policy":"local"},"name":"rate-limiting"}"#,
            r#"plugins[1] {"config":{"minute":5,"policy":"local"},"name":"rate-limiting"}"#,
            "warning 4:21: routes[0].paths[0]: before format 3.0 '/(a)' means '~/(a)'",
            "warning 12:21: routes[0].paths[0]: '/(a)' is taken literally: a regex begins with ~",
        ],
    );
}

#[test]
fn remarks_are_not_read() {
    check(
        "_format_version: '3.0'\n_comment: [a]\n_ignore: {}\nservices:\n- {name: a, _comment: x, _ignore: [y]}\n",
        &[r#"services[0] {"name":"a"}"#],
    );
}

#[test]
fn fields_that_a_shorthand_overrules_and_deprecated_names_are_told() {
    check(
        "_format_version: '3.0'\nservices:\n- name: a\n  url: http://x/p\n  host: y\n  port: 80\n  path: null\nplugins:\n- name: rate-limiting\n  config: {minute: 1, redis_host: r}\n",
        &[
            r#"services[0] {"host":"y","name":"a","path":null,"port":80,"url":"http://x/p"}"#,
            r#"plugins[0] {"config":{"minute":1,"redis_host":"r"},"name":"rate-limiting"}"#,
            "warning 5:9: services[0].host: url is given too and wins, as in Kong (decK decides otherwise)",
            "warning 10:35: plugins[0].config.redis_host: is deprecated: it is config.redis.host now",
        ],
    );
}

#[test]
fn every_mistake_of_shape_is_told_at_once() {
    check(
        "services:\n- 7\n- name: a\n  id: x\n  routes:\n  - service: b\nwrong: 1\nservice: []\nroutes: {}\nplugins:\n- {name: p, name: q, _config: c}\n_info: {x: 1, select_tags: a, defaults: {y: {}}}\n_workspace: a b\ncustom_entities: []\n_transform: 2\n",
        &[
            r#"services[1] {"name":"a"}"#,
            r#"services[1].routes[0] {"service":"b"}"#,
            r#"plugins[0] {"name":"p"}"#,
            "11:13: name: the field is given twice, first on line 11",
            "12:12: _info.x: unknown field",
            "12:28: _info.select_tags: expected an array of strings",
            "12:45: _info.defaults.y: unknown kind: expected service, route, upstream, target, ...",
            "13:13: _workspace: is no name of a workspace",
            "15:13: _transform: expected a boolean",
            "1:1: _format_version: required field missing: add _format_version: \"3.0\"",
            "2:3: services[0]: expected a map",
            "4:7: services[1].id: expected a valid UUID",
            "6:14: services[1].routes[0].service: must not be given: the entity is nested in it",
            "7:8: wrong: unknown field; what is only there for its anchors can stand below _ignore",
            "8:10: service: unknown field; is it 'services'?",
            "9:9: routes: expected an array",
            "11:31: plugins[0]._config: there is no 'c' in _plugin_configs",
            "14:18: custom_entities: belongs to another edition of Kong and is not supported; remove it",
        ],
    );
    check(
        "",
        &["1:1: the file is empty: expected a map with _format_version"],
    );
    check("- 1\n", &["1:1: expected a map with _format_version"]);
}
