//! Parameters of a query or of a form: pairs in their order, names perhaps several times.

use super::edits::Edits;

/// Parameters.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text);
        Self(pairs.into_owned().collect())
    }

    /// The first of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// Adds those of others behind its own.
    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn apply(&mut self, edits: Edits<'_, String>) {
        for name in edits.remove {
            self.remove(name);
        }
        for (old, new) in edits.rename {
            if self.get(old).is_some() {
                if old != new {
                    self.remove(&new);
                }
                let renamed = self.0.iter_mut().filter(|(known, _)| known == old);
                renamed.for_each(|(known, _)| known.clone_from(&new));
            }
        }
        for (name, value) in edits.replace {
            if let Some(place) = self.0.iter().position(|(known, _)| known == name) {
                self.0[place].1 = value;
                let mut index = 0;
                self.0.retain(|(known, _)| {
                    index += 1;
                    index - 1 <= place || known != name
                });
            }
        }
        for (name, value) in edits.add {
            if self.get(name).is_none() {
                self.0.push((name.to_owned(), value));
            }
        }
        for (name, value) in edits.append {
            let last = self.0.iter().rposition(|(known, _)| known == name);
            let place = last.map_or(self.0.len(), |last| last + 1);
            self.0.insert(place, (name.to_owned(), value));
        }
    }

    pub(super) fn write(&self) -> String {
        let mut writer = form_urlencoded::Serializer::new(String::new());
        writer.extend_pairs(&self.0);
        writer.finish()
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_removed_renamed_replaced_added_and_appended() {
        let mut parameters = Parameters::parse(b"a=1&b=2&a=3&c=x+y&d=4&d=5&e=6");
        let pair = |name: &'static str, value: &str| (name, value.to_owned());
        parameters.apply(Edits {
            remove: &["a".to_owned()],
            rename: vec![pair("b", "e"), pair("none", "d")],
            replace: vec![pair("d", "7"), pair("none", "8")],
            add: vec![pair("c", "9"), pair("f", "1&2")],
            append: vec![pair("c", "z"), pair("g", "0")],
        });
        assert_eq!(parameters.write(), "e=2&c=x+y&c=z&d=7&f=1%262&g=0");
    }
}
