//! C1 and C2 as a Rust program sees them: the redis crate, alone and in bb8's pool, in both protocols.
//!
//! Every scenario runs once with RESP2, the crate's default, and once with RESP3, each time in front of an empty Redis.

mod support;

use std::collections::HashMap;

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{
    self, AsyncCommands, AsyncConnectionConfig, Client, ErrorKind, PushKind, RedisError, RedisResult, ServerErrorKind,
    Value,
};
use futures_util::StreamExt;
use support::{PATIENCE, Proxy, Redis};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Reads of a key, of which the later ones come from memory.
const READS: usize = 6;
/// The same for a key that was written after nearly every read: it is filled again only after up to 64 (cache/admission.rs).
const READS_OF_A_COUNTER: usize = 70;
const LOAD_TASKS: usize = 32;
const LOAD_ROUNDS: usize = 100;
const LOAD_KEYS: usize = 20;

/// Where a scenario connects to.
struct Target {
    redis: Redis,
    proxy: Proxy,
    protocol: &'static str,
}

impl Target {
    fn both() -> impl Iterator<Item = Self> {
        ["resp2", "resp3"].into_iter().map(|protocol| {
            let redis = Redis::start();
            let proxy = Proxy::armed(&redis);
            Self { redis, proxy, protocol }
        })
    }

    fn url(&self, db: u8) -> String {
        format!("redis://{}/{db}?protocol={}", self.proxy.addr, self.protocol)
    }

    fn client(&self, db: u8) -> Client {
        Client::open(self.url(db)).expect("a sound URL")
    }

    async fn connect(&self) -> MultiplexedConnection {
        self.connect_to(0).await
    }

    async fn connect_to(&self, db: u8) -> MultiplexedConnection {
        let connected = self.client(db).get_multiplexed_async_connection_with_config(&patient()).await;
        connected.expect("it connects")
    }

    /// Something came from memory: all of it would pass through a proxy that remembers nothing, too.
    fn assert_hits(&self) {
        assert!(self.proxy.count("anteroom_cache_hits") > 0, "{}: nothing came from memory", self.protocol);
    }
}

/// The crate's defaults, but for its patience of half a second: this machine may be busy with other tests.
fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE)).set_connection_timeout(Some(PATIENCE))
}

#[tokio::test]
async fn strings_are_read_as_they_were_written() -> RedisResult<()> {
    for target in Target::both() {
        let mut c = target.connect().await;
        let binary: Vec<u8> = (0..=255).chain(*b"\r\n$5\r\nhello\r\n").collect();
        let _: () = c.set("binary", &binary).await?;
        for n in 0..50 {
            let _: () = c.set("s", n).await?;
            assert_eq!(c.get::<_, i64>("s").await?, n, "{}: its own write", target.protocol);
        }
        for _ in 0..READS {
            assert_eq!(c.get::<_, Vec<u8>>("binary").await?, binary);
            assert_eq!(c.get::<_, Option<String>>("none").await?, None);
            assert_eq!(c.mget::<_, Vec<Option<i64>>>(&["s", "none"]).await?, [Some(49), None]);
        }
        assert_eq!(c.incr::<_, _, i64>("s", 1).await?, 50);
        assert_eq!(c.get::<_, i64>("s").await?, 50);
        assert!(c.exists::<_, bool>("s").await?);
        assert_eq!(c.get_del::<_, i64>("s").await?, 50);
        assert!(!c.exists::<_, bool>("s").await?);
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn hashes_are_read_as_they_were_written() -> RedisResult<()> {
    for target in Target::both() {
        let mut c = target.connect().await;
        let _: () = c.hset_multiple("h", &[("a", 1), ("b", 2)]).await?;
        for n in 1..=10 {
            for _ in 0..READS {
                let all: HashMap<String, i64> = c.hgetall("h").await?;
                assert_eq!(all, HashMap::from([("a".into(), n), ("b".into(), 2)]), "{}", target.protocol);
                assert_eq!(c.hget::<_, _, i64>("h", "a").await?, n);
                assert_eq!(c.hmget::<_, _, Vec<Option<i64>>>("h", &["b", "none"]).await?, [Some(2), None]);
                assert!(!c.hexists::<_, _, bool>("h", "none").await?);
            }
            assert_eq!(c.hincr::<_, _, _, i64>("h", "a", 1).await?, n + 1);
        }
        let wrong: RedisError = c.get::<_, String>("h").await.expect_err("a hash is no string");
        assert_eq!(wrong.code(), Some("WRONGTYPE"));
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn sorted_sets_keep_their_scores_and_their_order() -> RedisResult<()> {
    for target in Target::both() {
        let mut c = target.connect().await;
        let _: () = c.zadd_multiple("z", &[(1.0, "a"), (2.5, "b"), (f64::INFINITY, "c")]).await?;
        for _ in 0..READS {
            let all: Vec<(String, f64)> = c.zrange_withscores("z", 0, -1).await?;
            assert_eq!(all, [("a".into(), 1.0), ("b".into(), 2.5), ("c".into(), f64::INFINITY)], "{}", target.protocol);
            assert_eq!(c.zscore::<_, _, Option<f64>>("z", "b").await?, Some(2.5));
            assert_eq!(c.zscore::<_, _, Option<f64>>("z", "none").await?, None);
            assert_eq!(c.zrank::<_, _, Option<i64>>("z", "c").await?, Some(2));
        }
        assert_eq!(c.zincr::<_, _, _, f64>("z", "a", 10.5).await?, 11.5);
        assert_eq!(c.zrange::<_, Vec<String>>("z", 0, -1).await?, ["b", "a", "c"]);
        assert_eq!(c.zpopmin::<_, Vec<(String, f64)>>("z", 1).await?, [("b".into(), 2.5)]);
        assert_eq!(c.zcard::<_, i64>("z").await?, 2);
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order() -> RedisResult<()> {
    for target in Target::both() {
        let mut c = target.connect().await;
        let mut pipe = redis::pipe();
        for n in 0..500 {
            pipe.set(n, n).ignore().get(n);
        }
        let wanted: Vec<i64> = (0..500).collect();
        for _ in 0..READS {
            assert_eq!(pipe.query_async::<Vec<i64>>(&mut c).await?, wanted, "{}", target.protocol);
        }
        let mut reads = redis::pipe();
        wanted.iter().for_each(|n| _ = reads.get(n));
        for _ in 0..READS {
            assert_eq!(reads.query_async::<Vec<i64>>(&mut c).await?, wanted);
        }
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn an_atomic_pipeline_is_a_transaction_on_a_connection_that_others_share() -> RedisResult<()> {
    for target in Target::both() {
        let c = target.connect().await;
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            // A clone shares its connection: between the transactions of one task come the reads of others.
            let mut c = c.clone();
            tasks.spawn(async move {
                let mut last = 0;
                for _ in 0..20 {
                    let (n, twice): (i64, i64) =
                        redis::pipe().atomic().incr("n", 1).incr("twice", 2).query_async(&mut c).await?;
                    assert_eq!(twice, 2 * n, "task {task}");
                    assert!(n > last, "task {task}");
                    last = c.get("n").await?;
                    assert!(last >= n, "task {task}: read {last} after its own transaction made it {n}");
                }
                RedisResult::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic")?;
        }
        let mut c = c;
        for _ in 0..READS_OF_A_COUNTER {
            assert_eq!(c.get::<_, i64>("n").await?, 160);
        }
        assert_eq!(c.mget::<_, (i64, i64)>(&["n", "twice"]).await?, (160, 320));
        let refused: RedisError = redis::pipe()
            .atomic()
            .set("n", "not a number")
            .cmd("NOSUCH")
            .query_async::<Value>(&mut c)
            .await
            .expect_err("an unknown command dooms it");
        assert_eq!(refused.kind(), ErrorKind::Server(ServerErrorKind::ExecAbort), "{refused}");
        assert_eq!(c.get::<_, i64>("n").await?, 160);
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn watch_hears_of_another_connections_write() -> RedisResult<()> {
    for target in Target::both() {
        let (mut c, mut other) = (target.connect().await, target.connect().await);
        let _: () = c.set("w", 1).await?;
        for _ in 0..READS {
            assert_eq!(c.get::<_, i64>("w").await?, 1);
        }
        for conflict in [true, false] {
            let _: () = redis::cmd("WATCH").arg("w").query_async(&mut c).await?;
            let seen: i64 = c.get("w").await?;
            if conflict {
                let _: () = other.set("w", 100).await?;
            }
            let done: Option<(i64,)> = redis::pipe().atomic().incr("w", 1).query_async(&mut c).await?;
            assert_eq!(done, (!conflict).then_some((seen + 1,)), "{}", target.protocol);
        }
        assert_eq!(other.get::<_, i64>("w").await?, 101);
        target.assert_hits();
    }
    Ok(())
}

/// What the crate's `Script` does (it comes with a feature that bb8-redis leaves out); whether the script was unknown.
async fn invoke(c: &mut MultiplexedConnection, source: &str, sha: &str, key: &str, value: i64) -> RedisResult<bool> {
    let mut evalsha = redis::cmd("EVALSHA");
    evalsha.arg(sha).arg(1).arg(key).arg(value);
    let (unknown, written) = match evalsha.query_async::<i64>(c).await {
        Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            let loaded: String = redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async(c).await?;
            assert_eq!(loaded, sha);
            (true, evalsha.query_async(c).await?)
        }
        other => (false, other?),
    };
    assert_eq!(written, value);
    Ok(unknown)
}

#[tokio::test]
async fn a_script_is_loaded_when_it_is_unknown_and_what_it_writes_is_read() -> RedisResult<()> {
    let source =
        "redis.call('SET', KEYS[1], ARGV[1]); redis.call('SET', 'undeclared', ARGV[1]); return tonumber(ARGV[1])";
    for target in Target::both() {
        let mut c = target.connect().await;
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async(&mut c).await?;
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut c).await?;
        for n in 0..20 {
            assert_eq!(invoke(&mut c, source, &sha, "declared", n).await?, n == 0, "{}", target.protocol);
            for _ in 0..READS {
                assert_eq!(c.get::<_, i64>("declared").await?, n);
                assert_eq!(c.get::<_, i64>("undeclared").await?, n);
            }
        }
        let boom =
            redis::cmd("EVAL").arg("return redis.error_reply('MY boom')").arg(0).query_async::<Value>(&mut c).await;
        assert_eq!(boom.expect_err("the script says so").code(), Some("MY"));
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn a_subscriber_hears_its_channels_and_patterns() -> RedisResult<()> {
    for target in Target::both() {
        let mut publisher = target.connect().await;
        let mut subscriber = target.client(0).get_async_pubsub().await?;
        subscriber.subscribe("news").await?;
        subscriber.psubscribe("new*").await?;
        for n in 0..20 {
            assert_eq!(publisher.publish::<_, _, i64>("news", n).await?, 2, "{}", target.protocol);
            let mut heard = Vec::new();
            for _ in 0..2 {
                let message = timeout(PATIENCE, subscriber.on_message().next()).await.expect("in time").expect("open");
                assert_eq!((message.get_channel_name(), message.get_payload::<i64>()?), ("news", n));
                heard.push(message.from_pattern());
            }
            assert_eq!(heard, [false, true]);
        }
        subscriber.unsubscribe("news").await?;
        assert_eq!(publisher.publish::<_, _, i64>("news", 0).await?, 1);
        subscriber.punsubscribe("new*").await?;
        assert_eq!(publisher.publish::<_, _, i64>("news", 0).await?, 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_resp3_connection_subscribes_and_goes_on_asking() -> RedisResult<()> {
    for target in Target::both().filter(|target| target.protocol == "resp3") {
        let mut publisher = target.connect().await;
        let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
        let config = patient().set_push_sender(sender);
        let mut c = target.client(0).get_multiplexed_async_connection_with_config(&config).await?;
        c.subscribe("news").await?;
        let _: () = c.set("k", "v").await?;
        for n in 0..READS {
            assert_eq!(publisher.publish::<_, _, i64>("news", n).await?, 1);
            assert_eq!(c.get::<_, String>("k").await?, "v");
        }
        for wanted in [PushKind::Subscribe].into_iter().chain([const { PushKind::Message }; READS]) {
            let push = timeout(PATIENCE, pushes.recv()).await.expect("in time").expect("open");
            assert_eq!(push.kind, wanted);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_database_in_the_url_is_the_one_asked() -> RedisResult<()> {
    for target in Target::both() {
        let (mut zero, mut three) = (target.connect().await, target.connect_to(3).await);
        let _: () = zero.set("k", "zero").await?;
        let _: () = three.set("k", "three").await?;
        for _ in 0..READS {
            assert_eq!(zero.get::<_, String>("k").await?, "zero", "{}", target.protocol);
            assert_eq!(three.get::<_, String>("k").await?, "three", "{}", target.protocol);
        }
        let _: () = zero.del("k").await?;
        assert_eq!(zero.get::<_, Option<String>>("k").await?, None);
        assert_eq!(three.get::<_, String>("k").await?, "three");
        let mut direct = target.redis.client();
        assert_eq!(
            direct.pipeline(&[&["SELECT", "3"], &["GET", "k"]])[1],
            "$5\r\nthree\r\n",
            "Redis has it there, too"
        );
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn a_blocking_pop_does_not_hold_up_other_connections() -> RedisResult<()> {
    for target in Target::both() {
        let (mut blocked, mut c) = (target.connect().await, target.connect().await);
        let waiting = tokio::spawn(async move { blocked.blpop::<_, (String, String)>("queue", 8.0).await });
        // Other connections are answered while it waits.
        loop {
            let info: redis::InfoDict = redis::cmd("INFO").arg("clients").query_async(&mut c).await?;
            if info.get::<i64>("blocked_clients") == Some(1) {
                break;
            }
            assert!(!waiting.is_finished(), "{}: it never waited", target.protocol);
        }
        let _: () = c.rpush("queue", "job").await?;
        assert_eq!(waiting.await.expect("no panic")?, ("queue".into(), "job".into()), "{}", target.protocol);
    }
    Ok(())
}

/// Every value names its key, so that an answer which reached the wrong caller shows.
async fn load(mut c: MultiplexedConnection, task: usize) -> RedisResult<()> {
    for round in 0..LOAD_ROUNDS {
        let shared = format!("shared:{}", (task * 7 + round) % LOAD_KEYS);
        let own = format!("own:{task}");
        if round % 5 == 0 {
            let _: () = c.set(&shared, format!("{shared}={task}.{round}")).await?;
        }
        let got: Option<String> = c.get(&shared).await?;
        assert!(got.is_none_or(|got| got.starts_with(&format!("{shared}="))), "{shared}");
        let mine = format!("{own}={round}");
        let _: () = c.set(&own, &mine).await?;
        assert_eq!(c.get::<_, String>(&own).await?, mine);
        let mut pipe = redis::pipe();
        if round % 2 == 0 {
            pipe.atomic();
        }
        let piped = format!("{mine}p");
        assert_eq!(pipe.set(&own, &piped).ignore().get(&own).query_async::<(String,)>(&mut c).await?, (piped,));
    }
    Ok(())
}

#[tokio::test]
async fn answers_reach_who_asked_on_one_connection_and_on_many() -> RedisResult<()> {
    for target in Target::both() {
        let shared = target.connect().await;
        let mut tasks = JoinSet::new();
        for task in 0..LOAD_TASKS {
            let c = if task % 2 == 0 { shared.clone() } else { target.connect().await };
            tasks.spawn(load(c, task));
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic")?;
        }
        target.assert_hits();
    }
    Ok(())
}

#[tokio::test]
async fn bb8s_pool_serves_more_tasks_than_it_has_connections() -> RedisResult<()> {
    for target in Target::both() {
        let manager = RedisConnectionManager::new(target.url(0))?;
        let pool = Pool::builder().max_size(8).build(manager).await?;
        let mut tasks = JoinSet::new();
        for task in 0..LOAD_TASKS {
            let pool = pool.clone();
            tasks.spawn(async move {
                for round in 0..LOAD_ROUNDS / 4 {
                    let mut c = pool.get().await.expect("a connection in time");
                    c.set_response_timeout(PATIENCE);
                    let (own, value) = (format!("own:{task}"), format!("own:{task}={round}"));
                    let _: () = c.set(&own, &value).await?;
                    drop(c);
                    // Most likely on another connection: what was answered is seen by all.
                    let mut c = pool.get().await.expect("a connection in time");
                    c.set_response_timeout(PATIENCE);
                    for _ in 0..READS {
                        assert_eq!(c.get::<_, String>(&own).await?, value);
                    }
                }
                RedisResult::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic")?;
        }
        target.assert_hits();
    }
    Ok(())
}
