// ioredis against a port: what its users do, with its defaults and with RESP2 and RESP3 asked for.

import { randomBytes, randomUUID } from 'node:crypto';
import { eventually, load, must, refuses, runChecks, same, sleep, target } from './checks.mjs';

const { library, version } = load('ioredis');
const Redis = library.default ?? library;
const { host, port } = target();
const LOAD_CLIENTS = 16;
const LOAD_TASKS = 4000;
const LOAD_KEYS = 50;

async function connect(options, more) {
  const client = new Redis({ host, port, lazyConnect: true, ...options, ...more });
  client.on('error', () => {}); // a killed connection is reported here; the check sees its effect
  await client.connect();
  return client;
}

const close = (client) => client.disconnect();
const sorted = (values) => [...values].sort();

const checks = {
  async strings(make, key) {
    const r = await make(), k = key('string');
    same(await r.set(k, 'one'), 'OK');
    for (let n = 0; n < 5; n++) same(await r.get(k), 'one', 'repeated GET');
    for (let n = 0; n < 50; n++) {
      await r.set(k, n);
      same(await r.get(k), `${n}`, 'own write');
    }
    same(await r.append(k, 'x'), 3);
    same(await r.getrange(k, 0, 1), '49');
    same(await r.set(k, 'v', 'NX'), null);
    same(await r.set(k, 'v', 'EX', 100, 'GET'), '49x');
    same(await r.ttl(k), 100);
    same(await r.getdel(k), 'v');
    same(await r.get(k), null);
    same([await r.incr(k), await r.incrby(k, 41), Number(await r.incrbyfloat(k, 0.5))], [1, 42, 42.5]);
    same(await r.mset(key('m1'), 'a', key('m2'), 'b'), 'OK');
    same(await r.mget(key('m1'), key('none'), key('m2')), ['a', null, 'b']);
    same(await r.type(key('m1')), 'string');
  },

  async expiry(make, key) {
    const r = await make(), k = key('expiry');
    await r.set(k, 'v', 'PX', 150);
    same([await r.get(k), await r.get(k)], ['v', 'v']);
    await sleep(170);
    same(await r.get(k), null, 'after its expiry');
  },

  async hashes(make, key) {
    const r = await make(), k = key('hash');
    same(await r.hset(k, { a: 1, b: 2 }), 2);
    same(await r.hgetall(k), { a: '1', b: '2' });
    same([await r.hget(k, 'a'), await r.hget(k, 'b')], ['1', '2'], 'two fields of one key');
    same(await r.hincrby(k, 'a', 9), 10);
    same(await r.hgetall(k), { a: '10', b: '2' });
    same(await r.hmget(k, 'a', 'x'), ['10', null]);
  },

  async lists(make, key) {
    const r = await make(), k = key('list');
    same(await r.rpush(k, 'a', 'b', 'c'), 3);
    same(await r.lrange(k, 0, -1), ['a', 'b', 'c']);
    same(await r.lpop(k), 'a');
    same(await r.lrange(k, 0, -1), ['b', 'c']);
    await refuses(r.hget(k, 'f'), 'WRONGTYPE');
  },

  async sets(make, key) {
    const r = await make(), k = key('set');
    same(await r.sadd(k, 'a', 'b'), 2);
    same(sorted(await r.smembers(k)), ['a', 'b']);
    same(await r.sismember(k, 'a'), 1);
    same(await r.srem(k, 'a'), 1);
    same([await r.sismember(k, 'a'), ...(await r.smembers(k))], [0, 'b']);
  },

  async sortedSets(make, key) {
    const r = await make(), k = key('zset');
    same(await r.zadd(k, 1, 'a', 2.5, 'b', '+inf', 'c'), 3);
    const pairs = (await r.zrange(k, 0, -1, 'WITHSCORES')).flat().map((cell) => `${cell}`.replace('Infinity', 'inf'));
    same(pairs, ['a', '1', 'b', '2.5', 'c', 'inf']);
    same(Number(await r.zscore(k, 'b')), 2.5);
    same(await r.zscore(k, 'none'), null);
    same(Number(await r.zincrby(k, 10, 'a')), 11);
    same([await r.zrange(k, 0, 0), await r.zrank(k, 'a')], [['b'], 1]);
  },

  async streams(make, key) {
    const r = await make(), k = key('stream');
    const first = await r.xadd(k, '*', 'n', '1'), second = await r.xadd(k, '*', 'n', '2');
    same(await r.xrange(k, '-', '+'), [[first, ['n', '1']], [second, ['n', '2']]]);
    same(await r.xgroup('CREATE', k, 'g', '0'), 'OK');
    const delivered = JSON.stringify(await r.xreadgroup('GROUP', 'g', 'me', 'COUNT', 1, 'STREAMS', k, '>'));
    must(delivered.includes(first) && !delivered.includes(second), delivered);
    same([(await r.xpending(k, 'g'))[0], await r.xack(k, 'g', first), (await r.xpending(k, 'g'))[0]], [1, 1, 0]);
  },

  async geo(make, key) {
    const r = await make(), k = key('geo');
    same(await r.geoadd(k, 13.361389, 38.115556, 'Palermo', 15.087269, 37.502669, 'Catania'), 2);
    same(Math.round(await r.geodist(k, 'Palermo', 'Catania', 'km')), 166);
    const [[longitude], none] = await r.geopos(k, 'Palermo', 'none');
    same([Number(longitude).toFixed(4), none], ['13.3614', null]);
    same(await r.geosearch(k, 'FROMLONLAT', 15, 37, 'BYRADIUS', 100, 'km'), ['Catania']);
  },

  async bitmapsAndHyperLogLog(make, key) {
    const r = await make(), k = key('bits');
    same([await r.setbit(k, 7, 1), await r.getbit(k, 7), await r.bitcount(k), await r.bitpos(k, 1)], [0, 1, 1, 7]);
    same(await r.bitfield(k, 'SET', 'u8', 8, 200, 'GET', 'u8', 8), [0, 200]);
    same(await r.pfadd(key('hll'), ...Array.from({ length: 100 }, (_, n) => n)), 1);
    const count = await r.pfcount(key('hll'));
    must(count >= 95 && count <= 105, `PFCOUNT ${count}`);
  },

  async pipelines(make, key) {
    const r = await make();
    const pipe = r.pipeline();
    for (let n = 0; n < 500; n++) pipe.set(key(`p${n}`), n).get(key(`p${n}`));
    same(await pipe.exec(), Array.from({ length: 1000 }, (_, n) => [null, n % 2 ? `${(n - 1) / 2}` : 'OK']));
    const [, [error]] = await r.pipeline().set(key('p'), 'x').hget(key('p'), 'f').exec();
    must(error.message.startsWith('WRONGTYPE'), `${error}`);
  },

  async autoPipelining(make, key) {
    const r = await make({ enableAutoPipelining: true });
    const wanted = Array.from({ length: 300 }, (_, n) => `${n}`);
    await Promise.all(wanted.map((n) => r.set(key(`a${n}`), n)));
    same(await Promise.all(wanted.map((n) => r.get(key(`a${n}`)))), wanted);
  },

  async transactions(make, key) {
    const r = await make(), other = await make(), k = key('tx');
    same(await r.multi().set(k, 1).incr(k).get(k).exec(), [[null, 'OK'], [null, 2], [null, '2']]);
    same(await r.get(k), '2');
    await r.watch(k);
    const value = Number(await r.get(k));
    await other.set(k, 100);
    same(await r.multi().set(k, value + 1).exec(), null, 'WATCH conflict');
    same(await r.get(k), '100');
    await r.watch(k);
    same(await r.multi().incr(k).exec(), [[null, 101]]);
    await r.multi({ pipeline: false });
    same(await r.get(k), 'QUEUED');
    same(await r.exec(), [[null, '101']], 'MULTI without a pipeline');
  },

  async scripts(make, key) {
    const lua = `-- ${randomUUID()}\nredis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], ARGV[1], 7}`;
    const r = await make({ scripts: { store: { numberOfKeys: 1, lua } } }), k = key('lua');
    await r.set(k, 'old');
    for (let n = 0; n < 4; n++) same(await r.get(k), 'old');
    for (let n = 0; n < 10; n++) {
      same(await r.store(k, n), [k, `${n}`, 7], 'EVALSHA, falling back to EVAL at first');
      same(await r.get(k), `${n}`, 'own write by a script');
    }
    await refuses(r.evalsha('0'.repeat(40), 0), 'NOSCRIPT');
    same(await r.eval(`redis.call('SET', '${k}', 'hidden') return 1`, 0), 1);
    same(await r.get(k), 'hidden', "a script's write to an undeclared key");
  },

  async pubsub(make, key) {
    const r = await make(), sub = await make(), channel = key('news');
    const heard = [];
    sub.on('message', (from, message) => heard.push(['plain', from, message]));
    sub.on('pmessage', (pattern, from, message) => heard.push(['pattern', from, message]));
    sub.on('smessage', (from, message) => heard.push(['shard', from, message]));
    same(await sub.subscribe(channel), 1);
    same(await sub.psubscribe(`${channel}*`), 2);
    await sub.ssubscribe(channel);
    same(await r.publish(channel, 'hello'), 2);
    same(await r.spublish(channel, 'sharded'), 1);
    await eventually(() => heard.length === 3, 'three messages');
    same(heard.sort(), [['pattern', channel, 'hello'], ['plain', channel, 'hello'], ['shard', channel, 'sharded']]);
    await sub.sunsubscribe(channel);
    await sub.unsubscribe(channel);
    await sub.punsubscribe(`${channel}*`);
    same(await r.publish(channel, 'nobody'), 0);
    same(await sub.set(channel, 'v'), 'OK', 'an ordinary connection again');
  },

  async blocking(make, key) {
    const r = await make(), blocked = await make(), k = key('queue');
    const popped = blocked.blpop(k, 5);
    await sleep(100);
    same(await r.rpush(k, 'job'), 1);
    same(await popped, [k, 'job']);
    const read = blocked.xread('BLOCK', 5000, 'STREAMS', key('bs'), '$');
    await sleep(100);
    const id = await r.xadd(key('bs'), '*', 'f', 'v');
    must(JSON.stringify(await read).includes(id), 'XREAD BLOCK');
    same(await blocked.blpop(k, 0.2), null);
  },

  async scan(make, key) {
    const r = await make();
    const wanted = sorted(Array.from({ length: 500 }, (_, n) => key(`scan:${n}`)));
    await r.mset(wanted.flatMap((k) => [k, 'v']));
    const got = new Set();
    for await (const batch of r.scanStream({ match: key('scan:*'), count: 50 })) for (const k of batch) got.add(k);
    same(sorted(got), wanted);
  },

  async binary(make, key) {
    const r = await make();
    const all = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    for (const value of [all, Buffer.from('\r\n$5\r\nhello\r\n*1\r\n'), Buffer.alloc(0), randomBytes(3_000_000)]) {
      await r.set(key('bin'), value);
      for (let n = 0; n < 4; n++) must(value.equals(await r.getBuffer(key('bin'))), `${value.length} bytes came back changed`);
    }
  },

  async databases(make, key) {
    const one = await make({ db: 1 }), two = await make({ db: 2 }), k = key('db');
    await one.set(k, 'one');
    await two.set(k, 'two');
    for (let n = 0; n < 5; n++) same([await one.get(k), await two.get(k)], ['one', 'two']);
    await one.select(2);
    same(await one.get(k), 'two');
  },

  async connection(make) {
    const r = await make({ connectionName: 'anteroom-test' });
    same(await r.client('GETNAME'), 'anteroom-test');
    must((await r.client('ID')) > 0, 'CLIENT ID');
    must((await r.info()).includes('redis_version:'), 'INFO');
    same(await r.ping(), 'PONG');
    await refuses(r.call('NOSUCH', 'a'), 'unknown command');
    await refuses(r.call('GET'), 'wrong number of arguments');
  },

  async manyClientsUnderLoad(make, key) {
    // Every value names its key, so an answer that reached the wrong caller shows.
    const clients = await Promise.all(Array.from({ length: LOAD_CLIENTS }, () => make()));
    const wrong = [];
    await Promise.all(Array.from({ length: LOAD_TASKS }, async (_, n) => {
      const r = clients[n % LOAD_CLIENTS], other = clients[(n + 1) % LOAD_CLIENTS];
      const k = key(`load:${n % LOAD_KEYS}`), own = key(`own:${n}`);
      await r.set(k, `${k}=${n}`);
      await r.set(own, `${own}=${n}`);
      const [got, mine] = [await other.get(k), await other.get(own)];
      if (!got.startsWith(`${k}=`) || mine !== `${own}=${n}`) wrong.push([k, got, own, mine]);
    }));
    same(wrong.slice(0, 3), []);
  },

  async reconnection(make, key) {
    const r = await make(), other = await make(), sub = await make(), k = key('kill');
    await r.set(k, 'v');
    same(await other.client('KILL', 'ID', await r.client('ID')), 1);
    await eventually(async () => (await r.get(k).catch(() => null)) === 'v', 'a killed client comes back');
    const heard = [];
    sub.on('message', (_, message) => heard.push(message));
    await sub.subscribe(k);
    await other.client('KILL', 'TYPE', 'pubsub');
    // The connection that was killed may still be counted as a receiver for a moment.
    await eventually(async () => {
      await other.publish(k, 'back');
      return heard.includes('back');
    }, 'the subscriber is back and hears');
  },
};

const variants = { defaults: {}, RESP2: { protocol: 2 }, RESP3: { protocol: 3, replyMapping: 'resp3' } };
await runChecks(`ioredis ${version}`, 'io', checks, variants, connect, close);
