"""redis-py against a port: what its users do, with its defaults and with RESP2 and RESP3 asked for.

Every check is a function named `check_…` taking `make`, which gives a fresh client; it raises on a mismatch.
"""

import argparse
import os
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

SOCKET_TIMEOUT_S = 15
LOAD_THREADS = 32
LOAD_ROUNDS = 100
LOAD_KEYS = 50
RUN = uuid.uuid4().hex[:8]


def key(name):
    return f"rpy:{RUN}:{name}"


def same(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def raises(kind, words, call):
    try:
        got = call()
    except kind as error:
        if words not in str(error):
            raise AssertionError(f"error {error!r} does not say {words!r}")
    else:
        raise AssertionError(f"no error, got {got!r}, wanted {kind.__name__} {words!r}")


def eventually(condition, what, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def check_strings(make):
    r, k = make(), key("string")
    same(r.set(k, "one"), True)
    same([r.get(k) for _ in range(5)], [b"one"] * 5, "repeated GET")
    for n in range(50):
        r.set(k, n)
        same(r.get(k), str(n).encode(), "own write")
    same(r.append(k, "x"), 3)
    same(r.getrange(k, 0, 1), b"49")
    same(r.setrange(k, 1, "zz"), 3)
    same(r.strlen(k), 3)
    same(r.set(k, "v", nx=True), None)
    same(r.set(k, "v", xx=True, get=True), b"4zz")
    same(r.getdel(k), b"v")
    same(r.get(k), None)
    same(r.incr(k), 1)
    same(r.incrby(k, 41), 42)
    same(float(r.incrbyfloat(k, 0.5)), 42.5)
    same(r.mset({key("m1"): "a", key("m2"): "b"}), True)
    same(r.mget(key("m1"), key("nothing"), key("m2")), [b"a", None, b"b"])
    same(r.exists(key("m1"), key("m2"), key("nothing")), 2)
    same(r.type(key("m1")), b"string")


def check_expiry(make):
    r, k = make(), key("expiry")
    r.set(k, "v", px=150)
    same(r.get(k), b"v")
    same(r.get(k), b"v")
    assert 0 < r.pttl(k) <= 150
    deadline = time.monotonic() + 0.15
    time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
    same(r.get(k), None, "after its expiry")
    r.set(k, "v")
    same(r.ttl(k), -1)
    same(r.expire(k, 100), True)
    same(r.persist(k), True)
    same(r.ttl(k), -1)


def check_hashes(make):
    r, k = make(), key("hash")
    same(r.hset(k, mapping={"a": "1", "b": "2"}), 2)
    same(r.hgetall(k), {b"a": b"1", b"b": b"2"})
    same(r.hget(k, "a"), b"1")
    same(r.hget(k, "b"), b"2", "another field of the same key")
    same(r.hmget(k, "a", "x", "b"), [b"1", None, b"2"])
    same(r.hincrby(k, "a", 9), 10)
    same(r.hget(k, "a"), b"10")
    same(r.hdel(k, "b"), 1)
    same(r.hgetall(k), {b"a": b"10"})
    same((r.hlen(k), r.hexists(k, "a"), r.hexists(k, "b")), (1, True, False))
    same(dict(r.hscan_iter(k)), {b"a": b"10"})


def check_lists(make):
    r, k = make(), key("list")
    same(r.rpush(k, "a", "b", "c"), 3)
    same(r.lrange(k, 0, -1), [b"a", b"b", b"c"])
    same(r.lpop(k), b"a")
    same(r.lrange(k, 0, -1), [b"b", b"c"])
    same(r.linsert(k, "before", "c", "x"), 3)
    same(r.lpos(k, "c"), 2)
    same(r.lindex(k, 1), b"x")
    same(r.rpoplpush(k, key("list2")), b"c")
    same(r.lrange(key("list2"), 0, -1), [b"c"])
    raises(redis.ResponseError, "WRONGTYPE", lambda: r.hget(k, "f"))


def check_sets(make):
    r, k = make(), key("set")
    same(r.sadd(k, "a", "b"), 2)
    same(set(r.smembers(k)), {b"a", b"b"})
    same([bool(x) for x in r.smismember(k, ["a", "z"])], [True, False])
    r.sadd(key("set2"), "b", "c")
    same(set(r.sinter(k, key("set2"))), {b"b"})
    same(r.srem(k, "a"), 1)
    same(set(r.smembers(k)), {b"b"})
    same(r.scard(k), 1)
    same(set(r.sscan_iter(k)), {b"b"})


def check_sorted_sets(make):
    r, k = make(), key("zset")
    same(r.zadd(k, {"a": 1, "b": 2.5, "c": 3}), 3)
    with_scores = [(member, score) for member, score in r.zrange(k, 0, -1, withscores=True)]
    same(with_scores, [(b"a", 1.0), (b"b", 2.5), (b"c", 3.0)])
    same(r.zscore(k, "b"), 2.5)
    same(r.zscore(k, "none"), None)
    same(r.zmscore(k, ["a", "none"]), [1.0, None])
    same(r.zincrby(k, 10, "a"), 11.0)
    same(r.zrange(k, 0, 0), [b"b"])
    same(r.zrank(k, "a"), 2)
    same(r.zrangebyscore(k, "(2.5", "+inf"), [b"c", b"a"])
    # Asked for RESP3 by name, redis-py hands out Redis's flat pair; otherwise a list of pairs.
    popped = r.zpopmin(k)
    assert popped in ([b"b", 2.5], [(b"b", 2.5)], [[b"b", 2.5]]), popped
    same(r.zadd(k, {"inf": float("inf")}), 1)
    same(r.zscore(k, "inf"), float("inf"))


def check_streams(make):
    r, k = make(), key("stream")
    first, second = r.xadd(k, {"n": "1"}), r.xadd(k, {"n": "2"})
    same(r.xrange(k), [(first, {b"n": b"1"}), (second, {b"n": b"2"})])
    same(r.xlen(k), 2)
    same(r.xgroup_create(k, "g", id="0"), True)
    delivered = repr(r.xreadgroup("g", "me", {k: ">"}, count=1))
    assert first.decode() in delivered and second.decode() not in delivered, delivered
    same(r.xpending(k, "g")["pending"], 1)
    same(r.xack(k, "g", first), 1)
    same(r.xpending(k, "g")["pending"], 0)
    same(r.xinfo_stream(k)["length"], 2)
    same(r.xdel(k, first), 1)
    same(r.xrange(k), [(second, {b"n": b"2"})])


def check_geo(make):
    r, k = make(), key("geo")
    same(r.geoadd(k, [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"]), 2)
    same(round(float(r.geodist(k, "Palermo", "Catania", unit="km")), 1), 166.3)
    same(round(r.geopos(k, "Palermo", "none")[0][0], 4), 13.3614)
    same(r.geopos(k, "none"), [None])
    same(r.geosearch(k, longitude=15, latitude=37, radius=100, unit="km"), [b"Catania"])


def check_bitmaps(make):
    r, k = make(), key("bits")
    same(r.setbit(k, 7, 1), 0)
    same((r.getbit(k, 7), r.getbit(k, 6)), (1, 0))
    same(r.bitcount(k), 1)
    same(r.bitpos(k, 1), 7)
    same(r.bitfield(k).set("u8", 8, 200).get("u8", 8).execute(), [0, 200])
    same(r.bitcount(k), 4)


def check_hyperloglog(make):
    r, k = make(), key("hll")
    same(r.pfadd(k, *range(100)), 1)
    assert 95 <= r.pfcount(k) <= 105
    r.pfadd(key("hll2"), *range(50, 150))
    same(r.pfmerge(key("hll3"), k, key("hll2")), True)
    assert 140 <= r.pfcount(key("hll3")) <= 160


def check_pipelines(make):
    r = make()
    pipe = r.pipeline(transaction=False)
    for n in range(500):
        pipe.set(key(f"p{n}"), n).get(key(f"p{n}"))
    replies = pipe.execute()
    same(replies, [x for n in range(500) for x in (True, str(n).encode())])
    replies = r.pipeline(transaction=False).set(key("p"), "x").hget(key("p"), "f").get(key("p")).execute(False)
    same((replies[0], type(replies[1]).__name__, replies[2]), (True, "ResponseError", b"x"))


def check_transactions(make):
    r, k = make(), key("tx")
    same(r.pipeline().set(k, 1).incr(k).get(k).execute(), [True, 2, b"2"])
    same(r.get(k), b"2")

    def twice(pipe):
        value = int(pipe.get(k))
        pipe.multi()
        pipe.set(k, value * 2)

    same(r.transaction(twice, k), [True])
    same(r.get(k), b"4")


def check_watch_conflict(make):
    r, other, k = make(), make(), key("watch")
    r.set(k, 1)
    same([r.get(k) for _ in range(4)], [b"1"] * 4)
    with r.pipeline() as pipe:
        pipe.watch(k)
        value = int(pipe.get(k))
        other.set(k, 100)
        pipe.multi()
        pipe.set(k, value + 1)
        raises(redis.WatchError, "", pipe.execute)
    same(r.get(k), b"100")
    counter, per_thread = key("counter"), 20
    r.set(counter, 0)

    def add(_):
        client = make()
        for _ in range(per_thread):
            client.transaction(lambda pipe: (lambda n: (pipe.multi(), pipe.set(counter, n + 1)))(int(pipe.get(counter))), counter)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    same(r.get(counter), str(4 * per_thread).encode(), "no update lost")


def check_scripts(make):
    r, k = make(), key("lua")
    script = r.register_script(f"-- {uuid.uuid4()}\nredis.call('SET', KEYS[1], ARGV[1]); return {{KEYS[1], ARGV[1], 7}}")
    r.set(k, "old")
    same([r.get(k) for _ in range(4)], [b"old"] * 4)
    for n in range(20):
        same(script(keys=[k], args=[n]), [k.encode(), str(n).encode(), 7])
        same(r.get(k), str(n).encode(), "own write by a script")
    raises(redis.exceptions.NoScriptError, "", lambda: r.evalsha("0" * 40, 0))
    same(r.eval("return redis.call('GET', KEYS[1])", 1, k), b"19")
    same(r.eval("redis.call('SET', '%s', 'hidden') return 1" % k, 0), 1)
    same(r.get(k), b"hidden", "a script's write to an undeclared key")
    raises(redis.ResponseError, "boom", lambda: r.eval("return redis.error_reply('ERR boom')", 0))


def heard(pubsub, kind, seconds=5, sharded=False):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = pubsub.get_message(timeout=0.2) if not sharded else pubsub.get_sharded_message(timeout=0.2)
        if message and message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} within {seconds} s")


def check_pubsub(make):
    r, pubsub, channel = make(), make().pubsub(), key("news")
    pubsub.subscribe(channel)
    heard(pubsub, "subscribe")
    pubsub.psubscribe(channel + "*")
    heard(pubsub, "psubscribe")
    same(r.publish(channel, "hello"), 2)
    same(heard(pubsub, "message")["data"], b"hello")
    message = heard(pubsub, "pmessage")
    same((message["pattern"], message["channel"], message["data"]), ((channel + "*").encode(), channel.encode(), b"hello"))
    pubsub.ping()
    heard(pubsub, "pong")
    pubsub.unsubscribe()
    heard(pubsub, "unsubscribe")
    same(r.publish(channel, "again"), 1)
    pubsub.close()
    eventually(lambda: r.pubsub_numpat() == 0 or r.publish(channel, "x") == 0, "the subscriber is gone")


def check_sharded_pubsub(make):
    r, pubsub, channel = make(), make().pubsub(), key("shard")
    pubsub.ssubscribe(channel)
    heard(pubsub, "ssubscribe")
    same(r.spublish(channel, "hello"), 1)
    same(heard(pubsub, "smessage")["data"], b"hello")
    pubsub.close()


def check_blocking(make):
    r, k = make(), key("queue")
    with ThreadPoolExecutor(3) as pool:
        popped = pool.submit(make().blpop, [k], 5)
        time.sleep(0.1)
        same(r.rpush(k, "job"), 1)
        same(tuple(popped.result()), (k.encode(), b"job"))
        popped = pool.submit(make().bzpopmin, [key("bz")], 5)
        time.sleep(0.1)
        r.zadd(key("bz"), {"m": 1.5})
        same(tuple(popped.result()), (key("bz").encode(), b"m", 1.5))
        read = pool.submit(make().xread, {key("bs"): "$"}, None, 5000)
        time.sleep(0.1)
        added = r.xadd(key("bs"), {"f": "v"})
        assert added.decode() in repr(read.result()), read.result()
    started = time.monotonic()
    same(r.blpop([k], timeout=0.3), None)
    assert 0.25 < time.monotonic() - started < 3


def check_scan(make):
    r = make()
    wanted = {key(f"scan:{n}").encode() for n in range(500)}
    r.mset({name: "v" for name in wanted})
    same(set(r.scan_iter(match=key("scan:*"), count=50)), wanted)
    same(set(r.keys(key("scan:*"))), wanted)


def check_binary(make):
    r = make()
    for name, value in (
        (b"all", bytes(range(256)) * 4),
        (b"crlf\r\n", b"\r\n$5\r\nhello\r\n*1\r\n"),
        (b"\x00\xff", b""),
        (b"big", os.urandom(3_000_000)),
    ):
        full = key("bin").encode() + name
        r.set(full, value)
        for _ in range(4):
            got = r.get(full)
            if got != value:
                raise AssertionError(f"{name!r}: {len(got or b'')} bytes differ from the {len(value)} written")


def check_databases(make):
    one, two, k = make(db=1), make(db=2), key("db")
    one.set(k, "one")
    two.set(k, "two")
    for _ in range(5):
        same((one.get(k), two.get(k)), (b"one", b"two"))
    two.delete(k)
    same((one.get(k), two.get(k)), (b"one", None))
    same(one.move(k, 2), True)
    same((one.get(k), two.get(k)), (None, b"one"))


def check_connection_commands(make):
    r = make(client_name="anteroom-test", health_check_interval=1)
    same(r.ping(), True)
    same(r.echo("hi"), b"hi")
    assert r.client_getname() in (b"anteroom-test", "anteroom-test")
    assert r.client_id() > 0
    assert any(c.get("name") == "anteroom-test" for c in r.client_list())
    assert r.info()["redis_version"].startswith("7."), "INFO redis_version"
    assert r.config_get("maxmemory-policy")
    same(r.object("encoding", key("none")), None)
    assert r.time()[0] > 0
    time.sleep(1.2)
    same(r.ping(), True, "after a health check")
    raises(redis.ResponseError, "unknown command", lambda: r.execute_command("NOSUCH", "a", "b"))
    raises(redis.ResponseError, "wrong number of arguments", lambda: r.execute_command("GET"))


def check_pool_under_load(make):
    """Every value names its key, so an answer that reached the wrong caller shows."""
    r = make(max_connections=LOAD_THREADS)
    wrong = []

    def work(worker):
        for round_ in range(LOAD_ROUNDS):
            k = key(f"load:{(worker * 7 + round_) % LOAD_KEYS}")
            own = key(f"own:{worker}")
            r.set(k, f"{k}={worker}.{round_}")
            got = r.get(k).decode()
            r.set(own, f"{own}={round_}")
            mine = r.get(own).decode()
            hashed = r.pipeline(transaction=round_ % 2 == 0).set(own, f"{own}={round_}p").get(own).execute()[1].decode()
            if not got.startswith(k + "=") or mine != f"{own}={round_}" or hashed != f"{own}={round_}p":
                wrong.append((k, got, own, mine, hashed))

    with ThreadPoolExecutor(LOAD_THREADS) as pool:
        list(pool.map(work, range(LOAD_THREADS)))
    same(wrong[:3], [], "values that reached the wrong caller or were stale")


def check_client_side_caching(make):
    """As its documentation says, but for the oldest server it allows (7.4), which is not what is tested with."""
    if make().connection_pool.connection_kwargs.get("protocol") != 3:
        return
    allowed, CacheProxyConnection.MIN_ALLOWED_VERSION = CacheProxyConnection.MIN_ALLOWED_VERSION, "7.0.0"
    try:
        r, other = make(cache_config=CacheConfig(max_size=1000)), make()
        cache, k, h, l = r.get_cache(), key("csc"), key("csc:hash"), key("csc:list")
        other.mset({k: "1", f"{k}:2": "2"})
        other.hset(h, mapping={"f": "1", "g": "2"})
        other.rpush(l, "a", "b")
        reads = {
            k: lambda: r.get(k),
            f"{k}:2": lambda: r.mget(k, f"{k}:2"),
            h: lambda: r.hgetall(h),
            l: lambda: r.lrange(l, 0, -1),
        }
        for read in reads.values():
            same(read(), read(), "the same from the cache")
        same(cache.size, len(reads), "all is kept")
        for changed, change in (
            (k, lambda: other.set(k, "changed")),
            (f"{k}:2", lambda: other.append(f"{k}:2", "changed")),
            (h, lambda: other.hset(h, "f", "changed")),
            (l, lambda: other.rpush(l, "changed")),
        ):
            change()
            eventually(lambda: "changed" in str(reads[changed]()), f"the change of {changed} is heard")
        for n in range(100):
            r.set(k, n)
            same(r.get(k), str(n).encode(), "own write")
            other.set(k, f"other {n}")
            eventually(lambda: r.get(k) == f"other {n}".encode(), "another's write")
        [read() for read in reads.values()]
        other.delete(h, l)
        eventually(lambda: r.hgetall(h) == {} and r.lrange(l, 0, -1) == [], "they are gone")
        with r.pipeline() as pipe:
            same(pipe.set(k, "piped").get(k).execute(), [True, b"piped"])
        same(r.get(k), b"piped")
        other.set(k, "late", px=1000)
        eventually(lambda: r.get(k) == b"late", "a write with an expiry is heard")
        eventually(lambda: r.get(k) is None, "an expiry is heard")
    finally:
        CacheProxyConnection.MIN_ALLOWED_VERSION = allowed


def check_short_connections(make):
    def once(n):
        with make() as client:
            k = key(f"short:{n}")
            client.set(k, k)
            return client.get(k) == k.encode()

    with ThreadPoolExecutor(16) as pool:
        same(all(pool.map(once, range(300))), True)


def check_reconnect(make):
    r, other, k = make(), make(), key("kill")
    r.set(k, "v")
    same(other.client_kill_filter(_id=str(r.client_id())), 1)
    same(r.get(k), b"v", "a killed client comes back")
    pubsub = make().pubsub()
    pubsub.subscribe(key("killed"))
    heard(pubsub, "subscribe")
    assert other.client_kill_filter(_type="pubsub") >= 1
    eventually(lambda: pubsub_back(pubsub, other), "the subscriber is back")
    pubsub.close()


def pubsub_back(pubsub, publisher):
    """redis-py subscribes again by itself when its connection is lost."""
    try:
        pubsub.get_message(timeout=0.05)
    except redis.ConnectionError:
        return False
    return publisher.publish(key("killed"), "back") == 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    checks = [(name[6:], check) for name, check in globals().items() if name.startswith("check_")]
    passed = failed = 0
    for label, defaults in (("defaults", {}), ("RESP2", {"protocol": 2}), ("RESP3", {"protocol": 3})):
        global RUN
        RUN = uuid.uuid4().hex[:8]

        def make(**more):
            return redis.Redis(options.host, options.port, socket_timeout=SOCKET_TIMEOUT_S, **{**defaults, **more})

        for name, check in checks:
            try:
                check(make)
                passed += 1
            except Exception:
                failed += 1
                print(f"FAIL redis-py {redis.__version__} {label}: {name}\n{traceback.format_exc()}")
    print(f"redis-py {redis.__version__}: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
