// The script of a page of results. It reads the lines of JSON in #photos, draws the tiles that are in view, and keeps
// what is chosen in the hash of the address, so that a view can be kept as a bookmark.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const MOST_CLASSES = 40; // in the confusion matrix: those that are mistaken most often
  const MOST_CHOICES = 400; // labels in the list
  const OVERSCAN = 600; // pixels above and below the view that are drawn too
  const GAP = 10;
  const CAPTION = 46;
  const HEADING = 48;

  const find = (id) => document.getElementById(id);
  const narrow = matchMedia("(max-width: 46rem)");
  const collator = new Intl.Collator("en", { numeric: true });

  // ---- what the page holds

  const labels = []; // {number, text, wnid, above}
  const concepts = new Map(); // WordNet id → {name, above}
  const photos = [];
  const models = [];
  let colours; // of maps, from low to high: three bytes each
  const folder = document.querySelector('meta[name="hiera-thumbnails"]').content;

  function parsed(text) {
    const lines = text.split("\n").filter(Boolean);
    try {
      return JSON.parse(`[${lines.join(",")}]`);
    } catch { // the last line is torn where the run was killed while it wrote
      return lines.flatMap((line) => {
        try {
          return [JSON.parse(line)];
        } catch {
          return [];
        }
      });
    }
  }

  for (const line of parsed(find("photos").textContent)) {
    if (line.path !== undefined) photos.push(photoOf(line, photos.length));
    else if (line.label !== undefined) labels.push({ ...line, number: labels.length, text: line.label });
    else if (line.concept !== undefined) concepts.set(line.concept, line);
    else if (line.colours !== undefined) colours = bytesOf(line.colours);
    else if (line.model !== undefined && !models.includes(line.model)) models.push(line.model);
  }
  find("photos").remove(); // its text is in memory a second time
  nameShortly();

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
  }

  // ImageNet's labels are lists of names: where there is little room the first will do, if it is that label's alone.
  function nameShortly() {
    const firsts = labels.map((label) => (label.wnid ? label.text.split(", ")[0] : label.text));
    const many = new Map();
    for (const name of firsts) many.set(name, (many.get(name) ?? 0) + 1);
    labels.forEach((label, number) => {
      label.short = many.get(firsts[number]) === 1 ? firsts[number] : label.text;
    });
  }

  function photoOf(line, place) {
    const best = line.labels ? labels[line.labels[0][0]] : undefined;
    const photo = { ...line, place, labels: line.labels ?? [], best };
    photo.score = line.match ?? line.labels?.[0][1];
    photo.truth = line.truth === undefined ? undefined : labels[line.truth];
    photo.status = line.error ? "failed" : best ? "labelled" : "unlabelled";
    photo.right = photo.truth && !line.error ? line.correct === true : undefined;
    photo.small = typeof line.thumbnail === "number"
      ? `${folder}/${String(line.thumbnail).padStart(6, "0")}.thumbnail`
      : line.thumbnail && `data:image/jpeg;base64,${line.thumbnail}`;
    return photo;
  }

  const hasTruth = photos.some((photo) => photo.truth);
  const isSearch = photos.some((photo) => photo.match !== undefined);
  const hasConcepts = concepts.size > 0;

  const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
  const percent = (score) => `${(100 * score).toFixed(1)} %`;
  const shownScore = (photo) => photo.score === undefined ? "" : photo.match === undefined ? percent(photo.score)
    : photo.match.toFixed(3);

  // Characters that are not seen, or that turn the direction of a text, are shown as escapes.
  const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
  const shown = (text) => text.replace(hidden, (each) => each === "\u200d" ? each
    : `\\u${each.codePointAt(0).toString(16).padStart(4, "0")}`);
  const nameOf = (path) => shown(path.replace(/\/+$/, "").replace(/^.*\//s, "") || path);

  const later = (call) => { // once a frame
    let waits = false;
    return () => {
      if (waits) return;
      waits = true;
      requestAnimationFrame(() => {
        waits = false;
        call();
      });
    };
  };

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in made && key !== "role") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  // ---- concepts: each label with all that is above it

  const aboveOf = new Map(); // WordNet id → set of the ids above
  function everyAbove(wnid, parents) {
    if (!aboveOf.has(wnid)) {
      const all = new Set();
      for (const parent of parents ?? []) {
        all.add(parent);
        for (const each of everyAbove(parent, concepts.get(parent)?.above)) all.add(each);
      }
      aboveOf.set(wnid, all);
    }
    return aboveOf.get(wnid);
  }
  const isUnder = (label, wnid) => label?.wnid === wnid || (label?.above && everyAbove(label.wnid, label.above).has(wnid));
  const isTrue = (label, truth) => label === truth || (truth.wnid !== undefined && isUnder(label, truth.wnid));
  const conceptName = (wnid) => concepts.get(wnid)?.name ?? labels.find((label) => label.wnid === wnid)?.short ?? wnid;

  // The tree above some photos. Concepts that comprise the same photos as the one right below them are left out.
  function treeOf(some) {
    const counts = new Map(); // WordNet id → photos
    const parents = new Map();
    for (const { best } of some) {
      if (!best?.above) continue;
      parents.set(best.wnid, best.above);
      for (const wnid of [best.wnid, ...everyAbove(best.wnid, best.above)]) {
        counts.set(wnid, (counts.get(wnid) ?? 0) + 1);
        if (!parents.has(wnid)) parents.set(wnid, concepts.get(wnid)?.above ?? []);
      }
    }
    const below = new Map([...counts.keys()].map((wnid) => [wnid, []]));
    const roots = [];
    for (const [wnid, above] of parents) {
      if (above.length) for (const each of above) below.get(each).push(wnid);
      else roots.push(wnid);
    }
    const known = new Map();
    const node = (wnid) => {
      if (!known.has(wnid)) {
        const kinds = sorted([...new Set(below.get(wnid).map(node))]);
        const same = kinds.find((kind) => kind.count === counts.get(wnid));
        known.set(wnid, same ?? { wnid, name: conceptName(wnid), count: counts.get(wnid), kinds });
      }
      return known.get(wnid);
    };
    const sorted = (nodes) => nodes.sort((a, b) => b.count - a.count || collator.compare(a.name, b.name));
    return sorted([...new Set(roots.map(node))]);
  }

  function nodeIn(nodes, wnid) {
    for (const node of nodes) {
      const found = node.wnid === wnid ? node : nodeIn(node.kinds, wnid);
      if (found) return found;
    }
    return undefined;
  }

  // ---- what is chosen

  const STATUSES = {
    all: ["all", () => true],
    labelled: ["labelled", (photo) => photo.status === "labelled"],
    mistakes: ["mistakes", (photo) => photo.right === false],
    right: ["right", (photo) => photo.right === true],
    unlabelled: ["without a label", (photo) => photo.status === "unlabelled"],
    failed: ["failed", (photo) => photo.status === "failed"],
  };
  const byScore = (a, b) => (b.score ?? -1) - (a.score ?? -1) || a.place - b.place;
  const SORTS = {
    input: [isSearch ? "best first" : "as in the run", (a, b) => a.place - b.place],
    mistakes: ["mistakes first", (a, b) => rank(a) - rank(b) || byScore(a, b)],
    best: ["highest score", byScore],
    least: ["lowest score", (a, b) => (a.score ?? 2) - (b.score ?? 2) || a.place - b.place],
    path: ["path", (a, b) => collator.compare(a.path, b.path)],
    label: ["label", (a, b) => collator.compare(a.best?.text ?? "\uffff", b.best?.text ?? "\uffff") || byScore(a, b)],
  };
  const rank = (photo) => photo.right === false ? 0 : photo.status === "failed" ? 1 : 2;
  const GROUPS = { none: "none", label: "by label", concept: "by concept", truth: "by truth" };

  if (!hasTruth) {
    delete STATUSES.mistakes;
    delete STATUSES.right;
    delete SORTS.mistakes;
    delete GROUPS.truth;
  } else {
    delete STATUSES.labelled;
  }
  if (isSearch) delete SORTS.best;
  if (!hasConcepts) delete GROUPS.concept;

  const start = { words: "", status: "all", sort: hasTruth ? "mistakes" : "input", group: "none", least: 0, only: "", by: "label" };
  let state = { ...start };

  function readHash() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state = { ...start, ...given };
    state.least = Math.min(100, Math.max(0, Number(state.least) || 0));
    if (!STATUSES[state.status]) state.status = start.status;
    if (!SORTS[state.sort]) state.sort = start.sort;
    if (!GROUPS[state.group]) state.group = start.group;
    if (!onlyOf(state.only)) state.only = "";
    if (!hasConcepts) state.by = "label";
  }

  function writeHash() {
    const changed = Object.entries(state).filter(([key, value]) => key in start && String(value) !== String(start[key]));
    const hash = new URLSearchParams(changed).toString();
    if (location.hash.slice(1) !== hash) history.replaceState(null, "", `#${hash}`);
  }

  // What `only` says, as {name, test}: "label:3", "truth:3", "right:3", "concept:n02084071", "confusion:3:7" (truth, answer).
  function onlyOf(only) {
    const [kind, first, second] = only.split(":");
    const [one, other] = [labels[first], labels[second]];
    if (kind === "label" && one) return { name: one.short, test: (photo) => photo.best?.number === one.number };
    if (kind === "truth" && one) return { name: `truth: ${one.short}`, test: (photo) => photo.truth?.number === one.number };
    if (kind === "right" && one) {
      return { name: `${one.short} → right`, test: (photo) => photo.truth?.number === one.number && photo.right };
    }
    if (kind === "concept" && (concepts.has(first) || labels.some((label) => label.wnid === first))) {
      return { name: conceptName(first), test: (photo) => isUnder(photo.best, first) };
    }
    if (kind === "confusion" && one && other) {
      return {
        name: `${one.short} → ${other.short}`,
        test: (photo) => photo.truth?.number === one.number && photo.best?.number === other.number,
      };
    }
    return undefined;
  }

  function choose(changes) {
    Object.assign(state, changes);
    writeHash();
    update();
  }

  // Words are looked for in the path, in the best label with the concepts above it, in the truth, in what failed.
  function textOf(photo) {
    if (photo.text === undefined) {
      const above = photo.best?.above ? [...everyAbove(photo.best.wnid, photo.best.above)].map(conceptName) : [];
      photo.text = [photo.path, photo.best?.text, ...above, photo.truth?.text, ...(photo.error ?? []), ...(photo.remarks ?? []),
        photo.missing].join("\n").toLowerCase();
    }
    return photo.text;
  }

  let left = []; // what the controls leave
  let items = []; // the same where only one label, concept or pair is chosen, in order
  let groups = []; // [{name, only, from, count}] of the items

  function update() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const [, hasStatus] = STATUSES[state.status];
    left = photos.filter((photo) => hasStatus(photo)
      && (!state.least || (photo.score ?? -1) >= state.least / 100)
      && words.every((word) => textOf(photo).includes(word)));
    const only = state.only && onlyOf(state.only);
    items = (only ? left.filter(only.test) : [...left]).sort(SORTS[state.sort][1]);
    group();
    drawControls(only);
    drawChoices();
    layOut();
    if (find("confusions").open) drawMatrix();
  }

  function group() {
    groups = [];
    if (state.group === "none" || !items.length) return;
    let sections; // [name, only, photos]
    if (state.group === "concept") {
      const [kind, wnid] = state.only.split(":");
      const tree = treeOf(items);
      const chosen = kind === "concept" ? nodeIn(tree, wnid) : undefined;
      const nodes = chosen?.kinds.length ? chosen.kinds : tree.length === 1 && tree[0].kinds.length ? tree[0].kinds : tree;
      const taken = new Set();
      sections = nodes.map((node) => {
        const under = items.filter((photo) => !taken.has(photo) && isUnder(photo.best, node.wnid));
        under.forEach((photo) => taken.add(photo));
        return [node.name, `concept:${node.wnid}`, under];
      });
      sections.push(["no concept", "", items.filter((photo) => !taken.has(photo))]);
      sections = sections.filter(([, , some]) => some.length);
    } else {
      const key = state.group === "truth" ? (photo) => photo.truth : (photo) => photo.best;
      const by = Map.groupBy ? Map.groupBy(items, (photo) => key(photo)?.number) : groupBy(items, (photo) => key(photo)?.number);
      sections = [...by].map(([number, some]) => number === undefined
        ? [state.group === "truth" ? "no truth" : "no label", "", some]
        : [labels[number].short, `${state.group}:${number}`, some]);
      sections.sort((a, b) => !a[1] - !b[1] || b[2].length - a[2].length || collator.compare(a[0], b[0]));
    }
    items = [];
    for (const [name, only, some] of sections) {
      groups.push({ name, only, from: items.length, count: some.length });
      for (const photo of some) items.push(photo);
    }
  }

  function groupBy(some, key) {
    const by = new Map();
    for (const each of some) by.set(key(each), [...(by.get(key(each)) ?? []), each]);
    return by;
  }

  // ---- the controls

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  }

  function drawControls(only) {
    if (document.activeElement !== find("words")) find("words").value = state.words;
    for (const id of ["status", "sort", "group"]) find(id).value = state[id];
    find("least").value = state.least;
    find("least-shown").textContent = isSearch ? (state.least / 100).toFixed(2) : `${state.least} %`;
    find("shown").textContent = items.length === photos.length ? count(photos.length, "photo")
      : `${items.length.toLocaleString("en")} of ${count(photos.length, "photo")}`;
    find("clear").hidden = !only;
    if (only) {
      find("clear").textContent = `${shown(only.name)} ✕`;
      find("clear").setAttribute("aria-label", `Leave ${shown(only.name)}`);
    }
    find("nothing").hidden = items.length > 0;
    find("reset").hidden = !photos.length;
  }

  let openConcepts = new Set(); // whose kinds are shown
  let closedConcepts = new Set(); // closed by hand

  function drawChoices() {
    const nav = find("choices");
    const byConcept = state.by === "concept";
    find("by-label").setAttribute("aria-pressed", !byConcept);
    find("by-concept").setAttribute("aria-pressed", byConcept);
    nav.setAttribute("aria-label", byConcept ? "Concepts" : "Labels");
    find("side-summary").textContent = byConcept ? "Concepts" : "Labels";
    keepingFocus(nav, () => nav.replaceChildren(byConcept ? conceptList(treeOf(left), 0) : labelList()));
  }

  // What is pressed is drawn anew: the keyboard stays where it was.
  function keepingFocus(within, draw) {
    const key = within.contains(document.activeElement) && document.activeElement.dataset.key;
    draw();
    if (key) within.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  }

  function choice(name, number, only, title = name) {
    return element("button", { type: "button", className: "choice", "aria-pressed": state.only === only, title: shown(title),
      "data-key": only,
      onclick: () => choose({ only: state.only === only ? "" : only }) },
    element("bdi", {}, shown(name)), " ", element("span", { className: "count" }, number.toLocaleString("en")));
  }

  function labelList() {
    const counts = new Map();
    for (const { best } of left) if (best) counts.set(best.number, (counts.get(best.number) ?? 0) + 1);
    const rows = [...counts].sort((a, b) => b[1] - a[1] || collator.compare(labels[a[0]].text, labels[b[0]].text));
    const list = element("ul", {}, ...rows.slice(0, MOST_CHOICES).map(([number, each]) =>
      element("li", {}, choice(labels[number].short, each, `label:${number}`, labels[number].text))));
    if (rows.length > MOST_CHOICES) {
      list.append(element("li", { className: "more" }, `and ${count(rows.length - MOST_CHOICES, "label")} more: filter by words`));
    }
    return list;
  }

  function conceptList(nodes, depth) {
    return element("ul", {}, ...nodes.map((node) => {
      const item = element("li");
      const only = `concept:${node.wnid}`;
      const row = element("div", { className: "node" });
      if (node.kinds.length) {
        const isOpen = !closedConcepts.has(node.wnid) && (openConcepts.has(node.wnid) || (depth === 0 && nodes.length < 4)
          || (depth === 1 && nodes.length < 8));
        const toggle = element("button", { type: "button", className: "toggle", "aria-expanded": isOpen,
          "aria-label": `Kinds of ${node.name}` }, isOpen ? "▾" : "▸");
        toggle.onclick = () => {
          (isOpen ? closedConcepts : openConcepts).add(node.wnid);
          (isOpen ? openConcepts : closedConcepts).delete(node.wnid);
          const again = conceptList([node], depth).firstChild;
          item.replaceWith(again);
          again.querySelector(".toggle").focus();
        };
        row.append(toggle, choice(node.name, node.count, only));
        item.append(row);
        if (isOpen) item.append(conceptList(node.kinds, depth + 1));
      } else {
        row.append(element("span", { className: "toggle" }), choice(node.name, node.count, only));
        item.append(row);
      }
      return item;
    }));
  }

  // ---- the grid: rows of one height each, of which those in view are in the document

  const grid = find("grid");
  let rows = []; // {top, height, group} or {top, height, from, to}
  let width = 0; // of the grid, pixels
  let columns = 1;
  let side = 0; // of a tile, pixels
  let focused = 0; // the item that Tab comes to
  const drawn = new Map(); // row → its element

  function layOut() {
    width = grid.clientWidth;
    columns = Math.max(narrow.matches ? 3 : 2, Math.floor((width + GAP) / (172 + GAP)));
    side = Math.floor((width - GAP * (columns - 1)) / columns);
    const height = side + CAPTION + GAP;
    rows = [];
    let top = 0;
    for (const part of groups.length ? groups : [{ from: 0, count: items.length }]) {
      if (part.name !== undefined) {
        rows.push({ top, height: HEADING, group: part });
        top += HEADING;
      }
      for (let from = part.from; from < part.from + part.count; from += columns) {
        rows.push({ top, height, from, to: Math.min(from + columns, part.from + part.count) });
        top += height;
      }
    }
    grid.style.height = `${top}px`;
    grid.style.setProperty("--side", `${side}px`);
    grid.style.setProperty("--columns", columns);
    grid.setAttribute("aria-rowcount", rows.length);
    grid.setAttribute("aria-colcount", columns);
    focused = Math.min(focused, Math.max(0, items.length - 1));
    for (const each of drawn.values()) each.remove();
    drawn.clear();
    draw();
  }

  function rowAt(y) { // the last one that begins at or above it
    let [low, high] = [0, rows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  const rowOf = (place) => rows.findIndex((row) => !row.group && row.from <= place && place < row.to);

  function draw() {
    if (!rows.length) return;
    const offset = -grid.getBoundingClientRect().top;
    const first = rowAt(offset - OVERSCAN);
    const last = rowAt(offset + innerHeight + OVERSCAN);
    for (const [number, each] of drawn) {
      if (number < first || number > last) {
        if (number === rowOf(focused)) continue;
        each.remove();
        drawn.delete(number);
      }
    }
    const wanted = [...Array(last - first + 1)].map((_, index) => first + index);
    const home = rowOf(focused); // Tab comes to it from anywhere
    if (home >= 0 && home < first) wanted.unshift(home);
    if (home > last) wanted.push(home);
    let next = null; // in the order of the rows, for those who hear them
    for (const number of wanted.reverse()) {
      if (!drawn.has(number)) {
        drawn.set(number, rowElement(number));
        grid.insertBefore(drawn.get(number), next);
      }
      next = drawn.get(number);
    }
  }

  function rowElement(number) {
    const row = rows[number];
    const made = element("div", { role: "row", className: row.group ? "heading" : "row", "aria-rowindex": number + 1 });
    made.style.transform = `translateY(${row.top}px)`;
    if (row.group) {
      const { name, only, count: many } = row.group;
      const text = [element("bdi", {}, shown(name)), " ", element("span", { className: "count" }, many.toLocaleString("en"))];
      made.append(element("div", { role: "gridcell", "aria-colspan": columns }, element("h2", {}, only && state.only !== only
        ? element("button", { type: "button", onclick: () => {
          choose({ only });
          find("clear").focus();
        } }, ...text) : element("span", {}, ...text))));
    } else {
      for (let place = row.from; place < row.to; place += 1) made.append(tile(place));
    }
    return made;
  }

  function tile(place) {
    const photo = items[place];
    const label = photo.best ? shown(photo.best.short) : photo.error ? shown(photo.error[1]) : "no label";
    const spoken = [label, shownScore(photo), photo.truth && `truth: ${shown(photo.truth.text)}`,
      photo.right === false ? "mistake" : "", photo.error ? "failed" : "", shown(photo.path)].filter(Boolean).join(", ");
    const button = element("button", { type: "button", className: "tile", tabIndex: place === focused ? 0 : -1,
      "aria-label": spoken, title: shown(photo.path), onclick: () => open(place) });
    button.dataset.place = place;
    button.classList.toggle("failed", photo.status === "failed");
    button.classList.toggle("wrong", photo.right === false);
    button.append(photo.small
      ? element("img", { alt: "", decoding: "async", draggable: false, src: photo.small, onerror: gone })
      : element("span", { className: "none" }, photo.error ? "✕" : photo.url ? "on the web" : "no picture"));
    button.append(element("span", { className: "label" }, element(photo.right === false ? "s" : "bdi", {}, label),
      ...(photo.right === false ? [" ", element("span", { className: "count" }, shownScore(photo))] : [])));
    button.append(element("span", { className: "score" }, ...(photo.right === false
      ? ["truth: ", element("bdi", {}, shown(photo.truth.short))] : [shownScore(photo) || nameOf(photo.path)])));
    return element("div", { role: "gridcell" }, button);
  }

  function gone(event) { // a thumbnail that is not where the page looks for it
    event.target.replaceWith(element("span", { className: "none" }, "no picture"));
  }

  function focus(place) {
    if (!items.length) return;
    const to = Math.max(0, Math.min(items.length - 1, place));
    const [row, box] = [rows[rowOf(to)], grid.getBoundingClientRect()];
    const header = find("controls").getBoundingClientRect().bottom;
    if (box.top + row.top < header) scrollBy({ top: box.top + row.top - header - GAP, behavior: "instant" });
    else if (box.top + row.top + row.height > innerHeight) {
      scrollBy({ top: box.top + row.top + row.height - innerHeight, behavior: "instant" });
    }
    draw();
    grid.querySelector('.tile[tabindex="0"]')?.setAttribute("tabindex", -1);
    focused = to;
    const button = grid.querySelector(`.tile[data-place="${to}"]`);
    button.tabIndex = 0;
    button.focus({ preventScroll: true });
  }

  grid.addEventListener("focusin", (event) => {
    const place = event.target.dataset.place;
    if (place === undefined || Number(place) === focused) return;
    grid.querySelector('.tile[tabindex="0"]')?.setAttribute("tabindex", -1);
    focused = Number(place);
    event.target.tabIndex = 0;
  });

  grid.addEventListener("keydown", (event) => {
    if (event.target.dataset.place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(innerHeight / (side + CAPTION + GAP)) - 1);
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -items.length, End: items.length, PageUp: -columns * page,
      PageDown: columns * page };
    let to = focused + steps[event.key];
    if (event.key === "ArrowUp" || event.key === "ArrowDown") to = besides(event.key === "ArrowUp" ? -1 : 1);
    if (Number.isNaN(to)) return;
    event.preventDefault();
    focus(to);
  });

  function besides(step) { // the item above or below the focused one
    const tiles = rows.filter((row) => !row.group);
    const at = tiles.findIndex((row) => row.from <= focused && focused < row.to);
    const row = tiles[at + step];
    return row ? Math.min(row.from + focused - tiles[at].from, row.to - 1) : focused;
  }

  // ---- the large view

  const dialog = find("large");
  let opened = 0; // the item in it

  function open(place) {
    opened = place;
    const photo = items[place];
    find("large-name").textContent = nameOf(photo.path);
    find("large-place").textContent = `${(place + 1).toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
    find("previous").disabled = place === 0;
    find("next").disabled = place === items.length - 1;
    explained = photo.labels.findIndex(([, , map]) => map);
    showImage(photo);
    const note = [];
    if (photo.truth) {
      note.push(photo.right ? "Right: " : photo.error ? "Truth: " : "Mistake. The truth: ", element("strong", {}, shown(photo.truth.text)));
      if (photo.right === false && photo.rank) {
        const isConcept = photo.labels[photo.rank - 1]?.[0] !== photo.truth.number;
        note.push(isConcept ? `, of which its label number ${photo.rank} is a kind` : `, which is its label number ${photo.rank}`);
      }
    }
    if (photo.match !== undefined) note.push(`Score of the search: ${shownScore(photo)}`);
    find("large-note").replaceChildren(...note);
    const list = photo.labels.map(([number, score, map], which) => {
      const bar = element("span", { className: "meter" }, element("span"));
      bar.firstChild.style.width = `${Math.max(0, Math.min(100, 100 * score))}%`;
      const name = element("bdi", { className: "label" }, shown(labels[number].text));
      const item = element("li", {}, element("span", { className: "score" }, percent(score)), bar,
        map ? element("button", { type: "button", title: "Where it comes from", "data-key": which, onclick: () => explain(which) }, name) : name);
      item.classList.toggle("true", photo.truth !== undefined && isTrue(labels[number], photo.truth));
      return item;
    });
    keepingFocus(find("large-labels"), () => find("large-labels").replaceChildren(...list));
    drawLegend();
    find("large-error").textContent = photo.error ? `${photo.error[0]}: ${shown(photo.error[1])}`
      : photo.labels.length ? "" : "It has no label: none reached the least score.";
    find("large-remarks").replaceChildren(...(photo.remarks ?? []).map((remark) => element("li", {}, shown(remark))));
    find("large-path").textContent = shown(photo.path);
    find("copy").textContent = "Copy path";
    const link = photo.url ?? photo.href;
    find("large-open").hidden = !link;
    if (link) find("large-open").href = link;
    if (!dialog.open) dialog.showModal();
  }

  function showImage(photo) {
    const [image, missing] = [find("large-image"), find("large-missing")];
    image.hidden = !photo.small;
    image.alt = photo.best ? shown(photo.best.text) : "";
    missing.textContent = photo.small ? "" : shown(photo.missing ?? "") || (photo.error ? "It could not be shown." : "");
    find("map").hidden = true; // until the image is there
    if (photo.small) image.src = photo.small;
    else image.removeAttribute("src");
    if (!photo.href) return;
    const large = new Image(); // in the place of the thumbnail once it is there, if the browser can show it
    large.onload = () => {
      if (items[opened] !== photo) return;
      [image.src, image.hidden, missing.textContent] = [large.src, false, ""];
    };
    large.src = photo.href;
  }

  const turn = (step) => {
    if (items[opened + step]) open(opened + step);
  };
  find("previous").onclick = () => turn(-1);
  find("next").onclick = () => turn(1);
  find("close").onclick = () => dialog.close();
  dialog.onclick = (event) => { // beside it
    if (event.target === dialog) dialog.close();
  };
  dialog.onclose = () => focus(opened);
  document.addEventListener("keydown", (event) => { // wherever the keyboard is: what it was at may have gone
    if (!dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
    if (event.key === "m" && !find("where").hidden) explain(explained);
  });

  find("copy").onclick = async () => {
    const text = items[opened].shell ?? items[opened].path;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed here: as it was done before there was that
      const area = element("textarea", { value: text });
      dialog.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    find("copy").textContent = "Copied";
  };

  // ---- where a label comes from: a map over what the model sees of the photo

  const PLACES = 7; // rows and columns of a map
  const MAP_SIDE = 32 * PLACES; // pixels
  const SEEN = 224 / 256; // of the short side: a square in the middle
  let showsMap = false;
  let explained = -1; // which label of the opened photo

  function explain(which) { // show its map, or if that is shown, no more
    showsMap = !(showsMap && explained === which);
    explained = which;
    drawLegend();
    drawMap();
  }

  const rounded = (number) => (Math.round(100 * number) / 100 + 0).toFixed(2).replace("-", "−");

  function drawLegend() {
    const [, , map] = items[opened].labels[explained] ?? [];
    find("where").hidden = !map || find("large-image").hidden;
    find("where-from").setAttribute("aria-pressed", showsMap);
    find("legend").hidden = !showsMap;
    [...find("large-labels").children].forEach((item, which) => {
      item.querySelector("button")?.setAttribute("aria-pressed", showsMap && which === explained);
    });
    if (!map) return;
    const [logit, constant, low, high] = map;
    const places = rounded(logit - constant);
    const rest = rounded(Math.round(100 * logit) / 100 - Math.round(100 * (logit - constant)) / 100); // it adds up as shown
    const sum = `${rounded(logit)} = ${rest} ${places.startsWith("−") ? `− ${places.slice(1)}` : `+ ${places}`}`;
    find("added").textContent = `Bright places speak for the label: each adds ${rounded(low)} to ${rounded(high)} to the logit ${sum.replaceAll(" ", "\u00a0")}`;
    const scale = new ImageData(256, 1);
    for (let value = 0; value < 256; value += 1) paint(scale, value, value);
    find("scale").getContext("2d").putImageData(scale, 0, 0);
  }

  const paint = (image, pixel, value) => image.data.set([...colours.subarray(3 * value, 3 * value + 3), 255], 4 * pixel);

  function drawMap() {
    const [canvas, image] = [find("map"), find("large-image")];
    const [number, , map] = items[opened].labels[explained] ?? [];
    canvas.hidden = !showsMap || !map || image.hidden || !image.naturalWidth;
    if (canvas.hidden) return;
    const terms = bytesOf(map[4]);
    const most = terms.indexOf(Math.max(...terms));
    canvas.setAttribute("aria-label", `Where ${shown(labels[number].text)} comes from: most from row ${
      Math.floor(most / PLACES) + 1}, column ${most % PLACES + 1} of ${PLACES}`);
    // Each term in the middle of its place, and evenly from one to the next: [the place before, how far behind it].
    const at = [...Array(MAP_SIDE).keys()].map((pixel) => {
      const place = Math.min(PLACES - 1, Math.max(0, ((pixel + 0.5) * PLACES) / MAP_SIDE - 0.5));
      const before = Math.min(PLACES - 2, Math.floor(place));
      return [before, place - before];
    });
    const drawn = new ImageData(MAP_SIDE, MAP_SIDE);
    const mean = (one, other, share) => one * (1 - share) + other * share;
    at.forEach(([row, down], y) => at.forEach(([column, right], x) => {
      const across = (place) => mean(terms[place], terms[place + 1], right);
      const first = row * PLACES + column;
      paint(drawn, y * MAP_SIDE + x, Math.round(mean(across(first), across(first + PLACES), down)));
    }));
    [canvas.width, canvas.height] = [MAP_SIDE, MAP_SIDE];
    canvas.getContext("2d").putImageData(drawn, 0, 0);
    placeMap();
  }

  function placeMap() {
    const [canvas, image] = [find("map"), find("large-image")];
    if (canvas.hidden) return;
    const { clientWidth, clientHeight } = image;
    const scale = Math.min(clientWidth / image.naturalWidth, clientHeight / image.naturalHeight);
    const length = `${SEEN * scale * Math.min(image.naturalWidth, image.naturalHeight)}px`;
    [canvas.style.width, canvas.style.height] = [length, length];
  }

  find("where-from").onclick = () => explain(explained);
  find("large-image").onload = () => {
    drawLegend();
    drawMap();
  };
  new ResizeObserver(later(placeMap)).observe(find("large-image"));

  // ---- the confusion matrix

  function drawMatrix() {
    const cells = new Map(); // truth → answer → photos
    const mistakes = new Map(); // label → mistakes that it has a part in
    for (const photo of left) {
      if (!photo.truth || !photo.best) continue;
      // A concept is the truth of all its classes: what is right is counted as it.
      const [truth, answer] = [photo.truth.number, photo.right ? photo.truth.number : photo.best.number];
      if (!cells.has(truth)) cells.set(truth, new Map());
      cells.get(truth).set(answer, (cells.get(truth).get(answer) ?? 0) + 1);
      if (!photo.right) for (const each of [truth, answer]) mistakes.set(each, (mistakes.get(each) ?? 0) + 1);
    }
    const classes = [...mistakes].sort((a, b) => b[1] - a[1]).slice(0, MOST_CLASSES).map(([number]) => number);
    classes.sort((a, b) => collator.compare(labels[a].text, labels[b].text));
    const most = Math.max(1, ...[...cells].flatMap(([truth, answers]) => [...answers].map(([answer, many]) => truth === answer ? 0 : many)));
    find("confusions-about").textContent = !mistakes.size ? "There are no mistakes here."
      : `Truth in rows, answers in columns: ${mistakes.size > MOST_CLASSES
        ? `the ${MOST_CLASSES} of ${mistakes.size} classes with the most mistakes` : "the classes with mistakes"}.`;
    find("matrix").hidden = !mistakes.size;
    const head = element("tr", {}, element("td"), ...classes.map((number) =>
      element("th", { scope: "col", title: shown(labels[number].text) }, element("span", {}, shown(labels[number].short)))));
    const body = classes.filter((truth) => cells.has(truth)).map((truth) => element("tr", {}, element("th", { scope: "row", title: shown(labels[truth].text) },
      shown(labels[truth].short)), ...classes.map((answer) => cell(truth, answer, cells.get(truth)?.get(answer) ?? 0, most))));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
    keepingFocus(find("matrix"), () => find("matrix").replaceChildren(table));
  }

  function cell(truth, answer, many, most) {
    const made = element("td", { className: truth === answer ? "right" : "" });
    if (!many) return made;
    const only = truth === answer ? `right:${truth}` : `confusion:${truth}:${answer}`;
    const button = element("button", { type: "button", "aria-pressed": state.only === only, "data-key": only, onclick: () => {
      choose({ only: state.only === only ? "" : only });
      find("told").scrollIntoView({ block: "nearest" });
    }, "aria-label": `${many}: truth ${shown(labels[truth].short)}, answer ${shown(labels[answer].short)}` }, String(many));
    if (truth !== answer) made.style.setProperty("--share", many / most);
    made.append(button);
    return made;
  }

  // ---- the beginning

  function about() {
    const failed = photos.filter((photo) => photo.error).length;
    const answered = photos.filter((photo) => photo.right !== undefined);
    const right = answered.filter((photo) => photo.right).length;
    const parts = [...models.map(shown), count(photos.length, "photo")];
    if (failed) parts.push(`${failed.toLocaleString("en")} failed`);
    if (answered.length) {
      parts.push(`${percent(right / answered.length)} right (${right.toLocaleString("en")} of ${answered.length.toLocaleString("en")})`);
    }
    find("about").textContent = parts.join(" · ");
    const ends = [...document.querySelectorAll("script.end")].map((each) => JSON.parse(each.textContent));
    const end = ends.at(-1);
    find("notice").hidden = end?.complete === true;
    find("notice").textContent = end ? "The run was ended before its time: this is what was done."
      : "The run that writes this page has not ended, or was killed: reload it to see more.";
  }

  const withCount = ([name, [text, test]]) => {
    const many = photos.filter(test).length;
    return name === "all" || many ? [[name, `${text} (${many.toLocaleString("en")})`]] : [];
  };
  fill(find("status"), Object.entries(STATUSES).flatMap(withCount));
  fill(find("sort"), Object.entries(SORTS).map(([name, [text]]) => [name, text]));
  fill(find("group"), Object.entries(GROUPS));
  find("tabs").hidden = !hasConcepts;
  find("side").open = !narrow.matches;
  find("confusions").hidden = !hasTruth;
  find("confusions").addEventListener("toggle", () => {
    if (find("confusions").open) drawMatrix();
    draw();
  });
  narrow.addEventListener("change", () => {
    find("side").open = !narrow.matches;
  });

  find("words").addEventListener("input", later(() => choose({ words: find("words").value })));
  find("least").addEventListener("input", later(() => choose({ least: Number(find("least").value) })));
  for (const id of ["status", "sort", "group"]) find(id).onchange = () => choose({ [id]: find(id).value });
  find("controls").onsubmit = (event) => event.preventDefault();
  find("by-label").onclick = () => choose({ by: "label" });
  find("by-concept").onclick = () => choose({ by: "concept" });
  find("clear").onclick = () => choose({ only: "" });
  find("reset").onclick = () => {
    find("words").value = "";
    choose({ ...start });
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !dialog.open && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      find("words").focus();
      find("words").select();
    }
    if (event.key === "Escape" && event.target === find("words")) choose({ words: (find("words").value = "") });
    const first = ["ArrowDown", "Enter"].includes(event.key) && event.target === find("words");
    const fresh = event.key.startsWith("Arrow") && event.target === document.body && !dialog.open;
    if (first || fresh) {
      event.preventDefault();
      focus(focused);
    }
  });
  addEventListener("scroll", later(draw), { passive: true });
  addEventListener("hashchange", () => {
    readHash();
    update();
  });
  new ResizeObserver(later(() => { // of the window, or of what is beside
    if (grid.clientWidth !== width) layOut();
  })).observe(grid);

  about();
  readHash();
  update();
  document.documentElement.dataset.ready = "true";
});
