"use strict";
/* The live page: listens to /api/v1/stream and shows one series at a time. Nothing here is loaded from anywhere else. */

const POINTS_MAX = 400; // of the curve; as many as a screen resolves
const SPACING_S = 0.05; // between two of them at least
const COARSE_MAX = 1.7; // steps between two points of the past kept of every series: coarser, and it would show waves that are not there
const SEARCH_FROM = 9; // series; fewer are seen at a glance
const LISTED_MAX = 200;
const DRAW_MS = 120;
const WEIGHTS_MS = 1500;
const LIST_MS = 2000;
const LOST_MS = 6000; // without word of the daemon, which comes once a second

const byId = (id) => document.getElementById(id);
const style = () => getComputedStyle(document.documentElement);

/** State of the page. `points` are oldest first: {t, v, step, span, mean, lower, upper, weights, flag, seq}; t and span (to the next at most) in milliseconds. */
const page = { series: null, points: [], detail: null, source: null, heard: 0, drawn: 0, weighed: 0, every: 1, past: null, match: "", retry: 0 };

// ---- Words for numbers -------------------------------------------------------------------------------------------------------

function number(x, digits = 4) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return x.toExponential(2).replace("-", "−").replace("e+", "e");
  const whole = size >= 1 ? Math.floor(Math.log10(size)) + 1 : 1;
  return x.toFixed(Math.max(0, Math.min(6, digits - whole))).replace("-", "−");
}

function count(x) {
  if (x === null || x === undefined) return "–";
  if (x >= 1e9) return (x / 1e9).toFixed(2) + " G";
  if (x >= 1e7) return (x / 1e6).toFixed(1) + " M";
  return Math.round(x).toLocaleString("en").replaceAll(",", "\u202f");
}

function rate(x) {
  if (x === null || x === undefined) return "–";
  return x < 10 ? x.toFixed(1) : count(x);
}

function seconds(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"]]) {
    if (x >= size) return `${+(x / size).toPrecision(3)} ${unit}`;
  }
  return `${+(x * 1e6).toPrecision(3)} µs`;
}

const percent = (x) => (x === null || x === undefined ? "–" : (100 * x).toFixed(1) + " %");
const signed = (x) => (x > 0 ? "+" : "") + number(x, 3);

function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

// ---- The daemon --------------------------------------------------------------------------------------------------------------

function overview(board) {
  page.heard = Date.now();
  const some = board.series > 0;
  byId("empty").hidden = some || board.time === null;
  byId("body").hidden = !some;
  put("rate", rate(board.samples_per_s));
  put("total", board.samples === undefined ? "\u00a0" : `${count(board.samples)} in all`);
  put("count", count(board.series));
  const hidden = board.series - board.shown;
  put("warming", [!some ? "none yet" : board.warming ? `${count(board.warming)} warming up` : "all ready", hidden > 0 ? `${count(hidden)} not shown` : ""].filter(Boolean).join(", "));
  const refusals = Object.entries(board.refused || {}).sort((a, b) => b[1] - a[1]);
  put("refused", count(refusals.reduce((sum, [, n]) => sum + n, 0)));
  const gaps = board.gaps ? [`${count(board.gaps)} lost on the way`] : [];
  put("reasons", [...refusals.map(([reason, n]) => `${count(n)} ${reason.replaceAll("_", " ")}`), ...gaps].join(", ") || "none lost on the way");
  byId("reasons").title = byId("reasons").textContent;
  put("median", seconds(board.duration_p50_s));
  put("tail", board.duration_p99_s === null ? "\u00a0" : `99 % within ${seconds(board.duration_p99_s)}`);
  put("version", `forecastd ${board.version}`);
  models(board.models || [], board.events || [], board.time);
  if (some && page.series === null) list();
  link();
}

const ROLES = { champion: "serves", predecessor: "watches", challenger: "on trial" };

function models(found, events, now) {
  byId("models-card").hidden = !found.length;
  table("models", found.map((each) => {
    const judged = each.rounds > 0;
    return [
      each.name, String(each.version || "–"), [ROLES[each.status] || each.status, each.status === "champion" ? "good" : "quiet"],
      judged ? `${signed(-100 * each.gain)} %` : "–", judged ? number(each.evidence, 3) : "–", judged ? count(each.samples) : "–",
    ];
  }));
  table("decisions", events.length ? events.slice(-8).reverse().map((each) => [decision(each), about(each), `${seconds(Math.max(0, now - each.time))} ago`]) : [[["none yet", "quiet"], "", ""]]);
}

function decision(event) {
  const what = event.event.replaceAll("_", " ");
  return event.outcome ? `${what}: ${event.outcome.replaceAll("_", " ")}` : what;
}

function about(event) {
  if (event.series !== undefined) return event.series;
  if (event.number !== undefined) return `version ${event.number}, was ${event.before}${event.cause ? `, ${event.cause.replaceAll("_", " ")}` : ""}`;
  return event.name || "";
}

function link() {
  const state = page.heard === 0 ? "waiting" : Date.now() - page.heard < LOST_MS ? "live" : "lost";
  const element = byId("link");
  element.dataset.state = state;
  put("link", { waiting: "connecting", live: "live", lost: "the daemon is silent; trying again" }[state]);
}

// ---- The list of series ------------------------------------------------------------------------------------------------------

async function list() {
  const query = new URLSearchParams({ match: page.match, limit: LISTED_MAX });
  let answer;
  try {
    answer = await (await fetch(`api/v1/series?${query}`)).json();
  } catch {
    return; // the stream says when the daemon is gone
  }
  if (query.get("match") !== page.match) return;
  byId("search").hidden = answer.total < SEARCH_FROM && !page.match;
  const rows = byId("list");
  const old = new Map([...rows.children].map((row) => [row.dataset.series, row]));
  answer.series.forEach((each, at) => {
    const row = old.get(each.series) || item(each.series);
    old.delete(each.series);
    fill(row, each);
    if (rows.children[at] !== row) rows.insertBefore(row, rows.children[at] || null);
  });
  old.forEach((row) => row.remove());
  const more = answer.matching - answer.series.length;
  put("more", more > 0 ? `and ${count(more)} more; a search narrows them` : answer.matching === 0 && page.match ? "no series shown has that in its name; Enter opens one by its whole name" : "");
  if (page.series === null && answer.series.length) choose(wanted(answer.series));
}

function item(name) {
  const row = document.createElement("li");
  row.dataset.series = name;
  const button = row.appendChild(document.createElement("button"));
  button.type = "button";
  button.title = name;
  button.appendChild(document.createElement("span")).className = "who";
  button.appendChild(document.createElement("span")).className = "what";
  button.firstChild.textContent = name;
  button.addEventListener("click", () => choose(name));
  return row;
}

function fill(row, each) {
  const [, what] = row.firstChild.children;
  const text = each.status === "warming" ? "warming" : number(each.value, 4);
  if (what.textContent !== text) what.textContent = text;
  what.dataset.flag = each.flag;
  row.firstChild.setAttribute("aria-current", String(each.series === page.series));
}

function wanted(series) {
  const asked = new URLSearchParams(location.hash.slice(1)).get("series");
  return asked !== null && asked !== "" ? asked : series[0].series;
}

// ---- The stream --------------------------------------------------------------------------------------------------------------

function choose(name) {
  if (name === page.series) return;
  page.series = name;
  page.points = [];
  page.past = page.detail = null;
  history.replaceState(null, "", `#${new URLSearchParams({ series: name })}`);
  put("name", name);
  byId("name").title = name;
  document.title = `${name} – forecastd`;
  for (const row of byId("list").children) row.firstChild.setAttribute("aria-current", String(row.dataset.series === name));
  describe(null);
  draw(true);
  listen();
}

function listen() {
  clearTimeout(page.retry);
  if (page.source) page.source.close();
  const query = new URLSearchParams({ board: 1 });
  if (page.series !== null) query.set("series", page.series);
  const source = new EventSource(`api/v1/stream?${query}`);
  page.source = source;
  let first = true;
  source.onopen = () => {
    if (!first) page.points = []; // the history comes again
    first = false;
  };
  source.onmessage = (event) => point(JSON.parse(event.data));
  source.addEventListener("overview", (event) => overview(JSON.parse(event.data)));
  source.addEventListener("series", (event) => describe(JSON.parse(event.data)));
  source.addEventListener("recent", (event) => recent(JSON.parse(event.data)));
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) page.retry = setTimeout(listen, 3000); // refused: it would not try again by itself
  };
}

/** The past as the daemon kept it, a point a second at most. It is used when the step is known: with the first forecast, or the figures. */
function recent(past) {
  if (past.series !== page.series) return;
  const gaps = past.time.slice(1).map((time, i) => 1000 * (time - past.time[i])).sort((a, b) => a - b);
  const spacing = gaps[gaps.length >> 1] || 0;
  const points = past.time.map((time, i) => ({
    t: 1000 * time, v: past.value[i], step: null, span: 4.5 * spacing, flag: false, seq: null,
    mean: past.mean[i] === null ? null : [past.mean[i]], lower: [past.lower[i]], upper: [past.upper[i]],
    weights: Object.fromEntries(Object.entries(past.weights).map(([name, column]) => [name, column[i]])),
  }));
  page.past = { points, spacing };
}

/** Put the kept past before the first live point, unless it is much coarser than what comes now. */
function adopt(step) {
  if (!page.past || !step) return;
  const { points, spacing } = page.past;
  page.past = null;
  if (spacing > COARSE_MAX * 1000 * step) return;
  const first = page.points.length ? page.points[0].t : Infinity;
  page.points = [...points.filter((p) => p.t < first).map((p) => ({ ...p, step })), ...page.points];
  draw(false);
}

function point(message) {
  if (message.series !== page.series) return;
  // Of a fast series every n-th point, so that the curve spans a time an eye can follow.
  page.every = message.step ? Math.max(1, Math.ceil(SPACING_S / message.step)) : 1;
  const odd = Boolean(message.anomaly && message.anomaly.flag);
  if (message.seq % page.every && !odd) return;
  page.points.push({
    t: 1000 * message.time, v: message.value, step: message.step, span: message.step ? 4500 * message.step * page.every : Infinity,
    flag: odd, seq: message.seq, mean: message.mean || null, lower: message.lower, upper: message.upper, weights: message.weights || null,
  });
  if (page.points.length === 1) adopt(message.step);
  if (page.points.length > POINTS_MAX) page.points.splice(0, page.points.length - POINTS_MAX);
  status(message.status, message.seq);
  put("value", number(message.value));
  if (message.mean) {
    put("next", number(message.mean[0]));
    put("interval", `${number(message.lower[0])} … ${number(message.upper[0])}`);
  }
  draw(false);
}

// ---- What is known of the series ---------------------------------------------------------------------------------------------

function status(word, samples) {
  const pill = byId("status");
  pill.dataset.status = word || "";
  put("status", word === "warming" ? `warming up, ${count(samples)} samples so far` : word || "");
}

function describe(detail) {
  if (detail !== null && detail.series !== page.series) return;
  page.detail = detail;
  if (detail !== null && page.past) setTimeout(() => adopt(detail.step), 300); // the history of the stream, if any, comes first
  const known = detail || {};
  if (detail === null || !page.points.length) status(known.status, known.samples);
  if (!page.points.length) {
    put("value", number(known.value));
    put("next", detail ? number(detail.forecast[0]) : "–");
    put("interval", "–");
  }
  put("skill", detail ? signed(detail.skill.blend[0]) : "–");
  put("anomalies", detail ? count(detail.anomaly.total) : "–");
  put("step", seconds(known.step));
  put("season", known.season ? `${count(known.season)} samples` : "none");
  put("model", known.model === undefined || known.model === null ? "–" : `version ${count(known.model)}`);
  errors(detail);
  coverage(detail);
  experts(detail);
}

/** Rows of cells into a table body, in place so that nothing jumps. A cell is text or [text, class] or a node. */
function table(id, rows) {
  const body = byId(id);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] || body.insertRow();
    cells.forEach((cell, i) => {
      const place = row.cells[i] || row.insertCell();
      const [content, kind] = Array.isArray(cell) ? cell : [cell, ""];
      if (place.className !== kind) place.className = kind;
      if (content instanceof Node) place.replaceChildren(content);
      else if (place.textContent !== content) place.textContent = content;
    });
  });
}

/** The published level; the JSON of a series has its levels in the order of the configuration, but JavaScript sorts what looks like a number. */
const main = (detail) => String(detail.level);
const judged = (skill) => [signed(skill), Math.abs(skill) < 0.005 ? "quiet" : skill > 0 ? "good" : "poor"];

function errors(detail) {
  const steps = detail ? detail.horizon : 1;
  put("inside", detail ? `In ${percent(+main(detail)).replace(".0", "")}` : "Inside");
  const at = (key, source, i) => number(detail && detail[key][source] ? detail[key][source][i] : null);
  table("errors", Array.from({ length: steps }, (_, i) => [
    detail && detail.step ? `${i + 1} (${seconds(detail.step * (i + 1))})` : `${i + 1}`,
    at("mae", "blend", i), [at("mae", "naive", i), "quiet"],
    at("rmse", "blend", i), [at("rmse", "naive", i), "quiet"],
    detail ? judged(detail.skill.blend[i]) : "–",
    detail && detail.bias.blend[i] !== null ? signed(detail.bias.blend[i]) : "–",
    detail ? percent(detail.coverage[main(detail)][i]) : "–",
  ]));
}

function coverage(detail) {
  const levels = detail ? Object.keys(detail.coverage).sort((a, b) => a - b) : [];
  table("coverage", levels.map((level) => {
    const share = detail.coverage[level][0];
    return [percent(+level).replace(".0", ""), [bar(share, +level), "bar"], percent(share), number(detail.width[level][0])];
  }));
}

function bar(share, level) {
  const track = document.createElement("div");
  track.className = "track";
  const inside = track.appendChild(document.createElement("div"));
  inside.className = "fill";
  inside.style.width = `${100 * (share || 0)}%`;
  const mark = track.appendChild(document.createElement("div"));
  mark.className = "mark";
  mark.style.left = `${100 * level}%`;
  return track;
}

function experts(detail) {
  const names = detail ? Object.keys(detail.weights) : [];
  table("experts", names.map((name, i) => {
    const label = document.createElement("span");
    const swatch = label.appendChild(document.createElement("span"));
    swatch.className = "swatch";
    swatch.style.background = colour(i);
    label.append(name);
    return [label, percent(detail.weights[name][0]), number(detail.mae[name][0]), number(detail.rmse[name][0]), judged(detail.skill[name][0])];
  }));
}

// ---- The charts --------------------------------------------------------------------------------------------------------------

const PALETTE = ["#98a2b1", "#e0a43a", "#3fa58c", "#4f8fd9", "#8a63c9", "#d9688f", "#6aa84f", "#b07a4f"];
const colour = (i) => PALETTE[i % PALETTE.length];
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };

function layout(title, place) {
  const css = style();
  const ink = css.getPropertyValue("--soft").trim();
  const grid = css.getPropertyValue("--grid").trim();
  const axis = { gridcolor: grid, linecolor: grid, zeroline: false, tickcolor: grid, fixedrange: true };
  return {
    height: place.clientHeight, margin: { l: 62, r: 12, t: 30, b: 52 }, dragmode: false, hovermode: "x unified", showlegend: true,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css.fontFamily, size: 12, color: ink },
    hoverlabel: { bgcolor: css.getPropertyValue("--card").trim(), bordercolor: css.getPropertyValue("--line").trim(), font: { color: css.color, size: 12 } },
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
    xaxis: { ...axis, type: "date", showticklabels: page.points.length > 0, title: { text: "local time", standoff: 4 }, tickangle: 0, nticks: Math.max(3, Math.min(8, Math.round(place.clientWidth / 120))) },
    yaxis: { ...axis, title: { text: title, standoff: 8 }, nticks: 7 },
  };
}

const when = (t) => new Date(t - new Date(t).getTimezoneOffset() * 60000).toISOString().slice(0, -1);

/** Points in pieces without a hole: a message lost, or a pause of more than a few steps, ends one. */
function pieces(points) {
  const found = [];
  points.forEach((p, i) => {
    const before = points[i - 1];
    const near = before && p.t - before.t < Math.max(p.span, before.span);
    const next = before && (p.seq === null || before.seq === null || (p.seq > before.seq && p.seq <= before.seq + page.every));
    if (near && next) found[found.length - 1].push(p);
    else found.push([p]);
  });
  return found;
}

/** Forecasts as [time, mean, lower, upper]: of each point the one for the next, of the last the whole path. */
function path(piece, last) {
  const made = piece.filter((p) => p.mean && p.step).map((p) => [p.t + 1000 * p.step, p.mean[0], p.lower[0], p.upper[0]]);
  if (last && last.mean && last.step) for (let k = 1; k < last.mean.length; k++) made.push([last.t + 1000 * last.step * (k + 1), last.mean[k], last.lower[k], last.upper[k]]);
  return made;
}

/** The range of values to show where a few far-off ones would flatten all the rest; null where all may be shown. */
function reach(points) {
  const all = points.flatMap((p) => [p.v, ...(p.mean ? [p.lower[0], p.upper[0]] : [])]).filter(Number.isFinite).sort((a, b) => a - b);
  if (all.length < 60) return null;
  const [low, high] = [all[Math.floor(0.03 * all.length)], all[Math.ceil(0.97 * all.length) - 1]];
  const span = high - low;
  return span > 0 && all[all.length - 1] - all[0] > 3 * span ? [low - 0.6 * span, high + 0.6 * span] : null;
}

function curves() {
  const css = style();
  const pick = (name) => css.getPropertyValue(name).trim();
  const found = pieces(page.points);
  const value = { x: [], y: [] };
  const mean = { x: [], y: [], customdata: [] };
  const band = { x: [], y: [] };
  found.forEach((piece, i) => {
    const forecasts = path(piece, i === found.length - 1 ? piece[piece.length - 1] : null);
    for (const p of piece) value.x.push(when(p.t)), value.y.push(p.v);
    for (const [t, m, lo, hi] of forecasts) mean.x.push(when(t)), mean.y.push(m), mean.customdata.push(`${number(lo)} … ${number(hi)}`);
    for (const [t, , , hi] of forecasts) band.x.push(when(t)), band.y.push(hi);
    for (const [t, , lo] of [...forecasts].reverse()) band.x.push(when(t)), band.y.push(lo);
    for (const each of [value, mean, band]) each.x.push(null), each.y.push(null);
    mean.customdata.push(null);
  });
  const odd = page.points.filter((p) => p.flag);
  const [low, high] = reach(page.points) || [-Infinity, Infinity];
  const level = page.detail ? page.detail.level : null;
  return [
    { ...band, type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: pick("--band"), hoverinfo: "skip", name: level ? `${+(100 * level).toFixed(2)} % interval` : "interval" },
    { ...mean, type: "scatter", mode: "lines", line: { width: 1.8, dash: "4px,3px", color: pick("--accent") }, name: "forecast", hovertemplate: "%{y:.5~g} (%{customdata})" },
    { ...value, type: "scatter", mode: "lines", line: { width: 1.8, color: pick("--value") }, name: "value", hovertemplate: "%{y:.5~g}" },
    {
      x: odd.map((p) => when(p.t)), y: odd.map((p) => Math.min(high, Math.max(low, p.v))), customdata: odd.map((p) => number(p.v, 5)),
      type: "scatter", mode: "markers", name: "anomaly", hovertemplate: "%{customdata}", cliponaxis: false,
      marker: { size: 11, symbol: odd.map((p) => (p.v > high ? "triangle-up-open" : p.v < low ? "triangle-down-open" : "circle-open")), line: { width: 2 }, color: pick("--alarm") },
    },
  ];
}

function weighing() {
  const points = page.points.filter((p) => p.weights);
  const names = page.detail ? Object.keys(page.detail.weights) : [...new Set(points.flatMap((p) => Object.keys(p.weights)))];
  const x = points.map((p) => when(p.t));
  return names.map((name, i) => ({
    x, y: points.map((p) => p.weights[name] || 0), type: "scatter", mode: "lines", stackgroup: "all", name,
    line: { width: 0.6, color: colour(i) }, fillcolor: colour(i) + "b0", hovertemplate: "%{y:.0%}",
  }));
}

/** Draw soon: as often as an eye follows, and not at all while nobody looks. */
function draw(now) {
  if (!window.Plotly || document.hidden) return;
  const wait = now ? 0 : Math.max(0, page.drawn + DRAW_MS - Date.now());
  if (page.pending && !now) return;
  page.pending = true;
  setTimeout(() => requestAnimationFrame(paint), wait);
}

function paint() {
  page.pending = false;
  page.drawn = Date.now();
  if (byId("body").hidden) return;
  const chart = byId("chart");
  const plan = layout("value (unit of the series)", chart);
  const range = reach(page.points);
  if (range) plan.yaxis.range = range;
  Plotly.react(chart, curves(), plan, CONFIG);
  if (page.drawn - page.weighed > WEIGHTS_MS || !page.points.length) {
    page.weighed = page.points.length ? page.drawn : 0;
    const weights = byId("weights");
    const plan = layout("weight", weights);
    plan.showlegend = false;
    plan.margin.t = 8;
    plan.yaxis.range = [0, 1];
    plan.yaxis.tickformat = ".0%";
    Plotly.react(weights, weighing(), plan, CONFIG);
  }
}

// ---- Start -------------------------------------------------------------------------------------------------------------------

let typing = 0;
byId("search").addEventListener("input", (event) => {
  page.match = event.target.value;
  clearTimeout(typing);
  typing = setTimeout(list, 150);
});
byId("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !page.match) return;
  const listed = [...byId("list").children].map((row) => row.dataset.series);
  choose(listed.length && !listed.includes(page.match) ? listed[0] : page.match); // not listed: beyond the cap, yet on the feed
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { page.weighed = 0; draw(true); });
document.addEventListener("visibilitychange", () => draw(true));
addEventListener("hashchange", () => {
  const asked = new URLSearchParams(location.hash.slice(1)).get("series");
  if (asked) choose(asked);
});
setInterval(() => { if (!document.hidden && page.series !== null) list(); }, LIST_MS);
setInterval(link, 1000);
addEventListener("load", () => draw(true)); // Plotly is large and comes last; the figures do not wait for it
listen();
