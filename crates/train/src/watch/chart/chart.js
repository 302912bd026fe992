// The numbers under the pointer.
for (const figure of document.querySelectorAll("figure.chart")) {
  const series = JSON.parse(figure.dataset.series).filter((line) => line.x.length);
  const tip = document.createElement("div");
  const svg = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    return node;
  };
  const cursor = svg("g", { class: "cursor" });
  const row = (text, number, color) => {
    const line = document.createElement("div");
    const value = document.createElement("b");
    line.className = color;
    value.textContent = number;
    line.append(text + " ", value);
    return line;
  };
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return x - xs[low] <= xs[high] - x ? low : high;
  };
  const hide = () => { tip.remove(); cursor.remove(); };
  figure.addEventListener("pointerleave", hide);
  figure.addEventListener("pointermove", (event) => {
    const plot = event.target.closest("svg.plot");
    if (!plot || !plot.dataset.x || !series.length) return hide();
    const [left, right, top, bottom] = JSON.parse(plot.dataset.frame);
    const [x0, x1] = JSON.parse(plot.dataset.x);
    const [y0, y1] = JSON.parse(plot.dataset.y);
    const scale = plot.classList.contains("log") ? Math.log : (y) => y;
    const box = plot.getBoundingClientRect();
    const unit = plot.viewBox.baseVal.width / box.width;
    const pointer = x0 + (((event.clientX - box.left) * unit - left) / (right - left)) * (x1 - x0);
    const found = series.map((line) => ({ line, i: nearest(line.x, pointer) }));
    const distance = ({ line, i }) => Math.abs(line.x[i] - pointer);
    const best = found.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const x = best.line.x[best.i];
    const across = left + ((x - x0) / (x1 - x0)) * (right - left);
    cursor.replaceChildren(svg("path", { d: `M${across} ${top}V${bottom}` }));
    tip.className = "tip";
    tip.replaceChildren(row(figure.dataset.across, x, ""));
    for (const { line, i } of found) {
      const y = line.y[i], at = line.x[i];
      tip.append(row(line.name + (at === x ? "" : ` (${at})`), Number(y.toPrecision(5)), "c" + line.color));
      if (at !== x) continue;
      const up = bottom - ((scale(y) - scale(y0)) / (scale(y1) - scale(y0))) * (bottom - top);
      cursor.append(svg("circle", { cx: across, cy: up, r: 3.4, class: "c" + line.color }));
    }
    plot.append(cursor);
    figure.append(tip);
    const place = box.left - figure.getBoundingClientRect().left + across / unit;
    const room = figure.clientWidth - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(room, place + (place > figure.clientWidth / 2 ? -tip.offsetWidth - 12 : 12))) + "px";
    tip.style.top = plot.getBoundingClientRect().top - figure.getBoundingClientRect().top + 14 + "px";
  });
}
