//! Who may do what over the Admin API.
//!
//! A caller shows a token or a client certificate. A file ([`File`]) says which there are and what each may do, read again when it
//! changes. Who shows neither is nobody, and what nobody may do is a setting. The one who changes something is the event's
//! actor.
//!
//! Tokens are 256 random bits, so one hash keeps them as well as a slow one would; the file has nothing that opens anything.

mod file;
mod grant;
mod watched;

pub use file::{File, FileError, Hash, Stanza, make_token};
pub use grant::{Act, Grants, Reach, Role};
pub use watched::Watched;

use http::{HeaderMap, HeaderName, header};
use sluice_schema::version::Time;
use std::sync::Arc;

/// Kong's header for tokens of its Admin API, beside `Authorization: Bearer`.
const KONG_ADMIN_TOKEN: HeaderName = HeaderName::from_static("kong-admin-token");
const BEARER: &str = "bearer ";

/// Somebody whose name is known, or nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The name in the file.
    pub name: Option<Arc<str>>,
    /// What it may do.
    pub grants: Grants,
}

/// What callers who show nothing may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Anonymous {
    /// Nothing but ask whether the control plane is well
    None,
    /// Read everything but secrets
    Read,
    /// Everything; on a loopback address only
    Admin,
}

/// Why a caller is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stranger {
    /// Nobody has this token.
    #[error("Unauthorized: this control plane does not know the token")]
    UnknownToken,
    /// It was good once.
    #[error("Unauthorized: the token has expired")]
    Expired,
    /// The header with the token has a form that no token has.
    #[error("Unauthorized: a token is sent as `Authorization: Bearer` or as `Kong-Admin-Token`")]
    Malformed,
}

/// The door of the Admin API.
#[derive(Clone, Debug)]
pub struct Access {
    anonymous: Anonymous,
    file: Option<Watched>,
}

impl Access {
    /// The door with these callers. Without a file nobody has a name.
    ///
    /// # Errors
    /// If everybody on a network could change everything.
    pub fn new(
        anonymous: Option<Anonymous>,
        file: Option<Watched>,
        loopback: bool,
    ) -> Result<Self, OpenToAll> {
        let usual = match (&file, loopback) {
            (Some(_), _) => Anonymous::None,
            (None, true) => Anonymous::Admin,
            (None, false) => Anonymous::Read,
        };
        let anonymous = anonymous.unwrap_or(usual);
        if anonymous == Anonymous::Admin && !loopback {
            return Err(OpenToAll);
        }
        Ok(Self { anonymous, file })
    }

    /// Who shows this; `names` are those of a client certificate that was verified.
    ///
    /// # Errors
    /// If there is a token that is not good. A certificate that the file does not name is nobody's.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        names: &[String],
        now: Time,
    ) -> Result<Caller, Stranger> {
        let file = self.file.as_ref().map(Watched::current);
        if let Some(token) = token(headers)? {
            let stanza = file.and_then(|file| file.token(token).cloned());
            let stanza = stanza.ok_or(Stranger::UnknownToken)?;
            return match stanza.is_expired(now) {
                true => Err(Stranger::Expired),
                false => Ok(stanza.caller()),
            };
        }
        let known = file.and_then(|file| {
            let mut known = names.iter().filter_map(|name| file.certificate(name));
            known.find(|stanza| !stanza.is_expired(now)).cloned()
        });
        Ok(known.map_or_else(|| self.nobody(), |stanza| stanza.caller()))
    }

    fn nobody(&self) -> Caller {
        let grants = match self.anonymous {
            Anonymous::None => Grants::default(),
            Anonymous::Read => Grants::everywhere(Role::Read),
            Anonymous::Admin => Grants::everywhere(Role::Admin),
        };
        Caller { name: None, grants }
    }
}

/// Everybody on a network could change everything.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Admin API would take changes from everybody on the network: give it tokens (admin_access, see `sluice token new`), or let it listen on a loopback address"
)]
pub struct OpenToAll;

fn token(headers: &HeaderMap) -> Result<Option<&str>, Stranger> {
    if let Some(value) = headers.get(KONG_ADMIN_TOKEN) {
        return value.to_str().map(Some).map_err(|_| Stranger::Malformed);
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Stranger::Malformed)?;
    let scheme = text.get(..BEARER.len());
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(BEARER) => {
            Ok(text.get(BEARER.len()..).map(str::trim))
        }
        Some(_) | None => Err(Stranger::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn access(anonymous: Option<Anonymous>) -> (Access, String, String) {
        let (token, expired) = (make_token([1; 32]), make_token([2; 32]));
        let text = format!(
            "[[token]]\nname = \"ci\"\nhash = \"{}\"\nrole = \"write\"\nworkspaces = [\"shop\"]\n\
             [[token]]\nname = \"old\"\nhash = \"{}\"\nrole = \"admin\"\nexpires = \"2020-01-01T00:00:00Z\"\n\
             [[certificate]]\nname = \"ops.example.com\"\nrole = \"operate\"\n",
            Hash::of(&token),
            Hash::of(&expired)
        );
        let file = Watched::fixed(File::parse(&text).unwrap());
        let access = Access::new(anonymous, Some(file), true).unwrap();
        (access, token, expired)
    }

    fn now() -> Time {
        Time(1_800_000_000_000_000)
    }

    fn identify(access: &Access, headers: &[(&'static str, &str)]) -> Result<Caller, Stranger> {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        access.identify(&headers.collect(), &[], now())
    }

    #[test]
    fn a_token_says_who_calls_and_what_it_may_do() {
        let (access, token, _) = access(None);
        for headers in [
            [("authorization", format!("Bearer {token}"))],
            [("authorization", format!("bearer  {token} "))],
            [("kong-admin-token", token.clone())],
        ] {
            let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
            let caller = identify(&access, &headers).unwrap();
            assert_eq!(caller.name.as_deref(), Some("ci"));
            let shop = Reach::workspace("shop");
            assert!(caller.grants.allow(Act::Change, &shop));
            assert!(!caller.grants.allow(Act::Operate, &shop));
            assert!(!caller.grants.allow(Act::See, &Reach::workspace("default")));
            assert!(!caller.grants.allow(Act::See, &Reach::Whole));
            assert!(caller.grants.allow(Act::See, &Reach::Anywhere));
        }
    }

    #[test]
    fn strangers_are_not_taken_for_nobody() {
        let (access, token, expired) = access(Some(Anonymous::Admin));
        let bearer = |token: &str| format!("Bearer {token}");
        let check = |headers: &[(&'static str, &str)], expected| {
            assert_eq!(identify(&access, headers), Err(expected), "{headers:?}");
        };
        check(
            &[("authorization", &bearer("slt_wrong"))],
            Stranger::UnknownToken,
        );
        check(
            &[("authorization", &bearer(&token[1..]))],
            Stranger::UnknownToken,
        );
        check(&[("authorization", &bearer(&expired))], Stranger::Expired);
        check(&[("authorization", "Basic YTpi")], Stranger::Malformed);
        check(&[("authorization", "")], Stranger::Malformed);
        let nobody = identify(&access, &[]).unwrap();
        assert_eq!(nobody.name, None);
        assert!(nobody.grants.allow(Act::Govern, &Reach::Whole));
    }

    #[test]
    fn a_certificate_is_known_by_any_of_its_names() {
        let (access, ..) = access(None);
        let names = ["x".to_owned(), "ops.example.com".to_owned()];
        let caller = access.identify(&HeaderMap::new(), &names, now()).unwrap();
        assert_eq!(caller.name.as_deref(), Some("ops.example.com"));
        assert!(caller.grants.allow(Act::Operate, &Reach::Whole));
        let nobody = access
            .identify(&HeaderMap::new(), &names[..1], now())
            .unwrap();
        assert_eq!(nobody.grants, Grants::default());
    }

    #[test]
    fn what_nobody_may_do_depends_on_who_could_come() {
        let nobody = |anonymous, loopback| {
            let access = Access::new(anonymous, None, loopback).ok()?;
            let caller = access.identify(&HeaderMap::new(), &[], now()).unwrap();
            Some([Act::See, Act::Change].map(|act| caller.grants.allow(act, &Reach::Whole)))
        };
        assert_eq!(nobody(None, true), Some([true, true]));
        assert_eq!(nobody(None, false), Some([true, false]));
        assert_eq!(nobody(Some(Anonymous::None), true), Some([false, false]));
        assert_eq!(nobody(Some(Anonymous::Admin), false), None);
    }
}
