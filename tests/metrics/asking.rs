//! What may be asked, and by whom.

use anteroom::config::{Algorithm, By, Rate, Scope, Token};

use super::support::http::{ask, connect};
use super::support::{Redis, eventually};
use super::{Driven, looked_into};

fn limit(name: &str, burst: u64, scope: Scope) -> Rate {
    Rate {
        name: name.to_owned(),
        by: By::Ip,
        user: None,
        commands: vec!["get".to_owned()],
        commands_per_second: 1,
        algorithm: Algorithm::TokenBucket { burst },
        scope,
        bytes_per_second: 0,
        dry_run: false,
    }
}

pub(super) fn limits(driven: &mut Driven) {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        config.limits.rate = vec![
            limit("gets", 3, Scope::Proxy),
            Rate { dry_run: true, ..limit("dry", 2, Scope::Proxy) },
            limit("together", 1000, Scope::Shared),
        ];
    });
    let mut client = proxy.client();
    for _ in 0..5 {
        client.ask(&["GET", "k"]);
    }
    driven.is(admin, "anteroom_limits", 3.0);
    driven.is(admin, "anteroom_limit_commands_total{limit=\"gets\",outcome=\"allowed\"}", 3.0);
    driven.is(admin, "anteroom_limit_commands_total{limit=\"gets\",outcome=\"refused\"}", 2.0);
    driven.holds(admin, "anteroom_limit_commands_total{limit=\"dry\",outcome=\"dry_run_refused\"}", "some", |now| {
        now >= 1.0
    });
    driven.is(admin, "anteroom_limit_identities{limit=\"gets\"}", 1.0);
    driven.is(admin, "anteroom_limits_shared_state{state=\"shared\"}", 1.0);
    driven.is(admin, "anteroom_limits_proxies", 1.0);
}

pub(super) fn passwords(driven: &mut Driven) {
    let redis = Redis::start_with(&["--requirepass", "right"]);
    let (proxy, admin) = looked_into(redis.addr(), |config| {
        (config.clients.auth_failures_per_second, config.clients.auth_failures_burst) = (1, 1);
    });
    let mut client = proxy.client();
    assert!(client.text(&["AUTH", "wrong"]).starts_with("-WRONGPASS"));
    assert!(client.text(&["AUTH", "wrong"]).starts_with("-THROTTLED"));
    driven.is(admin, "anteroom_auth_failures_total", 1.0);
    driven.is(admin, "anteroom_auth_throttled_total", 1.0);
    driven.is(admin, "anteroom_upstream_auth_required", 1.0);
    eventually("the right one is taken", || client.text(&["AUTH", "right"]) == "+OK\r\n");
    driven.is(admin, "anteroom_identities", 2.0);
}

pub(super) fn the_admin_address(driven: &mut Driven) {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(redis.addr(), |config| config.admin.token = Token::default());
    assert_eq!(ask(admin, "GET", "/status", &[("Host", "someone.example")]).status, 403);
    driven.is(admin, "anteroom_admin_refused_total{reason=\"host\"}", 1.0);
    driven.is(admin, "anteroom_admin_followers", 0.0);
    let mut following = connect(admin);
    std::io::Write::write_all(&mut following, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it listens");
    driven.is(admin, "anteroom_admin_followers", 1.0);
    drop(following);
    driven.is(admin, "anteroom_admin_followers", 0.0);
}
