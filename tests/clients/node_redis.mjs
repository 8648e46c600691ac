// node-redis against a port: what its users do, with its defaults and with RESP2 and RESP3 asked for.

import { randomBytes, randomUUID } from 'node:crypto';
import { eventually, load, must, refuses, runChecks, same, sleep, target } from './checks.mjs';

const { library, version } = load('redis');
const { createClient, createClientPool, defineScript, RESP_TYPES, WatchError } = library;
const { host, port } = target();
const LOAD_CLIENTS = 16;
const LOAD_TASKS = 4000;
const LOAD_KEYS = 50;

const settings = (options, more) => ({ socket: { host, port }, ...options, ...more });

async function connect(options, more) {
  const client = createClient(settings(options, more));
  client.on('error', () => {}); // a killed connection is reported here; the check sees its effect
  await client.connect();
  return client;
}

const close = (client) => client.destroy();

const checks = {
  async strings(make, key) {
    const r = await make(), k = key('string');
    same(await r.set(k, 'one'), 'OK');
    for (let n = 0; n < 5; n++) same(await r.get(k), 'one', 'repeated GET');
    for (let n = 0; n < 50; n++) {
      await r.set(k, `${n}`);
      same(await r.get(k), `${n}`, 'own write');
    }
    same(await r.append(k, 'x'), 3);
    same(await r.getRange(k, 0, 1), '49');
    same(await r.strLen(k), 3);
    same(await r.set(k, 'v', { NX: true }), null);
    same(await r.set(k, 'v', { XX: true, GET: true }), '49x');
    same(await r.getDel(k), 'v');
    same(await r.get(k), null);
    same(await r.incrBy(k, 41), 41);
    same(await r.mSet({ [key('m1')]: 'a', [key('m2')]: 'b' }), 'OK');
    same(await r.mGet([key('m1'), key('none'), key('m2')]), ['a', null, 'b']);
    same(await r.exists([key('m1'), key('none')]), 1);
    same(await r.type(key('m1')), 'string');
  },

  async expiry(make, key) {
    const r = await make(), k = key('expiry');
    await r.set(k, 'v', { PX: 150 });
    same(await r.get(k), 'v');
    same(await r.get(k), 'v');
    await sleep(170);
    same(await r.get(k), null, 'after its expiry');
  },

  async hashes(make, key) {
    const r = await make(), k = key('hash');
    same(await r.hSet(k, { a: '1', b: '2' }), 2);
    same(await r.hGetAll(k), { a: '1', b: '2' });
    same(await r.hGet(k, 'a'), '1');
    same(await r.hGet(k, 'b'), '2', 'another field of the same key');
    same(await r.hmGet(k, ['a', 'x']), ['1', null]);
    same(await r.hIncrBy(k, 'a', 9), 10);
    same(await r.hGet(k, 'a'), '10');
    same(await r.hDel(k, 'b'), 1);
    same(await r.hGetAll(k), { a: '10' });
  },

  async lists(make, key) {
    const r = await make(), k = key('list');
    same(await r.rPush(k, ['a', 'b', 'c']), 3);
    same(await r.lRange(k, 0, -1), ['a', 'b', 'c']);
    same(await r.lPop(k), 'a');
    same(await r.lRange(k, 0, -1), ['b', 'c']);
    same(await r.lPos(k, 'c'), 1);
    await refuses(r.hGet(k, 'f'), 'WRONGTYPE');
  },

  async sets(make, key) {
    const r = await make(), k = key('set');
    same(await r.sAdd(k, ['a', 'b']), 2);
    same([...(await r.sMembers(k))].sort(), ['a', 'b']);
    same((await r.smIsMember(k, ['a', 'z'])).map(Boolean), [true, false]);
    same(await r.sRem(k, 'a'), 1);
    same([...(await r.sMembers(k))], ['b']);
  },

  async sortedSets(make, key) {
    const r = await make(), k = key('zset');
    same(await r.zAdd(k, [{ score: 1, value: 'a' }, { score: 2.5, value: 'b' }, { score: Infinity, value: 'c' }]), 3);
    same(await r.zRangeWithScores(k, 0, -1), [
      { value: 'a', score: 1 }, { value: 'b', score: 2.5 }, { value: 'c', score: Infinity },
    ]);
    same(await r.zScore(k, 'b'), 2.5);
    same(await r.zScore(k, 'none'), null);
    same(await r.zmScore(k, ['a', 'none']), [1, null]);
    same(await r.zIncrBy(k, 10, 'a'), 11);
    same(await r.zRange(k, 0, 0), ['b']);
    same(await r.zRank(k, 'a'), 1);
    same(await r.zPopMin(k), { value: 'b', score: 2.5 });
  },

  async streams(make, key) {
    const r = await make(), k = key('stream');
    const first = await r.xAdd(k, '*', { n: '1' });
    const second = await r.xAdd(k, '*', { n: '2' });
    same(await r.xRange(k, '-', '+'), [{ id: first, message: { n: '1' } }, { id: second, message: { n: '2' } }]);
    same(await r.xGroupCreate(k, 'g', '0'), 'OK');
    const delivered = JSON.stringify(await r.xReadGroup('g', 'me', { key: k, id: '>' }, { COUNT: 1 }));
    must(delivered.includes(first) && !delivered.includes(second), delivered);
    same((await r.xPending(k, 'g')).pending, 1);
    same(await r.xAck(k, 'g', first), 1);
    same((await r.xPending(k, 'g')).pending, 0);
    same((await r.xInfoStream(k)).length, 2);
  },

  async geo(make, key) {
    const r = await make(), k = key('geo');
    same(await r.geoAdd(k, [
      { longitude: 13.361389, latitude: 38.115556, member: 'Palermo' },
      { longitude: 15.087269, latitude: 37.502669, member: 'Catania' },
    ]), 2);
    same(Math.round(await r.geoDist(k, 'Palermo', 'Catania', 'km')), 166);
    const [position, none] = await r.geoPos(k, ['Palermo', 'none']);
    same([Number(position.longitude).toFixed(4), none], ['13.3614', null]);
    same(await r.geoSearch(k, { longitude: 15, latitude: 37 }, { radius: 100, unit: 'km' }), ['Catania']);
  },

  async bitmaps(make, key) {
    const r = await make(), k = key('bits');
    same(await r.setBit(k, 7, 1), 0);
    same([await r.getBit(k, 7), await r.getBit(k, 6)], [1, 0]);
    same([await r.bitCount(k), await r.bitPos(k, 1)], [1, 7]);
    same(await r.bitField(k, [
      { operation: 'SET', encoding: 'u8', offset: 8, value: 200 }, { operation: 'GET', encoding: 'u8', offset: 8 },
    ]), [0, 200]);
    same(await r.bitCount(k), 4);
  },

  async hyperLogLog(make, key) {
    const r = await make(), k = key('hll');
    same(Number(await r.pfAdd(k, Array.from({ length: 100 }, (_, n) => `${n}`))), 1);
    const count = await r.pfCount(k);
    must(count >= 95 && count <= 105, `PFCOUNT ${count}`);
  },

  async pipelines(make, key) {
    const r = await make();
    const wanted = Array.from({ length: 500 }, (_, n) => `${n}`);
    const got = await Promise.all(wanted.map((n) => (r.set(key(`p${n}`), n), r.get(key(`p${n}`)))));
    same(got, wanted, 'pipelined by the client itself');
    const multi = r.multi();
    for (const n of wanted) multi.get(key(`p${n}`));
    same(await multi.execAsPipeline(), wanted);
  },

  async transactions(make, key) {
    const r = await make(), other = await make(), k = key('tx');
    same(await r.multi().set(k, '1').incr(k).get(k).exec(), ['OK', 2, '2']);
    same(await r.get(k), '2');
    await r.watch(k);
    const value = Number(await r.get(k));
    await other.set(k, '100');
    let conflict = null;
    await r.multi().set(k, `${value + 1}`).exec().catch((error) => (conflict = error));
    must(conflict instanceof WatchError, `WATCH conflict gave ${conflict}`);
    same(await r.get(k), '100');
    await r.watch(k);
    same(await r.multi().incr(k).exec(), [101], 'no conflict, no error');
  },

  async scripts(make, key) {
    const store = defineScript({
      SCRIPT: `-- ${randomUUID()}\nredis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], ARGV[1], 7}`,
      NUMBER_OF_KEYS: 1,
      parseCommand(parser, k, v) {
        parser.pushKey(k);
        parser.push(v);
      },
      transformReply: (reply) => reply,
    });
    const r = await make({ scripts: { store } }), k = key('lua');
    await r.set(k, 'old');
    for (let n = 0; n < 4; n++) same(await r.get(k), 'old');
    for (let n = 0; n < 10; n++) {
      same(await r.store(k, `${n}`), [k, `${n}`, 7], 'EVALSHA, falling back to EVAL at first');
      same(await r.get(k), `${n}`, 'own write by a script');
    }
    await refuses(r.evalSha('0'.repeat(40)), 'NOSCRIPT');
    same(await r.eval(`redis.call('SET', '${k}', 'hidden') return 1`), 1);
    same(await r.get(k), 'hidden', "a script's write to an undeclared key");
  },

  async pubsub(make, key) {
    const r = await make(), sub = await make(), channel = key('news');
    const heard = [];
    await sub.subscribe(channel, (message, from) => heard.push(['plain', from, message]));
    await sub.pSubscribe(`${channel}*`, (message, from) => heard.push(['pattern', from, message]));
    await sub.sSubscribe(channel, (message, from) => heard.push(['shard', from, message]));
    same(await r.publish(channel, 'hello'), 2);
    same(await r.sPublish(channel, 'sharded'), 1);
    await eventually(() => heard.length === 3, 'three messages');
    same(heard.sort(), [['pattern', channel, 'hello'], ['plain', channel, 'hello'], ['shard', channel, 'sharded']]);
    await sub.unsubscribe(channel);
    same(await r.publish(channel, 'again'), 1);
    await sub.pUnsubscribe();
    await sub.sUnsubscribe();
    same(await r.publish(channel, 'nobody'), 0);
    same(await sub.ping(), 'PONG', 'an ordinary connection again');
  },

  async blocking(make, key) {
    const r = await make(), blocked = await make(), k = key('queue');
    const popped = blocked.blPop(k, 5);
    await sleep(100);
    same(await r.rPush(k, 'job'), 1);
    same(await popped, { key: k, element: 'job' });
    const read = blocked.xRead({ key: key('bs'), id: '$' }, { BLOCK: 5000 });
    await sleep(100);
    const id = await r.xAdd(key('bs'), '*', { f: 'v' });
    must(JSON.stringify(await read).includes(id), 'XREAD BLOCK');
    same(await blocked.blPop(k, 0.2), null);
  },

  async scan(make, key) {
    const r = await make();
    const wanted = Array.from({ length: 500 }, (_, n) => key(`scan:${n}`)).sort();
    await r.mSet(wanted.map((k) => [k, 'v']));
    const got = new Set();
    for await (const batch of r.scanIterator({ MATCH: key('scan:*'), COUNT: 50 })) for (const k of [].concat(batch)) got.add(k);
    same([...got].sort(), wanted);
  },

  async binary(make, key) {
    const r = (await make()).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    const all = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    for (const value of [all, Buffer.from('\r\n$5\r\nhello\r\n*1\r\n'), Buffer.alloc(0), randomBytes(3_000_000)]) {
      await r.set(key('bin'), value);
      for (let n = 0; n < 4; n++) must(value.equals(await r.get(key('bin'))), `${value.length} bytes came back changed`);
    }
  },

  async databases(make, key) {
    const one = await make({ database: 1 }), two = await make({ database: 2 }), k = key('db');
    await one.set(k, 'one');
    await two.set(k, 'two');
    for (let n = 0; n < 5; n++) same([await one.get(k), await two.get(k)], ['one', 'two']);
    await one.select(2);
    same(await one.get(k), 'two');
  },

  async connection(make) {
    const r = await make({ name: 'anteroom-test', pingInterval: 200 });
    same(await r.clientGetName(), 'anteroom-test');
    must((await r.clientId()) > 0, 'CLIENT ID');
    must((await r.info()).includes('redis_version:'), 'INFO');
    await sleep(500);
    same(await r.ping(), 'PONG');
    await refuses(r.sendCommand(['NOSUCH', 'a']), 'unknown command');
    await refuses(r.sendCommand(['GET']), 'wrong number of arguments');
  },

  async poolUnderLoad(make, key, options) {
    // Every value names its key, so an answer that reached the wrong caller shows.
    const pool = createClientPool(settings(options, {}), { minimum: 1, maximum: LOAD_CLIENTS });
    pool.on('error', () => {});
    await pool.connect();
    const wrong = [];
    await Promise.all(Array.from({ length: LOAD_TASKS }, async (_, n) => {
      const k = key(`load:${n % LOAD_KEYS}`), own = key(`own:${n}`);
      await pool.set(k, `${k}=${n}`);
      const got = await pool.get(k);
      const mine = await pool.execute(async (client) => {
        await client.set(own, `${own}=${n}`);
        return client.get(own);
      });
      if (!got.startsWith(`${k}=`) || mine !== `${own}=${n}`) wrong.push([k, got, own, mine]);
    }));
    await pool.close();
    same(wrong.slice(0, 3), []);
  },

  async clientSideCache(make, key, options) {
    if (options.RESP !== 3) return;
    const r = await make({ clientSideCache: { ttl: 0, maxEntries: 100 } }), other = await make(), k = key('csc');
    const hash = key('csc:hash');
    await other.set(k, '1');
    await other.hSet(hash, 'f', '1');
    for (let n = 0; n < 3; n++) same(await r.get(k), '1');
    for (let n = 0; n < 3; n++) same(await r.hGetAll(hash), { f: '1' });
    for (let n = 0; n < 3; n++) same(await r.mGet([k, `${k}:none`]), ['1', null]);
    for (let n = 0; n < 100; n++) {
      await other.set(k, `other ${n}`);
      await eventually(async () => (await r.get(k)) === `other ${n}`, 'the invalidation reaches a tracking client');
      await r.set(k, `own ${n}`);
      same(await r.get(k), `own ${n}`);
    }
    await eventually(async () => (await r.mGet([k]))[0] === 'own 99', 'of an MGET, too');
    await other.hSet(hash, 'f', '2');
    await eventually(async () => (await r.hGetAll(hash)).f === '2', 'of a hash, too');
    await other.del([k, hash]);
    await eventually(async () => (await r.get(k)) === null && Object.keys(await r.hGetAll(hash)).length === 0, 'they are gone');
  },

  async reconnection(make, key) {
    const r = await make(), other = await make(), sub = await make(), k = key('kill');
    await r.set(k, 'v');
    same(await other.sendCommand(['CLIENT', 'KILL', 'ID', `${await r.clientId()}`]), 1);
    await eventually(async () => (await r.get(k).catch(() => null)) === 'v', 'a killed client comes back');
    const heard = [];
    await sub.subscribe(k, (message) => heard.push(message));
    await other.sendCommand(['CLIENT', 'KILL', 'TYPE', 'pubsub']);
    // The connection that was killed may still be counted as a receiver for a moment.
    await eventually(async () => {
      await other.publish(k, 'back');
      return heard.includes('back');
    }, 'the subscriber is back and hears');
  },
};

const variants = { defaults: {}, RESP2: { RESP: 2 }, RESP3: { RESP: 3 } };
await runChecks(`node-redis ${version}`, 'nr', checks, variants, connect, close);
