"use strict";
// The page is complete without this script, which adds sorting, a filter and a CSV file to tables, zoom to figures, and
// moves the slices of a case.
(() => {
  const make = (tag, given, ...children) => {
    const made = Object.assign(document.createElement(tag), given);
    made.append(...children);
    return made;
  };
  const said = (cell) => {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    const words = [];
    while (texts.nextNode()) words.push(texts.currentNode.data);
    return words.join(" ").trim().replace(/\s+/g, " ");
  };
  const rowsOf = (table) => [...table.tBodies].flatMap((body) => [...body.rows]);

  // The heading of each column; where heads lie above one another, all of them.
  const columnsOf = (table) => {
    const columns = [];
    for (const row of table.tHead ? table.tHead.rows : []) {
      let at = 0;
      for (const cell of row.cells) for (let i = 0; i < cell.colSpan; i++) (columns[at++] ??= []).push(said(cell));
    }
    return columns.map((names) => names.filter(Boolean).join(", "));
  };

  const NUMBER = /^[≤<>]?\s*([−+-]?[\d,]*\.?\d+)/;
  const numberOf = (text) => {
    const found = NUMBER.exec(text);
    return found ? Number(found[1].replace("−", "-").replaceAll(",", "")) : NaN;
  };

  const sortBy = (table, column, falling) => {
    const value = (row) => said(row.cells[column]);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.matches(".mean, .group"));
      const numeric = rows.every((row) => value(row) === "–" || value(row) === "" || NUMBER.test(value(row)));
      const compare = (a, b) => {
        if (!numeric) return value(a).localeCompare(value(b), undefined, { numeric: true });
        return numberOf(value(a)) - numberOf(value(b));
      };
      const known = rows.filter((row) => !numeric || !Number.isNaN(numberOf(value(row)))).sort(compare);
      if (falling) known.reverse();
      const sorted = [...known, ...rows.filter((row) => !known.includes(row))];
      const last = [...body.rows].filter((row) => row.matches(".mean"));
      body.append(...sorted, ...last);
    }
  };

  const addSorting = (table, columns) => {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    if (heads.length !== columns.length) return;
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "sort";
      const sort = () => {
        const falling = head.ariaSort === "ascending";
        for (const other of heads) other.ariaSort = null;
        head.ariaSort = falling ? "descending" : "ascending";
        sortBy(table, column, falling);
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    });
  };

  const csvOf = (table, columns) => {
    // A name that begins as a formula does would be one in a spreadsheet; a number is none.
    const plain = (text) => (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text);
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${plain(text).replaceAll('"', '""')}"` : plain(text));
    const lines = rowsOf(table).map((row) => [...row.cells].map(said));
    return [columns, ...lines].map((cells) => cells.map(quoted).join(",")).join("\r\n");
  };

  const addTools = (table, columns, number) => {
    const link = make("a", { textContent: "CSV", href: "#", title: "save this table", download: `${document.title.replace(/\W+/g, "-")}-${number + 1}.csv` });
    link.addEventListener("click", () => {
      link.href = `data:text/csv;charset=utf-8,${encodeURIComponent("\ufeff" + csvOf(table, columns))}`;
    });
    const tools = make("div", { className: "tools" }, link);
    if (rowsOf(table).length >= 8) {
      const field = make("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows" });
      const count = make("span", {});
      field.addEventListener("input", () => {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        const rows = rowsOf(table).filter((row) => !row.matches(".group"));
        for (const row of rows) row.hidden = !words.every((word) => said(row).toLowerCase().includes(word));
        count.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
      });
      tools.prepend(field, count);
    }
    (table.closest(".wide") ?? table).before(tools);
  };

  document.querySelectorAll("table").forEach((table, number) => {
    if (!table.tHead) return;
    const columns = columnsOf(table);
    for (const row of rowsOf(table)) {
      let at = 0;
      for (const cell of row.cells) {
        cell.dataset.label = columns[at] ?? "";
        at += cell.colSpan;
      }
    }
    if (columns.length > 3) table.classList.add("stacks");
    addSorting(table, columns);
    addTools(table, columns, number);
  });

  // A link to a part within something folded opens it.
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);

  // On paper nothing can be unfolded.
  const folded = [...document.querySelectorAll("details:not([open])")];
  addEventListener("beforeprint", () => folded.forEach((each) => (each.open = true)));
  addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));
  unfold();

  // A strip of slices is moved up behind its window.
  for (const viewer of document.querySelectorAll(".viewer")) {
    const layers = viewer.querySelectorAll(".strip img");
    const slider = viewer.querySelector("input[type=range]");
    slider.addEventListener("input", () => {
      for (const layer of layers) layer.style.top = `${-100 * slider.value}%`;
      slider.nextElementSibling.textContent = `${Number(slider.value) + 1} of ${Number(slider.max) + 1}`;
    });
    viewer.querySelector(".strip").addEventListener("wheel", (event) => {
      event.preventDefault();
      slider.value = Number(slider.value) + Math.sign(event.deltaY);
      slider.dispatchEvent(new Event("input"));
    }, { passive: false });
    for (const box of viewer.querySelectorAll("input[type=checkbox]")) {
      const own = [...layers].filter((layer) => layer.dataset.layer === box.value);
      box.addEventListener("change", () => own.forEach((layer) => (layer.hidden = !box.checked)));
    }
  }

  for (const card of document.querySelectorAll(".card")) {
    card.title = "click for full size";
    card.addEventListener("click", () => card.classList.toggle("zoomed"));
  }
})();
