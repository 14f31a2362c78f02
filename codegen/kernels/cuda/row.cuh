// Kernels that see a whole row at once: layer norm and its gradient, and
// cross-entropy with its gradient. A warp works on a row of up to 1024 columns,
// a block of 256 threads on a longer one. Up to 8192 columns the row stays in
// registers, so that its sources are read once; beyond that they are read again
// at each pass.
#pragma once
#include "reduce.cuh"

// How the threads of a block share rows of COLS columns. 16 threads take a run
// of 128 columns (pointwise.cuh), so a warp takes two runs at a time and a block
// 16 of them. `values` places a thread; place j of the row's thread `id` is the
// slot j * lanes + id, and slots beyond the last column stay empty.
template <int COLS>
struct vg_row_shape {
  static constexpr int lanes = COLS <= 1024 ? 32 : kBlockThreads;  // threads on one row
  static constexpr int rows = kBlockThreads / lanes;               // rows under way in a block
  static constexpr int parts = lanes / 16;                         // runs under way in a row
  static constexpr int steps = vg_run_steps(COLS);
  static constexpr int values = steps * ((vg_runs(COLS) + parts - 1) / parts);
  static constexpr int slots = values * lanes;
  static constexpr bool kept = COLS <= 8192;                       // in registers
  static constexpr int places = kept ? values : 1;                 // of a register array
  static constexpr bool full = COLS % (parts * kRun) == 0;         // no slot is empty

  // The thread's number within its row, the row's within the block, and the
  // column of a thread's place j: a sum of what depends on the thread and of what
  // depends on the place, which becomes the constant part of an address.
  VG_FN static int id() { return vg_thread() & (lanes - 1); }
  VG_FN static int row() { return (int)((uint32_t)vg_thread() / lanes); }
  VG_FN static int first(int id) { return vg_column((id >> 4) * kRun + (id & 15)); }
  VG_FN static int offset(int j) { return j / steps * parts * kRun + j % steps * 16; }
};

// Shared memory in which a block adds up a row's sums; none of it is used by
// rows of one warp.
constexpr int kRowSums = 4;  // at once
constexpr int kRowShared = 2 * kRowSums * (kBlockThreads / 32) * (int)sizeof(float);

// Where the thread starts in a row: at its first column.
template <int T, int COLS>
VG_FN vg_at vg_at_place(int64_t row) {
  vg_at at = vg_at_row<T>(row);
  at.col = vg_row_shape<COLS>::first(vg_row_shape<COLS>::id());
  return at;
}

// Blocks for rows of COLS columns.
template <int COLS>
VG_CONST int64_t vg_row_blocks(int64_t rows) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows, vg_row_shape<COLS>::rows), kMaxBlocks));
}

// Runs f(j) for the first of the thread's places in each run.
template <int COLS, class F>
VG_FN void vg_each_run(const F& f) {
  using shape = vg_row_shape<COLS>;
  if constexpr (shape::kept) {
    VG_UNROLL for (int j = 0; j < shape::values; j += shape::steps) f(j);
  } else {
    VG_NO_UNROLL for (int j = 0; j < shape::values; j += shape::steps) f(j);
  }
}
// Runs f(j, at) for the thread's places in the run that begins with place j.
template <int COLS, class F>
VG_FN void vg_each_place(int j, vg_at at, const F& f) {
  using shape = vg_row_shape<COLS>;
  const int first = at.col;
  VG_UNROLL for (int k = 0; k < shape::steps; k++) {
    at.col = first + shape::offset(j + k);
    if (shape::full || at.col < COLS) f(j + k, at);
  }
}
// Runs f(j, at) for all the thread's places in a row.
template <int COLS, class F>
VG_FN void vg_each_place(vg_at at, const F& f) {
  vg_each_run<COLS>([&](int j) { vg_each_place<COLS>(j, at, f); });
}

// Factors or summands of the places in a run, p[col], or `otherwise` where p is
// NULL: loaded together, ahead of the stores that use them.
template <int COLS>
struct vg_run_values {
  float v[vg_row_shape<COLS>::steps];
  VG_FN vg_run_values(const float* p, int j, vg_at at, float otherwise) {
    VG_UNROLL for (int k = 0; k < vg_row_shape<COLS>::steps; k++) v[k] = otherwise;
    if (p) vg_each_place<COLS>(j, at, [&](int i, vg_at place) { v[i - j] = p[place.col]; });
  }
};

// A row that registers hold, or that is computed again where they do not.
template <int COLS>
struct vg_row_values {
  float v[vg_row_shape<COLS>::places] = {};
  VG_FN void set(int j, float x) {
    if constexpr (vg_row_shape<COLS>::kept) v[j] = x;
  }
  template <class F>
  VG_FN float get(int j, const F& again) const {
    if constexpr (vg_row_shape<COLS>::kept) return v[j];
    else return again();
  }
};

// Sums and maxima over the threads of a row; all of them get the result. Two
// areas of shared memory take turns, so that one barrier each is enough.
template <int COLS>
struct vg_row_team {
  static constexpr int warps = vg_row_shape<COLS>::lanes / 32;
  float* shared;
  int turn = 0;

  VG_FN explicit vg_row_team(char* memory) : shared((float*)memory) {}

  template <int N>
  VG_FN void sum(float (&x)[N]) {
    static_assert(N <= kRowSums, "");
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = vg_warp_sum(x[i]);
    if constexpr (warps > 1) {
      const float* all = exchange(x);
      VG_UNROLL for (int i = 0; i < N; i++) {
        x[i] = 0.0f;
        VG_UNROLL for (int w = 0; w < warps; w++) x[i] += all[i * warps + w];
      }
    }
  }
  VG_FN float max(float x) {
    float most[1] = {vg_warp_max(x)};
    if constexpr (warps > 1) {
      const float* all = exchange(most);
      VG_UNROLL for (int w = 0; w < warps; w++) most[0] = vg_max(all[w], most[0]);
    }
    return most[0];
  }

 private:
  template <int N>
  VG_FN const float* exchange(const float (&x)[N]) {
    float* all = shared + turn * kRowSums * warps;
    turn ^= 1;
    if (vg_lane() == 0)
      VG_UNROLL for (int i = 0; i < N; i++) all[i * warps + vg_warp()] = x[i];
    vg_sync();
    return all;
  }
};

// y = (x - mean) / sqrt(var + eps) * gamma + beta over each row, var the biased
// variance about the computed mean. x: source, y: sink over (row, col), rows of
// T tokens. gamma, beta, mean[rows] and rstd[rows] may be NULL.
template <int T, int COLS, class X, class Y>
VG_FN void vg_layernorm(const vg_call& c, int64_t rows, const X& x, const float* gamma, const float* beta, float eps,
                        float* mean, float* rstd, const Y& y) {
  using shape = vg_row_shape<COLS>;
  constexpr float inv = 1.0f / (float)COLS;
  vg_row_team<COLS> team(vg_shared());
  for (int64_t r = (int64_t)c.block * shape::rows + shape::row(); r < rows; r += (int64_t)c.blocks * shape::rows) {
    const vg_at start = vg_at_place<T, COLS>(r);
    vg_row_values<COLS> row;
    float sum[1] = {0.0f}, squares[1] = {0.0f};
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      const float v = vg_value(x, at);
      row.set(j, v);
      sum[0] += v;
    });
    team.sum(sum);
    const float mu = sum[0] * inv;
    const auto centred = [&](int j, vg_at at) { return row.get(j, [&] { return vg_value(x, at); }) - mu; };
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      const float d = centred(j, at);
      squares[0] = vg_fma(d, d, squares[0]);
    });
    team.sum(squares);
    const float rs = 1.0f / vg_sqrt(squares[0] * inv + eps);
    if (shape::id() == 0) {
      if (mean) mean[r] = mu;
      if (rstd) rstd[r] = rs;
    }
    vg_each_run<COLS>([&](int j) {
      const vg_run_values<COLS> scale(gamma, j, start, 1.0f), shift(beta, j, start, 0.0f);
      vg_each_place<COLS>(j, start, [&](int i, vg_at at) {
        y(vg_fma(centred(i, at) * rs, scale.v[i - j], shift.v[i - j]), at);
      });
    });
  }
}

// The sums over a chunk of rows that a thread keeps for its columns: in shared
// memory, a row of slots for each row under way, or for the longest rows in the
// chunk's partial row itself. No other thread touches them before finish(). If
// not WANTED there are none.
template <int COLS, bool WANTED>
struct vg_place_sums {
  using shape = vg_row_shape<COLS>;
  static constexpr int shared_floats = shape::kept ? shape::rows * shape::slots : 0;
  float* shared;
  float* partial;
  float* sums;

  VG_FN vg_place_sums(float* all, float* chunk) : shared(all), partial(chunk) {
    sums = (shape::kept ? shared + shape::row() * shape::slots : partial) + shape::id();
    if constexpr (WANTED)
      vg_each_run<COLS>([&](int j) {
        VG_UNROLL for (int k = 0; k < shape::steps; k++) sums[(j + k) * shape::lanes] = 0.0f;
      });
  }
  VG_FN void add(int j, float x) {
    if constexpr (WANTED) sums[j * shape::lanes] += x;
  }
  // Leaves the chunk's sums in its partial row: those of the rows under way, in
  // their order. The block must meet once more before the next chunk, which it
  // does in vg_add_partials.
  VG_FN void finish() const {
    if constexpr (!WANTED || !shape::kept) return;
    vg_sync();
    for (int s = vg_thread(); s < shape::slots; s += kBlockThreads) {
      float sum = shared[s];
      VG_UNROLL for (int i = 1; i < shape::rows; i++) sum += shared[i * shape::slots + s];
      partial[s] = sum;
    }
  }
};

// Rows of vg_layernorm_grad are cut into at most 256 chunks, of which each
// leaves a partial row for gamma and one for beta.
constexpr int kNormChunks = 256;
template <int COLS>
VG_CONST int64_t vg_layernorm_grad_blocks(int64_t rows) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows, vg_row_shape<COLS>::rows), kNormChunks));
}
template <int COLS>
VG_CONST int64_t vg_layernorm_grad_workspace(int64_t rows) {
  return 2 * (int64_t)sizeof(float) * vg_row_shape<COLS>::slots * vg_layernorm_grad_blocks<COLS>(rows);
}
constexpr int kNormCounters = vg_partials_counters(kNormChunks);
template <int COLS>
VG_CONST int vg_layernorm_grad_shared() {
  return kRowShared + 16 + 2 * (int)sizeof(float) * vg_place_sums<COLS, true>::shared_floats;
}

// One row of vg_layernorm_grad: dx, and what it adds to the sums of dgamma and
// dbeta.
template <int COLS, class DY, class X, class DX, class G, class B>
VG_FN void vg_layernorm_grad_row(vg_row_team<COLS>& team, vg_at start, const DY& dy, const X& x, float mu, float rs,
                                 const float* gamma, const DX& dx, G& sum_gamma, B& sum_beta) {
  constexpr float inv = 1.0f / (float)COLS;
  vg_row_values<COLS> h, g;  // x and dy at first, then h and g
  float sums[2] = {0.0f, 0.0f};
  if constexpr (vg_row_shape<COLS>::kept)
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      g.set(j, vg_value(dy, at));
      h.set(j, vg_value(x, at));
    });
  vg_each_run<COLS>([&](int j) {
    const vg_run_values<COLS> scale(gamma, j, start, 1.0f);
    vg_each_place<COLS>(j, start, [&](int i, vg_at at) {
      const float d = g.get(i, [&] { return vg_value(dy, at); });
      const float hv = (h.get(i, [&] { return vg_value(x, at); }) - mu) * rs, gv = d * scale.v[i - j];
      sums[0] += gv;
      sums[1] = vg_fma(gv, hv, sums[1]);
      sum_gamma.add(i, d * hv);
      sum_beta.add(i, d);
      h.set(i, hv);
      g.set(i, gv);
    });
  });
  if constexpr (!vg_wanted<DX>) return;
  team.sum(sums);
  const float avg_g = sums[0] * inv, avg_gh = sums[1] * inv;
  vg_each_place<COLS>(start, [&](int j, vg_at at) {
    const float hv = h.get(j, [&] { return (vg_value(x, at) - mu) * rs; });
    const float gv = g.get(j, [&] { return gamma ? vg_value(dy, at) * gamma[at.col] : vg_value(dy, at); });
    dx(rs * (gv - avg_g - hv * avg_gh), at);
  });
}

// The gradient of vg_layernorm, with h = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - avg(g) - h avg(g h)),  dgamma = sum dy h,  dbeta = sum dy.
// dy, x: sources, dx: sink over (row, col); dgamma, dbeta: sinks over (0, col).
// Each sink may be vg_none.
template <int T, int COLS, class DY, class X, class DX, class G, class B>
VG_FN void vg_layernorm_grad(const vg_call& c, int64_t rows, const DY& dy, const X& x, const float* mean,
                             const float* rstd, const float* gamma, const DX& dx, const G& dgamma, const B& dbeta) {
  using shape = vg_row_shape<COLS>;
  constexpr bool want_gamma = vg_wanted<G>, want_beta = vg_wanted<B>;
  constexpr int width = shape::slots * (want_gamma + want_beta);
  vg_row_team<COLS> team(vg_shared());
  uint32_t* vote = (uint32_t*)(vg_shared() + kRowShared);
  float* for_gamma = (float*)(vg_shared() + kRowShared + 16);
  float* for_beta = for_gamma + vg_place_sums<COLS, true>::shared_floats;
  const vg_chunks chunks(rows, shape::rows, kNormChunks);
  for (int i = c.block; i < chunks.count; i += c.blocks) {
    float* partial = (float*)c.workspace + (int64_t)i * width;
    vg_place_sums<COLS, want_gamma> sum_gamma(for_gamma, partial);
    vg_place_sums<COLS, want_beta> sum_beta(for_beta, partial + (want_gamma ? shape::slots : 0));
    for (int64_t r = chunks.begin(i) + shape::row(); r < chunks.end(i); r += shape::rows)
      vg_layernorm_grad_row<COLS>(team, vg_at_place<T, COLS>(r), dy, x, mean[r], rstd[r], gamma, dx, sum_gamma,
                                  sum_beta);
    sum_gamma.finish();
    sum_beta.finish();
    if constexpr (width > 0)
      vg_add_partials((float*)c.workspace, width, i, chunks.count, c.counters, vote, [&](int s, float total) {
        const int slot = s % shape::slots, col = shape::first(slot % shape::lanes) + shape::offset(slot / shape::lanes);
        if (col >= COLS) return;
        if (want_gamma && s < shape::slots)
          dgamma(total, vg_at{0, 0, 0, col, 1});
        else
          dbeta(total, vg_at{0, 0, 0, col, 1});
      });
  }
}

// Two classes share a row: mix is the part of the first. A second class without
// a part is not looked at.
struct vg_mixed_label {
  const int32_t* label;
  const int32_t* label2;
  const float* mix;
};

// What a row is to be: class y, or y and y2 with parts mix and rest, where `two`.
struct vg_target {
  int y, y2;
  float mix, rest;
  bool two;

  VG_FN bool first_valid(int classes) const { return y >= 0 && y < classes; }
  VG_FN bool second_valid(int classes) const { return !two || (y2 >= 0 && y2 < classes); }
};
VG_FN vg_target vg_target_of(const int32_t* label, int64_t r) {
  const int y = label[r];
  return {y, y, 1.0f, 0.0f, false};
}
VG_FN vg_target vg_target_of(const vg_mixed_label& l, int64_t r) {
  const int y = l.label[r], y2 = l.label2[r];
  const float mix = y == y2 ? 1.0f : l.mix[r];
  return {y, y2, mix, 1.0f - mix, mix != 1.0f};
}

// Softmax cross-entropy of batch rows of logits against labels, with PyTorch's
// label smoothing (target (1-s) onehot + s/CLASSES, onehot the mixture of two
// where L is vg_mixed_label instead of a pointer):
//   loss    [batch], not averaged; may be NULL
//   correct [batch], 1 if the lowest index of the largest logit is the (first) label; may be NULL
//   dlogits sink over (row, col): (softmax - target) * step.inv_n; vg_none for none
// Label -1 ignores the row: loss, gradient and correct are 0. Any other label
// out of range is the caller's mistake and yields NaN, never a stray read. A NaN
// among the logits gives NaN and no hit.
template <int CLASSES, class Z, class L, class D>
VG_FN void vg_cross_entropy(const vg_call& c, const Z& logits, const L& label, float smoothing, float* loss,
                            float* correct, const D& dlogits) {
  constexpr bool mixed = sizeof(L) == sizeof(vg_mixed_label);
  using shape = vg_row_shape<CLASSES>;
  const float nan = vg_from_bits(0x7fc00000u), share = smoothing / (float)CLASSES;
  vg_row_team<CLASSES> team(vg_shared());
  for (int64_t r = (int64_t)c.block * shape::rows + shape::row(); r < c.batch(); r += (int64_t)c.blocks * shape::rows) {
    const vg_at start = vg_at_place<1, CLASSES>(r);
    const vg_target to = vg_target_of(label, r);
    const int y = to.y;
    const bool ignored = y == -1, valid = to.first_valid(CLASSES) && to.second_valid(CLASSES);
    vg_row_values<CLASSES> row;
    float most = -vg_infinity();
    vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
      const float z = vg_value(logits, at);
      row.set(j, z);
      most = vg_max(z, most);  // passes a NaN over, which the sum below meets
    });
    most = team.max(most);

    // Of z - max: the label's, the sum of exponentials, the sum, and how many
    // logits before the label are as large as any.
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
      const float d = row.get(j, [&] { return vg_value(logits, at); }) - most, e = vg_exp(d);
      row.set(j, e);
      if (at.col == y) sums[0] = d;
      sums[1] += e;
      sums[2] += d;
      if (at.col < y && d == 0.0f) sums[3] += 1.0f;
    });
    team.sum(sums);
    const float zy = to.first_valid(CLASSES) ? sums[0] : nan, sum = sums[1], log_sum = vg_log(sum);
    float target = zy;
    if constexpr (mixed) {
      float second[1] = {0.0f};
      vg_each_place<CLASSES>(start, [&](int, vg_at at) {
        if (at.col == to.y2) second[0] = vg_value(logits, at) - most;
      });
      team.sum(second);
      if (to.two) target = valid ? to.mix * zy + to.rest * second[0] : nan;
    }
    const float nll = log_sum - target, uniform = log_sum - sums[2] / (float)CLASSES;
    if (shape::id() == 0) {
      // Without smoothing the second term must not meet an infinite logit.
      if (loss) loss[r] = ignored ? 0.0f : smoothing > 0 ? (1 - smoothing) * nll + smoothing * uniform : nll;
      if (correct) correct[r] = sum >= 1.0f && zy == 0.0f && sums[3] == 0.0f ? 1.0f : 0.0f;
    }
    const float scale = ignored ? 0.0f : valid ? c.step().inv_n : nan;
    if constexpr (vg_wanted<D>)
      vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
        const float e = row.get(j, [&] { return vg_exp(vg_value(logits, at) - most); });
        float t = at.col == y ? (1 - smoothing) * to.mix + share : share;
        if (to.two && at.col == to.y2) t = (1 - smoothing) * to.rest + share;
        const float d = (e / sum - t) * scale;
        dlogits(ignored ? 0.0f : d, at);  // not 0 * d: an ignored row may hold NaN
      });
  }
}
