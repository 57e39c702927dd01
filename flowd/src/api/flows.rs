//! `/v1/flows`, `/v1/flows/{flow_id}`, `/v1/summary`: the store and the open flows, merged.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    ApiState,
    error::ApiError,
    gaps,
    params::{Named, Params, cursor},
    query::Query,
    sorting::Sorting,
};
use crate::{
    flows::{Filter, Flow, FlowId, State as FlowStateFilter},
    live::{Awaited, Pending, PendingSummary, Position, Request},
    store::{Leash, Place, RankedPage, ReadError, Reader, StoredFlow},
    wire::{self, FlowState, Timestamp},
};

pub(super) const DEFAULT_LIMIT: usize = 100;
/// Queries of the store at a time: each has a thread, and a connection with a cache.
const MAX_QUERIES: usize = 8;
static QUERIES: Semaphore = Semaphore::const_new(MAX_QUERIES);
/// Queries that wait for the drain thread in threads, so as to go on at once; what is more waits
/// without one.
static WAITING: Semaphore = Semaphore::const_new(MAX_QUERIES);
/// What a page of so many holds does not count.
const SMALL_PAGE: usize = 200;
/// Larger pages that are made at a time: each may hold ten thousand records, some 20 MiB.
const MAX_PAGES: usize = 2;
static PAGES: Semaphore = Semaphore::const_new(MAX_PAGES);

/// `GET /v1/flows`: newest first.
pub(super) async fn list(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::FlowPage>, ApiError> {
    let Query { filter, limit, by, after } = Query::of(&params, now_ms())?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let page = if by.is_newest_first() {
        page(state, filter, after.map(|after| after.position), limit).await
    } else {
        ranked(state, filter, by, after, limit).await
    };
    Ok(Json(page?))
}

/// One page of flows, newest first.
pub(super) async fn page(
    state: ApiState,
    filter: Filter,
    before: Option<Position>,
    limit: usize,
) -> Result<wire::FlowPage, ApiError> {
    let _turn = turn(&state, limit).await?;
    let pending = {
        let (filter, before) = (filter.clone(), before.clone());
        // One more than the page, so as to know whether another follows.
        let limit = limit + 1;
        state.live.send(|reply| Request::Flows { filter, before, limit, reply })?
    };
    let gateway = state.gateway.clone();
    blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let mut merged: BTreeMap<Position, (Flow, FlowState)> = reader
            .flows(&filter, before.as_ref(), limit + 1, watermark)?
            .into_iter()
            .map(|(flow, open)| (Position::of(&flow.newest), (flow, flow_state(open))))
            .collect();
        for record in answer {
            let open = flow_state(!record.overflow);
            match merged.get_mut(&Position::of(&record)) {
                Some((flow, state)) => {
                    flow.absorb(record);
                    *state = open;
                }
                None => {
                    merged.insert(Position::of(&record), (Flow::new(record), open));
                }
            }
        }
        let more = merged.len() > limit;
        let flows: Vec<_> = merged.into_iter().rev().take(limit).collect();
        let next_cursor = flows.last().filter(|_| more).map(|(position, _)| cursor(position));
        let flows =
            flows.iter().map(|(_, (flow, open))| wire::Flow::new(&gateway, flow, *open)).collect();
        Ok(wire::FlowPage { flows, next_cursor })
    })
    .await
}

/// One page of flows in another order. Each page is of its own instant: while records arrive, a flow
/// that grows is shown once at most in descending order, and once at least in ascending order; every
/// other flow is shown exactly once.
async fn ranked(
    state: ApiState,
    filter: Filter,
    by: Sorting,
    after: Option<Place>,
    limit: usize,
) -> Result<wire::FlowPage, ApiError> {
    // It looks at every flow that is open, and holds them meanwhile.
    let _turn = turn(&state, usize::MAX).await?;
    let pending = {
        let (filter, limit) = (filter.clone(), usize::MAX);
        state.live.send(|reply| Request::Flows { filter, before: None, limit, reply })?
    };
    let gateway = state.gateway.clone();
    blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let Sorting { sort, order } = by;
        let page = RankedPage { sort, order, after, limit: limit + 1 };
        let mut rows = reader.ranked(&filter, page, answer, watermark)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|(place, _)| by.cursor(&filter, place));
        let flow = |(_, (flow, open)): &(Place, StoredFlow)| {
            wire::Flow::new(&gateway, flow, flow_state(*open))
        };
        Ok(wire::FlowPage { flows: rows.iter().map(flow).collect(), next_cursor })
    })
    .await
}

/// `GET /v1/flows/{flow_id}`: one flow over its whole life.
pub(super) async fn detail(
    State(state): State<ApiState>,
    Named(text): Named,
    params: Params,
) -> Result<Json<wire::FlowDetail>, ApiError> {
    params.only(&[])?;
    let id: FlowId = text.parse().map_err(|_| {
        ApiError::BadRequest(format!(
            "`{}` is no flow id; it must be a UUID as `flow_id` in /v1/flows",
            text.escape_debug()
        ))
    })?;
    let pending = state.live.send(|reply| Request::Flow { id, reply })?;
    let gateway = state.gateway.clone();
    let detail = blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let (mut records, in_ledger) = reader.flow(id, watermark)?.unwrap_or((Vec::new(), false));
        let open = in_ledger || answer.as_ref().is_some_and(|record| !record.overflow);
        records.extend(answer);
        let mut flow: Option<Flow> = None;
        for record in &records {
            match &mut flow {
                Some(flow) => flow.absorb(record.clone()),
                None => flow = Some(Flow::new(record.clone())),
            }
        }
        Ok(flow.map(|flow| wire::FlowDetail {
            flow: wire::Flow::new(&gateway, &flow, flow_state(open)),
            records: records.iter().map(|record| wire::Record::new(&gateway, record)).collect(),
        }))
    })
    .await?;
    detail.map(Json).ok_or_else(|| {
        ApiError::NotFound(format!(
            "there is no flow {id}; it may be older than what is kept: see /v1/flows"
        ))
    })
}

/// `GET /v1/summary`: totals of a range.
pub(super) async fn summary(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Summary>, ApiError> {
    let now_ms = now_ms();
    let filter = params.filter(&[], now_ms)?;
    let (since, until) = (filter.since_ms, filter.until_ms.unwrap_or(now_ms));
    let pending = {
        let filter = filter.clone();
        state.live.send(|reply| Request::Summary { filter, reply })?
    };
    let summary = blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer: PendingSummary { summary, open_flows, gaps } } = pending;
        let mut sum = reader.summary(&filter, watermark)?;
        sum.merge(&summary);
        let gaps = gaps::sum(&gaps::touching(reader, gaps, (since, Some(until)))?);
        let (since, until) = (since.map(Timestamp), Timestamp(until));
        Ok(wire::Summary::new(since, until, &sum, open_flows, gaps))
    });
    Ok(Json(summary.await?))
}

/// Queries that run, and how many may.
pub(super) fn running() -> (usize, usize) {
    (MAX_QUERIES - QUERIES.available_permits(), MAX_QUERIES)
}

/// Large pages that are being made, and how many may.
pub(super) fn pages() -> (usize, usize) {
    (MAX_PAGES - PAGES.available_permits(), MAX_PAGES)
}

/// Waits until few enough large pages are being made; a small one need not wait.
pub(super) async fn turn(
    state: &ApiState,
    limit: usize,
) -> Result<Option<SemaphorePermit<'static>>, ApiError> {
    if limit <= SMALL_PAGE {
        return Ok(None);
    }
    Ok(Some(place(&PAGES, state.query_timeout).await?))
}

/// One of so many places, if it becomes free in time.
pub(super) async fn place(
    places: &'static Semaphore,
    limit: Duration,
) -> Result<SemaphorePermit<'static>, ReadError> {
    let place = tokio::time::timeout(limit, places.acquire()).await;
    place.map(|place| place.expect("nobody closes it")).map_err(|_| ReadError::TooLong(limit))
}

/// Runs a query of the store where it may block, when few enough others run. It ends when it takes
/// too long, and when nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(
    state: &ApiState,
    query: impl FnOnce(&Reader) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    blocking_for(state, state.query_timeout, query).await
}

/// The same with another limit of time.
pub(super) async fn blocking_for<T: Send + 'static>(
    state: &ApiState,
    limit: Duration,
    query: impl FnOnce(&Reader) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let waiting = Waiting(Leash::new(limit));
    // Waiting for a turn is part of what it takes.
    let turn = place(&QUERIES, limit).await?;
    let reader = state.reader.clone().on(waiting.0.clone());
    let run = move || {
        // Somebody else's when the query has ended, also when nobody waits for it.
        let _turn = turn;
        query(&reader)
    };
    tokio::task::spawn_blocking(run).await.map_err(|_| ApiError::CutOff)?
}

/// The same of a query that needs to know first what the drain thread says. Its time begins when that
/// is there, and it takes no other query's place until then.
pub(super) async fn blocking_after<A, T, Q>(
    state: &ApiState,
    awaited: Awaited<A>,
    query: Q,
) -> Result<T, ApiError>
where
    A: Send + 'static,
    T: Send + 'static,
    Q: FnOnce(&Reader, A) -> Result<T, ApiError> + Send + 'static,
{
    let Ok(place) = WAITING.try_acquire() else {
        let answer = awaited.come().await?;
        return blocking(state, move |reader| query(reader, answer)).await;
    };
    let waiting = Waiting(Leash::new(state.query_timeout));
    let (leash, reader) = (waiting.0.clone(), state.reader.clone().on(waiting.0.clone()));
    // The thread that reads then is there when the answer comes: one change of threads less.
    let run = move || {
        let answer = awaited.wait()?;
        drop(place);
        let Ok(_turn) = QUERIES.try_acquire() else { return Ok(Err((answer, query))) };
        leash.renew();
        query(&reader, answer).map(Ok)
    };
    match tokio::task::spawn_blocking(run).await.map_err(|_| ApiError::CutOff)?? {
        Ok(answered) => Ok(answered),
        // Others come first.
        Err((answer, query)) => blocking(state, move |reader| query(reader, answer)).await,
    }
}

/// Goes with the future that waits for an answer: hyper drops it when the client hangs up.
pub(super) struct Waiting(pub(super) Leash);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

fn flow_state(open: bool) -> FlowState {
    if open { FlowState::Open } else { FlowState::Closed }
}

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The filter without the state, for streams of records that end by themselves.
pub(super) fn refuse_state(filter: &Filter) -> Result<(), ApiError> {
    match filter.state {
        None => Ok(()),
        Some(FlowStateFilter::Open | FlowStateFilter::Closed) => Err(ApiError::BadRequest(
            "`state` is of flows, and these are records as they are written; leave it out".into(),
        )),
    }
}
