//! What is answered on the admin address.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use futures_util::stream::{Stream, unfold};
use serde_json::Value as Json;

use super::guard::{Refused, guard};
use super::{Looking, page};
use crate::admin::figures::Figures;
use crate::admin::{metrics, snapshot};

/// Every path there is.
pub(super) fn router(looking: Arc<Looking>) -> Router {
    Router::new()
        .route("/", get(show_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .route("/events", get(events))
        .fallback(async || (StatusCode::NOT_FOUND, "there are /, /metrics, /healthz, /readyz, /status and /events\n"))
        .layer(middleware::from_fn_with_state(looking.clone(), guard))
        .with_state(looking)
}

async fn show_page(State(looking): State<Arc<Looking>>) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, looking.page_policy.as_str())], Html(page::PAGE)).into_response()
}

/// Whether the process lives. That the upstream is away is no reason to restart it.
async fn healthz(State(looking): State<Arc<Looking>>) -> Response {
    let health = looking.health().await;
    if health.is_alive() {
        (StatusCode::OK, "alive\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", health.ailment())).into_response()
    }
}

/// Whether requests should be sent here.
async fn readyz(State(looking): State<Arc<Looking>>) -> Response {
    let health = looking.health().await;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", health.readiness())).into_response()
}

async fn scrape(State(looking): State<Arc<Looking>>, headers: HeaderMap) -> Response {
    let health = looking.health().await;
    let mut figures = Figures::all(&looking.shared);
    figures.add_commands(&looking.shared);
    figures.add_admin(
        &health,
        looking.shared.pulses.len(),
        Refused::ALL.map(|why| (why.as_str(), looking.refused[why as usize].get())),
        looking.latest.receiver_count(),
    );
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (text, content_type) = metrics::render(figures, accept);
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

async fn status(State(looking): State<Arc<Looking>>) -> Response {
    let health = looking.health().await;
    let snapshot = snapshot::with_history(&looking.shared, &health, &looking.history());
    let text = Json::Object(snapshot).to_string();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn events(State(looking): State<Arc<Looking>>) -> Response {
    let Ok(room) = looking.followers.clone().try_acquire_owned() else {
        looking.refused(Refused::Crowded);
        return Refused::Crowded.into_response();
    };
    let token = looking.shared.config().admin.token.clone();
    // One snapshot for all who follow. Who does not read misses some, and nothing piles up for them.
    let following = unfold((looking.latest.subscribe(), room), move |(mut latest, room)| {
        let (looking, token) = (looking.clone(), token.clone());
        async move {
            latest.changed().await.ok()?;
            // The token that opened this may open nothing any more.
            if looking.shared.config().admin.token != token {
                return None;
            }
            let snapshot = latest.borrow_and_update().clone();
            Some((Event::default().data(&*snapshot), (latest, room)))
        }
    });
    Sse::new(infallible(following)).keep_alive(KeepAlive::default()).into_response()
}

fn infallible(events: impl Stream<Item = Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::StreamExt::map(events, Ok)
}
