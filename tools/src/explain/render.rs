//! An explanation as people read it.

use crate::history::{short_time, text};
use serde_json::Value;

/// Shows an explanation.
pub(super) fn render(explanation: &Value, title: &str, colour: bool) -> String {
    let page = Page { colour };
    let mut shown = format!(
        "{}, at version {}: {}\n",
        page.bold(title),
        explanation["version"],
        outcome(explanation)
    );
    page.section(&mut shown, "", &page.way(explanation));
    let losers = page.others(&explanation["losers"]);
    page.section(&mut shown, "these routes fit, too", &losers);
    let near = match explanation["route"].is_object() {
        true => "these would take it first, but for",
        false => "these would take it, but for",
    };
    page.section(&mut shown, near, &page.others(&explanation["near_misses"]));
    page.section(&mut shown, "plugins, in order", &page.plugins(explanation));
    let left_out = page.left_out(explanation);
    page.section(&mut shown, "plugins that do not run", &left_out);
    page.section(&mut shown, "could not be taken up", &rejected(explanation));
    for note in list(&explanation["notes"]) {
        shown += &format!("\nnote: {}", text(note));
    }
    shown
}

/// `sent to http://...`, `answered with 404: ...`
fn outcome(explanation: &Value) -> String {
    let outcome = &explanation["outcome"];
    match text(&outcome["kind"]) {
        "answered" => {
            let location = match text(&outcome["location"]) {
                "" => String::new(),
                location => format!(", which leads to {location}"),
            };
            let (status, message) = (&outcome["status"], text(&outcome["message"]));
            format!("answered with {status} ({message}){location}")
        }
        _ => format!("sent to {}", text(&explanation["sent"]["url"])),
    }
}

type Row = Vec<String>;

struct Page {
    colour: bool,
}

impl Page {
    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    /// A heading and rows below it; nothing if there are none.
    fn section(&self, shown: &mut String, heading: &str, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let indent = match heading {
            "" => "",
            heading => {
                *shown += &format!("\n{}\n", self.bold(heading));
                "  "
            }
        };
        let mut widths: Vec<usize> = Vec::new();
        for row in rows {
            // A row of one cell is a sentence.
            for (column, cell) in row.iter().enumerate().filter(|_| row.len() > 1) {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width),
                }
            }
        }
        for row in rows {
            let mut line = indent.to_owned();
            for (column, cell) in row.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                let last = column + 1 == row.len();
                let padded = match last {
                    true => cell.clone(),
                    false => format!("{cell:<width$}  "),
                };
                line += &match last && row.len() > 1 && cell.starts_with(VERSION) {
                    true => self.paint("33", &padded),
                    false => padded,
                };
            }
            *shown += line.trim_end();
            shown.push('\n');
        }
    }

    /// From the route to the targets.
    fn way(&self, explanation: &Value) -> Vec<Row> {
        let mut rows = Vec::new();
        let route = &explanation["route"];
        if route.is_object() {
            let path = match text(&route["path"]) {
                "" => String::new(),
                path => format!(", by its path {path}"),
            };
            let what = format!("{}{path}", name(route));
            rows.push(row("route", &what, route));
        }
        let service = &explanation["service"];
        if service.is_object() {
            let (protocol, host) = (text(&service["protocol"]), text(&service["host"]));
            let port = &service["port"];
            let path = text(&service["path"]);
            let to = match explanation["upstream"].is_object() {
                true => format!("{protocol}://{host}{path}"),
                false => format!("{protocol}://{host}:{port}{path}"),
            };
            let off = match service["enabled"] == false {
                true => ", disabled",
                false => "",
            };
            let what = format!("{}, {to}{off}", name(service));
            rows.push(row("service", &what, service));
            let limits = format!(
                "{} retries, timeouts {}/{}/{} ms (connect/write/read)",
                service["retries"],
                service["connect_timeout"],
                service["write_timeout"],
                service["read_timeout"]
            );
            rows.push(vec![String::new(), limits]);
        }
        let upstream = &explanation["upstream"];
        if upstream.is_object() {
            let what = format!("{}, {}", name(upstream), text(&upstream["algorithm"]));
            rows.push(row("upstream", &what, upstream));
            let targets = list(&upstream["targets"]["data"]);
            for one in targets {
                rows.push(row("target", &target(one), one));
            }
            let more = more(&upstream["targets"]);
            rows.extend(more.map(|more| vec!["target".to_owned(), more]));
        }
        let sent = &explanation["sent"];
        if let Some(host) = sent["host"].as_str() {
            rows.push(vec!["host".to_owned(), host.to_owned()]);
        }
        rows
    }

    fn others(&self, others: &Value) -> Vec<Row> {
        let each = list(&others["data"]).iter();
        let mut rows: Vec<Row> = each
            .map(|other| vec![name(other), text(&other["reason"]).to_owned(), who(other)])
            .collect();
        rows.extend(more(others).map(|more| vec![more]));
        rows
    }

    fn plugins(&self, explanation: &Value) -> Vec<Row> {
        let each = list(&explanation["plugins"]).iter();
        each.map(|plugin| {
            let phases: Vec<&str> = list(&plugin["phases"]).iter().map(text).collect();
            vec![
                name(plugin),
                format!("of {}", text(&plugin["of"])),
                format!("priority {}", plugin["priority"]),
                phases.join(", "),
                who(plugin),
            ]
        })
        .collect()
    }

    fn left_out(&self, explanation: &Value) -> Vec<Row> {
        let each = list(&explanation["plugins_left_out"]).iter();
        each.map(|plugin| {
            let of = format!("of {}", text(&plugin["of"]));
            let reason = text(&plugin["reason"]).to_owned();
            vec![name(plugin), of, reason, who(plugin)]
        })
        .collect()
    }
}

fn row(kind: &str, what: &str, entity: &Value) -> Row {
    vec![kind.to_owned(), what.to_owned(), who(entity)]
}

/// `10.0.0.1:80, weight 100, healthy`
fn target(target: &Value) -> String {
    let mut shown = format!("{}, weight {}", name(target), target["weight"]);
    for one in list(&target["addresses"]) {
        let health = text(&one["health"]);
        shown += &match text(&one["address"]) {
            "" => format!(", {health}"),
            address if address == name(target) => format!(", {health}"),
            address => format!(", {address} {health}"),
        };
    }
    shown
}

fn rejected(explanation: &Value) -> Vec<Row> {
    let rejected = &explanation["rejected"];
    let each = list(&rejected["data"]).iter();
    let mut rows: Vec<Row> = each
        .map(|one| {
            let part = match one["takes_part"] == true {
                true => "takes part as it was before",
                false => "may have taken part",
            };
            vec![
                format!("{} {}", text(&one["kind"]), text(&one["id"])),
                format!("{part}: {}", text(&one["reason"])),
                format!("{VERSION} {}", one["version"]),
            ]
        })
        .collect();
    rows.extend(more(rejected).map(|more| vec![more]));
    rows
}

const VERSION: &str = "version";

/// `version 812 by anna, 2026-11-23T10:00:00Z, "why"`; what is known of it.
fn who(entity: &Value) -> String {
    let changed = &entity["changed"];
    if !changed.is_object() {
        return format!("{VERSION} {}", entity["version"]);
    }
    let (actor, time) = (text(&changed["actor"]), short_time(&changed["time"]));
    let reason = match text(&changed["reason"]) {
        "" => String::new(),
        reason => format!(", \"{reason}\""),
    };
    format!(
        "{VERSION} {} by {actor}, {time}{reason}",
        changed["version"]
    )
}

fn name(entity: &Value) -> String {
    let own = entity["name"].as_str();
    own.unwrap_or_else(|| text(&entity["id"])).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `and 3 more`, if a list was cut.
fn more(listed: &Value) -> Option<String> {
    let shown = u64::try_from(list(&listed["data"]).len()).unwrap_or(u64::MAX);
    let more = listed["total"].as_u64()?.saturating_sub(shown);
    (more > 0).then(|| format!("and {more} more"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn explanation() -> Value {
        let by = |version: u64, actor: &str| json!({"version": version, "time": "2026-11-23T10:00:00.123456Z", "actor": actor, "reason": "why"});
        json!({
            "version": 12,
            "outcome": {"kind": "sent"},
            "route": {"name": "api", "path": "/api", "version": 5, "changed": by(5, "ann")},
            "losers": {"data": [{"id": "17", "name": null, "reason": "its path / is shorter than /api", "version": 3}], "total": 4},
            "near_misses": {"data": [], "total": 0},
            "service": {
                "name": "shop", "protocol": "http", "host": "pool", "port": 80, "path": null, "enabled": true, "retries": 5,
                "connect_timeout": 1, "write_timeout": 2, "read_timeout": 3, "version": 4, "changed": null,
            },
            "plugins": [{
                "name": "cors", "of": "everything", "priority": 2000, "phases": ["access", "response"], "version": 6,
                "changed": by(6, "bob"),
            }],
            "plugins_left_out": [{"name": "cors", "of": "the service", "reason": "disabled", "version": 2}],
            "sent": {"url": "http://pool/x", "host": null},
            "upstream": {
                "name": "pool", "algorithm": "round-robin", "version": 4,
                "targets": {"total": 1, "data": [{
                    "name": "a:80", "weight": 7, "version": 4,
                    "addresses": [{"address": "10.0.0.1:80", "health": "healthy"}, {"address": null, "health": "unresolved"}],
                }]},
            },
            "rejected": {"data": [{"kind": "route", "id": "17", "version": 9, "reason": "bad", "takes_part": true}], "total": 1},
            "notes": ["no consumer"],
        })
    }

    #[test]
    fn each_part_stands_in_a_line_with_who_changed_it() {
        let expected = "\
GET http://a/x, at version 12: sent to http://pool/x
route     api, by its path /api                              version 5 by ann, 2026-11-23T10:00:00Z, \"why\"
service   shop, http://pool                                  version 4
          5 retries, timeouts 1/2/3 ms (connect/write/read)
upstream  pool, round-robin                                  version 4
target    a:80, weight 7, 10.0.0.1:80 healthy, unresolved    version 4

these routes fit, too
  17  its path / is shorter than /api  version 3
  and 3 more

plugins, in order
  cors  of everything  priority 2000  access, response  version 6 by bob, 2026-11-23T10:00:00Z, \"why\"

plugins that do not run
  cors  of the service  disabled  version 2

could not be taken up
  route 17  takes part as it was before: bad  version 9

note: no consumer";
        let shown = render(&explanation(), "GET http://a/x", false);
        assert_eq!(shown, expected);
        let coloured = render(&explanation(), "GET http://a/x", true);
        assert!(coloured.contains("\u{1b}[33mversion 3\u{1b}[0m"));
    }

    #[test]
    fn an_answer_of_the_gateway_is_shown_with_where_it_leads() {
        let mut told = explanation();
        told["outcome"] =
            json!({"kind": "answered", "status": 301, "message": "m", "location": "https://a/"});
        let shown = outcome(&told);
        assert_eq!(shown, "answered with 301 (m), which leads to https://a/");
    }
}
