// Draws the lab, and redraws what has changed once a second.
//
// The structure (lanes, cards) is built anew only when ports come, go or move; otherwise texts are replaced. Names come
// from guests and configuration: they become text nodes, never markup. Rates are the difference of two states, by the
// switch's own clock.
"use strict";

const EVERY = 1000;
const PATIENCE = 8000;
const HISTORY = 90;
const MOST_EVENTS = 200;
const MOST_RAILS = 10;
const COLOURS = 8;
const DENSE = 40;

const at = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

let state = null;
let selected = null;
let shape = "";
let lastEvent = 0;
// By port: its card, its last rates, and the history of its frames in and out.
const cards = new Map();
const rates = new Map();
const history = new Map();
let mirrorRates = new Map();

// An element with properties and children; strings become text.
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "class") element.className = value;
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Replaces the children of an element if `what` is not what they were made of.
function fill(element, what, children) {
  const key = JSON.stringify(what);
  if (element.madeOf === key) return;
  element.madeOf = key;
  element.replaceChildren(...children());
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A rate in at most five characters, as `labsw-ctl top` has them.
function short(rate) {
  if (!(rate > 0)) return "0";
  for (const unit of ["", "k", "M", "G", "T"]) {
    const digits = unit === "" ? (rate < 9.95 ? 1 : 0) : rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0;
    if (rate < 999.5) return rate.toFixed(digits) + unit;
    rate /= 1000;
  }
  return ">999T";
}

// A number of bits per second, as in 9.87 Gbit/s.
const bits = (rate) => short(rate).replace(/([kMGT]?)$/, " $1bit/s");
// A number of frames, short where it is large.
const frames = (number) => (number < 10000 ? count.format(number) : short(number));
const plural = (number, word) => `${count.format(number)} ${word}${number === 1 ? "" : "s"}`;

function duration(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min` : `${seconds} s`;
}

const allPorts = (of) => [...of.trunks, ...of.lanes.flatMap((lane) => lane.ports), ...of.mirror_only, ...of.sensors];

// The rates of all ports and mirrors between two states.
function compare(before, now) {
  const seconds = before ? (now.uptime_milliseconds - before.uptime_milliseconds) / 1000 : 0;
  if (before && seconds === 0) return;
  if (seconds < 0) {
    rates.clear();
    history.clear();
    mirrorRates.clear();
  }
  if (!(seconds > 0)) return;
  const earlier = new Map(allPorts(before).map((port) => [port.name, port]));
  const names = new Set();
  for (const port of allPorts(now)) {
    names.add(port.name);
    const old = earlier.get(port.name);
    const rate = (name) => (old ? Math.max(0, port[name] - old[name]) / seconds : 0);
    const of = {
      rxFrames: rate("rx_frames"), rxBits: 8 * rate("rx_bytes"),
      txFrames: rate("tx_frames"), txBits: 8 * rate("tx_bytes"), dropped: rate("dropped"),
    };
    rates.set(port.name, of);
    const past = history.get(port.name) ?? [];
    past.push([of.rxFrames, of.txFrames]);
    if (past.length > HISTORY) past.shift();
    history.set(port.name, past);
  }
  for (const name of [...rates.keys()].filter((name) => !names.has(name))) {
    rates.delete(name);
    history.delete(name);
  }
  const oldMirrors = new Map(before.mirrors.map((mirror) => [mirror.name, mirror]));
  mirrorRates = new Map(now.mirrors.map((mirror) => {
    const old = oldMirrors.get(mirror.name);
    const rate = (name) => (old ? Math.max(0, mirror[name] - old[name]) / seconds : 0);
    return [mirror.name, { sent: rate("sent"), dropped: rate("dropped") }];
  }));
}

// The two lines of a spark: frames in and out, as long as the history.
function spark() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const way of ["out", "in"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", way);
    svg.append(path);
  }
  return svg;
}

function drawSpark(svg, past) {
  const most = Math.max(1, ...past.flat());
  for (const [number, path] of [...svg.children].entries()) {
    const of = past.map((point) => point[1 - number]);
    const points = of.map((value, x) => `${HISTORY - of.length + x} ${(19 - (18 * value) / most).toFixed(1)}`);
    path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  }
}

function card(port) {
  const parts = {
    name: make("span", { class: "name" }), who: make("span", { class: "who" }), macs: make("span", { class: "macs" }),
    in: make("b"), out: make("b"), drop: make("span", { class: "drop" }), marks: make("span", { class: "marks" }),
    spark: spark(),
  };
  const line = make("span", { class: "rates" }, make("span", { class: "dim" }, "in ", parts.in),
    make("span", { class: "dim" }, "out ", parts.out), parts.drop);
  const root = make("button", { class: "card", type: "button", "data-port": port.name,
    onclick: () => select(port.name === selected ? null : port.name) },
    parts.name, parts.who, parts.macs, line, parts.spark, parts.marks);
  cards.set(port.name, { root, parts });
  return root;
}

function stations(port) {
  const first = port.addresses[0];
  if (!first) return port.stations > 0 ? plural(port.stations, "station") : "";
  return port.stations > 1 ? `${first.mac} and ${port.stations - 1} more` : first.mac;
}

function who(port) {
  if (port.state !== "up") return `${port.type}, ${port.state}${port.reason ? `: ${port.reason}` : ""}`;
  return port.plugged ? `${port.type} · ${port.plugged}` : port.type;
}

function update(port, isTrunk) {
  const { root, parts } = cards.get(port.name);
  const rate = rates.get(port.name);
  root.dataset.state = port.state;
  root.setAttribute("aria-pressed", port.name === selected);
  write(parts.name, port.name);
  write(parts.who, isTrunk ? `${who(port)} · ${port.vlan}` : who(port));
  root.title = `${port.name}: ${who(port)}, ${port.vlan}`;
  write(parts.macs, stations(port));
  write(parts.in, rate ? `${short(rate.rxFrames)}/s` : "–");
  write(parts.out, rate ? `${short(rate.txFrames)}/s` : "–");
  const now = rate && rate.dropped > 0 ? `${short(rate.dropped)}/s dropped` : "";
  write(parts.drop, now || (port.dropped > 0 ? `${frames(port.dropped)} dropped` : ""));
  parts.drop.className = now ? "drop" : "dim";
  fill(parts.marks, port.marks, () => port.marks.map((mark) => {
    const light = (on) => () => lightUp(mark, on);
    return make("span", { class: `mark ${mark.kind}`, title: mark.text, onpointerenter: light(true), onpointerleave: light(false) },
      sign(mark));
  }));
  drawSpark(parts.spark, history.get(port.name) ?? []);
}

const SIGNS = { mirrored: "◉ ", mirror_to: "← ", inline: "⇄ ", sensor: "⇄ ", impaired: "≈ " };
const sign = (mark) => (SIGNS[mark.kind] ?? "") + mark.name;

// The marks of one mirror, or of one sensor, at several ports.
const GROUPS = { mirrored: "mirror", mirror_to: "mirror", inline: "sensor", sensor: "sensor" };

// Marks the ports that have to do with the same mirror or sensor.
function lightUp({ kind, name }, on) {
  if (!GROUPS[kind]) return;
  for (const port of allPorts(state)) {
    const has = port.marks.some((mark) => GROUPS[mark.kind] === GROUPS[kind] && mark.name === name);
    cards.get(port.name)?.root.classList.toggle("lit", on && has);
  }
}

// A part of the lab with the rails that pass, begin or stop there.
function part(properties, rails, ...children) {
  const drawn = rails.flatMap(({ at, begins, ends, elbow, stop }) => [
    make("i", { class: `rail${begins ? " begins" : ""}${ends ? " ends" : ""}`, "--at": at }),
    elbow ? make("i", { class: "elbow", "--at": at }) : null,
    stop ? make("i", { class: `stop ${stop}`, "--at": at, title: stop }) : null,
  ]);
  return make("section", properties, ...drawn, ...children);
}

function bus(title, ports) {
  return make("div", { class: "bus" }, make("h2", null, title), make("span", { class: "dim" }, plural(ports.length, "port")));
}

// Builds the structure anew.
function build() {
  cards.clear();
  const lab = at("lab");
  const { trunks, lanes } = state;
  const railed = trunks.length > 0 && trunks.length <= MOST_RAILS;
  const last = trunks.map((trunk) => lanes.findLastIndex((lane) => lane.trunks.some((member) => member.port === trunk.name)));
  lab.className = `${railed ? "railed" : ""} ${allPorts(state).length > DENSE ? "dense" : ""}`;
  lab.style.setProperty("--rails", railed ? trunks.length : 0);
  const parts = [];
  if (railed) {
    trunks.forEach((trunk, row) => {
      const rails = trunks.slice(0, row + 1).map((_, number) => ({ at: number, begins: number === row, elbow: number === row }));
      parts.push(part({ class: "part trunk" }, rails.filter(({ at }) => last[at] >= 0), card(trunk)));
    });
  } else if (trunks.length > 0) {
    parts.push(make("section", { class: "part" }, bus("Trunks", trunks), make("div", { class: "cards" }, ...trunks.map(card))));
  }
  lanes.forEach((lane, number) => {
    const member = (trunk) => lane.trunks.find((member) => member.port === trunk.name);
    const rails = railed ? trunks.map((trunk, index) => ({ at: index, ends: last[index] === number,
      stop: member(trunk) ? (member(trunk).tagged ? "tagged" : "untagged") : null })) : [];
    const carried = rails.filter(({ stop }) => stop);
    const properties = { class: `part vlan${number % COLOURS}${carried.length ? " carried" : ""}`, "--from": carried[0]?.at ?? 0 };
    parts.push(part(properties, rails.filter(({ at }) => last[at] >= number), bus(`VLAN ${lane.vlan}`, lane.ports),
      make("div", { class: "cards" }, ...lane.ports.map(card))));
  });
  for (const [title, ports] of [["Mirrors only", state.mirror_only], ["Sensors in wires", state.sensors]]) {
    if (ports.length > 0) {
      parts.push(make("section", { class: "part" }, bus(title, ports), make("div", { class: "cards" }, ...ports.map(card))));
    }
  }
  parts.push(make("section", { class: "part", id: "mirrors" }), make("section", { class: "part", id: "inlines" }));
  if (railed && lanes.some((lane) => lane.trunks.length > 0)) {
    parts.push(make("p", { class: "part legend" }, make("i"), "tagged", make("i", { class: "untagged" }), "untagged"));
  }
  lab.replaceChildren(...parts);
}

function drawMirrors() {
  fill(at("mirrors"), [state.mirrors, [...mirrorRates]], () => state.mirrors.length === 0 ? [] : [
    make("div", { class: "bus" }, make("h2", null, "Mirrors"), make("span", { class: "dim" }, plural(state.mirrors.length, "mirror"))),
    make("ul", { class: "mirrors" }, ...state.mirrors.map((mirror) => {
      const rate = mirrorRates.get(mirror.name);
      const remote = mirror.to_remote;
      const port = mirror.to ?? (mirror.to_vlan === null ? "–" : `VLAN ${mirror.to_vlan}`);
      const to = remote ? `${remote.kind} ${remote.id} to ${remote.destination} by ${port}` : port;
      const route = `${mirror.sources.join(", ")} → ${to}${mirror.filter ? `, ${mirror.filter}` : ""}`;
      return make("li", { title: mirror.reason ?? mirror.warning ?? "" }, make("b", { class: "state", "data-state": mirror.state }, mirror.name),
        make("span", { class: "route" }, mirror.state === "up" ? route : `${route}: ${mirror.reason ?? mirror.state}`),
        make("span", { class: "number" }, rate ? `${short(rate.sent)}/s` : "–"),
        mirror.dropped > 0 ? make("span", { class: "number drop" }, `${count.format(mirror.dropped)} dropped`) : null);
    })),
  ]);
}

function drawInlines() {
  fill(at("inlines"), state.inlines, () => state.inlines.length === 0 ? [] : [
    make("div", { class: "bus" }, make("h2", null, "Inline"), make("span", { class: "dim" }, plural(state.inlines.length, "sensor"))),
    make("ul", { class: "mirrors" }, ...state.inlines.map((inline) => {
      const route = `${inline.of} ⇄ ${inline.through.join(" ⇄ ")}, ${inline.state}`;
      return make("li", { title: inline.reason ?? "" }, make("b", { class: "state", "data-state": inline.state }, inline.name),
        make("span", { class: "route" }, inline.reason ? `${route}: ${inline.reason}` : route));
    })),
  ]);
}

function drawSums() {
  const ports = allPorts(state);
  const sum = (name) => ports.reduce((total, port) => total + (rates.get(port.name)?.[name] ?? 0), 0);
  const up = ports.filter((port) => port.state === "up").length;
  write(at("version"), `${state.version}, up ${duration(state.uptime_milliseconds)}`);
  const known = rates.size > 0;
  const pairs = [
    ["ports up", `${up} of ${ports.length}`],
    ["in", known ? `${short(sum("rxFrames"))}/s, ${bits(sum("rxBits"))}` : "–"],
    ["out", known ? `${short(sum("txFrames"))}/s, ${bits(sum("txBits"))}` : "–"],
    ["dropped", known ? `${short(sum("dropped"))}/s` : "–"],
  ];
  fill(at("sums"), pairs, () => pairs.map(([name, value]) => make("div", null, make("dt", null, name), make("dd", null, value))));
  fill(at("workers"), state.workers, () => state.workers.length === 0 ? [] : [make("span", null, "workers"), ...state.workers.map((worker) =>
    make("i", { "--busy": Math.round(worker.busy_percent), title: `worker ${worker.id}${worker.cpu === null ? "" : ` on CPU ${worker.cpu}`}: ${Math.round(worker.busy_percent)} % busy` }))]);
}

// Shows a port beside the lab; null: none.
function select(name) {
  selected = name;
  const wanted = name === null ? "" : `#${encodeURIComponent(name)}`;
  if (location.hash !== wanted) window.history.replaceState(null, "", wanted || location.pathname);
  for (const [port, { root }] of cards) root.setAttribute("aria-pressed", port === selected);
  drawPort();
}

function copy(event) {
  const button = event.currentTarget;
  const hint = (text) => {
    button.dataset.hint = text;
    setTimeout(() => { button.dataset.hint = "copy"; }, 1500);
  };
  const mark = () => { getSelection().selectAllChildren(button); hint("selected"); };
  if (navigator.clipboard) navigator.clipboard.writeText(button.textContent).then(() => hint("copied"), mark);
  else mark();
}

const PARTS = ["top", "reason", "spark", "table", "drops", "marks", "macs", "commands", "facts"];

function drawPort() {
  const panel = at("port");
  const port = state && selected !== null ? allPorts(state).find((port) => port.name === selected) : null;
  panel.hidden = !port;
  if (!port) return;
  fill(panel, "parts", () => PARTS.map((name) => make("div", { class: `part-${name}` })));
  const [top, reason, chart, table, drops, marks, macs, commands, facts] = panel.children;
  fill(top, [port.name, port.type, port.state], () => [make("div", { class: "top" }, make("h2", null, port.name),
    make("span", { class: "state", "data-state": port.state }, `${port.type}, ${port.state}`),
    make("button", { class: "close", type: "button", "aria-label": "Close", onclick: () => select(null) }, "×"))]);
  const plugged = [port.reason, port.plugged, port.vlan].filter((text) => text);
  fill(reason, plugged, () => plugged.map((text) => make("p", { class: "reason" }, text)));
  const past = history.get(port.name) ?? [];
  fill(chart, port.name, () => [spark(), make("p", { class: "caption" }, make("b", null, "in"), make("b", { class: "out" }, "out"), make("span"))]);
  drawSpark(chart.firstChild, past);
  write(chart.lastChild.lastChild, past.length > 0 ? `most: ${short(Math.max(...past.flat()))} frames/s` : "");
  drawCounters(table, port);
  list(drops, "Dropped", Object.entries(port.drops).map(([name, number]) => [name, count.format(number)]));
  list(marks, "Marks", port.marks.map((mark) => [sign(mark), mark.text]));
  const shown = port.addresses.map((address) => [address.mac, `VLAN ${address.vlan}, ${address.static ? "static" : `${address.age_seconds} s ago`}`]);
  const rest = port.stations - port.addresses.length;
  list(macs, "Stations", rest > 0 ? [...shown, ["", `${plural(rest, "more station")}`]] : shown);
  fill(commands, port.commands, () => [make("h3", null, "Commands"),
    ...port.commands.map((command) => make("button", { class: "command", type: "button", "data-hint": "copy", onclick: copy },
      ...command.split(" ").flatMap((word, number) => [number === 0 ? "" : " ", make("span", null, word)])))]);
  list(facts, "Settings", port.facts.filter(([name]) => name !== "vlan" && name !== "stations"));
}

function drawCounters(table, port) {
  const rate = rates.get(port.name);
  const rows = [
    ["in", port.rx_frames, port.rx_bytes, rate?.rxFrames, rate?.rxBits],
    ["out", port.tx_frames, port.tx_bytes, rate?.txFrames, rate?.txBits],
    ["dropped", port.dropped, null, rate?.dropped, null],
  ];
  fill(table, rows, () => [make("table", null,
    make("tr", null, ...["", "frames", "bytes", "/s", "bit/s"].map((name) => make("th", null, name))),
    ...rows.map(([name, frames, bytes, perSecond, bits]) => make("tr", { class: name === "dropped" && frames > 0 ? "drop" : null },
      make("td", null, name), make("td", { "data-count": `${name}_frames` }, count.format(frames)),
      make("td", { "data-count": `${name}_bytes` }, bytes === null ? "" : count.format(bytes)),
      make("td", null, perSecond === undefined ? "–" : short(perSecond)),
      make("td", null, bits === null ? "" : bits === undefined ? "–" : short(bits)))))]);
}

function list(element, title, pairs) {
  fill(element, pairs, () => pairs.length === 0 ? [] : [make("h3", null, title),
    make("dl", { class: "pairs" }, ...pairs.flatMap(([name, text]) => [make("dt", null, name), make("dd", null, text)]))]);
}

function drawEvents(restarted) {
  const events = at("events");
  if (restarted) lastEvent = 0;
  const told = state.events.filter((event) => event.number > lastEvent);
  if (told.length === 0) return;
  const lost = lastEvent > 0 ? told[0].number - lastEvent - 1 : 0;
  if (lost > 0) events.prepend(make("li", null, make("time"), make("span", { class: "dim" }, `${plural(lost, "event")} more`)));
  for (const event of told) {
    const text = event.port && cards.has(event.port)
      ? make("button", { type: "button", onclick: () => select(event.port) }, event.text) : event.text;
    const time = new Date(event.time_milliseconds);
    events.prepend(make("li", { class: event.level }, make("time", { datetime: time.toISOString(), title: time.toLocaleString() },
      clock.format(time)), make("span", null, text)));
  }
  lastEvent = told.at(-1).number;
  while (events.childElementCount > MOST_EVENTS) events.lastElementChild.remove();
}

// Hides the ports that have none of the searched words.
function search() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter((word) => word);
  for (const port of state ? allPorts(state) : []) {
    const text = [port.name, port.type, port.state, port.reason, port.plugged, port.vlan,
      ...port.addresses.map((address) => address.mac), ...port.marks.map((mark) => `${mark.name} ${mark.text}`)];
    const own = text.join(" ").toLowerCase();
    cards.get(port.name).root.hidden = !words.every((word) => own.includes(word));
  }
  for (const section of at("lab").querySelectorAll(".part:not(.trunk)")) {
    const own = [...section.querySelectorAll(".card")];
    section.hidden = words.length > 0 && own.length > 0 && own.every((card) => card.hidden);
  }
}

function show(now) {
  const before = state;
  state = now;
  compare(before, now);
  const shapeNow = JSON.stringify([state.trunks.map((port) => port.name),
    state.lanes.map((lane) => [lane.vlan, lane.trunks, lane.ports.map((port) => port.name)]),
    state.mirror_only.map((port) => port.name), state.sensors.map((port) => port.name)]);
  if (shapeNow !== shape) build();
  shape = shapeNow;
  const trunks = new Set(state.trunks);
  for (const port of allPorts(state)) update(port, trunks.has(port));
  drawSums();
  drawMirrors();
  drawInlines();
  drawPort();
  drawEvents(before && now.uptime_milliseconds < before.uptime_milliseconds);
  search();
}

function health(kind, text) {
  at("health").className = kind;
  write(at("health"), text);
  document.body.classList.toggle("stale", kind === "trouble" && state !== null);
}

async function turn() {
  try {
    const answer = await fetch("/api/state", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
    show(await answer.json());
    health("live", "live");
  } catch (error) {
    health("trouble", error instanceof TypeError ? "labsw-ctl web does not answer" : error.message);
  }
  setTimeout(turn, document.hidden ? 5 * EVERY : EVERY);
}

function readHash() {
  let name = null;
  try {
    name = decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    name = null;
  }
  select(name);
}

at("search").addEventListener("input", search);
addEventListener("hashchange", readHash);
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== at("search")) {
    at("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape") {
    if (at("search").value) { at("search").value = ""; search(); } else select(null);
  }
});
// The right column begins below the header, which has more lines where it is narrow.
new ResizeObserver(([header]) => document.body.style.setProperty("--top", `${header.target.offsetHeight}px`))
  .observe(document.querySelector("header"));
readHash();
turn();
