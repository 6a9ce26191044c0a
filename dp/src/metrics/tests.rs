use super::*;

fn sample(route: u128) -> Sample {
    Sample {
        route: Uuid::from_u128(route),
        status: 200,
        source: Source::Service,
        request_ms: 3,
        upstream_ms: 2,
        consumer: None,
    }
}

#[test]
fn requests_of_more_routes_than_are_kept_apart_are_counted_together() {
    let shard = Shard::default();
    let kept = SERIES_MAX as u128;
    for route in 1..=kept + 5 {
        let labels = || Labels {
            route: route.to_string(),
            ..Labels::default()
        };
        shard.record(sample(route), labels);
        shard.record(sample(route), || unreachable!("its labels are known"));
    }
    shard.record(sample(1), || unreachable!("its labels are known"));
    let series = shard.series.lock().unwrap();
    let counted = |name: &str| {
        let mut all = series.all.iter();
        all.find(|(_, series)| series.labels.route == name)
            .map(|(_, series)| series.count)
    };
    assert_eq!(series.all.len(), SERIES_MAX + 1);
    assert_eq!(counted("1"), Some(3));
    assert_eq!(counted(&kept.to_string()), Some(2));
    assert_eq!(counted(""), Some(10));
}
