//! Rankings and series: rows and rest are the whole, and nothing outside the range counts.

use serde_json::{Value, json};

use super::{START_MS, Served, record};
use crate::wire;

/// 2026-11-21T04:00:00Z to 04:03:00Z, in which everything is.
const RANGE: &str = "since=2026-11-21T04:00:00Z&until=2026-11-21T04:03:00Z";

fn packets(points: &Value) -> Vec<(u64, u64)> {
    let number = |point: &Value, field: &str| point[field].as_u64().unwrap();
    let points = points.as_array().unwrap().iter();
    points.map(|point| (number(point, "flows"), number(point, "packets"))).collect()
}

#[tokio::test]
async fn the_rows_of_a_ranking_and_the_rest_are_the_whole() {
    let served = Served::start();
    // Six flows to one port, one of which has two windows; by their own ports they are six.
    for (limit, sort, order) in [(1, "bytes", "desc"), (2, "flows", "asc"), (9, "packets", "asc")] {
        let query = format!("by=peer,dst_port&limit={limit}&sort={sort}&order={order}");
        let top: wire::Top =
            serde_json::from_value(served.json(&format!("/v1/top?{query}")).await).unwrap();
        let rows = top.rows.iter().map(|row| row.traffic.packets).sum::<u64>();
        assert_eq!(rows + top.rest.packets, top.total.packets, "{query}");
        let flows = top.rows.iter().map(|row| row.traffic.flows).sum::<u64>();
        assert_eq!(flows + top.rest.flows, top.total.flows, "{query}");
        let shares = top.rows.iter().map(|row| row.share).sum::<f64>();
        assert!((0.0..=1.0 + 1e-9).contains(&shares), "{shares}");
    }
    let most = served.json("/v1/top?by=src,dst&sort=packets&limit=1").await;
    assert_eq!(most["rows"][0]["values"], json!(["10.8.0.2", "10.0.0.1"]));
}

#[tokio::test]
async fn a_series_has_a_point_for_each_step_and_what_is_open_in_the_last() {
    let served = Served::start();
    let series = served.json(&format!("/v1/series?{RANGE}&step=1m")).await;
    // All stored windows end at 04:01, the live one at 04:02.
    assert_eq!(packets(&series["points"]), [(0, 0), (6, 18), (1, 3)]);
    assert_eq!((&series["step"], &series["lines"]), (&json!("1m"), &json!([])));
    assert_eq!((&series["total"]["flows"], &series["total"]["packets"]), (&json!(6), &json!(21)));
    assert_eq!(series["points"][1]["start"], "2026-11-21T04:01:00.000Z");
    assert_eq!((&series["by"], &series["rest"]), (&json!(null), &json!(null)));

    let by = served.json(&format!("/v1/series?{RANGE}&step=1m&by=dst_port,rule&limit=1")).await;
    assert_eq!(by["lines"][0]["values"], json!(["443", null]));
    assert_eq!(packets(&by["lines"][0]["points"]), [(0, 0), (6, 18), (1, 3)]);
    assert_eq!(by["points"], series["points"]);

    let day = served.json("/v1/series?until=2026-11-21T05:00:00Z").await;
    assert_eq!(day["step"], "15m");
    assert_eq!(day["points"].as_array().unwrap().len(), 96);
    assert_eq!(day["total"], series["total"]);
}

#[tokio::test]
async fn a_window_over_the_edge_is_in_the_range_in_which_it_ends_and_in_no_other() {
    let served = Served::start();
    let open = record(1000, 1);
    assert!(open.window_start_ms == START_MS + 60_000 && open.window_end_ms == START_MS + 120_000);
    let cases = [
        // range, flows, packets
        ("since=2026-11-21T04:01:30Z&until=2026-11-22", 1, 3),
        ("since=2026-11-21T04:02:00Z&until=2026-11-22", 1, 3),
        ("since=2026-11-21T04:02:00.001Z&until=2026-11-22", 0, 0),
        ("since=2026-11-21T04:00:59Z&until=2026-11-21T04:01:00Z", 0, 0),
        ("since=2026-11-21T04:01:00Z&until=2026-11-21T04:02:00Z", 6, 18),
        ("since=2026-11-21T04:00:30Z&until=2026-11-21T04:01:00.001Z", 6, 18),
    ];
    for (range, flows, packets) in cases {
        for path in ["summary", "top", "series"] {
            let step = if path == "series" { "&step=1h" } else { "" };
            let answer = served.json(&format!("/v1/{path}?{range}{step}")).await;
            let sum = if path == "summary" { &answer } else { &answer["total"] };
            let told = (sum["flows"].as_u64().unwrap(), sum["packets"].as_u64().unwrap());
            assert_eq!(told, (flows, packets), "{path} {range}");
        }
    }
}
