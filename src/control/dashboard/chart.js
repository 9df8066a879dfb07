// Lines over time on a canvas: small ones without axes, and large ones that tell what is under the pointer. What always holds: a
// second that is not known is a hole in its line.

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const probe = document.createElement("span");

// A colour as the canvas takes it: light-dark() is resolved by the page.
function colour(name) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

// A round number that is no less, and how it is divided.
export function ceiling(max) {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((end) => end >= max * 0.999) ?? max;
}

// At most one point a pixel: the highest of those that fall on it, since a peak is what one looks for.
function thinned(times, values, from, to, width) {
  const points = [];
  let column = -1;
  for (let at = 0; at < times.length; at++) {
    const time = times[at];
    if (time < from || time > to) continue;
    const value = values[at];
    const x = ((time - from) / (to - from)) * width;
    const gap = at > 0 && time - times[at - 1] > 5_000;
    if (value === null || value === undefined || gap) points.push(null);
    if (value === null || value === undefined) continue;
    const last = points.at(-1);
    if (last && Math.floor(x) === column) last.y = Math.max(last.y, value);
    else points.push({ x, y: value });
    column = Math.floor(x);
  }
  return points;
}

function trace(pen, points, left, top, height, max) {
  let isOpen = false;
  pen.beginPath();
  for (const point of points) {
    if (!point) {
      isOpen = false;
      continue;
    }
    const [x, y] = [left + point.x, top + height - (point.y / max) * height];
    if (isOpen) pen.lineTo(x, y);
    else pen.moveTo(x, y);
    isOpen = true;
  }
}

function fill(pen, points, left, top, height, max) {
  let run = [];
  const close = () => {
    if (run.length > 1) {
      pen.beginPath();
      pen.moveTo(left + run[0].x, top + height);
      for (const { x, y } of run) pen.lineTo(left + x, top + height - (y / max) * height);
      pen.lineTo(left + run.at(-1).x, top + height);
      pen.fill();
    }
    run = [];
  };
  for (const point of points) point ? run.push(point) : close();
  close();
}

export function sparkline(canvas, times, values, from, to) {
  const { pen, width, height } = prepare(canvas);
  if (!width) return;
  const points = thinned(times, values, from, to, width);
  const max = Math.max(1e-9, ...points.map((point) => point?.y ?? 0)) * 1.1;
  pen.fillStyle = colour("--accent-soft");
  fill(pen, points, 0, 1, height - 2, max);
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  trace(pen, points, 0, 1, height - 2, max);
  pen.stroke();
}

const two = (n) => String(n).padStart(2, "0");
const clock = (ms, withSeconds) => {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}` + (withSeconds ? ":" + two(at.getSeconds()) : "");
};

// series: [{values, colour, filled}]; format: a value as text; pointer: x on the canvas, or null.
export function plot(canvas, times, series, from, to, format, pointer) {
  const { pen, width, height } = prepare(canvas);
  if (!width) return null;
  const [left, right, top, bottom] = [56, 8, 8, 22];
  const [inner, tall] = [width - left - right, height - top - bottom];
  const lines = series.map((one) => thinned(times, one.values, from, to, inner));
  const highest = Math.max(0, ...lines.flat().map((point) => point?.y ?? 0));
  const max = ceiling(highest);
  pen.font = `11px ${style("font-family") || "system-ui, sans-serif"}`;
  pen.textBaseline = "middle";
  for (let step = 0; step <= 4; step++) {
    const y = Math.round(top + tall - (tall * step) / 4) + 0.5;
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(width - right, y);
    pen.stroke();
    if (step % 2 === 0) {
      pen.fillStyle = colour("--quiet");
      pen.textAlign = "right";
      pen.fillText(highest > 0 || step === 0 ? format((max * step) / 4) : "", left - 8, y);
    }
  }
  const parts = width < 420 ? 3 : 5;
  for (let step = 0; step <= parts; step++) {
    const x = left + (inner * step) / parts;
    pen.fillStyle = colour("--quiet");
    pen.textAlign = step === 0 ? "left" : step === parts ? "right" : "center";
    pen.fillText(clock(from + ((to - from) * step) / parts, to - from < 20 * 60_000), x, height - 8);
  }
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, inner, height - bottom + 2);
  pen.clip();
  // The first is drawn last, on top.
  for (let at = series.length - 1; at >= 0; at--) {
    if (series[at].filled) {
      pen.fillStyle = colour("--accent-soft");
      fill(pen, lines[at], left, top, tall, max);
    }
    pen.strokeStyle = colour(series[at].colour);
    pen.setLineDash(series[at].dashed ? [4, 3] : []);
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    trace(pen, lines[at], left, top, tall, max);
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.restore();
  if (pointer === null || pointer < left || pointer > width - right) return null;
  const wanted = from + ((pointer - left) / inner) * (to - from);
  let nearest = -1;
  times.forEach((time, at) => {
    if (nearest < 0 || Math.abs(time - wanted) < Math.abs(times[nearest] - wanted)) nearest = at;
  });
  if (nearest < 0 || Math.abs(times[nearest] - wanted) > Math.max(3_000, (to - from) / inner * 3)) return null;
  const x = left + ((times[nearest] - from) / (to - from)) * inner;
  pen.strokeStyle = colour("--quiet");
  pen.beginPath();
  pen.moveTo(x, top);
  pen.lineTo(x, top + tall);
  pen.stroke();
  return nearest;
}

export const clockOf = (ms) => clock(ms, true);
