//! The places routes take in the index, and lists of them in the order in which they are tried.

use crate::table::route::Route;
use imbl::OrdSet;
use std::cmp::Ordering;
use std::sync::Arc;
use uuid::Uuid;

/// A route under one host and one path, with what most requests are decided by. Ordered: what is tried first is less.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) priority: u64,
    pub(super) route: Arc<Route>,
    /// The methods accepted, and whether there is more to ask the route.
    pub(super) methods: u16,
    /// 0 for any.
    pub(super) port: u16,
    /// Index into the route's paths.
    pub(super) path: u16,
}

impl Place {
    /// What decides between equal priorities.
    fn id(&self) -> &Uuid {
        let classes = self.route.criteria.classes();
        classes
            .and_then(|classes| classes.id(self.path))
            .unwrap_or(&self.route.id)
    }
}

impl Ord for Place {
    /// Higher priority first, then the larger id. Within a class the path that is listed first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| {
            let ids = other.id().cmp(self.id());
            ids.then_with(|| other.route.id.cmp(&self.route.id))
                .then_with(|| (self.path, self.port).cmp(&(other.path, other.port)))
        })
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

/// The places under one host and path, in order.
#[derive(Clone, Default, Debug)]
pub(super) enum Places {
    #[default]
    None,
    One(Place),
    /// Copied on change.
    Few(Box<[Place]>),
    /// Too many to copy.
    Many(Box<OrdSet<Place>>),
}

impl Places {
    const FEW_MAX: usize = 32;

    pub(super) fn of(place: Place) -> Self {
        Self::One(place)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn insert(&mut self, place: Place) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(place),
            Self::One(one) => Self::few(insert(vec![one], place)),
            Self::Few(few) if few.len() < Self::FEW_MAX => Self::few(insert(few.into_vec(), place)),
            Self::Few(few) => {
                let mut many: OrdSet<_> = few.into_iter().collect();
                many.insert(place);
                Self::Many(Box::new(many))
            }
            Self::Many(mut many) => {
                many.insert(place);
                Self::Many(many)
            }
        };
    }

    pub(super) fn remove(&mut self, place: &Place) {
        *self = match std::mem::take(self) {
            Self::None => Self::None,
            Self::One(one) if one == *place => Self::None,
            Self::One(one) => Self::One(one),
            Self::Few(few) => {
                let mut few = few.into_vec();
                if let Ok(index) = few.binary_search(place) {
                    few.remove(index);
                }
                Self::few(few)
            }
            Self::Many(mut many) => {
                many.remove(place);
                match many.len() {
                    ..Self::FEW_MAX => Self::few(many.into_iter().collect()),
                    _ => Self::Many(many),
                }
            }
        };
    }

    fn few(mut places: Vec<Place>) -> Self {
        match places.len() {
            0 => Self::None,
            1 => places.pop().map_or(Self::None, Self::One),
            _ => Self::Few(places.into()),
        }
    }

    /// Calls `visit` in order until it says stop.
    pub(super) fn visit<'a>(&'a self, mut visit: impl FnMut(&'a Place) -> Visit) {
        let mut stops = |place| visit(place) == Visit::Stop;
        match self {
            Self::None => {}
            Self::One(one) => {
                stops(one);
            }
            Self::Few(few) => {
                few.iter().any(stops);
            }
            Self::Many(many) => {
                many.iter().any(stops);
            }
        }
    }
}

/// Whether a visitor wants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Visit {
    Next,
    Stop,
}

fn insert(mut places: Vec<Place>, place: Place) -> Vec<Place> {
    match places.binary_search(&place) {
        Ok(index) => places[index] = place,
        Err(index) => places.insert(index, place),
    }
    places
}
