'use strict';
// A chart: an SVG that is drawn anew from points, with a cursor that all charts
// of the page share. It builds elements and sets text, never HTML, since names
// come from whoever wrote the spec and the data.

const el = (tag, attributes = {}, ...children) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
};
const svg = (tag, attributes = {}, ...children) => {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
};

// niceStep is the 1, 2 or 5 times a power of ten that cuts a span into at most
// so many parts.
const niceStep = (span, parts) => {
  const ten = 10 ** Math.floor(Math.log10(span / parts));
  return [1, 2, 5, 10].map((m) => m * ten).find((s) => span / s <= parts * (1 + 1e-9));
};

// multiples of step within low … high, free of rounding noise.
const multiples = (low, high, step) => {
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
};

// linearAxis covers values with round ends and ticks. zero: it starts at 0.
const linearAxis = (values, { zero = false, least = -Infinity, most = Infinity }) => {
  let low = zero ? 0 : Math.min(...values), high = Math.max(...values);
  if (!(high > low)) [low, high] = zero ? [0, high || 1] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const step = niceStep(high - low, 5);
  low = Math.max(least, Math.floor(low / step + 1e-9) * step);
  high = Math.min(most, Math.ceil(high / step - 1e-9) * step);
  return { low, high, ticks: multiples(low, high, step), at: (v) => (v - low) / (high - low) };
};

// logAxis is the same for positive values, evenly by factors.
const logAxis = (values) => {
  let low = Math.log10(Math.min(...values)), high = Math.log10(Math.max(...values));
  const pad = Math.max((high - low) * 0.04, 0.02);
  low -= pad; high += pad;
  const span = high - low;
  const ticks = [];
  if (span < 0.3) ticks.push(...multiples(10 ** low, 10 ** high, niceStep(10 ** high - 10 ** low, 5)));
  else {
    const of = span < 1.2 ? [1, 1.5, 2, 3, 5, 7] : span < 3 ? [1, 2, 5] : [1];
    const every = Math.ceil(span / 8);
    for (let d = Math.floor(low); d <= high; d++) if (d % every === 0) ticks.push(...of.map((m) => m * 10 ** d));
  }
  const at = (v) => (Math.log10(v) - low) / span;
  return { low: 10 ** low, high: 10 ** high, ticks: ticks.map((t) => Number(t.toPrecision(12))).filter((t) => at(t) >= 0 && at(t) <= 1), at };
};

// tickText writes a tick as short as it can.
const tickText = (v) => {
  const a = Math.abs(v);
  if (a >= 1e6 || (a > 0 && a < 1e-4)) return v.toExponential().replace('e+', 'e');
  return a >= 1e4 ? v.toLocaleString('en-US') : String(v);
};

const nothing = '–';
const margin = { left: 54, right: 14, top: 10, bottom: 24 };

// Chart draws into a figure. options: title, name (for assistive technology),
// series [{name, style, text, marked, bare}], unit of ticks, axis options. cursor
// is called with the point {x, step} to read at, or null, and this chart.
class Chart {
  constructor(figure, options, cursor) {
    Object.assign(this, { options, cursor, at: null, all: [], points: options.series.map(() => []), size: [0, 0] });
    this.values = options.series.map(() => el('b', {}, nothing));
    const legend = el('ul', { class: 'legend' }, ...options.series.map((s, i) => el('li', {},
      svg('svg', { viewBox: '0 0 24 10', 'aria-hidden': 'true' }, svg('path', { class: `line ${s.style}`, d: 'M1 5H23' })), s.bare ? '' : `${s.name} `, this.values[i])));
    this.canvas = svg('svg', { 'aria-hidden': 'true' });
    this.plot = el('div', { class: 'plot', tabindex: '0', role: 'slider', 'aria-label': options.name, 'aria-valuenow': '0', 'aria-valuetext': 'no figures yet' }, this.canvas);
    figure.replaceChildren(el('figcaption', {}, el('b', {}, options.title), legend), this.plot);
    this.listen();
    new ResizeObserver(([e]) => { this.size = [e.contentRect.width, e.contentRect.height]; this.draw(); }).observe(this.plot);
  }

  listen() {
    const point = (e) => {
      if (!this.all.length) return;
      const x = (e.clientX - this.plot.getBoundingClientRect().left - margin.left) / this.inner[0];
      this.cursor(this.nearest(x * this.range.high), this);
    };
    this.plot.addEventListener('pointermove', point);
    this.plot.addEventListener('pointerdown', point);
    this.plot.addEventListener('pointerleave', (e) => { if (e.pointerType === 'mouse') this.cursor(null, this); });
    this.plot.addEventListener('blur', () => this.cursor(null, this));
    this.plot.addEventListener('keydown', (e) => {
      const all = this.all, last = all.length - 1;
      const at = this.at === null ? last + 1 : all.findIndex((p) => p.step >= this.at.step);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowDown: at - 1, ArrowUp: at + 1, PageDown: at - 10, PageUp: at + 10, Home: 0, End: last }[e.key];
      if (e.key === 'Escape') this.cursor(null, this);
      else if (to === undefined || last < 0) return;
      else this.cursor(all[Math.max(0, Math.min(last, to))], this);
      e.preventDefault();
    });
  }

  get inner() { return [Math.max(1, this.size[0] - margin.left - margin.right), Math.max(1, this.size[1] - margin.top - margin.bottom)]; }

  // set takes new points for each series, {x, y, step} in order, and the x axis:
  // {high, unit, whole}.
  set(points, range) {
    this.points = points;
    this.range = range;
    const steps = new Map();
    for (const p of points.flat()) steps.set(p.step, p);
    this.all = [...steps.values()].sort((a, b) => a.step - b.step);
    this.draw();
  }

  // nearest is the point next to a place on the x axis.
  nearest(x) {
    return this.all.reduce((best, p) => (best && Math.abs(best.x - x) <= Math.abs(p.x - x) ? best : p), null);
  }

  // show moves the cursor to a point, or takes it away, and has the legend say
  // what the curves are there; without it, what they are last. The chart that is
  // pointed at also says where that is.
  show(at, pointed) {
    Object.assign(this, { at, pointed });
    const chosen = this.points.map((of) => {
      if (!at || !of.length) return of[of.length - 1];
      return of.reduce((best, p) => (Math.abs(p.step - at.step) < Math.abs(best.step - at.step) ? p : best));
    });
    chosen.forEach((p, i) => { this.values[i].textContent = p ? this.options.series[i].text(p.y) : nothing; });
    this.speak(chosen);
    if (!this.marks) return;
    this.marks.replaceChildren();
    if (!at) return;
    const [width, height] = this.inner, x = margin.left + (at.x / this.range.high) * width;
    this.marks.append(svg('line', { class: 'cursor', x1: x, x2: x, y1: margin.top, y2: margin.top + height }));
    chosen.forEach((p, i) => { if (p && this.fits(p)) this.marks.append(this.dot(p, i, 4.5)); });
    if (!pointed) return;
    const left = x < margin.left + width / 2;
    this.marks.append(svg('text', { class: 'flag', x: x + (left ? 7 : -7), y: margin.top + 11, 'text-anchor': left ? 'start' : 'end' }, this.range.text(at)));
  }

  speak(chosen) {
    const first = this.all[0], last = this.all[this.all.length - 1], at = this.at || last;
    const said = chosen.map((p, i) => p && `${this.options.series[i].name} ${this.options.series[i].text(p.y)}`).filter(Boolean);
    this.plot.setAttribute('aria-valuemin', first ? first.step : 0);
    this.plot.setAttribute('aria-valuemax', last ? last.step : 0);
    this.plot.setAttribute('aria-valuenow', at ? at.step : 0);
    this.plot.setAttribute('aria-valuetext', said.length ? `update ${at.step}: ${said.join(', ')}` : 'no figures yet');
  }

  place(p) {
    const [width, height] = this.inner;
    return [margin.left + (p.x / this.range.high) * width, margin.top + (1 - this.axis.at(p.y)) * height];
  }

  fits(p) { return !this.log || p.y > 0; }

  dot(p, series, r) {
    const [cx, cy] = this.place(p);
    return svg('circle', { class: `dot ${this.options.series[series].style}`, cx, cy, r });
  }

  draw() {
    if (!this.range || !this.size[0]) return;
    const [width, height] = this.inner, o = this.options;
    const drawn = this.points.map((of) => of.filter((p) => this.fits(p)));
    const values = drawn.flat().map((p) => p.y);
    this.axis = values.length ? (this.log ? logAxis(values) : linearAxis(values, o.axis)) : linearAxis([0, 1], { zero: true });
    const g = svg('g');
    const line = (kind, x1, y1, x2, y2) => g.append(svg('line', { class: kind, x1, y1, x2, y2 }));
    const text = (s, x, y, anchor, kind = 'tick') => g.append(svg('text', { class: kind, x, y, 'text-anchor': anchor }, s));
    if (values.length) {
      for (const t of this.axis.ticks) {
        const y = Math.round(margin.top + (1 - this.axis.at(t)) * height) + 0.5;
        line('grid', margin.left, y, margin.left + width, y);
        text(tickText(t) + (o.unit || ''), margin.left - 7, y + 4, 'end');
      }
    } else text(o.empty, margin.left + width / 2, margin.top + height / 2, 'middle', 'empty');
    const bottom = margin.top + height + 0.5;
    line('axis', margin.left, bottom, margin.left + width, bottom);
    const ticks = multiples(0, this.range.high, Math.max(this.range.high < 1 ? 0 : 1, niceStep(this.range.high, width < 420 ? 4 : 8)));
    for (const t of ticks) {
      const x = Math.round(margin.left + (t / this.range.high) * width) + 0.5;
      line('axis', x, bottom, x, bottom + 4);
      text(tickText(t), x, bottom + 17, 'middle');
    }
    text(this.range.unit, margin.left - 7, bottom + 17, 'end', 'unit');
    drawn.forEach((of, i) => this.curve(g, of, i));
    this.marks = svg('g');
    this.canvas.replaceChildren(g, this.marks);
    this.show(this.at, this.pointed);
  }

  curve(g, of, i) {
    const s = this.options.series[i];
    const d = of.map((p, k) => (k ? 'L' : 'M') + this.place(p).map((v) => v.toFixed(1)).join(' ')).join('');
    g.append(svg('path', { class: `line ${s.style}`, d, 'data-series': s.name, 'data-points': of.length }));
    const marked = s.marked && of.length <= this.inner[0] / 9 ? of : of.slice(-1);
    for (const p of marked) g.append(this.dot(p, i, 3));
  }
}
