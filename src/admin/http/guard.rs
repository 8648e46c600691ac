//! Who may ask for what.
//!
//! | | with a token | without |
//! | --- | --- | --- |
//! | `/healthz`, `/readyz` | anyone | anyone |
//! | `/metrics` | who shows it | anyone who asks by address, or as localhost |
//! | what names keys or clients | who shows it | this machine, asking likewise |
//!
//! The token comes as `Authorization: Bearer`, or as the password of Basic authentication, for which browsers ask and which they
//! then send with everything, streams included. Never in the address: that would be in histories and other people's logs.
//!
//! Without a token, a name in `Host` could be anyone's: a page from elsewhere may have its own name resolve to 127.0.0.1 and
//! would then be taken for ours by the browser (DNS rebinding). An address in its place cannot be made to mean something else.
//! What a browser says it asks for another site's page is not answered either, token or not.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::Looking;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Why somebody was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No token, or not the right one.
    Token,
    /// `Host` is a name that could be anyone's, or another site's page asks.
    Host,
    /// It names keys or clients, and they are not on this machine.
    Remote,
    /// Too many follow `/events`, or have connections.
    Crowded,
}

impl Refused {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 4] = [Self::Token, Self::Host, Self::Remote, Self::Crowded];

    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Host => "host",
            Self::Remote => "remote",
            Self::Crowded => "crowded",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Token => {
                "a token is needed: Authorization: Bearer <admin.token>, or as the password of Basic authentication\n"
            }
            Self::Host => {
                "this is not answered for other sites, and without admin.token by IP address or as localhost only\n"
            }
            Self::Remote => "without admin.token this is answered on the proxy's own machine only\n",
            Self::Crowded => "too many are following already\n",
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host | Self::Remote => StatusCode::FORBIDDEN,
            Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = (status, self.words()).into_response();
        if self == Self::Token {
            let challenge = header::HeaderValue::from_static("Basic realm=\"anteroom\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Lets a request through or answers it.
pub(super) async fn guard(
    State(looking): State<Arc<Looking>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let config = looking.shared.config();
    let token = config.admin.token.secret();
    let mut response = match judge(request.uri().path(), peer, request.headers(), token) {
        Ok(()) => next.run(request).await,
        Err(why) => {
            looking.refused(why);
            why.into_response()
        }
    };
    let headers = response.headers_mut();
    // The page has its own, which lets its own script run.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(header::HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn judge(path: &str, peer: IpAddr, headers: &HeaderMap, token: Option<&str>) -> Result<(), Refused> {
    if matches!(path, "/healthz" | "/readyz") {
        return Ok(());
    }
    if is_from_elsewhere(headers) {
        return Err(Refused::Host);
    }
    if let Some(token) = token {
        // Their lengths are no secret.
        let is_shown = shown(headers).is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(token.as_bytes())));
        return if is_shown { Ok(()) } else { Err(Refused::Token) };
    }
    if !headers.get(header::HOST).and_then(|host| host.to_str().ok()).is_some_and(is_nobodys_name) {
        return Err(Refused::Host);
    }
    if path != "/metrics" && !peer.to_canonical().is_loopback() {
        return Err(Refused::Remote);
    }
    Ok(())
}

/// Whether a browser asks for the sake of another site's page, and not because somebody follows a link. That page could read nothing of the
/// answer, but it could take the room of those who can.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate")
}

/// The token a request shows.
fn shown(headers: &HeaderMap) -> Option<String> {
    let (scheme, shown) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(shown.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(shown.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether this `Host` is an address, or a name that browsers never look up.
fn is_nobodys_name(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn asked(
        path: &str,
        peer: &str,
        header: &[(header::HeaderName, &str)],
        token: Option<&str>,
    ) -> Result<(), Refused> {
        let headers = header.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        judge(path, peer.parse().unwrap(), &headers, token)
    }

    #[test]
    fn names_are_taken_for_nobodys_only_where_they_cannot_be_somebodys() {
        for host in ["127.0.0.1", "127.0.0.1:9380", "[::1]:9380", "[::1]", "10.1.2.3:9380", "localhost", "LocalHost:1"]
        {
            assert!(is_nobodys_name(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9380", "localhost.evil.example", "127.0.0.1.evil.example:9380"] {
            assert!(!is_nobodys_name(host), "{host}");
        }
    }

    #[test]
    fn without_a_token_the_name_and_the_machine_decide() {
        let here = [(header::HOST, "localhost:9380")];
        assert_eq!(asked("/", "127.0.0.1", &here, None), Ok(()));
        assert_eq!(asked("/status", "::ffff:127.0.0.1", &here, None), Ok(()));
        let there = [(header::HOST, "10.0.0.5:9380")];
        assert_eq!(asked("/metrics", "10.0.0.7", &there, None), Ok(()));
        for path in ["/", "/status", "/events", "/anything"] {
            assert_eq!(asked(path, "10.0.0.7", &there, None), Err(Refused::Remote), "{path}");
        }
        let rebound = [(header::HOST, "evil.example")];
        assert_eq!(asked("/metrics", "127.0.0.1", &rebound, None), Err(Refused::Host));
        assert_eq!(asked("/metrics", "127.0.0.1", &[], None), Err(Refused::Host));
        assert_eq!(asked("/readyz", "10.0.0.7", &rebound, None), Ok(()));
        let site = (header::HeaderName::from_static("sec-fetch-site"), "cross-site");
        let mode = |mode| (header::HeaderName::from_static("sec-fetch-mode"), mode);
        let embedded = [here[0].clone(), site.clone(), mode("no-cors")];
        assert_eq!(asked("/events", "127.0.0.1", &embedded, None), Err(Refused::Host));
        assert_eq!(asked("/", "127.0.0.1", &[here[0].clone(), site, mode("navigate")], None), Ok(()));
    }

    #[test]
    fn with_a_token_it_alone_decides() {
        let of = |value: &str| asked("/metrics", "10.0.0.7", &[(header::AUTHORIZATION, value)], Some(TOKEN));
        assert_eq!(of(&format!("Bearer {TOKEN}")), Ok(()));
        assert_eq!(of(&format!("bearer  {TOKEN} ")), Ok(()));
        assert_eq!(of(&format!("Basic {}", STANDARD.encode(format!("anyone:{TOKEN}")))), Ok(()));
        let long = format!("Bearer {TOKEN}{TOKEN}");
        for wrong in ["Bearer", "Bearer ", "Bearer a-token-of-some-lengti", &long, "Basic !!", "Basic YTpi", TOKEN] {
            assert_eq!(of(wrong), Err(Refused::Token), "{wrong}");
        }
        assert_eq!(asked("/metrics", "127.0.0.1", &[(header::HOST, "localhost")], Some(TOKEN)), Err(Refused::Token));
        assert_eq!(asked("/healthz", "10.0.0.7", &[], Some(TOKEN)), Ok(()));
    }
}
