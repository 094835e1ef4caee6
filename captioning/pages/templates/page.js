"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (tag, name, parent) => {
  const made = document.createElement(tag);
  made.className = name;
  parent.append(made);
  return made;
};

/* A chart under the pointer: a line, a point on each curve, and the values there. */
for (const plot of all(".plot[data-chart]")) {
  const chart = JSON.parse(plot.dataset.chart);
  let shown = [];
  const clear = () => { shown.forEach((one) => one.remove()); shown = []; };
  const scale = ([low, high, isLog]) => (value) => isLog
    ? Math.log(value / low) / Math.log(high / low)
    : (value - low) / (high - low || 1);
  const [acrossOf, heightOf] = [scale(chart.x), scale(chart.y)];
  const nearest = (points, x) => points.reduce((best, one) =>
    Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best);
  const show = (event) => {
    clear();
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = chart.x[0] + share * (chart.x[1] - chart.x[0]);
    const curves = chart.curves.filter((one) => one.points.length);
    const x = nearest(curves.map((one) => nearest(one.points, at)), at)[0];
    const room = (chart.x[1] - chart.x[0]) * 0.03;
    const cursor = element("div", "cursor", plot);
    cursor.style.left = `${100 * acrossOf(x)}%`;
    const tip = element("div", "tip", plot);
    element("b", "", tip).textContent = `${chart.x_label} ${+x.toPrecision(4)}` +
      (chart.steps ? ` · step ${Math.round(x * chart.steps)}` : "");
    shown = [cursor, tip];
    for (const curve of curves) {
      const [px, py, text] = nearest(curve.points, x);
      if (Math.abs(px - x) > room) continue;
      const point = element("div", "point", plot);
      point.style.cssText = `left:${100 * acrossOf(px)}%;bottom:${100 * heightOf(py)}%;--c:var(--${curve.colour})`;
      const row = element("div", "", tip);
      row.style.setProperty("--c", `var(--${curve.colour})`);
      if (curve.name) element("span", "", row).textContent = curve.name;
      element("strong", "", row).textContent = text || String(+py.toPrecision(4));
      shown.push(point);
    }
    const left = acrossOf(x) * box.width;
    tip.style.left = `${left + 14 + tip.offsetWidth > box.width ? Math.max(-40, left - 14 - tip.offsetWidth) : left + 14}px`;
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", clear);
}

/* The gallery: search, filter, sort. */
for (const toolbar of all(".toolbar")) {
  const list = document.getElementById(toolbar.dataset.of);
  const cards = all(":scope > li", list);
  const texts = cards.map((card) => card.querySelector("figcaption").textContent.toLowerCase().replace(/\s+/g, " "));
  const [search, only, order] = ["search", "only", "order"].map((name) => toolbar.elements[name]);
  const output = toolbar.querySelector("output");
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    cards.forEach((card, index) => {
      const fits = words.every((word) => texts[index].includes(word)) &&
        (!only || !only.value || card.dataset.verdict === only.value);
      card.hidden = !fits;
      count += fits;
    });
    output.textContent = count === cards.length ? `${count} shown` : `${count} of ${cards.length} shown`;
    toolbar.nextElementSibling.hidden = count > 0;
  };
  const sort = () => {
    const [key, direction] = order.value.split(" ");
    const value = (card) => key === "number" ? +card.dataset.number : JSON.parse(card.dataset.values)[+key];
    list.append(...[...cards].sort((one, other) =>
      (direction === "up" ? 1 : -1) * (value(one) - value(other)) || one.dataset.number - other.dataset.number));
  };
  search.addEventListener("input", update);
  if (only) only.addEventListener("change", update);
  if (order) { order.addEventListener("change", sort); sort(); }
  toolbar.addEventListener("submit", (event) => event.preventDefault());
  toolbar.hidden = false;
  update();
}

/* The captions of the same pictures at each validation. */
for (const slider of all(".slider")) {
  const input = slider.querySelector("input");
  const labels = JSON.parse(slider.dataset.labels);
  const cards = all("[data-captions]").map((card) => [card.querySelector(".predicted"), JSON.parse(card.dataset.captions)]);
  const update = () => {
    slider.querySelector("output").textContent = labels[input.value];
    for (const [text, captions] of cards) text.textContent = captions[input.value];
  };
  input.addEventListener("input", update);
  slider.hidden = false;
  update();
}

/* The trials of a search: a line, its dot in the table and the row belong together. */
const mark = (name, isOn) => all(`[data-trial="${CSS.escape(name)}"]`).forEach((one) => one.classList.toggle("on", isOn));
for (const one of all("[data-trial]")) {
  one.addEventListener("pointerenter", () => mark(one.dataset.trial, true));
  one.addEventListener("pointerleave", () => mark(one.dataset.trial, false));
}
