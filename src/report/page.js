"use strict";
// Shows the data of the page. All text goes through `textContent`: none of it is ever parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const content = document.getElementById("content");
  const SHOWN_HITS = 10;
  const SHOWN_EXAMPLES = 50;
  const SHOWN_SOURCES = 8;
  const SHOWN_PLACES = 6;
  const FOLD_LENGTH = 320;
  const FOLD_LINES = 6;

  /** An element with attributes, listeners (`onclick`, ...) and children. */
  function make(name, attributes = {}, ...children) {
    const isDrawing = ["svg", "rect", "line", "title"].includes(name);
    const element = isDrawing
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const button = (label, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, label);
  const integer = new Intl.NumberFormat("en");
  const count = (number, one, many = one + "s") => `${integer.format(number)} ${number === 1 ? one : many}`;
  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
  const status = (text) => { document.getElementById("status").textContent = text; };
  const clear = (element) => element.replaceChildren();

  /** A number with three digits, as people write it. */
  function plain(number) {
    const size = Math.abs(number);
    if (size === 0) return "0";
    let text = size.toExponential(2).replace("e+", "e").replace("e-", "e−");
    if (size >= 1e-3 && size < 1e5) text = size < 999.5 ? size.toPrecision(3) : size.toFixed(0);
    return (number < 0 ? "−" : "") + text;
  }

  /** A score with its sign. */
  function signed(number) {
    if (number === null) return "not a number";
    return (number > 0 ? "+" : "") + plain(number);
  }

  /** Colours an element by a level from -1 to 1. */
  function colour(element, level) {
    if (level !== 0) {
      element.classList.add(level > 0 ? "raises" : "lowers");
      element.style.setProperty("--depth", Math.abs(level));
    }
    return element;
  }

  /** The blanks before a token stand outside of its colour. */
  const leadingBlank = (text) => text.slice(0, text.length - text.trimStart().length);

  const wholeText = (node) => make("span", { class: "text", dir: "auto" }, node);

  /** A text; a long one folded, with a button for the rest. */
  function foldable(text) {
    const lines = text.split("\n");
    const short = lines.length > FOLD_LINES ? lines.slice(0, FOLD_LINES).join("\n") : text;
    if (short.length <= FOLD_LENGTH && short === text) return make("p", { class: "text", dir: "auto" }, text);
    // Cut between characters: not within a pair of surrogates, and at a blank if one is near.
    let end = Math.min(short.length, FOLD_LENGTH);
    const blank = short.lastIndexOf(" ", end);
    if (end < short.length && blank > end - 40) end = blank;
    if (/[\uD800-\uDBFF]/.test(short[end - 1])) end -= 1;
    const folded = short.slice(0, end) + " …";
    const shown = wholeText(folded);
    const toggle = button("more", () => {
      const isOpen = toggle.getAttribute("aria-expanded") === "true";
      shown.textContent = isOpen ? folded : text;
      toggle.textContent = isOpen ? "more" : "less";
      toggle.setAttribute("aria-expanded", String(!isOpen));
    }, { class: "fold", "aria-expanded": "false" });
    return make("div", {}, make("p", { class: "text" }, shown), toggle);
  }

  /** Appends items to a list, `step` at a time, with a button for more. Returns a function that shows at least `n`. */
  function growing(list, after, items, step, render) {
    let shown = 0;
    const showMore = button("", () => {
      const first = shown;
      grow(shown + step);
      const next = list.children[first];
      (next?.matches("button") ? next : next?.querySelector("button"))?.focus();
    }, { class: "pill more" });
    function grow(target) {
      for (; shown < Math.min(target, items.length); shown += 1) list.append(render(items[shown], shown));
      showMore.hidden = shown >= items.length;
      showMore.textContent = `Show ${integer.format(Math.min(step, items.length - shown))} more of ${integer.format(items.length)}`;
    }
    after.append(showMore);
    grow(step);
    return grow;
  }

  const sourceName = (source) => (source === undefined || source === null ? "no source" : data.sources[source]);
  const lowered = new Map();
  function haystack(number) {
    if (!lowered.has(number)) {
      const example = data.examples[number];
      lowered.set(number, `${example.id}\n${example.text ?? ""}`.toLowerCase());
    }
    return lowered.get(number);
  }
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  const outputCount = data.sections.reduce((sum, section) => sum + section.outputs.length, 0);

  // Where examples stand: for each, the outputs and tokens whose rankings name it.
  const places = data.examples.map(() => []);
  const exampleSources = data.examples.map(() => new Set());
  function note(ranking, label, choose) {
    if (!ranking) return;
    const seen = new Set();
    for (const hit of [...ranking.proponents, ...ranking.opponents]) {
      if (hit.source !== undefined) exampleSources[hit.example].add(hit.source);
      if (seen.has(hit.example)) continue;
      seen.add(hit.example);
      const level = ranking.strongest > 0 ? Math.abs(hit.score) / ranking.strongest : 0;
      places[hit.example].push({ label, score: hit.score, level, choose });
    }
  }

  /** One example in a ranking. */
  function hitItem(hit, ranking) {
    const example = data.examples[hit.example];
    const level = ranking.strongest > 0 && hit.score !== null ? hit.score / ranking.strongest : 0;
    const fill = colour(make("span"), Math.sign(level));
    fill.style.width = `${100 * Math.abs(level)}%`;
    let text;
    if (hit.pieces) {
      text = make("p", { class: "text", dir: "auto" });
      for (const piece of hit.pieces) {
        const blank = leadingBlank(piece.text);
        const shown = make("span", { class: "token" }, piece.text.slice(blank.length));
        if (piece.influence) shown.title = `influence ${signed(piece.influence)}`;
        text.append(blank, colour(shown, piece.level));
      }
    } else if (example.text === null) {
      text = make("p", { class: "text muted" }, "The report has no text of this example.");
    } else {
      text = foldable(example.text);
    }
    return make("li", { class: "hit" },
      make("div", { class: "meta" },
        make("span", { class: "score" }, signed(hit.score)),
        hit.source === undefined ? null : make("span", { class: "source" }, sourceName(hit.source)),
        hit.span ? make("span", {}, `tokens ${integer.format(hit.span[0])} to ${integer.format(hit.span[1])}`) : null,
        button(example.id, () => goToExample(hit.example), { class: "id", title: "Find this example in the list of all" })),
      make("div", { class: "meter", "aria-hidden": "true" }, fill),
      text);
  }

  /** Bars of counts, and where 0 is. */
  function histogramFigure(ranking) {
    const { first, width, counts, heights, logarithmic, leftOut } = ranking.histogram;
    const all = counts.reduce((sum, each) => sum + each, 0);
    let caption = `Rows by their score: ${count(all, "row")}`;
    if (!ranking.ofAllRows) caption += " of this ranking; those between its two ends were not kept";
    if (width === 0 && all > 0) caption += `; all have ${signed(first)}`;
    if (logarithmic) caption += "; heights are logarithms";
    if (leftOut > 0) caption += `; ${count(leftOut, "score")} not finite, left out`;
    caption += ".";
    const title = make("h4", {}, "Distribution of influence");
    if (width === 0) return make("figure", {}, title, make("figcaption", {}, caption));
    const edge = (bin) => first + bin * width;
    const last = edge(counts.length);
    const svg = make("svg", {
      class: "histogram", viewBox: `0 0 ${counts.length} 100`, preserveAspectRatio: "none", role: "img",
      "aria-label": `Distribution of scores between ${signed(first)} and ${signed(last)}`,
    });
    counts.forEach((each, bin) => {
      if (each === 0) return;
      const height = Math.max(2, 100 * heights[bin]);
      svg.append(make("rect", {
        class: edge(bin) < 0 ? "down" : "up", x: bin + 0.06, width: 0.88, y: 100 - height, height,
      }, make("title", {}, `${count(each, "row")} from ${signed(edge(bin))} to ${signed(edge(bin + 1))}`)));
    });
    svg.append(make("line", { x1: 0, x2: counts.length, y1: 100, y2: 100 }));
    const axis = make("div", { class: "axis", "aria-hidden": "true" }, make("span", {}, signed(first)));
    const zero = -first / (last - first);
    if (zero > 0.12 && zero < 0.88) {
      const mark = make("span", { class: "zero" }, "0");
      mark.style.left = `${100 * zero}%`;
      axis.append(mark);
    }
    axis.append(make("span", {}, signed(last)));
    return make("figure", {}, title, svg, axis, make("figcaption", {}, caption));
  }

  /** How much of the influence comes from which source; a choice of one filters the ranking. */
  function sharesFigure(ranking, view) {
    if (ranking.shares.length === 0 || data.sources.length === 0) return null;
    const list = make("ul", { class: "shares" });
    const figure = make("figure", {}, make("h4", {}, "Shares of sources"), list);
    growing(list, figure, ranking.shares, SHOWN_SOURCES, ({ source, raises, lowers }) => {
      const bar = (share) => {
        const fill = make("span");
        fill.style.width = `${100 * share}%`;
        return make("span", { class: "half" }, fill);
      };
      const side = ({ share, rows }) => `${percent(share)}, ${count(rows, "row")}`;
      return make("li", {}, make("button", {
        type: "button", class: "share", "aria-pressed": String(view.source === source),
        onclick: () => {
          view.source = view.source === source ? undefined : source;
          view.update();
        },
        "data-source": String(source),
      },
      make("span", { class: "name" }, sourceName(source)),
      make("span", { class: "pair", "aria-hidden": "true" }, bar(lowers.share), bar(raises.share)),
      make("span", { class: "numbers" },
        make("span", {}, `lowers ${side(lowers)}`), make("span", {}, `raises ${side(raises)}`))));
    });
    figure.append(make("figcaption", {},
      "Of all scores of this ranking that are above 0, and of all below. Choose a source to see its examples alone."));
    return figure;
  }

  /** What stands on the right of an output: two lists of examples, which a search and a source filter. */
  function hitsView(behind) {
    const head = make("h3", { tabindex: "-1" });
    const found = make("span", { class: "hint muted", role: "status" });
    const lists = make("div", { class: "sides" });
    const search = make("input", {
      type: "search", placeholder: "Filter these examples", "aria-label": "Filter these examples by text, source or id",
      oninput: () => view.update(), autocomplete: "off", spellcheck: "false",
    });
    const unfilter = button("", () => { view.source = undefined; view.update(); }, { class: "pill" });
    const find = make("div", { class: "find" }, search, unfilter, found);
    const whole = button("Whole output", () => view.onwhole(), { class: "pill" });
    behind.append(make("div", { class: "panel-head" }, head, whole), find, lists);
    const view = { source: undefined, ranking: null, shares: null, head, whole, onwhole: () => {} };
    view.matches = (hit) => {
      if (view.source !== undefined && (hit.source ?? null) !== view.source) return false;
      const source = sourceName(hit.source).toLowerCase();
      return words(search.value).every((word) => haystack(hit.example).includes(word) || source.includes(word));
    };
    view.update = () => {
      clear(lists);
      const { ranking } = view;
      const isFiltered = view.source !== undefined || words(search.value).length > 0;
      unfilter.hidden = view.source === undefined;
      unfilter.textContent = view.source === undefined ? "" : `${sourceName(view.source)} ×`;
      unfilter.setAttribute("aria-label", `Show all sources, not only ${unfilter.textContent}`);
      for (const share of view.shares?.querySelectorAll(".share") ?? []) {
        share.setAttribute("aria-pressed", String(share.dataset.source === String(view.source)));
      }
      if (!ranking) {
        find.hidden = true;
        lists.append(make("p", { class: "muted" }, "Nothing was ranked for this output."));
        return;
      }
      const all = ranking.proponents.length + ranking.opponents.length;
      find.hidden = all < 2;
      let kept = 0;
      const side = (title, hits) => {
        const matching = hits.filter(view.matches);
        kept += matching.length;
        const list = make("ol", { class: "hits" });
        const column = make("section", { "aria-label": title }, make("h4", {}, `${title} (${integer.format(matching.length)})`), list);
        if (matching.length === 0) {
          column.append(make("p", { class: "muted" }, hits.length > 0 ? "None of these matches." : "None in this report."));
        } else {
          growing(list, column, matching, SHOWN_HITS, (hit) => hitItem(hit, ranking));
        }
        lists.append(column);
      };
      side("Proponents: raise it most", ranking.proponents);
      side("Opponents: lower it most", ranking.opponents);
      found.textContent = isFiltered ? `${integer.format(kept)} of ${integer.format(all)}` : "";
    };
    return view;
  }

  /** A token in a line of text, which must not be empty. */
  const shownToken = ({ text }) => text.trim() || (text.includes("\n") ? "⏎" : "␣");

  function legend(scale) {
    const strip = make("div", { class: "scale", "aria-hidden": "true" });
    for (let step = -10; step <= 10; step += 1) strip.append(colour(make("span"), step / 10));
    const numbers = make("div", { class: "numbers" });
    for (const at of [-1, -0.5, 0, 0.5, 1]) numbers.append(make("span", {}, signed(at * scale)));
    return make("div", { class: "legend" }, strip, numbers,
      make("div", { class: "hint muted" }, "A token's colour is its strongest influence: blue, with a broken line, lowers it; orange, with a full line, raises it."));
  }

  function pairsList(pairs, name) {
    const list = make("dl", { class: name });
    for (const [key, value] of pairs) list.append(make("dt", {}, key), make("dd", { class: "text", dir: "auto" }, value));
    return list;
  }

  /** An output with its tokens, and what is behind the chosen one. */
  function outputArticle(output, number) {
    const behind = make("div", { class: "behind", id: `output-${number}-behind` });
    const stays = make("div", { class: "stays" });
    const figures = make("div");
    const view = hitsView(behind);
    const label = `Output ${number + 1}`;
    const tokens = make("p", { class: "tokens text", role: "group", dir: "auto", "aria-label": `${label}: tokens` });
    const choices = [];
    let chosen = -1;

    function choose(index, isQuiet) {
      chosen = index;
      const choice = choices[index];
      for (const each of choices) each.element.setAttribute("aria-pressed", String(each === choice));
      view.whole.hidden = choices.length === 0 || !output.ranking;
      view.whole.setAttribute("aria-pressed", String(!choice));
      view.ranking = choice ? choice.token.ranking : output.ranking;
      clear(view.head);
      if (choice) view.head.append("Behind ", wholeText(`“${shownToken(choice.token)}”`), `, token ${choice.place + 1} of ${output.tokens.length}`);
      else view.head.append("Behind the whole output");
      clear(figures);
      view.shares = null;
      if (view.ranking) {
        // A source that this ranking lacks would hide all of it.
        if (!view.ranking.shares.some(({ source }) => source === view.source)) view.source = undefined;
        view.shares = sharesFigure(view.ranking, view);
        figures.append(histogramFigure(view.ranking));
        if (view.shares) figures.append(view.shares);
      }
      view.update();
      if (!isQuiet) {
        status(view.head.textContent);
        // Where the two stand below each other, the examples would come out of sight.
        if (choice && matchMedia("(max-width: 63.99rem)").matches) view.head.scrollIntoView({ block: "start" });
      }
    }

    /** Which token Tab reaches: one of them, the others by arrows. */
    function reach(index) {
      choices.forEach((each, at) => { each.element.tabIndex = at === index ? 0 : -1; });
    }

    output.tokens.forEach((token, place) => {
      const blank = leadingBlank(token.text);
      const rest = token.text.slice(blank.length);
      const name = (rest ? "token" : "token blank") + (token.marked ? " marked" : "");
      if (rest) tokens.append(blank);
      const text = rest || shownToken(token);
      if (!token.ranking) {
        tokens.append(make("span", { class: name }, text));
      } else {
        const index = choices.length;
        // Not a <button>: browsers do not break one over lines, as they do text.
        const element = colour(make("span", {
          role: "button", class: name, "aria-pressed": "false", tabindex: index === 0 ? 0 : -1, "aria-controls": behind.id,
          title: `strongest influence ${signed(token.influence)}`,
          "aria-label": `${text}, strongest influence ${signed(token.influence)}${token.marked ? ", marked" : ""}`,
          onclick: () => choose(chosen === index ? start : index),
        }, text), token.level);
        choices.push({ element, token, place });
        tokens.append(element);
      }
      if (!rest) tokens.append(token.text);
    });
    if (output.tokens.length === 0) tokens.append(output.answer);

    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    tokens.addEventListener("keydown", (event) => {
      const at = choices.findIndex(({ element }) => element === event.target);
      if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") {
        choices[at].element.click();
      } else if (event.key in steps) {
        const next = Math.min(choices.length - 1, Math.max(0, at + steps[event.key]));
        reach(next);
        choices[next].element.focus();
      } else {
        return;
      }
      event.preventDefault();
    });
    // Without a ranking of the whole, the token with the strongest influence stands for it.
    const strongest = choices.reduce((best, { token }, at) => (Math.abs(token.level) > Math.abs(choices[best].token.level) ? at : best), 0);
    const start = output.ranking || choices.length === 0 ? -1 : strongest;
    view.onwhole = () => choose(start);

    if (outputCount > 1) stays.append(make("p", { class: "hint muted" }, `${label} of ${outputCount}`));
    if (output.prompt !== null) stays.append(make("p", { class: "prompt" }, make("span", { class: "role" }, "Asked"), wholeText(output.prompt)));
    stays.append(make("span", { class: "role" }, "Said"), tokens);
    if (output.facts.length > 0) stays.append(pairsList(output.facts, "facts"));
    if (choices.length > 0) {
      stays.append(legend(output.scale), make("p", { class: "hint muted keys" },
        make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " move between tokens, ", make("kbd", {}, "Enter"), " chooses one, ",
        make("kbd", {}, "Esc"), " returns to the whole."));
    }
    stays.append(figures);
    const article = make("article", {
      class: "output", "aria-label": label,
      onkeydown: (event) => {
        // In the search field Esc empties the field, as browsers do.
        if (event.key !== "Escape" || event.target.type === "search" || chosen === start) return;
        choose(start);
      },
    }, make("div", { class: "said" }, stays), behind);

    const show = (index) => () => {
      choose(index);
      article.scrollIntoView({ block: "start" });
      view.head.focus({ preventScroll: true });
    };
    note(output.ranking, `${label}, whole`, show(-1));
    choices.forEach(({ token }, index) => note(token.ranking, `${label}, “${shownToken(token)}”`, show(index)));
    choose(start, true);
    return article;
  }

  function tableRegion(table) {
    // Long names may break behind a sign, so that columns can be as narrow as their numbers.
    const broken = (name) => name.split(/(?<=[@/_-])/).flatMap((part, at) => (at === 0 ? [part] : [make("wbr"), part]));
    const head = make("tr", {}, ...table.columns.map((column) => make("th", { scope: "col" }, ...broken(column))));
    const body = make("tbody");
    for (const row of table.rows) {
      body.append(make("tr", {}, ...row.map((cell, at) => {
        if (at === 0) return make("th", { scope: "row" }, cell.text);
        const element = make("td", { class: (cell.fill === null ? "" : "fill") + (cell.best ? " best" : "") }, cell.text);
        if (cell.fill !== null) {
          const fill = make("span", { "aria-hidden": "true" });
          fill.style.width = `${100 * cell.fill}%`;
          element.append(fill);
        }
        return element;
      })));
    }
    return make("figure", { class: "frame" }, make("figcaption", { class: "text" }, table.caption),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.caption },
        make("table", {}, make("thead", {}, head), body)));
  }

  let outputs = 0;
  const nav = document.getElementById("nav");
  const headings = [];
  function heading(parent, text, id) {
    parent.append(make("h2", { id, tabindex: "-1" }, text));
    headings.push([text, id]);
  }
  data.sections.forEach((section, number) => {
    const element = make("section");
    if (section.title) heading(element, section.title, `section-${number}`);
    if (section.text) element.append(make("p", {}, section.text));
    for (const table of section.tables) element.append(tableRegion(table));
    for (const output of section.outputs) {
      element.append(outputArticle(output, outputs));
      outputs += 1;
    }
    content.append(element);
  });

  // All examples, which a search filters.
  let goToExample = () => {};
  if (data.examples.length > 0) {
    const section = make("section");
    heading(section, `Examples (${integer.format(data.examples.length)})`, "examples");
    const found = make("span", { class: "hint muted", role: "status" });
    const search = make("input", {
      type: "search", placeholder: "Search all examples", "aria-label": "Search all examples by text, source or id",
      autocomplete: "off", spellcheck: "false", oninput: () => list(),
    });
    const holder = make("div");
    section.append(make("p", { class: "muted" }, "Every example that a ranking above names, and where it stands."),
      make("div", { class: "find" }, search, found), holder);
    const item = (number) => {
      const example = data.examples[number];
      const sources = [...exampleSources[number]].map((source) => make("span", { class: "source" }, sourceName(source)));
      const strongest = places[number].sort((a, b) => b.level - a.level);
      const seen = make("div");
      const entry = make("li", { class: "example", tabindex: "-1", id: `example-${number}` },
        make("div", { class: "meta" }, make("span", { class: "id" }, example.id), ...sources),
        example.text === null ? make("p", { class: "text muted" }, "The report has no text of this example.") : foldable(example.text),
        seen);
      const pills = make("div", { class: "seen" });
      seen.append(pills);
      growing(pills, seen, strongest, SHOWN_PLACES, ({ label, score, choose }) =>
        button(`${label}: ${signed(score)}`, choose, { class: "pill" }));
      return entry;
    };
    let grow = () => {};
    let shown = [];
    function list() {
      const wanted = words(search.value);
      shown = data.examples.map((_, number) => number).filter((number) => {
        const sources = [...exampleSources[number]].map((source) => sourceName(source).toLowerCase());
        return wanted.every((word) => haystack(number).includes(word) || sources.some((source) => source.includes(word)));
      });
      found.textContent = wanted.length > 0 ? `${integer.format(shown.length)} of ${integer.format(data.examples.length)}` : "";
      clear(holder);
      if (shown.length === 0) {
        holder.append(make("p", { class: "muted" }, "No example matches."));
        return;
      }
      const examples = make("ul", { class: "examples" });
      holder.append(examples);
      grow = growing(examples, holder, shown, SHOWN_EXAMPLES, item);
    }
    list();
    goToExample = (number) => {
      if (!shown.includes(number)) {
        search.value = "";
        list();
      }
      grow(shown.indexOf(number) + 1);
      const entry = document.getElementById(`example-${number}`);
      entry.scrollIntoView({ block: "center" });
      entry.focus({ preventScroll: true });
    };
    content.append(section);
  }

  const footer = document.getElementById("footer");
  if (data.facts.length > 0 || data.notes.length > 0) {
    heading(footer, "How this was made", "made");
    if (data.facts.length > 0) footer.append(pairsList(data.facts));
    for (const text of data.notes) footer.append(make("p", { class: "muted" }, text));
  }
  if (headings.length > 1) {
    nav.append(...headings.map(([text, id]) => make("a", { href: `#${id}` }, text)));
    nav.hidden = false;
  }

  // In a frame of a notebook, `#made` would be a place of the notebook, which the frame would then load.
  document.addEventListener("click", (event) => {
    const place = event.target.closest?.("a[href^='#']")?.getAttribute("href");
    const target = place && document.getElementById(place.slice(1));
    if (!target) return;
    event.preventDefault();
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  });

  const theme = document.getElementById("theme");
  theme.className = "pill";
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  theme.setAttribute("title", "Light or dark page");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
})();
