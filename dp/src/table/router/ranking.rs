//! All routes as one request sees them: those that accept it, in the order in which they would be taken, and those that miss
//! it by one criterion. Linear in the routes: for questions, not for requests.

use super::place::Place;
use super::regexes::Regexes;
use super::verdict::{Criterion, Near, Verdict, judge};
use super::{RequestHead, words};
use crate::table::route::Route;
use std::cmp::Reverse;
use std::sync::Arc;

/// What is told of all routes.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    /// The path of the route that is taken first, as the route has it; nothing if it has none, or an expression.
    pub(crate) path: Option<String>,
    /// Those that would be taken without the ones before them: the first of them without the winner.
    pub(crate) losers: Vec<Misfit>,
    /// How many those are in all.
    pub(crate) losers_total: usize,
    /// Those that would be taken before all others if one criterion fitted; what people mean most likely first.
    pub(crate) near: Vec<Misfit>,
    /// How many those are in all.
    pub(crate) near_total: usize,
}

/// A route that is not taken.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// The route.
    pub(crate) route: Arc<Route>,
    /// Why not.
    pub(crate) reason: String,
}

impl Ranking {
    /// Asks all routes. At most so many of each list are told.
    pub(crate) fn of<'a>(
        routes: impl Iterator<Item = &'a Arc<Route>>,
        request: &RequestHead<'_>,
        listed_max: usize,
    ) -> Self {
        // A cache of its own: what all regexes of a table take would drive out those that requests need.
        let regexes = Regexes::default();
        let (mut fits, mut near) = (Vec::new(), Vec::new());
        for route in routes {
            match judge(route, request, &regexes) {
                Verdict::Fits(place) => fits.push(place),
                Verdict::Near(one) => near.push(one),
                Verdict::Far => {}
            }
        }
        fits.sort_unstable();
        let mut fits = fits.into_iter();
        let Some(winner) = fits.next() else {
            let (near, near_total) = nearest(near, request, &regexes, listed_max);
            return Self {
                near,
                near_total,
                ..Self::default()
            };
        };
        near.retain(|near| near.place < winner && is_telling(near, &winner, request));
        let (near, near_total) = nearest(near, request, &regexes, listed_max);
        let losers_total = fits.len();
        let losers = fits.take(listed_max).map(|place| Misfit {
            reason: words::of_loser(&winner, &place),
            route: place.route,
        });
        Self {
            path: words::path_of(&winner),
            losers: losers.collect(),
            losers_total,
            near,
            near_total,
        }
    }
}

/// Whether a route is worth a word although another one is taken: not all that have another path or host are.
fn is_telling(near: &Near, winner: &Place, request: &RequestHead<'_>) -> bool {
    match near.criterion {
        Criterion::Path => {
            let taken = super::priority::prefix_bytes(winner.priority);
            near.closeness > taken.unwrap_or_default().max(1)
        }
        Criterion::Host => near.closeness > request.host.len() / 2,
        Criterion::Method
        | Criterion::Headers
        | Criterion::Sni
        | Criterion::Source
        | Criterion::Destination
        | Criterion::Protocol
        | Criterion::Expression => true,
    }
}

fn nearest(
    mut near: Vec<Near>,
    request: &RequestHead<'_>,
    regexes: &Regexes,
    listed_max: usize,
) -> (Vec<Misfit>, usize) {
    near.sort_unstable_by(|one, two| {
        let key = |near: &Near| (near.criterion, Reverse(near.closeness));
        key(one)
            .cmp(&key(two))
            .then_with(|| one.place.cmp(&two.place))
    });
    let total = near.len();
    let told = near.into_iter().take(listed_max).map(|near| Misfit {
        reason: words::of_near(&near, request, regexes),
        route: near.place.route,
    });
    (told.collect(), total)
}
