//! Roles, and where they hold.

use serde::Deserialize;
use sluice_schema::entity::Workspace;
use std::fmt;

/// What somebody may do, where it is granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See the configuration and its history, but no secrets
    Read,
    /// And change it; see its secrets
    Write,
    /// Read, cut and trim snapshots, change log levels, publish keyrings
    Operate,
    /// Everything, workspaces too
    Admin,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// It looks at something.
    See,
    /// It changes entities, or looks at their secrets.
    Change,
    /// It does something to the log or to this control plane.
    Operate,
    /// It makes or removes workspaces.
    Govern,
}

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing that belongs to a workspace: whoever may do it anywhere may.
    Anywhere,
    /// What is in one workspace.
    Workspace(Workspace),
    /// All workspaces, or what is above them.
    Whole,
}

impl Reach {
    #[cfg(test)]
    pub(super) fn workspace(name: &str) -> Self {
        Self::Workspace(Workspace::parse(name).unwrap())
    }
}

impl Role {
    fn allows(self, act: Act) -> bool {
        match (self, act) {
            (Self::Admin, _) | (_, Act::See) => true,
            (Self::Write, Act::Change) | (Self::Operate, Act::Operate) => true,
            (Self::Read | Self::Operate, Act::Change)
            | (Self::Read | Self::Write, Act::Operate)
            | (Self::Read | Self::Write | Self::Operate, Act::Govern) => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operate => "operate",
            Self::Admin => "admin",
        })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::See => "read",
            Self::Change => "write",
            Self::Operate => "operate",
            Self::Govern => "admin",
        })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere => f.write_str("in some workspace"),
            Self::Workspace(workspace) => write!(f, "in workspace '{}'", workspace.as_str()),
            Self::Whole => f.write_str("in all workspaces"),
        }
    }
}

/// Roles of one caller, each in one workspace or in all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grants(Vec<(Option<Workspace>, Role)>);

impl Grants {
    /// A role in all workspaces, and above them.
    pub fn everywhere(role: Role) -> Self {
        Self(vec![(None, role)])
    }

    /// A role in these workspaces.
    pub fn within(workspaces: impl IntoIterator<Item = Workspace>, role: Role) -> Self {
        let each = workspaces.into_iter();
        Self(each.map(|workspace| (Some(workspace), role)).collect())
    }

    /// Whether something may be done.
    pub fn allow(&self, act: Act, reach: &Reach) -> bool {
        let holds = |within: &Option<Workspace>| match (within, reach) {
            (None, _) | (_, Reach::Anywhere) => true,
            (Some(within), Reach::Workspace(workspace)) => within == workspace,
            (Some(_), Reach::Whole) => false,
        };
        let mut each = self.0.iter();
        each.any(|(within, role)| holds(within) && role.allows(act))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_allows_what_its_name_says() {
        let acts = [Act::See, Act::Change, Act::Operate, Act::Govern];
        let check = |role: Role, expected: [bool; 4]| {
            assert_eq!(acts.map(|act| role.allows(act)), expected, "{role}");
        };
        check(Role::Read, [true, false, false, false]);
        check(Role::Write, [true, true, false, false]);
        check(Role::Operate, [true, false, true, false]);
        check(Role::Admin, [true, true, true, true]);
    }

    #[test]
    fn nobody_may_do_anything() {
        let nobody = Grants::default();
        assert_eq!(nobody, Grants(Vec::new()));
        assert!(!nobody.allow(Act::See, &Reach::Anywhere));
    }
}
