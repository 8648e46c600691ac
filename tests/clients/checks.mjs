// What the two Node scripts share: running named checks, comparing, waiting, and finding the installed packages.

import { deepStrictEqual } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };
export const CHECK_TIMEOUT_MS = 20_000;

const home = process.env.CLIENTS_DIR ?? new URL('../../target/clients', import.meta.url).pathname;
const require = createRequire(`${home}/package.json`);

export function load(name) {
  return { library: require(name), version: require(`${home}/node_modules/${name}/package.json`).version };
}

export function target() {
  const { values } = parseArgs({ options: { host: { type: 'string', default: '127.0.0.1' }, port: { type: 'string' } } });
  return { host: values.host, port: Number(values.port) };
}

export function same(got, wanted, what) {
  // A reply may be an object without a prototype; only its contents matter.
  deepStrictEqual(plain(got), plain(wanted), what ? `${what}: got ${show(got)}, wanted ${show(wanted)}` : undefined);
}

function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString('latin1');
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value;
}

const show = (value) => JSON.stringify(plain(value));

export function must(condition, what) {
  if (!condition) throw new Error(what);
}

export async function refuses(promise, words) {
  let got;
  try {
    got = await promise;
  } catch (error) {
    must(String(error.message).includes(words), `error ${error.message} does not say ${words}`);
    return;
  }
  throw new Error(`no error, got ${show(got)}, wanted ${words}`);
}

export async function eventually(condition, what, ms = 5000) {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    must(Date.now() < deadline, `not within ${ms} ms: ${what}`);
    await sleep(10);
  }
}

/** Keys of one run, so that runs do not meet. */
export function keys(prefix) {
  const run = randomUUID().slice(0, 8);
  return (name) => `${prefix}:${run}:${name}`;
}

/**
 * Runs `checks` (name -> async (make, key, options)) once per variant (label -> options). `connect(options)` gives a connected
 * client, `close(client)` ends it; clients made by a check are closed after it.
 */
export async function runChecks(title, prefix, checks, variants, connect, close) {
  let passed = 0;
  let failed = 0;
  let stray = null;
  // A failed check may leave promises behind that fail later; one that passed must not.
  process.on('unhandledRejection', (error) => (stray ??= error));
  for (const [label, options] of Object.entries(variants)) {
    const key = keys(prefix);
    for (const [name, check] of Object.entries(checks)) {
      const made = [];
      stray = null;
      const make = async (more = {}) => {
        const client = await connect(options, more);
        made.push(client);
        return client;
      };
      const late = new AbortController();
      try {
        await Promise.race([
          check(make, key, options),
          sleep(CHECK_TIMEOUT_MS, null, { signal: late.signal }).then(() => {
            throw new Error(`not done within ${CHECK_TIMEOUT_MS} ms`);
          }),
        ]);
        if (stray) throw stray;
        passed += 1;
      } catch (error) {
        failed += 1;
        console.log(`FAIL ${title} ${label}: ${name}\n${error.stack}`);
      }
      late.abort();
      await Promise.all(made.map((client) => Promise.resolve(close(client)).catch(() => {})));
    }
  }
  console.log(`${title}: ${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
