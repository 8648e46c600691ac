//! `anteroom status`, and where the admin address is: at a terminal or for scripts, with and without an answer.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use anteroom::config::Token;
use support::binary::Binary;
use support::http::get;
use support::{PATIENCE, Proxy, Redis, eventually, free_port};

const TOKEN: &str = "one-token-for-the-tests";

fn anteroom(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.args(args).envs(variables.iter().copied()).env_remove("NO_COLOR").stdin(Stdio::null());
    command.output().expect("the binary is built")
}

fn status(admin: SocketAddr, more: &[&str]) -> Output {
    anteroom(&[&["status", "--admin", &admin.to_string()], more].concat(), &[])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn looked_into(redis: &Redis, token: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start_with(redis.addr(), |config| {
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.admin.token = Token::new(token);
        config.cache.admit_after = 1;
    });
    let admin = proxy.admin.expect("it was asked for");
    eventually("it is ready", || get(admin, "/readyz").status == 200);
    (proxy, admin)
}

#[test]
fn one_screen_says_how_it_is_and_has_no_colours_where_nobody_sees_them() {
    let redis = Redis::start();
    let (proxy, admin) = looked_into(&redis, "");
    proxy.wait_armed();
    // Which begins with forgetting everything: something may have been said before.
    eventually("peers are listened to", || proxy.info("anteroom_peers_state") == "up");
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]);
    for _ in 0..4 {
        client.ask(&["GET", "k"]);
    }
    let shown = status(admin, &[]);
    let screen = text(&shown.stdout);
    assert!(shown.status.success() && shown.stderr.is_empty(), "{screen}{}", text(&shown.stderr));
    for part in [
        "anteroom 0.",
        "ready\n",
        &format!("upstream   redis://{}", redis.addr()),
        "   answers",
        "armed   by tracking",
        " 75.0 %",
    ] {
        assert!(screen.contains(part), "{part} is not in:\n{screen}");
    }
    assert!(!screen.contains('\u{1b}') && screen.lines().count() < 25, "{screen}");
    redis.pause();
    eventually("it is no longer ready", || text(&status(admin, &[]).stdout).contains("NOT READY: the upstream"));
    redis.resume();
}

#[test]
fn for_scripts_there_is_json() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis, "");
    let shown = status(admin, &["--json"]);
    let read: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!((read["ready"].as_bool(), read["figures"]["workers"].as_u64()), (Some(true), Some(2)));
    assert_eq!(text(&shown.stdout).lines().count(), 1);
}

#[test]
fn it_goes_on_while_it_is_watched_and_ends_with_who_watches() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis, "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["status", "--watch", "--json", "--admin", &admin.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("it is piped")));
    let mut uptime = || {
        let line = lines.next().expect("it goes on").expect("text");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        read["figures"]["uptime_in_seconds"].as_u64().expect("a number")
    };
    let first = uptime();
    uptime();
    assert!(uptime() > first);
    drop(lines);
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            assert!(status.success());
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on for nobody");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn nobody_to_ask_is_told_from_nothing_to_ask() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let unreachable = status(nobody, &[]);
    assert_eq!(unreachable.status.code(), Some(69));
    assert_eq!(text(&unreachable.stderr), format!("the proxy at {nobody}: connection refused\n"));
    for (args, why) in [
        (&["status", "--admin", "off"][..], "off"),
        (&["status", "--admin", "127.0.0.1:0"], "port 0"),
        (&["status", "--admin", "here"], "admin.listen = here: expected an IP address and a port"),
        (&["status", "--colours"], "--colours"),
    ] {
        let refused = anteroom(args, &[]);
        assert_eq!(refused.status.code(), Some(64), "{args:?}");
        assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
    // Something else listens there.
    let redis = Redis::start();
    let other = status(redis.addr(), &[]);
    assert_eq!(other.status.code(), Some(69), "{}", text(&other.stderr));
    // And something that never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let start = std::time::Instant::now();
    assert_eq!(status(silent.local_addr().expect("it is bound"), &[]).status.code(), Some(69));
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_token_is_shown_if_there_is_one_and_never_told() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(&redis, TOKEN);
    let refused = status(admin, &[]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(text(&refused.stderr).contains("ANTEROOM_ADMIN_TOKEN"), "{}", text(&refused.stderr));
    assert!(status(admin, &["--admin-token", TOKEN]).status.success());
    let admin = admin.to_string();
    let by_variable = anteroom(&["status"], &[("ANTEROOM_ADMIN", &admin), ("ANTEROOM_ADMIN_TOKEN", TOKEN)]);
    assert!(by_variable.status.success(), "{}", text(&by_variable.stderr));
    for args in [&["check"][..], &["--help"], &["check", "--listen", "nonsense"], &["status", "--nonsense"]] {
        let said = anteroom(args, &[("ANTEROOM_ADMIN_TOKEN", TOKEN)]);
        assert!(!text(&said.stdout).contains(TOKEN) && !text(&said.stderr).contains(TOKEN), "{args:?}");
    }
    // Too short to be one; a short secret is a secret.
    let said = anteroom(&["check"], &[("ANTEROOM_ADMIN_TOKEN", "hunter2")]);
    assert_eq!(said.status.code(), Some(64));
    assert_eq!(
        text(&said.stderr),
        "ANTEROOM_ADMIN_TOKEN: admin.token = ***: expected 16 to 512 letters, digits and other visible characters of ASCII, \
         or \"\" for none\n"
    );
}

#[test]
fn a_default_port_that_is_taken_ends_nobody_and_a_chosen_one_does() {
    let redis = Redis::start();
    // Whoever has it, be it another proxy on this machine.
    let taken = TcpListener::bind("127.0.0.1:9380");
    let by_default = Binary::start(redis.addr(), "# [admin] is as it is by default\n");
    assert_eq!(by_default.client().text(&["PING"]), "+PONG\r\n");
    assert!(by_default.log().iter().any(|line| line.contains("WARN") && line.contains("admin=127.0.0.1:9380")));
    drop(taken);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let upstream = format!("redis://{}", redis.addr());
    let chosen = anteroom(&["--listen", "127.0.0.1:0", "--upstream", &upstream, "--admin", &address], &[]);
    assert_eq!(chosen.status.code(), Some(69));
    assert!(text(&chosen.stderr).contains(&format!("cannot listen on {address}")), "{}", text(&chosen.stderr));
}

#[test]
fn listening_to_other_machines_without_a_token_is_warned_of() {
    let redis = Redis::start();
    let config = |token: &str| format!("[admin]\nlisten = \"0.0.0.0:{}\"\ntoken = \"{token}\"\n", free_port());
    let warned = |binary: &Binary| {
        eventually("it listens", || binary.log().iter().any(|line| line.contains("metrics, health and a page")));
        binary.log().iter().any(|line| line.contains("WARN") && line.contains("admin.token is empty"))
    };
    assert!(warned(&Binary::start(redis.addr(), &config(""))));
    let with_token = Binary::start(redis.addr(), &config(TOKEN));
    assert!(!warned(&with_token));
    assert!(with_token.log().iter().all(|line| !line.contains(TOKEN)));
}
