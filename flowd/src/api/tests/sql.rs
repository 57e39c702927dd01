//! `/v1/sql`.

use std::{io::Write as _, os::unix::net::UnixStream as Blocking, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{START_MS, Served, limits::SOON};
use crate::api::openapi::tests::check;

/// A statement that would take years.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
/// One whose answer has no end.
const STREAM: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

impl Served {
    async fn post(&self, query: &str, accept: &str, text: &str) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("/v1/sql{query}"))
            .header("host", "flowd")
            .header(ACCEPT, accept)
            .body(Full::new(Bytes::from(text.to_owned())))
            .unwrap();
        sender.send_request(request).await.unwrap()
    }

    /// Status, type, and the whole answer.
    async fn sql(&self, query: &str, accept: &str, text: &str) -> (u16, String, String) {
        let response = self.post(query, accept, text).await;
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        check("POST", "/v1/sql", (status, &kind, &bytes));
        (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn rows(&self, text: &str) -> Value {
        let (status, _, answer) = self.sql("", "application/json", text).await;
        assert_eq!(status, 200, "{text}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

#[tokio::test]
async fn an_answer_comes_in_the_form_that_is_wanted() {
    let served = Served::start();
    let text = "SELECT 1 AS z, peer_name AS a, NULL AS n, 0.5 AS r, x'0aff' AS b, 9e999 AS f \
        FROM records WHERE record_id < 3";
    let cases = [
        (
            "application/json",
            "{\"columns\":[\"z\",\"a\",\"n\",\"r\",\"b\",\"f\"],\"rows\":[\
             [1,\"=alice\",null,0.5,\"0aff\",null],\n[1,\"=alice\",null,0.5,\"0aff\",null]],\
             \"more\":false}\n",
        ),
        (
            "application/x-ndjson",
            "{\"z\":1,\"a\":\"=alice\",\"n\":null,\"r\":0.5,\"b\":\"0aff\",\"f\":null}\n\
             {\"z\":1,\"a\":\"=alice\",\"n\":null,\"r\":0.5,\"b\":\"0aff\",\"f\":null}\n",
        ),
        (
            "text/csv; charset=utf-8; header=present",
            "z,a,n,r,b,f\n1,'=alice,,0.5,0aff,\n1,'=alice,,0.5,0aff,\n",
        ),
    ];
    for (kind, expected) in cases {
        assert_eq!(served.sql("", kind, text).await, (200, kind.to_owned(), expected.to_owned()));
    }
    assert_eq!(served.sql("", "text/html", text).await.0, 406);
    let empty = "SELECT record_id FROM records WHERE record_id < 0";
    let expected = json!({ "columns": ["record_id"], "rows": [], "more": false });
    assert_eq!(served.rows(empty).await, expected);
    assert_eq!(served.sql("", "text/csv", empty).await.2, "record_id\n");
    let formula = "SELECT 1 AS \"=1+1\"";
    assert_eq!(served.sql("", "text/csv", formula).await.2, "'=1+1\n1\n");
    let limited = served.sql("?limit=2", "*/*", "VALUES (1), (2), (3)").await.2;
    assert!(limited.contains("\"rows\":[[1],\n[2]],\"more\":true"), "{limited}");
    let limited = served.sql("?limit=3", "*/*", "VALUES (1), (2), (3)").await.2;
    assert!(limited.ends_with("[3]],\"more\":false}\n"), "{limited}");
}

#[tokio::test]
async fn a_statement_sees_what_the_other_endpoints_show() {
    let served = Served::start();
    let one = async |text: &str| served.rows(text).await["rows"][0].clone();
    // Up to the drain thread's watermark.
    assert_eq!(one("SELECT count(*), max(record_id) FROM records").await, json!([6, 6]));
    let sums = "SELECT sum(rx_bytes), min(window_end), count(DISTINCT flow_id) FROM records";
    assert_eq!(one(sums).await, json!([720, START_MS + 60_000, 6]));
    let peers = "SELECT group_concat(name), min(connected_since) FROM peers";
    assert_eq!(one(peers).await, json!(["bob,bob,carol", START_MS - 5]));
    let stages = "SELECT group_concat(stage), sum(packets), count(closed) FROM \
        (SELECT * FROM gaps ORDER BY opened)";
    let listed = served.json("/v1/gaps").await;
    let names: Vec<_> = listed["gaps"].as_array().unwrap().iter().rev().collect();
    let names: Vec<_> = names.iter().map(|gap| gap["stage"].as_str().unwrap()).collect();
    let closed = listed["gaps"].as_array().unwrap().iter().filter(|gap| !gap["to"].is_null());
    let expected = json!([names.join(","), listed["sum"]["packets"], closed.count()]);
    assert_eq!(one(stages).await, expected);
    let told = served.json("/v1/sql").await;
    let names: Vec<_> = told["tables"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["records", "gaps", "peers"]);
}

#[tokio::test]
async fn what_is_wrong_is_told_before_anything_is_sent() {
    let served = Served::start();
    let long = format!("SELECT '{}'", "x".repeat(40_000));
    let cases = [
        ("", "SELECT 1 FORM x", 422, "near \"x\": syntax error, at byte 15"),
        ("", "DROP TABLE gaps", 422, "a statement only reads"),
        ("", "SELECT json('{')", 422, "malformed JSON"),
        ("", "", 422, "there is no statement"),
        ("", &long, 413, "the statement has more than 32768 bytes"),
        ("?limit=0", "SELECT 1", 400, "`limit` is `0`"),
        ("?since=1h", "SELECT 1", 400, "unknown parameter `since`"),
    ];
    for (query, text, expected, told) in cases {
        let (status, kind, answer) = served.sql(query, "*/*", text).await;
        assert_eq!((status, &*kind), (expected, "application/problem+json"), "{text}: {answer}");
        let problem: Value = serde_json::from_str(&answer).unwrap();
        assert!(problem["detail"].as_str().unwrap().starts_with(told), "{text}: {answer}");
    }
    let (status, text) = served.text("/v1/sql?limit=1", "*/*").await;
    assert_eq!(status, 400, "{text}");
    let late = Served::with_query_timeout(Duration::ZERO);
    let (status, _, answer) = late.sql("", "*/*", ENDLESS).await;
    assert_eq!(status, 503);
    assert!(answer.contains("took longer than 0 s"), "{answer}");
}

#[tokio::test]
async fn a_long_answer_is_whole() {
    let served = Served::start();
    let text = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
        SELECT i, CASE i % 5000 WHEN 0 THEN hex(zeroblob(100000)) END AS x FROM n";
    let answer = served.rows(text).await;
    let rows = answer["rows"].as_array().unwrap();
    assert!((1..=20_000).eq(rows.iter().map(|row| row[0].as_i64().unwrap())));
    let long = rows.iter().filter_map(|row| row[1].as_str()).map(str::len);
    assert!(long.eq([200_000; 4]));
}

#[tokio::test]
async fn an_answer_that_cannot_be_finished_breaks_off() {
    let served = Served::start();
    // The error comes long after the first piece.
    let text = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
        SELECT i, CASE i WHEN 100000 THEN json('{') END FROM n";
    for accept in ["application/json", "application/x-ndjson", "text/csv"] {
        let response = served.post("", accept, text).await;
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err(), "{accept}");
    }
}

#[tokio::test]
async fn clients_that_hang_up_end_their_statements() {
    let served = Served::with_query_timeout(Duration::from_secs(3_600));
    // Many more than may run at a time; the last one is answered when they have all ended.
    for text in [ENDLESS, STREAM].repeat(8) {
        let mut client = Blocking::connect(&served.socket).unwrap();
        let head =
            format!("POST /v1/sql HTTP/1.1\r\nHost: flowd\r\nContent-Length: {}", text.len());
        client.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).unwrap();
    }
    let answer = tokio::time::timeout(SOON, served.rows("SELECT 1")).await;
    assert_eq!(answer.expect("the others have ended")["rows"], json!([[1]]));
}
