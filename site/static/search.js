// The search: it ranks the sections of the site by BM25, in the browser and without a server.
//
// `captokenIndex` is a list of sections: where, title of the page, title of the section, text, and
// words that find it and are not shown. Words of a query that stand in no section are passed over:
// an error has names in it that only its reader knows.
"use strict";

(() => {
  const K = 1.2; // how soon more of the same word counts no more
  const B = 0.6; // how much a long section pays for its length
  const IN_TITLE = 6; // a word of a title counts as so many
  const MOST_PAGES = 20;
  const MOST_OF_A_PAGE = 3;
  const SHOWN = 220; // characters of a section

  // Whole programs, and what stands elsewhere at more length, come after what explains it. The page
  // of errors comes first: its messages have words that are everywhere.
  const WEIGHTS = [
    ["docs/errors.html", 1.5],
    ["docs/assurance.html", 0.5],
    ["docs/glossary.html", 0.6],
    ["docs/issuance", 0.7],
    ["docs/configuration.html", 0.7],
    ["docs/gateway-proxies.html", 0.7],
    ["docs/typescript", 0.7],
    ["docs/live-control.html", 1.5],
    ["docs/recipes.html", 1.3],
    ["examples/", 0.3],
    ["made/how-to-", 0.3],
    ["made/", 0.6],
    ["index.html", 0.5],
    ["README.html", 0.5],
    ["CHANGELOG.html", 0.5],
  ];
  const weightOf = (where) => WEIGHTS.find(([path]) => where.startsWith(path))?.[1] ?? 1;

  // What people type, by its stem, and what the pages say in place of it.
  const SYNONYMS = {
    asyncio: ["async"],
    auth: ["verify"],
    crewai: ["agents"],
    expire: ["expired"],
    expired: ["expires_in"],
    flask: ["django"],
    install: ["pip"],
    javascript: ["typescript"],
    js: ["typescript"],
    kill: ["stop"],
    langgraph: ["langchain"],
    limit: ["budget"],
    log: ["trail"],
    performance: ["speed"],
    benchmark: ["speed"],
    postgresql: ["postgres"],
    quota: ["budget"],
    rate: ["budget"],
    redis: ["valkey"],
    revocation: ["revoke"],
    rotate: ["rotation"],
    spending: ["budget"],
    stolen: ["thief"],
    theft: ["thief"],
    ts: ["typescript"],
  };

  // How many letters have to be added, left out or changed; 3 where it is more than 2.
  function letters(one, other) {
    if (Math.abs(one.length - other.length) > 2) {
      return 3;
    }
    let row = Array.from({ length: other.length + 1 }, (_, at) => at);
    for (let at = 1; at <= one.length; at += 1) {
      const next = [at];
      for (let to = 1; to <= other.length; to += 1) {
        const changed = row[to - 1] + (one[at - 1] === other[to - 1] ? 0 : 1);
        next.push(Math.min(row[to] + 1, next[to - 1] + 1, changed));
      }
      row = next;
    }
    return Math.min(3, row[other.length]);
  }

  // "links" is found by "link". A code is found by itself and by its parts.
  const stem = (word) => (word.length > 3 && /[^s]s$/.test(word) ? word.slice(0, -1) : word);

  function wordsOf(text) {
    const found = [];
    for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}_]+/gu)) {
      found.push(stem(word));
      if (word.includes("_")) {
        found.push(...word.split("_").filter(Boolean).map(stem));
      }
    }
    return found;
  }

  const flat = (text) => wordsOf(text).join(" ");

  class Index {
    constructor(sections) {
      this.sections = sections.map(([where, page, title, text, more]) => ({ where, page, title, text, more }));
      this.places = new Map(); // by word: how often it counts, by section
      this.lengths = this.sections.map((section, at) => this.take(section, at));
      this.mean = this.lengths.reduce((sum, one) => sum + one, 0) / this.lengths.length;
    }

    take(section, at) {
      const title = wordsOf(section.title);
      const text = [...wordsOf(section.text), ...wordsOf(section.more)];
      const count = (word, weight) => {
        const of = this.places.get(word) ?? new Map();
        of.set(at, (of.get(at) ?? 0) + weight);
        this.places.set(word, of);
      };
      title.forEach((word) => count(word, IN_TITLE));
      text.forEach((word) => count(word, 1));
      section.flat = ` ${title.join(" ")} ${text.join(" ")} `;
      return title.length + text.length;
    }

    // The words of the index that a word stands for. The last one may not be typed to its end.
    meant(word, isLast) {
      const alike = (one) => [one, ...(SYNONYMS[one] ?? [])].filter((other) => this.places.has(other));
      if (alike(word).length) {
        return alike(word);
      }
      const all = [...this.places.keys()];
      const begun = isLast && word.length > 2 ? all.filter((one) => one.startsWith(word)).slice(0, 30) : [];
      return begun.length ? begun : this.close(word, all).flatMap(alike);
    }

    // A word that no page has may be a slip: the nearest one, and of these the one that is used most.
    close(word, all) {
      const most = word.length < 5 ? 0 : word.length < 8 ? 1 : 2;
      const near = all.map((one) => [letters(word, one), -this.places.get(one).size, one]).filter(([far]) => far <= most);
      near.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
      return near.slice(0, 1).map(([, , one]) => one);
    }

    find(query) {
      const words = [...new Set(wordsOf(query))];
      const scores = new Map();
      const covered = new Map();
      let whole = 0;
      words.forEach((word, index) => {
        // Of all that a word stands for, a section counts the best once.
        const best = new Map();
        let rarest = 0;
        for (const one of this.meant(word, index === words.length - 1)) {
          const places = this.places.get(one);
          const rarity = Math.log(1 + (this.sections.length - places.size + 0.5) / (places.size + 0.5));
          rarest = Math.max(rarest, rarity);
          for (const [at, often] of places) {
            const long = 1 - B + (B * this.lengths[at]) / this.mean;
            const weight = (rarity * often * (K + 1)) / (often + K * long);
            best.set(at, Math.max(best.get(at) ?? 0, weight));
          }
        }
        whole += rarest;
        for (const [at, weight] of best) {
          scores.set(at, (scores.get(at) ?? 0) + weight);
          covered.set(at, (covered.get(at) ?? 0) + rarest);
        }
      });
      const asked = flat(query);
      return [...scores]
        .map(([at, score]) => {
          const section = this.sections[at];
          const share = covered.get(at) / whole;
          const weight = weightOf(section.where);
          return { section, score: score * share * weight * this.fits(section, asked) };
        })
        .sort((one, other) => other.score - one.score);
    }

    // What is asked is the title, or all of it is in the title, or the section has it word for word.
    fits(section, asked) {
      // What is asked is what a page is about: its file is called so.
      if (asked === flat(section.more)) {
        return 12;
      }
      const title = flat(section.title);
      const code = flat(section.title.split(": ")[1] ?? "");
      if (asked === title || asked === code) {
        return asked === code ? 8 : 4;
      }
      const words = new Set(title.split(" "));
      if (asked.split(" ").every((word) => words.has(word))) {
        return 3;
      }
      return section.flat.includes(` ${asked} `) ? 2 : 1;
    }
  }

  // The sections that were found, by their page, the best page first.
  function byPage(found) {
    const pages = new Map();
    for (const { section } of found) {
      const of = pages.get(section.page) ?? [];
      if (of.length < MOST_OF_A_PAGE) {
        of.push(section);
      }
      pages.set(section.page, of);
    }
    return [...pages].slice(0, MOST_PAGES);
  }

  function element(name, className, ...inner) {
    const made = document.createElement(name);
    if (className) {
      made.className = className;
    }
    made.append(...inner);
    return made;
  }

  // A part of the text, from shortly before the first word that was asked for, with those marked.
  function excerpt(text, words) {
    const made = element("p", "search-text");
    const parts = text.split(/([\p{L}\p{N}_]+)/u);
    const asked = new Set(words);
    const isAsked = (part) => asked.has(stem(part.toLowerCase()));
    const first = Math.max(0, parts.findIndex(isAsked) - 24);
    let left = SHOWN;
    if (first > 0) {
      made.append("… ");
    }
    for (const part of parts.slice(first)) {
      left -= part.length;
      if (left < 0) {
        made.append(" …");
        break;
      }
      made.append(isAsked(part) ? element("mark", "", part) : part);
    }
    return made;
  }

  function show(index, query) {
    const results = document.getElementById("search-results");
    const told = document.getElementById("search-told");
    results.replaceChildren();
    if (!query.trim()) {
      told.textContent = "";
      return;
    }
    const words = wordsOf(query);
    const pages = byPage(index.find(query));
    told.textContent = pages.length ? "" : "Nothing was found.";
    for (const [page, sections] of pages) {
      const rows = sections.map((section) => {
        const link = element("a", "", section.title || page);
        link.href = section.where;
        return element("div", "search-section", link, excerpt(section.text, words));
      });
      results.append(element("li", "", element("p", "search-page", page), ...rows));
    }
  }

  const index = new Index(window.captokenIndex);
  const asked = new URLSearchParams(window.location.search).get("q") ?? "";
  const input = document.querySelector(".sidebar-search");
  const box = element("input", "search-box");
  box.type = "search";
  box.setAttribute("aria-label", "Search the documentation");
  document.getElementById("search-told").before(box);
  box.value = asked;
  if (input) {
    input.value = asked;
  }
  box.addEventListener("input", () => {
    show(index, box.value);
    const address = new URL(window.location.href);
    address.searchParams.set("q", box.value);
    window.history.replaceState(null, "", address);
  });
  show(index, asked);
  if (!asked) {
    box.focus();
  }
})();
