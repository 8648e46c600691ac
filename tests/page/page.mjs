// The admin page in headless Chromium, in front of a private redis-server and the proxy's binary.
//
// PAGE_DIR: where playwright-core is installed and pictures go. Argument: the proxy. Prints a line for each check.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const HOME = process.env.PAGE_DIR, PROXY = process.argv[2];
const { chromium } = createRequire(join(HOME, "package.json"))("playwright-core");
const BROWSER = process.env.CHROMIUM || "/usr/bin/chromium";
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const TOKEN = "a-token-for-the-page-test";
// Where a picture for the README is to go, if one is to be made; it shows the page as it usually is.
const PICTURE = process.env.PAGE_PICTURE;
const HOSTILE = PICTURE ? "product:999:price" : '<img src=x onerror="window.pwned=1">';

let passed = 0, failed = 0;
function check(what, holds, more = "") {
  holds ? passed++ : failed++;
  console.log(`${holds ? "ok  " : "FAIL"} ${what}${holds ? "" : ": " + more}`);
}
const sleep = ms => new Promise(done => setTimeout(done, ms));
async function eventually(holds, ms = 10000) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(50)) if (await holds()) return true;
  return false;
}

// ---- servers ----
const scratch = mkdtempSync(join(tmpdir(), "anteroom-page-"));
const children = new Set();
function start(command, args, env = {}) {
  const child = spawn(command, args, { stdio: "ignore", cwd: scratch, env: { ...process.env, ...env } });
  children.add(child);
  child.on("exit", () => children.delete(child));
  return child;
}
const ended = child => new Promise(done => (child.exitCode ?? child.signalCode) !== null ? done() : child.on("exit", done));
const freePort = () => new Promise(done => {
  const server = net.createServer().listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => done(port)); });
});
const listens = port => new Promise(done => {
  const socket = net.connect(port, "127.0.0.1", () => { socket.destroy(); done(true); }).on("error", () => done(false));
});
const redisArgs = port => ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
function startProxy(port, upstream, admin, token = "") {
  const config = join(scratch, `proxy-${port}.toml`);
  writeFileSync(config, `[[limits.rate]]\nname = "per-client"\nby = "client-name"\ncommands_per_second = 100000\n` +
    `[[limits.rate]]\nname = "writes"\nby = "ip"\nmatch = { command = "@write" }\ncommands_per_second = 900\n[drain]\ntimeout_ms = 200\n`);
  const args = ["--config", config, "--listen", `127.0.0.1:${port}`, "--upstream", `redis://127.0.0.1:${upstream}`, "--admin", `127.0.0.1:${admin}`, "--workers", "2"];
  return start(PROXY, args, { ANTEROOM_ADMIN_TOKEN: token });
}

// ---- load: a few keys take most reads, one of them with a name that is markup ----
const frame = args => `*${args.length}\r\n${args.map(a => `$${Buffer.byteLength(a)}\r\n${a}\r\n`).join("")}`;
function load(port) {
  let stopped = false, turn = 0;
  const sockets = [];
  const names = [HOSTILE, ...Array.from({ length: 400 }, (_, n) => `product:${1000 + n}:price`)];
  for (let n = 0; n < 12; n++) {
    const socket = net.connect(port, "127.0.0.1").on("error", () => {}).on("data", () => {});
    sockets.push(socket);
    const write = () => {
      if (stopped || socket.destroyed) return;
      const busy = 20 + Math.round(14 * Math.sin(turn++ / 120));
      for (let i = 0; i < busy; i++) {
        const key = names[Math.floor(names.length * Math.pow(Math.random(), 3.5))];
        socket.write(Math.random() < 0.02 ? frame(["SET", key, "42"]) : Math.random() < 0.1 ? frame(["INCR", "n"]) : frame(["GET", key]));
      }
      setTimeout(write, 20);
    };
    write();
  }
  return () => { stopped = true; sockets.forEach(socket => socket.destroy()); };
}

// ---- in the page ----
// Every text that is seen, against what is behind it: WCAG's ratio of contrast.
const worstContrast = () => {
  const parse = colour => (colour.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const behind = at => {
    const layers = [];
    for (; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const light = colour => {
    const [r, g, b] = colour.map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = { ratio: 99 };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walk.nextNode();) {
    const at = node.parentElement;
    if (!node.textContent.trim() || at.closest("script, style, noscript, [hidden]") || at.getClientRects().length === 0) continue;
    const under = behind(at), [a, b] = [light(over(parse(getComputedStyle(at).color), under)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: node.textContent.trim().slice(0, 40) };
  }
  return worst;
};
const said = async (page, id) => (await page.locator("#" + id).textContent()).trim();

async function main() {
  const [redisPort, port, admin] = [await freePort(), await freePort(), await freePort()];
  let redis = start("redis-server", redisArgs(redisPort));
  let proxy = startProxy(port, redisPort, admin);
  await eventually(async () => await listens(redisPort) && await listens(admin));
  let stop = load(port);
  const seed = net.connect(redisPort, "127.0.0.1");
  seed.write(frame(["SET", HOSTILE, "1"]));
  seed.end();

  const browser = await chromium.launch({ executablePath: BROWSER, args: QUIET });
  const complaints = [];
  async function open(options, at = admin) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.on("console", message => { if (message.type() === "error") complaints.push(message.text()); });
    page.on("pageerror", error => complaints.push(String(error)));
    // For working on the page without building the proxy: what is on the disk, without its policy.
    if (process.env.PAGE_FROM) await page.route(`http://127.0.0.1:${at}/`, route => route.fulfill({ contentType: "text/html", body: readFileSync(process.env.PAGE_FROM, "utf8") }));
    await page.goto(`http://127.0.0.1:${at}/`);
    return page;
  }
  const looks = [
    ["desktop", "light", { width: 1280, height: 900 }], ["desktop", "dark", { width: 1280, height: 900 }],
    ["phone", "light", { width: 390, height: 844 }], ["phone", "dark", { width: 390, height: 844 }],
  ];
  await sleep(Number(process.env.PAGE_WARM_MS || 6000));
  for (const [name, scheme, viewport] of looks) {
    const page = await open({ viewport, colorScheme: scheme, deviceScaleFactor: 2 });
    const look = `${name}, ${scheme}`;
    check(`${look}: it says that the proxy is ready`, await eventually(async () => await said(page, "state") === "ready"), await said(page, "state"));
    check(`${look}: requests move`, await eventually(async () => /^[\d.,]+\s?k? per second$/.test(await said(page, "requests"))), await said(page, "requests"));
    await sleep(2200);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(`${look}: nothing is wider than the window`, wide <= 0, `${wide} px`);
    const contrast = await page.evaluate(worstContrast);
    check(`${look}: every text can be read`, contrast.ratio >= 4.5, JSON.stringify(contrast));
    await page.screenshot({ path: join(HOME, `${name}-${scheme}.png`), fullPage: true });
    if (PICTURE && look === "desktop, light") {
      await page.setViewportSize({ width: 1280, height: 897 });
      await page.screenshot({ path: PICTURE });
    }
    await page.context().close();
  }

  const page = await open({ viewport: { width: 1280, height: 900 } });
  await eventually(async () => await said(page, "state") === "ready");
  const charts = await page.locator(".chart svg").evaluateAll(all => all.filter(one => !one.closest("[hidden]")).map(one => [one.getAttribute("role"), one.getAttribute("aria-label")]));
  check("charts say what they show", charts.length >= 2 && charts.every(([role, label]) => role === "img" && label.length > 20), JSON.stringify(charts));
  const meters = await page.locator("[role=meter]").evaluateAll(all => all.filter(one => !one.hidden).map(one => one.getAttribute("aria-valuenow")));
  check("bars say how full they are", meters.length >= 2 && meters.every(now => now !== null && now !== ""), JSON.stringify(meters));
  if (await page.locator("#keys-card").isVisible()) {
    check("a key that is markup is shown as text", await eventually(async () => (await said(page, "keys")).includes(HOSTILE)), await said(page, "keys"));
  }
  check("and nothing of it becomes markup or runs", await page.evaluate(() => window.pwned === undefined && document.images.length === 0));
  check("limits are listed", (await said(page, "limits")).includes("per-client"), await said(page, "limits"));

  redis.kill("SIGKILL");
  check("a Redis that is gone is seen, with the reason", await eventually(async () => /^not ready: .*connection/.test(await said(page, "state")), 3000), await said(page, "state"));
  check("so is the tracker", await eventually(async () => await said(page, "tracker") === "down", 3000), await said(page, "tracker"));
  await page.screenshot({ path: join(HOME, "redis-gone.png"), fullPage: true });
  redis = start("redis-server", redisArgs(redisPort));
  check("and that it is back", await eventually(async () => await said(page, "state") === "ready", 5000), await said(page, "state"));
  check("no error, and nothing against the page's policy", complaints.length === 0, complaints.join("; "));

  proxy.kill("SIGKILL");
  await ended(proxy);
  check("a cut stream is admitted", await eventually(async () => await page.locator("#cut").isVisible() && await said(page, "state") === "no connection", 6000), await said(page, "state"));
  await page.screenshot({ path: join(HOME, "cut.png"), fullPage: true });
  stop();
  proxy = startProxy(port, redisPort, admin);
  await eventually(() => listens(port));
  stop = load(port);
  check("and the page finds back by itself", await eventually(async () => await said(page, "state") === "ready" && !await page.locator("#cut").isVisible()), await said(page, "state"));
  await page.context().close();

  const [otherPort, otherAdmin] = [await freePort(), await freePort()];
  startProxy(otherPort, redisPort, otherAdmin, TOKEN);
  await eventually(() => listens(otherAdmin));
  const closed = await open({}, otherAdmin).catch(error => String(error));
  check("with a token nothing is shown to who has none", typeof closed === "string" || !(await closed.content()).includes("Hit ratio"), "it was shown");
  delete process.env.PAGE_FROM;
  const shown = await open({ httpCredentials: { username: "anyone", password: TOKEN } }, otherAdmin);
  check("and with it as a password, stream and all", await eventually(async () => await said(shown, "state") === "ready"), "not ready");
  const first = await said(shown, "when");
  check("the stream goes on", await eventually(async () => await said(shown, "when") !== first, 4000), first);

  stop();
  await browser.close();
}

try {
  await main();
} catch (error) {
  check("the test itself", false, String(error.stack || error));
} finally {
  children.forEach(child => child.kill("SIGKILL"));
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`page: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
