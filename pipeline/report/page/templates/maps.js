// Response maps on a canvas: upsampling, colors, outlines and boxes.

const PALETTE = bytesOf(DATA.palette); // 256 colors, RGBA
const HIGHEST_OPACITY = Math.max(...PALETTE.filter((_, i) => i % 4 === 3)) / 255;

/** Upsample a map's cells (bytes) with the protocol's weights at every `step`-th pixel: Float32Array (n × n), n = size / step. */
function upsample(gallery, cells, rows, columns, step) {
  const n = Math.floor(gallery.size / step);
  const offset = Math.floor(step / 2);
  const down = gallery.weights[rows], across = gallery.weights[columns];
  // The weights are separable: first across each row of cells, then down the columns.
  const half = new Float32Array(rows * n);
  for (let r = 0; r < rows; r++) {
    for (let x = 0; x < n; x++) {
      const from = (x * step + offset) * columns;
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += across[from + c] * cells[r * columns + c];
      half[r * n + x] = sum / 255;
    }
  }
  const values = new Float32Array(n * n);
  for (let y = 0; y < n; y++) {
    const from = (y * step + offset) * rows;
    for (let r = 0; r < rows; r++) {
      const weight = down[from + r];
      if (weight === 0) continue;
      for (let x = 0; x < n; x++) values[y * n + x] += weight * half[r * n + x];
    }
  }
  return values;
}

const scratch = document.createElement("canvas");

/** Draw a map over the canvas; `opacity` is that of the strongest response. */
function drawHeat(context, values, n, side, opacity) {
  scratch.width = scratch.height = n;
  const inner = scratch.getContext("2d");
  const image = inner.createImageData(n, n);
  for (let i = 0; i < n * n; i++) {
    const color = 4 * Math.round(255 * clamp(values[i], 0, 1));
    image.data[4 * i] = PALETTE[color];
    image.data[4 * i + 1] = PALETTE[color + 1];
    image.data[4 * i + 2] = PALETTE[color + 2];
    image.data[4 * i + 3] = PALETTE[color + 3] * opacity / HIGHEST_OPACITY;
  }
  inner.putImageData(image, 0, 0);
  context.drawImage(scratch, 0, 0, side, side);
}

/** Outline the pixels above `level` with marching squares; everything outside the frame counts as below. */
function drawOutline(context, values, n, side, level, inclusive, width) {
  const inside = (x, y) => {
    if (x < 0 || y < 0 || x >= n || y >= n) return false;
    const value = values[y * n + x];
    return inclusive ? value >= level : value > level;
  };
  const scale = side / n;
  const place = (i) => clamp((i + 0.5) * scale, 0, side);
  const crossing = (x0, y0, x1, y1) => {
    const beyond = (x, y) => x < 0 || y < 0 || x >= n || y >= n;
    if (beyond(x0, y0)) return [place(x0), place(y0)];
    if (beyond(x1, y1)) return [place(x1), place(y1)];
    const a = values[y0 * n + x0], b = values[y1 * n + x1];
    const t = a === b ? 0.5 : clamp((level - a) / (b - a), 0, 1);
    return [place(x0 + t * (x1 - x0)), place(y0 + t * (y1 - y0))];
  };
  context.beginPath();
  for (let y = -1; y < n; y++) {
    for (let x = -1; x < n; x++) {
      const corners = [inside(x, y), inside(x + 1, y), inside(x + 1, y + 1), inside(x, y + 1)];
      if (corners.every((each) => each === corners[0])) continue;
      const points = [];
      if (corners[0] !== corners[1]) points.push(crossing(x, y, x + 1, y));
      if (corners[1] !== corners[2]) points.push(crossing(x + 1, y, x + 1, y + 1));
      if (corners[3] !== corners[2]) points.push(crossing(x, y + 1, x + 1, y + 1));
      if (corners[0] !== corners[3]) points.push(crossing(x, y, x, y + 1));
      for (let i = 0; i + 1 < points.length; i += 2) {
        context.moveTo(...points[i]);
        context.lineTo(...points[i + 1]);
      }
    }
  }
  context.lineCap = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.55)";
  context.lineWidth = width * 2;
  context.stroke();
  context.strokeStyle = "#56b4e9";
  context.lineWidth = width;
  context.stroke();
}

function drawBoxes(context, boxes, side, width) {
  for (const [x0, y0, x1, y1, sounding] of boxes) {
    const shape = [x0 * side, y0 * side, (x1 - x0) * side, (y1 - y0) * side];
    context.setLineDash(sounding ? [] : [4 * width, 3 * width]);
    // A dark line below the white one keeps the box visible on any background.
    context.strokeStyle = "rgba(0, 0, 0, 0.7)";
    context.lineWidth = 2.2 * width;
    context.strokeRect(...shape);
    context.strokeStyle = "#ffffff";
    context.lineWidth = width;
    context.strokeRect(...shape);
  }
  context.setLineDash([]);
}

/** Fill a canvas of one row with the colors from 0 to 1 as they look over a gray image. */
function drawBar(canvas, opacity) {
  const context = canvas.getContext("2d");
  context.fillStyle = "#808080";
  context.fillRect(0, 0, canvas.width, canvas.height);
  scratch.width = 256;
  scratch.height = 1;
  const inner = scratch.getContext("2d");
  const image = inner.createImageData(256, 1);
  image.data.set(PALETTE.map((value, i) => i % 4 === 3 ? value * opacity / HIGHEST_OPACITY : value));
  inner.putImageData(image, 0, 0);
  context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
}
