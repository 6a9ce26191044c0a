//! Workspaces: entities of their own, under paths of their own.

use crate::server::Server;
use serde_json::{Value, json};

const DEFAULT_ID: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";

async fn with_workspace(name: &str) -> Server {
    let server = Server::start().await;
    server.create("/workspaces", json!({ "name": name })).await;
    server
}

#[tokio::test]
async fn default_is_there_without_having_been_made_and_can_be_described() {
    let server = Server::start().await;
    let (status, list) = server.check("GET", "/workspaces", Value::Null).await;
    assert_eq!(
        (status, list["data"][0]["id"].as_str()),
        (200, Some(DEFAULT_ID))
    );
    for path in [
        "/workspaces/default",
        &format!("/default/workspaces/{DEFAULT_ID}"),
    ] {
        let (status, found) = server.check("GET", path, Value::Null).await;
        assert_eq!((status, &found["name"]), (200, &json!("default")), "{path}");
    }
    let before = server.version();
    let comment = json!({"comment": "ours", "meta": {"color": "#fff"}});
    let (status, changed) = server.check("PATCH", "/workspaces/default", comment).await;
    assert_eq!(
        (status, &changed["comment"]),
        (200, &json!("ours")),
        "{changed}"
    );
    assert_eq!(
        (&changed["id"], server.version()),
        (&json!(DEFAULT_ID), before + 1)
    );
    let (_, list) = server.check("GET", "/workspaces", Value::Null).await;
    assert_eq!(list["data"], json!([changed]));
}

#[tokio::test]
async fn entities_of_one_workspace_are_not_seen_from_another() {
    let server = with_workspace("team").await;
    let service = json!({"name": "s", "host": "a.example"});
    let own = server.create("/team/services", service.clone()).await;
    server.create("/services", service.clone()).await;
    let (status, _) = server.check("POST", "/team/services", service).await;
    assert_eq!(status, 409, "unique in its workspace");
    let (_, list) = server.check("GET", "/team/services", Value::Null).await;
    assert_eq!(list["data"], json!([own]));
    let id = own["id"].as_str().unwrap();
    let missing = (404, json!({"message": "Not found"}));
    let path = format!("/services/{id}");
    assert_eq!(server.check("GET", &path, Value::Null).await, missing);
    assert_eq!(server.check("DELETE", &path, Value::Null).await.0, 204);
    let path = format!("/team{path}");
    assert_eq!(
        server.check("GET", &path, Value::Null).await,
        (200, own.clone())
    );

    let route = json!({"paths": ["/"], "service": {"id": id}});
    let (status, refused) = server.check("POST", "/routes", route.clone()).await;
    assert_eq!((status, &refused["code"]), (400, &json!(4)), "{refused}");
    server.create("/team/routes", route).await;
    let nested = format!("/team/services/{id}/routes");
    let (_, list) = server.check("GET", &nested, Value::Null).await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
    let tagged = json!({"username": "ann", "tags": ["vip"]});
    server.create("/team/consumers", tagged).await;
    for (path, count) in [
        ("/team/tags/vip", 1),
        ("/tags/vip", 0),
        ("/default/tags", 0),
    ] {
        let (_, list) = server.check("GET", path, Value::Null).await;
        assert_eq!(list["data"].as_array().map(Vec::len), Some(count), "{path}");
    }
    let (_, meta) = server
        .check("GET", "/workspaces/team/meta", Value::Null)
        .await;
    assert_eq!(
        (&meta["counts"]["services"], &meta["counts"]["upstreams"]),
        (&json!(1), &json!(0))
    );
}

#[tokio::test]
async fn pages_of_a_workspace_go_on_in_it() {
    let server = with_workspace("team").await;
    for name in ["a", "b", "c"] {
        server
            .create("/team/upstreams", json!({ "name": name }))
            .await;
    }
    let mut path = "/team/upstreams?size=2".to_owned();
    let mut names = Vec::new();
    loop {
        let (_, page) = server.check("GET", &path, Value::Null).await;
        let data = page["data"].as_array().unwrap();
        names.extend(
            data.iter()
                .map(|one| one["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
        assert!(path.starts_with("/team/upstreams?"), "{path}");
    }
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn unknown_workspaces_are_told_and_other_paths_stay_unknown() {
    let server = with_workspace("team").await;
    for (path, message) in [
        ("/nobody/services", "Workspace 'nobody' not found"),
        ("/n.b/services", "Workspace 'n.b' not found"),
        ("/nobody", "Not found"),
        ("/nobody/nothing", "Not found"),
        ("/workspaces/nobody", "Not found"),
        ("/team/workspaces", "Not found"),
        ("/team/workspaces/default", "Not found"),
    ] {
        let found = server.check("GET", path, Value::Null).await;
        assert_eq!(found, (404, json!({ "message": message })), "{path}");
    }
    let body = json!({"host": "a.example"});
    assert_eq!(server.check("POST", "/nobody/services", body).await.0, 404);
    let (status, own) = server
        .check("GET", "/team/workspaces/team", Value::Null)
        .await;
    assert_eq!((status, &own["name"]), (200, &json!("team")));
    assert_eq!(server.check("GET", "/team", Value::Null).await.0, 200);
    assert_eq!(
        server
            .check("GET", "/team/schemas/routes", Value::Null)
            .await
            .0,
        200
    );
}

/// Method and path, body, status, message.
const REFUSED: &[(&str, &str, u16, &str)] = &[
    (
        "POST /workspaces",
        r#"{"name": "team"}"#,
        409,
        "UNIQUE violation",
    ),
    (
        "POST /workspaces",
        r#"{"name": "default"}"#,
        409,
        "UNIQUE violation",
    ),
    (
        "POST /workspaces",
        r#"{"name": "services"}"#,
        400,
        "is reserved",
    ),
    (
        "POST /workspaces",
        r#"{"name": "a.b"}"#,
        400,
        "letters, digits",
    ),
    ("POST /workspaces", "{}", 400, "required field missing"),
    (
        "PATCH /workspaces/team",
        r#"{"name": "other"}"#,
        400,
        "Cannot rename a workspace",
    ),
    (
        "PUT /workspaces/team",
        r#"{"name": "other"}"#,
        400,
        "Cannot rename a workspace",
    ),
    (
        "PUT /workspaces/default",
        r#"{"name": "other"}"#,
        400,
        "Cannot rename a workspace",
    ),
    (
        "DELETE /workspaces/default",
        "null",
        400,
        "Cannot delete default workspace",
    ),
    (
        "DELETE /workspaces/team",
        "null",
        400,
        "Workspace is not empty",
    ),
];

#[tokio::test]
async fn workspaces_keep_their_names_and_what_is_in_them() {
    let server = with_workspace("team").await;
    server
        .create("/team/consumers", json!({"username": "ann"}))
        .await;
    let before = server.version();
    for (request, body, status, message) in REFUSED {
        let (method, path) = request.split_once(' ').unwrap();
        let body = serde_json::from_str(body).unwrap();
        let (found, answer) = server.check(method, path, body).await;
        assert_eq!(found, *status, "{request}: {answer}");
        let told = answer["message"].as_str().unwrap();
        assert!(told.contains(message), "{request}: {told}");
    }
    assert_eq!(server.version(), before, "nothing was appended");
    for path in [
        "/team/consumers/ann",
        "/workspaces/team",
        "/workspaces/team",
    ] {
        assert_eq!(
            server.check("DELETE", path, Value::Null).await.0,
            204,
            "{path}"
        );
    }
    let (status, _) = server.check("GET", "/team/consumers", Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_file_is_about_one_workspace() {
    let server = with_workspace("team").await;
    server
        .create("/services", json!({"name": "ours", "host": "a.example"}))
        .await;
    let file = "_format_version: '3.0'\nservices: [{name: theirs, host: b.example}]\n";
    let answer = server
        .send_text("POST", "/team/apply?prune=1", &[], file)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for (path, name) in [("/services", "ours"), ("/team/services", "theirs")] {
        let (_, list) = server.check("GET", path, Value::Null).await;
        assert_eq!(list["data"][0]["name"], name, "{path}");
        assert_eq!(list["data"].as_array().map(Vec::len), Some(1), "{path}");
    }
    let empty = "_format_version: '3.0'\n";
    server.send_text("POST", "/apply?prune=1", &[], empty).await;
    let (_, list) = server.check("GET", "/workspaces", Value::Null).await;
    assert_eq!(
        list["data"].as_array().map(Vec::len),
        Some(2),
        "not in files"
    );
}
