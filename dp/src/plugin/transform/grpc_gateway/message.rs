//! Messages: JSON, paths and queries to protobuf in gRPC's frames, and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value};

/// What a frame begins with: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;
/// Larger messages of the upstream are not put into JSON.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The frame of the message that these fields make.
///
/// # Errors
/// If a field cannot have its value.
pub(super) fn encode(
    input: &MessageDescriptor,
    fields: Map<String, Value>,
) -> Result<Bytes, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let fields = Value::Object(fields);
    let message = DynamicMessage::deserialize_with_options(input.clone(), fields, &options);
    let fault = |error| format!("this makes no {}: {error}", input.full_name());
    let message = message.map_err(fault)?;
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).map_err(|_| "the message is too long")?);
    message
        .encode(&mut frame)
        .map_err(|error| error.to_string())?;
    Ok(frame.freeze())
}

/// Sets a field, by its path with dots, to what a text says; adds to it if it is a list. Fields there are not are left out.
pub(super) fn set(
    fields: &mut Map<String, Value>,
    message: &MessageDescriptor,
    path: &str,
    text: &str,
) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let Some(field) = field(message, name) else {
        return;
    };
    // A field has two names; the other one would be the same field twice.
    if let Some(value) = fields.remove(field.json_name()) {
        fields.entry(field.name()).or_insert(value);
    }
    let entry = fields.entry(field.name());
    match (rest, field.kind()) {
        (Some(rest), Kind::Message(inner)) if !field.is_list() && !field.is_map() => {
            let value = entry.or_insert_with(|| Value::Object(Map::new()));
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Value::Object(fields) = value {
                set(fields, &inner, rest, text);
            }
        }
        (Some(_), _) => {}
        (None, kind) => {
            let value = scalar(&kind, text);
            if field.is_list() {
                let list = entry.or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value);
                } else {
                    *list = Value::Array(vec![value]);
                }
            } else {
                *entry.or_insert(Value::Null) = value;
            }
        }
    }
}

/// Sets a field to a value of JSON.
pub(super) fn set_value(
    fields: &mut Map<String, Value>,
    message: &MessageDescriptor,
    name: &str,
    value: Value,
) {
    let name =
        field(message, name).map_or_else(|| name.to_owned(), |field| field.name().to_owned());
    fields.insert(name, value);
}

fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let field = message.get_field_by_name(name);
    field.or_else(|| message.get_field_by_json_name(name))
}

/// A text as JSON has it for a field of this kind. What it cannot be stays a text, and is refused as one.
fn scalar(kind: &Kind, text: &str) -> Value {
    let truth = match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let value = match kind {
        Kind::Bool => truth.map(Value::Bool),
        Kind::Message(message) if message.full_name() == "google.protobuf.BoolValue" => {
            truth.map(Value::Bool)
        }
        Kind::Enum(_) => text.parse::<i32>().ok().map(Value::from),
        Kind::Double
        | Kind::Float
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64
        | Kind::String
        | Kind::Bytes
        | Kind::Message(_) => None,
    };
    value.unwrap_or_else(|| Value::from(text))
}

/// What the upstream sends, on its way to JSON.
pub(super) struct Messages {
    output: MessageDescriptor,
    /// Which field of a message is shown; empty for all of it.
    field: String,
    gathered: BytesMut,
}

impl Messages {
    pub(super) fn new(output: MessageDescriptor, field: String) -> Self {
        Self {
            output,
            field,
            gathered: BytesMut::new(),
        }
    }

    /// The JSON of the messages that are complete with this part, one behind the other.
    ///
    /// # Errors
    /// If what came is none. Nothing after it can be read.
    pub(super) fn add(&mut self, data: &[u8]) -> (Vec<u8>, Result<(), &'static str>) {
        self.gathered.extend_from_slice(data);
        let mut shown = Vec::new();
        let outcome = loop {
            if self.gathered.len() < HEAD_BYTES {
                break Ok(());
            }
            let mut head = &self.gathered[..HEAD_BYTES];
            let (compressed, length) = (head.get_u8(), head.get_u32());
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if compressed != 0 {
                break Err("the message is compressed");
            }
            if length > MESSAGE_BYTES_MAX {
                break Err("the message is too large");
            }
            if self.gathered.len() < HEAD_BYTES + length {
                break Ok(());
            }
            self.gathered.advance(HEAD_BYTES);
            let message = self.gathered.split_to(length).freeze();
            if self.show(message, &mut shown).is_none() {
                break Err("the message is not of its type");
            }
        };
        (shown, outcome)
    }

    fn show(&self, message: Bytes, shown: &mut Vec<u8>) -> Option<()> {
        let message = DynamicMessage::decode(self.output.clone(), message).ok()?;
        // As Kong's: the names of the file, every field, numbers as numbers.
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(false)
            .stringify_64_bit_integers(false);
        let json = serde_json::value::Serializer;
        let mut json = message.serialize_with_options(json, &options).ok()?;
        if !self.field.is_empty() {
            json = json
                .get_mut(&self.field)
                .map(Value::take)
                .unwrap_or_default();
        }
        serde_json::to_writer(shown, &json).ok()
    }
}
