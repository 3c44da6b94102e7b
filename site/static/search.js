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
    ["examples/", 0.5],
    ["made/how-to-", 0.5],
    ["index.html", 0.5],
    ["README.html", 0.5],
    ["CHANGELOG.html", 0.5],
  ];
  const weightOf = (where) => WEIGHTS.find(([path]) => where.startsWith(path))?.[1] ?? 1;

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
      if (this.places.has(word)) {
        return [word];
      }
      const begun = isLast && word.length > 2;
      return begun ? [...this.places.keys()].filter((one) => one.startsWith(word)).slice(0, 30) : [];
    }

    find(query) {
      const words = [...new Set(wordsOf(query))];
      const scores = new Map();
      const covered = new Map();
      let whole = 0;
      words.forEach((word, index) => {
        for (const one of this.meant(word, index === words.length - 1)) {
          const places = this.places.get(one);
          const rarity = Math.log(1 + (this.sections.length - places.size + 0.5) / (places.size + 0.5));
          whole += rarity;
          for (const [at, often] of places) {
            const long = 1 - B + (B * this.lengths[at]) / this.mean;
            const weight = (rarity * often * (K + 1)) / (often + K * long);
            scores.set(at, (scores.get(at) ?? 0) + weight);
            covered.set(at, (covered.get(at) ?? 0) + rarity);
          }
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
