// The page: it follows the run over an event stream and shows what it is told.

const byId = (id) => document.getElementById(id);
const put = (id, text) => { const e = byId(id); if (e.textContent !== text) e.textContent = text; };

const whole = (n) => Math.round(n).toLocaleString('en-US');
const loss = (v) => (v === null ? nothing : Math.abs(v) < 1000 ? v.toFixed(4) : v.toExponential(3));
const percent = (v) => `${(100 * v).toFixed(2)} %`;
const rate = (v) => (v === null ? nothing : v === 0 || (v >= 1e-4 && v < 1e3) ? String(Number(v.toPrecision(4))) : Number(v.toPrecision(3)).toExponential());
const speed = (v) => (v === null ? nothing : v < 100 ? v.toPrecision(3) : whole(v));
const short = (v) => String(Number(v.toFixed(2)));
const duration = (s) => {
  const t = Math.max(0, Math.round(s)), two = (n) => String(n).padStart(2, '0');
  const h = Math.floor(t / 3600), m = Math.floor(t / 60) % 60;
  return h ? `${h}:${two(m)}:${two(t % 60)}` : `${m}:${two(t % 60)}`;
};

// What the page knows.
const known = { run: null, token: '', records: [], progress: null, heard: 0, end: null, lost: false };

const charts = [];
const makeChart = (id, options) => charts.push(new Chart(byId(id), options, (at, by) => charts.forEach((c) => c.show(at, c === by))));
const finite = (v) => typeof v === 'number';
makeChart('chart-loss', {
  title: 'Loss', name: 'Loss of training and validation', empty: 'No record yet', axis: {},
  series: [{ name: 'train', style: 'train', text: loss }, { name: 'validation', style: 'val', text: loss, marked: true }],
});
makeChart('chart-acc', {
  title: 'Accuracy', name: 'Validation accuracy in percent', empty: 'No validation yet', unit: ' %', axis: { least: 0, most: 100 },
  series: [{ name: 'validation', style: 'acc', text: (v) => `${v.toFixed(2)} %`, marked: true }],
});
makeChart('chart-lr', {
  title: 'Learning rate', name: 'Learning rate', empty: 'No record yet', axis: { zero: true },
  series: [{ name: 'learning rate', style: 'lr', text: rate, bare: true }],
});
makeChart('chart-speed', {
  title: 'Throughput', name: 'Throughput in samples per second', empty: 'No record yet', axis: { zero: true },
  series: [{ name: 'samples/s', style: 'speed', text: speed }],
});

// curves gives the charts what the records say. A training curve is of the
// intervals; the epochs' means would lie on it.
const curves = () => {
  const run = known.run, byEpoch = !run || run.epochs > 1;
  const x = byEpoch ? (r) => r.epoch : (r) => r.step;
  const of = (records, value) => records.filter((r) => finite(value(r))).map((r) => ({ x: x(r), y: value(r), step: r.step }));
  const epochs = known.records.filter((r) => r.kind === 'epoch');
  let intervals = known.records.filter((r) => r.kind === 'interval');
  if (!intervals.length) intervals = epochs;
  const far = Math.max(0, ...known.records.map(x));
  const total = run ? (byEpoch ? run.epochs : run.updates) : 1;
  const showAll = document.querySelector('[name=range]:checked').value === 'whole';
  const range = {
    high: (showAll ? total : far) || total || 1, unit: byEpoch ? 'epoch' : 'update',
    text: (p) => (byEpoch ? `epoch ${short(p.x)}, update ${whole(p.step)}` : `update ${whole(p.step)}`),
  };
  charts[0].log = document.querySelector('[name=scale]:checked').value === 'log';
  charts[0].set([of(intervals, (r) => r.train_loss), of(epochs, (r) => r.val_loss)], range);
  charts[1].set([of(epochs, (r) => (finite(r.val_acc) ? 100 * r.val_acc : null))], range);
  charts[2].set([of(intervals, (r) => r.lr)], range);
  charts[3].set([of(intervals, (r) => r.samples_per_sec)], range);
};

// figures shows the newest numbers, of the records or of the update just made.
const figures = () => {
  const epochs = known.records.filter((r) => r.kind === 'epoch' && finite(r.val_loss));
  const last = known.records.findLast((r) => r.kind === 'interval') || known.records[known.records.length - 1];
  const now = known.progress;
  const newest = now && (!last || now.step > last.step) ? now : last;
  if (newest) {
    put('train-loss', loss(newest.train_loss ?? null));
    put('lr', rate(newest.lr ?? null));
    byId('speed').replaceChildren(speed(newest.samples_per_sec ?? null), el('span', { class: 'unit' }, ' samples/s'));
    put('train-loss-more', `up to update ${whole(newest.step)}`);
    put('lr-more', `of update ${whole(newest.step)}`);
  }
  if (last && finite(last.data_wait)) put('speed-more', `${(100 * last.data_wait).toFixed(1)} % waiting for data`);
  const checked = epochs[epochs.length - 1];
  if (!checked) return;
  const least = epochs.reduce((a, b) => (b.val_loss < a.val_loss ? b : a));
  put('val-loss', loss(checked.val_loss));
  put('val-loss-more', `best ${loss(least.val_loss)}, epoch ${short(least.epoch)}`);
  if (!finite(checked.val_acc)) return;
  const best = epochs.reduce((a, b) => (b.val_acc > a.val_acc ? b : a));
  put('val-acc', percent(checked.val_acc));
  put('val-acc-more', `best ${percent(best.val_acc)}, epoch ${short(best.epoch)}`);
};

const states = {
  connecting: ['○', 'Connecting'], training: ['●', 'Training'], validating: ['◐', 'Validating'], lost: ['⟳', 'Connection lost, trying again'],
  finished: ['✓', 'Finished'], interrupted: ['‖', 'Interrupted'], failed: ['✕', 'Failed'],
};

// clock shows status, progress and time; it runs between messages too.
const clock = () => {
  const { run, progress, end, lost } = known;
  const state = end ? end.status : lost ? 'lost' : progress ? progress.phase : run ? 'training' : 'connecting';
  const [sign, text] = states[state] || states.training;
  const pill = byId('status');
  if (pill.dataset.state !== state) {
    pill.dataset.state = state;
    pill.firstElementChild.textContent = sign;
    put('status-text', text);
    if (state !== 'training' && state !== 'validating') put('said', text);
  }
  byId('note').dataset.state = state;
  put('note', end ? end.text : known.records.length ? '\u00a0' : run ? 'No figures yet: the first come when an interval of updates is over.' : '\u00a0');
  if (!run) return;
  const step = progress ? progress.step : 0;
  const part = run.updates ? Math.min(100, (100 * step) / run.updates) : 0;
  byId('done').style.width = `${part}%`;
  byId('bar').setAttribute('aria-valuenow', Math.floor(part));
  byId('bar').setAttribute('aria-valuetext', `update ${step} of ${run.updates}`);
  document.title = `${end ? text : lost ? '…' : `${Math.floor(part)} %`} · ${run.model} · vitgen`;
  if (!progress) return;
  put('where', `Update ${whole(step)} of ${whole(run.updates)} · epoch ${short(progress.epoch)} of ${run.epochs} · ${Math.floor(part)} %`);
  const since = end || lost ? 0 : (performance.now() - known.heard) / 1000;
  const took = `${duration(progress.elapsed + since)} elapsed`;
  put('time', finite(progress.eta) && !end ? `${took} · about ${duration(progress.eta - since)} left` : took);
};

let spoken = 0;
// speak tells assistive technology of an epoch, not more often than it can say.
const speak = (records) => {
  const r = records.findLast((r) => r.kind === 'epoch' && finite(r.val_loss));
  if (!r || performance.now() - spoken < 10000) return;
  spoken = performance.now();
  put('said', `Epoch ${short(r.epoch)}: validation loss ${loss(r.val_loss)}${finite(r.val_acc) ? `, accuracy ${percent(r.val_acc)}` : ''}`);
};

const table = () => {
  if (!byId('epochs').open) return;
  const cells = (r) => [short(r.epoch), whole(r.step), loss(r.train_loss), loss(r.val_loss ?? null), finite(r.val_acc) ? percent(r.val_acc) : nothing, rate(r.lr), speed(r.samples_per_sec)];
  const rows = known.records.filter((r) => r.kind === 'epoch').slice(-200).reverse();
  byId('rows').replaceChildren(...rows.map((r) => el('tr', {}, ...cells(r).map((c) => el('td', {}, c)))));
};

const card = (p) => {
  const right = p.guess === p.truth;
  const chance = finite(p.probability) ? p.probability : 0;
  const picture = el('img', { src: p.picture, alt: '', class: Math.max(p.width, p.height) < 64 ? 'small' : '' });
  const name = (text) => el('span', { class: 'name', title: text }, text);
  const mark = el('span', { class: right ? 'right-mark' : 'wrong-mark' }, right ? '✓' : '✗', el('span', { class: 'hidden' }, right ? ' right' : ' wrong'));
  const meter = el('meter', { min: 0, max: 1, value: chance, 'aria-hidden': 'true' });
  return el('li', { class: right ? 'card' : 'card wrong', 'data-right': right }, picture,
    el('div', { class: 'guess' }, mark, el('span', { class: 'hidden' }, 'guess '), name(p.guess)),
    el('div', { class: 'chance' }, meter, el('span', {}, `${(100 * chance).toFixed(0)} %`)),
    el('div', { class: 'truth' }, name(`is ${p.truth}`)));
};

const cards = (id, of, empty, wide) => {
  const list = byId(id);
  list.classList.toggle('none', !of.length);
  list.classList.toggle('wide', wide);
  list.replaceChildren(...(of.length ? of.map(card) : [el('li', {}, empty)]));
};

const facts = (run) => {
  put('model', run.model);
  put('summary', `${whole(run.parameters)} parameters on ${run.device}, ${run.precision}`);
  const list = [
    ['Data', `${run.data}: ${whole(run.train)} training, ${whole(run.val)} validation samples`],
    ['Image', run.image.join(' × ')], ['Batch', run.batch], ['Epochs', `${whole(run.epochs)}, ${whole(run.updates)} updates`],
    ['Optimizer', run.optimizer], ['Schedule', run.schedule], ['Seed', run.seed],
    ['Spec', `${run.spec_file}, ${run.spec_hash.slice(0, 12)}`], ['vitgen', run.generator], ['Directory', run.dir],
  ];
  byId('facts').replaceChildren(...list.filter(([, v]) => v).map(([k, v]) => el('div', {}, el('dt', {}, k), el('dd', {}, v))));
  put('spec', run.spec);
};

// Drawing waits for the browser's next frame: many messages, one picture.
let due = false;
const redraw = () => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    curves(); figures(); table(); clock();
    document.body.dataset.records = known.records.length;
  });
};

const reset = () => {
  Object.assign(known, { records: [], progress: null, end: null });
  cards('same', [], 'None yet.', false);
  cards('missed', [], 'None yet.', false);
};

const follow = () => {
  const source = new EventSource('api/events');
  const on = (name, act) => source.addEventListener(name, (e) => act(JSON.parse(e.data), e));
  source.onopen = () => { known.lost = false; redraw(); };
  source.onerror = () => {
    known.lost = true;
    clock();
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000); // refused: the browser would give up
  };
  on('run', (run) => { known.run = run; facts(run); redraw(); });
  on('records', (news, e) => {
    const token = e.lastEventId.split('-')[0];
    if (known.token && token !== known.token) reset(); // another run, at the same address
    known.token = token;
    known.records = news.whole ? news.records : known.records.concat(news.records);
    speak(news.records);
    redraw();
  });
  on('progress', (p) => { Object.assign(known, { progress: p, heard: performance.now() }); figures(); clock(); });
  on('predictions', (p) => {
    put('predictions-more', `after epoch ${short(p.epoch)}: ${whole(p.wrong)} of ${whole(p.samples)} validation pictures wrong`);
    const wide = [...p.same, ...p.missed].some((c) => c.guess.length > 8 || c.truth.length > 8); // names
    cards('same', p.same, 'None.', wide);
    cards('missed', p.missed, 'None: every validation picture is right.', wide);
  });
  on('end', (end) => { known.end = end; source.close(); redraw(); });
};

for (const choice of document.querySelectorAll('.choice input')) choice.addEventListener('change', redraw);
byId('epochs').addEventListener('toggle', table);
setInterval(clock, 1000);
reset();
redraw();
follow();
