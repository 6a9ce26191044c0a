//! Field descriptors: what a field of an entity may hold. One descriptor per kind (see [`crate::kind`]) is the source
//! for validation, defaults, form decoding, `/schemas` and the reference docs.
//!
//! Everything here can be built in a `static`, so that a descriptor reads as one table.

use crate::kind::Kind;
use serde_json::{Map, Value};

/// The longest string a field takes, unless it says otherwise.
pub const STRING_BYTES_MAX: usize = 64 * 1024;
/// The most elements an array, set or map takes, unless it says otherwise.
pub const ITEMS_MAX: usize = 10_000;

/// A rule for a text; the error is what the client reads.
pub type TextRule = fn(&str) -> Result<(), String>;
/// A rule for any value; the error is what the client reads.
pub type ValueRule = fn(&Value) -> Result<(), String>;
/// A rule for a whole entity; the error is what the client reads.
pub type EntityRule = fn(&Map<String, Value>) -> Result<(), String>;

/// One field of an entity, a record, or the elements of a list.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name; empty for elements, keys and values.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Whether it must have a value.
    pub required: bool,
    /// Whether an explicit null puts the default back, where Kong would store null. For fields the data plane reads
    /// without asking.
    pub never_null: bool,
    /// The value it has if none is given.
    pub default: Option<Literal>,
    /// Filled by the control plane.
    pub auto: Option<Auto>,
    /// Whether its value must be unique. Shown in `/schemas`; enforced through [`crate::kind::Unique`].
    pub unique: bool,
    /// Whether a text that refers to a secret (`{vault://...}`) may stand for its value; rules do not apply to it.
    pub referenceable: bool,
    /// Whether its value is a secret: not to be shown to those who may not see it, nor stored in clear text.
    pub encrypted: bool,
    /// What its value must look like.
    pub rules: Rules,
    /// Records only: rules over several of its fields.
    pub checks: &'static [Check],
    /// Records only: deprecated names of its fields.
    pub aliases: &'static [Alias],
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Text, not empty unless `len_min` says so.
    String,
    /// A whole number.
    Integer,
    /// Any finite number.
    Number,
    /// True or false.
    Boolean,
    /// An ordered list of elements.
    Array(&'static Field),
    /// A list whose repeated elements are dropped.
    Set(&'static Field),
    /// Text keys to values.
    Map {
        /// The rules for keys.
        keys: &'static Field,
        /// The values.
        values: &'static Field,
    },
    /// Named fields.
    Record(&'static [Field]),
    /// A reference to another entity: `{"id": "<uuid>"}`.
    Foreign(Foreign),
    /// A record that depends on the entity's name: a plugin's configuration, a vault's.
    Config,
    /// Any JSON value.
    Json,
}

/// A reference to another entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// The kind referred to.
    pub kind: Kind,
    /// What happens to this entity when that one is deleted.
    pub on_delete: OnDelete,
}

/// What the deletion of an entity does to those that refer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDelete {
    /// They are deleted too.
    Cascade,
    /// It is refused.
    Restrict,
}

/// A value known at compile time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Literal {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Number(f64),
    /// Text.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static [&'static str]),
    /// A list of whole numbers.
    Ints(&'static [i64]),
    /// A list of anything.
    List(&'static [Self]),
    /// A record.
    Record(&'static [(&'static str, Self)]),
}

impl Literal {
    /// As JSON.
    pub fn value(self) -> Value {
        match self {
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Number(value) => value.into(),
            Self::Text(value) => value.into(),
            Self::Texts(values) => values.into(),
            Self::Ints(values) => values.into(),
            Self::List(values) => values.iter().map(|value| value.value()).collect(),
            Self::Record(fields) => {
                let field = |(name, value): &(&str, Self)| ((*name).to_owned(), value.value());
                Value::Object(fields.iter().map(field).collect())
            }
        }
    }
}

/// A field the control plane fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auto {
    /// When the entity was created: whole seconds.
    Created,
    /// When the entity was last written: whole seconds.
    Updated,
    /// When the entity was created: seconds with milliseconds.
    CreatedMillis,
    /// When the entity was last written: seconds with milliseconds.
    UpdatedMillis,
    /// A random text, if none is given.
    Random,
}

/// What a value must look like. All that are set must hold; the first that does not gives the error.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// No value is allowed; the error if there is one.
    pub forbidden: Option<&'static str>,
    /// One of these: `Texts` or `Ints`.
    pub one_of: Option<Literal>,
    /// None of these texts.
    pub not_one_of: &'static [&'static str],
    /// Greater than this.
    pub gt: Option<f64>,
    /// Not outside these.
    pub between: Option<(f64, f64)>,
    /// A time: greater than zero.
    pub timestamp: bool,
    /// A UUID.
    pub uuid: bool,
    /// At least so many bytes or elements.
    pub len_min: Option<usize>,
    /// At most so many bytes or elements.
    pub len_max: Option<usize>,
    /// Begins with this.
    pub starts_with: Option<&'static str>,
    /// Looks like this.
    pub pattern: Option<Pattern>,
    /// A regular expression that compiles.
    pub regex: bool,
    /// The error if any of these does not hold, instead of the rule's own.
    pub error: Option<&'static str>,
    /// A set that has elements of at most one of these groups.
    pub exclusive: &'static [&'static [&'static str]],
    /// Any other rule for a text.
    pub text: Option<TextRule>,
    /// Any other rule for any value.
    pub custom: Option<ValueRule>,
}

/// A pattern as Kong writes it, and the same as code.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// The Lua pattern, for `/schemas`.
    pub lua: &'static str,
    /// Whether a text matches it.
    pub matches: fn(&str) -> bool,
}

/// A deprecated name for a field of a record.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The old field.
    pub field: Field,
    /// Where its value lives now; empty if it means nothing any more.
    pub path: &'static [&'static str],
    /// Makes a new value of an old one that has the right form.
    pub convert: Option<fn(Value) -> Value>,
}

impl Alias {
    /// `field`, whose value lives at `path` now.
    pub const fn new(field: Field, path: &'static [&'static str]) -> Self {
        Self {
            field,
            path,
            convert: None,
        }
    }

    /// `field`, which is accepted and dropped.
    pub const fn dropped(field: Field) -> Self {
        Self::new(field, &[])
    }

    /// Old values mean something else now.
    #[must_use]
    pub const fn convert(mut self, convert: fn(Value) -> Value) -> Self {
        self.convert = Some(convert);
        self
    }
}

/// A rule over several fields. Fields are named by their path from the entity: `config.redis.host`.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// One or more of these have a value.
    AtLeastOneOf(&'static [&'static str]),
    /// Exactly one of these has a value.
    OnlyOneOf(&'static [&'static str]),
    /// No two of these have the same value.
    Distinct(&'static [&'static str]),
    /// All of these have a value, or none.
    MutuallyRequired(&'static [&'static str]),
    /// At most one of these has a value.
    MutuallyExclusive(&'static [&'static str]),
    /// If the first field is so, the second must be so.
    Conditional {
        /// The field that decides.
        if_field: &'static str,
        /// What it must look like for the rule to apply.
        if_match: Match,
        /// The field the rule is about.
        then_field: &'static str,
        /// What that one must look like then.
        then_match: Match,
        /// The error for the entity, if not Kong's usual one.
        error: Option<&'static str>,
    },
    /// If a field is so, one or more of the others have a value. The first arm that matches decides.
    ConditionalAtLeastOneOf {
        /// The field that decides.
        if_field: &'static str,
        /// What it may look like, which fields one of must then have a value, and the error (`%s`: their names).
        arms: &'static [(Match, &'static [&'static str], &'static str)],
    },
    /// Anything else; runs only if none of its fields has an error.
    Custom {
        /// The fields it looks at.
        fields: &'static [&'static str],
        /// The rule.
        test: EntityRule,
    },
}

/// A condition on the value of one field.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    /// Equal to this.
    Is(Literal),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// None of these texts.
    NotOneOf(&'static [&'static str]),
    /// Greater than this.
    Gt(f64),
    /// Has a value.
    Required,
    /// Has a value, and this rule holds for it.
    Text(TextRule),
    /// Has no value.
    Null,
    /// Has no elements.
    Empty,
    /// A list that holds this.
    Contains(&'static str),
    /// A list all of whose elements are among these.
    All(&'static [&'static str]),
    /// A list none of whose elements is among these.
    NoneOf(&'static [&'static str]),
}

impl Rules {
    const NONE: Self = Self {
        forbidden: None,
        one_of: None,
        not_one_of: &[],
        gt: None,
        between: None,
        timestamp: false,
        uuid: false,
        len_min: None,
        len_max: None,
        starts_with: None,
        pattern: None,
        regex: false,
        error: None,
        exclusive: &[],
        text: None,
        custom: None,
    };
}

impl Field {
    /// A field of any type, without rules.
    pub const fn new(name: &'static str, kind: Type) -> Self {
        Self {
            name,
            kind,
            required: false,
            never_null: false,
            default: None,
            auto: None,
            unique: false,
            referenceable: false,
            encrypted: false,
            rules: Rules::NONE,
            checks: &[],
            aliases: &[],
        }
    }

    /// Text.
    pub const fn string(name: &'static str) -> Self {
        Self::new(name, Type::String)
    }

    /// A whole number.
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, Type::Integer)
    }

    /// A number.
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, Type::Number)
    }

    /// True or false.
    pub const fn boolean(name: &'static str) -> Self {
        Self::new(name, Type::Boolean)
    }

    /// A list.
    pub const fn array(name: &'static str, elements: &'static Self) -> Self {
        Self::new(name, Type::Array(elements))
    }

    /// A list without repetition.
    pub const fn set(name: &'static str, elements: &'static Self) -> Self {
        Self::new(name, Type::Set(elements))
    }

    /// Text keys to values.
    pub const fn map(name: &'static str, keys: &'static Self, values: &'static Self) -> Self {
        Self::new(name, Type::Map { keys, values })
    }

    /// Named fields.
    pub const fn record(name: &'static str, fields: &'static [Self]) -> Self {
        Self::new(name, Type::Record(fields))
    }

    /// A reference.
    pub const fn foreign(name: &'static str, kind: Kind, on_delete: OnDelete) -> Self {
        Self::new(name, Type::Foreign(Foreign { kind, on_delete }))
    }

    /// The same under another name.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Must have a value.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// An explicit null puts the default back.
    #[must_use]
    pub const fn never_null(mut self) -> Self {
        self.never_null = true;
        self
    }

    /// The value if none is given.
    #[must_use]
    pub const fn default(mut self, default: Literal) -> Self {
        self.default = Some(default);
        self
    }

    /// Filled by the control plane.
    #[must_use]
    pub const fn auto(mut self, auto: Auto) -> Self {
        self.auto = Some(auto);
        self
    }

    /// No two entities have the same value.
    #[must_use]
    pub const fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// A text `{vault://...}` may stand for its value.
    #[must_use]
    pub const fn referenceable(mut self) -> Self {
        self.referenceable = true;
        self
    }

    /// A secret.
    #[must_use]
    pub const fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// A secret, or a reference to one.
    #[must_use]
    pub const fn secret(self) -> Self {
        self.referenceable().encrypted()
    }

    /// Must be null; the error otherwise.
    #[must_use]
    pub const fn forbidden(mut self, error: &'static str) -> Self {
        self.rules.forbidden = Some(error);
        self
    }

    /// One of these texts.
    #[must_use]
    pub const fn one_of(mut self, options: &'static [&'static str]) -> Self {
        self.rules.one_of = Some(Literal::Texts(options));
        self
    }

    /// One of these numbers.
    #[must_use]
    pub const fn one_of_ints(mut self, options: &'static [i64]) -> Self {
        self.rules.one_of = Some(Literal::Ints(options));
        self
    }

    /// None of these texts.
    #[must_use]
    pub const fn not_one_of(mut self, options: &'static [&'static str]) -> Self {
        self.rules.not_one_of = options;
        self
    }

    /// Greater than this.
    #[must_use]
    pub const fn gt(mut self, limit: f64) -> Self {
        self.rules.gt = Some(limit);
        self
    }

    /// Not outside these.
    #[must_use]
    pub const fn between(self, low: i64, high: i64) -> Self {
        self.between_numbers(low as f64, high as f64)
    }

    /// Not outside these.
    #[must_use]
    pub const fn between_numbers(mut self, low: f64, high: f64) -> Self {
        self.rules.between = Some((low, high));
        self
    }

    /// A time.
    #[must_use]
    pub const fn timestamp(mut self) -> Self {
        self.rules.timestamp = true;
        self
    }

    /// A UUID.
    #[must_use]
    pub const fn uuid(mut self) -> Self {
        self.rules.uuid = true;
        self
    }

    /// At least so many bytes or elements.
    #[must_use]
    pub const fn len_min(mut self, length: usize) -> Self {
        self.rules.len_min = Some(length);
        self
    }

    /// At most so many bytes or elements.
    #[must_use]
    pub const fn len_max(mut self, length: usize) -> Self {
        self.rules.len_max = Some(length);
        self
    }

    /// Begins with this.
    #[must_use]
    pub const fn starts_with(mut self, prefix: &'static str) -> Self {
        self.rules.starts_with = Some(prefix);
        self
    }

    /// Looks like this.
    #[must_use]
    pub const fn pattern(mut self, lua: &'static str, matches: fn(&str) -> bool) -> Self {
        self.rules.pattern = Some(Pattern { lua, matches });
        self
    }

    /// A regular expression.
    #[must_use]
    pub const fn regex(mut self) -> Self {
        self.rules.regex = true;
        self
    }

    /// The error if any rule does not hold.
    #[must_use]
    pub const fn error(mut self, error: &'static str) -> Self {
        self.rules.error = Some(error);
        self
    }

    /// Has elements of at most one of these groups.
    #[must_use]
    pub const fn exclusive(mut self, groups: &'static [&'static [&'static str]]) -> Self {
        self.rules.exclusive = groups;
        self
    }

    /// Any other rule for a text.
    #[must_use]
    pub const fn text(mut self, rule: TextRule) -> Self {
        self.rules.text = Some(rule);
        self
    }

    /// Any other rule.
    #[must_use]
    pub const fn custom(mut self, rule: ValueRule) -> Self {
        self.rules.custom = Some(rule);
        self
    }

    /// Rules over several fields of this record.
    #[must_use]
    pub const fn checks(mut self, checks: &'static [Check]) -> Self {
        self.checks = checks;
        self
    }

    /// Deprecated names of fields of this record.
    #[must_use]
    pub const fn aliases(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }
}
