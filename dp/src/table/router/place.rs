//! The places routes take in the index, and lists of them in the order in which they are tried.

use super::facts::values_of;
use super::text::Text;
use crate::table::index::{Index, Keyed};
use crate::table::route::Route;
use http::HeaderMap;
use imbl::{OrdMap, OrdSet};
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

/// The places under one host and path. Where there are many, those of routes that ask for a header are found by it. Which
/// they are says the content alone, not how it came about.
#[derive(Clone, Default, Debug)]
pub(super) struct Places {
    list: List,
    headers: Option<Arc<Headers>>,
}

/// Places by a header.
#[derive(Clone, Default, Debug)]
struct Headers {
    /// How many there are; one may be filed under several values.
    count: usize,
    /// By name, in lower case with dashes for underscores, and by value.
    found: OrdMap<Box<str>, Index<Valued>>,
}

/// Places of routes that ask for a value of a header.
#[derive(Clone, Debug)]
struct Valued {
    /// In lower case.
    value: Text,
    places: Places,
}

impl Keyed for Valued {
    fn key(&self) -> &[u8] {
        &self.value
    }
}

impl Places {
    pub(super) fn of(place: Place) -> Self {
        Self {
            list: List::One(place),
            headers: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        let by_header = self.headers.as_ref().map_or(0, |headers| headers.count);
        self.list.len() + by_header
    }

    /// Any of them.
    pub(super) fn any(&self) -> Option<&Place> {
        let by_header = || self.headers.as_ref()?.any();
        self.list.any().or_else(by_header)
    }

    /// Adds a place that is not here yet.
    pub(super) fn insert(&mut self, place: Place) {
        self.insert_at(0, place);
    }

    pub(super) fn remove(&mut self, place: &Place) {
        self.remove_at(0, place);
    }

    /// At depth N places are told apart by the Nth header of their routes.
    fn insert_at(&mut self, depth: usize, place: Place) {
        let count = self.len();
        // What becomes many keeps only what cannot be found by a header.
        if count == FEW_MAX {
            let places = std::mem::take(&mut self.list).into_places();
            for place in places {
                self.file(depth, place);
            }
        }
        if count < FEW_MAX {
            self.list.insert(place);
        } else {
            self.file(depth, place);
        }
    }

    /// Adds a place to many.
    fn file(&mut self, depth: usize, place: Place) {
        let route = Arc::clone(&place.route);
        let Some((name, values)) = route.criteria.header(depth) else {
            return self.list.insert(place);
        };
        let headers = Arc::make_mut(self.headers.get_or_insert_default());
        headers.count += 1;
        let by_value = headers.found.entry(name.into()).or_default();
        for value in values {
            let (value, place) = (value.as_bytes(), place.clone());
            match by_value.get_mut(value) {
                Some(valued) => Arc::make_mut(valued).places.insert_at(depth + 1, place),
                None => by_value.insert(Arc::new(Valued {
                    value: value.into(),
                    places: Self::of(place),
                })),
            }
        }
    }

    fn remove_at(&mut self, depth: usize, place: &Place) {
        match (&mut self.headers, place.route.criteria.header(depth)) {
            (Some(headers), Some((name, values))) => {
                Arc::make_mut(headers).remove(depth, name, values, place);
            }
            (Some(_) | None, _) => self.list.remove(place),
        }
        let few = self.len() <= FEW_MAX;
        if let Some(headers) = self.headers.take_if(|headers| few || headers.count == 0) {
            let mut places = Vec::new();
            headers.for_each(&mut |place| places.push(place));
            places.sort_unstable();
            places.dedup();
            places.into_iter().for_each(|place| self.list.insert(place));
        }
    }

    fn for_each(&self, act: &mut impl FnMut(Place)) {
        self.list.clone().into_places().for_each(&mut *act);
        if let Some(headers) = &self.headers {
            headers.for_each(act);
        }
    }

    /// Calls `visit` with places that may fit a request with these headers, until it says that of this list none can be
    /// better: in order within a list, and the lists in any order. A place may come twice. Each comes with how many headers,
    /// from its route's first, the request is known to have as the route wants them.
    pub(super) fn visit<'a>(
        &'a self,
        headers: &HeaderMap,
        visit: &mut impl FnMut(&'a Place, usize) -> Visit,
    ) {
        self.visit_at(0, headers, visit);
    }

    fn visit_at<'a>(
        &'a self,
        depth: usize,
        headers: &HeaderMap,
        visit: &mut impl FnMut(&'a Place, usize) -> Visit,
    ) {
        self.list.visit(|place| visit(place, depth));
        let Some(by_name) = &self.headers else {
            return;
        };
        for (name, by_value) in &by_name.found {
            for value in values_of(headers, name) {
                let lower = value.as_bytes().to_ascii_lowercase();
                if let Some(valued) = by_value.get(&lower) {
                    valued.places.visit_at(depth + 1, headers, visit);
                }
            }
        }
    }
}

impl Headers {
    fn remove(&mut self, depth: usize, name: &str, values: &[Box<str>], place: &Place) {
        let Some(by_value) = self.found.get_mut(name) else {
            return;
        };
        for value in values {
            let Some(valued) = by_value.get_mut(value.as_bytes()) else {
                continue;
            };
            let places = &mut Arc::make_mut(valued).places;
            places.remove_at(depth + 1, place);
            if places.is_empty() {
                by_value.remove(value.as_bytes());
            }
        }
        if by_value.is_empty() {
            self.found.remove(name);
        }
        self.count -= 1;
    }

    /// A place that is filed under several values comes several times.
    fn for_each(&self, act: &mut impl FnMut(Place)) {
        for by_value in self.found.values() {
            by_value.for_each(&mut |valued| valued.places.for_each(act));
        }
    }

    fn any(&self) -> Option<&Place> {
        let mut all = self.found.values();
        all.find_map(|by_value| by_value.any()?.places.any())
    }
}

/// More are many. Small in tests, so that these see many.
const FEW_MAX: usize = if cfg!(test) { 3 } else { 32 };

/// Some places, in order.
#[derive(Clone, Default, Debug)]
enum List {
    #[default]
    None,
    One(Place),
    /// Copied on change.
    Few(Arc<[Place]>),
    /// Too many to copy.
    Many(Arc<OrdSet<Place>>),
}

impl List {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn any(&self) -> Option<&Place> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::Few(few) => few.first(),
            Self::Many(many) => many.get_min(),
        }
    }

    fn into_places(self) -> impl Iterator<Item = Place> {
        let (few, many) = match self {
            Self::None => (Vec::new(), None),
            Self::One(one) => (vec![one], None),
            Self::Few(few) => (few.to_vec(), None),
            Self::Many(many) => (Vec::new(), Some(Arc::unwrap_or_clone(many))),
        };
        few.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, place: Place) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(place),
            Self::One(one) => Self::few(insert(vec![one], place)),
            Self::Few(few) if few.len() < FEW_MAX => Self::few(insert(few.to_vec(), place)),
            Self::Few(few) => {
                let mut many: OrdSet<_> = few.iter().cloned().collect();
                many.insert(place);
                Self::Many(Arc::new(many))
            }
            Self::Many(mut many) => {
                Arc::make_mut(&mut many).insert(place);
                Self::Many(many)
            }
        };
    }

    fn remove(&mut self, place: &Place) {
        *self = match std::mem::take(self) {
            Self::None => Self::None,
            Self::One(one) if one == *place => Self::None,
            Self::One(one) => Self::One(one),
            Self::Few(few) => {
                let mut few = few.to_vec();
                if let Ok(index) = few.binary_search(place) {
                    few.remove(index);
                }
                Self::few(few)
            }
            Self::Many(mut many) => {
                Arc::make_mut(&mut many).remove(place);
                match many.len() {
                    ..=FEW_MAX => Self::few(many.iter().cloned().collect()),
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
    fn visit<'a>(&'a self, mut visit: impl FnMut(&'a Place) -> Visit) {
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
