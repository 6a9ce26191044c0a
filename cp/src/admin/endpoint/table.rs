//! The paths that do not follow from descriptors.

use super::operation::{
    AT, Argument, DRY_RUN, Gives, OFFSET, Operation, SIZE, Takes, Verb, WRITE_PROBLEMS,
};
use super::{Described, Endpoint, Need};
use crate::access::Act;
use sluice_schema::kind::Kind;

/// What they name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Fixed {
    Apply,
    Blame,
    Cache,
    CacheEntry,
    ClusterLogLevel,
    ClusteringStatus,
    Config,
    DataPlane,
    DataPlanes,
    Dump,
    Endpoints,
    History,
    LogDiff,
    LogEvent,
    LogEvents,
    LogHead,
    LogKeyring,
    LogLevel,
    LogLevelChange,
    LogState,
    LogWatch,
    Metrics,
    Nodes,
    NodesWait,
    OpenApi,
    PluginSchema,
    PluginsEnabled,
    Rollback,
    Root,
    Schema,
    Snapshots,
    Secrets,
    Reseal,
    Status,
    StatusDns,
    StatusReady,
    Tagged,
    Tags,
    TargetHealth,
    TargetsAll,
    Timers,
    Trim,
    Undo,
    UpstreamHealth,
    Validate,
    ValidatePlugin,
    ValidateVault,
    VaultSchema,
    WorkspaceMeta,
}

struct Row {
    path: &'static str,
    fixed: Fixed,
    kind: Option<Kind>,
    operations: &'static [Operation],
}

const fn row(path: &'static str, fixed: Fixed, operations: &'static [Operation]) -> Row {
    Row {
        path,
        fixed,
        kind: None,
        operations,
    }
}

const fn about(kind: Kind, row: Row) -> Row {
    Row {
        kind: Some(kind),
        ..row
    }
}

const VERSION: Argument = Argument::text("version", "The version, or latest (the default)");
const QUORUM: Argument = Argument::text("quorum", "all (the default), N% or N nodes");
const GROUP: Argument = Argument::text(
    "group",
    "Only data planes of this group; all of them if not given",
);
const WAIT_TIMEOUT: Argument = Argument::text(
    "timeout",
    "Seconds (30) or milliseconds (500ms) to wait, 600 at most",
);
const LOG_PROBLEMS: &[u16] = &[400, 403, 404, 503];
const PAST_PROBLEMS: &[u16] = &[400, 403, 404, 410, 503];
/// What bringing something back may answer if it does not work.
const RESTORE_PROBLEMS: &[u16] = &[400, 403, 404, 408, 409, 410, 413, 422, 503];
const PRUNE: Argument = Argument::flag("prune", "Delete what is not in the file");
const FROM: Argument = Argument::number("from", "The first version");
const TO: Argument = Argument::number("to", "The last version");
const NEWEST: Argument = Argument::flag("newest", "The newest first");
const ENTITY: Argument = Argument::text(
    "entity",
    "Only events that touched this entity: its kind, and its name or id, as in service/checkout; also one that is gone",
);
const KIND: Argument = Argument::text("kind", "Only events that touched entities of this kind");
const WORKSPACE: Argument = Argument::text(
    "workspace",
    "Only what is in this workspace; all of them if not given",
);
const ACTOR: Argument = Argument::text("actor", "Only events by this actor");
const REASON: Argument = Argument::text("reason", "Only events with this in their reason");
const SINCE: Argument = Argument::text(
    "since",
    "Only events from this time on: in the form of RFC 3339, or how long ago (10m, 2h, 7d)",
);
const UNTIL: Argument = Argument::text("until", "Only events up to this time");
const BODIES: Argument = Argument::flag(
    "bodies",
    "Show bodies as they are stored, with their secrets",
);
const FROM_MOMENT: Argument = Argument::text("from", "A version, a time, how long ago, or latest");
const TO_MOMENT: Argument = Argument::text("to", "The same; latest if not given");
const FORMAT: Argument = Argument::text("format", "json or yaml");
const SELECT_TAGS: Argument = Argument::text("select_tags", "Only entities with all of these tags");
const FOLLOW: Argument = Argument::flag("follow", "Go on with what comes, one event a line");
const TIMEOUT: Argument = Argument::number(
    "timeout",
    "Seconds until the level before is put back, 60 if not given; 0 for never",
);
const BALANCER_HEALTH: Argument = Argument::flag(
    "balancer_health",
    "The upstream as a whole instead of its targets",
);
const CHECK_HASH: Argument =
    Argument::flag("check_hash", "Answer 304 if the file would change nothing");

const SET_LEVEL: Operation =
    Operation::change(Verb::Put, "Change the log level for a while").query(&[TIMEOUT]);
const SET_HEALTH: &[Operation] = &[
    Operation::change(Verb::Post, "Set a target's health by hand").gives(204, Gives::Nothing),
    Operation::change(Verb::Put, "Set a target's health by hand").gives(204, Gives::Nothing),
];
const VALIDATE: Operation =
    Operation::change(Verb::Post, "Whether an entity would be valid by itself")
        .takes(Takes::Object);
const SCHEMA: &[Operation] = &[Operation::get("A descriptor in Kong's form")];

/// The first that fits is the one.
const TABLE: &[Row] = &[
    row(
        "/",
        Fixed::Root,
        &[Operation::get("What this control plane is")],
    ),
    row("/status", Fixed::Status, &[Operation::get("How it is")]),
    row(
        "/status/ready",
        Fixed::StatusReady,
        &[Operation::get("Whether it should get requests").others(&[403, 503])],
    ),
    row(
        "/status/dns",
        Fixed::StatusDns,
        &[Operation::get("How its DNS client is: it has none")],
    ),
    row(
        "/endpoints",
        Fixed::Endpoints,
        &[Operation::get("Every path there is")],
    ),
    row(
        "/openapi.json",
        Fixed::OpenApi,
        &[Operation::get("This Admin API as an OpenAPI document")],
    ),
    row(
        "/metrics",
        Fixed::Metrics,
        &[Operation::get("Metrics in Prometheus' text format")
            .gives(200, Gives::Raw("text/plain"))],
    ),
    row(
        "/timers",
        Fixed::Timers,
        &[Operation::get("Kong's timers: there are none")],
    ),
    row(
        "/cache",
        Fixed::Cache,
        &[
            Operation::change(Verb::Delete, "Empty Kong's cache: there is none")
                .gives(204, Gives::Nothing),
        ],
    ),
    row(
        "/cache/{key}",
        Fixed::CacheEntry,
        &[
            Operation::get("An entry of Kong's cache: there is none"),
            Operation::change(Verb::Delete, "Remove an entry of Kong's cache")
                .gives(204, Gives::Nothing),
        ],
    ),
    row(
        "/plugins/enabled",
        Fixed::PluginsEnabled,
        &[Operation::get("The plugins that can be configured")],
    ),
    row("/plugins/schema/{plugin}", Fixed::PluginSchema, SCHEMA),
    row(
        "/tags",
        Fixed::Tags,
        &[Operation::get("Which entities have which tags").query(&[SIZE, OFFSET])],
    ),
    row(
        "/tags/{tag}",
        Fixed::Tagged,
        &[Operation::get("Which entities have a tag").query(&[SIZE, OFFSET])],
    ),
    row(
        "/schemas/plugins/validate",
        Fixed::ValidatePlugin,
        &[VALIDATE],
    ),
    row(
        "/schemas/vaults/validate",
        Fixed::ValidateVault,
        &[VALIDATE],
    ),
    row("/schemas/plugins/{plugin}", Fixed::PluginSchema, SCHEMA),
    row("/schemas/vaults/{vault}", Fixed::VaultSchema, SCHEMA),
    row("/schemas/{entity}", Fixed::Schema, SCHEMA),
    row("/schemas/{entity}/validate", Fixed::Validate, &[VALIDATE]),
    about(
        Kind::Target,
        row(
            "/upstreams/{upstreams}/health",
            Fixed::UpstreamHealth,
            &[Operation::get("The targets with their health").query(&[
                SIZE,
                OFFSET,
                BALANCER_HEALTH,
            ])],
        ),
    ),
    about(
        Kind::Target,
        row(
            "/upstreams/{upstreams}/targets/all",
            Fixed::TargetsAll,
            &[Operation::get("All targets")
                .query(&[SIZE, OFFSET])
                .gives(200, Gives::Page)],
        ),
    ),
    row(
        "/upstreams/{upstreams}/targets/{targets}/healthy",
        Fixed::TargetHealth,
        SET_HEALTH,
    ),
    row(
        "/upstreams/{upstreams}/targets/{targets}/unhealthy",
        Fixed::TargetHealth,
        SET_HEALTH,
    ),
    row(
        "/upstreams/{upstreams}/targets/{targets}/{address}/healthy",
        Fixed::TargetHealth,
        SET_HEALTH,
    ),
    row(
        "/upstreams/{upstreams}/targets/{targets}/{address}/unhealthy",
        Fixed::TargetHealth,
        SET_HEALTH,
    ),
    row(
        "/workspaces/{workspaces}/meta",
        Fixed::WorkspaceMeta,
        &[Operation::get("How many entities a workspace has")],
    ),
    row(
        "/config",
        Fixed::Config,
        &[
            Operation::get("Everything, as the text of a declarative file")
                .query(&[AT])
                .others(PAST_PROBLEMS),
            Operation::change(Verb::Post, "Replace everything by a declarative file")
                .query(&[CHECK_HASH])
                .takes(Takes::Raw("application/yaml"))
                .gives(201, Gives::Object)
                .others(&[304, 400, 403, 404, 408, 409, 413, 415, 422, 503]),
        ],
    ),
    row(
        "/apply",
        Fixed::Apply,
        &[
            Operation::change(Verb::Post, "Apply a declarative file as one transaction")
                .query(&[PRUNE, DRY_RUN])
                .takes(Takes::Raw("application/yaml")),
        ],
    ),
    row(
        "/dump",
        Fixed::Dump,
        &[Operation::get("Everything, as a declarative file")
            .query(&[FORMAT, SELECT_TAGS, AT])
            .others(PAST_PROBLEMS)],
    ),
    row(
        "/nodes",
        Fixed::Nodes,
        &[Operation::get("The data planes that report").query(&[GROUP])],
    ),
    row(
        "/nodes/wait",
        Fixed::NodesWait,
        &[
            Operation::get("Wait until data planes serve a version; 202 if they do not in time")
                .query(&[VERSION, QUORUM, GROUP, WAIT_TIMEOUT])
                .others(&[202, 400, 403, 404, 409, 503]),
        ],
    ),
    row(
        "/clustering/data-planes",
        Fixed::DataPlanes,
        &[Operation::get("The data planes that report, in Kong's form").query(&[SIZE, OFFSET])],
    ),
    row(
        "/clustering/data-planes/{node}",
        Fixed::DataPlane,
        &[Operation::get("A data plane, in Kong's form")],
    ),
    row(
        "/clustering/status",
        Fixed::ClusteringStatus,
        &[Operation::get("The data planes by id (deprecated by Kong)")],
    ),
    row(
        "/debug/node/log-level",
        Fixed::LogLevel,
        &[Operation::get("The log level of this control plane")],
    ),
    row(
        "/debug/node/log-level/{level}",
        Fixed::LogLevelChange,
        &[SET_LEVEL],
    ),
    row(
        "/debug/cluster/log-level/{level}",
        Fixed::ClusterLogLevel,
        &[SET_LEVEL],
    ),
    row(
        "/debug/cluster/control-planes-nodes/log-level/{level}",
        Fixed::ClusterLogLevel,
        &[SET_LEVEL],
    ),
    row(
        "/log/head",
        Fixed::LogHead,
        &[
            Operation::get("The ends of the log, and where this control plane is")
                .others(LOG_PROBLEMS),
        ],
    ),
    row(
        "/log/keyring",
        Fixed::LogKeyring,
        &[
            Operation::get("Whose signatures are believed"),
            Operation::change(Verb::Post, "Take up a newer keyring")
                .takes(Takes::Raw("application/octet-stream"))
                .others(WRITE_PROBLEMS),
        ],
    ),
    row(
        "/log/events",
        Fixed::LogEvents,
        &[Operation::get("Events")
            .query(&[
                FROM, TO, SIZE, NEWEST, ENTITY, KIND, WORKSPACE, ACTOR, REASON, SINCE, UNTIL,
                FOLLOW, BODIES,
            ])
            .others(LOG_PROBLEMS)],
    ),
    row(
        "/log/watch",
        Fixed::LogWatch,
        &[Operation::get("Events as they come, as server-sent events")
            .query(&[FROM])
            .gives(200, Gives::Raw("text/event-stream"))
            .others(LOG_PROBLEMS)],
    ),
    row(
        "/log/events/{version}",
        Fixed::LogEvent,
        &[Operation::get("One event, and what each entity was before it").others(LOG_PROBLEMS)],
    ),
    row(
        "/log/history/{kind}/{entity}",
        Fixed::History,
        &[Operation::get(
            "What has happened to one entity, newest first; also to one that is gone",
        )
        .query(&[TO, SIZE])
        .others(PAST_PROBLEMS)],
    ),
    row(
        "/log/history/{kind}/{entity}/blame",
        Fixed::Blame,
        &[
            Operation::get("For each field of an entity the event that gave it its value")
                .query(&[AT])
                .others(PAST_PROBLEMS),
        ],
    ),
    row(
        "/log/diff",
        Fixed::LogDiff,
        &[Operation::get("What differs between two versions")
            .query(&[FROM_MOMENT, TO_MOMENT, WORKSPACE])
            .others(PAST_PROBLEMS)],
    ),
    row(
        "/log/state",
        Fixed::LogState,
        &[Operation::get("Every entity with its secrets, one a line")
            .query(&[AT])
            .gives(200, Gives::Raw("application/x-ndjson"))
            .others(PAST_PROBLEMS)],
    ),
    row(
        "/log/rollback",
        Fixed::Rollback,
        &[Operation::change(
            Verb::Post,
            "Make everything, or what is named, what it was at a version",
        )
        .query(&[DRY_RUN])
        .takes(Takes::Object)
        .others(RESTORE_PROBLEMS)],
    ),
    row(
        "/log/undo",
        Fixed::Undo,
        &[
            Operation::change(Verb::Post, "Take back what one event did")
                .query(&[DRY_RUN])
                .takes(Takes::Object)
                .others(RESTORE_PROBLEMS),
        ],
    ),
    row(
        "/log/secrets",
        Fixed::Secrets,
        &[Operation::get("What the secrets of the log are sealed with").others(&[403])],
    ),
    row(
        "/log/secrets/reseal",
        Fixed::Reseal,
        &[Operation::change(
            Verb::Post,
            "Seal some secrets with the key that seals now, that are not",
        )],
    ),
    row(
        "/log/snapshots",
        Fixed::Snapshots,
        &[
            Operation::get("Snapshots, newest first").others(LOG_PROBLEMS),
            Operation::change(Verb::Post, "Cut a snapshot now").gives(201, Gives::Object),
        ],
    ),
    row(
        "/log/trim",
        Fixed::Trim,
        &[
            Operation::change(Verb::Post, "Remove the events before a version")
                .takes(Takes::Object),
        ],
    ),
];

impl Fixed {
    pub(super) fn need(self, verb: Verb) -> Need {
        match self {
            // Whoever watches over processes has no token.
            Self::Status | Self::StatusReady => Need::Nothing,
            Self::Root
            | Self::StatusDns
            | Self::Endpoints
            | Self::OpenApi
            | Self::Metrics
            | Self::Timers
            | Self::Cache
            | Self::CacheEntry
            | Self::PluginsEnabled
            | Self::Schema
            | Self::PluginSchema
            | Self::VaultSchema
            | Self::Validate
            | Self::ValidatePlugin
            | Self::ValidateVault
            | Self::Nodes
            | Self::NodesWait
            | Self::DataPlane
            | Self::DataPlanes
            | Self::ClusteringStatus
            | Self::LogHead
            | Self::Secrets
            | Self::LogLevel => Need::Anywhere(Act::See),
            Self::Tags
            | Self::Tagged
            | Self::UpstreamHealth
            | Self::TargetsAll
            | Self::WorkspaceMeta => Need::Inside(Act::See),
            // Whole configurations hold secrets.
            Self::Config | Self::Apply | Self::Dump | Self::TargetHealth => {
                Need::Inside(Act::Change)
            }
            Self::History | Self::Blame => Need::Inside(Act::See),
            Self::LogDiff | Self::LogEvent | Self::LogEvents | Self::LogWatch => {
                Need::Above(Act::See)
            }
            // Bodies as they are stored, and changes of all workspaces.
            Self::LogState | Self::Rollback | Self::Undo | Self::Reseal => Need::Above(Act::Change),
            Self::LogKeyring | Self::Snapshots if verb == Verb::Get => Need::Anywhere(Act::See),
            Self::LogKeyring
            | Self::Snapshots
            | Self::Trim
            | Self::LogLevelChange
            | Self::ClusterLogLevel => Need::Above(Act::Operate),
        }
    }

    pub(super) fn operations(self) -> &'static [Operation] {
        let row = TABLE.iter().find(|row| row.fixed == self);
        row.map(|row| row.operations).unwrap_or_default()
    }
}

pub(super) fn find(names: &[&str]) -> Option<Endpoint> {
    TABLE.iter().find_map(|row| {
        let variable = fits(row.path, names)?;
        Some(Endpoint::Fixed(row.fixed, variable))
    })
}

/// What stands in the variable segments of `path`, if `names` fit it.
pub(super) fn fits(path: &str, names: &[&str]) -> Option<Vec<String>> {
    let mut segments = path
        .split('/')
        .skip(1)
        .filter(|segment| !segment.is_empty());
    let mut variable = Vec::new();
    for name in names {
        let segment = segments.next()?;
        if segment.starts_with('{') {
            variable.push((*name).to_owned());
        } else if segment != *name {
            return None;
        }
    }
    segments.next().is_none().then_some(variable)
}

pub(super) fn all() -> impl Iterator<Item = Described> {
    TABLE.iter().map(|row| Described {
        path: row.path.to_owned(),
        kind: row.kind,
        operations: row.operations,
    })
}
