// SPDX-License-Identifier: MIT
// Draws the report out of the document in this page. Whatever a program said is only ever set as text.
"use strict";

const doc = JSON.parse(document.getElementById("document").textContent);
const cells = doc.cells.map((c, i) => Object.assign(c, { i }));
const SIGNS = { ok: "\u2713", failed: "\u2717", broken: "!", unable: "\u25cb", skipped: "\u2013" };
const WORDS = { ok: "held", failed: "did not hold", broken: "nothing is known", unable: "the engine cannot", skipped: "not possible here" };
const byId = (id) => document.getElementById(id);
const list = (x) => (Array.isArray(x) ? x : []);
const uniq = (v) => Array.from(new Set(v));

// An element: h("p", { class: "x" }, "text", another)
function h(tag, attributes, ...children) {
	return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
	return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(e, attributes, children) {
	for (const [k, v] of Object.entries(attributes || {}))
		if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
		else if (v !== null && v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
	e.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
	return e;
}

function count(n, one, many) {
	return n.toLocaleString("en") + " " + (n === 1 ? one : many || one + "s");
}

function duration(ms) {
	if (ms < 1) return ms.toFixed(2) + " ms";
	if (ms < 1000) return (ms < 10 ? ms.toFixed(1) : Math.round(ms)) + " ms";
	if (ms < 60000) return (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + " s";
	return Math.floor(ms / 60000) + " min " + Math.round((ms % 60000) / 1000) + " s";
}

function bytes(n) {
	const units = ["B", "kB", "MB", "GB", "TB"];
	let u = 0;
	for (; n >= 1000 && u < 4; u++) n /= 1000;
	return (u ? n.toFixed(1) : n) + " " + units[u];
}

function badge(verdict) {
	return h("span", { class: "badge " + verdict }, SIGNS[verdict] + " " + (verdict === "ok" ? "ok" : verdict));
}

// A table out of rows of cells; a cell is text, a number or an element.
function table(heads, rows, classes) {
	const numeric = heads.map((_, k) => rows.length && rows.every((r) => typeof r[k] === "number" || r[k] === null || r[k] === ""));
	const one = (x, k) => h(k ? "td" : "th", { scope: k ? null : "row", class: numeric[k] ? "n" : null, "data-label": k ? heads[k] : null },
		typeof x === "number" ? x.toLocaleString("en") : x === null || x === undefined ? "-" : x);
	return h("div", { class: "scroll" }, h("table", { class: "list " + (classes || "") },
		h("thead", null, h("tr", null, heads.map((t, k) => h("th", { scope: "col", class: numeric[k] ? "n" : null }, t)))),
		h("tbody", null, rows.map((r) => h("tr", null, r.map(one))))));
}

/* --- head --- */

function drawHead() {
	const absent = Math.max(0, doc.planned - cells.length);
	const worst = doc.failed || doc.unable ? "failed" : doc.broken || absent ? "broken" : "ok";
	const parts = [], peers = cells.filter((c) => c.peer && c.verdict !== "ok" && c.verdict !== "skipped").length;
	if (doc.failed) parts.push(doc.failed.toLocaleString("en") + " did not hold");
	if (doc.broken) parts.push("nothing is known of " + doc.broken.toLocaleString("en"));
	if (doc.unable) parts.push(doc.unable.toLocaleString("en") + " beyond their engine");
	if (absent) parts.push(absent.toLocaleString("en") + " were not run");
	const title = byId("verdict");
	title.className = worst;
	title.textContent = SIGNS[worst] + " " + (parts.length
		? parts.join(", ") + ", " + doc.passed.toLocaleString("en") + " of " + count(doc.planned, "cell") + " held"
		: doc.passed === 1 ? "The one cell held" : (peers ? "" : "All ") + count(doc.passed, "cell") + " held") + (doc.skipped ? ", " + doc.skipped.toLocaleString("en") + " not possible here" : "") +
		(peers ? "; of peers' cells " + peers.toLocaleString("en") + " did not" : "");
	document.title = SIGNS[worst] + " " + doc.passed + "/" + doc.planned + " - telebed report";
	const share = byId("share");
	share.setAttribute("aria-label", title.textContent);
	for (const [name, n] of [["failed", doc.failed], ["unable", doc.unable], ["broken", doc.broken], ["absent", absent], ["skipped", doc.skipped], ["ok", doc.passed]])
		if (n) {
			const bar = h("span", { class: name });
			bar.style.flexGrow = n;
			share.append(bar);
		}
	const runs = list(doc.runs), first = runs[0] || {}, host = first.host || {};
	byId("facts").append(...[
		first.telefork && "telefork " + first.telefork,
		first.started && first.started.replace("T", " ").replace("Z", " UTC"),
		runs.length > 1 ? count(runs.length, "run") + " put together" : first.ms !== undefined && "took " + duration(first.ms),
		runs.every((r) => r.processor_ms) && "processors worked for " + duration(runs.reduce((n, r) => n + r.processor_ms, 0)),
		...runs.filter((r) => r.clones && r.clones.n).map((r) => count(r.clones.n, "guest") + " cloned, ready after " + duration(r.clones.median_ms) + ", a processor's work of " + duration(r.clones.processor_ms)),
		first.seed !== undefined && first.seed !== null && "seed " + first.seed,
		host.kernel && "Linux " + host.kernel + " " + (host.arch || ""),
		host.cpu,
	].filter(Boolean).map((t) => h("span", null, t)));
	byId("bail").textContent = runs.map((r) => r.bail).filter(Boolean).join("\n");
}

/* --- matrix --- */

const COLUMN = ["arch", "tier", "transport", "engine"];
const address = (c) => c.name + (c.repetition ? "@" + c.repetition : "");
const isBad = (c) => (c.verdict !== "ok" && c.verdict !== "skipped" && !c.peer);
const testKey = (c) => c.scenario + "/" + c.probe + "-" + c.build;
const rowKey = (c) => testKey(c) + " " + machinesOf(c);
const columnKey = (c) => COLUMN.map((k) => c[k]).join("\u0000");
const wanted = { words: [], verdicts: new Set() };
const buttons = []; // of cells, by number
let current = null; // the open cell
let opener = null; // where the focus goes when it closes

// The rows of machines that it is between, "x86_64 to x86_64-6.12", or nothing where architecture and tier say all.
function machinesOf(c) {
	const rest = c.name.startsWith(testKey(c) + ".") ? c.name.slice(testKey(c).length + 1) : "";
	if (rest.startsWith(c.arch + "." + c.tier)) return "";
	return rest.slice(0, Math.max(0, rest.lastIndexOf("." + c.transport))).replace("-to-", " to ");
}

function cellButton(c, levels) {
	const where = levels.map((k) => c[k]).join(" ");
	const b = h("button", {
		class: "cell " + c.verdict + (c.peer ? " peer" : ""), tabindex: "-1", type: "button", "data-cell": c.i,
		"aria-label": address(c) + ": " + WORDS[c.verdict] + ", " + duration(c.ms) + (c.peer ? ", a peer" : ""),
		title: address(c), onclick: () => open(c, true),
	}, h("b", { "aria-hidden": "true" }, SIGNS[c.verdict]), h("span", { class: "where" }, where), h("span", null, c.verdict === "skipped" ? "" : duration(c.ms)));
	buttons[c.i] = b;
	return b;
}

// The heads of the columns, a line for each property that is not the same everywhere.
function columnHeads(columns, levels) {
	const shown = levels.length ? levels : ["arch"];
	return shown.map((key, line) => {
		const row = h("tr", null, line ? null : h("th", { rowspan: shown.length, scope: "col" }, "scenario / probe"));
		for (let i = 0, span; i < columns.length; i += span) {
			const same = (k) => shown.slice(0, line + 1).every((p) => columns[i][p] === columns[k][p]);
			for (span = 1; i + span < columns.length && same(i + span); span++);
			row.append(h("th", { colspan: span, scope: "colgroup" }, columns[i][key]));
		}
		return row;
	});
}

function drawMatrix() {
	const columns = uniq(cells.map(columnKey)).sort().map((k) => {
		const v = k.split("\u0000");
		return Object.fromEntries(COLUMN.map((name, n) => [name, v[n]]).concat([["key", k]]));
	});
	const levels = COLUMN.filter((k) => uniq(columns.map((c) => c[k])).length > 1);
	const rows = new Map();
	for (const c of cells) {
		if (!rows.has(c.scenario)) rows.set(c.scenario, new Map());
		const group = rows.get(c.scenario), key = rowKey(c);
		if (!group.has(key)) group.set(key, []);
		group.get(key).push(c);
	}
	const bodies = Array.from(rows, ([scenario, group]) => h("tbody", null,
		h("tr", { class: "grouprow" }, h("th", { class: "group", scope: "rowgroup", colspan: columns.length + 1 }, h("span", null, scenario))),
		Array.from(group.values(), (row) => h("tr", { class: "cellrow" },
			h("th", { class: "row", scope: "row" }, row[0].probe + "-" + row[0].build,
				machinesOf(row[0]) && h("span", { class: "machines" }, machinesOf(row[0]))),
			columns.map((col) => h("td", null, row.filter((c) => columnKey(c) === col.key).map((c) => cellButton(c, levels))))))));
	byId("grid").append(h("table", { class: "matrix" }, h("caption", { hidden: true }, "Cells by scenario and machine"),
		h("thead", null, columnHeads(columns, levels)), bodies));
	const firstButton = buttons.find(Boolean);
	if (firstButton) firstButton.tabIndex = 0;
}

function drawTools() {
	for (const v of ["failed", "unable", "broken", "ok", "skipped"]) {
		const n = cells.filter((c) => c.verdict === v).length;
		if (n)
			byId("verdicts").append(h("button", {
				type: "button", "aria-pressed": "false",
				onclick: (e) => {
					if (!wanted.verdicts.delete(v)) wanted.verdicts.add(v);
					e.currentTarget.setAttribute("aria-pressed", String(wanted.verdicts.has(v)));
					filter();
				},
			}, SIGNS[v] + " " + n.toLocaleString("en") + " " + v));
	}
	byId("filter").addEventListener("input", (e) => {
		wanted.words = e.target.value.toLowerCase().split(/\s+/).filter(Boolean);
		filter();
	});
}

function isWanted(c) {
	const text = (c.name + " " + c.engine + " " + list(c.machines).map((m) => [m.kernel, m.cpu].join(" ")).join(" ")).toLowerCase();
	return (!wanted.verdicts.size || wanted.verdicts.has(c.verdict)) && wanted.words.every((w) => text.includes(w));
}

function filter() {
	let n = 0;
	for (const c of cells) {
		const yes = isWanted(c);
		n += yes;
		buttons[c.i].hidden = !yes;
	}
	for (const row of document.querySelectorAll(".cellrow")) row.hidden = !row.querySelector(".cell:not([hidden])");
	for (const body of document.querySelectorAll(".matrix tbody")) body.hidden = !body.querySelector(".cellrow:not([hidden])");
	byId("shown").textContent = n === cells.length ? "" : n.toLocaleString("en") + " of " + count(cells.length, "cell");
	const here = document.querySelector('.cell[tabindex="0"]:not([hidden])') || document.querySelector(".cell:not([hidden])");
	if (here) stop(here);
}

// One cell of the matrix is in the order of the Tab key; arrows choose which.
function stop(button) {
	for (const b of document.querySelectorAll('#grid .cell[tabindex="0"]')) b.tabIndex = -1;
	button.tabIndex = 0;
}

function walk(from, dx, dy) {
	const here = from.getBoundingClientRect();
	let best = null, least = Infinity;
	for (const b of document.querySelectorAll("#grid .cell:not([hidden])")) {
		const r = b.getBoundingClientRect(), x = r.left - here.left, y = r.top - here.top;
		const along = dx ? x * dx : y * dy, aside = Math.abs(dx ? y : x);
		if (b === from || along < 2 || (dx && aside > 4)) continue;
		const far = along + aside * 3;
		if (far < least) [best, least] = [b, far];
	}
	if (best) {
		stop(best);
		best.focus();
	}
}

/* --- one cell --- */

function next(step) {
	const bad = cells.filter((c) => isBad(c) && isWanted(c)), all = bad.length ? bad : cells.filter(isWanted);
	const at = all.indexOf(current);
	const c = at >= 0 ? all[(at + step + all.length) % all.length] : all[step > 0 ? 0 : all.length - 1];
	if (c) open(c, true);
}

function close() {
	if (!current) return;
	buttons[current.i].removeAttribute("aria-current");
	current = null;
	byId("detail").hidden = true;
	byId("split").classList.remove("open");
	document.body.classList.remove("modal");
	history.replaceState(null, "", location.pathname + location.search);
	if (opener && !opener.hidden) opener.focus();
}

function open(c, focus) {
	if (current) buttons[current.i].removeAttribute("aria-current");
	if (!current) opener = buttons[c.i];
	current = c;
	buttons[c.i].setAttribute("aria-current", "true");
	stop(buttons[c.i]);
	opener = buttons[c.i];
	const detail = byId("detail");
	detail.replaceChildren();
	detail.hidden = false;
	detail.scrollTop = 0;
	byId("split").classList.add("open");
	document.body.classList.add("modal");
	const title = h("h3", { class: "name", tabindex: "-1" }, c.name + (c.repetition ? ", again " + c.repetition : ""));
	detail.append(h("div", { class: "top" }, badge(c.verdict), h("span", { class: "gap" }),
		h("button", { type: "button", onclick: () => next(-1), "aria-label": "Previous cell that did not hold" }, "\u2190"),
		h("button", { type: "button", onclick: () => next(1), "aria-label": "Next cell that did not hold" }, "\u2192"),
		h("button", { type: "button", onclick: close }, "Close")), title);
	detail.append(...detailParts(c));
	drawTimes(c);
	history.replaceState(null, "", "#" + encodeURIComponent(address(c)));
	if (getComputedStyle(detail).position !== "fixed") buttons[c.i].scrollIntoView({ block: "nearest", inline: "nearest" });
	if (focus) title.focus({ preventScroll: true });
}

function detailParts(c) {
	return [
		h("p", { class: "soft" }, (c.fan_out ? c.route[0] + " \u2192 " + c.route.slice(1).join(", ") : list(c.route).join(" \u2192 ")) + ", by " + c.transport + ", " + (c.engine === "outside" ? "telefork " + c.build : c.engine) + (c.peer ? ", a peer: it is there to be compared with" : "")),
		c.verdict === "unable" && h("p", null, "The engine says that it cannot."),
		c.verdict === "skipped" && h("p", null, "Its machines cannot be had here."),
		c.verdict === "broken" && h("p", null, "Nothing is known of this one: a machine or the testbed came to grief."),
		c.why && h("pre", { class: "why " + c.verdict }, c.why),
		numbers(c),
		c.said && [h("h3", null, "The program's own verdict"), h("pre", null, c.said)],
		differences(c),
		list(c.phases).length > 0 && [h("h3", null, "Phases"), h("div", { id: "times" }), phaseTable(c)],
		stands(c),
		list(c.machines).length > 0 && [h("h3", null, "Machines"), machineTable(c.machines)],
		others(c),
		h("h3", null, "Again"),
		h("pre", null, "telebed run " + word(c.file || c.scenario) + " --filter " + word(c.name) + seedOption() + " --keep" + (c.folder ? "\n\n# everything of it is in\n" + c.folder : "")),
	].flat(2).filter(Boolean);
}

// A word of a command line.
function word(s) {
	return /^[\w@%+=:,.\/-]+$/.test(s) ? s : "'" + s.replace(/'/g, "'\\''") + "'";
}

function seedOption() {
	const runs = list(doc.runs);
	return runs.length === 1 && Number.isInteger(runs[0].seed) ? " --seed " + runs[0].seed : "";
}

function numbers(c) {
	const all = [
		["registers", c.registers], ["mappings", c.mappings], ["memory", c.bytes, bytes], ["lost", c.lost],
		["registers seen by QEMU", c.seen_registers], ["memory seen by QEMU", c.seen_bytes, bytes],
		["time", c.ms, duration], ["machines ready", c.ready_ms || null, duration],
	];
	return h("dl", { class: "numbers" }, all.filter((n) => n[1] !== null && n[1] !== undefined)
		.map(([name, n, f]) => h("div", null, h("dt", null, name), h("dd", null, f ? f(n) : n.toLocaleString("en")))));
}

function machineTable(machines) {
	return table(["machine", "architecture", "tier", "kernel", "processor", "QEMU"], list(machines).map((m) =>
		[m.name, m.arch + (m.on ? " on " + m.on : ""), m.tier, m.kernel, m.cpu, [m.qemu, m.accelerator, m.memory_mib && m.memory_mib + " MiB"].filter(Boolean).join(", ") || "-"]), "pairs");
}

function stands(c) {
	if (!list(c.stands).length) return null;
	return [h("h3", null, "Where it stood"), table(["thread", "address", "instruction", "function"], c.stands.map((s) =>
		[String(s.thread), h("code", null, s.pc), h("code", null, s.instruction || s.code || "-"), s.symbol ? h("code", null, s.symbol) : "-"]), "pairs")];
}

function others(c) {
	const same = cells.filter((o) => o !== c && testKey(o) === testKey(c));
	if (!same.length) return null;
	const levels = COLUMN.filter((k) => same.some((o) => o[k] !== c[k]));
	return [h("h3", null, "The same elsewhere"), h("div", { class: "others" }, same.map((o) => h("button", {
		type: "button", class: "cell " + o.verdict, onclick: () => open(o, true), "aria-label": o.name + ": " + WORDS[o.verdict],
	}, h("b", { "aria-hidden": "true" }, SIGNS[o.verdict]), levels.map((k) => o[k]).concat(machinesOf(o) || []).join(" ") || o.name)))];
}

/* --- differences --- */

// Hexadecimal text, byte by byte; those that differ from the other text's are marked.
function hexMarked(text, other) {
	if (!/^[0-9a-f]+$/.test(text)) return h("span", { class: "hex" }, text);
	const n = Math.max(text.length, /^[0-9a-f]+$/.test(other) ? other.length : 0), out = h("span", { class: "hex" });
	const a = text.padStart(n + (n % 2), "0"), b = String(other).padStart(n + (n % 2), "0");
	for (let i = 0; i < a.length; i += 16) {
		const word = h("i");
		for (let k = i; k < Math.min(i + 16, a.length); k += 2) {
			const two = a.slice(k, k + 2);
			word.append(two === b.slice(k, k + 2) ? two : h("mark", null, two));
		}
		out.append(word, "\u200b");
	}
	return out;
}

function sidesOf(d) {
	return d.witness === "qemu" ? ["image", "as QEMU sees it"] : ["original", "copy"];
}

function dump(at, hex, other) {
	const out = h("div", { class: "dump" }), from = BigInt(at), wide = innerWidth < 600 ? 16 : 32;
	for (let row = 0; row < hex.length; row += wide) {
		const line = h("div", null, h("span", { class: "at" }, (from + BigInt(row / 2)).toString(16).padStart(12, "0") + "  "));
		let ascii = "";
		for (let k = row; k < row + wide && k < hex.length; k += 2) {
			const two = hex.slice(k, k + 2), code = parseInt(two, 16);
			ascii += code >= 32 && code < 127 ? String.fromCharCode(code) : "\u00b7";
			line.append(two === other.slice(k, k + 2) ? two : h("mark", null, two), k === row + 14 ? "  " : " ");
		}
		line.append(h("span", { class: "ascii" }, ascii));
		out.append(line);
	}
	return out;
}

function memoryBlock(d) {
	const where = [h("code", null, d.address || d.name), d.symbol && h("code", null, d.symbol), d.mapping || null,
		d.machine && "machine " + d.machine, d.size > 1 ? count(d.size, "byte") + " of this page" : null];
	const named = where.filter(Boolean).flatMap((x, k) => (k ? [" \u00b7 ", x] : [x])), [a, b] = sidesOf(d);
	if (!d.bytes_a || !d.bytes_b)
		return h("div", { class: "memory" }, h("p", null, named), h("p", null, a + " ", hexMarked(d.a, d.b), " \u2192 " + b + " ", hexMarked(d.b, d.a)));
	return h("div", { class: "memory" }, h("p", null, named), h("div", { class: "sides" },
		h("figure", null, h("figcaption", null, a), dump(d.bytes_at, d.bytes_a, d.bytes_b)),
		h("figure", null, h("figcaption", null, b), dump(d.bytes_at, d.bytes_b, d.bytes_a))));
}

function differenceBlocks(all) {
	const of = (kind, witness) => all.filter((d) => d.kind === kind && (!witness || d.witness === witness)), out = [];
	const name = (d) => [h("code", null, d.name), d.machine ? " on " + d.machine : "", d.thread && of("register").some((o) => o.thread !== d.thread) ? " of " + d.thread : ""];
	for (const witness of ["image", "qemu"]) {
		const registers = of("register", witness);
		if (registers.length)
			out.push(table(["register", ...sidesOf(registers[0])], registers.map((d) => [h("span", null, name(d)), hexMarked(d.a, d.b), hexMarked(d.b, d.a)]), "pairs registers"));
	}
	out.push(...of("memory").map(memoryBlock));
	const rest = all.filter((d) => d.kind === "mapping" || d.kind === "state");
	if (rest.length)
		out.push(table(["what", "original", "copy"], rest.map((d) =>
			[h("span", null, d.kind + " ", name(d), d.address ? [" at ", h("code", null, d.address), " ", d.mapping || ""] : ""), h("span", { class: "hex" }, d.a), h("span", { class: "hex" }, d.b)]), "pairs"));
	return out;
}

function differences(c) {
	const lost = list(c.differences), must = list(c.excepted), out = [];
	if (lost.length)
		out.push(h("h3", null, lost.length === 200 ? "The first 200 differences" : count(lost.length, "difference")), ...differenceBlocks(lost));
	if (must.length)
		out.push(h("details", null, h("summary", null, count(must.length, "kind") + " of difference that a landing makes by its nature, an example of each"),
			must.map((d) => [h("p", { class: "soft" }, d.exception), ...differenceBlocks([d])])));
	return out;
}

/* --- phases --- */

const KNOWN = ["connect", "pages", "restore", "check", "commit", "plan", "description", "freeze", "probe", "verdict", "receivers", "greet", "witness", "answer", "carry", "save"];
const hues = new Map(KNOWN.map((name, k) => [name, "p" + (k % 8)]));
function hue(name) {
	if (!hues.has(name)) hues.set(name, "p" + (hues.size % 8));
	return hues.get(name);
}

// Phases of machines that lie close together are one move.
function movesOf(phases) {
	const there = phases.filter((p) => p.machine !== null).sort((a, b) => a.begin_ms - b.begin_ms), moves = [];
	let end = -Infinity;
	for (const p of there) {
		if (p.begin_ms > end + 20) moves.push([]);
		moves[moves.length - 1].push(p);
		end = Math.max(end, p.begin_ms + p.ms);
	}
	return moves;
}

// A round step of the axis.
function stepOf(span, most) {
	const raw = span / most, size = Math.pow(10, Math.floor(Math.log10(raw)));
	return [1, 2, 5, 10].map((k) => k * size).find((s) => s >= raw);
}

function timeline(phases, width, label) {
	const begin = Math.min(...phases.map((p) => p.begin_ms)), end = Math.max(...phases.map((p) => p.begin_ms + p.ms));
	const lanes = [];
	for (const p of phases) {
		const name = p.machine === null ? "testbed" : p.machine;
		let lane = lanes.find((l) => l.name === name && p.begin_ms >= l.end - 0.001);
		if (!lane) lanes.push((lane = { name, end: -Infinity, phases: [] }));
		lane.phases.push(p);
		lane.end = p.begin_ms + p.ms;
	}
	const left = 64, high = 22, span = Math.max(end - begin, 0.001), scale = (width - left - 8) / span;
	const x = (ms) => left + (ms - begin) * scale, bottom = lanes.length * (high + 6) + 4;
	const out = svg("svg", { class: "time", viewBox: "0 0 " + width + " " + (bottom + 18), height: bottom + 18, role: "img", "aria-label": label });
	const step = stepOf(span, Math.max(2, Math.floor(width / 110)));
	for (let t = 0; t <= span + step / 1000; t += step)
		out.append(svg("line", { x1: x(begin + t), x2: x(begin + t), y1: 0, y2: bottom }),
			svg("text", { class: "axis", x: x(begin + t), y: bottom + 13, "text-anchor": t > span * 0.95 ? "end" : t ? "middle" : "start" }, t ? duration(t) : "0"));
	lanes.forEach((lane, k) => {
		const y = k * (high + 6) + 3;
		out.append(svg("text", { class: "lane", x: 0, y: y + 15 }, lane.name.slice(0, 9)));
		for (const p of lane.phases) {
			const wide = Math.max(1.5, p.ms * scale - 1);
			out.append(svg("g", null, svg("title", null, lane.name + ": " + p.name + ", " + duration(p.ms)),
				svg("rect", { class: hue(p.name), x: x(p.begin_ms), y, width: wide, height: high, rx: 2 }),
				wide > p.name.length * 6.4 + 8 ? svg("text", { class: "in", x: x(p.begin_ms) + 4, y: y + 15 }, p.name) : null));
		}
	});
	return out;
}

function drawTimes(c) {
	const box = byId("times");
	if (!box) return;
	const width = Math.max(280, box.clientWidth || 600), moves = movesOf(c.phases);
	box.replaceChildren();
	if (c.phases.some((p) => p.machine === null)) box.append(timeline(c.phases.filter((p) => p.machine === null).concat(moves.flat()), width, "The whole cell"));
	moves.forEach((m, k) => {
		const total = Math.max(...m.map((p) => p.begin_ms + p.ms)) - m[0].begin_ms;
		box.append(h("p", { class: "soft" }, (moves.length > 1 ? "Move " + (k + 1) : "The move itself") + ", " + duration(total)), timeline(m, width, "Phases of move " + (k + 1)));
	});
}

function phaseTable(c) {
	return h("details", null, h("summary", null, "As a table"), table(["phase", "where", "begins at", "takes"],
		c.phases.slice().sort((a, b) => a.begin_ms - b.begin_ms).map((p) => [
			h("span", null, h("span", { class: "dot " + hue(p.name) }), p.name), p.machine === null ? "testbed" : p.machine + (p.clock_ms ? " (its clock is off by " + duration(Math.abs(p.clock_ms)) + ")" : ""),
			duration(p.begin_ms), duration(p.ms)])));
}

/* --- further sections --- */

function section(id, title, ...content) {
	const s = byId(id);
	s.hidden = false;
	s.append(h("h2", { id: id + "-title" }, title), ...content.flat(2).filter(Boolean));
}

function median(v) {
	const s = v.slice().sort((a, b) => a - b);
	return s.length ? s[s.length >> 1] : null;
}

// How long the program stood still, as the sender told.
function frozen(c) {
	const of = (name) => list(c.phases).filter((p) => p.machine !== null && p.name === name);
	const begin = of("freeze")[0], commit = of("commit")[0];
	if (!begin) return null;
	return commit ? commit.begin_ms + commit.ms - begin.begin_ms : begin.ms;
}

function drawEngines() {
	const engines = uniq(cells.map((c) => c.engine));
	if (engines.length < 2) return;
	const ms = (v) => (v === null ? "-" : duration(v));
	const summary = table(["engine", "cells", "ok", "failed", "unable", "broken", "median time", "median of standing still"], engines.map((e) => {
		const of = cells.filter((c) => c.engine === e), n = (v) => of.filter((c) => c.verdict === v).length;
		return [e, of.length, n("ok"), n("failed"), n("unable"), n("broken"), ms(median(of.map((c) => c.ms))), ms(median(of.map(frozen).filter((x) => x !== null)))];
	}));
	const key = (c) => [c.scenario, c.probe, c.arch, c.tier, c.transport].join(" ");
	const shared = uniq(cells.map(key)).map((k) => [k, engines.map((e) => cells.filter((c) => c.engine === e && key(c) === k))])
		.filter(([, by]) => by.filter((v) => v.length).length > 1);
	const short = (k) => k.split(" ").slice(1, 4).join(" "), clear = uniq(shared.map(([k]) => short(k))).length === shared.length;
	const compared = engines.map((_, k) => k).filter((k) => shared.some(([, by]) => by[k].length));
	const reasons = (by) => uniq(by.flat().filter((c) => c.verdict !== "ok" && c.why).map((c) => c.why.split("\n")[0]));
	section("engines", "Engines",
		h("p", { class: "soft" }, "library: the program calls telefork(); outside: telefork move or copy, over the network; telefork: telefork dump and restore, by file as others do it"),
		summary, shared.length > 0 && [h("h3", null, "The same by each of them"),
			table(["cell", ...compared.map((k) => engines[k]), "why not"], shared.map(([k, by]) => [clear ? short(k) : k, ...compared.map((n) => h("div", { class: "others" }, by[n].map((c) => h("button", {
				type: "button", class: "cell " + c.verdict + (c.peer ? " peer" : ""), onclick: () => open(c, true), "aria-label": c.name + ": " + WORDS[c.verdict],
			}, h("b", { "aria-hidden": "true" }, SIGNS[c.verdict]), duration(c.ms))))), h("div", { class: "reasons" }, reasons(by).map((t) => h("p", null, t)))]), "pairs compared")]);
}

// A value of a document of which no more is known than that it is JSON.
function plain(x) {
	if (x === null || x === undefined) return "-";
	if (typeof x === "number") return x;
	if (typeof x === "boolean") return x ? "yes" : "no";
	if (typeof x === "string") return /^(ok|failed|broken)$/.test(x) ? badge(x) : x;
	return h("code", null, JSON.stringify(x));
}

// Any document: its plain members as a list, each list of objects as a table, whole numbers of things first.
function anything(x, depth) {
	if (Array.isArray(x)) {
		const rows = x.filter((r) => r && typeof r === "object" && !Array.isArray(r));
		if (!rows.length) return [h("p", null, x.map((v) => (typeof v === "object" ? JSON.stringify(v) : String(v))).join(", ") || "none")];
		const heads = uniq(rows.flatMap((r) => Object.keys(r)));
		return [table(heads.map((t) => t.replace(/_/g, " ")), rows.map((r) => heads.map((k) => plain(r[k]))))];
	}
	if (!x || typeof x !== "object") return [h("p", null, plain(x))];
	const entries = Object.entries(x), simple = entries.filter(([, v]) => v === null || typeof v !== "object");
	const out = simple.length ? [h("dl", { class: "numbers" }, simple.map(([k, v]) => h("div", null, h("dt", null, k.replace(/_/g, " ")), h("dd", null, typeof v === "number" ? v.toLocaleString("en") : plain(v)))))] : [];
	for (const [k, v] of entries)
		if (v !== null && typeof v === "object")
			out.push(h(depth > 2 ? "h6" : "h3", null, k.replace(/_/g, " ")), ...anything(v, depth + 1));
	return out;
}

// Faults that were put into images in transit, and whether a witness saw them.
function drawMutants(m) {
	if (!m || !Array.isArray(m.states)) return section("mutants", "Mutants", anything(m, 0));
	const arches = uniq(m.states.map((s) => s.arch)), states = uniq(m.states.map((s) => s.state));
	const caught = (s) => {
		const bar = h("span", { class: "share" }, h("span"));
		bar.firstChild.style.width = (100 * s.caught) / Math.max(1, s.total) + "%";
		return h("span", { class: s.caught < s.total ? "badge failed" : null }, bar, s.caught + " of " + s.total);
	};
	const all = list(m.mutants), alive = all.filter((x) => !/^(caught|killed|ok)$/.test(x.verdict));
	section("mutants", "Mutants",
		list(m.arches).map((a) => h("p", null, a.arch + ": ", caught(a), " caught")),
		table(["state", ...arches], states.map((s) => [s, ...arches.map((a) => {
			const one = m.states.find((x) => x.state === s && x.arch === a);
			return one ? caught(one) : "-";
		})])),
		alive.length > 0 && [h("h3", null, count(alive.length, "survivor")), ...anything(alive, 1)],
		all.length > 0 && h("details", null, h("summary", null, "All " + count(all.length, "mutant")), anything(all, 1)));
}

function drawMachines() {
	const seen = new Map();
	for (const m of cells.flatMap((c) => list(c.machines))) {
		const key = [m.arch, m.on, m.tier, m.kernel, m.cpu, m.qemu, m.accelerator, m.memory_mib].join("\u0000");
		if (!seen.has(key)) seen.set(key, Object.assign({}, m, { n: 0, names: new Set() }));
		seen.get(key).n++;
		seen.get(key).names.add(m.name);
	}
	if (seen.size)
		section("machines", "Machines", table(["architecture", "tier", "kernel", "processor", "QEMU", "memory", "called", "in cells"], Array.from(seen.values(), (m) =>
			[m.arch + (m.on ? " on " + m.on : ""), m.tier, m.kernel, m.cpu, [m.qemu, m.accelerator].filter(Boolean).join(", ") || "-", m.memory_mib ? m.memory_mib + " MiB" : "-", Array.from(m.names).sort().join(", "), m.n])));
}

/* --- all --- */

document.addEventListener("keydown", (e) => {
	const field = e.target.matches("input"), at = e.target.closest && e.target.closest("#grid .cell");
	const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
	if (e.ctrlKey || e.altKey || e.metaKey) return;
	if (e.key === "Escape" && field && e.target.value) return;
	if (e.key === "Escape") close();
	else if (field) return;
	else if (arrows[e.key] && at) walk(at, ...arrows[e.key]);
	else if (e.key === "/") byId("filter").focus();
	else if (e.key === "n") next(1);
	else if (e.key === "p") next(-1);
	else return;
	e.preventDefault();
});

function fromAddress() {
	let name = "";
	try {
		name = decodeURIComponent(location.hash.slice(1));
	} catch (e) {
		return;
	}
	const c = cells.find((o) => address(o) === name);
	if (c && c !== current) open(c, false);
}

drawHead();
drawTools();
drawMatrix();
drawEngines();
if (doc.mutants !== undefined) drawMutants(doc.mutants);
if (doc.torture !== undefined) section("torture", "Torture", anything(doc.torture, 0));
drawMachines();
for (const s of document.querySelectorAll("main > section:not([hidden])"))
	byId("sections").append(h("a", { href: "#" + s.id }, s.querySelector("h2").textContent));
window.addEventListener("hashchange", fromAddress);
let resized = 0;
window.addEventListener("resize", () => {
	cancelAnimationFrame(resized);
	resized = requestAnimationFrame(() => current && drawTimes(current));
});
fromAddress();
