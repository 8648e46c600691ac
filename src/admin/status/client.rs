//! One question to the admin address, by hyper, which is there for the other end.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long the whole answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of it.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// What is answered there, or why nothing is. The token is not part of the reason.
pub(super) async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Result<String, String> {
    match tokio::time::timeout(TIMEOUT, ask(address, path, token)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    }
}

async fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Result<String, String> {
    let said = |error: hyper::Error| format!("it does not speak HTTP: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| crate::upstream::connect::reason(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    // Ends with the answer, or with the runtime.
    tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| "the token is no header".to_owned())?;
    let response = sender.send_request(request).await.map_err(said)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|error| format!("its answer breaks off: {error}"))?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    match status {
        StatusCode::OK => Ok(text),
        StatusCode::UNAUTHORIZED => {
            Err("it wants a token (--admin-token, ANTEROOM_ADMIN_TOKEN or admin.token)".to_owned())
        }
        _ => Err(format!("it answers {status}")),
    }
}
