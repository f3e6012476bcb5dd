// The page: asks the broker and shows its answers, as text and never as markup.

import { bars } from "./charts.js";

const EVERY_MS = 2000;
const KEY = "mempalace-page-key";
const $ = (id) => document.getElementById(id);
const GONE = "The broker does not answer. It exits when nobody needs it, and the next agent starts it again. To start it now, run this in a terminal: ";

function make(name, options = {}, ...children) {
  const node = Object.assign(document.createElement(name), options);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// -- text

const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const plural = (count, thing) => `${number(count)} ${thing}${count === 1 ? "" : "s"}`;
const memory = (kib) => (kib ? `${number(kib / 1024)} MB` : "-");
const tool = (name) => String(name).replace(/^mempalace_/, "");
const clock = (at) => new Date(at * 1000).toLocaleString("sv");

function took(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  if (seconds >= 1) return `${number(seconds, 1)} s`;
  return `${number(seconds * 1000, seconds < 0.1 ? 1 : 0)} ms`;
}

const howFar = ({ file, files }) => (files ? `, file ${number(file)} of ${number(files)} (${Math.floor((100 * (file - 1)) / files)} %)` : "");

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

// -- the broker

class SignedOut extends Error {}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

// Whoever listens here now may be another user's program: it gets no key unless it proves that it knows it.
async function prove(key) {
  const [words, nonce] = [new TextEncoder(), hex(crypto.getRandomValues(new Uint8Array(16)))];
  const answer = await fetch(`/page/proof?${nonce}`, { cache: "no-store" });
  if (answer.status === 401) throw new SignedOut();
  const secret = await crypto.subtle.importKey("raw", words.encode(key), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const proof = await crypto.subtle.sign("HMAC", secret, words.encode(`${location.port} ${nonce}`));
  if ((await answer.text()) !== hex(new Uint8Array(proof))) throw new Error("Another program answers in the broker's place.");
}

async function ask(path) {
  const key = localStorage.getItem(KEY);
  if (!key) throw new SignedOut();
  await prove(key);
  const headers = { Authorization: `Page ${key}` };
  const answer = await fetch(`/page/${path}`, { headers, cache: "no-store" });
  if (answer.status === 401) throw new SignedOut();
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function askMemory(path) {
  const answer = await ask(path);
  if (answer.error) throw new Error(answer.error.message);
  const said = JSON.parse(answer.result.content[0].text);
  if (said.error) throw new Error(said.error);
  return said;
}

async function signIn() {
  const code = location.hash.slice(1);
  if (!/^[0-9a-f]{32}$/.test(code)) return;
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/page/login", { method: "POST", headers: { Authorization: `Login ${code}` } });
  if (answer.ok) localStorage.setItem(KEY, (await answer.json()).key);
}

function notice(text, command) {
  $("notice").hidden = !text;
  if ($("notice").dataset.text === text) return; // or screen readers repeat it
  $("notice").dataset.text = text;
  $("notice").replaceChildren(text, command ? make("code", { textContent: command }) : "");
}

// -- parts of the page

function table(place, columns, rows, empty) {
  if (!rows.length) return place.replaceChildren(make("p", { className: "dim", textContent: empty }));
  const head = columns.map(([name, kind]) => make("th", { scope: "col", className: kind ?? "", textContent: name }));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, index) => make("td", { className: columns[index][1] ?? "", textContent: text }))));
  return place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
}

function pairs(place, entries) {
  const of = ([name, text, kind]) => [make("dt", { textContent: name }), make("dd", { textContent: text, className: kind ?? "" })];
  const parts = entries.map(of);
  place.replaceChildren(...(place.className === "tiles" ? parts.map((part) => make("div", {}, ...part)) : parts.flat()));
}

function showState(status) {
  const good = { serving: "good", ready: "good", parked: "good", down: "dim", lent: "warn", fatal: "bad", unavailable: "bad", backoff: "bad" };
  const wrong = status.degraded.length;
  const badges = [
    [status.broker.state, good[status.broker.state] ?? "warn"],
    [`engine ${status.engine.state}`, good[status.engine.state] ?? "warn"],
    [wrong ? `${wrong} degraded` : "healthy", wrong ? "warn" : "good"],
  ];
  const text = badges.map(([word]) => word).join();
  if ($("state").dataset.text === text) return;
  $("state").dataset.text = text;
  $("state").replaceChildren(...badges.flatMap(([word, kind]) => [make("span", { className: `badge ${kind}`, textContent: word }), " "]));
}

function showNow(status) {
  const { traffic, counters, engine, broker } = status;
  const minute = traffic.windows["1m"];
  pairs($("tiles"), [
    ["calls/s, 1 min", number(minute.calls_per_s, 2)],
    ["median, 1 min", took(minute.p50_s)],
    ["95th percentile, 1 min", took(minute.p95_s)],
    ["errors/s, 1 min", number(minute.errors_per_s, 2), minute.errors_per_s ? "bad" : ""],
    ["sessions", number(status.sessions.length)],
    ["calls since start", number(counters.calls)],
    ["engine memory", memory(engine.rss_kb)],
    ["broker memory", memory(broker.rss_kb)],
  ]);
  const seconds = traffic.slot_s;
  const rate = (value) => `${number(value, 1)}/s`;
  const perSecond = (values) => values.map((value) => value / seconds);
  bars($("chart-calls"), { values: perSecond(traffic.calls), marked: perSecond(traffic.errors), seconds, show: rate, about: "Calls per second" });
  bars($("chart-latency"), { values: traffic.p95_s, seconds, least: traffic.bounds_s[0], show: took, about: "Latency, 95th percentile" });
}

function showTables(status) {
  const names = Object.fromEntries(status.sessions.map((session) => [session.id, session.agent ?? session.client]));
  const lanes = Object.entries(status.lanes).map(([name, lane]) => [
    name,
    number(lane.queued),
    lane.running.map((call) => `${tool(call.tool)} of ${names[call.session] ?? call.session} for ${took(call.for_s)}${howFar(call)}`).join(", ") || "-",
  ]);
  table($("lanes"), [["lane"], ["waiting", "number"], ["running", "words"]], lanes, "");
  const sessions = status.sessions.map((s) => [s.agent ?? "-", s.client, s.via, s.id, s.pid ? String(s.pid) : "-", span(s.since_s), number(s.in_flight), number(s.answered)]);
  const columns = [["agent"], ["client"], ["via"], ["session"], ["pid", "number"], ["for", "number"], ["open", "number"], ["answered", "number"]];
  table($("sessions"), columns, sessions, "No agent is connected.");
  const errors = status.errors.toReversed().map((e) => [clock(e.at), tool(e.tool), e.agent ?? e.session ?? "-", String(e.code), e.text]);
  table($("errors"), [["when"], ["tool"], ["agent"], ["code", "number"], ["what", "words"]], errors, "None since the broker started.");
}

function showAbout(status) {
  const { broker, engine, palace, lease, snapshots } = status;
  const newest = snapshots.newest_at ? `, the newest made at ${clock(snapshots.newest_at)}` : "";
  $("palace").textContent = palace.path;
  pairs($("about"), [
    ["broker", `${broker.version}, pid ${broker.pid}, up ${span(broker.uptime_s)}${broker.started_by ? `, started by ${broker.started_by}` : ""}`],
    ["engine", `mempalace ${engine.version ?? "?"}${engine.pid ? `, pid ${engine.pid}` : ""}, ${engine.state} for ${span(engine.since_s)}, ${plural(engine.restarts, "restart")}`],
    ["interpreter", engine.interpreter ?? "-"],
    ["knowledge graph", palace.graph],
    ["lease", `epoch ${lease.epoch ?? "-"}, ${lease.state ?? "-"}, ${lease.kind ?? "-"}`],
    ["snapshots", `${number(snapshots.count)} in their usual folder${newest}`],
    ["listens on", [...status.endpoints, status.http?.url].filter(Boolean).join(", ")],
  ]);
}

function showHealth(status, doctor) {
  const found = status.degraded.map((entry) => ({ severity: "warn", what: "degraded", detail: entry.what, hint: entry.hint }));
  const findings = (doctor?.findings ?? []).filter((finding) => finding.severity === "warn" || finding.severity === "error");
  const quiet = (doctor?.findings ?? []).length - findings.length;
  const items = [...found, ...findings.filter((finding) => !found.some((entry) => entry.detail === finding.detail))].map((finding) =>
    make("li", {}, make("strong", { className: finding.severity === "error" ? "bad" : "warn", textContent: `${finding.what}: ` }), finding.detail,
      finding.hint ? make("span", { className: "hint", textContent: `Hint: ${finding.hint}` }) : null));
  const all = items.length ? null : make("p", { className: "good", textContent: "Nothing to act on." });
  const summary = doctor?.problem ?? (doctor ? `${plural(quiet, "check")} of doctor passed.` : "checking");
  $("health").replaceChildren(make("ul", { className: "findings" }, ...items), ...(doctor && all ? [all] : []), make("p", { className: "dim", textContent: summary }));
}

function showRooms(taxonomy) {
  const wings = Object.entries(taxonomy).map(([wing, rooms]) => [wing, Object.entries(rooms), Object.values(rooms).reduce((sum, count) => sum + count, 0)]);
  wings.sort((one, other) => other[2] - one[2]);
  const total = wings.reduce((sum, [, , count]) => sum + count, 0);
  const parts = wings.map(([wing, rooms, count], index) => {
    rooms.sort((one, other) => other[1] - one[1]);
    const list = rooms.map(([room, drawers]) => make("li", {}, make("span", { textContent: room }), make("span", { className: "count", textContent: number(drawers) }),
      make("meter", { min: 0, max: rooms[0][1], value: drawers, ariaLabel: `${room}: ${plural(drawers, "drawer")}` })));
    return make("details", { open: index === 0 }, make("summary", {}, wing, " ", make("span", { className: "count", textContent: `${plural(rooms.length, "room")}, ${plural(count, "drawer")}` })),
      make("ul", { className: "rooms" }, ...list));
  });
  $("rooms").replaceChildren(make("p", { textContent: `${plural(wings.length, "wing")}, ${plural(total, "drawer")}` }), ...parts);
  const chosen = $("wing").value;
  $("wing").replaceChildren(make("option", { value: "", textContent: "all" }), ...wings.map(([wing]) => make("option", { value: wing, textContent: wing })));
  $("wing").value = wings.some(([wing]) => wing === chosen) ? chosen : "";
}

function showResults(said, query) {
  $("found").textContent = said.results.length ? `${plural(said.results.length, "drawer")} for "${query}"` : `No drawers for "${query}".`;
  $("results").replaceChildren(...said.results.map((drawer) => {
    const source = drawer.source_file && drawer.source_file !== "?" ? `, ${drawer.source_file}` : "";
    const filed = drawer.filed_at ? `, ${String(drawer.filed_at).slice(0, 10)}` : "";
    return make("li", {}, make("span", { className: "where", textContent: `${drawer.wing} / ${drawer.room}${source}${filed}, similarity ${number(drawer.similarity ?? 0, 2)}` }),
      make("p", { textContent: drawer.text }));
  }));
}

// -- events

let last = null;
let doctor = null;

function failed(error) {
  if (error instanceof SignedOut) {
    $("main").hidden = true;
    notice("To open this page, run this in a terminal: ", "mempalace-broker open");
    $("state").replaceChildren(make("span", { className: "badge dim", textContent: "signed out" }));
    $("state").dataset.text = "";
    return true;
  }
  return false;
}

async function look() {
  try {
    const status = await ask("status");
    const first = last === null;
    last = status;
    notice("");
    $("main").hidden = false;
    showState(status);
    showNow(status);
    showTables(status);
    showAbout(status);
    showHealth(status, doctor);
    if (first) {
      check();
      count();
    }
  } catch (error) {
    if (!failed(error)) {
      notice(GONE, "mempalace-broker ensure");
      $("state").replaceChildren(make("span", { className: "badge bad", textContent: "no answer" }));
      $("state").dataset.text = "";
    }
  }
}

async function guarded(place, work) {
  try {
    await work();
  } catch (error) {
    if (!failed(error)) place.replaceChildren(make("p", { className: "bad", textContent: error.message }));
  }
}

const count = () => guarded($("rooms"), async () => showRooms((await askMemory("rooms")).taxonomy));
const check = () => guarded($("health"), async () => {
  doctor = null;
  showHealth(last, doctor);
  doctor = await ask("health");
  showHealth(last, doctor);
});

$("count").addEventListener("click", count);
$("check").addEventListener("click", check);
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = $("query").value.trim();
  if (!query) return;
  $("found").textContent = "searching";
  guarded($("found"), async () => {
    const where = new URLSearchParams({ query, ...($("wing").value ? { wing: $("wing").value } : {}) });
    showResults(await askMemory(`search?${where}`), query);
  });
});

async function begin() {
  await signIn();
  addEventListener("hashchange", async () => {
    await signIn();
    await look();
  });
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((wake) => setTimeout(wake, EVERY_MS));
  }
}

begin();
