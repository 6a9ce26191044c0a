use super::*;

#[test]
fn a_group_has_a_name_and_a_membership_has_both_ends() {
    for (kind, input, expected) in [
        (
            Kind::ConsumerGroup,
            json!({"name": "gold", "tags": ["a"]}),
            json!({"name": "gold", "created_at": 1_700_000_000, "updated_at": 1_700_000_000}),
        ),
        (
            Kind::ConsumerGroup,
            json!({}),
            json!({"name": "required field missing"}),
        ),
        (
            Kind::ConsumerGroup,
            json!({"name": "a", "consumers": []}),
            json!({"consumers": "unknown field"}),
        ),
        (
            Kind::ConsumerGroupConsumer,
            json!({}),
            json!({"consumer": "required field missing", "consumer_group": "required field missing"}),
        ),
        (
            Kind::ConsumerGroupConsumer,
            json!({"consumer": reference(), "consumer_group": reference()}),
            json!({"consumer": reference()}),
        ),
        (
            Kind::Plugin,
            json!({"name": "key-auth", "consumer_group": reference()}),
            json!({"consumer_group": "value must be null"}),
        ),
        (
            Kind::Plugin,
            json!({"name": "rate-limiting", "config": {"minute": 1}, "consumer_group": reference()}),
            json!({"consumer_group": reference()}),
        ),
    ] {
        check(kind, input, expected);
    }
}
